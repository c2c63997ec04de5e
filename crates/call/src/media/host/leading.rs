//! Who called chooses who mixes.

use super::{Candidate, Key, Strength, rank};
use shoal_base::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long after the first end has joined those that still ring are not waited for any more.
const WAIT: Duration = Duration::from_secs(5);
/// How long after the last one has joined it is waited for better ways to it.
const SETTLE: Duration = Duration::from_millis(1500);
/// How long those that were told of a host have to move to it.
const MOVE: Duration = Duration::from_secs(8);

/// What is known of an end that was called.
#[derive(Debug, Default)]
struct End {
    /// What it says; none if it knows of no hosts.
    strength: Option<Strength>,
    /// Without a relay, there and back.
    way: Option<(bool, Duration)>,
    up: bool,
    /// It does not ring any more.
    settled: bool,
    /// It was told, while it had a call with us.
    told: bool,
    /// It was a host that nobody got to.
    failed: bool,
}

/// See the module's text.
#[derive(Debug)]
pub struct Leading {
    ours: Key,
    ends: BTreeMap<Key, End>,
    /// When the first and the last one joined.
    began: Option<(Time, Time)>,
    hosts: Vec<Key>,
    /// When it is seen whether the others have moved.
    check: Option<Time>,
}

impl Leading {
    /// The end with this key calls these.
    pub fn new(ours: Key, called: impl IntoIterator<Item = Key>) -> Self {
        let ends = called.into_iter().map(|key| (key, End::default()));
        Self {
            ours,
            ends: ends.collect(),
            began: None,
            hosts: Vec::new(),
            check: None,
        }
    }

    /// One more is called.
    pub fn add(&mut self, key: Key) {
        self.ends.insert(key, End::default());
    }

    /// An end has joined. It is told of the hosts now, if there are any.
    pub fn joined(&mut self, now: Time, key: Key, strength: Option<Strength>) -> Option<&[Key]> {
        let end = self.ends.entry(key).or_default();
        (end.strength, end.up, end.settled) = (strength, true, true);
        self.began = Some((self.began.map_or(now, |(first, _)| first), now));
        if self.hosts.is_empty() || strength.is_none() {
            return None;
        }
        end.told = true;
        Some(&self.hosts)
    }

    /// How an end is reached: without a relay, there and back.
    pub fn measured(&mut self, key: Key, direct: bool, rtt: Duration) {
        if let Some(end) = self.ends.get_mut(&key) {
            end.way = Some((direct, rtt));
        }
    }

    /// An end has left, or did not come.
    pub fn left(&mut self, key: Key) {
        if let Some(end) = self.ends.get_mut(&key) {
            (end.up, end.settled) = (false, true);
        }
    }

    /// The hosts that all who have joined are to be told, if they are to be told now; `ours` is what we would
    /// be as a host.
    pub fn acts(&mut self, now: Time, ours: Strength) -> Option<&[Key]> {
        if !self.hosts.is_empty() && !self.has_failed(now) {
            return None;
        }
        let ready = |end: &End| end.settled && (!end.up || end.way.is_some());
        let (first, last) = self.began?;
        let all = self.ends.values().all(ready) && now.since(last) >= SETTLE;
        let known = self.ends.values().any(|e| e.up && e.strength.is_some());
        if !known || !(all || now.since(first) >= WAIT) {
            return None;
        }
        let mut candidates = vec![self.us(ours)];
        for (key, end) in self.ends.iter().filter(|(_, end)| end.up && !end.failed) {
            if let (Some(strength), Some((direct, rtt))) = (end.strength, end.way) {
                candidates.push(Candidate {
                    key: *key,
                    strength,
                    direct,
                    rtt,
                });
            }
        }
        self.hosts = rank(&candidates);
        if !self.hosts.contains(&self.ours) {
            // Somebody has to, when nobody else does.
            self.hosts.push(self.ours);
        }
        self.check = (self.hosts.first() != Some(&self.ours)).then_some(now + MOVE);
        for end in self.ends.values_mut() {
            end.told = end.up && end.strength.is_some();
        }
        Some(&self.hosts)
    }

    /// What we are as a host ourselves.
    fn us(&self, strength: Strength) -> Candidate {
        let ways = self.ends.values().filter_map(|end| end.way);
        let (direct, relayed): (Vec<_>, Vec<_>) = ways.partition(|(direct, _)| *direct);
        Candidate {
            key: self.ours,
            strength,
            direct: strength.open || direct.len() >= relayed.len(),
            rtt: Duration::ZERO,
        }
    }

