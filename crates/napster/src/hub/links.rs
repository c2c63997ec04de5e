//! Linked hubs: several hubs that are one directory.
//!
//! Hubs are the nodes of a tree. Each knows every user and of every user the link towards it; files
//! stay where their sharer is. What a user asks of another's hub travels there as if the user were
//! there (`AS`), and what that hub tells the user travels back (`TO`). What concerns all (rooms,
//! announcements, searches) goes along every link, and each hub tells its own users. A link that
//! would close a loop is refused: at its opening both ends tell which hubs they know.
//!
//! These messages are shoal's own; OpenNap's servers link by a protocol of theirs.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use shoal_base::secret::same;

use super::{Allowance, ConnId, Effect, Hub, Level, Stage, Time, User, key};
use crate::fields::{BadField, Fields, ip_to_number, number_to_ip, put_number, put_quoted};
use crate::frame;
use crate::kind;

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

    fn nonce(&mut self) -> Vec<u8> {
        format!("{:016x}{:016x}", self.rng.next_u64(), self.rng.next_u64()).into_bytes()
    }

    fn begin_link(&mut self, slot: u32, link: Link) {
        let mut data = Vec::new();
        put_quoted(&self.config.name, &mut data);
        data.push(b' ');
        data.extend_from_slice(&link.our_nonce);
        if let Some(conn) = self.conn_mut(slot) {
            conn.stage = Stage::Link(Box::new(link));
        }
        self.send_text(slot, kind::LINK_HELLO, &[&data]);
    }

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

    fn hello(&mut self, slot: u32, data: &[u8]) -> Result<(), BadField> {
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

    fn proven(&mut self, slot: u32, data: &[u8]) {
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
    fn known_hubs(&self) -> Vec<Vec<u8>> {
        let mut all = vec![self.config.name.clone()];
        for link in &self.links {
            if let Some(Stage::Link(link)) = self.conn(*link).map(|c| &c.stage) {
                all.extend(link.hubs.iter().cloned());
            }
        }
        all
    }

    pub(super) fn hubs_behind_links(&self) -> usize {
        self.known_hubs().len() - 1
    }

    /// The other end told which hubs it knows: if none is known here, the link is on.
    fn linked(&mut self, slot: u32, data: &[u8]) -> Result<(), BadField> {
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

    /// Passes on what is to be done at another user's hub; whether it was.
    pub(super) fn forward(&mut self, who: u32, kind: u16, data: &[u8]) -> bool {
        if self.links.is_empty() || !for_one(kind) || is_answer(kind) {
            return false;
        }
        let Some(nick) = Fields::new(data).word() else {
            return false;
        };
        let Some(other) = self.by_nick(nick) else {
            return false;
        };
        let Some(Stage::Remote(_, home)) = self.conn(other).map(|c| &c.stage) else {
            return false;
        };
        let link = home.link;
        if self.is_behind(who, link) {
            return true;
        }
        let remote = self.is_remote(who);
        let bothers = matches!(kind, kind::PRIVATE | kind::PING | kind::PONG | kind::BROWSE);
        if !remote && bothers && !self.may_say(who) {
            return true;
        }
        let data = self.wrap(who, kind, data);
        self.send_text(link, kind::LINK_AS, &[&data]);
        true
    }

    fn wrap(&self, who: u32, kind: u16, data: &[u8]) -> Vec<u8> {
        let mut out = self.nick(who);
        out.push(b' ');
        put_number(u64::from(kind), &mut out);
        out.push(b' ');
        out.extend_from_slice(data);
        out
    }

    /// Sends what a user asked for along all links but one; along how many.
    pub(super) fn ask_links(
        &mut self,
        who: u32,
        kind: u16,
        data: &[u8],
        but: Option<u32>,
    ) -> usize {
        if self.links.is_empty() {
            return 0;
        }
        let data = self.wrap(who, kind, data);
        self.tell_links(kind::LINK_AS, &data, but)
    }

    fn tell_links(&mut self, kind: u16, data: &[u8], but: Option<u32>) -> usize {
        let links: Vec<u32> = self
            .links
            .iter()
            .copied()
            .filter(|l| Some(*l) != but)
            .collect();
        for link in &links {
            self.send_text(*link, kind, &[data]);
        }
        links.len()
    }

    /// A message for a user of a linked hub.
    pub(super) fn deliver(&mut self, to: u32, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
        let Some(Stage::Remote(user, home)) = self.conn(to).map(|c| &c.stage) else {
            return;
        };
        let link = home.link;
        let mut data = user.nick.clone();
        data.push(b' ');
        put_number(u64::from(kind), &mut data);
        data.push(b' ');
        fill(&mut data);
        if data.len() <= MAX_DATA
            && let Some(conn) = self.conn_mut(link)
        {
            frame::write(kind::LINK_TO, &mut conn.out, |o| o.extend_from_slice(&data));
            self.wake(link);
        }
    }

    /// `nick "hub" ip port link level "client"`.
    fn came(&self, who: u32) -> Vec<u8> {
        let (Some(conn), Some(user)) = (self.conn(who), self.user(who)) else {
            return Vec::new();
        };
        let hub = match &conn.stage {
            Stage::Remote(_, home) => &home.hub,
            _ => &self.config.name,
        };
        let mut o = user.nick.clone();
        o.push(b' ');
        put_quoted(hub, &mut o);
        let numbers = [
            ip_to_number(conn.peer),
            user.data_port.into(),
            user.link.into(),
        ];
        for n in numbers {
            o.push(b' ');
            put_number(u64::from(n), &mut o);
        }
        o.push(b' ');
        o.extend_from_slice(user.level.name());
        o.push(b' ');
        put_quoted(&user.client, &mut o);
        o
    }

    /// A user of this hub came, or changed.
    pub(super) fn tell_links_came(&mut self, who: u32) {
        if !self.links.is_empty() {
            let came = self.came(who);
            self.tell_links(kind::LINK_USER, &came, None);
        }
    }

    pub(super) fn tell_links_gone(&mut self, who: u32) {
        if !self.links.is_empty() {
            let nick = self.nick(who);
            self.tell_links(kind::LINK_GONE, &nick, None);
        }
    }

    /// Tells each neighbour what this hub and all behind the others share.
    pub(super) fn tell_links_stats(&mut self) {
        for to in self.links.clone() {
            let (mut files, mut bytes) = (self.index.len() as u64, self.index.bytes());
            for other in self.links.clone() {
                if other != to
                    && let Some(link) = self.link_mut(other)
                {
                    files = files.saturating_add(link.files);
                    bytes = bytes.saturating_add(link.bytes);
                }
            }
            let data = format!("{files} {bytes}");
            self.send_text(to, kind::LINK_STATS, &[data.as_bytes()]);
        }
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
