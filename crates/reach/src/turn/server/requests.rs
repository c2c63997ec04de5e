//! Requests of clients: allocate, refresh, let peers in, bind channels.

mod allocate;

use super::allocation::{Relay, Unbindable};
use super::auth::Who;
use super::{Client, Effects, RelayAddress, TurnServer};
use crate::stun::{Attribute, Builder, Class, Message, Method, Reason, kind};
use crate::turn::policy::Verdict;
use crate::turn::{ACCEPTED_CHANNELS, FAMILY_IPV4, FAMILY_IPV6};
use shoal_base::Time;
use smallvec::SmallVec;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Attributes of all requests that must be understood; integrity and fingerprint are not among
/// those that count.
const CREDENTIALS: [u16; 5] = [
    kind::USERNAME,
    kind::USERHASH,
    kind::REALM,
    kind::NONCE,
    kind::PASSWORD_ALGORITHM,
];
/// What a life without LIFETIME is (RFC 8656 §3.2).
const LIFETIME: Duration = Duration::from_secs(600);
/// Peers of a CreatePermission request: as many as a message has room for anyway.
type Peers = SmallVec<[IpAddr; 4]>;

/// A refusal's code (RFC 8489 §14.8, RFC 8656 §19).
type Code = u16;

/// What is done about a request that was not refused.
enum Done {
    /// It is answered without anything but its protection.
    Plain,
    /// It is answered with LIFETIME.
    Lifetime(Duration),
    /// It was answered, or will be.
    Itself,
}

impl TurnServer {
    pub(super) fn request(
        &mut self,
        now: Time,
        client: Client,
        from: SocketAddr,
        message: &Message<'_>,
        out: &mut Effects,
    ) {
        let also: &[u16] = match message.method() {
            Method::ALLOCATE => &[
                kind::LIFETIME,
                kind::REQUESTED_TRANSPORT,
                kind::REQUESTED_ADDRESS_FAMILY,
                kind::EVEN_PORT,
                kind::RESERVATION_TOKEN,
            ],
            Method::REFRESH => &[kind::LIFETIME, kind::REQUESTED_ADDRESS_FAMILY],
            Method::CREATE_PERMISSION => &[kind::XOR_PEER_ADDRESS],
            Method::CHANNEL_BIND => &[kind::CHANNEL_NUMBER, kind::XOR_PEER_ADDRESS],
            _ => {
                self.stats.malformed += 1;
                return;
            }
        };
        let start = out.bytes.len();
        let known = self.clients.get(&client).copied();
        let who = match self.who(now, from, message, known) {
            Ok(who) => who,
            Err(why) => {
                let validated = matches!(client, Client::Stream(_));
                self.challenge(now, from, validated, message, why, &mut out.bytes);
                return out.reply(client, start);
            }
        };
        let unknown = message.unknown(&[&CREDENTIALS, also].concat());
        if !unknown.is_empty() {
            let kinds: Vec<u8> = unknown.iter().flat_map(|k| k.to_be_bytes()).collect();
            self.refuse(client, message, &who, 420, out, |builder| {
                builder.put(&Attribute::UnknownAttributes(&kinds));
            });
            return;
        }
        let done = match (message.method(), known) {
            (Method::ALLOCATE, _) => self.allocate(now, client, from, message, &who, known, out),
            (_, None) => Err(437),
            (Method::REFRESH, Some(key)) => self.refresh(now, key, message, out),
            (Method::CREATE_PERMISSION, Some(key)) => self.create_permission(now, key, message),
            (_, Some(key)) => self.channel_bind(now, key, message),
        };
        let lifetime = match done {
            Ok(Done::Itself) => return,
            Ok(Done::Plain) => None,
            Ok(Done::Lifetime(life)) => Some(life),
            Err(code) => {
                let alternate = self.config.alternate.filter(|_| code == 300);
                self.refuse(client, message, &who, code, out, |builder| {
                    if let Some(other) = alternate {
                        builder.put(&Attribute::AlternateServer(other));
                    }
                });
                return;
            }
        };
        let (method, id) = (message.method(), message.id());
        let mut builder = Builder::new(&mut out.bytes, Class::Success, method, id);
        if let Some(life) = lifetime {
            builder.put(&Attribute::Lifetime(life.as_secs() as u32));
        }
        who.style.seal(&who.key, &mut builder);
        out.reply(client, start);
    }

