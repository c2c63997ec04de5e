//! Texts on their way to somebody: kept until there is a receipt, put into each of the recipient's boxes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shoal_base::Time;
use shoal_supernode::Address;
use shoal_supernode::names::fold::fold;

use super::straight::{PATIENCE, Way};
use super::{Body, Chat, Effect, Entry, Event, KEEP, MAX_TEXT, StreamId};
use crate::mailbox::wire::Why;
use crate::mailbox::{Envelope, LetterId};
use crate::record::{Home, Record};
use crate::seal::{To, seal};

/// For how long a record of somebody is believed without asking again.
const FRESH: Duration = Duration::from_secs(300);

/// Texts to one person that wait for a receipt at most.
const MAX_WAITING: usize = 400;
/// Other letters to one person that wait to be sealed at most.
const MAX_SHORT: usize = 32;
/// How soon a box that did not take a letter is tried again; each time twice as long.
const RETRY: Duration = Duration::from_secs(2);
const MAX_RETRY: Duration = Duration::from_secs(120);
/// After how long without a receipt a text is sealed and put again: its boxes may be gone, or have
/// been emptied by somebody who lost it.
const REPEAT: Duration = Duration::from_secs(600);
/// How long a put may take.
const PUT: Duration = Duration::from_secs(20);

/// Somewhere that a letter is to be kept.
#[derive(Debug, Clone, Copy)]
enum Slot {
    /// To be tried from then on; so often tried before.
    Due(Time, u32),
    /// Under way since.
    Trying(Time, u32),
    Kept,
}

/// A letter, and the boxes that it is for.
#[derive(Debug)]
struct Parcel<A> {
    envelope: Envelope,
    id: LetterId,
    slots: BTreeMap<Home<A>, Slot>,
    sealed: Time,
}

/// A text without a receipt.
#[derive(Debug)]
struct Text<A> {
    unix: u64,
    text: String,
    /// When it was handed over the connection that there is.
    handed: Option<Time>,
    parcel: Option<Parcel<A>>,
}

/// A letter that needs no receipt.
#[derive(Debug)]
struct Short {
    body: Body,
    /// How long it is kept, in seconds.
    keep: u32,
    /// It goes into boxes though there is a connection.
    boxed: bool,
}

/// What is to be done for one person.
#[derive(Debug, Default)]
struct Brought<A> {
    puts: Vec<(Home<A>, Envelope)>,
    hands: Vec<Envelope>,
    /// A text over the connection has no receipt in time.
    late: bool,
}

/// All that goes to one person.
#[derive(Debug)]
pub(super) struct Outgoing<A> {
    stream: StreamId,
    next: u64,
    first: u64,
    texts: BTreeMap<u64, Text<A>>,
    /// Letters that need no receipt, to be sealed.
    short: Vec<Short>,
    /// Those, sealed.
    parcels: Vec<Parcel<A>>,
}

impl<A: Address> Parcel<A> {
    fn new(now: Time, envelope: Envelope, homes: &[Home<A>]) -> Self {
        let slots = homes.iter().map(|h| (*h, Slot::Due(now, 0)));
        Self {
            id: envelope.id(),
            envelope,
            slots: slots.collect(),
            sealed: now,
        }
    }

    fn kept(&self) -> usize {
        let kept = self.slots.values().filter(|s| matches!(s, Slot::Kept));
        kept.count()
    }

    /// Puts that are due.
    fn due(&mut self, now: Time, out: &mut Vec<(Home<A>, Envelope)>) {
        for (home, slot) in &mut self.slots {
            let tries = match *slot {
                Slot::Due(at, tries) if at <= now => tries,
                Slot::Trying(since, tries) if now.since(since) >= PUT => tries,
                _ => continue,
            };
            *slot = Slot::Trying(now, tries);
            out.push((*home, self.envelope.clone()));
        }
    }

    fn ended(&mut self, now: Time, home: &Home<A>, result: Result<(), Option<Why>>) {
        let Some(slot) = self.slots.get_mut(home) else {
            return;
        };
        let tries = match slot {
            Slot::Due(_, tries) | Slot::Trying(_, tries) => *tries,
            Slot::Kept => return,
        };
        *slot = match result {
            Ok(()) => Slot::Kept,
            Err(_) => {
                let wait = RETRY * 2_u32.saturating_pow(tries.min(10));
                Slot::Due(now + wait.min(MAX_RETRY), tries + 1)
            }
        };
    }
}

impl<A: Address> Outgoing<A> {
    pub(super) fn new(stream: StreamId) -> Self {
        Self {
            stream,
            next: 0,
            first: 0,
            texts: BTreeMap::new(),
            short: Vec::new(),
            parcels: Vec::new(),
        }
    }

    /// Whether anything is to be brought.
    pub(super) fn waits(&self) -> bool {
        !self.texts.is_empty() || !self.short.is_empty()
    }

    /// Whether a text has no receipt.
    pub(super) fn has_texts(&self) -> bool {
        !self.texts.is_empty()
    }

