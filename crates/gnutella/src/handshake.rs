//! The handshake of 0.6: three groups of headers (0.6 §1.4, Handshaking 0.6), and the bare one of
//! 0.4.
//!
//! ```text
//! caller  GNUTELLA CONNECT/0.6  + headers
//! called                          GNUTELLA/0.6 200 OK + headers, or a refusal with hosts to try
//! caller  GNUTELLA/0.6 200 OK   + headers
//! ```

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

mod greeting;

pub use greeting::{Greeting, MAX_TRY};

/// Bytes of one group of headers that are read at most.
pub const MAX_HEAD: usize = 8 << 10;

/// Which handshake is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// `GNUTELLA CONNECT/0.4`, answered by `GNUTELLA OK`: no headers.
    V04,
    /// `GNUTELLA CONNECT/0.6`.
    #[default]
    V06,
}

/// Why a handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// What came is not a handshake.
    #[error("not a Gnutella handshake")]
    NotGnutella,
    /// More than [`MAX_HEAD`] bytes of headers, or more than can be read.
    #[error("too long a group of headers")]
    TooLong,
    /// Headers that cannot be read.
    #[error("headers that cannot be read")]
    Headers,
    /// The other refuses.
    #[error("refused: {code} {reason}")]
    Refused {
        /// 503 when all places are taken, and others.
        code: u16,
        /// In its words.
        reason: String,
        /// Hosts it tells to try, those on the overlay too.
        hosts: Vec<SocketAddr>,
    },
}

/// What a node says to one who wants a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// 503, or another.
    pub code: u16,
    /// Why.
    pub reason: &'static str,
    /// Hosts that may have room.
    pub hosts: Vec<SocketAddrV4>,
    /// The same on the overlay, for who can use such addresses.
    pub places: Vec<SocketAddrV6>,
}

/// What both agreed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// What the other said of itself.
    pub theirs: Greeting,
    /// What comes in is one zlib stream.
    pub inflate: bool,
    /// What goes out is one zlib stream.
    pub deflate: bool,
    /// TLS comes next, before anything else.
    pub tls: bool,
    /// Bytes that came behind the handshake.
    pub rest: Vec<u8>,
}

/// Where a handshake is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// More bytes are wanted.
    More,
    /// This is who it is: call [`Handshake::welcome`] or [`Handshake::refuse`].
    Judge(Box<Greeting>),
    /// It is done.
    Done(Box<Agreement>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// We were called, and wait for the first group.
    First,
    /// We called, and wait for the second.
    Second,
    /// We were called, and wait for the third.
    Third,
    /// A greeting lies with our user.
    Judged {
        called: bool,
    },
    Over,
}

/// One end of a handshake.
#[derive(Debug)]
pub struct Handshake {
    state: State,
    calls: bool,
    version: Version,
    held: Vec<u8>,
    ours: Greeting,
    theirs: Greeting,
}

impl Handshake {
    /// Calls: `out` takes the first group.
    pub fn call(version: Version, ours: Greeting, out: &mut Vec<u8>) -> Self {
        match version {
            Version::V04 => out.extend_from_slice(b"GNUTELLA CONNECT/0.4\n\n"),
            Version::V06 => {
                out.extend_from_slice(b"GNUTELLA CONNECT/0.6\r\n");
                ours.write(out);
                if ours.upgrade {
                    out.extend_from_slice(b"Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n");
                }
                out.extend_from_slice(b"\r\n");
            }
        }
        Self::at(State::Second, version, ours)
    }

    /// Is called.
    pub fn called() -> Self {
        Self::at(State::First, Version::V06, Greeting::default())
    }

    fn at(state: State, version: Version, ours: Greeting) -> Self {
        Self {
            state,
            calls: state == State::Second,
            version,
            held: Vec::new(),
            ours,
            theirs: Greeting::default(),
        }
    }

    /// Whether we called.
    pub fn calls(&self) -> bool {
        self.calls
    }

    /// Which handshake the other speaks.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Takes what came in.
    ///
    /// # Errors
    /// Why this will not become a connection.
    pub fn on_bytes(&mut self, bytes: &[u8]) -> Result<Step, HandshakeError> {
        self.held.extend_from_slice(bytes);
        let waits = matches!(self.state, State::First | State::Second | State::Third);
        let end = end_of_head(&self.held).filter(|_| waits);
        let Some(end) = end else {
            if self.held.len() > MAX_HEAD {
                return Err(HandshakeError::TooLong);
            }
            let known = b"GNUTELLA";
            let head = self.held.get(..known.len()).unwrap_or(&self.held);
            return match waits && !known.starts_with(head) {
                true => Err(HandshakeError::NotGnutella),
                false => Ok(Step::More),
            };
        };
        if end > MAX_HEAD {
            return Err(HandshakeError::TooLong);
        }
        let rest = self.held.split_off(end);
        let head = std::mem::replace(&mut self.held, rest);
        let (line, headers) = first_line(&head).ok_or(HandshakeError::NotGnutella)?;
        match self.state {
            State::First => {
                self.version = match line {
                    b"GNUTELLA CONNECT/0.4" => Version::V04,
                    _ if line.starts_with(b"GNUTELLA CONNECT/0.") => Version::V06,
                    _ => return Err(HandshakeError::NotGnutella),
                };
                self.theirs = Greeting::read(headers)?;
                self.state = State::Judged { called: true };
                Ok(Step::Judge(Box::new(self.theirs.clone())))
            }
            State::Second => {
                if self.version == Version::V04 {
                    if line != b"GNUTELLA OK" {
                        return Err(HandshakeError::NotGnutella);
                    }
                } else {
                    self.theirs = status(line, headers)?;
                }
                self.state = State::Judged { called: false };
                Ok(Step::Judge(Box::new(self.theirs.clone())))
            }
            State::Third => {
                let last = status(line, headers)?;
                self.theirs.complete(last);
                Ok(self.done(true))
            }
            State::Judged { .. } | State::Over => Ok(Step::More),
        }
    }

