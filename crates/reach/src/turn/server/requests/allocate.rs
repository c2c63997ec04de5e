//! Allocations: asked for, opened, told (RFC 8656, 7).

use super::{Code, Done, LIFETIME, phrase};
use crate::stun::{Attribute, Builder, Class, Message, Method, Reason, TransactionId, kind};
use crate::turn::server::allocation::{Allocation, Opening, Relay};
use crate::turn::server::auth::{Style, Who};
use crate::turn::server::ports::RelayId;
use crate::turn::server::{Client, Effect, Effects, TurnServer};
use crate::turn::{FAMILY_IPV4, FAMILY_IPV6, TRANSPORT_UDP};
use shoal_base::Time;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a client's first relayed address may take to open.
const OPENING: Duration = Duration::from_secs(10);
/// Ports that are tried before there seem to be none.
const TRIES: u32 = 16;

impl TurnServer {
    #[expect(
        clippy::too_many_arguments,
        reason = "who asks, what, and where answers go"
    )]
    pub(super) fn allocate(
        &mut self,
        now: Time,
        client: Client,
        from: SocketAddr,
        message: &Message<'_>,
        who: &Who,
        known: Option<usize>,
        out: &mut Effects,
    ) -> Result<Done, Code> {
        if let Some(key) = known {
            let again = self
                .allocations
                .get(key)
                .filter(|a| a.made_by == message.id());
            let Some(allocation) = again else {
                return Err(437);
            };
            // The answer was lost, or is still to come.
            if allocation.opening.is_none() {
                self.tell_allocated(now, key, message.id(), who.style, out);
            }
            return Ok(Done::Itself);
        }
        match message.get(kind::REQUESTED_TRANSPORT) {
            Some(Ok(Attribute::RequestedTransport(TRANSPORT_UDP))) => {}
            Some(Ok(_)) => return Err(442),
            _ => return Err(400),
        }
        let even = match message.get(kind::EVEN_PORT) {
            None => None,
            Some(Ok(Attribute::EvenPort(reserve))) => Some(reserve),
            Some(_) => return Err(400),
        };
        let token = match message.get(kind::RESERVATION_TOKEN) {
            None => None,
            Some(Ok(Attribute::ReservationToken(token))) => Some(token),
            Some(_) => return Err(400),
        };
        let family = match message.get(kind::REQUESTED_ADDRESS_FAMILY) {
            None => None,
            Some(Ok(Attribute::RequestedAddressFamily(family))) => Some(family),
            Some(_) => return Err(400),
        };
        let additional = match message.get(kind::ADDITIONAL_ADDRESS_FAMILY) {
            None => false,
            Some(Ok(Attribute::AdditionalAddressFamily(FAMILY_IPV6))) => true,
            Some(_) => return Err(400),
        };
        // RFC 8656 §7.2, items 6 to 8: what excludes what.
        if token.is_some() && (even.is_some() || family.is_some() || additional)
            || additional && (family.is_some() || even == Some(true))
        {
            return Err(400);
        }
        let ipv6 = match family {
            None | Some(FAMILY_IPV4) => false,
            Some(FAMILY_IPV6) => true,
            Some(_) => return Err(440),
        };
        if token.is_none() && self.address(ipv6).is_none() {
            return Err(440);
        }
        let lifetime = self
            .lifetime(message)?
            .max(LIFETIME.min(self.config.max_lifetime));
        if self.allocations.len() >= self.config.max_allocations {
            return Err(if self.config.alternate.is_some() {
                300
            } else {
                508
            });
        }
        let account = self.config.credentials.account(&who.name);
        let (most, rate) = (
            self.config.max_allocations_per_user,
            self.config.max_rate_per_user,
        );
        let user = self.users.take(account, most, rate).ok_or(486_u16)?;
        let opening = Opening {
            fingerprint: who.style.fingerprint,
            sha256: who.style.sha256,
            lifetime,
            additional: additional && self.config.relay_v6.is_some(),
            additional_failed: additional && self.config.relay_v6.is_none(),
            ipv6,
            even: even.is_some(),
            reserve: even == Some(true),
            next: None,
            waiting: None,
            tries: 0,
        };
        let expires = now + OPENING;
        let allocation = Allocation::new(
            client,
            from,
            user,
            &who.name,
            who.algorithm,
            who.key.clone(),
            message.id(),
            expires,
            opening,
        );
        let key = self.allocations.insert(allocation);
        self.clients.insert(client, key);
        self.expiry.insert((expires, key));
        if let Some(token) = token {
            let Some((id, address)) = self.ports.redeem(now, token, key) else {
                self.remove(key, out);
                return Err(508);
            };
            if let Some(allocation) = self.allocations.get_mut(key) {
                allocation.relays.push(Relay { id, address });
            }
            self.go_on(now, key, out);
        } else {
            self.open(key, ipv6, None, out);
        }
        Ok(Done::Itself)
    }

    /// Has a socket opened for an allocation, at this port or any.
    pub(super) fn open(&mut self, key: usize, ipv6: bool, port: Option<u16>, out: &mut Effects) {
        let Some(address) = self.address(ipv6) else {
            return;
        };
        let Some(opening) = self
            .allocations
            .get_mut(key)
            .and_then(|a| a.opening.as_mut())
        else {
            return;
        };
        let port = port.unwrap_or_else(|| {
            let (low, high) = (*self.config.ports.start(), *self.config.ports.end());
            let count = usize::from(high.saturating_sub(low)) + 1;
            let port = low.saturating_add(self.rng.below(count) as u16);
            if opening.even { port & !1 } else { port }
        });
        opening.tries += 1;
        let relay = self.ports.open(key);
        opening.waiting = Some(relay);
        let bind = SocketAddr::new(address.bind, port);
        out.list.push(Effect::OpenRelay(relay, bind));
    }

    /// The socket of a relayed address was bound there, or could not be.
    pub fn on_relay(
        &mut self,
        now: Time,
        relay: RelayId,
        bound: Option<SocketAddr>,
        out: &mut Effects,
    ) {
        let Some(key) = self.ports.owner(relay) else {
            return;
        };
        let Some(allocation) = self.allocations.get_mut(key) else {
            return;
        };
        let Some(opening) = &mut allocation.opening else {
            return;
        };
        if opening.waiting != Some(relay) {
            return;
        }
        opening.waiting = None;
        let Some(bound) = bound else {
            self.ports.failed(relay);
            return self.not_opened(now, key, out);
        };
        let public = if bound.is_ipv6() {
            self.config.relay_v6
        } else {
            self.config.relay_v4
        };
        let ip = public.map_or(bound.ip(), |a| a.public);
        let address = SocketAddr::new(ip, bound.port());
        self.ports.opened(relay, address);
        let relay = Relay { id: relay, address };
        if !allocation.relays.is_empty() && opening.reserve {
            opening.next = Some(relay);
        } else {
            allocation.relays.push(relay);
        }
        self.go_on(now, key, out);
    }

    /// Opens what is wanted besides, or tells the client that all is there.
    pub(super) fn go_on(&mut self, now: Time, key: usize, out: &mut Effects) {
        let Some(allocation) = self.allocations.get_mut(key) else {
            return;
        };
        let Some(opening) = &mut allocation.opening else {
            return;
        };
        if opening.reserve && opening.next.is_none() {
            let Some(first) = allocation.relays.first() else {
                return;
            };
            let (ipv6, next) = (first.address.is_ipv6(), first.address.port() | 1);
            return self.open(key, ipv6, Some(next), out);
        }
        if opening.additional && allocation.relays.len() == 1 && !opening.additional_failed {
            return self.open(key, true, None, out);
        }
        let style = Style {
            sha256: opening.sha256,
            fingerprint: opening.fingerprint,
        };
        let (lifetime, next) = (opening.lifetime, opening.next);
        allocation.additional_failed = opening.additional_failed;
        allocation.opening = None;
        let old = std::mem::replace(&mut allocation.expires, now + lifetime);
        let made_by = allocation.made_by;
        self.expiry.remove(&(old, key));
        self.expiry.insert((now + lifetime, key));
        if let Some(next) = next {
            let token = self.ports.reserve(now, next.id, &mut self.rng);
            if let Some(allocation) = self.allocations.get_mut(key) {
                allocation.token = Some(token);
            }
        }
        self.stats.allocated += 1;
        self.tell_allocated(now, key, made_by, style, out);
    }

    /// A socket could not be opened: another port is tried, or the client told.
    pub(super) fn not_opened(&mut self, now: Time, key: usize, out: &mut Effects) {
        let Some(allocation) = self.allocations.get_mut(key) else {
            return;
        };
        let Some(opening) = &mut allocation.opening else {
            return;
        };
        let first = allocation.relays.first().copied();
        // What comes second is the next port of the same family, or IPv6 besides.
        let ipv6 = opening.ipv6 || first.is_some() && !opening.reserve;
        if opening.tries < TRIES {
            if opening.reserve
                && let Some(first) = first
            {
                // The port next to it is another's: both are looked for anew.
                allocation.relays.clear();
                self.ports.close(first.id, out);
            }
            return self.open(key, ipv6, None, out);
        }
        if opening.additional && first.is_some() {
            opening.additional_failed = true;
            return self.go_on(now, key, out);
        }
        let (client, id) = (allocation.client, allocation.made_by);
        let who = Who {
            name: Vec::new(),
            algorithm: allocation.algorithm,
            key: allocation.key.clone(),
            style: Style {
                sha256: opening.sha256,
                fingerprint: opening.fingerprint,
            },
        };
        self.remove(key, out);
        self.stats.refused += 1;
        let start = out.bytes.len();
        let mut builder = Builder::new(&mut out.bytes, Class::Error, Method::ALLOCATE, id);
        let phrase = phrase(508);
        builder.put(&Attribute::ErrorCode(Reason { code: 508, phrase }));
        who.style.seal(&who.key, &mut builder);
        out.reply(client, start);
    }

    pub(super) fn tell_allocated(
        &self,
        now: Time,
        key: usize,
        id: TransactionId,
        style: Style,
        out: &mut Effects,
    ) {
        let Some(allocation) = self.allocations.get(key) else {
            return;
        };
        let start = out.bytes.len();
        let mut builder = Builder::new(&mut out.bytes, Class::Success, Method::ALLOCATE, id);
        for relay in &allocation.relays {
            builder.put(&Attribute::XorRelayedAddress(relay.address));
        }
        let from = allocation.from;
        let mapped = SocketAddr::new(from.ip().to_canonical(), from.port());
        let left = allocation.expires.since(now).as_secs() as u32;
        builder
            .put(&Attribute::Lifetime(left))
            .put(&Attribute::XorMappedAddress(mapped));
        if let Some(token) = allocation.token {
            builder.put(&Attribute::ReservationToken(token));
        }
        if allocation.additional_failed {
            let reason = Reason {
                code: 440,
                phrase: phrase(440),
            };
            let family = FAMILY_IPV6;
            builder.put(&Attribute::AddressErrorCode { family, reason });
        }
        style.seal(&allocation.key, &mut builder);
        out.reply(allocation.client, start);
    }
}
