//! Connections that speak the overlay's wire by hand.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use serde::Serialize;
use shoal_node::supernode::claim;
use shoal_supernode::list::Registration;
use shoal_supernode::token::{Key, Presence, Sealed, Token};
use shoal_supernode::wire::{
    self, Answer, Ask, File, Hit, MAX_BATCH, Message, Purpose, VERSION, Wanted,
};
use socket2::{Domain, Socket, Type};

use super::{bytes_of, hit};

/// How long a supernode may take to answer an attacker.
const PATIENCE: Duration = Duration::from_secs(2);

/// An address of loopback that only attackers have.
fn host(group: u8, n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 9, group, n + 1)
}

/// Connects from an attacker's address; none if nobody takes it.
pub(super) fn connect(to: SocketAddr, group: u8, n: u8) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    socket
        .bind(&SocketAddr::new(host(group, n).into(), 0).into())
        .ok()?;
    socket.connect_timeout(&to.into(), PATIENCE).ok()?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    Some(stream)
}

/// Somebody with a token of the overlay's own login server.
#[derive(Clone)]
pub(super) struct Identity {
    key: SigningKey,
    host: Ipv4Addr,
    pub(super) presence: Presence<SocketAddr>,
}

impl Identity {
    /// Claims a name, for a host of the attackers'.
    pub(super) fn claim(login: &str, name: &str, n: u8) -> Self {
        let mut secret = [7; 32];
        let bytes = name.as_bytes();
        secret[..bytes.len()].copy_from_slice(bytes);
        let key = SigningKey::from_bytes(&secret);
        let granted = claim(login.parse().expect("an address"), name, &key).expect("granted");
        let host = host(3, n);
        let at = SocketAddr::new(host.into(), 9);
        let presence = Presence::new(&key, granted.token, at, Some(at));
        Self {
            key,
            host,
            presence,
        }
    }

    fn token(&self) -> Token {
        self.presence.token.clone()
    }

    /// Tells the list of a supernode at its host; whether it is taken.
    pub(super) fn register(&self, list: &str, port: u16) -> bool {
        let at = SocketAddr::new(self.host.into(), port);
        let presence = Presence::new(&self.key, self.token(), at, None);
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
        let unix = since.expect("after 1970").as_secs();
        let said = Registration::new(&self.key, presence, 0, unix);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let from = SocketAddr::new(self.host.into(), 0);
        socket.bind(&from.into()).expect("its host");
        let list: SocketAddr = list.parse().expect("an address");
        socket.connect(&list.into()).expect("it listens");
        let mut stream = TcpStream::from(socket);
        let ask: Ask<SocketAddr> = Ask::Register(Box::new(said));
        send(&mut stream, &ask).expect("sent");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let mut buf = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            if let Ok(Some((answer, _))) = wire::decode::<Answer<SocketAddr>>(&buf) {
                return matches!(answer, Answer::Registered);
            }
            match stream.read(&mut chunk) {
                Ok(n) if n > 0 => buf.extend_from_slice(&chunk[..n]),
                _ => return false,
            }
        }
    }
}

fn send(stream: &mut TcpStream, message: &impl Serialize) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    wire::encode(message, &mut bytes);
    stream.write_all(&bytes)
}

/// How somebody lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forger {
    Own,
    Invented,
    Unasked,
}

/// A file that nobody has.
pub(super) fn own_file(path: &str, n: usize) -> File {
    let mut sha1 = [0xee; 20];
    sha1[..8].copy_from_slice(&(n as u64).to_le_bytes());
    File {
        path: path.to_owned(),
        size: 4_000_000,
        sha1,
        tiger: Some([0xee; 24]),
        sound: None,
    }
}

/// A link to a supernode.
pub(super) struct Link {
    stream: TcpStream,
    buf: Vec<u8>,
    asked: u64,
}

impl Link {
    /// Says the first word, and no more.
    pub(super) fn greet(stream: TcpStream, who: &Identity, purpose: Purpose) -> Option<Self> {
        let mut link = Self {
            stream,
            buf: Vec::new(),
            asked: 0,
        };
        let hello = Message::Hello {
            version: VERSION,
            purpose,
            presence: who.presence.clone(),
            nonce: [5; 32],
        };
        link.stream.write_all(&bytes_of(&hello)).ok()?;
        Some(link)
    }

