//! What the headers of a handshake say.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4, SocketAddrV6};

use super::HandshakeError;
use crate::overlay::{self, OnOverlay};

/// Headers of one group that are read at most.
const MAX_HEADERS: usize = 64;

/// Hosts to try that are read and sent at most.
pub const MAX_TRY: usize = 20;
/// Bytes of a program's name that are kept.
const MAX_AGENT: usize = 64;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Greeting {
    /// The program (User-Agent).
    pub agent: String,
    /// It is an ultrapeer (X-Ultrapeer).
    pub ultrapeer: Option<bool>,
    /// It wants more ultrapeers (X-Ultrapeer-Needed).
    pub needs_ultrapeers: Option<bool>,
    /// It takes query routing tables (X-Query-Routing).
    pub routes: bool,
    /// Its tables may be updated by entries of one bit (X-Query-Routing: 0.2).
    pub one_bit: bool,
    /// It exchanges tables with ultrapeers (X-Ultrapeer-Query-Routing).
    pub ultrapeer_routes: bool,
    /// It queries dynamically (X-Dynamic-Querying).
    pub dynamic: bool,
    /// Ultrapeers it keeps connections with (X-Degree).
    pub degree: Option<u8>,
    /// The highest TTL of a fresh query that it takes (X-Max-TTL).
    pub max_ttl: Option<u8>,
    /// It understands extensions (GGEP).
    pub ggep: bool,
    /// It understands vendor messages (Vendor-Message).
    pub vendor: bool,
    /// It says why it closes (Bye-Packet).
    pub bye: bool,
    /// It answers pings from a cache (Pong-Caching).
    pub pong_caching: bool,
    /// It can inflate what we send (Accept-Encoding).
    pub accepts_deflate: bool,
    /// It deflates what it sends (Content-Encoding).
    pub sends_deflate: bool,
    /// It would change to TLS (Upgrade).
    pub upgrade: bool,
    /// It does (Connection: Upgrade).
    pub agrees_upgrade: bool,
    /// Where it listens (Listen-IP, X-My-Address, Node).
    pub listen: Option<SocketAddrV4>,
    /// Our address, as it sees us (Remote-IP).
    pub remote: Option<Ipv4Addr>,
    /// Hosts to try (X-Try-Ultrapeers, X-Try).
    pub hosts: Vec<SocketAddrV4>,
    /// It can use overlay addresses (X-Shoal-Overlay): where it is on the overlay (X-Shoal-Address), and whom
    /// to try there (X-Shoal-Try), which it tells only once the other said the same.
    pub overlay: Option<OnOverlay>,
}

