//! What papers and protocols say of these overlays, each beside what comes out here. What follows from
//! the graph alone is counted on graphs of its own.

use super::super::graph::{Graph, tree};
use super::super::library::Zipf;
use super::super::servent::{DELAY, Net};
use super::super::{Asked, Outcome};
use super::nets::{DEGREE, PAUSE, Question, TTL};
use super::{Kind, Load, Measured, Overlays};
use crate::experiment::Host;
use crate::report::{Report, number};
use crate::rng_for;
use crate::stats::mean;
use shoal_base::Rng;
use shoal_gnutella::node::{Config, Mode};
use std::time::Duration;

/// A TTL that reaches everybody.
const ALL: u8 = 60;
/// Nodes of the graphs that are only counted (Ripeanu 2002 saw 40,000 to 50,000).
const COUNTED: u32 = 40_000;
/// Nodes that distances are counted from.
const FROM: usize = 50;

/// Writes a check for everything that is published.
pub(super) fn tell(
    options: &Overlays,
    seed: u64,
    load: &Load,
    all: &[Measured],
    report: &mut Report,
    host: &mut dyn Host,
) {
    let mut rng = rng_for(seed, 1 << 47);
    host.progress("Against what is published", 0, 1);
    napster(all, report);
    trees(report);
    floods(options, seed, load, report, &mut rng);
    graphs(report, &mut rng);
    replication(options, report, &mut rng);
    superpeers(all, report, &mut rng);
    chord(options, all, report);
}

fn of(all: &[Measured], kind: Kind) -> Option<(&Measured, Outcome)> {
    let found = all.iter().find(|m| m.kind == kind);
    found.map(|m| (m, Outcome::of(&m.round.asked)))
}

fn napster(all: &[Measured], report: &mut Report) {
    if let Some((measured, outcome)) = of(all, Kind::Napster) {
        report.check(
            "Napster: messages of a question",
            "2, whatever the number of users",
            number(outcome.messages),
            outcome.messages == 2.0,
        );
        let users = measured.states.len() as u64 - 1;
        let hub = measured.states.last().copied().unwrap_or_default();
        report.check(
            "Napster: the hub's state and load",
            format!("all {users} users, all their files, every question"),
            format!(
                "{} links, {} files, {} questions each",
                number(hub.links as f64),
                number(hub.entries as f64),
                number(measured.hottest.0)
            ),
            hub.links == users && measured.hottest.0 >= 1.0,
        );
    }
}

fn trees(report: &mut Report) {
    // Whom a query reaches, who asks included where the paper does.
    let counted = [
        (4, 5, 484.0, "Ritter 2001: 484"),
        (4, 7, 4372.0, "d ((d - 1)^TTL - 1) / (d - 2) = 4,372"),
        (
            8,
            7,
            1_098_056.0,
            "Ritter 2001: 1,098,057 with the one who asks",
        ),
    ];
    for (degree, ttl, expected, said) in counted {
        let got = tree(degree, ttl);
        report.check(
            format!("flooding: a tree of degree {degree} within TTL {ttl}"),
            said,
            number(got),
            got == expected,
        );
    }
    // 18 letters ten times a second, in every message a TCP/IP header of 40 bytes.
    let message = 23 + 2 + 18 + 1 + 40;
    let rate = f64::from(message) * tree(8, 7) * 10.0;
    report.check(
        "flooding: 18 letters, 10 queries a second, degree 8, TTL 7",
        "about a gigabyte a second over the whole horizon, queries alone (Ritter 2001)",
        format!("{} MB/s in messages of {message} bytes", number(rate / 1e6)),
        (0.5e9..2e9).contains(&rate),
    );
    let bits = 170_000.0 * 6000.0;
    let month = bits / 8.0 * 30.0 * 86_400.0;
    report.check(
        "Gnutella of 50,000 nodes: 170,000 links of 6 kbit/s each",
        "1 Gbit/s, 330 TB a month (Ripeanu 2002)",
        format!("{} Gbit/s, {} TB", number(bits / 1e9), number(month / 1e12)),
        (month / 330e12 - 1.0).abs() < 0.01,
    );
}