    /// The other is welcome: `out` takes the answer. With [`Step::Done`] the handshake ended with it.
    pub fn welcome(&mut self, ours: Greeting, out: &mut Vec<u8>) -> Step {
        let State::Judged { called } = self.state else {
            return Step::More;
        };
        if self.version == Version::V04 {
            if called {
                out.extend_from_slice(b"GNUTELLA OK\n\n");
            }
            return self.done(called);
        }
        out.extend_from_slice(b"GNUTELLA/0.6 200 OK\r\n");
        if called {
            self.ours = ours;
            self.ours.write(out);
        }
        if self.theirs.overlay.is_some() {
            self.ours.write_overlay(out);
        }
        self.ours.sends_deflate = self.ours.accepts_deflate && self.theirs.accepts_deflate;
        if self.ours.sends_deflate {
            out.extend_from_slice(b"Content-Encoding: deflate\r\n");
        }
        // Who called proposes TLS, who was called agrees, and who called confirms (TLS Upgrade §2).
        if self.ours.upgrade && self.theirs.upgrade {
            if called {
                out.extend_from_slice(b"Upgrade: TLS/1.0\r\n");
            }
            out.extend_from_slice(b"Connection: Upgrade\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if called {
            self.state = State::Third;
            return Step::More;
        }
        self.done(false)
    }

    /// The other is not: `out` takes the answer, and the connection is to be closed behind it.
    pub fn refuse(&mut self, refusal: &Refusal, agent: &str, out: &mut Vec<u8>) {
        let judged = matches!(self.state, State::Judged { .. });
        self.state = State::Over;
        if !judged || self.version == Version::V04 {
            return;
        }
        let Refusal {
            code,
            reason,
            hosts,
            places,
        } = refusal;
        let head = format!("GNUTELLA/0.6 {code} {reason}\r\nUser-Agent: {agent}\r\n");
        out.extend_from_slice(head.as_bytes());
        greeting::write_hosts(hosts, out);
        if self.theirs.overlay.is_some() {
            greeting::write_places(places, out);
        }
        out.extend_from_slice(b"\r\n");
    }

    fn done(&mut self, called: bool) -> Step {
        self.state = State::Over;
        let (ours, theirs) = (&self.ours, &self.theirs);
        let both = ours.upgrade && theirs.upgrade;
        let agreement = Agreement {
            inflate: ours.accepts_deflate && theirs.sends_deflate,
            deflate: ours.sends_deflate,
            tls: both && if called { theirs.agrees_upgrade } else { true },
            theirs: theirs.clone(),
            rest: std::mem::take(&mut self.held),
        };
        Step::Done(Box::new(agreement))
    }
}

/// Where the first group of headers ends, behind its empty line.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut start = 0;
    for (at, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'\n') {
        let line = bytes.get(start..at).unwrap_or_default();
        if line.is_empty() || line == b"\r" {
            return Some(at + 1);
        }
        start = at + 1;
    }
    None
}

fn first_line(head: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = head.iter().position(|b| *b == b'\n')?;
    let (line, rest) = head.split_at_checked(at + 1)?;
    Some((line.trim_ascii_end(), rest))
}

/// Reads `GNUTELLA/0.6 200 OK` and the headers behind it.
fn status(line: &[u8], headers: &[u8]) -> Result<Greeting, HandshakeError> {
    let rest = line
        .strip_prefix(b"GNUTELLA/0.6 ")
        .ok_or(HandshakeError::NotGnutella)?;
    let (code, reason) = rest.split_at_checked(3).unwrap_or((rest, &[]));
    let code = std::str::from_utf8(code).ok().and_then(|c| c.parse().ok());
    let code: u16 = code.ok_or(HandshakeError::NotGnutella)?;
    let greeting = Greeting::read(headers)?;
    if code != 200 {
        let text = String::from_utf8_lossy(reason.trim_ascii());
        let reason = text.chars().filter(|c| !c.is_control()).take(100).collect();
        let hosts = greeting.hosts.into_iter().map(SocketAddr::V4);
        let places = greeting.overlay.map_or_else(Vec::new, |o| o.hosts);
        return Err(HandshakeError::Refused {
            code,
            reason,
            hosts: hosts
                .chain(places.into_iter().map(SocketAddr::V6))
                .collect(),
        });
    }
    Ok(greeting)
}

#[cfg(test)]
mod tests;
