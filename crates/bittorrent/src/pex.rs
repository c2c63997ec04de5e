//! Peer exchange (BEP 11): connected peers tell each other whom else they are connected to.
//!
//! [`PexState`] keeps, for one connection, what it was told and when; [`PexInbox`] judges what
//! comes in. Private torrents have no peer exchange (BEP 27): the caller makes neither.

use crate::extension::ExtensionError;
use crate::peers::{is_dialable, is_local, is_overlay};
use shoal_base::Time;
use shoal_base::bencode::{self, Encoder};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// BEP 11: "no more than 1 PEX message per minute".
const INTERVAL: Duration = Duration::from_secs(60);
/// Without news, how long until it is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// BEP 11: "should not exceed 50 entries", added and dropped each.
const MAX_ENTRIES: usize = 50;
/// The first message may hold more.
const MAX_FIRST: usize = 100;
/// Entries read of one message; the rest is passed over.
const MAX_READ: usize = 200;
/// Longest message read.
const MAX_LEN: usize = 16 * 1024;
/// Most peers remembered as told, per connection.
const MAX_TOLD: usize = 500;
/// Messages that may come early before the peer counts as flooding.
const EARLY_MESSAGES: u32 = 10;

/// What is said of a peer in `added.f`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct PexFlags(pub u8);

impl PexFlags {
    /// Prefers encryption.
    pub const ENCRYPTION: Self = Self(0x01);
    /// A seed, or upload-only.
    pub const SEED: Self = Self(0x02);
    /// Speaks uTP.
    pub const UTP: Self = Self(0x04);
    /// Speaks `ut_holepunch`.
    pub const HOLEPUNCH: Self = Self(0x08);
    /// Was connected to by the sender: it can be reached.
    pub const REACHABLE: Self = Self(0x10);

    /// Whether all bits of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These bits and, if `on`, those of `other`.
    #[must_use]
    pub fn with(self, other: Self, on: bool) -> Self {
        if on { Self(self.0 | other.0) } else { self }
    }
}

/// A peer as PEX names it: where it listens, and what it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PexPeer {
    /// Its listening address.
    pub addr: SocketAddr,
    /// What is said of it.
    pub flags: PexFlags,
}

/// A `ut_pex` message. On the wire the families are apart; here IPv4 comes first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PexMessage {
    /// Peers that the sender is connected to now.
    pub added: Vec<PexPeer>,
    /// Peers that it no longer is.
    pub dropped: Vec<SocketAddr>,
}

const NAME: &str = "ut_pex";

/// Compact form of those of `addrs` that are of the wanted family.
fn compact(addrs: impl Iterator<Item = SocketAddr>, v6: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for addr in addrs {
        match addr {
            SocketAddr::V4(a) if !v6 => out.extend_from_slice(&a.ip().octets()),
            SocketAddr::V6(a) if v6 => out.extend_from_slice(&a.ip().octets()),
            _ => continue,
        }
        out.extend_from_slice(&addr.port().to_be_bytes());
    }
    out
}

/// Addresses in compact form, `N` bytes of address and two of port each; what is left over at the
/// end is passed over.
fn addrs<const N: usize>(bytes: Option<&[u8]>) -> impl Iterator<Item = SocketAddr> + '_
where
    IpAddr: From<[u8; N]>,
{
    bytes
        .unwrap_or_default()
        .chunks_exact(N + 2)
        .filter_map(|entry| {
            let (ip, port) = entry.split_first_chunk::<N>()?;
            let port = u16::from_be_bytes(port.try_into().ok()?);
            Some(SocketAddr::new(IpAddr::from(*ip), port))
        })
}

impl PexMessage {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.dropped.is_empty()
    }

    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut encoder = Encoder::new();
        let flags = |v6: bool| -> Vec<u8> {
            let family = self.added.iter().filter(|p| p.addr.is_ipv6() == v6);
            family.map(|p| p.flags.0).collect()
        };
        let added = |v6| compact(self.added.iter().map(|p| p.addr), v6);
        let dropped = |v6| compact(self.dropped.iter().copied(), v6);
        encoder.dict(|d| {
            // All keys always: some clients read no message without `added`.
            d.key("added").bytes(added(false));
            d.key("added.f").bytes(flags(false));
            d.key("added6").bytes(added(true));
            d.key("added6.f").bytes(flags(true));
            d.key("dropped").bytes(dropped(false));
            d.key("dropped6").bytes(dropped(true));
        });
        out.extend_from_slice(&encoder.into_bytes());
    }

    /// Reads a payload; at most 200 entries of each kind.
    pub fn decode(payload: &[u8]) -> Result<Self, ExtensionError> {
        if payload.len() > MAX_LEN {
            return Err(ExtensionError::TooLong {
                name: NAME,
                len: payload.len(),
            });
        }
        let value = bencode::decode(payload)
            .map_err(|source| ExtensionError::Bencode { name: NAME, source })?;
        let dict = value.as_dict().ok_or(ExtensionError::BadField {
            name: NAME,
            field: "dictionary",
        })?;
        let flag = |key: &str, at: usize| {
            let flags = dict.bytes(key).unwrap_or_default();
            PexFlags(flags.get(at).copied().unwrap_or(0))
        };
        let added4 = addrs::<4>(dict.bytes("added")).enumerate();
        let added6 = addrs::<16>(dict.bytes("added6")).enumerate();
        let added = added4
            .map(|(at, addr)| (addr, flag("added.f", at)))
            .chain(added6.map(|(at, addr)| (addr, flag("added6.f", at))))
            .map(|(addr, flags)| PexPeer { addr, flags })
            .take(MAX_READ)
            .collect();
        let dropped = addrs::<4>(dict.bytes("dropped"))
            .chain(addrs::<16>(dict.bytes("dropped6")))
            .take(MAX_READ)
            .collect();
        Ok(Self { added, dropped })
    }
}

