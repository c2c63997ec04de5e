//! A hub and its users in the simulated world: everybody is let in, tells what he shares, and asks.

use super::Asked;
use super::library::{Library, name, word};
use crate::link::{Delay, Links};
use crate::space::Direct;
use crate::world::{Context, Process, World};
use rustc_hash::FxHashMap;
use shoal_base::Time;
use shoal_napster::client::{Client, Event as Heard, Login};
use shoal_napster::file::Facts;
use shoal_napster::hub::{Config, ConnId, Effect, Hub};
use shoal_napster::kind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The hub's number; users follow.
pub(super) const HUB: u32 = 0;
/// One-way delay.
const DELAY: Duration = Duration::from_millis(50);
/// Time between two questions.
const PAUSE: Duration = Duration::from_millis(20);

/// What travels.
#[derive(Debug, Clone)]
pub(super) enum Message {
    Open,
    Bytes(Vec<u8>),
    Close,
}

/// What the checker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    In,
    /// A message came that has hits, or the end of them.
    Answer,
    Hit,
    End,
}

/// The hub's machine.
#[derive(Debug)]
pub(super) struct Server {
    core: Hub,
    conns: FxHashMap<u32, ConnId>,
    users: FxHashMap<ConnId, u32>,
}

/// A user's program.
#[derive(Debug)]
pub(super) struct User {
    core: Client,
    library: Library,
}

#[derive(Debug)]
pub(super) enum Node {
    Server(Box<Server>),
    User(Box<User>),
}

impl Server {
    fn act(&mut self, ctx: &mut Context<'_, Node>, out: Vec<Effect>) {
        let mut todo = std::collections::VecDeque::from(out);
        while let Some(effect) = todo.pop_front() {
            let (now, mut more) = (ctx.now(), Vec::new());
            match effect {
                Effect::Write(conn) => self.flush(ctx, conn, &mut more),
                Effect::Close(conn) => {
                    self.flush(ctx, conn, &mut more);
                    if let Some(user) = self.users.remove(&conn) {
                        self.conns.remove(&user);
                        ctx.send_stream(user, Message::Close, 40);
                    }
                    self.core.on_closed(now, conn, &mut more);
                }
                // The driver's work; here everybody's hash is his password.
                Effect::Verify {
                    conn,
                    password,
                    hash,
                } => {
                    let right = password == hash;
                    self.core.on_verified(now, conn, right, &mut more);
                }
                Effect::Hash { conn, password } => {
                    self.core.on_hashed(now, conn, password, &mut more);
                }
                Effect::Save(_) | Effect::Linked { .. } => {}
            }
            todo.extend(more);
        }
    }

    fn flush(&mut self, ctx: &mut Context<'_, Node>, conn: ConnId, more: &mut Vec<Effect>) {
        let bytes = self.core.output(conn).to_vec();
        if bytes.is_empty() {
            return;
        }
        self.core.on_sent(ctx.now(), conn, bytes.len(), more);
        if let Some(user) = self.users.get(&conn) {
            let len = bytes.len() as u32;
            ctx.send_stream(*user, Message::Bytes(bytes), len);
        }
    }
}

impl User {
    fn flush(&mut self, ctx: &mut Context<'_, Node>) {
        let bytes = self.core.output();
        if !bytes.is_empty() {
            let len = bytes.len() as u32;
            ctx.send_stream(HUB, Message::Bytes(bytes), len);
        }
    }
}

impl Process for Node {
    type Space = Direct;
    type Message = Message;
    type Event = Event;

    fn on_start(&mut self, ctx: &mut Context<'_, Self>) {
        if let Self::User(user) = self {
            ctx.send_stream(HUB, Message::Open, 40);
            user.flush(ctx);
        }
    }

