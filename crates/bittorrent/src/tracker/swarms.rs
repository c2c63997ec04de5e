//! The tracker server's state: who is in which swarm.
//!
//! IPv4 and IPv6 peers are kept apart, as each is told only of its own kind (BEP 7, BEP 15). Overlay
//! addresses are a third kind: whoever announces one is told of others' besides, and nobody else is. A
//! server shares its torrents out over several of these, so that workers seldom meet and each is
//! swept in little time.

use super::limits::{AddressCounts, is_local};
use super::peer_table::{PeerTable, Stamp, TICK_SECS};
use super::siphash::SipKey;
use super::{AnnounceEvent, ScrapeStats, compact};
use shoal_base::{InfoHash, Rng, Time};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Who announced an overlay address, as an IPv6 address, and that address, compact.
const OVERLAY_LEN: usize = 16 + compact::V6_LEN;

/// Settings of a [`Swarms`].
#[derive(Debug, Clone)]
pub struct SwarmsConfig {
    /// A peer that was silent for this long is forgotten (in steps of 8 s, up to two days).
    pub peer_life: Duration,
    /// Torrents, counted by address family; further ones are refused.
    pub max_torrents: usize,
    /// Peers by address; none for no limit.
    pub address_counts: Option<Arc<AddressCounts>>,
    /// Whether the limit by address holds for loopback and private networks too.
    pub limit_local: bool,
}

/// An announce whose sender is known.
#[derive(Debug, Clone, Copy)]
pub struct Announce {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The peer; its family decides which swarm it is in.
    pub peer: SocketAddr,
    /// Whether it has everything.
    pub seeder: bool,
    /// What happened to it.
    pub event: AnnounceEvent,
    /// How many peers to tell it.
    pub num_want: usize,
}

/// Why an announce was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The limit by address.
    #[error("too many peers from your address")]
    TooManyFromAddress,
    /// The limit of torrents.
    #[error("this tracker is full")]
    Full,
}

/// How many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Torrents with IPv4 peers.
    pub torrents_v4: usize,
    /// Torrents with IPv6 peers.
    pub torrents_v6: usize,
    /// IPv4 peers.
    pub peers_v4: u64,
    /// IPv6 peers.
    pub peers_v6: u64,
    /// Those of all peers that told an overlay address.
    pub peers_overlay: u64,
    /// Those of all peers that have everything.
    pub seeders: u64,
}

#[derive(PartialEq, Eq)]
struct Key(InfoHash);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.as_bytes());
    }
}

struct Swarm<const N: usize, const INLINE: usize> {
    peers: PeerTable<N, INLINE>,
    completed: u32,
}

impl<const N: usize, const INLINE: usize> Default for Swarm<N, INLINE> {
    fn default() -> Self {
        Self {
            peers: PeerTable::default(),
            completed: 0,
        }
    }
}

impl<const N: usize, const INLINE: usize> Swarm<N, INLINE> {
    fn stats(&self) -> ScrapeStats {
        ScrapeStats {
            seeders: self.peers.seeders(),
            completed: self.completed,
            leechers: self.peers.len() - self.peers.seeders(),
        }
    }
}

// Keyed by SipHash, so strangers cannot make entries collide; nothing depends on its order.
#[expect(
    clippy::disallowed_types,
    reason = "the hash is keyed, the order escapes nowhere"
)]
type Map<const N: usize, const INLINE: usize> =
    std::collections::HashMap<Key, Swarm<N, INLINE>, SipKey>;

/// A set of swarms.
pub struct Swarms {
    config: SwarmsConfig,
    key: SipKey,
    v4: Map<{ compact::V4_LEN }, 2>,
    v6: Map<{ compact::V6_LEN }, 1>,
    overlay: Map<OVERLAY_LEN, 1>,
    census: Census,
}

impl std::fmt::Debug for Swarms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Swarms").field(&self.census()).finish()
    }
}

impl Swarms {
    /// No swarms yet.
    pub fn new(config: SwarmsConfig, rng: &mut Rng) -> Self {
        let key = SipKey::generate(rng);
        Self {
            config,
            key,
            v4: Map::with_hasher(key),
            v6: Map::with_hasher(key),
            overlay: Map::with_hasher(key),
            census: Census::default(),
        }
    }

