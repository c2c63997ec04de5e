//! Identifiers of the BitTorrent family, each its own type.

use std::fmt;
use std::str::FromStr;

/// Why a string is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits, got {got:?}")]
pub struct ParseIdError {
    expected: usize,
    got: String,
}

/// Writes `bytes` as lower-case hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .map(char::from)
        .collect()
}

/// Reads exactly `N` bytes from `2 N` hexadecimal digits.
pub fn from_hex<const N: usize>(s: &str) -> Result<[u8; N], ParseIdError> {
    let bad = || ParseIdError {
        expected: N * 2,
        got: s.chars().take(100).collect(),
    };
    let digits = s.as_bytes();
    if digits.len() != N * 2 {
        return Err(bad());
    }
    let nibble = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        match (nibble(pair[0]), nibble(pair[1])) {
            (Some(hi), Some(lo)) => *byte = hi << 4 | lo,
            _ => return Err(bad()),
        }
    }
    Ok(out)
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The identifier's bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(s: &str) -> Result<Self, ParseIdError> {
                from_hex(s).map(Self)
            }
        }
    };
}

id_type!(
    /// A v1 info-hash: SHA-1 of the bencoded info dictionary (BEP 3).
    InfoHash,
    20
);
id_type!(
    /// A v2 info-hash: SHA-256 of the bencoded info dictionary (BEP 52).
    InfoHashV2,
    32
);

impl InfoHashV2 {
    /// The first 20 bytes: what trackers, DHT and handshakes carry (BEP 52).
    pub fn truncated(&self) -> InfoHash {
        let mut short = [0; 20];
        short.copy_from_slice(&self.0[..20]);
        InfoHash(short)
    }
}

/// A peer's 20-byte name for itself (BEP 3, BEP 20).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 20]);

impl PeerId {
    /// A fresh id in the Azureus style (BEP 20): `-SH0100-` and twelve random letters.
    pub fn generate(rng: &mut crate::Rng) -> Self {
        const LETTERS: &[u8; 62] =
            b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut id = *b"-SH0100-............";
        for byte in &mut id[8..] {
            *byte = LETTERS[rng.below(LETTERS.len())];
        }
        Self(id)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips() {
        let id = InfoHash([0xa5; 20]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("a5".parse::<InfoHash>().is_err());
        assert!("g".repeat(40).parse::<InfoHash>().is_err());
        assert!("é".repeat(20).parse::<InfoHash>().is_err());
    }

    #[test]
    fn peer_ids_name_the_client() {
        let mut rng = crate::Rng::from_seed(1);
        let id = PeerId::generate(&mut rng);
        assert!(id.0.starts_with(b"-SH0100-"));
        assert_ne!(id, PeerId::generate(&mut rng));
    }
}
