//! One block: header, checksum, compression.
//!
//! ```text
//! block := raw length (u32 LE) | stored length (u32 LE) | codec (u8) | 0 0 0 | crc32c (u32 LE) | stored bytes
//! ```

use super::super::error::RunError;
use serde::{Deserialize, Serialize};
use std::io::Read;

/// Bytes of a block's header.
pub const BLOCK_HEADER_BYTES: usize = 16;
/// The most that a block may hold, uncompressed. A block holds several records, or one long one.
pub const MAX_BLOCK_BYTES: usize = 256 << 20;
/// The longest record: key, value and their lengths.
pub const MAX_RECORD_BYTES: usize = MAX_BLOCK_BYTES;
/// Compression beyond this ratio is not used for blocks over [`SMALL_BLOCK_BYTES`], so that a
/// reader can refuse to make much of few bytes.
const MAX_RATIO: usize = 256;
/// A reader makes room for this much whatever the ratio.
const SMALL_BLOCK_BYTES: usize = 1 << 20;
/// What zstd is asked for: a level at which one core keeps up with 100 MB/s and more.
const ZSTD_LEVEL: i32 = 1;

/// How blocks are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Not at all: for what does not leave the machine.
    None,
    /// LZ4: for a local network.
    #[default]
    Lz4,
    /// Zstandard: for slow links.
    Zstd,
}

impl Codec {
    const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }
}

/// Appends `raw` as one block to `out`. `raw` is at most [`MAX_BLOCK_BYTES`] long.
pub(super) fn write_block(codec: Codec, raw: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + BLOCK_HEADER_BYTES, 0);
    let body = start + BLOCK_HEADER_BYTES;
    let compressed = match codec {
        Codec::None => false,
        Codec::Lz4 => {
            out.resize(
                body + lz4_flex::block::get_maximum_output_size(raw.len()),
                0,
            );
            match lz4_flex::block::compress_into(raw, out.get_mut(body..).unwrap_or_default()) {
                Ok(len) => {
                    out.truncate(body + len);
                    true
                }
                Err(_) => false,
            }
        }
        Codec::Zstd => match zstd::bulk::compress(raw, ZSTD_LEVEL) {
            Ok(bytes) => {
                out.extend_from_slice(&bytes);
                true
            }
            Err(_) => false,
        },
    };
    let stored = out.len() - body;
    let allowed = raw.len() <= SMALL_BLOCK_BYTES || raw.len() / MAX_RATIO <= stored;
    let codec = if compressed && stored < raw.len() && allowed {
        codec
    } else {
        out.truncate(body);
        out.extend_from_slice(raw);
        Codec::None
    };
    let stored = out.len() - body;
    let mut header = [0; BLOCK_HEADER_BYTES];
    // Both lengths are at most MAX_BLOCK_BYTES, which fits.
    header[..4].copy_from_slice(&(raw.len() as u32).to_le_bytes());
    header[4..8].copy_from_slice(&(stored as u32).to_le_bytes());
    header[8] = codec.number();
    let (head, bytes) = out.split_at_mut(body);
    let sum = crc32c::crc32c_append(crc32c::crc32c(&header[..12]), bytes);
    header[12..].copy_from_slice(&sum.to_le_bytes());
    if let Some(place) = head.get_mut(start..) {
        place.copy_from_slice(&header);
    }
}

/// What a block's header says, within the limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) raw_len: usize,
    pub(super) stored_len: usize,
    codec: u8,
    /// The sum of header and body as it should be.
    pub(super) sum: u32,
    /// The sum of the header alone.
    pub(super) sum_so_far: u32,
}

impl Header {
    pub(super) fn parse(header: &[u8; BLOCK_HEADER_BYTES]) -> Result<Self, &'static str> {
        let [
            r0,
            r1,
            r2,
            r3,
            s0,
            s1,
            s2,
            s3,
            codec,
            z0,
            z1,
            z2,
            c0,
            c1,
            c2,
            c3,
        ] = *header;
        let raw_len = u32::from_le_bytes([r0, r1, r2, r3]) as usize;
        let stored_len = u32::from_le_bytes([s0, s1, s2, s3]) as usize;
        if [z0, z1, z2] != [0; 3] {
            return Err("has bytes set in its header that must be zero");
        }
        let compressed = codec != 0;
        if raw_len > MAX_BLOCK_BYTES
            || stored_len > raw_len
            || (!compressed && stored_len != raw_len)
        {
            return Err("claims an impossible length");
        }
        if raw_len > SMALL_BLOCK_BYTES && raw_len / MAX_RATIO > stored_len {
            return Err("claims an impossible compression");
        }
        Ok(Self {
            raw_len,
            stored_len,
            codec,
            sum: u32::from_le_bytes([c0, c1, c2, c3]),
            sum_so_far: crc32c::crc32c(&header[..12]),
        })
    }
}

