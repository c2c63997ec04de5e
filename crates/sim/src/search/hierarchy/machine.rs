//! Machines of the hierarchy: one with the list of supernodes, and those of its members, who may be
//! running, stopped (whoever calls is told at once) or gone without a word.

use super::super::library::{Library, name, sha1};
use crate::space::Direct;
use crate::world::{Context, Process};
use serde::{Deserialize, Serialize};
use shoal_base::Time;
use shoal_supernode::Address;
use shoal_supernode::list::{Entry, Registration, SupernodeList};
use shoal_supernode::node::{Effect, Event as Told, LinkId, Node};
use shoal_supernode::token::Presence;
use shoal_supernode::wire::{self, File, Hit, QueryId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The machine that has the list.
pub(super) const LIST: u32 = 0;
/// Bytes of a connection's opening or end, as of a TCP segment without data.
const SEGMENT: u32 = 40;

/// Where a member is: a machine, and whose. Machines of one host are told apart as ports are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::search) struct Place {
    pub(in crate::search) node: u32,
    pub(in crate::search) host: u32,
}

impl Address for Place {
    fn host(&self) -> u128 {
        self.host.into()
    }

    fn may_go(&self, _other: &Self) -> bool {
        true
    }
}

/// What travels between machines. Connections have a number at each end.
#[derive(Debug, Clone)]
pub(in crate::search) enum Message {
    /// A call of a host; the caller's number.
    Open(LinkId, u32),
    /// It is taken: the number of who called, and of who took it.
    Opened(LinkId, LinkId),
    /// Nobody listens.
    Refused(LinkId),
    /// A message: the receiver's number, the sender's, and what it is.
    Data(LinkId, LinkId, Box<wire::Message<Place>>),
    /// The connection is over.
    Closed(LinkId),
    AskList,
    List(Arc<[Entry<Place>]>),
    /// A host registers.
    Register(u32, Box<Registration<Place>>),
}

/// What the checker is told.
#[derive(Debug, Clone)]
pub(in crate::search) enum Event {
    /// A query came, for the first time or again.
    Query(QueryId, u32),
    /// An answer came, of so many bytes.
    Answer(QueryId, u32),
    /// What was asked for was found.
    Found(QueryId, Vec<Hit<Place>>),
    /// There is a supernode, or none any more.
    Home(bool),
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wire {
    pub(super) node: u32,
    theirs: LinkId,
}

/// What a member did for queries since it was last set to nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::search) struct Load {
    /// Queries and answers that came.
    pub(in crate::search) messages: u64,
    /// Bytes of them, and of those that went out.
    pub(in crate::search) bytes: u64,
}

/// A member's machine.
#[derive(Debug)]
pub(in crate::search) struct Member {
    /// None while the program does not run.
    pub(super) core: Option<Node<Place>>,
    pub(super) wires: BTreeMap<LinkId, Wire>,
    calls: BTreeMap<LinkId, Place>,
    /// The host that it runs on.
    host: u32,
    next: LinkId,
    pub(super) load: Load,
    /// What it answers besides what its core does.
    pub(super) lie: Option<Lie>,
    presence: Presence<Place>,
}

/// How a member lies about what it has.
#[derive(Debug, Clone)]
pub(in crate::search) enum Lie {
    /// It answers every query with so many files, as its own.
    Own(usize),
    /// It answers every query with a file of somebody whose name it made up.
    Invented,
}

/// A machine.
#[derive(Debug)]
pub(in crate::search) enum Machine {
    /// It takes all calls and says nothing.
    Silent,
    List(Box<SupernodeList<Place>>),
    Member(Box<Member>),
}

/// A file in words of this overlay.
pub(in crate::search) fn file(name: &str, sha1: [u8; 20], size: u64) -> File {
    let mut tiger = [0; 24];
    tiger[..20].copy_from_slice(&sha1);
    File {
        path: format!("music/{name}"),
        size,
        sha1,
        tiger: Some(tiger),
        sound: None,
    }
}

/// The files of a library.
pub(super) fn files(library: &Library) -> Vec<File> {
    let contents = library.0.iter();
    contents
        .map(|content| file(&name(*content), sha1(*content), 4_000_000))
        .collect()
}

