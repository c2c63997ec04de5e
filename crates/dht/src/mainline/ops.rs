//! Operations: a lookup, then perhaps storing near its target; rounds of those that are kept up.

mod replies;
mod store;
mod subscribe;
mod work;

use super::krpc::Call;
use super::lookup::{Found, Lookup};
use super::table::K;
use super::{Mainline, family_of};
use crate::{Answer, Failure, Id, Item, OpId, Outcome, Output, Request};
use shoal_base::Time;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;
use work::Phase;
pub(super) use work::{Op, Purpose, Work};

/// A lookup that has not ended by now goes on with what it found.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(20);
/// When a lookup could not send for want of room.
const NO_ROOM: Duration = Duration::from_millis(100);
/// Peers told by one operation.
const MAX_TOLD: usize = 4096;
/// Between two rounds: items, peers, and after a failure. Each drawn up to a fifth either way, so
/// that what began together does not stay together.
const ITEM_ROUND: Duration = Duration::from_secs(55 * 60);
const PEER_ROUND: Duration = Duration::from_secs(27 * 60);
const RETRY: Duration = Duration::from_secs(60);

impl Mainline {
    pub(super) fn begin_request(
        &mut self,
        now: Time,
        request: Request,
        out: &mut Vec<Output>,
    ) -> OpId {
        let work = match request {
            Request::Put { item, cas, keep } => {
                if let Err(error) = item.verify() {
                    return self.invalid(error.to_string(), out);
                }
                if matches!(item, Item::Certified(_)) {
                    let why = Failure::Unsupported("keeps no certified values");
                    return self.fail(why, out);
                }
                Work::Put {
                    item,
                    cas,
                    keep,
                    newest: None,
                }
            }
            Request::GetImmutable { target } => Work::GetImmutable { target },
            Request::GetMutable { salt, .. } | Request::Subscribe { salt, .. }
                if salt.len() > crate::item::MAX_SALT =>
            {
                return self.invalid(crate::ItemError::SaltTooLong(salt.len()).to_string(), out);
            }
            Request::GetMutable {
                key,
                salt,
                newer_than,
            } => Work::GetMutable {
                key,
                salt,
                newest: newer_than,
                found: false,
            },
            Request::Subscribe { key, salt } => Work::Subscribe {
                key,
                salt,
                newest: None,
                holders: VecDeque::new(),
                interval: self.config.subscribe_interval.0,
                renew: now,
            },
            Request::Announce { port: Some(0), .. } => {
                return self.invalid("nobody listens at port 0".to_owned(), out);
            }
            Request::Announce {
                key,
                port,
                seed,
                keep,
            } => Work::Announce {
                key,
                port,
                seed,
                keep,
                told: BTreeSet::new(),
            },
            Request::Peers { key } => Work::peers(key, false),
            Request::GetCertified { .. } => {
                let why = Failure::Unsupported("keeps no certified values");
                return self.fail(why, out);
            }
            // Anybody may store anything anywhere here: no quota holds, so no index would last.
            Request::Publish { .. } | Request::Find { .. } => {
                let why = Failure::Unsupported("has no index of words");
                return self.fail(why, out);
            }
        };
        self.begin(now, work, true, out)
    }

    fn invalid(&mut self, why: String, out: &mut Vec<Output>) -> OpId {
        self.fail(Failure::Invalid(why), out)
    }

    fn fail(&mut self, why: Failure, out: &mut Vec<Output>) -> OpId {
        self.last_op = self.last_op.wrapping_add(1);
        let op = OpId(self.last_op);
        let answer = Answer::Done(Err(why));
        out.push(Output::Answer { op, answer });
        op
    }

    /// Begins an operation; what is `told` has a user who hears of it.
    pub(super) fn begin(
        &mut self,
        now: Time,
        work: Work,
        told: bool,
        out: &mut Vec<Output>,
    ) -> OpId {
        self.last_op = self.last_op.wrapping_add(1);
        let id = self.last_op;
        let op = Op {
            work,
            told,
            phase: Phase::Resting,
            lookups: [None, None],
            waiting: 0,
            deadline: now,
            wake: Time::FAR,
            outcome: Outcome::default(),
            refusal: None,
            mismatches: 0,
        };
        self.begin_round(now, id, op, out);
        OpId(id)
    }

