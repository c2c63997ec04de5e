//! One HTTP connection: requests are cut out of what was read, answered in order, kept alive.

use super::report;
use super::service::Desk;
use super::stats::{add, count};
use shoal_base::Time;
use shoal_bittorrent::tracker::http_reply::encode_failure;
use shoal_bittorrent::tracker::http_request::{self, HttpRequest, HttpRequestError};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::time::Duration;

/// Bytes of a request's head. A scrape of a hundred torrents has 7 kB.
const MAX_HEAD: usize = 8192;
/// Header fields of a request.
const MAX_FIELDS: usize = 64;
/// Replies that wait for a slow reader; then no more requests are read.
const MAX_PENDING: usize = 64 * 1024;
/// Reads in a row before other connections get their turn.
const MAX_TURNS: usize = 8;
/// For the rest of a request once it began, and for a reader to take its reply.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// For the next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// What is to become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It waits for its peer to send.
    Reading,
    /// It waits for its peer to read.
    Writing,
    /// Its turn is over, but there may be more to do at once.
    Busy,
    /// It is over.
    Closed,
}

/// A connection's state, over any stream that does not block.
pub(super) struct Connection<S> {
    pub(super) stream: S,
    peer: IpAddr,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    /// Closed once everything is written.
    last: bool,
    deadline: Time,
}

impl<S: Read + Write> Connection<S> {
    pub(super) fn new(stream: S, peer: IpAddr, now: Time) -> Self {
        Self {
            stream,
            peer: peer.to_canonical(),
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            last: false,
            deadline: now + BUSY_TIMEOUT,
        }
    }

    /// When it is to be closed if nothing moves.
    pub(super) fn deadline(&self) -> Time {
        self.deadline
    }

