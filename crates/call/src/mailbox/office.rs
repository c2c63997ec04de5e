//! The supernode's side: who has a box, what is in it, who may put how much.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use shoal_base::{Rng, Time};
use shoal_supernode::names::fold::fold;
use shoal_supernode::token::{Key, is_name};

use super::wire::{
    Found, MAX_ACKS, MAX_RECORD, Say, Told, Unkept, Why, is_ack, is_client, server_proof,
};
use super::{Envelope, LetterId};

/// A link, as the driver numbers it.
pub type LinkId = u64;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// After how long a silent link is ended; its owner pings more often.
const SILENT: Duration = Duration::from_secs(90);
/// How often what has ended is thrown away.
const SWEEP: Duration = Duration::from_secs(10);
/// Letters that were acknowledged or are kept, remembered for one box, so that none comes twice.
const MAX_KNOWN: usize = 4096;
/// Keys of which is counted what they did in the last minute at most.
const MAX_SENDERS: usize = 65_536;

/// Limits of an office.
#[derive(Debug, Clone)]
pub struct OfficeConfig {
    /// Unix time, in seconds, of [`Time::ZERO`].
    pub epoch: u64,
    /// The login server's key.
    pub trusted: Key,
    /// Links at most.
    pub links: usize,
    /// Boxes at most.
    pub boxes: usize,
    /// For how long a box is kept whose owner does not come.
    pub box_life: Duration,
    /// Letters in one box at most.
    pub letters: usize,
    /// Bytes in one box at most.
    pub bytes: usize,
    /// Letters of one sender in one box at most.
    pub letters_of_sender: usize,
    /// Bytes in all boxes at most.
    pub bytes_in_all: usize,
    /// Letters that one sender puts in a minute at most.
    pub puts_per_minute: u32,
    /// How often one key has the ring of names asked in a minute at most: each time asks several nodes.
    pub asks_per_minute: u32,
}

impl OfficeConfig {
    /// Usual figures, for who trusts a login server.
    pub fn new(trusted: Key) -> Self {
        Self {
            epoch: 0,
            trusted,
            links: 2000,
            boxes: 10_000,
            box_life: Duration::from_secs(30 * 86_400),
            letters: 2000,
            bytes: 4 << 20,
            letters_of_sender: 500,
            bytes_in_all: 256 << 20,
            puts_per_minute: 600,
            asks_per_minute: 60,
        }
    }
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    /// Send.
    Send(LinkId, Told),
    /// Send what waits and close; [`Office::closed`] is not to be called.
    Close(LinkId),
    /// Put the record of the link's name, which is this, into the ring of names, if it holds;
    /// [`Told::Published`] answers.
    Publish(LinkId, String, Vec<u8>),
    /// Look for the record of a name; [`Told::Looked`] answers.
    Look(LinkId, String),
}

/// What an office holds and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OfficeStats {
    /// Boxes.
    pub boxes: u64,
    /// Letters in them.
    pub letters: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Letters taken.
    pub taken: u64,
    /// Letters acknowledged.
    pub delivered: u64,
    /// Letters and links refused.
    pub refused: u64,
}

#[derive(Debug)]
enum Stage {
    Hello,
    Proof(Key, u64),
    /// Until the certificate ends, in Unix seconds.
    Up(Key, u64),
}

#[derive(Debug)]
struct Link {
    stage: Stage,
    /// As it is certified, folded.
    name: String,
    nonce: [u8; 32],
    heard: Time,
}

/// What one key did since its minute began.
#[derive(Debug, Clone, Copy)]
struct Minute {
    since: Time,
    puts: u32,
    asks: u32,
}

#[derive(Debug)]
struct Held {
    envelope: Envelope,
    from: Key,
    until: Time,
}

#[derive(Debug, Default)]
struct Box {
    held: VecDeque<(LetterId, Held)>,
    bytes: usize,
    known: BTreeSet<LetterId>,
    known_order: VecDeque<LetterId>,
    open: Option<LinkId>,
    seen: Time,
}

