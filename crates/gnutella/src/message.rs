//! Messages: the header of 23 bytes, the limits of each kind, and the kinds' payloads.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use shoal_base::{Cursor, cursor::Truncated};

use crate::guid::Guid;

pub mod bye;
pub mod hit;
pub mod ping;
pub mod probe;
pub mod push;
pub mod query;
pub mod route;
pub mod vendor;

/// Bytes of a header.
pub const HEADER: usize = 23;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// 0x00: who is there?
    Ping,
    /// 0x01: a host, in answer to a ping.
    Pong,
    /// 0x02: why the connection is about to be closed.
    Bye,
    /// 0x30: an update of a query routing table.
    Route,
    /// 0x31: a vendor's message.
    Vendor,
    /// 0x32: a vendor's message that became a standard.
    Standard,
    /// 0x40: a request to connect and offer a file.
    Push,
    /// 0x80: who has this?
    Query,
    /// 0x81: files, in answer to a query.
    Hit,
}

impl Kind {
    /// The kind with this number on the wire, if it is known.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0x00 => Self::Ping,
            0x01 => Self::Pong,
            0x02 => Self::Bye,
            0x30 => Self::Route,
            0x31 => Self::Vendor,
            0x32 => Self::Standard,
            0x40 => Self::Push,
            0x80 => Self::Query,
            0x81 => Self::Hit,
            _ => return None,
        })
    }

    /// Its number on the wire.
    pub fn byte(self) -> u8 {
        match self {
            Self::Ping => 0x00,
            Self::Pong => 0x01,
            Self::Bye => 0x02,
            Self::Route => 0x30,
            Self::Vendor => 0x31,
            Self::Standard => 0x32,
            Self::Push => 0x40,
            Self::Query => 0x80,
            Self::Hit => 0x81,
        }
    }

    /// Bytes of payload that are read at most: room for what other programs send, and no more.
    pub fn most(self) -> usize {
        match self {
            Self::Ping | Self::Push => 1024,
            Self::Pong | Self::Bye | Self::Query => 4096,
            Self::Vendor | Self::Standard => 16 << 10,
            Self::Route | Self::Hit => MAX_PAYLOAD,
        }
    }
}

/// Bytes of payload that anybody reads at most.
pub const MAX_PAYLOAD: usize = 64 << 10;

/// Why a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends early.
    #[error("ends early: {0}")]
    Truncated(#[from] Truncated),
    /// A text without its end.
    #[error("a text without an end")]
    Unterminated,
    /// A number that cannot be.
    #[error("{0} out of range")]
    Range(&'static str),
    /// More than this kind may have.
    #[error("{len} bytes of payload, the most is {most}")]
    TooLong {
        /// The length it claims.
        len: usize,
        /// The most there may be.
        most: usize,
    },
    /// A block of extensions that cannot be read.
    #[error("extensions: {0}")]
    Ggep(#[from] crate::ggep::GgepError),
}

/// What stands before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Names the message, or what it answers.
    pub guid: Guid,
    /// What it is: a [`Kind`]'s number, or another.
    pub kind: u8,
    /// How many more hops it may take.
    pub ttl: u8,
    /// How many it took.
    pub hops: u8,
    /// Bytes of payload.
    pub len: usize,
}

impl Header {
    /// Reads one and checks the payload's length against the limit of the kind.
    ///
    /// # Errors
    /// It ends early, or claims too long a payload.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut c = Cursor::new(bytes);
        let guid = Guid(c.array()?);
        let [kind, ttl, hops] = c.array()?;
        let len = c.u32_le()? as usize;
        let most = Kind::from_byte(kind).map_or(MAX_PAYLOAD, Kind::most);
        if len > most {
            return Err(Malformed::TooLong { len, most });
        }
        Ok(Self {
            guid,
            kind,
            ttl,
            hops,
            len,
        })
    }

    /// What it is, if known.
    pub fn known(&self) -> Option<Kind> {
        Kind::from_byte(self.kind)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.guid.0);
        out.extend_from_slice(&[self.kind, self.ttl, self.hops]);
        let len = u32::try_from(self.len).unwrap_or(u32::MAX);
        out.extend_from_slice(&len.to_le_bytes());
    }
}

/// A whole message, header and payload, as it goes over the wire. Copies share their bytes, so that
/// one that goes to many neighbours is in memory once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet(Arc<[u8]>);

impl Packet {
    /// One with this header and payload; `header.len` is set right.
    pub fn new(header: Header, payload: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(HEADER + payload.len());
        let len = payload.len();
        Header { len, ..header }.write(&mut bytes);
        bytes.extend_from_slice(payload);
        Self(bytes.into())
    }

    /// One of our own: no hops taken yet.
    pub fn ours(kind: Kind, guid: Guid, ttl: u8, payload: &[u8]) -> Self {
        let header = Header {
            guid,
            kind: kind.byte(),
            ttl,
            hops: 0,
            len: 0,
        };
        Self::new(header, payload)
    }

