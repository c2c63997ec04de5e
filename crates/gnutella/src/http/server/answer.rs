//! What a request is answered.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use shoal_base::Time;

use super::{ConnectionId, Server};
use crate::http::files::{Files, Lookup, Offer};
use crate::http::locations::{MAX_TOLD, PushLocation, may_name, write_locations};
use crate::http::parq::{self, Asker, Place};
use crate::http::queue::{LegacyQueued, Queued, Queueing};
use crate::http::request::{Method, Request};
use crate::http::response::{HeadWriter, disposition};
use crate::http::target::{Target, tree_uri};
use crate::http::thex;
use crate::huge::{Sha1, Urn};

/// Ranges of a partial file that are told.
const MAX_RANGES_TOLD: usize = 64;

/// A body to be sent.
#[derive(Debug)]
pub(super) enum Body {
    None,
    Bytes(Vec<u8>),
    File {
        file: u64,
        sha1: Sha1,
        range: Range<u64>,
    },
}

/// An answer to be sent.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Vec<u8>,
    pub(super) body: Body,
    /// Whether the connection stays open behind it.
    pub(super) keep: bool,
    /// How long it may be idle then, if not as usual.
    pub(super) idle: Option<Duration>,
}

impl Answer {
    /// An answer to what was not understood: the connection ends with it.
    pub(super) fn error(status: u16, agent: &str) -> Self {
        let mut head = HeadWriter::new(status, agent);
        head.field("Content-Length", 0);
        head.field("Connection", "close");
        Self {
            head: head.finish(),
            body: Body::None,
            keep: false,
            idle: None,
        }
    }

    fn finish(mut head: HeadWriter, body: Body, request: &Request) -> Self {
        if !request.keep_alive {
            head.field("Connection", "close");
        }
        Self {
            head: head.finish(),
            body: if request.method == Method::Head {
                Body::None
            } else {
                body
            },
            keep: request.keep_alive,
            idle: None,
        }
    }
}

impl Server {
    pub(super) fn answer(
        &mut self,
        now: Time,
        id: ConnectionId,
        request: &Request,
        files: &dyn Files,
    ) -> Answer {
        let agent = self.config.agent.clone();
        if request.method == Method::Other {
            return Answer::error(501, &agent);
        }
        if request.has_body {
            return Answer::error(413, &agent);
        }
        let found = match &request.target {
            Target::File(urn) => files.by_urn(urn),
            Target::Index(index, _) => files.by_index(*index),
            Target::Tree(sha1, root) => match files.by_urn(&Urn::Sha1(*sha1)) {
                Lookup::Found(file) if root.is_none() || file.tiger == *root => {
                    return self.tree(id, request, &file, files);
                }
                Lookup::Gone => Lookup::Gone,
                _ => Lookup::Unknown,
            },
            Target::Browse => return self.browse(id, request, files),
            // Without an address of the downloader's own.
            Target::PushProxy(_) => return self.missing(id, 400, request),
            Target::Other => Lookup::Unknown,
        };
        match found {
            Lookup::Found(file) if fits(request, &file) => self.file(now, id, request, &file),
            Lookup::Found(_) | Lookup::Unknown => self.missing(id, 404, request),
            Lookup::Gone => self.missing(id, 410, request),
        }
    }

    /// Begins a head; what is said once on a connection is said.
    fn head(&self, id: ConnectionId, status: u16) -> HeadWriter {
        let mut head = HeadWriter::new(status, &self.config.agent);
        if self.connections.get(&id).is_none_or(|c| !c.answered) {
            let tls = if self.config.tls { ", tls/1.0" } else { "" };
            head.field("X-Features", format_args!("queue/1.1, browse/1.0{tls}"));
        }
        head
    }

    fn missing(&self, id: ConnectionId, status: u16, request: &Request) -> Answer {
        let mut head = self.head(id, status);
        head.field("Content-Length", 0);
        Answer::finish(head, Body::None, request)
    }

