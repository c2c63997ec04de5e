//! Who uploads go to: slots, and the queue before them (PARQ 1.1). Places are kept for downloaders
//! that know of queues, actively or by the older protocol, and, silently, for those that do not.
//!
//! A downloader is let in when fewer wait before it than there are free slots: who comes late or
//! knows how to ask often gains nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use shoal_base::time::earliest;
use shoal_base::{Rng, Time};

use super::queue::Queueing;
use crate::guid::Guid;
use crate::huge::Sha1;

/// Seconds for which a place outlives a lost connection, and a silent one its last request (PARQ §4, §5).
const KEEP: Duration = Duration::from_secs(300);
/// How much earlier than told a poll may come: clocks of others are rounded to seconds.
const TOLERANCE: Duration = Duration::from_millis(1500);
/// Calls that are made for a place before it is given up (PARQ §4).
const MAX_CALLS: u8 = 2;
/// How long a call gives the downloader to come.
const CALL_GRACE: Duration = Duration::from_secs(60);
/// Seconds of a poll interval from the 20th place on (PARQ §4).
const FAR_POLL: Duration = Duration::from_secs(600);

/// Bounds of a queue.
#[derive(Debug, Clone)]
pub struct QueueConfig {
    /// Uploads at once.
    pub slots: u32,
    /// Uploads at once to one host.
    pub per_host: u32,
    /// Places in all.
    pub max_places: usize,
    /// Places of one host.
    pub max_places_per_host: usize,
    /// Places up to which connections are kept open (PARQ's Sq).
    pub synchronous: u32,
    /// The poll interval at the first place; PARQ says 30 s.
    pub poll: Duration,
    /// What each place more adds to it; PARQ says 20 s.
    pub poll_step: Duration,
    /// What an upload is expected to bring in a second, for the time told: bytes.
    pub rate: u64,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            slots: 4,
            per_host: 2,
            max_places: 2000,
            max_places_per_host: 20,
            synchronous: 50,
            poll: Duration::from_secs(30),
            poll_step: Duration::from_secs(20),
            rate: 1 << 20,
        }
    }
}

/// Who asks for a slot, and how.
#[derive(Debug, Clone)]
pub struct Asker {
    /// From where.
    pub ip: IpAddr,
    /// Its connection, for the older protocol and for places that outlive connections.
    pub connection: u64,
    /// What it understands.
    pub queueing: Queueing,
    /// The place it says it has.
    pub id: Option<Guid>,
    /// Where it can be called.
    pub node: Option<SocketAddr>,
    /// For which file.
    pub sha1: Sha1,
    /// Bytes it wants.
    pub bytes: u64,
}

/// A place in the queue, as it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Names it.
    pub id: Guid,
    /// From one.
    pub position: u32,
    /// Places there are.
    pub length: u32,
    /// When a slot may be free.
    pub eta: Duration,
    /// Before this the downloader must not ask again.
    pub retry_after: Duration,
    /// For this long the place is kept.
    pub lifetime: Duration,
    /// Whether the connection is to be kept.
    pub keep: bool,
    /// How to tell it.
    pub queueing: Queueing,
}

/// What an asker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Go ahead.
    Granted,
    /// Wait.
    Queued(Place),
    /// No place is left: come again after this.
    Full(Duration),
}

/// A call that is due: `QUEUE` to this address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Whom.
    pub node: SocketAddr,
    /// About which place.
    pub id: Guid,
}

#[derive(Debug)]
struct Waiting {
    id: Guid,
    ip: IpAddr,
    queueing: Queueing,
    node: Option<SocketAddr>,
    sha1: Sha1,
    bytes: u64,
    /// The connection it holds, if it does.
    connection: Option<u64>,
    not_before: Time,
    expires: Time,
    calls: u8,
}

/// Slots and the queue before them.
#[derive(Debug)]
pub struct Queue {
    config: QueueConfig,
    /// In the order they came.
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
    /// Connections that upload, and to whom.
    running: BTreeMap<u64, IpAddr>,
}

impl Queue {
    /// An empty one.
    pub fn new(config: QueueConfig) -> Self {
        Self {
            config,
            waiting: BTreeMap::new(),
            next: 0,
            running: BTreeMap::new(),
        }
    }

