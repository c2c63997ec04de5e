//! One iterative lookup in one address family (Kademlia 2.3): towards the nodes nearest to a
//! target, a few queries at a time, without waiting for those that are slow.

use super::bep42;
use super::node::{Exempt, Node, Subnet, may_contact};
use super::table::K;
use crate::Id;
use std::net::SocketAddr;

/// Queries of one lookup that are waited for at a time.
const ALPHA: usize = 3;
/// Candidates that are remembered.
const MAX_CANDIDATES: usize = 64;
/// Of them, those whose identifier is not bound to their address (BEP 42).
const MAX_UNBOUND: usize = 32;
/// Queries of one lookup, however much nearer everybody claims to know somebody.
const MAX_ASKED: u32 = 96;
/// Candidates of one /24 or /48.
const SUBNET_PER_LOOKUP: usize = 2;

/// How far a candidate got.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    New,
    Asked,
    /// Takes long; no longer waited for.
    Slow,
    Answered,
    Failed,
}

/// A node that may be near the target.
#[derive(Debug, Clone)]
struct Candidate {
    /// Nodes to start from are known by address alone.
    id: Option<Id>,
    addr: SocketAddr,
    state: State,
    /// Its identifier is bound to its address, or need not be.
    bound: bool,
    hop: u8,
    token: Vec<u8>,
}

/// A node that answered, and the token it gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Who.
    pub node: Node,
    /// Empty if it gave none.
    pub token: Vec<u8>,
}

/// A lookup under way.
#[derive(Debug)]
pub(super) struct Lookup {
    target: Id,
    own: Id,
    exempt: Exempt,
    /// Nearest first; those of unknown identifier before all.
    candidates: Vec<Candidate>,
    /// Longest chain of nodes, each told by the one before.
    pub hops: u32,
    /// Nodes that answered.
    pub answered: u32,
    asked: u32,
}

impl Lookup {
    /// A lookup from `own` to `target`, without anybody to ask yet.
    pub(super) fn new(own: Id, target: Id, exempt: Exempt) -> Self {
        Self {
            target,
            own,
            exempt,
            candidates: Vec::new(),
            hops: 0,
            answered: 0,
            asked: 0,
        }
    }

    /// A node to start from.
    pub(super) fn seed(&mut self, id: Option<Id>, addr: SocketAddr) {
        self.add(id, addr, 1);
    }

    /// Nodes that `teller` told us. It may be one of another lookup's.
    pub(super) fn told(&mut self, teller: &SocketAddr, nodes: &[Node]) {
        let hop = self.find(teller).map_or(1, |c| c.hop).saturating_add(1);
        // Nobody gets more than a full answer's worth of us.
        for node in nodes.iter().take(2 * K) {
            if may_contact(&node.addr, teller) {
                self.add(Some(node.id), node.addr, hop);
            }
        }
    }

    fn find(&mut self, addr: &SocketAddr) -> Option<&mut Candidate> {
        self.candidates.iter_mut().find(|c| c.addr == *addr)
    }

    fn add(&mut self, id: Option<Id>, addr: SocketAddr, hop: u8) {
        if id == Some(self.own) || self.candidates.iter().any(|c| c.addr == addr) {
            return;
        }
        if !self.exempt.contains(addr.ip()) {
            let subnet = Subnet::of(addr.ip());
            let same = |c: &&Candidate| c.id.is_some() && Subnet::of(c.addr.ip()) == subnet;
            if id.is_some() && self.candidates.iter().filter(same).count() >= SUBNET_PER_LOOKUP {
                return;
            }
        }
        let bound = id.is_some_and(|id| bep42::is_valid(&id, addr.ip()));
        self.candidates.push(Candidate {
            id,
            addr,
            state: State::New,
            bound,
            hop,
            token: Vec::new(),
        });
        self.sort();
        let unbound = self.candidates.iter().filter(|c| !c.bound).count();
        if unbound > MAX_UNBOUND {
            self.drop_farthest(|c| !c.bound);
        } else if self.candidates.len() > MAX_CANDIDATES {
            self.drop_farthest(|_| true);
        }
    }

