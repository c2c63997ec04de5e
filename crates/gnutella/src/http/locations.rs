//! Alternate locations: who else has a file. Read from `X-Alt`, `X-NAlt` and `X-Falt`, kept per
//! file within bounds, and handed out.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use shoal_base::Time;
pub use shoal_base::address::may_name;
use shoal_base::address::reach;

use crate::guid::Guid;
use crate::huge::Sha1;

/// The port that may be left out (x-alt).
pub const DEFAULT_PORT: u16 = 6346;
/// Locations that are read from one head, at most.
pub const MAX_READ: usize = 64;
/// Locations that are told in one head, at most.
pub const MAX_TOLD: usize = 15;
/// Locations behind firewalls that are kept of one file.
const MAX_PUSHED: usize = 8;
/// Push proxies of a location that are read, at most.
const MAX_PROXIES: usize = 8;

/// Reads `IP[:PORT]`.
pub fn read_location(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    let addr = match text.parse::<SocketAddr>() {
        Ok(addr) => addr,
        Err(_) => SocketAddr::new(text.parse::<IpAddr>().ok()?, DEFAULT_PORT),
    };
    (addr.port() != 0).then_some(addr)
}

/// Writes a location as [`read_location`] reads it, shortened where it may be.
pub fn write_location(addr: &SocketAddr) -> String {
    match addr {
        SocketAddr::V4(v4) if v4.port() == DEFAULT_PORT => v4.ip().to_string(),
        addr => addr.to_string(),
    }
}

/// What a mark of those who speak TLS begins with: `tls=` and hex digits, of which each bit, the highest
/// first, stands for one of the locations that follow.
const TLS_MARK: &str = "tls=";

/// Reads the items of a list of locations: all of them, and those that are marked as speaking TLS.
pub(super) fn read_locations<'t>(
    items: impl Iterator<Item = &'t str>,
) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    let (mut all, mut tls) = (Vec::new(), Vec::new());
    let mut marks = "";
    for item in items {
        let mark = item.get(..TLS_MARK.len());
        if mark.is_some_and(|m| m.eq_ignore_ascii_case(TLS_MARK)) {
            marks = item.get(TLS_MARK.len()..).unwrap_or_default();
            continue;
        }
        let Some(addr) = read_location(item) else {
            continue;
        };
        let digit = marks.as_bytes().get(all.len() / 4);
        let digit = digit.and_then(|d| char::from(*d).to_digit(16));
        if digit.is_some_and(|d| d & 8 >> (all.len() % 4) != 0) {
            tls.push(addr);
        }
        all.push(addr);
        if all.len() == MAX_READ {
            break;
        }
    }
    (all, tls)
}

/// Writes a list as [`read_locations`] reads it; `tls` are those that speak TLS.
pub(super) fn write_locations(list: &[SocketAddr], tls: &[SocketAddr]) -> String {
    let digit = |four: &[SocketAddr]| {
        let bits = four.iter().enumerate().filter(|(_, a)| tls.contains(a));
        bits.map(|(n, _)| 8_u32 >> n).sum::<u32>()
    };
    let marks: Vec<u32> = list.chunks(4).map(digit).collect();
    let mut items = Vec::with_capacity(list.len() + 1);
    if let Some(last) = marks.iter().rposition(|d| *d != 0) {
        let digits = marks.iter().take(last + 1).map(|d| format!("{d:X}"));
        items.push(format!("{TLS_MARK}{}", digits.collect::<String>()));
    }
    items.extend(list.iter().map(write_location));
    items.join(",")
}

/// A sharer that must be asked through others to connect to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushLocation {
    /// Who it is.
    pub guid: Guid,
    /// Who passes pushes on to it.
    pub proxies: Vec<SocketAddr>,
}

impl PushLocation {
    /// Reads `GUID;proxy;proxy…` of `X-Falt`. Options such as `fwt/1` and `pptls=…` are passed
    /// over.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let guid = parts.next()?.as_bytes();
        let guid = Guid::from_hex(guid).or_else(|| shoal_base::base32::decode(guid).map(Guid))?;
        let proxies = parts.filter_map(read_location).take(MAX_PROXIES).collect();
        Some(Self { guid, proxies })
    }

    /// Writes it as [`Self::read`] reads it.
    pub fn write(&self) -> String {
        let mut text = self.guid.to_string();
        for proxy in &self.proxies {
            text.push(';');
            text.push_str(&proxy.to_string());
        }
        text
    }
}

/// Bounds of a [`Mesh`].
#[derive(Debug, Clone)]
pub struct MeshConfig {
    /// Files of which locations are kept.
    pub max_files: usize,
    /// Locations of one file.
    pub max_locations: usize,
    /// Different hosts that must call a location dead before it is dropped. One is enough for
    /// a location that only hearsay brought.
    pub dead_votes: u8,
    /// How long a location is believed that nobody names again.
    pub lifetime: std::time::Duration,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            max_files: 4096,
            max_locations: 64,
            dead_votes: 2,
            lifetime: std::time::Duration::from_secs(3600),
        }
    }
}

