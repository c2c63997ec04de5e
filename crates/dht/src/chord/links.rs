//! Who is at a socket address: handshake, keys, and datagrams that nobody else can make or replay.
//!
//! Both ends prove their Ed25519 key by a Diffie-Hellman exchange over it (X25519), mixed with the
//! ring's key, so that who does not know the ring's secret gets no answer beyond a challenge
//! smaller than the question. Nothing is kept for an address before a cookie came back from it.
//! `docs/protocols/chord.md` has the layout.

mod session;

use super::wire::MAX_DATAGRAM;
use crate::Output;
use ed25519_dalek::{SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use session::{Hello, Peer, Session};
use sha2::Sha256;
use shoal_base::secret::same;
use shoal_base::{Cursor, Rng, Time};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// First bytes of every datagram: two that no other protocol on such ports begins with, and the
/// version.
const MAGIC: [u8; 3] = [0xc5, b'R', 1];
const HELLO: u8 = 0;
const CHALLENGE: u8 = 1;
const BEGIN: u8 = 2;
const ACCEPT: u8 = 3;
const DATA: u8 = 4;
const RESET: u8 = 5;

/// What a datagram of data has besides its body.
pub(crate) const OVERHEAD: usize = 4 + 4 + 8 + TAG;
const TAG: usize = 16;
/// A hello is padded to at least the length of the challenge it asks for.
const HELLO_LEN: usize = 4 + 8 + 16 + 32 + 16;

/// Most addresses with which keys are shared, or being agreed.
const MAX_PEERS: usize = 4096;
/// Most bodies that wait for one handshake.
const MAX_WAITING: usize = 32;
/// How long a cookie is good, at least; twice as long at most.
const COOKIE_EPOCH: u64 = 30_000_000;
/// Hellos before an address counts as dead, and the time to the second one; each later pause is
/// twice the one before.
const HELLOS: u32 = 4;
const HELLO_PAUSE: Duration = Duration::from_millis(500);
/// Handshakes answered in one second: each costs a curve multiplication.
const BEGINS_PER_SECOND: u32 = 500;
/// Sessions forgotten after this silence.
const IDLE: Duration = Duration::from_secs(600);

/// HMAC-SHA-256 over the parts joined; callers pass parts of fixed length, or one last.
fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        unreachable!("HMAC takes keys of any length")
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn head<const N: usize>(bytes: &[u8; 32]) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
    out
}

/// What came in.
pub(crate) struct Arrived {
    /// Who sent it.
    pub(crate) key: [u8; 32],
    /// It is the first in a session that they began.
    pub(crate) fresh: bool,
    /// What.
    pub(crate) body: Vec<u8>,
}

/// What happened besides.
pub(crate) enum Event {
    /// These bodies, which wait for a key, may now be sent, if it is the right one.
    Ready(SocketAddr, [u8; 32], Vec<Waiting>),
    /// Nobody of the ring answers there.
    Unreachable(SocketAddr, Vec<Waiting>),
}

/// A body that waits for a handshake.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) body: Vec<u8>,
    /// Whom it is for: a number of the caller's.
    pub(crate) token: Option<super::Place>,
}

/// The sessions of one endpoint.
pub(crate) struct Links {
    secret: SigningKey,
    pub(crate) public: [u8; 32],
    ring: [u8; 32],
    tag: [u8; 8],
    cookies: [u8; 32],
    rng: Rng,
    peers: BTreeMap<SocketAddr, Peer>,
    begins: (u64, u32),
}

impl Links {
    pub(crate) fn new(secret: SigningKey, name: &str, ring_secret: &[u8], mut rng: Rng) -> Self {
        let name_hash = mac(b"shoal chord ring 1", &[name.as_bytes()]);
        let ring = mac(&name_hash, &[ring_secret]);
        let mut drawn = [0; 32];
        rng.fill(&mut drawn);
        // However little was in the generator's seed, nobody else can make a cookie.
        let cookies = mac(&secret.to_bytes(), &[b"cookies", &drawn]);
        Self {
            public: secret.verifying_key().to_bytes(),
            secret,
            tag: head(&mac(&ring, &[b"tag"])),
            ring,
            cookies,
            rng,
            peers: BTreeMap::new(),
            begins: (0, 0),
        }
    }

