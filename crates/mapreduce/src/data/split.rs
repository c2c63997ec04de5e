//! Cuts input into splits, and their parts into whole lines.
//!
//! A line belongs to the range in which it begins. A range that does not begin at the start of its
//! file begins with the rest of a line that is not its own, unless the byte before it is a newline:
//! readers start one byte early and drop everything up to the first newline. A range's last line
//! may end beyond it: readers go on to that newline.

use crate::split::{InputRange, Split};

/// A file of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    /// As tasks open it and mappers are told.
    pub name: String,
    /// Its length, in bytes.
    pub len: u64,
    /// Whether it can be read from the middle; compressed files cannot.
    pub splittable: bool,
    /// Index of the job's input that it came from.
    pub input: u32,
    /// It is fetched in pieces of this many bytes, as that of a torrent is; 0 if not.
    pub unit: u64,
    /// Where the first piece begins that does not begin before the file, in bytes from its start.
    pub lead: u64,
}

impl InputFile {
    /// Where it is cut: from 0 to its length, ascending.
    fn edges(&self, split_bytes: u64) -> Vec<u64> {
        let mut edges = vec![0];
        if self.splittable {
            match split_bytes.checked_div(self.unit) {
                Some(pieces) if pieces > 0 => self.cut_at_pieces(pieces, &mut edges),
                _ => {
                    // Equal ranges, so that no task is left with a crumb.
                    let count = self.len.div_ceil(split_bytes);
                    edges.extend((1..count).map(|n| share(self.len, n, count)));
                }
            }
        }
        edges.push(self.len);
        edges.dedup();
        edges
    }

    /// Equal numbers of pieces, at most so many. A range begins one byte after a piece does: its
    /// reader looks at the byte before, and goes on into the next piece for the rest of a line
    /// anyway, so each range is of its own pieces and one more.
    fn cut_at_pieces(&self, most: u64, edges: &mut Vec<u64>) {
        let led = u64::from(self.lead > 0);
        let pieces = self.len.saturating_sub(self.lead).div_ceil(self.unit) + led;
        let count = pieces.div_ceil(most);
        edges.extend((1..count).map(|n| {
            let whole = share(pieces, n, count).saturating_sub(led);
            let border = whole.saturating_mul(self.unit).saturating_add(self.lead);
            border.saturating_add(1).min(self.len)
        }));
    }
}

/// `all * n / count`, multiplied in 128 bits.
fn share(all: u64, n: u64, count: u64) -> u64 {
    (u128::from(all) * u128::from(n) / u128::from(count.max(1))) as u64
}

/// Files shorter than a split share one, up to this many.
const MAX_PARTS: usize = 10_000;

/// Cuts files, in their order, into splits of about `split_bytes`: long files into equal ranges of
/// at most that, short ones together. Files that come in pieces are cut where those are, if one is
/// not longer than a split. Empty files count as read: they are in no split.
pub fn plan(files: &[InputFile], split_bytes: u64) -> Vec<Split> {
    let split_bytes = split_bytes.max(1);
    let mut splits = Vec::new();
    let mut open = Split::default();
    for file in files.iter().filter(|file| file.len > 0) {
        for edge in file.edges(split_bytes).windows(2) {
            let &[start, end] = edge else { continue };
            let part = InputRange {
                file: file.name.clone(),
                offset: start,
                len: end - start,
                input: file.input,
            };
            // What does not begin its file is as long as it is on purpose.
            let full =
                start > 0 || open.len() + part.len > split_bytes || open.parts.len() >= MAX_PARTS;
            if full && !open.parts.is_empty() {
                splits.push(std::mem::take(&mut open));
            }
            open.parts.push(part);
        }
    }
    if !open.parts.is_empty() {
        splits.push(open);
    }
    splits
}

/// Turns a range, read in pieces of any size, into slices of whole lines.
///
/// Reading starts at [`Lines::read_from`]. Bytes are read into [`Lines::room`] and announced with
/// [`Lines::filled`]; `Lines::next` gives the whole lines in it, until [`Lines::done`].
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are filled.
    filled: usize,
    /// Bytes of `buffer` that were given out.
    given: usize,
    /// Position of the buffer's first byte in the file.
    position: u64,
    /// Where the range ends in the file.
    end: u64,
    /// Whether the first line is somebody else's.
    skipping: bool,
    done: bool,
}

impl Lines {
    /// The lines of a range that starts at byte `start` and is `len` bytes long, read in pieces of
    /// `chunk_bytes`. For what is no range of a file, `start` is 0 and `len` as large as can be.
    pub fn new(start: u64, len: u64, chunk_bytes: usize) -> Self {
        Self {
            buffer: vec![0; chunk_bytes.max(1)],
            filled: 0,
            given: 0,
            position: start.saturating_sub(1),
            end: start.saturating_add(len),
            skipping: start > 0,
            done: len == 0,
        }
    }

