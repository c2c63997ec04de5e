//! Requests: what a downloader says, and how we say it.

use std::fmt::Write as _;
use std::net::{SocketAddr, SocketAddrV4};

use super::head::{Fields, HeadError, read_request};
use super::locations::{MAX_READ, PushLocation, read_location, read_locations, write_locations};
use super::queue::{Queued, Queueing};
use super::ranges::RangeSpec;
use super::target::Target;
use crate::guid::Guid;
use crate::huge::Urn;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The bytes.
    Get,
    /// The head alone.
    Head,
    /// Something that no servent asks.
    Other,
}

/// A request as a server understands it. Optional fields that make no sense are as if absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub method: Method,
    /// Of what.
    pub target: Target,
    /// Whether the connection stays open behind the answer.
    pub keep_alive: bool,
    /// Which bytes.
    pub range: Option<RangeSpec>,
    /// What the downloader believes the file to be.
    pub urns: Vec<Urn>,
    /// What it understands of queues.
    pub queueing: Queueing,
    /// The place it says it has.
    pub queued: Option<Queued>,
    /// Where it can be reached.
    pub node: Option<SocketAddr>,
    /// Who else has the file.
    pub alternates: Vec<SocketAddr>,
    /// Those of them that are said to speak TLS.
    pub tls: Vec<SocketAddr>,
    /// Who does not, or not any more.
    pub dead: Vec<SocketAddr>,
    /// Who has it behind a firewall.
    pub pushed: Vec<PushLocation>,
    /// Whether it understands `X-Falt`.
    pub wants_pushed: bool,
    /// Whether query hits are among what it takes.
    pub takes_hits: bool,
    /// Whether it would change to TLS before it is answered (RFC 2817 §3).
    pub upgrades: bool,
    /// Whether a body follows, which nobody sends.
    pub has_body: bool,
}

/// Addresses of a list field, a bounded number of them, and those that speak TLS.
pub(super) fn locations(fields: &Fields, name: &str) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    read_locations(fields.list(name))
}

pub(super) fn urns(fields: &Fields) -> Vec<Urn> {
    let items = fields.list("x-gnutella-content-urn");
    items
        .filter_map(|u| Urn::read(u.as_bytes()))
        .take(4)
        .collect()
}

/// Whether the connection stays open, as both ends say it (RFC 9112 §9.3).
pub(super) fn keep_alive(is_1_1: bool, fields: &Fields) -> bool {
    if fields.lists("connection", "close") {
        return false;
    }
    is_1_1 || fields.lists("connection", "keep-alive")
}

impl Request {
    /// Reads a whole head.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn read(head: &[u8]) -> Result<Self, HeadError> {
        let head = read_request(head)?;
        let fields = &head.fields;
        let node = ["x-node", "x-listen-ip", "listen-ip"];
        let (alternates, tls) = locations(fields, "x-alt");
        let accepts = |kind: &str| {
            let mut kinds = fields
                .list("accept")
                .map(|k| k.split(';').next().unwrap_or(k).trim());
            kinds.any(|k| k.eq_ignore_ascii_case(kind))
        };
        Ok(Self {
            method: match head.method.as_str() {
                "GET" => Method::Get,
                "HEAD" => Method::Head,
                _ => Method::Other,
            },
            target: Target::read(&head.target),
            keep_alive: keep_alive(head.is_1_1, fields),
            range: fields.get("range").and_then(RangeSpec::read),
            urns: urns(fields),
            queueing: Queueing::read(fields),
            queued: fields.get("x-queued").and_then(Queued::read),
            node: node
                .iter()
                .find_map(|n| fields.get(n))
                .and_then(read_location),
            alternates,
            tls,
            dead: locations(fields, "x-nalt").0,
            pushed: pushed(fields),
            wants_pushed: fields.list("x-features").any(|f| f.starts_with("fwalt/")),
            takes_hits: accepts("application/x-gnutella-packets") || accepts("*/*"),
            upgrades: head.is_1_1
                && fields.lists("connection", "upgrade")
                && fields.lists("upgrade", "TLS/1.0"),
            has_body: fields.number("content-length").unwrap_or(0) > 0
                || fields.get("transfer-encoding").is_some(),
        })
    }
}

pub(super) fn pushed(fields: &Fields) -> Vec<PushLocation> {
    let items = fields.list("x-falt").filter_map(PushLocation::read);
    items.take(MAX_READ).collect()
}

/// A request as a downloader writes it.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// The request line's target.
    pub target: &'a str,
    /// The host asked.
    pub host: SocketAddr,
    /// Our name and version.
    pub agent: &'a str,
    /// Which bytes, if not all.
    pub range: Option<std::ops::Range<u64>>,
    /// What the file is.
    pub urn: Option<Urn>,
    /// Our place in its queue.
    pub queued: Option<Queued>,
    /// Where we can be called.
    pub node: Option<SocketAddr>,
    /// Who else has the file.
    pub alternates: &'a [SocketAddr],
    /// Who does not.
    pub dead: &'a [SocketAddr],
    /// Those of both that speak TLS.
    pub tls_hosts: &'a [SocketAddr],
    /// Whether we speak it.
    pub tls: bool,
    /// Whether to change to it before the answer (RFC 2817 §3).
    pub upgrade: bool,
    /// Whether these are the first words on this connection.
    pub first: bool,
}

