//! The handshake: a challenge in both directions, answered with HMAC-SHA-256 over the secret.
//!
//! ```text
//! client → server   "shoalmr1" | role (u8) | nonce (32)
//! server → client   nonce (32) | HMAC(secret, "server" | role | client's nonce | server's nonce)
//! client → server   HMAC(secret, "client" | role | client's nonce | server's nonce)
//! server → client   1 (u8)
//! ```
//!
//! Without a secret only loopback is let in. What follows is neither encrypted nor signed: run a
//! cluster inside a network whose wires you trust.

use super::control::Entrance;
use super::identity::{self, Identity};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use shoal_mapreduce::master::Owner;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const MAGIC: &[u8; 8] = b"shoalmr1";
/// Who does not get through the handshake in this time is not served.
const PATIENCE: Duration = Duration::from_secs(10);
/// A secret shorter than this could be guessed.
const SECRET_MIN: usize = 16;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A worker's messages to its master.
    Control,
    /// Bulk.
    Data,
    /// Submitting jobs and asking about them.
    Client,
}

impl Role {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Control => 1,
            Self::Data => 2,
            Self::Client => 3,
        }
    }

    const fn from_number(n: u8) -> Option<Self> {
        match n {
            1 => Some(Self::Control),
            2 => Some(Self::Data),
            3 => Some(Self::Client),
            _ => None,
        }
    }
}

/// What the machines of a cluster share; possibly nothing.
#[derive(Clone, Default)]
pub struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() {
            "Secret(none)"
        } else {
            "Secret(…)"
        })
    }
}

impl Secret {
    /// Reads a secret from a file; white space at its ends does not count.
    ///
    /// # Errors
    /// When it cannot be read or is too short.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = std::fs::read(path)?;
        let secret = text.trim_ascii();
        if secret.len() < SECRET_MIN {
            let what = format!("a secret has at least {SECRET_MIN} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Self(secret.to_vec()))
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    fn mac(&self, who: &[u8], role: Role, client: &[u8; 32], server: &[u8; 32]) -> Hmac<Sha256> {
        let mut mac = match Hmac::<Sha256>::new_from_slice(&self.0) {
            Ok(mac) => mac,
            // HMAC takes keys of any length.
            Err(_) => unreachable_mac(),
        };
        mac.update(who);
        mac.update(&[role.number()]);
        mac.update(client);
        mac.update(server);
        mac
    }
}

fn unreachable_mac() -> Hmac<Sha256> {
    Hmac::<Sha256>::new(&hmac::digest::Key::<Hmac<Sha256>>::default())
}

/// Ways to machines besides TCP, by addresses of their own.
pub trait Ways: Send + Sync + std::fmt::Debug {
    /// Connects to an address that this leads to; none: it leads elsewhere.
    fn dial(&self, to: SocketAddr) -> Option<io::Result<TcpStream>>;

    /// Lets those in who come this way to the port; the address that they come to.
    ///
    /// # Errors
    /// The port is taken.
    fn listen(&self, port: u16, entrance: Entrance) -> io::Result<SocketAddr>;
}

/// How this end proves who it is when it connects, and by which ways it does.
#[derive(Debug, Clone)]
pub struct Pass {
    proof: Proof,
    ways: Option<Arc<dyn Ways>>,
}

#[derive(Debug, Clone)]
enum Proof {
    /// By the cluster's secret; to strangers, whose addresses begin with a key, by a key of its own.
    Own(Secret, Identity),
    /// By its key alone.
    Stranger(Identity),
}

impl Pass {
    /// One of a cluster with this secret.
    pub fn own(secret: Secret) -> Self {
        Self::member(secret, Identity::fresh())
    }

    /// One of a cluster with this secret, that strangers know by a key.
    pub fn member(secret: Secret, identity: Identity) -> Self {
        let (proof, ways) = (Proof::Own(secret, identity), None);
        Self { proof, ways }
    }

    /// A stranger with this key.
    pub fn stranger(identity: Identity) -> Self {
        let (proof, ways) = (Proof::Stranger(identity), None);
        Self { proof, ways }
    }

    /// Connects by these ways too.
    #[must_use]
    pub fn by(self, ways: Option<Arc<dyn Ways>>) -> Self {
        Self { ways, ..self }
    }

    /// The ways that there are besides TCP.
    pub fn ways(&self) -> Option<&Arc<dyn Ways>> {
        self.ways.as_ref()
    }

    /// Whether it is no cluster of one's own.
    pub const fn is_stranger(&self) -> bool {
        matches!(self.proof, Proof::Stranger(_))
    }

    pub(super) const fn identity(&self) -> &Identity {
        match &self.proof {
            Proof::Own(_, identity) | Proof::Stranger(identity) => identity,
        }
    }

    /// Whom a worker lets in that connects so. Strangers that work for the same master as one of
    /// its own: while `shares` says so.
    pub fn door(&self, shares: impl Fn() -> bool + Send + Sync + 'static) -> Door {
        match &self.proof {
            Proof::Stranger(identity) => Door::strangers(identity.clone()),
            Proof::Own(secret, identity) => {
                Door::own(secret.clone()).and_strangers(identity.clone(), shares)
            }
        }
    }

    /// A connection that is given up soon if nothing comes of it.
    pub(super) fn patient(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let stream = match self.ways.as_ref().and_then(|ways| ways.dial(addr)) {
            Some(dialled) => dialled?,
            None => TcpStream::connect_timeout(&addr, PATIENCE)?,
        };
        limit(&stream)?;
        Ok(stream)
    }
}

/// Whom a listener lets in.
#[derive(Clone)]
pub struct Door {
    secret: Option<Secret>,
    strangers: Option<(Identity, Arc<dyn Fn() -> bool + Send + Sync>)>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("secret", &self.secret)
            .field("strangers", &self.strangers.is_some())
            .finish()
    }
}

impl Door {
    /// For those who know the secret.
    pub fn own(secret: Secret) -> Self {
        Self {
            secret: Some(secret),
            strangers: None,
        }
    }

