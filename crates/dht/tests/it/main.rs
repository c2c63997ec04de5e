//! The overlays in virtual time, on links that delay and lose.

mod chord;
mod mainline;