    /// All its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its header.
    pub fn header(&self) -> Header {
        // What `new` wrote is readable; a default would be a ping that goes nowhere.
        Header::read(&self.0).unwrap_or(Header {
            guid: Guid::default(),
            kind: 0,
            ttl: 0,
            hops: 0,
            len: 0,
        })
    }

    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        self.0.get(HEADER..).unwrap_or_default()
    }
}

/// Cuts a stream of bytes into messages.
#[derive(Debug, Default)]
pub struct Reader {
    held: Vec<u8>,
    read: usize,
}

impl Reader {
    /// Takes what came in.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.read > 0 {
            self.held.drain(..self.read);
            self.read = 0;
        }
        self.held.extend_from_slice(bytes);
    }

    /// The next whole message, if there is one.
    ///
    /// # Errors
    /// A header that claims too much: the stream cannot be followed any more.
    pub fn message(&mut self) -> Result<Option<(Header, &[u8])>, Malformed> {
        let rest = self.held.get(self.read..).unwrap_or_default();
        if rest.len() < HEADER {
            return Ok(None);
        }
        let header = Header::read(rest)?;
        let Some(payload) = rest.get(HEADER..HEADER + header.len) else {
            return Ok(None);
        };
        self.read += HEADER + header.len;
        Ok(Some((header, payload)))
    }
}

/// Reads an address as pings and hits have it: port little-endian, then the address.
pub(crate) fn port_and_ip(c: &mut Cursor<'_>) -> Result<SocketAddrV4, Truncated> {
    let port = c.u16_le()?;
    Ok(SocketAddrV4::new(Ipv4Addr::from(c.array::<4>()?), port))
}

/// Reads an address, then a port little-endian.
pub(crate) fn ip_and_port(c: &mut Cursor<'_>) -> Result<SocketAddrV4, Truncated> {
    let ip = Ipv4Addr::from(c.array::<4>()?);
    Ok(SocketAddrV4::new(ip, c.u16_le()?))
}

/// Reads lists of six bytes each: address, then port little-endian (GGEP `IPP`, `PUSH`, `ALT`).
/// What is left over at the end is ignored.
pub fn read_addresses(bytes: &[u8]) -> impl Iterator<Item = SocketAddrV4> + '_ {
    bytes.chunks_exact(6).filter_map(|six| {
        let (ip, port) = six.split_first_chunk::<4>()?;
        let port = u16::from_le_bytes(port.try_into().ok()?);
        Some(SocketAddrV4::new(Ipv4Addr::from(*ip), port))
    })
}

/// Writes an address as [`read_addresses`] reads it.
pub fn write_address(addr: SocketAddrV4, out: &mut Vec<u8>) {
    out.extend_from_slice(&addr.ip().octets());
    out.extend_from_slice(&addr.port().to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_is_laid_out_as_0_4_says() {
        let packet = Packet::ours(Kind::Query, Guid([7; 16]), 4, &[0, 0, b'x', 0]);
        assert_eq!(packet.bytes().len(), 27);
        assert_eq!(&packet.bytes()[16..23], &[0x80, 4, 0, 4, 0, 0, 0]);
        assert_eq!(packet.payload(), &[0, 0, b'x', 0]);
    }

    #[test]
    fn a_length_beyond_the_kinds_limit_is_refused_before_it_is_waited_for() {
        let header = Header {
            guid: Guid::default(),
            kind: 0,
            ttl: 1,
            hops: 0,
            len: 1025,
        };
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        let mut reader = Reader::default();
        reader.push(&bytes);
        assert_eq!(
            reader.message(),
            Err(Malformed::TooLong {
                len: 1025,
                most: 1024
            })
        );
    }

    proptest! {
        #[test]
        fn messages_come_out_of_any_pieces(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 1..8),
            cut in 1_usize..40,
        ) {
            let all: Vec<Packet> = payloads
                .iter()
                .map(|p| Packet::ours(Kind::Query, Guid([1; 16]), 3, p))
                .collect();
            let stream: Vec<u8> = all.iter().flat_map(|p| p.bytes().to_vec()).collect();
            let mut reader = Reader::default();
            let mut got = Vec::new();
            for piece in stream.chunks(cut) {
                reader.push(piece);
                while let Some((header, payload)) = reader.message().unwrap() {
                    got.push(Packet::new(header, payload));
                }
            }
            prop_assert_eq!(got, all);
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut reader = Reader::default();
            reader.push(&bytes);
            while let Ok(Some((header, payload))) = reader.message() {
                prop_assert_eq!(header.len, payload.len());
            }
        }

        #[test]
        fn addresses_round_trip(list in prop::collection::vec(any::<([u8; 4], u16)>(), 0..9)) {
            let list: Vec<SocketAddrV4> = list
                .iter()
                .map(|(ip, port)| SocketAddrV4::new((*ip).into(), *port))
                .collect();
            let mut bytes = Vec::new();
            for addr in &list {
                write_address(*addr, &mut bytes);
            }
            bytes.push(1);
            prop_assert_eq!(read_addresses(&bytes).collect::<Vec<_>>(), list);
        }
    }
}
