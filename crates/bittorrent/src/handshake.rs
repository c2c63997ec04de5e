//! The first 68 bytes of a connection (BEP 3).
//!
//! ```text
//! 19 "BitTorrent protocol"   reserved (8)   info-hash (20)   peer id (20)
//! ```

use shoal_base::{InfoHash, PeerId};

/// Bytes of a handshake.
pub const HANDSHAKE_LEN: usize = 68;

const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// The bits of the reserved bytes that we know; the others are sent as zero and ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reserved {
    /// Extension protocol (BEP 10): byte 5, bit 0x10.
    pub extension: bool,
    /// Fast extension (BEP 6): byte 7, bit 0x04.
    pub fast: bool,
    /// DHT (BEP 5): byte 7, bit 0x01.
    pub dht: bool,
    /// The torrent has a v2 info-hash too (BEP 52): byte 7, bit 0x10.
    pub v2: bool,
}

impl Reserved {
    fn to_bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[5] = u8::from(self.extension) << 4;
        bytes[7] = u8::from(self.fast) << 2 | u8::from(self.dht) | u8::from(self.v2) << 4;
        bytes
    }

    fn from_bytes(bytes: [u8; 8]) -> Self {
        let [_, _, _, _, _, five, _, seven] = bytes;
        Self {
            extension: five & 0x10 != 0,
            fast: seven & 0x04 != 0,
            dht: seven & 0x01 != 0,
            v2: seven & 0x10 != 0,
        }
    }

    /// What holds on a connection: the bits that both ends set.
    pub fn both(self, other: Self) -> Self {
        Self {
            extension: self.extension && other.extension,
            fast: self.fast && other.fast,
            dht: self.dht && other.dht,
            v2: self.v2 && other.v2,
        }
    }
}

/// What each end says first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// The torrent that the connection is for.
    pub info_hash: InfoHash,
    /// Who is speaking.
    pub peer_id: PeerId,
    /// What it understands.
    pub reserved: Reserved,
}

/// The bytes are not a BitTorrent handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a BitTorrent handshake: byte {at} differs from the protocol's name")]
pub struct NotBitTorrent {
    /// The first byte that differs.
    pub at: usize,
}

/// Whether `buf`, as far as it goes, begins like a handshake: lets a stranger be refused at the
/// first wrong byte.
pub fn check_prefix(buf: &[u8]) -> Result<(), NotBitTorrent> {
    match buf.iter().zip(PROTOCOL).position(|(a, b)| a != b) {
        Some(at) => Err(NotBitTorrent { at }),
        None => Ok(()),
    }
}

impl Handshake {
    /// The handshake as sent.
    pub fn encode(&self) -> [u8; HANDSHAKE_LEN] {
        let mut bytes = [0; HANDSHAKE_LEN];
        bytes[..20].copy_from_slice(PROTOCOL);
        bytes[20..28].copy_from_slice(&self.reserved.to_bytes());
        bytes[28..48].copy_from_slice(self.info_hash.as_bytes());
        bytes[48..].copy_from_slice(&self.peer_id.0);
        bytes
    }

    /// Reads a handshake.
    pub fn decode(bytes: &[u8; HANDSHAKE_LEN]) -> Result<Self, NotBitTorrent> {
        check_prefix(bytes)?;
        let (mut reserved, mut info_hash, mut peer_id) = ([0; 8], [0; 20], [0; 20]);
        reserved.copy_from_slice(&bytes[20..28]);
        info_hash.copy_from_slice(&bytes[28..48]);
        peer_id.copy_from_slice(&bytes[48..]);
        Ok(Self {
            info_hash: InfoHash(info_hash),
            peer_id: PeerId(peer_id),
            reserved: Reserved::from_bytes(reserved),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            bits in any::<[bool; 4]>(),
            hash in any::<[u8; 20]>(),
            id in any::<[u8; 20]>(),
        ) {
            let [extension, fast, dht, v2] = bits;
            let sent = Handshake {
                info_hash: InfoHash(hash),
                peer_id: PeerId(id),
                reserved: Reserved { extension, fast, dht, v2 },
            };
            prop_assert_eq!(Handshake::decode(&sent.encode()), Ok(sent));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 68)) {
            let bytes: [u8; 68] = bytes.try_into().unwrap();
            prop_assert_eq!(Handshake::decode(&bytes).is_ok(), bytes.starts_with(PROTOCOL));
        }
    }

    #[test]
    fn reserved_bits_are_where_the_specifications_put_them() {
        let all = Reserved {
            extension: true,
            fast: true,
            dht: true,
            v2: true,
        };
        assert_eq!(all.to_bytes(), [0, 0, 0, 0, 0, 0x10, 0, 0x15]);
        assert_eq!(all.both(Reserved::default()), Reserved::default());
    }

    #[test]
    fn a_stranger_is_told_by_its_first_wrong_byte() {
        assert_eq!(check_prefix(b""), Ok(()));
        assert_eq!(check_prefix(b"\x13BitT"), Ok(()));
        assert_eq!(check_prefix(b"\x13BitX"), Err(NotBitTorrent { at: 4 }));
        assert_eq!(check_prefix(b"GET /"), Err(NotBitTorrent { at: 0 }));
    }
}
