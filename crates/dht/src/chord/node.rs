//! One node of a ring: its state, its timers and its dispatch. Lookups are in `lookup`, the rules
//! that keep the ring in `maintenance`.

mod requests;

use super::config::Config;
use super::lookup::Active;
use super::merge::Lost;
use super::message::{Address, Contact, Message, Output, Route, Want};
use super::ring::RingId;
use super::tables::Tables;
pub(super) use requests::{Request, Suspect, Why};
use shoal_base::Time;
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

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

    pub(super) fn busy(&mut self) -> &mut Busy<I, A> {
        self.busy.get_or_insert_default()
    }

    /// Gives the memory back when nothing is under way.
    pub(super) fn rest(&mut self) {
        if self.busy.as_ref().is_some_and(|b| b.is_idle()) {
            self.busy = None;
        }
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
