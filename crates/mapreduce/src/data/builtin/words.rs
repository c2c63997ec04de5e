//! Words and lines as keys.

use super::super::native::Mapper;
use super::super::split::lines;
use super::super::text::key_value;
use crate::code::{CodeError, Collect, MapCode};
use crate::job::Fields;

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

/// Emits every word with 1.
#[derive(Debug)]
pub(super) struct Count;

impl MapCode for Count {
    fn lines(&mut self, text: &[u8], _: u64, out: &mut dyn Collect) -> Result<(), CodeError> {
        for word in words(text) {
            out.emit(word, b"1");
        }
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
}

impl MapCode for Places {
    fn lines(&mut self, text: &[u8], _: u64, out: &mut dyn Collect) -> Result<(), CodeError> {
        for word in words(text) {
            out.emit(word, &self.name);
        }
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
            prop_oneof![0u8..40, any::<u8>()], 0..80)) {
            let slow: Vec<&[u8]> = text
                .split(|b| is_space(*b))
                .filter(|word| !word.is_empty())
                .collect();
            prop_assert_eq!(words(&text).collect::<Vec<_>>(), slow);
        }
    }

    #[test]
    fn words_end_at_ascii_space_alone() {
        let text = "ab\u{a0}c, d\te\n\r\n\u{b}f\u{c}g".as_bytes();
        let all: Vec<&[u8]> = words(text).collect();
        let expected: [&[u8]; 5] = ["ab\u{a0}c,".as_bytes(), b"d", b"e", b"f", b"g"];
        assert_eq!(all, expected);
    }
}