    /// Reads, answers and writes until it would block. `buf` is the worker's, for reading.
    pub(super) fn advance(&mut self, now: Time, desk: &mut Desk, buf: &mut [u8]) -> Fate {
        for _ in 0..MAX_TURNS {
            match self.flush() {
                Ok(true) if self.last => return Fate::Closed,
                Ok(true) => {}
                Ok(false) => return Fate::Writing,
                Err(_) => return Fate::Closed,
            }
            match self.stream.read(buf) {
                Ok(0) => return Fate::Closed,
                Ok(n) => {
                    add(&desk.counters.bytes_in, n as u64);
                    self.take(now, desk, buf.get(..n).unwrap_or_default());
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Fate::Reading,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Fate::Closed,
            }
        }
        Fate::Busy
    }

    /// Writes what is pending; whether all of it went.
    fn flush(&mut self) -> io::Result<bool> {
        while let Some(rest @ [_, ..]) = self.output.get(self.written..) {
            match self.stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.output.clear();
        self.written = 0;
        // An idle connection keeps no large buffers.
        self.output.shrink_to(1024);
        Ok(true)
    }

    /// Answers every complete request in what is left of before and `data`.
    fn take(&mut self, now: Time, desk: &mut Desk, data: &[u8]) {
        let pending = self.output.len();
        let was_empty = self.input.is_empty();
        let joined;
        let mut rest = if was_empty {
            data
        } else {
            self.input.extend_from_slice(data);
            joined = std::mem::take(&mut self.input);
            joined.as_slice()
        };
        let before = rest.len();
        while !rest.is_empty() && !self.last {
            match self.request(now, desk, rest) {
                Some(used) => rest = rest.get(used..).unwrap_or_default(),
                None => break,
            }
        }
        if self.last {
            rest = &[];
        }
        self.input = rest.to_vec();
        add(
            &desk.counters.bytes_out,
            (self.output.len() - pending) as u64,
        );
        // A request that trickles in gets no more time than one that came at once.
        if rest.is_empty() {
            self.deadline = now + IDLE_TIMEOUT;
        } else if was_empty || rest.len() < before {
            self.deadline = now + BUSY_TIMEOUT;
        }
        if !self.output.is_empty() {
            self.deadline = now + BUSY_TIMEOUT.max(IDLE_TIMEOUT);
        }
    }

    /// Answers the request at the front of `input`; gives its length, or none if it is not whole.
    fn request(&mut self, now: Time, desk: &mut Desk, input: &[u8]) -> Option<usize> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut head = httparse::Request::new(&mut fields);
        let used = match head.parse(input) {
            Ok(httparse::Status::Complete(used)) if used <= MAX_HEAD => used,
            Ok(httparse::Status::Partial) if input.len() < MAX_HEAD => return None,
            Ok(_) | Err(httparse::Error::TooManyHeaders) => {
                count(&desk.counters.malformed);
                self.reply("431 Request Header Fields Too Large", false, |_| ());
                return Some(input.len());
            }
            Err(_) => {
                count(&desk.counters.malformed);
                self.reply("400 Bad Request", false, |_| ());
                return Some(input.len());
            }
        };
        let field = |name: &str| {
            let found = head.headers.iter().rev();
            let mut found = found.filter(|h| h.name.eq_ignore_ascii_case(name));
            found.next().map(|h| h.value)
        };
        // A body would be taken for the next request: such a connection ends here.
        let body = field("content-length").is_some_and(|v| v.trim_ascii() != b"0")
            || field("transfer-encoding").is_some();
        let says = |what: &[u8]| {
            field("connection").is_some_and(|v| v.trim_ascii().eq_ignore_ascii_case(what))
        };
        let keep = !body
            && match head.version {
                Some(1) => !says(b"close"),
                _ => says(b"keep-alive"),
            };
        let trusted = desk.service().config.trusted_proxies.contains(&self.peer);
        let asker = field("x-forwarded-for")
            .filter(|_| trusted)
            .and_then(forwarded)
            .unwrap_or(self.peer);
        let target = head.path.unwrap_or_default().as_bytes();
        if !matches!(head.method, Some("GET")) {
            count(&desk.counters.malformed);
            self.reply("405 Method Not Allowed", false, |_| ());
        } else if !desk.within_rate(now, asker) {
            self.reply("429 Too Many Requests", false, |_| ());
        } else {
            self.respond(now, desk, target, asker, keep);
        }
        if self.output.len() > MAX_PENDING {
            // Nobody pipelines this much and does not read.
            self.last = true;
        }
        Some(used)
    }

    fn respond(&mut self, now: Time, desk: &mut Desk, target: &[u8], ip: IpAddr, keep: bool) {
        const OK: &str = "200 OK";
        match http_request::decode(target) {
            Ok(HttpRequest::Announce { announce, compact }) => {
                self.reply(OK, keep, |out| {
                    desk.http_announce(now, ip, &announce, compact, out);
                });
            }
            Ok(HttpRequest::Scrape(hashes)) if hashes.is_empty() => {
                // BEP 48 allows a scrape of everything; it would be megabytes.
                self.reply(OK, keep, |out| {
                    encode_failure("name a torrent to scrape", out);
                });
                count(&desk.counters.refused);
            }
            Ok(HttpRequest::Scrape(hashes)) => {
                self.reply(OK, keep, |out| desk.http_scrape(ip, &hashes, out));
            }
            Err(HttpRequestError::UnknownPath) => {
                let service = desk.service();
                let shown = service.config.public_stats || ip.is_loopback();
                let path = target.split(|b| *b == b'?').next().unwrap_or_default();
                let report = match path {
                    b"/stats" if shown => Some(report::json(&service.stats())),
                    b"/metrics" if shown => Some(report::metrics(&service.stats())),
                    _ => None,
                };
                match report {
                    Some(text) => {
                        self.reply(OK, keep, |out| out.extend_from_slice(text.as_bytes()));
                    }
                    None => self.reply("404 Not Found", keep, |_| ()),
                }
            }
            Err(error) => {
                // Clients show the reason of a bencoded failure, and no status line.
                self.reply(OK, keep, |out| encode_failure(&error.to_string(), out));
                count(&desk.counters.malformed);
            }
        }
    }

    /// Appends a reply with the body that `body` writes.
    fn reply(&mut self, status: &str, keep: bool, body: impl FnOnce(&mut Vec<u8>)) {
        self.last |= !keep;
        let out = &mut self.output;
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status.as_bytes());
        out.extend_from_slice(if keep {
            b"\r\nContent-Type: text/plain\r\nContent-Length: ".as_slice()
        } else {
            b"\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: ".as_slice()
        });
        // The length comes before the body and is known after it: five digits, room made ahead.
        let length_at = out.len();
        out.extend_from_slice(b"00000\r\n\r\n");
        let body_at = out.len();
        body(out);
        let mut length = out.len() - body_at;
        for slot in out.iter_mut().skip(length_at).take(5).rev() {
            *slot = b'0' + (length % 10) as u8;
            length /= 10;
        }
    }
}

/// The client that the nearest proxy saw: the last of the addresses.
fn forwarded(value: &[u8]) -> Option<IpAddr> {
    let last = value.rsplit(|b| *b == b',').next()?.trim_ascii();
    let ip: IpAddr = std::str::from_utf8(last).ok()?.parse().ok()?;
    Some(ip.to_canonical())
}
