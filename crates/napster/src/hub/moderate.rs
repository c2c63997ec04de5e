//! Moderation: levels, kills, bans, muzzles, registrations, announcements.

use super::{Ban, Effect, Hub, Level, Record, key};
use crate::fields::{BadField, Fields, put_clean, put_number, put_quoted};
use crate::kind;

use super::login::link;
use super::people::put_text;
use crate::fields::port;

/// Bytes of a reason at most.
const MAX_REASON: usize = 96;

fn reason(f: &mut Fields<'_>) -> Vec<u8> {
    let text = f.word().unwrap_or_default();
    let mut clean = Vec::new();
    put_clean(text.get(..MAX_REASON).unwrap_or(text), &mut clean);
    clean
}

/// Whether a ban's text names addresses: digits and points, with a point in it.
fn is_address(whom: &[u8]) -> bool {
    whom.contains(&b'.') && whom.iter().all(|b| b.is_ascii_digit() || *b == b'.')
}

impl Hub {
    /// The ban that keeps out a nick, or an address as it is written.
    pub(super) fn ban_of(&self, whom: &[u8]) -> Option<&Ban> {
        self.bans.iter().find(|b| {
            let begins = b.whom.ends_with(b".") && is_address(&b.whom) && whom.starts_with(&b.whom);
            begins || b.whom.eq_ignore_ascii_case(whom)
        })
    }

    pub(super) fn moderate(&mut self, who: u32, kind: u16, data: &[u8]) -> Result<(), BadField> {
        let needs = match kind {
            kind::KILL
            | kind::BAN
            | kind::UNBAN
            | kind::BANS
            | kind::BANNED_USERS
            | kind::MUZZLE
            | kind::UNMUZZLE
            | kind::OPERATORS_SAY => Level::Moderator,
            kind::SET_LEVEL
            | kind::NUKE
            | kind::SET_PORT
            | kind::SET_LINK
            | kind::ANNOUNCE
            | kind::SET_PASSWORD => Level::Admin,
            _ => {
                self.complain(who, &format!("message {kind} is not known here"));
                return Ok(());
            }
        };
        if self.level(who) < needs {
            self.complain(who, "permission denied");
            return Ok(());
        }
        let mut f = Fields::new(data);
        match kind {
            kind::OPERATORS_SAY | kind::ANNOUNCE => {
                self.announce(who, kind, data);
                if !self.is_remote(who) {
                    self.ask_links(who, kind, data, None);
                }
                return Ok(());
            }
            kind::BANS | kind::BANNED_USERS => {
                self.list_bans(who);
                return Ok(());
            }
            _ => {}
        }
        let whom = f.text("nick")?.to_vec();
        // Nobody moderates those above, whether they are here or not.
        let their_level = match self.by_nick(&whom) {
            Some(other) => self.level(other),
            None => self
                .accounts
                .get(&key(&whom))
                .map_or(Level::Leech, |a| a.level),
        };
        if their_level > self.level(who) {
            self.complain(who, "permission denied");
            return Ok(());
        }
        match kind {
            kind::KILL => {
                let reason = reason(&mut f);
                self.kill(who, &whom, &reason);
            }
            kind::BAN => {
                let reason = reason(&mut f);
                self.ban(who, &whom, &reason);
            }
            kind::UNBAN => {
                let before = self.bans.len();
                self.bans.retain(|b| !b.whom.eq_ignore_ascii_case(&whom));
                if self.bans.len() < before {
                    self.fx.push(Effect::Save(Record::Unban(whom)));
                } else {
                    self.complain(who, "there is no such ban");
                }
            }
            kind::MUZZLE | kind::UNMUZZLE => {
                let muzzle = kind == kind::MUZZLE;
                let changed = if muzzle {
                    self.muzzled.len() < self.config.max_bans
                        && whom.len() <= self.config.max_nick
                        && self.muzzled.insert(key(&whom))
                } else {
                    self.muzzled.remove(&key(&whom))
                };
                if changed {
                    self.fx.push(Effect::Save(Record::Muzzled(whom, muzzle)));
                }
            }
            kind::SET_LEVEL => {
                let level = Level::parse(f.text("level")?).ok_or(BadField::Invalid("level"))?;
                self.set_level(who, &whom, level);
            }
            kind::NUKE => {
                if let Some(account) = self.accounts.remove(&key(&whom)) {
                    self.fx.push(Effect::Save(Record::Nuked(account.nick)));
                    self.kill(who, &whom, b"the registration was deleted");
                } else {
                    self.complain(who, "that nick is not registered");
                }
            }
            kind::SET_PASSWORD => {
                let password = f.text("password")?;
                if self.accounts.contains_key(&key(&whom)) {
                    self.new_password(who, &whom, password);
                } else {
                    self.complain(who, "that nick is not registered");
                }
            }
            kind::SET_PORT => {
                let port = port(f.text("port")?).ok_or(BadField::Invalid("port"))?;
                if let Some(other) = self.by_nick(&whom) {
                    self.send(other, kind::SET_PORT, |o| put_number(u64::from(port), o));
                }
            }
            _ => {
                let link = link(f.text("link")?).ok_or(BadField::Invalid("link"))?;
                if let Some(other) = self.by_nick(&whom) {
                    self.set_link(other, link);
                }
            }
        }
        Ok(())
    }

