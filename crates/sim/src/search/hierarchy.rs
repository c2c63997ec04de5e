//! A hierarchy in the simulated world: supernodes, the members who are their children, and a record
//! of every question. Who is joined with whom is the cores' own doing.

mod machine;

pub(super) use machine::{Lie, Load, Place, file};

use super::Asked;
use super::graph::Graph;
use super::library::{Library, word};
use crate::link::{Delay, Links};
use crate::rng_for;
use crate::space::Direct;
use crate::world::World;
use ed25519_dalek::SigningKey;
use machine::{Event, LIST, Machine, Member, Message, files};
use rustc_hash::{FxHashMap, FxHashSet};
use shoal_base::Time;
use shoal_supernode::list::{ListConfig, SupernodeList};
use shoal_supernode::node::{Config, Node, Role, Stats};
use shoal_supernode::token::{Presence, Token};
use shoal_supernode::verified::Verified;
use shoal_supernode::wire::{File, Hit, QueryId};
use std::collections::BTreeMap;
use std::time::Duration;

/// One-way delay.
pub(super) const DELAY: Duration = Duration::from_millis(50);
/// Unix time of the world's beginning, in seconds.
const EPOCH: u64 = 1_000_000;

/// How a member ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The program is killed: its machine ends the connections, and refuses new ones.
    Killed,
    /// The machine is gone: nothing is heard of it.
    Gone,
}

/// A question under way.
#[derive(Debug, Default)]
struct Question {
    since: Time,
    asked: Asked,
    reached: FxHashSet<u32>,
    hits: Vec<Hit<Place>>,
}

/// The hierarchy. Members are numbered from 1, supernodes first.
pub(super) struct Net {
    pub(super) world: World<Machine>,
    supernodes: u32,
    libraries: Vec<Library>,
    /// What members share in place of their libraries.
    decoys: BTreeMap<u32, Vec<File>>,
    /// Hosts of members who share one with others.
    hosts: BTreeMap<u32, u32>,
    /// Further machines, which are no members.
    silent: u32,
    config: Config,
    login: SigningKey,
    /// Programs that were started, for streams of chance of their own.
    programs: u64,
    questions: FxHashMap<QueryId, Question>,
    /// Who has a supernode.
    home: Vec<bool>,
    /// Who lost theirs in a killing, and when.
    orphans: BTreeMap<u32, Time>,
    /// Seconds until each of those had another.
    pub(super) homing_s: Vec<f64>,
}

impl Net {
    /// `libraries` are of all members; the first so many are supernodes. Nobody runs yet.
    pub(super) fn new(
        seed: u64,
        supernodes: u32,
        libraries: Vec<Library>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut secret = [0; 32];
        rng_for(seed, 1 << 41).fill(&mut secret);
        let login = SigningKey::from_bytes(&secret);
        let trusted = login.verifying_key().to_bytes();
        let mut config = Config::new(trusted, Role::Peer);
        config.epoch = EPOCH;
        config.may_change = false;
        // Every machine would find the same: the signatures of a member are checked once for all.
        config.verified = Verified::new(4 * libraries.len());
        change(&mut config);
        let links = Links {
            delay: Delay::Constant {
                us: DELAY.as_micros() as u64,
            },
            ..Links::default()
        };
        let mut world = World::new(seed, Direct, links);
        world.reserve(libraries.len() + 1);
        let list = ListConfig {
            epoch: EPOCH,
            ..ListConfig::default()
        };
        let list = SupernodeList::new(list, trusted, world.rng(LIST));
        world.add(Machine::List(Box::new(list)));
        world.start(LIST);
        let mut net = Self {
            world,
            supernodes,
            home: vec![false; libraries.len() + 1],
            libraries,
            decoys: BTreeMap::new(),
            hosts: BTreeMap::new(),
            silent: 0,
            config,
            login,
            programs: 0,
            questions: FxHashMap::default(),
            orphans: BTreeMap::new(),
            homing_s: Vec::new(),
        };
        for node in net.members() {
            let (core, presence) = net.program(node);
            let member = Member::new(core, net.place(node).host, presence);
            net.world.add(Machine::Member(Box::new(member)));
        }
        net
    }

