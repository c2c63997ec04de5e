//! What comes in when a connection is one of the overlay, and by datagrams.

use std::io;
use std::net::SocketAddr;

use shoal_gnutella::huge::Urn;
use shoal_gnutella::message::query::Query;
use shoal_gnutella::message::{Header, Kind};
use shoal_gnutella::node::ConnId;

use super::Worker;
use crate::gnutella::connection::Phase;

impl Worker {
    pub(super) fn messages(&mut self, key: usize, id: ConnId, bytes: &[u8]) {
        let mut rest = bytes;
        let now = self.now();
        let mut out = Vec::new();
        let mut broken = None;
        while !rest.is_empty() && broken.is_none() {
            let Some(conn) = self.conns.get_mut(key) else {
                break;
            };
            let Phase::Open(open) = &mut conn.phase else {
                break;
            };
            match open.feed(rest) {
                Some(taken) => rest = rest.get(taken..).unwrap_or_default(),
                None => broken = Some("a stream that does not inflate".to_owned()),
            }
            loop {
                match open.reader.message() {
                    Ok(Some((header, payload))) => {
                        tracing::trace!(?id, ?header, "a message");
                        trace_query(id, &header, payload);
                        self.node.on_message(now, id, header, payload, &mut out);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        broken = Some(error.to_string());
                        break;
                    }
                }
            }
        }
        if let Some(why) = broken {
            use shoal_gnutella::message::bye::code;
            self.node.bye(id, code::MALFORMED, &why, &mut out);
        }
        self.effects.extend(out);
        self.work();
    }

    pub(super) fn datagrams(&mut self) {
        let mut buf = [0; 4096];
        loop {
            match self.parts.udp.recv_from(&mut buf) {
                Ok((n, SocketAddr::V4(from))) => {
                    let bytes = buf.get(..n).unwrap_or_default();
                    self.with_node(|node, now, out| node.on_datagram(now, from, bytes, out));
                }
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error of an earlier datagram; there may be more behind it.
                Err(_) => {}
            }
        }
    }
}

/// What is asked for, for who looks for why something is found or not.
fn trace_query(id: ConnId, header: &Header, payload: &[u8]) {
    if header.known() != Some(Kind::Query) || !tracing::enabled!(tracing::Level::TRACE) {
        return;
    }
    if let Ok(query) = Query::read(payload) {
        let text = String::from_utf8_lossy(query.text);
        let wanted = query.wanted();
        let urns = wanted.urns.iter().map(Urn::to_string);
        let urns = urns.collect::<Vec<_>>().join(",");
        tracing::trace!(?id, ttl = header.ttl, hops = header.hops, ?text, urns = %format_args!("[{urns}]"), "a query");
    }
}
