//! Answering what others ask.

use super::krpc::{self, Call, Put, Query, Reply, Signed, code};
use super::node::Node;
use super::table::K;
use super::{Mainline, family_of};
use crate::{Id, Item, Mutable, Output};
use shoal_base::Time;
use std::net::SocketAddr;

/// An answer has at most this many times the bytes of its query, so that nobody gains by asking in
/// another's name. Only stored values may exceed it, few a second for each address.
const AMPLIFICATION: usize = 8;
/// Most peers in one answer.
const MAX_PEERS: usize = 100;

impl Mainline {
    /// Whether somebody at `from` may be served another query now.
    pub(super) fn may_ask(&mut self, now: Time, from: &SocketAddr) -> bool {
        if self.config.read_only {
            return false;
        }
        if self.config.exempt.contains(from.ip()) {
            return true;
        }
        let limits = &self.config.limits;
        // The address first: a flood from one must not use up what all share.
        self.per_source.take(now, from.ip())
            && self
                .all_sources
                .take(now, limits.queries, limits.queries * 2.0)
    }

    pub(super) fn refuse(
        &self,
        tid: &[u8],
        from: SocketAddr,
        (code, text): (i64, &str),
        out: &mut Vec<Output>,
    ) {
        let bytes = krpc::error(tid, &from, code, text);
        out.push(Output::Send { to: from, bytes });
    }

    pub(super) fn on_query(
        &mut self,
        now: Time,
        from: SocketAddr,
        tid: &[u8],
        query: Query<'_>,
        size: usize,
        out: &mut Vec<Output>,
    ) {
        let Some(family) = self.families.get_mut(family_of(&from)) else {
            return;
        };
        let Some(family) = family else { return };
        let own = family.table.own();
        let node = Node {
            id: query.id,
            addr: from,
        };
        if !query.read_only && query.id != own {
            family.table.heard(now, &node);
            self.upkeep_consider(now, &node);
        }
        let mut reply = Reply {
            id: own,
            ..Reply::default()
        };
        let mut budget = (size * AMPLIFICATION).min(krpc::MAX_SENT);
        let token = self.tokens.issue(now, from.ip(), &mut self.rng);
        let v6 = from.is_ipv6();
        match query.call {
            Call::Ping => {}
            Call::FindNode { target } => reply.nodes = self.near(&target, &query, v6),
            Call::GetPeers {
                info_hash,
                noseed,
                scrape,
            } => {
                reply.nodes = self.near(&info_hash, &query, v6);
                reply.token = Some(&token);
                let rng = &mut self.rng;
                reply.values = self.peers.get(&info_hash, v6, noseed, MAX_PEERS, rng);
                if scrape {
                    reply.filters = self.peers.filters(&info_hash);
                }
            }
            Call::Sample { target } => {
                reply.nodes = self.near(&target, &query, v6);
                reply.samples = Some(self.peers.sample(now, &mut self.rng));
            }
            Call::Get { target, seq } => {
                reply.nodes = self.near(&target, &query, v6);
                reply.token = Some(&token);
                if let Some(item) = self.items.get(&target) {
                    reply.seq = item.seq();
                    if seq.is_none_or(|seq| item.seq().is_none_or(|stored| stored > seq)) {
                        fill(&mut reply, item);
                        let needed = item.value().len() + 300;
                        if needed > budget && self.may_exceed(now, &from) {
                            budget = krpc::MAX_SENT;
                        } else if needed > budget {
                            (reply.value, reply.key, reply.signature) = (None, None, None);
                        }
                    }
                }
            }
            Call::Announce {
                info_hash,
                port,
                seed,
                token,
            } => {
                if !self.tokens.check(now, from.ip(), token, &mut self.rng) {
                    return self.refuse(tid, from, (code::PROTOCOL, "Bad Token"), out);
                }
                let peer = SocketAddr::new(from.ip(), port.unwrap_or(from.port()));
                let exempt = self.config.exempt.contains(from.ip());
                let rng = &mut self.rng;
                self.peers.announce(now, info_hash, peer, seed, exempt, rng);
            }
            Call::Put(put) => {
                if !self.tokens.check(now, from.ip(), put.token, &mut self.rng) {
                    return self.refuse(tid, from, (code::PROTOCOL, "Bad Token"), out);
                }
                let cas = put.cas;
                let item = item(*put);
                let target = item.target();
                let rng = &mut self.rng;
                if let Err(refusal) = self.items.put(now, from.ip(), item, cas, rng) {
                    return self.refuse(tid, from, refusal, out);
                }
                self.tell_subscribers(&target, out);
            }
        }
        let bytes = krpc::response(tid, &from, reply, budget);
        out.push(Output::Send { to: from, bytes });
    }

    /// Whether an answer to `from` may be larger than its query allows.
    fn may_exceed(&mut self, now: Time, from: &SocketAddr) -> bool {
        self.config.exempt.contains(from.ip()) || self.large_answers.take(now, from.ip())
    }

    /// The contacts nearest to `target`, of the families wanted.
    fn near(&self, target: &Id, query: &Query<'_>, v6: bool) -> Vec<Node> {
        let want = query.want;
        let any = want.v4 || want.v6;
        let wanted = [want.v4 || !any && !v6, want.v6 || !any && v6];
        let mut nodes = Vec::new();
        for (family, _) in self.families.iter().zip(wanted).filter(|(_, w)| *w) {
            if let Some(family) = family {
                nodes.extend(family.table.closest(target, K));
            }
        }
        nodes
    }
}

fn item(put: Put<'_>) -> Item {
    match put.signed {
        None => Item::Immutable(put.value),
        Some(Signed {
            key,
            salt,
            seq,
            signature,
        }) => Item::Mutable(Box::new(Mutable {
            key,
            salt: salt.to_vec(),
            seq,
            value: put.value,
            signature,
        })),
    }
}

fn fill(reply: &mut Reply<'_>, item: &Item) {
    reply.value = Some(item.value().to_vec());
    if let Item::Mutable(item) = item {
        reply.key = Some(item.key);
        reply.signature = Some(item.signature);
    }
}
