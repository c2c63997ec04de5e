//! The small, stable ground every other crate stands on: time, seeded randomness, identifiers,
//! bencode, base32, which addresses may be named, names of contents by hash, a checked byte cursor, bitfields, token buckets, dates, comparing
//! secrets, words.
//!
//! Knows no protocol, reads no clock, opens no socket and no file.

pub mod address;
pub mod base32;
pub mod bencode;
pub mod bitfield;
pub mod bucket;
pub mod cursor;
pub mod date;
pub mod id;
pub mod machine;
pub mod rate;
pub mod rng;
pub mod secret;
pub mod time;
pub mod urn;
pub mod words;

pub use bitfield::Bitfield;
pub use bucket::TokenBucket;
pub use cursor::{Cursor, Truncated};
pub use date::Date;
pub use id::{InfoHash, InfoHashV2, PeerId};
pub use machine::Machine;
pub use rate::RateMeter;
pub use rng::Rng;
pub use time::Time;
pub use urn::Urn;
