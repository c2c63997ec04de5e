//! Links: the handshake, who is let in, time-outs, the end.

mod handshake;

use std::time::Duration;

use shoal_base::Time;

use super::queries::Allowance;
use super::{Effect, Event, LinkId, Node};
use crate::Address;
use crate::place::Place;
use crate::token::{Invalid, Presence};
use crate::wire::{Message, Purpose, Relay, Standing, VERSION, Why};

/// How long dialling and the handshake may take.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);
/// After how long a silent link is asked, and after how long it is lost.
const SILENT: Duration = Duration::from_secs(2);
const LOST: Duration = Duration::from_secs(6);
/// Faults after which a link is closed and its owner banned.
const MAX_STRIKES: u32 = 3;
const BAN: Duration = Duration::from_secs(600);
pub(super) const MAX_BANNED: usize = 1024;
/// Links that others began and whose keys are not proven yet, at most.
const MAX_UNPROVEN: usize = 64;
/// Hosts whose beginnings of links are counted at most.
pub(super) const MAX_KNOCKS: usize = 4096;
/// Pushes that a link may bring in a minute.
const PUSHES_PER_MINUTE: u32 = 60;
/// Places that a child may tell in a minute, and a neighbour for its children.
const PLACES_PER_MINUTE: u32 = 30;
const PLACES_OF_NEIGHBOUR: u32 = 600;
const PROOF: &str = "link";

/// How far a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing was heard yet.
    Hello,
    /// The other's proof is missing.
    Proof,
    /// Proven; the other decides.
    Asking,
    /// We are its child.
    Parent,
    /// It is our child.
    Child,
    /// Another supernode.
    Neighbour,
    /// Somebody measures us, or we them.
    Probe,
    /// Another supernode, for letters alone.
    Carrier,
}

/// One link.
#[derive(Debug)]
pub(super) struct Link<A> {
    /// Where we dialled, if we did.
    pub(super) dialled: Option<A>,
    pub(super) host: u128,
    pub(super) purpose: Purpose,
    pub(super) stage: Stage,
    pub(super) theirs: Option<Presence<A>>,
    ours: [u8; 32],
    nonce: [u8; 32],
    pub(super) since: Time,
    heard: Time,
    asked: bool,
    strikes: u32,
    pub(super) queries: Allowance,
    pub(super) pushes: Allowance,
    pub(super) letters: Allowance,
    pub(super) places: Allowance,
    /// When a letter last went by it.
    pub(super) used: Time,
    /// A child's place.
    pub(super) place: Option<Box<Place<A>>>,
    /// Relays that a neighbour offers to our children.
    pub(super) relays: Vec<Relay>,
    /// Its number in the index.
    pub(super) owner: Option<u32>,
    /// How a child stands with those who fetch from it, as it says.
    pub(super) said: Option<Standing>,
    /// Bytes a second that it sent when measured; zero if it could not be reached.
    pub(super) bandwidth: Option<u64>,
    pub(super) promoted: Option<Time>,
    /// What a neighbour last said of itself.
    pub(super) state: Option<super::balance::State>,
    pub(super) probe: super::roles::Probe,
}

impl<A: Address> Link<A> {
    /// Where it is, as it says.
    pub(super) fn addr(&self) -> Option<A> {
        self.theirs.as_ref().map(|p| p.links)
    }

    /// How a child stands: what it says of its speed counts as far as it was measured.
    pub(super) fn standing(&self) -> Option<Standing> {
        let measured = self.bandwidth.filter(|b| *b > 0);
        let said = self.said.or(measured.map(|_| Standing::default()))?;
        let rate = match (said.rate, measured) {
            (Some(said), Some(measured)) => Some(said.min(measured)),
            (said, measured) => said.or(measured),
        };
        Some(Standing { rate, ..said })
    }

    pub(super) fn next_chunk(&self) -> Option<Time> {
        self.probe.next_chunk()
    }
}

