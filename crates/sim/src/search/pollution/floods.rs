//! Floods of queries and of connections, and one machine that would be many supernodes.

use super::super::graph::Graph;
use super::super::hierarchy;
use super::super::library::{Library, Zipf};
use super::super::servent::{self, DELAY};
use super::{CONTENTS, Case, Cases, FILES, Pollution};
use crate::experiment::Host;
use crate::rng_for;
use serde_json::json;
use shoal_gnutella::node::{Config, Mode};
use std::time::Duration;

/// Nodes of the network that is flooded, queries a second of the flooder, and for how long.
const NODES: u32 = 200;
const QUERIES: u32 = 1000;
const FLOOD_S: u32 = 5;
/// Supernodes of the small hierarchies here, and children of each.
const SUPERNODES: u32 = 8;
const CHILDREN: u32 = 12;
/// Connections a second of who floods a supernode.
const CALLS: u32 = 50;
/// Places of the machine that would be many, and hosts it has.
const SYBILS: u32 = 200;
const HOSTS: u32 = 4;

pub(super) fn run(options: &Pollution, seed: u64, cases: &mut Cases, host: &mut dyn Host) {
    host.progress("Flooding", 0, 3);
    flood_queries(options, seed, cases);
    host.progress("Flooding", 1, 3);
    flood_child(options, seed, cases);
    host.progress("Flooding", 2, 3);
    flood_calls(seed, cases);
    sybils(seed, cases);
}

/// A node of Gnutella asks a thousand things a second; what of it the network carries, and whether the
/// others still get answers.
fn flood_queries(options: &Pollution, seed: u64, cases: &mut Cases) {
    let mut carried = Vec::new();
    for limited in [false, true] {
        let mut rng = rng_for(seed, 1 << 40);
        let zipf = Zipf::new(CONTENTS);
        let libraries = (0..NODES)
            .map(|_| Library::draw(FILES, &zipf, &mut rng))
            .collect();
        let graph = Graph::regular(NODES, 4, &mut rng);
        let mut net = servent::Net::new(seed, libraries, |_| Config {
            ultrapeers: 4,
            query_rate: if limited {
                (200, 2)
            } else {
                (u32::MAX, u32::MAX)
            },
            ..Config::of(Mode::Flood)
        });
        net.join_all(&graph);
        net.run(Duration::from_secs(2));
        let mut guids = Vec::new();
        let mut honest = Vec::new();
        let every = QUERIES * FLOOD_S / options.questions.min(100);
        for n in 0..QUERIES * FLOOD_S {
            guids.push(net.ask(0, zipf.draw(&mut rng), 7));
            if n % every == 0 {
                let node = 1 + rng.below(NODES as usize - 1) as u32;
                honest.push(net.ask(node, zipf.draw(&mut rng), 7));
            }
            net.run(Duration::from_secs(1) / QUERIES);
        }
        net.run(DELAY * 14);
        let messages: u64 = guids.into_iter().map(|g| net.take(g).messages).sum();
        let whole = 2 * graph.edges() - u64::from(NODES) + 1;
        let most = whole * u64::from(QUERIES * FLOOD_S);
        let count = honest.len();
        let answered = honest
            .into_iter()
            .filter(|g| net.take(*g).found > 0)
            .count();
        cases.ran(net.world.counts(), net.world.digest());
        carried.push((
            messages as f64 / most as f64,
            answered as f64 / count.max(1) as f64,
        ));
    }
    let [without, with] = [carried[0], carried[1]];
    cases.all.push(Case {
        attack: format!("Gnutella: {QUERIES} queries a second from one node"),
        what: "of all copies of them that everybody would carry",
        without: Some(without.0),
        with: with.0,
        at_most: Some(0.7),
        at_least: None,
        more: json!({"honest_answered_without": without.1, "honest_answered": with.1}),
    });
    cases.all.push(Case {
        attack: format!("Gnutella: {QUERIES} queries a second from one node"),
        what: "of the others' questions answered meanwhile",
        without: Some(without.1),
        with: with.1,
        at_most: None,
        at_least: Some(0.8 * without.1),
        more: json!({}),
    });
}

fn hierarchy(
    seed: u64,
    members: u32,
    limits: impl FnOnce(&mut shoal_supernode::node::Config),
) -> (hierarchy::Net, Zipf) {
    let mut rng = rng_for(seed, 1 << 40);
    let zipf = Zipf::new(CONTENTS);
    let libraries: Vec<Library> = (0..members)
        .map(|_| Library::draw(FILES, &zipf, &mut rng))
        .collect();
    let net = hierarchy::Net::new(seed, SUPERNODES, libraries, |config| {
        config.max_children = 40;
        limits(config);
    });
    (net, zipf)
}

