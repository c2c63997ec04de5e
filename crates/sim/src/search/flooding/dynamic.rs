//! Ultrapeers with query routing tables and dynamic queries, for as many nodes that share and ask for
//! the same.

use super::super::library::Library;
use super::super::ultrapeers::{LEAVES, LINKS, PATIENCE, assemble, count, graph};
use super::super::{Outcome, hottest};
use super::{Flooding, PAUSE, Question};
use crate::report::{Report, number};
use crate::rng_for;

/// What was measured.
#[derive(Debug)]
pub(super) struct Dynamic {
    outcome: Outcome,
    /// Share of the copies for leaves that tables kept back.
    shielded: f64,
    hottest: (u64, f64),
    events: u64,
}

pub(super) fn run(seed: u64, libraries: Vec<Library>, questions: &[Question]) -> Dynamic {
    let nodes = libraries.len() as u32;
    let graph = graph(nodes, &mut rng_for(seed, 1 << 44));
    let mut net = assemble(seed, &graph, libraries);
    let shielded = |net: &super::Net| -> u64 {
        let all = net.world.nodes().iter();
        all.map(|servent| servent.core.stats().shielded).sum()
    };
    let before = shielded(&net);
    net.loads = Some(vec![0; nodes as usize]);
    let mut guids = Vec::new();
    for (node, content) in questions {
        // An ultrapeer's TTL is its own affair, a leaf's is not looked at.
        guids.push(net.ask(*node, *content, 3));
        net.run(PAUSE);
    }
    net.run(PATIENCE);
    let asked: Vec<_> = guids.into_iter().map(|guid| net.take(guid)).collect();
    let loads = net.loads.take().unwrap_or_default();
    let outcome = Outcome::of(&asked);
    let kept = (shielded(&net) - before) as f64;
    let passed: u64 = asked.iter().map(|a| a.messages).sum();
    Dynamic {
        outcome,
        shielded: kept / (kept + passed as f64).max(1.0),
        hottest: hottest(&loads),
        events: net.world.counts().events,
    }
}

impl Dynamic {
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn tell(&self, options: &Flooding, flood: &Outcome, report: &mut Report) {
        let mut row = self.outcome.json();
        row["ultrapeers"] = count(options.nodes).into();
        row["links"] = LINKS.into();
        row["leaves"] = LEAVES.into();
        row["shielded"] = self.shielded.into();
        row["hottest_queries"] = self.hottest.0.into();
        row["hottest_over_mean"] = self.hottest.1.into();
        report.figure("dynamic_query", row);
        report.check(
            "ultrapeers with tables and dynamic queries against a flood, same questions",
            "as many answered, for fewer messages",
            format!(
                "{} and {} answered, {} times fewer messages, first answer after {} and {} ms",
                number(self.outcome.answered),
                number(flood.answered),
                number(flood.messages / self.outcome.messages.max(1.0)),
                number(self.outcome.first_ms),
                number(flood.first_ms)
            ),
            self.outcome.answered >= flood.answered
                && (self.outcome.messages < flood.messages || options.nodes < 2000),
        );
        report.check(
            "copies of queries that tables keep back",
            "about 80 % (Ultrapeer Query Routing)",
            format!("{} %", number(self.shielded * 100.0)),
            self.shielded >= 0.8 || options.nodes < 2000,
        );
    }
}
