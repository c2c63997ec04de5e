//! The real Chord core in the world: its nodes as processes, rings built whole, and the checker
//! that knows the truth.

pub mod chord;
pub mod churn;
pub mod faults;
pub mod load;
pub mod lookups;
pub mod ring;
pub mod shortcuts;

use crate::world::{Context, Process, World};
use crate::{Direct, Links, rng_for};
use shoal_base::{Rng, Time};
use shoal_dht::chord::{
    Config, Contact, Found, JoinError, LookupError, Message, Node, Output, Point, RingId, Standing,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Identifiers of simulated rings. 64 bits are enough to keep millions apart.
pub type Key = Point<64>;
/// A node as others know it: its place on the circle and its number in the world.
pub type Member = Contact<Key, u32>;

/// What a peer tells the experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A lookup has ended.
    Lookup(u32, Result<Box<Found<Key, u32>>, LookupError>),
    /// Joining has ended.
    Joined(Result<(), JoinError>),
    /// It lost everybody it knew.
    Alone,
}

/// Where cores put their effects; one for all peers of a world.
type Scratch = Rc<RefCell<Vec<Output<Key, u32>>>>;

/// A Chord node in the world.
pub struct Peer {
    /// The core.
    pub node: Node<Key, u32>,
    scratch: Scratch,
}

impl Peer {
    /// Has the core do something and carries its effects out.
    pub fn act<R>(
        &mut self,
        ctx: &mut Context<'_, Self>,
        act: impl FnOnce(&mut Node<Key, u32>, Time, &mut Vec<Output<Key, u32>>) -> R,
    ) -> R {
        let mut out = self.scratch.take();
        let result = act(&mut self.node, ctx.now(), &mut out);
        for output in out.drain(..) {
            match output {
                Output::Send { to, message } => {
                    let bytes = wire_size(&message);
                    ctx.send(to, message, bytes);
                }
                Output::Lookup { number, result } => ctx.tell(Said::Lookup(number, result)),
                Output::Joined(result) => ctx.tell(Said::Joined(result)),
                Output::Alone => ctx.tell(Said::Alone),
                Output::Predecessor(_) | Output::Successors => {}
            }
        }
        self.scratch.replace(out);
        result
    }
}

/// About what a message takes on the wire: headers and fixed fields, and each contact with a
/// 160-bit identifier and an address.
fn wire_size(message: &Message<Key, u32>) -> u32 {
    let contacts = match message {
        Message::Query(query) => 2 + query.trace.as_ref().map_or(0, |t| t.len()),
        Message::Next { hops, .. } => hops.len(),
        Message::Found { found, .. } => 2 + found.replicas.len() + found.path.len(),
        Message::Neighbours { successors, .. } => 1 + successors.len(),
        Message::Leaving { .. } | Message::Changed { .. } => 1,
        Message::Merge { .. } => 1,
        _ => 0,
    };
    40 + 26 * contacts as u32
}

impl Process for Peer {
    type Space = Direct;
    type Message = Message<Key, u32>;
    type Event = Said;

    fn on_start(&mut self, _ctx: &mut Context<'_, Self>) {}

    fn on_message(&mut self, ctx: &mut Context<'_, Self>, from: u32, message: Self::Message) {
        self.act(ctx, |node, now, out| {
            node.on_message(now, from, message, out);
        });
    }

    fn on_tick(&mut self, ctx: &mut Context<'_, Self>) {
        self.act(ctx, Node::on_tick);
    }

    fn deadline(&self) -> Option<Time> {
        self.node.deadline()
    }
}

/// A world of Chord nodes and the truth about it.
pub struct Ring {
    /// The nodes and their network.
    pub world: World<Peer>,
    /// Every live member by its place: what a lookup should find.
    pub truth: BTreeMap<Key, u32>,
    config: Arc<Config>,
    scratch: Scratch,
    /// Draws identifiers, askers and keys.
    pub rng: Rng,
}

impl Ring {
    /// A world without nodes.
    pub fn empty(seed: u64, config: Config, links: Links) -> Self {
        Self {
            world: World::new(seed, Direct, links),
            truth: BTreeMap::new(),
            config: Arc::new(config),
            scratch: Scratch::default(),
            rng: rng_for(seed, u64::MAX - 1),
        }
    }

