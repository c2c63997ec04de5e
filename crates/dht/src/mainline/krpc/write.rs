//! Writing datagrams.

use super::{Call, Query, Reply};
use crate::mainline::node::{NODE4, NODE6, write_addr};
use shoal_base::bencode::Encoder;
use std::net::SocketAddr;

/// Names this client in each message: two letters and a version, as BEP 5 has it.
const VERSION: &[u8] = b"SH\x00\x01";

/// A query under transaction id `tid`.
pub fn query(tid: &[u8], query: &Query<'_>) -> Vec<u8> {
    let mut e = Encoder::new();
    e.dict(|e| {
        e.key("a").dict(|e| arguments(e, query));
        e.key("q").bytes(match query.call {
            Call::Ping => "ping",
            Call::FindNode { .. } => "find_node",
            Call::GetPeers { .. } => "get_peers",
            Call::Announce { .. } => "announce_peer",
            Call::Get { .. } => "get",
            Call::Put(_) => "put",
            Call::Sample { .. } => "sample_infohashes",
        });
        if query.read_only {
            e.key("ro").int(1);
        }
        e.key("t").bytes(tid);
        e.key("v").bytes(VERSION);
        e.key("y").bytes("q");
    });
    e.into_bytes()
}

fn arguments(e: &mut Encoder, query: &Query<'_>) {
    if let Call::Put(put) = &query.call
        && let Some(cas) = put.cas
    {
        e.key("cas").int(cas);
    }
    e.key("id").bytes(query.id.0);
    match &query.call {
        Call::Ping => {}
        Call::FindNode { target } | Call::Sample { target } => e.key("target").bytes(target.0),
        Call::GetPeers {
            info_hash,
            noseed,
            scrape,
        } => {
            e.key("info_hash").bytes(info_hash.0);
            if *noseed {
                e.key("noseed").int(1);
            }
            if *scrape {
                e.key("scrape").int(1);
            }
        }
        Call::Announce {
            info_hash,
            port,
            seed,
            token,
        } => {
            if port.is_none() {
                e.key("implied_port").int(1);
            }
            e.key("info_hash").bytes(info_hash.0);
            // The BEP wants a port beside implied_port too.
            e.key("port").int(port.unwrap_or(1).into());
            if *seed {
                e.key("seed").int(1);
            }
            e.key("token").bytes(token);
        }
        Call::Get { target, seq } => {
            if let Some(seq) = seq {
                e.key("seq").int(*seq);
            }
            e.key("target").bytes(target.0);
        }
        Call::Put(put) => {
            if let Some(signed) = &put.signed {
                e.key("k").bytes(signed.key);
                if !signed.salt.is_empty() {
                    e.key("salt").bytes(signed.salt);
                }
                e.key("seq").int(signed.seq);
                e.key("sig").bytes(signed.signature);
            }
            if let Some(target) = put.target {
                e.key("target").bytes(target.0);
            }
            e.key("token").bytes(put.token);
            e.key("v").raw(&put.value);
        }
    }
    if query.want.v4 || query.want.v6 {
        e.key("want").list(|e| {
            if query.want.v4 {
                e.bytes("n4");
            }
            if query.want.v6 {
                e.bytes("n6");
            }
        });
    }
}

/// An answer to a query with transaction id `tid` from `to`, of at most `budget` bytes if leaving
/// out peers, then keys, then nodes makes it so.
pub fn response(tid: &[u8], to: &SocketAddr, mut reply: Reply<'_>, budget: usize) -> Vec<u8> {
    loop {
        let bytes = write_response(tid, to, &reply);
        let Some(over) = bytes.len().checked_sub(budget).filter(|over| *over > 0) else {
            return bytes;
        };
        let keys = reply.samples.as_mut().map(|s| &mut s.keys);
        let listed = if !reply.values.is_empty() {
            shorten(&mut reply.values, over, 8)
        } else if let Some(keys) = keys.filter(|keys| !keys.is_empty()) {
            shorten(keys, over, 20)
        } else {
            let size = if reply.nodes.last().is_some_and(|n| n.addr.is_ipv6()) {
                NODE6
            } else {
                NODE4
            };
            shorten(&mut reply.nodes, over, size)
        };
        if !listed {
            return bytes;
        }
    }
}

/// Leaves out as many entries of `size` bytes as `over` bytes need; whether any was there.
fn shorten<T>(list: &mut Vec<T>, over: usize, size: usize) -> bool {
    let before = list.len();
    list.truncate(before.saturating_sub(over.div_ceil(size)));
    before > 0
}

fn write_response(tid: &[u8], to: &SocketAddr, reply: &Reply<'_>) -> Vec<u8> {
    let mut ip = Vec::with_capacity(18);
    write_addr(to, &mut ip);
    let mut e = Encoder::new();
    e.dict(|e| {
        e.key("ip").bytes(&ip);
        e.key("r").dict(|e| results(e, reply));
        e.key("t").bytes(tid);
        e.key("v").bytes(VERSION);
        e.key("y").bytes("r");
    });
    e.into_bytes()
}

fn results(e: &mut Encoder, reply: &Reply<'_>) {
    if let Some((seeds, peers)) = &reply.filters {
        e.key("BFpe").bytes(&peers.0[..]);
        e.key("BFsd").bytes(&seeds.0[..]);
    }
    e.key("id").bytes(reply.id.0);
    if let Some(samples) = &reply.samples {
        e.key("interval").int(samples.interval.into());
    }
    if let Some(key) = &reply.key {
        e.key("k").bytes(key);
    }
    for (key, v6) in [("nodes", false), ("nodes6", true)] {
        let mut compact = Vec::new();
        for node in reply.nodes.iter().filter(|n| n.addr.is_ipv6() == v6) {
            compact.extend_from_slice(&node.id.0);
            write_addr(&node.addr, &mut compact);
        }
        if !compact.is_empty() {
            e.key(key).bytes(&compact);
        }
    }
    if let Some(samples) = &reply.samples {
        e.key("num").int(samples.num.into());
        let keys: Vec<u8> = samples.keys.iter().flat_map(|key| key.0).collect();
        e.key("samples").bytes(keys);
    }
    if let Some(seq) = reply.seq {
        e.key("seq").int(seq);
    }
    if let Some(signature) = &reply.signature {
        e.key("sig").bytes(signature);
    }
    if let Some(token) = reply.token {
        e.key("token").bytes(token);
    }
    if let Some(value) = &reply.value {
        e.key("v").raw(value);
    }
    if !reply.values.is_empty() {
        e.key("values").list(|e| {
            let mut compact = Vec::with_capacity(18);
            for peer in &reply.values {
                compact.clear();
                write_addr(peer, &mut compact);
                e.bytes(&compact);
            }
        });
    }
}

/// A refusal of the query with transaction id `tid` from `to`.
pub fn error(tid: &[u8], to: &SocketAddr, code: i64, text: &str) -> Vec<u8> {
    let mut ip = Vec::with_capacity(18);
    write_addr(to, &mut ip);
    let mut e = Encoder::new();
    e.dict(|e| {
        e.key("e").list(|e| {
            e.int(code);
            e.bytes(text);
        });
        e.key("ip").bytes(&ip);
        e.key("t").bytes(tid);
        e.key("v").bytes(VERSION);
        e.key("y").bytes("e");
    });
    e.into_bytes()
}
