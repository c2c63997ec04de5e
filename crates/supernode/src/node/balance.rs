//! Supernodes among themselves: children go where there is more room, and who is slow, cannot be
//! reached, or is one too many becomes a peer again.
//!
//! Neighbours tell each other how loaded they are and for how long they have been supernodes, and
//! measure each other as they measure children. What one neighbour says decides nothing alone.

use std::time::Duration;

use shoal_base::Time;

use super::links::Stage;
use super::{Effect, LinkId, Node};
use crate::Address;
use crate::list::Entry;
use crate::wire::{Message, Purpose};

/// How often children are sent away, and how many at once at most.
const BALANCE: Duration = Duration::from_secs(5);
const MOST: usize = 10;
/// How long a child stays before it is sent away.
const SETTLED: Duration = Duration::from_secs(5);
/// How long a move may take.
const MOVING: Duration = Duration::from_secs(10);
/// Change of the load, in percent, that is told at once.
const CHANGE: u8 = 10;
/// Measurements of others that are remembered.
pub(super) const MAX_REPORTS: usize = 64;
/// Neighbours that must have measured before it counts.
const QUORUM: usize = 2;
/// Loads at which a supernode is one too many: its own, and those of its neighbours.
const SPARE_LOAD: u8 = 10;
const ROOM: u8 = 25;

/// What a neighbour says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    load: u8,
    /// For how long it had been a supernode then.
    uptime: Duration,
    at: Time,
    /// Whether it stands in the ring of supernodes.
    pub(super) finds: bool,
}

impl<A: Address> Node<A> {
    /// Tells neighbours how it stands, when that is due or has changed much.
    pub(super) fn tell_state(&mut self, due: bool) {
        let load = self.load();
        if !due && load.abs_diff(self.told_load) < CHANGE {
            return;
        }
        self.told_load = load;
        for id in self.of_stage(Stage::Neighbour) {
            self.tell_state_to(id);
        }
    }

    /// Tells a neighbour how it stands.
    pub(super) fn tell_state_to(&mut self, id: LinkId) {
        let load = self.load();
        let uptime = self.now.since(self.role_since).as_secs();
        let uptime = u32::try_from(uptime).unwrap_or(u32::MAX);
        let finds = self.finds;
        let state = Message::State {
            load,
            uptime,
            finds,
        };
        self.send(id, state);
    }

    pub(super) fn state_of(&mut self, id: LinkId, load: u8, uptime: u32, finds: bool) {
        let (uptime, at) = (Duration::from_secs(uptime.into()), self.now);
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let load = load.min(100);
        link.state = Some(State {
            load,
            uptime,
            at,
            finds,
        });
        let candidate = link.addr().and_then(|a| self.candidates.get_mut(&a));
        if let Some(candidate) = candidate {
            candidate.set_load(load);
        }
    }

    /// Sends some children to the neighbour with the most room, if that has much more.
    pub(super) fn balance(&mut self) {
        if self.now < self.next_balance {
            return;
        }
        self.next_balance = self.now + BALANCE;
        let load = self.load();
        let states = self
            .links
            .iter()
            .filter(|(_, l)| l.stage == Stage::Neighbour);
        let known = states.filter_map(|(id, l)| Some((l.state?.load, *id, l.addr()?)));
        let Some((theirs, id, addr)) = known.min_by_key(|(load, id, _)| (*load, *id)) else {
            return;
        };
        let more = load.saturating_sub(theirs);
        if more < self.config.balance_at {
            return;
        }
        let all = self.config.max_children;
        let fair = (all * usize::from(more) / 400).clamp(1, MOST);
        let now = self.now;
        let mut children = self.of_stage(Stage::Child);
        children.retain(|id| {
            let link = self.links.get(id);
            link.is_some_and(|l| now.since(l.since) >= SETTLED && l.promoted.is_none())
        });
        self.rng.shuffle(&mut children);
        let mut gone = 0;
        for child in children.into_iter().take(fair) {
            let (load, age) = (theirs, 0);
            self.send(child, Message::Move(vec![Entry { addr, load, age }]));
            gone += 1;
        }
        // Until it says how it stands then.
        if let Some(state) = self.links.get_mut(&id).and_then(|l| l.state.as_mut()) {
            let added = u8::try_from(gone * 100 / all.max(1)).unwrap_or(100);
            state.load = state.load.saturating_add(added).min(100);
        }
    }

