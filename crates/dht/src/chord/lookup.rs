//! Lookups: carrying those of others on, and one's own, recursive or iterative.

mod carried;
mod walk;

use super::message::{Address, Contact, Found, Lookup, LookupError, Output, Query, Style};
use super::node::{Node, Standing, Why};
use super::ring::RingId;
use shoal_base::Time;
use smallvec::SmallVec;
use std::collections::VecDeque;
use walk::Walk;

/// How many next hops an iterative query is answered with, so that one dead hop costs no question
/// more.
const ALTERNATIVES: usize = 3;

/// A recursive query that this node holds until the next one has taken it.
#[derive(Clone, Debug)]
pub(super) struct Carried<I, A> {
    /// As it came.
    query: Query<I, A>,
    /// Who has it now.
    to: A,
    /// Whether that one is taken for the owner.
    pub(super) last: bool,
    /// Who had it before and did not answer.
    tried: SmallVec<[A; 2]>,
}

impl<I: RingId, A: Address> Carried<I, A> {
    /// As it goes on.
    pub(super) fn onward(&self, nonce: u32) -> Query<I, A> {
        Query {
            nonce,
            last: self.last,
            hops: self.query.hops.saturating_add(1),
            ..self.query.clone()
        }
    }
}

/// A question of an iterative lookup.
#[derive(Clone, Debug)]
pub(super) struct Asked<I, A> {
    node: Contact<I, A>,
    /// The node is asked for the first time: its answer is one hop more on the way.
    fresh: bool,
    /// No other node can be asked instead.
    only: bool,
    query: Query<I, A>,
}

impl<I: RingId, A: Address> Asked<I, A> {
    pub(super) fn query(&self, nonce: u32) -> Query<I, A> {
        Query {
            nonce,
            ..self.query.clone()
        }
    }

    /// Whether another node would not do as well.
    pub(super) fn patient(&self) -> bool {
        self.query.last || self.only || !self.fresh
    }
}

/// What a lookup is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// The driver asked.
    User,
    /// The finger of this power.
    Finger(u32),
    /// One's own place on the circle.
    Join,
    /// One's own successor, in what may be another ring.
    Merge,
}

/// A lookup of one's own.
#[derive(Clone, Debug)]
pub(super) struct Active<I, A> {
    number: u32,
    key: I,
    lookup: Lookup,
    pub(super) purpose: Purpose,
    deadline: Time,
    restart: Time,
    /// Begins there instead of in one's own tables.
    via: Option<A>,
    walk: Walk<I, A>,
}

impl<I, A> Active<I, A> {
    pub(super) fn due(&self) -> Time {
        self.deadline.min(self.restart)
    }
}

impl<I: RingId, A: Address> Node<I, A> {
    /// Looks `key` up. Ends, before the deadline of the configuration, with an
    /// [`Output::Lookup`] of the number returned.
    pub fn lookup(
        &mut self,
        now: Time,
        key: I,
        lookup: Lookup,
        out: &mut Vec<Output<I, A>>,
    ) -> u32 {
        self.start_lookup(now, key, lookup, Purpose::User, None, out)
    }

    /// Looks `key` up in the ring of the member at `via`, whether or not this node is in it.
    pub fn lookup_via(
        &mut self,
        now: Time,
        key: I,
        lookup: Lookup,
        via: A,
        out: &mut Vec<Output<I, A>>,
    ) -> u32 {
        self.start_lookup(now, key, lookup, Purpose::User, Some(via), out)
    }

    pub(super) fn start_lookup(
        &mut self,
        now: Time,
        key: I,
        lookup: Lookup,
        purpose: Purpose,
        via: Option<A>,
        out: &mut Vec<Output<I, A>>,
    ) -> u32 {
        let mut number = self.draw() as u32;
        while self.active(number).is_some() {
            number = self.draw() as u32;
        }
        if self.standing != Standing::Member && via.is_none() {
            let result = Err(LookupError::NotMember);
            out.push(Output::Lookup { number, result });
            return number;
        }
        let recursive = lookup.style == Style::Recursive;
        let deadline = now + self.config.deadline;
        let active = Active {
            number,
            key,
            lookup,
            purpose,
            deadline,
            restart: if recursive {
                now + self.config.restart
            } else {
                Time::FAR
            },
            via,
            walk: Walk {
                trail: Vec::new(),
                skip: 0,
                next: VecDeque::new(),
                last: false,
                timeouts: 0,
            },
        };
        self.busy().lookups.push(active);
        if recursive {
            self.launch(now, number, out);
        } else {
            self.advance(now, number, out);
        }
        self.rest();
        number
    }

