//! What a process writes to its standard error: `reporter:counter:GROUP,NAME,N` and
//! `reporter:status:TEXT` lines are for the engine, every other line is for the attempt's log.

use shoal_mapreduce::code::Collect;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Lines kept to be quoted in an error.
const LAST_LINES: usize = 12;
/// A longer line is cut there, so that a process that writes no line feed costs no memory.
const LINE_MAX: usize = 16 << 10;
/// Bytes of one attempt that are kept in its log; the rest is only counted.
const LOG_MAX: u64 = 64 << 20;

/// One line of standard error.
#[derive(Debug, PartialEq, Eq)]
pub enum Report<'a> {
    /// Adds to a counter.
    Count {
        /// The counter's group.
        group: &'a str,
        /// Its name.
        name: &'a str,
        /// How much.
        by: u64,
    },
    /// What the process is doing.
    Status(&'a str),
    /// Anything else.
    Log,
}

/// Reads a line without its line feed.
pub fn parse(line: &[u8]) -> Report<'_> {
    let Some(rest) = line
        .strip_prefix(b"reporter:")
        .and_then(|rest| std::str::from_utf8(rest).ok())
    else {
        return Report::Log;
    };
    let rest = rest.trim_end_matches('\r');
    if let Some(text) = rest.strip_prefix("status:") {
        return Report::Status(text.trim());
    }
    let counter = || {
        let fields = rest.strip_prefix("counter:")?;
        // Names may hold commas, the number cannot.
        let (names, by) = fields.rsplit_once(',')?;
        let (group, name) = names.split_once(',')?;
        let (group, name) = (group.trim(), name.trim());
        let by = by.trim().parse().ok()?;
        (!group.is_empty() && !name.is_empty()).then_some(Report::Count { group, name, by })
    };
    counter().unwrap_or(Report::Log)
}

/// Takes standard error apart as it arrives.
#[derive(Debug)]
pub(super) struct Reporter {
    log: File,
    logged: u64,
    line: Vec<u8>,
    last: VecDeque<String>,
}

impl Reporter {
    pub(super) fn new(log: &Path) -> io::Result<Self> {
        Ok(Self {
            log: File::options().create(true).append(true).open(log)?,
            logged: 0,
            line: Vec::new(),
            last: VecDeque::new(),
        })
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8], out: &mut dyn Collect) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = LINE_MAX.saturating_sub(self.line.len());
            let end = memchr::memchr(b'\n', bytes);
            let take = end.unwrap_or(bytes.len()).min(room);
            let (head, rest) = bytes.split_at(take);
            self.line.extend_from_slice(head);
            bytes = rest;
            if end == Some(take) {
                bytes = bytes.get(1..).unwrap_or_default();
                self.line_ends(out)?;
            } else if self.line.len() >= LINE_MAX {
                self.line_ends(out)?;
            }
        }
        Ok(())
    }

    /// No more comes.
    pub(super) fn end(&mut self, out: &mut dyn Collect) -> io::Result<()> {
        if self.line.is_empty() {
            Ok(())
        } else {
            self.line_ends(out)
        }
    }

    fn line_ends(&mut self, out: &mut dyn Collect) -> io::Result<()> {
        match parse(&self.line) {
            Report::Count { group, name, by } => out.count(group, name, by),
            Report::Status(text) => out.status(text),
            Report::Log => {
                if self.last.len() == LAST_LINES {
                    self.last.pop_front();
                }
                let text = String::from_utf8_lossy(&self.line).trim_end().to_owned();
                self.last.push_back(text);
                self.line.push(b'\n');
                if self.logged <= LOG_MAX {
                    self.logged = self.logged.saturating_add(self.line.len() as u64);
                    self.log.write_all(&self.line)?;
                }
            }
        }
        self.line.clear();
        Ok(())
    }

    /// The last lines, each on a line of its own and indented; empty if there were none.
    pub(super) fn last_lines(&self) -> String {
        self.last
            .iter()
            .map(|line| format!("\n    {line}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counters_and_status_are_told_from_log_lines() {
        assert_eq!(
            parse(b"reporter:counter:Foods,spam,3"),
            Report::Count {
                group: "Foods",
                name: "spam",
                by: 3
            }
        );
        assert_eq!(
            parse(b"reporter:counter:g,a, b,1\r"),
            Report::Count {
                group: "g",
                name: "a, b",
                by: 1
            }
        );
        assert_eq!(
            parse(b"reporter:status: half way "),
            Report::Status("half way")
        );
        for log in [
            &b"reporter:counter:g,n"[..],
            b"reporter:counter:g,n,-1",
            b"reporter:counter:,n,1",
            b"reporter:counter:g,n,99999999999999999999",
            b"reporter:other:x",
            b"reporter:status:\xff",
            b" reporter:status:x",
            b"Traceback",
            b"",
        ] {
            assert_eq!(parse(log), Report::Log);
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in any::<Vec<u8>>()) {
            let _ = parse(&line);
        }
    }
}
