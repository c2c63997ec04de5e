//! Dynamic queries (Dynamic Query 0.1): an ultrapeer asks few neighbours first, and then others one
//! by one with a TTL that follows from what came so far, until there is enough.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shoal_base::Time;
use smallvec::SmallVec;

use super::{ConnId, Effect, Node, Relation};
use crate::guid::Guid;
use crate::message::vendor::{ENOUGH, Vendor};
use crate::message::{Header, Kind, Packet};
use crate::qrp::Probe;
use crate::shared::Shared;

/// Neighbours that the probe goes to (§2.5.1).
const PROBES: usize = 3;
/// TTL of the probe.
const PROBE_TTL: u8 = 2;
/// How long answers are waited for, a hop (§2.5.2.3).
const PER_HOP: Duration = Duration::from_millis(2400);
/// How much less each time, once a query went far and found little.
const FASTER: Duration = Duration::from_millis(100);
/// The least.
const LEAST: Duration = Duration::from_millis(500);
/// What "far" and "little" are: ultrapeers reached in theory, and results.
const FAR: (u32, u32) = (3000, 10);
/// Ultrapeers reached in theory after which a query ends (§2.2).
const HORIZON: u32 = 200_000;
/// How long a query goes on at most.
const LIFETIME: Duration = Duration::from_secs(600);
/// A leaf that guides its query is asked after so many steps, if there are so many new results.
const GUIDANCE: (u32, u32) = (3, 20);
/// How long its answer is waited for (Leaf Guidance).
const PATIENCE: Duration = Duration::from_secs(10);
/// Dynamic queries at once, and of one leaf.
const MOST: usize = 2000;
const MOST_OF_ONE: usize = 10;

/// Neighbours that were asked, with the TTL.
type Asked = SmallVec<[(ConnId, u8); 4]>;

#[derive(Debug)]
struct Dynamic {
    payload: Box<[u8]>,
    probe: Probe,
    asker: Asker,
    results: u32,
    /// Results that the leaf says it kept, of how many that had come then.
    kept: Option<(u32, u32)>,
    asked_status: bool,
    horizon: u32,
    asked: Asked,
    steps: u32,
    per_hop: Duration,
    started: Time,
    next: Time,
}

/// For whom a query is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    /// The leaf; none for ourselves.
    pub(super) conn: Option<ConnId>,
    /// It says how many results it kept when it is asked.
    pub(super) guided: bool,
    /// Results that are enough.
    pub(super) wanted: u32,
}

/// The dynamic queries under way.
#[derive(Debug, Default)]
pub(super) struct Dynamics {
    all: BTreeMap<Guid, Dynamic>,
    agenda: BTreeSet<(Time, Guid)>,
}

impl Dynamics {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.agenda.first().map(|(at, _)| *at)
    }

    pub(super) fn remove(&mut self, guid: Guid) {
        if let Some(query) = self.all.remove(&guid) {
            self.agenda.remove(&(query.next, guid));
        }
    }

    /// A neighbour is gone, and its queries with it.
    pub(super) fn forget(&mut self, id: ConnId) {
        let orphans: Vec<Guid> = self
            .all
            .iter()
            .filter(|(_, q)| q.asker.conn == Some(id))
            .map(|(guid, _)| *guid)
            .collect();
        for guid in orphans {
            self.remove(guid);
        }
    }
}

/// Ultrapeers that a query of this TTL reaches in theory through a neighbour of this degree
/// (§2.5.2.2).
fn reached(degree: u8, ttl: u8) -> u32 {
    let others = u32::from(degree.saturating_sub(1));
    (0..ttl)
        .fold((0_u32, 1_u32), |(sum, ring), _| {
            (sum.saturating_add(ring), ring.saturating_mul(others))
        })
        .0
}

impl Dynamic {
    /// Results that count: those the leaf kept, and those that came since.
    fn count(&self) -> u32 {
        match self.kept {
            Some((kept, of)) => kept + self.results.saturating_sub(of),
            None => self.results,
        }
    }

