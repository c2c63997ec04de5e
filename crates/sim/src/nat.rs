//! An internet of socket addresses, some behind address translators (RFC 4787's words).

use crate::space::Space;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use shoal_base::Time;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How a translator chooses the outer port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mapping {
    /// One outer port for an inner one, whoever is spoken to ("cone").
    EndpointIndependent,
    /// Another outer port for each address and port spoken to ("symmetric").
    AddressAndPortDependent,
}

/// Whom a translator lets in through an outer port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filtering {
    /// Everybody ("full cone").
    EndpointIndependent,
    /// Addresses spoken to ("restricted cone").
    AddressDependent,
    /// Addresses and ports spoken to ("port-restricted cone").
    AddressAndPortDependent,
}

/// A kind of translator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatKind {
    /// How the outer port is chosen.
    pub mapping: Mapping,
    /// Who is let in.
    pub filtering: Filtering,
    /// A mapping, and leave to come in, ends this long after the last datagram out.
    pub timeout: Duration,
    /// Whether the outer port is the inner one (RFC 4787 §4.2.1: port preservation), for nodes whose
    /// inner address is known. With an outer address that is the inner one it is a firewall.
    pub keeps_port: bool,
}

impl NatKind {
    /// A port-restricted cone that forgets after `timeout`: the most common at homes.
    pub fn cone(timeout: Duration) -> Self {
        Self {
            mapping: Mapping::EndpointIndependent,
            filtering: Filtering::AddressAndPortDependent,
            timeout,
            keeps_port: false,
        }
    }

    /// A symmetric one: no hole can be punched towards a port that nobody knows.
    pub fn symmetric(timeout: Duration) -> Self {
        Self {
            mapping: Mapping::AddressAndPortDependent,
            filtering: Filtering::AddressAndPortDependent,
            timeout,
            keeps_port: false,
        }
    }
}

/// An outer port and for whom it stands.
#[derive(Debug)]
struct Hole {
    nat: usize,
    node: u32,
    /// For a symmetric mapping the only address it speaks to.
    towards: Option<SocketAddr>,
    last_out: Time,
    /// Whom it spoke to and when last; only looked up, never walked in an order that matters.
    spoken: FxHashMap<SocketAddr, Time>,
}

#[derive(Debug)]
struct Nat {
    kind: NatKind,
    outer: IpAddr,
    next_port: u16,
    /// Inner node and, if symmetric, its partner → outer port.
    holes: FxHashMap<(u32, Option<SocketAddr>), u16>,
}

#[derive(Debug, Clone, Copy)]
enum Home {
    Public(SocketAddr),
    /// A translator, and the address inside it if that matters.
    Behind(usize, Option<SocketAddr>),
}

/// An internet: each node has a public address or sits behind a translator, for IPv4 and for IPv6.
#[derive(Debug, Default)]
pub struct Internet {
    /// Of IPv4, and of IPv6.
    homes: [Vec<Option<Home>>; 2],
    public: FxHashMap<SocketAddr, u32>,
    /// Nodes that have all ports of an address.
    hosts: FxHashMap<IpAddr, u32>,
    /// Addresses inside translators: which one's, and the node.
    inside: FxHashMap<SocketAddr, (usize, u32)>,
    nats: Vec<Nat>,
    holes: FxHashMap<SocketAddr, Hole>,
}

/// Partners that a hole remembers; the oldest are swept when there are more.
const MAX_SPOKEN: usize = 4096;

impl Internet {
    /// An internet without hosts.
    pub fn new() -> Self {
        Self::default()
    }

    fn home(&self, node: u32, v6: bool) -> Option<Home> {
        let homes = &self.homes[usize::from(v6)];
        homes.get(node as usize).copied().flatten()
    }

    fn set_home(&mut self, node: u32, v6: bool, home: Home) {
        match self.home(node, v6) {
            Some(Home::Public(addr)) => drop(self.public.remove(&addr)),
            Some(Home::Behind(_, Some(addr))) => drop(self.inside.remove(&addr)),
            _ => {}
        }
        let (homes, i) = (&mut self.homes[usize::from(v6)], node as usize);
        if homes.len() <= i {
            homes.resize(i + 1, None);
        }
        homes[i] = Some(home);
    }

    /// Gives `node` a public address, one of IPv4 and one of IPv6 at most; called again, the address
    /// changes.
    pub fn attach(&mut self, node: u32, addr: SocketAddr) {
        self.set_home(node, addr.is_ipv6(), Home::Public(addr));
        self.public.insert(addr, node);
    }

    /// Gives `node` every port of an address. It says itself from which of them it sends.
    pub fn attach_host(&mut self, node: u32, ip: IpAddr) {
        self.hosts.insert(ip, node);
    }

    /// Adds a translator with an outer address.
    pub fn add_nat(&mut self, kind: NatKind, outer: IpAddr) -> usize {
        self.nats.push(Nat {
            kind,
            outer,
            next_port: 20_000,
            holes: FxHashMap::default(),
        });
        self.nats.len() - 1
    }

    /// Puts `node` behind a translator that [`Internet::add_nat`] made.
    pub fn attach_behind(&mut self, node: u32, nat: usize) {
        let v6 = self.nats.get(nat).is_some_and(|n| n.outer.is_ipv6());
        self.set_home(node, v6, Home::Behind(nat, None));
    }

