//! Ranges of bytes: as requests ask for them, as answers give them, and as partial files have them.

use std::fmt::Write as _;
use std::ops::Range;

use super::head::number;

/// Ranges of one set at most: what a peer says beyond them is passed over.
pub const MAX_RANGES: usize = 256;

/// What a `Range` field asks for, of a file whose size is not known there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeSpec {
    /// From this byte to the end.
    From(u64),
    /// From the first byte to the second, both included.
    FromTo(u64, u64),
    /// So many bytes before the end.
    Last(u64),
}

impl RangeSpec {
    /// Reads `bytes=…`. Of several ranges the first counts, as PFSP §1 allows. `None`: it is none,
    /// and to be treated as absent (RFC 9110 §14.2).
    pub fn read(text: &str) -> Option<Self> {
        let (unit, ranges) = text.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let first = ranges.split(',').map(str::trim).find(|r| !r.is_empty())?;
        let (from, to) = first.split_once('-')?;
        match (from.trim(), to.trim()) {
            ("", last) => Some(Self::Last(number(last)?)),
            (from, "") => Some(Self::From(number(from)?)),
            (from, to) => {
                let (from, to) = (number(from)?, number(to)?);
                (from <= to).then_some(Self::FromTo(from, to))
            }
        }
    }

    /// Which bytes of a file of `size` these are; none if there are none.
    pub fn of(self, size: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::From(from) => from..size,
            Self::FromTo(from, to) => from..to.saturating_add(1).min(size),
            Self::Last(n) => size.saturating_sub(n)..size,
        };
        (range.start < range.end).then_some(range)
    }
}

/// `Content-Range: bytes 0-9/100`: which bytes an answer brings, and of how many if it says so.
/// Also without the unit's blank (`bytes=0-9/100`), as some servents write it.
pub fn read_content_range(text: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (head, rest) = text.trim().split_at_checked(5)?;
    if !head.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let rest = rest.trim_start_matches([' ', '=']);
    let (range, total) = rest.split_once('/')?;
    let (from, to) = range.split_once('-')?;
    let (from, to) = (number(from)?, number(to)?);
    let total = match total.trim() {
        "*" => None,
        total => Some(number(total)?),
    };
    let end = to.checked_add(1)?;
    (from < end && total.is_none_or(|total| end <= total)).then_some((from..end, total))
}

/// `Content-Range: bytes */100` of an answer that brings nothing: of how many (RFC 9110 §14.4).
pub fn read_unsatisfied(text: &str) -> Option<u64> {
    let (unit, total) = text.trim().split_once("*/")?;
    let unit = unit.trim_end_matches([' ', '=']);
    unit.eq_ignore_ascii_case("bytes")
        .then(|| number(total))
        .flatten()
}

/// Bytes that are there: ranges that rise and touch nowhere, [`MAX_RANGES`] at most.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeSet(Vec<Range<u64>>);

impl RangeSet {
    /// Takes a range in. False if the set is full and the range touches none that is in it.
    pub fn insert(&mut self, range: Range<u64>) -> bool {
        if range.start >= range.end {
            return true;
        }
        let first = self.0.partition_point(|r| r.end < range.start);
        let after = self.0.partition_point(|r| r.start <= range.end);
        let touched = self.0.get(first..after).unwrap_or_default();
        let joined = match (touched.first(), touched.last()) {
            (Some(low), Some(high)) => low.start.min(range.start)..high.end.max(range.end),
            _ if self.0.len() >= MAX_RANGES => return false,
            _ => range,
        };
        self.0.splice(first..after, [joined]);
        true
    }

