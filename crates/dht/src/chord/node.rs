//! One node of a ring: its state, its timers and its dispatch. Lookups are in `lookup`, the rules
//! that keep the ring in `maintenance`.

use super::config::Config;
use super::lookup::{Active, Carried};
use super::merge::Lost;
use super::message::{Address, Contact, Message, Output, Route, Want};
use super::ring::RingId;
use super::tables::Tables;
use shoal_base::Time;
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

/// Most queries of others carried at once; more are dropped, and their askers try again.
const MAX_CARRIED: usize = 1024;
/// Most nodes kept in mind as not answering.
const MAX_SUSPECTS: usize = 32;

/// Whether a node takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Standing {
    /// In no ring.
    Outside,
    /// Looking for its place.
    Joining,
    /// Part of a ring, perhaps alone in it.
    Member,
}

/// The protocol core of one ring position. Effects are appended to the `out` that each method
/// takes; the driver delivers messages, calls [`Node::on_tick`] at [`Node::deadline`], and never
/// need know what a message says.
///
/// Small on purpose: with 64-bit identifiers, 32-bit addresses, 20 successors and the distinct
/// fingers of a ring of a million it takes some 800 bytes, heap included, when nothing is under
/// way.
#[derive(Clone, Debug)]
pub struct Node<I, A> {
    pub(super) tables: Tables<I, A>,
    pub(super) config: Arc<Config>,
    pub(super) timers: Timers,
    /// State of a SplitMix64 stream: jitter and numbers that strangers shall not guess.
    random: u64,
    /// The next power to look up.
    pub(super) next_power: u8,
    /// Fills its finger table without pause until it was complete once.
    pub(super) eager: bool,
    pub(super) standing: Standing,
    /// Everything under way; none while nothing is.
    pub(super) busy: Option<Box<Busy<I, A>>>,
    /// Whom it lost; none while it lost nobody.
    pub(super) lost: Option<Box<Lost<I, A>>>,
}

/// When the next step of each kind is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timers {
    pub(super) stabilise: Time,
    pub(super) fingers: Time,
    pub(super) predecessor: Time,
    pub(super) nudge: Time,
}

/// What is under way.
#[derive(Clone, Debug)]
pub(super) struct Busy<I, A> {
    pub(super) requests: Vec<Request<I, A>>,
    pub(super) lookups: Vec<Active<I, A>>,
    pub(super) suspects: SmallVec<[Suspect<A>; 2]>,
    /// Joining: the node to join at, and until when to try.
    pub(super) join: Option<(A, Time)>,
}

/// A message that waits for its answer.
#[derive(Clone, Debug)]
pub(super) struct Request<I, A> {
    pub(super) nonce: u32,
    pub(super) to: A,
    pub(super) due: Time,
    pub(super) sent: u8,
    pub(super) why: Why<I, A>,
}

/// What a request is part of.
#[derive(Clone, Debug)]
pub(super) enum Why<I, A> {
    /// Asked the first successor for its neighbours.
    Stabilise,
    /// Asked a successor's predecessor, which may be a nearer successor, for its neighbours.
    TryPredecessor(Contact<I, A>),
    /// Asked the predecessor whether it lives.
    CheckPredecessor,
    /// Asked the predecessor whether it lives, because this node would be the next.
    Rectify(Contact<I, A>),
    /// Joining: asked the predecessor-to-be for its neighbours.
    JoinAt(Contact<I, A>),
    /// Passed a recursive query on.
    Carry(Box<Carried<I, A>>),
    /// Asked a node of an iterative lookup.
    Ask(Box<super::lookup::Asked<I, A>>),
}

/// A node that did not answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspect<A> {
    pub(super) addr: A,
    pub(super) strikes: u8,
    pub(super) until: Time,
}

impl<I, A> Default for Busy<I, A> {
    fn default() -> Self {
        Self {
            requests: Vec::new(),
            lookups: Vec::new(),
            suspects: SmallVec::new(),
            join: None,
        }
    }
}

impl<I, A> Busy<I, A> {
    fn is_idle(&self) -> bool {
        self.requests.is_empty()
            && self.lookups.is_empty()
            && self.suspects.is_empty()
            && self.join.is_none()
    }
}

impl<I: RingId, A: Address> Node<I, A> {
    /// A node in no ring yet: [`Node::create`] or [`Node::join`] one. `seed` drives its jitter and
    /// the numbers of its exchanges; where strangers may listen it must not be guessable.
    pub fn new(me: Contact<I, A>, config: Arc<Config>, seed: u64) -> Self {
        Self {
            tables: Tables::new(me),
            config,
            timers: Timers {
                stabilise: Time::FAR,
                fingers: Time::FAR,
                predecessor: Time::FAR,
                nudge: Time::FAR,
            },
            random: seed,
            next_power: 0,
            eager: true,
            standing: Standing::Outside,
            busy: None,
            lost: None,
        }
    }

