//! The hierarchical overlay on sockets: nodes, the login server and the list of supernodes.
//!
//! A node has a few links, a supernode some hundred, all of small messages: each link has a thread
//! that reads and one that writes, and one thread owns the core. One port takes links and whatever
//! else comes: requests for files, and sharers that were asked to connect.

mod ask;
mod beyond;
mod box_link;
mod box_ring;
mod boxes;
mod bridge;
mod children;
mod desk;
mod driver;
mod forks;
mod frames;
mod front;
mod hub;
pub(crate) mod name_ring;
mod names;
pub(crate) mod people;
mod place_ring;

pub use ask::{AskError, Granted, claim, supernodes};
pub use boxes::BoxServer;
pub use bridge::GnutellaBridge;
pub use children::ChildrenShelf;
pub use desk::{Desk, DeskError, DeskSettings, DeskStats, Logins};
pub use driver::{DriverError, Looked, NodeDriver, NodeSettings, Others, Place};
pub use forks::{forks_path, kept_forks};
pub use hub::{HubFront, HubFrontError, HubFrontSettings, HubNews};
pub use name_ring::{get as get_record, name_ring, read as read_record};
pub use names::NamesDesk;
pub use people::straight::LetterStream;
pub use people::{People, PeopleError, PeopleEvent, PeopleSettings};
pub use place_ring::is_of_places;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use shoal_supernode::Address;

/// Unix time in seconds.
fn unix() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs())
}

/// This machine as hosts are told apart ([`Address::host`]): limits by host can leave it out.
pub fn this_machine() -> Vec<u128> {
    let own = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    own.map(|ip| SocketAddr::new(ip, 0).host()).into()
}