    /// Position in the file where reading starts.
    pub const fn read_from(&self) -> u64 {
        self.position
    }

    /// Takes another range, keeping the buffer.
    pub fn restart(&mut self, start: u64, len: u64) {
        let buffer = std::mem::take(&mut self.buffer);
        *self = Self {
            buffer,
            ..Self::new(start, len, 1)
        };
    }

    /// Whether nothing more need be read.
    pub const fn done(&self) -> bool {
        self.done
    }

    /// Where to read to; never empty. What was given out before is gone.
    pub fn room(&mut self) -> &mut [u8] {
        if self.given > 0 {
            self.buffer.copy_within(self.given..self.filled, 0);
            self.position += self.given as u64;
            self.filled -= self.given;
            self.given = 0;
        }
        if self.filled == self.buffer.len() {
            // A line longer than the buffer.
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }

    /// Says that `len` bytes were read into [`Lines::room`]; 0 at the end of the file. Returns the
    /// whole lines that are there now and the position of the first, in bytes; none if a line has
    /// only begun.
    pub fn filled(&mut self, len: usize) -> Option<(&[u8], u64)> {
        let before = self.filled;
        self.filled = (before + len).min(self.buffer.len());
        if self.skipping {
            let new = self.buffer.get(before..self.filled).unwrap_or_default();
            match memchr::memchr(b'\n', new) {
                Some(at) => {
                    self.given = before + at + 1;
                    self.skipping = false;
                    if self.position + self.given as u64 >= self.end {
                        self.done = true;
                        return None;
                    }
                }
                None => {
                    // All of it is somebody else's.
                    self.given = self.filled;
                    self.done = len == 0 || self.position + self.filled as u64 >= self.end;
                    return None;
                }
            }
        }
        let fresh = self.given.max(before);
        let bytes = self.buffer.get(..self.filled).unwrap_or_default();
        // The last byte of the range: the line that holds it is ours to its end.
        let last = usize::try_from(self.end - 1 - self.position).unwrap_or(usize::MAX);
        let end = if last < bytes.len() {
            // A line in progress before `last` cannot have ended in what was there before.
            let from = last.max(fresh.saturating_sub(1)).max(self.given);
            memchr::memchr(b'\n', bytes.get(from..).unwrap_or_default()).map(|at| from + at + 1)
        } else {
            None
        };
        let end = match end {
            Some(end) => {
                self.done = true;
                end
            }
            None if len == 0 => {
                self.done = true;
                self.filled
            }
            None if last < bytes.len() => last_line_start(bytes, self.given, last),
            None => {
                let new = bytes.get(fresh..).unwrap_or_default();
                match memchr::memrchr(b'\n', new) {
                    Some(at) => fresh + at + 1,
                    None => self.given,
                }
            }
        };
        let start = self.given;
        self.given = end;
        let lines = self.buffer.get(start..end).filter(|l| !l.is_empty())?;
        Some((lines, self.position + start as u64))
    }
}

/// Where the line begins that holds byte `last`, which has not ended yet.
fn last_line_start(bytes: &[u8], given: usize, last: usize) -> usize {
    let before = bytes.get(given..last).unwrap_or_default();
    memchr::memrchr(b'\n', before).map_or(given, |at| given + at + 1)
}

/// The lines of `bytes`, each without its newline.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let at = memchr::memchr(b'\n', rest);
        let (line, after) = match at {
            Some(at) => (rest.get(..at)?, rest.get(at + 1..)?),
            None => (rest, &[][..]),
        };
        rest = after;
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a range of `text` in pieces of at most `step` bytes.
    fn read(text: &[u8], start: u64, len: u64, chunk: usize, step: usize) -> Vec<(Vec<u8>, u64)> {
        let mut lines = Lines::new(start, len, chunk);
        let mut at = lines.read_from() as usize;
        let mut out = Vec::new();
        while !lines.done() {
            let room = lines.room();
            let n = room.len().min(step).min(text.len() - at);
            room[..n].copy_from_slice(&text[at..at + n]);
            at += n;
            if let Some((whole, offset)) = lines.filled(n) {
                out.push((whole.to_vec(), offset));
            }
        }
        out
    }

