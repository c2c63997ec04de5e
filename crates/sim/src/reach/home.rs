//! A home: a node's real endpoint behind what stands before it, and a person who talks to one other.

use super::kind::Kind;
use super::machine::{CARRIER, Ctx, Message, datagram, stream};
use super::route::Hop;
use shoal_base::Time;
use shoal_reach::agent::{InUse, RelayId};
use shoal_reach::endpoint::{Endpoint, Output, SessionId, Way};
use shoal_reach::identity::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// How often something is said, and its bytes: as speech at 64 kbit/s.
pub(super) const WORD: Duration = Duration::from_millis(20);
const WORD_BYTES: usize = 160;
/// Begins what is said: neither STUN nor a letter.
const SAID: u8 = 0xc0;
/// Silences that are remembered one by one.
const SILENCE: Duration = Duration::from_millis(300);

/// A conversation, as one end has it.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) partner: NodeId,
    pub(super) session: Option<SessionId>,
    pub(super) began: Time,
    /// When there was a way for the first time.
    pub(super) met: Option<Time>,
    pub(super) way: Option<InUse>,
    /// When the next word is said; none: nobody speaks.
    pub(super) next: Option<Time>,
    /// Words sent and heard.
    pub(super) said: u64,
    pub(super) heard: u64,
    /// When the last one was heard.
    last: Time,
    /// The longest time without one since that was asked for anew.
    longest: Duration,
    /// Silences: when they began, and how long they were.
    pub(super) silences: Vec<(Time, Duration)>,
}

/// A node and what is before it.
pub(super) struct Home {
    pub(super) kind: Kind,
    /// Its translators.
    pub(super) nats: Vec<usize>,
    pub(super) id: NodeId,
    pub(super) endpoint: Endpoint,
    pub(super) talk: Option<Talk>,
    /// Connections and the machines at their other ends.
    tcp: BTreeMap<RelayId, u32>,
    /// Where datagrams went.
    pub(super) sent_to: BTreeSet<SocketAddr>,
}

impl Home {
    pub(super) fn new(kind: Kind, nats: Vec<usize>, endpoint: Endpoint) -> Self {
        Self {
            kind,
            nats,
            id: endpoint.id(),
            endpoint,
            talk: None,
            tcp: BTreeMap::new(),
            sent_to: BTreeSet::new(),
        }
    }

    /// Does something with the endpoint, and what that wants.
    pub(super) fn with<R>(
        &mut self,
        ctx: &mut Ctx<'_>,
        act: impl FnOnce(&mut Endpoint, Time, &mut Vec<Output>) -> R,
    ) -> R {
        let mut out = Vec::new();
        let result = act(&mut self.endpoint, ctx.now(), &mut out);
        self.act(ctx, out);
        result
    }

    /// Somebody is to be talked to; who calls begins.
    pub(super) fn begin(&mut self, ctx: &mut Ctx<'_>, partner: NodeId, calls: bool) {
        let now = ctx.now();
        let known = self.endpoint.session(&partner);
        let mut talk = Talk {
            partner,
            session: known,
            began: now,
            met: None,
            way: None,
            next: None,
            said: 0,
            heard: 0,
            last: now,
            longest: Duration::ZERO,
            silences: Vec::new(),
        };
        if let Some(id) = known {
            self.endpoint.hold(now, id, true);
            talk.way = self.endpoint.in_use(id);
            talk.met = talk.way.map(|_| now);
        }
        self.talk = Some(talk);
        if calls {
            let id = self.with(ctx, |e, now, out| e.open(now, partner, out));
            if let Some(talk) = &mut self.talk {
                talk.session = id;
            }
        }
    }

    /// The conversation is over.
    pub(super) fn end(&mut self, now: Time) -> Option<Talk> {
        let mut talk = self.talk.take()?;
        talk.mark(now);
        if let Some(id) = talk.session {
            self.endpoint.hold(now, id, false);
        }
        Some(talk)
    }

    /// The person speaks from now on, or does not.
    pub(super) fn speak(&mut self, now: Time, speaks: bool) {
        if let Some(talk) = &mut self.talk {
            talk.next = speaks.then_some(now);
            talk.mark(now);
        }
    }