    /// Ends a user's connection to this hub.
    pub(super) fn kill(&mut self, by: u32, whom: &[u8], reason: &[u8]) {
        let by = String::from_utf8_lossy(&self.nick(by)).into_owned();
        if let Some(other) = self.by_nick(whom)
            && !self.is_remote(other)
        {
            let why = String::from_utf8_lossy(reason).into_owned();
            self.complain(other, &format!("{by} ended your connection: {why}"));
            self.close(other);
        }
    }

    fn ban(&mut self, who: u32, whom: &[u8], reason: &[u8]) {
        if !is_address(whom) && !self.valid_nick(whom) {
            self.complain(
                who,
                "a ban is of a nick, an address, or the beginning of one (10.1.)",
            );
            return;
        }
        if self.bans.len() >= self.config.max_bans && self.ban_of(whom).is_none() {
            self.complain(who, "there are too many bans");
            return;
        }
        let ban = Ban {
            whom: whom.to_vec(),
            by: self.nick(who),
            reason: reason.to_vec(),
            at: self.unix(),
        };
        self.bans.retain(|b| !b.whom.eq_ignore_ascii_case(whom));
        self.bans.push(ban.clone());
        self.fx.push(Effect::Save(Record::Ban(ban)));
        // Those whom it concerns and who are below the moderator leave at once.
        let concerned: Vec<u32> = (0..self.conns.len() as u32)
            .filter(|slot| *slot != who && self.level(*slot) < self.level(who))
            .filter(|slot| {
                let Some(conn) = self.conn(*slot) else {
                    return false;
                };
                let nick = self.user(*slot).map_or(&[][..], |u| &u.nick);
                let peer = conn.peer.to_string();
                let is = |text: &[u8]| {
                    text.eq_ignore_ascii_case(whom)
                        || whom.ends_with(b".") && text.starts_with(whom)
                };
                let address = is_address(whom) && is(peer.as_bytes());
                (address || nick.eq_ignore_ascii_case(whom)) && !self.is_remote(*slot)
            })
            .filter(|slot| !self.links.contains(slot))
            .collect();
        for slot in concerned {
            let why = String::from_utf8_lossy(reason).into_owned();
            self.complain(slot, &format!("you are banned: {why}"));
            self.close(slot);
        }
    }

    fn list_bans(&mut self, who: u32) {
        for ban in self.bans.clone() {
            let mut line = ban.whom;
            line.push(b' ');
            line.extend_from_slice(&ban.by);
            line.push(b' ');
            put_quoted(&ban.reason, &mut line);
            line.push(b' ');
            put_number(ban.at, &mut line);
            line.extend_from_slice(b" 0");
            self.send_text(who, kind::BAN_ENTRY, &[&line]);
        }
        self.send(who, kind::BANS, |_| {});
    }

    fn set_level(&mut self, who: u32, whom: &[u8], level: Level) {
        // An admin makes moderators; only an elite makes admins.
        if level >= self.level(who) && self.level(who) < Level::Elite {
            return self.complain(who, "permission denied");
        }
        if !self.accounts.contains_key(&key(whom)) {
            return self.complain(who, "that nick is not registered");
        }
        self.change_account(whom, |a| a.level = level);
        if let Some(other) = self.by_nick(whom) {
            if let Some(user) = self.user_mut(other) {
                user.level = level;
            }
            let text = format!(
                "your level is now {}",
                String::from_utf8_lossy(level.name())
            );
            self.complain(other, &text);
            self.tell_links_came(other);
        }
    }

    fn announce(&mut self, who: u32, kind: u16, text: &[u8]) {
        let nick = self.nick(who);
        let least = match kind {
            kind::ANNOUNCE => Level::Leech,
            _ => Level::Moderator,
        };
        let mut data = [&nick[..], b" "].concat();
        put_text(text, &mut data);
        let mut all: Vec<u32> = self.users.values().copied().collect();
        all.sort_unstable();
        for slot in all {
            if !self.is_remote(slot) && self.level(slot) >= least {
                self.send_text(slot, kind, &[&data]);
            }
        }
    }
}
