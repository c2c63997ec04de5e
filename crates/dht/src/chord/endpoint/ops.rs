//! Operations: each looks its key up and then asks the owner and the owner's successors.

mod op;

use super::super::message::{Found, Lookup, LookupError, Style};
use super::super::place::Place;
use super::super::wire::{Refusal, Reply};
use super::doors::first_place;
use super::{Endpoint, Purpose};
use crate::item::MAX_SALT;
use crate::{Answer, Failure, Id, OpId, Outcome, Output, Request};
pub(super) use op::{Op, Work};
use shoal_base::Time;
use std::net::SocketAddr;
use std::time::Duration;

/// How soon a kept operation that failed is tried again.
const AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(60);
/// Doors that a guest tries for one operation, and at how many it knocks at once: lists of members name
/// some that are gone.
const MAX_DOORS: u32 = 6;
const DOORS_AT_ONCE: usize = 3;

impl Endpoint {
    pub(super) fn add_op(&mut self, work: Work) -> OpId {
        self.next_op = self.next_op.wrapping_add(1);
        let op = OpId(self.next_op);
        self.ops.insert(op, Op::new(work));
        op
    }

    pub(super) fn begin(&mut self, now: Time, request: Request, out: &mut Vec<Output>) -> OpId {
        let invalid = match &request {
            Request::Put { item, .. } => match self.store.until(now, item, Time::FAR) {
                Some(_) => None,
                None => Some(item.verify().err().map_or_else(
                    || "this ring does not keep such a value".to_owned(),
                    |e| e.to_string(),
                )),
            },
            Request::Announce { port: Some(0), .. } => Some("nobody listens at port 0".to_owned()),
            Request::GetMutable { salt, .. } | Request::Subscribe { salt, .. }
                if salt.len() > MAX_SALT =>
            {
                Some(crate::ItemError::SaltTooLong(salt.len()).to_string())
            }
            Request::GetCertified { name, .. } if name.len() > MAX_SALT => {
                Some(crate::ItemError::SaltTooLong(name.len()).to_string())
            }
            Request::Publish { record, .. } => self.unpublishable(record),
            _ => None,
        };
        let work = match request {
            Request::Publish { record, keep } => Work::Publish {
                record,
                keep,
                left: 0,
            },
            Request::Find { words, most } => Self::search(&words, most),
            request => Work::Api(request),
        };
        let no_words = matches!(&work, Work::Search { words, .. } if words.is_empty());
        let invalid = invalid.or(no_words.then(|| "there is no word in it".to_owned()));
        let subscribe = matches!(work, Work::Api(Request::Subscribe { .. }));
        let key = work.key();
        let op = self.add_op(work);
        if let Some(why) = invalid {
            // What cannot be done is not done again either.
            if let Some(entry) = self.ops.get_mut(&op) {
                entry.work = Work::Api(Request::Peers { key });
            }
            self.end(now, op, Err(Failure::Invalid(why)), out);
        } else if subscribe {
            self.ops.remove(&op);
            self.subscribe(now, key, op, out);
        } else {
            self.start(now, op, out);
        }
        op
    }

    /// Looks an operation's key up.
    pub(super) fn start(&mut self, now: Time, op: OpId, out: &mut Vec<Output>) {
        let Some(entry) = self.ops.remove(&op) else {
            return;
        };
        let compound = matches!(entry.work, Work::Publish { .. } | Work::Search { .. });
        self.ops.insert(op, Op::new(entry.work));
        let outside = !self.settings.guest || self.bootstrap.is_empty();
        if !self.is_member() && outside {
            let failure = self.outside();
            return self.end(now, op, Err(failure), out);
        }
        if compound {
            self.start_words(now, op, out);
        } else if self.is_member() {
            self.look_up(now, op, None, out);
        } else {
            self.knock(now, op, out);
        }
    }

    /// Why nothing can be asked.
    pub(super) fn outside(&self) -> Failure {
        if self.bootstrap.is_empty() {
            Failure::NoContacts
        } else {
            Failure::Offline(self.bootstrap.len() as u32)
        }
    }

