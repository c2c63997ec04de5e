//! The peers of one swarm, packed: address, port, a coarse time and one bit, 8 bytes a v4 peer.
//!
//! Up to [`LINEAR`] peers lie side by side and are searched one by one; the first few of them
//! inside the table itself, without an allocation. More are hashed into open slots (linear
//! probing, no tombstones). Slots hold addresses as they go over the wire, and a random sample
//! is a walk from a random slot: a few cache lines, whatever the size of the swarm.

use super::siphash::SipKey;

/// Slots up to which a table is a plain list.
const LINEAR: usize = 16;
/// Seconds in a tick of a [`Stamp`].
pub(super) const TICK_SECS: u64 = 8;
/// Ticks before stamps repeat (three days).
const TICKS: u16 = 0x7fff;
/// Slots visited for each peer wanted, before a sample is given up as it stands.
const WALK: usize = 16;

/// When a peer was last seen and whether it has everything. Zero marks an empty slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp(u16);

impl Stamp {
    const EMPTY: Self = Self(0);

    pub(super) fn new(now_secs: u64, seeder: bool) -> Self {
        let tick = 1 + (now_secs / TICK_SECS % u64::from(TICKS)) as u16;
        Self(tick << 1 | u16::from(seeder))
    }

    pub(super) fn is_seeder(self) -> bool {
        self.0 & 1 == 1
    }

