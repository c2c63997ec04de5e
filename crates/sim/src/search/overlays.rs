//! Every overlay beside the others: the same libraries and the same questions for a hub, for equals
//! who flood or send walkers, for ultrapeers, for supernodes and for Chord; and what is published of
//! them beside what comes out here.

mod nets;
mod published;
mod words;

use super::library::{Library, Zipf};
use super::{Asked, Outcome, hottest};
use crate::digest::Digest;
use crate::experiment::{BadOptions, Experiment, Host, Speed};
use crate::report::{Axis, Plot, Report, Series, number};
use crate::rng_for;
use nets::{Central, Hierarchy, Overlay, Question, Routed, State, Walking};
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use shoal_base::Rng;
use std::collections::BTreeSet;
use std::time::Duration;
use words::Words;

/// Options of the experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlays {
    /// Nodes of each overlay.
    pub nodes: u32,
    /// Files of each node.
    pub files: u32,
    /// Different contents there are.
    pub contents: u32,
    /// Questions of each phase.
    pub questions: u32,
}

/// Which overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Napster,
    Flooding,
    Walks,
    Ultrapeers,
    Kazaa,
    Chord,
}

const KINDS: [Kind; 6] = [
    Kind::Napster,
    Kind::Flooding,
    Kind::Walks,
    Kind::Ultrapeers,
    Kind::Kazaa,
    Kind::Chord,
];

/// Shares of the nodes that are shot.
const SHOT: [f64; 3] = [0.01, 0.05, 0.2];
/// How long those who mend are given.
const MEND: Duration = Duration::from_secs(60);

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Napster => "Napster",
            Self::Flooding => "Gnutella 0.4, TTL 7",
            Self::Walks => "32 random walks",
            Self::Ultrapeers => "Gnutella 0.6",
            Self::Kazaa => "KaZaA",
            Self::Chord => "Chord",
        }
    }

    fn build(self, seed: u64, libraries: &[Library]) -> Box<dyn Overlay> {
        match self {
            Self::Napster => Box::new(Central::new(seed, libraries)),
            Self::Flooding => Box::new(Routed::equals(seed, libraries.to_vec())),
            Self::Walks => Box::new(Walking::new(seed, libraries)),
            Self::Ultrapeers => Box::new(Routed::ultrapeers(seed, libraries.to_vec())),
            Self::Kazaa => Box::new(Hierarchy::new(seed, libraries.to_vec())),
            Self::Chord => Box::new(Words::new(seed, libraries)),
        }
    }
}

/// What all overlays are given.
struct Load {
    libraries: Vec<Library>,
    holders: FxHashMap<u32, Vec<u32>>,
    zipf: Zipf,
}

impl Load {
    fn questions(&self, count: u32, rng: &mut Rng, shot: &BTreeSet<u32>) -> Vec<Question> {
        let mut all = Vec::new();
        while all.len() < count as usize {
            let node = rng.below(self.libraries.len()) as u32;
            let content = self.zipf.draw(rng);
            if !shot.contains(&node) {
                all.push((node, content));
            }
        }
        all
    }

    /// How many others share what is asked for.
    fn others(&self, (node, content): Question, shot: &BTreeSet<u32>) -> u64 {
        let holders = self.holders.get(&content).map_or(&[][..], Vec::as_slice);
        let others = holders.iter().filter(|h| **h != node && !shot.contains(h));
        others.count() as u64
    }
}

/// Questions, and how many others shared what was asked for.
#[derive(Debug, Clone, Default)]
struct Round {
    asked: Vec<Asked>,
    others: Vec<u64>,
}

impl Round {
    /// Of the questions that somebody else could answer, the share that were.
    fn answered(&self) -> f64 {
        let could = self.pairs().filter(|(_, others)| *others > 0);
        let did = could.clone().filter(|(asked, _)| asked.found > 0).count();
        did as f64 / could.count().max(1) as f64
    }

    /// Messages of a question that somebody else could answer, in the mean.
    fn messages(&self) -> f64 {
        let could = self.pairs().filter(|(_, others)| *others > 0);
        let messages: u64 = could.clone().map(|(asked, _)| asked.messages).sum();
        messages as f64 / could.count().max(1) as f64
    }

    /// Of those who share what is asked for, the share found.
    fn recall(&self) -> f64 {
        let found: u64 = self.pairs().map(|(a, o)| a.found.min(o)).sum();
        let others: u64 = self.others.iter().sum();
        found as f64 / others.max(1) as f64
    }

    fn pairs(&self) -> impl Iterator<Item = (&Asked, u64)> + Clone {
        self.asked.iter().zip(self.others.iter().copied())
    }
}

