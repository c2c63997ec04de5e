//! Letters that come: read, told once and in order, acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shoal_base::Time;
use shoal_supernode::Address;

use super::{Body, Chat, Effect, Entry, Event, KEEP, StreamId};
use crate::mailbox::{Envelope, LetterId};
use crate::seal::{Unread, open};

/// Texts of one stream that wait for earlier ones at most.
const MAX_AHEAD: usize = 128;
/// How long a text waits for earlier ones before those are given up for lost. They wait in several
/// boxes, of which some may be out of reach for a while.
const PATIENCE: Duration = Duration::from_secs(600);
/// Numbers given up for lost that may still come late, of one stream.
const MAX_LOST: usize = 1000;
/// Streams of one person at most: another begins only when its writer lost what it kept.
const MAX_STREAMS: usize = 64;
/// Letters of the last time remembered, so that copies from other boxes are not opened again.
const MAX_SEEN: usize = 8192;

/// Texts of one stream, as they come.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// The number of the next text to tell.
    next: u64,
    /// Texts that came before it, and their letters' names if they lie in boxes.
    ahead: BTreeMap<u64, (u64, String, Option<LetterId>)>,
    since: Option<Time>,
    lost: BTreeSet<u64>,
}

impl Stream {
    pub(super) fn was_told(&mut self, seq: u64) {
        if seq < self.next {
            self.lost.remove(&seq);
        } else {
            self.next = seq.saturating_add(1);
        }
    }

    pub(super) fn was_skipped(&mut self, upto: u64) {
        let missing = self.next..upto;
        self.lost.extend(missing.take(MAX_LOST));
        while self.lost.len() > MAX_LOST {
            self.lost.pop_first();
        }
        self.next = self.next.max(upto);
    }
}

impl<A: Address> Chat<A> {
    /// A letter came out of one of our boxes.
    pub fn on_mail(&mut self, now: Time, envelope: &Envelope, out: &mut Vec<Effect<A>>) {
        let id = envelope.id();
        if self.seen.contains(&id) || self.read(now, Some(id), envelope) {
            // Whoever wrote it need not keep it: it was told, or says nothing to us.
            self.acknowledge(id);
        }
        self.flush(out);
    }

    fn acknowledge(&mut self, id: LetterId) {
        self.note(id);
        self.out.push(Effect::Ack(vec![id]));
    }

    /// A letter need not be opened again.
    pub(super) fn note(&mut self, id: LetterId) {
        if self.seen.len() >= MAX_SEEN {
            self.seen.clear();
        }
        self.seen.insert(id);
    }

    /// Whether a letter may be acknowledged: what it says is kept, or of no use. `id`: its name, if it
    /// came out of a box.
    pub(super) fn read(&mut self, now: Time, id: Option<LetterId>, envelope: &Envelope) -> bool {
        let own = self.me.key.verifying_key().to_bytes();
        let unix = self.unix(now);
        let opened = open(&own, &self.prekeys, &self.me.server, &envelope.sealed, unix);
        let (from, text) = match opened {
            Ok(opened) => opened,
            Err(why) => {
                self.tell(Event::Unreadable(match why {
                    Unread::Forgotten => "sealed to a key that is not kept any more",
                    Unread::Certificate(_) => "its sender's certificate does not hold",
                    Unread::Forged => "not by the sender it names",
                    _ => "not a letter to us",
                }));
                return true;
            }
        };
        let Ok((body, [])) = postcard::take_from_bytes::<Body>(&text) else {
            self.tell(Event::Unreadable("nothing that we understand"));
            return true;
        };
        if !self.meet(&from.name, from.key, from.generation) {
            self.tell(Event::Unreadable("by a key that the name had before"));
            return true;
        }
        if id.is_some() {
            self.is_there(&shoal_supernode::names::fold::fold(&from.name));
        }
        self.tell_head(now, &from.name);
        match body {
            Body::Text {
                stream,
                seq,
                first,
                unix,
                text,
            } => {
                return self.take(now, &from.name, (stream, seq, first), (unix, text, id));
            }
            Body::Receipt(stream, upto) => self.receipt(&from.name, &stream, upto),
            Body::Subscribe(on) => self.subscribed(now, &from.name, on),
            Body::Presence(status, until) => self.present(now, &from.name, status, until),
            Body::Head(head) => self.head_of(now, &from.name, head),
        }
        true
    }

