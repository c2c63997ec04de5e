//! Framing and coding of peer-wire messages (BEP 3, BEP 6, BEP 10).
//!
//! ```text
//! +----------------+----+------------------+
//! | length, 4 bytes| id | payload          |   length counts id and payload; 0 is a keep-alive
//! +----------------+----+------------------+
//! ```
//!
//! Messages borrow from the receive buffer: a block is never copied here. Lengths are judged from
//! the first five bytes on, so that a bad frame is refused before it is waited for. What a message
//! means for the connection (choked, not requested, out of range) is not known here.

use shoal_content::{BLOCK_LEN, Block, PieceIndex};

/// Bytes before the data of a piece message: length, id, piece, begin.
pub const PIECE_HEADER_LEN: usize = 13;

/// Longest payload of an extended message; metadata pieces are 16 KiB and PEX far shorter.
pub const MAX_EXTENDED_LEN: u32 = 128 * 1024;

/// Most pieces a torrent can have here: as many hashes as fit the largest metadata we accept
/// ([`crate::metadata::MAX_METADATA_LEN`]).
pub const MAX_PIECES: u32 = crate::metadata::MAX_METADATA_LEN / 20;

/// Longest range a peer may ask for at once (BEP 3: clients "close connections which request an
/// amount greater than 2^17").
pub const MAX_REQUEST_LEN: u32 = 128 * 1024;

/// Longest frame of any kind, without its length prefix.
const MAX_FRAME_LEN: u32 = MAX_PIECES.div_ceil(8) + 1;

mod id {
    pub(super) const CHOKE: u8 = 0;
    pub(super) const UNCHOKE: u8 = 1;
    pub(super) const INTERESTED: u8 = 2;
    pub(super) const NOT_INTERESTED: u8 = 3;
    pub(super) const HAVE: u8 = 4;
    pub(super) const BITFIELD: u8 = 5;
    pub(super) const REQUEST: u8 = 6;
    pub(super) const PIECE: u8 = 7;
    pub(super) const CANCEL: u8 = 8;
    pub(super) const PORT: u8 = 9;
    pub(super) const SUGGEST: u8 = 13;
    pub(super) const HAVE_ALL: u8 = 14;
    pub(super) const HAVE_NONE: u8 = 15;
    pub(super) const REJECT: u8 = 16;
    pub(super) const ALLOWED_FAST: u8 = 17;
    pub(super) const EXTENDED: u8 = 20;
}

/// One message of the peer wire, borrowing from the bytes it came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// Nothing; sent so that the connection is not taken for dead.
    KeepAlive,
    /// No requests will be answered (but for allowed-fast pieces).
    Choke,
    /// Requests will be answered.
    Unchoke,
    /// The sender would request if it were unchoked.
    Interested,
    /// The sender would not.
    NotInterested,
    /// The sender has this piece now.
    Have(PieceIndex),
    /// What the sender has; read it with [`shoal_base::Bitfield::from_bytes`].
    Bitfield(&'a [u8]),
    /// Asks for a range.
    Request(Block),
    /// A range that was asked for.
    Piece {
        /// The piece it lies in.
        piece: PieceIndex,
        /// Offset of its first byte within the piece.
        begin: u32,
        /// The bytes: one to [`BLOCK_LEN`].
        data: &'a [u8],
    },
    /// Takes a request back.
    Cancel(Block),
    /// UDP port of the sender's DHT node (BEP 5).
    Port(u16),
    /// BEP 6: "you might like to download this piece".
    Suggest(PieceIndex),
    /// BEP 6, in place of a bitfield.
    HaveAll,
    /// BEP 6, in place of a bitfield.
    HaveNone,
    /// BEP 6: a request that will not be answered.
    Reject(Block),
    /// BEP 6: a piece that is served even while choked.
    AllowedFast(PieceIndex),
    /// BEP 10. `id` is zero for the handshake, else a number that the receiver chose.
    Extended {
        /// The extension's number.
        id: u8,
        /// The rest.
        payload: &'a [u8],
    },
    /// An id that is not known here; to be ignored.
    Unknown {
        /// The message id.
        id: u8,
        /// The rest.
        payload: &'a [u8],
    },
}

/// Why a frame is refused. Nothing behind it can be read either: the connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Longer than any message may be.
    #[error("frame of {len} bytes is longer than any message")]
    TooLong {
        /// The length prefix.
        len: u32,
    },
    /// A length that a message of this kind cannot have.
    #[error("{name} message (id {id}) cannot be {len} bytes long")]
    BadLength {
        /// The message id.
        id: u8,
        /// Its name.
        name: &'static str,
        /// The length prefix.
        len: u32,
    },
}