    /// Forgets the farthest candidate of a kind that nothing was done about.
    fn drop_farthest(&mut self, kind: impl Fn(&Candidate) -> bool) {
        let farthest = |c: &Candidate| c.state == State::New && c.id.is_some() && kind(c);
        if let Some(at) = self.candidates.iter().rposition(farthest) {
            self.candidates.remove(at);
        }
    }

    fn sort(&mut self) {
        let target = self.target;
        self.candidates
            .sort_by_key(|c| c.id.map(|id| id.xor(&target)));
    }

    /// The nodes on which the lookup depends, of those that may still answer: the [`K`] nearest
    /// whatever they are, and the [`K`] nearest that are bound to their address. So identifiers
    /// made up around a target displace no others, and cost [`K`] queries at most.
    fn window(&self) -> impl Iterator<Item = &Candidate> {
        let may_answer = |c: &&Candidate| !matches!(c.state, State::Failed | State::Slow);
        nearest_of(self.candidates.iter().filter(may_answer))
    }

    /// Whom to ask now; it counts as asked.
    pub(super) fn next(&mut self) -> Option<(Option<Id>, SocketAddr)> {
        let waiting = self
            .candidates
            .iter()
            .filter(|c| c.state == State::Asked)
            .count();
        if waiting >= ALPHA || self.asked >= MAX_ASKED {
            return None;
        }
        let next = self.window().find(|c| c.state == State::New)?;
        let (id, addr) = (next.id, next.addr);
        self.find(&addr)?.state = State::Asked;
        self.asked += 1;
        Some((id, addr))
    }

    /// Whether everybody it depends on has answered. If nobody has, it waits for the slow.
    pub(super) fn is_done(&self) -> bool {
        let enough = self.asked >= MAX_ASKED;
        let slow = || self.candidates.iter().any(|c| c.state == State::Slow);
        self.window()
            .all(|c| c.state == State::Answered || enough && c.state == State::New)
            && (self.answered > 0 || !slow())
    }

    /// Somebody answered. False if it is ourselves, or nobody who was asked.
    pub(super) fn answered(&mut self, id: Id, addr: &SocketAddr, token: Option<&[u8]>) -> bool {
        let own = self.own;
        let Some(candidate) = self.find(addr) else {
            return false;
        };
        if id == own {
            candidate.state = State::Failed;
            return false;
        }
        candidate.state = State::Answered;
        candidate.id = Some(id);
        candidate.bound = bep42::is_valid(&id, addr.ip());
        candidate.token = token.unwrap_or_default().to_vec();
        let hop = u32::from(candidate.hop);
        self.hops = self.hops.max(hop);
        self.answered += 1;
        self.sort();
        true
    }

    /// Somebody takes long.
    pub(super) fn slow(&mut self, addr: &SocketAddr) {
        if let Some(candidate) = self.find(addr)
            && candidate.state == State::Asked
        {
            candidate.state = State::Slow;
        }
    }

    /// Somebody will not answer.
    pub(super) fn failed(&mut self, addr: &SocketAddr) {
        if let Some(candidate) = self.find(addr)
            && candidate.state != State::Answered
        {
            candidate.state = State::Failed;
        }
    }

    /// Of those that answered the [`K`] nearest, and the [`K`] nearest that are bound.
    pub(super) fn nearest(&self) -> Vec<Found> {
        let answered = |c: &&Candidate| c.state == State::Answered;
        nearest_of(self.candidates.iter().filter(answered))
            .filter_map(|c| {
                let node = Node {
                    id: c.id?,
                    addr: c.addr,
                };
                let token = c.token.clone();
                Some(Found { node, token })
            })
            .collect()
    }

    /// How many candidates there are.
    pub(super) fn known(&self) -> u32 {
        self.candidates.len() as u32
    }
}

/// Of candidates in their order the first [`K`], the first [`K`] that are bound, and those not
/// known by identifier.
fn nearest_of<'a>(
    candidates: impl Iterator<Item = &'a Candidate>,
) -> impl Iterator<Item = &'a Candidate> {
    let (mut all, mut bound) = (0, 0);
    candidates.filter(move |c| {
        if c.id.is_none() {
            return true;
        }
        let within = all < K || c.bound && bound < K;
        all += 1;
        bound += usize::from(c.bound);
        within
    })
}
