//! What a session is given and tells: candidates, how far it is, how it ended.

use super::{ENCRYPTION_TIME, PATH_TIME, SILENT_TIME, SOUND_TIME};
use crate::media::CodecError;
use std::net::SocketAddr;
use str0m::Candidate;

/// A way to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OurCandidate {
    /// A socket's own address, or one that a router passes on to it.
    Host(SocketAddr),
    /// What a STUN server sees a socket of ours as.
    Reflexive {
        /// The address seen.
        address: SocketAddr,
        /// The socket's.
        base: SocketAddr,
    },
    /// An address at a relay.
    Relayed {
        /// The relay's address that is ours.
        address: SocketAddr,
        /// The socket's from which we reach the relay.
        base: SocketAddr,
    },
}

/// The parts of a call's beginning, of which each may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leg {
    /// The answer is awaited.
    Answer,
    /// Ways between the ends are tried.
    Path,
    /// A way was found; keys are agreed on.
    Encryption,
    /// Keys are there; no sound came yet.
    Sound,
    /// Sound comes.
    Talking,
}

/// Why a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// No pair of candidates got an answer.
    #[error("no path: of {pairs} ways between the two ends none answered in {} s", PATH_TIME.as_secs())]
    NoPath {
        /// Pairs of candidates.
        pairs: usize,
    },
    /// The path is there, but DTLS did not come to an end, or with another certificate.
    #[error("no encryption: a path is there, but no keys were agreed on in {} s", ENCRYPTION_TIME.as_secs())]
    NoEncryption,
    /// The certificate is not the one that was signed, or DTLS failed.
    #[error(
        "no encryption: the certificate is not the one that was announced, or the handshake failed"
    )]
    Certificate,
    /// All is there, but no sound came.
    #[error("no sound: the call is connected, but nothing was heard in {} s", SOUND_TIME.as_secs())]
    NoSound,
    /// The path stopped working.
    #[error("the path broke: nothing came for {} s", SILENT_TIME.as_secs())]
    PathLost,
    /// The other end hung up.
    #[error("the other end hung up")]
    Remote,
    /// We did.
    #[error("hung up")]
    Local,
    /// The codec failed.
    #[error("the codec failed")]
    Codec,
}

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The other end's description cannot be used.
    #[error("the other end's description cannot be used: {0}")]
    Description(String),
    /// It holds no sound in Opus that both can send and receive.
    #[error("the other end offers no sound that we know (Opus, both ways)")]
    NoAudio,
    /// No answer is awaited.
    #[error("no answer is awaited")]
    NotWaiting,
    /// A candidate is none.
    #[error("{0} is no address for a call")]
    Candidate(SocketAddr),
    /// Opus.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// The socket's address, or the relayed address through which it goes.
    pub source: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What a session has to tell.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// The next part of the call's beginning was reached.
    Reached(Leg),
    /// The call uses another path than before, or its first.
    Path {
        /// Our end.
        local: SocketAddr,
        /// The other.
        remote: SocketAddr,
        /// Through a relay of ours.
        our_relay: bool,
        /// Through a relay of theirs.
        their_relay: bool,
    },
    /// It is over. Nothing follows.
    Ended(Ended),
}

pub(super) fn refused(error: &dyn std::fmt::Display) -> SessionError {
    // What a stranger wrote may stand in it: not too much of that.
    SessionError::Description(
        error
            .to_string()
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect(),
    )
}

impl OurCandidate {
    pub(super) fn to_ice(self) -> Result<Candidate, SessionError> {
        let (address, candidate) = match self {
            Self::Host(address) => (address, Candidate::host(address, "udp")),
            Self::Reflexive { address, base } => {
                (address, Candidate::server_reflexive(address, base, "udp"))
            }
            Self::Relayed { address, base } => (address, Candidate::relayed(address, base, "udp")),
        };
        candidate.map_err(|_| SessionError::Candidate(address))
    }
}
