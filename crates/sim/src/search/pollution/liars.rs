//! Nodes that answer everything, supernodes that forge hits, and answers by ways that nobody asked.

use super::super::graph::Graph;
use super::super::hierarchy::{self, Lie};
use super::super::library::{Library, Zipf, sha1};
use super::super::servent::{self, DELAY};
use super::{CONTENTS, Case, Cases, FILES, Pollution};
use crate::experiment::Host;
use crate::rng_for;
use rustc_hash::FxHashMap;
use serde_json::json;
use shoal_base::Rng;
use shoal_content::hits::{Hashes, Hit, Hits};
use shoal_gnutella::guid::Guid;
use shoal_gnutella::message::hit::{Answerer, Status};
use shoal_gnutella::message::{Kind, Packet};
use shoal_gnutella::node::{Answer, Config, Mode};
use shoal_gnutella::shared::SharedFile;
use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(50);
/// Share of the nodes that answer everything.
const LIARS: f64 = 0.02;
/// Hits that are sent to who did not ask.
const FORGED: u32 = 300;

fn network(options: &Pollution, seed: u64) -> (servent::Net, Graph, Zipf, Rng) {
    let mut rng = rng_for(seed, 1 << 40);
    let zipf = Zipf::new(CONTENTS);
    let libraries = (0..options.members)
        .map(|_| Library::draw(FILES, &zipf, &mut rng))
        .collect();
    let graph = Graph::regular(options.members, 4, &mut rng);
    let mut net = servent::Net::new(seed, libraries, |_| Config {
        ultrapeers: 4,
        ..Config::of(Mode::Flood)
    });
    net.join_all(&graph);
    net.run(Duration::from_secs(2));
    (net, graph, zipf, rng)
}

/// A file of an answer as `shoal find` sees it.
fn as_found(answer: &Answer) -> impl Iterator<Item = Hit> + '_ {
    answer.files.iter().map(|file| Hit {
        via: "gnutella",
        sharer: answer.addr.to_string(),
        name: file.name.clone(),
        size: file.size,
        hashes: Hashes {
            sha1: file.sha1,
            ..Hashes::default()
        },
        ..Hit::default()
    })
}

pub(super) fn run(options: &Pollution, seed: u64, cases: &mut Cases, host: &mut dyn Host) {
    host.progress("Lying", 0, 1);
    answer_everything(options, seed, cases);
    forge_ways(options, seed, cases);
    lying_supernodes(options, seed, cases);
}

fn answer_everything(options: &Pollution, seed: u64, cases: &mut Cases) {
    let (mut net, _, zipf, mut rng) = network(options, seed);
    let count = (f64::from(options.members) * LIARS).ceil() as usize;
    let mut nodes: Vec<u32> = (0..options.members).collect();
    rng.shuffle(&mut nodes);
    let (liars, honest) = nodes.split_at(count);
    liars.iter().for_each(|liar| net.corrupt(*liar));
    // Enough different questions for who answers all of them to be seen to, and as many again.
    let questions = options.questions.max(120);
    let mut guids = Vec::new();
    net.answers = Some(FxHashMap::default());
    let mut wanted = BTreeSet::new();
    for _ in 0..questions {
        let node = honest[rng.below(honest.len())];
        let mut content = zipf.draw(&mut rng);
        while !wanted.insert(content) && wanted.len() < CONTENTS as usize / 2 {
            content = zipf.draw(&mut rng);
        }
        guids.push((net.ask(node, content, 7), content));
        net.run(PAUSE);
    }
    net.run(DELAY * 14);
    let mut answers = net.answers.take().unwrap_or_default();
    let mut lies = Vec::new();
    let (mut best, mut answered) = (0, 0);
    for (n, (guid, content)) in guids.into_iter().enumerate() {
        let got = answers.remove(&guid).unwrap_or_default();
        let all: Vec<Hit> = got.iter().flat_map(as_found).collect();
        let lie = |h: &&Hit| h.hashes.sha1 != Some(sha1(content));
        lies.push(all.iter().filter(lie).count());
        if n >= questions as usize / 2 && !all.is_empty() {
            answered += 1;
            let mut hits = Hits::default();
            all.into_iter().for_each(|hit| {
                hits.add(hit);
            });
            let first = hits.ranked().first().and_then(|n| hits.get(*n));
            best += usize::from(first.is_some_and(|f| f.hashes.sha1 != Some(sha1(content))));
        }
    }
    let half = lies.len() / 2;
    let later = lies[half..].iter().sum::<usize>() as f64;
    let all = (lies.len() - half) as f64 * count as f64;
    let counts = net.world.counts();
    cases.ran(counts, net.world.digest());
    cases.all.push(Case {
        attack: format!("{:.0} % answer everything", LIARS * 100.0),
        what: "their answers that get to who asks, after the first questions",
        without: Some(1.0),
        with: later / all.max(1.0),
        // Who answers everything is found by who sees most of his answers; among equals each of his
        // neighbours sees but a part of them.
        at_most: None,
        at_least: None,
        more: json!({
            "liars": count, "lies_a_question_at_first": lies.first(),
            "lies_a_question_later": later / (lies.len() - half) as f64,
            "best_result_a_lie": f64::from(best as u32) / f64::from(answered.max(1)),
        }),
    });
}

