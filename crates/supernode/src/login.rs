//! The login server: binds names to keys, first come, first served, and signs tokens that say so.
//!
//! No password crosses the wire and none is kept: who claims a name signs a challenge with the key.

use std::collections::BTreeMap;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use shoal_base::{Rng, Time};

use crate::names::certificate::Certificate;
use crate::names::log::Head;
use crate::names::register::{Entry, How, Register};
use crate::names::{Act, NameAnswer, NameAsk, Statement};
use crate::token::{Key, Sealed, Token, is_name};
use crate::wire::Refusal;

/// Challenges that wait for their answer at most.
const MAX_PENDING: usize = 4096;
/// How long one may.
const PENDING: Duration = Duration::from_secs(30);
/// Addresses whose requests are remembered at most.
const MAX_HOSTS: usize = 65_536;
/// Over which time requests of an address are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Over which time new names of an address are counted.
const DAY: Duration = Duration::from_secs(86_400);
const PROOF: &str = "login";

/// Limits of a login server.
#[derive(Debug, Clone)]
pub struct LoginConfig {
    /// Unix time, in seconds, of [`Time::ZERO`].
    pub epoch: u64,
    /// How long a token holds.
    pub lifetime: Duration,
    /// How long a certificate does.
    pub certificate: Duration,
    /// Names at most.
    pub max_names: usize,
    /// New names of one address in a day; zero for no limit.
    pub names_per_host: u32,
    /// Requests of one address in a minute; zero for no limit.
    pub requests_per_minute: u32,
    /// Hosts that neither limit holds for.
    pub unlimited: Vec<u128>,
}

impl Default for LoginConfig {
    fn default() -> Self {
        Self {
            epoch: 0,
            lifetime: DAY,
            certificate: DAY * 30,
            max_names: 1_000_000,
            names_per_host: 20,
            requests_per_minute: 60,
            unlimited: Vec::new(),
        }
    }
}

#[derive(Debug)]
struct Pending {
    name: String,
    key: Key,
    nonce: [u8; 32],
    since: Time,
    wants: Wants,
}

/// What a challenge is for.
#[derive(Debug, Clone, Copy)]
enum Wants {
    Token,
    Name(Act, Option<Key>),
}

/// What was granted; a new entry must be kept, then handed to [`LoginServer::commit`], before the
/// answer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant<T> {
    /// The answer.
    pub answer: T,
    /// The entry of the log that it rests on, if that is new.
    pub entry: Option<Entry>,
}

#[derive(Debug, Default)]
struct Host {
    window: Time,
    requests: u32,
    day: Time,
    names: u32,
}

/// The server. See the module's text.
#[derive(Debug)]
pub struct LoginServer {
    config: LoginConfig,
    key: SigningKey,
    rng: Rng,
    register: Register,
    pending: BTreeMap<u64, Pending>,
    hosts: BTreeMap<u128, Host>,
}

/// Signs a login server's challenge.
pub fn prove(key: &SigningKey, nonce: &[u8; 32], server: &Key, name: &str) -> Sealed {
    Sealed::new(key, PROOF, &(nonce, server, name))
}

impl LoginServer {
    /// One that signs with `key`; `rng` makes the challenges.
    pub fn new(config: LoginConfig, key: SigningKey, rng: Rng) -> Self {
        Self {
            config,
            key,
            rng,
            register: Register::default(),
            pending: BTreeMap::new(),
            hosts: BTreeMap::new(),
        }
    }

    /// Its public key: what everybody in the overlay trusts.
    pub fn key(&self) -> Key {
        self.key.verifying_key().to_bytes()
    }

    /// Adds an entry that is kept: one of an earlier run, or of a [`Grant`].
    pub fn commit(&mut self, entry: Entry) {
        self.register.push(entry);
    }

    /// How many names are somebody's.
    pub fn count(&self) -> usize {
        self.register.count()
    }

    fn unix(&self, now: Time) -> u64 {
        self.config.epoch + now.as_micros() / 1_000_000
    }

    fn host(&mut self, now: Time, host: u128) -> &mut Host {
        if self.hosts.len() >= MAX_HOSTS && !self.hosts.contains_key(&host) {
            self.hosts
                .retain(|_, h| now.since(h.window) < WINDOW || now.since(h.day) < DAY);
            if self.hosts.len() >= MAX_HOSTS {
                // A flood from everywhere: forgetting them all is better than growing.
                self.hosts.clear();
            }
        }
        let entry = self.hosts.entry(host).or_insert(Host {
            window: now,
            day: now,
            ..Host::default()
        });
        if now.since(entry.window) >= WINDOW {
            (entry.window, entry.requests) = (now, 0);
        }
        if now.since(entry.day) >= DAY {
            (entry.day, entry.names) = (now, 0);
        }
        entry
    }

