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
pub fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|b| is_space(*b)).filter(|word| !word.is_empty())
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

    #[test]
    fn words_end_at_ascii_space_alone() {
        let text = "ab\u{a0}c, d\te\n\r\n\u{b}f\u{c}g".as_bytes();
        let all: Vec<&[u8]> = words(text).collect();
        let expected: [&[u8]; 5] = ["ab\u{a0}c,".as_bytes(), b"d", b"e", b"f", b"g"];
        assert_eq!(all, expected);
    }
}