    /// Uploads at work.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Places taken.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn free(&self) -> usize {
        (self.config.slots as usize).saturating_sub(self.running.len())
    }

    fn may_have_more(&self, ip: IpAddr) -> bool {
        let has = self
            .running
            .values()
            .filter(|running| **running == ip)
            .count();
        has < self.config.per_host as usize
    }

    /// A connection asks to upload to it.
    pub fn ask(&mut self, now: Time, rng: &mut Rng, asker: &Asker) -> Answer {
        self.expire(now);
        if self.running.contains_key(&asker.connection) {
            return Answer::Granted;
        }
        let mut order = self.place_of(asker);
        if let Some(at) = order
            && let Some(place) = self.waiting.get(&at)
            && place.queueing != Queueing::None
            && now + TOLERANCE < place.not_before
        {
            // Too early: it goes to the end (PARQ §4: "will cause the slot to be freed").
            self.waiting.remove(&at);
            order = None;
        }
        let ahead = self.waiting.range(..order.unwrap_or(u64::MAX));
        // Who has all that one host may have holds up nobody else.
        let ahead = ahead.filter(|(_, w)| self.may_have_more(w.ip)).count();
        if ahead < self.free() && self.may_have_more(asker.ip) {
            if let Some(order) = order {
                self.waiting.remove(&order);
            }
            self.running.insert(asker.connection, asker.ip);
            return Answer::Granted;
        }
        let order = match order {
            Some(order) => order,
            None => {
                let of_host = self.waiting.values().filter(|w| w.ip == asker.ip).count();
                if self.waiting.len() >= self.config.max_places
                    || of_host >= self.config.max_places_per_host
                {
                    return Answer::Full(FAR_POLL);
                }
                let order = self.next;
                self.next += 1;
                let new = Waiting {
                    id: Guid::random(rng),
                    ip: asker.ip,
                    queueing: asker.queueing,
                    node: None,
                    sha1: asker.sha1,
                    bytes: asker.bytes,
                    connection: None,
                    not_before: now,
                    expires: now,
                    calls: 0,
                };
                self.waiting.insert(order, new);
                order
            }
        };
        let place = self.place(order, asker.queueing);
        if let Some(waiting) = self.waiting.get_mut(&order) {
            waiting.queueing = asker.queueing;
            waiting.node = asker.node.or(waiting.node);
            waiting.sha1 = asker.sha1;
            waiting.bytes = asker.bytes;
            waiting.connection = place.keep.then_some(asker.connection);
            waiting.not_before = now + place.retry_after;
            waiting.expires = now + place.lifetime;
            waiting.calls = 0;
        }
        Answer::Queued(place)
    }

    /// The place that is meant: by its name, else by connection, else, for who knows nothing of
    /// queues, by host and file.
    fn place_of(&self, asker: &Asker) -> Option<u64> {
        let find = |f: &dyn Fn(&Waiting) -> bool| {
            let found = self.waiting.iter().find(|(_, w)| f(w));
            found.map(|(order, _)| *order)
        };
        match (asker.queueing, asker.id) {
            // A name is not enough: it must be the same host's.
            (_, Some(id)) => find(&|w| w.id == id && w.ip == asker.ip),
            (Queueing::None, None) => {
                find(&|w| w.queueing == Queueing::None && w.ip == asker.ip && w.sha1 == asker.sha1)
            }
            (_, None) => find(&|w| w.connection == Some(asker.connection)),
        }
    }

    fn place(&self, order: u64, queueing: Queueing) -> Place {
        let before = self.waiting.range(..order);
        let ahead: u64 = before.clone().map(|(_, w)| w.bytes).sum();
        let position = before.count() as u32 + 1;
        let steps = position - 1;
        let retry_after = if position < 20 {
            self.config.poll + self.config.poll_step * steps
        } else {
            FAR_POLL.max(self.config.poll)
        };
        let keep = queueing == Queueing::Legacy
            || queueing == Queueing::Parq && position <= self.config.synchronous;
        let lifetime = match queueing {
            Queueing::None => KEEP.max(retry_after + KEEP / 5),
            // The place lives by the connection alone.
            Queueing::Legacy => retry_after * 2 + CALL_GRACE,
            Queueing::Parq => retry_after + KEEP,
        };
        let id = self.waiting.get(&order).map_or(Guid::default(), |w| w.id);
        Place {
            id,
            position,
            length: self.waiting.len() as u32,
            eta: Duration::from_secs(ahead / self.config.rate.max(1)),
            retry_after,
            lifetime,
            keep,
            queueing,
        }
    }

    /// A connection is gone, or does not upload any more. Calls that are due now are appended.
    pub fn release(&mut self, now: Time, connection: u64, calls: &mut Vec<Call>) {
        self.waiting.retain(|_, w| {
            if w.connection != Some(connection) {
                return true;
            }
            w.connection = None;
            w.expires = w.expires.min(now + KEEP);
            w.queueing != Queueing::Legacy
        });
        if self.running.remove(&connection).is_some() {
            self.call_first(now, calls);
        }
    }

    /// Calls those whose turn it is and who hold no connection.
    fn call_first(&mut self, now: Time, calls: &mut Vec<Call>) {
        let mut first = self
            .waiting
            .iter()
            .filter(|(_, w)| self.may_have_more(w.ip));
        let first: Vec<u64> = first
            .by_ref()
            .take(self.free())
            .map(|(order, _)| *order)
            .collect();
        for order in first {
            if let Some(waiting) = self.waiting.get_mut(&order)
                && waiting.connection.is_none()
                && waiting.calls == 0
            {
                call(now, waiting, calls);
            }
        }
    }

    fn expire(&mut self, now: Time) {
        self.waiting
            .retain(|_, w| now < w.expires || w.node.is_some() && w.calls < MAX_CALLS);
    }

    /// When [`Self::tick`] is next wanted.
    pub fn deadline(&self) -> Option<Time> {
        let expiries = self.waiting.values().map(|w| Some(w.expires));
        expiries.fold(None, earliest)
    }

    /// Gives up places whose time is over; who left an address is called first. Calls that are due
    /// are appended.
    pub fn tick(&mut self, now: Time, calls: &mut Vec<Call>) {
        self.expire(now);
        for waiting in self.waiting.values_mut().filter(|w| w.expires <= now) {
            call(now, waiting, calls);
        }
        // Those who gave up may have been before others.
        self.call_first(now, calls);
    }
}

fn call(now: Time, waiting: &mut Waiting, calls: &mut Vec<Call>) {
    if let Some(node) = waiting.node {
        waiting.calls += 1;
        // Who is called may come at once.
        waiting.not_before = now;
        waiting.expires = now + CALL_GRACE;
        calls.push(Call {
            node,
            id: waiting.id,
        });
    }
}

#[cfg(test)]
mod tests;
