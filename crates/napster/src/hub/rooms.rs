//! Rooms: 400 to 424 and 820 to 830.
//!
//! Whoever opens a room is its operator until leaving. A room that a moderator gave a topic, a
//! level, a limit or a ban stays when it is empty, and over restarts. On linked hubs each hub keeps
//! the same rooms and tells its own users only.

use super::{Effect, Hub, Key, Level, Record, RoomSettings, key};
use crate::fields::{BadField, Fields, put_number, put_quoted};
use crate::kind;

use super::people::put_text;

/// Bytes of a room's name and topic at most.
const MAX_NAME: usize = 32;
const MAX_TOPIC: usize = 200;
/// Bans of one room at most.
const MAX_BANS: usize = 200;
/// Members of a room of which nothing else is said.
const DEFAULT_LIMIT: usize = 500;

#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) settings: RoomSettings,
    pub(super) members: Vec<u32>,
    pub(super) operator: Option<u32>,
    /// Whether it stays when it is empty.
    pub(super) kept: bool,
}

fn valid_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name
            .iter()
            .all(|b| (b.is_ascii_graphic() || *b >= 0x80) && !b"\",".contains(b))
}

impl Hub {
    /// The key of a room that a user is in.
    fn room_of(&self, who: u32, name: &[u8]) -> Option<Key> {
        let key = key(name);
        let room = self.rooms.get(&key)?;
        room.members.contains(&who).then_some(key)
    }

    /// Writes `room nick files link`.
    fn member(&self, room: &[u8], who: u32) -> Vec<u8> {
        let mut o = room.to_vec();
        if let Some(user) = self.user(who) {
            o.push(b' ');
            o.extend_from_slice(&user.nick);
            o.push(b' ');
            put_number(self.index.files_of(who) as u64, &mut o);
            o.push(b' ');
            put_number(u64::from(user.link), &mut o);
        }
        o
    }

    /// Tells all members in this hub, but for those who ignore `from`.
    fn tell_room(&mut self, room: &Key, kind: u16, data: &[u8], from: Option<&[u8]>) {
        let members = self.rooms.get(room).map(|r| r.members.clone());
        for member in members.unwrap_or_default() {
            if self.is_remote(member) {
                continue;
            }
            let ignores = |nick| self.user(member).is_some_and(|u| u.ignores(nick));
            if !from.is_some_and(ignores) {
                self.send_text(member, kind, &[data]);
            }
        }
    }

    /// What every hub of the directory does alike.
    pub(super) fn room_message(
        &mut self,
        who: u32,
        kind: u16,
        data: &[u8],
    ) -> Result<(), BadField> {
        let mut f = Fields::new(data);
        let name = f.text("room")?.to_vec();
        let remote = self.is_remote(who);
        let speaks = match kind {
            kind::TOPIC => !f.is_empty(),
            kind => matches!(kind, kind::JOIN | kind::PUBLIC | kind::EMOTE),
        };
        if speaks && !remote && !self.may_say(who) {
            return Ok(());
        }
        let done = match kind {
            kind::JOIN => self.join(who, &name),
            kind::PART => {
                let was = self.room_of(who, &name).is_some();
                if was {
                    self.part(who, &name);
                    self.send_text(who, kind::PART, &[&name]);
                }
                was
            }
            kind::PUBLIC | kind::EMOTE => self.say(who, kind, &name, f),
            kind::TOPIC if f.is_empty() => {
                let topic = self
                    .rooms
                    .get(&key(&name))
                    .map(|r| r.settings.topic.clone());
                match topic {
                    Some(topic) => self.send_text(who, kind::TOPIC, &[&name, b" ", &topic]),
                    None => self.complain(who, "there is no such room"),
                }
                return Ok(());
            }
            _ => self.rule(who, kind, &name, f)?,
        };
        if done && !remote {
            self.ask_links(who, kind, data, None);
        }
        Ok(())
    }

