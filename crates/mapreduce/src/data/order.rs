//! In which order keys come: by bytes, or by fields as `sort -k` and Hadoop's
//! `KeyFieldBasedComparator` have it.
//!
//! Most comparisons are decided by a *prefix*: eight bytes of the key, or what stands for its first
//! field, as a number that orders as the keys do. Where prefixes are equal the keys decide.

use crate::job::{KeyPart, Order};
use std::cmp::Ordering;

/// An order, ready for use.
#[derive(Debug, Clone)]
pub struct KeyOrder {
    parts: Vec<KeyPart>,
    separator: u8,
}

impl KeyOrder {
    /// The order a job asks for; `separator` stands between the fields of its keys.
    pub fn new(order: &Order, separator: u8) -> Self {
        let parts = match order {
            Order::Bytes => Vec::new(),
            Order::Fields(parts) => parts.clone(),
        };
        Self { parts, separator }
    }

    /// By bytes.
    pub const fn bytes() -> Self {
        Self {
            parts: Vec::new(),
            separator: b'\t',
        }
    }

    /// Whether it is the order of the keys' bytes.
    pub const fn is_bytes(&self) -> bool {
        self.parts.is_empty()
    }

    /// A number that never decides against [`KeyOrder::compare`]: smaller means less, equal means
    /// nothing.
    #[inline]
    pub fn prefix(&self, key: &[u8]) -> u64 {
        match self.parts.first() {
            None => prefix(key),
            Some(part) => part_prefix(part, fields(key, self.separator, part)),
        }
    }

    /// Compares two whole keys. Only equal keys are equal.
    #[inline]
    pub fn compare(&self, a: &[u8], b: &[u8]) -> Ordering {
        if self.parts.is_empty() {
            return a.cmp(b);
        }
        self.parts
            .iter()
            .map(|part| {
                let a = fields(a, self.separator, part);
                let b = fields(b, self.separator, part);
                let order = if part.numeric {
                    compare_numbers(a, b)
                } else {
                    a.cmp(b)
                };
                if part.reverse { order.reverse() } else { order }
            })
            .find(|order| order.is_ne())
            .unwrap_or_else(|| a.cmp(b))
    }
}

/// The first eight bytes as a big-endian number, with zeros for what is missing.
#[inline]
pub fn prefix(key: &[u8]) -> u64 {
    if let Some(first) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*first);
    }
    // Two overlapping reads instead of a loop: keys are mostly short words.
    let len = key.len();
    if let (Some(first), Some(last)) = (key.first_chunk::<4>(), key.last_chunk::<4>()) {
        let high = u64::from(u32::from_be_bytes(*first)) << 32;
        let low = u64::from(u32::from_be_bytes(*last)) << (64 - 8 * len as u32);
        return high | low;
    }
    match *key {
        [a, b, c] => (u64::from(a) << 56) | (u64::from(b) << 48) | (u64::from(c) << 40),
        [a, b] => (u64::from(a) << 56) | (u64::from(b) << 48),
        [a] => u64::from(a) << 56,
        _ => 0,
    }
}

/// The fields of `key` that `part` names, separators between them included; empty when the key
/// has fewer.
pub fn fields<'k>(key: &'k [u8], separator: u8, part: &KeyPart) -> &'k [u8] {
    let first = part.first.max(1) - 1;
    let mut start = 0;
    for _ in 0..first {
        let rest = key.get(start..).unwrap_or_default();
        match memchr::memchr(separator, rest) {
            Some(at) => start += at + 1,
            None => return &[],
        }
    }
    let rest = key.get(start..).unwrap_or_default();
    let Some(last) = part.last else {
        return rest;
    };
    let count = last.saturating_sub(first);
    let mut end = 0;
    for n in 0..count {
        let tail = rest.get(end..).unwrap_or_default();
        match memchr::memchr(separator, tail) {
            Some(at) if n + 1 == count => end += at,
            Some(at) => end += at + 1,
            None => return rest,
        }
    }
    rest.get(..end).unwrap_or_default()
}

fn part_prefix(part: &KeyPart, field: &[u8]) -> u64 {
    let prefix = if part.numeric {
        Number::parse(field).prefix()
    } else {
        prefix(field)
    };
    if part.reverse { !prefix } else { prefix }
}

/// A number as `sort -n` reads it: blanks, a minus sign, digits, a point, digits. Anything else
/// ends it; no digits make it zero. Of any length, so compared digit by digit.
#[derive(Debug, Clone, Copy)]
struct Number<'f> {
    negative: bool,
    /// Without leading zeros.
    whole: &'f [u8],
    /// Without trailing zeros.
    fraction: &'f [u8],
}

