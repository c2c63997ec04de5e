//! Frames of [`shoal_mapreduce::wire`] on streams.

use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_mapreduce::wire::{self, LENGTH_BYTES, WireError};
use std::io::{self, Read, Write};

fn bad(error: WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Writes one message.
///
/// # Errors
/// When it is too long or the stream fails.
pub fn write<M: Serialize>(to: &mut impl Write, message: &M) -> io::Result<()> {
    let mut bytes = Vec::new();
    wire::encode(message, &mut bytes).map_err(bad)?;
    to.write_all(&bytes)
}

/// Reads one message.
///
/// # Errors
/// When the stream ends or what comes is none.
pub fn read<M: DeserializeOwned>(from: &mut impl Read) -> io::Result<M> {
    read_up_to(from, wire::FRAME_MAX)
}

/// Reads one message of at most `max` bytes.
///
/// # Errors
/// As for [`read`], and when it is longer.
pub fn read_up_to<M: DeserializeOwned>(from: &mut impl Read, max: usize) -> io::Result<M> {
    let mut bytes = vec![0; LENGTH_BYTES];
    from.read_exact(&mut bytes)?;
    let whole = wire::frame_len(&bytes).map_err(bad)?;
    let left = whole.unwrap_or_default().saturating_sub(LENGTH_BYTES);
    if left > max {
        return Err(bad(WireError::Length(left)));
    }
    // Grows as bytes come, so that a length alone costs nothing.
    from.take(left as u64).read_to_end(&mut bytes)?;
    match wire::decode(&bytes).map_err(bad)? {
        Some((message, _)) => Ok(message),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
