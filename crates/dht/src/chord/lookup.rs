//! Lookups: carrying those of others on, and one's own, recursive or iterative.

use super::message::{
    Address, Contact, Found, Lookup, LookupError, Message, Output, Query, Style, Want,
};
use super::node::{Node, Standing, Why};
use super::ring::RingId;
use shoal_base::Time;
use smallvec::SmallVec;
use std::collections::VecDeque;

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

/// How far an iterative lookup has come.
#[derive(Clone, Debug)]
struct Walk<I, A> {
    /// Who answered, each told by the one before.
    trail: Vec<Passed<I, A>>,
    /// How many of one's own next hops were tried.
    skip: u16,
    /// Next hops not tried yet.
    next: VecDeque<Contact<I, A>>,
    /// They are taken for the owner.
    last: bool,
    timeouts: u16,
}

/// A node that answered an iterative query.
#[derive(Clone, Debug)]
struct Passed<I, A> {
    node: Contact<I, A>,
    /// How many of its next hops were tried.
    skip: u16,
    /// It was taken for the owner.
    last: bool,
}

impl<I, A> Active<I, A> {
    pub(super) fn due(&self) -> Time {
        self.deadline.min(self.restart)
    }
}

/// What to do with a query.
enum Choice<I, A> {
    /// This node tells who the owner is.
    Answer(Contact<I, A>),
    /// These are the next hops, the best first; they may be none.
    Hops(SmallVec<[Contact<I, A>; ALTERNATIVES]>, bool),
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

    /// A query came in.
    pub(super) fn on_query(
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
    fn guide(&self, query: &Query<I, A>) -> Message<I, A> {
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
    fn carry(
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

    fn pass(
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
    fn choose(
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
    fn found(&self, query: &Query<I, A>, owner: Contact<I, A>) -> Found<I, A> {
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
    pub(super) fn on_carried_lost(
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

    /// Takes the next step of an iterative lookup.
    fn advance(&mut self, now: Time, number: u32, out: &mut Vec<Output<I, A>>) {
        let limit = self.config.hop_limit;
        let Some(active) = self.active_mut(number) else {
            return;
        };
        let walk = &mut active.walk;
        let trail = u32::try_from(walk.trail.len()).unwrap_or(u32::MAX);
        let (node, fresh, last, skip, hops);
        if let Some(next) = walk.next.pop_front() {
            if trail >= limit {
                return self.finish(now, number, Err(LookupError::HopLimit), out);
            }
            let tried = walk
                .trail
                .last_mut()
                .map_or(&mut walk.skip, |top| &mut top.skip);
            *tried = tried.saturating_add(1);
            (node, fresh, last, skip, hops) = (next, true, walk.last, 0, trail + 1);
        } else if let Some(top) = walk.trail.last() {
            (node, fresh, last, skip, hops) = (top.node, false, top.last, top.skip, trail);
        } else {
            return self.begin_walk(now, number, out);
        }
        let timeouts = walk.timeouts;
        let Some(active) = self.active(number) else {
            return;
        };
        let query = Query {
            last,
            skip,
            hops,
            timeouts,
            trace: None,
            ..self.own_query(active)
        };
        // Nobody else can be asked in a door's place.
        let only = fresh && trail == 0 && self.active(number).is_some_and(|a| a.via.is_some());
        let asked = Asked {
            node,
            fresh,
            only,
            query,
        };
        let first = asked.query(0);
        let message = |nonce, _: &Why<I, A>| Message::Query(Query { nonce, ..first });
        self.request(now, node.addr, Why::Ask(Box::new(asked)), message, out);
    }

    /// Asks one's own tables where an iterative lookup goes first, or goes when all else failed.
    fn begin_walk(&mut self, now: Time, number: u32, out: &mut Vec<Output<I, A>>) {
        let Some(active) = self.active(number) else {
            return;
        };
        if let Some(via) = active.via {
            if active.walk.skip > 0 {
                return self.finish(now, number, Err(LookupError::DeadEnd), out);
            }
            // Where it stands on the circle is not known, nor does it matter.
            let door = Contact::new(active.key, via);
            if let Some(active) = self.active_mut(number) {
                active.walk.next.push_back(door);
            }
            return self.advance(now, number, out);
        }
        let mut query = self.own_query(active);
        query.skip = active.walk.skip;
        query.timeouts = active.walk.timeouts;
        query.trace = None;
        match self.guide(&query) {
            Message::Found { mut found, .. } => {
                if active.lookup.trace {
                    found.path.push(self.tables.me);
                }
                self.finish(now, number, Ok(found), out);
            }
            Message::Next { hops, last, .. } if !hops.is_empty() => {
                if let Some(active) = self.active_mut(number) {
                    active.walk.next = hops.into_vec().into();
                    active.walk.last = last;
                }
                self.advance(now, number, out);
            }
            _ => self.finish(now, number, Err(LookupError::DeadEnd), out),
        }
    }

    /// The node asked names the next hops.
    pub(super) fn on_next(
        &mut self,
        now: Time,
        from: A,
        nonce: u32,
        hops: &[Contact<I, A>],
        last: bool,
        out: &mut Vec<Output<I, A>>,
    ) {
        let Some(Why::Ask(asked)) =
            self.take_request(from, nonce, |why| matches!(why, Why::Ask(_)))
        else {
            return;
        };
        let number = asked.query.number;
        let Some(active) = self.active_mut(number) else {
            return;
        };
        let walk = &mut active.walk;
        if asked.fresh {
            walk.trail.push(Passed {
                node: asked.node,
                skip: 0,
                last: asked.query.last,
            });
        }
        if hops.is_empty() {
            // It knows nobody else; the one before may.
            walk.trail.pop();
        }
        walk.next = hops.iter().take(ALTERNATIVES).copied().collect();
        walk.last = last;
        self.advance(now, number, out);
    }

    /// The node asked does not answer.
    pub(super) fn on_asked_lost(
        &mut self,
        now: Time,
        asked: &Asked<I, A>,
        out: &mut Vec<Output<I, A>>,
    ) {
        let number = asked.query.number;
        if let Some(active) = self.active_mut(number) {
            active.walk.timeouts = active.walk.timeouts.saturating_add(1);
            if !asked.fresh {
                active.walk.trail.pop();
            }
            self.advance(now, number, out);
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
