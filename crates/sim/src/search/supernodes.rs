//! Supernodes, as KaZaA had them: children who tell one supernode what they share, and queries that
//! supernodes flood among themselves. Churn, killings, and the same members in smaller clusters.

mod telling;
mod trial;

use super::hierarchy::End;
use super::{Outcome, hottest};
use crate::experiment::{BadOptions, Experiment, Host, Speed};
use crate::report::{Report, number};
use std::time::Duration;
use telling::{so, tell_churn, tell_homing, tell_shots, tell_sizes};
use trial::{Round, Trial};

/// Options of the experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supernodes {
    /// How many supernodes.
    pub supernodes: u32,
    /// Children of each, in the mean.
    pub children: u32,
    /// Files of each member.
    pub files: u32,
    /// Different contents there are.
    pub contents: u32,
    /// Questions of each phase.
    pub questions: u32,
    /// How long members come and go, in seconds.
    pub churn_s: u32,
    /// Other sizes of clusters, with a tenth of the members.
    pub sweep: bool,
}

/// Time between two questions: what flows over any link stays below its limit.
const PAUSE: Duration = Duration::from_millis(50);
/// Supernodes that a query passes beyond the first, as [`shoal_supernode::node::Config`] has it.
const TTL: u8 = 4;
/// Results of a question at most, as there.
const MOST: u64 = 100;
/// How long a supernode lives, and how long a child keeps its link, in the mean (Liang, Kumar, Ross
/// 2006 measured 2.5 h and 56 min).
const LIVES_S: (f64, f64) = (9000.0, 3360.0);
/// How long who left stays away.
const AWAY: Duration = Duration::from_secs(30);
/// Share of the supernodes that are ended at once to see how soon their children have others.
const ENDED: f64 = 0.05;
/// In which time those must have them. Who is killed is missed at once; who is gone without a word
/// after 6 s.
const HOMING_S: [(End, f64); 2] = [(End::Killed, 10.0), (End::Gone, 20.0)];
/// Shares of the supernodes shot altogether, those with most neighbours first.
const SHOT: [f64; 3] = [0.01, 0.05, 0.2];
/// How long children look for homes before survivors are asked again.
const MEND: Duration = Duration::from_secs(45);
/// Children of each in the sweep.
const SIZES: [u32; 5] = [10, 25, 50, 100, 200];
/// Supernodes of the sweep at least.
const LEAST: u32 = 5;

/// One size of clusters.
#[derive(Debug)]
struct Sized {
    children: u32,
    supernodes: u32,
    round: Round,
    /// Bytes that the busiest supernode, a supernode in the mean, and a child in the mean took and sent,
    /// a question.
    bytes: (f64, f64, f64),
    /// Files in the index of a supernode, in the mean.
    indexed: f64,
}

impl Supernodes {
    fn check(&self) -> Result<(), BadOptions> {
        let bad = |why: &str| Err(BadOptions(why.to_owned()));
        if self.supernodes < 20 || self.children < 2 || self.questions < 4 || self.contents == 0 {
            return bad("supernodes needs 20 of them, 2 children each, 4 questions and a content");
        }
        let all = u64::from(self.supernodes) * (u64::from(self.children) + 1);
        if all > 1 << 20 || self.files > 1000 || self.churn_s > 100_000 {
            return bad("at most 2^20 members with 1000 files each, and 100,000 s of churn");
        }
        Ok(())
    }

    /// Everybody comes; then questions.
    fn settle(&self, seed: u64, size: (u32, u32), host: &mut dyn Host) -> (Trial, Round, Vec<u64>) {
        host.progress("Assembling", 0, 1);
        let mut trial = Trial::new(self, seed, size);
        trial
            .net
            .assemble(Duration::from_secs(80), Duration::from_secs(60));
        trial.net.take_loads();
        host.progress("Asking", 0, 1);
        let round = trial.ask(self.questions);
        let bytes = trial.net.take_loads().iter().map(|l| l.bytes).collect();
        (trial, round, bytes)
    }

    /// Members of the networks with clusters of other sizes.
    fn swept(&self) -> u32 {
        self.supernodes * (self.children + 1) / 10
    }

    /// Sizes of clusters of which there are some, so that there are questions between them.
    fn sizes(&self) -> impl Iterator<Item = u32> + use<> {
        let (members, sweep) = (self.swept(), self.sweep);
        let some = move |children: &u32| sweep && members / (children + 1) >= LEAST;
        SIZES.into_iter().filter(some)
    }

    fn size(&self, seed: u64, children: u32, host: &mut dyn Host) -> (Sized, u64) {
        let supernodes = self.swept() / (children + 1);
        let (trial, round, bytes) = self.settle(seed, (supernodes, children), host);
        let (of_supernodes, of_children) = bytes.split_at(supernodes as usize);
        let each = |bytes: &[u64]| {
            let all = bytes.iter().sum::<u64>() as f64;
            all / bytes.len().max(1) as f64 / f64::from(self.questions)
        };
        let hot = hottest(of_supernodes).0 as f64 / f64::from(self.questions);
        let files: usize = trial
            .net
            .members()
            .map(|n| trial.net.library(n).0.len())
            .sum();
        let sized = Sized {
            children,
            supernodes,
            round,
            bytes: (hot, each(of_supernodes), each(of_children)),
            indexed: files as f64 / f64::from(supernodes),
        };
        (sized, trial.net.world.counts().events)
    }
}

