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
mod tests;
