//! STUN (RFC 8489): the messages that TURN (RFC 8656) and ICE (RFC 8445) are made of.
//!
//! ```text
//!  0                   1                   2                   3
//!  |0 0|  method and class       |        length of what follows   |
//!  |                    magic cookie 2112a442                      |
//!  |                  transaction id, 96 bits                      |
//!  |  attributes: type, length, value, padding to four bytes ...   |
//! ```
//!
//! A message is decoded in place and borrows the datagram. Strings are taken as they come: neither
//! SASLprep nor OpaqueString is applied.

mod address;
mod attribute;
pub mod binding;
mod build;
mod frame;
mod key;
mod message;
mod method;
mod transaction;

pub(crate) use address::xor_address_value;
pub use address::{get_address, get_xor_address};
pub use attribute::{Attribute, BadAttribute, Reason, kind};
pub use build::Builder;
pub use frame::{CHANNEL_HEADER, Frame, NotFramed, datagram_frame, next_frame};
pub use key::{Algorithm, Key, user_hash};
pub use message::{
    Attributes, DecodeError, HEADER, MAGIC, MAX_ATTRIBUTES, Message, TransactionId, looks_like_stun,
};
pub(crate) use method::message_type;
pub use method::{Class, Method};
pub use transaction::{Step, Timing, Transaction};

#[cfg(test)]
mod tests;
