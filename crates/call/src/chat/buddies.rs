//! Buddies, and presence for them alone: sealed, asked for, and over by itself.
//!
//! Who has a buddy subscribes to it now and then; a buddy that has the other as one too answers how it
//! is, again each minute and when that changes. Nobody else is told anything.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_base::Time;
use shoal_supernode::Address;
use shoal_supernode::names::fold::fold;

use super::{Body, Chat, Effect, Entry, Event};

/// How often presence is told, and for how long it holds.
const TELL: Duration = Duration::from_secs(60);
const HOLDS: u64 = 150;
/// How often a subscription is renewed, and for how long it holds.
const SUBSCRIBE: Duration = Duration::from_secs(120);
const SUBSCRIBED: Duration = Duration::from_secs(300);

/// How somebody is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Not there.
    #[default]
    Offline,
    /// There.
    Online,
    /// There, and not to be disturbed.
    Away,
}

/// What is known of one person's presence, and what it is told.
#[derive(Debug, Default)]
pub(super) struct Presence {
    status: Status,
    /// When that ends.
    until: Option<Time>,
    /// When we ask again.
    ask: Time,
    /// Until when it wants to know how we are.
    wants: Option<Time>,
}

impl Presence {
    /// How it is, as far as we are told.
    pub(super) fn status(&self) -> Status {
        self.status
    }
}

impl<A: Address> Chat<A> {
    /// Makes somebody a buddy, or none any more.
    pub fn set_buddy(&mut self, now: Time, name: &str, is: bool, out: &mut Vec<Effect<A>>) {
        let status = self.status;
        let unix = self.unix(now);
        if let Some(person) = self.person(name)
            && person.buddy != is
        {
            person.buddy = is;
            // It may have asked before.
            let wants = person.presence.wants;
            person.presence = Presence {
                wants,
                ..Presence::default()
            };
            if !is {
                person.out.short(Body::Subscribe(false), HOLDS as u32);
                if status != Status::Offline {
                    person
                        .out
                        .short(Body::Presence(Status::Offline, unix + HOLDS), HOLDS as u32);
                }
            }
            let kept = Entry::Buddy(person.name.clone(), is);
            self.out.push(Effect::Keep(kept));
            self.announce = now;
        }
        self.tick(now, out);
    }

    /// All buddies and how they are, by name.
    pub fn buddies(&self) -> Vec<(String, Status)> {
        let buddies = self.people.values().filter(|p| p.buddy);
        buddies
            .map(|p| (p.name.clone(), p.presence.status))
            .collect()
    }

    /// Tells buddies how we are from now on.
    pub fn set_status(&mut self, now: Time, status: Status, out: &mut Vec<Effect<A>>) {
        self.status = status;
        self.announce = now;
        self.tick(now, out);
    }

    pub(super) fn subscribed(&mut self, now: Time, from: &str, on: bool) {
        let (status, until) = (self.status, self.unix(now) + HOLDS);
        let Some(person) = self.person(from) else {
            return;
        };
        let name = person.name.clone();
        person.presence.wants = on.then(|| now + SUBSCRIBED);
        if !person.buddy {
            if on {
                self.tell(Event::Asks(name));
            }
            return;
        }
        if on {
            person
                .out
                .short(Body::Presence(status, until), HOLDS as u32);
            self.work(now, &fold(from));
        }
    }

    pub(super) fn present(&mut self, now: Time, from: &str, status: Status, until: u64) {
        let unix = self.unix(now);
        let Some(person) = self.person(from).filter(|p| p.buddy) else {
            return;
        };
        let left = until.saturating_sub(unix).min(HOLDS);
        let presence = &mut person.presence;
        let before = std::mem::replace(&mut presence.status, status);
        presence.until = Some(now + Duration::from_secs(left));
        if left == 0 {
            presence.status = Status::Offline;
        }
        let (name, status) = (person.name.clone(), person.presence.status);
        if before != status {
            self.tell(Event::Presence(name, status));
        }
    }

    pub(super) fn tick_buddies(&mut self, now: Time) {
        let (status, until) = (self.status, self.unix(now) + HOLDS);
        let announce = self.announce <= now;
        if announce {
            self.announce = now + TELL;
        }
        let mut gone = Vec::new();
        for person in self.people.values_mut().filter(|p| p.buddy) {
            let presence = &mut person.presence;
            if presence.until.is_some_and(|end| end <= now) {
                presence.until = None;
                if presence.status != Status::Offline {
                    presence.status = Status::Offline;
                    gone.push(person.name.clone());
                }
            }
            if presence.ask <= now {
                presence.ask = now + SUBSCRIBE;
                let keep = SUBSCRIBED.as_secs() as u32;
                person.out.short(Body::Subscribe(true), keep);
            }
            if presence.wants.is_some_and(|end| end <= now) {
                presence.wants = None;
            }
            if announce && presence.wants.is_some() {
                person
                    .out
                    .short(Body::Presence(status, until), HOLDS as u32);
            }
        }
        for name in gone {
            self.tell(Event::Presence(name, Status::Offline));
        }
    }
}
