//! Flooding, as Gnutella 0.4 did it: each node passes a query on to all its neighbours but the one it
//! came from, once, until its TTL ends. And what came after it: the expanding ring, which asks near
//! before far, random walks, and ultrapeers with tables and dynamic queries.

mod dynamic;
mod walking;

use super::graph::{Graph, tree};
use super::library::{Library, Zipf};
use super::servent::{DELAY, Net};
use super::{Asked, Outcome, hottest};
use crate::experiment::{BadOptions, Experiment, Host, Speed};
use crate::report::{Axis, Plot, Report, Series, number};
use crate::rng_for;
use shoal_base::Rng;
use shoal_gnutella::node::{Config, Mode};
use std::time::Duration;

/// How neighbours are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// At random, everybody as many.
    Regular,
    /// The likelier the more neighbours one has: a few have very many.
    PowerLaw,
}

/// Options of the experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flooding {
    /// How many nodes.
    pub nodes: u32,
    /// Neighbours of each, or in the mean.
    pub degree: u32,
    /// How they are chosen.
    pub shape: Shape,
    /// Files of each node.
    pub files: u32,
    /// Different contents there are.
    pub contents: u32,
    /// Questions at each TTL.
    pub questions: u32,
}

/// TTLs that are measured; the last is beyond any node here.
const TTLS: [u8; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11];
/// A TTL that reaches everybody.
const ALL: u8 = 60;
/// The TTL that Gnutella began with.
const USUAL: u8 = 7;
/// Time between two questions.
const PAUSE: Duration = Duration::from_millis(20);
/// Shares of the nodes that are shot, those with most neighbours first.
const SHOT: [f64; 3] = [0.01, 0.05, 0.2];
/// Mean reach in random graphs of 10,000 nodes with 4 neighbours each, from a trial with 50 lines of
/// another program.
const TRIAL: [(u8, f64); 5] = [
    (5, 474.0),
    (7, 3564.0),
    (8, 7348.0),
    (9, 9816.0),
    (11, 9999.0),
];

/// One question: who asks for what.
type Question = (u32, u32);

impl Flooding {
    fn check(&self) -> Result<(), BadOptions> {
        let bad = |why: &str| Err(BadOptions(why.to_owned()));
        if self.degree < 3 || self.nodes < 5 * self.degree || self.questions == 0 {
            return bad("flooding needs a question, 3 neighbours each, and 5 times as many nodes");
        }
        if self.nodes > 1 << 20 || self.degree > 100 || self.files > 1000 || self.contents == 0 {
            return bad(
                "at most 2^20 nodes, 100 neighbours and 1000 files each; a content at least",
            );
        }
        Ok(())
    }

    fn graph(&self, rng: &mut Rng) -> Graph {
        match self.shape {
            Shape::Regular => Graph::regular(self.nodes, self.degree, rng),
            Shape::PowerLaw => Graph::preferential(self.nodes, self.degree / 2, rng),
        }
    }

    fn questions(&self, zipf: &Zipf, rng: &mut Rng, up: impl Fn(u32) -> bool) -> Vec<Question> {
        let mut all = Vec::new();
        while all.len() < self.questions as usize {
            let node = rng.below(self.nodes as usize) as u32;
            if up(node) {
                all.push((node, zipf.draw(rng)));
            }
        }
        all
    }

    /// The questions again and again with a greater TTL, until each found something.
    fn expand(&self, net: &mut Net, questions: &[Question]) -> Vec<Asked> {
        let mut all = vec![Asked::default(); questions.len()];
        let mut waited = Duration::ZERO;
        for ttl in 1..=USUAL {
            let open: Vec<usize> = (0..all.len()).filter(|n| all[*n].found == 0).collect();
            let round: Vec<Question> = open.iter().map(|n| questions[*n]).collect();
            for (n, ring) in open.into_iter().zip(ask(net, &round, ttl)) {
                let asked = &mut all[n];
                asked.messages += ring.messages;
                asked.reach = asked.reach.max(ring.reach);
                asked.found += ring.found;
                asked.first_ms = ring.first_ms.map(|ms| waited.as_secs_f64() * 1000.0 + ms);
            }
            waited += there_and_back(ttl);
        }
        all
    }
}

/// How long the last answer to a flood takes.
fn there_and_back(ttl: u8) -> Duration {
    DELAY * 2 * u32::from(ttl)
}

/// Asks one after the other, and waits for all answers.
fn ask(net: &mut Net, questions: &[Question], ttl: u8) -> Vec<Asked> {
    let mut guids = Vec::new();
    for (node, content) in questions {
        guids.push(net.ask(*node, *content, ttl));
        net.run(PAUSE);
    }
    net.run(there_and_back(ttl) + PAUSE);
    guids.into_iter().map(|guid| net.take(guid)).collect()
}