    /// The ranges, rising.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().cloned()
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that are there.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|r| r.end - r.start).sum()
    }

    /// Whether all of `range` is there.
    pub fn contains(&self, range: &Range<u64>) -> bool {
        range.start >= range.end
            || self
                .first_within(range)
                .is_some_and(|found| found == *range)
    }

    /// The first bytes of `range` that are there, in one piece.
    pub fn first_within(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let at = self.0.partition_point(|r| r.end <= range.start);
        let found = self.0.get(at)?;
        let found = found.start.max(range.start)..found.end.min(range.end);
        (found.start < found.end).then_some(found)
    }

    /// Reads `X-Available-Ranges: bytes 0-10,20-30` (PFSP §1). What is no range is passed over.
    pub fn read(text: &str) -> Self {
        let mut set = Self::default();
        let text = text.trim();
        let list = match text.split_at_checked(5) {
            Some((unit, rest)) if unit.eq_ignore_ascii_case("bytes") => rest,
            _ => text,
        };
        for range in list.trim_start_matches([' ', '=']).split(',') {
            if let Some((from, to)) = range.split_once('-')
                && let (Some(from), Some(to)) = (number(from), number(to))
                && let Some(end) = to.checked_add(1)
            {
                set.insert(from..end);
            }
        }
        set
    }

    /// Writes it as [`Self::read`] reads it, `most` ranges at most, the longest.
    pub fn write(&self, most: usize) -> String {
        let mut chosen: Vec<&Range<u64>> = self.0.iter().collect();
        chosen.sort_by_key(|r| std::cmp::Reverse(r.end - r.start));
        chosen.truncate(most);
        chosen.sort_by_key(|r| r.start);
        let mut text = String::from("bytes");
        for (n, range) in chosen.into_iter().enumerate() {
            let before = if n == 0 { ' ' } else { ',' };
            // A string takes what is written.
            let _ = write!(text, "{before}{}-{}", range.start, range.end - 1);
        }
        text
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::default();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_ask_for_ranges() {
        let read = |text| RangeSpec::read(text).and_then(|r| r.of(100));
        assert_eq!(read("bytes=0-"), Some(0..100));
        assert_eq!(read("bytes=10-19"), Some(10..20));
        assert_eq!(read("Bytes = 10-1000"), Some(10..100));
        assert_eq!(read("bytes=-5"), Some(95..100));
        assert_eq!(read("bytes=5-9,20-30"), Some(5..10));
        assert_eq!(read("bytes=100-"), None);
        assert_eq!(read("bytes=0-18446744073709551615"), Some(0..100));
        for bad in [
            "",
            "bytes",
            "bytes=",
            "bytes=9-5",
            "bytes=a-",
            "lines=0-1",
            "bytes=+1-2",
        ] {
            assert_eq!(RangeSpec::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn answers_give_ranges() {
        assert_eq!(
            read_content_range("bytes 0-9/100"),
            Some((0..10, Some(100)))
        );
        assert_eq!(read_content_range("bytes=0-9/*"), Some((0..10, None)));
        for bad in [
            "bytes 9-0/100",
            "bytes 0-100/100",
            "bytes */100",
            "bytes 0-9",
            "byt",
        ] {
            assert_eq!(read_content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_longest_ranges_are_told() {
        let set = RangeSet::read("bytes 0-9, 20-20,30-39,nonsense,35-49");
        assert_eq!(set.iter().collect::<Vec<_>>(), [0..10, 20..21, 30..50]);
        assert_eq!(set.write(9), "bytes 0-9,20-20,30-49");
        assert_eq!(set.write(2), "bytes 0-9,30-49");
        assert_eq!(set.first_within(&(5..35)), Some(5..10));
        assert_eq!(set.first_within(&(10..20)), None);
        assert!(set.contains(&(31..50)) && !set.contains(&(9..21)));
    }

    #[test]
    fn a_set_is_bounded() {
        let mut set = RangeSet::default();
        let taken = (0..1000u64)
            .filter(|n| set.insert(n * 2..n * 2 + 1))
            .count();
        assert_eq!(taken, MAX_RANGES);
        assert!(set.insert(1..2), "joins two");
    }

    proptest! {
        #[test]
        fn a_set_is_that_of_its_bytes(ranges in prop::collection::vec((0u64..200, 0u64..20), 0..30)) {
            let set: RangeSet = ranges.iter().map(|(at, len)| *at..at + len).collect();
            for byte in 0..230 {
                let there = ranges.iter().any(|(at, len)| (*at..at + len).contains(&byte));
                prop_assert_eq!(set.contains(&(byte..byte + 1)), there);
            }
            let edges: Vec<_> = set.iter().collect();
            prop_assert!(edges.windows(2).all(|w| w[0].end < w[1].start));
            prop_assert_eq!(&RangeSet::read(&set.write(MAX_RANGES)), &set);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(bytes)?[ =]?[0-9,/*-]{0,40}") {
            if let Some(spec) = RangeSpec::read(&text) {
                let _ = spec.of(50);
            }
            if let Some((range, Some(total))) = read_content_range(&text) {
                prop_assert!(range.start < range.end && range.end <= total);
            }
            prop_assert!(RangeSet::read(&text).iter().all(|r| r.start < r.end));
        }
    }
}
