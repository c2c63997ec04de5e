//! Operations: each looks its key up and then asks the owner and the owner's successors.

use super::super::message::{Found, Lookup, LookupError};
use super::super::place::Place;
use super::super::wire::{Ask, MAX_WORDS, Refusal, Reply};
use super::{Endpoint, Notice, Purpose};
use crate::item::mutable_target;
use crate::keywords::{Record, word_key, words_of};
use crate::{Answer, Failure, Id, Item, OpId, Outcome, Output, Request};
use shoal_base::Time;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// How often a kept announcement is made again, jittered down to half; peers are kept for three
/// times this.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(15 * 60);
/// How soon a kept operation that failed is tried again.
const AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(60);

/// An operation under way, or resting until it is done again.
pub(super) struct Op {
    work: Work,
    targets: VecDeque<Place>,
    waiting: usize,
    outcome: Outcome,
    /// Nodes that shall store and did not answer: asked once more when the others are done.
    silent: VecDeque<Place>,
    asked_again: bool,
    best: Option<Item>,
    failure: Option<Failure>,
    told: BTreeSet<SocketAddr>,
    scrape: (u32, u32),
    /// A word's greatest number of records, and where.
    count: Option<(u32, Place)>,
    again: Option<Time>,
}

enum Work {
    Api(Request),
    /// One word of a title or a search.
    Word {
        parent: OpId,
        word: String,
        record: Option<Record>,
    },
    /// A title's words.
    Publish {
        left: usize,
        taken: usize,
    },
    /// A search: first how many records each word has, then the records.
    Search {
        words: Vec<String>,
        most: u8,
        left: usize,
        counts: Vec<(u32, String, Place)>,
    },
}

impl Work {
    fn key(&self) -> Id {
        match self {
            Self::Api(request) => match request {
                Request::Put { item, .. } => item.target(),
                Request::GetImmutable { target } => *target,
                Request::GetMutable { key, salt, .. } | Request::Subscribe { key, salt } => {
                    mutable_target(key, salt)
                }
                Request::Announce { key, .. } | Request::Peers { key } => *key,
            },
            Self::Word { word, .. } => word_key(word),
            Self::Publish { .. } | Self::Search { .. } => Id::default(),
        }
    }

    fn ask(&self) -> Option<Ask> {
        Some(match self {
            Self::Api(Request::Put { item, cas, .. }) => Ask::Put {
                item: item.clone(),
                cas: *cas,
            },
            Self::Api(Request::Announce {
                key, port, seed, ..
            }) => Ask::Announce {
                key: *key,
                port: port.unwrap_or(0),
                seed: *seed,
            },
            Self::Api(Request::Peers { key }) => Ask::Peers { key: *key },
            Self::Api(_) => Ask::Get { target: self.key() },
            Self::Word {
                word,
                record: Some(record),
                ..
            } => Ask::Publish {
                word: word.clone(),
                record: record.clone(),
            },
            Self::Word { word, .. } => Ask::Find {
                words: vec![word.clone()],
                most: 0,
            },
            Self::Publish { .. } | Self::Search { .. } => return None,
        })
    }

    /// How many nodes are asked at once: all that shall store; of those that may have it the first
    /// two, because the newer of two mutable values counts; else one after the other.
    fn fan(&self) -> usize {
        match self {
            Self::Api(Request::GetImmutable { .. } | Request::Peers { .. }) => 1,
            Self::Api(Request::GetMutable { .. }) => 2,
            _ => usize::MAX,
        }
    }

    /// Whether it asks nodes to keep something.
    fn stores(&self) -> bool {
        matches!(
            self,
            Self::Api(Request::Put { .. } | Request::Announce { .. })
                | Self::Word {
                    record: Some(_),
                    ..
                }
        )
    }

    /// How often a kept operation is done again.
    fn period(&self, republish: Duration) -> Option<Duration> {
        match self {
            Self::Api(Request::Put { keep: true, .. }) => Some(republish),
            Self::Api(Request::Announce { keep: true, .. }) => Some(ANNOUNCE_AGAIN),
            _ => None,
        }
    }
}

impl Op {
    fn new(work: Work) -> Self {
        Self {
            work,
            targets: VecDeque::new(),
            waiting: 0,
            outcome: Outcome::default(),
            silent: VecDeque::new(),
            asked_again: false,
            best: None,
            failure: None,
            told: BTreeSet::new(),
            scrape: (0, 0),
            count: None,
            again: None,
        }
    }

    fn satisfied(&self) -> bool {
        self.best.is_some() || !self.told.is_empty()
    }
}

impl Endpoint {
    fn add_op(&mut self, work: Work) -> OpId {
        self.next_op = self.next_op.wrapping_add(1);
        let op = OpId(self.next_op);
        self.ops.insert(op, Op::new(work));
        op
    }

    pub(super) fn begin(&mut self, now: Time, request: Request, out: &mut Vec<Output>) -> OpId {
        let invalid = match &request {
            Request::Put { item, .. } => item.verify().err().map(|e| e.to_string()),
            _ => None,
        };
        let subscribe = matches!(request, Request::Subscribe { .. });
        let work = Work::Api(request);
        let key = work.key();
        let op = self.add_op(work);
        if let Some(why) = invalid {
            self.end(now, op, Err(Failure::Invalid(why)), out);
        } else if subscribe {
            self.ops.remove(&op);
            self.subscribe(now, key, op, out);
        } else {
            self.start(now, op, out);
        }
        op
    }

