//! Many seeds of random faults: each is planned, run, healed and checked; what fails is shrunk and
//! can be kept as a regression.

use crate::Digest;
use crate::experiment::{BadOptions, Experiment, Host, Speed};
use crate::fault::{Passed, Plan};
use crate::report::{Axis, Plot, Report, Series};
use crate::stats::Tally;
use crate::{mainline, overlay};
use serde::{Deserialize, Serialize};

/// What is put under faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Chord: membership and lookups.
    Chord,
    /// Mainline: put and get.
    Mainline,
}

impl Subject {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chord => "chord",
            Self::Mainline => "mainline",
        }
    }

    /// The plan that a seed stands for.
    pub fn plan(self, seed: u64) -> Plan {
        match self {
            Self::Chord => overlay::faults::plan(seed),
            Self::Mainline => mainline::faults::plan(seed),
        }
    }

    /// Runs a plan; an error says which rule was violated.
    pub fn run(self, plan: &Plan) -> Result<Passed, String> {
        match self {
            Self::Chord => overlay::faults::run(plan),
            Self::Mainline => mainline::faults::run(plan),
        }
    }
}

/// A plan that once failed, kept so that it never does again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Regression {
    /// What was put under faults.
    pub subject: Subject,
    /// What went wrong then.
    pub violated: String,
    /// What was done.
    pub plan: Plan,
}

/// Options of the experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// What is put under faults.
    pub subjects: Vec<Subject>,
    /// How many seeds, counted from the experiment's own.
    pub seeds: u64,
    /// Shrinks what fails.
    pub shrink: bool,
}

/// Failures told in a report; more are only counted.
const TOLD: usize = 20;

impl Experiment for Faults {
    fn name(&self) -> &'static str {
        "faults"
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        let names: Vec<_> = self.subjects.iter().map(|s| s.name()).collect();
        vec![
            ("subjects", names.join(" ")),
            ("seeds", self.seeds.to_string()),
        ]
    }

    fn run(&self, seed: u64, host: &mut dyn Host) -> Result<Report, BadOptions> {
        if self.subjects.is_empty() || self.seeds == 0 {
            return Err(BadOptions("nothing to run".to_owned()));
        }
        let mut report = Report::new(self.name(), "Random faults, then healed", seed);
        report.summary = "Each seed plans who fails how and when. Then all is healed, and the \
                          network must become whole."
            .to_owned();
        report.options = self.options();
        let mut digest = Digest::default();
        let mut speed = Speed::default();
        let mut events = 0;
        let mut kept = Vec::new();
        speed.start(host, 0);
        for subject in &self.subjects {
            let mut healed = Tally::default();
            let mut failed = Vec::new();
            for i in 0..self.seeds {
                let plan = subject.plan(seed.wrapping_add(i));
                match subject.run(&plan) {
                    Ok(passed) => {
                        digest.add(plan.seed, passed.digest);
                        events += passed.events;
                        healed.add(passed.healed_us / 1_000_000);
                    }
                    Err(violated) => {
                        digest.add(plan.seed, 0);
                        failed.push(plan.seed);
                        if kept.len() < TOLD {
                            kept.push(self.keep(*subject, plan, violated));
                        }
                    }
                }
                host.progress("Running", i, self.seeds);
            }
            report.check(
                format!("{} seeds of {} heal", self.seeds, subject.name()),
                "0 violate a rule",
                format!("{} do: {failed:?}", failed.len()),
                failed.is_empty(),
            );
            let name = subject.name();
            report.figure(&format!("{name}_healed_s_p50"), healed.quantile(0.5));
            report.figure(&format!("{name}_healed_s_max"), healed.max());
            report.figure(&format!("{name}_failed"), failed.len());
            let shares = healed.shares().filter(|(_, share)| *share > 0.0);
            report.plots.push(Plot {
                title: format!("{name}: from the healing until all is well"),
                caption: "Looked at every few seconds.".to_owned(),
                x: Axis::linear("seconds"),
                y: Axis::linear("share of the seeds, %"),
                series: vec![Series::bars(
                    name,
                    shares.map(|(s, share)| (s as f64, share * 100.0)).collect(),
                )],
            });
        }
        speed.stop(host, events);
        report.digest = digest;
        report.figure("events", events);
        speed.tell(&mut report);
        report.figure("regressions", serde_json::json!(kept));
        Ok(report)
    }
}

impl Faults {
    fn keep(&self, subject: Subject, plan: Plan, violated: String) -> Regression {
        if !self.shrink {
            return Regression {
                subject,
                violated,
                plan,
            };
        }
        let plan = plan.shrink(|less| subject.run(less).is_err());
        let violated = subject.run(&plan).err().unwrap_or(violated);
        Regression {
            subject,
            violated,
            plan,
        }
    }
}
