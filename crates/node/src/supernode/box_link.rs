//! A link to a supernode's boxes: two threads, made when there is something to say or to hear.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use ed25519_dalek::SigningKey;
use shoal_call::mailbox::wire::{
    Found, MAGIC, Say, Told, Unkept, Why, ack, client_proof, is_server,
};
use shoal_call::mailbox::{Envelope, LetterId};
use shoal_supernode::names::certificate::Certificate;
use shoal_supernode::token::Key;

use super::frames::{Frames, say};

const PATIENCE: Duration = Duration::from_secs(5);
/// How often a silent link is asked, and after how long without an answer it is lost.
const PING: Duration = Duration::from_secs(20);
const LOST: Duration = Duration::from_secs(45);
/// Letters that may wait for a link.
const QUEUE: usize = 4096;
const STACK: usize = 256 << 10;

/// What a link tells.
#[derive(Debug)]
pub(super) enum Heard {
    /// It is there, with a supernode that has this key.
    Up(Key),
    /// A letter of ours.
    Mail(Envelope),
    /// A letter is kept, or why not.
    Put(LetterId, Result<(), Why>),
    /// Our record is kept by so many nodes of the ring of names, or why not.
    Published(Result<u32, Unkept>),
    /// What the ring of names has of a name.
    Looked(String, Found),
    /// It is gone.
    Down(String),
}

enum Order {
    Put(Envelope),
    Ack(Vec<LetterId>),
    Publish(Vec<u8>),
    Look(String),
}

/// Who we are on links.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) key: SigningKey,
    pub(super) certificate: Certificate,
}

/// A link. Dropping it ends it.
pub(super) struct BoxLink(Sender<Order>);

impl BoxLink {
    /// Connects to `addr`, whose key must be `expected` if that is named. With `open` what is in our box
    /// comes. What happens goes to `tell`, which says whether anybody still listens.
    pub(super) fn open(
        addr: SocketAddr,
        expected: Option<Key>,
        open: bool,
        caller: Caller,
        tell: impl Fn(Heard) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, waiting) = bounded(QUEUE);
        thread::Builder::new()
            .name("box-link".into())
            .stack_size(STACK)
            .spawn(move || {
                let ended = match run(addr, expected, open, &caller, waiting, &tell) {
                    Ok(()) => "it ended the link".to_owned(),
                    Err(error) => error.to_string(),
                };
                tell(Heard::Down(ended));
            })?;
        Ok(Self(orders))
    }

    /// Puts a letter into its recipient's box; false: too much waits, or the link is gone.
    pub(super) fn put(&self, envelope: Envelope) -> bool {
        self.0.try_send(Order::Put(envelope)).is_ok()
    }

    /// Tells that we have these letters; what cannot be told now is told when they come again.
    pub(super) fn ack(&self, ids: Vec<LetterId>) {
        let _ = self.0.try_send(Order::Ack(ids));
    }

    /// Puts our record into the ring of names; false: too much waits, or the link is gone.
    pub(super) fn publish(&self, record: Vec<u8>) -> bool {
        self.0.try_send(Order::Publish(record)).is_ok()
    }

    /// Looks for the record of a name in the ring of names; false: as above.
    pub(super) fn look(&self, name: String) -> bool {
        self.0.try_send(Order::Look(name)).is_ok()
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn run(
    addr: SocketAddr,
    expected: Option<Key>,
    open: bool,
    caller: &Caller,
    waiting: Receiver<Order>,
    tell: &impl Fn(Heard) -> bool,
) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&MAGIC)?;
    let own = caller.key.verifying_key().to_bytes();
    let mut nonce = [0; 32];
    let mut filled = 0;
    while let Some(rest) = nonce.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
    }
    let certificate = Box::new(caller.certificate.clone());
    say(&mut stream, &Say::Hello(certificate, nonce))?;
    let mut frames = Frames::new(stream.try_clone()?);
    let (server, theirs) = match frames.next()? {
        Some(Told::Hello(server, theirs, proof)) if is_server(&server, &nonce, &own, &proof) => {
            (server, theirs)
        }
        Some(Told::Refused(_, why)) => return Err(bad(&why.to_string())),
        _ => return Err(bad("it does not prove its key")),
    };
    if expected.is_some_and(|key| key != server) {
        return Err(bad("it has another key"));
    }
    let proof = client_proof(&caller.key, &theirs, &server);
    say(&mut stream, &Say::Proof(proof))?;
    match frames.next()? {
        Some(Told::Welcome) => {}
        Some(Told::Refused(_, why)) => return Err(bad(&why.to_string())),
        _ => return Err(bad("it does not speak the protocol")),
    }
    if open {
        say(&mut stream, &Say::Open)?;
    }
    stream.set_read_timeout(Some(LOST))?;
    tell(Heard::Up(server));
    let key = caller.key.clone();
    thread::Builder::new()
        .name("box-link-out".into())
        .stack_size(STACK)
        .spawn(move || {
            let sent = write(&mut stream, &key, &theirs, &waiting);
            if let Err(error) = sent {
                tracing::debug!(%error, %addr, "a link to boxes");
            }
            let _ = stream.shutdown(std::net::Shutdown::Both);
        })?;
    loop {
        let heard = match frames.next()? {
            Some(Told::Mail(envelope)) => Heard::Mail(envelope),
            Some(Told::Stored(id)) => Heard::Put(id, Ok(())),
            Some(Told::Refused(Some(id), why)) => Heard::Put(id, Err(why)),
            Some(Told::Refused(None, why)) => return Err(bad(&why.to_string())),
            Some(Told::Published(result)) => Heard::Published(result),
            Some(Told::Looked(name, found)) => Heard::Looked(name, found),
            Some(Told::Pong) => continue,
            Some(Told::Hello(..) | Told::Welcome) => return Err(bad("said out of turn")),
            None => return Ok(()),
        };
        if !tell(heard) {
            return Ok(());
        }
    }
}

fn write(
    stream: &mut TcpStream,
    key: &SigningKey,
    nonce: &[u8; 32],
    waiting: &Receiver<Order>,
) -> io::Result<()> {
    loop {
        match waiting.recv_timeout(PING) {
            Ok(Order::Put(envelope)) => say(stream, &Say::Put(envelope))?,
            Ok(Order::Ack(ids)) => {
                let seal = ack(key, nonce, &ids);
                say(stream, &Say::Ack(ids, seal))?;
            }
            Ok(Order::Publish(record)) => say(stream, &Say::Publish(record))?,
            Ok(Order::Look(name)) => say(stream, &Say::Look(name))?,
            Err(RecvTimeoutError::Timeout) => say(stream, &Say::Ping)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}
