//! Just enough of the peer wire protocol (BEP 3) for blocking test peers.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use shoal_base::{InfoHash, PeerId};
use shoal_content::Block;

pub(crate) const CHOKE: u8 = 0;
pub(crate) const UNCHOKE: u8 = 1;
pub(crate) const INTERESTED: u8 = 2;
pub(crate) const BITFIELD: u8 = 5;
pub(crate) const REQUEST: u8 = 6;
pub(crate) const PIECE: u8 = 7;

const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// Sends our handshake and reads the other's; no extension bits are set.
pub(crate) fn shake_hands(
    stream: &mut TcpStream,
    info_hash: InfoHash,
    id: PeerId,
) -> io::Result<()> {
    let mut ours = [0; 68];
    ours[..20].copy_from_slice(PROTOCOL);
    ours[28..48].copy_from_slice(info_hash.as_bytes());
    ours[48..].copy_from_slice(&id.0);
    stream.write_all(&ours)?;
    let mut theirs = [0; 68];
    stream.read_exact(&mut theirs)?;
    if theirs[..20] != *PROTOCOL || theirs[28..48] != *info_hash.as_bytes() {
        return Err(io::Error::other("not a BitTorrent peer with this torrent"));
    }
    Ok(())
}

/// Appends a message without a payload.
pub(crate) fn push_plain(out: &mut Vec<u8>, id: u8) {
    out.extend_from_slice(&1u32.to_be_bytes());
    out.push(id);
}

/// Appends a request.
pub(crate) fn push_request(out: &mut Vec<u8>, block: Block) {
    out.extend_from_slice(&13u32.to_be_bytes());
    out.push(REQUEST);
    for field in [block.piece, block.begin, block.len] {
        out.extend_from_slice(&field.to_be_bytes());
    }
}

/// Appends a bitfield with the first `pieces` bits set.
pub(crate) fn push_full_bitfield(out: &mut Vec<u8>, pieces: u32) {
    let bytes = pieces.div_ceil(8);
    out.extend_from_slice(&(bytes + 1).to_be_bytes());
    out.push(BITFIELD);
    for byte in 0..bytes {
        let bits = (pieces - byte * 8).min(8);
        out.push((0xff00u32 >> bits) as u8);
    }
}

/// The header of a piece message; the block's bytes follow.
pub(crate) fn piece_header(block: Block) -> [u8; 13] {
    let mut out = [0; 13];
    out[..4].copy_from_slice(&(block.len + 9).to_be_bytes());
    out[4] = PIECE;
    out[5..9].copy_from_slice(&block.piece.to_be_bytes());
    out[9..].copy_from_slice(&block.begin.to_be_bytes());
    out
}

/// Reads three big-endian numbers: a request's payload.
pub(crate) fn parse_block(payload: &[u8]) -> Option<Block> {
    let field = |n: usize| {
        let bytes = payload.get(n * 4..n * 4 + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    Some(Block {
        piece: field(0)?,
        begin: field(1)?,
        len: field(2)?,
    })
}

/// Reads one message that is not a piece: its id and payload; keep-alives are skipped.
pub(crate) fn read_message(from: &mut impl Read, payload: &mut Vec<u8>) -> io::Result<u8> {
    loop {
        let mut head = [0; 4];
        from.read_exact(&mut head)?;
        let len = u32::from_be_bytes(head) as usize;
        if len > 1 << 20 {
            return Err(io::Error::other("a message of more than 1 MiB"));
        }
        if len == 0 {
            continue;
        }
        payload.resize(len, 0);
        from.read_exact(payload)?;
        return Ok(payload.remove(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_bitfield_has_no_spare_bits_set() {
        let mut out = Vec::new();
        push_full_bitfield(&mut out, 11);
        assert_eq!(out, [0, 0, 0, 3, BITFIELD, 0xff, 0xe0]);
        out.clear();
        push_full_bitfield(&mut out, 8);
        assert_eq!(out, [0, 0, 0, 2, BITFIELD, 0xff]);
    }

    #[test]
    fn a_request_reads_back() {
        let block = Block {
            piece: 3,
            begin: 16384,
            len: 99,
        };
        let mut wire = Vec::new();
        push_request(&mut wire, block);
        let mut payload = Vec::new();
        let id = read_message(&mut wire.as_slice(), &mut payload).expect("one message");
        assert_eq!((id, parse_block(&payload)), (REQUEST, Some(block)));
    }
}
