//! One network: everybody calls, relays die, translators forget, and then all of it at random.

use super::home::Talk;
use super::kind::Kind;
use super::net::{Net, PATIENCE};
use super::{Reach, goals};
use crate::churn::Sessions;
use crate::experiment::Host;
use crate::link::{Delay, Links};
use crate::rng_for;
use shoal_base::{Rng, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// Between two calls of the first round.
const STAGGER: Duration = Duration::from_millis(20);
/// How long everybody speaks before it is seen by which ways.
const SPEAK: Duration = Duration::from_secs(8);
/// How long one watches after something was broken, and how long it is left alone afterwards.
const WATCH: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_secs(8);
/// How long a relay that was killed at random stays away.
const AWAY: Duration = Duration::from_secs(30);
/// How long a call lasts in the mean while everybody comes and goes.
const CALL_S: f64 = 60.0;
/// How soon after something was broken a silence that it causes begins, at the latest; and how long
/// before that the last word may have come.
const CAUSES: Duration = Duration::from_secs(5);
const BEFORE: Duration = Duration::from_millis(100);

/// One call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) a: u32,
    pub(super) b: u32,
    pub(super) kinds: (Kind, Kind),
}

/// What came of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) kinds: (Kind, Kind),
    /// How long it took until both ends had a way.
    pub(super) met: Option<Duration>,
    /// Relays on the way of each end.
    pub(super) hops: [Option<u8>; 2],
    /// The round trip that the caller measured.
    pub(super) rtt: Option<Duration>,
    pub(super) said: u64,
    pub(super) heard: u64,
}

impl Seen {
    /// Whether neither end uses a relay.
    pub(super) fn is_direct(&self) -> bool {
        self.hops == [Some(0), Some(0)]
    }
}

/// Longest silences of calls when something was broken: those it touched, and the others.
#[derive(Debug, Default)]
pub(super) struct Broken {
    pub(super) touched: Vec<Duration>,
    pub(super) others: Vec<Duration>,
}

/// What happened while everybody came and went.
#[derive(Debug, Default)]
pub(super) struct Churned {
    pub(super) calls: u32,
    /// Calls that had no way after [`PATIENCE`].
    pub(super) failed: u32,
    pub(super) setups: Vec<Duration>,
    pub(super) kills: u32,
    pub(super) flushes: u32,
    /// Silences, by what they followed.
    pub(super) after_kill: Vec<Duration>,
    pub(super) after_flush: Vec<Duration>,
    pub(super) unexplained: Vec<Duration>,
}

/// The network of a run.
pub(super) struct Trial {
    pub(super) net: Net,
    pub(super) calls: Vec<Call>,
    rng: Rng,
}

impl Trial {
    /// All nodes come and look for relays.
    pub(super) fn new(options: &Reach, seed: u64, host: &mut dyn Host) -> Self {
        let links = Links {
            delay: Delay::Constant {
                us: u64::from(options.delay_ms) * 1000,
            },
            jitter_us: u64::from(options.jitter_ms) * 1000,
            loss: options.loss,
            ..Links::default()
        };
        let lifetime = Duration::from_secs(options.mapping_s.into());
        let mut net = Net::new(seed, links, options.relays, lifetime);
        net.ipv6 = options.ipv6;
        let mut calls = Vec::new();
        host.progress("Settling", 0, 1);
        for _ in 0..options.copies {
            for one in &options.kinds {
                for two in &options.kinds {
                    let (a, b) = (net.add(*one), net.add(*two));
                    let kinds = (*one, *two);
                    calls.push(Call { a, b, kinds });
                }
            }
        }
        net.run(goals::settled(options));
        let rng = rng_for(seed, 1 << 40);
        Self { net, calls, rng }
    }