    /// What a push proxy says (Push Proxy 0.6 §5).
    pub(super) fn pushed(&self, id: ConnectionId, sent: bool, keep: bool) -> Answer {
        let mut head = self.head(id, if sent { 202 } else { 410 });
        head.field("Content-Length", 0);
        if !keep {
            head.field("Connection", "close");
        }
        Answer {
            head: head.finish(),
            body: Body::None,
            keep,
            idle: None,
        }
    }

    fn tree(&self, id: ConnectionId, request: &Request, file: &Offer, files: &dyn Files) -> Answer {
        let tree = file.tiger.zip(files.tree(file));
        let Some((root, levels)) = tree else {
            return self.missing(id, 404, request);
        };
        let body = thex::write(file.len, &root, &levels);
        let mut head = self.head(id, 200);
        head.field("Content-Type", thex::MEDIA_TYPE);
        head.field("Content-Length", body.len());
        Answer::finish(head, Body::Bytes(body), request)
    }

    fn browse(&self, id: ConnectionId, request: &Request, files: &dyn Files) -> Answer {
        let Some(hits) = files.browse() else {
            return self.missing(id, 403, request);
        };
        if !request.takes_hits {
            return self.missing(id, 406, request);
        }
        let mut head = self.head(id, 200);
        head.field("Content-Type", "application/x-gnutella-packets");
        head.field("Content-Length", hits.len());
        Answer::finish(head, Body::Bytes(hits), request)
    }

    fn file(&mut self, now: Time, id: ConnectionId, request: &Request, file: &Offer) -> Answer {
        self.learn(now, id, request, file);
        let whole = 0..file.len;
        let asked = match request.range {
            Some(spec) => spec.of(file.len),
            None => Some(whole.clone()),
        };
        // Of a partial file the first bytes there are (PFSP §1).
        let there = asked.clone().and_then(|asked| match &file.available {
            Some(available) => available.first_within(&asked),
            None => Some(asked),
        });
        let Some(mut range) = there else {
            let mut head = self.head(id, 416);
            head.field("Content-Range", format_args!("bytes */{}", file.len));
            head.field("Content-Length", 0);
            self.describe(now, id, request, file, &mut head);
            return Answer::finish(head, Body::None, request);
        };
        if let Some(most) = self.config.max_range {
            range.end = range.end.min(range.start.saturating_add(most));
        }
        if request.method == Method::Get
            && let Err(answer) = self.admit(now, id, request, file, &range)
        {
            return answer;
        }
        // Shortened answers to who named no range are partial all the same.
        let partial = request.range.is_some() || range != whole;
        let mut head = self.head(id, if partial { 206 } else { 200 });
        head.field("Content-Type", "application/binary");
        head.field("Content-Length", range.end - range.start);
        if partial {
            let last = range.end.saturating_sub(1);
            let value = format_args!("bytes {}-{last}/{}", range.start, file.len);
            head.field("Content-Range", value);
        }
        head.field("Accept-Ranges", "bytes");
        self.describe(now, id, request, file, &mut head);
        let body = if range.start < range.end {
            Body::File {
                file: file.key,
                sha1: file.sha1,
                range,
            }
        } else {
            Body::None
        };
        Answer::finish(head, body, request)
    }