    fn join(&mut self, who: u32, name: &[u8]) -> bool {
        let nick = self.nick(who);
        let level = self.level(who);
        let key = key(name);
        let in_rooms = self.user(who).map_or(0, |u| u.rooms.len());
        let room = self.rooms.get(&key);
        let problem = if !valid_name(name) {
            Some("that cannot be a room's name".to_owned())
        } else if self.muzzled.contains(&super::key(&nick)) && !self.is_remote(who) {
            Some("you are muzzled".to_owned())
        } else if room.is_none() && self.rooms.len() >= self.config.max_rooms {
            Some("there are too many rooms".to_owned())
        } else if in_rooms >= self.config.max_rooms_of_user {
            Some(format!(
                "you may be in {} rooms",
                self.config.max_rooms_of_user
            ))
        } else {
            room.and_then(|r| {
                let limit = if r.settings.limit == 0 {
                    DEFAULT_LIMIT
                } else {
                    r.settings.limit as usize
                };
                if r.members.contains(&who) {
                    Some("you are there already".to_owned())
                } else if level < r.settings.level {
                    let level = String::from_utf8_lossy(r.settings.level.name());
                    Some(format!("the room is for level {level} and above"))
                } else if level < Level::Moderator
                    && r.settings
                        .bans
                        .iter()
                        .any(|b| b.eq_ignore_ascii_case(&nick))
                {
                    Some("you are banned from that room".to_owned())
                } else if level < Level::Moderator && r.members.len() >= limit {
                    Some("the room is full".to_owned())
                } else {
                    None
                }
            })
        };
        if let Some(problem) = problem {
            self.complain(who, &problem);
            return false;
        }
        let room = self.rooms.entry(key.clone()).or_default();
        if room.members.is_empty() && !room.kept {
            room.settings.name = name.to_vec();
            room.settings.topic = [b"Welcome to ", name].concat();
            room.operator = Some(who);
        }
        let shown = room.settings.name.clone();
        let topic = room.settings.topic.clone();
        let present = room.members.clone();
        room.members.push(who);
        if let Some(user) = self.user_mut(who) {
            user.rooms.push(shown.clone());
        }
        self.send_text(who, kind::JOIN_ACK, &[&shown]);
        let me = self.member(&shown, who);
        for member in &present {
            if !self.is_remote(*member) {
                self.send_text(*member, kind::JOINED, &[&me]);
            }
            let line = self.member(&shown, *member);
            self.send_text(who, kind::MEMBER, &[&line]);
        }
        self.send_text(who, kind::MEMBER, &[&me]);
        self.send_text(who, kind::MEMBERS_END, &[&shown]);
        self.send_text(who, kind::TOPIC, &[&shown, b" ", &topic]);
        true
    }

    /// Takes a user out of a room and tells those who stay.
    pub(super) fn part(&mut self, who: u32, name: &[u8]) {
        let key = key(name);
        let line = self.member(name, who);
        let Some(room) = self.rooms.get_mut(&key) else {
            return;
        };
        room.members.retain(|m| *m != who);
        if room.operator == Some(who) {
            room.operator = None;
        }
        let over = room.members.is_empty() && !room.kept;
        if over {
            self.rooms.remove(&key);
        }
        if let Some(user) = self.user_mut(who) {
            user.rooms.retain(|r| !r.eq_ignore_ascii_case(name));
        }
        if !over {
            self.tell_room(&key, kind::PARTED, &line, None);
        }
    }

    fn say(&mut self, who: u32, kind: u16, name: &[u8], mut f: Fields<'_>) -> bool {
        let Some(room) = self.room_of(who, name) else {
            self.complain(who, "you are not in that room");
            return false;
        };
        let nick = self.nick(who);
        if self.muzzled.contains(&key(&nick)) && !self.is_remote(who) {
            self.complain(who, "you are muzzled");
            return false;
        }
        let shown = self
            .rooms
            .get(&room)
            .map(|r| r.settings.name.clone())
            .unwrap_or_default();
        let mut data = [&shown[..], b" ", &nick, b" "].concat();
        let kind = if kind == kind::EMOTE {
            put_quoted(f.word().unwrap_or_default(), &mut data);
            kind
        } else {
            put_text(f.rest(), &mut data);
            kind::PUBLIC_HEARD
        };
        self.tell_room(&room, kind, &data, Some(&nick));
        true
    }

