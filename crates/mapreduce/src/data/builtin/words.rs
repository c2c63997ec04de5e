//! Words and lines as keys.

use super::super::native::Mapper;
use super::super::split::lines;
use super::super::text::key_value;
use crate::code::{CodeError, Collect, MapCode, Place};
use crate::job::Fields;

/// Words are found in pieces of about this many bytes, which stay in the processor's cache until
/// all is done with them.
const PIECE_BYTES: usize = 16 << 10;

/// ASCII white space as `tr '[:space:]'` and C's `isspace` have it: tab, newline, vertical tab,
/// form feed, carriage return and space.
pub const fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}

/// The words of a text: longest runs of bytes that are not white space.
pub const fn words(text: &[u8]) -> Words<'_> {
    Words { text, at: 0 }
}

/// The iterator of [`words`].
#[derive(Debug, Clone)]
pub struct Words<'t> {
    text: &'t [u8],
    at: usize,
}

/// 0x01 in every byte.
const ONES: u64 = u64::MAX / 255;
/// 0x80 in every byte.
const HIGHS: u64 = ONES * 0x80;

/// Sets the high bit of every byte of `x` that is white space; eight bytes at once. No sum below
/// carries into the next byte, so that each bit is exact.
#[inline]
const fn spaces(x: u64) -> u64 {
    let low = x & !HIGHS;
    let from_tab = low + ONES * (0x80 - b'\t' as u64);
    let beyond_return = low + ONES * (0x7f - b'\r' as u64);
    let not_space = (low ^ (ONES * b' ' as u64)) + ONES * 0x7f;
    ((from_tab & !beyond_return) | !not_space) & !x & HIGHS
}

impl<'t> Iterator for Words<'t> {
    type Item = &'t [u8];

    #[inline]
    fn next(&mut self) -> Option<&'t [u8]> {
        let mut start = self.at;
        while is_space(*self.text.get(start)?) {
            start += 1;
        }
        let mut end = start;
        // Most words end within their first eight bytes.
        while let Some(chunk) = self
            .text
            .get(end..)
            .and_then(|rest| rest.first_chunk::<8>())
        {
            let found = spaces(u64::from_le_bytes(*chunk));
            if found != 0 {
                end += found.trailing_zeros() as usize / 8;
                self.at = end + 1;
                return self.text.get(start..end);
            }
            end += 8;
        }
        while self.text.get(end).is_some_and(|b| !is_space(*b)) {
            end += 1;
        }
        self.at = end;
        self.text.get(start..end)
    }
}

/// One bit for each byte that is white space, that of the first byte lowest.
#[inline]
fn space_bits(block: &[u8; 64]) -> u64 {
    let mut bits = 0;
    for (n, eight) in block.as_chunks::<8>().0.iter().enumerate() {
        // The multiplication brings the eight high bits together in the highest byte.
        let found = spaces(u64::from_le_bytes(*eight)) >> 7;
        bits |= (found.wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * n);
    }
    bits
}

/// Finds all words of a piece of text at once: where the bits of white space change, a word begins
/// or ends. No branch depends on how long the words are.
#[derive(Debug, Default)]
struct Finder {
    edges: Vec<u32>,
    places: Vec<Place>,
}

impl Finder {
    /// Emits every word of `text` with `value`.
    fn emit(&mut self, text: &[u8], value: &[u8], out: &mut dyn Collect) {
        let mut rest = text;
        while !rest.is_empty() {
            let near = rest.len().min(PIECE_BYTES);
            let (_, after) = rest.split_at(near);
            // Goes on to the end of the word.
            let more = after.iter().position(|b| is_space(*b));
            let (piece, after) = rest.split_at(near + more.unwrap_or(after.len()));
            rest = after;
            if u32::try_from(piece.len()).is_ok() {
                out.emit_all(piece, self.find(piece), value);
            } else {
                words(piece).for_each(|word| out.emit(word, value));
            }
        }
    }

    /// The words of `piece`, which is shorter than 4 GiB.
    fn find(&mut self, piece: &[u8]) -> &[Place] {
        self.edges.clear();
        let (blocks, tail) = piece.as_chunks::<64>();
        let mut last = [b' '; 64];
        if let Some(start) = last.get_mut(..tail.len()) {
            start.copy_from_slice(tail);
        }
        let mut before = 1;
        let mut at = 0;
        for block in blocks.iter().chain([&last]) {
            let space = space_bits(block);
            let mut edges = space ^ (space << 1 | before);
            before = space >> 63;
            while edges != 0 {
                self.edges.push(at + edges.trailing_zeros());
                edges &= edges - 1;
            }
            at = at.wrapping_add(64);
        }
        if self.edges.len() % 2 == 1 {
            self.edges.push(piece.len() as u32);
        }
        let (pairs, _) = self.edges.as_chunks::<2>();
        self.places.clear();
        self.places.extend(pairs.iter().map(|[start, end]| Place {
            start: *start,
            len: end - start,
        }));
        &self.places
    }
}

