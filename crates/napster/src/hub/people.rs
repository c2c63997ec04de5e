//! Users and each other: whois, private messages, pings, hotlists, ignore lists.

use super::{Hub, Level, Stage, key};
use crate::fields::{BadField, Fields, put_clean, put_number, put_quoted};
use crate::kind;

use super::login::link;
use crate::fields::port;

impl Hub {
    /// Whether a user may bother others once more; says so if not.
    pub(super) fn may_say(&mut self, who: u32) -> bool {
        let now = self.now;
        // The limit is that of the hub where the user is.
        let remote = self.is_remote(who);
        let may = remote || self.user_mut(who).is_some_and(|u| u.lines.take(now));
        if !may {
            self.limited(who, "not so fast");
        }
        may
    }

    /// 600, 603, 205, 751, 752: the other is a user of this hub, or not here at all.
    pub(super) fn address_person(
        &mut self,
        who: u32,
        kind: u16,
        data: &[u8],
    ) -> Result<(), BadField> {
        let mut f = Fields::new(data);
        let nick = f.text("nick")?;
        let Some(other) = self.by_nick(nick) else {
            self.not_here(who, kind, nick);
            return Ok(());
        };
        let me = self.nick(who);
        match kind {
            kind::LINK_SPEED => {
                let speed = self.user(other).map_or(0, |u| u.link);
                let nick = self.nick(other);
                self.send(who, kind::LINK_SPEED_ACK, |o| {
                    o.extend_from_slice(&nick);
                    o.push(b' ');
                    put_number(u64::from(speed), o);
                });
            }
            kind::WHOIS => {
                let data = self.whois(other, self.level(who) >= Level::Moderator);
                self.send_text(who, kind::WHOIS_ACK, &[&data]);
            }
            _ if !self.may_say(who) => {}
            _ if self.user(other).is_some_and(|o| o.ignores(&me)) => {}
            kind::PRIVATE => {
                let text = f.rest().to_vec();
                self.send(other, kind::PRIVATE, |o| {
                    o.extend_from_slice(&me);
                    o.push(b' ');
                    put_text(&text, o);
                });
            }
            kind => {
                // 751 and 752, whose answer may carry the asker's own text.
                let text = f.rest().to_vec();
                self.send(other, kind, |o| {
                    o.extend_from_slice(&me);
                    if !text.is_empty() {
                        o.push(b' ');
                        put_text(&text, o);
                    }
                });
            }
        }
        Ok(())
    }

    fn not_here(&mut self, who: u32, kind: u16, nick: &[u8]) {
        if kind == kind::WHOIS
            && let Some(account) = self.accounts.get(&key(nick))
        {
            let mut data = account.nick.clone();
            data.push(b' ');
            put_quoted(account.level.name(), &mut data);
            data.push(b' ');
            put_number(account.seen, &mut data);
            return self.send_text(who, kind::WHOWAS, &[&data]);
        }
        let nick = String::from_utf8_lossy(nick).into_owned();
        let text = match kind {
            kind::PING | kind::PONG => format!("ping failed, {nick} is not online"),
            _ => format!("user {nick} is not online"),
        };
        self.complain(who, &text);
    }

    /// 604.
    fn whois(&self, of: u32, all: bool) -> Vec<u8> {
        let (Some(conn), Some(user)) = (self.conn(of), self.user(of)) else {
            return Vec::new();
        };
        let mut o = user.nick.clone();
        o.push(b' ');
        put_quoted(user.level.name(), &mut o);
        o.push(b' ');
        put_number(self.now.since(conn.since).as_secs(), &mut o);
        let mut rooms = Vec::new();
        for room in &user.rooms {
            rooms.extend_from_slice(room);
            rooms.push(b' ');
        }
        o.push(b' ');
        put_quoted(&rooms, &mut o);
        let status = match conn.stage {
            Stage::Remote(..) => &b" \"Remote\" "[..],
            _ => b" \"Active\" ",
        };
        o.extend_from_slice(status);
        let files = self.index.files_of(of) as u64;
        let numbers = [
            files,
            user.downloads.into(),
            user.uploads.into(),
            user.link.into(),
        ];
        for n in numbers {
            put_number(n, &mut o);
            o.push(b' ');
        }
        put_quoted(&user.client, &mut o);
        if all {
            for n in [user.downloaded, user.uploaded] {
                o.push(b' ');
                put_number(u64::from(n), &mut o);
            }
            let place = format!(" {} {} {} ", conn.peer, conn.port, user.data_port);
            o.extend_from_slice(place.as_bytes());
            put_clean(&user.email, &mut o);
        }
        o
    }

    /// 207, 208, 303.
    pub(super) fn hotlist(&mut self, who: u32, kind: u16, data: &[u8]) -> Result<(), BadField> {
        let friend = Fields::new(data).text("nick")?.to_vec();
        let me = self.nick(who);
        let listed = |u: &super::User| u.hotlist.iter().any(|n| n.eq_ignore_ascii_case(&friend));
        if kind == kind::HOTLIST_REMOVE {
            if self.user(who).is_some_and(listed) {
                self.unwatch(who, &friend);
                self.keep_lists(who, &me);
            }
            return Ok(());
        }
        let user = self.user(who);
        let full = user.is_none_or(|u| u.hotlist.len() >= self.config.max_list);
        if user.is_some_and(listed) {
            self.send_text(who, kind::HOTLIST_ACK, &[&friend]);
        } else if full || !self.valid_nick(&friend) {
            self.send_text(who, kind::HOTLIST_ERROR, &[&friend]);
        } else {
            self.send_text(who, kind::HOTLIST_ACK, &[&friend]);
            self.watch(who, &friend);
            self.keep_lists(who, &me);
        }
        Ok(())
    }

