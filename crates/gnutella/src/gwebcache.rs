//! GWebCaches: lists of hosts and of other caches, kept by web servers (GWebCache 1.x and 2).
//!
//! The client's requests and answers, and what a server keeps and answers. HTTP itself is the
//! driver's.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use shoal_base::Time;

/// Hosts that a server keeps and hands out.
pub const MAX_HOSTS: usize = 20;
/// Caches that a server keeps and hands out.
pub const MAX_CACHES: usize = 10;
/// Bytes of an answer that are read at most.
pub const MAX_ANSWER: usize = 16 << 10;
/// Bytes of a cache's URL at most.
const MAX_URL: usize = 200;
/// How often one address may update, and a client should (once an hour).
pub const UPDATE_EVERY: Duration = Duration::from_secs(3600);
/// How long a host is handed out.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// Addresses whose updates are remembered.
const MAX_UPDATERS: usize = 4096;

/// What a client asks: the part of the URL behind the question mark.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// Whether the server lives (`ping=1`).
    pub ping: bool,
    /// Hosts and caches, by the second version's one request (`get=1`), or `hostfile=1`.
    pub hosts: bool,
    /// Caches (`get=1`, or `urlfile=1`).
    pub caches: bool,
    /// Asked by the second version: lines begin with a letter.
    pub second: bool,
    /// The client's own address, to be told to others (`ip=`).
    pub ip: Option<SocketAddrV4>,
    /// A cache that the client found alive (`url=`).
    pub url: Option<String>,
}

/// The query string of a request for hosts and caches, which also tells of ourselves if `ip` is
/// given.
pub fn get(vendor: &str, version: &str, ip: Option<SocketAddrV4>) -> String {
    let mut text = format!("get=1&net=gnutella&client={vendor}&version={version}");
    if let Some(ip) = ip {
        // Writing to a string cannot fail.
        let _ = write!(text, "&update=1&ip={ip}");
    }
    text
}

impl Request {
    /// Reads a query string. Unknown parameters are passed over.
    pub fn read(query: &str) -> Self {
        let mut request = Self::default();
        for part in query.split('&').take(32) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let said = value == "1";
            match name {
                "ping" => request.ping |= said,
                "get" if said => {
                    (request.hosts, request.caches, request.second) = (true, true, true);
                }
                "hostfile" => request.hosts |= said,
                "urlfile" => request.caches |= said,
                "update" => request.second |= said,
                "ip" | "ip1" => request.ip = unescape(value).and_then(|v| v.parse().ok()),
                "url" | "url1" => request.url = unescape(value).filter(|u| is_cache(u)),
                _ => {}
            }
        }
        request
    }
}

/// Undoes percent-encoding.
fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digit = |b: u8| char::from(b).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                (high << 4 | low) as u8
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

/// Whether a text can be a cache's URL: of the web, short, and printable.
fn is_cache(url: &str) -> bool {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let host = rest.and_then(|rest| rest.split('/').next());
    url.len() <= MAX_URL
        && url.bytes().all(|b| b.is_ascii_graphic())
        && host.is_some_and(|host| host.contains('.'))
}

/// What a cache answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Hosts.
    pub hosts: Vec<SocketAddrV4>,
    /// Other caches.
    pub caches: Vec<String>,
    /// What the server complains of.
    pub error: Option<String>,
}

/// Reads an answer of either version; lines that make no sense are passed over.
pub fn read_answer(body: &[u8]) -> Answer {
    let body = body.get(..MAX_ANSWER).unwrap_or(body);
    let text = String::from_utf8_lossy(body);
    let mut answer = Answer::default();
    for line in text.lines().map(str::trim) {
        // `H|host:port|age`, `U|url|age`, `I|…`; the first version has bare lines.
        let mut parts = line.split('|');
        let first = parts.next().unwrap_or_default();
        let value = match first {
            "H" | "h" | "U" | "u" => parts.next().unwrap_or_default(),
            "I" | "i" => continue,
            _ if first.starts_with("ERROR") => {
                answer.error = Some(first.chars().take(MAX_URL).collect());
                continue;
            }
            _ => first,
        };
        if let Ok(host) = value.parse()
            && answer.hosts.len() < 10 * MAX_HOSTS
        {
            answer.hosts.push(host);
        } else if is_cache(value) && answer.caches.len() < 10 * MAX_CACHES {
            answer.caches.push(value.to_owned());
        }
    }
    answer
}

/// A cache that others ask.
#[derive(Debug, Default)]
pub struct Server {
    hosts: VecDeque<(SocketAddrV4, Time)>,
    caches: VecDeque<(String, Time)>,
    updates: BTreeMap<Ipv4Addr, Time>,
    name: String,
}

