//! Through whom one end of a hosted group hears the others.

use super::Key;
use shoal_base::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a host is called before the next one is called as well.
const STEP: Duration = Duration::from_millis(2500);
/// How long hosts that did not answer are left alone, by who hears nobody.
const AGAIN: Duration = Duration::from_secs(3);
/// How long who hears nobody goes on trying.
const HOPE: Duration = Duration::from_secs(30);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Call this host; nothing is heard or said there yet.
    Call(Key),
    /// From now on hear and speak through this one, and through no other that we called.
    Hear(Key),
    /// Hang up there.
    HangUp(Key),
    /// We mix.
    Mix,
}

/// One end of a group for which somebody mixes. It hears the others through the first host of the list
/// that is there, if that comes before itself; else it mixes for those that call it.
///
/// Whoever it hears through comes before it in the list, but for who told it: so nothing goes in circles,
/// also while some have moved on and others have not.
#[derive(Debug)]
pub struct Following {
    ours: Key,
    hosts: Vec<Key>,
    /// Whom we hear the others through.
    through: Option<Key>,
    /// Its call brings nothing.
    quiet: bool,
    /// Calls with sound.
    up: BTreeSet<Key>,
    /// Calls that we began, with or without sound, and when.
    called: BTreeMap<Key, Time>,
    /// Hosts that failed, and those that have hung up for good.
    struck: BTreeSet<Key>,
    gone: BTreeSet<Key>,
    /// Since when we hear nobody, though we should.
    lost: Option<Time>,
    again: Option<Time>,
    mixes: bool,
}

impl Following {
    /// The end with this key, which was told of no hosts yet. `up`: with whom it has calls.
    pub fn new(ours: Key, up: impl IntoIterator<Item = Key>) -> Self {
        Self {
            ours,
            hosts: Vec::new(),
            through: None,
            quiet: false,
            up: up.into_iter().collect(),
            called: BTreeMap::new(),
            struck: BTreeSet::new(),
            gone: BTreeSet::new(),
            lost: None,
            again: None,
            mixes: false,
        }
    }

    /// Hosts, the best first, are told by `from`, through whom we hear the others so far; none if we are the
    /// one who tells.
    pub fn told(&mut self, now: Time, hosts: Vec<Key>, from: Option<Key>) {
        // Who is first hears all that are called through nobody.
        self.through = match hosts.first() == Some(&self.ours) {
            true => None,
            false => self.through.or(from).filter(|key| self.up.contains(key)),
        };
        self.hosts = hosts;
        self.lost = self.through.is_none().then_some(now);
        (self.struck, self.gone) = (BTreeSet::new(), BTreeSet::new());
        (self.again, self.mixes) = (None, false);
    }

    /// Hosts before us.
    fn before(&self) -> impl Iterator<Item = &Key> {
        self.hosts.iter().take_while(|key| **key != self.ours)
    }

    /// Those of them that may be there.
    fn targets(&self) -> impl Iterator<Item = &Key> {
        let failed = |key: &Key| self.struck.contains(key) || self.gone.contains(key);
        self.before().filter(move |key| !failed(key))
    }

    /// Whether others of the group may be let in: who can mix, and does not hear the others through somebody
    /// who may come to hear them through us.
    pub fn may_mix(&self) -> bool {
        let upwards = |through: &Key| self.before().any(|key| key == through);
        self.hosts.contains(&self.ours) && self.through.as_ref().is_none_or(upwards)
    }

    /// Whom we hear the others through; none if we mix, or hear nobody.
    pub fn through(&self) -> Option<Key> {
        self.through
    }

    /// Whether it is worth to stay though nobody is there.
    pub fn hopes(&self, now: Time) -> bool {
        let all_gone = self.before().all(|key| self.gone.contains(key));
        self.through.is_none() && !all_gone && self.lost.is_none_or(|since| now.since(since) < HOPE)
    }

    /// A call has sound.
    pub fn joined(&mut self, key: Key) {
        self.up.insert(key);
        self.struck.remove(&key);
    }