    fn refuse(
        &mut self,
        client: Client,
        message: &Message<'_>,
        who: &Who,
        code: Code,
        out: &mut Effects,
        more: impl FnOnce(&mut Builder<'_>),
    ) {
        self.stats.refused += 1;
        let start = out.bytes.len();
        let (method, id) = (message.method(), message.id());
        let mut builder = Builder::new(&mut out.bytes, Class::Error, method, id);
        let phrase = phrase(code);
        builder.put(&Attribute::ErrorCode(Reason { code, phrase }));
        more(&mut builder);
        who.style.seal(&who.key, &mut builder);
        out.reply(client, start);
    }

    fn address(&self, ipv6: bool) -> Option<RelayAddress> {
        if ipv6 {
            self.config.relay_v6
        } else {
            self.config.relay_v4
        }
    }

    fn lifetime(&self, message: &Message<'_>) -> Result<Duration, Code> {
        match message.get(kind::LIFETIME) {
            None => Ok(LIFETIME.min(self.config.max_lifetime)),
            Some(Ok(Attribute::Lifetime(0))) => Ok(Duration::ZERO),
            Some(Ok(Attribute::Lifetime(secs))) => {
                let wanted = Duration::from_secs(u64::from(secs));
                Ok(wanted.max(LIFETIME).min(self.config.max_lifetime))
            }
            Some(_) => Err(400),
        }
    }

    fn refresh(
        &mut self,
        now: Time,
        key: usize,
        message: &Message<'_>,
        out: &mut Effects,
    ) -> Result<Done, Code> {
        let life = self.lifetime(message)?;
        let family = message.get(kind::REQUESTED_ADDRESS_FAMILY);
        let allocation = self.allocations.get_mut(key).ok_or(437_u16)?;
        if allocation.opening.is_some() {
            return Err(437);
        }
        if let Some(family) = family {
            let ipv6 = match family {
                Ok(Attribute::RequestedAddressFamily(FAMILY_IPV4)) => false,
                Ok(Attribute::RequestedAddressFamily(FAMILY_IPV6)) => true,
                _ => return Err(400),
            };
            let (of, others): (SmallVec<[Relay; 2]>, _) = allocation
                .relays
                .iter()
                .copied()
                .partition(|r| r.address.is_ipv6() == ipv6);
            if of.is_empty() {
                return Err(443);
            }
            // RFC 8656 §8.2: of a dual allocation one half may be given back.
            let others: SmallVec<[Relay; 2]> = others;
            if life.is_zero() && !others.is_empty() {
                allocation.relays = others;
                for relay in of {
                    self.ports.close(relay.id, out);
                }
                return Ok(Done::Lifetime(life));
            }
        }
        if life.is_zero() {
            self.remove(key, out);
            return Ok(Done::Lifetime(life));
        }
        let old = std::mem::replace(&mut allocation.expires, now + life);
        self.expiry.remove(&(old, key));
        self.expiry.insert((now + life, key));
        Ok(Done::Lifetime(life))
    }

    /// Whether an allocation may have `peer` as a peer; whether that address is our own.
    fn peer(&self, key: usize, peer: SocketAddr) -> Result<bool, Code> {
        let allocation = self.allocations.get(key).ok_or(437_u16)?;
        let verdict = self.config.policy.verdict(peer.ip(), &self.own);
        if verdict == Verdict::Forbidden {
            return Err(403);
        }
        if allocation.opening.is_some() {
            return Err(437);
        }
        allocation.relay_for(peer.ip()).ok_or(443_u16)?;
        Ok(verdict == Verdict::RelaysOnly)
    }

    fn create_permission(
        &mut self,
        now: Time,
        key: usize,
        message: &Message<'_>,
    ) -> Result<Done, Code> {
        let mut peers = Peers::new();
        for (kind, value) in message.attributes() {
            if kind == kind::XOR_PEER_ADDRESS {
                let read = Attribute::decode(kind, value, &message.id());
                let Ok(Attribute::XorPeerAddress(peer)) = read else {
                    return Err(400);
                };
                self.peer(key, peer)?;
                if !peers.contains(&peer.ip()) {
                    peers.push(peer.ip());
                }
            }
        }
        if peers.is_empty() {
            return Err(400);
        }
        let allocation = self.allocations.get_mut(key).ok_or(437_u16)?;
        if !allocation.permit(now, &peers) {
            return Err(508);
        }
        Ok(Done::Plain)
    }

    fn channel_bind(&mut self, now: Time, key: usize, message: &Message<'_>) -> Result<Done, Code> {
        let number = message.get(kind::CHANNEL_NUMBER);
        let peer = message.get(kind::XOR_PEER_ADDRESS);
        let (Some(Ok(Attribute::ChannelNumber(number))), Some(Ok(Attribute::XorPeerAddress(peer)))) =
            (number, peer)
        else {
            return Err(400);
        };
        if !ACCEPTED_CHANNELS.contains(&number) {
            return Err(400);
        }
        let own = self.peer(key, peer)?;
        let allocation = self.allocations.get_mut(key).ok_or(437_u16)?;
        match allocation.bind(now, number, peer, own) {
            Ok(()) => Ok(Done::Plain),
            Err(Unbindable::Taken) => Err(400),
            Err(Unbindable::Full) => Err(508),
        }
    }
}

/// What a code means, for people.
fn phrase(code: Code) -> &'static [u8] {
    match code {
        300 => b"Try Alternate",
        400 => b"Bad Request",
        403 => b"Forbidden",
        420 => b"Unknown Attribute",
        437 => b"Allocation Mismatch",
        440 => b"Address Family not Supported",
        442 => b"Unsupported Transport Protocol",
        443 => b"Peer Address Family Mismatch",
        486 => b"Allocation Quota Reached",
        508 => b"Insufficient Capacity",
        _ => b"",
    }
}
