//! Hadoop Streaming's `aggregate` reducer: keys `FUNCTION:ID`, of which the function says what
//! becomes of the values (Hadoop's package `mapred.lib.aggregate`). The output is `ID` and the
//! result.

use super::super::error::DataError;
use super::super::native::{Reducer, Values};
use crate::code::{CodeError, Collect};
use std::collections::{BTreeMap, BTreeSet};

/// The functions, as keys name them.
const FUNCTIONS: &str = "LongValueSum, LongValueMax, LongValueMin, DoubleValueSum, \
                         StringValueMax, StringValueMin, UniqValueCount and ValueHistogram";

/// The reducer, or the combiner before it, whose output it reads as it reads a mapper's.
#[derive(Debug)]
pub(super) struct Aggregate {
    combines: bool,
}

impl Aggregate {
    pub(super) const fn reducer() -> Self {
        Self { combines: false }
    }

    pub(super) const fn combiner() -> Self {
        Self { combines: true }
    }
}

/// What is known of a key's values so far.
enum State {
    Sum(i64),
    Most(i64),
    Least(i64),
    Doubles(f64),
    Last(Vec<u8>),
    First(Option<Vec<u8>>),
    /// All that differ, in memory, as in Hadoop.
    Distinct(BTreeSet<Vec<u8>>),
    Histogram(BTreeMap<Vec<u8>, i64>),
}

impl State {
    fn of(function: &[u8]) -> Option<Self> {
        Some(match function.to_ascii_lowercase().as_slice() {
            b"longvaluesum" => Self::Sum(0),
            b"longvaluemax" => Self::Most(i64::MIN),
            b"longvaluemin" => Self::Least(i64::MAX),
            b"doublevaluesum" => Self::Doubles(0.0),
            b"stringvaluemax" => Self::Last(Vec::new()),
            b"stringvaluemin" => Self::First(None),
            b"uniqvaluecount" => Self::Distinct(BTreeSet::new()),
            b"valuehistogram" => Self::Histogram(BTreeMap::new()),
            _ => return None,
        })
    }

    fn add(&mut self, value: &[u8]) -> Result<(), CodeError> {
        match self {
            Self::Sum(sum) => *sum = sum.saturating_add(number(value)?),
            Self::Most(most) => *most = number::<i64>(value)?.max(*most),
            Self::Least(least) => *least = number::<i64>(value)?.min(*least),
            Self::Doubles(sum) => *sum += number::<f64>(value)?,
            Self::Last(last) => {
                if value > last.as_slice() {
                    *last = value.to_vec();
                }
            }
            Self::First(first) => {
                if first.as_deref().is_none_or(|known| value < known) {
                    *first = Some(value.to_vec());
                }
            }
            Self::Distinct(all) => {
                if !all.contains(value) {
                    all.insert(value.to_vec());
                }
            }
            Self::Histogram(all) => {
                // A value may come with how often it was seen.
                let (value, count) = match value.iter().rposition(|b| *b == b'\t') {
                    Some(at) => {
                        let count = number(value.get(at + 1..).unwrap_or_default())?;
                        (value.get(..at).unwrap_or_default(), count)
                    }
                    None => (value, 1),
                };
                match all.get_mut(value) {
                    Some(seen) => *seen = seen.saturating_add(count),
                    None => {
                        all.insert(value.to_vec(), count);
                    }
                }
            }
        }
        Ok(())
    }

    /// Emits values that add up to the same as those that went in.
    fn partial(self, key: &[u8], out: &mut dyn Collect) {
        match self {
            Self::Distinct(all) => all.iter().for_each(|value| out.emit(key, value)),
            Self::Histogram(all) => {
                for (mut value, count) in all {
                    value.push(b'\t');
                    value.extend_from_slice(count.to_string().as_bytes());
                    out.emit(key, &value);
                }
            }
            other => out.emit(key, &other.result()),
        }
    }

    fn result(self) -> Vec<u8> {
        match self {
            Self::Sum(n) | Self::Most(n) | Self::Least(n) => n.to_string().into_bytes(),
            Self::Doubles(sum) => java_double(sum).into_bytes(),
            Self::Last(text) => text,
            Self::First(text) => text.unwrap_or_default(),
            Self::Distinct(all) => all.len().to_string().into_bytes(),
            Self::Histogram(all) => report(all.into_values().collect()).into_bytes(),
        }
    }
}

/// How many values, then the least, the median, the greatest, the mean and the standard deviation
/// of how often each was seen.
fn report(mut counts: Vec<i64>) -> String {
    counts.sort_unstable();
    let (Some(least), Some(most)) = (counts.first(), counts.last()) else {
        return "0".to_owned();
    };
    let median = counts.get(counts.len() / 2).unwrap_or(most);
    let len = counts.len() as f64;
    let mean = counts.iter().map(|n| *n as f64).sum::<f64>() / len;
    let spread = counts
        .iter()
        .map(|n| (*n as f64 - mean).powi(2))
        .sum::<f64>()
        / len;
    format!(
        "{}\t{least}\t{median}\t{most}\t{}\t{}",
        counts.len(),
        java_double(mean),
        java_double(spread.sqrt())
    )
}