    /// Notes the announce and appends other peers of the swarm to `out`, compact, drawn by
    /// `random` (64 uniform bits). Seeders are told of no seeders. A peer with port zero is told,
    /// but not noted: nobody could connect to it.
    pub fn announce(
        &mut self,
        now: Time,
        announce: &Announce,
        random: u64,
        out: &mut Vec<u8>,
    ) -> Result<ScrapeStats, Refusal> {
        let visit = Visit {
            stamp: Stamp::new(seconds(now), announce.seeder),
            key: &self.key,
            config: &self.config,
            random,
            announce,
        };
        let port = announce.peer.port();
        let (stats, change) = match announce.peer.ip().to_canonical() {
            IpAddr::V4(ip) => {
                let done = visit.announce(&mut self.v4, &compact::encode_v4(ip, port), out)?;
                self.census.peers_v4 = self.census.peers_v4.wrapping_add_signed(done.1.peers);
                done
            }
            IpAddr::V6(ip) => {
                let done = visit.announce(&mut self.v6, &compact::encode_v6(ip, port), out)?;
                self.census.peers_v6 = self.census.peers_v6.wrapping_add_signed(done.1.peers);
                done
            }
        };
        self.census.seeders = self.census.seeders.wrapping_add_signed(change.seeders);
        Ok(stats)
    }

    /// Notes besides where the announce's sender is reached by the overlay, and appends up to its `num_want` other
    /// overlay addresses of the torrent to `out`, compact. Counted by the sender's address, as nothing
    /// proves the other.
    pub fn announce_overlay(
        &mut self,
        now: Time,
        announce: &Announce,
        overlay: SocketAddr,
        random: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let IpAddr::V6(ip) = overlay.ip() else {
            return Ok(());
        };
        let visit = Visit {
            stamp: Stamp::new(seconds(now), announce.seeder),
            key: &self.key,
            config: &self.config,
            random,
            announce,
        };
        let mut entry = [0; OVERLAY_LEN];
        let (sender, place) = entry.split_at_mut(16);
        sender.copy_from_slice(&as_v6(announce.peer.ip()).octets());
        place.copy_from_slice(&compact::encode_v6(ip, overlay.port()));
        let mut others = Vec::new();
        let (_, change) = visit.announce(&mut self.overlay, &entry, &mut others)?;
        self.census.peers_overlay = self.census.peers_overlay.wrapping_add_signed(change.peers);
        let (others, _) = others.as_chunks::<OVERLAY_LEN>();
        let places = others.iter().filter_map(|entry| entry.get(16..));
        places.for_each(|place| out.extend_from_slice(place));
        Ok(())
    }

    /// The numbers of one torrent as peers of `family` see it; zeros if it is unknown.
    pub fn scrape(&self, info_hash: &InfoHash, family: IpAddr) -> ScrapeStats {
        let key = Key(*info_hash);
        let stats = match family.to_canonical() {
            IpAddr::V4(_) => self.v4.get(&key).map(Swarm::stats),
            IpAddr::V6(_) => self.v6.get(&key).map(Swarm::stats),
        };
        stats.unwrap_or_default()
    }

    /// Forgets the peers that were silent for too long, and the swarms they leave empty. Must run
    /// at least once a day; how often besides decides how much longer peers stay.
    pub fn sweep(&mut self, now: Time) {
        let Self {
            config,
            key,
            v4,
            v6,
            overlay,
            census,
        } = self;
        let now = Stamp::new(seconds(now), false);
        let (peers, seeders) = sweep(v4, key, config, now, |peer: &[u8; compact::V4_LEN]| {
            compact::decode_v4(peer).next().map(|p| p.ip())
        });
        (census.peers_v4, census.seeders) = (peers, seeders);
        let (peers, seeders) = sweep(v6, key, config, now, |peer: &[u8; compact::V6_LEN]| {
            compact::decode_v6(peer).next().map(|p| p.ip())
        });
        census.peers_v6 = peers;
        census.seeders += seeders;
        let (peers, _) = sweep(overlay, key, config, now, |entry: &[u8; OVERLAY_LEN]| {
            let sender = entry.first_chunk::<16>()?;
            Some(Ipv6Addr::from(*sender).to_canonical())
        });
        census.peers_overlay = peers;
    }

    /// How many there are.
    pub fn census(&self) -> Census {
        Census {
            torrents_v4: self.v4.len(),
            torrents_v6: self.v6.len(),
            ..self.census
        }
    }
}

fn as_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn seconds(now: Time) -> u64 {
    now.as_micros() / 1_000_000
}

impl SwarmsConfig {
    /// Counts one more peer of `ip`; false if that is one too many.
    fn admit(&self, ip: IpAddr) -> bool {
        match &self.address_counts {
            Some(counts) if self.limit_local || !is_local(ip) => counts.add(ip),
            _ => true,
        }
    }