    /// Whether nobody got to the host: then it is not what it said.
    fn has_failed(&mut self, now: Time) -> bool {
        if self.check.is_none_or(|at| now < at) {
            return false;
        }
        self.check = None;
        let Some(host) = self.hosts.first().copied() else {
            return false;
        };
        let told = self.ends.iter().filter(|(key, e)| e.told && **key != host);
        let stayed = told.clone().filter(|(_, end)| end.up).count();
        let failed = stayed > 0 && stayed == told.count();
        if let Some(end) = self.ends.get_mut(&host).filter(|_| failed) {
            end.failed = true;
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Key = [100; 32];
    const ABLE: Strength = Strength {
        mixes: true,
        open: false,
        power: 2,
    };
    const WEAK: Strength = Strength { power: 0, ..ABLE };

    fn at(ms: u64) -> Time {
        Time::from_micros(1000 * ms)
    }

    fn hosts(leading: &mut Leading, ms: u64, ours: Strength) -> Option<Vec<u8>> {
        let told = leading.acts(at(ms), ours)?;
        Some(told.iter().map(|key| key[0]).collect())
    }

    /// Four have joined, and are near.
    fn four() -> Leading {
        let mut leading = Leading::new(OURS, (1..=4).map(|n| [n; 32]));
        for n in 1..=4 {
            assert_eq!(leading.joined(at(0), [n; 32], Some(ABLE)), None);
            leading.measured([n; 32], true, Duration::from_millis(u64::from(n)));
        }
        leading
    }

    #[test]
    fn who_called_mixes_unless_somebody_is_better() {
        assert_eq!(hosts(&mut four(), 1499, ABLE), None);
        assert_eq!(hosts(&mut four(), 1500, ABLE), Some(vec![100, 1, 2, 3, 4]));
        assert_eq!(hosts(&mut four(), 1500, WEAK), Some(vec![1, 2, 3, 4, 100]));
        let unwilling = Strength {
            mixes: false,
            ..ABLE
        };
        let mut leading = four();
        assert_eq!(
            hosts(&mut leading, 1500, unwilling),
            Some(vec![1, 2, 3, 4, 100])
        );
        assert_eq!(hosts(&mut leading, 1600, unwilling), None);
        // Relayed to most, it is no better than who is reached by a relay.
        let mut leading = four();
        for n in 2..=4 {
            leading.measured([n; 32], false, Duration::from_millis(1));
        }
        assert_eq!(hosts(&mut leading, 1500, ABLE), Some(vec![1, 100, 2, 3, 4]));
        let open = Strength { open: true, ..WEAK };
        let mut leading = four();
        for n in 2..=4 {
            leading.measured([n; 32], false, Duration::from_millis(1));
        }
        assert_eq!(hosts(&mut leading, 1500, open), Some(vec![100, 1, 2, 3, 4]));
    }

    #[test]
    fn who_still_rings_is_waited_for_a_while_and_told_later() {
        let mut leading = Leading::new(OURS, (1..=4).map(|n| [n; 32]));
        leading.joined(at(0), [1; 32], Some(ABLE));
        leading.measured([1; 32], true, Duration::ZERO);
        leading.joined(at(0), [2; 32], None);
        leading.left([3; 32]);
        assert_eq!(hosts(&mut leading, 4999, WEAK), None);
        assert_eq!(hosts(&mut leading, 5000, WEAK), Some(vec![1, 100]));
        let told = leading.joined(at(9000), [4; 32], Some(ABLE));
        assert_eq!(told.map(|hosts| hosts[0]), Some([1; 32]));
        leading.add([5; 32]);
        let told = leading.joined(at(60_000), [5; 32], Some(ABLE));
        assert_eq!(told.map(|hosts| hosts[0]), Some([1; 32]));
    }

    #[test]
    fn a_host_that_nobody_gets_to_is_replaced_by_the_next() {
        let mut leading = four();
        assert_eq!(hosts(&mut leading, 1500, WEAK), Some(vec![1, 2, 3, 4, 100]));
        assert_eq!(hosts(&mut leading, 9499, WEAK), None);
        assert_eq!(hosts(&mut leading, 9500, WEAK), Some(vec![2, 3, 4, 100]));
        // One has moved: it is no more than that others do not get there.
        leading.left([3; 32]);
        assert_eq!(hosts(&mut leading, 16_000, WEAK), None);
        assert_eq!(hosts(&mut leading, 60_000, WEAK), None);
    }

    #[test]
    fn ends_that_know_of_no_hosts_are_not_told() {
        let mut leading = Leading::new(OURS, [[1; 32], [2; 32]]);
        for n in 1..=2 {
            leading.joined(at(0), [n; 32], None);
            leading.measured([n; 32], true, Duration::ZERO);
        }
        assert_eq!(hosts(&mut leading, 0, WEAK), None);
        assert_eq!(hosts(&mut leading, 60_000, WEAK), None);
    }
}