impl Server {
    /// A cache that calls itself `name`.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Answers the request of somebody at `from`: the body of a page of plain text. A host can only
    /// tell of itself, once an hour.
    pub fn answer(&mut self, now: Time, from: Ipv4Addr, request: &Request) -> String {
        let mut body = String::new();
        // Writing to a string cannot fail.
        if request.ping {
            let _ = match request.second {
                true => writeln!(body, "I|pong|{}|gnutella", self.name),
                false => writeln!(body, "PONG {}", self.name),
            };
        }
        if request.ip.is_some() || request.url.is_some() {
            let done = self.update(now, from, request);
            let _ = match (request.second, done) {
                (true, Ok(())) => writeln!(body, "I|update|OK"),
                (true, Err(why)) => writeln!(body, "I|update|WARNING|{why}"),
                (false, Ok(())) => writeln!(body, "OK"),
                (false, Err(why)) => writeln!(body, "OK\nWARNING: {why}"),
            };
        }
        if request.hosts {
            self.hosts.retain(|(_, at)| now.since(*at) < FRESH);
            for (host, at) in &self.hosts {
                let _ = match request.second {
                    true => writeln!(body, "H|{host}|{}", now.since(*at).as_secs()),
                    false => writeln!(body, "{host}"),
                };
            }
        }
        if request.caches {
            for (url, at) in &self.caches {
                let _ = match request.second {
                    true => writeln!(body, "U|{url}|{}", now.since(*at).as_secs()),
                    false => writeln!(body, "{url}"),
                };
            }
        }
        if body.is_empty() {
            body.push_str("ERROR: nothing was asked\n");
        }
        body
    }

    fn update(&mut self, now: Time, from: Ipv4Addr, r: &Request) -> Result<(), &'static str> {
        let last = self.updates.get(&from);
        if last.is_some_and(|last| now.since(*last) < UPDATE_EVERY) {
            return Err("You came back too early");
        }
        if let Some(ip) = r.ip
            && (*ip.ip() != from || ip.port() == 0)
        {
            return Err("Rejected IP");
        }
        if self.updates.len() >= MAX_UPDATERS {
            self.updates.retain(|_, at| now.since(*at) < UPDATE_EVERY);
            if self.updates.len() >= MAX_UPDATERS {
                return Err("Too busy");
            }
        }
        self.updates.insert(from, now);
        if let Some(ip) = r.ip {
            self.hosts.retain(|(host, _)| *host != ip);
            self.hosts.push_front((ip, now));
            self.hosts.truncate(MAX_HOSTS);
        }
        if let Some(url) = &r.url {
            self.caches.retain(|(known, _)| known != url);
            self.caches.push_front((url.clone(), now));
            self.caches.truncate(MAX_CACHES);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, proptest};

    fn host(n: u8) -> SocketAddrV4 {
        SocketAddrV4::new([44, 20, n, 1].into(), 6346)
    }

    #[test]
    fn what_a_client_tells_another_gets() {
        let mut server = Server::new("shoal");
        let mut now = Time::from_secs(1);
        for n in 0..40 {
            now += Duration::from_secs(1);
            let request = Request::read(&get("SHOA", "0.1", Some(host(n))));
            let body = server.answer(now, *host(n).ip(), &request);
            assert!(body.starts_with("I|update|OK\n"), "{body}");
        }
        let url = Request::read("update=1&url=http%3a%2f%2fcache.example.org%2fgwc.php");
        server.answer(now, [44, 20, 99, 1].into(), &url);
        for query in ["get=1&net=gnutella", "hostfile=1"] {
            let body = server.answer(now, *host(50).ip(), &Request::read(query));
            let answer = read_answer(body.as_bytes());
            assert_eq!(answer.hosts.len(), MAX_HOSTS);
            assert_eq!(answer.hosts.first(), Some(&host(39)));
        }
        let body = server.answer(now, *host(50).ip(), &Request::read("urlfile=1"));
        assert_eq!(body, "http://cache.example.org/gwc.php\n");
        now += FRESH;
        let body = server.answer(now, *host(50).ip(), &Request::read("hostfile=1"));
        assert!(read_answer(body.as_bytes()).hosts.is_empty());
    }

    #[test]
    fn nobody_tells_of_others_or_too_often() {
        let mut server = Server::new("shoal");
        let now = Time::from_secs(1);
        let of_another = Request::read("ip=44.20.7.1:6346");
        assert!(
            server
                .answer(now, *host(1).ip(), &of_another)
                .contains("Rejected IP")
        );
        let own = Request::read("ip=44.20.1.1:6346");
        assert_eq!(server.answer(now, *host(1).ip(), &own), "OK\n");
        let body = server.answer(now, *host(1).ip(), &own);
        assert!(body.contains("You came back too early"));
        let later = now + UPDATE_EVERY;
        assert_eq!(server.answer(later, *host(1).ip(), &own), "OK\n");
    }

    #[test]
    fn answers_of_both_versions_are_read() {
        let second =
            b"I|pong|Beacon 1|gnutella\nH|44.20.1.1:6346|20\r\nU|http://a.example/g|3\nx\n";
        let answer = read_answer(second);
        assert_eq!(answer.hosts, [host(1)]);
        assert_eq!(answer.caches, ["http://a.example/g"]);
        let answer = read_answer(b"44.20.1.1:6346\nhttp://a.example/g\nERROR: no\n");
        assert_eq!((answer.hosts.len(), answer.caches.len()), (1, 1));
        assert_eq!(answer.error.as_deref(), Some("ERROR: no"));
    }

    proptest! {
        #[test]
        fn arbitrary_requests_and_answers_are_read(query in "[a-z0-9=&%+.:/]{0,80}", body: Vec<u8>) {
            let request = Request::read(&query);
            let mut server = Server::new("s");
            let text = server.answer(Time::ZERO, [1, 2, 3, 4].into(), &request);
            prop_assert!(!text.is_empty());
            read_answer(&body);
        }
    }
}