/// A number as Java's `Double.toString` writes it: `3.0`, `1.5E10`.
fn java_double(x: f64) -> String {
    if x.is_nan() {
        return "NaN".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let size = x.abs();
    if size == 0.0 || (1e-3..1e7).contains(&size) {
        return format!("{x:?}");
    }
    let text = format!("{x:e}");
    match text.split_once('e') {
        Some((digits, power)) if !digits.contains('.') => format!("{digits}.0E{power}"),
        _ => text.replace('e', "E"),
    }
}

fn number<N: std::str::FromStr>(value: &[u8]) -> Result<N, CodeError> {
    let parsed = std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    parsed.ok_or_else(|| {
        bad(&format!(
            "{:?} is no number",
            String::from_utf8_lossy(value)
        ))
    })
}

fn bad(why: &str) -> CodeError {
    CodeError {
        what: format!("the `aggregate` reducer: {why}"),
        record: None,
    }
}

impl Reducer for Aggregate {
    fn reduce(
        &mut self,
        key: &[u8],
        values: &mut Values<'_>,
        out: &mut dyn Collect,
    ) -> Result<(), DataError> {
        let at = key.iter().position(|b| *b == b':');
        let named = at.and_then(|at| Some((key.get(..at)?, key.get(at + 1..)?)));
        let state = named.and_then(|(function, id)| Some((State::of(function)?, id)));
        let (mut state, id) = state.ok_or_else(|| {
            let shown = String::from_utf8_lossy(key);
            DataError::Code(bad(&format!(
                "the key {shown:?} is not FUNCTION:ID with one of {FUNCTIONS}"
            )))
        })?;
        while let Some(value) = values.next()? {
            let in_key = |e: CodeError| {
                let shown = String::from_utf8_lossy(key);
                DataError::Code(CodeError {
                    what: format!("{} (of the key {shown:?})", e.what),
                    ..e
                })
            };
            state.add(value).map_err(in_key)?;
        }
        if self.combines {
            state.partial(key, out);
        } else {
            out.emit(id, &state.result());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn result(function: &str, values: &[&str]) -> String {
        let mut state = State::of(function.as_bytes()).expect("a function");
        for value in values {
            state.add(value.as_bytes()).expect("a value");
        }
        String::from_utf8(state.result()).expect("text")
    }

    #[test]
    fn every_function_does_what_hadoop_says() {
        assert_eq!(result("LongValueSum", &["1", "-3", " 5"]), "3");
        assert_eq!(result("LongValueMax", &["1", "-3"]), "1");
        assert_eq!(result("LongValueMin", &["1", "-3"]), "-3");
        assert_eq!(result("DoubleValueSum", &["1", "0.5"]), "1.5");
        assert_eq!(result("StringValueMax", &["a", "b", ""]), "b");
        assert_eq!(result("StringValueMin", &["b", "a", "c"]), "a");
        assert_eq!(result("UniqValueCount", &["a", "b", "a"]), "2");
        // Three values, seen once, twice and six times.
        let seen = ["a", "b", "b", "c\t6"];
        assert_eq!(
            result("valuehistogram", &seen),
            "3\t1\t2\t6\t3.0\t2.160246899469287"
        );
    }

    #[test]
    fn numbers_are_written_as_java_does() {
        for (x, text) in [
            (0.0, "0.0"),
            (3.0, "3.0"),
            (1_234_567.0, "1234567.0"),
            (1e7, "1.0E7"),
            (1.25e10, "1.25E10"),
            (-0.001, "-0.001"),
            (0.0005, "5.0E-4"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(java_double(x), text);
        }
    }

    #[test]
    fn what_is_no_number_is_told() {
        let mut state = State::of(b"LongValueSum").expect("a function");
        let error = state.add(b"x").expect_err("no number");
        assert!(error.what.contains("\"x\" is no number"), "{error}");
        assert!(State::of(b"LongValueProduct").is_none());
    }

    struct Kept(Vec<Vec<u8>>);

    impl Collect for Kept {
        fn emit(&mut self, _: &[u8], value: &[u8]) {
            self.0.push(value.to_vec());
        }
        fn count(&mut self, _: &str, _: &str, _: u64) {}
        fn status(&mut self, _: &str) {}
    }

    proptest! {
        #[test]
        fn combining_changes_no_result(
            function in prop_oneof![
                Just("LongValueSum"), Just("LongValueMax"), Just("LongValueMin"),
                Just("StringValueMax"), Just("StringValueMin"), Just("UniqValueCount"),
                Just("ValueHistogram"),
            ],
            values in proptest::collection::vec(0..20i64, 1..30), cut in 0..30usize,
        ) {
            let texts: Vec<String> = values.iter().map(i64::to_string).collect();
            let all: Vec<&str> = texts.iter().map(String::as_str).collect();
            let (first, second) = all.split_at(cut.min(all.len()));
            let mut kept = Kept(Vec::new());
            for part in [first, second].into_iter().filter(|part| !part.is_empty()) {
                let mut state = State::of(function.as_bytes()).expect("a function");
                part.iter().try_for_each(|v| state.add(v.as_bytes())).expect("values");
                state.partial(b"k", &mut kept);
            }
            let combined: Vec<String> =
                kept.0.into_iter().map(|v| String::from_utf8(v).expect("text")).collect();
            let combined: Vec<&str> = combined.iter().map(String::as_str).collect();
            prop_assert_eq!(result(function, &combined), result(function, &all));
        }
    }
}
