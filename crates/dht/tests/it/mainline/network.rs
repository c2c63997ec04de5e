//! A hundred nodes on loopback: what is found, and what it costs.

use super::world::{World, loopback};
use shoal_dht::{Answer, Id, Item, Request};
use std::time::Duration;

fn mean(counts: &[u64]) -> f64 {
    counts.iter().sum::<u64>() as f64 / counts.len() as f64
}

fn value(n: usize) -> Item {
    let text = format!("value {n}");
    Item::immutable(format!("{}:{text}", text.len()).into_bytes()).unwrap()
}

/// The goals are the figures of libtorrent's nodes: 25 datagrams for peers, 12 for an immutable
/// item, 42 for a put at eight nodes.
#[test]
#[expect(clippy::print_stdout, reason = "the figures are for whoever runs this")]
fn a_hundred_nodes_find_everything_at_little_cost() {
    let mut world = World::loopback(11, 100);
    let start = world.sent;
    world.run(Duration::from_secs(600));
    let idle = (world.sent - start).datagrams as f64 / 600.0 / 100.0;
    let (mut puts, mut gets, mut announces, mut finds) = (vec![], vec![], vec![], vec![]);
    for n in 0..30 {
        let (writer, reader, item) = (world.any(), world.any(), value(n));
        let before = world.sent;
        let put = Request::Put {
            item: item.clone(),
            cas: None,
            keep: false,
        };
        let (_, done) = world.ask(writer, put);
        assert_eq!(done.expect("it is stored").stored, 8);
        puts.push((world.sent - before).datagrams);
        let before = world.sent;
        let (told, done) = world.ask(
            reader,
            Request::GetImmutable {
                target: item.target(),
            },
        );
        assert_eq!(told, [Answer::Value(item)]);
        done.expect("it is found");
        gets.push((world.sent - before).datagrams);
        let key = Id::hash(&[n as u8]);
        let before = world.sent;
        let announce = Request::Announce {
            key,
            port: Some(7000 + n as u16),
            seed: n % 2 == 0,
            keep: false,
        };
        let (_, done) = world.ask(writer, announce);
        assert_eq!(done.expect("it is announced").stored, 8);
        announces.push((world.sent - before).datagrams);
        let before = world.sent;
        let (told, done) = world.ask(reader, Request::Peers { key });
        done.expect("peers are found");
        finds.push((world.sent - before).datagrams);
        let peer = ([127, 0, 0, 1], 7000 + n as u16).into();
        assert!(told.contains(&Answer::Peers(vec![peer])), "{told:?}");
    }
    let (mut hit, mut all) = (0, 0);
    for n in 0..40u8 {
        let target = Id::hash(&[n, 1]);
        let start = world.any();
        let found = world.neutral_lookup(loopback(9999), start, target);
        let truth = world.truth(&target);
        hit += truth.iter().take(8).filter(|n| found.contains(n)).count();
        all += 8;
    }
    let recall = hit as f64 / all as f64;
    let (put, get, announce, find) = (mean(&puts), mean(&gets), mean(&announces), mean(&finds));
    let memory = world
        .nodes
        .values()
        .map(|n| n.status().memory)
        .max()
        .unwrap_or(0);
    println!(
        "idle {idle:.3}/s, put {put:.1}, get {get:.1}, announce {announce:.1}, peers {find:.1} datagrams, recall {recall:.3}, {memory} bytes"
    );
    assert!(put <= 45.0 && get <= 15.0 && announce <= 45.0 && find <= 30.0);
    assert!(recall >= 0.97);
    assert!(idle <= 0.5);
    assert!(memory <= 1_000_000);
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|l| l.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.expect("a number") * 1024
}

/// To be run alone, since it measures the whole process.
#[test]
#[ignore = "takes a minute and must run alone"]
#[expect(clippy::print_stdout, reason = "the figure is for whoever runs this")]
fn a_node_takes_little_memory() {
    let before = resident();
    let mut world = World::loopback(12, 200);
    for n in 0..400 {
        let writer = world.any();
        let (item, keep) = (value(n), false);
        let put = Request::Put {
            item,
            cas: None,
            keep,
        };
        world.ask(writer, put).1.expect("it is stored");
        let announce = Request::Announce {
            key: Id::hash(&n.to_be_bytes()),
            port: Some(7000),
            seed: false,
            keep,
        };
        world.ask(writer, announce).1.expect("it is announced");
    }
    let each = (resident() - before) / 200;
    println!("{each} resident bytes a node");
    assert!(each <= 1_000_000);
}