    /// The recipient has another key, or other boxes: all is sealed and put anew.
    pub(super) fn forget_boxes(&mut self) {
        self.texts.values_mut().for_each(|t| t.parcel = None);
        self.parcels.clear();
        self.link_changed();
    }

    /// There is a connection, or none any more: what has no receipt is handed over the next.
    pub(super) fn link_changed(&mut self) {
        self.texts.values_mut().for_each(|t| t.handed = None);
    }

    /// A text that an earlier run wrote.
    pub(super) fn resent(&mut self, stream: StreamId, seq: u64, unix: u64, text: String) {
        if self.stream != stream {
            *self = Self::new(stream);
        }
        self.next = self.next.max(seq.saturating_add(1));
        let text = Text {
            unix,
            text,
            handed: None,
            parcel: None,
        };
        self.texts.insert(seq, text);
    }

    /// Texts below `upto` need no bringing any more; whether any was left.
    pub(super) fn done(&mut self, stream: &StreamId, upto: u64) -> bool {
        if *stream != self.stream || upto > self.next || upto <= self.first {
            return false;
        }
        self.first = upto;
        self.texts = self.texts.split_off(&upto);
        true
    }

    pub(super) fn short(&mut self, body: Body, keep: u32) {
        self.receipt(body, keep, false);
    }

    /// As [`Outgoing::short`]; `boxed`: it is put into boxes in any case.
    pub(super) fn receipt(&mut self, body: Body, keep: u32, boxed: bool) {
        // The newer of two of one kind says all.
        let kind = std::mem::discriminant(&body);
        let mut boxed = boxed;
        self.short.retain(|b| {
            let replaced = match (&b.body, &body) {
                (Body::Receipt(a, _), Body::Receipt(b, _)) => a == b,
                _ => std::mem::discriminant(&b.body) == kind,
            };
            boxed |= replaced && b.boxed;
            !replaced
        });
        if self.short.len() < MAX_SHORT {
            self.short.push(Short { body, keep, boxed });
        }
    }

    /// Seals what was not sealed yet, for the connection or the boxes of this record; then what is due goes
    /// there.
    fn bring(
        &mut self,
        now: Time,
        record: &Record<A>,
        way: Way,
        mut sealed: impl FnMut(&Body) -> Option<Vec<u8>>,
    ) -> Brought<A> {
        let to = record.certificate.key;
        let homes: BTreeSet<Home<A>> = record.homes.iter().copied().collect();
        let (mut puts, mut hands, mut late) = (Vec::new(), Vec::new(), false);
        let (stream, first) = (self.stream, self.first);
        for (seq, text) in &mut self.texts {
            let said = |text: &Text<A>| Body::Text {
                stream,
                seq: *seq,
                first,
                unix: text.unix,
                text: text.text.clone(),
            };
            if way == Way::Straight && text.handed.is_none() {
                text.handed = Some(now);
                let keep = KEEP;
                let letter = sealed(&said(text));
                hands.extend(letter.map(|sealed| Envelope { to, keep, sealed }));
            }
            let waits = text.handed.is_some_and(|at| now.since(at) >= PATIENCE);
            late |= waits && way == Way::Straight;
            if text.parcel.is_none() && way != Way::Boxes && !waits {
                continue;
            }
            let stale = text.parcel.as_ref().is_some_and(|p| {
                let moved =
                    p.slots.keys().any(|h| !homes.contains(h)) || p.slots.len() < homes.len();
                moved || now.since(p.sealed) >= REPEAT
            });
            if stale || text.parcel.is_none() {
                text.parcel = sealed(&said(text)).map(|sealed| {
                    let keep = KEEP;
                    Parcel::new(now, Envelope { to, keep, sealed }, &record.homes)
                });
            }
            if let Some(parcel) = &mut text.parcel {
                parcel.due(now, &mut puts);
            }
        }
        let short = match way {
            Way::Wait => self.short.extract_if(.., |s| s.boxed).collect(),
            Way::Boxes | Way::Straight => std::mem::take(&mut self.short),
        };
        for Short { body, keep, boxed } in short {
            let Some(sealed) = sealed(&body) else {
                continue;
            };
            let envelope = Envelope { to, keep, sealed };
            if way == Way::Straight {
                hands.push(envelope.clone());
            }
            if way != Way::Straight || boxed {
                self.parcels.push(Parcel::new(now, envelope, &record.homes));
            }
        }
        // One box is enough for what is repeated anyway, and none waits for ever.
        self.parcels.retain(|p| {
            let life = Duration::from_secs(p.envelope.keep.into()).min(REPEAT);
            p.kept() < p.slots.len() && now.since(p.sealed) < life
        });
        for parcel in &mut self.parcels {
            parcel.due(now, &mut puts);
        }
        Brought { puts, hands, late }
    }

    /// A put ended; of a text now kept its number and in how many boxes it is.
    fn ended(
        &mut self,
        now: Time,
        home: &Home<A>,
        id: &LetterId,
        result: Result<(), Option<Why>>,
    ) -> Option<(u64, usize)> {
        for (seq, text) in &mut self.texts {
            if let Some(parcel) = text.parcel.as_mut().filter(|p| p.id == *id) {
                parcel.ended(now, home, result);
                return result.is_ok().then(|| (*seq, parcel.kept()));
            }
        }
        let mut parcels = self.parcels.iter_mut().filter(|p| p.id == *id);
        if let Some(parcel) = parcels.next() {
            parcel.ended(now, home, result);
        }
        None
    }
}

