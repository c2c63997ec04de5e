//! A client's connection to a hub, for whoever can wait.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use shoal_napster::client::{Client, Event, Login};
use shoal_napster::frame::TooLong;

/// How long a hub may take to let somebody in.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long sending may stand still.
const STALL: Duration = Duration::from_secs(60);

/// Why there is no connection to a hub.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// It cannot be reached, or the connection was lost.
    #[error("the connection to the hub failed")]
    Io(#[from] io::Error),
    /// It closed the connection.
    #[error("the hub closed the connection")]
    Closed,
    /// It does not let us in.
    #[error("the hub refuses: {0}")]
    Refused(String),
    /// It does not speak the protocol.
    #[error("the hub does not speak the protocol")]
    Nonsense(#[from] TooLong),
    /// It did not answer.
    #[error("the hub does not answer")]
    Late,
}

/// Somebody who is logged in.
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
    hub: SocketAddr,
    core: Client,
    events: VecDeque<Event>,
}

impl Session {
    /// Connects and logs in.
    ///
    /// # Errors
    /// Why not.
    pub fn connect(hub: SocketAddr, login: &Login) -> Result<Self, SessionError> {
        let stream = TcpStream::connect_timeout(&hub, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(STALL))?;
        let mut session = Self {
            stream,
            hub,
            core: Client::new(login),
            events: VecDeque::new(),
        };
        let until = Instant::now() + PATIENCE;
        loop {
            match session.next(until)? {
                Some(Event::LoggedIn) => return Ok(session),
                Some(Event::Refused(why)) => return Err(SessionError::Refused(why)),
                Some(_) => {}
                None => return Err(SessionError::Late),
            }
        }
    }

    /// What to say; it is sent by the next [`Session::next`] or [`Session::flush`].
    pub fn core(&mut self) -> &mut Client {
        &mut self.core
    }

    /// Sends what was said.
    ///
    /// # Errors
    /// The connection was lost.
    pub fn flush(&mut self) -> Result<(), SessionError> {
        let bytes = self.core.output();
        if !bytes.is_empty() {
            self.stream.write_all(&bytes)?;
        }
        Ok(())
    }

    /// The next event; none if there is none until then.
    ///
    /// # Errors
    /// The connection was lost.
    pub fn next(&mut self, until: Instant) -> Result<Option<Event>, SessionError> {
        let mut buf = [0; 16 << 10];
        loop {
            self.flush()?;
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut buf) {
                Ok(0) => return Err(SessionError::Closed),
                Ok(n) => {
                    let mut events = Vec::new();
                    self.core
                        .on_bytes(buf.get(..n).unwrap_or_default(), &mut events)?;
                    self.events.extend(events);
                }
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                    ) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Whether an address that the hub tells of may be connected to: it must not be used to reach
    /// this machine or the local network unless the hub is there itself.
    pub fn may_dial(&self, ip: Ipv4Addr) -> bool {
        may_dial(self.hub, ip)
    }

    /// The connection and the client, for who hears and speaks at once. What was heard and not
    /// asked for yet is lost.
    pub(super) fn into_parts(self) -> (TcpStream, Client) {
        (self.stream, self.core)
    }
}

/// As [`Session::may_dial`], of a hub's address.
pub(super) fn may_dial(hub: SocketAddr, ip: Ipv4Addr) -> bool {
    let local = |ip: Ipv4Addr| ip.is_loopback() || ip.is_private() || ip.is_link_local();
    let hub_is_local = match hub {
        SocketAddr::V4(hub) => local(*hub.ip()),
        SocketAddr::V6(_) => false,
    };
    !ip.is_unspecified()
        && !ip.is_multicast()
        && !ip.is_broadcast()
        && ip.octets()[0] != 0
        && (hub_is_local || !local(ip))
}
