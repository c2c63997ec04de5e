//! Percent-encoding (RFC 3986 §2.1), and making a stranger's URL fit to be used.
//!
//! Does not parse URLs; whoever opens one does.

/// Longest URL kept, in bytes.
pub const MAX_URL_LEN: usize = 2048;

/// Percent-encodes all of `bytes` but letters, digits and `-._~`.
pub fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            push_escape(&mut out, *byte);
        }
    }
    out
}

/// Undoes percent-encoding. A `%` without two hexadecimal digits stands for itself.
pub fn decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'%', [hi, lo, after @ ..]) => match (hex(*hi), hex(*lo)) {
                (Some(hi), Some(lo)) => Some((hi << 4 | lo, after)),
                _ => None,
            },
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((*first, tail));
        out.push(byte);
        rest = after;
    }
    out
}

/// The URL in `raw` without white space around it, other bytes than visible ASCII escaped; none if
/// it is empty, too long, or has control characters, which could reach into another line of a
/// request.
pub fn clean(raw: &[u8]) -> Option<String> {
    let raw = raw.trim_ascii();
    if raw.is_empty() || raw.iter().any(u8::is_ascii_control) {
        return None;
    }
    let mut out = String::with_capacity(raw.len());
    for byte in raw {
        if byte.is_ascii_graphic() {
            out.push(char::from(*byte));
        } else {
            push_escape(&mut out, *byte);
        }
    }
    (out.len() <= MAX_URL_LEN).then_some(out)
}

fn push_escape(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    for nibble in [byte >> 4, byte & 15] {
        let digit = DIGITS.get(usize::from(nibble)).copied();
        out.push(char::from(digit.unwrap_or(b'0')));
    }
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_are_cleaned_or_dropped() {
        let cases: &[(&[u8], Option<&str>)] = &[
            (b" http://h/a b\n", Some("http://h/a%20b")),
            (b"udp://h:1/announce", Some("udp://h:1/announce")),
            (b"http://h/%20", Some("http://h/%20")),
            (b"http://h/\xc3\xa9", Some("http://h/%C3%A9")),
            (b"http://h/\r\nHost: x", None),
            (b"", None),
            (b" \t", None),
            (&[b'a'; 2049], None),
        ];
        for (raw, expected) in cases {
            assert_eq!(clean(raw).as_deref(), *expected);
        }
    }

    #[test]
    fn stray_percent_signs_stand_for_themselves() {
        assert_eq!(decode(b"%41%4g%"), b"A%4g%");
        assert_eq!(decode(b"%2"), b"%2");
        assert_eq!(encode("a é/".as_bytes()), "a%20%C3%A9%2F");
    }

    proptest! {
        #[test]
        fn escapes_round_trip(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(decode(encode(&bytes).as_bytes()), bytes.clone());
            if let Some(url) = clean(&bytes) {
                prop_assert_eq!(clean(url.as_bytes()), Some(url));
            }
        }
    }
}