    /// A ring of `count` nodes at random places, with perfect successor lists and, if asked for,
    /// perfect fingers: as if it had been there for long. Nodes are numbered around the circle.
    pub fn perfect(
        seed: u64,
        count: u32,
        fingers: bool,
        config: Config,
        links: Links,
        mut progress: impl FnMut(u64, u64),
    ) -> Self {
        let mut ring = Self::empty(seed, config, links);
        let mut keys: Vec<u64> = Vec::with_capacity(count as usize);
        while keys.len() < count as usize {
            let missing = count as usize - keys.len();
            keys.extend((0..missing).map(|_| ring.rng.next_u64()));
            keys.sort_unstable();
            keys.dedup();
        }
        let members: Vec<Member> = (0..)
            .zip(keys)
            .map(|(number, key)| Contact::new(Key::new(key), number))
            .collect();
        ring.world.reserve(members.len());
        let mut table = Fingers::new(&members);
        let r = ring.config.successors.min(members.len() - 1);
        let mut successors = Vec::with_capacity(r);
        for (i, me) in members.iter().enumerate() {
            let at = |offset: usize| members[(i + offset) % members.len()];
            successors.clear();
            successors.extend((1..=r).map(at));
            let links = if fingers { table.of(i) } else { &[] };
            let node = Node::with_tables(
                Time::ZERO,
                *me,
                ring.config.clone(),
                ring.rng.next_u64(),
                Some(at(members.len() - 1)),
                &successors,
                links,
            );
            ring.add(node);
            ring.world.start(me.addr);
            if i % 4096 == 0 {
                progress(i as u64, members.len() as u64);
            }
        }
        ring.truth = members.iter().map(|m| (m.id, m.addr)).collect();
        ring
    }

    fn add(&mut self, node: Node<Key, u32>) -> u32 {
        self.world.add(Peer {
            node,
            scratch: self.scratch.clone(),
        })
    }

    /// Adds a node outside of every ring; it is up.
    pub fn newcomer(&mut self, key: Key) -> u32 {
        let number = self.world.len() as u32;
        let node = self.fresh(key, number);
        self.add(node);
        self.world.start(number);
        number
    }

    /// A core that knows nothing, to begin with or to begin again.
    pub fn fresh(&mut self, key: Key, number: u32) -> Node<Key, u32> {
        let seed = self.rng.next_u64();
        Node::new(Contact::new(key, number), self.config.clone(), seed)
    }

    /// A peer around a core, to put in the place of one that crashed.
    pub fn peer(&self, node: Node<Key, u32>) -> Peer {
        Peer {
            node,
            scratch: self.scratch.clone(),
        }
    }

    /// Who is responsible for `key`, in truth.
    pub fn owner(&self, key: Key) -> Option<u32> {
        let next = self.truth.range(key..).next();
        next.or_else(|| self.truth.iter().next()).map(|(_, n)| *n)
    }

    /// A uniform key.
    pub fn random_key(&mut self) -> Key {
        Key::new(self.rng.next_u64())
    }

    /// A node dies without a word.
    pub fn kill(&mut self, number: u32) {
        let key = self.world.node(number).node.me().id;
        self.world.crash(number);
        self.truth.remove(&key);
    }

    /// Whether every live node has the predecessor, successors and fingers that it should have; if
    /// not, what is wrong with one that has not.
    pub fn check_ideal(&self) -> Result<(), String> {
        let members: Vec<Member> = self
            .truth
            .iter()
            .map(|(key, number)| Contact::new(*key, *number))
            .collect();
        let count = members.len();
        let r = self.config.successors.min(count.saturating_sub(1));
        for (i, me) in members.iter().enumerate() {
            let node = &self.world.node(me.addr).node;
            if node.standing() != Standing::Member {
                return Err(format!("{me:?} is {:?}", node.standing()));
            }
            let at = |offset: usize| members[(i + offset) % count];
            let expected: Vec<Member> = (1..=r).map(at).collect();
            if node.successors() != expected {
                let got = node.successors();
                return Err(format!("{me:?} has successors {got:?}, not {expected:?}"));
            }
            let before = (count > 1).then(|| at(count - 1));
            if node.predecessor() != before {
                let got = node.predecessor();
                return Err(format!("{me:?} has predecessor {got:?}, not {before:?}"));
            }
        }
        Ok(())
    }

