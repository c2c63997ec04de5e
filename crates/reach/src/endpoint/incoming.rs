//! What comes in: packets, frames of relays' streams, letters, and whose they are.

use super::{Endpoint, LETTER, MAX_ASKED, MAX_SESSIONS, Output, Session, SessionId};
use crate::agent::signal::Signal;
use crate::agent::{self, Base, Path, RelayId};
use crate::sealed;
use crate::stun::{Attribute, Class, Message, kind, looks_like_stun};
use shoal_base::Time;
use std::net::SocketAddr;

impl Endpoint {
    /// A datagram came to our socket: what a node sent to us, if that is what it holds.
    pub fn on_udp<'b>(
        &mut self,
        now: Time,
        from: SocketAddr,
        bytes: &'b [u8],
        out: &mut Vec<Output>,
    ) -> Option<(SessionId, &'b [u8])> {
        if !self.relays.is_relay(from) {
            let (base, peer) = (Base::Direct, from);
            return self.on_packet(now, Path { base, peer }, bytes, out);
        }
        let mut did = Vec::new();
        let came = self.relays.on_udp(now, from, bytes, &mut did);
        self.after_relays(now, did, out);
        let (relay, peer, data) = came?;
        let base = Base::Relay(relay);
        self.on_packet(now, Path { base, peer }, data, out)
    }

    pub(super) fn on_packet<'b>(
        &mut self,
        now: Time,
        path: Path,
        bytes: &'b [u8],
        out: &mut Vec<Output>,
    ) -> Option<(SessionId, &'b [u8])> {
        if looks_like_stun(bytes) {
            self.on_stun(now, path, bytes, out);
            return None;
        }
        let id = *self.ways.get(&path)?;
        let session = self.sessions.get_mut(&id)?;
        if !session.agent.on_data(now, path) {
            return None;
        }
        if let Some((&LETTER, letter)) = bytes.split_first() {
            self.on_letter(now, letter, out);
            return None;
        }
        Some((id, bytes))
    }

    pub(super) fn on_stun(&mut self, now: Time, path: Path, bytes: &[u8], out: &mut Vec<Output>) {
        let Ok(message) = Message::decode(bytes) else {
            return;
        };
        let id = match (message.class(), message.get(kind::USERNAME)) {
            (Class::Request, Some(Ok(Attribute::Username(name)))) => {
                let mut named = self.sessions.iter();
                let of = |s: &Session| name.starts_with(s.agent.name().as_bytes());
                named.find(|(_, s)| of(s)).map(|(id, _)| *id)
            }
            (Class::Success, _) => self.ways.get(&path).copied(),
            _ => None,
        };
        let mut did = Vec::new();
        let Some(id) = id else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.agent.on_stun(now, path, &message, &mut did);
        }
        let answers = |o: &agent::Output| matches!(o, agent::Output::Send(to, _) if *to == path);
        if message.class() == Class::Request && did.iter().any(answers) {
            // It has proven that it knows what its letters said.
            self.ways.insert(path, id);
        }
        self.after_agent(now, id, did, out);
    }

    /// A letter came.
    pub fn on_letter(&mut self, now: Time, letter: &[u8], out: &mut Vec<Output>) {
        let Ok((peer, text)) = sealed::open(&self.identity, letter) else {
            return;
        };
        let Ok(signal) = Signal::decode(&text) else {
            return;
        };
        let known = self.sessions.iter().find(|(_, s)| s.peer == peer);
        let id = match known.map(|(id, _)| *id) {
            Some(id) => id,
            None => {
                let asked = self.sessions.values().filter(|s| !s.held).count();
                if !self.accepts || asked >= MAX_ASKED || self.sessions.len() >= MAX_SESSIONS {
                    return;
                }
                self.begin(now, peer, false)
            }
        };
        let mut did = Vec::new();
        if let Some(session) = self.sessions.get_mut(&id) {
            session.agent.on_signal(now, signal, &mut did);
        }
        self.after_agent(now, id, did, out);
        if self
            .sessions
            .get(&id)
            .is_some_and(|s| s.agent.told().0 == 0)
        {
            self.update_one(now, id, out);
        }
    }

    /// A connection to a relay is there.
    pub fn on_open(&mut self, now: Time, id: RelayId, out: &mut Vec<Output>) {
        let mut did = Vec::new();
        self.relays.on_open(now, id, &mut did);
        self.after_relays(now, did, out);
    }

    /// A connection to a relay failed or ended.
    pub fn on_closed(&mut self, now: Time, id: RelayId, out: &mut Vec<Output>) {
        let mut did = Vec::new();
        self.relays.on_closed(now, id, &mut did);
        self.after_relays(now, did, out);
    }

    /// Bytes came by a connection to a relay; `each` gets what nodes sent to us.
    pub fn on_tcp(
        &mut self,
        now: Time,
        id: RelayId,
        bytes: &[u8],
        out: &mut Vec<Output>,
        mut each: impl FnMut(SessionId, &[u8]),
    ) {
        let mut did = Vec::new();
        let mut came: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
        self.relays.on_tcp(now, id, bytes, &mut did, |peer, data| {
            came.push((peer, data.to_vec()));
        });
        self.after_relays(now, did, out);
        let base = Base::Relay(id);
        for (peer, data) in came {
            if let Some((session, data)) = self.on_packet(now, Path { base, peer }, &data, out) {
                each(session, data);
            }
        }
    }
}