fn bytes_of(message: &wire::Message<Place>) -> u32 {
    let mut bytes = Vec::new();
    wire::encode(message, &mut bytes);
    bytes.len() as u32
}

/// What a liar says it has.
fn lies(lie: &Lie, presence: &Presence<Place>, words: &str) -> Vec<Hit<Place>> {
    let (count, sharer) = match lie {
        Lie::Own(count) => (*count, presence.clone()),
        Lie::Invented => (1, {
            let mut another = presence.clone();
            another.token.name = "somebody".to_owned();
            another
        }),
    };
    let hit = |n: usize| {
        let mut sha1 = [0xee; 20];
        sha1[..8].copy_from_slice(&(n as u64).to_le_bytes());
        Hit {
            file: file(&format!("{words} {n}.mp3"), sha1, 4_000_000),
            sharer: sharer.clone(),
            elsewhere: None,
            standing: None,
        }
    };
    (0..count.min(wire::MAX_BATCH)).map(hit).collect()
}

fn is_search(message: &wire::Message<Place>) -> bool {
    matches!(
        message,
        wire::Message::Query { .. } | wire::Message::Hits(..)
    )
}

impl Member {
    pub(super) fn new(core: Node<Place>, host: u32, presence: Presence<Place>) -> Self {
        Self {
            host,
            core: Some(core),
            wires: BTreeMap::new(),
            calls: BTreeMap::new(),
            next: 0,
            load: Load::default(),
            lie: None,
            presence,
        }
    }

    /// A new program on the same machine: connections of the old one are unknown to it.
    pub(super) fn restart(&mut self, core: Node<Place>, presence: Presence<Place>) {
        self.core = Some(core);
        self.presence = presence;
        self.wires.clear();
        self.calls.clear();
    }

    /// The program is killed: the machine ends its connections.
    pub(super) fn kill(&mut self, ctx: &mut Context<'_, Machine>) {
        self.core = None;
        self.calls.clear();
        for wire in std::mem::take(&mut self.wires).into_values() {
            ctx.send_stream(wire.node, Message::Closed(wire.theirs), SEGMENT);
        }
    }

    /// Lets the core act and does what it says.
    pub(super) fn with<R>(
        &mut self,
        ctx: &mut Context<'_, Machine>,
        act: impl FnOnce(&mut Node<Place>, Time, &mut Vec<Effect<Place>>) -> R,
    ) -> Option<R> {
        let mut out = Vec::new();
        let core = self.core.as_mut()?;
        let result = act(core, ctx.now(), &mut out);
        for effect in out {
            self.act(ctx, effect);
        }
        Some(result)
    }

    fn act(&mut self, ctx: &mut Context<'_, Machine>, effect: Effect<Place>) {
        match effect {
            Effect::Dial(to) => {
                let id = self.number();
                self.calls.insert(id, to);
                ctx.send_stream(to.node, Message::Open(id, self.host), SEGMENT);
            }
            Effect::Send(link, message) => {
                let Some(wire) = self.wires.get(&link) else {
                    return;
                };
                let bytes = bytes_of(&message);
                if is_search(&message) {
                    self.load.bytes += u64::from(bytes);
                }
                let data = Message::Data(wire.theirs, link, Box::new(message));
                ctx.send_stream(wire.node, data, bytes);
            }
            Effect::Close(link) => {
                if let Some(wire) = self.wires.remove(&link) {
                    ctx.send_stream(wire.node, Message::Closed(wire.theirs), SEGMENT);
                }
            }
            Effect::AskList => ctx.send_stream(LIST, Message::AskList, SEGMENT),
            Effect::Register(said) => {
                // A presence, a load, a time and a signature.
                ctx.send_stream(LIST, Message::Register(self.host, said), 400);
            }
            Effect::Event(Told::Home(home)) => ctx.tell(Event::Home(home.is_some())),
            Effect::Event(Told::Hits(id, hits)) => ctx.tell(Event::Found(id, hits)),
            // Nobody stands in a ring here.
            Effect::Find(_) | Effect::Keep(_) | Effect::Event(_) => {}
        }
    }

