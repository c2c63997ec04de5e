//! Relayed addresses: who has which, and those that are kept for who comes with a token.

use super::{Effect, Effects};
use rustc_hash::FxHashMap;
use shoal_base::{Rng, Time};
use slab::Slab;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a port is kept for who has its token (RFC 8656 §7.2: at least 30 seconds).
const RESERVED: Duration = Duration::from_secs(30);

/// The name of a relayed address's socket. A place is used again, a name never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelayId {
    /// Its place, a small number.
    pub slot: u32,
    serial: u32,
}

#[derive(Debug)]
struct Port {
    serial: u32,
    /// The allocation that has it; none while it is kept for somebody.
    owner: Option<usize>,
    /// What peers send to; none while it is being opened.
    address: Option<SocketAddr>,
}

#[derive(Debug)]
pub(super) struct Reserved {
    relay: RelayId,
    until: Time,
}

#[derive(Debug, Default)]
pub(super) struct Ports {
    all: Slab<Port>,
    serial: u32,
    /// Which addresses are relayed ones. Only we put names in.
    by_address: FxHashMap<SocketAddr, RelayId>,
    pub(super) reserved: BTreeMap<[u8; 8], Reserved>,
}

impl Ports {
    /// A name for a socket that is to be opened for an allocation.
    pub(super) fn open(&mut self, owner: usize) -> RelayId {
        self.serial = self.serial.wrapping_add(1);
        let slot = self.all.insert(Port {
            serial: self.serial,
            owner: Some(owner),
            address: None,
        });
        RelayId {
            slot: slot as u32,
            serial: self.serial,
        }
    }

    fn get(&self, relay: RelayId) -> Option<&Port> {
        let port = self.all.get(relay.slot as usize)?;
        (port.serial == relay.serial).then_some(port)
    }

    /// Whose a relayed address is.
    pub(super) fn owner(&self, relay: RelayId) -> Option<usize> {
        self.get(relay)?.owner
    }

    /// Its socket was opened, with this address for peers.
    pub(super) fn opened(&mut self, relay: RelayId, address: SocketAddr) {
        if self.get(relay).is_none() {
            return;
        }
        if let Some(port) = self.all.get_mut(relay.slot as usize) {
            port.address = Some(address);
            self.by_address.insert(address, relay);
        }
    }

    /// Its socket could not be opened: the name is void.
    pub(super) fn failed(&mut self, relay: RelayId) {
        if self.get(relay).is_some() {
            self.all.remove(relay.slot as usize);
        }
    }

    pub(super) fn close(&mut self, relay: RelayId, out: &mut Effects) {
        if self.get(relay).is_none() {
            return;
        }
        let port = self.all.remove(relay.slot as usize);
        if let Some(address) = port.address {
            self.by_address.remove(&address);
        }
        out.list.push(Effect::CloseRelay(relay));
    }

    pub(super) fn is_relayed(&self, address: SocketAddr) -> bool {
        self.by_address.contains_key(&address)
    }

    /// Keeps a relayed address for who comes with the token that is given back.
    pub(super) fn reserve(&mut self, now: Time, relay: RelayId, rng: &mut Rng) -> [u8; 8] {
        if let Some(port) = self.all.get_mut(relay.slot as usize) {
            port.owner = None;
        }
        let token = rng.next_u64().to_be_bytes();
        let until = now + RESERVED;
        self.reserved.insert(token, Reserved { relay, until });
        token
    }

    /// Gives what was kept for a token to an allocation.
    pub(super) fn redeem(
        &mut self,
        now: Time,
        token: [u8; 8],
        owner: usize,
    ) -> Option<(RelayId, SocketAddr)> {
        let kept = self.reserved.get(&token)?;
        if kept.until <= now {
            return None;
        }
        let relay = self.reserved.remove(&token)?.relay;
        let port = self.all.get_mut(relay.slot as usize)?;
        port.owner = Some(owner);
        Some((relay, port.address?))
    }

    /// Closes what was kept and not fetched.
    pub(super) fn expire(&mut self, now: Time, out: &mut Effects) {
        let late: Vec<_> = self
            .reserved
            .iter()
            .filter(|(_, kept)| kept.until <= now)
            .map(|(token, kept)| (*token, kept.relay))
            .collect();
        for (token, relay) in late {
            self.reserved.remove(&token);
            self.close(relay, out);
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.reserved.values().map(|kept| kept.until).min()
    }
}