    /// A member with the tables given, however good they are, as if it had been there for long.
    /// `successors` and `fingers` may come in any order and with repetitions; this node itself is
    /// left out of them. More successors than the configuration says are left off.
    pub fn with_tables(
        now: Time,
        me: Contact<I, A>,
        config: Arc<Config>,
        seed: u64,
        predecessor: Option<Contact<I, A>>,
        successors: &[Contact<I, A>],
        fingers: &[Contact<I, A>],
    ) -> Self {
        let mut node = Self::new(me, config, seed);
        node.tables.predecessor = predecessor.filter(|p| p.id != me.id);
        node.tables.successors = sorted_links(me, successors);
        node.tables.successors.truncate(node.config.successors);
        node.tables.successors.shrink_to_fit();
        node.tables.fingers = sorted_links(me, fingers);
        // Of two at distances of the same power only the nearer can be a finger.
        let power = |c: &Contact<I, A>| me.id.distance(c.id).log2();
        node.tables.fingers.dedup_by_key(|c| power(c));
        node.tables.prune_fingers();
        node.tables.fingers.shrink_to_fit();
        node.eager = false;
        node.standing = Standing::Member;
        node.start_timers(now);
        node
    }

    /// Draws the shortcuts that [`super::Route::Shortcuts`] follows.
    pub fn set_shortcuts(&mut self, shortcuts: &[Contact<I, A>]) {
        self.tables.shortcuts = sorted_links(self.tables.me, shortcuts);
    }

    /// Its own contact.
    pub fn me(&self) -> Contact<I, A> {
        self.tables.me
    }

    /// Its settings.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Whether it takes part.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Its predecessor, if it knows one.
    pub fn predecessor(&self) -> Option<Contact<I, A>> {
        self.tables.predecessor
    }

    /// Its successor list, nearest first, without itself.
    pub fn successors(&self) -> &[Contact<I, A>] {
        &self.tables.successors
    }

    /// Its distinct fingers, nearest first. Those that the successor list tells may be missing:
    /// [`Node::finger`] looks into both.
    pub fn fingers(&self) -> &[Contact<I, A>] {
        &self.tables.fingers
    }

    /// Finger `i`, counted from zero: the first node it knows at distance 2^`i` or more; itself
    /// when it knows none.
    pub fn finger(&self, i: u32) -> Contact<I, A> {
        self.tables.finger(i)
    }

    /// Whether it is, as far as it knows, responsible for `key`.
    pub fn owns(&self, key: I) -> bool {
        self.standing == Standing::Member && self.tables.owns(key)
    }

    /// The next hop for a key that is not its own; none if nobody is known.
    pub fn next_hop(&self, key: I, route: Route, want: Want) -> Option<Contact<I, A>> {
        let live = |c: &Contact<I, A>, last| !self.suspected(c.addr, last);
        let hop = self.tables.next_hop(key, route, want, live)?;
        Some(hop.0)
    }

    /// Bytes it takes: itself and its heap, without the configuration that it shares.
    pub fn memory(&self) -> usize {
        let contact = size_of::<Contact<I, A>>();
        let tables = self.tables.successors.capacity()
            + self.tables.fingers.capacity()
            + self.tables.shortcuts.capacity();
        let busy = self.busy.as_ref().map_or(0, |busy| {
            size_of::<Busy<I, A>>()
                + busy.requests.capacity() * size_of::<Request<I, A>>()
                + busy.lookups.capacity() * size_of::<Active<I, A>>()
        });
        let lost = self.lost.as_ref().map_or(0, |lost| size_of_val(&**lost));
        size_of::<Self>() + tables * contact + busy + lost
    }

    /// When it next wants [`Node::on_tick`].
    pub fn deadline(&self) -> Option<Time> {
        let timers = &self.timers;
        let mut first = timers.stabilise.min(timers.fingers).min(timers.predecessor);
        first = first.min(timers.nudge).min(self.merge_due());
        if let Some(busy) = &self.busy {
            let requests = busy.requests.iter().map(|r| r.due);
            let lookups = busy.lookups.iter().map(Active::due);
            let join = busy.join.iter().map(|(_, until)| *until);
            let all = requests.chain(lookups).chain(join);
            first = all.fold(first, Time::min);
        }
        (first < Time::FAR).then_some(first)
    }