    fn on_message(&mut self, ctx: &mut Context<'_, Self>, from: u32, message: Message) {
        match (self, message) {
            (Self::Server(server), Message::Open) => {
                let [_, a, b, c] = from.to_be_bytes();
                let peer = SocketAddr::new(IpAddr::from([44, a, b, c]), 6699);
                match server.core.connect(ctx.now(), peer) {
                    Ok(conn) => {
                        server.conns.insert(from, conn);
                        server.users.insert(conn, from);
                    }
                    Err(_) => ctx.send_stream(from, Message::Close, 40),
                }
            }
            (Self::Server(server), Message::Bytes(bytes)) => {
                let mut out = Vec::new();
                if let Some(conn) = server.conns.get(&from) {
                    server.core.on_bytes(ctx.now(), *conn, &bytes, &mut out);
                }
                server.act(ctx, out);
            }
            (Self::Server(server), Message::Close) => {
                let mut out = Vec::new();
                if let Some(conn) = server.conns.remove(&from) {
                    server.users.remove(&conn);
                    server.core.on_closed(ctx.now(), conn, &mut out);
                }
                server.act(ctx, out);
            }
            (Self::User(user), Message::Bytes(bytes)) => {
                let mut heard = Vec::new();
                // A hub of our own sends nothing too long; if it did, hits would be missing.
                let _ = user.core.on_bytes(&bytes, &mut heard);
                let answers = |event: &Heard| matches!(event, Heard::Hit(_) | Heard::SearchEnd);
                if heard.iter().any(answers) {
                    ctx.tell(Event::Answer);
                }
                for event in heard {
                    match event {
                        Heard::LoggedIn => {
                            ctx.tell(Event::In);
                            for content in &user.library.0 {
                                let path = format!("\\music\\{}", name(*content));
                                let facts = Facts {
                                    size: 4_000_000,
                                    bitrate: 128,
                                    frequency: 44_100,
                                    seconds: 250,
                                    md5: None,
                                };
                                user.core.share(path.as_bytes(), &facts);
                            }
                            user.flush(ctx);
                        }
                        Heard::Hit(_) => ctx.tell(Event::Hit),
                        Heard::SearchEnd => ctx.tell(Event::End),
                        _ => {}
                    }
                }
            }
            (Self::User(_), Message::Open | Message::Close) => {}
        }
    }

    fn on_tick(&mut self, ctx: &mut Context<'_, Self>) {
        if let Self::Server(server) = self {
            let mut out = Vec::new();
            server.core.on_tick(ctx.now(), &mut out);
            server.act(ctx, out);
        }
    }

    fn deadline(&self) -> Option<Time> {
        match self {
            Self::Server(server) => Some(server.core.deadline()),
            Self::User(_) => None,
        }
    }
}

/// The hub and its users, who are numbered from 1.
pub(super) struct Net {
    pub(super) world: World<Node>,
    /// Users that were let in.
    pub(super) inside: u32,
}

impl Net {
    /// A hub with all its users let in, who have told what they share.
    pub(super) fn new(seed: u64, libraries: &[Library]) -> Self {
        let links = Links {
            delay: Delay::Constant {
                us: DELAY.as_micros() as u64,
            },
            ..Links::default()
        };
        let mut world = World::new(seed, Direct, links);
        let config = Config {
            max_connections: libraries.len() + 1,
            ..Config::default()
        };
        let core = Hub::new(config, world.rng(HUB));
        world.add(Node::Server(Box::new(Server {
            core,
            conns: FxHashMap::default(),
            users: FxHashMap::default(),
        })));
        world.start(HUB);
        for (number, library) in (1..).zip(libraries) {
            let login = Login {
                nick: format!("user{number}"),
                password: format!("word{number}"),
                data_port: 6699,
                link: 9,
                overlay: None,
            };
            world.add(Node::User(Box::new(User {
                core: Client::new(&login),
                library: library.clone(),
            })));
            world.start(number);
        }
        let mut inside = 0;
        world.run_until(Time::from_secs(5), |_, _, event| {
            inside += u32::from(event == Event::In);
        });
        Self { world, inside }
    }

    /// Files in the directory.
    pub(super) fn indexed(&self) -> u64 {
        match self.world.node(HUB) {
            Node::Server(server) => server.core.stats().files,
            Node::User(_) => 0,
        }
    }

    /// One question after the other, each at its end before the next.
    pub(super) fn ask(&mut self, (user, content): (u32, u32)) -> Asked {
        let since = self.world.now();
        let bytes = self.world.counts().bytes;
        self.world.call(user, |node, ctx| {
            if let Node::User(user) = node {
                user.core.say(kind::SEARCH, |o| {
                    let query = format!("FILENAME CONTAINS \"{}\" MAX_RESULTS 100", word(content));
                    o.extend_from_slice(query.as_bytes());
                });
                user.flush(ctx);
            }
        });
        // The hub tells everybody its statistics now and then, which is no cost of a question.
        let mut asked = Asked {
            messages: 1,
            reach: 1,
            ..Asked::default()
        };
        let mut ended = false;
        self.world
            .run_until(since + 2 * DELAY + PAUSE, |at, node, event| {
                if node != user {
                    return;
                }
                match event {
                    Event::Hit => {
                        asked.found += 1;
                        let ms = at.since(since).as_secs_f64() * 1000.0;
                        asked.first_ms.get_or_insert(ms);
                        asked.hops = Some(1);
                    }
                    Event::Answer => asked.answers += 1,
                    Event::End => ended = true,
                    Event::In => {}
                }
            });
        asked.reach += u64::from(ended);
        asked.messages += asked.answers;
        asked.bytes = self.world.counts().bytes - bytes;
        asked
    }
}