    /// Takes in what the request says of others who have the file.
    fn learn(&mut self, now: Time, id: ConnectionId, request: &Request, file: &Offer) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let ip = connection.ip;
        for addr in &request.alternates {
            if may_name(ip, *addr) {
                // A downloader names itself when it shares what it has (PFSP §3).
                let itself = addr.ip().to_canonical() == ip;
                self.mesh.learn(now, file.sha1, *addr, itself);
            }
        }
        for addr in &request.tls {
            self.mesh.speaks_tls(&file.sha1, *addr);
        }
        for location in &request.pushed {
            // Its proxies are who others would connect to.
            if location.proxies.iter().all(|proxy| may_name(ip, *proxy)) {
                self.mesh.learn_pushed(now, file.sha1, location.clone());
            }
        }
        for addr in &request.dead {
            self.mesh.dead(&file.sha1, *addr, ip);
        }
    }

    /// What every answer about a file says of it.
    fn describe(
        &mut self,
        now: Time,
        id: ConnectionId,
        request: &Request,
        file: &Offer,
        head: &mut HeadWriter,
    ) {
        head.field("X-Gnutella-Content-URN", Urn::Sha1(file.sha1));
        head.field("Content-Disposition", disposition(&file.name));
        if let Some(root) = &file.tiger {
            let uri = tree_uri(&file.sha1, None);
            head.field("X-Thex-URI", format_args!("{uri};{root}"));
        }
        if let Some(available) = &file.available {
            head.field("X-Available", format_args!("bytes {}", available.bytes()));
            if !available.is_empty() {
                head.field("X-Available-Ranges", available.write(MAX_RANGES_TOLD));
            }
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let asker = request
            .node
            .map(|node| SocketAddr::new(connection.ip, node.port()));
        let told = self
            .mesh
            .tell(now, &file.sha1, asker, connection.ip, MAX_TOLD);
        if !told.is_empty() && told != connection.told {
            let tls = self.mesh.with_tls(&file.sha1, &told);
            head.field("X-Alt", write_locations(&told, &tls));
            connection.told = told;
        }
        if request.wants_pushed && !connection.answered {
            let told = self.mesh.tell_pushed(now, &file.sha1);
            let told: Vec<_> = told.iter().map(PushLocation::write).collect();
            if !told.is_empty() {
                head.field("X-Falt", told.join(","));
            }
        }
    }

    /// Whether the downloader may have the bytes now; what it is told if not.
    fn admit(
        &mut self,
        now: Time,
        id: ConnectionId,
        request: &Request,
        file: &Offer,
        range: &Range<u64>,
    ) -> Result<(), Answer> {
        let Some(connection) = self.connections.get(&id) else {
            return Err(Answer::error(400, &self.config.agent));
        };
        let ip = connection.ip;
        // It is called where it came from: nobody else is to be bothered.
        let node = request.node.filter(|node| node.ip().to_canonical() == ip);
        let asker = Asker {
            ip,
            connection: id,
            queueing: request.queueing,
            id: request.queued.map(|q| q.id),
            node,
            sha1: file.sha1,
            bytes: range.end - range.start,
        };
        let (retry_after, place) = match self.queue.ask(now, &mut self.rng, &asker) {
            parq::Answer::Granted => return Ok(()),
            parq::Answer::Queued(place) => (place.retry_after, Some(place)),
            parq::Answer::Full(retry_after) => (retry_after, None),
        };
        let mut head = self.head(id, 503);
        head.field("Content-Length", 0);
        let mut keep = request.keep_alive;
        if let Some(place) = place {
            keep &= place.keep;
            self.tell_place(&place, &mut head);
        } else {
            keep = false;
        }
        head.field("Retry-After", seconds(retry_after));
        self.describe(now, id, request, file, &mut head);
        if !keep {
            head.field("Connection", "close");
        }
        Err(Answer {
            head: head.finish(),
            body: Body::None,
            keep,
            idle: place.map(|place| place.lifetime),
        })
    }

    fn tell_place(&self, place: &Place, head: &mut HeadWriter) {
        match place.queueing {
            Queueing::None => {}
            Queueing::Legacy => {
                let legacy = LegacyQueued {
                    position: place.position,
                    length: Some(place.length),
                    limit: Some(self.config.queue.slots),
                    poll_min: seconds(place.retry_after),
                    poll_max: seconds(place.retry_after * 2),
                };
                head.field("X-Queue", legacy);
            }
            Queueing::Parq => {
                let queued = Queued {
                    position: place.position,
                    length: Some(place.length),
                    eta: Some(place.eta.as_secs()),
                    lifetime: Some(place.lifetime.as_secs()),
                    id: place.id,
                };
                head.field("X-Queued", queued);
            }
        }
    }
}

/// Whole seconds, upwards.
fn seconds(d: Duration) -> u64 {
    d.as_millis().div_ceil(1000) as u64
}

/// Whether the file is the one that the request believes it to be (HUGE 0.94 §6.2.1).
fn fits(request: &Request, file: &Offer) -> bool {
    request
        .urns
        .iter()
        .all(|urn| Urn::of(Some(file.sha1), file.tiger).is_some_and(|own| own.agrees(urn)))
}
