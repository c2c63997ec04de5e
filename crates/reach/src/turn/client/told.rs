//! How a client is set up, and what it tells its driver.

use crate::turn::credential::Credential;
use smallvec::SmallVec;
use std::net::{IpAddr, SocketAddr};

/// Settings of a client.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Whether the server is reached by a stream (TCP, TLS) rather than by UDP.
    pub stream: bool,
    /// Who we are.
    pub credential: Credential,
    /// Whether an IPv6 address is wanted besides the IPv4 one.
    pub ipv6: bool,
}

/// Why there is no allocation (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The server does not answer.
    #[error("the relay does not answer")]
    NoAnswer,
    /// The server does not take the credentials.
    #[error("the relay does not take the credentials")]
    Unauthorized,
    /// Another one shall be asked (300).
    #[error("the relay is full and names another, {0}")]
    Elsewhere(SocketAddr),
    /// The address that we come from has an allocation of somebody else, or ours is gone (437): to
    /// be tried again at once from another port.
    #[error("the allocation is gone, or another's")]
    Mismatch,
    /// The user has too many (486), or the server (508): to be tried elsewhere, or after a minute.
    #[error("the relay is full (code {0})")]
    Full(u16),
    /// Any other refusal.
    #[error("the relay refuses (code {0})")]
    Refused(u16),
    /// We gave it back.
    #[error("the allocation was given back")]
    Released,
}

/// What a client has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// There is an allocation.
    Allocated {
        /// What peers send to: one address, or one of each family.
        relayed: SmallVec<[SocketAddr; 2]>,
        /// Our address as the server sees it.
        mapped: Option<SocketAddr>,
    },
    /// A peer is let in.
    Permitted(IpAddr),
    /// A peer is not let in (403: the server does not send there).
    NotPermitted(IpAddr, u16),
    /// Data to this peer goes by a channel from now on.
    Bound(SocketAddr),
    /// There is no allocation any more, and nothing more will happen.
    Failed(Failure),
}

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this to the server.
    Send(Vec<u8>),
    /// Tell the owner.
    Event(Event),
}

/// Data cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// There is no allocation.
    #[error("there is no allocation")]
    NotAllocated,
    /// The peer was not let in.
    #[error("the peer was not let in")]
    NotPermitted,
    /// It is longer than a datagram.
    #[error("longer than a datagram")]
    TooLong,
}