    /// Everybody calls the other; speaks once there is a way.
    pub(super) fn meet(&mut self, host: &mut dyn Host) -> Vec<Seen> {
        let all = self.calls.len() as u64;
        for (n, call) in (0..).zip(&self.calls.clone()) {
            host.progress("Calling", n, all);
            self.net.call(call.a, call.b);
            self.net.run(STAGGER);
        }
        let until = self.net.now() + PATIENCE;
        let parted = |net: &Net, c: &&Call| net.met(c.a, c.b).is_none();
        while self.net.now() < until && self.calls.iter().any(|c| parted(&self.net, &c)) {
            self.net.run(Duration::from_millis(100));
        }
        for call in &self.calls {
            self.net.speak(call.a, call.b, true);
        }
        host.progress("Speaking", 0, 1);
        self.net.run(SPEAK);
        self.calls.iter().map(|c| self.see(c)).collect()
    }

    fn see(&self, call: &Call) -> Seen {
        let net = &self.net;
        let count = |of: fn(&Talk) -> u64| {
            let ends = [call.a, call.b].map(|n| net.talk(n).map_or(0, of));
            ends.iter().sum()
        };
        Seen {
            kinds: call.kinds,
            met: net.met(call.a, call.b),
            hops: [call.a, call.b].map(|n| Some(net.way(n)?.hops)),
            rtt: net.way(call.a).map(|w| w.rtt),
            said: count(|t| t.said),
            heard: count(|t| t.heard),
        }
    }

    /// Does something to the network; the longest silence of each call thereafter. `touches` says
    /// which calls that concerns.
    fn watch(
        &mut self,
        touches: impl Fn(&Net, &Call) -> bool,
        act: impl FnOnce(&mut Net),
        broken: &mut Broken,
    ) {
        let ends: Vec<u32> = self.calls.iter().flat_map(|c| [c.a, c.b]).collect();
        let touched: Vec<bool> = self.calls.iter().map(|c| touches(&self.net, c)).collect();
        self.net.measure(&ends);
        act(&mut self.net);
        self.net.run(WATCH);
        for (call, touched) in self.calls.iter().zip(touched) {
            let gap = self.net.gap(call.a).max(self.net.gap(call.b));
            match touched {
                true => broken.touched.push(gap),
                false => broken.others.push(gap),
            }
        }
    }

    /// Kills one relay after the other; each comes back before the next.
    pub(super) fn kill(&mut self, host: &mut dyn Host) -> Broken {
        let mut broken = Broken::default();
        let relays = self.net.relays.clone();
        for (n, relay) in (0..).zip(&relays) {
            host.progress("Killing", n, relays.len() as u64);
            let by = |net: &Net, c: &Call| {
                let mut ends = [c.a, c.b].into_iter();
                ends.any(|n| net.relays_of(n).contains(relay))
            };
            self.watch(by, |net| net.kill(*relay), &mut broken);
            self.net.revive(*relay);
            self.net.run(REST);
        }
        broken
    }

    /// All translators of a kind forget at once, those of callers and then those of the called.
    pub(super) fn flush(&mut self, kind: Kind, host: &mut dyn Host) -> Broken {
        host.progress("Flushing", 0, 1);
        let mut broken = Broken::default();
        for caller in [true, false] {
            let side = move |c: &Call| match caller {
                true => (c.a, c.kinds.0),
                false => (c.b, c.kinds.1),
            };
            let calls = self.calls.clone();
            let forget = |net: &mut Net| {
                let those = calls.iter().map(side).filter(|(_, k)| *k == kind);
                those.for_each(|(node, _)| net.flush(node));
            };
            self.watch(|_, c| side(c).1 == kind, forget, &mut broken);
        }
        broken
    }