    /// Our supernode sends us to another: we stay until that has let us in.
    pub(super) fn moved(&mut self, entries: &[Entry<A>]) {
        self.learn(entries);
        let now = self.now;
        let under_way = self.moving.is_some_and(|(_, at)| now.since(at) < MOVING);
        let Some(addr) = entries.first().map(|e| e.addr).filter(|_| !under_way) else {
            return;
        };
        let busy = self.dialling.contains_key(&addr)
            || addr == self.presence.links
            || self.home() == Some(addr);
        if !busy {
            self.moving = Some((addr, now));
            self.dialling.insert(addr, (Purpose::Child, now));
            self.out.push(Effect::Dial(addr));
        }
    }

    pub(super) fn is_moving_to(&self, dialled: Option<A>) -> bool {
        self.moving.is_some_and(|(to, _)| Some(to) == dialled)
    }

    /// The other supernode lets us in: the old one is left, as all others that were dialled.
    pub(super) fn move_home(&mut self, id: LinkId) {
        self.moving = None;
        self.come_home(id);
    }

    /// Measures a neighbour now and then.
    pub(super) fn measure_neighbours(&mut self) {
        if self.now < self.next_check {
            return;
        }
        // Nodes that started at once do not stay in step.
        let wait = self.config.check_every.mul_f64(0.5 + self.rng.unit());
        self.next_check = self.now + wait;
        let mut neighbours = self.of_stage(Stage::Neighbour);
        self.rng.shuffle(&mut neighbours);
        let addr = neighbours.first().and_then(|id| self.links.get(id)?.addr());
        if let Some(addr) = addr.filter(|a| !self.dialling.contains_key(a)) {
            self.dialling.insert(addr, (Purpose::Probe, self.now));
            self.out.push(Effect::Dial(addr));
        }
    }

    /// A neighbour says what it measured of us.
    pub(super) fn measured_by(&mut self, id: LinkId, rate: u64) {
        let now = self.now;
        let old = self.config.check_every * 6;
        self.measured.retain(|_, (_, at)| now.since(*at) < old);
        let key = self.links.get(&id).and_then(|l| l.theirs.as_ref());
        if let Some(key) = key.map(|p| p.token.key)
            && (self.measured.len() < MAX_REPORTS || self.measured.contains_key(&key))
        {
            self.measured.insert(key, (rate, now));
        }
    }

    /// Whether most neighbours that measured found it slower than a supernode is to be.
    pub(super) fn is_slow(&self) -> bool {
        if self.measured.len() < QUORUM {
            return false;
        }
        let mut rates: Vec<u64> = self.measured.values().map(|(rate, _)| *rate).collect();
        rates.sort_unstable();
        let middle = rates.get(rates.len() / 2);
        middle.is_some_and(|rate| *rate < self.config.min_bandwidth)
    }

    /// Whether it has little to do, all its neighbours have room, and it is the youngest of them.
    pub(super) fn is_one_too_many(&self) -> bool {
        let (now, own) = (self.now, self.now.since(self.role_since));
        if own < self.config.idle || self.load() > SPARE_LOAD {
            return false;
        }
        let older = |s: State| s.load <= ROOM && s.uptime + now.since(s.at) > own;
        let mut neighbours = self.links.values().filter(|l| l.stage == Stage::Neighbour);
        self.count(Stage::Neighbour) > 1 && neighbours.all(|l| l.state.is_some_and(older))
    }
}
