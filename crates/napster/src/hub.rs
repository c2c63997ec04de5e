//! The hub: a central directory of who is here and who shares what.
//!
//! Bytes of connections go in; bytes to send, effects and a deadline come out. It knows no socket,
//! no clock and no file. The driver owns the connections, calls [`Hub::connect`] for each, feeds
//! what it reads to [`Hub::on_bytes`] while [`Hub::takes`] says so, sends [`Hub::output`] and tells
//! [`Hub::on_sent`].
//!
//! ```text
//!  login    who may come in, under which nick        rooms     join, talk, topics, bans of rooms
//!  share    lists of files                           people    whois, messages, hotlists, pings
//!  search   200, 211, 215                            moderate  levels, kills, bans, muzzles
//!  broker   who downloads from whom                  links     other hubs of the same directory
//! ```
//!
//! Sources: `doc/napster.txt` of OpenNap, and what its server and clients were seen to send.

mod broker;
mod config;
mod connections;
mod links;
mod login;
mod moderate;
mod people;
mod record;
mod rooms;
mod search;
mod share;
mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use rustc_hash::FxHashMap;
use shoal_base::{Rng, Time};
use smallvec::SmallVec;

pub use config::{Config, Stats};
pub use record::{Account, Ban, Level, Record, RoomSettings};

use crate::fields::{BadField, put_number};
use crate::frame;
use crate::index::Index;
use crate::kind;
use config::Allowance;
pub(crate) use links::{link_proof, unwrap_addressed};
use rooms::Room;
use user::{Address, Conn, Key, Stage, User, key};

/// How often the hub looks at its connections.
const TICK: Duration = Duration::from_secs(5);
/// Bytes that a driver may feed beyond what it was allowed to, before its connection is cut off.
const INPUT_LIMIT: usize = 256 << 10;
/// Downloads of one user that wait for their sharer's answer, at most.
const MAX_ASKED: usize = 128;
/// How many times a client's queue may wait for a linked hub.
const LINK_QUEUES: usize = 32;

/// A connection's name: never reused while somebody may still mean the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    slot: u32,
    age: u32,
}

impl ConnId {
    /// A small number that no other open connection has.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// There are bytes for a connection.
    Write(ConnId),
    /// Send what waits, if it goes at once, and close the connection; then call
    /// [`Hub::on_closed`].
    Close(ConnId),
    /// Check a password against a hash of the driver's; answer by [`Hub::on_verified`].
    Verify {
        /// Who waits.
        conn: ConnId,
        /// What was given.
        password: Vec<u8>,
        /// The account's hash.
        hash: Vec<u8>,
    },
    /// Hash a password; answer by [`Hub::on_hashed`].
    Hash {
        /// Who waits.
        conn: ConnId,
        /// What was given.
        password: Vec<u8>,
    },
    /// Keep this.
    Save(Record),
    /// A hub was linked, or is linked no more.
    Linked {
        /// What it calls itself.
        hub: Vec<u8>,
        /// Which of the two.
        up: bool,
    },
}

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The hub is full.
    #[error("the hub is full")]
    Full,
    /// Too many connections of this address.
    #[error("too many connections of this address")]
    Clones,
    /// The address is banned.
    #[error("the address is banned")]
    Banned,
    /// The protocol knows addresses of IPv4 only.
    #[error("an address of IPv6, which the protocol cannot name")]
    NotIpv4,
}

/// The hub. See the module's text.
#[derive(Debug)]
pub struct Hub {
    config: Config,
    rng: Rng,
    secret: [u8; 16],
    now: Time,
    next_tick: Time,
    next_stats: Time,
    conns: Vec<Option<Box<Conn>>>,
    free: Vec<u32>,
    ages: u32,
    open: usize,
    users: FxHashMap<Key, u32>,
    /// Who wants to hear of a nick.
    watchers: FxHashMap<Key, Vec<u32>>,
    addresses: FxHashMap<Ipv4Addr, Address>,
    index: Index,
    rooms: BTreeMap<Key, Room>,
    accounts: BTreeMap<Key, Account>,
    bans: Vec<Ban>,
    muzzled: BTreeSet<Key>,
    links: Vec<u32>,
    resumes: Allowance,
    stats: Stats,
    fx: Vec<Effect>,
    doomed: Vec<u32>,
    /// While every hub of the directory does the same for its own users.
    local_only: bool,
}