impl Greeting {
    /// Reads the headers of a group, its empty line included. Unknown ones are passed over.
    ///
    /// # Errors
    /// They are not headers, or too many.
    pub fn read(head: &[u8]) -> Result<Self, HandshakeError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let parsed = httparse::parse_headers(head, &mut headers);
        let headers = match parsed {
            Ok(httparse::Status::Complete((_, headers))) => headers,
            Err(httparse::Error::TooManyHeaders) => return Err(HandshakeError::TooLong),
            _ => return Err(HandshakeError::Headers),
        };
        let mut greeting = Self::default();
        for header in headers {
            let value = header.value.trim_ascii();
            let value = std::str::from_utf8(value).unwrap_or_default();
            greeting.learn(&header.name.to_ascii_lowercase(), value);
        }
        Ok(greeting)
    }

    fn learn(&mut self, name: &str, value: &str) {
        let lists = |word: &str| {
            let mut parts = value.split(',').map(str::trim);
            parts.any(|part| part.eq_ignore_ascii_case(word))
        };
        match name {
            "user-agent" => self.agent = value.chars().take(MAX_AGENT).collect(),
            "x-ultrapeer" => self.ultrapeer = boolean(value),
            "x-ultrapeer-needed" => self.needs_ultrapeers = boolean(value),
            "x-query-routing" => {
                self.routes = true;
                self.one_bit = version(value) >= (0, 2);
            }
            "x-ultrapeer-query-routing" => self.ultrapeer_routes = true,
            "x-dynamic-querying" => self.dynamic = true,
            "x-degree" => self.degree = value.parse().ok(),
            "x-max-ttl" => self.max_ttl = value.parse().ok(),
            "ggep" => self.ggep = true,
            "vendor-message" => self.vendor = true,
            "bye-packet" => self.bye = true,
            "pong-caching" => self.pong_caching = true,
            "accept-encoding" => self.accepts_deflate = lists("deflate"),
            "content-encoding" => self.sends_deflate = lists("deflate"),
            "upgrade" => {
                let mut parts = value.split(',').map(str::trim);
                self.upgrade = parts.any(|p| p.to_ascii_lowercase().starts_with("tls/"));
            }
            "connection" => self.agrees_upgrade = lists("upgrade"),
            "listen-ip" | "x-my-address" | "node" => {
                self.listen = value.parse().ok().or(self.listen);
            }
            "remote-ip" => self.remote = value.parse().ok(),
            "x-try-ultrapeers" | "x-try" => {
                let left = MAX_TRY.saturating_sub(self.hosts.len());
                self.hosts.extend(hosts(value).take(left));
            }
            "x-shoal-overlay" => {
                self.overlay.get_or_insert_default();
            }
            "x-shoal-address" => {
                let addr = places(value).next();
                let told = self.overlay.get_or_insert_default();
                told.addr = addr.or(told.addr);
            }
            "x-shoal-try" => {
                let told = self.overlay.get_or_insert_default();
                let left = overlay::MAX_TOLD.saturating_sub(told.hosts.len());
                told.hosts.extend(places(value).take(left));
            }
            _ => {}
        }
    }

    /// Writes the headers, without those that answer the other's and without the empty line.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut text = String::with_capacity(512);
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{name}: {value}\r\n");
        };
        line("User-Agent", &self.agent);
        let said = |flag| if flag { "True" } else { "False" };
        if let Some(ultrapeer) = self.ultrapeer {
            line("X-Ultrapeer", &said(ultrapeer));
        }
        if let Some(needed) = self.needs_ultrapeers {
            line("X-Ultrapeer-Needed", &said(needed));
        }
        if let Some(degree) = self.degree {
            line("X-Degree", &degree);
        }
        if let Some(ttl) = self.max_ttl {
            line("X-Max-TTL", &ttl);
        }
        let versions = [
            (
                self.routes,
                "X-Query-Routing",
                if self.one_bit { "0.2" } else { "0.1" },
            ),
            (self.ultrapeer_routes, "X-Ultrapeer-Query-Routing", "0.1"),
            (self.dynamic, "X-Dynamic-Querying", "0.1"),
            (self.ggep, "GGEP", "0.5"),
            (self.vendor, "Vendor-Message", "0.2"),
            (self.bye, "Bye-Packet", "0.1"),
            (self.pong_caching, "Pong-Caching", "0.1"),
            (self.accepts_deflate, "Accept-Encoding", "deflate"),
        ];
        for (_, name, value) in versions.iter().filter(|v| v.0) {
            line(name, value);
        }
        if let Some(listen) = self.listen {
            line("Listen-IP", &listen);
        }
        if let Some(remote) = self.remote {
            line("Remote-IP", &remote);
        }
        if self.overlay.is_some() {
            line("X-Shoal-Overlay", &"0.1");
        }
        out.extend_from_slice(text.as_bytes());
        write_hosts(&self.hosts, out);
    }

    /// Writes what only those are told who can use overlay addresses too.
    pub(super) fn write_overlay(&self, out: &mut Vec<u8>) {
        let Some(told) = &self.overlay else {
            return;
        };
        if let Some(addr) = told.addr {
            out.extend_from_slice(format!("X-Shoal-Address: {addr}\r\n").as_bytes());
        }
        write_places(&told.hosts, out);
    }

    /// Takes what the last group of headers adds.
    pub(super) fn complete(&mut self, last: Self) {
        self.sends_deflate |= last.sends_deflate;
        self.agrees_upgrade |= last.agrees_upgrade;
        if let (Some(told), Some(more)) = (&mut self.overlay, last.overlay) {
            told.addr = more.addr.or(told.addr);
            told.hosts.extend(more.hosts);
            told.hosts.truncate(overlay::MAX_TOLD);
        }
    }
}

pub(super) fn write_hosts(hosts: &[SocketAddrV4], out: &mut Vec<u8>) {
    if hosts.is_empty() {
        return;
    }
    let list: Vec<String> = hosts
        .iter()
        .take(MAX_TRY)
        .map(ToString::to_string)
        .collect();
    out.extend_from_slice(format!("X-Try-Ultrapeers: {}\r\n", list.join(",")).as_bytes());
}

pub(super) fn write_places(places: &[SocketAddrV6], out: &mut Vec<u8>) {
    if places.is_empty() {
        return;
    }
    let list = places.iter().take(overlay::MAX_TOLD);
    let list: Vec<String> = list.map(ToString::to_string).collect();
    out.extend_from_slice(format!("X-Shoal-Try: {}\r\n", list.join(",")).as_bytes());
}

fn boolean(value: &str) -> Option<bool> {
    if value.eq_ignore_ascii_case("true") {
        return Some(true);
    }
    value.eq_ignore_ascii_case("false").then_some(false)
}

fn version(value: &str) -> (u32, u32) {
    let (major, minor) = value.split_once('.').unwrap_or((value, "0"));
    let number = |text: &str| text.trim().parse().unwrap_or(0);
    (number(major), number(minor))
}

/// Addresses parted by commas; what follows an address behind a space (a time of last sight) is left
/// out.
fn hosts(value: &str) -> impl Iterator<Item = SocketAddrV4> + '_ {
    let parts = value.split(',').map(str::trim);
    parts.filter_map(|part| part.split(' ').next()?.parse().ok())
}

/// Overlay addresses parted by commas; others are left out.
fn places(value: &str) -> impl Iterator<Item = SocketAddrV6> + '_ {
    let parts = value.split(',').map(|part| part.trim().parse());
    parts.filter_map(Result::ok).filter(overlay::is_place)
}
