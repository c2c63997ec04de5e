//! Letters between nodes, with real processes: carried to where their recipient is, and flooded by nobody.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::LONG;
use crate::supernode::{Node, Overlay};

const ANY: &str = "127.0.0.1:0";

/// What a supernode says of itself next.
fn stats(node: &mut Node) -> Value {
    node.run.event("supernode_stats")
}

/// What it says last: it says so each second.
fn newest(node: &mut Node) -> Value {
    let until = Instant::now() + Duration::from_millis(1500);
    let mut last = Value::Null;
    while let Some(event) = node.run.next_until(until) {
        if event["event"] == "supernode_stats" {
            last = event;
        }
    }
    assert!(last.is_object(), "{} says nothing", node.name);
    last
}

#[test]
fn letters_between_children_of_two_supernodes_are_flooded_by_none() {
    let overlay = Overlay::new();
    let flags = [
        "--supernode",
        "--keep-role",
        "--neighbours",
        "1",
        "--max-children",
        "1",
    ];
    let one = |n| overlay.node_with(&format!("super{n}"), &flags);
    let mut supers: Vec<Node> = (0..7).map(one).collect();
    // The ring is one when what each says of itself is kept by others.
    let begun = Instant::now();
    loop {
        let kept: Vec<u64> = supers
            .iter_mut()
            .map(|node| stats(node)["records"].as_u64().expect("a number"))
            .collect();
        if kept.iter().sum::<u64>() >= 4 * 7 {
            break;
        }
        assert!(begun.elapsed() < LONG, "{kept:?}");
    }
    let own = |state| ["--login", &overlay.at, "--udp", ANY, "--state-dir", state];
    let service = TcpListener::bind(ANY).expect("a port");
    let to = service.local_addr().expect("bound").to_string();
    let listen = ["pipe", "--listen", "--to", &to];
    let mut listener = overlay
        .world
        .start(&[&listen[..], &own("listener")].concat());
    let node = listener.event("reachable")["node"].clone();
    let node = node.as_str().expect("a key");
    let caller = ["pipe", node, "--forward", ANY];
    let mut caller = overlay.world.start(&[&caller[..], &own("caller")].concat());
    let at = caller.addr();
    let mut stream = TcpStream::connect(at).expect("it listens");
    stream.write_all(b"are you there?").expect("written");
    let (mut there, _) = service.accept().expect("a connection");
    there.set_read_timeout(Some(LONG)).expect("a timeout");
    let mut came = [0; 14];
    there.read_exact(&mut came).expect("what was written");
    assert_eq!(&came, b"are you there?");
    let told: Vec<Value> = supers.iter_mut().map(newest).collect();
    let sum = |what: &str| -> u64 {
        let all = told.iter().map(|v| v[what].as_u64().expect("a number"));
        all.sum()
    };
    assert!(sum("carried") > 0, "{told:#?}");
    assert_eq!(sum("flooded"), 0, "{told:#?}");
    // Two supernodes at most have any part in it.
    let carriers = told.iter().filter(|v| v["carried"] != 0).count();
    assert!(carriers <= 2, "{told:#?}");
}