impl<A: Address> Node<A> {
    /// A connection is there: one that was dialled, or one that came from `host`.
    pub fn on_connected(
        &mut self,
        now: Time,
        id: LinkId,
        dialled: Option<A>,
        host: u128,
        out: &mut Vec<Effect<A>>,
    ) {
        self.now = now;
        let purpose = match dialled {
            Some(addr) => self.dialling.remove(&addr).map(|(purpose, _)| purpose),
            None => Some(Purpose::Child),
        };
        let lets_in = dialled.is_some() || !self.is_crowded(host);
        let Some(purpose) = purpose.filter(|_| lets_in) else {
            self.stats.refused += 1;
            out.push(Effect::Close(id));
            return;
        };
        if dialled.is_none() {
            self.make_room();
        }
        let mut ours = [0; 32];
        self.rng.fill(&mut ours);
        let link = Link {
            dialled,
            host,
            purpose,
            stage: Stage::Hello,
            theirs: None,
            ours,
            nonce: [0; 32],
            since: now,
            heard: now,
            asked: false,
            strikes: 0,
            queries: Allowance::new(0),
            pushes: Allowance::new(PUSHES_PER_MINUTE),
            letters: Allowance::new(0),
            places: Allowance::new(0),
            used: now,
            place: None,
            relays: Vec::new(),
            owner: None,
            said: None,
            bandwidth: None,
            promoted: None,
            state: None,
            probe: super::roles::Probe::default(),
        };
        self.links.insert(id, link);
        if dialled.is_some() {
            self.say_hello(id, purpose, ours);
        }
        self.flush(out);
    }

    /// Whether a host has as many links as it may, or begins too many.
    fn is_crowded(&mut self, host: u128) -> bool {
        if self.config.unlimited.contains(&host) {
            return false;
        }
        let most = self.config.links_per_host;
        if most > 0 && self.links.values().filter(|l| l.host == host).count() >= most {
            return true;
        }
        let (per_minute, now) = (self.config.knocks_per_minute, self.now);
        if per_minute == 0 {
            return false;
        }
        if self.knocks.len() >= MAX_KNOCKS && !self.knocks.contains_key(&host) {
            self.knocks.retain(|_, knocks| !knocks.is_full(now));
            if self.knocks.len() >= MAX_KNOCKS {
                // A flood from everywhere: forgetting them all is better than growing.
                self.knocks.clear();
            }
        }
        let knocks = self.knocks.entry(host);
        !knocks
            .or_insert_with(|| Allowance::new(per_minute))
            .take(now)
    }

    /// Whoever has not proven a key has no right to stay: of too many of them the oldest goes, so
    /// that one who is quick comes through a flood, and no place of a child is ever taken.
    fn make_room(&mut self) {
        let unproven =
            |l: &Link<A>| l.dialled.is_none() && matches!(l.stage, Stage::Hello | Stage::Proof);
        let mut waiting = self.links.iter().filter(|(_, l)| unproven(l));
        let oldest = waiting.clone().min_by_key(|(id, l)| (l.since, **id));
        if waiting.nth(MAX_UNPROVEN - 1).is_some()
            && let Some(oldest) = oldest.map(|(id, _)| *id)
        {
            self.stats.refused += 1;
            self.close(oldest);
        }
    }

    fn say_hello(&mut self, id: LinkId, purpose: Purpose, nonce: [u8; 32]) {
        let presence = self.presence.clone();
        let hello = Message::Hello {
            version: VERSION,
            purpose,
            presence,
            nonce,
        };
        self.send(id, hello);
    }

    /// A dialled address cannot be reached.
    pub fn on_dial_failed(&mut self, now: Time, addr: A, out: &mut Vec<Effect<A>>) {
        self.now = now;
        let probe = matches!(self.dialling.remove(&addr), Some((Purpose::Probe, _)));
        if probe {
            self.unreachable(addr);
        } else {
            self.failed(addr);
            self.find_links();
        }
        self.at_door(addr, true);
        self.flush(out);
    }

    /// A connection ended.
    pub fn on_closed(&mut self, now: Time, id: LinkId, out: &mut Vec<Effect<A>>) {
        self.now = now;
        self.drop_link(id);
        self.flush(out);
    }