    /// Looks an operation's key up, from a position of our own or through the member at `via`.
    fn look_up(&mut self, now: Time, op: OpId, via: Option<Place>, out: &mut Vec<Output>) {
        let Some(entry) = self.ops.get(&op) else {
            return;
        };
        let key = entry.work.key();
        let lookup = Lookup {
            // Positions of one process count once, so some more than wanted are asked for.
            replicas: self.settings.replicas.saturating_mul(2).min(12),
            // Nobody need send a guest anything that it did not ask for.
            style: via.map_or(Style::Recursive, |_| Style::Iterative),
            ..Lookup::default()
        };
        // What the position does at once comes before its number is known here.
        let mut outputs = Vec::new();
        let Some(node) = self.nodes.first_mut() else {
            return;
        };
        let number = match via {
            Some(via) => node.lookup_via(now, key, lookup, via, &mut outputs),
            None => node.lookup(now, key, lookup, &mut outputs),
        };
        self.lookups.insert((0, number), op);
        for output in outputs {
            self.on_ring(now, 0, output, out);
        }
    }

    /// A guest's operation goes in at the next door: a member known by its address.
    fn knock(&mut self, now: Time, op: OpId, out: &mut Vec<Output>) {
        let count = self.bootstrap.len() as u32;
        let Some(entry) = self.ops.get_mut(&op) else {
            return;
        };
        let at = self.turn.wrapping_add(entry.doors as usize) % self.bootstrap.len().max(1);
        entry.doors += 1;
        let socket = self.bootstrap.get(at).copied();
        let Some(socket) = socket.filter(|_| entry.doors <= MAX_DOORS.min(2 * count)) else {
            return self.end(now, op, Err(Failure::Offline(count)), out);
        };
        match self.links.key_of(socket) {
            Some(key) => self.enter(now, op, socket, &key, out),
            None => {
                entry.door = Some(socket);
                let others = self.bootstrap.iter().cycle().skip(at).copied();
                let doors: Vec<_> = others.take(DOORS_AT_ONCE.min(count as usize)).collect();
                for door in doors {
                    self.greet(now, door, out);
                }
            }
        }
    }

    fn enter(
        &mut self,
        now: Time,
        op: OpId,
        socket: SocketAddr,
        key: &[u8; 32],
        out: &mut Vec<Output>,
    ) {
        let via = first_place(socket, key);
        self.look_up(now, op, Some(via), out);
    }

    /// Somebody answers at a door, and lets in who waits at any; or nobody does.
    pub(super) fn at_door(
        &mut self,
        now: Time,
        socket: SocketAddr,
        key: Option<&[u8; 32]>,
        out: &mut Vec<Output>,
    ) {
        let is_door = self.bootstrap.contains(&socket);
        let waits = |o: &Op| match key {
            Some(_) => o.door.is_some() && is_door,
            None => o.door == Some(socket),
        };
        let waiting = self.ops.iter().filter(|(_, o)| waits(o));
        let waiting: Vec<OpId> = waiting.map(|(op, _)| *op).collect();
        if key.is_none() && !waiting.is_empty() {
            self.turn = self.turn.wrapping_add(1);
        }
        for op in waiting {
            if let Some(entry) = self.ops.get_mut(&op) {
                entry.door = None;
            }
            match key {
                Some(key) => self.enter(now, op, socket, key, out),
                None => self.knock(now, op, out),
            }
        }
    }

    /// An operation's key was looked up.
    pub(super) fn on_lookup(
        &mut self,
        now: Time,
        op: OpId,
        result: Result<Box<Found<Id, Place>>, LookupError>,
        out: &mut Vec<Output>,
    ) {
        let known = self.links.count() as u32;
        let Some(entry) = self.ops.get_mut(&op) else {
            return;
        };
        let Ok(found) = result else {
            if !self.is_member() {
                return self.knock(now, op, out);
            }
            return self.end(now, op, Err(Failure::Offline(known)), out);
        };
        if let Work::Hand { target } = entry.work {
            self.ops.remove(&op);
            return self.owner_found(now, target, Some(found.owner.addr));
        }
        entry.outcome.hops = found.hops;
        entry.outcome.queries += found.hops + u32::from(found.timeouts);
        let mut sockets = Vec::new();
        for contact in std::iter::once(&found.owner).chain(&found.replicas) {
            let place = contact.addr;
            if !sockets.contains(&place.socket)
                && entry.targets.len() < usize::from(self.settings.replicas.max(1))
            {
                sockets.push(place.socket);
                entry.targets.push_back(place);
            }
        }
        self.pump(now, op, out);
    }

