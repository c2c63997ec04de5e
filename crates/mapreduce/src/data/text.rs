//! Records as lines: `key<TAB>value<LF>`, and back.

use super::counters::Counters;
use super::error::DataError;
use crate::code::Collect;
use crate::job::Fields;
use std::fmt;
use std::io::Write;

/// Lines are handed on in pieces of about this many bytes.
const FLUSH_BYTES: usize = 256 << 10;

/// Where a task's records go, which may fail.
pub trait Output {
    /// The same, as code sees it.
    fn collect(&mut self) -> &mut dyn Collect;

    /// Whether all went well so far; asked after each batch.
    ///
    /// # Errors
    /// What went wrong, once; further records are dropped.
    fn check(&mut self) -> Result<(), DataError>;
}

/// Writes what code emits as lines. A record without a value is its key alone, without a separator,
/// so that lines which went in as keys come out as they were.
pub struct LineWriter<W> {
    out: W,
    buffer: Vec<u8>,
    separator: u8,
    /// What code counted.
    pub counters: Counters,
    /// The last word of the code on what is going on.
    pub status: String,
    records: u64,
    bytes: u64,
    failed: Option<std::io::Error>,
}

impl<W> fmt::Debug for LineWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineWriter")
            .field("records", &self.records)
            .field("bytes", &self.bytes)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl<W: Write> LineWriter<W> {
    /// Writes to `out`, in large pieces.
    pub fn new(out: W, separator: u8) -> Self {
        Self {
            out,
            buffer: Vec::with_capacity(FLUSH_BYTES + (FLUSH_BYTES >> 2)),
            separator,
            counters: Counters::default(),
            status: String::new(),
            records: 0,
            bytes: 0,
            failed: None,
        }
    }

    /// Lines so far, and their bytes.
    pub const fn written(&self) -> (u64, u64) {
        (self.records, self.bytes)
    }

    /// Hands the rest on, and gives the output back.
    ///
    /// # Errors
    /// [`DataError::Output`].
    pub fn finish(mut self) -> Result<(W, Counters), DataError> {
        self.flush();
        self.check()?;
        self.out.flush().map_err(DataError::Output)?;
        Ok((self.out, self.counters))
    }

    #[cold]
    fn flush(&mut self) {
        if self.failed.is_none()
            && let Err(e) = self.out.write_all(&self.buffer)
        {
            self.failed = Some(e);
        }
        self.bytes += self.buffer.len() as u64;
        self.buffer.clear();
    }
}

impl<W: Write> Output for LineWriter<W> {
    fn collect(&mut self) -> &mut dyn Collect {
        self
    }

    fn check(&mut self) -> Result<(), DataError> {
        self.failed
            .take()
            .map_or(Ok(()), |e| Err(DataError::Output(e)))
    }
}

impl<W: Write> Collect for LineWriter<W> {
    #[inline]
    fn emit(&mut self, key: &[u8], value: &[u8]) {
        self.buffer.extend_from_slice(key);
        if !value.is_empty() {
            self.buffer.push(self.separator);
            self.buffer.extend_from_slice(value);
        }
        self.buffer.push(b'\n');
        self.records += 1;
        if self.buffer.len() >= FLUSH_BYTES {
            self.flush();
        }
    }

    fn count(&mut self, group: &str, name: &str, by: u64) {
        self.counters.add(group, name, by);
    }

    fn status(&mut self, text: &str) {
        text.clone_into(&mut self.status);
    }
}

/// Cuts a line, without its newline, into key and value after the key's fields. A line with fewer
/// fields is all key.
pub fn key_value<'l>(line: &'l [u8], fields: &Fields) -> (&'l [u8], &'l [u8]) {
    let mut end = 0;
    for n in 0..fields.key_fields.max(1) {
        let rest = line.get(end..).unwrap_or_default();
        let Some(at) = memchr::memchr(fields.separator, rest) else {
            return (line, &[]);
        };
        end += at;
        if n + 1 < fields.key_fields.max(1) {
            end += 1;
        }
    }
    (
        line.get(..end).unwrap_or_default(),
        line.get(end + 1..).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_become_lines() {
        let mut writer = LineWriter::new(Vec::new(), b'\t');
        writer.emit(b"a", b"1");
        writer.emit(b"a line", b"");
        let (out, _) = writer.finish().expect("a Vec takes all");
        assert_eq!(out, b"a\t1\na line\n");
    }

    #[test]
    fn lines_become_keys_and_values() {
        let fields = |separator, key_fields| Fields {
            separator,
            key_fields,
        };
        let cut = |line: &'static [u8], f: &Fields| key_value(line, f);
        assert_eq!(
            cut(b"a\tb\tc", &fields(b'\t', 1)),
            (&b"a"[..], &b"b\tc"[..])
        );
        assert_eq!(
            cut(b"a\tb\tc", &fields(b'\t', 2)),
            (&b"a\tb"[..], &b"c"[..])
        );
        assert_eq!(cut(b"a\tb", &fields(b'\t', 3)), (&b"a\tb"[..], &b""[..]));
        assert_eq!(cut(b"a\t", &fields(b'\t', 1)), (&b"a"[..], &b""[..]));
        assert_eq!(cut(b"", &fields(b'\t', 1)), (&b""[..], &b""[..]));
    }

    #[test]
    fn a_full_disk_is_told() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut writer = LineWriter::new(Full, b'\t');
        writer.emit(b"a", b"1");
        assert!(matches!(writer.finish(), Err(DataError::Output(_))));
    }
}