    /// What only an operator of the room or a moderator may do. Whether it was done.
    fn rule(
        &mut self,
        who: u32,
        kind: u16,
        name: &[u8],
        mut f: Fields<'_>,
    ) -> Result<bool, BadField> {
        let room_key = key(name);
        let moderates = self.level(who) >= Level::Moderator;
        let Some(room) = self.rooms.get(&room_key) else {
            self.complain(who, "there is no such room");
            return Ok(false);
        };
        if !moderates && room.operator != Some(who) {
            self.complain(who, "permission denied: you are no operator of that room");
            return Ok(false);
        }
        if kind == kind::KICK {
            let nick = f.text("nick")?;
            let by = self.nick(who);
            let Some(other) = self
                .by_nick(nick)
                .filter(|o| self.room_of(*o, name).is_some())
            else {
                self.complain(who, "that user is not in the room");
                return Ok(false);
            };
            if self.level(other) > self.level(who) {
                self.complain(who, "permission denied");
                return Ok(false);
            }
            if !self.is_remote(other) {
                self.send_text(other, kind::PART, &[name]);
                let text = format!("{} removed you", String::from_utf8_lossy(&by));
                self.complain(other, &text);
            }
            self.part(other, name);
            return Ok(true);
        }
        let my_level = self.level(who);
        let Some(room) = self.rooms.get_mut(&room_key) else {
            return Ok(false);
        };
        let settings = &mut room.settings;
        match kind {
            kind::TOPIC => {
                settings.topic.clear();
                put_text(f.rest(), &mut settings.topic);
                settings.topic.truncate(MAX_TOPIC);
            }
            kind::ROOM_BAN => {
                let nick = f.text("nick")?;
                let known = settings.bans.iter().any(|b| b.eq_ignore_ascii_case(nick));
                if !known && settings.bans.len() < MAX_BANS && nick.len() <= MAX_NAME {
                    settings.bans.push(nick.to_vec());
                }
            }
            kind::ROOM_UNBAN => {
                let nick = f.text("nick")?;
                settings.bans.retain(|b| !b.eq_ignore_ascii_case(nick));
            }
            kind::ROOM_BANS_CLEAR => settings.bans.clear(),
            kind::ROOM_LEVEL => {
                let level = Level::parse(f.text("level")?).ok_or(BadField::Invalid("level"))?;
                // Nobody closes a room to oneself.
                settings.level = level.min(my_level);
            }
            _ => {
                let limit = f.number("limit")?;
                settings.limit = u32::try_from(limit).map_err(|_| BadField::Invalid("limit"))?;
            }
        }
        let topic = settings.topic.clone();
        let shown = settings.name.clone();
        room.kept |= moderates;
        if room.kept {
            let settings = room.settings.clone();
            self.fx.push(Effect::Save(Record::Room(settings)));
        }
        if kind == kind::TOPIC {
            let line = [&shown[..], b" ", &topic].concat();
            self.tell_room(&room_key, kind::TOPIC, &line, None);
        }
        Ok(true)
    }

    /// 420, 617 and 830.
    pub(super) fn room_question(
        &mut self,
        who: u32,
        kind: u16,
        data: &[u8],
    ) -> Result<(), BadField> {
        if !self.may_say(who) {
            return Ok(());
        }
        if kind == kind::LIST_ROOMS {
            let mut lines = Vec::new();
            for room in self.rooms.values() {
                let mut line = room.settings.name.clone();
                line.push(b' ');
                put_number(room.members.len() as u64, &mut line);
                line.push(b' ');
                line.extend_from_slice(&room.settings.topic);
                lines.push(line);
            }
            for line in lines {
                self.send_text(who, kind::ROOM_ENTRY, &[&line]);
            }
            self.send(who, kind::LIST_ROOMS, |_| {});
            return Ok(());
        }
        let name = Fields::new(data).text("room")?.to_vec();
        if let Some(room) = self.rooms.get(&key(&name)) {
            let shown = room.settings.name.clone();
            if kind == kind::ROOM_BANS {
                for ban in room.settings.bans.clone() {
                    self.send_text(who, kind::ROOM_BAN_ENTRY, &[&shown, b" ", &ban]);
                }
            } else {
                for member in room.members.clone() {
                    let line = self.member(&shown, member);
                    self.send_text(who, kind::ROOM_USER, &[&line]);
                }
            }
        }
        self.send_text(who, kind, &[&name]);
        Ok(())
    }
}
