//! One end of conversations: texts that come once and in order, receipts, buddies and their presence.
//!
//! The driver looks records up, carries envelopes to supernodes and hands over what comes; what
//! [`Effect::Keep`] says is durable before anything after it is done.
//!
//! Each text to somebody has a number in a stream, which is named by 8 random bytes and begins anew
//! only when an end has lost what it kept. The recipient tells texts of one stream in the order of
//! their numbers, each once; the sender keeps a text and puts it into the recipient's boxes until it
//! has a receipt.

mod buddies;
mod heads;
mod incoming;
mod journal;
mod outgoing;
mod straight;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use shoal_base::Time;
use shoal_supernode::Address;
use shoal_supernode::names::certificate::Certificate;
use shoal_supernode::names::fold::fold;
use shoal_supernode::names::log::Head;
use shoal_supernode::token::Key;

use crate::mailbox::wire::Why;
use crate::mailbox::{Envelope, LetterId};
use crate::record::{Home, MAX_HOMES, Record, SKEW};
use crate::seal::{PrekeyPair, Secrets};

pub use buddies::Status;
pub use heads::Fork;
pub use journal::Entry;
pub use outgoing::NotSent;

/// Bytes of a text at most.
pub const MAX_TEXT: usize = 8 << 10;
/// How often a chat looks at what is due.
const TICK: Duration = Duration::from_secs(1);
/// How often our record is published again.
const PUBLISH: Duration = Duration::from_secs(1800);
/// How soon a lookup that failed is done again; each time twice as long, up to a minute.
const AGAIN: Duration = Duration::from_secs(2);
const MAX_AGAIN: Duration = Duration::from_secs(60);
/// How long letters wait in boxes, in seconds.
const KEEP: u32 = 14 * 86_400;
/// After how long a prekey is replaced, and after how long it is forgotten: no letter waits longer.
const PREKEY_LIFE: u64 = 86_400;
const PREKEY_KEPT: u64 = 15 * 86_400;
/// People known at most.
const MAX_PEOPLE: usize = 10_000;

/// The name of a stream of texts.
pub type StreamId = [u8; 8];