    /// A number that no connection of this machine ever had.
    fn number(&mut self) -> LinkId {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    fn on_message(&mut self, ctx: &mut Context<'_, Machine>, from: u32, message: Message) {
        match message {
            Message::Open(theirs, _) if self.core.is_none() => {
                ctx.send_stream(from, Message::Refused(theirs), SEGMENT);
            }
            Message::Open(theirs, host) => {
                let mine = self.number();
                let wire = Wire { node: from, theirs };
                self.wires.insert(mine, wire);
                ctx.send_stream(from, Message::Opened(theirs, mine), SEGMENT);
                self.with(ctx, |core, now, out| {
                    core.on_connected(now, mine, None, host.into(), out);
                });
            }
            Message::Opened(mine, theirs) => {
                let Some(to) = self.calls.remove(&mine) else {
                    return ctx.send_stream(from, Message::Closed(theirs), SEGMENT);
                };
                self.wires.insert(mine, Wire { node: from, theirs });
                self.with(ctx, |core, now, out| {
                    core.on_connected(now, mine, Some(to), to.host(), out);
                });
            }
            Message::Refused(mine) => {
                if let Some(to) = self.calls.remove(&mine) {
                    self.with(ctx, |core, now, out| core.on_dial_failed(now, to, out));
                }
            }
            Message::Data(mine, theirs, message) => {
                if !self.wires.contains_key(&mine) {
                    // The end of a connection that this program never had.
                    return ctx.send_stream(from, Message::Closed(theirs), SEGMENT);
                }
                let bytes = match is_search(&message) {
                    true => bytes_of(&message),
                    false => 0,
                };
                match &*message {
                    wire::Message::Query { id, .. } => ctx.tell(Event::Query(*id, bytes)),
                    wire::Message::Hits(id, _) => ctx.tell(Event::Answer(*id, bytes)),
                    _ => {}
                }
                if let Some(lie) = &self.lie
                    && let wire::Message::Query { id, wanted, .. } = &*message
                    && let wire::Wanted::Words(words) = wanted
                {
                    let hits = lies(lie, &self.presence, words);
                    let hits = Box::new(wire::Message::Hits(*id, hits));
                    let bytes = bytes_of(&hits);
                    ctx.send_stream(from, Message::Data(theirs, mine, hits), bytes);
                }
                self.load.messages += u64::from(bytes > 0);
                self.load.bytes += u64::from(bytes);
                self.with(ctx, |core, now, out| {
                    core.on_message(now, mine, *message, out);
                });
            }
            Message::Closed(mine) => {
                if self.wires.remove(&mine).is_some() {
                    self.with(ctx, |core, now, out| core.on_closed(now, mine, out));
                }
            }
            Message::List(entries) => {
                self.with(ctx, |core, now, out| core.on_list(now, &entries, out));
            }
            Message::AskList | Message::Register(..) => {}
        }
    }
}

impl Process for Machine {
    type Space = Direct;
    type Message = Message;
    type Event = Event;

    fn on_start(&mut self, ctx: &mut Context<'_, Self>) {
        if let Self::Member(member) = self {
            member.with(ctx, Node::start);
        }
    }

    fn on_message(&mut self, ctx: &mut Context<'_, Self>, from: u32, message: Message) {
        match (self, message) {
            (Self::Member(member), message) => member.on_message(ctx, from, message),
            (Self::List(list), Message::AskList) => {
                let entries: Arc<[_]> = list.entries(ctx.now()).into();
                let bytes = 8 * entries.len() as u32;
                ctx.send_stream(from, Message::List(entries), bytes);
            }
            (Self::List(list), Message::Register(host, said)) => {
                // What the list refuses it would refuse again: nobody here mends it.
                let _ = list.register(ctx.now(), host.into(), &said);
            }
            (Self::List(_) | Self::Silent, _) => {}
        }
    }

    fn on_tick(&mut self, ctx: &mut Context<'_, Self>) {
        if let Self::Member(member) = self {
            member.with(ctx, Node::on_tick);
        }
    }

    fn deadline(&self) -> Option<Time> {
        match self {
            Self::Member(member) => member.core.as_ref().map(Node::deadline),
            Self::List(_) | Self::Silent => None,
        }
    }
}
