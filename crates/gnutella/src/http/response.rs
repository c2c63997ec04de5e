//! Answers: what a server says, and how we say it.

use std::fmt::{Display, Write as _};
use std::net::SocketAddr;
use std::ops::Range;

use super::head::{HeadError, read_response};
use super::locations::PushLocation;
use super::queue::{LegacyQueued, Queued};
use super::ranges::{RangeSet, read_content_range, read_unsatisfied};
use super::request::{keep_alive, locations, pushed, urns};
use super::target::{read_thex_uri, unescape};
use crate::huge::{TigerRoot, Urn};

/// An answer as a downloader understands it. Fields that make no sense are as if absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Such as 206.
    pub status: u16,
    /// For people.
    pub reason: String,
    /// Who answers.
    pub server: String,
    /// Whether the connection stays open.
    pub keep_alive: bool,
    /// Bytes of the body.
    pub content_len: Option<u64>,
    /// Whether the body comes in chunks.
    pub chunked: bool,
    /// Whether the body is packed.
    pub packed: bool,
    /// Which bytes the body is, and of how many.
    pub content_range: Option<(Range<u64>, Option<u64>)>,
    /// How long the file is of which nothing comes.
    pub unsatisfied: Option<u64>,
    /// What the file is.
    pub urns: Vec<Urn>,
    /// Our place in its queue.
    pub queued: Option<Queued>,
    /// Our place by the older protocol.
    pub legacy: Option<LegacyQueued>,
    /// Seconds for which to leave it alone.
    pub retry_after: Option<u64>,
    /// What it has of the file, if not all.
    pub available: Option<RangeSet>,
    /// Where the hash tree is, and its root.
    pub tree: Option<(String, TigerRoot)>,
    /// Who else has the file.
    pub alternates: Vec<SocketAddr>,
    /// Those of them that are said to speak TLS.
    pub tls: Vec<SocketAddr>,
    /// Whether the host itself says that it does.
    pub speaks_tls: bool,
    /// Whether the connection changes to TLS behind this head (RFC 2817 §3.3).
    pub upgrades: bool,
    /// Who does not.
    pub dead: Vec<SocketAddr>,
    /// Who has it behind a firewall.
    pub pushed: Vec<PushLocation>,
    /// The file's name: data, not a path.
    pub name: Option<String>,
}

impl Response {
    /// Reads a whole head.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn read(head: &[u8]) -> Result<Self, HeadError> {
        let head = read_response(head)?;
        let fields = &head.fields;
        let mut ranges = fields.all("x-available-ranges").map(RangeSet::read);
        let first = ranges.next();
        let available = first.map(|first| {
            let rest: Vec<_> = ranges.collect();
            let all = first.iter().chain(rest.iter().flat_map(RangeSet::iter));
            all.collect()
        });
        let (alternates, tls) = locations(fields, "x-alt");
        let plain = |name: &str| {
            let value = fields.get(name).unwrap_or("identity");
            value.trim().eq_ignore_ascii_case("identity")
        };
        Ok(Self {
            status: head.status,
            keep_alive: keep_alive(head.is_1_1, fields),
            server: fields
                .get("server")
                .or(fields.get("user-agent"))
                .unwrap_or_default()
                .to_owned(),
            content_len: fields.number("content-length"),
            chunked: !plain("transfer-encoding"),
            packed: !plain("content-encoding"),
            content_range: fields.get("content-range").and_then(read_content_range),
            unsatisfied: fields.get("content-range").and_then(read_unsatisfied),
            urns: urns(fields),
            queued: fields.get("x-queued").and_then(Queued::read),
            legacy: LegacyQueued::read(fields),
            retry_after: fields.number("retry-after"),
            available,
            tree: fields.get("x-thex-uri").and_then(read_thex_uri),
            alternates,
            tls,
            speaks_tls: fields.list("x-features").any(|f| f.starts_with("tls/")),
            upgrades: head.status == 101
                && fields.lists("connection", "upgrade")
                && fields.lists("upgrade", "TLS/1.0"),
            dead: locations(fields, "x-nalt").0,
            pushed: pushed(fields),
            name: fields.get("content-disposition").and_then(read_disposition),
            reason: head.reason,
        })
    }
}

