//! Torrents that are updated through a mutable item (BEP 46): the item's value names the info-hash
//! of the newest version, a magnet link the item's key.

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

#[cfg(test)]
mod tests {
    use super::*;

    /// BEP 46's test vectors.
    #[test]
    fn the_published_vectors_hold() {
        let key = "8543d3e6115f0f98c944077a4493dcd543e49c739fd998550a1f614ab36ed63e";
        let key = shoal_base::id::from_hex(key).unwrap();
        let target = |salt: &[u8]| crate::item::mutable_target(&key, salt).to_string();
        assert_eq!(target(b""), "cc3f9d90b572172053626f9980ce261a850d050b");
        assert_eq!(target(b"n"), "59ee7c2cb9b4f7eb1986ee2d18fd2fdb8a56554f");
    }

    #[test]
    fn values_are_read_as_they_were_written() {
        assert_eq!(from_value(&to_value(&[5; 20])), Some(Id([5; 20])));
        for bad in [&b"i1e"[..], b"de", b"d2:ih3:abce", b""] {
            assert_eq!(from_value(bad), None);
        }
    }
}