/// One shooting: who, how many, what was answered at once and after a while.
#[derive(Debug, Clone, Copy)]
struct Shot {
    share: f64,
    best: bool,
    at_once: f64,
    mended: Option<f64>,
}

/// What was measured of one overlay.
#[derive(Debug)]
struct Measured {
    kind: Kind,
    round: Round,
    /// Messages of a question at the busiest node.
    hottest: (f64, f64),
    states: Vec<State>,
    shots: Vec<Shot>,
    events: u64,
    digest: Digest,
}

impl Overlays {
    fn check(&self) -> Result<(), BadOptions> {
        let bad = |why: &str| Err(BadOptions(why.to_owned()));
        if self.nodes < 400 || self.questions == 0 || self.contents == 0 {
            return bad("overlays needs 400 nodes, a question and a content");
        }
        if self.nodes > 200_000 || self.files > 1000 {
            return bad("at most 200,000 nodes with 1000 files each");
        }
        Ok(())
    }

    /// Questions to a network as it is, and to one for each way of shooting at it.
    fn measure(&self, kind: Kind, seed: u64, load: &Load, host: &mut dyn Host) -> Measured {
        let mut rng = rng_for(seed, 1 << 46);
        host.progress(kind.name(), 0, 7);
        let mut measured = self.whole(kind, seed, load, &mut rng);
        for (n, share) in (0..).zip(SHOT) {
            for best in [true, false] {
                host.progress(kind.name(), 1 + 2 * n + u64::from(!best), 7);
                let (shot, events, digest) = self.shoot(kind, seed, load, (share, best), &mut rng);
                measured.shots.push(shot);
                measured.events += events;
                measured.digest.add(digest.value(), 0);
            }
        }
        measured
    }

    /// Questions to a network as it is.
    fn whole(&self, kind: Kind, seed: u64, load: &Load, rng: &mut Rng) -> Measured {
        let mut net = kind.build(seed, &load.libraries);
        net.take_loads();
        let round = ask(net.as_mut(), load, self.questions, rng, &BTreeSet::new());
        let (most, over_mean) = hottest(&net.take_loads());
        let (events, digest) = net.events();
        Measured {
            kind,
            round,
            hottest: (most as f64 / f64::from(self.questions), over_mean),
            states: net.states(),
            shots: Vec::new(),
            events,
            digest,
        }
    }

    /// Questions to a network of which a share is shot, the best or any; events, and their hash.
    fn shoot(
        &self,
        kind: Kind,
        seed: u64,
        load: &Load,
        (share, best): (f64, bool),
        rng: &mut Rng,
    ) -> (Shot, u64, Digest) {
        let mut net = kind.build(seed, &load.libraries);
        let mut nodes = net.best();
        let count = (nodes.len() as f64 * share).round() as usize;
        if !best {
            rng.shuffle(&mut nodes);
        }
        nodes.truncate(count);
        net.shoot(&nodes);
        let shot: BTreeSet<u32> = nodes.into_iter().collect();
        let few = self.questions.div_ceil(2);
        let at_once = ask(net.as_mut(), load, few, rng, &shot).answered();
        let mended = net
            .wait(MEND)
            .then(|| ask(net.as_mut(), load, few, rng, &shot).answered());
        let (events, digest) = net.events();
        let shot = Shot {
            share,
            best,
            at_once,
            mended,
        };
        (shot, events, digest)
    }

    fn load(&self, seed: u64) -> Load {
        let mut rng = rng_for(seed, 1 << 40);
        let zipf = Zipf::new(self.contents);
        let libraries: Vec<Library> = (0..self.nodes)
            .map(|_| Library::draw(self.files, &zipf, &mut rng))
            .collect();
        let mut holders: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
        for (node, library) in (0..).zip(&libraries) {
            for content in &library.0 {
                holders.entry(*content).or_default().push(node);
            }
        }
        Load {
            libraries,
            holders,
            zipf,
        }
    }
}

fn ask(
    net: &mut dyn Overlay,
    load: &Load,
    count: u32,
    rng: &mut Rng,
    shot: &BTreeSet<u32>,
) -> Round {
    let questions = load.questions(count, rng, shot);
    let others = questions.iter().map(|q| load.others(*q, shot)).collect();
    Round {
        asked: net.ask(&questions),
        others,
    }
}