/// What one connection was told.
#[derive(Clone, Debug, Default)]
pub struct PexState {
    /// Sorted.
    told: Vec<SocketAddr>,
    /// A message was sent.
    begun: bool,
    /// When the next message may go.
    next: Time,
}

impl PexState {
    /// Nothing was told yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// When it is next worth asking whether there is something to send.
    pub fn next_at(&self) -> Time {
        self.next
    }

    /// The message to send now, if one may be sent and there is news. `swarm` is every peer we
    /// are connected to, by each address that is known.
    pub fn poll(&mut self, now: Time, to: PexReader, swarm: &[PexPeer]) -> Option<PexMessage> {
        if now < self.next {
            return None;
        }
        let most = if self.begun { MAX_ENTRIES } else { MAX_FIRST };
        let mut present: Vec<SocketAddr> = swarm.iter().map(|p| p.addr).collect();
        present.sort_unstable();
        let gone = |addr: &&SocketAddr| present.binary_search(addr).is_err();
        let dropped: Vec<_> = self
            .told
            .iter()
            .filter(gone)
            .take(MAX_ENTRIES)
            .copied()
            .collect();
        let room = most.min((MAX_TOLD + dropped.len()).saturating_sub(self.told.len()));
        let mut added: Vec<PexPeer> = Vec::new();
        for peer in swarm {
            let known = self.told.binary_search(&peer.addr).is_ok();
            if added.len() < room
                && !known
                && is_dialable(peer.addr)
                && to.may_hear_of(peer.addr)
                && added.iter().all(|a| a.addr != peer.addr)
            {
                added.push(*peer);
            }
        }
        let message = PexMessage { added, dropped };
        if message.is_empty() {
            self.next = now + LOOK_AGAIN;
            return None;
        }
        self.told
            .retain(|a| message.dropped.binary_search(a).is_err());
        self.told.extend(message.added.iter().map(|p| p.addr));
        self.told.sort_unstable();
        self.begun = true;
        self.next = now + INTERVAL;
        Some(message)
    }
}

/// Who is told of others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PexReader {
    /// Its listening address, as far as known.
    pub listen: Option<SocketAddr>,
    /// Where it is reached by the overlay; none: it is not known to be on it.
    pub overlay: Option<SocketAddr>,
}

impl PexReader {
    /// Loopback addresses mean nothing to a peer elsewhere; nor do local ones beyond the network, nor those of
    /// the overlay to who is not on it.
    fn may_hear_of(&self, addr: SocketAddr) -> bool {
        if self.listen == Some(addr) || self.overlay == Some(addr) {
            return false;
        }
        if is_overlay(addr.ip()) {
            return self.overlay.is_some();
        }
        believable(addr.ip(), self.listen.map(|a| a.ip()))
    }
}

/// Whether `ip` makes sense between us and a peer at `other`.
fn believable(ip: IpAddr, other: Option<IpAddr>) -> bool {
    let (ip, other) = (ip.to_canonical(), other.map(|o| o.to_canonical()));
    if ip.is_loopback() {
        other.is_some_and(|o| o.is_loopback())
    } else {
        !is_local(ip) || other.is_none_or(is_local)
    }
}

/// The peer sends far more messages than it may: to be disconnected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PexFault {
    /// Not a message.
    #[error(transparent)]
    Malformed(#[from] ExtensionError),
    /// Too many messages.
    #[error("floods us with ut_pex messages")]
    Flood,
}

/// Judges what one connection tells us.
#[derive(Clone, Debug, Default)]
pub struct PexInbox {
    /// A message before this is early.
    next: Option<Time>,
    early: u32,
}

impl PexInbox {
    /// Nothing has come yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a message from the peer at `from` and keeps of it what can be used: addresses that
    /// can be dialled and make sense coming from there, one per host unless local. Messages that
    /// come too early are passed over.
    pub fn on_message(
        &mut self,
        now: Time,
        from: IpAddr,
        payload: &[u8],
    ) -> Result<PexMessage, PexFault> {
        let first = self.next.is_none();
        if self.next.is_some_and(|next| now < next) {
            self.early += 1;
            return if self.early > EARLY_MESSAGES {
                Err(PexFault::Flood)
            } else {
                Ok(PexMessage::default())
            };
        }
        // Half the interval: clocks and batching differ.
        self.next = Some(now + INTERVAL / 2);
        let mut message = PexMessage::decode(payload)?;
        message
            .added
            .truncate(if first { MAX_FIRST } else { MAX_ENTRIES });
        message.dropped.truncate(MAX_ENTRIES);
        let mut hosts: Vec<IpAddr> = Vec::new();
        message.added.retain(|peer| {
            let ip = peer.addr.ip().to_canonical();
            let fits = is_dialable(peer.addr) && believable(ip, Some(from));
            if !fits || is_local(ip) {
                return fits;
            }
            let new = !hosts.contains(&ip);
            hosts.push(ip);
            new
        });
        Ok(message)
    }
}

#[cfg(test)]
mod tests;
