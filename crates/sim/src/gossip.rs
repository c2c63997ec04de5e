//! A rumour spreads: the smallest experiment, and the one `docs/simulator.md` walks through.
//!
//! Each second everybody who knows the rumour tells one other, chosen at random. Everybody knows it
//! after log2 N + ln N + O(1) rounds (Pittel, "On spreading a rumor", 1987); when a share p of the
//! messages is lost, after log(N) / log(2 - p) + ln N / (1 - p).

use crate::experiment::{BadOptions, Experiment, Host, Speed};
use crate::link::{Delay, Links};
use crate::report::{Axis, Plot, Report, Series, number};
use crate::space::Direct;
use crate::world::{Context, Process, World};
use shoal_base::{Rng, Time};
use std::time::Duration;

/// How long a round is.
const ROUND: Duration = Duration::from_secs(1);

/// Options of the experiment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gossip {
    /// How many nodes.
    pub nodes: u32,
    /// Share of the messages that is lost.
    pub loss: f64,
}

/// A node: once it knows the rumour it tells one other in each round.
struct Teller {
    rng: Rng,
    nodes: u32,
    next: Option<Time>,
}

impl Process for Teller {
    type Space = Direct;
    type Message = ();
    type Event = ();

    fn on_start(&mut self, _ctx: &mut Context<'_, Self>) {}

    fn on_message(&mut self, ctx: &mut Context<'_, Self>, _from: u32, (): ()) {
        if self.next.is_none() {
            self.next = Some(ctx.now() + ROUND);
            ctx.tell(());
        }
    }

    fn on_tick(&mut self, ctx: &mut Context<'_, Self>) {
        ctx.send(self.rng.below(self.nodes as usize) as u32, (), 64);
        self.next = Some(ctx.now() + ROUND);
    }

    fn deadline(&self) -> Option<Time> {
        self.next
    }
}

impl Experiment for Gossip {
    fn name(&self) -> &'static str {
        "gossip"
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("nodes", self.nodes.to_string()),
            ("loss", self.loss.to_string()),
            ("round", "1 s".to_owned()),
        ]
    }

    fn run(&self, seed: u64, host: &mut dyn Host) -> Result<Report, BadOptions> {
        if self.nodes < 2 || !(0.0..1.0).contains(&self.loss) {
            let why = "gossip needs two nodes, and a loss from 0 to below 1";
            return Err(BadOptions(why.to_owned()));
        }
        let links = Links {
            // Far below a round, so that rounds do not run into each other.
            delay: Delay::Constant { us: 1000 },
            loss: self.loss,
            ..Links::default()
        };
        let mut world = World::new(seed, Direct, links);
        for index in 0..self.nodes {
            let rng = world.rng(index);
            let node = world.add(Teller {
                rng,
                nodes: self.nodes,
                next: None,
            });
            world.start(node);
        }

        let n = f64::from(self.nodes);
        let theory = n.ln() / (2.0 - self.loss).ln() + n.ln() / (1.0 - self.loss);
        let mut speed = Speed::default();
        speed.start(host, world.counts().events);
        let mut know = 0;
        let mut measured = vec![(0.0, 0.0)];
        world.call(0, |node, ctx| node.on_message(ctx, 0, ()));
        let mut end = Time::ZERO;
        while know < self.nodes && end.as_secs_f64() < 20.0 * theory + 100.0 {
            end += ROUND;
            // Half a round on: whoever was told has heard.
            world.run_until(end + ROUND / 2, |_, _, ()| know += 1);
            measured.push((end.as_secs_f64(), f64::from(know)));
            host.progress("Spreading", know.into(), self.nodes.into());
        }
        speed.stop(host, world.counts().events);
        let rounds = end.as_secs_f64();

        let mut report = Report::new(self.name(), "A rumour spreads", seed);
        report.summary = "Each second, everybody who knows it tells one other at random.".into();
        report.digest = world.digest();
        report.options = self.options();
        report.figure("rounds", rounds);
        report.figure("rounds_theory", theory);
        report.figure("messages", world.counts().sent);
        report.figure("events", world.counts().events);
        speed.tell(&mut report);
        // The constant is below 2 in the mean; the last node's luck spreads by a few rounds.
        report.check(
            "rounds until everybody knows",
            format!(
                "log N / log(2 - p) + ln N / (1 - p) = {} ± 8",
                number(theory)
            ),
            number(rounds),
            know == self.nodes && (rounds - theory).abs() <= 8.0 / (1.0 - self.loss),
        );
        report.plots.push(Plot {
            title: "Who knows".into(),
            caption: "Beside it the mean-field recursion: each message finds one at random.".into(),
            x: Axis::linear("rounds"),
            y: Axis::linear("nodes that know"),
            series: vec![
                Series::theory("mean field", mean_field(n, self.loss, rounds as usize)),
                Series::measured("measured", measured),
            ],
        });
        Ok(report)
    }
}

/// How many know after each round, in the mean of very many nodes.
fn mean_field(n: f64, loss: f64, rounds: usize) -> Vec<(f64, f64)> {
    let mut know = 1.0;
    (0..=rounds)
        .map(|round| {
            let now = know;
            know += (n - know) * (1.0 - (1.0 - (1.0 - loss) / n).powf(know));
            (round as f64, now)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Silent;

    #[test]
    fn rumours_spread_as_theory_says_and_replay() {
        for (nodes, loss) in [(300, 0.0), (3000, 0.0), (3000, 0.5)] {
            let gossip = Gossip { nodes, loss };
            let report = gossip.run(1, &mut Silent).expect("good options");
            assert!(report.holds(), "{:?}", report.checks);
            let again = gossip.run(1, &mut Silent).expect("good options");
            assert_eq!(report.json(), again.json());
            let other = gossip.run(2, &mut Silent).expect("good options");
            assert_ne!(report.digest, other.digest);
        }
    }
}
