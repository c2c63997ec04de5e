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
