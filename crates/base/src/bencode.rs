//! Bencode (BEP 3): reading without copying, writing canonically.
//!
//! The reader borrows from the input, bounds its depth, and keeps each dictionary's raw bytes, so
//! that an info-hash is taken over exactly what was sent. Keys out of order are accepted (real
//! files have them) and reported by [`Dict::is_sorted`]; repeated keys are not.

mod decode;
mod encode;

pub use decode::{BencodeError, Dict, Value, decode, decode_prefix};
pub use encode::Encoder;

#[cfg(test)]
mod tests;
