//! Who downloads from whom: 203 asks, 607 asks the sharer, 608 accepts, 204 tells where.
//!
//! A sharer that cannot be connected to (data port 0) is asked by 500 and 501 to connect to the
//! downloader instead. The hub tells a downloader's address to nobody whom it did not ask, and
//! passes on no answer that was not asked for.

use std::hash::Hasher;

use rustc_hash::FxHasher;

use super::{Hub, Level, MAX_ASKED};
use crate::fields::{BadField, Fields, ip_to_number, put_number, put_quoted};
use crate::index;
use crate::kind;

fn path_hash(path: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(path);
    hasher.finish()
}

/// `nick "file"`.
fn nick_and_path(nick: &[u8], path: &[u8]) -> Vec<u8> {
    let mut data = nick.to_vec();
    data.push(b' ');
    put_quoted(path, &mut data);
    data
}

impl Hub {
    /// Writes `nick ip port`.
    fn put_place(&self, user: u32, o: &mut Vec<u8>) {
        let (Some(conn), Some(user)) = (self.conn(user), self.user(user)) else {
            return;
        };
        o.extend_from_slice(&user.nick);
        o.push(b' ');
        put_number(u64::from(ip_to_number(conn.peer)), o);
        o.push(b' ');
        put_number(u64::from(user.data_port), o);
    }

    /// Writes `nick ip port "file" md5 link`, all of `of` but the file, which is `owner`'s.
    fn ready(&self, of: u32, owner: u32, path: &[u8]) -> Option<Vec<u8>> {
        let entry = self.index.entry(self.index.find(owner, b"", path)?)?;
        let mut data = Vec::new();
        self.put_place(of, &mut data);
        data.push(b' ');
        index::put_short(&entry, &mut data);
        data.push(b' ');
        put_number(u64::from(self.user(of)?.link), &mut data);
        Some(data)
    }

    /// 203 and 500. The sharer is a user of this hub.
    pub(super) fn download(&mut self, who: u32, kind: u16, data: &[u8]) -> Result<(), BadField> {
        let mut f = Fields::new(data);
        let (nick, path) = (f.text("nick")?, f.text("file")?);
        if self.level(who) == Level::Leech {
            self.complain(who, "you may not download");
            return Ok(());
        }
        let owner = self.by_nick(nick).filter(|o| *o != who);
        let shared = owner.filter(|o| self.index.find(*o, b"", path).is_some());
        let Some(owner) = shared else {
            let data = nick_and_path(nick, path);
            self.send_text(who, kind::GET_ERROR, &[&data]);
            return Ok(());
        };
        let me = self.nick(who);
        if self.user(owner).is_some_and(|o| o.ignores(&me)) {
            self.complain(who, "that user ignores you");
            return Ok(());
        }
        let port = |slot| self.user(slot).map_or(0, |u| u.data_port);
        let (mine, theirs) = (port(who), port(owner));
        if mine == 0 && theirs == 0 {
            self.complain(who, "neither of you can be connected to");
            let data = nick_and_path(nick, path);
            self.send_text(who, kind::GET_ERROR, &[&data]);
            return Ok(());
        }
        if kind == kind::PUSH {
            if mine == 0 {
                self.complain(who, "your data port is 0: nobody can connect to you");
            } else if let Some(data) = self.ready(who, owner, path) {
                self.stats.brokered += 1;
                self.send_text(owner, kind::PUSH_ACK, &[&data]);
            }
            return Ok(());
        }
        if let Some(user) = self.user_mut(who) {
            let asked = (owner, path_hash(path));
            user.asked.retain(|a| *a != asked);
            if user.asked.len() >= MAX_ASKED {
                user.asked.remove(0);
            }
            user.asked.push(asked);
        }
        let mut data = nick_and_path(&me, path);
        data.push(b' ');
        put_number(self.user(who).map_or(0, |u| u64::from(u.link)), &mut data);
        self.send_text(owner, kind::UPLOAD_REQUEST, &[&data]);
        Ok(())
    }