#[derive(Debug, Clone)]
struct Known {
    addr: SocketAddr,
    heard: Time,
    /// Whether the host said so of itself, or we fetched from it.
    sure: bool,
    /// Whether somebody said that it speaks TLS.
    tls: bool,
    /// Who called it dead.
    dead: Vec<IpAddr>,
}

/// Who has which file, as far as others told.
#[derive(Debug, Default)]
pub struct Mesh {
    config: MeshConfig,
    files: BTreeMap<Sha1, Vec<Known>>,
    /// Those behind firewalls, and when they were heard of.
    pushed: BTreeMap<Sha1, Vec<(Time, PushLocation)>>,
    /// Files in the order they came: the oldest gives way.
    order: VecDeque<Sha1>,
}

impl Mesh {
    /// An empty one.
    pub fn new(config: MeshConfig) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    /// Takes a location in. `sure`: the host itself says so; others' word counts less.
    pub fn learn(&mut self, now: Time, sha1: Sha1, addr: SocketAddr, sure: bool) {
        if !self.files.contains_key(&sha1) {
            if self.order.len() >= self.config.max_files
                && let Some(oldest) = self.order.pop_front()
            {
                self.files.remove(&oldest);
            }
            self.order.push_back(sha1);
        }
        let known = self.files.entry(sha1).or_default();
        if let Some(at) = known.iter().position(|k| k.addr == addr) {
            let mut old = known.remove(at);
            // Hearsay revives nothing: it comes of lists that have not heard of the death yet.
            if sure {
                old.dead.clear();
            }
            old.heard = now;
            old.sure |= sure;
            known.push(old);
            return;
        }
        if known.len() >= self.config.max_locations {
            // Hearsay gives way to what is sure, the oldest first.
            let hearsay = known.iter().position(|k| !k.sure);
            match hearsay.or((sure).then_some(0)) {
                Some(at) => {
                    known.remove(at);
                }
                None => return,
            }
        }
        known.push(Known {
            addr,
            heard: now,
            sure,
            tls: false,
            dead: Vec::new(),
        });
    }

    /// Somebody says that a location speaks TLS.
    pub fn speaks_tls(&mut self, sha1: &Sha1, addr: SocketAddr) {
        let known = self.files.get_mut(sha1).into_iter().flatten();
        known.filter(|k| k.addr == addr).for_each(|k| k.tls = true);
    }

    /// Those of `list` that speak TLS, as far as is known.
    pub fn with_tls(&self, sha1: &Sha1, list: &[SocketAddr]) -> Vec<SocketAddr> {
        let known = self.files.get(sha1).into_iter().flatten();
        let tls = known.filter(|k| k.tls && list.contains(&k.addr));
        tls.map(|k| k.addr).collect()
    }

    /// Takes in who has a file behind a firewall: a few for each file, the newest.
    pub fn learn_pushed(&mut self, now: Time, sha1: Sha1, location: PushLocation) {
        if !self.pushed.contains_key(&sha1) && self.pushed.len() >= self.config.max_files {
            // Which gives way matters little: they come again with the next downloader.
            self.pushed.pop_first();
        }
        let known = self.pushed.entry(sha1).or_default();
        known.retain(|(_, old)| old.guid != location.guid);
        if known.len() >= MAX_PUSHED {
            known.remove(0);
        }
        known.push((now, location));
    }

    /// Who has a file behind a firewall, the newest first.
    pub fn tell_pushed(&self, now: Time, sha1: &Sha1) -> Vec<PushLocation> {
        let known = self.pushed.get(sha1).into_iter().flatten().rev();
        let fresh = known.filter(|(heard, _)| now.since(*heard) < self.config.lifetime);
        fresh.map(|(_, location)| location.clone()).collect()
    }

    /// `teller` could not fetch from `addr` (`X-NAlt`).
    pub fn dead(&mut self, sha1: &Sha1, addr: SocketAddr, teller: IpAddr) {
        let Some(known) = self.files.get_mut(sha1) else {
            return;
        };
        let votes = usize::from(self.config.dead_votes);
        known.retain_mut(|k| {
            if k.addr != addr {
                return true;
            }
            if !k.dead.contains(&teller) {
                k.dead.push(teller);
            }
            k.sure && k.dead.len() < votes
        });
    }

    /// Up to `most` locations for `asker`, the freshest first, never its own.
    pub fn tell(
        &self,
        now: Time,
        sha1: &Sha1,
        asker: Option<SocketAddr>,
        asker_ip: IpAddr,
        most: usize,
    ) -> Vec<SocketAddr> {
        let Some(known) = self.files.get(sha1) else {
            return Vec::new();
        };
        let fresh = known.iter().rev().filter(|k| {
            now.since(k.heard) < self.config.lifetime
                && k.dead.is_empty()
                && Some(k.addr) != asker
                // What an asker may not name, we do not make it connect to either.
                && reach(k.addr.ip()) >= reach(asker_ip)
        });
        fresh.take(most).map(|k| k.addr).collect()
    }

    /// Locations kept of a file.
    pub fn len(&self, sha1: &Sha1) -> usize {
        self.files.get(sha1).map_or(0, Vec::len)
    }
}

#[cfg(test)]
mod tests;
