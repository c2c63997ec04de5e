//! Asking a router for mappings by PCP, or by NAT-PMP if it speaks no PCP, and keeping them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use shoal_base::{Rng, Time};

use super::packet::{
    About, Answer, Nonce, natpmp_address, natpmp_map, pcp_announce, pcp_map, read,
};
use super::{Mapping, Port, Protocol, Refusal, is_outside};

/// For how long a mapping is asked for: two hours (RFC 6886, section 3.3).
const LIFETIME: u32 = 7200;
/// How soon a request is sent again at first; twice as long each time (RFC 6886, section 3.1).
const AGAIN: Duration = Duration::from_millis(250);
/// Requests of each protocol before it is given up: the last answer has until a second after the first request.
const TRIES: u32 = 3;
/// How often a router is asked anew that did not answer, or refused.
const REST: Duration = Duration::from_secs(600);
/// Renewals are no closer than that (RFC 6887, section 11.2.1).
const MIN_RENEWAL: Duration = Duration::from_secs(4);
/// How often the epoch is looked at: a router that was started again has forgotten its mappings.
const LOOK: Duration = Duration::from_secs(30);
/// A mapping is asked for again so long after it was found out that it was forgotten, at random, or a little less
/// (RFC 6887, section 8.5: not all at once).
const SPREAD: Duration = Duration::from_millis(500);

/// What a client wants, or tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this to the router's port [`super::packet::SERVER`].
    Send(Vec<u8>),
    /// The router lets this through from now on, or still.
    Mapped(Mapping),
    /// Nothing comes through to this port any more.
    Lost(Port),
    /// The router refuses.
    Refused(Refusal),
    /// The router has not answered so far, and may not speak these protocols.
    Silent,
}

#[derive(Debug)]
struct Slot {
    port: Port,
    nonce: Nonce,
    /// What it is mapped to, or was, or shall be.
    wanted: SocketAddrV4,
    /// Until when it is.
    until: Option<Time>,
    /// When it is asked for, the next time.
    next: Time,
    /// Requests without an answer.
    tries: u32,
}

/// See the module's text.
#[derive(Debug)]
pub struct Client {
    own: Ipv4Addr,
    rng: Rng,
    slots: Vec<Slot>,
    /// What the router speaks; none: it has not answered yet.
    speaks: Option<Protocol>,
    /// Its address towards the world, by NAT-PMP.
    address: Option<Ipv4Addr>,
    /// What the epoch was, and when.
    epoch: Option<(u32, Time)>,
    next_look: Time,
}