    fn act(&mut self, ctx: &mut Ctx<'_>, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Udp(to, bytes) => self.leave(ctx, to, bytes),
                Output::Open { id, to, .. } => {
                    if self.kind != Kind::Web || matches!(to.port(), 80 | 443) {
                        stream(ctx, Hop::Tcp(to), Message::Open(id));
                    }
                }
                Output::Tcp(id, bytes) => {
                    if let Some(machine) = self.tcp.get(&id) {
                        stream(ctx, Hop::Machine(*machine), Message::Stream(id, bytes));
                    }
                }
                Output::Close(id) => {
                    if let Some(machine) = self.tcp.remove(&id) {
                        stream(ctx, Hop::Machine(machine), Message::Closed(id));
                    }
                }
                Output::Letter(to, letter) => {
                    stream(ctx, Hop::Machine(CARRIER), Message::Letter(to, letter));
                }
                Output::Way(id, way) => self.on_way(ctx.now(), id, way),
            }
        }
    }

    fn on_way(&mut self, now: Time, id: SessionId, way: Option<InUse>) {
        let peer = self.endpoint.peer(id);
        let Some(talk) = self.talk.as_mut().filter(|t| Some(t.partner) == peer) else {
            return;
        };
        talk.session = Some(id);
        talk.way = way;
        if way.is_some() && talk.met.is_none() {
            talk.met = Some(now);
            self.endpoint.hold(now, id, true);
        }
    }

    fn leave(&mut self, ctx: &mut Ctx<'_>, to: SocketAddr, bytes: Vec<u8>) {
        if self.kind.has_udp() {
            self.sent_to.insert(to);
            datagram(ctx, None, to, bytes);
        }
    }

    pub(super) fn on_message(&mut self, ctx: &mut Ctx<'_>, from: Hop, message: Message) {
        let now = ctx.now();
        let mut out = Vec::new();
        let mut came = Vec::new();
        match (from, message) {
            (Hop::Udp { at, .. }, Message::Udp(_, bytes)) => {
                let data = self.endpoint.on_udp(now, at, &bytes, &mut out);
                came.extend(data.map(|(id, data)| (id, data.to_vec())));
            }
            (Hop::Machine(machine), Message::Opened(id)) => {
                self.tcp.insert(id, machine);
                self.endpoint.on_open(now, id, &mut out);
            }
            (_, Message::Closed(id)) => {
                self.tcp.remove(&id);
                self.endpoint.on_closed(now, id, &mut out);
            }
            (_, Message::Stream(id, bytes)) => {
                let endpoint = &mut self.endpoint;
                endpoint.on_tcp(now, id, &bytes, &mut out, |id, data| {
                    came.push((id, data.to_vec()));
                });
            }
            (_, Message::Letter(_, letter)) => self.endpoint.on_letter(now, &letter, &mut out),
            _ => {}
        }
        for (id, data) in came {
            self.on_word(now, id, &data);
        }
        self.act(ctx, out);
    }

    fn on_word(&mut self, now: Time, id: SessionId, data: &[u8]) {
        let peer = self.endpoint.peer(id);
        let talk = self.talk.as_mut().filter(|t| Some(t.partner) == peer);
        if let Some(talk) = talk.filter(|_| data.first() == Some(&SAID)) {
            talk.mark(now);
            talk.heard += 1;
        }
    }

    /// Says a word, by the way in use.
    fn say(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now();
        let Some(session) = self.talk.as_ref().and_then(|t| t.session) else {
            return;
        };
        let Some(way) = self.endpoint.way(now, session) else {
            return;
        };
        if let Some(talk) = &mut self.talk {
            talk.said += 1;
        }
        let mut data = vec![0; WORD_BYTES];
        data[0] = SAID;
        match way {
            Way::Direct(to) => self.leave(ctx, to, data),
            Way::Relay(id, peer) => {
                let mut frame = Vec::new();
                match self.endpoint.frame(now, id, peer, &data, &mut frame) {
                    Ok(Some(to)) => self.leave(ctx, to, frame),
                    Ok(None) => self.act(ctx, vec![Output::Tcp(id, frame)]),
                    // The relay has gone: the word is lost.
                    Err(_) => {}
                }
            }
        }
    }

    pub(super) fn on_tick(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now();
        if self.endpoint.deadline() <= now {
            self.with(ctx, Endpoint::on_tick);
        }
        let due = self.talk.as_mut().and_then(|t| t.next.as_mut());
        if let Some(next) = due.filter(|next| **next <= now) {
            *next = now + WORD;
            self.say(ctx);
        }
    }

    pub(super) fn deadline(&self) -> Time {
        let next = self.talk.as_ref().and_then(|t| t.next);
        self.endpoint.deadline().min(next.unwrap_or(Time::FAR))
    }
}

impl Talk {
    /// Something is heard, or a silence is broken off.
    fn mark(&mut self, now: Time) {
        let silence = now.since(self.last);
        if self.met.is_some() && silence >= SILENCE && self.heard > 0 {
            self.silences.push((self.last, silence));
        }
        self.longest = self.longest.max(silence);
        self.last = now;
    }

    /// The longest silence since that was asked for anew.
    pub(super) fn gap(&self, now: Time) -> Duration {
        self.longest.max(now.since(self.last))
    }

    /// From now on silences are measured anew. What is silent now goes on being so.
    pub(super) fn measure(&mut self) {
        self.longest = Duration::ZERO;
    }
}
