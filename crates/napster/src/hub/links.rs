//! Linked hubs: several hubs that are one directory.
//!
//! Hubs are the nodes of a tree. Each knows every user and of every user the link towards it; files
//! stay where their sharer is. What a user asks of another's hub travels there as if the user were
//! there (`AS`), and what that hub tells the user travels back (`TO`). What concerns all (rooms,
//! announcements, searches) goes along every link, and each hub tells its own users. A link that
//! would close a loop is refused: at its opening both ends tell which hubs they know.
//!
//! These messages are shoal's own; OpenNap's servers link by a protocol of theirs.

mod handshake;
mod passing;

use super::{Allowance, Effect, Hub, Level, Stage, User, key};
use crate::fields::{BadField, Fields, number_to_ip, put_quoted};
use crate::kind;
pub(crate) use handshake::link_proof;

/// Bytes of a message between hubs at most.
pub(super) const MAX_DATA: usize = 60_000;
/// Bytes of a hub's name at most.
const MAX_NAME: usize = 64;
/// Hubs of one directory, and users of linked hubs, at most.
const MAX_HUBS: usize = 256;
const MAX_REMOTE: usize = 1_000_000;

/// A link to another hub.
#[derive(Debug, Default)]
pub(super) struct Link {
    name: Vec<u8>,
    our_nonce: Vec<u8>,
    their_nonce: Vec<u8>,
    dialled: bool,
    /// Whether it proved that it knows the secret.
    proven: bool,
    /// The hubs that are reached by it, its own name among them.
    hubs: Vec<Vec<u8>>,
    /// What those hubs share.
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Where a user of a linked hub is.
#[derive(Debug, Clone)]
pub(super) struct Home {
    /// The link towards it.
    link: u32,
    hub: Vec<u8>,
}

/// What concerns all hubs of a directory alike.
fn for_all(kind: u16) -> bool {
    matches!(
        kind,
        kind::JOIN
            | kind::PART
            | kind::PUBLIC
            | kind::EMOTE
            | kind::TOPIC
            | kind::KICK
            | kind::ROOM_BAN
            | kind::ROOM_UNBAN
            | kind::ROOM_BANS_CLEAR
            | kind::ROOM_LEVEL
            | kind::ROOM_LIMIT
            | kind::ANNOUNCE
            | kind::OPERATORS_SAY
    )
}

/// What is done at the hub of the user whom it names first.
fn for_one(kind: u16) -> bool {
    matches!(
        kind,
        kind::DOWNLOAD
            | kind::PUSH
            | kind::UPLOAD_ACK
            | kind::UPLOAD_REFUSED
            | kind::QUEUE_LIMIT
            | kind::BROWSE
            | kind::BROWSE_DIRECT
            | kind::BROWSE_DIRECT_ACK
            | kind::PORT_ERROR
            | kind::PRIVATE
            | kind::PING
            | kind::PONG
            | kind::WHOIS
            | kind::KILL
    )
}

/// Of those, the answers of a sharer, which are done at the sharer's own hub.
fn is_answer(kind: u16) -> bool {
    matches!(
        kind,
        kind::UPLOAD_ACK | kind::UPLOAD_REFUSED | kind::QUEUE_LIMIT | kind::BROWSE_DIRECT_ACK
    )
}

impl Hub {
    /// A connection says that it is a hub.
    pub(super) fn link_asked(&mut self, slot: u32, data: &[u8]) -> Result<(), BadField> {
        if self.config.link_secret.is_none() {
            self.refuse(slot, "this hub links to no other");
            return Ok(());
        }
        let our_nonce = self.nonce();
        self.begin_link(
            slot,
            Link {
                our_nonce,
                ..Link::default()
            },
        );
        self.hello(slot, data)
    }

    fn link_mut(&mut self, slot: u32) -> Option<&mut Link> {
        match &mut self.conn_mut(slot)?.stage {
            Stage::Link(link) => Some(link),
            _ => None,
        }
    }

    pub(super) fn hubs_behind_links(&self) -> usize {
        self.known_hubs().len() - 1
    }