    proptest! {
        #[test]
        fn every_line_is_in_one_range(
            text in "[ab\n]{0,60}", cuts in proptest::collection::vec(0..60u64, 0..4), chunk in 1..20usize, step in 1..20usize,
        ) {
            let text = text.into_bytes();
            let mut edges: Vec<u64> = cuts.into_iter().map(|c| c.min(text.len() as u64)).collect();
            edges.extend([0, text.len() as u64]);
            edges.sort_unstable();
            let mut all = Vec::new();
            for edge in edges.windows(2) {
                for (part, offset) in read(&text, edge[0], edge[1] - edge[0], chunk, step) {
                    prop_assert_eq!(offset as usize, all.len());
                    prop_assert!(part.ends_with(b"\n") || offset as usize + part.len() == text.len());
                    let mut begin = offset;
                    for line in part.split_inclusive(|b| *b == b'\n') {
                        prop_assert!((edge[0]..edge[1]).contains(&begin));
                        begin += line.len() as u64;
                    }
                    all.extend_from_slice(&part);
                }
            }
            prop_assert_eq!(all, text);
        }

        #[test]
        fn splits_cover_every_file_once(lens in proptest::collection::vec((0..500u64, any::<bool>()), 0..20), split in 1..200u64) {
            let files: Vec<InputFile> = lens.iter().enumerate().map(|(n, (len, splittable))| InputFile {
                name: n.to_string(), len: *len, splittable: *splittable, input: 0, unit: 0, lead: 0,
            }).collect();
            let splits = plan(&files, split);
            let mut ranges = splits.iter().flat_map(|s| &s.parts).peekable();
            for file in files.iter().filter(|f| f.len > 0) {
                let mut at = 0;
                while at < file.len {
                    let range = ranges.next().expect("covers all");
                    prop_assert_eq!((&range.file, range.offset), (&file.name, at));
                    prop_assert!(!file.splittable || range.len <= split);
                    at += range.len;
                }
                prop_assert!(at == file.len);
            }
            prop_assert!(ranges.next().is_none());
            prop_assert!(splits.iter().all(|s| s.len() <= split || s.parts.len() == 1));
        }
    }

    proptest! {
        #[test]
        fn ranges_are_of_their_own_pieces_and_one_more(
            len in 1..3000u64, unit in 1..100u64, lead in 0..100u64, split in 1..500u64,
        ) {
            let lead = lead % unit;
            let file = InputFile {
                name: "f".to_owned(), len, splittable: true, input: 0, unit, lead,
            };
            let splits = plan(&[file], split);
            let piece = |byte: u64| (byte + unit - lead) / unit;
            let mut at = 0;
            for part in splits.iter().map(|s| &s.parts[0]) {
                prop_assert_eq!(part.offset, at);
                prop_assert!(part.len > 0);
                at += part.len;
                if unit <= split {
                    // One piece more than the length needs, which the rest of a line lies in.
                    let touched = piece(at - 1) - piece(part.offset.saturating_sub(1)) + 1;
                    prop_assert!(touched <= split / unit + 1, "{} pieces in {:?}", touched, part);
                    prop_assert!(part.len <= split + 1);
                } else {
                    prop_assert!(part.len <= split);
                }
            }
            prop_assert_eq!(at, len);
        }
    }

    #[test]
    fn a_file_is_cut_one_byte_into_its_pieces() {
        let file = |len, lead| InputFile {
            name: "f".to_owned(),
            len,
            splittable: true,
            input: 0,
            unit: 16,
            lead,
        };
        let starts = |file, split_bytes| {
            let splits = plan(&[file], split_bytes);
            splits.iter().map(|s| s.parts[0].offset).collect::<Vec<_>>()
        };
        assert_eq!(starts(file(96, 0), 40), [0, 33, 65]);
        // The file begins 11 bytes into a piece.
        assert_eq!(starts(file(69, 5), 40), [0, 6, 38]);
        assert_eq!(starts(file(33, 0), 16), [0, 17], "none of nothing");
        assert_eq!(starts(file(3, 5), 40), [0]);
    }

    #[test]
    fn small_files_share_a_split() {
        let file = |name: &str, len| InputFile {
            name: name.to_owned(),
            len,
            splittable: true,
            input: 0,
            unit: 0,
            lead: 0,
        };
        let splits = plan(
            &[file("a", 10), file("b", 20), file("c", 100), file("d", 0)],
            64,
        );
        let shape: Vec<Vec<(&str, u64, u64)>> = splits
            .iter()
            .map(|s| {
                s.parts
                    .iter()
                    .map(|r| (r.file.as_str(), r.offset, r.len))
                    .collect()
            })
            .collect();
        assert_eq!(
            shape,
            [
                vec![("a", 0, 10), ("b", 0, 20)],
                vec![("c", 0, 50)],
                vec![("c", 50, 50)]
            ]
        );
    }
}
