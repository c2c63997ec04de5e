//! Who may come in, and under which nick.
//!
//! A nick that nobody registered is its user's while the connection lasts. A registered one needs
//! its password, which the driver checks, for a good hash takes long. A second login by the same
//! user ends the first, which is mostly a connection whose end went unnoticed (a ghost).

use std::hash::Hasher;
use std::net::Ipv4Addr;

use super::{Account, Allowance, ConnId, Effect, Hub, Level, Record, Stage, Time, User, key};
use crate::fields::{BadField, Fields, port};
use crate::kind;

/// Bytes of a client's name, an address for mail and a password that are kept at most.
const MAX_TEXT: usize = 96;
/// What no nick holds: it would be taken for something else in some message.
const NOT_IN_NICKS: &[u8] = b"\"#$%&*,:;<>?@!\\/|`";

/// What a connection waits for.
#[derive(Debug)]
pub(super) enum Waiting {
    /// The check of a password, to log in.
    Login(Login),
    /// The hash of a password, to register and log in.
    Register(Login),
    /// The check of a password, asked for by 11.
    Check,
    /// The hash of a new password for this nick.
    Change(Vec<u8>),
}

/// What 2 and 6 say.
#[derive(Debug, Clone, Default)]
pub(super) struct Login {
    nick: Vec<u8>,
    password: Vec<u8>,
    data_port: u16,
    client: Vec<u8>,
    link: u8,
    email: Vec<u8>,
}

fn cut(text: &[u8]) -> Vec<u8> {
    text.get(..MAX_TEXT).unwrap_or(text).to_vec()
}

impl Login {
    fn parse(data: &[u8], registers: bool) -> Result<Self, BadField> {
        let mut f = Fields::new(data);
        let mut login = Self {
            nick: f.text("nick")?.to_vec(),
            password: cut(f.text("password")?),
            data_port: port(f.text("port")?).ok_or(BadField::Invalid("port"))?,
            client: cut(f.text("client")?),
            // Some clients leave it out; zero is unknown.
            link: f.word().and_then(link).unwrap_or(0),
            email: Vec::new(),
        };
        if registers {
            login.email = cut(f.word().unwrap_or_default());
        }
        Ok(login)
    }
}

/// Reads a kind of link, 0 to 10.
pub(super) fn link(text: &[u8]) -> Option<u8> {
    crate::fields::number(text)
        .filter(|n| *n <= 10)
        .map(|n| n as u8)
}

impl Hub {
    /// Whether a nick can be one.
    pub(super) fn valid_nick(&self, nick: &[u8]) -> bool {
        let graphic = nick
            .iter()
            .all(|b| b.is_ascii_graphic() && !NOT_IN_NICKS.contains(b));
        // Of digits and points alone it would look like an address to a ban.
        let like_address = nick.iter().all(|b| b.is_ascii_digit() || *b == b'.');
        !nick.is_empty() && nick.len() <= self.config.max_nick && graphic && !like_address
    }

    pub(super) fn before_login(
        &mut self,
        slot: u32,
        kind: u16,
        data: &[u8],
    ) -> Result<(), BadField> {
        match kind {
            kind::LOGIN | kind::REGISTER => {
                match Login::parse(data, kind == kind::REGISTER) {
                    Ok(login) => self.log_in(slot, login, kind == kind::REGISTER),
                    Err(error) => {
                        self.stats.malformed += 1;
                        self.refuse(slot, &format!("the login was not understood: {error}"));
                    }
                }
                Ok(())
            }
            kind::CHECK_NICK => {
                let nick = data.trim_ascii();
                let answer = if !self.valid_nick(nick) {
                    kind::NICK_INVALID
                } else if self.accounts.contains_key(&key(nick)) {
                    kind::NICK_TAKEN
                } else {
                    kind::NICK_FREE
                };
                self.send(slot, answer, |_| {});
                Ok(())
            }
            kind::CHECK_PASSWORD => {
                let mut f = Fields::new(data);
                let (nick, password) = (f.text("nick")?, f.text("password")?);
                let account = self.accounts.get(&key(nick)).map(|a| a.hash.clone());
                match account {
                    Some(hash) => self.verify(slot, Waiting::Check, cut(password), hash),
                    None => self.refuse(slot, "that nick is not registered"),
                }
                Ok(())
            }
            kind::VERSION | kind::LOGIN_OPTIONS | kind::OPTIONAL_PORTS => Ok(()),
            kind::STATS => {
                self.tell_stats(slot);
                Ok(())
            }
            kind::LINK_HELLO => self.link_asked(slot, data),
            _ => {
                self.refuse(slot, "log in first");
                Ok(())
            }
        }
    }