    /// A text: told now, or when those before it were; false: it is to come again.
    fn take(
        &mut self,
        now: Time,
        from: &str,
        (stream, seq, first): (StreamId, u64, u64),
        (unix, text, id): (u64, String, Option<LetterId>),
    ) -> bool {
        if text.len() > super::MAX_TEXT || first > seq {
            return true;
        }
        let Some(person) = self.person(from) else {
            return false;
        };
        let name = person.name.clone();
        if !person.streams.contains_key(&stream) && person.streams.len() >= MAX_STREAMS {
            return true;
        }
        let at = person.streams.entry(stream).or_default();
        if seq < at.next {
            if at.lost.remove(&seq) {
                self.tell_text(&name, stream, seq, unix, text, true);
            }
            self.give_receipt(now, &name, stream, id.is_some());
            return true;
        }
        if at.ahead.len() >= MAX_AHEAD && seq != at.next {
            return false;
        }
        // What is not here by now does not come: the writer says so.
        at.ahead.insert(seq, (unix, text, id));
        let gone = first > at.next;
        at.since.get_or_insert(now);
        if gone {
            self.skip(&name, stream, first);
        }
        self.tell_ready(now, &name, stream);
        // What waits for earlier texts stays in its boxes: it is kept nowhere else.
        let person = self.person(from);
        person.is_none_or(|p| p.streams.get(&stream).is_none_or(|s| seq < s.next))
    }

    /// Tells what is next, and says that it came.
    fn tell_ready(&mut self, now: Time, name: &str, stream: StreamId) {
        let (mut told, mut boxed) = (false, false);
        while let Some(at) = self.person(name).and_then(|p| p.streams.get_mut(&stream))
            && let Some((unix, text, id)) = at.ahead.remove(&at.next)
        {
            let seq = at.next;
            at.next += 1;
            at.since = None;
            self.tell_text(name, stream, seq, unix, text, false);
            if let Some(id) = id {
                self.acknowledge(id);
                boxed = true;
            }
            told = true;
        }
        if let Some(at) = self.person(name).and_then(|p| p.streams.get_mut(&stream))
            && !at.ahead.is_empty()
        {
            at.since.get_or_insert(now);
        }
        if told {
            self.give_receipt(now, name, stream, boxed);
        }
    }

    fn tell_text(
        &mut self,
        from: &str,
        stream: StreamId,
        seq: u64,
        unix: u64,
        text: String,
        late: bool,
    ) {
        let from = from.to_owned();
        let told = Entry::Told(from.clone(), stream, seq, unix, text.clone());
        self.out.push(Effect::Keep(told));
        self.tell(Event::Text {
            from,
            seq,
            unix,
            text,
            late,
        });
    }

    /// Says up to where a stream was told; by boxes, if its texts came so: its writer may have gone since.
    fn give_receipt(&mut self, now: Time, name: &str, stream: StreamId, boxed: bool) {
        let Some(person) = self.person(name) else {
            return;
        };
        let Some(next) = person.streams.get(&stream).map(|s| s.next) else {
            return;
        };
        person.out.receipt(Body::Receipt(stream, next), KEEP, boxed);
        self.work(now, &shoal_supernode::names::fold::fold(name));
    }

    fn skip(&mut self, name: &str, stream: StreamId, upto: u64) {
        let Some(at) = self.person(name).and_then(|p| p.streams.get_mut(&stream)) else {
            return;
        };
        // Those that are here are told first.
        let here = at.ahead.keys().next().copied().unwrap_or(upto).min(upto);
        let missing = here.saturating_sub(at.next);
        if missing == 0 {
            return;
        }
        at.was_skipped(here);
        at.since = None;
        self.out
            .push(Effect::Keep(Entry::Skipped(name.to_owned(), stream, here)));
        self.tell(Event::Missing(name.to_owned(), missing));
    }

    /// Gives up what texts have waited for too long.
    pub(super) fn tick_streams(&mut self, now: Time, name: &str) {
        let Some(person) = self.people.get(name) else {
            return;
        };
        let shown = person.name.clone();
        let late = person.streams.iter().filter(|(_, s)| {
            s.since.is_some_and(|at| now.since(at) >= PATIENCE) && !s.ahead.is_empty()
        });
        for stream in late.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.skip(&shown, stream, u64::MAX);
            self.tell_ready(now, &shown, stream);
        }
    }
}