    /// Keeps `record` under the words of its title. Ends with [`Notice::Published`]; to be done
    /// again within two hours if it shall stay.
    pub fn publish(&mut self, now: Time, record: &Record, out: &mut Vec<Output>) -> OpId {
        let words = words_of(&record.title);
        let parent = self.add_op(Work::Publish {
            left: words.len(),
            taken: 0,
        });
        if words.is_empty() || !record.verify() {
            self.ops.remove(&parent);
            self.notices.push_back(Notice::Published(parent, 0));
            return parent;
        }
        for word in words {
            let record = Some(record.clone());
            let work = Work::Word {
                parent,
                word,
                record,
            };
            let op = self.add_op(work);
            self.start(now, op, out);
        }
        self.settle(now, out);
        parent
    }

    /// Looks for records that have all the words of `query`, at most `most`. Ends with
    /// [`Notice::Found`].
    pub fn find(&mut self, now: Time, query: &str, most: u8, out: &mut Vec<Output>) -> OpId {
        let mut words = words_of(query);
        words.truncate(MAX_WORDS);
        let parent = self.add_op(Work::Search {
            left: words.len(),
            words: words.clone(),
            most,
            counts: Vec::new(),
        });
        if words.is_empty() {
            self.ops.remove(&parent);
            let why = Failure::Invalid("there is no word in it".into());
            self.notices.push_back(Notice::Found(parent, Err(why)));
            return parent;
        }
        for word in words {
            let work = Work::Word {
                parent,
                word,
                record: None,
            };
            let op = self.add_op(work);
            self.start(now, op, out);
        }
        self.settle(now, out);
        parent
    }

    /// Looks an operation's key up.
    fn start(&mut self, now: Time, op: OpId, out: &mut Vec<Output>) {
        let Some(entry) = self.ops.get_mut(&op) else {
            return;
        };
        let key = entry.work.key();
        *entry = Op::new(std::mem::replace(
            &mut entry.work,
            Work::Publish { left: 0, taken: 0 },
        ));
        if !self.is_member() {
            let failure = if self.bootstrap.is_empty() {
                Failure::NoContacts
            } else {
                Failure::Offline(self.bootstrap.len() as u32)
            };
            return self.end(now, op, Err(failure), out);
        }
        let lookup = Lookup {
            // Positions of one process count once, so some more than wanted are asked for.
            replicas: self.settings.replicas.saturating_mul(2).min(12),
            ..Lookup::default()
        };
        // What the position does at once comes before its number is known here.
        let mut outputs = Vec::new();
        let Some(node) = self.nodes.first_mut() else {
            return;
        };
        let number = node.lookup(now, key, lookup, &mut outputs);
        self.lookups.insert((0, number), op);
        for output in outputs {
            self.on_ring(now, 0, output, out);
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
            return self.end(now, op, Err(Failure::Offline(known)), out);
        };
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
                if wanted && newer && item.target() == entry.work.key() && item.verify().is_ok() {
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
                    Ok(records)
                };
                self.ops.remove(&op);
                self.notices.push_back(Notice::Found(op, result));
                return;
            }
            _ => {}
        }
        self.pump(now, op, out);
    }

    /// All were asked.
    fn conclude(&mut self, now: Time, op: OpId, out: &mut Vec<Output>) {
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
            Work::Word { .. } => Ok(outcome),
            Work::Publish { .. } => Ok(outcome),
            Work::Search { .. } => Err(nobody),
        };
        self.end(now, op, result, out);
    }

    /// Tells how an operation ended; a kept one rests.
    fn end(
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
            None | Some((Work::Api(_), _)) => {
                let answer = Answer::Done(result);
                out.push(Output::Answer { op, answer });
            }
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
            Some((Work::Search { .. }, _)) => {
                let failure = result.err().unwrap_or(Failure::NotFound(0));
                self.notices.push_back(Notice::Found(op, Err(failure)));
            }
            Some((Work::Publish { taken, .. }, _)) => {
                self.notices.push_back(Notice::Published(op, taken));
            }
        }
    }

    /// One word of a title or a search is done.
    fn word_ended(
        &mut self,
        now: Time,
        parent: OpId,
        word: String,
        stored: bool,
        count: Option<(u32, Place)>,
        out: &mut Vec<Output>,
    ) {
        let Some(entry) = self.ops.get_mut(&parent) else {
            return;
        };
        match &mut entry.work {
            Work::Publish { left, taken } => {
                *left = left.saturating_sub(1);
                *taken += usize::from(stored);
                if *left == 0 {
                    self.end(now, parent, Ok(Outcome::default()), out);
                }
            }
            Work::Search {
                words,
                most,
                left,
                counts,
            } => {
                *left = left.saturating_sub(1);
                if let Some((count, place)) = count {
                    entry.outcome.answered += 1;
                    counts.push((count, word, place));
                }
                if *left > 0 {
                    return;
                }
                let all = counts.len() == words.len();
                let rarest = counts.iter().min_by_key(|(count, _, _)| *count);
                let Some((count, rarest, place)) = rarest.filter(|_| all) else {
                    return self.conclude(now, parent, out);
                };
                if *count == 0 {
                    return self.conclude(now, parent, out);
                }
                let (rarest, place, most) = (rarest.clone(), *place, *most);
                let mut asked = vec![rarest.clone()];
                asked.extend(words.iter().filter(|w| **w != rarest).cloned());
                entry.waiting = 1;
                let ask = Ask::Find { words: asked, most };
                self.ask(now, place, false, ask, Purpose::Op(parent), out);
            }
            Work::Api(_) | Work::Word { .. } => {}
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