/// A network of equals on a graph, and what a flood and an expanding ring cost there.
fn rings(
    seed: u64,
    graph: &Graph,
    load: &Load,
    questions: &[Question],
) -> (Vec<Asked>, Outcome, Outcome) {
    let degrees: Vec<usize> = graph.0.iter().map(Vec::len).collect();
    let mut net = Net::new(seed, load.libraries.clone(), |node| Config {
        ultrapeers: degrees[node as usize],
        max_ttl: ALL,
        ..Config::of(Mode::Flood)
    });
    net.join_all(graph);
    net.run(Duration::from_secs(2));
    let mut ask = |questions: &[Question], ttl: u8| -> Vec<Asked> {
        let mut guids = Vec::new();
        for (node, content) in questions {
            guids.push(net.ask(*node, *content, ttl));
            net.run(PAUSE);
        }
        net.run(DELAY * 2 * u32::from(ttl));
        guids.into_iter().map(|guid| net.take(guid)).collect()
    };
    let whole = ask(questions, ALL);
    let flood = Outcome::of(&ask(questions, TTL));
    let mut open: Vec<Question> = questions.to_vec();
    let mut messages = 0;
    for ttl in 1..=TTL {
        let asked = ask(&open, ttl);
        messages += asked.iter().map(|a| a.messages).sum::<u64>();
        let pairs = open.iter().zip(&asked);
        open = pairs
            .filter(|(_, asked)| asked.found == 0)
            .map(|(question, _)| *question)
            .collect();
    }
    let rings = Outcome {
        messages: messages as f64 / questions.len().max(1) as f64,
        answered: 1.0 - open.len() as f64 / questions.len().max(1) as f64,
        ..Outcome::default()
    };
    (whole, flood, rings)
}

fn floods(options: &Overlays, seed: u64, load: &Load, report: &mut Report, rng: &mut Rng) {
    let few = options.questions.min(50);
    let questions = load.questions(few, rng, &std::collections::BTreeSet::new());
    let regular = Graph::regular(options.nodes, DEGREE, rng);
    let grown = Graph::preferential(options.nodes, DEGREE / 2, rng);
    let (whole, flood, ring) = rings(seed, &regular, load, &questions);
    let bound = 2 * regular.edges() - u64::from(options.nodes) + 1;
    let exact = whole.iter().all(|a| a.messages == bound);
    report.check(
        "flooding: messages of a flood that reaches everybody",
        format!("2 E - N + 1 = {bound}"),
        number(Outcome::of(&whole).messages),
        exact,
    );
    report.check(
        format!("flooding: nodes reached within TTL {TTL}, degree {DEGREE}"),
        format!("at most {} of a tree", number(1.0 + tree(DEGREE, TTL))),
        number(flood.reach),
        flood.reach <= 1.0 + tree(DEGREE, TTL),
    );
    let saved = |flood: &Outcome, ring: &Outcome| flood.messages / ring.messages.max(1.0);
    let on_regular = saved(&flood, &ring);
    let (_, grown_flood, grown_ring) = rings(seed, &grown, load, &questions);
    let on_grown = saved(&grown_flood, &grown_ring);
    report.figure("expanding_ring_saves_random", on_regular);
    report.figure("expanding_ring_saves_power_law", on_grown);
    report.check(
        "expanding rings on a random graph: messages saved of a flood's",
        "several times fewer, as much found (Lv 2002)",
        format!(
            "{} times fewer, {} and {} answered; on a power law {} times (Lv 2002: little)",
            number(on_regular),
            number(ring.answered),
            number(flood.answered),
            number(on_grown)
        ),
        on_regular > 1.5 && ring.answered >= flood.answered,
    );
}

/// Steps from some nodes to all that they reach: the mean, and the share within so many.
fn distances(graph: &Graph, within: usize, rng: &mut Rng) -> (f64, f64) {
    let (mut sum, mut all, mut near) = (0, 0, 0);
    for _ in 0..FROM {
        let from = rng.below(graph.0.len()) as u32;
        for (distance, count) in graph.rings(from, |_| true).into_iter().enumerate().skip(1) {
            sum += distance as u64 * count;
            all += count;
            near += if distance <= within { count } else { 0 };
        }
    }
    let all = all.max(1) as f64;
    (sum as f64 / all, near as f64 / all)
}