impl Box {
    /// Whether this letter was never here.
    fn note(&mut self, id: LetterId) -> bool {
        if !self.known.insert(id) {
            return false;
        }
        self.known_order.push_back(id);
        if self.known_order.len() > MAX_KNOWN
            && let Some(old) = self.known_order.pop_front()
        {
            self.known.remove(&old);
        }
        true
    }

    /// Drops those that `gone` says; how many, and their bytes.
    fn drop_held(&mut self, gone: impl Fn(&LetterId, &Held) -> bool) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        self.held.retain(|(id, held)| {
            let goes = gone(id, held);
            if goes {
                count += 1;
                bytes += held.envelope.sealed.len();
            }
            !goes
        });
        self.bytes -= bytes;
        (count, bytes)
    }
}

/// The office. See the module's text.
#[derive(Debug)]
pub struct Office {
    config: OfficeConfig,
    key: SigningKey,
    rng: Rng,
    links: BTreeMap<LinkId, Link>,
    boxes: BTreeMap<Key, Box>,
    bytes: usize,
    minutes: BTreeMap<Key, Minute>,
    sweep: Time,
    stats: OfficeStats,
}

impl Office {
    /// One without boxes; `key` is the supernode's.
    pub fn new(config: OfficeConfig, key: SigningKey, rng: Rng) -> Self {
        Self {
            config,
            key,
            rng,
            links: BTreeMap::new(),
            boxes: BTreeMap::new(),
            bytes: 0,
            minutes: BTreeMap::new(),
            sweep: Time::ZERO,
            stats: OfficeStats::default(),
        }
    }

    /// What it holds and did.
    pub fn stats(&self) -> OfficeStats {
        OfficeStats {
            boxes: self.boxes.len() as u64,
            letters: self.boxes.values().map(|b| b.held.len() as u64).sum(),
            bytes: self.bytes as u64,
            ..self.stats
        }
    }

    fn unix(&self, now: Time) -> u64 {
        self.config.epoch + now.as_micros() / 1_000_000
    }

    /// Somebody connected.
    pub fn connected(&mut self, now: Time, link: LinkId, out: &mut Vec<Out>) {
        if self.links.len() >= self.config.links {
            return self.refuse(link, Why::Crowded, out);
        }
        let mut nonce = [0; 32];
        self.rng.fill(&mut nonce);
        let stage = Stage::Hello;
        let heard = now;
        self.links.insert(
            link,
            Link {
                stage,
                name: String::new(),
                nonce,
                heard,
            },
        );
    }

    /// A link is gone.
    pub fn closed(&mut self, now: Time, link: LinkId) {
        let Some(Link {
            stage: Stage::Up(key, _),
            ..
        }) = self.links.remove(&link)
        else {
            return;
        };
        if let Some(own) = self.boxes.get_mut(&key).filter(|b| b.open == Some(link)) {
            own.open = None;
            own.seen = now;
        }
    }

    fn refuse(&mut self, link: LinkId, why: Why, out: &mut Vec<Out>) {
        self.stats.refused += 1;
        out.push(Out::Send(link, Told::Refused(None, why)));
        out.push(Out::Close(link));
    }

    fn end(&mut self, now: Time, link: LinkId, why: Why, out: &mut Vec<Out>) {
        self.closed(now, link);
        self.refuse(link, why, out);
    }