impl Hub {
    /// An empty hub; `rng` decides secrets and where searches begin.
    pub fn new(config: Config, mut rng: Rng) -> Self {
        let mut secret = [0; 16];
        rng.fill(&mut secret);
        let resumes = Allowance::new(config.resumes_per_second.saturating_mul(60));
        Self {
            config,
            rng,
            secret,
            now: Time::ZERO,
            next_tick: Time::ZERO + TICK,
            next_stats: Time::ZERO,
            conns: Vec::new(),
            free: Vec::new(),
            ages: 0,
            open: 0,
            users: FxHashMap::default(),
            watchers: FxHashMap::default(),
            addresses: FxHashMap::default(),
            index: Index::default(),
            rooms: BTreeMap::new(),
            accounts: BTreeMap::new(),
            bans: Vec::new(),
            muzzled: BTreeSet::new(),
            links: Vec::new(),
            resumes,
            stats: Stats::default(),
            fx: Vec::new(),
            doomed: Vec::new(),
            local_only: false,
        }
    }

    /// Takes in what was kept by an earlier run.
    pub fn restore(&mut self, record: Record) {
        match record {
            Record::Account(account) => {
                self.accounts.insert(key(&account.nick), account);
            }
            Record::Nuked(nick) => {
                self.accounts.remove(&key(&nick));
            }
            Record::Ban(ban) => {
                self.bans
                    .retain(|b| !b.whom.eq_ignore_ascii_case(&ban.whom));
                self.bans.push(ban);
            }
            Record::Unban(whom) => self.bans.retain(|b| !b.whom.eq_ignore_ascii_case(&whom)),
            Record::Muzzled(nick, true) => {
                self.muzzled.insert(key(&nick));
            }
            Record::Muzzled(nick, false) => {
                self.muzzled.remove(&key(&nick));
            }
            Record::Room(settings) => {
                let room = self.rooms.entry(key(&settings.name)).or_default();
                room.settings = settings;
                room.kept = true;
            }
            Record::RoomGone(name) => {
                self.rooms.remove(&key(&name));
            }
        }
    }

    /// All that is to be kept, in few records.
    pub fn records(&self) -> Vec<Record> {
        let mut all: Vec<Record> = self
            .accounts
            .values()
            .cloned()
            .map(Record::Account)
            .collect();
        all.extend(self.bans.iter().cloned().map(Record::Ban));
        all.extend(
            self.muzzled
                .iter()
                .map(|n| Record::Muzzled(n.to_vec(), true)),
        );
        let kept = self.rooms.values().filter(|r| r.kept);
        all.extend(kept.map(|r| Record::Room(r.settings.clone())));
        all
    }

    /// What it holds and did.
    pub fn stats(&self) -> Stats {
        let remote = self.users.values().filter(|s| self.is_remote(**s)).count();
        Stats {
            connections: self.open as u64,
            users: (self.users.len() - remote) as u64,
            remote_users: remote as u64,
            links: self.links.len() as u64,
            files: self.index.len() as u64,
            bytes: self.index.bytes(),
            rooms: self.rooms.len() as u64,
            accounts: self.accounts.len() as u64,
            ..self.stats
        }
    }

    /// When [`Hub::on_tick`] is to be called.
    pub fn deadline(&self) -> Time {
        self.next_tick
    }

    fn conn(&self, slot: u32) -> Option<&Conn> {
        self.conns.get(slot as usize)?.as_deref()
    }

    fn conn_mut(&mut self, slot: u32) -> Option<&mut Conn> {
        self.conns.get_mut(slot as usize)?.as_deref_mut()
    }

    fn user(&self, slot: u32) -> Option<&User> {
        match &self.conn(slot)?.stage {
            Stage::User(user) | Stage::Remote(user, _) => Some(user),
            _ => None,
        }
    }

    fn user_mut(&mut self, slot: u32) -> Option<&mut User> {
        match &mut self.conn_mut(slot)?.stage {
            Stage::User(user) | Stage::Remote(user, _) => Some(user),
            _ => None,
        }
    }

