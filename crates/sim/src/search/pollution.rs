//! Who pollutes and who floods: how much of it gets through, with what stands against it and without.
//!
//! Hits are judged as `shoal find` judges them ([`shoal_content::hits`]); the limits are those of the
//! cores. "Without" is the same core with the limit set so high that it never is reached, or results
//! taken in the order in which they come.

mod decoys;
mod floods;
mod liars;

use crate::experiment::{BadOptions, Experiment, Host, Speed};
use crate::report::Report;
use serde_json::Value;

/// Options of the experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pollution {
    /// Members of the network.
    pub members: u32,
    /// Questions of each case.
    pub questions: u32,
}

/// Files of each honest member, and different contents there are.
const FILES: u32 = 20;
const CONTENTS: u32 = 2000;

/// One attack: how much of it gets through.
#[derive(Debug, Clone, PartialEq)]
struct Case {
    attack: String,
    /// What is counted.
    what: &'static str,
    /// None if it could not be otherwise.
    without: Option<f64>,
    with: f64,
    /// What `with` should be at most, or at least.
    at_most: Option<f64>,
    at_least: Option<f64>,
    more: Value,
}

impl Case {
    fn holds(&self) -> bool {
        self.at_most.is_none_or(|most| self.with <= most)
            && self.at_least.is_none_or(|least| self.with >= least)
    }
}

/// What all attacks came to, and how many events that took.
#[derive(Debug, Default)]
struct Cases {
    all: Vec<Case>,
    events: u64,
    digest: crate::Digest,
}

impl Cases {
    fn ran(&mut self, counts: crate::world::Counts, digest: crate::Digest) {
        self.events += counts.events;
        self.digest.add(digest.value(), counts.events);
    }
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p == 0.0 || p >= 9.95 => format!("{p:.0} %"),
        p => format!("{p:.1} %"),
    }
}

impl Experiment for Pollution {
    fn name(&self) -> &'static str {
        "pollution"
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("members", self.members.to_string()),
            ("questions", self.questions.to_string()),
            ("files", FILES.to_string()),
            ("contents", CONTENTS.to_string()),
            ("delay", "50 ms".to_owned()),
        ]
    }

    fn run(&self, seed: u64, host: &mut dyn Host) -> Result<Report, BadOptions> {
        if !(200..=100_000).contains(&self.members) || !(20..=10_000).contains(&self.questions) {
            let why = "pollution needs 200 to 100,000 members and 20 to 10,000 questions";
            return Err(BadOptions(why.to_owned()));
        }
        let mut cases = Cases::default();
        let mut speed = Speed::default();
        speed.start(host, 0);
        decoys::run(self, seed, &mut cases, host);
        liars::run(self, seed, &mut cases, host);
        floods::run(self, seed, &mut cases, host);
        speed.stop(host, cases.events);
        let mut report = Report::new(self.name(), "Pollution and denial of service", seed);
        report.summary = "What gets through of decoys, lies and floods, with what stands against \
                          them and without."
            .to_owned();
        report.options = self.options();
        report.digest = cases.digest;
        report.figure("events", cases.events);
        speed.tell(&mut report);
        let rows = cases.all.iter().map(|case| {
            serde_json::json!({
                "attack": case.attack, "what": case.what, "without": case.without,
                "with": case.with, "more": case.more,
            })
        });
        report.figure("cases", rows.collect::<Vec<_>>());
        let cells = |a: &str, b: &str, c: &str, d: &str| [a, b, c, d].map(str::to_owned).to_vec();
        report.table = vec![cells("attack", "what", "without", "with")];
        for case in &cases.all {
            let without = case.without.map_or("-".to_owned(), percent);
            report.table.push(cells(
                &case.attack,
                case.what,
                &without,
                &percent(case.with),
            ));
            let bound = match (case.at_most, case.at_least) {
                (Some(most), _) => format!("at most {}", percent(most)),
                (None, Some(least)) => format!("at least {}", percent(least)),
                (None, None) => continue,
            };
            report.check(
                format!("{}: {}", case.attack, case.what),
                bound,
                format!("{}; without {}", percent(case.with), without),
                case.holds(),
            );
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Pollution = Pollution {
        members: 120,
        questions: 20,
    };

    /// All cases that hold, and what each came to.
    fn all_hold(cases: &Cases) {
        for case in &cases.all {
            assert!(case.holds(), "{case:#?}");
        }
    }

    #[test]
    fn decoys_with_hashes_of_their_own_are_ranked_last() {
        let mut cases = Cases::default();
        decoys::attack(&SMALL, 1, decoys::Decoy::OwnHash, 0.05, &mut cases);
        all_hold(&cases);
        assert!(cases.all[0].without > Some(cases.all[0].with));
    }

    #[test]
    fn who_answers_for_others_or_unasked_is_not_heard() {
        let mut cases = Cases::default();
        liars::forge_ways(&SMALL, 1, &mut cases);
        liars::lying_supernodes(&SMALL, 1, &mut cases);
        all_hold(&cases);
    }

    #[test]
    fn who_floods_with_queries_or_connections_is_held_back() {
        let mut cases = Cases::default();
        floods::flood_child(&SMALL, 1, &mut cases);
        floods::flood_calls(1, &mut cases);
        all_hold(&cases);
        let again = &mut Cases::default();
        floods::flood_calls(1, again);
        assert_eq!(again.all.last(), cases.all.last());
    }
}
