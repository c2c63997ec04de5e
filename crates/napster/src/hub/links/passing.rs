//! What is passed on over links: to one behind them, to all, and who came and went.

use super::{MAX_DATA, for_one, is_answer};
use crate::fields::{Fields, ip_to_number, put_number, put_quoted};
use crate::hub::{Hub, Stage};
use crate::{frame, kind};

impl Hub {
    /// Passes on what is to be done at another user's hub; whether it was.
    pub(in crate::hub) fn forward(&mut self, who: u32, kind: u16, data: &[u8]) -> bool {
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

    pub(super) fn wrap(&self, who: u32, kind: u16, data: &[u8]) -> Vec<u8> {
        let mut out = self.nick(who);
        out.push(b' ');
        put_number(u64::from(kind), &mut out);
        out.push(b' ');
        out.extend_from_slice(data);
        out
    }

    /// Sends what a user asked for along all links but one; along how many.
    pub(in crate::hub) fn ask_links(
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

    pub(super) fn tell_links(&mut self, kind: u16, data: &[u8], but: Option<u32>) -> usize {
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
    pub(in crate::hub) fn deliver(&mut self, to: u32, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
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
    pub(super) fn came(&self, who: u32) -> Vec<u8> {
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
    pub(in crate::hub) fn tell_links_came(&mut self, who: u32) {
        if !self.links.is_empty() {
            let came = self.came(who);
            self.tell_links(kind::LINK_USER, &came, None);
        }
    }

    pub(in crate::hub) fn tell_links_gone(&mut self, who: u32) {
        if !self.links.is_empty() {
            let nick = self.nick(who);
            self.tell_links(kind::LINK_GONE, &nick, None);
        }
    }

    /// Tells each neighbour what this hub and all behind the others share.
    pub(in crate::hub) fn tell_links_stats(&mut self) {
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
}