    /// All members, by number.
    pub(super) fn members(&self) -> std::ops::RangeInclusive<u32> {
        1..=self.libraries.len() as u32
    }

    /// Whether a member is a supernode.
    pub(super) fn is_supernode(&self, node: u32) -> bool {
        (1..=self.supernodes).contains(&node)
    }

    /// What a member shares.
    pub(super) fn library(&self, node: u32) -> &Library {
        &self.libraries[node as usize - 1]
    }

    /// Where a member is; almost everybody has a host of his own.
    fn place(&self, node: u32) -> Place {
        Place {
            node,
            host: self.hosts.get(&node).copied().unwrap_or(node),
        }
    }

    /// A member's program, as it is started.
    fn program(&mut self, node: u32) -> (Node<Place>, Presence<Place>) {
        let mut rng = rng_for(self.world.seed(), 1 << 42 | self.programs);
        self.programs += 1;
        let mut secret = [0; 32];
        rng.fill(&mut secret);
        let key = SigningKey::from_bytes(&secret);
        let public = key.verifying_key().to_bytes();
        let place = self.place(node);
        let token = Token::issue(&self.login, &format!("n{node}"), public, u64::MAX);
        let presence = Presence::new(&key, token, place, Some(place));
        let role = match self.is_supernode(node) {
            true => Role::Supernode,
            false => Role::Peer,
        };
        let config = Config {
            role,
            ..self.config.clone()
        };
        let mut core = Node::new(config, key, presence.clone(), rng);
        // Nothing is to be told yet: it has no link.
        let decoys = self.decoys.get(&node).cloned();
        let shared = decoys.unwrap_or_else(|| files(self.library(node)));
        core.share(Time::ZERO, shared, &mut Vec::new());
        (core, presence)
    }

    /// A member that does not run yet will share these in place of its library.
    pub(super) fn share_instead(&mut self, node: u32, files: Vec<File>) {
        self.decoys.insert(node, files);
        self.rewrite(node);
    }

    /// A member that does not run yet will be on a host that others may be on, too.
    pub(super) fn move_to(&mut self, node: u32, host: u32) {
        self.hosts.insert(node, host);
        self.rewrite(node);
    }

    fn rewrite(&mut self, node: u32) {
        let (core, presence) = self.program(node);
        let member = Member::new(core, self.place(node).host, presence);
        self.world.replace(node, Machine::Member(Box::new(member)));
    }

    /// A member lies from now on about what it has.
    pub(super) fn corrupt(&mut self, node: u32, lie: Lie) {
        self.world.call(node, |machine, _| {
            if let Machine::Member(member) = machine {
                member.lie = Some(lie);
            }
        });
    }

    /// A machine that takes all calls and says nothing; its number.
    pub(super) fn silent(&mut self) -> u32 {
        self.silent += 1;
        let node = self.world.add(Machine::Silent);
        self.world.start(node);
        node
    }

    /// The list takes any number of supernodes of one host from now on; it is empty again.
    pub(super) fn list_without_limit(&mut self) {
        let config = ListConfig {
            epoch: EPOCH,
            per_host: 0,
            ..ListConfig::default()
        };
        let trusted = self.config.trusted;
        let list = SupernodeList::new(config, trusted, self.world.rng(LIST));
        self.world.call(LIST, |machine, _| {
            *machine = Machine::List(Box::new(list));
        });
    }

    /// Supernodes on the list.
    pub(super) fn listed(&self) -> usize {
        match self.world.node(LIST) {
            Machine::List(list) => list.len(),
            Machine::Member(_) | Machine::Silent => 0,
        }
    }

