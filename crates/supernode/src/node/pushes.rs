//! Pushes: who wants a file of a sharer that nobody can connect to asks by the way its hit came, and
//! the sharer connects.
//!
//! A push names who asks in that peer's own signed words, so that nobody can make a sharer connect
//! to an address in somebody else's name; where a child's files are is its own host, which its
//! supernode sees to.

use shoal_base::Time;

use super::links::Stage;
use super::{Effect, Event, LinkId, Node, Role};
use crate::Address;
use crate::token::{Key, Presence};
use crate::wire::{Message, QueryId};

impl<A: Address> Node<A> {
    /// Asks a sharer whose hit answered our query to connect to us, for the file with this SHA-1.
    /// False if the hit is forgotten, or came from ourselves.
    pub fn push(
        &mut self,
        now: Time,
        query: QueryId,
        sharer: &Key,
        sha1: [u8; 20],
        out: &mut Vec<Effect<A>>,
    ) -> bool {
        self.now = now;
        let own = self.seen.get(&query).filter(|seen| seen.from.is_none());
        let by = own.and_then(|seen| seen.sharers.get(sharer)?.by);
        if let Some(by) = by {
            let from = Box::new(self.presence.clone());
            let sharer = *sharer;
            let push = Message::Push {
                query,
                sharer,
                sha1,
                from,
            };
            self.send(by, push);
        }
        self.flush(out);
        by.is_some()
    }

    /// A push came: it is for us, or goes on.
    pub(super) fn push_from(
        &mut self,
        link: LinkId,
        stage: Stage,
        query: QueryId,
        sharer: &Key,
        sha1: [u8; 20],
        from: Presence<A>,
    ) {
        let now = self.now;
        let passes = self
            .links
            .get_mut(&link)
            .is_some_and(|l| l.pushes.take(now));
        if !passes {
            self.stats.limited += 1;
            return;
        }
        if stage == Stage::Child {
            // Its own words, at its own host: the rest of the way can only believe that.
            let theirs = self.links.get(&link).and_then(|l| l.theirs.as_ref());
            let honest = theirs == Some(&from)
                && self
                    .links
                    .get(&link)
                    .is_some_and(|l| from.links.is_of(l.host, &from.token.key));
            if !honest {
                return self.strike(link);
            }
        } else if !self.holds(&from) {
            self.stats.forged += 1;
            return self.strike(link);
        }
        if *sharer == self.presence.token.key {
            self.tell(Event::Push(sha1, from.links));
            return;
        }
        if self.role == Role::Peer {
            return self.strike(link);
        }
        // Only by the way of a hit that passed here, and only for who asked.
        let seen = self.seen.get(&query).filter(|s| s.from == Some(link));
        let Some(by) = seen.and_then(|s| s.sharers.get(sharer)?.by) else {
            // It may only be late.
            self.stats.forged += 1;
            return;
        };
        let (sharer, from) = (*sharer, Box::new(from));
        let push = Message::Push {
            query,
            sharer,
            sha1,
            from,
        };
        self.send(by, push);
    }
}