/// A node sends its neighbours hits for queries that nobody made, and, in the name of others, for one
/// that it saw.
pub(super) fn forge_ways(options: &Pollution, seed: u64, cases: &mut Cases) {
    let (mut net, graph, _, mut rng) = network(options, seed);
    let liar = 0;
    let neighbours = graph.0[liar as usize].clone();
    let before = unasked(&net);
    net.loads = Some(vec![0; options.members as usize]);
    let mut sent = 0;
    for n in 0..FORGED {
        let guid = Guid::random(&mut rng);
        for to in &neighbours {
            let mut bodies = Vec::new();
            let answerer = Answerer {
                addr: SocketAddrV4::new([44, 9, 9, 9].into(), 6346),
                speed: 1000,
                vendor: *b"LIAR",
                status: Status::default(),
                proxies: Vec::new(),
                browsable: false,
                tls: false,
                overlay: None,
                servent: Guid::random(&mut rng),
            };
            let file = SharedFile {
                index: n,
                size: 4_000_000,
                name: format!("song{n:07} of the liar.mp3"),
                sha1: None,
                tiger: None,
            };
            answerer.write(&[file], |body| bodies.push(body.to_vec()));
            for body in bodies {
                let packet = Packet::ours(Kind::Hit, guid, 7, &body);
                sent += u64::from(net.inject(liar, *to, &packet));
            }
        }
        net.run(Duration::from_millis(20));
    }
    net.run(Duration::from_secs(5));
    let dropped = unasked(&net) - before;
    let loads = net.loads.take().unwrap_or_default();
    let beyond = (0..).zip(loads).filter(|(n, _)| !neighbours.contains(n));
    let passed: u64 = beyond.map(|(_, load)| load).sum();
    let links = net.world.node(liar).core.stats().ultrapeers;
    let counts = net.world.counts();
    cases.ran(counts, net.world.digest());
    cases.all.push(Case {
        attack: "hits for what nobody asked".to_owned(),
        what: "passed on by anybody",
        without: None,
        with: passed as f64 / sent.max(1) as f64,
        at_most: Some(0.0),
        at_least: None,
        more: json!({"sent": sent, "dropped_as_unasked": dropped, "links_left": links}),
    });
}

fn unasked(net: &servent::Net) -> u64 {
    let all = net.world.nodes().iter();
    all.map(|servent| servent.core.stats().unasked).sum()
}

/// A supernode answers every query: with as many hits as go, of its own, or of people it makes up.
pub(super) fn lying_supernodes(options: &Pollution, seed: u64, cases: &mut Cases) {
    let mut shares = Vec::new();
    for (limited, lie) in [
        (true, Lie::Own(100)),
        (false, Lie::Own(100)),
        (true, Lie::Invented),
    ] {
        let mut rng = rng_for(seed, 1 << 40);
        let zipf = Zipf::new(CONTENTS);
        let libraries: Vec<Library> = (0..options.members)
            .map(|_| Library::draw(FILES, &zipf, &mut rng))
            .collect();
        let supernodes = (options.members / 41).max(5);
        let mut net = hierarchy::Net::new(seed, supernodes, libraries, |config| {
            config.max_children = 80;
            if !limited {
                config.max_of_sharer = config.max_results;
            }
        });
        net.assemble(Duration::from_secs(20), Duration::from_secs(30));
        net.corrupt(1, lie);
        let (mut lies, mut hits) = (0, 0);
        for _ in 0..options.questions {
            let node = supernodes + 1 + rng.below((options.members - supernodes) as usize) as u32;
            // Not of its own children, who have nobody else to ask.
            if net.supernode_of(node) == Some(1) {
                continue;
            }
            let content = zipf.draw(&mut rng);
            let id = net.ask(node, content);
            net.run(Duration::from_millis(800));
            let got = id.map(|id| net.take(id).1).unwrap_or_default();
            hits += got.len();
            lies += got.iter().filter(|h| h.file.sha1 != sha1(content)).count();
        }
        cases.ran(net.world.counts(), net.world.digest());
        let banned: u64 = (2..=supernodes).map(|n| net.stats(n).forged).sum();
        shares.push((lies as f64 / hits.max(1) as f64, banned));
    }
    let [own, unlimited, invented] = [shares[0], shares[1], shares[2]];
    cases.all.push(Case {
        attack: "a supernode that answers everything itself".to_owned(),
        what: "its lies among all hits: no limit for a sharer, and 20",
        without: Some(unlimited.0),
        with: own.0,
        at_most: None,
        at_least: None,
        more: json!({}),
    });
    cases.all.push(Case {
        attack: "a supernode that answers for people it makes up".to_owned(),
        what: "its lies among all hits",
        without: None,
        with: invented.0,
        at_most: Some(0.0),
        at_least: None,
        more: json!({"dropped_as_forged": invented.1}),
    });
}