    /// Calls end and others begin, relays die and return, translators forget: all at random.
    pub(super) fn churn(&mut self, options: &Reach, host: &mut dyn Host) -> Churned {
        #[derive(Debug, Clone, Copy)]
        enum What {
            End(Call),
            Begin(u32),
            Check(Call),
            Kill,
            Return(u32),
            Flush,
        }
        let began = self.net.now();
        let span = Duration::from_secs(options.churn_s.into());
        let mut plan: BTreeMap<(Time, u64), What> = BTreeMap::new();
        let mut number = 0;
        let mut file = |plan: &mut BTreeMap<_, _>, at: Time, what| {
            number += 1;
            plan.insert((at, number), what);
        };
        let lives = Sessions::Exponential { mean_s: CALL_S };
        for call in self.calls.clone() {
            let at = began + lives.draw(&mut self.rng);
            file(&mut plan, at, What::End(call));
        }
        let moment = |rng: &mut Rng| began + span.mul_f64(rng.unit());
        for _ in 0..options.kills {
            file(&mut plan, moment(&mut self.rng), What::Kill);
        }
        for _ in 0..options.flushes {
            file(&mut plan, moment(&mut self.rng), What::Flush);
        }
        let mut churned = Churned::default();
        let mut idle: Vec<u32> = Vec::new();
        let mut ended: Vec<(u32, Talk)> = Vec::new();
        let mut killed: Vec<Time> = Vec::new();
        let mut flushed: Vec<(Time, u32)> = Vec::new();
        while let Some(entry) = plan.first_entry().filter(|e| e.key().0 < began + span) {
            let ((at, _), what) = entry.remove_entry();
            self.net.run(at.since(self.net.now()));
            let done = at.since(began).as_secs();
            host.progress("Churning", done, options.churn_s.into());
            match what {
                What::End(call) => {
                    for n in [call.a, call.b] {
                        let talk = self.net.on_home(n, |home, ctx| home.end(ctx.now()));
                        ended.extend(talk.map(|t| (n, t)));
                        let pause = Duration::from_secs_f64(1.0 + self.rng.unit() * 4.0);
                        file(&mut plan, at + pause, What::Begin(n));
                    }
                }
                What::Begin(node) => match self.rng.pick(&idle).copied() {
                    Some(other) => {
                        idle.retain(|n| *n != other);
                        let kinds = (self.net.home(node).kind, self.net.home(other).kind);
                        let call = Call {
                            a: node,
                            b: other,
                            kinds,
                        };
                        churned.calls += 1;
                        self.net.call(node, other);
                        self.net.speak(node, other, true);
                        let life = PATIENCE + lives.draw(&mut self.rng);
                        file(&mut plan, at + PATIENCE, What::Check(call));
                        file(&mut plan, at + life, What::End(call));
                    }
                    None => idle.push(node),
                },
                What::Check(call) => match self.net.met(call.a, call.b) {
                    Some(took) => churned.setups.push(took),
                    None => churned.failed += 1,
                },
                What::Kill => {
                    let relays = self.net.relays.iter().copied();
                    let alive: Vec<u32> = relays.filter(|r| self.net.is_alive(*r)).collect();
                    // One that is alive must stay.
                    if let Some(relay) = self.rng.pick(&alive).filter(|_| alive.len() > 1) {
                        churned.kills += 1;
                        killed.push(at);
                        self.net.kill(*relay);
                        file(&mut plan, at + AWAY, What::Return(*relay));
                    }
                }
                What::Return(relay) => self.net.revive(relay),
                What::Flush => {
                    let homes = self.net.homes.iter().copied();
                    let some: Vec<u32> = homes
                        .filter(|n| !self.net.home(*n).nats.is_empty())
                        .collect();
                    if let Some(node) = self.rng.pick(&some) {
                        churned.flushes += 1;
                        flushed.push((at, *node));
                        self.net.flush(*node);
                    }
                }
            }
        }
        let rest = (began + span).since(self.net.now());
        self.net.run(rest);
        for n in self.net.homes.clone() {
            let talk = self.net.on_home(n, |home, ctx| home.end(ctx.now()));
            ended.extend(talk.map(|t| (n, t)));
        }
        for (n, talk) in &ended {
            let partner = self.net.node_of(&talk.partner);
            for (from, lasted) in talk.silences.iter().filter(|(from, _)| *from >= began) {
                let caused = |at: Time| *from + BEFORE >= at && *from <= at + CAUSES;
                let ends = |node: u32| node == *n || Some(node) == partner;
                // What one's own translator forgot is the likelier reason.
                if flushed.iter().any(|(at, node)| ends(*node) && caused(*at)) {
                    churned.after_flush.push(*lasted);
                } else if killed.iter().any(|at| caused(*at)) {
                    churned.after_kill.push(*lasted);
                } else {
                    churned.unexplained.push(*lasted);
                }
            }
        }
        churned
    }
}