    /// The same with an address inside, by which others behind the translator reach it without it.
    pub fn attach_inside(&mut self, node: u32, nat: usize, inner: SocketAddr) {
        self.set_home(node, inner.is_ipv6(), Home::Behind(nat, Some(inner)));
        self.inside.insert(inner, (nat, node));
    }

    /// The public address of `node`, if it has one.
    pub fn public_addr(&self, node: u32) -> Option<SocketAddr> {
        [false, true]
            .into_iter()
            .find_map(|v6| match self.home(node, v6)? {
                Home::Public(addr) => Some(addr),
                Home::Behind(..) => None,
            })
    }

    /// To which node an address leads, seen from the outside.
    pub fn leads_to(&self, to: SocketAddr) -> Option<u32> {
        let host = self.public.get(&to).or_else(|| self.hosts.get(&to.ip()));
        host.copied()
            .or_else(|| self.holes.get(&to).map(|hole| hole.node))
    }

    /// A translator forgets all its mappings, as when it restarts.
    pub fn reboot_nat(&mut self, nat: usize) {
        if let Some(nat) = self.nats.get_mut(nat) {
            for (_, port) in nat.holes.drain() {
                self.holes.remove(&SocketAddr::new(nat.outer, port));
            }
        }
    }

    /// The outer address under which `node` speaks to `to`.
    fn punch(
        &mut self,
        now: Time,
        node: u32,
        (index, inner): (usize, Option<SocketAddr>),
        to: SocketAddr,
    ) -> Option<SocketAddr> {
        let nat = self.nats.get_mut(index)?;
        let towards = (nat.kind.mapping == Mapping::AddressAndPortDependent).then_some(to);
        let known = nat.holes.get(&(node, towards)).copied();
        let fresh = |hole: &Hole| now.since(hole.last_out) < nat.kind.timeout;
        let port = match known {
            Some(port)
                if self
                    .holes
                    .get(&SocketAddr::new(nat.outer, port))
                    .is_some_and(fresh) =>
            {
                port
            }
            _ => {
                if let Some(old) = known {
                    self.holes.remove(&SocketAddr::new(nat.outer, old));
                }
                let taken = |holes: &FxHashMap<SocketAddr, Hole>, port| {
                    let hole = holes.get(&SocketAddr::new(nat.outer, port));
                    hole.is_some_and(fresh)
                };
                let kept = inner.filter(|_| nat.kind.keeps_port).map(|i| i.port());
                let port = match kept.filter(|port| !taken(&self.holes, *port)) {
                    Some(port) => port,
                    None => {
                        // The next free port; with all of them in use the oldest owner loses his.
                        let mut port = nat.next_port;
                        for _ in 0..u16::MAX {
                            port = port.checked_add(1).unwrap_or(1024);
                            if !taken(&self.holes, port) {
                                break;
                            }
                        }
                        nat.next_port = port;
                        port
                    }
                };
                let outer = SocketAddr::new(nat.outer, port);
                if let Some(old) = self.holes.remove(&outer) {
                    nat.holes.remove(&(old.node, old.towards));
                }
                nat.holes.insert((node, towards), port);
                port
            }
        };
        let outer = SocketAddr::new(nat.outer, port);
        let timeout = nat.kind.timeout;
        let hole = self.holes.entry(outer).or_insert_with(|| Hole {
            nat: index,
            node,
            towards,
            last_out: now,
            spoken: FxHashMap::default(),
        });
        hole.last_out = now;
        if hole.spoken.len() >= MAX_SPOKEN {
            hole.spoken.retain(|_, last| now.since(*last) < timeout);
        }
        hole.spoken.insert(to, now);
        Some(outer)
    }
}

impl Space for Internet {
    type Addr = SocketAddr;

    fn depart(&mut self, now: Time, node: u32, to: SocketAddr) -> Option<(SocketAddr, u32)> {
        let from = match self.home(node, to.is_ipv6())? {
            Home::Public(addr) => addr,
            Home::Behind(nat, inner) => match (inner, self.inside.get(&to)) {
                (Some(inner), Some((same, target))) if *same == nat => {
                    return Some((inner, *target));
                }
                _ => self.punch(now, node, (nat, inner), to)?,
            },
        };
        let target = self.leads_to(to)?;
        Some((from, target))
    }

    fn arrive(&mut self, now: Time, from: SocketAddr, to: SocketAddr) -> bool {
        let open = self.public.contains_key(&to) || self.hosts.contains_key(&to.ip());
        // What is for an address inside was sent inside; a firewall's is the same on both sides.
        let inside = self.inside.get(&to).zip(self.inside.get(&from));
        if open || inside.is_some_and(|(to, from)| to.0 == from.0) {
            return true;
        }
        let Some(hole) = self.holes.get(&to) else {
            return false;
        };
        let Some(kind) = self.nats.get(hole.nat).map(|nat| nat.kind) else {
            return false;
        };
        let fresh = |last: Time| now.since(last) < kind.timeout;
        fresh(hole.last_out)
            && match kind.filtering {
                Filtering::EndpointIndependent => true,
                Filtering::AddressDependent => hole
                    .spoken
                    .iter()
                    .any(|(addr, last)| addr.ip() == from.ip() && fresh(*last)),
                Filtering::AddressAndPortDependent => {
                    hole.spoken.get(&from).copied().is_some_and(fresh)
                }
            }
    }
}

#[cfg(test)]
mod tests;