impl Client {
    /// Asks, as `own` in the router's network, for these ports.
    pub fn new(now: Time, own: Ipv4Addr, ports: &[Port], mut rng: Rng) -> Self {
        let mut slots: Vec<Slot> = Vec::new();
        for port in ports {
            let mut nonce = [0; 12];
            rng.fill(&mut nonce);
            slots.push(Slot {
                port: *port,
                nonce,
                wanted: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port.number),
                until: None,
                next: now,
                tries: 0,
            });
        }
        Self {
            own,
            rng,
            slots,
            speaks: None,
            address: None,
            epoch: None,
            next_look: now + LOOK,
        }
    }

    /// When [`Client::tick`] is to be called.
    pub fn deadline(&self) -> Time {
        let due = |s: &Slot| s.until.map_or(s.next, |until| until.min(s.next));
        let slots = self.slots.iter().map(due);
        slots.min().unwrap_or(self.next_look).min(self.next_look)
    }

    /// Asks for what is due.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Output>) {
        let lost = |s: &mut Slot| s.until.is_some_and(|until| until <= now);
        for slot in &mut self.slots {
            if lost(slot) {
                slot.until = None;
                out.push(Output::Lost(slot.port));
            }
        }
        let known = self.speaks;
        let mut silent = false;
        for slot in &mut self.slots {
            if slot.next > now {
                continue;
            }
            slot.tries += 1;
            let by = match known {
                Some(by) => by,
                None if slot.tries <= TRIES => Protocol::Pcp,
                None => Protocol::NatPmp,
            };
            // After those of PCP, those of NAT-PMP begin afresh.
            let nth = match known {
                None if slot.tries > TRIES => slot.tries - TRIES,
                _ => slot.tries,
            };
            silent |= known.is_none() && slot.tries == TRIES + 1;
            let most = if known.is_none() { 2 * TRIES } else { TRIES };
            if slot.tries > most {
                // It is mapped still, as far as we know: until that ends it is tried now and then.
                slot.tries = 0;
                slot.next = now + REST;
                if let Some(until) = slot.until {
                    slot.next = now + (until.since(now) / 2).max(MIN_RENEWAL);
                }
                continue;
            }
            slot.next = now + AGAIN * 2_u32.saturating_pow(nth - 1);
            out.push(Output::Send(match by {
                Protocol::Pcp => pcp_map(self.own, &slot.nonce, slot.port, slot.wanted, LIFETIME),
                _ => natpmp_map(slot.port, slot.wanted.port(), LIFETIME),
            }));
            if by == Protocol::NatPmp && self.address.is_none() {
                out.push(Output::Send(natpmp_address()));
            }
        }
        if silent {
            out.push(Output::Silent);
        }
        if self.next_look <= now {
            self.next_look = now + LOOK;
            match self.speaks {
                Some(Protocol::Pcp) => out.push(Output::Send(pcp_announce(self.own))),
                Some(_) => out.push(Output::Send(natpmp_address())),
                None => {}
            }
        }
    }

    /// Bytes came from the router: from its own address and port.
    pub fn handle(&mut self, now: Time, bytes: &[u8], out: &mut Vec<Output>) {
        let Some(answer) = read(bytes) else { return };
        if answer.is_other_version() {
            // A router that knows PCP has said so before, if it is not another one by now.
            if self.speaks != Some(Protocol::NatPmp) {
                self.speak(now, Protocol::NatPmp);
            }
            return;
        }
        if !self.is_ours(&answer.about) {
            return;
        }
        match self.speaks {
            Some(by) if by != answer.by => return,
            Some(_) => {}
            None => self.speaks = Some(answer.by),
        }
        if !self.note_epoch(now, answer.epoch) {
            self.forgotten(now);
        }
        if let Some(refusal) = answer.refusal() {
            self.refused(now, &answer, refusal, out);
            return;
        }
        match answer.about {
            About::Epoch => {}
            About::Address(ip) => self.on_address(now, ip, out),
            About::Pcp(_, port, external, lifetime) => {
                self.mapped(now, (port, Protocol::Pcp), external, lifetime, out);
            }
            About::NatPmp(port, external, lifetime) => {
                let ip = self.address.unwrap_or(Ipv4Addr::UNSPECIFIED);
                let external = SocketAddrV4::new(ip, external);
                self.mapped(now, (port, Protocol::NatPmp), external, lifetime, out);
            }
        }
    }

    /// Ends all mappings.
    pub fn stop(&mut self, out: &mut Vec<Output>) {
        for slot in self.slots.drain(..) {
            let none = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
            match self.speaks {
                Some(Protocol::Pcp) => {
                    let end = pcp_map(self.own, &slot.nonce, slot.port, none, 0);
                    out.push(Output::Send(end));
                }
                Some(_) => out.push(Output::Send(natpmp_map(slot.port, 0, 0))),
                None => {}
            }
        }
    }

    fn speak(&mut self, now: Time, by: Protocol) {
        self.speaks = Some(by);
        self.epoch = None;
        for slot in &mut self.slots {
            (slot.tries, slot.next) = (0, now);
        }
    }

    fn is_ours(&self, about: &About) -> bool {
        match about {
            About::Epoch | About::Address(_) => true,
            About::Pcp(nonce, port, ..) => {
                let mut slots = self.slots.iter();
                slots.any(|s| s.nonce == *nonce && s.port == *port)
            }
            About::NatPmp(port, ..) => self.slots.iter().any(|s| s.port == *port),
        }
    }

    /// Whether the router has kept its mappings since it was last heard (RFC 6887, section 8.5).
    fn note_epoch(&mut self, now: Time, epoch: u32) -> bool {
        let before = self.epoch.replace((epoch, now));
        let Some((was, at)) = before else { return true };
        let ours = now.since(at).as_secs();
        let theirs = u64::from(epoch.saturating_sub(was));
        let back = u64::from(epoch) + 1 < u64::from(was);
        let slow = ours > theirs + 2 + theirs / 16;
        let fast = theirs > ours + 2 + ours / 16;
        !(back || slow || fast)
    }

    /// All are asked for again: the router forgot them.
    fn forgotten(&mut self, now: Time) {
        self.address = None;
        for slot in &mut self.slots {
            let spread = SPREAD.mul_f64(self.rng.unit());
            (slot.tries, slot.next) = (0, now + spread);
        }
    }

    fn refused(&mut self, now: Time, answer: &Answer, refusal: Refusal, out: &mut Vec<Output>) {
        let (port, rest) = match answer.about {
            About::Pcp(_, port, _, lifetime) => {
                // For so long it says the same.
                let told = Duration::from_secs(lifetime.into());
                (port, told.clamp(LOOK, REST))
            }
            About::NatPmp(port, ..) => (port, REST),
            // Not a mapping is refused, but the address, or the request as a whole.
            _ => {
                let waits = self.slots.iter_mut().filter(|s| s.until.is_none());
                waits.for_each(|s| (s.tries, s.next) = (0, now + REST));
                out.push(Output::Refused(refusal));
                return;
            }
        };
        for slot in self.slots.iter_mut().filter(|s| s.port == port) {
            if slot.until.take().is_some() {
                out.push(Output::Lost(port));
            }
            (slot.tries, slot.next) = (0, now + rest);
        }
        out.push(Output::Refused(refusal));
    }

    fn on_address(&mut self, now: Time, ip: Ipv4Addr, out: &mut Vec<Output>) {
        let before = self.address.replace(ip);
        if before == Some(ip) {
            return;
        }
        for slot in &mut self.slots {
            slot.wanted.set_ip(ip);
            if let Some(until) = slot.until {
                let mapping = Mapping {
                    port: slot.port,
                    external: slot.wanted,
                    lifetime: until.since(now),
                    by: Protocol::NatPmp,
                };
                if is_outside(ip) {
                    out.push(Output::Mapped(mapping));
                } else {
                    slot.until = None;
                    out.push(Output::Lost(slot.port));
                }
            }
        }
        if !is_outside(ip) {
            out.push(Output::Refused(Refusal::NoNetwork));
        }
    }

    fn mapped(
        &mut self,
        now: Time,
        (port, by): (Port, Protocol),
        external: SocketAddrV4,
        lifetime: u32,
        out: &mut Vec<Output>,
    ) {
        // The answer to an end, or nonsense.
        if lifetime == 0 || external.port() == 0 {
            return;
        }
        let lifetime = Duration::from_secs(lifetime.min(2 * LIFETIME).into());
        let early = 0.5 + self.rng.unit() / 8.0;
        for slot in self.slots.iter_mut().filter(|s| s.port == port) {
            slot.wanted = external;
            slot.tries = 0;
            slot.next = now + lifetime.mul_f64(early).max(MIN_RENEWAL);
            if by == Protocol::NatPmp && self.address.is_none() {
                // It counts as soon as the address is known, which was asked for with it.
                slot.until = Some(now + lifetime);
                continue;
            }
            if !is_outside(*external.ip()) {
                continue;
            }
            slot.until = Some(now + lifetime);
            out.push(Output::Mapped(Mapping {
                port,
                external,
                lifetime,
                by,
            }));
        }
    }
}

#[cfg(test)]
mod tests;
