//! Packets that are larger than what carries them go in two pieces.
//!
//! A browser's DTLS fills 1,200 bytes, a datagram of a QUIC connection holds less (RFC 9221). A piece
//! begins with a byte that none of STUN, DTLS, TURN, QUIC and RTP begins with (RFC 9443, 2): 192 for
//! the first, 193 for the second; then comes the packet's number, modulo 256.

use std::borrow::Cow;
use std::collections::VecDeque;

/// Bytes of a packet that goes as it is, and of a piece.
const WHOLE: usize = 1100;
const FIRST: u8 = 192;
const SECOND: u8 = 193;
/// Bytes before a piece.
const HEADER: usize = 2;
/// Pieces kept whose other half has not come.
const MOST_HALVES: usize = 8;

/// Makes pieces of what is too large.
#[derive(Debug, Default)]
pub struct Splitter {
    number: u8,
}

impl Splitter {
    /// Sends a packet as one, or as two; one that is too large for two is lost.
    pub fn split(&mut self, packet: &[u8], mut send: impl FnMut(&[u8])) {
        if packet.len() <= WHOLE {
            return send(packet);
        }
        let (first, second) = packet.split_at(WHOLE);
        if second.len() > WHOLE {
            return;
        }
        self.number = self.number.wrapping_add(1);
        for (kind, part) in [(FIRST, first), (SECOND, second)] {
            let mut piece = Vec::with_capacity(HEADER + part.len());
            piece.extend([kind, self.number]);
            piece.extend(part);
            send(&piece);
        }
    }
}

/// Makes packets of pieces.
#[derive(Debug, Default)]
pub struct Joiner {
    /// Kind, number and bytes of those that wait for their other half.
    halves: VecDeque<(u8, u8, Vec<u8>)>,
}

impl Joiner {
    /// Takes what came; the packet, if it is whole.
    pub fn join<'a>(&mut self, came: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let (kind, number, part) = match came {
            [kind @ (FIRST | SECOND), number, part @ ..] => (*kind, *number, part),
            _ => return Some(Cow::Borrowed(came)),
        };
        let other = |h: &(u8, u8, Vec<u8>)| h.0 != kind && h.1 == number;
        let Some(at) = self.halves.iter().position(other) else {
            if part.len() <= WHOLE {
                self.halves.push_back((kind, number, part.to_vec()));
            }
            if self.halves.len() > MOST_HALVES {
                self.halves.pop_front();
            }
            return None;
        };
        let (_, _, kept) = self.halves.remove(at)?;
        let (mut packet, rest) = match kind {
            FIRST => (part.to_vec(), kept.as_slice()),
            _ => (kept.clone(), part),
        };
        packet.extend(rest);
        Some(Cow::Owned(packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(splitter: &mut Splitter, packet: &[u8]) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        splitter.split(packet, |p| sent.push(p.to_vec()));
        sent
    }

    #[test]
    fn large_packets_come_whole_in_any_order() {
        let (mut splitter, mut joiner) = (Splitter::default(), Joiner::default());
        let packet: Vec<u8> = (0..1250u32).map(|n| n as u8).collect();
        let mut sent = pieces(&mut splitter, &packet);
        assert_eq!(sent.len(), 2);
        assert!(sent.iter().all(|p| p.len() <= WHOLE + HEADER));
        sent.reverse();
        assert_eq!(joiner.join(&sent[0]), None);
        assert_eq!(joiner.join(&sent[1]).as_deref(), Some(packet.as_slice()));
        // What has no other half does not stay for ever.
        for _ in 0..300 {
            let sent = pieces(&mut splitter, &packet);
            assert_eq!(joiner.join(&sent[0]), None);
        }
        assert_eq!(joiner.halves.len(), MOST_HALVES);
        assert!(pieces(&mut splitter, &[20; 3000]).is_empty());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_bounded(came in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut joiner = Joiner::default();
            if let Some(packet) = joiner.join(&came) {
                prop_assert_eq!(packet.as_ref(), came.as_slice());
            }
        }
    }
}