    /// Counts a request of `host`.
    fn knock(&mut self, now: Time, host: u128) -> Result<(), Refusal> {
        let most = self.config.requests_per_minute;
        let limited = most > 0 && !self.config.unlimited.contains(&host);
        let entry = self.host(now, host);
        entry.requests = entry.requests.saturating_add(1);
        match limited && entry.requests > most {
            true => Err(Refusal::Often),
            false => Ok(()),
        }
    }

    /// Somebody at `host` claims a name on a connection: the challenge to sign.
    ///
    /// # Errors
    /// Why not.
    pub fn claim(
        &mut self,
        now: Time,
        conn: u64,
        host: u128,
        name: &str,
        key: Key,
    ) -> Result<[u8; 32], Refusal> {
        self.challenge(now, conn, host, (name, key), Wants::Token)
    }

    fn challenge(
        &mut self,
        now: Time,
        conn: u64,
        host: u128,
        (name, key): (&str, Key),
        wants: Wants,
    ) -> Result<[u8; 32], Refusal> {
        self.knock(now, host)?;
        if !is_name(name) {
            return Err(Refusal::Name);
        }
        match wants {
            Wants::Name(Act::Change, _) if self.register.owner(name).is_none() => {
                return Err(Refusal::Unknown);
            }
            Wants::Name(Act::Change, _) => {}
            _ => self.may_have(now, host, name, &key)?,
        }
        self.pending.retain(|_, p| now.since(p.since) < PENDING);
        if self.pending.len() >= MAX_PENDING {
            return Err(Refusal::Full);
        }
        let mut nonce = [0; 32];
        self.rng.fill(&mut nonce);
        let pending = Pending {
            name: name.to_owned(),
            key,
            nonce,
            since: now,
            wants,
        };
        self.pending.insert(conn, pending);
        Ok(nonce)
    }

    fn may_have(&mut self, now: Time, host: u128, name: &str, key: &Key) -> Result<(), Refusal> {
        match self.register.owner(name) {
            Some((_, entry)) if entry.key == *key => return Ok(()),
            Some(_) => return Err(Refusal::Taken),
            None => {}
        }
        if self.register.count() >= self.config.max_names {
            return Err(Refusal::Full);
        }
        let most = self.config.names_per_host;
        let limited = most > 0 && !self.config.unlimited.contains(&host);
        if limited && self.host(now, host).names >= most {
            return Err(Refusal::Often);
        }
        Ok(())
    }

    /// What waits to be proven on a connection, if it is not too late.
    fn proving(&mut self, now: Time, conn: u64) -> Result<Pending, Refusal> {
        let pending = self.pending.remove(&conn).ok_or(Refusal::Unproven)?;
        match now.since(pending.since) >= PENDING {
            true => Err(Refusal::Unproven),
            false => Ok(pending),
        }
    }

    /// The challenge of this connection was signed: the token.
    ///
    /// # Errors
    /// Why not.
    pub fn prove(
        &mut self,
        now: Time,
        conn: u64,
        host: u128,
        seal: &Sealed,
    ) -> Result<Grant<Token>, Refusal> {
        let pending = self.proving(now, conn)?;
        let what = (&pending.nonce, &self.key(), pending.name.as_str());
        let token = matches!(pending.wants, Wants::Token);
        if !token || !seal.is_by(&pending.key, PROOF, &what) {
            return Err(Refusal::Unproven);
        }
        // Somebody else may have been faster.
        self.may_have(now, host, &pending.name, &pending.key)?;
        let unix = self.unix(now);
        let entry = self.fresh(now, host, &pending, None);
        let owner = self.register.owner(&pending.name);
        let name = owner.map_or(pending.name.as_str(), |(_, e)| e.name.as_str());
        let expires = unix + self.config.lifetime.as_secs();
        let answer = Token::issue(&self.key, name, pending.key, expires);
        Ok(Grant { answer, entry })
    }

    /// The entry of a name that nobody has yet.
    fn fresh(
        &mut self,
        now: Time,
        host: u128,
        pending: &Pending,
        recovery: Option<Key>,
    ) -> Option<Entry> {
        if self.register.owner(&pending.name).is_some() {
            return None;
        }
        self.host(now, host).names += 1;
        let unix = self.unix(now);
        let (name, key) = (pending.name.as_str(), pending.key);
        Some(self.register.next(name, key, recovery, unix, How::Claimed))
    }