    fn dismiss(&self, ip: IpAddr) {
        if let Some(counts) = &self.address_counts
            && (self.limit_local || !is_local(ip))
        {
            counts.remove(ip);
        }
    }
}

/// By how much an announce changed the census.
#[derive(Clone, Copy, Default)]
struct Change {
    peers: i64,
    seeders: i64,
}

impl Change {
    fn new(old: Option<Stamp>, new: Option<Stamp>) -> Self {
        let seeder = |s: Option<Stamp>| i64::from(s.is_some_and(Stamp::is_seeder));
        Self {
            peers: i64::from(new.is_some()) - i64::from(old.is_some()),
            seeders: seeder(new) - seeder(old),
        }
    }
}

/// One announce at the swarms of either family.
struct Visit<'a> {
    stamp: Stamp,
    key: &'a SipKey,
    config: &'a SwarmsConfig,
    random: u64,
    announce: &'a Announce,
}

impl Visit<'_> {
    fn announce<const N: usize, const INLINE: usize>(
        &self,
        map: &mut Map<N, INLINE>,
        peer: &[u8; N],
        out: &mut Vec<u8>,
    ) -> Result<(ScrapeStats, Change), Refusal> {
        use std::collections::hash_map::Entry;
        let Announce {
            info_hash, event, ..
        } = *self.announce;
        let ip = self.announce.peer.ip().to_canonical();
        let leaves = event == AnnounceEvent::Stopped;
        if leaves || self.announce.peer.port() == 0 {
            let Some(swarm) = map.get_mut(&Key(info_hash)) else {
                return Ok(Default::default());
            };
            let old = swarm.peers.remove(self.key, peer);
            if old.is_some() {
                self.config.dismiss(ip);
            }
            if !leaves {
                self.sample(swarm, peer, out);
            }
            return Ok((swarm.stats(), Change::new(old, None)));
        }
        let torrents = map.len();
        let swarm = match map.entry(Key(info_hash)) {
            Entry::Occupied(entry) => {
                let swarm = entry.into_mut();
                if self.config.address_counts.is_some()
                    && swarm.peers.get(self.key, peer).is_none()
                    && !self.config.admit(ip)
                {
                    return Err(Refusal::TooManyFromAddress);
                }
                swarm
            }
            Entry::Vacant(_) if torrents >= self.config.max_torrents => {
                return Err(Refusal::Full);
            }
            Entry::Vacant(_) if !self.config.admit(ip) => {
                return Err(Refusal::TooManyFromAddress);
            }
            Entry::Vacant(entry) => entry.insert(Swarm::default()),
        };
        let old = swarm.peers.insert(self.key, *peer, self.stamp);
        if event == AnnounceEvent::Completed && !old.is_some_and(Stamp::is_seeder) {
            swarm.completed = swarm.completed.saturating_add(1);
        }
        self.sample(swarm, peer, out);
        Ok((swarm.stats(), Change::new(old, Some(self.stamp))))
    }

    fn sample<const N: usize, const INLINE: usize>(
        &self,
        swarm: &Swarm<N, INLINE>,
        peer: &[u8; N],
        out: &mut Vec<u8>,
    ) {
        let Announce {
            num_want, seeder, ..
        } = *self.announce;
        swarm
            .peers
            .sample(self.random, num_want, peer, !seeder, out);
    }
}

/// Sweeps one family; gives how many peers and seeders are left.
fn sweep<const N: usize, const INLINE: usize>(
    map: &mut Map<N, INLINE>,
    key: &SipKey,
    config: &SwarmsConfig,
    now: Stamp,
    ip: impl Fn(&[u8; N]) -> Option<IpAddr>,
) -> (u64, u64) {
    // Two days at most: stamps repeat after three.
    let max_age = config
        .peer_life
        .as_secs()
        .div_ceil(TICK_SECS)
        .clamp(1, 2 * 86_400 / TICK_SECS);
    let max_age = max_age as u16;
    let (mut peers, mut seeders) = (0, 0);
    map.retain(|_, swarm| {
        swarm.peers.expire(key, now, max_age, |peer| {
            if let Some(ip) = ip(peer) {
                config.dismiss(ip);
            }
        });
        peers += u64::from(swarm.peers.len());
        seeders += u64::from(swarm.peers.seeders());
        swarm.peers.len() > 0
    });
    if map.len() * 4 < map.capacity() {
        map.shrink_to(map.len() * 2);
    }
    (peers, seeders)
}

#[cfg(test)]
mod tests;
