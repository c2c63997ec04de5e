//! What a node keeps for others: items, peers, keyword records; each with an end and a limit.

use super::wire::{MAX_PEERS, Refusal, Reply};
use crate::keywords::Record;
use crate::{Id, Item, Judge};
use shoal_base::{Rng, Time};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long an item or a record is kept after it was last published (BEP 44).
pub const ITEM_LIFE: Duration = Duration::from_secs(2 * 3600);
/// How long a peer is.
pub const PEER_LIFE: Duration = Duration::from_secs(45 * 60);

/// How much a node keeps for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Items in all.
    pub items: usize,
    /// Items, and keyword records, that one node may have put here.
    pub per_publisher: usize,
    /// Keys with peers.
    pub peer_keys: usize,
    /// Peers of one key.
    pub peers_per_key: usize,
    /// Words.
    pub words: usize,
    /// Records of one word.
    pub records_per_word: usize,
    /// Records of one publisher under one word.
    pub per_word_publisher: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            items: 16_384,
            per_publisher: 1024,
            peer_keys: 8192,
            peers_per_key: 200,
            words: 8192,
            records_per_word: 500,
            per_word_publisher: 20,
        }
    }
}

/// An item kept for others.
pub(crate) struct Held {
    pub(crate) item: Item,
    pub(crate) expires: Time,
    pub(crate) publisher: u64,
    /// Its owner has it, as far as is known.
    pub(crate) placed: bool,
    /// Who said that they keep it too.
    pub(crate) holders: SmallVec<[Id; 4]>,
}

struct Kept {
    record: Record,
    expires: Time,
}

/// Everything kept.
#[derive(Default)]
pub(crate) struct Store {
    limits: Limits,
    judge: Option<Judge>,
    pub(crate) items: BTreeMap<Id, Held>,
    peers: BTreeMap<Id, BTreeMap<SocketAddr, (Time, bool)>>,
    words: BTreeMap<String, BTreeMap<([u8; 32], Id), Kept>>,
    /// How many items and records each publisher has here.
    published: BTreeMap<u64, usize>,
}

impl Store {
    pub(crate) fn new(limits: Limits, judge: Option<Judge>) -> Self {
        Self {
            limits,
            judge,
            ..Self::default()
        }
    }

    /// Until when an item may be kept that others would have kept until `expires`; none: it does not
    /// hold. A ring with a judge keeps what that lets pass, as long as it says, and nothing else.
    pub(crate) fn until(&self, now: Time, item: &Item, expires: Time) -> Option<Time> {
        match (&self.judge, item) {
            (Some(judge), Item::Certified(item)) => judge.until(now, item),
            (None, Item::Immutable(_) | Item::Mutable(_)) => item.verify().ok().map(|()| expires),
            _ => None,
        }
    }

    /// Keeps an item until `expires`; its sequence number and `cas` decide as in BEP 44. The second
    /// value says that it is new here.
    pub(crate) fn put(
        &mut self,
        now: Time,
        item: Item,
        cas: Option<i64>,
        publisher: u64,
        expires: Time,
    ) -> (Reply, bool) {
        let invalid = (Reply::Refused(Refusal::Invalid), false);
        let target = item.target();
        // What is here already holds as it did.
        let known = self.items.get(&target).is_some_and(|h| h.item == item);
        let Some(expires) = (match known && self.judge.is_none() {
            true => Some(expires),
            false => self.until(now, &item, expires),
        }) else {
            return invalid;
        };
        if let Some(held) = self.items.get_mut(&target) {
            let (old, new) = (held.item.seq(), item.seq());
            if let (Some(old), Some(new)) = (old, new) {
                if cas.is_some_and(|cas| cas != old) {
                    return (Reply::Cas, false);
                }
                if new < old || (new == old && held.item != item) {
                    return (Reply::Older(old), false);
                }
            }
            held.expires = held.expires.max(expires);
            // One sequence number, one value: the same again only lives longer.
            let newer = new > old;
            if newer {
                held.item = item;
                held.holders.clear();
            }
            return (Reply::Stored, newer);
        }
        if self.items.len() >= self.limits.items {
            return (Reply::Refused(Refusal::Full), false);
        }
        if !self.charge(publisher) {
            return (Reply::Refused(Refusal::Quota), false);
        }
        let held = Held {
            item,
            expires,
            publisher,
            placed: true,
            holders: SmallVec::new(),
        };
        self.items.insert(target, held);
        (Reply::Stored, true)
    }

    fn charge(&mut self, publisher: u64) -> bool {
        let count = self.published.entry(publisher).or_default();
        if *count >= self.limits.per_publisher {
            return false;
        }
        *count += 1;
        true
    }

    fn discharge(published: &mut BTreeMap<u64, usize>, publisher: u64) {
        if let Some(count) = published.get_mut(&publisher) {
            *count -= 1;
            if *count == 0 {
                published.remove(&publisher);
            }
        }
    }