    pub(super) fn take_from_link(
        &mut self,
        slot: u32,
        kind: u16,
        data: &[u8],
    ) -> Result<(), BadField> {
        match kind {
            kind::LINK_HELLO => return self.hello(slot, data),
            kind::LINK_PROOF => {
                self.proven(slot, data);
                return Ok(());
            }
            kind::LINK_HUBS => return self.linked(slot, data),
            kind::ERROR | kind::LOGIN_ERROR => {
                self.close(slot);
                return Ok(());
            }
            _ if !self.links.contains(&slot) => return Err(BadField::Invalid("order")),
            _ => {}
        }
        match kind {
            kind::LINK_HUB_UP => {
                let hub = Fields::new(data).text("hub")?.to_vec();
                if self.known_hubs().contains(&hub) || hub.len() > MAX_NAME {
                    // Two parts were joined in two places at once.
                    self.refuse(slot, "linked already: this link closes a loop");
                    return Ok(());
                }
                if let Some(link) = self.link_mut(slot) {
                    link.hubs.push(hub);
                }
                self.tell_links(kind, data, Some(slot));
            }
            kind::LINK_HUB_DOWN => {
                let hub = Fields::new(data).text("hub")?.to_vec();
                if let Some(link) = self.link_mut(slot) {
                    link.hubs.retain(|h| *h != hub);
                }
                self.tell_links(kind, data, Some(slot));
            }
            kind::LINK_USER => self.remote_came(slot, data)?,
            kind::LINK_GONE => {
                let nick = Fields::new(data).text("nick")?;
                if let Some(user) = self.by_nick(nick).filter(|u| self.is_behind(*u, slot)) {
                    self.remote_gone(user);
                    self.tell_links(kind, data, Some(slot));
                }
            }
            kind::LINK_STATS => {
                let mut f = Fields::new(data);
                let (files, bytes) = (f.number("files")?, f.number("bytes")?);
                if let Some(link) = self.link_mut(slot) {
                    (link.files, link.bytes) = (files, bytes);
                }
            }
            kind::LINK_AS => self.asked_as(slot, data)?,
            kind::LINK_TO => self.told_to(data)?,
            _ => return Err(BadField::Invalid("type")),
        }
        Ok(())
    }

    fn is_behind(&self, user: u32, link: u32) -> bool {
        matches!(self.conn(user).map(|c| &c.stage), Some(Stage::Remote(_, home)) if home.link == link)
    }

    fn remote_came(&mut self, slot: u32, data: &[u8]) -> Result<(), BadField> {
        let mut f = Fields::new(data);
        let nick = f.text("nick")?.to_vec();
        let hub = f.text("hub")?.to_vec();
        let ip = u32::try_from(f.number("ip")?).map_err(|_| BadField::Invalid("ip"))?;
        let port = crate::fields::port(f.text("port")?).ok_or(BadField::Invalid("port"))?;
        let speed = super::login::link(f.text("link")?).ok_or(BadField::Invalid("link"))?;
        let level = Level::parse(f.text("level")?).ok_or(BadField::Invalid("level"))?;
        let client = f.text("client")?.to_vec();
        if !self.valid_nick(&nick) || client.len() > 96 || hub.len() > MAX_NAME {
            return Err(BadField::Invalid("nick"));
        }
        if let Some(there) = self.by_nick(&nick) {
            let theirs = match self.conn(there).map(|c| &c.stage) {
                Some(Stage::Remote(_, home)) => home.hub.clone(),
                _ => self.config.name.clone(),
            };
            if self.is_behind(there, slot) {
                // A change of port, link or level.
                if let Some(user) = self.user_mut(there) {
                    (user.data_port, user.link, user.level) = (port, speed, level);
                }
                self.tell_links(kind::LINK_USER, data, Some(slot));
                return Ok(());
            }
            // One nick on two hubs that were apart: every hub decides alike whose it is.
            if theirs <= hub {
                return Ok(());
            }
            if self.is_remote(there) {
                self.remote_gone(there);
            } else {
                self.complain(there, "your nick is in use on a hub that was linked");
                self.close(there);
            }
        }
        let remote = self.users.values().filter(|u| self.is_remote(**u)).count();
        if remote >= MAX_REMOTE {
            return Ok(());
        }
        let mut user = Box::new(User {
            nick: nick.clone(),
            client,
            email: Vec::new(),
            link: speed,
            data_port: port,
            level,
            proof: 0,
            tail: Vec::new(),
            hotlist: Vec::new(),
            ignored: Vec::new(),
            rooms: super::SmallVec::new(),
            downloads: 0,
            uploads: 0,
            downloaded: 0,
            uploaded: 0,
            asked: Vec::new(),
            searches: Allowance::new(0),
            lines: Allowance::new(0),
            searching: None,
        });
        let ip = number_to_ip(ip);
        user.render(ip);
        let home = Home { link: slot, hub };
        let id = self.insert(ip, 0, Stage::Remote(user, home));
        self.users.insert(key(&nick), id.slot);
        self.tell_watchers(&nick, Some(speed));
        self.tell_links(kind::LINK_USER, data, Some(slot));
        Ok(())
    }

