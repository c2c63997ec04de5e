//! What carries a call's packets: sockets and relays of its own, or a connection between two nodes.
//!
//! A connection finds ways, changes them when one dies, and tells of them; to the call it is one way
//! between two addresses that nobody has.

use super::ways::Ways;
use crate::reach::{Bytes, Connection, Status};
use crossbeam_channel::RecvTimeoutError;
use shoal_base::Time;
use shoal_call::media::pieces::{Joiner, Splitter};
use shoal_call::media::session::OurCandidate;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Datagrams taken before the clock is looked at.
const ROUND: usize = 64;

/// The caller's place on a connection, and the callee's. RFC 6666 keeps these addresses for what is
/// thrown away, so that a packet that left by mistake would go nowhere.
pub(super) const CALLER: SocketAddr = place(1);
pub(super) const CALLEE: SocketAddr = place(2);

const fn place(n: u16) -> SocketAddr {
    let ip = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, n);
    SocketAddr::new(IpAddr::V6(ip), 1)
}

/// Takes what came: from where, to which address of ours, the bytes.
pub(crate) type Taker<'a> = dyn FnMut(SocketAddr, SocketAddr, &[u8]) + 'a;

/// See the module's text.
pub(crate) enum Carrier {
    Sockets(Box<Ways>),
    Connection(Carried),
}

/// A connection as a call uses it.
pub(crate) struct Carried {
    connection: Arc<Connection>,
    base: Instant,
    ours: SocketAddr,
    theirs: SocketAddr,
    /// What came while it was waited.
    came: Option<Bytes>,
    splitter: Splitter,
    joiner: Joiner,
    /// The other side has closed it.
    closed: bool,
}

impl Carried {
    pub(crate) fn new(connection: Arc<Connection>, base: Instant, calls: bool) -> Self {
        let (ours, theirs) = if calls {
            (CALLER, CALLEE)
        } else {
            (CALLEE, CALLER)
        };
        Self {
            connection,
            base,
            ours,
            theirs,
            came: None,
            splitter: Splitter::default(),
            joiner: Joiner::default(),
            closed: false,
        }
    }
}

/// Whether whoever wrote this description takes sound over the connection that it came by.
pub(crate) fn is_offered(sdp: &str) -> bool {
    let ip = |place: SocketAddr| format!(" {} {} typ host", place.ip(), place.port());
    let lines = || sdp.lines().filter(|l| l.starts_with("a=candidate:"));
    lines().any(|l| l.contains(&ip(CALLER)) || l.contains(&ip(CALLEE)))
}

impl Carrier {
    /// The moment that [`Carrier::now`] counts from.
    pub(crate) fn base(&self) -> Instant {
        match self {
            Self::Sockets(ways) => ways.base(),
            Self::Connection(carried) => carried.base,
        }
    }

    /// Microseconds since the call began.
    pub(crate) fn now(&self) -> Time {
        let micros = self.base().elapsed().as_micros();
        Time::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// Ways to us.
    pub(crate) fn candidates(&self) -> Vec<OurCandidate> {
        match self {
            Self::Sockets(ways) => ways.candidates().to_vec(),
            Self::Connection(carried) => vec![OurCandidate::Host(carried.ours)],
        }
    }

    /// Waits until something comes, or for so long.
    pub(crate) fn wait(&mut self, time: Duration) {
        match self {
            Self::Sockets(ways) => ways.wait(time),
            // Nothing comes any more, so only the call's own deadlines are left to wait for.
            Self::Connection(carried) if carried.closed => std::thread::sleep(time),
            Self::Connection(carried) if carried.came.is_none() => {
                match carried.connection.datagrams.recv_timeout(time) {
                    Ok(data) => carried.came = Some(data),
                    Err(RecvTimeoutError::Disconnected) => carried.closed = true,
                    Err(RecvTimeoutError::Timeout) => {}
                }
            }
            Self::Connection(_) => {}
        }
    }

    /// Hands over what came.
    pub(crate) fn receive(&mut self, take: &mut Taker<'_>) {
        match self {
            Self::Sockets(ways) => ways.receive(&mut |_, from, to, bytes| take(from, to, bytes)),
            Self::Connection(carried) => {
                let more = carried.connection.datagrams.try_iter();
                for data in carried.came.take().into_iter().chain(more).take(ROUND) {
                    if let Some(packet) = carried.joiner.join(&data) {
                        take(carried.theirs, carried.ours, &packet);
                    }
                }
            }
        }
    }

    /// Sends a packet.
    pub(crate) fn send(&mut self, source: SocketAddr, destination: SocketAddr, bytes: &[u8]) {
        match self {
            Self::Sockets(ways) => ways.send(source, destination, bytes),
            // Their other addresses cannot be reached from here.
            Self::Connection(carried) if destination == carried.theirs => {
                let connection = &carried.connection;
                carried.splitter.split(bytes, |piece| {
                    connection.send(Bytes::copy_from_slice(piece));
                });
            }
            Self::Connection(_) => {}
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self) {
        if let Self::Sockets(ways) = self {
            ways.tick();
        }
    }

    /// How the connection stands, if it is one: none when it has ended.
    pub(crate) fn status(&self) -> Option<Option<Status>> {
        match self {
            Self::Sockets(_) => None,
            Self::Connection(carried) => Some(carried.connection.status()),
        }
    }
}