    /// The TTL for a neighbour of this degree when `left` have not been asked (§2.5.2.1).
    fn ttl(&self, degree: u8, most: u8, left: usize) -> u8 {
        let (count, horizon) = (self.count(), self.horizon);
        if count == 0 || horizon == 0 {
            return most;
        }
        let needed = u64::from(self.asker.wanted.saturating_sub(count));
        let hosts = needed * u64::from(horizon) / u64::from(count);
        let each = hosts / left.max(1) as u64;
        (1..most)
            .find(|ttl| u64::from(reached(degree, *ttl)) >= each)
            .unwrap_or(most)
    }
}

impl<S: Shared> Node<S> {
    /// Begins a query for a leaf, or of our own.
    pub(super) fn start_query(
        &mut self,
        now: Time,
        guid: Guid,
        payload: &[u8],
        probe: Probe,
        asker: Asker,
    ) {
        let all = self.dynamics.all.iter();
        let of_asker = all.filter(|(_, q)| q.asker.conn == asker.conn);
        let mut oldest: Vec<(Time, Guid)> = of_asker.map(|(g, q)| (q.started, *g)).collect();
        if oldest.len() >= MOST_OF_ONE {
            oldest.sort_unstable();
            if let Some((_, first)) = oldest.first() {
                self.dynamics.remove(*first);
            }
        }
        if self.dynamics.len() >= MOST {
            return;
        }
        let query = Dynamic {
            payload: payload.into(),
            probe,
            asker,
            results: 0,
            kept: None,
            asked_status: false,
            horizon: 0,
            asked: Asked::new(),
            steps: 0,
            per_hop: PER_HOP,
            started: now,
            next: now,
        };
        self.dynamics.all.insert(guid, query);
        self.dynamics.agenda.insert((now, guid));
    }

    /// Results came.
    pub(super) fn count_results(&mut self, guid: Guid, count: u32) {
        if let Some(query) = self.dynamics.all.get_mut(&guid) {
            query.results = query.results.saturating_add(count);
        }
    }

    /// A leaf says how many results it kept.
    pub(super) fn on_status(&mut self, now: Time, id: ConnId, guid: Guid, kept: u16) {
        let Some(query) = self.dynamics.all.get_mut(&guid) else {
            return;
        };
        if query.asker.conn != Some(id) {
            return;
        }
        if kept == ENOUGH {
            return self.dynamics.remove(guid);
        }
        query.kept = Some((u32::from(kept), query.results));
        if std::mem::take(&mut query.asked_status) {
            self.dynamics.agenda.remove(&(query.next, guid));
            query.next = now;
            self.dynamics.agenda.insert((now, guid));
        }
    }

    /// Goes on with all queries whose time has come.
    pub(super) fn step_queries(&mut self, now: Time, out: &mut Vec<Effect>) {
        while let Some((at, guid)) = self.dynamics.agenda.first().copied()
            && at <= now
        {
            self.dynamics.agenda.pop_first();
            let Some(mut query) = self.dynamics.all.remove(&guid) else {
                continue;
            };
            match self.step(now, guid, &mut query, out) {
                Some(wait) => {
                    query.next = now + wait;
                    self.dynamics.agenda.insert((query.next, guid));
                    self.dynamics.all.insert(guid, query);
                }
                None if query.asker.conn.is_none() => out.push(Effect::Searched(guid)),
                None => {}
            }
        }
    }

