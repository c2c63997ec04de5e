//! Metadata from peers (BEP 9): the info dictionary of a magnet link, in pieces of 16 KiB.
//!
//! Here are the messages and the serving side; [`MetadataFetch`] asks for it and verifies it.

mod fetch;

pub use fetch::{MetadataFetch, MetadataOutput};

use crate::extension::ExtensionError;
use shoal_base::bencode::{self, Encoder};
use shoal_base::{Time, TokenBucket};

/// Largest metadata accepted, in bytes: 1.6 million v1 pieces.
pub const MAX_METADATA_LEN: u32 = 32 * 1024 * 1024;

/// Bytes of a metadata piece; the last may be shorter.
pub const METADATA_PIECE_LEN: u32 = 16 * 1024;

/// Longest dictionary before the data of a message.
const MAX_HEADER_LEN: usize = 1024;

/// How many pieces metadata of `size` bytes has.
pub fn metadata_pieces(size: u32) -> u32 {
    size.div_ceil(METADATA_PIECE_LEN)
}

/// How long piece `piece` of metadata of `size` bytes is; zero past the end.
pub fn metadata_piece_len(size: u32, piece: u32) -> u32 {
    let start = u64::from(piece) * u64::from(METADATA_PIECE_LEN);
    u64::from(size)
        .saturating_sub(start)
        .min(u64::from(METADATA_PIECE_LEN)) as u32
}

/// A `ut_metadata` message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetadataMessage<'a> {
    /// Asks for a piece.
    Request {
        /// Its number.
        piece: u32,
    },
    /// A piece.
    Data {
        /// Its number.
        piece: u32,
        /// Bytes of the whole metadata; zero if not said.
        total_size: u32,
        /// Its bytes.
        data: &'a [u8],
    },
    /// The piece cannot be had from the sender now.
    Reject {
        /// Its number.
        piece: u32,
    },
    /// A message type not known here; to be ignored.
    Unknown {
        /// `msg_type`.
        kind: i64,
    },
}

const NAME: &str = "ut_metadata";

impl<'a> MetadataMessage<'a> {
    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, piece, total, data) = match *self {
            Self::Request { piece } => (0, Some(piece), None, &[][..]),
            Self::Data {
                piece,
                total_size,
                data,
            } => (1, Some(piece), Some(total_size), data),
            Self::Reject { piece } => (2, Some(piece), None, &[][..]),
            Self::Unknown { kind } => (kind, None, None, &[][..]),
        };
        let mut encoder = Encoder::new();
        encoder.dict(|d| {
            d.key("msg_type").int(kind);
            if let Some(piece) = piece {
                d.key("piece").int(i64::from(piece));
            }
            if let Some(total) = total {
                d.key("total_size").int(i64::from(total));
            }
        });
        out.extend_from_slice(&encoder.into_bytes());
        out.extend_from_slice(data);
    }

    /// Reads a payload.
    pub fn decode(payload: &'a [u8]) -> Result<Self, ExtensionError> {
        let too_long = ExtensionError::TooLong {
            name: NAME,
            len: payload.len(),
        };
        if payload.len() > MAX_HEADER_LEN + METADATA_PIECE_LEN as usize {
            return Err(too_long);
        }
        let head = payload.get(..MAX_HEADER_LEN).unwrap_or(payload);
        let (value, used) = bencode::decode_prefix(head)
            .map_err(|source| ExtensionError::Bencode { name: NAME, source })?;
        let bad = |field| ExtensionError::BadField { name: NAME, field };
        let dict = value.as_dict().ok_or(bad("dictionary"))?;
        let kind = dict.int("msg_type").ok_or(bad("msg_type"))?;
        let piece = || {
            let piece = dict.int("piece").and_then(|p| u32::try_from(p).ok());
            piece
                .filter(|p| *p < metadata_pieces(MAX_METADATA_LEN))
                .ok_or(bad("piece"))
        };
        Ok(match kind {
            0 => Self::Request { piece: piece()? },
            1 => {
                let data = payload.get(used..).unwrap_or_default();
                if data.len() > METADATA_PIECE_LEN as usize {
                    return Err(too_long);
                }
                let total_size = match dict.int("total_size") {
                    None => 0,
                    Some(size) => u32::try_from(size).map_err(|_| bad("total_size"))?,
                };
                Self::Data {
                    piece: piece()?,
                    total_size,
                    data,
                }
            }
            2 => Self::Reject { piece: piece()? },
            kind => Self::Unknown { kind },
        })
    }
}

/// Serves metadata to one peer: to each enough for a few fetches, then at a trickle.
#[derive(Debug)]
pub struct MetadataServe {
    budget: Option<TokenBucket>,
    /// Bytes that may go before the budget applies.
    free: u64,
    rejected: u32,
}

/// After the free fetches, bytes a second to one peer.
const TRICKLE: u64 = 16 * 1024;
/// How many times the whole metadata is given freely.
const FREE_FETCHES: u64 = 3;
/// Rejections after which a peer counts as flooding.
const MAX_REJECTIONS: u32 = 500;

/// What to answer to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetadataAnswer<'a> {
    /// Send this.
    Send(MetadataMessage<'a>),
    /// The peer floods us: disconnect it.
    Flood,
}

impl Default for MetadataServe {
    fn default() -> Self {
        Self::new()
    }
}