    /// A link says something.
    pub fn said(&mut self, now: Time, link: LinkId, say: Say, out: &mut Vec<Out>) {
        let unix = self.unix(now);
        let own = self.key.verifying_key().to_bytes();
        let Some(at) = self.links.get_mut(&link) else {
            return;
        };
        at.heard = now;
        match (&at.stage, say) {
            (Stage::Hello, Say::Hello(certificate, nonce)) => {
                if let Err(why) = certificate.check(&self.config.trusted, unix) {
                    return self.end(now, link, Why::Certificate(why), out);
                }
                at.stage = Stage::Proof(certificate.key, certificate.expires);
                at.name = fold(&certificate.name);
                let proof = server_proof(&self.key, &nonce, &certificate.key);
                out.push(Out::Send(link, Told::Hello(own, at.nonce, proof)));
            }
            (Stage::Proof(key, expires), Say::Proof(seal)) => {
                if !is_client(key, &at.nonce, &own, &seal) {
                    return self.end(now, link, Why::Unproven, out);
                }
                at.stage = Stage::Up(*key, *expires);
                out.push(Out::Send(link, Told::Welcome));
            }
            (Stage::Up(key, _), Say::Open) => {
                let key = *key;
                self.open(now, link, key, out);
            }
            (Stage::Up(key, _), Say::Put(envelope)) => {
                let (key, id) = (*key, envelope.id());
                let told = match self.put(now, key, id, envelope, out) {
                    Ok(()) => Told::Stored(id),
                    Err(why) => {
                        self.stats.refused += 1;
                        Told::Refused(Some(id), why)
                    }
                };
                out.push(Out::Send(link, told));
            }
            (Stage::Up(key, _), Say::Ack(ids, seal)) => {
                let key = *key;
                if ids.len() > MAX_ACKS || !is_ack(&key, &at.nonce, &ids, &seal) {
                    return self.end(now, link, Why::Unproven, out);
                }
                if let Some(own) = self.boxes.get_mut(&key) {
                    let (count, bytes) = own.drop_held(|id, _| ids.contains(id));
                    self.bytes -= bytes;
                    self.stats.delivered += count as u64;
                }
            }
            (Stage::Up(..), Say::Ping) => out.push(Out::Send(link, Told::Pong)),
            (Stage::Up(key, _), Say::Publish(record)) => {
                let (key, name) = (*key, at.name.clone());
                let refused = if record.len() > MAX_RECORD {
                    Some(Unkept::Unfit)
                } else {
                    (!self.may_ask(now, key)).then_some(Unkept::Often)
                };
                out.push(match refused {
                    Some(why) => Out::Send(link, Told::Published(Err(why))),
                    None => Out::Publish(link, name, record),
                });
            }
            (Stage::Up(key, _), Say::Look(name)) => {
                let key = *key;
                out.push(if !is_name(&name) {
                    Out::Send(link, Told::Looked(String::new(), Found::Nothing))
                } else if self.may_ask(now, key) {
                    Out::Look(link, name)
                } else {
                    Out::Send(link, Told::Looked(name, Found::Often))
                });
            }
            _ => self.end(now, link, Why::Turn, out),
        }
    }

    fn open(&mut self, now: Time, link: LinkId, key: Key, out: &mut Vec<Out>) {
        if self.boxes.len() >= self.config.boxes && !self.boxes.contains_key(&key) {
            return self.end(now, link, Why::Crowded, out);
        }
        let own = self.boxes.entry(key).or_default();
        own.seen = now;
        let before = own.open.replace(link).filter(|b| *b != link);
        let mail = own.held.iter().filter(|(_, held)| held.until > now);
        let mail = mail.map(|(_, held)| Out::Send(link, Told::Mail(held.envelope.clone())));
        out.extend(mail);
        // One owner, one place: the last to open a box has it.
        if let Some(before) = before {
            self.links.remove(&before);
            self.refuse(before, Why::Crowded, out);
        }
    }