impl Experiment for Overlays {
    fn name(&self) -> &'static str {
        "overlays"
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("nodes", self.nodes.to_string()),
            ("files", self.files.to_string()),
            ("contents", self.contents.to_string()),
            ("questions", self.questions.to_string()),
            ("delay", "50 ms".to_owned()),
        ]
    }

    fn run(&self, seed: u64, host: &mut dyn Host) -> Result<Report, BadOptions> {
        self.check()?;
        let load = self.load(seed);
        let mut speed = Speed::default();
        speed.start(host, 0);
        let all = KINDS.map(|kind| self.measure(kind, seed, &load, host));
        let mut report = Report::new(self.name(), "The overlays beside each other", seed);
        report.summary =
            "The same files and the same questions for every way of finding them.".to_owned();
        report.options = self.options();
        let events = all.iter().map(|m| m.events).sum();
        all.iter()
            .for_each(|m| report.digest.add(m.digest.value(), 0));
        speed.stop(host, events);
        report.figure("events", events);
        speed.tell(&mut report);
        report.figure(
            "overlays",
            all.iter().map(Measured::json).collect::<Vec<_>>(),
        );
        report.table = table(&all);
        self.tell_shape(&mut report, &all);
        published::tell(self, seed, &load, &all, &mut report, host);
        plot(&mut report, &all);
        Ok(report)
    }
}

impl Measured {
    fn links(&self) -> (f64, u64) {
        spread(self.states.iter().map(|s| s.links))
    }

    fn entries(&self) -> (f64, u64) {
        spread(self.states.iter().map(|s| s.entries))
    }

    fn shot(&self, share: f64, best: bool) -> Option<&Shot> {
        let mut all = self.shots.iter();
        all.find(|s| s.share == share && s.best == best)
    }

    fn json(&self) -> Value {
        let mut row = Outcome::of(&self.round.asked).json();
        row["overlay"] = self.kind.name().into();
        row["answered"] = self.round.answered().into();
        row["recall"] = self.round.recall().into();
        row["messages_when_others_have_it"] = self.round.messages().into();
        row["hottest_messages"] = self.hottest.0.into();
        row["hottest_over_mean"] = self.hottest.1.into();
        let (mean, most) = self.links();
        row["links"] = json!({"mean": mean, "max": most});
        let (mean, most) = self.entries();
        row["entries"] = json!({"mean": mean, "max": most});
        let shots = self.shots.iter().map(|s| {
            json!({
                "share": s.share, "best": s.best, "at_once": s.at_once, "mended": s.mended,
            })
        });
        row["shot"] = shots.collect::<Vec<_>>().into();
        row
    }
}

/// Mean and most.
fn spread(values: impl Iterator<Item = u64> + Clone) -> (f64, u64) {
    let count = values.clone().count().max(1);
    let sum: u64 = values.clone().sum();
    (sum as f64 / count as f64, values.max().unwrap_or(0))
}

fn percent(share: f64) -> String {
    format!("{:.0}", share * 100.0)
}

/// A row for each figure and a column for each overlay.
fn table(all: &[Measured]) -> Vec<Vec<String>> {
    let outcomes: Vec<Outcome> = all.iter().map(|m| Outcome::of(&m.round.asked)).collect();
    let mut rows = Vec::new();
    let mut row = |what: String, cells: Vec<String>| {
        rows.push(std::iter::once(what).chain(cells).collect::<Vec<_>>());
    };
    let each = |of: &dyn Fn(&Measured) -> String| all.iter().map(of).collect::<Vec<_>>();
    let means = |of: &dyn Fn(&Outcome) -> f64| -> Vec<String> {
        outcomes.iter().map(|o| number(of(o))).collect()
    };
    row(String::new(), each(&|m| m.kind.name().to_owned()));
    row("messages a question".into(), means(&|o| o.messages));
    row(
        "the same, when others have it".into(),
        each(&|m| number(m.round.messages())),
    );
    row("bytes a question".into(), means(&|o| o.bytes));
    row("nodes asked".into(), means(&|o| o.reach));
    row(
        "answered, % of what others have".into(),
        each(&|m| percent(m.round.answered())),
    );
    row(
        "found, % of all copies".into(),
        each(&|m| percent(m.round.recall())),
    );
    row("hops to the first".into(), means(&|o| o.hops));
    row("ms to the first, median".into(), means(&|o| o.first_ms));
    row(
        "messages a question at the busiest".into(),
        each(&|m| number(m.hottest.0)),
    );
    row(
        "the same over the mean".into(),
        each(&|m| number(m.hottest.1)),
    );
    row(
        "links, mean / most".into(),
        each(&|m| format!("{} / {}", number(m.links().0), number(m.links().1 as f64))),
    );
    row(
        "of others kept, mean / most".into(),
        each(&|m| {
            let (mean, most) = m.entries();
            format!("{} / {}", number(mean), number(most as f64))
        }),
    );
    for best in [true, false] {
        for share in SHOT {
            let who = if best { "the best" } else { "by chance" };
            row(
                format!("answered, {} % shot, {who}", number(share * 100.0)),
                each(&|m| {
                    let Some(shot) = m.shot(share, best) else {
                        return String::new();
                    };
                    let later = shot.mended.map(|m| format!(", {}", percent(m)));
                    percent(shot.at_once) + &later.unwrap_or_default()
                }),
            );
        }
    }
    rows
}