    /// A link that is let in, from the host that its owner tells.
    pub(super) fn open(to: SocketAddr, who: &Identity, purpose: Purpose) -> Option<Self> {
        let [_, _, group, n] = who.host.octets();
        let mut link = Self::greet(connect(to, group, n - 1)?, who, purpose)?;
        let (mut nonce, mut theirs): ([u8; 32], Key) = ([0; 32], [0; 32]);
        loop {
            match link.next()? {
                Message::Hello {
                    nonce: said,
                    presence,
                    ..
                } => (nonce, theirs) = (said, presence.token.key),
                Message::Proof(_) => {
                    let seal = Sealed::new(&who.key, "link", &(nonce, [5u8; 32], theirs));
                    let proof = Message::<SocketAddr>::Proof(seal);
                    link.stream.write_all(&bytes_of(&proof)).ok()?;
                }
                Message::Welcome(_) => return Some(link),
                Message::Refuse(..) => return None,
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Option<Message<SocketAddr>> {
        let mut chunk = [0; 16 << 10];
        loop {
            if let Some((message, used)) = wire::decode(&self.buf).ok()? {
                self.buf.drain(..used);
                return Some(message);
            }
            match self.stream.read(&mut chunk) {
                Ok(n) if n > 0 => self.buf.extend_from_slice(&chunk[..n]),
                _ => return None,
            }
        }
    }

    /// Takes what came, if anything did; answers those who ask whether it is there.
    fn drain(&mut self) {
        let short = Some(Duration::from_millis(1));
        let _ = self.stream.set_read_timeout(short);
        while let Some(message) = self.next() {
            if message == Message::Ping {
                let _ = self.stream.write_all(&bytes_of(&Message::Pong));
            }
        }
    }

    /// Asks for something, as a new question each time.
    pub(super) fn ask(&mut self, wanted: Wanted, ttl: u8) {
        self.asked += 1;
        let mut id = [9; 16];
        id[..8].copy_from_slice(&self.asked.to_le_bytes());
        let port = self.stream.local_addr().map_or(0, |a| a.port());
        id[8..10].copy_from_slice(&port.to_le_bytes());
        let query = Message::<SocketAddr>::Query { id, wanted, ttl };
        // It may have been cut off.
        let _ = self.stream.write_all(&bytes_of(&query));
        if self.asked.is_multiple_of(50) {
            self.drain();
        }
    }

    /// Waits for a question and lies; whether the link is still there.
    pub(super) fn lie(&mut self, who: &Identity, how: Forger) -> bool {
        let wait = Some(Duration::from_millis(100));
        let _ = self.stream.set_read_timeout(wait);
        if how == Forger::Unasked {
            let hits = vec![hit(who, "song of peer1", 0)];
            let message = Message::Hits([1; 16], hits);
            std::thread::sleep(Duration::from_millis(5)); // The rate of the attack.
            self.drain();
            return self.stream.write_all(&bytes_of(&message)).is_ok();
        }
        let (id, words) = match self.next() {
            Some(Message::Query {
                id,
                wanted: Wanted::Words(words),
                ..
            }) => (id, words),
            Some(Message::Ping) => {
                return self.stream.write_all(&bytes_of(&Message::Pong)).is_ok();
            }
            Some(Message::Refuse(..)) => return false,
            Some(_) => return true,
            None => return !self.is_over(),
        };
        let mut hits: Vec<Hit<SocketAddr>> = (0..MAX_BATCH).map(|n| hit(who, &words, n)).collect();
        if how == Forger::Invented {
            for hit in &mut hits {
                hit.sharer.token.name = "somebody".to_owned();
            }
        }
        self.stream
            .write_all(&bytes_of(&Message::Hits(id, hits)))
            .is_ok()
    }

    /// Whether the other end has closed it.
    fn is_over(&self) -> bool {
        matches!(self.stream.peek(&mut [0]), Ok(0))
    }
}