    /// The key of whoever is at `to`, if that is agreed.
    pub(crate) fn key_of(&self, to: SocketAddr) -> Option<[u8; 32]> {
        let session = self.peers.get(&to)?.sessions.last()?;
        Some(session.key)
    }

    /// Addresses with a session.
    pub(crate) fn count(&self) -> usize {
        self.peers
            .values()
            .filter(|p| !p.sessions.is_empty())
            .count()
    }

    /// About how many bytes the sessions take.
    pub(crate) fn memory(&self) -> usize {
        let sessions = self.peers.values().map(|p| {
            let waiting: usize = p.waiting.iter().map(|w| w.body.len()).sum();
            p.sessions.len() * (size_of::<Session>() + 84) + waiting + size_of::<Peer>()
        });
        sessions.sum()
    }

    /// Sends a body, or keeps it until there is a session.
    pub(crate) fn send(
        &mut self,
        now: Time,
        to: SocketAddr,
        waiting: Waiting,
        out: &mut Vec<Output>,
    ) {
        self.make_room(now, to);
        let peer = self.peers.entry(to).or_insert_with(|| Peer {
            heard: now,
            ..Peer::default()
        });
        let session = peer.sessions.iter_mut().rev().find(|s| s.confirmed);
        if let Some(session) = session {
            if let Some(bytes) = session.seal(&waiting.body) {
                out.push(Output::Send { to, bytes });
            }
            return;
        }
        if peer.waiting.len() < MAX_WAITING {
            peer.waiting.push(waiting);
        }
        if peer.hello.is_none() {
            self.say_hello(now, to, out);
        }
    }