/// Reads one block into `raw`, using `stored` as room for its compressed form. Returns how many
/// stored bytes it took, header included; an empty block is the last of a run.
pub(super) fn read_block(
    source: &mut impl Read,
    at: u64,
    raw: &mut Vec<u8>,
    stored: &mut Vec<u8>,
) -> Result<u64, RunError> {
    let wrong = |what| RunError::Block { at, what };
    let failed = |source: std::io::Error| {
        if source.kind() == std::io::ErrorKind::UnexpectedEof {
            wrong("is cut off")
        } else {
            RunError::Read { at, source }
        }
    };
    let mut header = [0; BLOCK_HEADER_BYTES];
    source.read_exact(&mut header).map_err(failed)?;
    let Header {
        raw_len,
        stored_len,
        codec,
        sum,
        sum_so_far,
    } = Header::parse(&header).map_err(wrong)?;
    let bytes = if codec == 0 { &mut *raw } else { &mut *stored };
    fill(source, bytes, stored_len).map_err(failed)?;
    if crc32c::crc32c_append(sum_so_far, bytes) != sum {
        return Err(wrong("is damaged: its checksum differs"));
    }
    match codec {
        0 => {}
        1 => {
            raw.resize(raw_len, 0);
            let len = lz4_flex::block::decompress_into(stored, raw)
                .map_err(|_| wrong("does not decompress"))?;
            if len != raw_len {
                return Err(wrong("decompresses to another length"));
            }
        }
        2 => {
            raw.resize(raw_len, 0);
            let len = zstd::bulk::decompress_to_buffer(stored, raw.as_mut_slice())
                .map_err(|_| wrong("does not decompress"))?;
            if len != raw_len {
                return Err(wrong("decompresses to another length"));
            }
        }
        _ => return Err(wrong("is of an unknown codec")),
    }
    Ok((BLOCK_HEADER_BYTES + stored_len) as u64)
}

/// Reads exactly `len` bytes into `bytes`. The memory grows as bytes arrive, so that a length that
/// somebody only claims costs little.
fn fill(source: &mut impl Read, bytes: &mut Vec<u8>, len: usize) -> std::io::Result<()> {
    let mut done = 0;
    while done < len {
        let step = (len - done).min(SMALL_BLOCK_BYTES);
        if bytes.len() < done + step {
            bytes.resize(done + step, 0);
        }
        source.read_exact(bytes.get_mut(done..done + step).unwrap_or_default())?;
        done += step;
    }
    bytes.truncate(len);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn codecs() -> impl Strategy<Value = Codec> {
        prop_oneof![Just(Codec::None), Just(Codec::Lz4), Just(Codec::Zstd)]
    }

    proptest! {
        #[test]
        fn blocks_come_back(codec in codecs(), raw in proptest::collection::vec(0..4u8, 0..5000)) {
            let mut stored = Vec::new();
            write_block(codec, &raw, &mut stored);
            let (mut back, mut room) = (vec![9; 3], vec![9; 3]);
            let len = read_block(&mut stored.as_slice(), 0, &mut back, &mut room).expect("ours");
            prop_assert_eq!(len, stored.len() as u64);
            prop_assert_eq!(back, raw);
        }

        #[test]
        fn a_flipped_bit_is_found(codec in codecs(), raw in any::<Vec<u8>>(), at: usize, bit in 0..8u32) {
            let mut stored = Vec::new();
            write_block(codec, &raw, &mut stored);
            let at = at % stored.len();
            stored[at] ^= 1u8 << bit;
            let read = read_block(&mut stored.as_slice(), 7, &mut Vec::new(), &mut Vec::new());
            let found = matches!(read, Err(RunError::Block { at: 7, .. }));
            prop_assert!(found);
        }
    }

    #[test]
    fn great_claims_make_no_room() {
        let mut header = [0; BLOCK_HEADER_BYTES];
        header[..4].copy_from_slice(&(200u32 << 20).to_le_bytes());
        header[4..8].copy_from_slice(&100u32.to_le_bytes());
        header[8] = 2;
        let mut raw = Vec::new();
        let read = read_block(&mut header.as_slice(), 0, &mut raw, &mut Vec::new());
        assert!(matches!(
            read,
            Err(RunError::Block {
                what: "claims an impossible compression",
                ..
            })
        ));
        assert_eq!(raw.capacity(), 0);
    }

    #[test]
    fn what_compresses_too_well_is_stored_so_that_readers_take_it() {
        let raw = vec![0; 8 << 20];
        for codec in [Codec::Lz4, Codec::Zstd] {
            let mut stored = Vec::new();
            write_block(codec, &raw, &mut stored);
            let mut back = Vec::new();
            read_block(&mut stored.as_slice(), 0, &mut back, &mut Vec::new()).expect("ours");
            assert_eq!(back, raw);
        }
    }
}
