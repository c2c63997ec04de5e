//! One allocation: a client's relayed addresses, whom it lets in, and its channels.

use super::ports::RelayId;
use super::{Client, Time};
use crate::stun::{Algorithm, Key, TransactionId};
use crate::turn::{CHANNEL_SECS, PERMISSION_SECS};
use smallvec::SmallVec;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Permissions, and channels, of an allocation at most. A browser has one for each candidate of the
/// other side, a few dozen in the worst case.
const MOST: usize = 256;

/// An address that was allocated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relay {
    pub(super) id: RelayId,
    /// What peers send to.
    pub(super) address: SocketAddr,
}

/// A peer that has a number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Channel {
    pub(super) number: u16,
    pub(super) peer: SocketAddr,
    expires: Time,
    /// Its peer's permission, here too so that data takes one look.
    permitted: Time,
    /// Whether the peer is a relayed address of ours and has to be one still.
    pub(super) own: bool,
}

impl Channel {
    pub(super) fn is_open(&self, now: Time) -> bool {
        now < self.expires && now < self.permitted
    }
}

/// What the client asked for and has not got yet.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) fingerprint: bool,
    pub(super) sha256: bool,
    pub(super) lifetime: Duration,
    /// IPv6, besides, if the client wants both.
    pub(super) additional: bool,
    pub(super) additional_failed: bool,
    /// The family of the first address.
    pub(super) ipv6: bool,
    pub(super) even: bool,
    /// Whether the next port is wanted too.
    pub(super) reserve: bool,
    pub(super) next: Option<Relay>,
    /// What is being opened.
    pub(super) waiting: Option<RelayId>,
    pub(super) tries: u32,
}

#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) client: Client,
    /// The client's address as we see it.
    pub(super) from: SocketAddr,
    pub(super) user: usize,
    pub(super) name: Vec<u8>,
    pub(super) algorithm: Algorithm,
    pub(super) key: Key,
    /// The request that made it, which may come again.
    pub(super) made_by: TransactionId,
    pub(super) token: Option<[u8; 8]>,
    /// Whether the client wanted IPv6 besides and there was none.
    pub(super) additional_failed: bool,
    pub(super) expires: Time,
    pub(super) opening: Option<Box<Opening>>,
    pub(super) relays: SmallVec<[Relay; 2]>,
    /// By address.
    permissions: Vec<(IpAddr, Time)>,
    /// By number.
    channels: Vec<Channel>,
    /// Numbers by peer.
    numbers: Vec<(SocketAddr, u16)>,
}

/// Why a channel cannot be bound so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unbindable {
    /// The number is another peer's, or the peer has another number.
    Taken,
    /// There are too many.
    Full,
}

impl Allocation {
    #[expect(clippy::too_many_arguments, reason = "each is a field")]
    pub(super) fn new(
        client: Client,
        from: SocketAddr,
        user: usize,
        name: &[u8],
        algorithm: Algorithm,
        key: Key,
        made_by: TransactionId,
        expires: Time,
        opening: Opening,
    ) -> Self {
        Self {
            client,
            from,
            user,
            name: name.to_vec(),
            algorithm,
            key,
            made_by,
            token: None,
            additional_failed: false,
            expires,
            opening: Some(Box::new(opening)),
            relays: SmallVec::new(),
            permissions: Vec::new(),
            channels: Vec::new(),
            numbers: Vec::new(),
        }
    }

    /// All its relayed addresses, also those that are not told yet.
    pub(super) fn relays(&self) -> SmallVec<[RelayId; 4]> {
        let mut all: SmallVec<_> = self.relays.iter().map(|r| r.id).collect();
        if let Some(opening) = &self.opening {
            all.extend(opening.next.map(|r| r.id));
            all.extend(opening.waiting);
        }
        all
    }

    /// The relayed address of a peer's family.
    pub(super) fn relay_for(&self, peer: IpAddr) -> Option<Relay> {
        let same = |r: &&Relay| r.address.is_ipv4() == peer.is_ipv4();
        self.relays.iter().find(same).copied()
    }

    pub(super) fn permits(&self, now: Time, peer: IpAddr) -> bool {
        let found = self.permissions.binary_search_by_key(&peer, |(ip, _)| *ip);
        let found = found.ok().and_then(|at| self.permissions.get(at));
        found.is_some_and(|(_, until)| now < *until)
    }

    /// Lets all of `peers` in, or none if there would be too many.
    pub(super) fn permit(&mut self, now: Time, peers: &[IpAddr]) -> bool {
        self.forget_expired(now);
        let known = |ip: &IpAddr| self.permissions.binary_search_by_key(ip, |p| p.0).is_ok();
        let new = peers.iter().filter(|ip| !known(ip)).count();
        if self.permissions.len() + new > MOST {
            return false;
        }
        let until = now + Duration::from_secs(PERMISSION_SECS);
        for &ip in peers {
            match self.permissions.binary_search_by_key(&ip, |p| p.0) {
                Ok(at) => {
                    if let Some(permission) = self.permissions.get_mut(at) {
                        permission.1 = until;
                    }
                }
                Err(at) => self.permissions.insert(at, (ip, until)),
            }
            for channel in self.channels.iter_mut().filter(|c| c.peer.ip() == ip) {
                channel.permitted = until;
            }
        }
        true
    }

    pub(super) fn channel(&self, number: u16) -> Option<&Channel> {
        let at = self.channels.binary_search_by_key(&number, |c| c.number);
        self.channels.get(at.ok()?)
    }

    pub(super) fn channel_of(&self, peer: SocketAddr) -> Option<&Channel> {
        let at = self.numbers.binary_search_by_key(&peer, |(peer, _)| *peer);
        self.channel(self.numbers.get(at.ok()?)?.1)
    }

    /// Gives a peer a number, or keeps it; lets it in too.
    pub(super) fn bind(
        &mut self,
        now: Time,
        number: u16,
        peer: SocketAddr,
        own: bool,
    ) -> Result<(), Unbindable> {
        self.forget_expired(now);
        let same = |channel: Option<&Channel>| {
            channel.is_none_or(|c| c.number == number && c.peer == peer)
        };
        if !same(self.channel(number)) || !same(self.channel_of(peer)) {
            return Err(Unbindable::Taken);
        }
        if self.channels.len() >= MOST && self.channel(number).is_none() {
            return Err(Unbindable::Full);
        }
        if !self.permit(now, &[peer.ip()]) {
            return Err(Unbindable::Full);
        }
        let channel = Channel {
            number,
            peer,
            expires: now + Duration::from_secs(CHANNEL_SECS),
            permitted: now + Duration::from_secs(PERMISSION_SECS),
            own,
        };
        match self.channels.binary_search_by_key(&number, |c| c.number) {
            Ok(at) => {
                if let Some(old) = self.channels.get_mut(at) {
                    *old = channel;
                }
            }
            Err(at) => {
                self.channels.insert(at, channel);
                let at = self.numbers.partition_point(|(p, _)| *p < peer);
                self.numbers.insert(at, (peer, number));
            }
        }
        Ok(())
    }

    fn forget_expired(&mut self, now: Time) {
        self.permissions.retain(|(_, until)| now < *until);
        self.channels.retain(|c| now < c.expires);
        let channels = &self.channels;
        let alive = |n: u16| channels.binary_search_by_key(&n, |c| c.number).is_ok();
        self.numbers.retain(|(_, number)| alive(*number));
    }
}
