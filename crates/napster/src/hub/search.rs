//! 200 and its hits, 211 and its list, 215 and who has the same content.

use shoal_base::words::text_of;

use super::user::Searching;
use super::{Hub, Stage};
use crate::fields::{BadField, Fields, ip_to_number, put_number};
use crate::file::parse_md5;
use crate::frame;
use crate::index::{self, Entry, Terms};
use crate::kind;
use crate::query::{Bound, Query};

fn admit(bounds: &[Bound], n: u32) -> bool {
    bounds.iter().all(|b| b.admits(u64::from(n)))
}

/// Whether a file is what a query asks for, its words apart.
fn fits(query: &Query, entry: &Entry<'_>, link: u8) -> bool {
    let facts = &entry.facts;
    admit(&query.bitrate, facts.bitrate)
        && admit(&query.frequency, facts.frequency)
        && admit(&query.seconds, facts.seconds)
        && admit(&query.link, u32::from(link))
        && query.size.iter().all(|b| b.admits(facts.size))
        && query.content.as_ref().is_none_or(|c| c.is_of(entry.name))
}

impl Hub {
    pub(super) fn search(&mut self, who: u32, data: &[u8]) -> Result<(), BadField> {
        let query = match Query::parse(data) {
            Ok(query) => query,
            Err(error) => {
                // Whoever waits for hits must hear the end of them.
                self.send(who, kind::SEARCH_END, |_| {});
                return Err(error);
            }
        };
        let now = self.now;
        // The limit is that of the hub where the user is.
        let remote = self.is_remote(who);
        let Some(user) = self.user_mut(who) else {
            return Ok(());
        };
        if !remote && (!user.searches.take(now) || user.searching.is_some()) {
            self.send(who, kind::SEARCH_END, |_| {});
            self.limited(who, "too many searches; wait a little");
            return Ok(());
        }
        self.stats.searches += 1;
        let most = self.config.max_results;
        let most = query.max_results.map_or(most, |n| most.min(n as usize));
        let hits = if remote {
            self.remote_hits(who, &query, most)
        } else {
            self.local_hits(who, &query, most)
        };
        self.stats.hits += hits as u64;
        let far = !remote && !query.local_only && hits < most;
        if far && self.ask_links(who, kind::SEARCH, data, None) > 0 {
            let searching = Searching {
                missing: self.hubs_behind_links(),
                since: now,
                left: most - hits,
            };
            if let Some(user) = self.user_mut(who) {
                user.searching = Some(searching);
            }
            self.wake(who);
        } else {
            self.send(who, kind::SEARCH_END, |_| {});
        }
        Ok(())
    }

    /// A linked hub told all its hits, or there is no more waiting for it.
    pub(super) fn end_search(&mut self, who: u32, all: bool) {
        let Some(user) = self.user_mut(who) else {
            return;
        };
        let Some(searching) = &mut user.searching else {
            return;
        };
        searching.missing = searching.missing.saturating_sub(1);
        if all || searching.missing == 0 {
            user.searching = None;
            self.send(who, kind::SEARCH_END, |_| {});
        }
    }

    /// Whether a hit of a linked hub is still wanted; counts it.
    pub(super) fn wants_hit(&mut self, who: u32) -> bool {
        let searching = self.user_mut(who).and_then(|u| u.searching.as_mut());
        searching.is_some_and(|s| {
            let wanted = s.left > 0;
            s.left = s.left.saturating_sub(1);
            wanted
        })
    }

    /// Writes hits straight into what waits for the user.
    fn local_hits(&mut self, who: u32, query: &Query, most: usize) -> usize {
        let Some(conn) = self.conn_mut(who) else {
            return 0;
        };
        let mut out = std::mem::take(&mut conn.out);
        let hits = self.find(who, query, most, |entry, tail| {
            frame::write(kind::SEARCH_HIT, &mut out, |o| {
                index::put(entry, o);
                o.extend_from_slice(tail);
            });
        });
        if let Some(conn) = self.conn_mut(who) {
            conn.out = out;
        }
        hits
    }

