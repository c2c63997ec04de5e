//! Lookups of others: told of, or carried on to the next hop.

use super::super::message::{
    Address, Contact, Found, LookupError, Message, Output, Query, Style, Want,
};
use super::super::node::{Node, Standing, Why};
use super::super::ring::RingId;
use super::{ALTERNATIVES, Carried};
use shoal_base::Time;
use smallvec::SmallVec;

/// What to do with a query.
pub(super) enum Choice<I, A> {
    /// This node tells who the owner is.
    Answer(Contact<I, A>),
    /// These are the next hops, the best first; they may be none.
    Hops(SmallVec<[Contact<I, A>; ALTERNATIVES]>, bool),
}

impl<I: RingId, A: Address> Node<I, A> {
    /// A query came in.
    pub(in crate::chord) fn on_query(
        &mut self,
        now: Time,
        from: A,
        mut query: Query<I, A>,
        out: &mut Vec<Output<I, A>>,
    ) {
        if self.standing != Standing::Member {
            let nonce = query.nonce;
            let message = Message::Gone { nonce };
            out.push(Output::Send { to: from, message });
            return;
        }
        if query.lookup.style == Style::Iterative {
            let message = self.guide(&query);
            out.push(Output::Send { to: from, message });
            return;
        }
        if self.full() {
            return;
        }
        let nonce = query.nonce;
        let message = Message::Taken { nonce };
        out.push(Output::Send { to: from, message });
        if let Some(trace) = &mut query.trace {
            trace.push(self.tables.me);
        }
        self.carry(now, query, SmallVec::new(), out);
    }

    /// Answers an iterative query.
    pub(super) fn guide(&self, query: &Query<I, A>) -> Message<I, A> {
        let mut skip = query.skip;
        let choice = self.choose(query, ALTERNATIVES, false, |_| {
            let tried = skip > 0;
            skip = skip.saturating_sub(1);
            tried
        });
        match choice {
            Choice::Answer(owner) => Message::Found {
                number: query.nonce,
                found: Box::new(self.found(query, owner)),
            },
            Choice::Hops(hops, last) => Message::Next {
                nonce: query.nonce,
                hops: hops.into_vec().into(),
                last,
            },
        }
    }

    /// Answers a recursive query or passes it on.
    pub(super) fn carry(
        &mut self,
        now: Time,
        query: Query<I, A>,
        tried: SmallVec<[A; 2]>,
        out: &mut Vec<Output<I, A>>,
    ) {
        let refuse = |c: &Contact<I, A>| tried.contains(&c.addr);
        let mut choice = self.choose(&query, 1, false, refuse);
        if matches!(&choice, Choice::Hops(hops, _) if hops.is_empty()) {
            // Rather one who did not answer lately than nobody.
            choice = self.choose(&query, 1, true, refuse);
        }
        let own = query.origin == self.tables.me.addr;
        match choice {
            Choice::Answer(owner) => {
                let found = Box::new(self.found(&query, owner));
                let number = query.number;
                if own {
                    self.finish(now, number, Ok(found), out);
                } else {
                    let message = Message::Found { number, found };
                    let to = query.origin;
                    out.push(Output::Send { to, message });
                }
            }
            Choice::Hops(hops, last) => {
                let error = match hops.first() {
                    Some(_) if query.hops >= query.limit => LookupError::HopLimit,
                    Some(next) => return self.pass(now, query, next.addr, last, tried, out),
                    None => LookupError::DeadEnd,
                };
                if own {
                    self.finish(now, query.number, Err(error), out);
                }
            }
        }
    }

    pub(super) fn pass(
        &mut self,
        now: Time,
        query: Query<I, A>,
        to: A,
        last: bool,
        tried: SmallVec<[A; 2]>,
        out: &mut Vec<Output<I, A>>,
    ) {
        let carried = Box::new(Carried {
            query,
            to,
            last,
            tried,
        });
        let onward = carried.onward(0);
        let message = |nonce, _: &Why<I, A>| Message::Query(Query { nonce, ..onward });
        self.request(now, to, Why::Carry(carried), message, out);
    }

    /// What to do with a query: by the next hops of the table, at most `most`, without those that
    /// `refuse` knows of and, unless `suspects` may be taken too, those that do not answer.
    pub(super) fn choose(
        &self,
        query: &Query<I, A>,
        most: usize,
        suspects: bool,
        mut refuse: impl FnMut(&Contact<I, A>) -> bool,
    ) -> Choice<I, A> {
        let (tables, key, want) = (&self.tables, query.key, query.lookup.want);
        if tables.alone() || (tables.owns(key) && (want != Want::Predecessor || query.last)) {
            return Choice::Answer(tables.me);
        }
        if query.last {
            // The sender does not know of our predecessor, who is nearer to the key.
            return match tables.predecessor {
                Some(p) if (suspects || !self.suspected(p.addr, true)) && !refuse(&p) => {
                    Choice::Hops(SmallVec::from_slice(&[p]), true)
                }
                _ => Choice::Answer(tables.me),
            };
        }
        let mut hops = SmallVec::new();
        let mut owners = false;
        tables.next_hop(key, query.lookup.route, want, |hop, last| {
            if (!suspects && self.suspected(hop.addr, last)) || refuse(hop) {
                return false;
            }
            if hops.is_empty() {
                owners = last;
            } else if owners != last {
                return true;
            }
            hops.push(*hop);
            hops.len() >= most
        });
        match hops.first() {
            Some(owner) if owners && want != Want::Owner => Choice::Answer(*owner),
            _ => Choice::Hops(hops, owners),
        }
    }

    /// The answer to a query, given by this node.
    pub(super) fn found(&self, query: &Query<I, A>, owner: Contact<I, A>) -> Found<I, A> {
        let successors = &self.tables.successors;
        let after = successors
            .iter()
            .position(|s| s.id == owner.id)
            .map_or(0, |i| i + 1);
        let replicas = successors.iter().skip(after);
        Found {
            key: query.key,
            owner,
            by: self.tables.me,
            replicas: replicas
                .take(query.lookup.replicas.into())
                .copied()
                .collect(),
            hops: query.hops,
            timeouts: query.timeouts,
            path: query.trace.as_deref().cloned().unwrap_or_default(),
        }
    }

    /// Whoever a recursive query was passed to has not taken it.
    pub(in crate::chord) fn on_carried_lost(
        &mut self,
        now: Time,
        carried: Carried<I, A>,
        out: &mut Vec<Output<I, A>>,
    ) {
        let Carried {
            mut query,
            to,
            mut tried,
            ..
        } = carried;
        if query.origin == self.tables.me.addr {
            match self.active(query.number) {
                None => return,
                Some(active) if active.via.is_some() => {
                    self.finish(now, query.number, Err(LookupError::DeadEnd), out);
                    return;
                }
                Some(_) => {}
            }
        }
        query.timeouts = query.timeouts.saturating_add(1);
        tried.push(to);
        self.carry(now, query, tried, out);
    }
}
