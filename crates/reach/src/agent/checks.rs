//! Pairs of addresses are formed, checked and answered (RFC 8445, 6.1.2 and 7).

use super::pair::Pair;
use super::signal::{self, Kind, MAX_CANDIDATES};
use super::{Agent, Base, CHECK_BUSY, CHECK_IDLE, IDLE, Output, Path, RelayId, Theirs, is_public};
use crate::stun::{Attribute, Builder, Class, Message, Method, TransactionId, kind};
use shoal_base::Time;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Pairs at most.
const MAX_PAIRS: usize = 96;
/// How often others that work are, while data flows and else: NATs forget after 30 s.
const SPARE_BUSY: Duration = Duration::from_secs(3);
const SPARE_IDLE: Duration = Duration::from_secs(9);

impl Agent {
    /// Makes the pairs that are missing.
    pub(super) fn form(&mut self, now: Time, out: &mut Vec<Output>) {
        let Some(theirs) = &self.theirs else {
            return;
        };
        let early = std::mem::take(&mut self.early);
        let relays = self.relays.iter().map(|(id, _)| Base::Relay(*id));
        let direct = (!self.hidden).then_some(Base::Direct);
        let bases: Vec<Base> = direct.into_iter().chain(relays).collect();
        let mut wanted = Vec::new();
        for candidate in theirs.candidates.iter().take(MAX_CANDIDATES) {
            let addr = SocketAddr::new(candidate.addr.ip().to_canonical(), candidate.addr.port());
            for base in &bases {
                let relayed = candidate.kind == Kind::Relayed;
                // A relay sends to no private network, and to IPv6 only what it has there.
                let sense =
                    *base == Base::Direct || (candidate.kind != Kind::Host || is_public(addr));
                if signal::may_try(addr) && sense {
                    wanted.push((
                        Path {
                            base: *base,
                            peer: addr,
                        },
                        relayed,
                    ));
                }
            }
        }
        wanted.extend(early.into_iter().map(|path| (path, false)));
        for (path, relayed) in wanted {
            self.add(now, path, relayed, out);
        }
    }

    pub(super) fn add(&mut self, now: Time, path: Path, relayed: bool, out: &mut Vec<Output>) {
        if self.pair(path).is_some() || self.pairs.len() >= MAX_PAIRS {
            return;
        }
        let hops = u8::from(path.base != Base::Direct) + u8::from(relayed);
        if let Base::Relay(id) = path.base {
            out.push(Output::Permit(id, path.peer));
        }
        self.pairs.push(Pair::new(path, hops, now));
    }

    /// The relay does not send there.
    pub fn on_refused(&mut self, relay: RelayId, ip: IpAddr) {
        let refused = |p: &Pair| p.path.base == Base::Relay(relay) && p.path.peer.ip() == ip;
        self.pairs.retain(|p| !refused(p));
    }

    /// The relay lets this address in from now on.
    pub fn on_permitted(&mut self, now: Time, relay: RelayId, ip: IpAddr) {
        let of = |p: &&mut Pair| p.path.base == Base::Relay(relay) && p.path.peer.ip() == ip;
        self.pairs.iter_mut().filter(of).for_each(|p| p.retry(now));
    }

    /// A STUN message came by this way.
    pub fn on_stun(&mut self, now: Time, path: Path, message: &Message<'_>, out: &mut Vec<Output>) {
        if message.method() != Method::BINDING || (self.hidden && path.base == Base::Direct) {
            return;
        }
        match message.class() {
            Class::Request => self.on_check(now, path, message, out),
            Class::Success => {
                let proves = |t: &Theirs| message.is_made_with(&t.key);
                if !self.theirs.as_ref().is_some_and(proves) {
                    return;
                }
                let Some(pair) = self.pairs.iter_mut().find(|p| p.path == path) else {
                    return;
                };
                if pair.on_answer(now, message.id()) {
                    pair.next = pair.next.min(now + SPARE_BUSY);
                    self.choose(now, out);
                }
            }
            _ => {}
        }
    }

    pub(super) fn on_check(
        &mut self,
        now: Time,
        path: Path,
        message: &Message<'_>,
        out: &mut Vec<Output>,
    ) {
        let Some(Ok(Attribute::Username(name))) = message.get(kind::USERNAME) else {
            return;
        };
        let ours = name
            .strip_prefix(self.ours.name.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&b':'));
        if !ours || !message.is_made_with(&self.our_key) {
            return;
        }
        let mut answer = Vec::new();
        Builder::new(&mut answer, Class::Success, Method::BINDING, message.id())
            .put(&Attribute::XorMappedAddress(path.peer))
            .integrity(&self.our_key)
            .fingerprint();
        out.push(Output::Send(path, answer));
        if self.theirs.is_none() {
            if self.early.len() < 8 && !self.early.contains(&path) {
                self.early.push(path);
            }
            return;
        }
        // An address that nobody told of: that of a NAT with another mapping for each peer.
        let candidates = self.theirs.iter().flat_map(|t| &t.candidates);
        let relayed = candidates
            .clone()
            .any(|c| c.kind == Kind::Relayed && c.addr == path.peer);
        self.add(now, path, relayed, out);
        if let Some(pair) = self.pairs.iter_mut().find(|p| p.path == path) {
            pair.heard = now;
            // The hole is open now: that is the moment to check back.
            if !pair.works() {
                pair.answer_by_check(now);
            }
        }
        self.look(now, out);
    }

    pub(super) fn check(&mut self, now: Time, at: usize, out: &mut Vec<Output>) {
        let busy = now.since(self.busy) < IDLE;
        let (Some(theirs), Some(pair)) = (&self.theirs, self.pairs.get_mut(at)) else {
            return;
        };
        let every = match (self.chosen == Some(pair.path), busy) {
            (true, true) => CHECK_BUSY,
            (true, false) => CHECK_IDLE,
            (false, true) => SPARE_BUSY,
            (false, false) => SPARE_IDLE,
        };
        let id = TransactionId::random(&mut self.rng);
        let name = format!("{}:{}", theirs.login.name, self.ours.name);
        let mut bytes = Vec::new();
        Builder::new(&mut bytes, Class::Request, Method::BINDING, id)
            .put(&Attribute::Username(name.as_bytes()))
            .put(&Attribute::Priority(u32::from(u8::MAX - pair.hops)))
            .integrity(&theirs.key)
            .fingerprint();
        out.push(Output::Send(pair.path, bytes));
        pair.sent(now, id, every);
    }

    /// Sends what is due, buries what is dead.
    pub(super) fn look(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut died = None;
        for pair in &mut self.pairs {
            if pair.is_dead(now) {
                if self.chosen == Some(pair.path) {
                    died = Some((pair.path, pair.hops));
                }
                pair.die(now);
            }
        }
        if let Some((path, hops)) = died {
            // Most likely the relay: what else goes through it must answer before it is used.
            let relays = self.relays_on(path, hops);
            self.through(&relays)
                .filter(|p| p.works())
                .for_each(|p| p.die(now));
            // What others say that they work is seen at once.
            for pair in self.pairs.iter_mut().filter(|p| p.works()) {
                pair.next = now;
            }
        }
        self.choose(now, out);
        let due: Vec<usize> = (0..self.pairs.len())
            .filter(|at| self.pairs.get(*at).is_some_and(|p| p.is_due(now)))
            .collect();
        for at in due {
            self.check(now, at, out);
        }
    }
}
