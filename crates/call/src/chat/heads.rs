//! Heads of the public log of names, compared between those who write to each other: a login server that
//! shows one log to some and another to others is found out by the first two who do.
//!
//! Each end tells the head that it was shown to whom it hears from, once a day. Two heads of one size have one
//! root; of two sizes the login server is asked to prove that the longer begins with the shorter, which
//! it cannot for two logs.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_base::Time;
use shoal_supernode::Address;
use shoal_supernode::names::fold::fold;
use shoal_supernode::names::log::Head;
use shoal_supernode::token::Key;

use super::{Body, Chat, Effect, Event};

/// How often somebody is told our head.
const TELL: Duration = Duration::from_secs(86_400);
/// How often one end makes us ask the login server.
const COMPARE: Duration = Duration::from_secs(600);
/// For how many seconds it is kept for who is away.
const KEEP: u32 = 86_400;

/// Two heads that the login server signed, and which are not of one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// To whom the other was shown; our own name: to us, before.
    pub with: String,
    /// The other.
    pub theirs: Head,
    /// What was shown to us.
    pub ours: Head,
}

impl Fork {
    /// Whether the login server signed both, and they differ.
    pub fn is_by(&self, server: &Key) -> bool {
        let same = (self.ours.size, self.ours.root) == (self.theirs.size, self.theirs.root);
        self.ours.is_by(server) && self.theirs.is_by(server) && !same
    }

    /// Whether the two alone prove that there are two logs: those of different sizes may be of one that the
    /// login server did not prove to be one.
    pub fn is_proof(&self) -> bool {
        self.ours.size == self.theirs.size && self.ours.root != self.theirs.root
    }
}

/// What was told to somebody, and compared with what he told.
#[derive(Debug, Default)]
pub(super) struct Told {
    next: Time,
    compare: Time,
}

impl<A: Address> Chat<A> {
    /// The login server showed us this head of its log.
    pub fn set_head(&mut self, head: Head) {
        if head.is_by(&self.me.server) {
            self.head = Some(head);
        }
    }

    /// Our head, as it was last shown to us.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// We heard from somebody, who is told our head if it is time.
    pub(super) fn tell_head(&mut self, now: Time, name: &str) {
        let Some(head) = self.head.clone() else {
            return;
        };
        let name = fold(name);
        let Some(person) = self.people.get_mut(&name) else {
            return;
        };
        if person.head.next <= now {
            person.head.next = now + TELL;
            person.out.short(Body::Head(head), KEEP);
            self.work(now, &name);
        }
    }

    /// Somebody was shown this head.
    pub(super) fn head_of(&mut self, now: Time, from: &str, theirs: Head) {
        let Some(ours) = &self.head else {
            return;
        };
        if !theirs.is_by(&self.me.server) {
            let why = "a head of the log that the login server did not sign";
            return self.tell(Event::Unreadable(why));
        }
        if ours.size == theirs.size {
            if ours.root != theirs.root {
                let (with, ours) = (from.to_owned(), ours.clone());
                self.tell(Event::Forked(Box::new(Fork { with, theirs, ours })));
            }
            return;
        }
        if let Some(person) = self.people.get_mut(&fold(from))
            && person.head.compare <= now
        {
            person.head.compare = now + COMPARE;
            let compare = Effect::Compare(from.to_owned(), Box::new(theirs));
            self.out.push(compare);
        }
    }

    /// The login server was asked whether somebody's head and the one that we were last shown are of one log;
    /// `same`: it proved so.
    pub fn on_compared(&mut self, name: &str, theirs: Head, same: bool, out: &mut Vec<Effect<A>>) {
        if !same && let Some(ours) = self.head.clone() {
            let with = name.to_owned();
            self.tell(Event::Forked(Box::new(Fork { with, theirs, ours })));
        }
        self.flush(out);
    }
}
