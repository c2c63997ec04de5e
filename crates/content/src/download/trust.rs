//! Who sent bad blocks.
//!
//! A piece that fails with one contributor is a strike against it; two strikes ban. With several
//! contributors the digests of the blocks are kept, and when the piece verifies later, whoever
//! sent a block that differs is banned: that is proof.

use super::{BlockDigest, open::BlockState};
use crate::PieceIndex;
use rustc_hash::FxHashMap;
use shoal_base::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// Bad pieces from one address alone after which it is banned.
const STRIKES: u32 = 2;
/// Digests kept over all pieces; beyond that the oldest pieces' are forgotten.
const MAX_SUSPECTS: usize = 65_536;
/// How long a piece that failed is kept from those who sent it, while others have it.
const AVOID: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
struct Address {
    id: u64,
    strikes: u32,
    banned: bool,
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    block: u32,
    address: u32,
    digest: BlockDigest,
}

#[derive(Clone, Debug, Default)]
struct Failure {
    avoid_until: Time,
    senders: Vec<u32>,
    suspects: Vec<Suspect>,
}

/// Addresses by number, and the pieces that failed.
#[derive(Clone, Debug, Default)]
pub(super) struct Trust {
    numbers: FxHashMap<u64, u32>,
    addresses: Vec<Address>,
    failures: BTreeMap<PieceIndex, Failure>,
    suspects: usize,
}

impl Trust {
    /// The number of address `id`, given when it first sends a block.
    pub(super) fn number(&mut self, id: u64) -> u32 {
        let next = self.addresses.len() as u32;
        if next == BlockState::FROM_DISK {
            return next;
        }
        let n = *self.numbers.entry(id).or_insert(next);
        if n == next {
            self.addresses.push(Address {
                id,
                strikes: 0,
                banned: false,
            });
        }
        n
    }

    pub(super) fn is_banned(&self, id: u64) -> bool {
        self.numbers
            .get(&id)
            .and_then(|n| self.addresses.get(*n as usize))
            .is_some_and(|a| a.banned)
    }

    /// Whether `piece` failed before: one source alone is to fetch it, and its digests are wanted
    /// when it verifies.
    pub(super) fn has_failed(&self, piece: PieceIndex) -> bool {
        !self.failures.is_empty() && self.failures.contains_key(&piece)
    }

    /// Whether the address numbered `n` had better not fetch `piece` again just now.
    pub(super) fn avoids(&self, piece: PieceIndex, n: u32, now: Time) -> bool {
        !self.failures.is_empty()
            && self
                .failures
                .get(&piece)
                .is_some_and(|f| now < f.avoid_until && f.senders.contains(&n))
    }

    /// `piece` failed, sent as `states` tell. Addresses to ban go to `banned`.
    pub(super) fn on_corrupt(
        &mut self,
        now: Time,
        piece: PieceIndex,
        states: &[BlockState],
        digests: &[BlockDigest],
        banned: &mut Vec<u64>,
    ) {
        let mut senders: Vec<u32> = states.iter().filter_map(|s| s.sender()).collect();
        senders.sort_unstable();
        senders.dedup();
        let failure = self.failures.entry(piece).or_default();
        failure.avoid_until = now + AVOID;
        failure.senders.clear();
        failure.senders.extend(
            senders
                .iter()
                .copied()
                .filter(|s| *s != BlockState::FROM_DISK),
        );
        if let [only] = senders.as_slice() {
            self.strike(*only, banned);
            return;
        }
        for ((block, state), digest) in (0u32..).zip(states).zip(digests) {
            let Some(address) = state.sender().filter(|a| *a != BlockState::FROM_DISK) else {
                continue;
            };
            let known = failure
                .suspects
                .iter()
                .any(|s| s.block == block && s.address == address && s.digest == *digest);
            if !known {
                failure.suspects.push(Suspect {
                    block,
                    address,
                    digest: *digest,
                });
                self.suspects += 1;
            }
        }
        while self.suspects > MAX_SUSPECTS
            && let Some((_, old)) = self.failures.pop_first()
        {
            self.suspects -= old.suspects.len();
        }
    }

    /// `piece` verified with these block digests. Addresses to ban go to `banned`.
    pub(super) fn on_verified(
        &mut self,
        piece: PieceIndex,
        digests: Option<&[BlockDigest]>,
        banned: &mut Vec<u64>,
    ) {
        if self.failures.is_empty() {
            return;
        }
        let Some(failure) = self.failures.remove(&piece) else {
            return;
        };
        self.suspects -= failure.suspects.len();
        let Some(good) = digests else { return };
        for s in failure.suspects {
            if good.get(s.block as usize).is_some_and(|d| *d != s.digest) {
                self.ban(s.address, banned);
            }
        }
    }

    fn strike(&mut self, n: u32, banned: &mut Vec<u64>) {
        if let Some(a) = self.addresses.get_mut(n as usize) {
            a.strikes += 1;
            if a.strikes >= STRIKES {
                self.ban(n, banned);
            }
        }
    }

    fn ban(&mut self, n: u32, banned: &mut Vec<u64>) {
        if let Some(a) = self.addresses.get_mut(n as usize)
            && !a.banned
        {
            a.banned = true;
            banned.push(a.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(by: &[u32]) -> Vec<BlockState> {
        by.iter().map(|a| BlockState::received(*a)).collect()
    }

    fn digests(bytes: &[u8]) -> Vec<BlockDigest> {
        bytes.iter().map(|b| [*b; 20]).collect()
    }

    #[test]
    fn a_sole_sender_is_banned_after_its_second_bad_piece() {
        let mut t = Trust::default();
        let a = t.number(77);
        let mut banned = Vec::new();
        t.on_corrupt(
            Time::ZERO,
            1,
            &sent(&[a, a]),
            &digests(&[1, 2]),
            &mut banned,
        );
        assert!(banned.is_empty() && t.avoids(1, a, Time::ZERO) && t.has_failed(1));
        t.on_corrupt(
            Time::ZERO,
            2,
            &sent(&[a, a]),
            &digests(&[1, 2]),
            &mut banned,
        );
        assert_eq!(banned, [77]);
        assert!(t.is_banned(77));
    }

    #[test]
    fn among_several_only_the_one_whose_block_differs_is_banned() {
        let mut t = Trust::default();
        let (a, b) = (t.number(1), t.number(2));
        let disk = BlockState::FROM_DISK;
        let mut banned = Vec::new();
        t.on_corrupt(
            Time::ZERO,
            9,
            &sent(&[a, b, disk]),
            &digests(&[1, 2, 3]),
            &mut banned,
        );
        assert!(banned.is_empty());
        t.on_verified(9, Some(&digests(&[1, 9, 9])), &mut banned);
        assert_eq!(banned, [2]);
        assert!(!t.has_failed(9));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut t = Trust::default();
        let (a, b) = (t.number(1), t.number(2));
        let states = sent(&[a, b].repeat(512));
        for p in 0..100 {
            t.on_corrupt(
                Time::ZERO,
                p,
                &states,
                &digests(&[p as u8; 1024]),
                &mut Vec::new(),
            );
        }
        assert!(t.suspects <= MAX_SUSPECTS);
        assert!(!t.has_failed(0) && t.has_failed(99));
    }
}