    fn is_remote(&self, slot: u32) -> bool {
        matches!(self.conn(slot).map(|c| &c.stage), Some(Stage::Remote(..)))
    }

    fn by_nick(&self, nick: &[u8]) -> Option<u32> {
        self.users.get(&key(nick)).copied()
    }

    fn nick(&self, slot: u32) -> Vec<u8> {
        self.user(slot).map(|u| u.nick.clone()).unwrap_or_default()
    }

    fn level(&self, slot: u32) -> Level {
        self.user(slot).map_or(Level::Leech, |u| u.level)
    }

    fn slot(&self, id: ConnId) -> Option<u32> {
        self.conn(id.slot)
            .filter(|c| c.age == id.age)
            .map(|_| id.slot)
    }

    /// Unix time in seconds.
    fn unix(&self) -> u64 {
        self.config.epoch + self.now.as_micros() / 1_000_000
    }

    fn message(&mut self, slot: u32, kind: u16, data: &[u8]) {
        let result = match self.conn(slot).map(|c| &c.stage) {
            Some(Stage::New) => self.before_login(slot, kind, data),
            Some(Stage::User(_)) => {
                if self.forward(slot, kind, data) {
                    return;
                }
                self.dispatch(slot, kind, data)
            }
            Some(Stage::Link(_)) => self.take_from_link(slot, kind, data),
            _ => Ok(()),
        };
        if let Err(error) = result {
            self.stats.malformed += 1;
            let what = kind::describe(kind).unwrap_or("unknown");
            self.complain(slot, &format!("message {kind} ({what}): {error}"));
        }
    }

    /// Does what a user asks for.
    fn dispatch(&mut self, who: u32, kind: u16, data: &[u8]) -> Result<(), BadField> {
        match kind {
            kind::SHARE | kind::SHARE_OTHER | kind::SHARE_FOLDER => self.share(who, kind, data),
            kind::UNSHARE => self.unshare(who, data),
            kind::UNSHARE_ALL => {
                self.index.remove_all(who);
                Ok(())
            }
            kind::SEARCH => self.search(who, data),
            kind::BROWSE => self.browse(who, data),
            kind::RESUME => self.resume(who, data),
            kind::DOWNLOAD | kind::PUSH => self.download(who, kind, data),
            kind::UPLOAD_ACK | kind::UPLOAD_REFUSED | kind::QUEUE_LIMIT => {
                self.upload(who, kind, data)
            }
            kind::BROWSE_DIRECT | kind::BROWSE_DIRECT_ACK => self.browse_direct(who, kind, data),
            kind::DOWNLOAD_START | kind::DOWNLOAD_DONE | kind::UPLOAD_START | kind::UPLOAD_DONE => {
                self.count_transfer(who, kind);
                Ok(())
            }
            kind::PORT_ERROR => self.port_error(who, data),
            kind::JOIN
            | kind::PART
            | kind::PUBLIC
            | kind::EMOTE
            | kind::TOPIC
            | kind::KICK
            | kind::ROOM_BAN
            | kind::ROOM_UNBAN
            | kind::ROOM_BANS_CLEAR
            | kind::ROOM_LEVEL
            | kind::ROOM_LIMIT => self.room_message(who, kind, data),
            kind::LIST_ROOMS | kind::ROOM_USERS | kind::ROOM_BANS => {
                self.room_question(who, kind, data)
            }
            kind::LINK_SPEED | kind::WHOIS | kind::PRIVATE | kind::PING | kind::PONG => {
                self.address_person(who, kind, data)
            }
            kind::HOTLIST_ADD | kind::HOTLIST_INITIAL | kind::HOTLIST_REMOVE => {
                self.hotlist(who, kind, data)
            }
            kind::IGNORE_LIST..=kind::IGNORE_CLEAR => self.ignore(who, kind, data),
            kind::MY_LINK | kind::MY_PASSWORD | kind::MY_EMAIL | kind::MY_PORT => {
                self.change_self(who, kind, data)
            }
            kind::STATS => {
                self.tell_stats(who);
                Ok(())
            }
            kind::MOTD => {
                self.tell_motd(who);
                Ok(())
            }
            kind::USAGE => {
                self.tell_usage(who);
                Ok(())
            }
            kind::SERVER_PING => {
                // The answer to ours, or a client's own, which names nobody.
                if data.is_empty() {
                    self.send(who, kind::SERVER_PING, |_| {});
                }
                Ok(())
            }
            kind::ECHO => {
                self.send(who, kind::ECHO, |o| o.extend_from_slice(data));
                Ok(())
            }
            kind::VERSION | kind::LOGIN_OPTIONS | kind::OPTIONAL_PORTS => Ok(()),
            kind::LOGIN | kind::REGISTER => {
                self.complain(who, "you are logged in already");
                Ok(())
            }
            _ => self.moderate(who, kind, data),
        }
    }