    /// For strangers alone.
    pub fn strangers(identity: Identity) -> Self {
        Self {
            secret: None,
            strangers: Some((identity, Arc::new(|| true))),
        }
    }

    /// For strangers too, whenever `open` says so.
    #[must_use]
    pub fn and_strangers(
        mut self,
        identity: Identity,
        open: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        self.strangers = Some((identity, Arc::new(open)));
        self
    }

    pub(super) const fn takes_strangers(&self) -> bool {
        self.strangers.is_some()
    }

    /// Whether it may be listened at an address that others can reach.
    pub(super) fn may_be_public(&self) -> bool {
        match &self.secret {
            Some(secret) => !secret.is_none() || self.strangers.is_some(),
            None => true,
        }
    }
}

pub(super) fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, what)
}

fn limit(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// An end in the middle of a handshake means that the other end wants nothing to do with us.
pub(super) fn no_answer(e: io::Error, what: &str) -> io::Error {
    match e.kind() {
        // A reset, if it did not even read all that was said.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => refused(what),
        _ => e,
    }
}

/// Ends the handshake's time limits.
pub(super) fn settled(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)
}

/// Connects to `HOST:PORT` or `KEY@HOST:PORT`, and proves both ends to each other.
///
/// # Errors
/// When nobody answers, or one end does not prove who it is.
pub fn connect(addr: &str, role: Role, pass: &Pass) -> io::Result<TcpStream> {
    let (key, addr) = identity::split_addr(addr)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no such address");
    for addr in std::net::ToSocketAddrs::to_socket_addrs(addr)? {
        let connected = pass
            .patient(addr)
            .and_then(|stream| match (key, &pass.proof) {
                (None, Proof::Own(secret, _)) => greet(stream, role, secret),
                _ => identity::greet(stream, role, pass.identity(), key.as_ref()),
            });
        match connected {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn greet(mut stream: TcpStream, role: Role, secret: &Secret) -> io::Result<TcpStream> {
    let ours: [u8; 32] = crate::engine::random();
    let mut hello = MAGIC.to_vec();
    hello.push(role.number());
    hello.extend_from_slice(&ours);
    stream.write_all(&hello)?;
    let mut theirs = [0; 32];
    let mut proof = [0; 32];
    let none = |e| no_answer(e, "the other end refuses: no secret is shared");
    stream.read_exact(&mut theirs).map_err(none)?;
    stream.read_exact(&mut proof).map_err(none)?;
    let mac = secret.mac(b"server", role, &ours, &theirs);
    if mac.verify_slice(&proof).is_err() {
        return Err(refused("the other end does not know the secret"));
    }
    let mac = secret.mac(b"client", role, &ours, &theirs);
    stream.write_all(&mac.finalize().into_bytes())?;
    let mut ok = [0];
    stream.read_exact(&mut ok).map_err(none)?;
    settled(&stream)?;
    Ok(stream)
}

/// Answers the handshake of somebody who connected from there.
///
/// # Errors
/// When they do not know the secret, or come from elsewhere while there is none; of a stranger, when
/// none is let in or it does not prove its key.
pub fn accept(stream: &mut TcpStream, from: IpAddr, door: &Door) -> io::Result<(Role, Owner)> {
    limit(stream)?;
    let mut hello = [0; 41];
    stream.read_exact(&mut hello)?;
    let (magic, rest) = hello.split_at(MAGIC.len());
    let role = rest.first().copied().and_then(Role::from_number);
    let known = magic == MAGIC || magic == identity::MAGIC;
    let (Some(role), true) = (role, known) else {
        return Err(refused("this is no connection of a shoal cluster"));
    };
    let mut theirs = [0; 32];
    theirs.copy_from_slice(rest.get(1..).unwrap_or_default());
    if magic == identity::MAGIC {
        let open = door.strangers.as_ref().filter(|(_, open)| open());
        let (identity, _) = open.ok_or_else(|| refused("a stranger knocked"))?;
        if role == Role::Client {
            return Err(refused("a stranger wanted to submit jobs"));
        }
        let key = identity::accept(stream, role, theirs, identity)?;
        stream.write_all(&[1])?;
        settled(stream)?;
        return Ok((role, Owner::Stranger(key)));
    }
    let secret = door.secret.as_ref();
    let secret = secret.ok_or_else(|| refused("only strangers are let in here"))?;
    if secret.is_none() && !from.to_canonical().is_loopback() {
        return Err(refused(
            "there is no secret, so only this machine is let in",
        ));
    }
    let ours: [u8; 32] = crate::engine::random();
    let mac = secret.mac(b"server", role, &theirs, &ours);
    let mut answer = ours.to_vec();
    answer.extend_from_slice(&mac.finalize().into_bytes());
    stream.write_all(&answer)?;
    let mut proof = [0; 32];
    stream.read_exact(&mut proof)?;
    let mac = secret.mac(b"client", role, &theirs, &ours);
    if mac.verify_slice(&proof).is_err() {
        return Err(refused("they do not know the secret"));
    }
    stream.write_all(&[1])?;
    settled(stream)?;
    Ok((role, Owner::Own))
}

#[cfg(test)]
mod tests;