    pub(crate) fn announce(&mut self, now: Time, key: Id, peer: SocketAddr, seed: bool) -> Reply {
        if self.peers.len() >= self.limits.peer_keys && !self.peers.contains_key(&key) {
            return Reply::Refused(Refusal::Full);
        }
        let peers = self.peers.entry(key).or_default();
        if peers.len() >= self.limits.peers_per_key && !peers.contains_key(&peer) {
            let first_to_end = peers.iter().min_by_key(|(_, (end, _))| *end);
            if let Some(gone) = first_to_end.map(|(peer, _)| *peer) {
                peers.remove(&gone);
            }
        }
        peers.insert(peer, (now + PEER_LIFE, seed));
        Reply::Stored
    }

    /// As many peers as fit an answer, drawn at random.
    pub(crate) fn peers(&self, now: Time, key: Id, rng: &mut Rng) -> Reply {
        let all = self.peers.get(&key).into_iter().flatten();
        let live: Vec<_> = all.filter(|(_, (end, _))| *end > now).collect();
        let seeds = live.iter().filter(|(_, (_, seed))| *seed).count();
        let leechers = live.len() - seeds;
        let mut peers: Vec<_> = live.into_iter().map(|(peer, _)| *peer).collect();
        rng.shuffle(&mut peers);
        peers.truncate(MAX_PEERS);
        Reply::Peers {
            peers,
            seeds: seeds as u32,
            leechers: leechers as u32,
        }
    }

    /// Keeps a record under one of its title's words.
    pub(crate) fn publish(&mut self, now: Time, word: &str, record: Record) -> Reply {
        if !record.matches(&[word.to_owned()]) || !record.verify() {
            return Reply::Refused(Refusal::Invalid);
        }
        let name = (record.publisher, record.content);
        let full = self.words.len() >= self.limits.words;
        let kept = match self.words.get_mut(word) {
            None if full => return Reply::Refused(Refusal::Full),
            kept => kept,
        };
        let expires = now + ITEM_LIFE;
        if let Some(kept) = kept {
            if let Some(old) = kept.get_mut(&name) {
                if record.made < old.record.made {
                    return Reply::Older(old.record.made.into());
                }
                *old = Kept { record, expires };
                return Reply::Stored;
            }
            let own = kept.keys().filter(|(p, _)| *p == record.publisher);
            if own.count() >= self.limits.per_word_publisher {
                return Reply::Refused(Refusal::Quota);
            }
            if kept.len() >= self.limits.records_per_word {
                return Reply::Refused(Refusal::Full);
            }
        }
        if !self.charge(first_bytes(&record.publisher)) {
            return Reply::Refused(Refusal::Quota);
        }
        let kept = self.words.entry(word.to_owned()).or_default();
        kept.insert(name, Kept { record, expires });
        Reply::Stored
    }

    /// How many records are kept under the first word, and those that have all of them, as many
    /// as `most` and as `room` bytes allow.
    pub(crate) fn find(&self, now: Time, words: &[String], most: u8, mut room: usize) -> Reply {
        let kept = words.first().and_then(|word| self.words.get(word));
        let live = |k: &&Kept| k.expires > now;
        let count = kept.map_or(0, |kept| kept.values().filter(live).count());
        let mut records = Vec::new();
        for kept in kept.into_iter().flat_map(|k| k.values()).filter(live) {
            let size = 160 + kept.record.title.len();
            if records.len() >= usize::from(most) || size > room {
                break;
            }
            if kept.record.matches(words) {
                room -= size;
                records.push(kept.record.clone());
            }
        }
        Reply::Records {
            count: count as u32,
            records,
        }
    }

    /// Keys with peers, and peers.
    pub(crate) fn peer_counts(&self) -> (usize, usize) {
        (
            self.peers.len(),
            self.peers.values().map(BTreeMap::len).sum(),
        )
    }

    /// Words, and records under them.
    pub(crate) fn word_counts(&self) -> (usize, usize) {
        (
            self.words.len(),
            self.words.values().map(BTreeMap::len).sum(),
        )
    }

    /// About how many bytes all of it takes.
    pub(crate) fn memory(&self) -> usize {
        let items = self.items.values().map(|h| h.item.value().len() + 300);
        let (keys, peers) = self.peer_counts();
        let (words, records) = self.word_counts();
        items.sum::<usize>() + (keys + words) * 100 + peers * 60 + records * 400
    }

    /// Drops what has ended.
    pub(crate) fn expire(&mut self, now: Time) {
        let published = &mut self.published;
        self.items.retain(|_, held| {
            let lives = held.expires > now;
            if !lives {
                Self::discharge(published, held.publisher);
            }
            lives
        });
        self.words.retain(|_, kept| {
            kept.retain(|(publisher, _), k| {
                let lives = k.expires > now;
                if !lives {
                    Self::discharge(published, first_bytes(publisher));
                }
                lives
            });
            !kept.is_empty()
        });
        self.peers.retain(|_, peers| {
            peers.retain(|_, (end, _)| *end > now);
            !peers.is_empty()
        });
    }
}

/// What stands for a key where quotas are counted.
pub(crate) fn first_bytes(key: &[u8; 32]) -> u64 {
    key.iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b))
}