    /// A machine calls a member, whatever it is.
    pub(super) fn call(&mut self, node: u32, to: u32, number: u32) {
        self.world.call(node, |_, ctx| {
            ctx.send_stream(to, Message::Open(number, node), 40);
        });
    }

    /// What a member's core counted.
    pub(super) fn stats(&self, node: u32) -> Stats {
        self.core(node).map(Node::stats).unwrap_or_default()
    }

    /// Everybody comes, supernodes before their children, within `time`; and time to settle.
    pub(super) fn assemble(&mut self, time: Duration, settle: Duration) {
        let supernodes = time / 4 / self.supernodes.max(1);
        let peers = self.libraries.len() as u32 - self.supernodes;
        let others = time * 3 / 4 / peers.max(1);
        for node in self.members() {
            self.world.start(node);
            let pause = match self.is_supernode(node) {
                true => supernodes,
                false => others,
            };
            self.run(pause);
        }
        self.run(settle);
    }

    fn member(&self, node: u32) -> Option<&Member> {
        match self.world.node(node) {
            Machine::Member(member) => Some(member),
            Machine::List(_) | Machine::Silent => None,
        }
    }

    fn core(&self, node: u32) -> Option<&Node<Place>> {
        self.member(node)?.core.as_ref()
    }

    /// Whether a member runs.
    pub(super) fn is_up(&self, node: u32) -> bool {
        self.world.is_up(node) && self.core(node).is_some()
    }

    /// Whether a member can ask and be found: it is a supernode or has one.
    pub(super) fn is_in(&self, node: u32) -> bool {
        self.is_up(node) && (self.is_supernode(node) || self.home[node as usize])
    }

    /// Children of a supernode.
    pub(super) fn children(&self, node: u32) -> u64 {
        self.core(node).map_or(0, |core| core.stats().children)
    }

    /// Links of a member, and files of others in its index.
    pub(super) fn holds(&self, node: u32) -> (u64, u64) {
        let links = self.member(node).map_or(0, |m| m.wires.len() as u64);
        let own = self.library(node).0.len() as u64;
        let files = self.core(node).map_or(0, |core| core.stats().files);
        (links, files.saturating_sub(own))
    }

    /// What members did since it was last asked, by number less one.
    pub(super) fn take_loads(&mut self) -> Vec<Load> {
        self.members()
            .map(|node| {
                self.world.call(node, |machine, _| match machine {
                    Machine::Member(member) => std::mem::take(&mut member.load),
                    Machine::List(_) | Machine::Silent => Load::default(),
                })
            })
            .collect()
    }

    /// Supernodes and the links between them that both ends use, two where each called the other;
    /// whoever does not run has none. Places are numbers less one.
    pub(super) fn graph(&self) -> Graph {
        let neighbours = |node: u32| -> Vec<u32> {
            let member = self.member(node).filter(|_| self.is_up(node));
            let both = member.and_then(|m| m.core.as_ref().map(|core| (core, &m.wires)));
            let wires = both.map(|(core, wires)| core.neighbours().filter_map(|id| wires.get(&id)));
            let up = wires
                .into_iter()
                .flatten()
                .filter(|w| self.is_supernode(w.node) && self.is_up(w.node));
            let mut all: Vec<u32> = up.map(|w| w.node - 1).collect();
            all.sort_unstable();
            all
        };
        let told: Vec<_> = (1..=self.supernodes).map(neighbours).collect();
        let mutual = |(node, all): (u32, &Vec<u32>)| -> Vec<u32> {
            let both = |other: &u32| told[*other as usize].contains(&node);
            all.iter().copied().filter(both).collect()
        };
        Graph((0..).zip(&told).map(mutual).collect())
    }

    /// The supernode of a member; itself if it is one.
    pub(super) fn supernode_of(&self, node: u32) -> Option<u32> {
        match self.is_supernode(node) {
            true => Some(node),
            false => Some(self.core(node)?.home()?.node),
        }
    }

