//! How connections come about: what somebody calls for, TLS, the handshake.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use shoal_base::Time;
use shoal_gnutella::handshake::{Agreement, Greeting, Handshake, HandshakeError, Step};

use super::{REDIAL, Worker, seen_at};
use crate::gnutella::connection::{Open, Phase};
use crate::gnutella::tls::{self, Stream};

impl Worker {
    /// Tells by its first bytes what somebody called for.
    pub(super) fn sniff(&mut self, key: usize, first: Vec<u8>) {
        const OVERLAY: &[u8] = b"GNUTELLA";
        let head = first.get(..OVERLAY.len()).unwrap_or(&first);
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if OVERLAY.starts_with(head) {
            if head.len() < 4 {
                conn.phase = Phase::Sniff(first);
                return;
            }
            conn.phase = Phase::Shaking(Box::new(Handshake::called()));
            return self.on_bytes(key, &first);
        }
        if tls::is_hello(&first) && !conn.is_secure() {
            return self.secure(key, &first, false);
        }
        // Nonsense; whoever means Gnutella will try again.
        let text = first.first().is_some_and(u8::is_ascii_uppercase);
        let Some(conn) = self.conns.try_remove(key).filter(|_| text) else {
            return self.remove(key);
        };
        let peer = conn.peer;
        let (mut tcp, tls, rest) = conn.into_parts();
        let _ = self.parts.poll.registry().deregister(&mut tcp);
        if let Some(incoming) = &mut self.parts.incoming {
            let stream = std::net::TcpStream::from(tcp);
            if stream.set_nonblocking(false).is_ok() {
                incoming.incoming(Stream::begun(stream, tls, rest), peer, first);
            }
        }
    }

    /// Begins TLS with bytes of it that came already; without TLS of our own the connection ends, and
    /// the other tries in clear.
    pub(super) fn secure(&mut self, key: usize, came: &[u8], calls: bool) {
        let session = self.parts.tls.as_ref().map(|tls| match calls {
            true => tls.connect(),
            false => tls.accept(),
        });
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let begun = match session {
            Some(Ok(session)) => {
                conn.secure(session);
                conn.feed(came)
            }
            Some(Err(error)) => Err(io::Error::other(error)),
            None => Err(io::Error::other("TLS is not spoken here")),
        };
        if let Err(error) = begun {
            return self.lost(key, &error.to_string());
        }
        self.flush(key);
        if self.conns.contains(key) {
            self.busy.push(key);
        }
    }

    pub(super) fn shake(&mut self, key: usize, step: Result<Step, HandshakeError>) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let (peer, secure) = (conn.peer, conn.is_secure());
        let Phase::Shaking(shaking) = &mut conn.phase else {
            return;
        };
        let step = match step {
            Ok(Step::Judge(theirs)) => {
                let mut bytes = Vec::new();
                let step = match self.node.judge(&theirs, shaking.version()) {
                    Ok(_) => {
                        let mut ours = self.node.greeting(seen_at(peer));
                        ours.upgrade &= peer.is_ipv4() && !secure;
                        shaking.welcome(ours, &mut bytes)
                    }
                    Err(refusal) => {
                        let agent = self.node.config().agent.clone();
                        shaking.refuse(&refusal, &agent, &mut bytes);
                        conn.say(&bytes);
                        conn.phase = Phase::Draining;
                        return self.flush(key);
                    }
                };
                conn.say(&bytes);
                self.flush(key);
                step
            }
            Ok(step) => step,
            Err(error) => {
                if let HandshakeError::Refused { hosts, .. } = &error {
                    self.failed(peer, &error.to_string(), hosts);
                    return self.remove(key);
                }
                return self.lost(key, &error.to_string());
            }
        };
        if let Step::Done(agreement) = step {
            self.open(key, &agreement);
        }
    }

    fn open(&mut self, key: usize, agreement: &Agreement) {
        let Some(conn) = self.conns.get(key) else {
            return;
        };
        let Phase::Shaking(shaking) = &conn.phase else {
            return;
        };
        let (peer, calls) = (conn.peer, shaking.calls());
        let mut theirs = agreement.theirs.clone();
        let addr = placed(peer, calls, &mut theirs);
        // Places may have gone since the other was judged.
        let Ok(relation) = self.node.judge(&theirs, shaking.version()) else {
            return self.lost(key, "no room any more");
        };
        self.learn_address(theirs.remote);
        for keep in self.keep.iter_mut().filter(|k| k.addr == peer) {
            keep.wait = REDIAL.0;
        }
        let now = self.now();
        let mut out = Vec::new();
        let id = self.node.open(now, &theirs, relation, addr, &mut out);
        if let Some(conn) = self.conns.get_mut(key) {
            let open = Open::new(id, agreement.inflate, agreement.deflate);
            conn.phase = Phase::Open(Box::new(open));
            conn.until = Time::FAR;
        }
        if self.places.len() <= id.slot() {
            self.places.resize(id.slot() + 1, None);
        }
        if let Some(place) = self.places.get_mut(id.slot()) {
            *place = Some(key);
        }
        let agent = theirs.agent.as_str();
        let tls = agreement.tls;
        tracing::info!(%peer, agent, ?relation, tls, "a neighbour");
        if tls {
            self.secure(key, &agreement.rest, calls);
        }
        self.effects.extend(out);
        self.work();
        if !agreement.tls && !agreement.rest.is_empty() {
            self.messages(key, id, &agreement.rest);
        }
    }

    /// A neighbour told how it sees us.
    pub(super) fn learn_address(&mut self, remote: Option<Ipv4Addr>) {
        if self.node.config().listen.is_none()
            && let Some(ip) = remote.filter(|ip| !ip.is_unspecified())
        {
            let listen = SocketAddrV4::new(ip, self.parts.listen.port());
            self.node.set_listen(Some(listen));
        }
    }
}

/// Where a neighbour listens. Who called from another port listens where it says; its address is the
/// socket's, or the overlay's.
fn placed(peer: SocketAddr, calls: bool, theirs: &mut Greeting) -> SocketAddrV4 {
    match peer {
        SocketAddr::V4(peer) => {
            let port = theirs.listen.map_or(peer.port(), |l| l.port());
            SocketAddrV4::new(*peer.ip(), port)
        }
        SocketAddr::V6(peer) => {
            let told = theirs.overlay.as_ref().and_then(|o| o.addr);
            let port = match calls {
                true => peer.port(),
                false => told.map_or(0, |t| t.port()),
            };
            let addr = SocketAddrV6::new(*peer.ip(), port, 0, 0);
            theirs.overlay.get_or_insert_default().addr = (port > 0).then_some(addr);
            SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)
        }
    }
}