    /// Zave's invariants of a ring in motion, over the first live successor of each member: there
    /// is one ring and no second, it visits its members in order once around, and everybody else
    /// hangs on it.
    pub fn check_one_ring(&self) -> Result<(), String> {
        let is_member = |contact: &Member| self.truth.get(&contact.id) == Some(&contact.addr);
        let mut next = BTreeMap::new();
        for (key, number) in &self.truth {
            let list = self.world.node(*number).node.successors();
            let successor = match list.iter().find(|s| is_member(s)) {
                Some(successor) => successor.id,
                None if self.truth.len() == 1 => *key,
                None => return Err(format!("{key:?} has no live successor in {list:?}")),
            };
            next.insert(*key, successor);
        }
        let Some(mut at) = next.keys().next().copied() else {
            return Ok(());
        };
        // Whoever follows successors long enough is on a ring.
        for _ in 0..next.len() {
            at = next[&at];
        }
        let (start, mut ring) = (at, vec![at]);
        while next[&at] != start {
            at = next[&at];
            ring.push(at);
        }
        let falls = ring.iter().zip(ring.iter().cycle().skip(1));
        let wraps = falls.filter(|(a, b)| a >= b).count();
        if wraps != 1 {
            return Err(format!("a ring out of order: {ring:?}"));
        }
        ring.sort_unstable();
        for key in next.keys() {
            let mut at = *key;
            for _ in 0..next.len() {
                at = next[&at];
            }
            if ring.binary_search(&at).is_err() {
                return Err(format!("{key:?} is on another ring than {start:?}"));
            }
        }
        Ok(())
    }

    /// How many of all fingers are exact, as a share; 1 in an ideal ring.
    pub fn finger_accuracy(&self) -> f64 {
        let (mut right, mut all) = (0u64, 0u64);
        for (key, number) in &self.truth {
            let node = &self.world.node(*number).node;
            for i in 0..Key::BITS {
                let owner = self.owner(key.plus_power(i));
                all += 1;
                right += u64::from(Some(node.finger(i).addr) == owner);
            }
        }
        right as f64 / all.max(1) as f64
    }
}

/// Finds the fingers of one node after the other around the circle. Every finger's target moves on
/// with its node, so a pointer for each power never goes back.
struct Fingers<'a> {
    members: &'a [Member],
    /// For each power, how far its pointer has gone, counted around the circle.
    reached: [usize; Key::BITS as usize],
    found: Vec<Member>,
}

impl<'a> Fingers<'a> {
    fn new(members: &'a [Member]) -> Self {
        Self {
            members,
            reached: [0; Key::BITS as usize],
            found: Vec::new(),
        }
    }

    /// The distinct fingers of member `i`; to be called with 0, 1, 2, ….
    fn of(&mut self, i: usize) -> &[Member] {
        let count = self.members.len();
        let me = self.members[i].id;
        self.found.clear();
        for (power, reached) in (0..).zip(&mut self.reached) {
            let target = me.plus_power(power);
            *reached = (*reached).max(i + 1);
            // The first member at or after the target, going round once at most.
            while *reached < i + count {
                let id = self.members[*reached % count].id;
                if me.distance(id) >= me.distance(target) {
                    break;
                }
                *reached += 1;
            }
            if *reached < i + count {
                let finger = self.members[*reached % count];
                if self.found.last() != Some(&finger) {
                    self.found.push(finger);
                }
            }
        }
        &self.found
    }
}

#[cfg(test)]
mod tests;