    /// Ends a member; its children are watched until they have another supernode.
    pub(super) fn end(&mut self, node: u32, how: End) {
        if self.is_supernode(node) {
            let wires = self.member(node).map(|m| m.wires.values());
            let ends: Vec<u32> = wires.into_iter().flatten().map(|w| w.node).collect();
            for child in ends {
                if self.supernode_of(child) == Some(node) && !self.is_supernode(child) {
                    self.orphans.insert(child, self.world.now());
                }
            }
        }
        self.orphans.remove(&node);
        self.home[node as usize] = false;
        match how {
            End::Gone => self.world.crash(node),
            End::Killed => self.world.call(node, |machine, ctx| {
                if let Machine::Member(member) = machine {
                    member.kill(ctx);
                }
            }),
        }
    }

    /// A member comes back, with what it shares and nothing else.
    pub(super) fn begin(&mut self, node: u32) {
        let (core, presence) = self.program(node);
        self.world.call(node, |machine, _| {
            if let Machine::Member(member) = machine {
                member.restart(core, presence);
            }
        });
        if self.world.is_up(node) {
            self.world.call(node, |machine, ctx| {
                if let Machine::Member(member) = machine {
                    member.with(ctx, Node::start);
                }
            });
        } else {
            self.world.start(node);
        }
    }

    /// Members that still wait for another supernode.
    pub(super) fn orphans(&self) -> usize {
        self.orphans.len()
    }

    /// A member asks for a content; none if it cannot.
    pub(super) fn ask(&mut self, node: u32, content: u32) -> Option<QueryId> {
        let id = self.world.call(node, |machine, ctx| match machine {
            Machine::Member(member) => member
                .with(ctx, |core, now, out| core.search(now, &word(content), out))
                .flatten(),
            Machine::List(_) | Machine::Silent => None,
        })?;
        let mut question = Question {
            since: self.world.now(),
            ..Question::default()
        };
        if self.is_supernode(node) {
            question.reached.insert(node);
        }
        self.questions.insert(id, question);
        Some(id)
    }

    /// What became of a question, and its hits; it is forgotten.
    pub(super) fn take(&mut self, id: QueryId) -> (Asked, Vec<Hit<Place>>) {
        let question = self.questions.remove(&id).unwrap_or_default();
        let asked = Asked {
            reach: question.reached.len() as u64,
            ..question.asked
        };
        (asked, question.hits)
    }

    /// Runs for so long and takes down what happens.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.world.now() + time;
        let (questions, home) = (&mut self.questions, &mut self.home);
        let (orphans, homing_s) = (&mut self.orphans, &mut self.homing_s);
        self.world.run_until(until, |at, node, event| match event {
            Event::Query(id, bytes) => {
                if let Some(question) = questions.get_mut(&id) {
                    question.asked.messages += 1;
                    question.asked.bytes += u64::from(bytes);
                    question.reached.insert(node);
                }
            }
            Event::Answer(id, bytes) => {
                if let Some(question) = questions.get_mut(&id) {
                    question.asked.answers += 1;
                    question.asked.bytes += u64::from(bytes);
                }
            }
            Event::Found(id, hits) => {
                let Some(question) = questions.get_mut(&id) else {
                    return;
                };
                let ms = at.since(question.since).as_secs_f64() * 1000.0;
                question.asked.found += hits.len() as u64;
                question.asked.first_ms.get_or_insert(ms);
                // All delays are alike, and nobody waits.
                let hops = at.since(question.since).as_micros() / (2 * DELAY.as_micros());
                question.asked.hops.get_or_insert(hops as u32);
                question.hits.extend(hits);
            }
            Event::Home(has) => {
                home[node as usize] = has;
                if has && let Some(since) = orphans.remove(&node) {
                    homing_s.push(at.since(since).as_secs_f64());
                }
            }
        });
    }
}
