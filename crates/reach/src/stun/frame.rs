//! Where a message ends on a stream (RFC 8489 §6.2.2, RFC 8656 §12.5): STUN messages and channel data
//! one after another, each padded to four bytes.

use super::message::HEADER;

/// Bytes before channel data: channel and length.
pub const CHANNEL_HEADER: usize = 4;

/// One unit of a stream, or a whole datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A STUN message, not yet decoded.
    Stun(&'a [u8]),
    /// Data of a channel.
    Channel {
        /// The channel's number, 0x4000 to 0x7fff.
        number: u16,
        /// The data, without padding.
        data: &'a [u8],
    },
}

/// What comes is neither STUN nor channel data: the stream cannot be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither STUN nor channel data begins like this, with byte {0:#04x}")]
pub struct NotFramed(pub u8);

/// Looks at the front of a stream: the frame that begins there and how many bytes it takes, or
/// nothing if more must come.
pub fn next_frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, NotFramed> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    if first > 0x7f {
        return Err(NotFramed(first));
    }
    let &[b0, b1, l0, l1, ..] = bytes else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    if first < 0x40 {
        // What is not STUN is not waited for: TLS begins like a message that is still coming.
        if !matches!(bytes.get(4..8), None | Some([0x21, 0x12, 0xa4, 0x42])) {
            return Err(NotFramed(first));
        }
        let whole = HEADER + len;
        // A length that is no multiple of four is refused when the message is decoded.
        return Ok(bytes.get(..whole).map(|m| (Frame::Stun(m), whole)));
    }
    let padded = CHANNEL_HEADER + len.next_multiple_of(4);
    if bytes.len() < padded {
        return Ok(None);
    }
    let number = u16::from_be_bytes([b0, b1]);
    let data = bytes.get(CHANNEL_HEADER..CHANNEL_HEADER + len);
    Ok(data.map(|data| (Frame::Channel { number, data }, padded)))
}

/// What a datagram is. Channel data need not be padded there, and what follows it is padding.
pub fn datagram_frame(bytes: &[u8]) -> Option<Frame<'_>> {
    match *bytes {
        [0..=0x3f, ..] => Some(Frame::Stun(bytes)),
        [c @ 0x40..=0x7f, n, l0, l1, ref rest @ ..] => {
            let data = rest.get(..usize::from(u16::from_be_bytes([l0, l1])))?;
            let number = u16::from_be_bytes([c, n]);
            Some(Frame::Channel { number, data })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stream_falls_into_its_frames_wherever_it_is_cut() {
        let mut stream = vec![0, 1, 0, 4, 0x21, 0x12, 0xa4, 0x42];
        stream.extend([9; 16]);
        stream.extend([0x40, 2, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0]);
        let (first, used) = next_frame(&stream).unwrap().unwrap();
        assert_eq!((first, used), (Frame::Stun(&stream[..24]), 24));
        for len in 24..stream.len() {
            assert_eq!(next_frame(&stream[24..len]), Ok(None));
        }
        let number = 0x4002;
        let data: &[u8] = &[1, 2, 3, 4, 5];
        assert_eq!(
            next_frame(&stream[24..]),
            Ok(Some((Frame::Channel { number, data }, 12)))
        );
        assert_eq!(
            datagram_frame(&stream[24..33]),
            Some(Frame::Channel { number, data })
        );
        assert_eq!(datagram_frame(&stream[24..32]), None);
        assert_eq!(next_frame(&[0x80]), Err(NotFramed(0x80)));
        assert_eq!(
            next_frame(&[0x16, 3, 1, 2, 0, 1, 0, 1]),
            Err(NotFramed(0x16))
        );
    }

    proptest! {
        #[test]
        fn no_frame_is_longer_than_what_came(bytes: Vec<u8>) {
            if let Ok(Some((_, used))) = next_frame(&bytes) {
                prop_assert!((4..=bytes.len()).contains(&used));
            }
            let _ = datagram_frame(&bytes);
        }
    }
}
