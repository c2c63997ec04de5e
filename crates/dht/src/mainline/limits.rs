//! How much of us one address may use: token buckets per source, bounded in number.

use super::node::Source;
use shoal_base::Time;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A bucket of whole requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    tokens: f32,
    last: Time,
}

impl Bucket {
    /// A bucket that starts full.
    pub(super) fn new(now: Time, burst: f32) -> Self {
        Self {
            tokens: burst,
            last: now,
        }
    }

    /// Takes one token, if there is one after `rate` a second came in, up to `burst`.
    pub(super) fn take(&mut self, now: Time, rate: f32, burst: f32) -> bool {
        let gained = now.since(self.last).as_secs_f32() * rate;
        self.tokens = (self.tokens + gained).min(burst);
        self.last = now.max(self.last);
        let granted = self.tokens >= 1.0;
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }
}

/// `rate` requests a second with bursts of `burst`, for each source on its own.
///
/// Remembers between `capacity` and twice as many sources, the latest; one that was forgotten
/// starts with a full bucket.
#[derive(Debug)]
pub(super) struct PerSource {
    rate: f32,
    burst: f32,
    capacity: usize,
    young: BTreeMap<Source, Bucket>,
    old: BTreeMap<Source, Bucket>,
}

impl PerSource {
    /// Buckets that start full.
    pub(super) fn new(rate: f32, burst: f32, capacity: usize) -> Self {
        Self {
            rate,
            burst,
            capacity: capacity.max(1),
            young: BTreeMap::new(),
            old: BTreeMap::new(),
        }
    }

    /// Takes one token of `ip`'s bucket, if there is one.
    pub(super) fn take(&mut self, now: Time, ip: IpAddr) -> bool {
        let source = Source::of(ip);
        let mut bucket = self
            .young
            .get(&source)
            .or_else(|| self.old.get(&source))
            .copied();
        let bucket = bucket.get_or_insert(Bucket::new(now, self.burst));
        let granted = bucket.take(now, self.rate, self.burst);
        if self.young.len() >= self.capacity && !self.young.contains_key(&source) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(source, *bucket);
        granted
    }

    /// How many sources are remembered.
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_is_held_to_its_rate_and_others_are_not() {
        let mut limits = PerSource::new(10.0, 20.0, 8);
        let flood: IpAddr = [1, 2, 3, 4].into();
        let passed = (0..1000)
            .filter(|i| limits.take(Time::from_micros(i * 10_000), flood))
            .count();
        assert!((110..=120).contains(&passed), "{passed} in ten seconds");
        assert!(limits.take(Time::from_secs(10), [1, 2, 3, 5].into()));
    }

    #[test]
    fn sources_are_forgotten_rather_than_piled_up() {
        let mut limits = PerSource::new(1.0, 1.0, 8);
        for i in 0..10_000u32 {
            limits.take(Time::ZERO, std::net::Ipv4Addr::from(i).into());
            assert!(limits.len() <= 16);
        }
    }
}