impl<'f> Number<'f> {
    fn parse(field: &'f [u8]) -> Self {
        let field = field.trim_ascii_start();
        let (negative, digits) = match field {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, field),
        };
        let split = |bytes: &'f [u8]| {
            let len = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
            bytes.split_at(len)
        };
        let (mut whole, rest) = split(digits);
        let mut fraction = match rest {
            [b'.', rest @ ..] => split(rest).0,
            _ => &[],
        };
        while let [b'0', rest @ ..] = whole {
            whole = rest;
        }
        while let [rest @ .., b'0'] = fraction {
            fraction = rest;
        }
        let zero = whole.is_empty() && fraction.is_empty();
        Self {
            negative: negative && !zero,
            whole,
            fraction,
        }
    }

    fn magnitude(self, other: Self) -> Ordering {
        (self.whole.len().cmp(&other.whole.len()))
            .then_with(|| self.whole.cmp(other.whole))
            .then_with(|| self.fraction.cmp(other.fraction))
    }

    /// How many digits stand before the point (15 bits), then the first digits at four bits each:
    /// orders as the numbers do, except for what is beyond.
    fn prefix(self) -> u64 {
        let digits = self.whole.iter().chain(self.fraction);
        let digits = digits
            .chain(std::iter::repeat(&b'0'))
            .take(12)
            .fold(0u64, |all, digit| (all << 4) | u64::from(digit - b'0'));
        // A number this long orders by its length alone, which is all that is left of it.
        let magnitude = match self.whole.len() {
            len @ ..0x7fff => ((len as u64) << 48) | digits,
            _ => 0x7fff << 48,
        };
        if self.negative {
            (1 << 63) - 1 - magnitude
        } else {
            (1 << 63) + magnitude
        }
    }
}

fn compare_numbers(a: &[u8], b: &[u8]) -> Ordering {
    let (a, b) = (Number::parse(a), Number::parse(b));
    match (a.negative, b.negative) {
        (false, false) => a.magnitude(b),
        (true, true) => b.magnitude(a),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(first: u32, last: Option<u32>, numeric: bool, reverse: bool) -> KeyPart {
        KeyPart {
            first,
            last,
            numeric,
            reverse,
        }
    }

    fn orders() -> impl Strategy<Value = KeyOrder> {
        let part = (
            1..4u32,
            proptest::option::of(0..3u32),
            any::<bool>(),
            any::<bool>(),
        )
            .prop_map(|(first, more, n, r)| part(first, more.map(|m| first + m), n, r));
        proptest::collection::vec(part, 0..3).prop_map(|parts| KeyOrder {
            parts,
            separator: b' ',
        })
    }

    proptest! {
        #[test]
        fn prefixes_never_decide_against_the_keys(order in orders(), a in "[-. 0-9a]{0,20}", b in "[-. 0-9a]{0,20}") {
            let (a, b) = (a.as_bytes(), b.as_bytes());
            let by_prefix = order.prefix(a).cmp(&order.prefix(b));
            let by_key = order.compare(a, b);
            prop_assert!(by_prefix.is_eq() || by_prefix == by_key, "{by_prefix:?} {by_key:?}");
            prop_assert_eq!(order.compare(b, a), by_key.reverse());
            prop_assert_eq!(by_key.is_eq(), a == b);
        }

        #[test]
        fn prefixes_of_bytes_are_the_first_eight(key in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut padded = key.clone();
            padded.resize(8.max(key.len()), 0);
            let expected = u64::from_be_bytes(padded[..8].try_into().expect("eight"));
            prop_assert_eq!(prefix(&key), expected);
        }

        #[test]
        fn numbers_compare_as_numbers(a in -1e6..1e6f64, b in -1e6..1e6f64) {
            let (x, y) = (format!("{a:.6}"), format!("{b:.6}"));
            let (p, q): (f64, f64) = (x.parse().expect("a number"), y.parse().expect("a number"));
            prop_assert_eq!(compare_numbers(x.as_bytes(), y.as_bytes()), p.partial_cmp(&q).expect("numbers"));
        }
    }

    #[test]
    fn fields_are_those_of_sort() {
        let get = |first, last| fields(b"a bc  d", b' ', &part(first, last, false, false));
        assert_eq!(get(1, Some(1)), b"a");
        assert_eq!(get(2, Some(2)), b"bc");
        assert_eq!(get(3, Some(3)), b"");
        assert_eq!(get(2, Some(3)), b"bc ");
        assert_eq!(get(4, None), b"d");
        assert_eq!(get(2, None), b"bc  d");
        assert_eq!(get(1, Some(9)), b"a bc  d");
        assert_eq!(get(9, None), b"");
    }

    #[test]
    fn k1_1n_r_puts_the_largest_number_first() {
        let order = KeyOrder::new(&Order::Fields(vec![part(1, Some(1), true, true)]), b'\t');
        let mut keys: Vec<&[u8]> = vec![b"9", b"10\tx", b"-3", b"10\ta", b"x", b"2.50", b"2.5"];
        keys.sort_by(|a, b| order.compare(a, b));
        let expected: [&[u8]; 7] = [b"10\ta", b"10\tx", b"9", b"2.5", b"2.50", b"x", b"-3"];
        assert_eq!(keys, expected);
    }
}
