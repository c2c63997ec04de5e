//! The side that shares: connections with requests one after another, what each is answered, and
//! who must wait.
//!
//! The driver hands in the bytes of each connection and carries out the [`Effect`]s: it sends
//! heads, moves bodies from file to socket, and tells when they are through. While a body is on
//! its way what comes is kept, so that requests may be sent ahead.

mod answer;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use shoal_base::time::earliest;
use shoal_base::{Rng, Time};

use super::files::Files;
use super::head::{HeadError, MAX_HEAD, head_len};
use super::locations::{Mesh, MeshConfig};
use super::parq::{Call, Queue, QueueConfig};
use super::request::Request;
use super::response::HeadWriter;
use super::target::Target;
use crate::guid::Guid;
use crate::huge::Sha1;
use crate::node::Load;
use answer::{Answer, Body};

/// Names a connection; never used again.
pub type ConnectionId = u64;

/// Bounds of a server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Who we say we are.
    pub agent: String,
    /// Slots and the queue.
    pub queue: QueueConfig,
    /// The mesh of alternate locations.
    pub mesh: MeshConfig,
    /// Whether the driver can change a connection to TLS.
    pub tls: bool,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections of one host.
    pub max_per_host: usize,
    /// Bytes that one answer brings at most; none: what is asked for. Short answers let many
    /// downloaders have their parts from one another.
    pub max_range: Option<u64>,
    /// How long a head may take, from the connection or the answer before.
    pub head_timeout: Duration,
    /// How long a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// How long a body may take for [`ServerConfig::min_progress`] bytes.
    pub stall_timeout: Duration,
    /// Bytes that must go in a [`ServerConfig::stall_timeout`].
    pub min_progress: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            agent: concat!("shoal/", env!("CARGO_PKG_VERSION")).to_owned(),
            queue: QueueConfig::default(),
            mesh: MeshConfig::default(),
            tls: false,
            max_connections: 200,
            max_per_host: 12,
            max_range: None,
            head_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(20),
            stall_timeout: Duration::from_secs(60),
            min_progress: 16 << 10,
        }
    }
}

/// What the driver is to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send bytes.
    Send {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        bytes: Vec<u8>,
    },
    /// What comes next on a connection, both ways, comes by TLS; the other end begins.
    Secure {
        /// Which.
        connection: ConnectionId,
    },
    /// Send part of a file: [`Server::on_progress`] hears how it goes, [`Server::on_sent`] that it
    /// is through.
    SendFile {
        /// On which connection.
        connection: ConnectionId,
        /// [`Offer::key`](super::files::Offer::key).
        file: u64,
        /// Its SHA-1.
        sha1: Sha1,
        /// Which bytes.
        range: Range<u64>,
    },
    /// Close it when all is sent; [`Server::close`] was called for it.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// Connect to a downloader and write `QUEUE`, then serve it.
    Call(Call),
    /// Pass a Push on to a servent, then say by [`Server::on_pushed`] whether it went.
    Push {
        /// Which connection waits for it.
        connection: ConnectionId,
        /// To whom.
        servent: Guid,
        /// Where it shall connect to.
        to: SocketAddr,
    },
}

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A head may come, or is coming.
    Head,
    /// A body goes out; bytes of it that went since the deadline was last put off.
    Body { progress: u64, keep: bool },
    /// A Push is on its way.
    Push { keep: bool },
}

#[derive(Debug)]
struct Connection {
    ip: IpAddr,
    buf: Vec<u8>,
    seen: usize,
    stage: Stage,
    deadline: Time,
    answered: bool,
    /// Nobody can listen in.
    secure: bool,
    /// The locations told last.
    told: Vec<SocketAddr>,
}

/// The server.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    queue: Queue,
    mesh: Mesh,
    rng: Rng,
    connections: BTreeMap<ConnectionId, Connection>,
    calls: Vec<Call>,
    load: Load,
}

impl Server {
    /// A server without connections.
    pub fn new(config: ServerConfig, rng: Rng) -> Self {
        Self {
            queue: Queue::new(config.queue.clone()),
            mesh: Mesh::new(config.mesh.clone()),
            config,
            rng,
            connections: BTreeMap::new(),
            calls: Vec::new(),
            load: Load::default(),
        }
    }