/// A child asks a hundred things a second.
pub(super) fn flood_child(options: &Pollution, seed: u64, cases: &mut Cases) {
    let members = SUPERNODES * (CHILDREN + 1);
    let questions = 100 * options.questions.min(10);
    let mut reached = Vec::new();
    for limited in [false, true] {
        let (mut net, zipf) = hierarchy(seed, members, |config| {
            if !limited {
                config.queries_per_minute = u32::MAX;
                config.flood_per_minute = u32::MAX;
            }
        });
        net.assemble(Duration::from_secs(10), Duration::from_secs(30));
        let mut rng = rng_for(seed, 1 << 41);
        let mut ids = Vec::new();
        for _ in 0..questions {
            ids.push(net.ask(members, zipf.draw(&mut rng)));
            net.run(Duration::from_millis(10));
        }
        net.run(Duration::from_secs(2));
        let passed = ids
            .into_iter()
            .flatten()
            .filter(|id| net.take(*id).0.reach > 1);
        let passed = passed.count();
        cases.ran(net.world.counts(), net.world.digest());
        reached.push(passed as f64 / f64::from(questions));
    }
    cases.all.push(Case {
        attack: "supernodes: 100 queries a second from a child".to_owned(),
        what: "that go beyond its supernode",
        without: Some(reached[0]),
        with: reached[1],
        at_most: Some(0.1),
        at_least: None,
        more: json!({"questions": questions}),
    });
}

/// A machine opens connection after connection to a supernode and says nothing; newcomers who know no
/// other supernode want in.
pub(super) fn flood_calls(seed: u64, cases: &mut Cases) {
    // One supernode alone, so that nobody goes elsewhere.
    let members = 1 + 30;
    let mut joined = Vec::new();
    for limited in [false, true] {
        let mut rng = rng_for(seed, 1 << 40);
        let zipf = Zipf::new(CONTENTS);
        let libraries: Vec<Library> = (0..members)
            .map(|_| Library::draw(FILES, &zipf, &mut rng))
            .collect();
        let mut net = hierarchy::Net::new(seed, 1, libraries, |config| {
            config.max_children = 40;
            config.links_per_host = if limited { 4 } else { 0 };
        });
        let attacker = net.silent();
        net.world.start(1);
        net.run(Duration::from_secs(5));
        let mut number = 0;
        let mut flood = |net: &mut hierarchy::Net, time: Duration| {
            for _ in 0..(time.as_millis() as u32 * CALLS / 1000) {
                number += 1;
                net.call(attacker, 1, number);
                net.run(Duration::from_secs(1) / CALLS);
            }
        };
        flood(&mut net, Duration::from_secs(10));
        for node in 2..=members {
            net.world.start(node);
            flood(&mut net, Duration::from_millis(500));
        }
        flood(&mut net, Duration::from_secs(15));
        let inside = (2..=members).filter(|n| net.is_in(*n)).count();
        cases.ran(net.world.counts(), net.world.digest());
        joined.push((inside as f64 / f64::from(members - 1), net.stats(1).refused));
    }
    cases.all.push(Case {
        attack: format!("{CALLS} silent connections a second from one host to a supernode"),
        what: "newcomers who are let in: any number of a host's links, and 4",
        without: Some(joined[0].0),
        with: joined[1].0,
        at_most: None,
        at_least: Some(1.0),
        more: json!({"refused_without": joined[0].1, "refused": joined[1].1}),
    });
}

/// One machine with a few hosts registers as two hundred supernodes; where newcomers end up.
fn sybils(seed: u64, cases: &mut Cases) {
    let peers = 200;
    let members = SUPERNODES + SYBILS + peers;
    let mut caught = Vec::new();
    for limited in [false, true] {
        let mut rng = rng_for(seed, 1 << 40);
        let zipf = Zipf::new(CONTENTS);
        let libraries: Vec<Library> = (0..members)
            .map(|_| Library::draw(FILES, &zipf, &mut rng))
            .collect();
        // The honest first, then those of the attacker.
        let mut net = hierarchy::Net::new(seed, SUPERNODES + SYBILS, libraries, |config| {
            config.max_children = 60;
            // They do not look for neighbours at each other's cost here.
            config.neighbours = 3;
        });
        if !limited {
            net.list_without_limit();
        }
        let sybils = SUPERNODES + 1..=SUPERNODES + SYBILS;
        for sybil in sybils.clone() {
            net.move_to(sybil, 1_000_000 + sybil % HOSTS);
        }
        net.assemble(Duration::from_secs(40), Duration::from_secs(60));
        let all = SUPERNODES + SYBILS + 1..=members;
        let homes: Vec<u32> = all.filter_map(|n| net.supernode_of(n)).collect();
        let at_sybils = homes.iter().filter(|h| sybils.contains(h)).count();
        cases.ran(net.world.counts(), net.world.digest());
        caught.push((
            at_sybils as f64 / homes.len().max(1) as f64,
            homes.len(),
            net.listed(),
        ));
    }
    cases.all.push(Case {
        attack: format!(
            "{SYBILS} Sybil supernodes on {HOSTS} hosts beside {SUPERNODES} honest ones"
        ),
        what: "newcomers who become theirs: any number of a host's entries in the list, and 2",
        without: Some(caught[0].0),
        with: caught[1].0,
        at_most: Some(0.8 * caught[0].0),
        at_least: None,
        more: json!({
            "homed": [caught[0].1, caught[1].1], "listed": [caught[0].2, caught[1].2],
        }),
    });
}
