//! The 16 bytes that name a message, or a servent.

use std::fmt;

use shoal_base::Rng;

/// Names a message and its answers, or a servent (Gnutella 0.4, "descriptor ID").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// A new one, marked as a modern servent's: byte 8 is 0xff, byte 15 is 0 (QRP 0.6, note 10).
    pub fn random(rng: &mut Rng) -> Self {
        let mut bytes = [0; 16];
        rng.fill(&mut bytes);
        let [a, b, c, d, e, f, g, h, _, i, j, k, l, m, n, _] = bytes;
        Self([a, b, c, d, e, f, g, h, 0xff, i, j, k, l, m, n, 0])
    }

    /// Whether it is all zeros or all ones, which no honest servent draws.
    pub fn is_blank(self) -> bool {
        self.0 == [0; 16] || self.0 == [0xff; 16]
    }

    /// Reads 32 hexadecimal digits, as `GIV` lines have them.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        if text.len() != 32 {
            return None;
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            if pair.starts_with('+') {
                return None;
            }
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// Upper-case hexadecimal digits.
impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02X}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::{Guid, Rng};
    use proptest::prelude::{prop_assert_eq, proptest};

    #[test]
    fn a_drawn_one_is_marked() {
        let guid = Guid::random(&mut Rng::from_seed(1));
        assert_eq!((guid.0[8], guid.0[15]), (0xff, 0));
        assert!(!guid.is_blank());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes: [u8; 16]) {
            let text = Guid(bytes).to_string();
            prop_assert_eq!(Guid::from_hex(text.as_bytes()), Some(Guid(bytes)));
        }

        #[test]
        fn other_text_is_refused(text in "[0-9a-g+]{31,33}") {
            let valid = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
            prop_assert_eq!(Guid::from_hex(text.as_bytes()).is_some(), valid);
        }
    }
}
