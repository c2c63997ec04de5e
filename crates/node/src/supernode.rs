//! The hierarchical overlay on sockets: nodes, the login server and the list of supernodes.
//!
//! A node has a few links, a supernode some hundred, all of small messages: each link has a thread
//! that reads and one that writes, and one thread owns the core.

mod ask;
mod desk;
mod driver;
mod frames;

pub use ask::{AskError, claim, supernodes};
pub use desk::{Desk, DeskError, DeskSettings};
pub use driver::{DriverError, NodeDriver, NodeSettings};

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix time in seconds.
fn unix() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs())
}