/// What lengths are accepted on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    min_bitfield: u32,
    max_bitfield: u32,
}

impl Limits {
    /// For a torrent of `pieces` pieces: a bitfield must be exactly that long.
    pub fn for_pieces(pieces: u32) -> Self {
        let len = pieces.div_ceil(8);
        Self {
            min_bitfield: len,
            max_bitfield: len,
        }
    }

    /// While the piece count is unknown (the metadata is still being fetched): a bitfield of up
    /// to `pieces` pieces, at most [`MAX_PIECES`].
    pub fn up_to_pieces(pieces: u32) -> Self {
        Self {
            min_bitfield: 0,
            max_bitfield: pieces.min(MAX_PIECES).div_ceil(8),
        }
    }
}

impl Default for Limits {
    /// The widest limits: piece count unknown.
    fn default() -> Self {
        Self::up_to_pieces(MAX_PIECES)
    }
}

/// The whole frame's length with its prefix, once the prefix is there.
#[inline]
pub fn frame_len(buf: &[u8]) -> Option<usize> {
    let prefix = buf.first_chunk::<4>()?;
    usize::try_from(u32::from_be_bytes(*prefix))
        .ok()?
        .checked_add(4)
}

/// How many more bytes the frame at the front of `buf` needs to be whole; zero if it is. With
/// fewer than four bytes there, how many the length prefix needs.
#[inline]
pub fn needed(buf: &[u8]) -> usize {
    match frame_len(buf) {
        Some(len) => len.saturating_sub(buf.len()),
        None => 4 - buf.len().min(4),
    }
}

/// Reads the message at the front of `buf` and tells how many bytes it took. None if it is not
/// all there yet; its length has been checked as far as it is.
#[inline]
pub fn decode<'a>(
    buf: &'a [u8],
    limits: &Limits,
) -> Result<Option<(Message<'a>, usize)>, WireError> {
    let Some((prefix, rest)) = buf.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes(*prefix);
    if len == 0 {
        return Ok(Some((Message::KeepAlive, 4)));
    }
    let Some(&id) = rest.first() else {
        return if len > MAX_FRAME_LEN {
            Err(WireError::TooLong { len })
        } else {
            Ok(None)
        };
    };
    check_len(id, len, limits)?;
    let Some(payload) = rest.get(1..len as usize) else {
        return Ok(None);
    };
    Ok(Some((message(id, len, payload)?, 4 + len as usize)))
}

/// Refuses a length that the message `id` cannot have.
#[inline]
fn check_len(id: u8, len: u32, limits: &Limits) -> Result<(), WireError> {
    let (name, fits) = match id {
        id::PIECE => ("piece", (10..=9 + BLOCK_LEN).contains(&len)),
        id::HAVE => ("have", len == 5),
        id::REQUEST => ("request", len == 13),
        id::CHOKE => ("choke", len == 1),
        id::UNCHOKE => ("unchoke", len == 1),
        id::INTERESTED => ("interested", len == 1),
        id::NOT_INTERESTED => ("not interested", len == 1),
        id::BITFIELD => (
            "bitfield",
            (limits.min_bitfield..=limits.max_bitfield).contains(&(len - 1)),
        ),
        id::CANCEL => ("cancel", len == 13),
        id::PORT => ("port", len == 3),
        id::SUGGEST => ("suggest", len == 5),
        id::HAVE_ALL => ("have all", len == 1),
        id::HAVE_NONE => ("have none", len == 1),
        id::REJECT => ("reject", len == 13),
        id::ALLOWED_FAST => ("allowed fast", len == 5),
        id::EXTENDED => ("extended", (2..=2 + MAX_EXTENDED_LEN).contains(&len)),
        _ => ("unknown", len <= 1 + MAX_EXTENDED_LEN),
    };
    if fits {
        Ok(())
    } else {
        Err(WireError::BadLength { id, name, len })
    }
}

