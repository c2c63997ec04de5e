//! Writing updates of a table.

use flate2::{Compress, Compression, FlushCompress, Status};

use super::{INFINITY, Table};
use crate::message::route::{Patch, Route};

/// Bytes of entries that one message of an update carries.
pub const MAX_PART: usize = 4096;

/// The message that starts a table anew.
pub fn reset(table: &Table) -> Vec<u8> {
    Route::Reset {
        slots: 1 << table.bits(),
        infinity: INFINITY,
    }
    .write()
}

/// The messages that turn the table `from` (empty if none) into `to`, with entries of one bit (for
/// those who understand `X-Query-Routing: 0.2`) or four. None if nothing changed.
pub fn patches(from: Option<&Table>, to: &Table, one_bit: bool) -> Vec<Vec<u8>> {
    let from = from.filter(|from| from.bits == to.bits);
    let old = from.map(|t| &*t.slots).unwrap_or_default();
    let old = old.iter().copied().chain(std::iter::repeat(0));
    let pairs = old.zip(to.slots.iter().copied());
    // A first update says something even when nothing is shared.
    if from.is_some() && pairs.clone().all(|(old, new)| old == new) {
        return Vec::new();
    }
    let entries: Vec<u8> = if one_bit {
        pairs.map(|(old, new)| old ^ new).collect()
    } else {
        pairs.flat_map(|(old, new)| nibbles(old, new)).collect()
    };
    let (data, packed) = match deflate(&entries) {
        Some(small) if small.len() < entries.len() => (small, true),
        _ => (entries, false),
    };
    // There are 255 parts at most; the largest table takes 256 KiB of four-bit entries.
    let part = data.len().div_ceil(usize::from(u8::MAX)).max(MAX_PART);
    let of = data.len().div_ceil(part);
    let parts = data.chunks(part).zip(1_u8..);
    parts
        .map(|(data, seq)| {
            let patch = Patch {
                seq,
                of: of as u8,
                packed,
                bits: if one_bit { 1 } else { 4 },
                data,
            };
            Route::Patch(patch).write()
        })
        .collect()
}

/// Four bytes of four-bit entries for eight slots, the first in the top half.
fn nibbles(old: u8, new: u8) -> [u8; 4] {
    let entry = |bit: u8| match (old & bit != 0, new & bit != 0) {
        (false, true) => 1_u8.wrapping_sub(INFINITY) & 0x0f,
        (true, false) => INFINITY - 1,
        _ => 0,
    };
    [0, 2, 4, 6].map(|at| entry(0x80 >> at) << 4 | entry(0x40 >> at))
}

fn deflate(data: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(data.len());
    let done = Compress::new(Compression::default(), true)
        .compress_vec(data, &mut out, FlushCompress::Finish)
        .ok()?;
    (done == Status::StreamEnd).then_some(out)
}