/// One TTL: what was measured, and what the graph says.
#[derive(Debug, Clone, Copy)]
struct Sized {
    ttl: u8,
    outcome: Outcome,
    /// Every question reached just those who are within its TTL.
    exact: bool,
}

fn sized(
    graph: &Graph,
    ttl: u8,
    (questions, asked): (&[Question], &[Asked]),
    up: impl Fn(u32) -> bool + Copy,
) -> Sized {
    let mut pairs = questions.iter().zip(asked);
    Sized {
        ttl,
        outcome: Outcome::of(asked),
        exact: pairs.all(|((from, _), asked)| asked.reach == graph.ball(*from, ttl, up)),
    }
}

impl Experiment for Flooding {
    fn name(&self) -> &'static str {
        "flooding"
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        let shape = match self.shape {
            Shape::Regular => "regular",
            Shape::PowerLaw => "power-law",
        };
        vec![
            ("nodes", self.nodes.to_string()),
            ("degree", self.degree.to_string()),
            ("graph", shape.to_owned()),
            ("files", self.files.to_string()),
            ("contents", self.contents.to_string()),
            ("questions", self.questions.to_string()),
            ("delay", "50 ms".to_owned()),
        ]
    }

    fn run(&self, seed: u64, host: &mut dyn Host) -> Result<Report, BadOptions> {
        self.check()?;
        let mut rng = rng_for(seed, 1 << 40);
        let zipf = Zipf::new(self.contents);
        let graph = self.graph(&mut rng);
        let libraries: Vec<Library> = (0..self.nodes)
            .map(|_| Library::draw(self.files, &zipf, &mut rng))
            .collect();
        let degrees: Vec<usize> = graph.0.iter().map(Vec::len).collect();
        let mut net = Net::new(seed, libraries.clone(), |node| Config {
            ultrapeers: degrees[node as usize],
            max_ttl: ALL,
            ..Config::of(Mode::Flood)
        });
        let mut speed = Speed::default();
        speed.start(host, 0);
        net.join_all(&graph);
        net.run(Duration::from_secs(2));

        let everybody = |_: u32| true;
        let mut sizes = Vec::new();
        let mut loads = Vec::new();
        for (done, ttl) in (0..).zip(TTLS) {
            host.progress("Flooding", done, TTLS.len() as u64);
            let questions = self.questions(&zipf, &mut rng, everybody);
            net.loads = (ttl == USUAL).then(|| vec![0; degrees.len()]);
            let asked = ask(&mut net, &questions, ttl);
            loads = net.loads.take().unwrap_or(loads);
            sizes.push(sized(&graph, ttl, (&questions, &asked), everybody));
        }
        let questions = self.questions(&zipf, &mut rng, everybody);
        let all = ask(&mut net, &questions, ALL);
        host.progress("Expanding rings", 0, 1);
        let questions = self.questions(&zipf, &mut rng, everybody);
        let flood = Outcome::of(&ask(&mut net, &questions, USUAL));
        let rings = Outcome::of(&self.expand(&mut net, &questions));
        host.progress("Walking", 0, 1);
        let walked = walking::walk(seed, &graph, &libraries, &questions);
        host.progress("Querying dynamically", 0, 1);
        let dynamic = dynamic::run(seed, libraries, &questions);
        let mut shot = Vec::new();
        for share in SHOT {
            host.progress("Shooting", shot.len() as u64, SHOT.len() as u64);
            shot.push((
                share,
                self.shoot(&mut net, (&graph, share), &zipf, &mut rng),
            ));
        }
        let events = net.world.counts().events + walked.events() + dynamic.events();
        speed.stop(host, events);

        let mut report = Report::new(self.name(), "Flooding a network of equals", seed);
        report.summary = "Gnutella nodes in the mode of 0.4: a query goes to everybody within its \
                          TTL, and each node passes it on once."
            .to_owned();
        report.options = self.options();
        report.digest = net.world.digest();
        report.figure("events", events);
        speed.tell(&mut report);
        self.tell_reach(&mut report, &graph, &sizes, &all);
        let (most, over_mean) = hottest(&loads);
        report.figure("hottest_messages", most);
        report.figure("hottest_over_mean", over_mean);
        tell_rings(&mut report, &flood, &rings);
        walked.tell(self, &flood, &mut report);
        dynamic.tell(self, &flood, &mut report);
        tell_shot(&mut report, &shot);
        Ok(report)
    }
}

impl Flooding {
    /// Kills a share of the nodes, those with most neighbours first, asks, and brings them back.
    fn shoot(
        &self,
        net: &mut Net,
        (graph, share): (&Graph, f64),
        zipf: &Zipf,
        rng: &mut Rng,
    ) -> Sized {
        let count = (f64::from(self.nodes) * share) as usize;
        let dead: Vec<u32> = graph.by_degree().into_iter().take(count).collect();
        dead.iter().for_each(|node| net.world.crash(*node));
        let alive: Vec<bool> = (0..self.nodes).map(|n| net.world.is_up(n)).collect();
        let up = |node: u32| alive.get(node as usize).copied().unwrap_or(false);
        let questions = self.questions(zipf, rng, up);
        let asked = ask(net, &questions, USUAL);
        dead.iter().for_each(|node| net.world.start(*node));
        sized(graph, USUAL, (&questions, &asked), up)
    }