/// What one end says to another, sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// A text.
    Text {
        /// Its stream.
        stream: StreamId,
        /// Its number, from 0.
        seq: u64,
        /// Numbers below will not come again.
        first: u64,
        /// When it was written, in Unix seconds.
        unix: u64,
        /// What it says.
        text: String,
    },
    /// All texts of this stream below this number were told.
    Receipt(StreamId, u64),
    /// The sender wants to know how the recipient is, for some minutes; `false`: no more.
    Subscribe(bool),
    /// How the sender is, until then (Unix seconds).
    Presence(Status, u64),
    /// The public log of names as the login server showed it to the sender.
    Head(Head),
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<A> {
    /// Make this durable before what comes after it.
    Keep(Entry),
    /// Write these prekeys over those that were there before, durably.
    Prekeys(Vec<u8>),
    /// Look for the record of this folded name, then [`Chat::on_record`].
    Lookup(String),
    /// Publish this record.
    Publish(Box<Record<A>>),
    /// Put this into its recipient's box there, then [`Chat::on_put`].
    Put(Home<A>, Envelope),
    /// Tell our homes that we have these letters.
    Ack(Vec<LetterId>),
    /// Make a connection to the node of this key, then [`Chat::on_link`].
    Reach(Key),
    /// Hand this over the connection to the node of this key; whether it comes there shows the receipt.
    Hand(Key, Envelope),
    /// Somebody was shown this head of the public log: ask the login server to prove that it and ours are of
    /// one log, then [`Chat::on_compared`].
    Compare(String, Box<Head>),
    /// Somebody wants to know.
    Event(Event),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A text came.
    Text {
        /// Who wrote it.
        from: String,
        /// Its number in its stream.
        seq: u64,
        /// When it was written, in Unix seconds, as the sender says.
        unix: u64,
        /// What it says.
        text: String,
        /// It comes after later ones: it was given up for lost.
        late: bool,
    },
    /// Texts of somebody are lost, or late.
    Missing(String, u64),
    /// A text of ours lies in so many boxes.
    Stored(String, u64, usize),
    /// Texts of ours up to this number were told to the recipient.
    Delivered(String, u64),
    /// A text cannot be brought to its recipient now.
    Waiting(String, &'static str),
    /// A buddy's presence.
    Presence(String, Status),
    /// Somebody who is no buddy of ours asks how we are; nothing was answered.
    Asks(String),
    /// Somebody's name has another key since we last wrote: its own doing, or its recovery.
    KeyChanged(String, Key),
    /// The login server showed somebody another log of names than us.
    Forked(Box<Fork>),
    /// A letter that cannot be read was dropped.
    Unreadable(&'static str),
}

/// Somebody we wrote to, or who wrote to us.
#[derive(Debug)]
struct Person<A> {
    /// As first spelled.
    name: String,
    /// The key, and of which generation; none before it was seen.
    key: Option<(Key, u32)>,
    record: Option<(Record<A>, Time)>,
    /// When the record is to be looked up; far: it is not wanted, or being looked up.
    lookup: Time,
    tries: u32,
    out: outgoing::Outgoing<A>,
    streams: BTreeMap<StreamId, incoming::Stream>,
    buddy: bool,
    presence: buddies::Presence,
    tries_straight: straight::Tries,
    /// A connection is wanted even when nothing waits.
    wanted: bool,
    head: heads::Told,
}

/// Who we are.
#[derive(Debug)]
pub struct Me {
    /// The key of our name.
    pub key: SigningKey,
    /// Its certificate.
    pub certificate: Certificate,
    /// The login server's key.
    pub server: Key,
}

/// One end. See the module's text.
#[derive(Debug)]
pub struct Chat<A> {
    me: Me,
    epoch: u64,
    secrets: Secrets,
    people: BTreeMap<String, Person<A>>,
    prekeys: Vec<PrekeyPair>,
    homes: Vec<Home<A>>,
    seq: u64,
    publish: Time,
    next: Time,
    status: Status,
    announce: Time,
    seen: BTreeSet<LetterId>,
    /// Whether the driver makes connections, and which there are.
    /// The public log as we were shown it.
    head: Option<Head>,
    reaches: bool,
    links: BTreeMap<Key, straight::Link>,
    out: Vec<Effect<A>>,
}

impl<A: Address> Chat<A> {
    /// One end; `epoch` is the Unix time, in seconds, of [`Time::ZERO`]; `kept` what it kept before,
    /// in order, and `prekeys` its last prekeys.
    pub fn new(
        me: Me,
        epoch: u64,
        secrets: Secrets,
        kept: impl IntoIterator<Item = Entry>,
        prekeys: Option<&[u8]>,
    ) -> Self {
        let read = prekeys.and_then(|bytes| postcard::from_bytes(bytes).ok());
        let mut chat = Self {
            me,
            epoch,
            secrets,
            people: BTreeMap::new(),
            prekeys: read.unwrap_or_default(),
            homes: Vec::new(),
            seq: 0,
            publish: Time::FAR,
            next: Time::ZERO,
            status: Status::Online,
            announce: Time::ZERO,
            seen: BTreeSet::new(),
            head: None,
            reaches: false,
            links: BTreeMap::new(),
            out: Vec::new(),
        };
        kept.into_iter().for_each(|entry| chat.replay(entry));
        chat
    }

    fn unix(&self, now: Time) -> u64 {
        self.epoch + now.as_micros() / 1_000_000
    }

    fn tell(&mut self, event: Event) {
        self.out.push(Effect::Event(event));
    }

    fn flush(&mut self, out: &mut Vec<Effect<A>>) {
        out.append(&mut self.out);
    }

    /// Somebody by name, who may be new.
    fn person(&mut self, name: &str) -> Option<&mut Person<A>> {
        let folded = fold(name);
        if !self.people.contains_key(&folded) {
            if self.people.len() >= MAX_PEOPLE {
                return None;
            }
            let mut stream = [0; 8];
            self.secrets.fill(&mut stream);
            let person = Person {
                name: name.to_owned(),
                key: None,
                record: None,
                lookup: Time::FAR,
                tries: 0,
                out: outgoing::Outgoing::new(stream),
                streams: BTreeMap::new(),
                buddy: false,
                presence: buddies::Presence::default(),
                tries_straight: straight::Tries::default(),
                wanted: false,
                head: heads::Told::default(),
            };
            self.people.insert(folded.clone(), person);
        }
        self.people.get_mut(&folded)
    }

    /// A fresh certificate of our name.
    pub fn renew(&mut self, now: Time, certificate: Certificate) {
        self.me.certificate = certificate;
        self.publish = now;
        self.next = now;
    }

    /// These supernodes keep our letters from now on.
    pub fn set_homes(&mut self, now: Time, homes: &[Home<A>], out: &mut Vec<Effect<A>>) {
        self.homes = homes.iter().take(MAX_HOMES).copied().collect();
        self.publish = now;
        self.tick(now, out);
    }

    /// A record of ours with this rank is known already: the next one outranks it.
    pub fn outrank(&mut self, now: Time, rank: i64) {
        let seq = u64::try_from(rank).unwrap_or(0) & ((1 << 40) - 1);
        self.seq = self.seq.max(seq);
        self.publish = now;
        self.next = now;
    }

    /// When [`Chat::tick`] is to be called.
    pub fn deadline(&self) -> Time {
        self.next
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Effect<A>>) {
        self.next = now + TICK;
        self.turn_prekeys(now);
        if self.publish <= now && !self.homes.is_empty() {
            self.publish = now + PUBLISH;
            self.publish_now(now);
        }
        self.tick_buddies(now);
        let names: Vec<String> = self.people.keys().cloned().collect();
        for name in names {
            self.tick_streams(now, &name);
            self.work(now, &name);
        }
        self.flush(out);
    }

    /// Makes a new prekey each day, and forgets those that no letter waits for any more.
    fn turn_prekeys(&mut self, now: Time) {
        let unix = self.unix(now);
        let before = self.prekeys.len();
        self.prekeys.retain(|p| unix < p.made + PREKEY_KEPT);
        let fresh = self
            .prekeys
            .last()
            .is_some_and(|p| unix < p.made + PREKEY_LIFE);
        if !fresh {
            let pair = PrekeyPair::make(&mut self.secrets, unix);
            self.prekeys.push(pair);
            self.publish = self.publish.min(now);
        }
        if !fresh || self.prekeys.len() != before {
            // Plain data: its encoding cannot fail.
            let bytes = postcard::to_allocvec(&self.prekeys).unwrap_or_default();
            self.out.push(Effect::Prekeys(bytes));
        }
    }

    fn publish_now(&mut self, now: Time) {
        let Some(prekey) = self.prekeys.last().map(|p| p.public) else {
            return;
        };
        let unix = self.unix(now);
        // A number of the future, by a clock that went wrong, is believed by nobody: it outranks nothing.
        let last = Some(self.seq).filter(|seq| *seq <= unix + SKEW);
        self.seq = unix.max(last.map_or(0, |seq| seq + 1));
        // Of another run within this second, too, the later record is to win.
        self.out.push(Effect::Keep(Entry::Published(self.seq)));
        let (certificate, homes) = (self.me.certificate.clone(), self.homes.clone());
        let record = Record::new(&self.me.key, certificate, self.seq, homes, prekey);
        self.out.push(Effect::Publish(Box::new(record)));
    }

    /// A lookup ended: the record of a name, checked; or that nobody answers, or has none.
    pub fn on_record(
        &mut self,
        now: Time,
        name: &str,
        found: Result<Record<A>, &'static str>,
        out: &mut Vec<Effect<A>>,
    ) {
        let Some(person) = self.people.get_mut(name) else {
            return;
        };
        let later = AGAIN * 2_u32.saturating_pow(person.tries);
        person.tries = person.tries.saturating_add(1);
        person.lookup = now + later.min(MAX_AGAIN);
        let shown = person.name.clone();
        match found {
            Ok(record) => {
                let old = person.record.as_ref().map_or(i64::MIN, |(r, _)| r.rank());
                let (key, generation) = (record.certificate.key, record.certificate.generation);
                let named = record.certificate.name.clone();
                if record.rank() >= old
                    && self.meet(&named, key, generation)
                    && let Some(person) = self.people.get_mut(name)
                {
                    person.record = Some((record, now));
                    person.lookup = Time::FAR;
                    person.tries = 0;
                }
            }
            Err(why) if person.out.waits() => self.tell(Event::Waiting(shown, why)),
            Err(_) => {}
        }
        self.work(now, name);
        self.flush(out);
    }

    /// Somebody has shown a key; false if it is an older one than was seen.
    fn meet(&mut self, name: &str, key: Key, generation: u32) -> bool {
        let Some(person) = self.person(name) else {
            return false;
        };
        match person.key {
            Some((known, of)) if generation < of || (generation == of && key != known) => false,
            Some((known, of)) if known == key && of == generation => true,
            before => {
                let shown = name.to_owned();
                person.name.clone_from(&shown);
                person.key = Some((key, generation));
                person.out.forget_boxes();
                let changed = before.is_some_and(|(known, _)| known != key);
                if changed {
                    person.record = None;
                    self.tell(Event::KeyChanged(shown.clone(), key));
                }
                let met = Entry::Met(shown, key, generation);
                self.out.push(Effect::Keep(met));
                true
            }
        }
    }

    /// A put ended: the letter is kept there, or why not (none: the supernode cannot be reached).
    pub fn on_put(
        &mut self,
        now: Time,
        home: &Home<A>,
        id: &LetterId,
        result: Result<(), Option<Why>>,
        out: &mut Vec<Effect<A>>,
    ) {
        self.put_ended(now, home, id, result);
        self.flush(out);
    }
}

#[cfg(test)]
mod tests;
