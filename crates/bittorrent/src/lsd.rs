//! Local service discovery (BEP 14): announces by multicast on the local network.
//!
//! ```text
//! BT-SEARCH * HTTP/1.1
//! Host: 239.192.152.143:6771
//! Port: 6881
//! Infohash: <40 hexadecimal digits>      may be repeated
//! cookie: <to know one's own announces>
//! ```
//!
//! The sockets are the driver's; [`Lsd`] says what to send when, and what a packet means.

use crate::peers::{is_dialable, is_local};
use shoal_base::{InfoHash, Rng, Time};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// The port of the groups.
pub const PORT: u16 = 6771;
/// The IPv4 group, organisation-local.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 192, 152, 143);
/// The IPv6 group, site-local.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f);

/// Longest packet sent or read (BEP 14: "should not exceed 1400 bytes").
pub const MAX_PACKET_LEN: usize = 1400;

/// BEP 14: "every 5 minutes".
const INTERVAL: Duration = Duration::from_secs(300);
/// BEP 14: "no more than 1 announce per minute"; a few may go at once, so that a torrent just
/// added is not kept waiting.
const PACKET_EVERY: Duration = Duration::from_secs(60);
/// How many may go at once.
const BURST: u64 = 4;
/// Info-hashes in a packet: 25 lines of 52 bytes and the head stay below the limit.
const MAX_HASHES: usize = 20;
/// Longest cookie read.
const MAX_COOKIE_LEN: usize = 64;
/// Packets heeded a second, all senders together.
const MAX_HEARD_PER_S: u32 = 50;

/// One announce.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LsdAnnounce {
    /// The sender's listening TCP port.
    pub port: u16,
    /// The torrents it takes part in; at least one.
    pub info_hashes: Vec<InfoHash>,
    /// Says whose announce it is.
    pub cookie: Option<String>,
}

/// Why a packet is no announce.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LsdError {
    /// Too long.
    #[error("packet of {0} bytes is too long")]
    TooLong(usize),
    /// Not text.
    #[error("byte {0} is not ASCII")]
    NotAscii(usize),
    /// The first line is another.
    #[error("not a BT-SEARCH request")]
    NotSearch,
    /// A line that is no header, or has a value that cannot be.
    #[error("bad {what} in line {line}")]
    BadHeader {
        /// Counted from one.
        line: usize,
        /// Which header.
        what: &'static str,
    },
    /// A header that must be there is not.
    #[error("no {0} header")]
    Missing(&'static str),
}

impl LsdAnnounce {
    /// The packet for the IPv6 group, or for the IPv4 one.
    pub fn encode(&self, v6: bool) -> Vec<u8> {
        let mut text = String::with_capacity(256);
        text.push_str("BT-SEARCH * HTTP/1.1\r\n");
        let host = if v6 {
            write!(text, "Host: [{GROUP_V6}]:{PORT}\r\n")
        } else {
            write!(text, "Host: {GROUP_V4}:{PORT}\r\n")
        };
        let port = write!(text, "Port: {}\r\n", self.port);
        host.and(port).expect("a String takes whatever is written");
        for hash in &self.info_hashes {
            write!(text, "Infohash: {hash}\r\n").expect("a String takes whatever is written");
        }
        if let Some(cookie) = &self.cookie {
            write!(text, "cookie: {cookie}\r\n").expect("a String takes whatever is written");
        }
        text.push_str("\r\n\r\n");
        text.into_bytes()
    }

    /// Reads a packet; unknown headers are passed over.
    pub fn decode(packet: &[u8]) -> Result<Self, LsdError> {
        if packet.len() > MAX_PACKET_LEN {
            return Err(LsdError::TooLong(packet.len()));
        }
        if let Some(at) = packet.iter().position(|b| !b.is_ascii()) {
            return Err(LsdError::NotAscii(at));
        }
        let text = str::from_utf8(packet).map_err(|e| LsdError::NotAscii(e.valid_up_to()))?;
        let mut lines = text.lines().zip(1..);
        let first = lines.next().map(|(line, _)| line.trim_end());
        if first.is_none_or(|line| !line.eq_ignore_ascii_case("BT-SEARCH * HTTP/1.1")) {
            return Err(LsdError::NotSearch);
        }
        let mut port = None;
        let mut announce = Self::default();
        for (text, line) in lines {
            if text.trim().is_empty() {
                break;
            }
            let bad = |what| LsdError::BadHeader { line, what };
            let (name, value) = text.split_once(':').ok_or(bad("header"))?;
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "port" => {
                    let number = value.parse().ok().filter(|p| *p != 0);
                    port = Some(number.ok_or(bad("Port"))?);
                }
                "infohash" => {
                    let hash: InfoHash = value.parse().map_err(|_| bad("Infohash"))?;
                    if !announce.info_hashes.contains(&hash) {
                        announce.info_hashes.push(hash);
                    }
                }
                "cookie" if value.len() <= MAX_COOKIE_LEN => {
                    announce.cookie = Some(value.to_owned());
                }
                "cookie" => return Err(bad("cookie")),
                _ => {}
            }
        }
        announce.port = port.ok_or(LsdError::Missing("Port"))?;
        if announce.info_hashes.is_empty() {
            return Err(LsdError::Missing("Infohash"));
        }
        Ok(announce)
    }
}