/// Emits every word with 1.
#[derive(Debug, Default)]
pub(super) struct Count(Finder);

impl MapCode for Count {
    fn lines(&mut self, text: &[u8], _: u64, out: &mut dyn Collect) -> Result<(), CodeError> {
        self.0.emit(text, b"1", out);
        Ok(())
    }

    fn finish(&mut self, _: &mut dyn Collect) -> Result<(), CodeError> {
        Ok(())
    }
}

/// Emits every word with the name of its file.
#[derive(Debug, Default)]
pub(super) struct Places {
    name: Vec<u8>,
    finder: Finder,
}

impl MapCode for Places {
    fn lines(&mut self, text: &[u8], _: u64, out: &mut dyn Collect) -> Result<(), CodeError> {
        self.finder.emit(text, &self.name, out);
        Ok(())
    }

    fn file(&mut self, name: &str, _: u32) -> Result<(), CodeError> {
        self.name.clear();
        // What separates names and records is written as in a URL.
        for byte in name.bytes() {
            match byte {
                b',' | b'%' | b'\t' | b'\n' | b'\r' => {
                    self.name
                        .extend_from_slice(format!("%{byte:02X}").as_bytes());
                }
                _ => self.name.push(byte),
            }
        }
        Ok(())
    }

    fn finish(&mut self, _: &mut dyn Collect) -> Result<(), CodeError> {
        Ok(())
    }
}

/// Emits lines as keys.
#[derive(Debug)]
pub(super) struct WholeLines;

impl MapCode for WholeLines {
    fn lines(&mut self, text: &[u8], _: u64, out: &mut dyn Collect) -> Result<(), CodeError> {
        for line in lines(text) {
            out.emit(line, b"");
        }
        Ok(())
    }

    fn finish(&mut self, _: &mut dyn Collect) -> Result<(), CodeError> {
        Ok(())
    }
}

/// Cuts lines into key and value.
#[derive(Debug)]
pub(super) struct KeyValue(pub(super) Fields);

impl Mapper for KeyValue {
    fn map(&mut self, line: &[u8], _: u64, out: &mut dyn Collect) -> Result<(), CodeError> {
        let (key, value) = key_value(line, &self.0);
        out.emit(key, value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_are_what_is_between_spaces(text in proptest::collection::vec(
            prop_oneof![0u8..40, any::<u8>()], 0..300)) {
            let slow: Vec<&[u8]> = text
                .split(|b| is_space(*b))
                .filter(|word| !word.is_empty())
                .collect();
            prop_assert_eq!(words(&text).collect::<Vec<_>>(), slow.clone());
            let mut finder = Finder::default();
            let found: Vec<&[u8]> = finder.find(&text).iter().map(|p| p.of(&text)).collect();
            prop_assert_eq!(found, slow);
        }
    }

    #[test]
    fn words_at_the_ends_of_pieces_are_whole() {
        struct Words(Vec<Vec<u8>>);
        impl Collect for Words {
            fn emit(&mut self, key: &[u8], value: &[u8]) {
                assert_eq!(value, b"1");
                self.0.push(key.to_vec());
            }
            fn count(&mut self, _: &str, _: &str, _: u64) {}
            fn status(&mut self, _: &str) {}
        }
        let mut text = Vec::new();
        for n in 0..3 * PIECE_BYTES / 7 {
            text.extend_from_slice(format!("{n} ").as_bytes());
            if n % 1000 == 7 {
                text.extend(std::iter::repeat_n(b'x', n));
            }
        }
        let mut out = Words(Vec::new());
        Count::default().lines(&text, 0, &mut out).expect("maps");
        assert!(out.0.iter().eq(words(&text)));
    }

    #[test]
    fn words_end_at_ascii_space_alone() {
        let text = "ab\u{a0}c, d\te\n\r\n\u{b}f\u{c}g".as_bytes();
        let all: Vec<&[u8]> = words(text).collect();
        let expected: [&[u8]; 5] = ["ab\u{a0}c,".as_bytes(), b"d", b"e", b"f", b"g"];
        assert_eq!(all, expected);
    }
}
