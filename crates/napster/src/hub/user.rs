//! Connections, and the users behind them.

use super::config::Allowance;
use super::links::{self, Link};
use super::login::Waiting;
use super::record::Level;
use crate::fields::{ip_to_number, put_number};
use shoal_base::Time;
use smallvec::SmallVec;
use std::net::Ipv4Addr;

#[derive(Debug)]
pub(super) enum Stage {
    /// Not logged in.
    New,
    User(Box<User>),
    /// A user of a linked hub; no connection of its own.
    Remote(Box<User>, links::Home),
    Link(Box<Link>),
    Closing,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) age: u32,
    pub(super) peer: Ipv4Addr,
    /// The port it connects from.
    pub(super) port: u16,
    pub(super) stage: Stage,
    pub(super) waiting: Option<Box<Waiting>>,
    pub(super) input: Vec<u8>,
    pub(super) out: Vec<u8>,
    pub(super) sent: usize,
    pub(super) dirty: bool,
    /// To be cut off: it does not take what is sent to it.
    pub(super) doomed: bool,
    pub(super) since: Time,
    pub(super) heard: Time,
}

/// Somebody who logged in.
#[derive(Debug)]
pub(super) struct User {
    pub(super) nick: Vec<u8>,
    pub(super) client: Vec<u8>,
    pub(super) email: Vec<u8>,
    pub(super) link: u8,
    pub(super) data_port: u16,
    pub(super) level: Level,
    /// A keyed hash of the password given, to know a ghost by.
    pub(super) proof: u64,
    /// What ends each of the user's hits: ` nick ip link`.
    pub(super) tail: Vec<u8>,
    pub(super) hotlist: Vec<Vec<u8>>,
    pub(super) ignored: Vec<Vec<u8>>,
    pub(super) rooms: SmallVec<[Vec<u8>; 2]>,
    pub(super) downloads: u32,
    pub(super) uploads: u32,
    pub(super) downloaded: u32,
    pub(super) uploaded: u32,
    /// Whom this user asked for which file (a hash of its path), and got no answer from yet.
    pub(super) asked: Vec<(u32, u64)>,
    pub(super) searches: Allowance,
    pub(super) lines: Allowance,
    pub(super) searching: Option<Searching>,
}

/// A search that linked hubs have not all answered yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Searching {
    /// Hubs whose part is missing.
    pub(super) missing: usize,
    pub(super) since: Time,
    /// Hits that are still wanted.
    pub(super) left: usize,
}

impl User {
    pub(super) fn render(&mut self, ip: Ipv4Addr) {
        self.tail.clear();
        self.tail.push(b' ');
        self.tail.extend_from_slice(&self.nick);
        self.tail.push(b' ');
        put_number(u64::from(ip_to_number(ip)), &mut self.tail);
        self.tail.push(b' ');
        put_number(u64::from(self.link), &mut self.tail);
    }

    pub(super) fn ignores(&self, nick: &[u8]) -> bool {
        self.ignored.iter().any(|n| n.eq_ignore_ascii_case(nick))
    }
}

#[derive(Debug, Default)]
pub(super) struct Address {
    pub(super) connections: usize,
    pub(super) failures: u32,
    pub(super) failed_at: Time,
}

/// A nick or room name as it is looked up: names that differ in case are the same.
pub(super) type Key = SmallVec<[u8; 24]>;

pub(super) fn key(name: &[u8]) -> Key {
    name.iter().map(u8::to_ascii_lowercase).collect()
}