    fn tell_motd(&mut self, to: u32) {
        for line in self.config.motd.clone() {
            self.send_text(to, kind::MOTD, &[&line]);
        }
    }

    fn tell_stats(&mut self, to: u32) {
        let (mut files, mut bytes) = (self.index.len() as u64, self.index.bytes());
        for link in self.links.clone() {
            if let Some(Stage::Link(link)) = self.conn(link).map(|c| &c.stage) {
                files = files.saturating_add(link.files);
                bytes = bytes.saturating_add(link.bytes);
            }
        }
        let users = self.users.len() as u64;
        self.send(to, kind::STATS, |o| {
            for (n, number) in [users, files, bytes >> 30].into_iter().enumerate() {
                if n > 0 {
                    o.push(b' ');
                }
                put_number(number, o);
            }
        });
    }

    /// 10115: local users, local files, all users, all files, gigabytes, rooms, connections.
    fn tell_usage(&mut self, to: u32) {
        let s = self.stats();
        self.send(to, kind::USAGE, |o| {
            let numbers = [
                s.users,
                s.files,
                s.remote_users,
                s.bytes >> 30,
                s.rooms,
                s.links,
            ];
            for number in numbers {
                put_number(number, o);
                o.push(b' ');
            }
        });
    }

    /// Checks what must always hold; for tests and fuzzing.
    ///
    /// # Panics
    /// When something does not hold.
    pub fn check_invariants(&self) {
        let mut files = 0;
        for (nick, slot) in &self.users {
            let user = self.user(*slot).expect("a nick leads to a user");
            assert_eq!(&key(&user.nick), nick);
            assert!(user.asked.len() <= MAX_ASKED);
            assert!(user.hotlist.len() <= self.config.max_list);
            assert!(user.ignored.len() <= self.config.max_list);
            assert!(user.rooms.len() <= self.config.max_rooms_of_user);
            for room in &user.rooms {
                let room = self.rooms.get(&key(room)).expect("a user's room exists");
                assert!(room.members.contains(slot));
            }
            files += self.index.files_of(*slot);
        }
        assert_eq!(
            files,
            self.index.len(),
            "every file has an owner who is here"
        );
        for room in self.rooms.values() {
            assert!(room.kept || !room.members.is_empty());
            for member in &room.members {
                assert!(self.user(*member).is_some(), "a member is a user");
            }
        }
        for (nick, watchers) in &self.watchers {
            assert!(!watchers.is_empty());
            for slot in watchers {
                let user = self.user(*slot).expect("who watches is here");
                assert!(user.hotlist.iter().any(|n| &key(n) == nick));
            }
        }
        let mut open = 0;
        for conn in self.conns.iter().flatten() {
            open += usize::from(!matches!(conn.stage, Stage::Remote(..)));
            assert!(conn.input.len() <= INPUT_LIMIT);
            assert!(conn.sent <= conn.out.len());
            assert!(
                conn.out.len() - conn.sent
                    <= self.config.hard_queue * (LINK_QUEUES + 1) + frame::HEADER + 65_536
            );
        }
        assert_eq!(open, self.open);
        assert!(self.bans.len() <= self.config.max_bans);
        assert!(self.accounts.len() <= self.config.max_accounts);
        assert!(self.index.len() <= self.config.max_files);
    }
}

#[cfg(test)]
mod tests;
