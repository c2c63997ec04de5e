//! Stored items (BEP 44), bounded in number and bytes; who floods it displaces itself.

use super::krpc::code;
use super::node::Source;
use super::shares::Shares;
use crate::{Id, Item};
use shoal_base::{Rng, Time};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// An item not stored again for this long is forgotten (BEP 44).
const EXPIRY: Duration = Duration::from_secs(2 * 3600);

/// Bounds of an `Items`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Items in all.
    pub items: usize,
    /// Their bytes in all.
    pub bytes: usize,
}

#[derive(Debug)]
struct Stored {
    item: Item,
    at: Time,
    from: Source,
}

/// Why an item is not stored: BEP 44's code and its words.
pub(super) type Refusal = (i64, &'static str);

/// The items this node holds for others.
#[derive(Debug)]
pub(super) struct Items {
    bounds: Bounds,
    items: BTreeMap<Id, Stored>,
    bytes: usize,
    shares: Shares,
}

/// What an item takes.
fn size(item: &Item) -> usize {
    let own = size_of::<(Id, Stored)>() + item.value().len();
    match item {
        Item::Immutable(_) => own,
        Item::Mutable(m) => own + size_of_val(&**m) + m.salt.len(),
        Item::Certified(m) => own + size_of_val(&**m) + m.name.len(),
    }
}

impl Items {
    /// An empty store.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            items: BTreeMap::new(),
            bytes: 0,
            shares: Shares::default(),
        }
    }

    /// How many items are held.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.bytes + self.shares.len() * 24
    }

    /// The item under `target`.
    pub(super) fn get(&self, target: &Id) -> Option<&Item> {
        self.items.get(target).map(|s| &s.item)
    }

    /// Stores an item whose sizes are within limits; its signature is checked here.
    pub(super) fn put(
        &mut self,
        now: Time,
        from: IpAddr,
        item: Item,
        cas: Option<i64>,
        rng: &mut Rng,
    ) -> Result<(), Refusal> {
        let target = item.target();
        let stored = self.items.get(&target).map(|s| &s.item);
        let same = stored == Some(&item);
        if !same && item.verify().is_err() {
            return Err((code::BAD_SIGNATURE, "invalid signature"));
        }
        if let (Some(stored), Some(seq)) = (stored.and_then(Item::seq), item.seq()) {
            if cas.is_some_and(|cas| cas != stored) {
                return Err((code::CAS_MISMATCH, "the CAS hash mismatched, re-read value"));
            }
            if seq < stored || seq == stored && !same {
                return Err((code::OLD_SEQ, "sequence number less than current"));
            }
        }
        // Storing somebody's item again does not make it one's own, to be displaced in one's turn.
        let from = self.items.get(&target).map_or(Source::of(from), |s| s.from);
        self.remove(&target);
        self.bytes += size(&item);
        self.shares.add(from);
        self.items.insert(
            target,
            Stored {
                item,
                at: now,
                from,
            },
        );
        while self.items.len() > self.bounds.items || self.bytes > self.bounds.bytes {
            self.evict(rng);
        }
        Ok(())
    }

    fn remove(&mut self, target: &Id) {
        if let Some(stored) = self.items.remove(target) {
            self.bytes -= size(&stored.item);
            self.shares.remove(stored.from);
        }
    }

    /// Drops the oldest item of whoever stored most.
    fn evict(&mut self, rng: &mut Rng) {
        let Some(heaviest) = self.shares.heaviest(rng) else {
            return;
        };
        let oldest = self
            .items
            .iter()
            .filter(|(_, s)| s.from == heaviest)
            .min_by_key(|(_, s)| s.at)
            .map(|(target, _)| *target);
        if let Some(target) = oldest {
            self.remove(&target);
        }
    }

    /// Forgets what was not stored again.
    pub(super) fn expire(&mut self, now: Time) {
        let gone: Vec<_> = self
            .items
            .iter()
            .filter(|(_, s)| now.since(s.at) >= EXPIRY)
            .map(|(target, _)| *target)
            .collect();
        gone.iter().for_each(|target| self.remove(target));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mutable;
    use ed25519_dalek::SigningKey;

    const BOUNDS: Bounds = Bounds {
        items: 50,
        bytes: 40_000,
    };

    fn value(n: usize, len: usize) -> Vec<u8> {
        format!("{}:{n:0len$}", len).into_bytes()
    }

    fn signed(seq: i64, text: &str) -> Item {
        let key = SigningKey::from_bytes(&[3; 32]);
        let value = format!("{}:{text}", text.len()).into_bytes();
        Item::Mutable(Box::new(Mutable::sign(&key, b"salt", seq, value).unwrap()))
    }

    #[test]
    fn sequence_numbers_only_rise_and_cas_is_kept() {
        let mut rng = Rng::from_seed(1);
        let mut store = Items::new(BOUNDS);
        let ip: IpAddr = [1, 2, 3, 4].into();
        let mut put = |item, cas| {
            store
                .put(Time::ZERO, ip, item, cas, &mut rng)
                .map_err(|(code, _)| code)
        };
        assert_eq!(
            put(signed(4, "a"), Some(9)),
            Ok(()),
            "nothing to compare with"
        );
        assert_eq!(put(signed(4, "a"), None), Ok(()));
        assert_eq!(put(signed(3, "b"), None), Err(302));
        assert_eq!(put(signed(4, "b"), None), Err(302));
        assert_eq!(put(signed(5, "b"), Some(3)), Err(301));
        assert_eq!(put(signed(5, "b"), Some(4)), Ok(()));
        let mut forged = signed(6, "c");
        if let Item::Mutable(m) = &mut forged {
            m.value = b"1:d".to_vec();
        }
        assert_eq!(put(forged, None), Err(206));
        assert_eq!(store.get(&signed(0, "").target()), Some(&signed(5, "b")));
        store.expire(Time::from_secs(7199));
        assert_eq!(store.len(), 1);
        store.expire(Time::from_secs(7200));
        assert_eq!((store.len(), store.bytes, store.shares.len()), (0, 0, 0));
    }

    #[test]
    fn a_flood_from_one_address_displaces_only_itself() {
        let mut rng = Rng::from_seed(2);
        let mut store = Items::new(BOUNDS);
        let honest: Vec<_> = (0..20)
            .map(|n| Item::immutable(value(n, 100)).unwrap())
            .collect();
        for (n, item) in honest.iter().enumerate() {
            let ip = [2, 2, 2, n as u8].into();
            store
                .put(Time::ZERO, ip, item.clone(), None, &mut rng)
                .unwrap();
        }
        for n in 0..1000 {
            let item = Item::immutable(value(n, 900)).unwrap();
            let ip = [6, 6, 6, 6].into();
            store
                .put(Time::from_secs(1), ip, item, None, &mut rng)
                .unwrap();
            assert!(store.len() <= BOUNDS.items && store.bytes <= BOUNDS.bytes);
        }
        for item in &honest {
            assert_eq!(store.get(&item.target()), Some(item));
        }
    }
}
