//! Random walks on the same graph, for the same questions as floods.

use super::super::graph::Graph;
use super::super::library::Library;
use super::super::servent::DELAY;
use super::super::walks::Walks;
use super::super::{Asked, Outcome};
use super::{Flooding, PAUSE, Question};
use crate::report::{Report, number};
use serde_json::json;

/// Numbers of walkers (Lv 2002 takes 16 to 64 of them).
const WALKERS: [u32; 5] = [1, 4, 16, 32, 64];
/// The number that is compared with a flood.
const USUAL: u32 = 32;
/// Steps of a walker at most (Lv 2002 §4.2: a TTL that only ends what was lost, such as 1024).
const STEPS: u32 = 1024;
/// A content that nobody has.
const NOTHING: u32 = u32::MAX;
/// k walkers of T steps each should reach as many as one of k T steps: these are compared.
const SAME: [(u32, u32); 4] = [(1, 1024), (4, 256), (16, 64), (32, 32)];

/// What was measured.
#[derive(Debug)]
pub(super) struct Walked {
    /// For each number of walkers.
    rows: Vec<(u32, Outcome)>,
    /// For each number of walkers and steps, the nodes reached.
    same: Vec<((u32, u32), f64)>,
    events: u64,
}

fn ask(walks: &mut Walks, questions: &[Question], walk: (u32, u32), patient: bool) -> Vec<Asked> {
    let mut numbers = Vec::new();
    for question in questions {
        numbers.push(walks.ask(*question, walk, patient));
        walks.run(PAUSE);
    }
    // Each step takes one delay, and every fourth two more.
    walks.run(DELAY * 2 * walk.1);
    numbers.into_iter().map(|n| walks.take(n)).collect()
}

pub(super) fn walk(
    seed: u64,
    graph: &Graph,
    libraries: &[Library],
    questions: &[Question],
) -> Walked {
    let mut walks = Walks::new(seed, graph, libraries);
    let rows = WALKERS.map(|walkers| {
        let asked = ask(&mut walks, questions, (walkers, STEPS), false);
        (walkers, Outcome::of(&asked))
    });
    let few: Vec<Question> = questions.iter().map(|(n, _)| (*n, NOTHING)).collect();
    let same = SAME.map(|walk| {
        let asked = ask(&mut walks, &few, walk, true);
        (walk, Outcome::of(&asked).reach)
    });
    Walked {
        rows: rows.to_vec(),
        same: same.to_vec(),
        events: walks.world.counts().events,
    }
}

impl Walked {
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn tell(&self, options: &Flooding, flood: &Outcome, report: &mut Report) {
        let rows = self.rows.iter().map(|(walkers, outcome)| {
            let mut row = outcome.json();
            row["walkers"] = (*walkers).into();
            row
        });
        report.figure("walks", rows.collect::<Vec<_>>());
        let same = self.same.iter();
        let same: Vec<_> = same
            .map(|((k, t), reach)| json!({"walkers": k, "steps": t, "reach": reach}))
            .collect();
        report.figure("walks_reach", same);
        let usual = self.rows.iter().find(|(walkers, _)| *walkers == USUAL);
        if let Some((_, walks)) = usual {
            report.check(
                format!("{USUAL} random walks with checking back against a flood, same questions"),
                "as many answered, for fewer messages, but later (Lv 2002: up to 100 times fewer)",
                format!(
                    "{} and {} answered, {} times fewer messages, first answer after {} and {} ms",
                    number(walks.answered),
                    number(flood.answered),
                    number(flood.messages / walks.messages.max(1.0)),
                    number(walks.first_ms),
                    number(flood.first_ms)
                ),
                // A small network is flooded for less than its rarest contents are walked to.
                walks.answered >= flood.answered
                    && (walks.messages < flood.messages || options.nodes < 2000),
            );
        }
        let reach: Vec<f64> = self.same.iter().map(|(_, reach)| *reach).collect();
        let (least, most) = reach
            .iter()
            .fold((f64::MAX, 0.0_f64), |(a, b), r| (a.min(*r), b.max(*r)));
        let told = self.same.iter();
        let told: Vec<String> = told
            .map(|((k, t), reach)| format!("{k} x {t}: {}", number(*reach)))
            .collect();
        report.check(
            "nodes that k walkers of T steps reach",
            "as many as one of k T steps, to a tenth (Lv 2002)",
            told.join(", "),
            most <= least * 1.1 || options.nodes < 2000,
        );
    }
}
