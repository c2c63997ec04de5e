//! Mappers and reducers written in Rust: the built-ins are, and yours may be.
//!
//! ```
//! use shoal_mapreduce::code::{CodeError, Collect};
//! use shoal_mapreduce::data::{DataError, Mapper, Reducer, Values};
//!
//! /// The longest line of each length of first word.
//! struct Longest;
//!
//! impl Mapper for Longest {
//!     fn map(&mut self, line: &[u8], _offset: u64, out: &mut dyn Collect) -> Result<(), CodeError> {
//!         let word = line.split(|b| *b == b' ').next().unwrap_or_default();
//!         out.emit(word.len().to_string().as_bytes(), line);
//!         Ok(())
//!     }
//! }
//!
//! impl Reducer for Longest {
//!     fn reduce(&mut self, key: &[u8], values: &mut Values<'_>, out: &mut dyn Collect) -> Result<(), DataError> {
//!         let mut longest = Vec::new();
//!         while let Some(line) = values.next()? {
//!             if line.len() > longest.len() {
//!                 longest = line.to_vec();
//!             }
//!         }
//!         out.emit(key, &longest);
//!         Ok(())
//!     }
//! }
//! ```

use super::error::DataError;
use super::split::lines;
use crate::code::{CodeError, Collect, MapCode};
use std::fmt;

/// Maps one line at a time.
pub trait Mapper: Send {
    /// Maps a line, without its newline, that begins at byte `offset` of its file.
    ///
    /// # Errors
    /// When the line cannot be mapped; it may then be skipped, if the job allows that.
    fn map(&mut self, line: &[u8], offset: u64, out: &mut dyn Collect) -> Result<(), CodeError>;

    /// Another file begins; `input` is the index of the job's input that it came from.
    ///
    /// # Errors
    /// When the file is of no use.
    fn file(&mut self, _name: &str, _input: u32) -> Result<(), CodeError> {
        Ok(())
    }

    /// There is no more input.
    ///
    /// # Errors
    /// When what was held back cannot be emitted.
    fn finish(&mut self, _out: &mut dyn Collect) -> Result<(), CodeError> {
        Ok(())
    }
}

/// Reduces one key at a time.
pub trait Reducer: Send {
    /// Reduces the values of a key. Values that are not taken are passed over.
    ///
    /// # Errors
    /// When they cannot be reduced, or cannot be read.
    fn reduce(
        &mut self,
        key: &[u8],
        values: &mut Values<'_>,
        out: &mut dyn Collect,
    ) -> Result<(), DataError>;

    /// There are no more keys.
    ///
    /// # Errors
    /// When what was held back cannot be emitted.
    fn finish(&mut self, _out: &mut dyn Collect) -> Result<(), DataError> {
        Ok(())
    }
}

/// A [`Mapper`] as the engine sees it.
#[derive(Debug)]
pub struct LineMapper<M>(pub M);

impl<M: Mapper> MapCode for LineMapper<M> {
    fn lines(&mut self, text: &[u8], offset: u64, out: &mut dyn Collect) -> Result<(), CodeError> {
        let mut at = offset;
        for (n, line) in lines(text).enumerate() {
            self.0.map(line, at, out).map_err(|e| CodeError {
                record: e.record.or(Some(n as u64)),
                ..e
            })?;
            at += line.len() as u64 + 1;
        }
        Ok(())
    }

    fn file(&mut self, name: &str, input: u32) -> Result<(), CodeError> {
        self.0.file(name, input)
    }

    fn finish(&mut self, out: &mut dyn Collect) -> Result<(), CodeError> {
        self.0.finish(out)
    }
}

/// Records in order of their keys.
pub trait Sorted {
    /// Goes to the next record; false when there is none.
    ///
    /// # Errors
    /// [`DataError::Run`] when it cannot be read, is damaged or out of order.
    fn advance(&mut self) -> Result<bool, DataError>;

    /// The key of the record that `advance` went to.
    fn key(&self) -> &[u8];

    /// Its value.
    fn value(&self) -> &[u8];
}

/// Where [`Values`] stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// At the first value, not taken yet.
    First,
    /// At a value that was taken.
    Taken,
    /// At the first record of the next key.
    NextKey,
    /// There are no more records.
    End,
}

/// The values of one key, each seen once.
pub struct Values<'s> {
    source: &'s mut dyn Sorted,
    key: &'s [u8],
    at: At,
    taken: u64,
}

impl fmt::Debug for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values")
            .field("key", &self.key)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Values<'_> {
    /// The next value.
    ///
    /// # Errors
    /// When it cannot be read.
    #[expect(
        clippy::should_implement_trait,
        reason = "the value is borrowed from where it is read, which no Iterator allows"
    )]
    pub fn next(&mut self) -> Result<Option<&[u8]>, DataError> {
        match self.at {
            At::First => self.at = At::Taken,
            At::Taken => {
                if !self.source.advance()? {
                    self.at = At::End;
                } else if self.source.key() != self.key {
                    self.at = At::NextKey;
                }
            }
            At::NextKey | At::End => {}
        }
        if self.at != At::Taken {
            return Ok(None);
        }
        self.taken += 1;
        Ok(Some(self.source.value()))
    }
}

/// Gives every key of `source` to `reducer`. Returns how many records and keys there were.
///
/// # Errors
/// The reducer's or the source's.
pub(crate) fn reduce_groups(
    source: &mut dyn Sorted,
    reducer: &mut dyn Reducer,
    out: &mut dyn super::text::Output,
) -> Result<(u64, u64), DataError> {
    let (mut records, mut groups) = (0, 0);
    let mut there = source.advance()?;
    let mut key = Vec::new();
    while there {
        key.clear();
        key.extend_from_slice(source.key());
        let mut values = Values {
            source,
            key: &key,
            at: At::First,
            taken: 0,
        };
        reducer.reduce(&key, &mut values, out.collect())?;
        while values.next()?.is_some() {}
        there = values.at == At::NextKey;
        records += values.taken;
        groups += 1;
        out.check()?;
    }
    reducer.finish(out.collect())?;
    out.check()?;
    Ok((records, groups))
}