    fn remote_hits(&mut self, who: u32, query: &Query, most: usize) -> usize {
        let mut found = Vec::new();
        let hits = self.find(who, query, most, |entry, tail| {
            let mut data = Vec::new();
            index::put(entry, &mut data);
            data.extend_from_slice(tail);
            found.push(data);
        });
        for data in found {
            self.send(who, kind::SEARCH_HIT, |o| o.extend_from_slice(&data));
        }
        hits
    }

    fn find(
        &mut self,
        who: u32,
        query: &Query,
        most: usize,
        mut each: impl FnMut(&Entry<'_>, &[u8]),
    ) -> usize {
        let luck = self.rng.next_u32() as usize;
        let mut hits = 0;
        if most == 0 {
            return 0;
        }
        let mut terms = Terms::default();
        for text in &query.contains {
            terms.require(&text_of(text));
        }
        for text in &query.excludes {
            terms.ban(&text_of(text));
        }
        self.index.search(&terms, luck, |entry| {
            if entry.owner != who
                && let Some(conn) = self
                    .conns
                    .get(entry.owner as usize)
                    .and_then(Option::as_ref)
                && let Stage::User(owner) = &conn.stage
                && fits(query, entry, owner.link)
            {
                each(entry, &owner.tail);
                hits += 1;
            }
            hits < most
        });
        hits
    }

    /// 211: what a user of this hub shares.
    pub(super) fn browse(&mut self, who: u32, data: &[u8]) -> Result<(), BadField> {
        let mut f = Fields::new(data);
        let nick = f.text("nick")?;
        let wanted = f.number("most").ok().and_then(|n| usize::try_from(n).ok());
        let most = wanted.map_or(self.config.max_browse, |n| n.min(self.config.max_browse));
        let Some(owner) = self.by_nick(nick) else {
            self.send_text(who, kind::SIGNOFF, &[nick]);
            self.send_text(who, kind::BROWSE_END, &[nick]);
            return Ok(());
        };
        if !self.may_say(who) {
            self.send_text(who, kind::BROWSE_END, &[nick]);
            return Ok(());
        }
        let nick = self.nick(owner);
        let mut list = Vec::new();
        self.index.each_of(owner, |entry| {
            if list.len() < most {
                let mut data = [&nick[..], b" "].concat();
                index::put(entry, &mut data);
                list.push(data);
            }
        });
        let shares = !list.is_empty();
        for data in list {
            self.send_text(who, kind::BROWSE_HIT, &[&data]);
        }
        let ip = self
            .conn(owner)
            .filter(|_| shares)
            .map_or(0, |c| ip_to_number(c.peer));
        self.send(who, kind::BROWSE_END, |o| {
            o.extend_from_slice(&nick);
            o.push(b' ');
            put_number(u64::from(ip), o);
        });
        Ok(())
    }

    /// 215: who shares a file of this checksum and size.
    pub(super) fn resume(&mut self, who: u32, data: &[u8]) -> Result<(), BadField> {
        let mut f = Fields::new(data);
        let md5 = parse_md5(f.text("checksum")?).ok_or(BadField::Invalid("checksum"))?;
        let size = f.number("size")?;
        if !self.resumes.take(self.now) {
            self.limited(who, "too many searches by checksum; wait a little");
            self.send(who, kind::RESUME_END, |_| {});
            return Ok(());
        }
        let mut list = Vec::new();
        let most = self.config.max_results;
        self.index.each(|entry| {
            if entry.facts.md5 == Some(md5)
                && entry.facts.size == size
                && let Some(conn) = self
                    .conns
                    .get(entry.owner as usize)
                    .and_then(Option::as_ref)
                && let Stage::User(owner) = &conn.stage
            {
                let mut data = owner.nick.clone();
                data.push(b' ');
                put_number(u64::from(ip_to_number(conn.peer)), &mut data);
                data.push(b' ');
                put_number(u64::from(owner.data_port), &mut data);
                data.push(b' ');
                index::put_short(entry, &mut data);
                data.push(b' ');
                put_number(entry.facts.size, &mut data);
                data.push(b' ');
                put_number(u64::from(owner.link), &mut data);
                list.push(data);
            }
            list.len() < most
        });
        for data in list {
            self.send_text(who, kind::RESUME_HIT, &[&data]);
        }
        self.send(who, kind::RESUME_END, |_| {});
        Ok(())
    }
}