    /// Takes a message. `from` is who sent it, which the driver vouches for.
    pub fn on_message(
        &mut self,
        now: Time,
        from: A,
        message: Message<I, A>,
        out: &mut Vec<Output<I, A>>,
    ) {
        self.heard(from);
        match message {
            Message::Query(query) => self.on_query(now, from, query, out),
            Message::Taken { nonce } => {
                self.take_request(from, nonce, |why| matches!(why, Why::Carry(_)));
            }
            Message::Next { nonce, hops, last } => {
                self.on_next(now, from, nonce, &hops, last, out);
            }
            Message::Found { number, found } => self.on_found(now, from, number, found, out),
            Message::GetNeighbours { nonce } => self.on_get_neighbours(from, nonce, out),
            Message::Neighbours {
                nonce,
                predecessor,
                successors,
            } => self.on_neighbours(now, from, nonce, predecessor, &successors, out),
            Message::Notify { id } => self.on_notify(now, Contact::new(id, from), out),
            Message::Ping { nonce } => {
                let message = match self.standing {
                    Standing::Member => Message::Pong { nonce },
                    _ => Message::Gone { nonce },
                };
                out.push(Output::Send { to: from, message });
            }
            Message::Pong { nonce } => {
                self.take_request(from, nonce, |why| {
                    matches!(why, Why::CheckPredecessor | Why::Rectify(_))
                });
            }
            Message::Gone { nonce } => {
                if let Some(at) = self.find_request(|r| r.to == from && r.nonce == nonce) {
                    self.on_silence(now, at, true, out);
                }
            }
            Message::Leaving { id } => self.on_leaving(now, Contact::new(id, from), out),
            Message::Changed { id } => self.on_changed(now, id, out),
            Message::Merge { via } => self.on_merge(now, via, out),
        }
        self.rest();
    }

    /// Does what is due.
    pub fn on_tick(&mut self, now: Time, out: &mut Vec<Output<I, A>>) {
        self.run_timers(now, out);
        while let Some(at) = self.find_request(|r| r.due <= now) {
            self.on_silence(now, at, false, out);
        }
        self.tick_lookups(now, out);
        self.tick_join(now, out);
        self.tick_merge(now, out);
        if let Some(busy) = &mut self.busy {
            busy.suspects.retain(|s| s.until > now);
        }
        self.rest();
    }

    /// The transport says that nobody is at `to`: whatever waits for an answer from there waits no
    /// longer.
    pub fn on_unreachable(&mut self, now: Time, to: A, out: &mut Vec<Output<I, A>>) {
        // One at a time: what each sets off may be sent there again, with a later due time.
        let mut waiting: SmallVec<[u32; 8]> = self
            .busy
            .iter()
            .flat_map(|b| &b.requests)
            .filter(|r| r.to == to)
            .map(|r| r.nonce)
            .collect();
        for nonce in waiting.drain(..) {
            if let Some(at) = self.find_request(|r| r.to == to && r.nonce == nonce) {
                self.on_silence(now, at, true, out);
            }
        }
        self.rest();
    }

    /// The driver asked `addr` something of its own, and nobody answered: it is passed over for a
    /// while.
    pub fn on_silent(&mut self, now: Time, addr: A) {
        self.suspect(now, addr, self.config.attempts.max(1));
    }

    fn find_request(&self, matches: impl Fn(&Request<I, A>) -> bool) -> Option<usize> {
        self.busy.as_ref()?.requests.iter().position(matches)
    }

    /// Nobody answered the request at index `at`: sends it again or gives it up.
    fn on_silence(&mut self, now: Time, at: usize, surely: bool, out: &mut Vec<Output<I, A>>) {
        let attempts = self.config.attempts.max(1);
        let timeout = self.config.timeout;
        let Some(busy) = &mut self.busy else { return };
        let Some(request) = busy.requests.get_mut(at) else {
            return;
        };
        let patient = match &request.why {
            Why::Carry(carried) => carried.last,
            Why::Ask(asked) => asked.patient(),
            _ => true,
        };
        if !surely && patient && request.sent < attempts {
            request.sent += 1;
            request.due = now + timeout;
            let (to, nonce) = (request.to, request.nonce);
            let message = match &request.why {
                Why::Stabilise | Why::TryPredecessor(_) | Why::JoinAt(_) => {
                    Message::GetNeighbours { nonce }
                }
                Why::CheckPredecessor | Why::Rectify(_) => Message::Ping { nonce },
                Why::Carry(carried) => Message::Query(carried.onward(nonce)),
                Why::Ask(asked) => Message::Query(asked.query(nonce)),
            };
            out.push(Output::Send { to, message });
            return;
        }
        let request = busy.requests.swap_remove(at);
        let strikes = if surely { attempts } else { request.sent };
        self.suspect(now, request.to, strikes);
        match request.why {
            Why::Carry(carried) => self.on_carried_lost(now, *carried, out),
            Why::Ask(asked) => self.on_asked_lost(now, &asked, out),
            why => self.on_neighbour_lost(now, request.to, &why, out),
        }
    }

