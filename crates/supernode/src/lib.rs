//! The hierarchical overlay, as KaZaA had it: ordinary peers are children of supernodes, which hold
//! what their children share and flood queries among themselves.
//!
//! No sockets, no clock and no files: what drives it is in the node.
//!
//! ```text
//!  token   names bound to keys, signed by the login server       wire   messages and their bytes
//!  login   the server that binds them                            list   which supernodes there are
//!  verified  presences that held, remembered
//!  names   who has which name, the public log of it, certificates
//!  place   which supernode takes letters to a key
//!  node    a peer: ordinary or supernode, with its links, its children and its queries
//! ```
//!
//! Roles and figures follow Liang, Kumar and Ross, "The FastTrack overlay: a measurement study"
//! (Computer Networks 50, 2006); the wire is shoal's own. Everything is generic over the address,
//! so that the simulator can run thousands of nodes.

pub mod list;
pub mod login;
pub mod names;
pub mod node;
pub mod place;
pub mod token;
pub mod verified;
pub mod wire;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Where a node is reached: a socket address, or a number in the simulator.
pub trait Address: Copy + Ord + std::fmt::Debug + Serialize + DeserializeOwned {
    /// What limits by address count: for a socket address the host without its port.
    fn host(&self) -> u128;

    /// Whether who has this key, and speaks from `host`, may say that it is here: at its own host, or at an address
    /// that is made of its key.
    fn is_of(&self, host: u128, _key: &token::Key) -> bool {
        self.host() == host
    }

    /// Whether what a stranger signed may make who is here connect to `other`: nobody far away names machines of one's
    /// own network.
    fn may_go(&self, other: &Self) -> bool;
}

impl Address for std::net::SocketAddr {
    fn host(&self) -> u128 {
        match self.ip().to_canonical() {
            std::net::IpAddr::V4(ip) => u128::from(u32::from(ip)),
            // A network of a house is one host: whoever has one has 2^64 addresses.
            std::net::IpAddr::V6(ip) => u128::from(ip) >> 64 << 64,
        }
    }

    fn is_of(&self, host: u128, key: &token::Key) -> bool {
        match shoal_reach::overlay::overlay(*self) {
            Some(at) => {
                *at.ip() == shoal_reach::overlay::address(&shoal_reach::identity::NodeId(*key))
            }
            None => self.host() == host,
        }
    }

    fn may_go(&self, other: &Self) -> bool {
        shoal_base::address::may_name(self.ip(), *other)
    }
}

impl Address for u32 {
    fn host(&self) -> u128 {
        u128::from(*self)
    }

    /// Numbers from 2^31 on are machines of one network, which nobody outside names.
    fn may_go(&self, other: &Self) -> bool {
        other >> 31 <= self >> 31
    }
}