    /// Puts an operation back among the others, to be looked at when it wants.
    fn keep_op(&mut self, id: u32, op: Op) {
        self.alarms.insert((op.wake, id));
        self.ops.insert(id, op);
    }

    /// Takes an operation out to work on it.
    fn take_op(&mut self, id: u32) -> Option<Op> {
        let op = self.ops.remove(&id)?;
        self.alarms.remove(&(op.wake, id));
        Some(op)
    }

    fn tell(&self, id: u32, op: &Op, answer: Answer, out: &mut Vec<Output>) {
        if op.told {
            let op = OpId(id);
            out.push(Output::Answer { op, answer });
        }
    }

    /// Starts the lookups of a round.
    fn begin_round(&mut self, now: Time, id: u32, mut op: Op, out: &mut Vec<Output>) {
        if let Work::Announce { told, .. } = &mut op.work
            && told.len() >= MAX_TOLD
        {
            told.clear();
        }
        op.phase = Phase::Looking;
        op.deadline = now + LOOKUP_DEADLINE;
        op.outcome = Outcome::default();
        op.refusal = None;
        op.mismatches = 0;
        op.waiting = 0;
        if self.tell_own(id, &mut op, out) {
            return;
        }
        let silent = self.upkeep.is_silent();
        for (index, family) in self.families.iter().enumerate() {
            let Some(family) = family else { continue };
            let own = family.table.own();
            let target = op.work.target(own);
            let mut lookup = Lookup::new(own, target, self.config.exempt.clone());
            // Where the nearest may all be gone, others are as good to start from.
            let near = if silent {
                Id::random(&mut self.rng)
            } else {
                target
            };
            // More than are asked at first, should the nearest be gone.
            let near = family.table.closest(&near, 3 * K);
            let few = near.len() < K;
            for node in near {
                lookup.seed(Some(node.id), node.addr);
            }
            if few || silent {
                for (id, addr) in self.upkeep.starters(index == 1) {
                    lookup.seed(id, addr);
                }
            }
            if let Some(slot) = op.lookups.get_mut(index) {
                *slot = Some(lookup);
            }
        }
        self.advance(now, id, op, out);
    }

    /// Sends what the lookups want to send, and goes on when they are done.
    fn advance(&mut self, now: Time, id: u32, mut op: Op, out: &mut Vec<Output>) {
        op.wake = op.deadline;
        let mut done = true;
        for index in 0..op.lookups.len() {
            let Some(mut lookup) = op.lookups.get_mut(index).and_then(Option::take) else {
                continue;
            };
            while self.rpc.has_room() {
                let Some((node, addr)) = lookup.next() else {
                    break;
                };
                let call = self.call(now, &op, addr);
                self.ask(now, (node, addr), Purpose::Lookup(id), call, out);
                op.outcome.queries += 1;
            }
            if !self.rpc.has_room() {
                op.wake = op.wake.min(now + NO_ROOM);
            }
            done &= lookup.is_done();
            if let Some(slot) = op.lookups.get_mut(index) {
                *slot = Some(lookup);
            }
        }
        if done || now >= op.deadline {
            self.looked(now, id, op, out);
        } else {
            self.keep_op(id, op);
        }
    }