impl MetadataServe {
    /// Nothing was served yet.
    pub fn new() -> Self {
        Self {
            budget: None,
            free: 0,
            rejected: 0,
        }
    }

    /// Answers a request for `piece`; `info` is the verified info dictionary, if we have it.
    pub fn on_request<'a>(
        &mut self,
        now: Time,
        piece: u32,
        info: Option<&'a [u8]>,
    ) -> MetadataAnswer<'a> {
        if let Some(data) = info.and_then(|info| self.piece(now, piece, info)) {
            return MetadataAnswer::Send(data);
        }
        self.rejected += 1;
        if self.rejected > MAX_REJECTIONS {
            MetadataAnswer::Flood
        } else {
            MetadataAnswer::Send(MetadataMessage::Reject { piece })
        }
    }

    fn piece<'a>(&mut self, now: Time, piece: u32, info: &'a [u8]) -> Option<MetadataMessage<'a>> {
        let total_size = u32::try_from(info.len()).ok()?;
        let len = metadata_piece_len(total_size, piece) as usize;
        let start = piece as usize * METADATA_PIECE_LEN as usize;
        let data = info.get(start..start + len).filter(|d| !d.is_empty())?;
        if self.budget.is_none() {
            self.budget = Some(TokenBucket::new(Some(TRICKLE)));
            // A small dictionary is worth a few pieces anyway.
            self.free = FREE_FETCHES * info.len().max(4 * METADATA_PIECE_LEN as usize) as u64;
        }
        let len = len as u64;
        if self.free >= len {
            self.free -= len;
        } else {
            let budget = self.budget.as_mut()?;
            if budget.available(now) < data.len() {
                return None;
            }
            budget.spend(data.len());
        }
        Some(MetadataMessage::Data {
            piece,
            total_size,
            data,
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
            kind in 0u8..4,
            piece in 0..2048u32,
            total_size in any::<u32>(),
            data in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let message = match kind {
                0 => MetadataMessage::Request { piece },
                1 => MetadataMessage::Data { piece, total_size, data: &data },
                2 => MetadataMessage::Reject { piece },
                _ => MetadataMessage::Unknown { kind: 3 + i64::from(piece) },
            };
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            prop_assert_eq!(MetadataMessage::decode(&bytes), Ok(message));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            head in prop::sample::select(vec!["", "d8:msg_typei1e5:piecei", "d8:msg_typei0e"]),
            tail in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let _ = MetadataMessage::decode(&[head.as_bytes(), &tail].concat());
        }
    }

    #[test]
    fn the_specification_s_examples_are_read() {
        let got = MetadataMessage::decode(b"d8:msg_typei0e5:piecei0ee");
        assert_eq!(got, Ok(MetadataMessage::Request { piece: 0 }));
        let got = MetadataMessage::decode(b"d8:msg_typei1e5:piecei0e10:total_sizei34256eexxx");
        let (piece, total_size, data) = (0, 34256, &b"xxx"[..]);
        let data = MetadataMessage::Data {
            piece,
            total_size,
            data,
        };
        assert_eq!(got, Ok(data));
        let got = MetadataMessage::decode(b"d8:msg_typei2e5:piecei0ee");
        assert_eq!(got, Ok(MetadataMessage::Reject { piece: 0 }));
    }

    #[test]
    fn nonsense_is_named() {
        let error = |bytes: &[u8]| MetadataMessage::decode(bytes).unwrap_err().to_string();
        assert_eq!(error(b"d8:msg_typei0ee"), "ut_metadata message: bad piece");
        assert_eq!(error(b"d5:piecei0ee"), "ut_metadata message: bad msg_type");
        assert_eq!(
            error(b"d8:msg_typei0e5:piecei2048ee"),
            "ut_metadata message: bad piece"
        );
        let long = [b"d8:msg_typei1e5:piecei0ee".to_vec(), vec![0; 16385]].concat();
        assert!(error(&long).contains("too long"));
        let (bomb, deep) = (vec![b'l'; 16_000], vec![b'd'; 40_000]);
        assert!(error(&bomb).contains("not bencoded"));
        assert!(error(&deep).contains("too long"));
    }

    #[test]
    fn pieces_are_served_and_a_flood_is_slowed_then_cut() {
        let info = vec![7; 40_000];
        let mut serve = MetadataServe::new();
        let now = Time::from_secs(5);
        let mut served = 0;
        let mut flood = false;
        for n in 0..2000 {
            match serve.on_request(now, n % 3, Some(&info)) {
                MetadataAnswer::Send(MetadataMessage::Data {
                    data,
                    total_size,
                    piece,
                }) => {
                    assert_eq!(total_size, 40_000);
                    assert_eq!(data.len() as u32, metadata_piece_len(40_000, piece));
                    served += data.len();
                }
                MetadataAnswer::Send(MetadataMessage::Reject { piece }) => assert_eq!(piece, n % 3),
                MetadataAnswer::Flood => flood = true,
                MetadataAnswer::Send(other) => panic!("{other:?}"),
            }
        }
        assert!(flood && (120_000..250_000).contains(&served), "{served}");
        let mut serve = MetadataServe::new();
        assert_eq!(
            serve.on_request(now, 3, Some(&info)),
            MetadataAnswer::Send(MetadataMessage::Reject { piece: 3 })
        );
        assert_eq!(
            serve.on_request(now, 0, None),
            MetadataAnswer::Send(MetadataMessage::Reject { piece: 0 })
        );
    }
}