    fn tell_reach(&self, report: &mut Report, graph: &Graph, sizes: &[Sized], all: &[Asked]) {
        let rows = sizes.iter().map(|s| {
            let mut row = s.outcome.json();
            row["ttl"] = s.ttl.into();
            row["tree"] = (1.0 + tree(self.degree, s.ttl)).into();
            row
        });
        report.figure("floods", rows.collect::<Vec<_>>());
        report.figure("edges", graph.edges());
        let bound = 2 * graph.edges() - u64::from(self.nodes) + 1;
        let (least, most) = (
            all.iter().map(|a| a.messages).min().unwrap_or(0),
            all.iter().map(|a| a.messages).max().unwrap_or(0),
        );
        report.check(
            "messages of a flood that reaches everybody",
            format!("2 E - N + 1 = {bound} for each"),
            format!("{least} to {most}"),
            least == bound && most == bound,
        );
        report.check(
            "reach of each question at each TTL",
            "all within the TTL, and nobody else",
            if sizes.iter().all(|s| s.exact) {
                "so"
            } else {
                "not so"
            },
            sizes.iter().all(|s| s.exact),
        );
        if self.shape == Shape::Regular {
            let below = |s: &&Sized| s.outcome.reach <= 1.0 + tree(self.degree, s.ttl);
            report.check(
                "no flood reaches more than a tree of this degree would",
                "d ((d - 1)^TTL - 1) / (d - 2)",
                format!(
                    "{} of {} TTLs",
                    sizes.iter().filter(below).count(),
                    sizes.len()
                ),
                sizes.iter().all(|s| below(&s)),
            );
        }
        if (self.shape, self.nodes, self.degree) == (Shape::Regular, 10_000, 4) {
            for (ttl, trial) in TRIAL {
                let Some(sized) = sizes.iter().find(|s| s.ttl == ttl) else {
                    continue;
                };
                let reach = sized.outcome.reach;
                report.check(
                    format!("mean reach at TTL {ttl}"),
                    format!("{} ± 2 % (a trial by another program)", number(trial)),
                    number(reach),
                    (reach / trial - 1.0).abs() <= 0.02,
                );
            }
        }
        let points = |of: &dyn Fn(&Sized) -> f64| -> Vec<(f64, f64)> {
            sizes.iter().map(|s| (f64::from(s.ttl), of(s))).collect()
        };
        let bounded = |s: &Sized| (1.0 + tree(self.degree, s.ttl)).min(f64::from(self.nodes));
        report.plots.push(Plot {
            title: "Reach and cost of a flood".to_owned(),
            caption: "The last hops cost most: they go to those who know already.".to_owned(),
            x: Axis::linear("TTL"),
            y: Axis::log10("nodes, messages"),
            series: vec![
                Series::theory("reach in a tree, at most all", points(&bounded)),
                Series::measured("nodes reached", points(&|s| s.outcome.reach)),
                Series::measured("messages", points(&|s| s.outcome.messages.max(1.0))),
            ],
        });
        report.plots.push(Plot {
            title: "Questions answered".to_owned(),
            caption: "What few share is found by those who ask far.".to_owned(),
            x: Axis::linear("TTL"),
            y: Axis::linear("% of the questions"),
            series: vec![Series::measured(
                "measured",
                points(&|s| s.outcome.answered * 100.0),
            )],
        });
    }
}

fn tell_rings(report: &mut Report, flood: &Outcome, rings: &Outcome) {
    report.figure("flood", flood.json());
    report.figure("expanding_ring", rings.json());
    let saved = flood.messages / rings.messages.max(1.0);
    report.figure("expanding_ring_saves", saved);
    report.check(
        format!("an expanding ring against a flood of TTL {USUAL}, same questions"),
        "as many answered, for fewer messages (Lv 2002: several times fewer)",
        format!(
            "{} and {} answered, {} times fewer messages",
            number(rings.answered),
            number(flood.answered),
            number(saved)
        ),
        rings.answered >= flood.answered && saved > 1.0,
    );
}

fn tell_shot(report: &mut Report, shot: &[(f64, Sized)]) {
    let rows = shot.iter().map(|(share, sized)| {
        let mut row = sized.outcome.json();
        row["shot"] = (*share).into();
        row
    });
    report.figure("shot", rows.collect::<Vec<_>>());
    report.check(
        "reach when those with most neighbours are shot",
        "all within the TTL among those who are left",
        if shot.iter().all(|(_, s)| s.exact) {
            "so"
        } else {
            "not so"
        },
        shot.iter().all(|(_, s)| s.exact),
    );
}

#[cfg(test)]
mod tests;