/// The torrents that take part in local discovery, and when each was announced.
#[derive(Debug)]
pub struct Lsd {
    port: u16,
    cookie: String,
    /// When each torrent is due.
    due: BTreeMap<InfoHash, Time>,
    /// When each of the next packets may go: a bucket of [`BURST`].
    paid_until: Time,
    /// The second being counted, and packets heard in it.
    heard: (u64, u32),
}

impl Lsd {
    /// Announces torrents as being at the TCP port `port`.
    pub fn new(port: u16, rng: &mut Rng) -> Self {
        Self {
            port,
            cookie: format!("shoal-{:016x}", rng.next_u64()),
            due: BTreeMap::new(),
            paid_until: Time::ZERO,
            heard: (0, 0),
        }
    }

    /// Takes up a torrent, which must not be private (BEP 27); it is announced at once.
    pub fn add(&mut self, now: Time, info_hash: InfoHash) {
        self.due.entry(info_hash).or_insert(now);
    }

    /// Drops a torrent.
    pub fn remove(&mut self, info_hash: &InfoHash) {
        self.due.remove(info_hash);
    }

    /// When [`Lsd::poll`] next has something to send.
    pub fn deadline(&self) -> Option<Time> {
        let due = self.due.values().min()?;
        Some((*due).max(self.may_send_at()))
    }