    /// One step; how long to wait before the next, none at the end.
    fn step(
        &mut self,
        now: Time,
        guid: Guid,
        query: &mut Dynamic,
        out: &mut Vec<Effect>,
    ) -> Option<Duration> {
        let over = query.count() >= query.asker.wanted
            || query.horizon >= HORIZON
            || now.since(query.started) >= LIFETIME;
        // A leaf that did not say how many it kept has lost interest (Leaf Guidance).
        if over || query.asked_status {
            return None;
        }
        let (every, new) = GUIDANCE;
        if let Some(leaf) = query.asker.conn.filter(|_| query.asker.guided) {
            let since = query.results - query.kept.map_or(0, |(_, of)| of);
            if query.steps > 0 && query.steps.is_multiple_of(every) && since >= new {
                query.asked_status = true;
                query.steps += 1;
                self.send_vendor(leaf, guid, &Vendor::StatusRequest, out);
                return Some(PATIENCE);
            }
        }
        let left = self.unasked(query);
        if query.steps == 0 {
            query.steps = 1;
            // Those whose tables have the words first: they surely know of something.
            let mut probes: Vec<(bool, u32, ConnId)> = left
                .iter()
                .map(|(id, hit)| (!hit, self.rng.next_u32(), *id))
                .collect();
            probes.sort_unstable();
            let mut sent = 0;
            for (_, _, id) in probes.into_iter().take(PROBES) {
                self.ask(guid, query, id, PROBE_TTL, out);
                sent += 1;
            }
            // One second more for each that was asked (§2.5.2.3).
            let wait = query.per_hop * u32::from(PROBE_TTL) + Duration::from_secs(1) * sent;
            return (sent > 0).then_some(wait);
        }
        query.steps += 1;
        let (ids, again): (Vec<ConnId>, bool) = if left.is_empty() {
            (self.askable_again(query), true)
        } else {
            (left.iter().map(|(id, _)| *id).collect(), false)
        };
        // The one for whom least waits: the others are busy.
        let least = |id: &ConnId| (self.waiting(*id), id.slot());
        let id = ids.iter().copied().min_by_key(least)?;
        let link = self.link(id)?;
        let most = link.max_ttl.min(self.config.ttl);
        let ttl = match again {
            true => most,
            false => query.ttl(link.degree, most, ids.len()),
        };
        let (far, little) = FAR;
        if query.horizon >= far && query.count() < little {
            query.per_hop = query.per_hop.saturating_sub(FASTER).max(LEAST);
        }
        self.ask(guid, query, id, ttl, out);
        Some(query.per_hop * u32::from(ttl))
    }

    /// Ultrapeers that the query did not go to, and whether their tables have its words.
    fn unasked(&self, query: &Dynamic) -> Vec<(ConnId, bool)> {
        self.links()
            .filter(|l| l.relation == Relation::Peer && !l.closing)
            .filter(|l| query.asked.iter().all(|(id, _)| *id != l.id))
            .map(|l| {
                let table = l.table.table();
                (l.id, table.is_some_and(|t| t.may_answer(&query.probe)))
            })
            .collect()
    }

    /// Ultrapeers that only had the probe, once all were asked: they pass a higher TTL on.
    fn askable_again(&self, query: &Dynamic) -> Vec<ConnId> {
        let further = query.asked.iter().filter(|(id, ttl)| {
            let link = self.link(*id);
            link.is_some_and(|l| *ttl < l.max_ttl.min(self.config.ttl))
        });
        further.map(|(id, _)| *id).collect()
    }

    fn ask(&mut self, guid: Guid, query: &mut Dynamic, id: ConnId, ttl: u8, out: &mut Vec<Effect>) {
        let Some(link) = self.link(id) else {
            return;
        };
        query.horizon = query.horizon.saturating_add(reached(link.degree, ttl));
        match query.asked.iter_mut().find(|(asked, _)| *asked == id) {
            Some((_, before)) => *before = ttl,
            None => query.asked.push((id, ttl)),
        }
        let header = Header {
            guid,
            kind: Kind::Query.byte(),
            ttl,
            // A leaf's query took one hop to us.
            hops: u8::from(query.asker.conn.is_some()),
            len: 0,
        };
        self.send(id, Packet::new(header, &query.payload), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_horizon_is_the_documents() {
        assert_eq!(reached(32, 3), 1 + 31 + 31 * 31);
        assert_eq!(reached(6, 7), 1 + 5 + 25 + 125 + 625 + 3125 + 15625);
        assert_eq!(reached(1, 4), 1);
        assert_eq!(reached(255, 7), u32::MAX);
    }
}