/// Why a text is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// It is longer than [`MAX_TEXT`].
    #[error("the text is longer than {MAX_TEXT} bytes")]
    TooLong,
    /// Too many texts wait for this person, or too many people are known.
    #[error("too many texts wait for a receipt")]
    Full,
}

impl<A: Address> Chat<A> {
    /// Writes a text to somebody; its number. It is kept until there is a receipt.
    ///
    /// # Errors
    /// Why not.
    pub fn write(
        &mut self,
        now: Time,
        name: &str,
        text: &str,
        out: &mut Vec<Effect<A>>,
    ) -> Result<u64, NotSent> {
        if text.len() > MAX_TEXT {
            return Err(NotSent::TooLong);
        }
        let unix = self.unix(now);
        let person = self.person(name).ok_or(NotSent::Full)?;
        if person.out.texts.len() >= MAX_WAITING {
            return Err(NotSent::Full);
        }
        let (stream, seq) = (person.out.stream, person.out.next);
        person.out.resent(stream, seq, unix, text.to_owned());
        let sent = Entry::Sent(person.name.clone(), stream, seq, unix, text.to_owned());
        self.out.push(Effect::Keep(sent));
        self.work(now, &fold(name));
        self.flush(out);
        Ok(seq)
    }

    /// How many texts to somebody have no receipt yet.
    pub fn waiting(&self, name: &str) -> usize {
        let person = self.people.get(&fold(name));
        person.map_or(0, |p| p.out.texts.len())
    }

    /// Brings on what waits for somebody.
    pub(super) fn work(&mut self, now: Time, name: &str) {
        let Some(person) = self.people.get_mut(name) else {
            return;
        };
        let linked = person
            .key
            .is_some_and(|(key, _)| self.links.contains_key(&key));
        let wanted = person.wanted && self.reaches && !linked;
        if !wanted && !person.out.waits() && person.out.parcels.is_empty() {
            return;
        }
        let old = person
            .record
            .as_ref()
            .is_none_or(|(_, at)| now.since(*at) >= FRESH);
        // Far: nothing was asked, or is being asked.
        if old && (person.lookup == Time::FAR && person.tries == 0 || person.lookup <= now) {
            person.lookup = Time::FAR;
            person.tries = person.tries.max(1);
            self.out.push(Effect::Lookup(name.to_owned()));
        }
        if person.record.is_none() {
            return;
        }
        let way = self.way_to(now, name);
        let Self {
            me,
            secrets,
            people,
            out,
            ..
        } = self;
        let Some(person) = people.get_mut(name) else {
            return;
        };
        let Some((record, _)) = &person.record else {
            return;
        };
        let to = To {
            key: record.certificate.key,
            prekey: record.prekey,
        };
        let sealed = |body: &Body| {
            let bytes = postcard::to_allocvec(body).ok()?;
            seal(&me.key, &me.certificate, &to, &bytes, secrets).ok()
        };
        let Brought { puts, hands, late } = person.out.bring(now, record, way, sealed);
        let hands = hands.into_iter();
        out.extend(hands.map(|envelope| Effect::Hand(to.key, envelope)));
        let puts = puts.into_iter();
        out.extend(puts.map(|(home, envelope)| Effect::Put(home, envelope)));
        if late {
            self.doubt(&to.key);
        }
    }

    pub(super) fn put_ended(
        &mut self,
        now: Time,
        home: &Home<A>,
        id: &LetterId,
        result: Result<(), Option<Why>>,
    ) {
        let mut stored = None;
        for person in self.people.values_mut() {
            if let Some((seq, boxes)) = person.out.ended(now, home, id, result) {
                stored = Some(Event::Stored(person.name.clone(), seq, boxes));
            }
            // Its boxes may be elsewhere by now.
            let gone = matches!(result, Err(None | Some(Why::NoBox)));
            if gone
                && person
                    .record
                    .as_ref()
                    .is_some_and(|(r, _)| r.homes.contains(home))
            {
                let stale = person
                    .record
                    .as_ref()
                    .is_some_and(|(_, at)| now.since(*at) >= RETRY);
                if stale && person.lookup == Time::FAR {
                    person.lookup = now;
                    if let Some((_, at)) = &mut person.record {
                        *at = Time::ZERO;
                    }
                }
            }
        }
        stored.into_iter().for_each(|e| self.tell(e));
    }

    /// Our texts below `upto` were told to their recipient.
    pub(super) fn receipt(&mut self, from: &str, stream: &StreamId, upto: u64) {
        let Some(person) = self.people.get_mut(&fold(from)) else {
            return;
        };
        if person.out.done(stream, upto) {
            let name = person.name.clone();
            self.out
                .push(Effect::Keep(Entry::Done(name.clone(), *stream, upto)));
            self.tell(Event::Delivered(name, upto - 1));
        }
    }
}