    /// 608, 609 and 619: a sharer's answer, for a downloader of this or a linked hub.
    pub(super) fn upload(&mut self, who: u32, kind: u16, data: &[u8]) -> Result<(), BadField> {
        let mut f = Fields::new(data);
        let (nick, path) = (f.text("nick")?, f.text("file")?);
        let limit = match kind {
            kind::QUEUE_LIMIT => f.number("limit")?,
            _ => 0,
        };
        let asked = (who, path_hash(path));
        let Some(to) = self.by_nick(nick) else {
            self.complain(who, "that user is not here");
            return Ok(());
        };
        let Some(user) = self.user_mut(to) else {
            return Ok(());
        };
        let Some(at) = user.asked.iter().position(|a| *a == asked) else {
            // Answered already, or never asked.
            return Ok(());
        };
        user.asked.swap_remove(at);
        let me = self.nick(who);
        match kind {
            kind::UPLOAD_ACK => match self.ready(who, who, path) {
                Some(data) => {
                    self.stats.brokered += 1;
                    self.send_text(to, kind::DOWNLOAD_ACK, &[&data]);
                }
                None => {
                    let data = nick_and_path(&me, path);
                    self.send_text(to, kind::GET_ERROR, &[&data]);
                }
            },
            kind::UPLOAD_REFUSED => {
                let data = nick_and_path(&me, path);
                self.send_text(to, kind::UPLOAD_REFUSED, &[&data]);
            }
            _ => {
                let found = self.index.find(who, b"", path);
                let size = found
                    .and_then(|id| self.index.entry(id))
                    .map_or(0, |e| e.facts.size);
                let mut data = nick_and_path(&me, path);
                for n in [size, limit] {
                    data.push(b' ');
                    put_number(n, &mut data);
                }
                self.send_text(to, kind::QUEUE_LIMITED, &[&data]);
            }
        }
        Ok(())
    }

    /// 640 and 641: browsing a user directly, without burdening the hub.
    pub(super) fn browse_direct(
        &mut self,
        who: u32,
        kind: u16,
        data: &[u8],
    ) -> Result<(), BadField> {
        let nick = Fields::new(data).text("nick")?;
        // What is remembered of the question: no path has this hash but by chance.
        const BROWSES: u64 = u64::MAX;
        let Some(other) = self.by_nick(nick).filter(|o| *o != who) else {
            self.send_text(who, kind::BROWSE_DIRECT_ERROR, &[nick, b" \"not here\""]);
            return Ok(());
        };
        if kind == kind::BROWSE_DIRECT_ACK {
            let Some(user) = self.user_mut(other) else {
                return Ok(());
            };
            let Some(at) = user.asked.iter().position(|a| *a == (who, BROWSES)) else {
                return Ok(());
            };
            user.asked.swap_remove(at);
            let mut data = Vec::new();
            self.put_place(who, &mut data);
            self.send_text(other, kind::BROWSE_DIRECT_ACK, &[&data]);
            return Ok(());
        }
        let port = |slot| self.user(slot).map_or(0, |u| u.data_port);
        let (mine, theirs) = (port(who), port(other));
        let problem = if self.index.files_of(other) == 0 {
            Some(&b" \"shares nothing\""[..])
        } else if mine == 0 && theirs == 0 {
            Some(&b" \"neither of you can be connected to\""[..])
        } else {
            None
        };
        if let Some(problem) = problem {
            self.send_text(who, kind::BROWSE_DIRECT_ERROR, &[nick, problem]);
            return Ok(());
        }
        if let Some(user) = self.user_mut(who) {
            user.asked.retain(|a| *a != (other, BROWSES));
            if user.asked.len() >= MAX_ASKED {
                user.asked.remove(0);
            }
            user.asked.push((other, BROWSES));
        }
        let mut data = Vec::new();
        if theirs == 0 {
            // The one to be browsed has to connect.
            self.put_place(who, &mut data);
        } else {
            data = self.nick(who);
        }
        self.send_text(other, kind::BROWSE_DIRECT, &[&data]);
        Ok(())
    }

    pub(super) fn count_transfer(&mut self, who: u32, kind: u16) {
        let Some(user) = self.user_mut(who) else {
            return;
        };
        let (running, done, starts) = match kind {
            kind::DOWNLOAD_START => (&mut user.downloads, &mut user.downloaded, true),
            kind::DOWNLOAD_DONE => (&mut user.downloads, &mut user.downloaded, false),
            kind::UPLOAD_START => (&mut user.uploads, &mut user.uploaded, true),
            _ => (&mut user.uploads, &mut user.uploaded, false),
        };
        if starts {
            *running = running.saturating_add(1);
        } else if *running > 0 {
            *running -= 1;
            *done = done.saturating_add(1);
        }
    }

    /// 626: a downloader could not reach a sharer's data port, and tells the sharer.
    pub(super) fn port_error(&mut self, who: u32, data: &[u8]) -> Result<(), BadField> {
        let nick = Fields::new(data).text("nick")?;
        if let Some(other) = self.by_nick(nick)
            && self.may_say(who)
        {
            let me = self.nick(who);
            self.send_text(other, kind::PORT_ERROR, &[&me]);
        }
        Ok(())
    }
}