impl Experiment for Supernodes {
    fn name(&self) -> &'static str {
        "supernodes"
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("supernodes", self.supernodes.to_string()),
            ("children", self.children.to_string()),
            ("files", self.files.to_string()),
            ("contents", self.contents.to_string()),
            ("questions", self.questions.to_string()),
            ("churn", self.churn_s.to_string()),
            ("sweep", self.sweep.to_string()),
            ("ttl", TTL.to_string()),
            ("delay", "50 ms".to_owned()),
        ]
    }

    fn run(&self, seed: u64, host: &mut dyn Host) -> Result<Report, BadOptions> {
        self.check()?;
        let mut speed = Speed::default();
        speed.start(host, 0);
        let (mut trial, round, bytes) = self.settle(seed, (self.supernodes, self.children), host);
        let mut report = Report::new(self.name(), "Supernodes and their children", seed);
        report.summary = "Ordinary peers tell one supernode what they share; supernodes flood \
                          queries among themselves."
            .to_owned();
        report.options = self.options();
        self.tell_whole(&mut report, &trial, &round, &bytes);
        let churned = trial.churn(self, host);
        let homings = HOMING_S.map(|(how, most_s)| {
            host.progress("Killing", 0, 1);
            trial.orphan(how, most_s)
        });
        let mut shots = Vec::new();
        for share in SHOT {
            host.progress("Shooting", shots.len() as u64, SHOT.len() as u64);
            shots.push(trial.shoot(self, share));
        }
        report.digest = trial.net.world.digest();
        let mut events = trial.net.world.counts().events;
        drop(trial);
        let mut sizes = Vec::new();
        for children in self.sizes() {
            let (sized, of_it) = self.size(seed, children, host);
            events += of_it;
            sizes.push(sized);
        }
        speed.stop(host, events);
        report.figure("events", events);
        speed.tell(&mut report);
        tell_churn(&mut report, &churned);
        tell_homing(&mut report, &homings);
        tell_shots(&mut report, &shots);
        tell_sizes(&mut report, &sizes);
        Ok(report)
    }
}

impl Supernodes {
    fn tell_whole(&self, report: &mut Report, trial: &Trial, round: &Round, bytes: &[u64]) {
        let net = &trial.net;
        let all = self.supernodes * (self.children + 1);
        let inside = net.members().filter(|n| net.is_in(*n)).count();
        report.figure("members", all);
        report.check(
            "members who are supernodes or have one",
            format!("all {all}"),
            number(inside as f64),
            inside == all as usize,
        );
        let graph = net.graph();
        let whole: u64 = graph.rings(0, |_| true).iter().sum();
        report.check(
            "supernodes that the links between them join",
            format!("all {}", self.supernodes),
            number(whole as f64),
            whole == u64::from(self.supernodes),
        );
        let degrees: Vec<u64> = graph.0.iter().map(|n| n.len() as u64).collect();
        report.figure("edges", graph.edges());
        report.figure("neighbours_max", hottest(&degrees).0);
        let children: Vec<u64> = (1..=self.supernodes).map(|n| net.children(n)).collect();
        let (most, over_mean) = hottest(&children);
        report.figure("children_max", most);
        report.figure("children_max_over_mean", over_mean);
        report.figure("questions_all", round.json());
        let outcome = Outcome::of(&round.asked);
        report.figure("messages_per_question", outcome.messages);
        report.figure("bytes_per_question", outcome.bytes);
        let bound = 2 * graph.edges() - u64::from(self.supernodes) + 1;
        let least = round.asked.iter().map(|a| a.messages).min().unwrap_or(0);
        let most = round.asked.iter().map(|a| a.messages).max().unwrap_or(0);
        report.figure("messages_if_all_pass_on", bound);
        report.check(
            "messages and reach of each question",
            format!(
                "what the graph of supernodes says, at most 2 E - S + 1 = {bound} and the child's one"
            ),
            format!("{least} to {most}{}", so(round.exact_cost())),
            round.exact_cost() && most <= bound + 1,
        );
        report.check(
            "hits of each question",
            format!(
                "one for everybody else who is in, shares it and has a supernode within {TTL} hops, \
                 {MOST} at most"
            ),
            format!(
                "{} % of all who share it{}",
                number(round.recall() * 100.0),
                so(round.exact_hits())
            ),
            round.exact_hits(),
        );
        let of_supernodes = &bytes[..self.supernodes as usize];
        let (most, over_mean) = hottest(of_supernodes);
        report.figure(
            "hottest_bytes_per_question",
            most as f64 / f64::from(self.questions),
        );
        report.figure("hottest_over_mean_supernode", over_mean);
        let load = bytes.iter().sum::<u64>() as f64;
        let share = of_supernodes.iter().sum::<u64>() as f64 / load.max(1.0);
        report.figure("share_of_bytes_at_supernodes", share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Silent;

    #[test]
    fn children_find_all_that_is_shared_and_new_supernodes_and_it_replays() {
        let experiment = Supernodes {
            supernodes: 20,
            children: 8,
            files: 5,
            contents: 200,
            questions: 20,
            churn_s: 20,
            sweep: false,
        };
        let report = experiment.run(4, &mut Silent).expect("good options");
        assert!(report.holds(), "{:#?}", report.checks);
        let again = experiment.run(4, &mut Silent).expect("good options");
        assert_eq!(report.json(), again.json());
    }
}