/// Writes the head of an answer.
#[derive(Debug)]
pub(super) struct HeadWriter(String);

impl HeadWriter {
    pub(super) fn new(status: u16, agent: &str) -> Self {
        let mut head = Self(format!("HTTP/1.1 {status} {}\r\n", reason(status)));
        head.field("Server", agent);
        head
    }

    pub(super) fn field(&mut self, name: &str, value: impl Display) {
        // A string takes what is written.
        let _ = write!(self.0, "{name}: {value}\r\n");
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.push_str("\r\n");
        self.0.into_bytes()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        202 => "Accepted",
        206 => "Partial Content",
        400 => "Bad Request",
        403 => "Browse Host Disabled",
        404 => "Not Found",
        406 => "Not Acceptable",
        410 => "Gone",
        413 => "Content Too Large",
        416 => "Requested Range Not Available",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        _ => "Busy",
    }
}

/// A file's name as `Content-Disposition` takes it (RFC 6266): plain characters, and the whole of
/// it in UTF-8 behind them if there are others.
pub(super) fn disposition(name: &str) -> String {
    let plain = |c: char| c == ' ' || c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    let short: String = name.chars().take(200).collect();
    let ascii: String = short
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .collect();
    let mut text = format!("inline; filename=\"{ascii}\"");
    if ascii != short {
        text.push_str("; filename*=UTF-8''");
        for byte in short.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                text.push(char::from(byte));
            } else {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

/// The name in a `Content-Disposition`: that in UTF-8, if there is one.
fn read_disposition(text: &str) -> Option<String> {
    let (mut plain, mut full) = (None, None);
    for part in text.split(';') {
        let Some((name, value)) = part.split_once('=') else {
            continue;
        };
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "filename" => plain = Some(value.trim_matches('"').to_owned()),
            "filename*" => {
                full = value
                    .split_once("''")
                    .map(|(_, name)| String::from_utf8_lossy(&unescape(name)).into_owned());
            }
            _ => {}
        }
    }
    full.or(plain).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_partial_answer_is_understood() {
        let sha1 = shoal_base::base32::encode(&[7; 20]);
        let root = shoal_base::base32::encode(&[9; 24]);
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nServer: gtk-gnutella/1.2.3\r\n\
             Content-Range: bytes 0-524287/3000000\r\nContent-Length: 524288\r\n\
             X-Gnutella-Content-URN: urn:sha1:{sha1}\r\n\
             X-Thex-URI: /uri-res/N2X?urn:sha1:{sha1};{root}\r\n\
             X-Alt: 44.20.3.1, 1.2.3.4:5\r\nX-Available-Ranges: bytes 0-9,\r\n 20-29\r\n\r\n"
        );
        let answer = Response::read(head.as_bytes()).expect("an answer");
        assert_eq!(answer.content_range, Some((0..524_288, Some(3_000_000))));
        assert_eq!(answer.alternates.len(), 2);
        assert_eq!(answer.available.map(|r| r.bytes()), Some(20));
        assert_eq!(answer.tree.map(|t| t.1), Some(TigerRoot([9; 24])));
        assert!(answer.keep_alive && !answer.packed && !answer.chunked);
    }

    #[test]
    fn names_stand_in_a_field_whatever_they_are() {
        assert_eq!(disposition("a b.mp3"), "inline; filename=\"a b.mp3\"");
        assert_eq!(
            disposition("ü\"\r\n"),
            "inline; filename=\"____\"; filename*=UTF-8''%C3%BC%22%0D%0A"
        );
    }

    proptest! {
        #[test]
        fn names_that_are_written_are_read(name in "[^;\\p{Cc}]{1,40}") {
            let name = name.trim().trim_matches('"');
            let read = read_disposition(&disposition(name));
            prop_assert_eq!(read.unwrap_or_default(), name);
        }

        #[test]
        fn any_answer_is_read_or_refused(text in "HTTP/1\\.[01] [0-9]{3} [A-Z]*\r\n((X-Alt|X-Queued|Content-Range|X-Thex-URI|Retry-After|Content-Length): [ -~]{0,40}\r\n){0,4}\r\n") {
            prop_assert!(Response::read(text.as_bytes()).is_ok());
        }
    }
}