    /// Whether a lookup for this purpose is under way.
    pub(super) fn looks_for(&self, purpose: impl Fn(Purpose) -> bool) -> bool {
        let lookups = self.busy.iter().flat_map(|b| &b.lookups);
        lookups.into_iter().any(|a| purpose(a.purpose))
    }

    fn active(&self, number: u32) -> Option<&Active<I, A>> {
        let lookups = &self.busy.as_ref()?.lookups;
        lookups.iter().find(|a| a.number == number)
    }

    fn active_mut(&mut self, number: u32) -> Option<&mut Active<I, A>> {
        let lookups = &mut self.busy.as_mut()?.lookups;
        lookups.iter_mut().find(|a| a.number == number)
    }

    /// A query of our own before its first hop.
    fn own_query(&self, active: &Active<I, A>) -> Query<I, A> {
        Query {
            nonce: 0,
            key: active.key,
            lookup: active.lookup,
            last: false,
            skip: 0,
            hops: 0,
            timeouts: 0,
            limit: self.config.hop_limit,
            origin: self.tables.me.addr,
            number: active.number,
            trace: active.lookup.trace.then(Box::default),
        }
    }

    /// Sends a recursive lookup of one's own on its way.
    fn launch(&mut self, now: Time, number: u32, out: &mut Vec<Output<I, A>>) {
        let Some(active) = self.active(number) else {
            return;
        };
        let mut query = self.own_query(active);
        let via = active.via;
        if let Some(trace) = &mut query.trace {
            trace.push(self.tables.me);
        }
        match via {
            Some(via) => self.pass(now, query, via, false, SmallVec::new(), out),
            None => self.carry(now, query, SmallVec::new(), out),
        }
    }

    /// A lookup is answered.
    pub(super) fn on_found(
        &mut self,
        now: Time,
        from: A,
        number: u32,
        mut found: Box<Found<I, A>>,
        out: &mut Vec<Output<I, A>>,
    ) {
        if found.by.addr != from {
            return;
        }
        let asked = self.take_request(from, number, |why| matches!(why, Why::Ask(_)));
        if let Some(Why::Ask(asked)) = asked {
            let me = self.tables.me;
            let number = asked.query.number;
            let Some(active) = self.active(number).filter(|a| a.key == found.key) else {
                return;
            };
            found.hops = asked.query.hops;
            found.timeouts = active.walk.timeouts;
            found.path.clear();
            if active.lookup.trace {
                let trail = active.walk.trail.iter().map(|passed| passed.node);
                found.path.extend(std::iter::once(me).chain(trail));
                if asked.fresh {
                    found.path.push(found.by);
                }
            }
            self.finish(now, number, Ok(found), out);
        } else if self
            .active(number)
            .is_some_and(|a| a.key == found.key && a.lookup.style == Style::Recursive)
        {
            self.finish(now, number, Ok(found), out);
        }
    }

    /// Ends a lookup of one's own.
    fn finish(
        &mut self,
        now: Time,
        number: u32,
        result: Result<Box<Found<I, A>>, LookupError>,
        out: &mut Vec<Output<I, A>>,
    ) {
        let Some(busy) = &mut self.busy else { return };
        let Some(at) = busy.lookups.iter().position(|a| a.number == number) else {
            return;
        };
        let active = busy.lookups.swap_remove(at);
        busy.requests
            .retain(|r| !matches!(&r.why, Why::Ask(asked) if asked.query.number == number));
        match active.purpose {
            Purpose::User => out.push(Output::Lookup { number, result }),
            Purpose::Finger(power) => self.on_finger(now, power, result, out),
            Purpose::Join => self.on_place(now, result, out),
            Purpose::Merge => {
                if let Some(via) = active.via {
                    self.on_other_ring(now, via, result, out);
                }
            }
        }
    }

    /// Lookups that are out of time, or to be started again.
    pub(super) fn tick_lookups(&mut self, now: Time, out: &mut Vec<Output<I, A>>) {
        let Some(busy) = &self.busy else { return };
        let due = busy.lookups.iter().filter(|a| a.due() <= now);
        let due: SmallVec<[u32; 8]> = due.map(|a| a.number).collect();
        let restart = now + self.config.restart;
        for number in due {
            let Some(active) = self.active_mut(number) else {
                continue;
            };
            if active.deadline <= now {
                self.finish(now, number, Err(LookupError::Deadline), out);
            } else {
                active.restart = restart;
                self.launch(now, number, out);
            }
        }
    }

    /// Ends every lookup of the driver's.
    pub(super) fn abandon_lookups(&mut self, out: &mut Vec<Output<I, A>>) {
        for active in self.busy.iter().flat_map(|b| &b.lookups) {
            if active.purpose == Purpose::User {
                out.push(Output::Lookup {
                    number: active.number,
                    result: Err(LookupError::NotMember),
                });
            }
        }
    }
}