    /// Ticks from this stamp to `now`.
    fn age(self, now: Self) -> u16 {
        ((now.0 >> 1) + TICKS - (self.0 >> 1)) % TICKS
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot<const N: usize> {
    peer: [u8; N],
    stamp: Stamp,
}

impl<const N: usize> Slot<N> {
    const EMPTY: Self = Self {
        peer: [0; N],
        stamp: Stamp::EMPTY,
    };

    fn is_empty(&self) -> bool {
        self.stamp == Stamp::EMPTY
    }
}

#[derive(Debug)]
enum Slots<const N: usize, const INLINE: usize> {
    Inline([Slot<N>; INLINE]),
    Heap(Box<[Slot<N>]>),
}

/// Peers by their compact address of `N` bytes, `INLINE` of them without an allocation.
#[derive(Debug)]
pub(super) struct PeerTable<const N: usize, const INLINE: usize> {
    slots: Slots<N, INLINE>,
    len: u32,
    seeders: u32,
}

impl<const N: usize, const INLINE: usize> Default for PeerTable<N, INLINE> {
    fn default() -> Self {
        Self {
            slots: Slots::Inline([Slot::EMPTY; INLINE]),
            len: 0,
            seeders: 0,
        }
    }
}

impl<const N: usize, const INLINE: usize> PeerTable<N, INLINE> {
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn seeders(&self) -> u32 {
        self.seeders
    }

    fn slots(&self) -> &[Slot<N>] {
        match &self.slots {
            Slots::Inline(slots) => slots,
            Slots::Heap(slots) => slots,
        }
    }

    fn slots_mut(&mut self) -> &mut [Slot<N>] {
        match &mut self.slots {
            Slots::Inline(slots) => slots,
            Slots::Heap(slots) => slots,
        }
    }

    /// The slot where `peer` is; or, in a hashed table, the empty one where its search ended.
    fn find(&self, key: &SipKey, peer: &[u8; N]) -> Result<usize, Option<usize>> {
        let slots = self.slots();
        if slots.len() <= LINEAR {
            let list = slots.iter().take(self.len as usize);
            return list.map(|s| &s.peer).position(|p| p == peer).ok_or(None);
        }
        // One slot in eight is empty at least, so the walk ends.
        let mut at = home(key, peer, slots.len());
        loop {
            let slot = &slots[at];
            if slot.is_empty() {
                return Err(Some(at));
            }
            if slot.peer == *peer {
                return Ok(at);
            }
            at = if at + 1 == slots.len() { 0 } else { at + 1 };
        }
    }

    pub(super) fn get(&self, key: &SipKey, peer: &[u8; N]) -> Option<Stamp> {
        self.find(key, peer).ok().map(|at| self.slots()[at].stamp)
    }

    /// Adds or refreshes `peer`; gives its old stamp.
    pub(super) fn insert(&mut self, key: &SipKey, peer: [u8; N], stamp: Stamp) -> Option<Stamp> {
        let new = Slot { peer, stamp };
        let old = match self.find(key, &peer) {
            Ok(at) => Some(std::mem::replace(&mut self.slots_mut()[at], new).stamp),
            Err(hole) => {
                self.add(key, new, hole);
                self.len += 1;
                None
            }
        };
        self.seeders += u32::from(stamp.is_seeder());
        self.seeders -= u32::from(old.is_some_and(Stamp::is_seeder));
        old
    }

    /// Puts a peer that is not here into its slot, making room first.
    fn add(&mut self, key: &SipKey, new: Slot<N>, hole: Option<usize>) {
        let (len, capacity) = (self.len as usize, self.slots().len());
        if capacity <= LINEAR && len < capacity {
            self.slots_mut()[len] = new;
            return;
        }
        let fits = capacity > LINEAR && (len + 1) * 8 <= capacity * 7;
        let hole = hole.filter(|_| fits).or_else(|| {
            self.rebuild(key, grown(capacity));
            if self.slots().len() <= LINEAR {
                return Some(len);
            }
            self.find(key, &new.peer).err().flatten()
        });
        if let Some(hole) = hole {
            self.slots_mut()[hole] = new;
        }
    }

    /// Moves all peers into `capacity` slots, which must be enough.
    fn rebuild(&mut self, key: &SipKey, capacity: usize) {
        let slots = if capacity <= INLINE {
            Slots::Inline([Slot::EMPTY; INLINE])
        } else {
            Slots::Heap(vec![Slot::EMPTY; capacity].into_boxed_slice())
        };
        let old = std::mem::replace(&mut self.slots, slots);
        let old = match &old {
            Slots::Inline(slots) => slots.as_slice(),
            Slots::Heap(slots) => slots,
        };
        let peers = old.iter().filter(|s| !s.is_empty());
        let slots = self.slots_mut();
        if slots.len() <= LINEAR {
            slots.iter_mut().zip(peers).for_each(|(to, s)| *to = *s);
            return;
        }
        for slot in peers {
            let mut at = home(key, &slot.peer, slots.len());
            while !slots[at].is_empty() {
                at = if at + 1 == slots.len() { 0 } else { at + 1 };
            }
            slots[at] = *slot;
        }
    }

    /// Removes `peer`; gives its stamp.
    pub(super) fn remove(&mut self, key: &SipKey, peer: &[u8; N]) -> Option<Stamp> {
        let at = self.find(key, peer).ok()?;
        Some(self.remove_at(key, at).stamp)
    }

    fn remove_at(&mut self, key: &SipKey, at: usize) -> Slot<N> {
        let last = self.len as usize - 1;
        let slots = self.slots_mut();
        let removed = slots[at];
        if slots.len() <= LINEAR {
            slots[at] = slots[last];
            slots[last] = Slot::EMPTY;
        } else {
            // Peers behind the hole move up, unless that would put them before their home.
            let capacity = slots.len();
            let (mut hole, mut next) = (at, at);
            loop {
                next = if next + 1 == capacity { 0 } else { next + 1 };
                if slots[next].is_empty() {
                    break;
                }
                let home = home(key, &slots[next].peer, capacity);
                let distance = |from: usize| (next + capacity - from) % capacity;
                if distance(home) >= distance(hole) {
                    slots[hole] = slots[next];
                    hole = next;
                }
            }
            slots[hole] = Slot::EMPTY;
        }
        self.len -= 1;
        self.seeders -= u32::from(removed.stamp.is_seeder());
        removed
    }

    /// Appends up to `want` peers other than `except` to `out`, chosen by `random`; leaves out
    /// seeders if so told.
    pub(super) fn sample(
        &self,
        random: u64,
        want: usize,
        except: &[u8; N],
        seeders: bool,
        out: &mut Vec<u8>,
    ) {
        let slots = self.slots();
        let slots = if slots.len() <= LINEAR {
            slots.get(..self.len as usize).unwrap_or_default()
        } else {
            slots
        };
        let start = scale(random, slots.len());
        let (tail, head) = slots.split_at_checked(start).unwrap_or_default();
        let mut left = want;
        for slot in head.iter().chain(tail).take(want * WALK) {
            if left == 0 {
                break;
            }
            let stamp = slot.stamp;
            if stamp != Stamp::EMPTY && (seeders || !stamp.is_seeder()) && slot.peer != *except {
                out.extend_from_slice(&slot.peer);
                left -= 1;
            }
        }
    }

    /// Removes peers not seen for more than `max_age` ticks and gives room back; tells each.
    pub(super) fn expire(
        &mut self,
        key: &SipKey,
        now: Stamp,
        max_age: u16,
        mut removed: impl FnMut(&[u8; N]),
    ) {
        let mut at = 0;
        // Removal fills the slot from behind, so it is looked at again before going on.
        while let Some(slot) = self.slots().get(at) {
            if slot.is_empty() || slot.stamp.age(now) <= max_age {
                at += 1;
            } else {
                removed(&self.remove_at(key, at).peer);
            }
        }
        let (len, capacity) = (self.len as usize, self.slots().len());
        if capacity > INLINE && len * 3 < capacity {
            let mut fitting = INLINE;
            while fitting < len + len / 4 {
                fitting = grown(fitting);
            }
            if fitting < capacity {
                self.rebuild(key, fitting);
            }
        }
    }

    /// Checks what must always hold; for tests.
    #[cfg(test)]
    fn check_invariants(&self, key: &SipKey) {
        let used: Vec<_> = self.slots().iter().filter(|s| !s.is_empty()).collect();
        assert_eq!(used.len(), self.len as usize);
        let seeders = used.iter().filter(|s| s.stamp.is_seeder()).count();
        assert_eq!(seeders, self.seeders as usize);
        for slot in used {
            assert!(self.find(key, &slot.peer).is_ok());
        }
    }
}

/// The next larger capacity.
fn grown(capacity: usize) -> usize {
    match capacity {
        0..4 => 4,
        4..8 => 8,
        8..LINEAR => LINEAR,
        _ => capacity + capacity / 2,
    }
}

fn home<const N: usize>(key: &SipKey, peer: &[u8; N], capacity: usize) -> usize {
    scale(key.hash(peer), capacity)
}

/// Spreads uniform bits over `0..n` (multiply-shift), without asking for a power of two.
fn scale(bits: u64, n: usize) -> usize {
    (((bits >> 32) * n as u64) >> 32) as usize
}

#[cfg(test)]
mod tests;
