//! How a client is set up, what it is told, and what it says.

use crate::http::locations::PushLocation;
use crate::http::ranges::RangeSet;
use crate::http::thex;
use crate::huge::{TigerRoot, Urn};
use shoal_base::Time;
use std::net::SocketAddr;
use std::ops::Range;

/// Who fetches what.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Who we say we are.
    pub agent: String,
    /// The file, by the one hash that the host is to be asked for.
    pub urn: Urn,
    /// Where others reach us, if they do.
    pub node: Option<SocketAddr>,
    /// Whether the driver can change a connection to TLS.
    pub tls: bool,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// Bytes of the file.
    Range(Range<u64>),
    /// The hash tree, from a path that the host named.
    Tree(String),
}

/// What a host is told of others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Others {
    /// Who has the file.
    pub alternates: Vec<SocketAddr>,
    /// Who does not.
    pub dead: Vec<SocketAddr>,
    /// Those of both that speak TLS.
    pub tls: Vec<SocketAddr>,
}

/// What an answer says of the file and of others who have it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// Bytes of the whole file.
    pub len: Option<u64>,
    /// Where its hash tree is, and the root.
    pub tree: Option<(String, TigerRoot)>,
    /// What the host has of it; none: all.
    pub available: Option<RangeSet>,
    /// Who else has it.
    pub alternates: Vec<SocketAddr>,
    /// Those of them that are said to speak TLS.
    pub tls: Vec<SocketAddr>,
    /// Whether the host says that it does.
    pub speaks_tls: bool,
    /// Who does not.
    pub dead: Vec<SocketAddr>,
    /// Who has it behind a firewall.
    pub pushed: Vec<PushLocation>,
    /// The file's name, as the host calls it.
    pub name: Option<String>,
}

/// Why nothing comes of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The host does not have the file, or not any more.
    #[error("the file is not there ({0})")]
    NotThere(u16),
    /// It says no.
    #[error("refused: {0} {1}")]
    Refused(u16, String),
    /// It is of another file, or of another length than the rest of the world says.
    #[error("it is another file")]
    OtherFile,
    /// What it says makes no sense.
    #[error("{0}")]
    Nonsense(&'static str),
    /// It does not go on.
    #[error("no answer")]
    Late,
    /// The hash tree is none.
    #[error("the hash tree is none: {0}")]
    Tree(#[from] thex::ThexError),
}

/// What comes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// What comes next, both ways, comes by TLS, which we begin; then the answer comes.
    Secure,
    /// The bytes of this range of the file follow: [`Client::on_body`] is to hear of them.
    Body(Range<u64>),
    /// The hash tree's levels, root first; not checked.
    Tree(Vec<u8>),
    /// To be asked again at a time, and before another; on the same connection, if it is kept.
    Wait {
        /// Not before.
        at: Time,
        /// The place is lost then.
        until: Time,
        /// The place in the queue, if there is one.
        position: Option<u32>,
        /// Whether the connection is kept.
        keep: bool,
    },
    /// It has none of the range now; what it has was told.
    Lacks,
    /// Nothing comes of it.
    Failed(Failure),
}

/// What came of some bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// Bytes that were taken.
    pub used: usize,
    /// What the answer says besides.
    pub told: Option<Box<Told>>,
    /// What is to be done.
    pub event: Option<Event>,
}
