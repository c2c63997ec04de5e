//! Gnutella's messages: a stream of them goes to nodes of every mode, with queries of their own
//! under way, as time passes. Nothing panics, what they send is readable, and no queue grows.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_base::{Rng, Time};
use shoal_gnutella::guid::Guid;
use shoal_gnutella::handshake::Version;
use shoal_gnutella::huge::Urn;
use shoal_gnutella::message::hit::Hit;
use shoal_gnutella::message::query::Wanted;
use shoal_gnutella::message::{Header, Kind, Packet, Reader};
use shoal_gnutella::node::{Config, Effect, Mode, Node};
use shoal_gnutella::shared::Nothing;
use std::net::SocketAddrV4;
use std::time::Duration;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, stream)) = data.split_first() else {
        return;
    };
    let mode = [Mode::Ultrapeer, Mode::Leaf, Mode::Flood][usize::from(choice % 3)];
    let addr = |n: u8| SocketAddrV4::new([44, 20, n, 1].into(), 6346);
    let config = Config {
        listen: Some(addr(1)),
        ..Config::of(mode)
    };
    let mut now = Time::from_secs(1);
    let mut node = Node::new(now, config, Nothing, Rng::from_seed(7));
    let mut out = Vec::new();
    let mut ids = Vec::new();
    for (n, other) in [Mode::Ultrapeer, Mode::Leaf, Mode::Ultrapeer].into_iter().enumerate() {
        let theirs = Node::new(now, Config::of(other), Nothing, Rng::from_seed(n as u64));
        let greeting = theirs.greeting(None);
        if let Ok(relation) = node.judge(&greeting, Version::V06) {
            ids.push(node.open(now, &greeting, relation, addr(n as u8 + 2), &mut out));
        }
    }
    let ours = node.search(now, "words", Wanted::default(), &mut out);
    let urns = vec![Urn::Sha1([1; 20])];
    node.search(now, "", Wanted { urns, media: 0 }, &mut out);
    // Each step: who, how much time, what, TTL and hops, and how long; then the payload.
    let mut rest = stream;
    while let Some((&[who, wait, kind, way, len], after)) = rest.split_first_chunk::<5>() {
        let (payload, after) = after.split_at(usize::from(len).min(after.len()));
        rest = after;
        now += Duration::from_millis(u64::from(wait) * u64::from(wait));
        let kinds = [0, 1, 2, 0x30, 0x31, 0x32, 0x40, 0x80, 0x81, 0x7f];
        let guid = if way & 0x80 == 0 { ours } else { Guid([who; 16]) };
        let header = Header {
            guid,
            kind: kinds[usize::from(kind) % kinds.len()],
            ttl: way & 7,
            hops: way >> 3 & 7,
            len: payload.len(),
        };
        let Some(id) = ids.get(usize::from(who) % ids.len().max(1)).copied() else {
            return;
        };
        node.on_message(now, id, header, payload, &mut out);
        node.on_datagram(now, addr(9), Packet::new(header, payload).bytes(), &mut out);
        if node.deadline() <= now {
            node.on_tick(now, &mut out);
        }
        for effect in out.drain(..) {
            if let Effect::Close(id) = effect {
                while let Some(packet) = node.pop(id) {
                    check(&packet);
                }
                node.on_closed(now, id);
            }
        }
        for id in &ids {
            assert!(node.waiting(*id) <= 256 << 10);
            if kind & 0x80 == 0 {
                while let Some(packet) = node.pop(*id) {
                    check(&packet);
                }
            }
        }
    }
    let _ = Hit::read(stream);
    let mut reader = Reader::default();
    reader.push(stream);
    while let Ok(Some((header, payload))) = reader.message() {
        assert_eq!(header.len, payload.len());
    }
});

fn check(packet: &Packet) {
    let mut reader = Reader::default();
    reader.push(packet.bytes());
    let (header, _) = reader.message().expect("readable").expect("whole");
    assert!(header.ttl > 0 && header.ttl + header.hops <= 8 || header.known() == Some(Kind::Pong));
}
