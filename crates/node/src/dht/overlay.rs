//! What the thread needs of a core besides [`Dht`], and the two cores there are.

use super::{DhtConfig, DhtStatus, Ring};
use ed25519_dalek::SigningKey;
use shoal_base::{Rng, Time};
use shoal_dht::chord::{Endpoint, Notice, Settings};
use shoal_dht::mainline::{Config as MainlineConfig, Exempt, Mainline, Snapshot};
use shoal_dht::{Dht, Output};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A node that others take for a member answers those who ask whether it is gone, for so long.
const LINGER: Duration = Duration::from_millis(250);

pub(super) trait Overlay: Send {
    /// What operations and datagrams are for.
    fn dht(&mut self) -> &mut dyn Dht;
    /// When it next wants its tick.
    fn deadline(&self) -> Option<Time>;
    /// Nodes to start from.
    fn add_contacts(&mut self, now: Time, addrs: &[SocketAddr]);
    /// Whether looking up the names of nodes to start from would help.
    fn wants_contacts(&self) -> bool;
    /// What is worth keeping for the next run.
    fn save(&self) -> Vec<u8>;
    /// How it is.
    fn report(&self) -> DhtStatus;
    /// Says goodbye.
    fn leave(&mut self, now: Time, out: &mut Vec<Output>);
    /// Whether its goodbye is over.
    fn is_done(&self, now: Time) -> bool;
    /// Logs what happened besides.
    fn log(&mut self) {}
}

/// A node of the Mainline DHT, with sockets of IPv4, IPv6 or both.
pub(super) fn mainline(
    config: &DhtConfig,
    (v4, v6): (bool, bool),
    saved: Option<&[u8]>,
) -> Box<dyn Overlay> {
    let core = MainlineConfig {
        v4,
        v6,
        read_only: config.read_only,
        exempt: exempt(),
        ..MainlineConfig::default()
    };
    let snapshot = saved.and_then(Snapshot::from_bytes);
    let mut rng = Rng::from_seed(config.seed);
    Box::new(Mainline::new(Time::ZERO, core, snapshot, rng.fork()))
}

/// A node of a Chord ring. Without anybody to start from it begins the ring.
pub(super) fn chord(
    config: &DhtConfig,
    ring: &Ring,
    saved: Option<Vec<u8>>,
) -> io::Result<Box<dyn Overlay>> {
    let key = match ring.key {
        Some(key) => key,
        None => random_key()?,
    };
    // The driver's clock begins now.
    let epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let epoch = epoch.map_or(0, |d| d.as_secs());
    let settings = Settings {
        ring: ring.name.clone(),
        secret: ring.secret.clone(),
        guest: config.read_only,
        positions: ring.positions,
        judge: ring
            .names_of
            .map(|server| crate::supernode::name_ring::judge(server, epoch)),
        ..Settings::default()
    };
    let rng = Rng::from_seed(config.seed);
    let mut endpoint = Endpoint::new(SigningKey::from_bytes(&key), settings, rng);
    let saved = saved.unwrap_or_default();
    let met: Vec<SocketAddr> = String::from_utf8_lossy(&saved)
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    endpoint.add_doors(Time::ZERO, &met);
    if config.bootstrap.is_empty() && !config.read_only {
        // Alone, it has nobody to send anything to.
        endpoint.create(Time::ZERO, &mut Vec::new());
    }
    let left = None;
    Ok(Box::new(ChordNode { endpoint, left }))
}

fn random_key() -> io::Result<[u8; 32]> {
    let mut key = [0; 32];
    let mut filled = 0;
    while let Some(rest) = key.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(key)
}

/// Where limits per address and subnet do not hold: this machine and private networks, whose
/// nodes all share a subnet, and whose addresses no stranger on the Internet can have.
fn exempt() -> Exempt {
    let v4 = |a, b, c, d, bits| (Ipv4Addr::new(a, b, c, d).into(), bits);
    let v6 = |first, bits| (Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0).into(), bits);
    let mut ranges = Exempt::default();
    ranges.0.extend([
        v4(10, 0, 0, 0, 8),
        v4(172, 16, 0, 0, 12),
        v4(192, 168, 0, 0, 16),
        v4(169, 254, 0, 0, 16),
        v6(0xfc00, 7),
        v6(0xfe80, 10),
    ]);
    ranges
}

impl Overlay for Mainline {
    fn dht(&mut self) -> &mut dyn Dht {
        self
    }

    fn deadline(&self) -> Option<Time> {
        Dht::deadline(self)
    }

    fn add_contacts(&mut self, now: Time, addrs: &[SocketAddr]) {
        Self::add_contacts(self, now, addrs);
    }

    fn wants_contacts(&self) -> bool {
        Self::wants_contacts(self)
    }

    fn save(&self) -> Vec<u8> {
        self.snapshot().to_bytes()
    }

    fn report(&self) -> DhtStatus {
        let status = self.status();
        DhtStatus {
            health: status.health,
            contacts: status.contacts.iter().sum(),
            keys: status.keys,
            peers: status.peers,
            items: status.items,
            records: 0,
            memory: status.memory,
            sent: (0, 0),
            received: (0, 0),
        }
    }

    /// Nobody expects a goodbye: who does not answer any more is gone.
    fn leave(&mut self, _: Time, _: &mut Vec<Output>) {}

    fn is_done(&self, _: Time) -> bool {
        true
    }
}

/// An endpoint and its life.
struct ChordNode {
    endpoint: Endpoint,
    /// When it left, and whether anybody knew it.
    left: Option<(Time, bool)>,
}

impl Overlay for ChordNode {
    fn dht(&mut self) -> &mut dyn Dht {
        &mut self.endpoint
    }

    fn deadline(&self) -> Option<Time> {
        self.endpoint.deadline()
    }

    fn add_contacts(&mut self, now: Time, addrs: &[SocketAddr]) {
        self.endpoint.add_doors(now, addrs);
    }

    fn wants_contacts(&self) -> bool {
        !self.endpoint.is_member() && self.endpoint.sessions() == 0
    }

    fn save(&self) -> Vec<u8> {
        let known = self.endpoint.known().into_iter();
        known
            .flat_map(|addr| format!("{addr}\n").into_bytes())
            .collect()
    }

    fn report(&self) -> DhtStatus {
        let (keys, peers) = self.endpoint.peers();
        DhtStatus {
            health: self.endpoint.health(),
            contacts: self.endpoint.known().len(),
            keys,
            peers,
            items: self.endpoint.items(),
            records: self.endpoint.words().1,
            memory: self.endpoint.memory(),
            sent: (0, 0),
            received: (0, 0),
        }
    }

    fn leave(&mut self, now: Time, out: &mut Vec<Output>) {
        let known = !self.endpoint.known().is_empty();
        self.endpoint.leave(now, out);
        self.left = Some((now, known));
    }

    fn is_done(&self, now: Time) -> bool {
        self.left.is_some_and(|(at, known)| {
            !known || (self.endpoint.is_idle() && now.since(at) >= LINGER)
        })
    }

    fn log(&mut self) {
        while let Some(notice) = self.endpoint.notice() {
            match notice {
                Notice::Joined => tracing::info!("in the ring"),
                Notice::NotJoined(why) => tracing::info!(%why, "not in the ring"),
            }
        }
    }
}
