//! Messages between master and workers as bytes.
//!
//! ```text
//! frame := length of what follows (u32, little endian) | version (u8) | message
//! ```
//!
//! The message is in the postcard format (variable-length integers, fields in order, no names).
//! Decoding is total: any bytes give a message or an error, lengths are checked before anything is
//! allocated for them. `docs/protocols/mapreduce.md` has the rules.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version this program speaks. A change to any message makes a new one.
pub const VERSION: u8 = 2;
/// Bytes of a frame before the version.
pub const LENGTH_BYTES: usize = 4;
/// The longest frame that is read, its length field apart.
pub const FRAME_MAX: usize = 64 << 20;

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The length field promises too much, or nothing at all.
    #[error("a frame of {0} bytes; the longest is {FRAME_MAX}, the shortest 1")]
    Length(usize),
    /// The other end speaks another version.
    #[error("the other end speaks version {0} of the protocol, this program version {VERSION}")]
    Version(u8),
    /// The bytes do not make sense.
    #[error("malformed message: {0}")]
    Malformed(postcard::Error),
    /// The message is over before the frame is.
    #[error("{0} bytes are left after the message")]
    Trailing(usize),
}

/// Appends a message as one frame.
///
/// # Errors
/// When it is longer than [`FRAME_MAX`]; nothing is appended.
pub fn encode<M: Serialize>(message: &M, out: &mut Vec<u8>) -> Result<(), WireError> {
    let body = postcard::to_allocvec(message).map_err(WireError::Malformed)?;
    let length = body.len() + 1;
    let Some(prefix) = u32::try_from(length).ok().filter(|_| length <= FRAME_MAX) else {
        return Err(WireError::Length(length));
    };
    out.reserve(LENGTH_BYTES + length);
    out.extend_from_slice(&prefix.to_le_bytes());
    out.push(VERSION);
    out.extend_from_slice(&body);
    Ok(())
}

/// The length of the first frame of `bytes` in all; nothing while that is not known.
///
/// # Errors
/// When no frame may be that long.
pub fn frame_len(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    let Some(prefix) = bytes.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*prefix) as usize;
    if !(1..=FRAME_MAX).contains(&length) {
        return Err(WireError::Length(length));
    }
    Ok(Some(LENGTH_BYTES + length))
}

/// Reads the first message of `bytes`, and how many bytes it took; nothing if it is not all there.
///
/// # Errors
/// When the bytes are no message; the connection is of no use any more.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<Option<(M, usize)>, WireError> {
    let Some(length) = frame_len(bytes)? else {
        return Ok(None);
    };
    if let Some(&version) = bytes.get(LENGTH_BYTES)
        && version != VERSION
    {
        return Err(WireError::Version(version));
    }
    let Some(body) = bytes.get(LENGTH_BYTES + 1..length) else {
        return Ok(None);
    };
    let (message, rest) = postcard::take_from_bytes(body).map_err(WireError::Malformed)?;
    match rest.len() {
        0 => Ok(Some((message, length))),
        left => Err(WireError::Trailing(left)),
    }
}
