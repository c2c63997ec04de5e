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
mod tests {
    use super::*;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn server(change: impl FnOnce(&mut LoginConfig)) -> LoginServer {
        let mut config = LoginConfig {
            epoch: 1_000_000,
            ..LoginConfig::default()
        };
        change(&mut config);
        LoginServer::new(config, key(1), Rng::from_seed(1))
    }

    fn login(s: &mut LoginServer, at: u64, name: &str, n: u8) -> Result<(Token, bool), Refusal> {
        let now = Time::from_secs(at);
        let public = key(n).verifying_key().to_bytes();
        let nonce = s.claim(now, 5, 9, name, public)?;
        let seal = prove(&key(n), &nonce, &s.key(), name);
        let grant = s.prove(now, 5, 9, &seal)?;
        let fresh = grant.entry.is_some();
        grant.entry.into_iter().for_each(|e| s.commit(e));
        Ok((grant.answer, fresh))
    }

    /// Claims or changes: `keys` are who asks for it, who shall have it, and the recovery key.
    fn name(
        s: &mut LoginServer,
        act: Act,
        name: &str,
        keys: (u8, u8, Option<u8>),
    ) -> Result<Certificate, Refusal> {
        let now = Time::ZERO;
        let public = |n| key(n).verifying_key().to_bytes();
        let (own, recovery) = (public(keys.1), keys.2.map(public));
        let ask = match act {
            Act::Claim => NameAsk::Claim {
                name: name.into(),
                key: own,
                recovery,
            },
            Act::Change => NameAsk::Change {
                name: name.into(),
                key: own,
                recovery,
            },
        };
        let Ok(NameAnswer::Challenge(nonce, server)) =
            s.about_names(now, 5, 9, &ask).map(|g| g.answer)
        else {
            return Err(s.about_names(now, 5, 9, &ask).expect_err("refused"));
        };
        let said = Statement {
            act,
            nonce: &nonce,
            server: &server,
            name,
            key: &own,
            recovery,
        };
        let (by, new) = (said.sign(&key(keys.0)), said.sign(&key(keys.1)));
        let grant = s.about_names(now, 5, 9, &NameAsk::Prove { by, new })?;
        grant.entry.into_iter().for_each(|e| s.commit(e));
        match grant.answer {
            NameAnswer::Certified(certificate) => Ok(certificate),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_name_changes_its_key_by_the_old_one_or_the_recovery_key_alone() {
        let mut s = server(|_| {});
        let public = |n| key(n).verifying_key().to_bytes();
        let first = name(&mut s, Act::Claim, "alice", (2, 2, Some(7))).expect("hers");
        assert_eq!(first.check(&s.key(), 1_000_000), Ok(()));
        assert_eq!((first.generation, first.entry), (0, 0));
        assert_eq!(
            name(&mut s, Act::Claim, "a1ice", (3, 3, None)),
            Err(Refusal::Taken),
            "a name that looks alike is the same"
        );
        assert_eq!(
            name(&mut s, Act::Change, "alice", (3, 3, None)),
            Err(Refusal::Unproven),
            "by a stranger"
        );
        assert_eq!(
            name(&mut s, Act::Change, "bob", (3, 3, None)),
            Err(Refusal::Unknown)
        );
        let second = name(&mut s, Act::Change, "alice", (2, 4, None)).expect("by the old key");
        assert_eq!(
            (second.key, second.generation, second.entry),
            (public(4), 1, 1)
        );
        assert_eq!(
            name(&mut s, Act::Change, "alice", (4, 4, Some(8))),
            Err(Refusal::Recovery),
            "a thief of the key cannot name another recovery key"
        );
        let third = name(&mut s, Act::Change, "alice", (7, 5, Some(8))).expect("recovered");
        assert_eq!((third.key, third.generation), (public(5), 2));
        assert_eq!(
            name(&mut s, Act::Change, "alice", (7, 6, None)),
            Err(Refusal::Unproven),
            "the old recovery key counts no more"
        );
        assert_eq!(login(&mut s, 0, "alice", 4), Err(Refusal::Taken));
        assert!(login(&mut s, 0, "alice", 5).is_ok());
        let renewed = name(&mut s, Act::Claim, "Alice", (5, 5, None)).expect("renewed");
        assert_eq!(
            (renewed.entry, s.register.tree().len()),
            (2, 3),
            "nothing new in the log"
        );
    }

    #[test]
    fn the_log_proves_who_got_which_name() {
        use crate::names::log::{extends, includes};
        let mut s = server(|_| {});
        let ask =
            |s: &mut LoginServer, ask| s.about_names(Time::ZERO, 1, 1, &ask).expect("told").answer;
        let mut heads = Vec::new();
        for n in 2..20 {
            name(
                &mut s,
                Act::Claim,
                &format!("n-{}", "abcdefghijkmnopqrstuv".split_at(n.into()).0),
                (n, n, None),
            )
            .expect("new");
            let NameAnswer::Head(head) = ask(&mut s, NameAsk::Head) else {
                panic!("no head")
            };
            assert!(head.is_by(&s.key()) && !head.is_by(&[3; 32]));
            heads.push(head);
        }
        let NameAnswer::Entries(entries) = ask(&mut s, NameAsk::Entries { from: 0 }) else {
            panic!()
        };
        let own = NameAsk::Owner {
            name: entries[0].name.to_uppercase(),
        };
        let owner = NameAnswer::Owner(Some((0, entries[0].clone())));
        assert_eq!(ask(&mut s, own), owner);
        let nobody = NameAsk::Owner {
            name: "nobody".into(),
        };
        assert_eq!(ask(&mut s, nobody), NameAnswer::Owner(None));
        let last = heads.last().expect("one");
        for (index, entry) in (0..).zip(&entries) {
            let size = last.size;
            let NameAnswer::Proof(proof) = ask(&mut s, NameAsk::Inclusion { index, size }) else {
                panic!()
            };
            assert!(includes(&entry.leaf(), index, size, &last.root, &proof));
        }
        for head in &heads {
            let (from, to) = (head.size, last.size);
            let NameAnswer::Proof(proof) = ask(&mut s, NameAsk::Consistency { from, to }) else {
                panic!()
            };
            assert!(extends((from, &head.root), (to, &last.root), &proof));
        }
    }

    #[test]
    fn a_name_is_its_first_owners() {
        let mut s = server(|_| {});
        let (token, fresh) = login(&mut s, 0, "Alice", 2).expect("hers");
        assert!(fresh);
        assert_eq!(token.check(&s.key(), 1_000_000 + 86_399), Ok(()));
        assert!(token.check(&s.key(), 1_000_000 + 86_400).is_err());
        assert_eq!(login(&mut s, 1, "alice", 3), Err(Refusal::Taken));
        let (again, fresh) = login(&mut s, 2, "ALICE", 2).expect("hers");
        assert_eq!((again.name.as_str(), fresh), ("Alice", false));
        let mut later = server(|_| {});
        let kept = s.register.entries(0).iter().map(Entry::line);
        kept.for_each(|line| later.commit(Entry::parse(&line).expect("reads")));
        assert_eq!(login(&mut later, 0, "alice", 3), Err(Refusal::Taken));
    }

    #[test]
    fn a_challenge_serves_once_for_who_got_it() {
        let mut s = server(|_| {});
        let now = Time::ZERO;
        let public = key(2).verifying_key().to_bytes();
        let nonce = s.claim(now, 5, 9, "alice", public).expect("asked");
        let stolen = prove(&key(3), &nonce, &s.key(), "alice");
        assert_eq!(s.prove(now, 5, 9, &stolen), Err(Refusal::Unproven));
        let right = prove(&key(2), &nonce, &s.key(), "alice");
        assert_eq!(
            s.prove(now, 5, 9, &right),
            Err(Refusal::Unproven),
            "used up"
        );
        let nonce = s.claim(now, 5, 9, "alice", public).expect("asked");
        let other = prove(&key(2), &nonce, &[7; 32], "alice");
        assert_eq!(
            s.prove(now, 5, 9, &other),
            Err(Refusal::Unproven),
            "for another server"
        );
        let nonce = s.claim(now, 5, 9, "alice", public).expect("asked");
        let right = prove(&key(2), &nonce, &s.key(), "alice");
        let late = Time::from_secs(30);
        assert_eq!(s.prove(late, 5, 9, &right), Err(Refusal::Unproven), "late");
    }

    #[test]
    fn one_address_gets_few_names_and_few_tries() {
        let mut s = server(|c| c.names_per_host = 2);
        assert!(login(&mut s, 0, "a", 2).is_ok() && login(&mut s, 0, "b", 2).is_ok());
        assert_eq!(login(&mut s, 0, "c", 2), Err(Refusal::Often));
        assert!(login(&mut s, 0, "a", 2).is_ok(), "its own it may have");
        assert!(login(&mut s, 86_400, "c", 2).is_ok(), "the next day");
        let mut s = server(|c| c.requests_per_minute = 3);
        let tries =
            |s: &mut LoginServer, at| (0..9).filter(|_| login(s, at, "a", 2).is_ok()).count();
        assert_eq!(tries(&mut s, 0), 3);
        assert_eq!(tries(&mut s, 60), 3);
    }
}
