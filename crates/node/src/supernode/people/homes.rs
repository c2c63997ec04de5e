//! Which supernodes keep our letters: three that can be reached, and those that did lately, in whose
//! boxes something may still be.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use shoal_call::record::{Home, MAX_HOMES};
use shoal_store::snapshot;
use shoal_supernode::token::Key;

/// Bytes of the file at most.
const MAX_FILE: u64 = 16 << 10;
/// Homes of before that are still asked at most, and for how long, in seconds: letters wait so long.
const MAX_FORMER: usize = 8;
const FORMER: u64 = 14 * 86_400;
/// After how long out of reach a home is given up for another.
const GIVE_UP: Duration = Duration::from_secs(10);
/// How soon one is tried again; each time twice as long.
const AGAIN: Duration = Duration::from_secs(1);
const MAX_AGAIN: Duration = Duration::from_secs(60);
/// How long others are waited for before fewer than three are told.
const TOGETHER: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    home: Home<SocketAddr>,
    current: bool,
    /// When it was last a home of ours, in Unix seconds.
    unix: u64,
}

/// Them.
#[derive(Debug, Default)]
pub(super) struct Homes {
    kept: Vec<Kept>,
    /// Which are reached, and since when the others are not.
    up: BTreeMap<SocketAddr, Key>,
    down: BTreeMap<SocketAddr, (Instant, u32)>,
    /// Those that did not bring letters, which are no homes of ours again in this run.
    left: BTreeSet<SocketAddr>,
    told: Vec<Home<SocketAddr>>,
    /// When changes are told.
    tell: Option<Instant>,
}

impl Homes {
    /// Those of the last run.
    pub(super) fn load(path: &Path) -> io::Result<Self> {
        let bytes = snapshot::load(path, MAX_FILE)?.unwrap_or_default();
        let kept: Vec<Kept> = postcard::from_bytes(&bytes).unwrap_or_default();
        Ok(Self {
            kept,
            ..Self::default()
        })
    }

    /// Writes them down.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        // Plain data: its encoding cannot fail.
        let bytes = postcard::to_allocvec(&self.kept).unwrap_or_default();
        snapshot::save(path, &bytes)
    }

    /// A supernode is reached.
    pub(super) fn up(&mut self, home: Home<SocketAddr>, now: Instant) {
        self.up.insert(home.addr, home.key);
        self.down.remove(&home.addr);
        if let Some(kept) = self.kept.iter_mut().find(|k| k.home == home) {
            kept.unix = super::super::unix();
            let left = self.left.contains(&home.addr);
            if !left && !kept.current && self.kept.iter().filter(|k| k.current).count() < MAX_HOMES
            {
                self.kept
                    .iter_mut()
                    .filter(|k| k.home == home)
                    .for_each(|k| k.current = true);
            }
        } else {
            // Another supernode has the address of one of before.
            self.kept.retain(|k| k.home.addr != home.addr);
            let current = self.kept.iter().filter(|k| k.current).count() < MAX_HOMES;
            let unix = super::super::unix();
            self.kept.push(Kept {
                home,
                current,
                unix,
            });
        }
        self.tell.get_or_insert(now + TOGETHER);
    }

    /// A supernode is not reached any more.
    pub(super) fn down(&mut self, addr: SocketAddr, now: Instant) {
        self.up.remove(&addr);
        let (_, tries) = self.down.get(&addr).copied().unwrap_or((now, 0));
        self.down.insert(addr, (now, tries.saturating_add(1)));
    }

    /// A supernode is of no use as a home: another takes its place when there is one.
    pub(super) fn leave(&mut self, addr: SocketAddr) {
        self.left.insert(addr);
    }

    /// Links to our boxes that are to be made, and whose key is known; `is_own` says which there are.
    pub(super) fn missing(
        &mut self,
        now: Instant,
        known: &[SocketAddr],
        is_own: impl Fn(&SocketAddr) -> bool,
    ) -> Vec<(SocketAddr, Option<Key>)> {
        let resting = |addr: &SocketAddr| {
            self.down.get(addr).is_some_and(|(since, tries)| {
                now < *since
                    + (AGAIN * 2_u32.saturating_pow(tries.saturating_sub(1).min(6))).min(MAX_AGAIN)
            })
        };
        let mut wanted = Vec::new();
        for kept in &self.kept {
            let addr = kept.home.addr;
            if !is_own(&addr) && !resting(&addr) {
                wanted.push((addr, Some(kept.home.key)));
            }
        }
        let lost = |k: &&Kept| {
            let down = self.down.get(&k.home.addr);
            let gone = down.is_some_and(|(since, tries)| *tries > 1 || now >= *since + GIVE_UP);
            k.current && !gone && !self.left.contains(&k.home.addr)
        };
        let mut room = MAX_HOMES.saturating_sub(self.kept.iter().filter(lost).count());
        for addr in known {
            let new = !self.kept.iter().any(|k| k.home.addr == *addr);
            if new && is_own(addr) {
                room = room.saturating_sub(1);
            } else if new && room > 0 && !resting(addr) {
                room -= 1;
                wanted.push((*addr, None));
            }
        }
        wanted
    }

    /// The homes to be told, if they changed.
    pub(super) fn changed(&mut self, now: Instant) -> Option<Vec<Home<SocketAddr>>> {
        let unix = super::super::unix();
        let (up, down, left) = (&self.up, &self.down, &self.left);
        let lost = |k: &Kept| {
            let since = down.get(&k.home.addr);
            let gone = since.is_some_and(|(at, tries)| *tries > 1 || now >= *at + GIVE_UP);
            gone || left.contains(&k.home.addr)
        };
        let fit = |k: &Kept| up.contains_key(&k.home.addr) && !left.contains(&k.home.addr);
        // One that is out of reach makes place for one that is not.
        let mut spare = self.kept.iter().filter(|k| !k.current && fit(k)).count();
        for kept in &mut self.kept {
            if kept.current && spare > 0 && lost(kept) {
                (kept.current, kept.unix) = (false, unix);
                spare -= 1;
            }
        }
        let mut room = MAX_HOMES.saturating_sub(self.kept.iter().filter(|k| k.current).count());
        for kept in &mut self.kept {
            if room > 0 && !kept.current && fit(kept) {
                kept.current = true;
                room -= 1;
            }
        }
        self.kept
            .retain(|k| k.current || unix < k.unix.saturating_add(FORMER));
        while self.kept.len() > MAX_HOMES + MAX_FORMER {
            let oldest = self.kept.iter().enumerate().filter(|(_, k)| !k.current);
            let Some((at, _)) = oldest.min_by_key(|(_, k)| k.unix) else {
                break;
            };
            self.kept.remove(at);
        }
        let homes: Vec<_> = self
            .kept
            .iter()
            .filter(|k| k.current)
            .map(|k| k.home)
            .collect();
        let reached = homes.iter().filter(|h| up.contains_key(&h.addr)).count();
        let due = self.tell.is_some_and(|at| at <= now) || reached == MAX_HOMES;
        if homes == self.told || homes.is_empty() || !due {
            return None;
        }
        self.tell = None;
        self.told.clone_from(&homes);
        Some(homes)
    }
}