    /// Somebody at `host` asks about names.
    ///
    /// # Errors
    /// Why not.
    pub fn about_names(
        &mut self,
        now: Time,
        conn: u64,
        host: u128,
        ask: &NameAsk,
    ) -> Result<Grant<NameAnswer>, Refusal> {
        let answer = match ask {
            NameAsk::Claim {
                name,
                key,
                recovery,
            } => {
                let wants = Wants::Name(Act::Claim, *recovery);
                let nonce = self.challenge(now, conn, host, (name, *key), wants)?;
                NameAnswer::Challenge(nonce, self.key())
            }
            NameAsk::Change {
                name,
                key,
                recovery,
            } => {
                let wants = Wants::Name(Act::Change, *recovery);
                let nonce = self.challenge(now, conn, host, (name, *key), wants)?;
                NameAnswer::Challenge(nonce, self.key())
            }
            NameAsk::Prove { by, new } => return self.certify(now, conn, host, by, new),
            _ => {
                self.knock(now, host)?;
                self.of_log(now, ask)?
            }
        };
        let entry = None;
        Ok(Grant { answer, entry })
    }

    fn of_log(&self, now: Time, ask: &NameAsk) -> Result<NameAnswer, Refusal> {
        let tree = self.register.tree();
        match ask {
            NameAsk::Entries { from } => {
                Ok(NameAnswer::Entries(self.register.entries(*from).to_vec()))
            }
            NameAsk::Owner { name } => {
                let owner = self.register.owner(name);
                Ok(NameAnswer::Owner(owner.map(|(at, e)| (at, e.clone()))))
            }
            NameAsk::Inclusion { index, size } => {
                let proof = tree.inclusion(*index, *size);
                proof.map(NameAnswer::Proof).ok_or(Refusal::Unknown)
            }
            NameAsk::Consistency { from, to } => {
                let proof = tree.consistency(*from, *to);
                proof.map(NameAnswer::Proof).ok_or(Refusal::Unknown)
            }
            _ => {
                let root = tree.root(tree.len()).ok_or(Refusal::Unknown)?;
                let head = Head::sign(&self.key, tree.len(), root, self.unix(now));
                Ok(NameAnswer::Head(head))
            }
        }
    }

    fn certify(
        &mut self,
        now: Time,
        conn: u64,
        host: u128,
        by: &Sealed,
        new: &Sealed,
    ) -> Result<Grant<NameAnswer>, Refusal> {
        let pending = self.proving(now, conn)?;
        let Wants::Name(act, recovery) = pending.wants else {
            return Err(Refusal::Unproven);
        };
        let server = self.key();
        let said = Statement {
            act,
            nonce: &pending.nonce,
            server: &server,
            name: &pending.name,
            key: &pending.key,
            recovery,
        };
        if !said.is_by(&pending.key, new) {
            return Err(Refusal::Unproven);
        }
        let unix = self.unix(now);
        let owner = self.register.owner(&pending.name).map(|(_, e)| e.clone());
        let how = match (act, &owner) {
            (Act::Claim, None) => None,
            (Act::Claim, Some(owner)) => {
                self.may_have(now, host, &pending.name, &pending.key)?;
                // A claim again is a renewal; it may name a recovery key if there was none.
                let more = recovery.is_some() && recovery != owner.recovery;
                more.then_some(How::Key)
            }
            (Act::Change, None) => return Err(Refusal::Unknown),
            (Act::Change, Some(owner)) => {
                let recovers = owner.recovery.filter(|r| said.is_by(r, by));
                match recovers {
                    Some(_) => Some(How::Recovery),
                    None if said.is_by(&owner.key, by) => Some(How::Key),
                    None => return Err(Refusal::Unproven),
                }
            }
        };
        let entry = match (how, &owner) {
            (None, _) => {
                self.may_have(now, host, &pending.name, &pending.key)?;
                self.fresh(now, host, &pending, recovery)
            }
            (Some(how), Some(owner)) => {
                let other = recovery.is_some() && recovery != owner.recovery;
                if other && owner.recovery.is_some() && how != How::Recovery {
                    return Err(Refusal::Recovery);
                }
                let (name, key) = (pending.name.as_str(), pending.key);
                Some(self.register.next(name, key, recovery, unix, how))
            }
            (Some(_), None) => return Err(Refusal::Unknown),
        };
        let expires = unix + self.config.certificate.as_secs();
        let at = self.register.tree().len();
        let certificate = match (&entry, self.register.owner(&pending.name)) {
            (Some(e), _) => {
                let (name, generation) = (e.name.as_str(), e.generation);
                Certificate::issue(&self.key, (name, e.key), (generation, at), expires)
            }
            (None, Some((at, e))) => {
                let (name, generation) = (e.name.as_str(), e.generation);
                Certificate::issue(&self.key, (name, e.key), (generation, at), expires)
            }
            (None, None) => return Err(Refusal::Unknown),
        };
        let answer = NameAnswer::Certified(certificate);
        Ok(Grant { answer, entry })
    }

    /// A connection ended.
    pub fn closed(&mut self, conn: u64) {
        self.pending.remove(&conn);
    }
}

#[cfg(test)]
mod tests;
