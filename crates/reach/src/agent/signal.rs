//! What two nodes tell each other, in sealed letters, so that their agents can meet.

use crate::sealed::{MAX_LETTER, OVERHEAD};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Candidates of one signal at most.
pub const MAX_CANDIDATES: usize = 24;
/// Bytes of a name or password of checks at most.
const MAX_SECRET: usize = 32;

/// What kind of address a candidate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Of one of its own interfaces.
    Host,
    /// As others see it behind a NAT.
    Mapped,
    /// At a relay.
    Relayed,
}

/// Where a node may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Candidate {
    /// What kind of address.
    pub kind: Kind,
    /// The address.
    pub addr: SocketAddr,
}

/// What checks are made with (RFC 8445 §5.3: ice-ufrag and ice-pwd).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({})", self.name)
    }
}

/// One signal. Either side sends it again until the other tells that it has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// When the sender's agent began, in microseconds since 1970: of two agents of one node the later
    /// one counts, so that old letters change nothing.
    pub born: u64,
    /// What the receiver's checks are to be made with.
    pub login: Login,
    /// Counts what the sender has to tell; the higher number holds.
    pub seq: u32,
    /// What the sender has of the receiver: the name of its login, and its number.
    pub has: Option<(String, u32)>,
    /// Whether the sender waits to hear that the receiver has this.
    pub asks: bool,
    /// Where the sender may be reached.
    pub candidates: Vec<Candidate>,
}

/// Bytes that are no signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a signal")]
pub struct NoSignal;

impl Signal {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        // Plain data: its encoding cannot fail.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is none, or one with too much in it.
    pub fn decode(bytes: &[u8]) -> Result<Self, NoSignal> {
        if bytes.len() > MAX_LETTER - OVERHEAD {
            return Err(NoSignal);
        }
        let (signal, rest): (Self, _) = postcard::take_from_bytes(bytes).map_err(|_| NoSignal)?;
        let fits = |text: &str| (4..=MAX_SECRET).contains(&text.len());
        let whole = rest.is_empty()
            && signal.candidates.len() <= MAX_CANDIDATES
            && fits(&signal.login.name)
            && signal.login.password.len() >= 16
            && fits(&signal.login.password);
        whole.then_some(signal).ok_or(NoSignal)
    }
}

/// Whether an address is one that packets are sent to, whoever names it.
pub(super) fn may_try(addr: SocketAddr) -> bool {
    let ip = addr.ip().to_canonical();
    let broadcast = matches!(ip, std::net::IpAddr::V4(ip) if ip.is_broadcast());
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signal(candidates: usize) -> Signal {
        let addr = ([192, 0, 2, 1], 7).into();
        let kind = Kind::Mapped;
        Signal {
            born: 5,
            login: Login {
                name: "abcdefgh".into(),
                password: "0123456789abcdef01234567".into(),
            },
            seq: 3,
            has: Some(("ijklmnop".into(), 2)),
            asks: true,
            candidates: vec![Candidate { kind, addr }; candidates],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let some = signal(MAX_CANDIDATES);
        let bytes = some.encode();
        assert!(bytes.len() + OVERHEAD <= MAX_LETTER);
        assert_eq!(Signal::decode(&bytes), Ok(some));
        let more = signal(MAX_CANDIDATES + 1);
        assert_eq!(Signal::decode(&more.encode()), Err(NoSignal));
        let mut weak = signal(1);
        weak.login.password = "short".into();
        assert_eq!(Signal::decode(&weak.encode()), Err(NoSignal));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Signal::decode(&bytes);
        }
    }
}
