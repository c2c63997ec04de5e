//! A Gnutella node in the simulated world: its wires to others, and what it tells the checker. Who is
//! joined with whom is given; nobody dials.

use super::Asked;
use super::graph::Graph;
use super::library::{Library, word};
use crate::link::{Delay, Links};
use crate::space::Direct;
use crate::world::{Context, Process, World};
use rustc_hash::FxHashMap;
use shoal_base::Time;
use shoal_gnutella::guid::Guid;
use shoal_gnutella::handshake::Version;
use shoal_gnutella::huge::{Sha1, Urn};
use shoal_gnutella::message::query::Wanted;
use shoal_gnutella::message::{Kind, Packet};
use shoal_gnutella::node::{Answer, Config, ConnId, Effect, Node};
use shoal_gnutella::shared::{Shared, SharedFile};
use std::net::SocketAddrV4;
use std::time::Duration;

/// One-way delay of every wire: what is sent first over fewer wires comes first.
pub(super) const DELAY: Duration = Duration::from_millis(50);

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
struct Wire {
    mine: ConnId,
    node: u32,
    theirs: ConnId,
}

/// A node.
#[derive(Debug)]
pub(super) struct Servent {
    pub(super) core: Node<Sharer>,
    /// By the place of the connection.
    wires: Vec<Option<Wire>>,
}

/// What a node shares.
#[derive(Debug, Clone)]
pub(super) struct Sharer {
    library: Library,
    /// It says that it has whatever is asked for.
    has_everything: bool,
}

impl Shared for Sharer {
    fn search(&mut self, words: &[String], most: usize, out: &mut Vec<SharedFile>) {
        if self.has_everything {
            let name = format!("{}.mp3", words.join(" "));
            out.push(SharedFile {
                index: 0,
                size: 4_000_000,
                sha1: Some(decoy(&name)),
                name,
                tiger: None,
            });
        } else {
            self.library.search(words, most, out);
        }
    }

    fn find(&mut self, urn: &Urn) -> Option<SharedFile> {
        self.library.find(urn)
    }

    fn names(&self, each: &mut dyn FnMut(&str, Option<Sha1>)) {
        self.library.names(each);
    }

    fn size(&self) -> (u32, u32) {
        self.library.size()
    }

    fn version(&self) -> u64 {
        self.library.version()
    }
}

/// The hash of something that nobody looks for.
fn decoy(name: &str) -> Sha1 {
    let mut digest = crate::Digest::default();
    digest.add_bytes(name.as_bytes());
    let mut sha1 = [0xff; 20];
    sha1[..8].copy_from_slice(&digest.value().to_le_bytes());
    sha1
}

/// What travels over a wire: the connection, as its receiver names it, and a message or its end.
#[derive(Debug, Clone)]
pub(super) enum Message {
    Packet(ConnId, Packet),
    Closed(ConnId),
}

/// What the checker is told.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// A query came, for the first time or again.
    Query { guid: Guid, first: bool, bytes: u32 },
    /// An answer passed.
    Answer { guid: Guid, bytes: u32 },
    /// Files were found.
    Found { guid: Guid, answer: Box<Answer> },
}

/// Where a node listens.
fn addr(node: u32) -> SocketAddrV4 {
    let [_, a, b, c] = node.to_be_bytes();
    SocketAddrV4::new([44, a, b, c].into(), 6346)
}

impl Servent {
    fn act(&mut self, ctx: &mut Context<'_, Self>, out: &mut Vec<Effect>) {
        for effect in out.drain(..) {
            match effect {
                Effect::Ready(id) => self.flush(ctx, id),
                Effect::Close(id) => {
                    self.flush(ctx, id);
                    self.core.on_closed(ctx.now(), id);
                    let wire = self.wires.get_mut(id.slot()).and_then(Option::take);
                    if let Some(wire) = wire {
                        ctx.send_stream(wire.node, Message::Closed(wire.theirs), 40);
                    }
                }
                Effect::Found {
                    search: guid,
                    answer,
                } => ctx.tell(Event::Found { guid, answer }),
                Effect::Searched(_)
                | Effect::Dial(_)
                | Effect::Datagram(..)
                | Effect::Give(_)
                | Effect::ConnectBack(_)
                | Effect::Role(_)
                | Effect::Farewell(..) => {}
            }
        }
    }

