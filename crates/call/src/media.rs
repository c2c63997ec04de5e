//! Sound on its way: [`Sender`] makes packets of it, [`Receiver`] makes sound of packets that come
//! late, twice, out of order or not at all; [`Adaptation`] finds the bit rate that the path bears.
//!
//! Sound is 16 bits, one channel, 48 kHz throughout; packets hold 20 ms of it (RFC 7587).
//!
//! ```text
//!  codec      Opus (RFC 6716)
//!  sender     frames of sound to packets
//!  delay      how late packets come, and how long to wait for them
//!  receiver   packets to sound: order, loss, playing faster or slower
//!  stretch    a few milliseconds more or less of the same sound
//!  adapt      bit rate by loss and delay
//!  resample   sound at another rate
//!  binding    offers and answers, signed; the digits to compare
//!  session    one call over WebRTC
//!  card       between a sound card and a call: two clocks, two threads
//!  mixer      several voices at one end
//!  host       which end mixes for many
//!  say        lines that the two ends exchange beside the sound
//!  passage    a browser's packets through its node
//!  pieces     packets that are too large for what carries them
//! ```

pub mod adapt;
pub mod binding;
pub mod card;
pub mod codec;
pub mod delay;
pub mod host;
pub mod mixer;
pub mod passage;
pub mod pieces;
pub mod receiver;
pub mod resample;
pub mod say;
pub mod sender;
pub mod session;
pub mod stretch;

pub use adapt::{Adaptation, PathReport};
pub use codec::{CodecError, Decoder, Encoder};
pub use receiver::{Packet, Receiver, ReceiverStats};
pub use sender::{Sender, Sent};

/// Samples a second.
pub const RATE: u32 = 48_000;
/// Samples of a packet: 20 ms.
pub const FRAME: usize = 960;
/// Microseconds of a packet.
pub const FRAME_MICROS: u64 = 20_000;
/// Bytes of a packet's sound at most; Opus itself goes to 1275 for 20 ms.
pub const MAX_PAYLOAD: usize = 1275;

/// Microseconds of so many samples.
pub(crate) const fn micros(samples: u64) -> u64 {
    samples.saturating_mul(1000) / 48
}

#[cfg(test)]
mod tests;
