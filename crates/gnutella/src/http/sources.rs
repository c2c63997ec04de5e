//! All hosts that one file may be had from: whom to try next, whom to leave alone and for how long,
//! whom never to ask again.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use shoal_base::Time;
use shoal_base::time::earliest;

use super::head_pings::Outlook;
use super::locations::may_name;

/// Hosts that are remembered, at most.
const MAX_HOSTS: usize = 256;
/// How long a host rests after its first failure; twice as long after each more.
const REST: Duration = Duration::from_secs(3);
/// The longest rest.
const MAX_REST: Duration = Duration::from_secs(300);
/// Failures in a row after which a host that only hearsay named is given up.
const MAX_FAILURES: u32 = 4;

/// What a host is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not tried, or its rest is over.
    Ready,
    /// Connected, or being connected to.
    Working,
    /// Left alone until then: it failed, or has no slot for us.
    Resting(Time),
    /// It does not have the file, or cannot be reached.
    Dead,
    /// It sent wrong bytes.
    Liar,
}

#[derive(Debug, Clone)]
struct Host {
    state: State,
    failures: u32,
    /// The user named it: it is not given up.
    named: bool,
    /// It brought something.
    good: bool,
    /// It speaks TLS, as it or another says, and TLS did not fail with it.
    tls: bool,
    /// What it has for us, as a HEAD ping found.
    outlook: Outlook,
    /// The order in which they came.
    order: u64,
}

/// The hosts.
#[derive(Debug, Default)]
pub struct Sources {
    hosts: BTreeMap<SocketAddr, Host>,
    next: u64,
}

impl Sources {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a host that the user named.
    pub fn name(&mut self, addr: SocketAddr) {
        self.insert(addr, true);
    }

    /// Takes in a host that another told of; true if it is new. Strangers name no machine of our
    /// own network.
    pub fn learn(&mut self, addr: SocketAddr, teller: IpAddr) -> bool {
        may_name(teller, addr) && self.insert(addr, false)
    }

    fn insert(&mut self, addr: SocketAddr, named: bool) -> bool {
        if let Some(host) = self.hosts.get_mut(&addr) {
            host.named |= named;
            return false;
        }
        if self.hosts.len() >= MAX_HOSTS {
            // The dead give way. Liars are remembered: they would come back by hearsay.
            let dead = self.hosts.iter().find(|(_, h)| h.state == State::Dead);
            let Some(dead) = dead.map(|(addr, _)| *addr) else {
                return false;
            };
            self.hosts.remove(&dead);
        }
        let host = Host {
            state: State::Ready,
            failures: 0,
            named,
            good: false,
            tls: false,
            outlook: Outlook::Unknown,
            order: self.next,
        };
        self.next += 1;
        self.hosts.insert(addr, host);
        true
    }

    /// What a host has for us, as it says.
    pub fn set_outlook(&mut self, addr: &SocketAddr, outlook: Outlook) {
        if let Some(host) = self.hosts.get_mut(addr) {
            host.outlook = outlook;
        }
    }

