//! KRPC: arbitrary bytes go through the codec, and come as datagrams from a few addresses to a live
//! Mainline node with operations under way, as time passes. Nothing panics, nothing that is sent
//! exceeds a datagram or is unreadable, and no answer is much larger than its question.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_base::{Rng, Time};
use shoal_dht::mainline::krpc::{self, Body};
use shoal_dht::mainline::{Config, Mainline};
use shoal_dht::{Dht, Id, Item, Output, Request};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

fn peer(n: u8) -> SocketAddr {
    match n % 4 {
        0 => ([127, 0, 0, 1], 7000).into(),
        3 => "[2001:db8::1]:7000".parse().expect("an address"),
        n => ([40, n, 1, 1], 7000).into(),
    }
}

/// Takes out what the node sends; its queries' transaction ids are kept for answers to use.
fn settle(out: &mut Vec<Output>, tids: &mut VecDeque<(SocketAddr, Vec<u8>)>) -> usize {
    let mut longest = 0;
    for output in out.drain(..) {
        let Output::Send { to, bytes } = output else {
            continue;
        };
        assert!(bytes.len() <= krpc::MAX_SENT);
        let message = krpc::read(&bytes).expect("what we send is readable");
        if matches!(message.body, Body::Query(_)) {
            tids.push_back((to, message.tid.to_vec()));
            tids.truncate(64);
        } else {
            longest = longest.max(bytes.len());
        }
    }
    longest
}

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = krpc::read(data)
        && let Body::Query(query) = &message.body
    {
        let again = krpc::query(message.tid, query);
        let back = krpc::read(&again).expect("our own query is readable");
        assert_eq!(back.body, message.body);
    }
    let Some((flags, mut rest)) = data.split_first() else {
        return;
    };
    let config = Config {
        v6: flags & 1 != 0,
        read_only: flags & 2 != 0,
        bootstrap: (0..4).map(peer).collect(),
        ..Config::default()
    };
    let mut now = Time::from_secs(1);
    let mut node = Mainline::new(now, config, None, Rng::from_seed(7));
    let (mut out, mut tids) = (Vec::new(), VecDeque::new());
    node.on_tick(now, &mut out);
    let key = [3; 32];
    for request in [
        Request::Peers { key: Id([1; 20]) },
        Request::GetMutable { key, salt: Vec::new(), newer_than: None },
        Request::Subscribe { key, salt: b"s".to_vec() },
        Request::Announce { key: Id([2; 20]), port: None, seed: true, keep: true },
        Request::Put {
            item: Item::immutable(b"i1e".to_vec()).expect("canonical"),
            cas: None,
            keep: true,
        },
    ] {
        node.request(now, request, &mut out);
    }
    node.sample(now, Id([4; 20]), &mut out);
    settle(&mut out, &mut tids);
    // Each step: who, how much time, what kind, how long; then the bytes.
    while let Some((&[who, wait, kind, len], after)) = rest.split_first_chunk::<4>() {
        let (body, after) = after.split_at(usize::from(len).min(after.len()));
        rest = after;
        now += Duration::from_millis(u64::from(wait) * u64::from(wait));
        let (from, datagram) = match kind % 3 {
            // As it is.
            0 => (peer(who), body.to_vec()),
            // An answer to something the node asked.
            1 => {
                let Some((to, tid)) = tids.pop_front() else {
                    continue;
                };
                let head = [&b"d1:rd2:id20:"[..], &[who; 20], body, b"e1:t"].concat();
                let tid = [format!("{}:", tid.len()).as_bytes(), &tid].concat();
                (to, [&head[..], &tid, b"1:y1:re"].concat())
            }
            // A question with these arguments.
            _ => {
                let methods = [
                    "ping", "find_node", "get_peers", "announce_peer", "get", "put",
                    "sample_infohashes",
                ];
                let method = methods[usize::from(kind / 3) % methods.len()];
                let head = [&b"d1:ad2:id20:"[..], &[who; 20], body, b"e1:q"].concat();
                let tail = format!("{}:{method}1:t2:aa1:y1:qe", method.len());
                (peer(who), [&head[..], tail.as_bytes()].concat())
            }
        };
        node.on_datagram(now, from, &datagram, &mut out);
        let answer = settle(&mut out, &mut tids);
        // A node holds no value here that would be let exceed it; a refusal has its own words.
        assert!(answer <= (8 * datagram.len()).max(200), "{answer} bytes for {}", datagram.len());
        if node.deadline().is_some_and(|due| due <= now) {
            node.on_tick(now, &mut out);
            settle(&mut out, &mut tids);
        }
        assert!(node.status().memory < 1_000_000);
    }
});