fn graphs(report: &mut Report, rng: &mut Rng) {
    let graph = Graph::preferential(COUNTED, 3, rng);
    let (_, near) = distances(&graph, 7, rng);
    report.check(
        format!("Gnutella's graph of {COUNTED} nodes (a power law, 3.4 links a node): pairs within 7 hops"),
        "over 95 % (Ripeanu 2002)",
        format!("{} %, of {} links a node", number(near * 100.0), number(graph.edges() as f64 / f64::from(COUNTED))),
        near > 0.95,
    );
    // The largest part among those left.
    let ultrapeers = Graph::regular(COUNTED, 30, rng);
    let left: Vec<bool> = (0..COUNTED).map(|_| rng.chance(0.15)).collect();
    let up = |node: u32| left[node as usize];
    let alive = left.iter().filter(|up| **up).count() as f64;
    let from: Vec<u32> = (0..COUNTED).filter(|n| up(*n)).take(20).collect();
    let parts = from
        .iter()
        .map(|n| ultrapeers.rings(*n, up).iter().sum::<u64>());
    let whole = parts.max().unwrap_or(0) as f64 / alive.max(1.0);
    report.check(
        "ultrapeers of degree 30, 85 % gone at random: the rest that hangs together",
        "90 % (Stutzbach 2005)",
        format!("{} %", number(whole * 100.0)),
        whole >= 0.9,
    );
}

/// Random probes until a copy is found, when copies are shared out evenly, by popularity, or by its
/// square root.
fn replication(options: &Overlays, report: &mut Report, rng: &mut Rng) {
    const CONTENTS: u32 = 200;
    const QUESTIONS: usize = 20_000;
    let nodes = options.nodes as usize;
    // Copies of a content in the mean.
    let each = nodes as f64 / 20.0;
    let popularity: Vec<f64> = (1..=CONTENTS).map(|rank| 1.0 / f64::from(rank)).collect();
    let sum: f64 = popularity.iter().sum();
    let q: Vec<f64> = popularity.iter().map(|p| p / sum).collect();
    let shares: [(&str, Vec<f64>); 3] = [
        ("evenly", vec![1.0 / f64::from(CONTENTS); CONTENTS as usize]),
        ("by popularity", q.clone()),
        ("by its square root", {
            let roots: Vec<f64> = q.iter().map(|q| q.sqrt()).collect();
            let sum: f64 = roots.iter().sum();
            roots.iter().map(|r| r / sum).collect()
        }),
    ];
    let copies = each * f64::from(CONTENTS);
    // rho: copies that a node holds, in the mean.
    let rho = copies / nodes as f64;
    let root_sum: f64 = q.iter().map(|q| q.sqrt()).sum();
    let theory = [
        f64::from(CONTENTS) / rho,
        f64::from(CONTENTS) / rho,
        root_sum * root_sum / rho,
    ];
    let zipf = Zipf::new(CONTENTS);
    for ((name, shares), theory) in shares.into_iter().zip(theory) {
        let held: Vec<f64> = shares
            .iter()
            .map(|share| (share * copies).clamp(1.0, nodes as f64))
            .collect();
        let probes: Vec<f64> = (0..QUESTIONS)
            .map(|_| {
                let share = held[zipf.draw(rng) as usize] / nodes as f64;
                let mut probes = 1.0;
                while !rng.chance(share) {
                    probes += 1.0;
                }
                probes
            })
            .collect();
        let got = mean(&probes);
        report.check(
            format!("random probes until a copy is found, copies shared out {name}"),
            match name {
                "by its square root" => {
                    format!("(sum of sqrt q)^2 / rho = {}, the least", number(theory))
                }
                _ => format!("m / rho = {} (Cohen and Shenker 2002)", number(theory)),
            },
            number(got),
            (got / theory - 1.0).abs() < 0.05,
        );
    }
}

