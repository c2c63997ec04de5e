//! Ways between nodes behind NATs: checks as ICE makes them, relays by TURN, and what becomes of a
//! conversation when a relay dies or a NAT forgets.
//!
//! Endpoints and relays are the real cores; between them lie translators of eight kinds
//! ([`crate::nat`]), and a machine that carries letters as supernodes do.

mod carrier;
mod home;
mod kind;
mod machine;
mod net;
mod relayer;
mod route;
mod telling;
mod trial;

pub use kind::{Kind, NoKind};

use crate::experiment::{BadOptions, Experiment, Host, Speed};
use crate::report::Report;
use trial::Trial;

/// Options of the experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Reach {
    /// What stands between nodes and the world: each kind calls each.
    pub kinds: Vec<Kind>,
    /// Pairs of nodes for each ordered pair of kinds.
    pub copies: u32,
    /// How many relays.
    pub relays: u32,
    /// One-way delay between any two machines, in milliseconds.
    pub delay_ms: u32,
    /// Up to so many milliseconds are added to it, equally likely.
    pub jitter_ms: u32,
    /// Share of the datagrams that vanish.
    pub loss: f64,
    /// After how many seconds without a packet out translators forget.
    pub mapping_s: u32,
    /// Whether nodes from which UDP gets out have an address of IPv6 behind a firewall, too.
    pub ipv6: bool,
    /// How long calls end and begin at random, in seconds.
    pub churn_s: u32,
    /// Relays that are killed meanwhile, and translators that forget.
    pub kills: u32,
    /// See `kills`.
    pub flushes: u32,
}

/// What should be, and how long things may take.
mod goals {
    use super::Reach;
    use std::time::Duration;

    /// The longest silence when a NAT forgets.
    pub(super) const FLUSHED: Duration = Duration::from_secs(3);

    /// The longest silence when a relay in use dies; a check of the next way that is lost costs a
    /// wait more.
    pub(super) fn killed(options: &Reach) -> Duration {
        let lost = if options.loss > 0.0 { 1000 } else { 0 };
        Duration::from_millis(1500 + lost)
    }

    fn delays(options: &Reach, times: u32) -> Duration {
        Duration::from_millis(u64::from(options.delay_ms + options.jitter_ms)) * times
    }

    /// How long nodes have to find relays before the first call.
    pub(super) fn settled(options: &Reach) -> Duration {
        Duration::from_secs(4) + delays(options, 30)
    }

    /// How long it may take until both have a way: letters there and back by two lines each, checks
    /// there and back by a relay, which are repeated after 60, 160, 360 ms …; and twice the wait for
    /// a check that is lost.
    pub(super) fn met(options: &Reach) -> Duration {
        let repeats = if options.loss > 0.0 { 2000 } else { 400 };
        Duration::from_millis(repeats) + delays(options, 20)
    }
}

/// Nodes at most: as many as a relay takes.
const MOST: u32 = 4096;

impl Reach {
    fn nodes(&self) -> u64 {
        let kinds = self.kinds.len() as u64;
        kinds * kinds * 2 * u64::from(self.copies)
    }

    /// Whether two can reach each other directly: what theory says. Holes can be punched in any two
    /// firewalls.
    fn meets(&self, (a, b): (Kind, Kind)) -> bool {
        a.meets(b) || (self.ipv6 && a.has_udp() && b.has_udp())
    }

    fn check(&self) -> Result<(), BadOptions> {
        let bad = |why: &str| Err(BadOptions(why.to_owned()));
        if self.nodes() == 0 || self.nodes() > MOST.into() {
            return bad("reach needs a kind of NAT and a pair, and at most 4096 nodes");
        }
        if !(1..=100).contains(&self.relays) {
            return bad("reach needs 1 to 100 relays");
        }
        if !(1..=1000).contains(&self.delay_ms) || self.jitter_ms > 1000 {
            return bad("reach needs a delay of 1 to 1000 ms, and a jitter of 1000 ms at most");
        }
        if !(0.0..=0.5).contains(&self.loss) || self.mapping_s < 20 {
            return bad("reach needs a loss from 0 to 0.5, and mappings of 20 s at least");
        }
        if self.churn_s > 100_000 || self.kills > 10_000 || self.flushes > 10_000 {
            return bad("reach takes 100,000 s of churn, 10,000 kills and 10,000 flushes at most");
        }
        Ok(())
    }
}

impl Experiment for Reach {
    fn name(&self) -> &'static str {
        "reach"
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        let kinds: Vec<&str> = self.kinds.iter().map(|k| k.name()).collect();
        vec![
            ("nat", kinds.join(",")),
            ("pairs", self.copies.to_string()),
            ("nodes", self.nodes().to_string()),
            ("relays", self.relays.to_string()),
            ("delay", format!("{} ms", self.delay_ms)),
            ("jitter", format!("{} ms", self.jitter_ms)),
            ("loss", self.loss.to_string()),
            ("mapping", format!("{} s", self.mapping_s)),
            ("ipv6", self.ipv6.to_string()),
            ("churn", format!("{} s", self.churn_s)),
            ("kills", self.kills.to_string()),
            ("flushes", self.flushes.to_string()),
        ]
    }

    fn run(&self, seed: u64, host: &mut dyn Host) -> Result<Report, BadOptions> {
        self.check()?;
        let mut speed = Speed::default();
        speed.start(host, 0);
        let mut trial = Trial::new(self, seed, host);
        let seen = trial.meet(host);
        let relayed = trial.net.relayed();
        let killed = trial.kill(host);
        let forgetful = self.kinds.iter().filter(|k| k.has_state());
        let flushed: Vec<_> = forgetful.map(|k| (*k, trial.flush(*k, host))).collect();
        let churned = (self.churn_s > 0).then(|| trial.churn(self, host));
        let counts = trial.net.world.counts();
        speed.stop(host, counts.events);

        let mut report = Report::new(self.name(), "Nodes behind NATs reach each other", seed);
        report.summary = "Each kind of NAT calls each: punched through where theory says so, by \
                          relays else. Relays die and NATs forget while everybody speaks."
            .to_owned();
        report.options = self.options();
        report.digest = trial.net.world.digest();
        report.figure("events", counts.events);
        speed.tell(&mut report);
        self.tell_ways(&mut report, &seen, relayed);
        self.tell_killed(&mut report, &killed);
        telling::tell_flushed(&mut report, &flushed);
        if let Some(churned) = &churned {
            self.tell_churned(&mut report, churned);
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests;