    fn verify(&mut self, slot: u32, waiting: Waiting, password: Vec<u8>, hash: Vec<u8>) {
        let most = self.config.max_failures;
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        let (peer, age) = (conn.peer, conn.age);
        let failed = self.addresses.get(&peer).map_or(0, |a| a.failures);
        if failed >= most && self.limits(peer) {
            return self.refuse(slot, "too many wrong passwords; try again in ten minutes");
        }
        if let Some(conn) = self.conn_mut(slot) {
            conn.waiting = Some(Box::new(waiting));
        }
        let conn = ConnId { slot, age };
        self.fx.push(Effect::Verify {
            conn,
            password,
            hash,
        });
    }

    fn hash(&mut self, slot: u32, waiting: Waiting, password: Vec<u8>) {
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        conn.waiting = Some(Box::new(waiting));
        let conn = ConnId {
            slot,
            age: conn.age,
        };
        self.fx.push(Effect::Hash { conn, password });
    }

    fn log_in(&mut self, slot: u32, login: Login, registers: bool) {
        if !self.valid_nick(&login.nick) {
            return self.refuse(slot, "that nick cannot be one");
        }
        if let Some(ban) = self.ban_of(&login.nick) {
            let text = format!("you are banned: {}", String::from_utf8_lossy(&ban.reason));
            return self.refuse(slot, &text);
        }
        let account = self.accounts.get(&key(&login.nick)).map(|a| a.hash.clone());
        match (account, registers) {
            (Some(hash), _) => {
                let password = login.password.clone();
                self.verify(slot, Waiting::Login(login), password, hash);
            }
            (None, true) => {
                if !self.config.open_registration {
                    return self.refuse(slot, "this hub registers nobody by itself");
                }
                if self.accounts.len() >= self.config.max_accounts {
                    return self.refuse(slot, "this hub registers no more nicks");
                }
                if login.password.is_empty() {
                    return self.refuse(slot, "a registered nick needs a password");
                }
                if !self.give_way(slot, &login, false) {
                    return;
                }
                let password = login.password.clone();
                self.hash(slot, Waiting::Register(login), password);
            }
            (None, false) if self.config.registered_only => {
                self.refuse(slot, "only registered nicks are let in here");
            }
            (None, false) => {
                if self.give_way(slot, &login, false) {
                    self.welcome(slot, login, Level::User);
                }
            }
        }
    }

    /// The driver checked a password.
    pub fn on_verified(&mut self, now: Time, id: ConnId, right: bool, out: &mut Vec<Effect>) {
        self.now = now;
        if let Some(slot) = self.slot(id)
            && let Some(waiting) = self.conn_mut(slot).and_then(|c| c.waiting.take())
        {
            self.verified(slot, *waiting, right);
            self.feed(slot, &[]);
        }
        self.settle(out);
    }

    fn verified(&mut self, slot: u32, waiting: Waiting, right: bool) {
        if !right {
            let now = self.now;
            let peer = self.conn(slot).map_or(Ipv4Addr::UNSPECIFIED, |c| c.peer);
            let address = self.addresses.entry(peer).or_default();
            if now.since(address.failed_at).as_secs() >= 600 {
                address.failures = 0;
            }
            address.failures += 1;
            address.failed_at = now;
            if let Waiting::Login(login) = &waiting {
                self.warn_owner(slot, &login.nick);
            }
            return self.refuse(slot, "the password is wrong");
        }
        match waiting {
            Waiting::Login(login) => {
                // Nuked while the password was checked, perhaps.
                let level = self.accounts.get(&key(&login.nick)).map(|a| a.level);
                if self.give_way(slot, &login, true) {
                    self.welcome(slot, login, level.unwrap_or_default());
                }
            }
            _ => self.send(slot, kind::PASSWORD_OK, |_| {}),
        }
    }

    /// The driver hashed a password.
    pub fn on_hashed(&mut self, now: Time, id: ConnId, hash: Vec<u8>, out: &mut Vec<Effect>) {
        self.now = now;
        if let Some(slot) = self.slot(id)
            && let Some(waiting) = self.conn_mut(slot).and_then(|c| c.waiting.take())
        {
            match *waiting {
                Waiting::Register(login) => self.register(slot, login, hash),
                Waiting::Change(nick) => self.change_account(&nick, |a| a.hash = hash),
                Waiting::Login(_) | Waiting::Check => {}
            }
            self.feed(slot, &[]);
        }
        self.settle(out);
    }

