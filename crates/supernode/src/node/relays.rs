//! Relays that supernodes tell of: their own to children and neighbours, their neighbours' to children.

use std::time::Duration;

use shoal_base::id::to_hex;
use shoal_reach::turn::credential::Credential;

use super::links::Stage;
use super::{Event, LinkId, Node};
use crate::Address;
use crate::wire::{MAX_RELAYS, Message, Relay};

/// How long a credential for a relay holds.
const CREDENTIAL: Duration = Duration::from_secs(3600);

impl<A: Address> Node<A> {
    /// Tells a child which relays it may use, and a neighbour of ours.
    pub(super) fn tell_relays(&mut self, id: LinkId) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let mut relays = Vec::new();
        if let (Some(offer), Some(theirs)) = (&self.config.relay, &link.theirs) {
            let mut user = to_hex(&theirs.token.key);
            user.truncate(16);
            let expires = self.unix() + CREDENTIAL.as_secs();
            let Credential { name, password } =
                Credential::short_lived(&offer.secret, &user, expires);
            let at = offer.at.clone();
            relays.push(Relay { at, name, password });
        }
        if link.stage == Stage::Child {
            relays.extend(self.relays_of_neighbours());
            relays.truncate(MAX_RELAYS);
        }
        if !relays.is_empty() {
            self.send(id, Message::Relays(relays));
        }
    }

    fn relays_of_neighbours(&self) -> impl Iterator<Item = Relay> {
        let neighbours = self.links.values().filter(|l| l.stage == Stage::Neighbour);
        neighbours.flat_map(|l| l.relays.iter().take(1).cloned())
    }

    /// The other side told of relays.
    pub(super) fn relays_of(&mut self, id: LinkId, stage: Stage, mut relays: Vec<Relay>) {
        relays.truncate(MAX_RELAYS);
        relays.iter_mut().for_each(|r| r.at.truncate(MAX_RELAYS));
        relays.retain(|r| r.name.len() <= 128 && r.password.len() <= 128 && !r.at.is_empty());
        if stage == Stage::Parent {
            self.tell(Event::Relays(relays));
            return;
        }
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let new = link.relays.is_empty() && !relays.is_empty();
        link.relays = relays;
        let mut all: Vec<_> = self.relays_of_neighbours().collect();
        all.truncate(MAX_RELAYS);
        self.tell(Event::Relays(all));
        if new {
            for child in self.of_stage(Stage::Child) {
                self.tell_relays(child);
            }
        }
    }
}