/// Reads a payload whose length has been checked.
#[inline]
fn message(id: u8, len: u32, payload: &[u8]) -> Result<Message<'_>, WireError> {
    // Unreachable after `check_len`, and an error rather than a panic should the two ever differ.
    let bad = WireError::BadLength {
        id,
        name: "short",
        len,
    };
    let number = || {
        let bytes = payload.first_chunk::<4>().ok_or(bad)?;
        Ok(u32::from_be_bytes(*bytes))
    };
    Ok(match id {
        id::PIECE => {
            let (head, data) = payload.split_first_chunk::<8>().ok_or(bad)?;
            let [p0, p1, p2, p3, b0, b1, b2, b3] = *head;
            Message::Piece {
                piece: u32::from_be_bytes([p0, p1, p2, p3]),
                begin: u32::from_be_bytes([b0, b1, b2, b3]),
                data,
            }
        }
        id::HAVE => Message::Have(number()?),
        id::REQUEST => Message::Request(range(payload).ok_or(bad)?),
        id::CHOKE => Message::Choke,
        id::UNCHOKE => Message::Unchoke,
        id::INTERESTED => Message::Interested,
        id::NOT_INTERESTED => Message::NotInterested,
        id::BITFIELD => Message::Bitfield(payload),
        id::CANCEL => Message::Cancel(range(payload).ok_or(bad)?),
        id::PORT => Message::Port(u16::from_be_bytes(*payload.first_chunk().ok_or(bad)?)),
        id::SUGGEST => Message::Suggest(number()?),
        id::HAVE_ALL => Message::HaveAll,
        id::HAVE_NONE => Message::HaveNone,
        id::REJECT => Message::Reject(range(payload).ok_or(bad)?),
        id::ALLOWED_FAST => Message::AllowedFast(number()?),
        id::EXTENDED => {
            let (&id, payload) = payload.split_first().ok_or(bad)?;
            Message::Extended { id, payload }
        }
        id => Message::Unknown { id, payload },
    })
}

#[inline]
fn range(payload: &[u8]) -> Option<Block> {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *payload.first_chunk::<12>()?;
    Some(Block {
        piece: u32::from_be_bytes([a, b, c, d]),
        begin: u32::from_be_bytes([e, f, g, h]),
        len: u32::from_be_bytes([i, j, k, l]),
    })
}

/// The bytes that go before a block's data.
#[inline]
pub fn piece_header(block: Block) -> [u8; PIECE_HEADER_LEN] {
    let mut header = [0; PIECE_HEADER_LEN];
    header[..4].copy_from_slice(&(block.len + 9).to_be_bytes());
    header[4] = id::PIECE;
    header[5..9].copy_from_slice(&block.piece.to_be_bytes());
    header[9..].copy_from_slice(&block.begin.to_be_bytes());
    header
}

/// Appends `message` to `out`.
#[inline]
pub fn encode(message: &Message<'_>, out: &mut Vec<u8>) {
    match *message {
        Message::KeepAlive => out.extend_from_slice(&[0; 4]),
        Message::Choke => frame(out, id::CHOKE, &[]),
        Message::Unchoke => frame(out, id::UNCHOKE, &[]),
        Message::Interested => frame(out, id::INTERESTED, &[]),
        Message::NotInterested => frame(out, id::NOT_INTERESTED, &[]),
        Message::Have(piece) => frame(out, id::HAVE, &[&piece.to_be_bytes()]),
        Message::Bitfield(bits) => frame(out, id::BITFIELD, &[bits]),
        Message::Request(block) => frame_range(out, id::REQUEST, block),
        Message::Piece { piece, begin, data } => frame(
            out,
            id::PIECE,
            &[&piece.to_be_bytes(), &begin.to_be_bytes(), data],
        ),
        Message::Cancel(block) => frame_range(out, id::CANCEL, block),
        Message::Port(port) => frame(out, id::PORT, &[&port.to_be_bytes()]),
        Message::Suggest(piece) => frame(out, id::SUGGEST, &[&piece.to_be_bytes()]),
        Message::HaveAll => frame(out, id::HAVE_ALL, &[]),
        Message::HaveNone => frame(out, id::HAVE_NONE, &[]),
        Message::Reject(block) => frame_range(out, id::REJECT, block),
        Message::AllowedFast(piece) => frame(out, id::ALLOWED_FAST, &[&piece.to_be_bytes()]),
        Message::Extended { id, payload } => frame(out, id::EXTENDED, &[&[id], payload]),
        Message::Unknown { id, payload } => frame(out, id, &[payload]),
    }
}

#[inline]
fn frame(out: &mut Vec<u8>, id: u8, parts: &[&[u8]]) {
    let len: usize = 1 + parts.iter().map(|p| p.len()).sum::<usize>();
    out.reserve(4 + len);
    out.extend_from_slice(&(len as u32).to_be_bytes());
    out.push(id);
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[inline]
fn frame_range(out: &mut Vec<u8>, id: u8, block: Block) {
    let mut bytes = [0; 17];
    bytes[3] = 13;
    bytes[4] = id;
    bytes[5..9].copy_from_slice(&block.piece.to_be_bytes());
    bytes[9..13].copy_from_slice(&block.begin.to_be_bytes());
    bytes[13..].copy_from_slice(&block.len.to_be_bytes());
    out.extend_from_slice(&bytes);
}

#[cfg(test)]
mod tests;
