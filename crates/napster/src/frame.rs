//! Framing: two little-endian 16-bit numbers, the length of the data and the type, then the data.

/// Bytes before the data.
pub const HEADER: usize = 4;
/// Data of one message at most, as OpenNap's servers have it by default; bytes.
pub const MAX_DATA: usize = 2048;

/// A message longer than the receiver takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of type {kind} announces {len} bytes, the most is {limit}")]
pub struct TooLong {
    /// Its type.
    pub kind: u16,
    /// Bytes it announces.
    pub len: usize,
    /// Bytes allowed.
    pub limit: usize,
}

/// One message as it stands in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The type; [`crate::kind`] names them.
    pub kind: u16,
    /// The data.
    pub data: &'a [u8],
}

/// The first message of `buf` and how many bytes it takes; none if it is not whole yet.
pub fn decode(buf: &[u8], limit: usize) -> Result<Option<(Frame<'_>, usize)>, TooLong> {
    let Some((&[l0, l1, k0, k1], rest)) = buf.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let len = usize::from(u16::from_le_bytes([l0, l1]));
    let kind = u16::from_le_bytes([k0, k1]);
    if len > limit {
        return Err(TooLong { kind, len, limit });
    }
    let frame = rest.get(..len).map(|data| Frame { kind, data });
    Ok(frame.map(|frame| (frame, HEADER + len)))
}

/// Appends one message; data beyond 65,535 bytes is cut off.
pub fn encode(kind: u16, data: &[u8], out: &mut Vec<u8>) {
    write(kind, out, |out| out.extend_from_slice(data));
}

/// Appends one message whose data `fill` appends; data beyond 65,535 bytes is cut off.
pub fn write(kind: u16, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; HEADER]);
    fill(out);
    let most = usize::from(u16::MAX);
    let len = (out.len() - at - HEADER).min(most);
    out.truncate(at + HEADER + len);
    let [l0, l1] = (len as u16).to_le_bytes();
    let [k0, k1] = kind.to_le_bytes();
    if let Some(header) = out.get_mut(at..at + HEADER) {
        header.copy_from_slice(&[l0, l1, k0, k1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(kind: u16, data in proptest::collection::vec(any::<u8>(), 0..3000), tail: Vec<u8>) {
            let mut bytes = Vec::new();
            encode(kind, &data, &mut bytes);
            let len = bytes.len();
            for cut in [0, 3, len - 1] {
                prop_assert_eq!(decode(&bytes[..cut.min(len - 1)], 65_535), Ok(None));
            }
            bytes.extend(tail);
            prop_assert_eq!(decode(&bytes, 65_535), Ok(Some((Frame { kind, data: &data }, len))));
            let short = decode(&bytes, MAX_DATA);
            prop_assert_eq!(short.is_err(), data.len() > MAX_DATA);
        }
    }
}
