//! The ring of names for who has no UDP: as long as it does not answer, it is asked by links to boxes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use shoal_base::Time;
use shoal_call::chat::Effect;
use shoal_call::mailbox::wire::{Found, Unkept};
use shoal_call::record::Record;
use shoal_dht::{Answer, Failure};
use shoal_supernode::names::fold::fold;

use super::{Core, PeopleEvent};

/// After how long without an answer the ring is asked by a link, too.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a link has to answer.
const LINK_PATIENCE: Duration = Duration::from_secs(5);

/// What is asked by links.
#[derive(Debug, Default)]
pub(super) struct ByBox {
    /// Since when the ring has been asked without an answer.
    asked: Option<Instant>,
    /// Names that are looked for, and until when.
    names: BTreeMap<String, Instant>,
    /// When our record is handed in again, if no answer comes.
    publish: Option<Instant>,
    /// Which link is asked next: one that does not answer makes place for another.
    turn: usize,
}

impl ByBox {
    /// The ring itself is asked.
    pub(super) fn ring_asked(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
    }

    /// The ring itself answers.
    pub(super) fn ring_answered(&mut self, answer: &Answer) {
        let heard = match answer {
            Answer::Done(done) => matches!(
                done,
                Ok(_) | Err(Failure::NotFound(_) | Failure::OlderThan(_))
            ),
            _ => true,
        };
        if heard {
            self.asked = None;
        }
    }

    /// Whether the ring itself does not answer.
    pub(super) fn is_deaf(&self, now: Instant) -> bool {
        self.asked.is_some_and(|since| now >= since + PATIENCE)
    }
}

impl Core {
    /// Asks a link to a box of ours that is up; false: there is none.
    fn ask_box(&mut self, ask: impl Fn(&super::BoxLink) -> bool) -> bool {
        let up: Vec<_> = self
            .links
            .values()
            .filter(|l| l.own && l.up.is_some())
            .collect();
        let turn = self.by_box.turn;
        let link = (!up.is_empty()).then(|| up.get(turn % up.len())).flatten();
        link.is_some_and(|l| ask(&l.link))
    }

    /// Looks for a name by a link; false: there is none.
    pub(super) fn look_by_box(&mut self, name: &str) -> bool {
        let asked = self.ask_box(|link| link.look(name.to_owned()));
        if asked {
            let until = self.now + LINK_PATIENCE;
            self.by_box.names.insert(fold(name), until);
        }
        asked
    }

    pub(super) fn looked_by_box(
        &mut self,
        time: Time,
        name: &str,
        found: Found,
        out: &mut Vec<Effect<SocketAddr>>,
    ) {
        // What nobody asked for is no answer.
        if self.by_box.names.remove(&fold(name)).is_none() {
            return;
        }
        let found = match found {
            Found::Record(bytes) => {
                let unix = super::super::unix();
                let record = Record::<SocketAddr>::check(&self.server, &fold(name), &bytes, unix);
                record.map_err(|_| "a supernode gave a record that does not hold")
            }
            Found::Nothing => Err("nobody has told where letters to this name are kept"),
            Found::Often => Err("too many names were looked for within a minute"),
            Found::NoAnswer => Err("no supernode of the ring answers"),
        };
        if found.is_err() {
            self.by_box.turn = self.by_box.turn.wrapping_add(1);
        }
        self.chat.on_record(time, name, found, out);
    }

    /// Our record is in the ring.
    pub(super) fn published(&mut self, stored: u32) {
        self.unpublished = None;
        self.by_box.publish = None;
        // Nobody may listen any more.
        let _ = self.tell.send(PeopleEvent::Published(stored));
    }

    /// A newer record of ours is there: the next is newer still.
    pub(super) fn outranked(&mut self, time: Time, rank: i64) {
        self.unpublished = None;
        self.by_box.publish = None;
        self.chat.outrank(time, rank);
    }

    pub(super) fn published_by_box(&mut self, time: Time, result: Result<u32, Unkept>) {
        // The ring itself may have been faster.
        if self.by_box.publish.is_none() || self.unpublished.is_none() {
            return;
        }
        match result {
            Ok(stored) => self.published(stored),
            Err(Unkept::Older(rank)) => self.outranked(time, rank),
            Err(why) => {
                tracing::debug!(?why, "our record, by a link");
                self.by_box.turn = self.by_box.turn.wrapping_add(1);
            }
        }
    }

    /// Hands in our record and looks for names, while the ring itself does not answer; gives up what is not
    /// answered either.
    pub(super) fn look_after_boxes(&mut self, time: Time, out: &mut Vec<Effect<SocketAddr>>) {
        let now = self.now;
        if self.by_box.is_deaf(now) {
            // What the ring would still answer is nothing new by then.
            for (ticket, (name, found)) in std::mem::take(&mut self.lookups) {
                if !self.look_by_box(&name) {
                    self.lookups.insert(ticket, (name, found));
                }
            }
        }
        let due = self.by_box.publish.is_none_or(|again| again <= now);
        if due
            && self.by_box.is_deaf(now)
            && let Some((record, _)) = &self.unpublished
        {
            let bytes = record.to_bytes();
            if self.ask_box(|link| link.publish(bytes.clone())) {
                self.by_box.publish = Some(now + LINK_PATIENCE);
            }
        }
        let late: Vec<String> = self
            .by_box
            .names
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in late {
            self.by_box.names.remove(&name);
            self.by_box.turn = self.by_box.turn.wrapping_add(1);
            let found = Err("no supernode of the ring answers");
            self.chat.on_record(time, &name, found, out);
        }
    }
}