    fn register(&mut self, slot: u32, login: Login, hash: Vec<u8>) {
        // Two may have asked for one nick while the hashes were made.
        if self.accounts.contains_key(&key(&login.nick))
            || self.accounts.len() >= self.config.max_accounts
        {
            return self.refuse(slot, "that nick is registered");
        }
        if !self.give_way(slot, &login, false) {
            return;
        }
        let account = Account {
            nick: login.nick.clone(),
            hash,
            email: login.email.clone(),
            seen: self.unix(),
            ..Account::default()
        };
        self.fx.push(Effect::Save(Record::Account(account.clone())));
        self.accounts.insert(key(&login.nick), account);
        self.welcome(slot, login, Level::User);
    }

    /// Changes an account and keeps it.
    pub(super) fn change_account(&mut self, nick: &[u8], change: impl FnOnce(&mut Account)) {
        if let Some(account) = self.accounts.get_mut(&key(nick)) {
            change(account);
            self.fx.push(Effect::Save(Record::Account(account.clone())));
        }
    }

    /// Hashes a new password for a registered nick, while `who` waits.
    pub(super) fn new_password(&mut self, who: u32, nick: &[u8], password: &[u8]) {
        self.hash(who, Waiting::Change(nick.to_vec()), cut(password));
    }

    fn warn_owner(&mut self, slot: u32, nick: &[u8]) {
        let from = self
            .conn(slot)
            .map(|c| c.peer.to_string())
            .unwrap_or_default();
        if let Some(owner) = self.by_nick(nick) {
            self.send(owner, kind::NICK_TRIED, |o| {
                o.extend_from_slice(from.as_bytes());
            });
        }
    }

    fn proof(&self, password: &[u8]) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write(&self.secret);
        hasher.write(password);
        hasher.finish()
    }

    /// Makes room for a login if its nick is in use: its own ghost has to go. Whether it may go on.
    fn give_way(&mut self, slot: u32, login: &Login, proven: bool) -> bool {
        let Some(ghost) = self.by_nick(&login.nick) else {
            return true;
        };
        let same = self
            .user(ghost)
            .is_some_and(|u| u.proof == self.proof(&login.password));
        if (proven || same) && !self.is_remote(ghost) && ghost != slot {
            self.complain(ghost, "somebody logged in with your nick and password");
            self.close(ghost);
            return true;
        }
        self.warn_owner(slot, &login.nick);
        self.refuse(slot, "that nick is in use");
        false
    }

    fn welcome(&mut self, slot: u32, login: Login, level: Level) {
        let account = self.accounts.get(&key(&login.nick));
        let (hotlist, ignored) = account
            .map(|a| (a.hotlist.clone(), a.ignored.clone()))
            .unwrap_or_default();
        let email = match account {
            Some(account) if !account.email.is_empty() => account.email.clone(),
            _ => b"anon@server".to_vec(),
        };
        let proof = self.proof(&login.password);
        let (searches, lines) = (
            self.config.searches_per_minute,
            self.config.lines_per_minute,
        );
        let now = self.now;
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        conn.since = now;
        let mut user = Box::new(User {
            nick: login.nick,
            client: login.client,
            email: email.clone(),
            link: login.link,
            data_port: login.data_port,
            level,
            proof,
            tail: Vec::new(),
            hotlist: Vec::new(),
            ignored,
            rooms: super::SmallVec::new(),
            downloads: 0,
            uploads: 0,
            downloaded: 0,
            uploaded: 0,
            asked: Vec::new(),
            searches: Allowance::new(searches),
            lines: Allowance::new(lines),
            searching: None,
        });
        user.render(conn.peer);
        let nick = user.nick.clone();
        let link = user.link;
        conn.stage = Stage::User(user);
        self.users.insert(key(&nick), slot);
        self.stats.logins += 1;
        self.send_text(slot, kind::LOGIN_ACK, &[&email]);
        self.tell_motd(slot);
        self.tell_stats(slot);
        for friend in hotlist {
            self.watch(slot, &friend);
        }
        self.tell_watchers(&nick, Some(link));
        self.tell_links_came(slot);
    }

    /// Takes a user, of this or a linked hub, out of everything.
    pub(super) fn log_out(&mut self, slot: u32) {
        let Some(user) = self.user(slot) else {
            return;
        };
        let (nick, hotlist) = (user.nick.clone(), user.hotlist.clone());
        let rooms = user.rooms.clone();
        for room in rooms {
            self.part(slot, &room);
        }
        for friend in hotlist {
            self.unwatch(slot, &friend);
        }
        self.users.remove(&key(&nick));
        self.index.remove_all(slot);
        self.tell_watchers(&nick, None);
        let seen = self.unix();
        if !self.is_remote(slot) {
            self.change_account(&nick, |a| a.seen = seen);
        }
    }
}
