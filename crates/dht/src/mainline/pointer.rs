//! Torrents that are updated through a mutable item (BEP 46): the item's value names the info-hash
//! of the newest version, the magnet link names the item's key.

use crate::Id;
use shoal_base::bencode::{self, Encoder};

/// The value of an item that points to a torrent: `{"ih": 20 bytes}`.
pub fn to_value(info_hash: &[u8; 20]) -> Vec<u8> {
    let mut e = Encoder::new();
    e.dict(|e| e.key("ih").bytes(info_hash));
    e.into_bytes()
}

/// The info-hash that an item's value points to.
pub fn from_value(value: &[u8]) -> Option<Id> {
    let value = bencode::decode(value).ok()?;
    value.as_dict()?.bytes("ih").and_then(Id::from_bytes)
}

/// What a magnet link of an updated torrent names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    /// Ed25519 public key.
    pub key: [u8; 32],
    /// Tells apart the torrents of one key; at most 64 bytes.
    pub salt: Vec<u8>,
}

impl Pointer {
    /// Reads the parameters `xs` and `s` of a magnet link: `urn:btpk:` and the key in hexadecimal,
    /// and the salt in hexadecimal if there is one.
    pub fn parse(xs: &str, s: Option<&str>) -> Option<Self> {
        let key = shoal_base::id::from_hex(xs.strip_prefix("urn:btpk:")?).ok()?;
        let salt = s.unwrap_or_default();
        if salt.len() > 2 * crate::item::MAX_SALT || !salt.len().is_multiple_of(2) {
            return None;
        }
        let salt = salt
            .as_bytes()
            .chunks_exact(2)
            .map(|pair| shoal_base::id::from_hex::<1>(std::str::from_utf8(pair).ok()?).ok())
            .map(|byte| byte.map(|[b]| b))
            .collect::<Option<_>>()?;
        Some(Self { key, salt })
    }

    /// The magnet link.
    pub fn magnet(&self) -> String {
        let mut link = format!("magnet:?xs=urn:btpk:{}", shoal_base::id::to_hex(&self.key));
        if !self.salt.is_empty() {
            link.push_str("&s=");
            link.push_str(&shoal_base::id::to_hex(&self.salt));
        }
        link
    }

    /// Where the item is stored.
    pub fn target(&self) -> Id {
        crate::item::mutable_target(&self.key, &self.salt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BEP 46's test vectors.
    #[test]
    fn the_published_vectors_hold() {
        let key = "urn:btpk:8543d3e6115f0f98c944077a4493dcd543e49c739fd998550a1f614ab36ed63e";
        let plain = Pointer::parse(key, None).unwrap();
        assert_eq!(
            plain.target().to_string(),
            "cc3f9d90b572172053626f9980ce261a850d050b"
        );
        let salted = Pointer::parse(key, Some("6e")).unwrap();
        assert_eq!(
            salted.target().to_string(),
            "59ee7c2cb9b4f7eb1986ee2d18fd2fdb8a56554f"
        );
        assert_eq!(salted.magnet(), format!("magnet:?xs={key}&s=6e"));
    }

    #[test]
    fn values_and_links_are_read_as_they_were_written() {
        assert_eq!(from_value(&to_value(&[5; 20])), Some(Id([5; 20])));
        for bad in [&b"i1e"[..], b"de", b"d2:ih3:abce", b""] {
            assert_eq!(from_value(bad), None);
        }
        assert_eq!(Pointer::parse("urn:btih:00", None), None);
        let key = format!("urn:btpk:{}", "0".repeat(64));
        assert_eq!(Pointer::parse(&key, Some("abc")), None);
        assert_eq!(Pointer::parse(&key, Some("zz")), None);
        assert_eq!(Pointer::parse(&key, Some(&"00".repeat(65))), None);
    }
}
