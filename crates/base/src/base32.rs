//! Base32 (RFC 4648 §6) without padding: how magnet links, `urn:sha1:` and `urn:tree:tiger:` write
//! hashes.

const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The digits of some bytes, upper case and without padding: 32 for a SHA-1, 39 for a Tiger root.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity((bytes.len() * 8).div_ceil(5));
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            push(&mut text, bits >> held);
        }
        // At most four bits are left over.
        bits &= 0xf;
    }
    if held > 0 {
        push(&mut text, bits << (5 - held));
    }
    text
}

fn push(text: &mut String, digit: u32) {
    let digit = DIGITS.get((digit & 31) as usize).copied();
    text.extend(digit.map(char::from));
}

/// Reads exactly `N` bytes from their digits, in either case. `None` for another number of digits,
/// another digit, or bits set behind the last byte.
#[must_use]
pub fn decode<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != (N * 8).div_ceil(5) {
        return None;
    }
    let mut out = [0; N];
    let mut slots = out.iter_mut();
    let (mut bits, mut held) = (0_u32, 0_u32);
    for digit in text {
        let value = match digit.to_ascii_uppercase() {
            letter @ b'A'..=b'Z' => letter - b'A',
            number @ b'2'..=b'7' => number - b'2' + 26,
            _ => return None,
        };
        bits = (bits & 0xff) << 5 | u32::from(value);
        held += 5;
        if held >= 8 {
            held -= 8;
            *slots.next()? = (bits >> held & 0xff) as u8;
        }
    }
    (bits & ((1 << held) - 1) == 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_vectors_of_rfc_4648_come_out() {
        for (plain, text) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(encode(plain.as_bytes()), text);
        }
        assert_eq!(decode::<6>(b"mzxw6ytboi"), Some(*b"foobar"));
        assert_eq!(decode::<1>(b"MZ"), None, "bits behind the end");
        assert_eq!(decode::<1>(b"M1"), None);
        assert_eq!(decode::<1>(b"MYA"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(sha1: [u8; 20], tiger: [u8; 24]) {
            prop_assert_eq!(decode::<20>(encode(&sha1).as_bytes()), Some(sha1));
            prop_assert_eq!(decode::<24>(encode(&tiger).as_bytes()), Some(tiger));
        }

        #[test]
        fn what_is_read_is_what_would_be_written(text in "[A-Z2-7]{39}") {
            if let Some(bytes) = decode::<24>(text.as_bytes()) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