    fn wire(&self, id: ConnId) -> Option<Wire> {
        let wire = self.wires.get(id.slot()).copied().flatten();
        wire.filter(|wire| wire.mine == id)
    }

    fn flush(&mut self, ctx: &mut Context<'_, Self>, id: ConnId) {
        // What waits before the wire is there goes out with what comes next.
        let Some(wire) = self.wire(id) else { return };
        while let Some(packet) = self.core.pop(id) {
            let bytes = packet.bytes().len() as u32;
            ctx.send_stream(wire.node, Message::Packet(wire.theirs, packet), bytes);
        }
    }

    fn attach(&mut self, ctx: &mut Context<'_, Self>, wire: Wire) {
        let slot = wire.mine.slot();
        if self.wires.len() <= slot {
            self.wires.resize(slot + 1, None);
        }
        self.wires[slot] = Some(wire);
        self.flush(ctx, wire.mine);
    }

    /// Copies of queries that were passed over.
    fn passed_over(&self) -> u64 {
        let stats = self.core.stats();
        stats.duplicates + stats.too_fast
    }
}

impl Process for Servent {
    type Space = Direct;
    type Message = Message;
    type Event = Event;

    fn on_start(&mut self, _ctx: &mut Context<'_, Self>) {}

    fn on_message(&mut self, ctx: &mut Context<'_, Self>, _from: u32, message: Message) {
        let (id, packet) = match message {
            Message::Packet(id, packet) => (id, packet),
            Message::Closed(id) => {
                if self.wire(id).is_some() {
                    self.core.on_closed(ctx.now(), id);
                    self.wires[id.slot()] = None;
                }
                return;
            }
        };
        let header = packet.header();
        let bytes = packet.bytes().len() as u32;
        let query = header.known() == Some(Kind::Query);
        let before = if query { self.passed_over() } else { 0 };
        let mut out = Vec::new();
        self.core
            .on_message(ctx.now(), id, header, packet.payload(), &mut out);
        if query {
            let first = self.passed_over() == before;
            let guid = header.guid;
            ctx.tell(Event::Query { guid, first, bytes });
        } else if header.known() == Some(Kind::Hit) {
            let guid = header.guid;
            ctx.tell(Event::Answer { guid, bytes });
        }
        self.act(ctx, &mut out);
    }

    fn on_tick(&mut self, ctx: &mut Context<'_, Self>) {
        let mut out = Vec::new();
        self.core.on_tick(ctx.now(), &mut out);
        self.act(ctx, &mut out);
    }

    fn deadline(&self) -> Option<Time> {
        Some(self.core.deadline()).filter(|at| *at < Time::FAR)
    }
}

/// Nodes on a graph, and a record of every question.
pub(super) struct Net {
    pub(super) world: World<Servent>,
    asked: FxHashMap<Guid, (Time, Asked)>,
    /// Queries and answers that came to each node, while they are counted.
    pub(super) loads: Option<Vec<u64>>,
    /// Answers of each question, while they are kept.
    pub(super) answers: Option<FxHashMap<Guid, Vec<Answer>>>,
}

impl Net {
    /// As many nodes as there are libraries, not joined yet; `config` says what each one is.
    pub(super) fn new(seed: u64, libraries: Vec<Library>, config: impl Fn(u32) -> Config) -> Self {
        let delay = Delay::Constant {
            us: DELAY.as_micros() as u64,
        };
        let links = Links {
            delay,
            ..Links::default()
        };
        let mut world = World::new(seed, Direct, links);
        for (index, library) in (0..).zip(libraries) {
            let config = Config {
                listen: Some(addr(index)),
                ..config(index)
            };
            let sharer = Sharer {
                library,
                has_everything: false,
            };
            let core = Node::new(Time::ZERO, config, sharer, world.rng(index));
            let wires = Vec::new();
            let node = world.add(Servent { core, wires });
            world.start(node);
        }
        Self {
            world,
            asked: FxHashMap::default(),
            loads: None,
            answers: None,
        }
    }

    /// Joins all that are neighbours.
    pub(super) fn join_all(&mut self, graph: &Graph) {
        for (a, b) in graph.edge_list() {
            self.join(a, b);
        }
    }

