//! Two hubs prove to each other that they know the secret, and tell each other who is there.

use super::{Link, MAX_HUBS, MAX_NAME};
use crate::fields::{BadField, Fields, put_quoted};
use crate::hub::{ConnId, Effect, Hub, Stage, Time};
use crate::kind;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use shoal_base::secret::same;

/// What a hub proves with that it knows the secret: over its name, the other's, its nonce and the
/// other's.
pub(crate) fn link_proof(secret: &[u8], role: &[u8], parts: [&[u8]; 4]) -> Vec<u8> {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else {
        return Vec::new();
    };
    mac.update(role);
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    let tag = mac.finalize().into_bytes();
    tag.iter()
        .flat_map(|b| format!("{b:02x}").into_bytes())
        .collect()
}

impl Hub {
    /// A connection that the driver opened to another hub.
    pub fn on_dialled(&mut self, now: Time, id: ConnId, out: &mut Vec<Effect>) {
        self.now = now;
        if let Some(slot) = self.slot(id) {
            let our_nonce = self.nonce();
            let link = Link {
                our_nonce: our_nonce.clone(),
                dialled: true,
                ..Link::default()
            };
            self.begin_link(slot, link);
        }
        self.settle(out);
    }

    pub(super) fn nonce(&mut self) -> Vec<u8> {
        format!("{:016x}{:016x}", self.rng.next_u64(), self.rng.next_u64()).into_bytes()
    }

    pub(super) fn begin_link(&mut self, slot: u32, link: Link) {
        let mut data = Vec::new();
        put_quoted(&self.config.name, &mut data);
        data.push(b' ');
        data.extend_from_slice(&link.our_nonce);
        if let Some(conn) = self.conn_mut(slot) {
            conn.stage = Stage::Link(Box::new(link));
        }
        self.send_text(slot, kind::LINK_HELLO, &[&data]);
    }

    pub(super) fn hello(&mut self, slot: u32, data: &[u8]) -> Result<(), BadField> {
        let mut f = Fields::new(data);
        let name = f.text("hub")?.to_vec();
        let nonce = f.text("nonce")?.to_vec();
        let (ours, secret) = (self.config.name.clone(), self.config.link_secret.clone());
        let (Some(secret), Some(link)) = (secret, self.link_mut(slot)) else {
            return Ok(());
        };
        if !link.name.is_empty() || name.is_empty() || name.len() > MAX_NAME || nonce.len() > 64 {
            return Err(BadField::Invalid("hub"));
        }
        link.name.clone_from(&name);
        link.their_nonce = nonce;
        let role: &[u8] = if link.dialled {
            b"dialled"
        } else {
            b"accepted"
        };
        let proof = link_proof(
            &secret,
            role,
            [&ours, &name, &link.our_nonce, &link.their_nonce],
        );
        self.send_text(slot, kind::LINK_PROOF, &[&proof]);
        Ok(())
    }

    pub(super) fn proven(&mut self, slot: u32, data: &[u8]) {
        let (ours, secret) = (self.config.name.clone(), self.config.link_secret.clone());
        let (Some(secret), Some(link)) = (secret, self.link_mut(slot)) else {
            return;
        };
        let role: &[u8] = if link.dialled {
            b"accepted"
        } else {
            b"dialled"
        };
        let want = link_proof(
            &secret,
            role,
            [&link.name, &ours, &link.their_nonce, &link.our_nonce],
        );
        if link.name.is_empty() || !same(&want, data) || link.proven {
            return self.refuse(slot, "the link's proof is wrong");
        }
        link.proven = true;
        let mut hubs = Vec::new();
        for hub in self.known_hubs() {
            put_quoted(&hub, &mut hubs);
            hubs.push(b' ');
        }
        self.send_text(slot, kind::LINK_HUBS, &[&hubs]);
    }

    /// This hub and all that it is linked with, near or far.
    pub(super) fn known_hubs(&self) -> Vec<Vec<u8>> {
        let mut all = vec![self.config.name.clone()];
        for link in &self.links {
            if let Some(Stage::Link(link)) = self.conn(*link).map(|c| &c.stage) {
                all.extend(link.hubs.iter().cloned());
            }
        }
        all
    }

    /// The other end told which hubs it knows: if none is known here, the link is on.
    pub(super) fn linked(&mut self, slot: u32, data: &[u8]) -> Result<(), BadField> {
        let mut f = Fields::new(data);
        let mut hubs = Vec::new();
        while let Some(hub) = f.word() {
            if hub.len() > MAX_NAME || hubs.len() >= MAX_HUBS {
                return Err(BadField::Invalid("hubs"));
            }
            hubs.push(hub.to_vec());
        }
        let known = self.known_hubs();
        let Some(link) = self.link_mut(slot) else {
            return Ok(());
        };
        if !link.proven || !link.hubs.is_empty() || hubs.is_empty() {
            return Err(BadField::Invalid("hubs"));
        }
        if hubs.iter().any(|h| known.contains(h)) || known.len() + hubs.len() > MAX_HUBS {
            self.refuse(slot, "linked already: this link would close a loop");
            return Ok(());
        }
        let name = link.name.clone();
        link.hubs.clone_from(&hubs);
        self.links.push(slot);
        for hub in &hubs {
            let mut data = Vec::new();
            put_quoted(hub, &mut data);
            self.tell_links(kind::LINK_HUB_UP, &data, Some(slot));
        }
        let mut all: Vec<u32> = self.users.values().copied().collect();
        all.sort_unstable();
        for user in all {
            let came = self.came(user);
            self.send_text(slot, kind::LINK_USER, &[&came]);
            for room in self.user(user).map(|u| u.rooms.clone()).unwrap_or_default() {
                let data = self.wrap(user, kind::JOIN, &room);
                self.send_text(slot, kind::LINK_AS, &[&data]);
            }
        }
        self.tell_links_stats();
        self.fx.push(Effect::Linked {
            hub: name,
            up: true,
        });
        Ok(())
    }
}