    /// Uploads at work, and downloaders that wait.
    pub fn figures(&self) -> (usize, usize) {
        (self.queue.running(), self.queue.len())
    }

    /// What a downloader that comes now would get.
    pub fn load(&mut self) -> Load {
        let (running, waiting) = self.figures();
        // Once full, not before a quarter of the places is free: who is told should not hear otherwise at once.
        let most = match self.load {
            Load::Full => self.config.queue.max_places / 4 * 3,
            Load::Free | Load::Busy => self.config.queue.max_places,
        };
        self.load = if waiting >= most.max(1) {
            Load::Full
        } else if waiting == 0 && running < self.config.queue.slots as usize {
            Load::Free
        } else {
            Load::Busy
        };
        self.load
    }

    /// Whom others say to have a file.
    pub fn mesh(&mut self) -> &mut Mesh {
        &mut self.mesh
    }

    /// A downloader connected, or was connected to. False: there is no room for it, and the
    /// connection is to be closed without a word.
    pub fn open(&mut self, now: Time, connection: ConnectionId, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let of_host = self.connections.values().filter(|c| c.ip == ip).count();
        if self.connections.len() >= self.config.max_connections
            || of_host >= self.config.max_per_host
        {
            return false;
        }
        let new = Connection {
            ip,
            buf: Vec::new(),
            seen: 0,
            stage: Stage::Head,
            deadline: now + self.config.head_timeout,
            answered: false,
            secure: false,
            told: Vec::new(),
        };
        self.connections.insert(connection, new);
        true
    }

