//! Lines that match a pattern.

use crate::code::{CodeError, Collect, MapCode};
use memchr::memmem::Finder;
use memchr::{memchr, memrchr};
use regex::bytes::{Regex, RegexBuilder};

/// Emits lines that match.
pub(super) struct Grep {
    pattern: Pattern,
}

enum Pattern {
    /// No character of it has a meaning of its own.
    Literal(Box<Finder<'static>>),
    Regex(Regex),
}

impl Grep {
    /// `args`: the pattern, in the syntax of the crate `regex` over bytes; lines need not be UTF-8.
    pub(super) fn new(args: &[String]) -> Result<Self, CodeError> {
        let wrong = |what: String| CodeError { what, record: None };
        let [pattern] = args else {
            return Err(wrong("grep takes one pattern (--pattern)".to_owned()));
        };
        let plain = regex::escape(pattern) == *pattern && !pattern.is_empty();
        let pattern = if plain && !pattern.contains('\n') {
            Pattern::Literal(Box::new(Finder::new(pattern.as_bytes()).into_owned()))
        } else {
            // A match never spans lines: each line is matched by itself, as grep does.
            let regex = RegexBuilder::new(pattern)
                .multi_line(true)
                .build()
                .map_err(|e| wrong(format!("the pattern {pattern:?} of grep: {e}")))?;
            Pattern::Regex(regex)
        };
        Ok(Self { pattern })
    }

    fn find(&self, text: &[u8]) -> Option<usize> {
        match &self.pattern {
            Pattern::Literal(finder) => finder.find(text),
            Pattern::Regex(regex) => regex.find(text).map(|found| found.start()),
        }
    }
}

impl MapCode for Grep {
    fn lines(&mut self, text: &[u8], _: u64, out: &mut dyn Collect) -> Result<(), CodeError> {
        // Searching a whole buffer at once is what makes this fast: most lines do not match and
        // are never looked at as lines. A match shows a candidate line; a regular expression is
        // tried again on that line alone, because what it found may go on beyond the line's end.
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let Some(found) = self.find(rest) else {
                break;
            };
            if found == rest.len() && rest.ends_with(b"\n") {
                break;
            }
            let (before, after) = rest.split_at(found);
            let start = memrchr(b'\n', before).map_or(0, |n| n + 1);
            let end = memchr(b'\n', after).map_or(rest.len(), |n| found + n);
            let line = rest.get(start..end).unwrap_or_default();
            let matches = match &self.pattern {
                Pattern::Literal(_) => true,
                Pattern::Regex(regex) => regex.is_match(line),
            };
            if matches {
                out.emit(line, b"");
            }
            at += end + 1;
        }
        Ok(())
    }

    fn finish(&mut self, _: &mut dyn Collect) -> Result<(), CodeError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::split::lines;
    use super::super::super::text::LineWriter;
    use super::*;
    use proptest::prelude::*;

    fn grep(pattern: &str, text: &[u8]) -> Vec<u8> {
        let mut grep = Grep::new(&[pattern.to_owned()]).expect("a pattern");
        let mut out = LineWriter::new(Vec::new(), b'\t');
        grep.lines(text, 0, &mut out).expect("greps");
        out.finish().expect("a Vec takes all").0
    }

    proptest! {
        #[test]
        fn matching_lines_come_out(
            text in "[ab\n]{0,40}",
            pattern in prop_oneof![
                Just("a"), Just("ab"), Just("^a"), Just("b$"), Just("a*"), Just("^$"), Just("a.b"),
                Just("a\\s*b"), Just("[^a]b"), Just("^[^b]*$"), Just("(?s)a.b"),
            ],
        ) {
            let regex = Regex::new(pattern).expect("a pattern");
            let mut slow = Vec::new();
            for line in lines(text.as_bytes()).filter(|line| regex.is_match(line)) {
                slow.extend_from_slice(line);
                slow.push(b'\n');
            }
            let got = grep(pattern, text.as_bytes());
            prop_assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&slow));
        }
    }

    #[test]
    fn a_wrong_pattern_is_told() {
        let error = Grep::new(&["(".to_owned()]).err().expect("unclosed");
        assert!(error.what.contains("unclosed group"), "{error}");
        assert!(Grep::new(&[]).is_err());
    }
}