    /// Asks the next nodes, or ends the operation.
    fn pump(&mut self, now: Time, op: OpId, out: &mut Vec<Output>) {
        let Some(entry) = self.ops.get_mut(&op) else {
            return;
        };
        if entry.waiting > 0 {
            return;
        }
        if entry.targets.is_empty() && !entry.asked_again && entry.outcome.stored > 0 {
            // An owner that missed a value while its replicas took it would tell nobody of it.
            entry.asked_again = true;
            entry.targets = std::mem::take(&mut entry.silent);
        }
        let ask = entry.work.ask();
        let done = entry.satisfied() || entry.targets.is_empty();
        let Some(ask) = ask.filter(|_| !done) else {
            return self.conclude(now, op, out);
        };
        let fan = entry.work.fan().min(entry.targets.len());
        let batch: Vec<_> = entry.targets.drain(..fan).collect();
        entry.waiting = batch.len();
        entry.outcome.queries += batch.len() as u32;
        for place in batch {
            self.ask(now, place, false, ask.clone(), Purpose::Op(op), out);
        }
    }

    /// A node answered, or did not.
    pub(super) fn op_reply(
        &mut self,
        now: Time,
        op: OpId,
        from: Place,
        reply: Option<Reply>,
        out: &mut Vec<Output>,
    ) {
        let holds = match &reply {
            Some(Reply::Value(Some(item))) => self.store.until(now, item, Time::FAR).is_some(),
            _ => false,
        };
        let Some(entry) = self.ops.get_mut(&op) else {
            return;
        };
        entry.waiting = entry.waiting.saturating_sub(1);
        entry.outcome.answered += u32::from(reply.is_some());
        if reply.is_none() && entry.work.stores() {
            entry.silent.push_back(from);
        }
        match (reply, &entry.work) {
            (Some(Reply::Stored), _) => entry.outcome.stored += 1,
            (Some(Reply::Older(seq)), _) => entry.failure = Some(Failure::OlderThan(seq)),
            (Some(Reply::Cas), _) => entry.failure = Some(Failure::CasMismatch),
            (Some(Reply::Refused(why)), _) => {
                let why = match why {
                    Refusal::Invalid => "it is not valid",
                    Refusal::Full => "no room",
                    Refusal::Quota => "this publisher has enough there",
                };
                entry
                    .failure
                    .get_or_insert_with(|| Failure::Refused(why.into()));
            }
            (Some(Reply::Value(Some(item))), Work::Api(request)) => {
                let wanted = match request {
                    Request::GetMutable { newer_than, .. } => item.seq() > *newer_than,
                    _ => true,
                };
                let newer = entry.best.as_ref().is_none_or(|b| item.seq() > b.seq());
                if wanted && newer && item.target() == entry.work.key() && holds {
                    entry.best = Some(item);
                }
            }
            (
                Some(Reply::Peers {
                    mut peers,
                    seeds,
                    leechers,
                }),
                Work::Api(Request::Peers { .. }),
            ) => {
                peers.retain(|p| !p.ip().is_unspecified() && entry.told.insert(*p));
                let (s, l) = entry.scrape;
                entry.scrape = (s.max(seeds), l.max(leechers));
                if !peers.is_empty() {
                    let answer = Answer::Peers(peers);
                    out.push(Output::Answer { op, answer });
                }
            }
            (Some(Reply::Records { count, .. }), Work::Word { .. })
                if entry.count.is_none_or(|(most, _)| count > most) =>
            {
                entry.count = Some((count, from));
            }
            (Some(Reply::Records { mut records, .. }), Work::Search { words, most, .. }) => {
                records.truncate((*most).into());
                records.retain(|r| r.matches(words) && r.verify());
                let result = if records.is_empty() {
                    Err(Failure::NotFound(entry.outcome.answered))
                } else {
                    Ok(entry.outcome)
                };
                if result.is_ok() {
                    let answer = Answer::Records(records);
                    out.push(Output::Answer { op, answer });
                }
                return self.end(now, op, result, out);
            }
            _ => {}
        }
        if entry.has_enough() {
            return self.conclude(now, op, out);
        }
        self.pump(now, op, out);
    }

