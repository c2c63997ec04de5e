//! After the lookup: storing at the nearest nodes, or counting there.

use super::super::Mainline;
use super::super::krpc::{Call, Put, Signed};
use super::super::lookup::Found;
use super::super::table::K;
use super::{Op, Phase, Purpose, Work};
use crate::{Answer, Failure, Id, Item, Output};
use shoal_base::Time;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Storing or counting ends by now at the latest.
const STORE_DEADLINE: Duration = Duration::from_secs(10);
/// Nodes that are asked for filters at the end of a lookup for peers.
const COUNTERS: usize = 3;

impl Mainline {
    /// The nearest nodes are found: what is done there.
    pub(super) fn after(
        &mut self,
        now: Time,
        id: u32,
        mut op: Op,
        near: &[Found],
        out: &mut Vec<Output>,
    ) {
        op.phase = Phase::After;
        op.deadline = now + STORE_DEADLINE;
        op.wake = op.deadline;
        op.waiting = 0;
        let outcome = op.outcome;
        let missing = Err(Failure::NotFound(outcome.answered));
        match &mut op.work {
            Work::Join | Work::Far { .. } | Work::Sample { .. } => {
                return self.finish(now, id, op, Ok(outcome), out);
            }
            Work::GetImmutable { .. } => return self.finish(now, id, op, missing, out),
            Work::GetMutable { found, .. } => {
                let result = if *found { Ok(outcome) } else { missing };
                return self.finish(now, id, op, result, out);
            }
            Work::Subscribe { .. } => return self.subscribed(now, id, op, near, out),
            Work::Peers {
                key,
                scrape,
                holders,
                ..
            } => {
                if !*scrape {
                    let key = *key;
                    holders.sort_by_key(|node| node.id.xor(&key));
                    let ask: Vec<_> = holders.iter().take(COUNTERS).copied().collect();
                    for node in ask {
                        let call = Call::GetPeers {
                            info_hash: key,
                            noseed: false,
                            scrape: true,
                        };
                        let to = (Some(node.id), node.addr);
                        self.ask(now, to, Purpose::After(id), call, out);
                        op.waiting += 1;
                    }
                }
            }
            Work::Announce {
                key, port, seed, ..
            } => {
                let (info_hash, port, seed) = (*key, *port, *seed);
                for found in near.iter().filter(|f| !f.token.is_empty()) {
                    let call = Call::Announce {
                        info_hash,
                        port,
                        seed,
                        token: &found.token,
                    };
                    let to = (Some(found.node.id), found.node.addr);
                    self.ask(now, to, Purpose::After(id), call, out);
                    op.waiting += 1;
                }
            }
            Work::Put {
                item, cas, newest, ..
            } => {
                if let (Some(newest), Some(seq)) = (*newest, item.seq()) {
                    if cas.is_some_and(|cas| cas != newest) {
                        return self.finish(now, id, op, Err(Failure::CasMismatch), out);
                    }
                    if newest > seq {
                        let failure = Failure::OlderThan(newest);
                        return self.finish(now, id, op, Err(failure), out);
                    }
                }
                self.store_own(now, item, *cas, near);
                for found in near.iter().filter(|f| !f.token.is_empty()) {
                    let call = Call::Put(Box::new(put(item, *cas, &found.token)));
                    let to = (Some(found.node.id), found.node.addr);
                    self.ask(now, to, Purpose::After(id), call, out);
                    op.waiting += 1;
                }
            }
        }
        op.outcome.queries += op.waiting;
        if op.waiting == 0 {
            self.after_done(now, id, op, out);
        } else {
            self.keep_op(id, op);
        }
    }

    /// A node that is itself among the nearest holds what it stores: others will ask it.
    fn store_own(&mut self, now: Time, item: &Item, cas: Option<i64>, near: &[Found]) {
        let target = item.target();
        let nearer = |own: Id| {
            let nearer = |f: &&Found| f.node.id.xor(&target) < own.xor(&target);
            near.iter().filter(nearer).count() < K
        };
        let own = self
            .families
            .iter()
            .flatten()
            .any(|f| nearer(f.table.own()));
        if own && !self.config.read_only {
            let ip = Ipv4Addr::LOCALHOST.into();
            // Should it be refused, the others will say so too.
            let _refusal = self.items.put(now, ip, item.clone(), cas, &mut self.rng);
        }
    }

    /// All have answered, or it takes too long.
    pub(super) fn after_done(&mut self, now: Time, id: u32, op: Op, out: &mut Vec<Output>) {
        let outcome = op.outcome;
        let result = match &op.work {
            Work::Peers { told, filters, .. } => {
                if let Some((seeds, others)) = filters {
                    let answer = Answer::Scrape {
                        seeds: seeds.count(),
                        leechers: others.count(),
                    };
                    self.tell(id, &op, answer, out);
                }
                if told.is_empty() && filters.is_none() {
                    Err(Failure::NotFound(outcome.answered))
                } else {
                    Ok(outcome)
                }
            }
            _ if outcome.stored == 0 || op.mismatches > outcome.stored => Err(op
                .refusal
                .clone()
                .unwrap_or_else(|| Failure::Refused("no answer, or none gave a token".to_owned()))),
            _ => Ok(outcome),
        };
        if let (Ok(_), Work::Put { item, .. }) = (&result, &op.work) {
            self.tell_subscribers_of(item, out);
        }
        self.finish(now, id, op, result, out);
    }
}

fn put<'a>(item: &'a Item, cas: Option<i64>, token: &'a [u8]) -> Put<'a> {
    Put {
        token,
        value: item.value().to_vec(),
        signed: match item {
            Item::Immutable(_) | Item::Certified(_) => None,
            Item::Mutable(m) => Some(Signed {
                key: m.key,
                salt: &m.salt,
                seq: m.seq,
                signature: m.signature,
            }),
        },
        cas,
        target: Some(item.target()),
    }
}