fn plot(report: &mut Report, all: &[Measured]) {
    let points = |of: &dyn Fn(&Measured) -> f64| -> Vec<(f64, f64)> {
        (1_u8..).map(f64::from).zip(all.iter().map(of)).collect()
    };
    let names: Vec<&str> = all.iter().map(|m| m.kind.name()).collect();
    report.plots.push(Plot {
        title: "Cost of a question".to_owned(),
        caption: format!("From the left: {}.", names.join(", ")),
        x: Axis::linear("overlay"),
        y: Axis::log10("a question"),
        series: vec![
            Series::measured(
                "messages",
                points(&|m| Outcome::of(&m.round.asked).messages.max(1.0)),
            ),
            Series::measured("at the busiest node", points(&|m| m.hottest.0.max(0.01))),
        ],
    });
}

impl Overlays {
    /// What makes them what they are.
    fn tell_shape(&self, report: &mut Report, all: &[Measured]) {
        let of = |kind: Kind| all.iter().find(|m| m.kind == kind);
        let answered = |kind: Kind| of(kind).map_or(0.0, |m| m.round.answered());
        let whole = [Kind::Napster, Kind::Kazaa, Kind::Chord];
        report.check(
            "Napster, KaZaA and Chord answer what anybody has",
            "100 % each",
            whole.map(|k| percent(answered(k)) + " %").join(", "),
            whole.iter().all(|k| answered(*k) == 1.0),
        );
        let dead = |kind: Kind| {
            let shot = of(kind).and_then(|m| m.shot(SHOT[0], true));
            shot.map_or(1.0, |s| s.at_once)
        };
        report.check(
            "the best 1 % shot: Napster ends, Gnutella's equals hardly notice",
            "0 %; at least 90 % of what they answered",
            format!(
                "{} %; {} of {} %",
                percent(dead(Kind::Napster)),
                percent(dead(Kind::Flooding)),
                percent(answered(Kind::Flooding))
            ),
            dead(Kind::Napster) == 0.0 && dead(Kind::Flooding) >= 0.9 * answered(Kind::Flooding),
        );
        // The best hundredth of KaZaA's members are all its supernodes: without one nobody is promoted.
        for (kind, best) in [
            (Kind::Kazaa, false),
            (Kind::Chord, true),
            (Kind::Chord, false),
        ] {
            let mended = of(kind).into_iter().flat_map(|m| m.shots.iter());
            let mended = mended.filter(|s| s.best == best).filter_map(|s| s.mended);
            let worst = mended.fold(1.0, f64::min);
            let who = if best { "of the best" } else { "at random" };
            report.check(
                format!("{} a minute after up to 20 % {who} were shot", kind.name()),
                "at least 99 % answered of what those left have",
                format!("at worst {} %", percent(worst)),
                worst >= 0.99,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Overlays = Overlays {
        nodes: 400,
        files: 5,
        contents: 500,
        questions: 10,
    };

    #[test]
    fn all_overlays_are_asked_the_same_and_answer() {
        let load = SMALL.load(2);
        let all = KINDS.map(|kind| SMALL.whole(kind, 2, &load, &mut rng_for(2, 1)));
        for measured in &all {
            assert_eq!(measured.round.answered(), 1.0, "{:?}", measured.kind);
            assert_eq!(measured.round.others, all[0].round.others);
        }
        let again = SMALL.whole(Kind::Ultrapeers, 2, &load, &mut rng_for(2, 1));
        assert_eq!(again.digest, all[3].digest);
        let table = table(&all);
        assert_eq!(table.len(), 19);
        assert!(table.iter().all(|row| row.len() == 1 + KINDS.len()));
    }

    #[test]
    fn kazaa_and_chord_mend_what_is_shot() {
        let load = SMALL.load(2);
        for shooting in [(Kind::Kazaa, (0.05, false)), (Kind::Chord, (0.2, true))] {
            let (kind, how) = shooting;
            let (shot, ..) = SMALL.shoot(kind, 2, &load, how, &mut rng_for(2, 1));
            assert_eq!(shot.mended, Some(1.0), "{shooting:?}");
        }
    }
}
