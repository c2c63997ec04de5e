//! Alternate locations: who else has a file. Read from `X-Alt`, `X-NAlt` and `X-Falt`, kept per
//! file within bounds, and handed out.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use shoal_base::Time;

use crate::guid::Guid;
use crate::huge::Sha1;
use crate::overlay::is_overlay;

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

/// How far an address reaches.
fn reach(ip: IpAddr) -> u8 {
    let v4 = |ip: Ipv4Addr| match ip {
        ip if ip.is_loopback() => 0,
        ip if ip.is_private() || ip.is_link_local() => 1,
        _ => 2,
    };
    match ip.to_canonical() {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) if ip == Ipv6Addr::LOCALHOST => 0,
        // Who is there may be anywhere.
        ip if is_overlay(ip) => 2,
        IpAddr::V6(ip) if ip.is_unique_local() || ip.is_unicast_link_local() => 1,
        IpAddr::V6(_) => 2,
    }
}

/// Whether `teller` may make us connect to `named`: a stranger on the net may not name machines of
/// our own network, and nobody an address that is no machine's. Overlay addresses are only named
/// among those who have them.
pub fn may_name(teller: IpAddr, named: SocketAddr) -> bool {
    let ip = named.ip().to_canonical();
    if is_overlay(ip) && !is_overlay(teller) {
        return false;
    }
    let nobody = match ip {
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_multicast(),
    };
    named.port() != 0 && !nobody && !ip.is_unspecified() && reach(ip) >= reach(teller)
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addr(n: u8) -> SocketAddr {
        SocketAddr::from(([44, 20, n, 1], 6346))
    }

    fn told(mesh: &Mesh, asker: SocketAddr) -> Vec<SocketAddr> {
        mesh.tell(Time::ZERO, &[1; 20], Some(asker), asker.ip(), 9)
    }

    #[test]
    fn locations_are_written_short() {
        assert_eq!(read_location("44.20.3.1"), Some(addr(3)));
        assert_eq!(write_location(&addr(3)), "44.20.3.1");
        let other = SocketAddr::from(([44, 20, 3, 1], 99));
        assert_eq!(write_location(&other), "44.20.3.1:99");
        for bad in ["", "1.2.3", "1.2.3.4:0", "host:1", "1.2.3.4:99999"] {
            assert_eq!(read_location(bad), None, "{bad}");
        }
        let push = PushLocation::read("9DBC52EEEBCA2C8A79036D626B959900;fwt/1;1.2.3.4:5;6.7.8.9");
        let push = push.expect("a location");
        assert_eq!(push.proxies.len(), 2);
        assert_eq!(PushLocation::read(&push.write()), Some(push));
    }

    #[test]
    fn strangers_name_no_machine_of_our_network() {
        let local = SocketAddr::from(([127, 0, 0, 1], 80));
        let home = SocketAddr::from(([192, 168, 0, 1], 80));
        assert!(!may_name(addr(1).ip(), local) && !may_name(addr(1).ip(), home));
        assert!(!may_name(home.ip(), local) && may_name(home.ip(), home));
        assert!(may_name(local.ip(), local) && may_name(addr(1).ip(), addr(2)));
        let nobody = SocketAddr::from(([0, 0, 0, 0], 80));
        assert!(!may_name(local.ip(), nobody));
        let [one, two] = ["[fc01::1]:80", "[fc02::1]:80"].map(|a| a.parse().expect("an address"));
        let one: SocketAddr = one;
        assert!(may_name(one.ip(), two) && may_name(one.ip(), addr(1)));
        assert!(!may_name(one.ip(), home) && !may_name(one.ip(), local));
        for other in [addr(1), home, local] {
            assert!(!may_name(other.ip(), one), "{other}");
        }
    }

    #[test]
    fn the_dead_are_dropped_and_hearsay_does_not_bring_them_back() {
        let mut mesh = Mesh::new(MeshConfig::default());
        let file = [1; 20];
        mesh.learn(Time::ZERO, file, addr(1), true);
        mesh.learn(Time::ZERO, file, addr(2), false);
        assert_eq!(told(&mesh, addr(9)), [addr(2), addr(1)]);
        assert_eq!(told(&mesh, addr(2)), [addr(1)]);
        mesh.dead(&file, addr(2), addr(5).ip());
        mesh.dead(&file, addr(1), addr(5).ip());
        mesh.dead(&file, addr(1), addr(5).ip());
        mesh.learn(Time::ZERO, file, addr(1), false);
        assert_eq!(told(&mesh, addr(9)), [], "one vote: not told, but kept");
        mesh.learn(Time::ZERO, file, addr(1), true);
        assert_eq!(told(&mesh, addr(9)), [addr(1)]);
        mesh.dead(&file, addr(1), addr(5).ip());
        mesh.dead(&file, addr(1), addr(6).ip());
        assert_eq!(mesh.len(&file), 0);
    }

    #[test]
    fn a_mesh_is_bounded() {
        let config = MeshConfig {
            max_files: 3,
            max_locations: 4,
            ..MeshConfig::default()
        };
        let mut mesh = Mesh::new(config);
        mesh.learn(Time::ZERO, [1; 20], addr(200), true);
        for n in 0..100 {
            mesh.learn(Time::ZERO, [1; 20], addr(n), false);
        }
        assert_eq!(mesh.len(&[1; 20]), 4);
        assert!(
            told(&mesh, addr(201)).contains(&addr(200)),
            "hearsay gave way"
        );
        for n in 2..9 {
            mesh.learn(Time::ZERO, [n; 20], addr(1), false);
        }
        assert_eq!((mesh.len(&[1; 20]), mesh.len(&[8; 20])), (0, 1));
        assert_eq!((mesh.files.len(), mesh.order.len()), (3, 3));
    }

    #[test]
    fn those_behind_firewalls_are_kept_by_name_and_for_a_while() {
        let mut mesh = Mesh::new(MeshConfig::default());
        for n in 0..20 {
            let guid = Guid([n % 12; 16]);
            let proxies = vec![addr(n)];
            mesh.learn_pushed(Time::ZERO, [1; 20], PushLocation { guid, proxies });
        }
        let told = mesh.tell_pushed(Time::from_secs(9), &[1; 20]);
        assert_eq!(
            (told.len(), &told[0].proxies),
            (MAX_PUSHED, &vec![addr(19)])
        );
        assert_eq!(mesh.tell_pushed(Time::from_secs(4000), &[1; 20]), []);
    }

    #[test]
    fn marks_of_tls_are_those_of_gtk_gnutella() {
        let text = "tls=48, 44.20.0.1, 44.20.1.1, nonsense, 44.20.2.1, 44.20.3.1, 44.20.4.1";
        let (all, tls) = read_locations(text.split(',').map(str::trim));
        assert_eq!((all.len(), tls), (5, vec![addr(1), addr(4)]));
        assert_eq!(write_locations(&[addr(1)], &[addr(1)]), "tls=8,44.20.1.1");
        assert_eq!(write_locations(&[addr(1)], &[]), "44.20.1.1");
    }

    proptest! {
        #[test]
        fn marked_lists_are_read_as_they_are_written(marks: Vec<bool>) {
            let marks = &marks[..marks.len().min(MAX_READ)];
            let all: Vec<_> = (0..marks.len()).map(|n| addr(n as u8)).collect();
            let tls = all.iter().zip(marks).filter(|(_, m)| **m);
            let tls: Vec<_> = tls.map(|(a, _)| *a).collect();
            let text = write_locations(&all, &tls);
            prop_assert_eq!(read_locations(text.split(',')), (all, tls));
        }

        #[test]
        fn what_is_written_is_read(ip: [u8; 4], port in 1u16.., v6: [u16; 8]) {
            let v6 = Ipv6Addr::from(v6);
            for addr in [SocketAddr::from((ip, port)), SocketAddr::from((v6, port))] {
                prop_assert_eq!(read_location(&write_location(&addr)), Some(addr));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9A-F.:;,/a-z]{0,80}") {
            let _ = read_location(&text);
            let _ = PushLocation::read(&text);
        }
    }
}