    /// Hosts that may be connected to now.
    pub fn ready(&self, now: Time) -> impl Iterator<Item = SocketAddr> + '_ {
        let is = move |h: &Host| match h.state {
            State::Ready => true,
            State::Resting(until) => until <= now,
            State::Working | State::Dead | State::Liar => false,
        };
        let ready = self.hosts.iter().filter(move |(_, h)| is(h));
        ready.map(|(addr, _)| *addr)
    }

    /// Whether a host speaks TLS.
    pub fn set_tls(&mut self, addr: &SocketAddr, tls: bool) {
        if let Some(host) = self.hosts.get_mut(addr) {
            host.tls = tls;
        }
    }

    /// Whether a host is known to speak TLS.
    pub fn speaks_tls(&self, addr: &SocketAddr) -> bool {
        self.hosts.get(addr).is_some_and(|h| h.tls)
    }

    /// What a host is at.
    pub fn state(&self, addr: &SocketAddr) -> Option<State> {
        self.hosts.get(addr).map(|h| h.state)
    }

    /// How many hosts are in a state for which `f` is true.
    pub fn count(&self, f: impl Fn(State) -> bool) -> usize {
        self.hosts.values().filter(|h| f(h.state)).count()
    }

    /// Whether anybody may still be of use.
    pub fn any_left(&self) -> bool {
        let never = |s| matches!(s, State::Dead | State::Liar | State::Resting(Time::FAR));
        self.count(|s| !never(s)) > 0
    }

    /// The host to connect to next, which is working from here on: those that brought something
    /// first, then those that failed least, then those that have most for us, then in the order they came.
    pub fn take(&mut self, now: Time) -> Option<SocketAddr> {
        for host in self.hosts.values_mut() {
            if let State::Resting(until) = host.state
                && until <= now
            {
                host.state = State::Ready;
            }
        }
        let ready = self
            .hosts
            .iter_mut()
            .filter(|(_, h)| h.state == State::Ready);
        let (addr, host) =
            ready.min_by_key(|(_, h)| (!h.good, h.failures, Reverse(h.outlook), h.order))?;
        host.state = State::Working;
        Some(*addr)
    }

    /// When [`Self::take`] may have somebody again.
    pub fn deadline(&self) -> Option<Time> {
        let resting = self.hosts.values().map(|h| match h.state {
            State::Resting(until) => Some(until),
            _ => None,
        });
        resting.fold(None, earliest)
    }

    fn set(&mut self, addr: &SocketAddr, state: State) {
        if let Some(host) = self.hosts.get_mut(addr)
            && host.state != State::Liar
        {
            host.state = state;
        }
    }

    /// A host connected to us: it is working.
    pub fn working(&mut self, addr: SocketAddr) {
        self.insert(addr, false);
        self.set(&addr, State::Working);
    }

    /// The host brought bytes that are right.
    pub fn good(&mut self, addr: &SocketAddr) {
        if let Some(host) = self.hosts.get_mut(addr) {
            host.good = true;
            host.failures = 0;
        }
    }

    /// To be left alone until then; [`Time::FAR`]: until this is called again.
    pub fn rest(&mut self, addr: &SocketAddr, until: Time) {
        self.set(addr, State::Resting(until));
    }

    /// A connection failed or broke.
    pub fn failed(&mut self, now: Time, addr: &SocketAddr) {
        let Some(host) = self.hosts.get_mut(addr) else {
            return;
        };
        host.failures = host.failures.saturating_add(1);
        let (failures, kept) = (host.failures, host.named || host.good);
        if failures >= MAX_FAILURES && !kept {
            return self.dead(addr);
        }
        let rest = REST
            .saturating_mul(1 << (failures - 1).min(10))
            .min(MAX_REST);
        self.set(addr, State::Resting(now + rest));
    }

    /// It does not have the file.
    pub fn dead(&mut self, addr: &SocketAddr) {
        self.set(addr, State::Dead);
    }

    /// It sent wrong bytes: it is never asked again.
    pub fn liar(&mut self, addr: &SocketAddr) {
        self.set(addr, State::Liar);
    }

    /// Hosts that brought something, to be told others, but not `to` itself.
    pub fn alternates(&self, to: SocketAddr, most: usize) -> Vec<SocketAddr> {
        let good = self.hosts.iter().filter(|(addr, h)| {
            h.good && **addr != to && !matches!(h.state, State::Dead | State::Liar)
        });
        good.map(|(addr, _)| *addr).take(most).collect()
    }

    /// Hosts that turned out not to have the file.
    pub fn useless(&self, most: usize) -> Vec<SocketAddr> {
        let dead = self
            .hosts
            .iter()
            .filter(|(_, h)| matches!(h.state, State::Dead | State::Liar));
        dead.map(|(addr, _)| *addr).take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(n: u8) -> SocketAddr {
        SocketAddr::from(([44, 20, n, 1], 6346))
    }

    const NOW: Time = Time::from_secs(100);

    #[test]
    fn who_has_a_slot_for_us_is_tried_before_who_lets_us_wait() {
        let mut sources = Sources::new();
        for n in 1..=4 {
            sources.name(addr(n));
        }
        assert_eq!(sources.ready(NOW).count(), 4);
        let waits = Outlook::Waits(Reverse(2));
        for (n, outlook) in [(1, Outlook::Nothing), (2, waits), (4, Outlook::Free(1))] {
            sources.set_outlook(&addr(n), outlook);
        }
        let order: Vec<_> = std::iter::from_fn(|| sources.take(NOW)).collect();
        assert_eq!(order, [addr(4), addr(3), addr(2), addr(1)]);
        assert_eq!(sources.ready(NOW).count(), 0);
    }

    #[test]
    fn the_best_are_tried_first() {
        let mut sources = Sources::new();
        for n in [3, 2, 1] {
            assert!(sources.learn(addr(n), addr(9).ip()));
        }
        assert!(!sources.learn(addr(1), addr(9).ip()), "known");
        assert!(!sources.learn(SocketAddr::from(([127, 0, 0, 1], 1)), addr(9).ip()));
        assert_eq!(sources.take(NOW), Some(addr(3)));
        assert_eq!(sources.take(NOW), Some(addr(2)));
        sources.good(&addr(2));
        sources.rest(&addr(2), Time::from_secs(110));
        sources.failed(NOW, &addr(3));
        assert_eq!(sources.deadline(), Some(Time::from_secs(103)));
        let later = Time::from_secs(111);
        let order: Vec<_> = std::iter::from_fn(|| sources.take(later)).collect();
        assert_eq!(order, [addr(2), addr(1), addr(3)]);
        assert_eq!(sources.alternates(addr(1), 9), [addr(2)]);
        assert_eq!(sources.alternates(addr(2), 9), []);
    }

    #[test]
    fn who_fails_is_given_up_unless_the_user_named_it() {
        let mut sources = Sources::new();
        sources.name(addr(1));
        sources.learn(addr(2), addr(9).ip());
        for _ in 0..20 {
            sources.failed(NOW, &addr(1));
            sources.failed(NOW, &addr(2));
        }
        assert_eq!(
            sources.state(&addr(1)),
            Some(State::Resting(NOW + MAX_REST))
        );
        assert_eq!(sources.state(&addr(2)), Some(State::Dead));
        assert_eq!(sources.useless(9), [addr(2)]);
        sources.liar(&addr(1));
        sources.working(addr(1));
        sources.rest(&addr(1), NOW);
        assert_eq!(sources.state(&addr(1)), Some(State::Liar), "for good");
        assert!(!sources.any_left());
    }

    #[test]
    fn they_are_bounded() {
        let mut sources = Sources::new();
        for n in 0..400u16 {
            let [a, b] = n.to_be_bytes();
            let addr = SocketAddr::from(([44, 20, a, b], 1));
            sources.learn(addr, addr.ip());
            if n == 7 {
                sources.dead(&addr);
            }
        }
        assert_eq!(sources.count(|_| true), MAX_HOSTS);
        assert_eq!(sources.useless(9), [], "the dead gave way");
    }
}