    /// Sends `message(nonce)` and waits for its answer.
    pub(super) fn request(
        &mut self,
        now: Time,
        to: A,
        why: Why<I, A>,
        message: impl FnOnce(u32, &Why<I, A>) -> Message<I, A>,
        out: &mut Vec<Output<I, A>>,
    ) {
        let nonce = self.draw() as u32;
        let message = message(nonce, &why);
        out.push(Output::Send { to, message });
        let due = now + self.config.timeout;
        self.busy().requests.push(Request {
            nonce,
            to,
            due,
            sent: 1,
            why,
        });
    }

    /// Ends the request that this answers, if there is one of that kind.
    pub(super) fn take_request(
        &mut self,
        from: A,
        nonce: u32,
        kind: impl Fn(&Why<I, A>) -> bool,
    ) -> Option<Why<I, A>> {
        let at = self.find_request(|r| r.nonce == nonce && r.to == from && kind(&r.why))?;
        Some(self.busy.as_mut()?.requests.swap_remove(at).why)
    }

    /// Whether a request of this kind is under way.
    pub(super) fn waits_for(&self, kind: impl Fn(&Why<I, A>) -> bool) -> bool {
        self.find_request(|r| kind(&r.why)).is_some()
    }

    pub(super) fn full(&self) -> bool {
        self.busy
            .as_ref()
            .is_some_and(|b| b.requests.len() >= MAX_CARRIED)
    }

    pub(super) fn busy(&mut self) -> &mut Busy<I, A> {
        self.busy.get_or_insert_default()
    }

    /// Gives the memory back when nothing is under way.
    pub(super) fn rest(&mut self) {
        if self.busy.as_ref().is_some_and(|b| b.is_idle()) {
            self.busy = None;
        }
    }

    /// Who speaks lives.
    fn heard(&mut self, from: A) {
        if let Some(busy) = &mut self.busy
            && !busy.suspects.is_empty()
        {
            busy.suspects.retain(|s| s.addr != from);
        }
    }

    /// Notes that `addr` left `strikes` messages unanswered.
    fn suspect(&mut self, now: Time, addr: A, strikes: u8) {
        if self.config.suspicion.is_zero() {
            return;
        }
        let until = now + self.config.suspicion;
        let dead = self.config.attempts.max(1);
        let suspects = &mut self.busy().suspects;
        let strikes = match suspects.iter_mut().find(|s| s.addr == addr) {
            Some(suspect) => {
                suspect.strikes = suspect.strikes.saturating_add(strikes);
                suspect.until = until;
                suspect.strikes
            }
            None => {
                if suspects.len() >= MAX_SUSPECTS {
                    suspects.remove(0);
                }
                suspects.push(Suspect {
                    addr,
                    strikes,
                    until,
                });
                strikes
            }
        };
        if strikes >= dead {
            let finger = self.tables.fingers.iter().find(|f| f.addr == addr);
            if let Some(finger) = finger.copied() {
                self.tables.fingers.retain(|f| f.addr != addr);
                self.remember(now, finger);
            }
        }
    }

    /// Whether `addr` is passed over: as the owner only when it surely is dead, since any other
    /// node than the owner would be wrong; on the way already after one message was lost.
    pub(super) fn suspected(&self, addr: A, as_owner: bool) -> bool {
        let enough = if as_owner {
            self.config.attempts.max(1)
        } else {
            1
        };
        self.busy.as_ref().is_some_and(|b| {
            b.suspects
                .iter()
                .any(|s| s.addr == addr && s.strikes >= enough)
        })
    }

    /// 64 random bits (SplitMix64).
    pub(super) fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Uniformly from half to one and a half `period` after `now`; never without a period.
    pub(super) fn jittered(&mut self, now: Time, period: Option<Duration>) -> Time {
        let Some(period) = period else {
            return Time::FAR;
        };
        let micros = u64::try_from(period.as_micros()).unwrap_or(u64::MAX).max(1);
        now + Duration::from_micros(micros / 2 + self.draw() % micros)
    }
}

/// Sorted by distance, each once, without `me`.
fn sorted_links<I: RingId, A: Address>(
    me: Contact<I, A>,
    links: &[Contact<I, A>],
) -> Vec<Contact<I, A>> {
    let mut sorted: Vec<_> = links.iter().copied().filter(|c| c.id != me.id).collect();
    sorted.sort_by_key(|c| me.id.distance(c.id));
    sorted.dedup_by_key(|c| c.id);
    sorted
}
