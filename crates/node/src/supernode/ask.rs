//! Asking the login server and the list of supernodes.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use shoal_supernode::list::{Entry, Registration};
use shoal_supernode::login::prove;
use shoal_supernode::token::{Key, Token};
use shoal_supernode::wire::{Answer, Ask, Refusal};

use super::frames::{Frames, say};

const PATIENCE: Duration = Duration::from_secs(5);

/// Why a server was of no use.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It cannot be reached, or is none.
    #[error("the server cannot be reached")]
    Io(#[from] io::Error),
    /// It says no.
    #[error("the server refuses: {0}")]
    Refused(Refusal),
    /// It answers something else than what was asked.
    #[error("the server does not speak the protocol")]
    Nonsense,
}

pub(super) struct Asking {
    stream: TcpStream,
    frames: Frames,
}

impl Asking {
    pub(super) fn open(server: SocketAddr) -> Result<Self, AskError> {
        let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let frames = Frames::new(stream.try_clone()?);
        Ok(Self { stream, frames })
    }

    pub(super) fn ask(&mut self, what: &Ask<SocketAddr>) -> Result<Answer<SocketAddr>, AskError> {
        say(&mut self.stream, what)?;
        match self.frames.next()? {
            Some(Answer::Refused(why)) => Err(AskError::Refused(why)),
            Some(answer) => Ok(answer),
            None => Err(AskError::Io(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// What a login server granted.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The token.
    pub token: Token,
    /// The server's own key.
    pub by: Key,
    /// The address that we have on the way to it.
    pub own: IpAddr,
}

/// Claims a name for a key.
///
/// # Errors
/// Why not.
pub fn claim(server: SocketAddr, name: &str, key: &SigningKey) -> Result<Granted, AskError> {
    let mut asking = Asking::open(server)?;
    let own = key.verifying_key().to_bytes();
    let Answer::Challenge(nonce, by) = asking.ask(&Ask::Claim(name.to_owned(), own))? else {
        return Err(AskError::Nonsense);
    };
    let seal = prove(key, &nonce, &by, name);
    match asking.ask(&Ask::Prove(seal))? {
        Answer::Granted(token) if token.key == own => Ok(Granted {
            token,
            by,
            own: asking.stream.local_addr()?.ip(),
        }),
        _ => Err(AskError::Nonsense),
    }
}

/// The supernodes that a list knows.
///
/// # Errors
/// Why not.
pub fn supernodes(server: SocketAddr) -> Result<Vec<Entry<SocketAddr>>, AskError> {
    match Asking::open(server)?.ask(&Ask::List)? {
        Answer::List(entries) => Ok(entries),
        _ => Err(AskError::Nonsense),
    }
}

/// Tells a list of a supernode.
pub(super) fn register(
    server: SocketAddr,
    said: Box<Registration<SocketAddr>>,
) -> Result<(), AskError> {
    match Asking::open(server)?.ask(&Ask::Register(said))? {
        Answer::Registered => Ok(()),
        _ => Err(AskError::Nonsense),
    }
}