    /// What to send to both groups now, if anything is due. To be called until it gives none.
    pub fn poll(&mut self, now: Time) -> Option<LsdAnnounce> {
        if self.deadline().is_none_or(|at| at > now) {
            return None;
        }
        let mut due: Vec<_> = self
            .due
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(hash, at)| (*at, *hash))
            .collect();
        // Whoever waited longest goes first, so that many torrents take turns.
        due.sort_unstable();
        let info_hashes: Vec<_> = due.into_iter().map(|(_, h)| h).take(MAX_HASHES).collect();
        for hash in &info_hashes {
            self.due.insert(*hash, now + INTERVAL);
        }
        self.paid_until = self.paid_until.max(now) + PACKET_EVERY;
        Some(LsdAnnounce {
            port: self.port,
            info_hashes,
            cookie: Some(self.cookie.clone()),
        })
    }

    fn may_send_at(&self) -> Time {
        let credit = PACKET_EVERY * (BURST as u32 - 1);
        Time::ZERO + self.paid_until.since(Time::ZERO + credit)
    }

    /// Reads a packet that came from `from`: the torrents of ours that the sender takes part in,
    /// and where it listens. Empty for our own announces, for senders not on the local network,
    /// and when packets come too fast.
    pub fn on_packet(
        &mut self,
        now: Time,
        from: SocketAddr,
        packet: &[u8],
    ) -> Result<Vec<(InfoHash, SocketAddr)>, LsdError> {
        let second = now.as_micros() / 1_000_000;
        if self.heard.0 != second {
            self.heard = (second, 0);
        }
        self.heard.1 = self.heard.1.saturating_add(1);
        if self.heard.1 > MAX_HEARD_PER_S || !is_local(from.ip()) {
            return Ok(Vec::new());
        }
        let announce = LsdAnnounce::decode(packet)?;
        // The scope of a link-local address is kept: it cannot be dialled without.
        let mut addr = from;
        addr.set_port(announce.port);
        if announce.cookie.as_ref() == Some(&self.cookie) || !is_dialable(addr) {
            return Ok(Vec::new());
        }
        let ours = announce.info_hashes.into_iter();
        Ok(ours
            .filter(|hash| self.due.contains_key(hash))
            .map(|hash| (hash, addr))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shoal_base::Rng;

    fn hash(n: u8) -> InfoHash {
        InfoHash([n; 20])
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            port in 1u16..,
            hashes in prop::collection::btree_set(any::<[u8; 20]>(), 1..=MAX_HASHES),
            cookie in prop::option::of("[a-z0-9]{1,30}"),
            v6 in any::<bool>(),
        ) {
            let info_hashes = hashes.into_iter().map(InfoHash).collect();
            let sent = LsdAnnounce { port, info_hashes, cookie };
            let packet = sent.encode(v6);
            prop_assert!(packet.len() <= MAX_PACKET_LEN);
            prop_assert_eq!(LsdAnnounce::decode(&packet), Ok(sent));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            head in prop::sample::select(vec!["", "BT-SEARCH * HTTP/1.1\r\n", "BT-SEARCH * HTTP/1.1\nPort:"]),
            tail in prop::collection::vec(any::<u8>(), 0..100),
            text in "[ -~\r\n]{0,80}",
        ) {
            let _ = LsdAnnounce::decode(&[head.as_bytes(), &tail].concat());
            let _ = LsdAnnounce::decode(&[head.as_bytes(), text.as_bytes()].concat());
        }

        #[test]
        fn announces_are_spaced_and_every_torrent_has_its_turn(torrents in 1u8..80) {
            let mut lsd = Lsd::new(6881, &mut Rng::from_seed(1));
            (0..torrents).for_each(|n| lsd.add(Time::ZERO, hash(n)));
            let (mut sent, mut seen) = (0, BTreeMap::new());
            while let Some(now) = lsd.deadline().filter(|at| *at <= Time::from_secs(3600)) {
                let announce = lsd.poll(now).expect("the deadline was kept");
                prop_assert!(announce.encode(true).len() <= MAX_PACKET_LEN);
                for hash in announce.info_hashes {
                    let before = seen.insert(hash, now);
                    prop_assert!(before.is_none_or(|at| now - at >= INTERVAL));
                }
                sent += 1;
                prop_assert!(sent <= BURST + now.as_micros() / 60_000_000);
            }
            prop_assert_eq!(seen.len(), usize::from(torrents));
            prop_assert!(seen.values().all(|at| *at > Time::from_secs(3600 - 700)));
        }
    }

    #[test]
    fn an_announce_looks_as_specified() {
        let announce = LsdAnnounce {
            port: 6881,
            info_hashes: vec![hash(0xab)],
            cookie: Some("x".to_owned()),
        };
        let text = String::from_utf8(announce.encode(false)).unwrap();
        let want = format!(
            "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\n\
             Infohash: {}\r\ncookie: x\r\n\r\n\r\n",
            "ab".repeat(20)
        );
        assert_eq!(text, want);
        let text = String::from_utf8(announce.encode(true)).unwrap();
        assert!(text.contains("Host: [ff15::efc0:988f]:6771\r\n"));
    }

    #[test]
    fn bad_packets_are_named() {
        let error = |packet: &[u8]| LsdAnnounce::decode(packet).unwrap_err().to_string();
        assert_eq!(error(b"GET / HTTP/1.1\r\n"), "not a BT-SEARCH request");
        assert_eq!(error(b""), "not a BT-SEARCH request");
        assert_eq!(error(&[b'a'; 1401]), "packet of 1401 bytes is too long");
        assert_eq!(error(b"BT\xff"), "byte 2 is not ASCII");
        let head = "BT-SEARCH * HTTP/1.1\r\n";
        for (rest, want) in [
            ("Port: 0\r\n", "bad Port in line 2"),
            ("Port: 99999\r\n", "bad Port in line 2"),
            ("Host: x\r\nInfohash: 12\r\n", "bad Infohash in line 3"),
            ("nonsense\r\n", "bad header in line 2"),
            ("Port: 1\r\n", "no Infohash header"),
            ("X: 1\r\n", "no Port header"),
        ] {
            assert_eq!(error(format!("{head}{rest}").as_bytes()), want);
        }
    }

    #[test]
    fn only_others_on_the_local_network_are_heeded() {
        let mut lsd = Lsd::new(6881, &mut Rng::from_seed(1));
        let mut other = Lsd::new(7000, &mut Rng::from_seed(2));
        let now = Time::from_secs(1);
        for n in 0..3 {
            lsd.add(now, hash(n));
            other.add(now, hash(n + 2));
        }
        let mut hear =
            |from: &str, packet: &[u8]| lsd.on_packet(now, from.parse().unwrap(), packet).unwrap();
        let theirs = other.poll(now).unwrap().encode(false);
        let local = hear("192.168.1.9:6771", &theirs);
        assert_eq!(local, [(hash(2), "192.168.1.9:7000".parse().unwrap())]);
        let scoped = hear("[fe80::1%3]:6771", &theirs);
        assert_eq!(scoped, [(hash(2), "[fe80::1%3]:7000".parse().unwrap())]);
        assert_eq!(hear("8.8.8.8:6771", &theirs), []);
        let ours = lsd.poll(now).unwrap().encode(false);
        let from = "192.168.1.9:6771".parse().unwrap();
        assert_eq!(lsd.on_packet(now, from, &ours), Ok(vec![]));
    }

    #[test]
    fn a_storm_is_not_heeded() {
        let mut lsd = Lsd::new(6881, &mut Rng::from_seed(1));
        lsd.add(Time::ZERO, hash(1));
        let packet = LsdAnnounce {
            port: 5,
            info_hashes: vec![hash(1)],
            cookie: None,
        };
        let (packet, from) = (packet.encode(false), "10.0.0.1:6771".parse().unwrap());
        let mut heard = |now| lsd.on_packet(now, from, &packet).unwrap().len();
        let total: usize = (0..500).map(|_| heard(Time::from_secs(1))).sum();
        assert_eq!(total, 50);
        assert_eq!(heard(Time::from_secs(2)), 1);
    }
}
