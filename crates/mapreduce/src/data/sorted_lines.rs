//! Lines in the order of their keys, as another engine or `sort` hands them to a reducer.

use super::error::DataError;
use super::native::Sorted;
use super::order::KeyOrder;
use super::text::key_value;
use crate::job::Fields;
use std::fmt;
use std::io::{self, BufRead, Read};

/// Longest line, in bytes: what has no line feeds is no text, and shall not fill the memory.
const LINE_MAX: u64 = 256 << 20;

/// Why lines are not what a reducer takes.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// They cannot be read.
    #[error("line {line} cannot be read")]
    Read {
        /// Its number, from 1.
        line: u64,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A line is too long.
    #[error("line {line} is longer than {} MiB", LINE_MAX >> 20)]
    Long {
        /// Its number, from 1.
        line: u64,
    },
    /// A key comes after one that it should come before.
    #[error("line {line} is out of order: its key {key:?} comes after {before:?}")]
    Order {
        /// Its number, from 1.
        line: u64,
        /// Its key, shortened.
        key: String,
        /// The key before it, shortened.
        before: String,
    },
}

/// Records from `key<TAB>value` lines; a line without a separator is a key without a value.
pub struct SortedLines<R> {
    input: R,
    fields: Fields,
    order: KeyOrder,
    line: Vec<u8>,
    key_len: usize,
    value_at: usize,
    last_key: Vec<u8>,
    number: u64,
}

impl<R> fmt::Debug for SortedLines<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SortedLines")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl<R: BufRead> SortedLines<R> {
    /// Reads `input`, cut into key and value as `fields` says, whose keys come in `order`.
    pub const fn new(input: R, fields: Fields, order: KeyOrder) -> Self {
        Self {
            input,
            fields,
            order,
            line: Vec::new(),
            key_len: 0,
            value_at: 0,
            last_key: Vec::new(),
            number: 0,
        }
    }

    /// Lines read so far.
    pub const fn line(&self) -> u64 {
        self.number
    }
}

fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).chars().take(60).collect()
}

impl<R: BufRead> Sorted for SortedLines<R> {
    fn advance(&mut self) -> Result<bool, DataError> {
        self.last_key.clear();
        let before = self.line.get(..self.key_len).unwrap_or_default();
        self.last_key.extend_from_slice(before);
        self.line.clear();
        let line = self.number + 1;
        // One byte more than is allowed tells a line that is too long from one that just fits.
        let mut limited = (&mut self.input).take(LINE_MAX + 1);
        let read = limited.read_until(b'\n', &mut self.line);
        let read = read.map_err(|source| LinesError::Read { line, source })?;
        if read == 0 {
            self.key_len = 0;
            self.value_at = 0;
            return Ok(false);
        }
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if read as u64 > LINE_MAX {
            return Err(LinesError::Long { line }.into());
        }
        self.number = line;
        let (key, value) = key_value(&self.line, &self.fields);
        self.key_len = key.len();
        self.value_at = self.line.len() - value.len();
        if line > 1 && self.order.compare(&self.last_key, key).is_gt() {
            return Err(LinesError::Order {
                line,
                key: shown(key),
                before: shown(&self.last_key),
            }
            .into());
        }
        Ok(true)
    }

    fn key(&self) -> &[u8] {
        self.line.get(..self.key_len).unwrap_or_default()
    }

    fn value(&self) -> &[u8] {
        self.line.get(self.value_at..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{KeyPart, Order};
    use proptest::prelude::*;

    type Records = Vec<(Vec<u8>, Vec<u8>)>;

    fn read(text: &[u8], order: KeyOrder) -> Result<Records, DataError> {
        let mut lines = SortedLines::new(text, Fields::default(), order);
        let mut records = Vec::new();
        while lines.advance()? {
            records.push((lines.key().to_vec(), lines.value().to_vec()));
        }
        Ok(records)
    }

    #[test]
    fn lines_become_records_whatever_they_lack() {
        let records = read(b"\na\t1\na\t\nb\nc\tx\ty", KeyOrder::bytes()).expect("in order");
        let expected = [("", ""), ("a", "1"), ("a", ""), ("b", ""), ("c", "x\ty")];
        let expected: Records = expected.map(|(k, v)| (k.into(), v.into())).into();
        assert_eq!(records, expected);
    }

    #[test]
    fn a_key_out_of_order_is_named_with_its_line() {
        let error = read(b"a\t1\nc\t1\nb\t1\n", KeyOrder::bytes()).expect_err("b after c");
        let text = error.to_string();
        assert!(
            text.contains("line 3") && text.contains("\"b\"") && text.contains("\"c\""),
            "{text}"
        );
        // In the order of numbers 9 comes before 10, in that of bytes after it.
        let part = KeyPart {
            first: 1,
            last: Some(1),
            numeric: true,
            reverse: false,
        };
        let numbers = KeyOrder::new(&Order::Fields(vec![part]), b'\t');
        assert!(read(b"9\n10\n", numbers).is_ok());
        assert!(read(b"9\n10\n", KeyOrder::bytes()).is_err());
    }

    #[test]
    fn what_cannot_be_read_says_where() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let input = io::BufReader::new((&b"a\nb"[..]).chain(Broken));
        let mut lines = SortedLines::new(input, Fields::default(), KeyOrder::bytes());
        assert!(lines.advance().expect("the first is whole"));
        let error = lines.advance().expect_err("the second is not");
        assert_eq!(error.to_string(), "line 2 cannot be read");
    }

    proptest! {
        #[test]
        fn sorted_lines_are_read_and_unsorted_ones_refused(
            mut lines in proptest::collection::vec("[a-c]{0,2}\t[0-9]?", 0..12),
        ) {
            let key = |line: &String| line.split('\t').next().unwrap_or_default().to_owned();
            let text = |lines: &[String]| lines.iter().map(|l| format!("{l}\n")).collect::<String>();
            let sorted = lines.is_sorted_by_key(key);
            prop_assert_eq!(read(text(&lines).as_bytes(), KeyOrder::bytes()).is_ok(), sorted);
            lines.sort_by_key(key);
            let records = read(text(&lines).as_bytes(), KeyOrder::bytes()).expect("in order");
            let back: Vec<_> = records
                .iter()
                .map(|(k, v)| format!("{}\t{}", String::from_utf8_lossy(k), String::from_utf8_lossy(v)))
                .collect();
            prop_assert_eq!(back, lines);
        }
    }
}
