//! The inner join of two inputs by their first fields.

use super::super::error::DataError;
use super::super::native::{Mapper, Reducer, Values};
use super::super::text::key_value;
use crate::code::{CodeError, Collect};
use crate::job::Fields;

const LEFT: u8 = b'0';
const RIGHT: u8 = b'1';

/// Emits the rest of each line under its first field, after a byte that tells its side: the job's
/// first input is the left, all others are the right.
#[derive(Debug)]
pub(super) struct Tag {
    fields: Fields,
    value: Vec<u8>,
}

impl Tag {
    pub(super) const fn new(separator: u8) -> Self {
        Self {
            fields: Fields {
                separator,
                key_fields: 1,
            },
            value: Vec::new(),
        }
    }
}

impl Mapper for Tag {
    fn map(&mut self, line: &[u8], _: u64, out: &mut dyn Collect) -> Result<(), CodeError> {
        let (key, rest) = key_value(line, &self.fields);
        self.value.truncate(1);
        self.value.extend_from_slice(rest);
        out.emit(key, &self.value);
        Ok(())
    }

    fn file(&mut self, _: &str, input: u32) -> Result<(), CodeError> {
        self.value.clear();
        self.value.push(if input == 0 { LEFT } else { RIGHT });
        Ok(())
    }
}

/// Emits every pair of a left and a right value of the same key, the right ones in order and for
/// each the left ones. Left values of one key are held in memory.
#[derive(Debug)]
pub(super) struct Pairs {
    separator: u8,
    left: Vec<Vec<u8>>,
    pair: Vec<u8>,
}

impl Pairs {
    pub(super) const fn new(separator: u8) -> Self {
        Self {
            separator,
            left: Vec::new(),
            pair: Vec::new(),
        }
    }
}

impl Reducer for Pairs {
    fn reduce(
        &mut self,
        key: &[u8],
        values: &mut Values<'_>,
        out: &mut dyn Collect,
    ) -> Result<(), DataError> {
        self.left.clear();
        // Values are in order, so the left side comes first.
        while let Some(value) = values.next()? {
            match value {
                [LEFT, rest @ ..] => self.left.push(rest.to_vec()),
                [_, right @ ..] => {
                    if self.left.is_empty() {
                        return Ok(());
                    }
                    for left in &self.left {
                        self.pair.clear();
                        self.pair.extend_from_slice(left);
                        if !left.is_empty() && !right.is_empty() {
                            self.pair.push(self.separator);
                        }
                        self.pair.extend_from_slice(right);
                        out.emit(key, &self.pair);
                    }
                }
                [] => {
                    return Err(DataError::Code(CodeError {
                        what: "a value of the join lacks its side".to_owned(),
                        record: None,
                    }));
                }
            }
        }
        Ok(())
    }
}