    /// Takes a link out of all tables; who lost its supernode looks for the next at once.
    pub(super) fn drop_link(&mut self, id: LinkId) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        if let Some(owner) = link.owner {
            self.index.remove_all(owner);
            self.shared_version += 1;
            if let Some(place) = self.owners.get_mut(owner as usize) {
                *place = None;
            }
        }
        if link.stage == Stage::Probe && link.dialled.is_some() {
            self.probe_ended(&link);
        } else if let Some(addr) = link.dialled.or(link.addr())
            // One for letters ends when there are none.
            && link.stage != Stage::Carrier
            && link
                .theirs
                .as_ref()
                .is_none_or(|p| self.twin(id, p.token.key).is_none())
        {
            self.failed(addr);
        }
        if self.parent == Some(id) {
            self.parent = None;
            self.forget_doors();
            self.tell(Event::Home(None));
        }
        self.find_links();
        self.carrier_ended(id);
        if let Some(door) = link.dialled {
            self.at_door(door, true);
        }
    }

    pub(super) fn close(&mut self, id: LinkId) {
        self.out.push(Effect::Close(id));
        self.drop_link(id);
    }

    pub(super) fn refuse(&mut self, id: LinkId, why: Why) {
        self.stats.refused += 1;
        let spares = self.spares(self.links.get(&id).and_then(Link::addr));
        self.send(id, Message::Refuse(why, spares));
        self.close(id);
    }

    /// A fault of the other: after three, it is closed and banned.
    pub(super) fn strike(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.strikes += 1;
        if link.strikes < MAX_STRIKES {
            return;
        }
        if let Some(theirs) = &link.theirs {
            if self.banned.len() >= MAX_BANNED {
                self.banned.pop_first();
            }
            let until = self.now + BAN;
            self.banned.insert(theirs.token.key, until);
            self.candidates.remove(&theirs.links);
        }
        self.refuse(id, Why::Banned);
    }

    /// A message came.
    pub fn on_message(
        &mut self,
        now: Time,
        id: LinkId,
        message: Message<A>,
        out: &mut Vec<Effect<A>>,
    ) {
        self.now = now;
        if let Some(link) = self.links.get_mut(&id) {
            (link.heard, link.asked) = (now, false);
            let stage = link.stage;
            self.take(id, stage, message);
        }
        self.flush(out);
    }

    fn take(&mut self, id: LinkId, stage: Stage, message: Message<A>) {
        use Stage::{Asking, Carrier, Child, Hello, Neighbour, Parent, Probe, Proof};
        match (stage, message) {
            (
                Hello,
                Message::Hello {
                    version,
                    purpose,
                    presence,
                    nonce,
                },
            ) => self.on_hello(id, version, purpose, presence, nonce),
            (Proof, Message::Proof(seal)) => self.on_proof(id, &seal),
            (Asking, Message::Welcome(spares)) => {
                self.learn(&spares);
                self.welcomed(id);
            }
            (_, Message::Refuse(why, spares)) => {
                self.learn(&spares);
                if let Some(addr) = self.links.get(&id).and_then(|l| l.dialled) {
                    self.tell(Event::Refused(addr, why));
                }
                self.close(id);
            }
            (_, Message::Ping) => self.send(id, Message::Pong),
            (_, Message::Pong) => {}
            (Parent | Neighbour, Message::Spares(spares)) => self.learn(&spares),
            (Child, Message::Share(files)) => self.share_of(id, &files),
            (Child, Message::Unshare(paths)) => self.unshare_of(id, &paths),
            (Child, Message::Standing(standing)) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.said = Some(standing);
                }
            }
            (
                Child | Neighbour,
                Message::Query {
                    id: query,
                    wanted,
                    ttl,
                },
            ) => self.query_from(id, stage, query, &wanted, ttl),
            (Parent | Neighbour, Message::Hits(query, hits)) => self.hits_from(id, query, hits),
            (
                Child | Parent | Neighbour,
                Message::Push {
                    query,
                    sharer,
                    sha1,
                    from,
                },
            ) => self.push_from(id, stage, query, &sharer, sha1, *from),
            (Child | Parent | Neighbour, Message::Renewed(presence)) => {
                self.renewed(id, *presence);
            }
            (Child | Parent | Neighbour | Carrier, Message::Letter(letter)) => {
                self.letter_from(id, stage, *letter);
            }
            (Neighbour | Carrier, Message::NotHere(letter)) => self.not_here(id, letter),
            (Parent, Message::Doors(doors)) => self.doors_of(id, doors),
            (Child | Neighbour, Message::Place(place)) => self.place_of(id, stage, place),
            (Parent | Neighbour, Message::Relays(relays)) => self.relays_of(id, stage, relays),
            (Parent, Message::Promote) => self.promoted(id),
            (Parent, Message::Move(entries)) => self.moved(&entries),
            (
                Neighbour,
                Message::State {
                    load,
                    uptime,
                    finds,
                },
            ) => self.state_of(id, load, uptime, finds),
            (Neighbour, Message::Measured(rate)) => self.measured_by(id, rate),
            (Probe, Message::Probe(bytes)) => self.be_measured(id, bytes),
            (Probe, Message::Chunk(bytes)) => self.measure(id, bytes.len()),
            // Out of place.
            _ => self.strike(id),
        }
    }

    pub(super) fn set_stage(&mut self, id: LinkId, stage: Stage) {
        let queries = self.allowance(stage);
        let letters = self.letter_allowance(stage);
        let free = self.owners.iter().skip(1).position(Option::is_none);
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        (link.stage, link.queries, link.since) = (stage, queries, self.now);
        (link.letters, link.used) = (letters, self.now);
        link.places = Allowance::new(match stage {
            Stage::Child => PLACES_PER_MINUTE,
            _ => PLACES_OF_NEIGHBOUR,
        });
        let dialled = link.dialled;
        if let Some(addr) = link.addr()
            && matches!(stage, Stage::Parent | Stage::Neighbour)
        {
            self.works(addr);
        }
        if stage == Stage::Neighbour {
            self.tell_state_to(id);
        }
        if matches!(stage, Stage::Neighbour | Stage::Child) {
            self.tell_relays(id);
        }
        if stage == Stage::Child {
            let owner = free.map_or(self.owners.len(), |n| n + 1);
            if owner == self.owners.len() {
                self.owners.push(None);
            }
            if let (Some(place), Some(link)) = (self.owners.get_mut(owner), self.links.get_mut(&id))
            {
                *place = Some(id);
                link.owner = Some(owner as u32);
            }
            self.tell_doors_to(id);
        }
        if let Some(door) = dialled {
            self.at_door(door, false);
        }
    }

    /// Asks who is silent, ends what takes too long.
    pub(super) fn check_links(&mut self) {
        let now = self.now;
        self.banned.retain(|_, until| now < *until);
        let unix = self.unix();
        let expired = |l: &Link<A>| l.theirs.as_ref().is_some_and(|p| unix >= p.token.expires);
        let old = self.links.iter().filter(|(_, l)| expired(l));
        for id in old.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.refuse(id, Why::Invalid(Invalid::Expired));
        }
        let late: Vec<A> = self
            .dialling
            .iter()
            .filter(|(_, (_, since))| now.since(*since) >= HANDSHAKE * 2)
            .map(|(addr, _)| *addr)
            .collect();
        for addr in late {
            self.dialling.remove(&addr);
            self.failed(addr);
            self.at_door(addr, true);
        }
        let mut lost = Vec::new();
        let mut silent = Vec::new();
        for (id, link) in &mut self.links {
            let up = !matches!(link.stage, Stage::Hello | Stage::Proof | Stage::Asking);
            let quiet = now.since(link.heard);
            if (!up && now.since(link.since) >= HANDSHAKE) || quiet >= LOST {
                lost.push(*id);
            } else if up && quiet >= SILENT && !link.asked {
                link.asked = true;
                silent.push(*id);
            }
        }
        silent
            .into_iter()
            .for_each(|id| self.send(id, Message::Ping));
        lost.into_iter().for_each(|id| self.close(id));
    }
}
