//! The central directory, as Napster had it: everybody tells one hub what he shares, and asks it.

use super::library::{Library, Zipf, name, word};
use super::{Asked, Outcome};
use crate::experiment::{BadOptions, Experiment, Host, Speed};
use crate::link::{Delay, Links};
use crate::report::{Report, number};
use crate::rng_for;
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

/// Options of the experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Napster {
    /// Users of the hub.
    pub users: u32,
    /// Files of each.
    pub files: u32,
    /// Different contents there are.
    pub contents: u32,
    /// Questions.
    pub questions: u32,
}

/// The hub's number; users follow.
const HUB: u32 = 0;
/// One-way delay.
const DELAY: Duration = Duration::from_millis(50);
/// Time between two questions.
const PAUSE: Duration = Duration::from_millis(20);

/// What travels.
#[derive(Debug, Clone)]
enum Message {
    Open,
    Bytes(Vec<u8>),
    Close,
}

/// What the checker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    In,
    /// A message came that has hits, or the end of them.
    Answer,
    Hit,
    End,
}

/// The hub's machine.
#[derive(Debug)]
struct Server {
    core: Hub,
    conns: FxHashMap<u32, ConnId>,
    users: FxHashMap<ConnId, u32>,
}

/// A user's program.
#[derive(Debug)]
struct User {
    core: Client,
    library: Library,
}

#[derive(Debug)]
enum Node {
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

/// One question after the other, each at its end before the next.
fn ask(world: &mut World<Node>, (user, content): (u32, u32)) -> Asked {
    let since = world.now();
    world.call(user, |node, ctx| {
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
    world.run_until(since + 2 * DELAY + PAUSE, |at, node, event| {
        if node != user {
            return;
        }
        match event {
            Event::Hit => {
                asked.found += 1;
                let ms = at.since(since).as_secs_f64() * 1000.0;
                asked.first_ms.get_or_insert(ms);
            }
            Event::Answer => asked.messages += 1,
            Event::End => ended = true,
            Event::In => {}
        }
    });
    asked.reach += u64::from(ended);
    asked
}

impl Napster {
    fn questions(&self, zipf: &Zipf, rng: &mut shoal_base::Rng) -> Vec<(u32, u32)> {
        let user = |rng: &mut shoal_base::Rng| 1 + rng.below(self.users as usize) as u32;
        (0..self.questions)
            .map(|_| (user(rng), zipf.draw(rng)))
            .collect()
    }
}

impl Experiment for Napster {
    fn name(&self) -> &'static str {
        "napster"
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("users", self.users.to_string()),
            ("files", self.files.to_string()),
            ("contents", self.contents.to_string()),
            ("questions", self.questions.to_string()),
            ("delay", "50 ms".to_owned()),
        ]
    }

    fn run(&self, seed: u64, host: &mut dyn Host) -> Result<Report, BadOptions> {
        if !(2..=1_000_000).contains(&self.users)
            || self.files > 5000
            || self.contents == 0
            || self.questions == 0
        {
            let why = "napster needs 2 to 1,000,000 users of 5000 files at most, a content and a \
                       question";
            return Err(BadOptions(why.to_owned()));
        }
        let mut rng = rng_for(seed, 1 << 40);
        let zipf = Zipf::new(self.contents);
        let links = Links {
            delay: Delay::Constant {
                us: DELAY.as_micros() as u64,
            },
            ..Links::default()
        };
        let mut world = World::new(seed, Direct, links);
        let mut speed = Speed::default();
        speed.start(host, 0);
        let config = Config {
            max_connections: self.users as usize + 1,
            ..Config::default()
        };
        let most = config.max_results as u64;
        let core = Hub::new(config, world.rng(HUB));
        world.add(Node::Server(Box::new(Server {
            core,
            conns: FxHashMap::default(),
            users: FxHashMap::default(),
        })));
        world.start(HUB);
        let mut holders: FxHashMap<u32, u64> = FxHashMap::default();
        let mut libraries = Vec::new();
        for number in 1..=self.users {
            let library = Library::draw(self.files, &zipf, &mut rng);
            for content in &library.0 {
                *holders.entry(*content).or_default() += 1;
            }
            libraries.push(library.clone());
            let login = Login {
                nick: format!("user{number}"),
                password: format!("word{number}"),
                data_port: 6699,
                link: 9,
            };
            world.add(Node::User(Box::new(User {
                core: Client::new(&login),
                library,
            })));
            world.start(number);
        }
        let mut inside = 0_u32;
        world.run_until(Time::from_secs(5), |_, _, event| {
            inside += u32::from(event == Event::In);
        });
        let shared: u64 = libraries.iter().map(|l| l.0.len() as u64).sum();
        let indexed = match world.node(HUB) {
            Node::Server(server) => server.core.stats().files,
            Node::User(_) => 0,
        };

        let mut asked = Vec::new();
        let mut exact = true;
        let bytes = world.counts().bytes;
        for (n, (user, content)) in (0..).zip(self.questions(&zipf, &mut rng)) {
            if n % 100 == 0 {
                host.progress("Asking", n, self.questions.into());
            }
            let one = ask(&mut world, (user, content));
            let own = libraries[user as usize - 1].has(content);
            let others = holders.get(&content).copied().unwrap_or(0) - u64::from(own);
            exact &= one.found == others.min(most) && one.reach == 2;
            asked.push(one);
        }
        let bytes = (world.counts().bytes - bytes) as f64 / asked.len() as f64;
        let outcome = Outcome::of(&asked);
        world.crash(HUB);
        let after: Vec<Asked> = self
            .questions(&zipf, &mut rng)
            .into_iter()
            .take(100)
            .map(|question| ask(&mut world, question))
            .collect();
        let after = Outcome::of(&after);
        speed.stop(host, world.counts().events);

        let mut report = Report::new(self.name(), "A central directory", seed);
        report.summary =
            "A Napster hub and its users: one message asks, and the hub knows all that is \
                          shared. It also bears every question, and all search ends with it."
                .to_owned();
        report.options = self.options();
        report.digest = world.digest();
        report.figure("events", world.counts().events);
        speed.tell(&mut report);
        report.figure("files_shared", shared);
        report.figure("searches", outcome.json());
        report.figure("bytes_per_question", bytes);
        report.figure("without_hub", after.json());
        report.check(
            "everybody is let in and every file is in the directory",
            format!("{} users, {shared} files", self.users),
            format!("{inside} users, {indexed} files"),
            inside == self.users && indexed == shared,
        );
        report.check(
            "hits of each question",
            format!("one for everybody else who shares it, {most} at most"),
            if exact { "so" } else { "not so" },
            exact,
        );
        report.check(
            "messages of a question, whatever the number of users",
            "2: asked, answered",
            number(outcome.messages),
            (outcome.messages - 2.0).abs() < 0.1,
        );
        report.check(
            "questions answered when the hub is shot",
            "none",
            number(after.answered),
            after.answered == 0.0,
        );
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Silent;

    #[test]
    fn the_hub_finds_all_that_is_shared_for_two_messages_and_all_ends_with_it() {
        let experiment = Napster {
            users: 200,
            files: 10,
            contents: 1000,
            questions: 100,
        };
        let report = experiment.run(2, &mut Silent).expect("good options");
        assert!(report.holds(), "{:#?}", report.checks);
        let again = experiment.run(2, &mut Silent).expect("good options");
        assert_eq!(report.json(), again.json());
    }
}