    /// What an operation asks on its way.
    fn call(&self, now: Time, op: &Op, addr: SocketAddr) -> Call<'static> {
        let own = self.families.get(family_of(&addr)).and_then(Option::as_ref);
        let target = op.work.target(own.map_or(Id::default(), |f| f.table.own()));
        match &op.work {
            Work::Join | Work::Far { .. } => Call::FindNode { target },
            Work::Peers { scrape, .. } => Call::GetPeers {
                info_hash: target,
                noseed: false,
                scrape: *scrape,
            },
            Work::Announce { .. } => Call::GetPeers {
                info_hash: target,
                noseed: false,
                scrape: false,
            },
            Work::GetImmutable { .. } => Call::Get { target, seq: None },
            Work::Put { item, .. } => Call::Get {
                target,
                // Only what is newer than ours matters, and only its number.
                seq: item.seq(),
            },
            Work::GetMutable { newest, .. } | Work::Subscribe { newest, .. } => Call::Get {
                target,
                seq: *newest,
            },
            Work::Sample { .. } if self.sampled.get(&addr).is_some_and(|until| *until > now) => {
                Call::FindNode { target }
            }
            Work::Sample { .. } => Call::Sample { target },
        }
    }

    /// The lookups are over.
    fn looked(&mut self, now: Time, id: u32, mut op: Op, out: &mut Vec<Output>) {
        let mut known = 0;
        let mut near: Vec<Found> = Vec::new();
        for lookup in op.lookups.iter_mut().filter_map(Option::take) {
            known += lookup.known();
            op.outcome.answered += lookup.answered;
            op.outcome.hops = op.outcome.hops.max(lookup.hops);
            near.extend(lookup.nearest());
        }
        if op.outcome.answered == 0 {
            let failure = match known {
                0 => Failure::NoContacts,
                known => Failure::Offline(known),
            };
            return self.finish(now, id, op, Err(failure), out);
        }
        self.after(now, id, op, &near, out);
    }

    /// An operation, or one round of it, has ended.
    fn finish(
        &mut self,
        now: Time,
        id: u32,
        mut op: Op,
        result: Result<Outcome, Failure>,
        out: &mut Vec<Output>,
    ) {
        let answered = op.outcome.answered;
        let superseded = matches!(
            result,
            Err(Failure::OlderThan(_) | Failure::CasMismatch | Failure::Invalid(_))
        );
        let failed = result.is_err();
        // A subscription has no end to tell, only trouble.
        if failed || !matches!(op.work, Work::Subscribe { .. }) {
            self.tell(id, &op, Answer::Done(result), out);
        }
        if let Some(round) = op.work.round().filter(|_| !superseded && op.told) {
            let wait = if failed { RETRY } else { round };
            op.phase = Phase::Resting;
            op.wake = now + wait.mul_f64(0.8 + self.rng.unit() * 0.4);
            if let Work::Put { cas, .. } = &mut op.work
                && !failed
            {
                *cas = None;
            }
            self.keep_op(id, op);
        }
        self.upkeep_found(now, id, answered);
    }

    /// An operation's time has come.
    pub(super) fn wake(&mut self, now: Time, id: u32, out: &mut Vec<Output>) {
        let Some(op) = self.take_op(id) else { return };
        match op.phase {
            Phase::Looking => self.advance(now, id, op, out),
            Phase::After => self.after_done(now, id, op, out),
            Phase::Resting if matches!(op.work, Work::Subscribe { .. }) => {
                self.read_again(now, id, op, out);
            }
            Phase::Resting => self.begin_round(now, id, op, out),
        }
    }

    /// A query takes long.
    pub(super) fn on_slow(
        &mut self,
        now: Time,
        pending: &super::rpc::Pending,
        out: &mut Vec<Output>,
    ) {
        if let Purpose::Lookup(id) = pending.purpose
            && let Some(mut op) = self.take_op(id)
        {
            if op.phase == Phase::Looking {
                for lookup in op.lookups.iter_mut().flatten() {
                    lookup.slow(&pending.to);
                }
                self.advance(now, id, op, out);
            } else {
                self.keep_op(id, op);
            }
        }
    }

    /// A query was lost.
    pub(super) fn on_lost(
        &mut self,
        now: Time,
        pending: &super::rpc::Pending,
        out: &mut Vec<Output>,
    ) {
        let (Purpose::Lookup(id) | Purpose::After(id)) = pending.purpose else {
            return;
        };
        let Some(mut op) = self.take_op(id) else {
            return;
        };
        match (pending.purpose, op.phase) {
            (Purpose::Lookup(_), Phase::Looking) => {
                for lookup in op.lookups.iter_mut().flatten() {
                    lookup.failed(&pending.to);
                }
                self.advance(now, id, op, out);
            }
            (Purpose::After(_), Phase::After) => self.one_less(now, id, op, out),
            (Purpose::After(_), Phase::Resting) => {
                if let Work::Subscribe { holders, .. } = &mut op.work {
                    holders.retain(|h| *h != pending.to);
                }
                self.keep_op(id, op);
            }
            _ => self.keep_op(id, op),
        }
    }

    /// One query of the phase after the lookup is settled.
    fn one_less(&mut self, now: Time, id: u32, mut op: Op, out: &mut Vec<Output>) {
        op.waiting = op.waiting.saturating_sub(1);
        if op.waiting == 0 {
            self.after_done(now, id, op, out);
        } else {
            self.keep_op(id, op);
        }
    }
}