    /// The connection began with TLS.
    pub fn secured(&mut self, connection: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.secure = true;
        }
    }

    /// Whether bytes of this connection can be taken in: while a body goes out, no more than a head
    /// is kept.
    pub fn wants_bytes(&self, connection: ConnectionId) -> bool {
        let connection = self.connections.get(&connection);
        connection.is_some_and(|c| c.stage == Stage::Head || c.buf.len() < MAX_HEAD)
    }

    /// Bytes came.
    pub fn on_bytes(
        &mut self,
        now: Time,
        id: ConnectionId,
        bytes: &[u8],
        files: &dyn Files,
        out: &mut Vec<Effect>,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.buf.is_empty() && connection.stage == Stage::Head {
            // From its first byte on a head has so long, however it is drawn out; a downloader
            // that waits in the queue had longer before.
            connection.deadline = now + self.config.head_timeout;
        }
        connection.buf.extend_from_slice(bytes);
        self.take_heads(now, id, files, out);
    }

    /// Bytes of a body went out.
    pub fn on_progress(&mut self, now: Time, id: ConnectionId, bytes: u64) {
        if let Some(connection) = self.connections.get_mut(&id)
            && let Stage::Body { progress, .. } = &mut connection.stage
        {
            *progress += bytes;
            if *progress >= self.config.min_progress {
                *progress = 0;
                connection.deadline = now + self.config.stall_timeout;
            }
        }
    }

    /// A body is through.
    pub fn on_sent(
        &mut self,
        now: Time,
        id: ConnectionId,
        files: &dyn Files,
        out: &mut Vec<Effect>,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let Stage::Body { keep, .. } = connection.stage else {
            return;
        };
        connection.stage = Stage::Head;
        connection.deadline = now + self.config.idle_timeout;
        if keep {
            self.take_heads(now, id, files, out);
        } else {
            self.end(now, id, out);
        }
    }

    /// A Push went, or there is no way to the servent.
    pub fn on_pushed(
        &mut self,
        now: Time,
        id: ConnectionId,
        sent: bool,
        files: &dyn Files,
        out: &mut Vec<Effect>,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let Stage::Push { keep } = connection.stage else {
            return;
        };
        connection.stage = Stage::Head;
        let answer = self.pushed(id, sent, keep);
        self.send(now, id, answer, out);
        self.take_heads(now, id, files, out);
    }

    /// The connection is gone.
    pub fn close(&mut self, now: Time, id: ConnectionId, out: &mut Vec<Effect>) {
        if self.connections.remove(&id).is_some() {
            self.queue.release(now, id, &mut self.calls);
            out.extend(self.calls.drain(..).map(Effect::Call));
        }
    }

    fn end(&mut self, now: Time, id: ConnectionId, out: &mut Vec<Effect>) {
        self.close(now, id, out);
        out.push(Effect::Close { connection: id });
    }

    /// When [`Self::tick`] is next wanted.
    pub fn deadline(&self) -> Option<Time> {
        let all = self.connections.values().map(|c| Some(c.deadline));
        all.fold(self.queue.deadline(), earliest)
    }

    /// What the clock brings: connections that take too long end, places that nobody came back to
    /// are called or given up.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Effect>) {
        let late = self.connections.iter().filter(|(_, c)| c.deadline <= now);
        let late: Vec<_> = late.map(|(id, _)| *id).collect();
        for id in late {
            self.end(now, id, out);
        }
        self.queue.tick(now, &mut self.calls);
        out.extend(self.calls.drain(..).map(Effect::Call));
    }

    /// Answers the requests that are there, until a body goes out.
    fn take_heads(
        &mut self,
        now: Time,
        id: ConnectionId,
        files: &dyn Files,
        out: &mut Vec<Effect>,
    ) {
        while let Some(connection) = self.connections.get_mut(&id) {
            if connection.stage != Stage::Head {
                return;
            }
            let request = match head_len(&connection.buf, connection.seen) {
                Ok(None) => {
                    connection.seen = connection.buf.len();
                    return;
                }
                Ok(Some(len)) => {
                    let head: Vec<u8> = connection.buf.drain(..len).collect();
                    connection.seen = 0;
                    Request::read(&head)
                }
                Err(error) => Err(error),
            };
            if let Ok(request) = &request
                && self.begin_push(id, request, out)
            {
                return;
            }
            if request.as_ref().is_ok_and(|r| r.upgrades) {
                self.change_to_tls(id, out);
            }
            let answer = match request {
                Ok(request) => self.answer(now, id, &request, files),
                Err(HeadError::Syntax) => Answer::error(400, &self.config.agent),
                Err(HeadError::TooLong | HeadError::TooMany) => {
                    Answer::error(431, &self.config.agent)
                }
            };
            self.send(now, id, answer, out);
        }
    }

    /// Begins what a push proxy is asked for, if it is that, and the downloader is where the servent is
    /// to connect to.
    fn begin_push(&mut self, id: ConnectionId, request: &Request, out: &mut Vec<Effect>) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else {
            return false;
        };
        let ip = connection.ip;
        let node = request.node.filter(|node| node.ip().to_canonical() == ip);
        let (Target::PushProxy(servent), Some(to)) = (&request.target, node) else {
            return false;
        };
        connection.stage = Stage::Push {
            keep: request.keep_alive,
        };
        out.push(Effect::Push {
            connection: id,
            servent: *servent,
            to,
        });
        true
    }

    /// Changes to TLS before a request is answered that asks for it (RFC 2817 §3.3), unless more came
    /// behind it in clear.
    fn change_to_tls(&mut self, id: ConnectionId, out: &mut Vec<Effect>) {
        let offered = self.config.tls;
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if !offered || connection.secure || !connection.buf.is_empty() {
            return;
        }
        connection.secure = true;
        let mut head = HeadWriter::new(101, &self.config.agent);
        head.field("Upgrade", "TLS/1.0, HTTP/1.1");
        head.field("Connection", "Upgrade");
        out.push(Effect::Send {
            connection: id,
            bytes: head.finish(),
        });
        out.push(Effect::Secure { connection: id });
    }

    fn send(&mut self, now: Time, id: ConnectionId, answer: Answer, out: &mut Vec<Effect>) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.answered = true;
        connection.deadline = now + answer.idle.unwrap_or(self.config.idle_timeout);
        let mut bytes = answer.head;
        if let Body::Bytes(body) = &answer.body {
            bytes.extend_from_slice(body);
        }
        out.push(Effect::Send {
            connection: id,
            bytes,
        });
        match answer.body {
            Body::File { file, sha1, range } => {
                connection.deadline = now + self.config.stall_timeout;
                connection.stage = Stage::Body {
                    progress: 0,
                    keep: answer.keep,
                };
                out.push(Effect::SendFile {
                    connection: id,
                    file,
                    sha1,
                    range,
                });
            }
            Body::None | Body::Bytes(_) if !answer.keep => self.end(now, id, out),
            Body::None | Body::Bytes(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
