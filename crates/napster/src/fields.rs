//! Fields of a message's data: words parted by blanks, and texts in double quotes.
//!
//! All of it is bytes: clients of the day sent whatever their system's code page was.

use std::net::Ipv4Addr;

/// Reads fields from the left; total, whatever the bytes are.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

/// What ended the reading of a message's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadField {
    /// A field is missing.
    #[error("the field {0} is missing")]
    Missing(&'static str),
    /// A field is not what it should be.
    #[error("the field {0} is not understood")]
    Invalid(&'static str),
}

impl<'a> Fields<'a> {
    /// Starts at the first byte of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    /// What was not read yet, without leading blanks.
    pub fn rest(&self) -> &'a [u8] {
        self.rest.trim_ascii_start()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// The next field: a quoted text without its quotes, or a word.
    pub fn word(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest();
        if let Some(inner) = rest.strip_prefix(b"\"") {
            // A text whose closing quote is missing runs to the end.
            let end = inner.iter().position(|b| *b == b'"');
            let end = end.unwrap_or(inner.len());
            let (text, after) = inner.split_at(end);
            self.rest = after.get(1..).unwrap_or_default();
            return Some(text);
        }
        let end = rest.iter().position(u8::is_ascii_whitespace);
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        self.rest = after;
        (!word.is_empty()).then_some(word)
    }

    /// The next field, which must be there.
    pub fn text(&mut self, name: &'static str) -> Result<&'a [u8], BadField> {
        self.word().ok_or(BadField::Missing(name))
    }

    /// The next field as a number.
    pub fn number(&mut self, name: &'static str) -> Result<u64, BadField> {
        number(self.text(name)?).ok_or(BadField::Invalid(name))
    }
}

/// A decimal number that fits 64 bits.
pub fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, b| {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Reads a TCP port; zero says that nobody can connect.
pub fn port(text: &[u8]) -> Option<u16> {
    u16::try_from(number(text)?).ok()
}

/// Appends a number in decimal.
pub fn put_number(n: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// Appends a text in quotes. The protocol knows no escape, so quotes within it become `'`, and
/// control bytes become `_`.
pub fn put_quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    put_clean(text, out);
    out.push(b'"');
}

/// Appends a text whose quotes and control bytes are replaced.
pub fn put_clean(text: &[u8], out: &mut Vec<u8>) {
    out.extend(text.iter().map(|b| match b {
        b'"' => b'\'',
        0..=31 | 127 => b'_',
        other => *other,
    }));
}

/// An address as the protocol prints it: the four bytes in network order, read as a little-endian
/// number. 44.20.2.1 is 16913452.
pub fn ip_to_number(ip: Ipv4Addr) -> u32 {
    u32::from_le_bytes(ip.octets())
}

/// The address that a number stands for.
pub fn number_to_ip(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(n.to_le_bytes())
}

/// Reads an address: as a number, or dotted.
pub fn ip(field: &[u8]) -> Option<Ipv4Addr> {
    if let Some(n) = number(field) {
        return u32::try_from(n).ok().map(number_to_ip);
    }
    std::str::from_utf8(field).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_and_quoted_texts_are_told_apart() {
        let mut f = Fields::new(b"bob  \"a b\\c\" 12\"x y");
        assert_eq!(f.word(), Some(&b"bob"[..]));
        assert_eq!(f.word(), Some(&b"a b\\c"[..]));
        assert_eq!(f.word(), Some(&b"12\"x"[..]));
        assert_eq!(f.word(), Some(&b"y"[..]));
        assert_eq!(f.word(), None);
        let mut f = Fields::new(b"\"\" \"open");
        assert_eq!(f.word(), Some(&b""[..]));
        assert_eq!(f.word(), Some(&b"open"[..]));
        assert!(f.is_empty());
        assert_eq!(f.number("n"), Err(BadField::Missing("n")));
    }

    #[test]
    fn addresses_are_printed_as_seen_on_the_wire() {
        assert_eq!(ip_to_number(Ipv4Addr::new(44, 20, 2, 1)), 16_913_452);
        assert_eq!(ip(b"16913452"), Some(Ipv4Addr::new(44, 20, 2, 1)));
        assert_eq!(ip(b"127.0.0.1"), Some(Ipv4Addr::LOCALHOST));
        assert_eq!(ip(b"4294967296"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(data: Vec<u8>) {
            let mut f = Fields::new(&data);
            let mut n = 0;
            while f.word().is_some() {
                n += 1;
            }
            prop_assert!(n <= data.len());
        }

        #[test]
        fn quoted_texts_round_trip(text in "[^\"\\x00-\\x1f\\x7f]*", n: u64) {
            let mut out = Vec::new();
            put_quoted(text.as_bytes(), &mut out);
            out.push(b' ');
            put_number(n, &mut out);
            let mut f = Fields::new(&out);
            prop_assert_eq!(f.word(), Some(text.as_bytes()));
            prop_assert_eq!(f.number("n"), Ok(n));
        }
    }
}