    /// Keeps the lists of a registered user.
    fn keep_lists(&mut self, who: u32, nick: &[u8]) {
        let Some(user) = self.user(who) else {
            return;
        };
        let (hotlist, ignored) = (user.hotlist.clone(), user.ignored.clone());
        self.change_account(nick, |a| {
            a.hotlist = hotlist;
            a.ignored = ignored;
        });
    }

    /// Puts a nick on a hotlist, and tells if its user is here.
    pub(super) fn watch(&mut self, who: u32, friend: &[u8]) {
        let most = self.config.max_list;
        let Some(user) = self.user_mut(who) else {
            return;
        };
        if user.hotlist.len() >= most || user.hotlist.iter().any(|n| n.eq_ignore_ascii_case(friend))
        {
            return;
        }
        user.hotlist.push(friend.to_vec());
        self.watchers.entry(key(friend)).or_default().push(who);
        if let Some(link) = self
            .by_nick(friend)
            .and_then(|o| self.user(o))
            .map(|u| u.link)
        {
            self.signon(who, friend, link);
        }
    }

    pub(super) fn unwatch(&mut self, who: u32, friend: &[u8]) {
        if let Some(user) = self.user_mut(who) {
            user.hotlist.retain(|n| !n.eq_ignore_ascii_case(friend));
        }
        if let Some(watchers) = self.watchers.get_mut(&key(friend)) {
            watchers.retain(|w| *w != who);
            if watchers.is_empty() {
                self.watchers.remove(&key(friend));
            }
        }
    }

    fn signon(&mut self, to: u32, nick: &[u8], link: u8) {
        self.send(to, kind::SIGNON, |o| {
            o.extend_from_slice(nick);
            o.push(b' ');
            put_number(u64::from(link), o);
        });
    }

    /// Tells who wants to know that a user came (by which link) or left.
    pub(super) fn tell_watchers(&mut self, nick: &[u8], came: Option<u8>) {
        for watcher in self.watchers.get(&key(nick)).cloned().unwrap_or_default() {
            match came {
                Some(link) => self.signon(watcher, nick, link),
                None => self.send_text(watcher, kind::SIGNOFF, &[nick]),
            }
        }
    }

    /// 320 to 326.
    pub(super) fn ignore(&mut self, who: u32, kind: u16, data: &[u8]) -> Result<(), BadField> {
        let most = self.config.max_list;
        let me = self.nick(who);
        let Some(user) = self.user_mut(who) else {
            return Ok(());
        };
        let count = user.ignored.len() as u64;
        match kind {
            kind::IGNORE_LIST => {
                for nick in user.ignored.clone() {
                    self.send_text(who, kind::IGNORE_ENTRY, &[&nick]);
                }
                self.send(who, kind::IGNORE_LIST, |o| put_number(count, o));
            }
            kind::IGNORE_CLEAR => {
                user.ignored.clear();
                self.send(who, kind::IGNORE_CLEAR, |o| put_number(count, o));
                self.keep_lists(who, &me);
            }
            kind::IGNORE_ADD | kind::IGNORE_REMOVE => {
                let nick = Fields::new(data).text("nick")?.to_vec();
                let at = user
                    .ignored
                    .iter()
                    .position(|n| n.eq_ignore_ascii_case(&nick));
                let answer = match (kind, at) {
                    (kind::IGNORE_ADD, Some(_)) => kind::IGNORE_ALREADY,
                    (kind::IGNORE_ADD, None) => {
                        if user.ignored.len() >= most || nick.len() > 64 {
                            self.limited(who, "your ignore list is full");
                            return Ok(());
                        }
                        user.ignored.push(nick.clone());
                        kind
                    }
                    (_, None) => kind::IGNORE_UNKNOWN,
                    (_, Some(at)) => {
                        user.ignored.remove(at);
                        kind
                    }
                };
                self.send_text(who, answer, &[&nick]);
                self.keep_lists(who, &me);
            }
            _ => {}
        }
        Ok(())
    }

    /// 700 to 703.
    pub(super) fn change_self(&mut self, who: u32, kind: u16, data: &[u8]) -> Result<(), BadField> {
        let text = Fields::new(data).text("value")?.to_vec();
        let nick = self.nick(who);
        match kind {
            kind::MY_PASSWORD => {
                if self.accounts.contains_key(&key(&nick)) {
                    self.new_password(who, &nick, &text);
                } else {
                    self.complain(who, "your nick is not registered");
                }
            }
            kind::MY_EMAIL => {
                let email = text.get(..96).unwrap_or(&text).to_vec();
                if let Some(user) = self.user_mut(who) {
                    user.email.clone_from(&email);
                }
                self.change_account(&nick, |a| a.email = email);
            }
            kind::MY_LINK => {
                let link = link(&text).ok_or(BadField::Invalid("link"))?;
                self.set_link(who, link);
            }
            _ => {
                let port = port(&text).ok_or(BadField::Invalid("port"))?;
                if let Some(user) = self.user_mut(who) {
                    user.data_port = port;
                }
                self.tell_links_came(who);
            }
        }
        Ok(())
    }

    pub(super) fn set_link(&mut self, who: u32, link: u8) {
        let Some(ip) = self.conn(who).map(|c| c.peer) else {
            return;
        };
        if let Some(user) = self.user_mut(who) {
            user.link = link;
            user.render(ip);
        }
        self.tell_links_came(who);
    }
}

/// Appends what somebody said: no control bytes, for a client's terminal must not obey them.
pub(super) fn put_text(text: &[u8], o: &mut Vec<u8>) {
    o.extend(text.iter().filter(|b| !matches!(b, 0..=31 | 127)));
}