    /// Joins two, as their handshake would; whether both want to.
    pub(super) fn join(&mut self, a: u32, b: u32) -> bool {
        let greets = |node: u32| self.world.node(node).core.greeting(None);
        let (says_a, says_b) = (greets(a), greets(b));
        let judges = |node: u32, theirs| {
            let core = &self.world.node(node).core;
            core.judge(theirs, Version::V06).ok()
        };
        let (Some(to_a), Some(to_b)) = (judges(a, &says_b), judges(b, &says_a)) else {
            return false;
        };
        let mut open = |node: u32, theirs, relation, from: u32| {
            self.world.call(node, |servent, ctx| {
                let mut out = Vec::new();
                let core = &mut servent.core;
                let id = core.open(ctx.now(), theirs, relation, addr(from), &mut out);
                servent.act(ctx, &mut out);
                id
            })
        };
        let at_a = open(a, &says_b, to_a, b);
        let at_b = open(b, &says_a, to_b, a);
        for (node, mine, other, theirs) in [(a, at_a, b, at_b), (b, at_b, a, at_a)] {
            let wire = Wire {
                mine,
                node: other,
                theirs,
            };
            self.world.call(node, |s, ctx| s.attach(ctx, wire));
        }
        true
    }

    /// Runs for so long and takes down what becomes of questions.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.world.now() + time;
        let (asked, loads, kept) = (&mut self.asked, &mut self.loads, &mut self.answers);
        self.world.run_until(until, |at, node, event| match event {
            Event::Query { guid, first, bytes } => {
                if let Some((_, asked)) = asked.get_mut(&guid) {
                    asked.messages += 1;
                    asked.reach += u64::from(first);
                    asked.bytes += u64::from(bytes);
                }
                if let Some(load) = loads.as_mut().and_then(|l| l.get_mut(node as usize)) {
                    *load += 1;
                }
            }
            Event::Answer { guid, bytes } => {
                if let Some(load) = loads.as_mut().and_then(|l| l.get_mut(node as usize)) {
                    *load += 1;
                }
                if let Some((_, asked)) = asked.get_mut(&guid) {
                    asked.answers += 1;
                    asked.bytes += u64::from(bytes);
                }
            }
            Event::Found { guid, answer } => {
                if let Some((since, asked)) = asked.get_mut(&guid) {
                    asked.found += answer.files.len() as u64;
                    let ms = at.since(*since).as_secs_f64() * 1000.0;
                    asked.first_ms.get_or_insert(ms);
                    asked.hops.get_or_insert(answer.hops.into());
                    if let Some(kept) = kept {
                        kept.entry(guid).or_default().push(*answer);
                    }
                }
            }
        });
    }

    /// A node says from now on that it has whatever is asked for.
    pub(super) fn corrupt(&mut self, node: u32) {
        self.world.call(node, |servent, _| {
            servent.core.shared().has_everything = true;
        });
    }

    /// A node sends a message to a neighbour, whatever its core thinks.
    pub(super) fn inject(&mut self, node: u32, to: u32, packet: &Packet) -> bool {
        self.world.call(node, |servent, ctx| {
            let wires = servent.wires.iter().flatten();
            let Some(wire) = wires.copied().find(|w| w.node == to) else {
                return false;
            };
            let bytes = packet.bytes().len() as u32;
            let message = Message::Packet(wire.theirs, packet.clone());
            ctx.send_stream(to, message, bytes);
            true
        })
    }

    /// A node asks for a content.
    pub(super) fn ask(&mut self, node: u32, content: u32, ttl: u8) -> Guid {
        let guid = self.world.call(node, |servent, ctx| {
            let mut out = Vec::new();
            let core = &mut servent.core;
            core.set_ttl(ttl);
            let guid = core.search(ctx.now(), &word(content), Wanted::default(), &mut out);
            servent.act(ctx, &mut out);
            guid
        });
        let own = Asked {
            reach: 1,
            ..Asked::default()
        };
        self.asked.insert(guid, (self.world.now(), own));
        guid
    }

    /// What became of a question; it is forgotten.
    pub(super) fn take(&mut self, guid: Guid) -> Asked {
        self.asked.remove(&guid).map(|(_, a)| a).unwrap_or_default()
    }
}