    fn put(
        &mut self,
        now: Time,
        from: Key,
        id: LetterId,
        envelope: Envelope,
        out: &mut Vec<Out>,
    ) -> Result<(), Why> {
        if !envelope.fits() {
            return Err(Why::Unfit);
        }
        if !self.may_put(now, from) {
            return Err(Why::Often);
        }
        let len = envelope.sealed.len();
        let own = self.boxes.get_mut(&envelope.to).ok_or(Why::NoBox)?;
        if own.known.contains(&id) {
            return Ok(());
        }
        let full = own.held.len() >= self.config.letters || own.bytes + len > self.config.bytes;
        if full || self.bytes + len > self.config.bytes_in_all {
            return Err(Why::Full);
        }
        let of_sender = own.held.iter().filter(|(_, h)| h.from == from).count();
        if of_sender >= self.config.letters_of_sender {
            return Err(Why::Enough);
        }
        own.note(id);
        own.bytes += len;
        self.bytes += len;
        self.stats.taken += 1;
        if let Some(link) = own.open {
            out.push(Out::Send(link, Told::Mail(envelope.clone())));
        }
        let until = now + Duration::from_secs(envelope.keep.into());
        let held = Held {
            envelope,
            from,
            until,
        };
        own.held.push_back((id, held));
        Ok(())
    }

    fn may_put(&mut self, now: Time, from: Key) -> bool {
        let most = self.config.puts_per_minute;
        self.minute(now, from).is_some_and(|minute| {
            minute.puts = minute.puts.saturating_add(1);
            minute.puts <= most
        })
    }

    fn may_ask(&mut self, now: Time, from: Key) -> bool {
        let most = self.config.asks_per_minute;
        self.minute(now, from).is_some_and(|minute| {
            minute.asks = minute.asks.saturating_add(1);
            minute.asks <= most
        })
    }

    /// What a key did in its minute; none if there is no room to count it.
    fn minute(&mut self, now: Time, from: Key) -> Option<&mut Minute> {
        let length = Duration::from_secs(60);
        if self.minutes.len() >= MAX_SENDERS && !self.minutes.contains_key(&from) {
            self.minutes.retain(|_, m| now.since(m.since) < length);
            if self.minutes.len() >= MAX_SENDERS {
                return None;
            }
        }
        let fresh = Minute {
            since: now,
            puts: 0,
            asks: 0,
        };
        let minute = self.minutes.entry(from).or_insert(fresh);
        if now.since(minute.since) >= length {
            *minute = fresh;
        }
        Some(minute)
    }

    /// When [`Office::tick`] is to be called.
    pub fn deadline(&self) -> Time {
        self.sweep
    }

    /// Throws away what has ended.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Out>) {
        if now < self.sweep {
            return;
        }
        self.sweep = now + SWEEP;
        let unix = self.unix(now);
        let ends = |link: &Link| match link.stage {
            Stage::Up(_, until) => now.since(link.heard) >= SILENT || unix >= until,
            _ => now.since(link.heard) >= HANDSHAKE,
        };
        let late = self
            .links
            .iter()
            .filter(|(_, l)| ends(l))
            .map(|(id, _)| *id);
        for link in late.collect::<Vec<_>>() {
            self.closed(now, link);
            out.push(Out::Close(link));
        }
        let life = self.config.box_life;
        let mut freed = 0;
        self.boxes.retain(|_, own| {
            freed += own.drop_held(|_, held| held.until <= now).1;
            let stays = own.open.is_some() || now.since(own.seen) < life;
            if !stays {
                freed += own.bytes;
            }
            stays
        });
        self.bytes -= freed;
    }

    /// Checks what must always hold; for tests and fuzzing.
    ///
    /// # Panics
    /// When something does not hold.
    pub fn check_invariants(&self) {
        let mut all = 0;
        for own in self.boxes.values() {
            let bytes: usize = own.held.iter().map(|(_, h)| h.envelope.sealed.len()).sum();
            assert_eq!(bytes, own.bytes);
            assert!(own.held.len() <= self.config.letters && bytes <= self.config.bytes);
            assert_eq!(own.known.len(), own.known_order.len());
            all += bytes;
        }
        assert_eq!(all, self.bytes);
        assert!(self.links.len() <= self.config.links && self.boxes.len() <= self.config.boxes);
        assert!(all <= self.config.bytes_in_all && self.minutes.len() <= MAX_SENDERS);
    }
}

#[cfg(test)]
mod tests;
