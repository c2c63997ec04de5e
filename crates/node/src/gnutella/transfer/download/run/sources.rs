//! Sources: taken in, heard of, rested, let go, banned.

use super::{Fetch, Handle, Heard, Live, Who};
use crate::gnutella::transfer::download::DownloadEvent;
use crate::gnutella::transfer::source::{End, News};
use crate::range_source::SourceNews;
use shoal_base::Time;
use shoal_gnutella::http::client::Told;
use std::net::SocketAddr;

impl Fetch {
    /// A number that was not used before.
    pub(in crate::gnutella::transfer::download) fn take_key(&mut self) -> u32 {
        self.next_key += 1;
        self.next_key - 1
    }

    /// Somebody's thread runs.
    pub(in crate::gnutella::transfer::download) fn take_in(
        &mut self,
        key: u32,
        who: Who,
        source: Handle,
    ) {
        let live = Live {
            who,
            source,
            connected: false,
            id: None,
            available: None,
            asked: Vec::new(),
            waits: None,
            heard: false,
            probe_at: Time::ZERO,
            pushed: None,
        };
        self.live.insert(key, live);
    }

    pub(super) fn on_news(&mut self, key: u32, news: Heard) {
        let now = self.now();
        let Some(live) = self.live.get_mut(&key) else {
            return;
        };
        let (addr, news) = match (live.who, news) {
            (Who::Host(addr), Heard::Host(news)) => (addr, news),
            (Who::Other(number), Heard::Other(event)) => {
                return self.on_other(key, number, event, now);
            }
            _ => return,
        };
        match news {
            News::Connected => {
                live.connected = true;
                self.begin_with(key, now);
            }
            News::NoTls => self.sources.set_tls(&addr, false),
            News::Told(told) => self.on_told(key, addr, *told, now),
            News::Data(buf, blocks) => self.on_data(key, buf, &blocks, now),
            News::Missed(blocks) => self.on_missed(key, &blocks, now),
            News::Tree(levels) => self.on_tree(key, &levels),
            News::NoTree => self.on_no_tree(key),
            News::Waiting { at, position } => {
                live.waits = Some(at);
                live.heard = true;
                self.tell_queued(addr, position, at);
                self.waiting.insert(addr);
                self.choke(key, now);
            }
            News::Ended(client, end) => {
                if client.place().is_some() {
                    self.clients.insert(addr, *client);
                }
                self.on_ended(key, addr, end, now);
            }
        }
    }

    pub(in crate::gnutella::transfer::download) fn tell_queued(
        &self,
        addr: SocketAddr,
        position: Option<u32>,
        at: Time,
    ) {
        self.say(DownloadEvent::Queued {
            addr,
            position,
            retry_s: at.since(self.now()).as_secs(),
        });
    }

    pub(super) fn on_told(&mut self, key: u32, addr: SocketAddr, told: Told, now: Time) {
        let Some(live) = self.live.get_mut(&key) else {
            return;
        };
        live.heard = true;
        let ip = addr.ip();
        self.waiting.remove(&addr);
        for alternate in &told.alternates {
            if self.sources.learn(*alternate, ip) {
                tracing::debug!(%alternate, teller = %addr, "an alternate location");
                self.sources
                    .set_tls(alternate, told.tls.contains(alternate));
            }
        }
        for location in &told.pushed {
            if self.pushes.learn(now, location.clone(), ip) {
                tracing::debug!(guid = %location.guid, teller = %addr, "a sharer behind a firewall");
            }
        }
        if told.speaks_tls && self.tls.is_some() {
            self.sources.set_tls(&addr, true);
        }
        self.hear(key, addr, told, now);
    }

    pub(super) fn on_ended(&mut self, key: u32, addr: SocketAddr, end: End, now: Time) {
        let Some(live) = self.live.remove(&key) else {
            return;
        };
        self.leave(&live, now);
        if let Some(guid) = live.pushed {
            match end {
                End::NotThere(_) => self.pushes.drop(guid),
                _ => self.pushes.lost(now, guid),
            }
        }
        let why = match end {
            End::Stopped => return,
            End::Waiting(at, position) => {
                self.sources.rest(&addr, at);
                self.waiting.insert(addr);
                return self.tell_queued(addr, position, at);
            }
            End::NotThere(why) => {
                self.sources.dead(&addr);
                why
            }
            End::Failed(why) => {
                self.sources.failed(now, &addr);
                why
            }
        };
        self.say(DownloadEvent::Failed { addr, why });
    }

    /// Somebody lies: its threads end, and it is not asked again.
    pub(in crate::gnutella::transfer::download) fn ban(&mut self, who: Who, now: Time) {
        match who {
            Who::Host(addr) => self.sources.liar(&addr),
            Who::Other(number) => self.others.liar(number),
        }
        self.let_go(who, now);
        match who {
            Who::Host(addr) => self.say(DownloadEvent::Banned { addr }),
            Who::Other(number) => self.tell_other(number, SourceNews::Banned),
        }
    }

    /// Ends somebody's threads.
    pub(in crate::gnutella::transfer::download) fn let_go(&mut self, who: Who, now: Time) {
        let theirs = self.live.iter().filter(|(_, live)| live.who == who);
        let keys: Vec<u32> = theirs.map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(live) = self.live.remove(&key) {
                self.leave(&live, now);
            }
        }
        if let Who::Other(number) = who {
            self.others.ended(number);
        }
    }

    /// Somebody is not asked before `at`.
    pub(in crate::gnutella::transfer::download) fn rest(&mut self, who: Who, at: Time) {
        match who {
            Who::Host(addr) => self.sources.rest(&addr, at),
            Who::Other(number) => self.others.rest(number, at),
        }
    }
}
