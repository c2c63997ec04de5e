//! What the engine sees of a mapper, combiner or reducer, whatever it is made of: a function of
//! ours, a process that speaks lines, or a sandboxed module.
//!
//! Work goes in by the batch, never by the record, so that a pipe or a sandbox is crossed seldom.

/// Takes what code emits.
pub trait Collect {
    /// One record of output. A job's output files hold the key alone, without the separator, where
    /// the value is empty: code whose output is final may so emit a whole line as the key.
    fn emit(&mut self, key: &[u8], value: &[u8]);

    /// One record for each of `keys`, which stand in `text`, all of the same value. It means what
    /// emitting each alone means, and costs less.
    fn emit_all(&mut self, text: &[u8], keys: &[Place], value: &[u8]) {
        for key in keys {
            self.emit(key.of(text), value);
        }
    }

    /// Adds to a counter; counts only if the attempt commits.
    fn count(&mut self, group: &str, name: &str, by: u64);

    /// A word on what is going on, for people.
    fn status(&mut self, text: &str);
}

/// Where a key stands in a text, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its first byte.
    pub start: u32,
    /// How long it is.
    pub len: u32,
}

impl Place {
    /// The bytes at that place; none if the text ends before.
    #[inline]
    pub fn of(self, text: &[u8]) -> &[u8] {
        let start = self.start as usize;
        text.get(start..start + self.len as usize)
            .unwrap_or_default()
    }
}

/// Why code failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct CodeError {
    /// For people: what happened, the last lines it wrote to its standard error, how to reproduce.
    pub what: String,
    /// Index of the record in the batch at which it failed, where that is known. What came before
    /// it was dealt with.
    pub record: Option<u64>,
}

/// A mapper in one attempt.
pub trait MapCode {
    /// Maps whole lines, each with its newline (the last line of the input may lack it).
    /// `offset` is the position of the first in the input file, in bytes.
    ///
    /// # Errors
    /// When the code fails; the attempt is over.
    fn lines(&mut self, lines: &[u8], offset: u64, out: &mut dyn Collect) -> Result<(), CodeError>;

    /// Another input file begins, or a range of one that does not follow the last. `input` is the
    /// index of the job's input that it came from ([`crate::job::JobSpec::inputs`]), which is how a
    /// join knows its sides.
    ///
    /// # Errors
    /// As for `lines`.
    fn file(&mut self, _name: &str, _input: u32) -> Result<(), CodeError> {
        Ok(())
    }

    /// There is no more input; what is held back comes out.
    ///
    /// # Errors
    /// As for `lines`.
    fn finish(&mut self, out: &mut dyn Collect) -> Result<(), CodeError>;
}

/// A reducer or combiner in one attempt.
pub trait ReduceCode {
    /// Reduces the records of a batch ([`crate::batch`]), in order of their keys. Values of one key may
    /// go on in the next batch.
    ///
    /// # Errors
    /// When the code fails; the attempt is over.
    fn records(&mut self, batch: &[u8], out: &mut dyn Collect) -> Result<(), CodeError>;

    /// There are no more records; what is held back comes out.
    ///
    /// # Errors
    /// As for `records`.
    fn finish(&mut self, out: &mut dyn Collect) -> Result<(), CodeError>;
}
