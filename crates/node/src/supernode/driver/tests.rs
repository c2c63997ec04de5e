//! An overlay on loopback: found, killed, at home elsewhere; tokens that do not hold.

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_supernode::list::ListConfig;
use shoal_supernode::login::LoginConfig;

use super::*;
use crate::supernode::{AskError, Desk, DeskSettings, Logins, claim, supernodes, this_machine};

/// Nothing here takes this long, even on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn desk(names: Option<std::path::PathBuf>, by: u8) -> Desk {
    Desk::start(DeskSettings {
        listen: loopback(),
        logins: Logins::Here {
            key: Box::new(key(by)),
            names,
            config: LoginConfig {
                unlimited: this_machine(),
                ..LoginConfig::default()
            },
        },
        list: Some(ListConfig {
            unlimited: this_machine(),
            ..ListConfig::default()
        }),
        seed: 1,
    })
    .expect("started")
}

fn node_with(desk: &Desk, n: u8, role: Role, token: Token) -> NodeDriver {
    let config = Config {
        may_change: false,
        neighbours: 2,
        ..Config::new(desk.key(), role)
    };
    let listener = TcpListener::bind(loopback()).expect("a port");
    let at = listener.local_addr().expect("bound");
    NodeDriver::start(NodeSettings {
        place: Place::Reached(listener, at),
        serves: false,
        others: None,
        boxes: None,
        key: key(n),
        token,
        list: desk.addr(),
        config,
        files: vec![File {
            path: format!("of/song number{n}.mp3"),
            size: 5,
            sha1: [n; 20],
            tiger: Some([n; 24]),
            sound: None,
        }],
        seed: n.into(),
    })
    .expect("started")
}

fn node(desk: &Desk, n: u8, role: Role) -> NodeDriver {
    let granted = claim(desk.addr(), &format!("n{n}"), &key(n)).expect("granted");
    node_with(desk, n, role, granted.token)
}

fn home(node: &NodeDriver) -> Option<SocketAddr> {
    node.look().expect("runs").home
}

/// Looks until it holds. Nodes say when their home changes, but not what others hear of it.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "not in time: {what}");
        // Real sockets and threads: what they come to can only be looked at.
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether the file of `n` is found within two seconds, at the address of `at`.
fn finds(from: &NodeDriver, n: u8, at: &NodeDriver) -> bool {
    let Some(id) = from.search(&format!("song number{n}")) else {
        return false;
    };
    let end = Instant::now() + Duration::from_secs(2);
    while let Ok(event) = from.events.recv_deadline(end) {
        if let Event::Hits(of, hits) = event
            && of == id
        {
            return hits.iter().any(|h| h.sharer.links == at.addr());
        }
    }
    false
}

#[test]
fn peers_are_found_from_everywhere_also_after_their_supernode_was_killed() {
    let desk = desk(None, 200);
    let mut supers: Vec<_> = (1..=3).map(|n| node(&desk, n, Role::Supernode)).collect();
    until("supernodes are linked", || {
        supers
            .iter()
            .all(|s| s.look().expect("runs").stats.neighbours > 0)
    });
    let peers: Vec<_> = (10..22).map(|n| (n, node(&desk, n, Role::Peer))).collect();
    until("all are at home", || {
        peers.iter().all(|(_, p)| home(p).is_some())
    });
    let asker = &peers[0].1;
    for (n, peer) in &peers[1..] {
        until("found", || finds(asker, *n, peer));
    }
    let homes: BTreeSet<_> = peers.iter().filter_map(|(_, p)| home(p)).collect();
    let dead = supers
        .iter()
        .position(|s| homes.contains(&s.addr()))
        .expect("somebody's home");
    let dead = supers.remove(dead).addr();
    let start = Instant::now();
    until("all are at home elsewhere", || {
        peers
            .iter()
            .all(|(_, p)| home(p).is_some_and(|h| h != dead))
    });
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    for (n, peer) in &peers[1..] {
        until("found again", || finds(asker, *n, peer));
    }
}

#[test]
fn names_outlive_the_server_and_tokens_that_do_not_hold_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let names = dir.path().join("names");
    let first = desk(Some(names.clone()), 200);
    let granted = claim(first.addr(), "alice", &key(1)).expect("granted");
    let token = granted.token;
    assert_eq!((granted.by, granted.own), (first.key(), loopback().ip()));
    drop(first);
    let again = desk(Some(names.clone()), 200);
    let thief = claim(again.addr(), "Alice", &key(2)).expect_err("hers");
    assert!(matches!(
        thief,
        AskError::Refused(shoal_supernode::wire::Refusal::Taken)
    ));
    claim(again.addr(), "alice", &key(1)).expect("still hers");
    std::fs::write(&names, "no key\n").expect("written");
    drop(again);
    let damaged = Desk::start(DeskSettings {
        listen: loopback(),
        logins: Logins::Here {
            key: Box::new(key(200)),
            names: Some(names),
            config: LoginConfig::default(),
        },
        list: None,
        seed: 1,
    });
    assert!(damaged.is_err(), "line 1 is no name");
    let other = desk(None, 201);
    let supernode = node(&other, 9, Role::Supernode);
    let old = Token::issue(&key(201), "bob", key(2).verifying_key().to_bytes(), 1000);
    until("it is on the list", || {
        supernodes(other.addr()).is_ok_and(|e| !e.is_empty())
    });
    for (n, token, why) in [(1, token, "login server"), (2, old, "expired")] {
        let refused = node_with(&other, n, Role::Peer, token);
        let told = loop {
            let event = refused.events.recv_timeout(LONG).expect("told");
            if let Event::Refused(addr, told) = event {
                break (addr, told.to_string());
            }
        };
        assert_eq!(told.0, supernode.addr());
        assert!(told.1.contains(why), "{told:?}");
    }
}
