//! Where a ring position is on the Internet, and whose it is.

use crate::Id;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

/// A ring position as an address on sockets.
///
/// The identifier is what counts: two places are the same if their identifiers are, wherever they
/// were last seen. Nothing is sent to one before whoever is at its socket address has proved that
/// the identifier is that of its key.
#[derive(Clone, Copy)]
pub struct Place {
    /// [`position`] of the node's key and `index`.
    pub id: Id,
    /// Which of the node's ring positions this is.
    pub index: u8,
    /// Where its datagrams go.
    pub socket: SocketAddr,
}

/// The ring position that the holder of `key` has under `index`: SHA-1 of both. Nobody chooses a
/// position; moving to a wanted one costs as many keys as there are nodes.
pub fn position(key: &[u8; 32], index: u8) -> Id {
    let mut bytes = [0; 33];
    bytes[..32].copy_from_slice(key);
    bytes[32] = index;
    Id::hash(&bytes)
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Place {}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.id.cmp(&other.id)
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.socket, self.index)
    }
}