    fn remote_gone(&mut self, user: u32) {
        self.log_out(user);
        if self
            .conns
            .get_mut(user as usize)
            .and_then(Option::take)
            .is_some()
        {
            self.free.push(user);
        }
    }

    /// `AS`: a user of another hub asks for something.
    fn asked_as(&mut self, slot: u32, data: &[u8]) -> Result<(), BadField> {
        let (nick, kind, inner) = unwrap_addressed(data)?;
        let Some(who) = self.by_nick(nick).filter(|u| self.is_behind(*u, slot)) else {
            return Ok(());
        };
        if for_all(kind) {
            self.local_only = true;
            let result = self.dispatch(who, kind, inner);
            self.local_only = false;
            self.tell_links(kind::LINK_AS, data, Some(slot));
            return result;
        }
        if kind == kind::SEARCH {
            let result = self.search(who, inner);
            // Each hub answers by itself, and the asker's counts their ends.
            self.tell_links(kind::LINK_AS, data, Some(slot));
            return result;
        }
        if !for_one(kind) {
            return Err(BadField::Invalid("type"));
        }
        if self.forward(who, kind, inner) {
            return Ok(());
        }
        self.dispatch(who, kind, inner)
    }

    /// `TO`: something for a user of this hub or beyond.
    fn told_to(&mut self, data: &[u8]) -> Result<(), BadField> {
        let (nick, kind, inner) = unwrap_addressed(data)?;
        let Some(to) = self.by_nick(nick) else {
            return Ok(());
        };
        if kind == kind::SEARCH_END && !self.is_remote(to) {
            self.end_search(to, false);
        } else if kind == kind::SEARCH_HIT && !self.is_remote(to) && !self.wants_hit(to) {
            // Too late: its end was told; or more than were asked for.
        } else {
            self.send_text(to, kind, &[inner]);
        }
        Ok(())
    }

    /// A link ended: all users behind it have left.
    pub(super) fn unlink(&mut self, slot: u32) {
        let Some(at) = self.links.iter().position(|l| *l == slot) else {
            return;
        };
        self.links.remove(at);
        let (name, hubs) = match self.link_mut(slot) {
            Some(link) => (link.name.clone(), std::mem::take(&mut link.hubs)),
            None => return,
        };
        let mut lost: Vec<u32> = self.users.values().copied().collect();
        lost.retain(|u| self.is_behind(*u, slot));
        lost.sort_unstable();
        for user in lost {
            let nick = self.nick(user);
            self.remote_gone(user);
            self.tell_links(kind::LINK_GONE, &nick, None);
        }
        for hub in hubs {
            let mut data = Vec::new();
            put_quoted(&hub, &mut data);
            self.tell_links(kind::LINK_HUB_DOWN, &data, None);
        }
        self.fx.push(Effect::Linked {
            hub: name,
            up: false,
        });
    }
}

/// Reads `nick kind data`.
pub(crate) fn unwrap_addressed(data: &[u8]) -> Result<(&[u8], u16, &[u8]), BadField> {
    let mut f = Fields::new(data);
    let nick = f.text("nick")?;
    let kind = u16::try_from(f.number("type")?).map_err(|_| BadField::Invalid("type"))?;
    Ok((nick, kind, f.rest()))
}