    /// A call is over, or could not be made; `for_good`: its end wants it so.
    pub fn left(&mut self, now: Time, key: Key, for_good: bool) {
        self.up.remove(&key);
        let called = self.called.remove(&key).is_some();
        let through = self.through == Some(key);
        if through {
            self.through = None;
            self.lost = Some(now);
        }
        // Others leave when they hear somebody else, and may be called later.
        if called || through {
            match for_good {
                true => self.gone.insert(key),
                false => self.struck.insert(key),
            };
        }
    }

    /// Whoever we hear the others through is about to hang up, and stays until we hear somebody else.
    pub fn away(&mut self, key: Key) {
        self.gone.insert(key);
    }

    /// Whether whom we hear the others through sends nothing, or next to nothing of it comes.
    pub fn quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
    }

    /// What is to be done now.
    pub fn acts(&mut self, now: Time) -> Vec<Act> {
        let mut acts = Vec::new();
        self.choose(&mut acts);
        self.call(now, &mut acts);
        let others = self.targets().any(|key| Some(*key) != self.through);
        if self.through.is_none() && !others && self.up.is_empty() {
            // Hosts that seem to have failed may be there again, or it was our own network.
            let again = *self.again.get_or_insert(now + AGAIN);
            if now >= again {
                (self.again, self.struck) = (None, BTreeSet::new());
            }
        }
        // Who has nobody before it is the one that mixes.
        let (well, last) = (self.is_well(), self.hosts.contains(&self.ours) && !others);
        match self.through {
            Some(through) if well && self.mixes => {
                self.mixes = false;
                acts.push(Act::Hear(through));
            }
            _ if !well && last && !self.mixes => {
                self.mixes = true;
                acts.push(Act::Mix);
            }
            _ => {}
        }
        acts
    }

    /// Whether whom we hear through is there, to stay.
    fn is_well(&self) -> bool {
        let well = |key: &Key| self.up.contains(key) && !self.gone.contains(key);
        !self.quiet && self.through.as_ref().is_some_and(well)
    }

    /// Takes the best of those whose call has sound.
    fn choose(&mut self, acts: &mut Vec<Act>) {
        let (well, through) = (self.is_well(), self.through);
        let first = self.targets().find(|key| self.up.contains(*key)).copied();
        // Somebody else than the first is not left for one who is no better.
        let better = |key: &Key| Some(key) == self.hosts.first() || !well;
        let found = match first {
            Some(key) if Some(key) == through && self.quiet => {
                let mut others = self.targets().filter(|key| Some(**key) != through);
                others.find(|key| self.up.contains(*key)).copied()
            }
            first => first.filter(better),
        };
        if let Some(key) = found.filter(|key| Some(*key) != through) {
            if let Some(old) = through {
                if self.quiet {
                    self.struck.insert(old);
                }
                self.up.remove(&old);
                self.called.remove(&old);
                acts.push(Act::HangUp(old));
            }
            (self.through, self.quiet, self.lost) = (Some(key), false, None);
            self.mixes = false;
            acts.insert(0, Act::Hear(key));
        }
        // Whoever was called beside that is not needed, once all is well.
        if self.is_well() {
            let through = self.through;
            let first = self.targets().next().copied();
            let spare = |key: &Key| Some(*key) != through && Some(*key) != first;
            let spare: Vec<_> = self.called.keys().copied().filter(spare).collect();
            for key in spare {
                self.called.remove(&key);
                self.up.remove(&key);
                acts.push(Act::HangUp(key));
            }
        }
    }

    /// Calls who is to be called next.
    fn call(&mut self, now: Time, acts: &mut Vec<Act>) {
        let last = self.called.values().max().copied();
        let first = self.hosts.first().copied();
        let well = self.is_well();
        let next = self.targets().find(|key| {
            let there = self.up.contains(*key) || self.called.contains_key(*key);
            !there && Some(**key) != self.through
        });
        let Some(next) = next.copied() else {
            return;
        };
        // All is well with the first alone; else one after the other, as long as nobody answers.
        let wanted = match well {
            true => Some(next) == first,
            false => last.is_none_or(|last| now.since(last) >= STEP),
        };
        if wanted && self.through != Some(next) {
            self.called.insert(next, now);
            acts.push(Act::Call(next));
        }
    }
}

#[cfg(test)]
mod tests;