    fn make_room(&mut self, now: Time, to: SocketAddr) {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&to) {
            self.peers.retain(|_, p| now.since(p.heard) < IDLE / 10);
            if self.peers.len() >= MAX_PEERS {
                let oldest = self.peers.iter().min_by_key(|(_, p)| p.heard);
                if let Some(oldest) = oldest.map(|(a, _)| *a) {
                    self.peers.remove(&oldest);
                }
            }
        }
    }

    fn say_hello(&mut self, now: Time, to: SocketAddr, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        let hello = peer.hello.get_or_insert_with(|| {
            let mut nonce = [0; 16];
            self.rng.fill(&mut nonce);
            Hello {
                nonce,
                sent: 0,
                due: now,
            }
        });
        hello.due = now + HELLO_PAUSE * (1 << hello.sent.min(8));
        hello.sent += 1;
        let mut bytes = datagram(HELLO);
        bytes.extend(self.tag);
        bytes.extend(hello.nonce);
        bytes.extend(self.public);
        bytes.resize(HELLO_LEN, 0);
        out.push(Output::Send { to, bytes });
    }

    /// When handshakes next want [`Links::on_tick`].
    pub(crate) fn deadline(&self) -> Option<Time> {
        let hellos = self.peers.values().filter_map(|p| p.hello.as_ref());
        hellos.map(|h| h.due).min()
    }

    pub(crate) fn on_tick(&mut self, now: Time, events: &mut Vec<Event>, out: &mut Vec<Output>) {
        let due = self
            .peers
            .iter()
            .filter(|(_, p)| p.hello.as_ref().is_some_and(|h| h.due <= now));
        let due: Vec<_> = due
            .map(|(a, p)| (*a, p.hello.as_ref().map_or(0, |h| h.sent)))
            .collect();
        for (to, sent) in due {
            if sent < HELLOS {
                self.say_hello(now, to, out);
            } else if let Some(mut peer) = self.peers.remove(&to) {
                let waiting = std::mem::take(&mut peer.waiting);
                peer.hello = None;
                events.push(Event::Unreachable(to, waiting));
                if now.since(peer.heard) < IDLE && !peer.sessions.is_empty() {
                    self.peers.insert(to, peer);
                }
            }
        }
    }

    /// Forgets what has been silent for long.
    pub(crate) fn sweep(&mut self, now: Time) {
        self.peers
            .retain(|_, p| p.hello.is_some() || now.since(p.heard) < IDLE);
    }

    /// Takes a datagram.
    pub(crate) fn on_datagram(
        &mut self,
        now: Time,
        from: SocketAddr,
        bytes: &[u8],
        events: &mut Vec<Event>,
        out: &mut Vec<Output>,
    ) -> Option<Arrived> {
        let mut c = Cursor::new(bytes);
        if bytes.len() > MAX_DATAGRAM || c.array::<3>() != Ok(MAGIC) {
            return None;
        }
        match c.u8().ok()? {
            HELLO if bytes.len() >= HELLO_LEN => {
                if c.array::<8>().ok()? != self.tag {
                    return None;
                }
                let (nonce, key): ([u8; 16], [u8; 32]) = (c.array().ok()?, c.array().ok()?);
                let mut answer = datagram(CHALLENGE);
                answer.extend(nonce);
                answer.extend(self.public);
                answer.extend(self.cookie(now.as_micros() / COOKIE_EPOCH, from, &nonce, &key));
                out.push(Output::Send {
                    to: from,
                    bytes: answer,
                });
                None
            }
            CHALLENGE => {
                let (nonce, key): ([u8; 16], [u8; 32]) = (c.array().ok()?, c.array().ok()?);
                let cookie: [u8; 16] = c.array().ok()?;
                let hello = self.peers.get(&from)?.hello.as_ref()?;
                if hello.nonce != nonce || key == self.public {
                    return None;
                }
                let pair = self.pair(&key)?;
                let mut answer = datagram(BEGIN);
                answer.extend(self.public);
                answer.extend(nonce);
                answer.extend(cookie);
                let tag = mac(&pair, &[b"begin", &self.public, &key, &nonce, &cookie]);
                answer.extend(head::<TAG>(&tag));
                out.push(Output::Send {
                    to: from,
                    bytes: answer,
                });
                None
            }
            BEGIN => {
                self.on_begin(now, from, &mut c, out);
                None
            }
            ACCEPT => {
                self.on_accept(now, from, &mut c, events);
                None
            }
            DATA => self.on_data(now, from, bytes, &mut c, out),
            RESET => {
                let id: [u8; 4] = c.array().ok()?;
                let peer = self.peers.get_mut(&from)?;
                // A hint, which anybody may forge: it costs a handshake now and then.
                let ours = peer.sessions.iter().any(|s| s.id == id);
                if ours && peer.hello.is_none() && now.since(peer.heard) > Duration::from_secs(1) {
                    peer.heard = now;
                    self.say_hello(now, from, out);
                }
                None
            }
            _ => None,
        }
    }

    fn cookie(&self, epoch: u64, from: SocketAddr, nonce: &[u8; 16], key: &[u8; 32]) -> [u8; 16] {
        let ip = match from.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        let (epoch, port) = (epoch.to_be_bytes(), from.port().to_be_bytes());
        head(&mac(&self.cookies, &[&epoch, &ip, &port, nonce, key]))
    }

    /// What this node and the holder of `key` share, in this ring.
    fn pair(&self, key: &[u8; 32]) -> Option<[u8; 32]> {
        let theirs = VerifyingKey::from_bytes(key).ok()?;
        let shared = theirs
            .to_montgomery()
            .mul_clamped(self.secret.to_scalar_bytes())
            .to_bytes();
        if shared == [0; 32] {
            return None;
        }
        let (low, high) = if *key < self.public {
            (key, &self.public)
        } else {
            (&self.public, key)
        };
        Some(mac(&self.ring, &[b"pair", &shared, low, high]))
    }

    fn on_begin(
        &mut self,
        now: Time,
        from: SocketAddr,
        c: &mut Cursor<'_>,
        out: &mut Vec<Output>,
    ) -> Option<()> {
        let (key, nonce): ([u8; 32], [u8; 16]) = (c.array().ok()?, c.array().ok()?);
        let (cookie, tag): ([u8; 16], [u8; TAG]) = (c.array().ok()?, c.array().ok()?);
        let epoch = now.as_micros() / COOKIE_EPOCH;
        let good = [epoch, epoch.wrapping_sub(1)]
            .iter()
            .any(|e| same(&self.cookie(*e, from, &nonce, &key), &cookie));
        if !good || key == self.public {
            return None;
        }
        let known = self.peers.get(&from).into_iter().flat_map(|p| &p.sessions);
        if let Some(again) = known.into_iter().find(|s| s.nonce == nonce && s.key == key) {
            // Our answer was lost.
            if !again.accept.is_empty() {
                let bytes = again.accept.clone();
                out.push(Output::Send { to: from, bytes });
            }
            return None;
        }
        let second = now.as_micros() / 1_000_000;
        if self.begins.0 != second {
            self.begins = (second, 0);
        }
        self.begins.1 += 1;
        if self.begins.1 > BEGINS_PER_SECOND {
            return None;
        }
        let pair = self.pair(&key)?;
        let expected = mac(&pair, &[b"begin", &key, &self.public, &nonce, &cookie]);
        if !same(&head::<TAG>(&expected), &tag) {
            return None;
        }
        let mut own = [0; 16];
        self.rng.fill(&mut own);
        let mut accept = datagram(ACCEPT);
        accept.extend(nonce);
        accept.extend(own);
        accept.extend(head::<TAG>(&mac(&pair, &[b"accept", &nonce, &own])));
        accept.extend(self.public);
        let mut session = Session::new(&pair, key, &nonce, &own, false);
        session.accept.clone_from(&accept);
        self.make_room(now, from);
        let peer = self.peers.entry(from).or_default();
        peer.heard = now;
        peer.sessions.retain(|s| s.confirmed);
        // Unconfirmed ones come first: they are not used to send.
        peer.sessions.insert(0, session);
        out.push(Output::Send {
            to: from,
            bytes: accept,
        });
        Some(())
    }

    fn on_accept(
        &mut self,
        now: Time,
        from: SocketAddr,
        c: &mut Cursor<'_>,
        events: &mut Vec<Event>,
    ) -> Option<()> {
        let (nonce, theirs): ([u8; 16], [u8; 16]) = (c.array().ok()?, c.array().ok()?);
        let (tag, key): ([u8; TAG], [u8; 32]) = (c.array().ok()?, c.array().ok()?);
        if self.peers.get(&from)?.hello.as_ref()?.nonce != nonce {
            return None;
        }
        let pair = self.pair(&key)?;
        if !same(
            &head::<TAG>(&mac(&pair, &[b"accept", &nonce, &theirs])),
            &tag,
        ) {
            return None;
        }
        let session = Session::new(&pair, key, &nonce, &theirs, true);
        let peer = self.peers.get_mut(&from)?;
        peer.hello = None;
        peer.heard = now;
        peer.add(session);
        events.push(Event::Ready(from, key, std::mem::take(&mut peer.waiting)));
        Some(())
    }

    fn on_data(
        &mut self,
        now: Time,
        from: SocketAddr,
        bytes: &[u8],
        c: &mut Cursor<'_>,
        out: &mut Vec<Output>,
    ) -> Option<Arrived> {
        let (id, number): ([u8; 4], u64) = (c.array().ok()?, c.u64().ok()?);
        let (signed, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG)?)?;
        let body = signed.get(OVERHEAD - TAG..)?;
        let found = self.peers.get_mut(&from).and_then(|p| {
            let at = p.sessions.iter().position(|s| s.id == id)?;
            Some((p, at))
        });
        let Some((peer, at)) = found else {
            let mut answer = datagram(RESET);
            answer.extend(id);
            out.push(Output::Send {
                to: from,
                bytes: answer,
            });
            return None;
        };
        let session = peer.sessions.get_mut(at)?;
        if !same(&head::<TAG>(&mac(&session.receive, &[signed])), tag)
            || !session.window.fresh(number)
        {
            return None;
        }
        let key = session.key;
        peer.heard = now;
        let fresh = !session.confirmed;
        if fresh {
            let mut session = peer.sessions.remove(at);
            session.confirmed = true;
            peer.add(session);
            // Whatever waits for our own handshake goes with this session.
            if !peer.waiting.is_empty() {
                peer.hello = None;
                let waiting = std::mem::take(&mut peer.waiting);
                for waiting in waiting {
                    if let Some(session) = peer.sessions.last_mut()
                        && waiting
                            .token
                            .is_none_or(|p| super::position(&key, p.index) == p.id)
                        && let Some(bytes) = session.seal(&waiting.body)
                    {
                        out.push(Output::Send { to: from, bytes });
                    }
                }
            }
        }
        Some(Arrived {
            key,
            fresh,
            body: body.to_vec(),
        })
    }
}

fn datagram(kind: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(96);
    bytes.extend(MAGIC);
    bytes.push(kind);
    bytes
}