impl Ask<'_> {
    /// Writes it.
    pub fn write(&self) -> Vec<u8> {
        let mut out = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", self.target, self.host);
        let mut field = |name: &str, value: &dyn std::fmt::Display| {
            // A string takes what is written.
            let _ = write!(out, "{name}: {value}\r\n");
        };
        field("User-Agent", &self.agent);
        if self.first {
            let tls = if self.tls { ", tls/1.0" } else { "" };
            field("X-Features", &format!("queue/1.1, fwalt/0.1{tls}"));
        }
        if self.upgrade {
            field("Upgrade", &"TLS/1.0");
            field("Connection", &"Upgrade");
        }
        field("X-Queue", &"1.1");
        if let Some(queued) = &self.queued {
            field("X-Queued", queued);
        }
        if let Some(range) = &self.range {
            let last = range.end.saturating_sub(1);
            field("Range", &format!("bytes={}-{last}", range.start));
        }
        if let Some(urn) = self.urn {
            field("X-Gnutella-Content-URN", &urn);
        }
        if let Some(node) = self.node {
            field("X-Node", &node);
        }
        for (name, list) in [("X-Alt", self.alternates), ("X-NAlt", self.dead)] {
            if !list.is_empty() {
                field(name, &write_locations(list, self.tls_hosts));
            }
        }
        out.push_str("\r\n");
        out.into_bytes()
    }
}

/// Asks the push proxy at `host` to have `servent` connect to `back` (Push Proxy 0.6 §5).
pub fn ask_push_proxy(host: SocketAddrV4, servent: Guid, back: SocketAddrV4) -> Vec<u8> {
    let target = Target::PushProxy(servent).write();
    let agent = concat!("shoal/", env!("CARGO_PKG_VERSION"));
    let head = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nX-Node: {back}\r\n\
         Connection: close\r\n\r\n"
    );
    head.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_of_gtk_gnutella_is_understood() {
        let sha1 = shoal_base::base32::encode(&[7; 20]);
        let head = format!(
            "GET /uri-res/N2R?urn:sha1:{sha1} HTTP/1.1\r\nHost: 44.20.3.1:6346\r\n\
             User-Agent: gtk-gnutella/1.2.3\r\nX-Features: tls/1.0, fwalt/0.1, queue/1.1\r\n\
             X-Token: abc\r\nAccept-Encoding: deflate\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\n\
             X-Queue: 1.1\r\nX-Node: 44.20.2.1:6346\r\nRange: bytes=0-1048575\r\nX-Downloaded: 5\r\n\r\n"
        );
        let request = Request::read(head.as_bytes()).expect("a request");
        assert_eq!(request.method, Method::Get);
        assert!(request.keep_alive && request.wants_pushed);
        assert!(request.upgrades);
        assert_eq!(request.queueing, Queueing::Parq);
        assert_eq!(request.range, Some(RangeSpec::FromTo(0, 1_048_575)));
        assert_eq!(request.node, Some(SocketAddr::from(([44, 20, 2, 1], 6346))));
    }

    #[test]
    fn an_old_request_closes_the_connection() {
        let read = |head: &str| Request::read(head.as_bytes()).expect("a request");
        let old = read("GET /get/1/x HTTP/1.0\r\nRange: nonsense\r\n\r\n");
        assert!(!old.keep_alive && old.range.is_none());
        assert_eq!(old.queueing, Queueing::None);
        assert!(read("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
        assert!(read("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n").has_body);
        let legacy = read("GET / HTTP/1.1\r\nX-Queue: 0.1\r\n\r\n");
        assert_eq!(legacy.queueing, Queueing::Legacy);
    }

    #[test]
    fn a_push_proxy_is_asked_as_the_document_says() {
        let (host, back) = ("44.20.1.1:6346", "44.20.2.1:7000");
        let (host, back) = (host.parse().expect("one"), back.parse().expect("one"));
        let head = ask_push_proxy(host, Guid([7; 16]), back);
        let request = Request::read(&head).expect("a request");
        assert_eq!(request.target, Target::PushProxy(Guid([7; 16])));
        assert_eq!(request.node, Some(SocketAddr::V4(back)));
        let hex = "/gnet/push-proxy?guid=07070707070707070707070707070707&x=1";
        assert_eq!(Target::read(hex), Target::PushProxy(Guid([7; 16])));
        assert_eq!(
            Target::read("/gnutella/push-proxy?ServerId=no"),
            Target::Other
        );
    }

    proptest! {
        #[test]
        fn what_is_asked_is_understood(start in 0u64..1 << 50, len in 1u64..1 << 30, sha1: [u8; 20], id: [u8; 16], port in 1u16..) {
            let host = SocketAddr::from(([1, 2, 3, 4], port));
            let target = Target::File(Urn::Sha1(sha1));
            let queued = Queued { position: 3, length: None, eta: None, lifetime: None, id: Guid(id) };
            let head = Ask {
                target: &target.write(),
                host,
                agent: "shoal",
                range: Some(start..start + len),
                urn: Some(Urn::Sha1(sha1)),
                queued: Some(queued),
                node: Some(host),
                alternates: &[host],
                dead: &[host, host],
                tls_hosts: &[host],
                tls: true,
                upgrade: true,
                first: true,
            }.write();
            let request = Request::read(&head).expect("a request");
            prop_assert_eq!(request.target, target);
            prop_assert_eq!(request.range.and_then(|r| r.of(u64::MAX)), Some(start..start + len));
            prop_assert_eq!(request.queued, Some(queued));
            prop_assert_eq!(request.urns, vec![Urn::Sha1(sha1)]);
            prop_assert_eq!(request.node, Some(host));
            prop_assert_eq!((request.alternates.len(), request.dead.len()), (1, 2));
            prop_assert_eq!(request.tls, vec![host]);
            prop_assert!(request.upgrades && request.wants_pushed && request.keep_alive);
        }
    }
}
