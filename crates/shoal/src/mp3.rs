//! What the MP3s of this machine sound like, for those who are told of them.

use std::path::Path;

use shoal_napster::mp3::{Sound, parse, tag_len};
use shoal_store::Served;

/// Bytes looked at.
const HEAD: usize = 16 << 10;

/// What the first frame of a file of `len` bytes says; none if it is no MP3 by its name, cannot be read, or has no
/// frame where one should be.
pub(crate) fn read(disk: &Path, len: u64) -> Option<Sound> {
    let is_mp3 = disk
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("mp3"));
    let file = is_mp3.then(|| Served::open(disk)).and_then(Result::ok)?;
    let mut head = vec![0; HEAD];
    let n = file.read_at(0, &mut head).ok()?;
    let tag = tag_len(head.get(..n)?);
    let n = file.read_at(tag, &mut head).ok()?;
    parse(head.get(..n)?, len.saturating_sub(tag))
}