    /// Somebody who was asked for an operation is asked again.
    pub(super) fn op_slow(&mut self, now: Time, op: OpId, out: &mut Vec<Output>) {
        let Some(entry) = self.ops.get_mut(&op) else {
            return;
        };
        entry.slow = true;
        if entry.has_enough() {
            self.conclude(now, op, out);
        }
    }

    /// All were asked.
    pub(super) fn conclude(&mut self, now: Time, op: OpId, out: &mut Vec<Output>) {
        let known = self.links.count() as u32;
        let Some(entry) = self.ops.get_mut(&op) else {
            return;
        };
        let outcome = entry.outcome;
        let nobody = if outcome.answered == 0 {
            Failure::Offline(known)
        } else {
            Failure::NotFound(outcome.answered)
        };
        let result = match &entry.work {
            Work::Api(Request::Put { .. } | Request::Announce { .. }) => {
                match entry.failure.take() {
                    Some(why @ (Failure::OlderThan(_) | Failure::CasMismatch)) => Err(why),
                    _ if outcome.stored > 0 => Ok(outcome),
                    Some(why) => Err(why),
                    None => Err(Failure::Offline(known)),
                }
            }
            Work::Api(Request::Peers { .. }) => {
                let (seeds, leechers) = entry.scrape;
                let answer = Answer::Scrape { seeds, leechers };
                out.push(Output::Answer { op, answer });
                if entry.told.is_empty() {
                    Err(nobody)
                } else {
                    Ok(outcome)
                }
            }
            Work::Api(_) => match entry.best.take() {
                Some(item) => {
                    let answer = Answer::Value(item);
                    out.push(Output::Answer { op, answer });
                    Ok(outcome)
                }
                None => Err(nobody),
            },
            Work::Word { .. } | Work::Hand { .. } => Ok(outcome),
            Work::Publish { .. } if outcome.stored > 0 => Ok(outcome),
            Work::Publish { .. } => Err(entry.failure.take().unwrap_or(nobody)),
            Work::Search { .. } => Err(nobody),
        };
        self.end(now, op, result, out);
    }

    /// Tells how an operation ended; a kept one rests.
    pub(super) fn end(
        &mut self,
        now: Time,
        op: OpId,
        result: Result<Outcome, Failure>,
        out: &mut Vec<Output>,
    ) {
        let republish = self.settings.republish;
        let Some(entry) = self.ops.get(&op) else {
            return;
        };
        let invalid = matches!(
            result,
            Err(Failure::Invalid(_) | Failure::OlderThan(_) | Failure::CasMismatch)
        );
        let period = entry.work.period(republish).filter(|_| !invalid);
        if let Some(period) = period {
            let failed = result.is_err();
            let again = self.later(now, if failed { AGAIN_AFTER_FAILURE } else { period });
            if let Some(entry) = self.ops.get_mut(&op) {
                entry.again = Some(again);
                if let Work::Api(Request::Put { cas, .. }) = &mut entry.work {
                    // It holds for the first time only.
                    *cas = None;
                }
            }
        }
        let ended = match period {
            Some(_) => None,
            None => self.ops.remove(&op),
        };
        match ended.map(|e| (e.work, e.count)) {
            Some((Work::Hand { target }, _)) => self.owner_found(now, target, None),
            Some((
                Work::Word {
                    parent,
                    word,
                    record,
                },
                count,
            )) => {
                let stored = record.is_some() && result.is_ok_and(|o| o.stored > 0);
                self.word_ended(now, parent, word, stored, count, out);
            }
            _ => {
                let answer = Answer::Done(result);
                out.push(Output::Answer { op, answer });
            }
        }
    }

    pub(super) fn ops_deadline(&self) -> Option<Time> {
        self.ops.values().filter_map(|op| op.again).min()
    }

    /// Kept operations that are due.
    pub(super) fn tick_ops(&mut self, now: Time, out: &mut Vec<Output>) {
        let due = self
            .ops
            .iter()
            .filter(|(_, o)| o.again.is_some_and(|t| t <= now));
        let due: Vec<OpId> = due.map(|(op, _)| *op).collect();
        for op in due {
            self.start(now, op, out);
        }
    }
}