fn superpeers(all: &[Measured], report: &mut Report, rng: &mut Rng) {
    let Some((ultrapeers, dynamic)) = of(all, Kind::Ultrapeers) else {
        return;
    };
    let flood = of(all, Kind::Flooding);
    if let Some((flooding, outcome)) = &flood {
        report.check(
            "Gnutella 0.6 beside 0.4: messages of a question",
            "tables and dynamic queries answer as many for fewer",
            format!(
                "{} and {}, {} and {} % answered",
                number(dynamic.messages),
                number(outcome.messages),
                number(ultrapeers.round.answered() * 100.0),
                number(flooding.round.answered() * 100.0)
            ),
            ultrapeers.round.answered() >= flooding.round.answered(),
        );
    }
    if let (Some((walking, walks)), Some((flooding, flood))) = (of(all, Kind::Walks), &flood) {
        // Of what nobody has a walker learns only at its end.
        let (walked, flooded) = (walking.round.messages(), flooding.round.messages());
        report.check(
            "32 random walks beside a flood, messages when somebody has it",
            "answer as many, later, for fewer (Lv 2002: up to 100 times, in larger networks)",
            format!(
                "{} and {} % answered, {} and {} messages, first after {} and {} ms",
                number(walking.round.answered() * 100.0),
                number(flooding.round.answered() * 100.0),
                number(walked),
                number(flooded),
                number(walks.first_ms),
                number(flood.first_ms)
            ),
            walking.round.answered() >= 0.95 * flooding.round.answered() && walked < flooded,
        );
    }
    // Yang and Garcia-Molina redesign Gnutella of 20,000 peers: clusters of ten, superpeers of eighteen
    // neighbours, TTL 2, against what it was, 3.1 neighbours and TTL 7.
    let was = Graph::preferential(20_000, 2, rng);
    let redesigned = Graph::regular(2000, 18, rng);
    let cost = |graph: &Graph, ttl: u8, rng: &mut Rng| {
        let all: Vec<(f64, f64, f64)> = (0..FROM)
            .map(|_| {
                let from = rng.below(graph.0.len()) as u32;
                let (messages, reach) = graph.flood(from, ttl);
                let rings = graph.rings(from, |_| true);
                let within = rings.iter().enumerate().take(usize::from(ttl) + 1);
                let steps: u64 = within.map(|(d, n)| d as u64 * n).sum();
                let path = steps as f64 / (reach - 1).max(1) as f64;
                (messages as f64, reach as f64 / graph.0.len() as f64, path)
            })
            .collect();
        let mean_of =
            |of: &dyn Fn(&(f64, f64, f64)) -> f64| mean(&all.iter().map(of).collect::<Vec<_>>());
        (mean_of(&|c| c.0), mean_of(&|c| c.1), mean_of(&|c| c.2))
    };
    let (before, covered, long) = cost(&was, 7, rng);
    // The child's question comes on top of each.
    let (after, covers, short) = cost(&redesigned, 2, rng);
    // For each peer reached: the paper asks for as many results of both.
    let saved = 1.0 - ((after + 1.0) / covers) / (before / covered);
    report.check(
        "20,000 peers redesigned with superpeers of ten: TTL 7 to 2, neighbours to 18",
        "79 % less traffic for as many results, paths of 5.4 hops become 1.9 (Yang and Garcia-Molina \
         2003)",
        format!(
            "{} % fewer messages for a peer reached, paths {} to {}; {} and {} peers reached",
            number(saved * 100.0),
            number(long),
            number(short),
            number(covered * 20_000.0),
            number(covers * 20_000.0)
        ),
        saved >= 0.79 && short <= 2.0,
    );
    if let Some((kazaa, outcome)) = of(all, Kind::Kazaa) {
        report.check(
            "KaZaA beside a flood among equals: messages of a question",
            "fewer by about the size of a cluster, all found",
            format!(
                "{} against {} of the equals, {} % answered",
                number(outcome.messages),
                flood
                    .as_ref()
                    .map_or(String::new(), |(_, f)| number(f.messages)),
                number(kazaa.round.answered() * 100.0)
            ),
            kazaa.round.answered() == 1.0,
        );
    }
}

fn chord(options: &Overlays, all: &[Measured], report: &mut Report) {
    let Some((measured, outcome)) = of(all, Kind::Chord) else {
        return;
    };
    let n = f64::from(options.nodes);
    // To the owner itself, with a list of r successors.
    let r = shoal_dht::chord::Config::default().successors as f64;
    let theory = (n / r).log2() / 2.0 + 1.0;
    report.check(
        "Chord: mean hops of a lookup",
        format!(
            "O(log N): 1/2 log2 (N / r) + 1 = {}, with fingers alone 1/2 log2 N = {}",
            number(theory),
            number(n.log2() / 2.0)
        ),
        number(outcome.hops),
        (outcome.hops - theory).abs() <= 0.5,
    );
    let (links, most) = measured.links();
    report.check(
        "Chord: nodes that each one knows",
        format!("O(log N): log2 N + r = {} or so", number(n.log2() + r)),
        format!("{} in the mean, {most} at most", number(links)),
        links <= n.log2() + r,
    );
}
