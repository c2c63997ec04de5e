//! Connections: who is let in, bytes in, bytes out, time-outs, the end.

use std::net::{Ipv4Addr, SocketAddr};

use shoal_base::Time;

use super::{Conn, ConnId, Effect, Hub, INPUT_LIMIT, LINK_QUEUES, Refusal, Stage, TICK, links};
use crate::frame;
use crate::kind;

impl Hub {
    /// Lets a connection in.
    ///
    /// # Errors
    /// Why it is not; the driver closes it.
    pub fn connect(&mut self, now: Time, peer: SocketAddr) -> Result<ConnId, Refusal> {
        let ip = match peer {
            SocketAddr::V4(v4) => *v4.ip(),
            SocketAddr::V6(v6) => v6.ip().to_ipv4_mapped().ok_or(Refusal::NotIpv4)?,
        };
        self.now = now;
        let clones = self.addresses.get(&ip).map_or(0, |a| a.connections);
        let refusal = if self.open >= self.config.max_connections {
            Some(Refusal::Full)
        } else if self.limits(ip) && clones >= self.config.max_clones {
            Some(Refusal::Clones)
        } else if self.ban_of(ip.to_string().as_bytes()).is_some() {
            Some(Refusal::Banned)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.stats.refused += 1;
            return Err(refusal);
        }
        self.addresses.entry(ip).or_default().connections += 1;
        self.open += 1;
        Ok(self.insert(ip, peer.port(), Stage::New))
    }

    pub(super) fn insert(&mut self, peer: Ipv4Addr, port: u16, stage: Stage) -> ConnId {
        self.ages = self.ages.wrapping_add(1);
        let age = self.ages;
        let conn = Box::new(Conn {
            age,
            peer,
            port,
            stage,
            waiting: None,
            input: Vec::new(),
            out: Vec::new(),
            sent: 0,
            dirty: false,
            doomed: false,
            since: self.now,
            heard: self.now,
        });
        let slot = self.free.pop().unwrap_or(self.conns.len() as u32);
        match self.conns.get_mut(slot as usize) {
            Some(place) => *place = Some(conn),
            None => self.conns.push(Some(conn)),
        }
        ConnId { slot, age }
    }

    /// Whether limits by address hold for `ip`.
    pub(super) fn limits(&self, ip: Ipv4Addr) -> bool {
        self.config.limit_local || !ip.is_loopback()
    }

    /// Whether the driver should read from a connection. It should not while the connection waits
    /// for a password's check, or does not take what was sent to it.
    pub fn takes(&self, id: ConnId) -> bool {
        self.slot(id).is_some_and(|slot| self.takes_more(slot))
    }

    pub(super) fn takes_more(&self, slot: u32) -> bool {
        self.conn(slot).is_some_and(|c| {
            c.waiting.is_none()
                && !c.doomed
                && !matches!(c.stage, Stage::Closing)
                && c.out.len() - c.sent <= self.config.soft_queue
        })
    }

    /// Bytes came in.
    pub fn on_bytes(&mut self, now: Time, id: ConnId, bytes: &[u8], out: &mut Vec<Effect>) {
        self.now = now;
        if let Some(slot) = self.slot(id) {
            self.feed(slot, bytes);
        }
        self.settle(out);
    }

    pub(super) fn feed(&mut self, slot: u32, bytes: &[u8]) {
        let now = self.now;
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        if !bytes.is_empty() {
            conn.heard = now;
        }
        let mut held = std::mem::take(&mut conn.input);
        let rest = if held.is_empty() {
            let used = self.take_messages(slot, bytes);
            bytes.get(used..).unwrap_or_default().to_vec()
        } else {
            held.extend_from_slice(bytes);
            let used = self.take_messages(slot, &held);
            held.drain(..used.min(held.len()));
            held
        };
        if rest.len() > INPUT_LIMIT {
            self.cut_off(slot);
        } else if let Some(conn) = self.conn_mut(slot)
            && !rest.is_empty()
            && !matches!(conn.stage, Stage::Closing)
        {
            conn.input = rest;
        }
    }

    /// Takes whole messages from `buf` while the connection may be served; how many bytes.
    pub(super) fn take_messages(&mut self, slot: u32, buf: &[u8]) -> usize {
        let mut at = 0;
        while self.takes_more(slot) {
            let linked = matches!(self.conn(slot).map(|c| &c.stage), Some(Stage::Link(_)));
            let limit = if linked {
                links::MAX_DATA
            } else {
                self.config.max_message
            };
            match frame::decode(buf.get(at..).unwrap_or_default(), limit) {
                Ok(None) => break,
                Ok(Some((message, used))) => {
                    at += used;
                    self.stats.messages += 1;
                    self.message(slot, message.kind, message.data);
                }
                Err(error) => {
                    self.stats.malformed += 1;
                    self.refuse(slot, &error.to_string());
                    return buf.len();
                }
            }
        }
        at
    }

    /// Appends a message for a connection, or for the user of a linked hub.
    pub(super) fn send(&mut self, to: u32, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
        if self.is_remote(to) {
            if !self.local_only {
                self.deliver(to, kind, fill);
            }
            return;
        }
        if let Some(conn) = self.conn_mut(to) {
            if conn.doomed || matches!(conn.stage, Stage::Closing) {
                return;
            }
            frame::write(kind, &mut conn.out, fill);
            self.wake(to);
        }
    }

    pub(super) fn send_text(&mut self, to: u32, kind: u16, parts: &[&[u8]]) {
        self.send(to, kind, |o| {
            parts.iter().for_each(|p| o.extend_from_slice(p));
        });
    }

    /// Tells the driver of bytes to send, once; cuts off who does not take them.
    pub(super) fn wake(&mut self, slot: u32) {
        let hard = self.config.hard_queue;
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        let waits = conn.out.len() - conn.sent;
        if waits > hard && !matches!(conn.stage, Stage::Link(_)) || waits > hard * LINK_QUEUES {
            // Not at once: its leaving is told to others, who may have to be cut off too.
            conn.doomed = true;
            conn.out = Vec::new();
            conn.sent = 0;
            self.stats.cut_off += 1;
            self.doomed.push(slot);
        } else if waits > 0 && !conn.dirty {
            conn.dirty = true;
            let id = ConnId {
                slot,
                age: conn.age,
            };
            self.fx.push(Effect::Write(id));
        }
    }

    /// Says what went wrong: 404 to a user, 0 to who has not logged in.
    pub(super) fn complain(&mut self, to: u32, text: &str) {
        let kind = match self.conn(to).map(|c| &c.stage) {
            Some(Stage::New) => kind::LOGIN_ERROR,
            _ => kind::ERROR,
        };
        self.send(to, kind, |o| o.extend_from_slice(text.as_bytes()));
    }

    pub(super) fn limited(&mut self, to: u32, what: &str) {
        self.stats.limited += 1;
        self.complain(to, what);
    }

    /// Says why, and closes.
    pub(super) fn refuse(&mut self, slot: u32, text: &str) {
        self.stats.refused += 1;
        self.complain(slot, text);
        self.close(slot);
    }

    /// Closes a connection once what waits was sent.
    pub(super) fn close(&mut self, slot: u32) {
        self.leave(slot);
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        if !matches!(conn.stage, Stage::Closing) {
            conn.stage = Stage::Closing;
            conn.waiting = None;
            conn.input = Vec::new();
            let id = ConnId {
                slot,
                age: conn.age,
            };
            self.fx.push(Effect::Close(id));
        }
    }

    /// Closes a connection without sending what waits.
    pub(super) fn cut_off(&mut self, slot: u32) {
        if let Some(conn) = self.conn_mut(slot) {
            conn.out = Vec::new();
            conn.sent = 0;
        }
        self.close(slot);
    }

    /// What waits to be sent to a connection.
    pub fn output(&self, id: ConnId) -> &[u8] {
        let conn = self.slot(id).and_then(|slot| self.conn(slot));
        conn.and_then(|c| c.out.get(c.sent..)).unwrap_or_default()
    }

    /// The driver sent that many bytes of [`Hub::output`].
    pub fn on_sent(&mut self, now: Time, id: ConnId, bytes: usize, out: &mut Vec<Effect>) {
        self.now = now;
        let Some(slot) = self.slot(id) else {
            return;
        };
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        conn.sent = (conn.sent + bytes).min(conn.out.len());
        if conn.sent == conn.out.len() {
            conn.sent = 0;
            conn.dirty = false;
            if conn.out.capacity() > 16 << 10 {
                conn.out = Vec::new();
            } else {
                conn.out.clear();
            }
        } else if conn.sent > 64 << 10 && conn.sent * 2 > conn.out.len() {
            conn.out.drain(..conn.sent);
            conn.sent = 0;
        }
        if !conn.input.is_empty() {
            self.feed(slot, &[]);
        }
        self.settle(out);
    }

    /// A connection is closed, by whomever.
    pub fn on_closed(&mut self, now: Time, id: ConnId, out: &mut Vec<Effect>) {
        self.now = now;
        let Some(slot) = self.slot(id) else {
            return;
        };
        self.leave(slot);
        if let Some(conn) = self.conns.get_mut(slot as usize).and_then(Option::take) {
            self.open -= 1;
            self.free.push(slot);
            let ten_minutes_ago = self.now.as_micros().saturating_sub(600_000_000);
            if let Some(address) = self.addresses.get_mut(&conn.peer) {
                address.connections = address.connections.saturating_sub(1);
                let old = address.failed_at.as_micros() < ten_minutes_ago;
                if address.connections == 0 && (address.failures == 0 || old) {
                    self.addresses.remove(&conn.peer);
                }
            }
        }
        self.settle(out);
    }

    /// Takes a user or a linked hub out of everything but the table of connections.
    pub(super) fn leave(&mut self, slot: u32) {
        match self.conn(slot).map(|c| &c.stage) {
            Some(Stage::User(_)) => {
                self.tell_links_gone(slot);
                self.log_out(slot);
                if let Some(conn) = self.conn_mut(slot) {
                    conn.stage = Stage::New;
                }
            }
            Some(Stage::Link(_)) => self.unlink(slot),
            _ => {}
        }
    }

    /// The clock reached the deadline.
    pub fn on_tick(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.now = now;
        self.next_tick = now + TICK;
        let stats_due = now >= self.next_stats;
        if stats_due {
            self.next_stats = now + self.config.stats_interval;
            self.tell_links_stats();
        }
        for slot in 0..self.conns.len() as u32 {
            let Some(conn) = self.conn(slot) else {
                continue;
            };
            let age = now.since(conn.since);
            let silent = now.since(conn.heard);
            match &conn.stage {
                Stage::New if conn.waiting.is_none() && age > self.config.login_timeout => {
                    self.refuse(slot, "you did not log in in time");
                }
                Stage::User(user) => {
                    let over = user.searching.is_some_and(|s| now.since(s.since) > TICK);
                    if over {
                        self.end_search(slot, true);
                    }
                    if silent > self.config.ping_interval {
                        if let Some(conn) = self.conn_mut(slot) {
                            conn.heard = now;
                        }
                        self.send(slot, kind::SERVER_PING, |_| {});
                    }
                    if stats_due {
                        self.tell_stats(slot);
                    }
                }
                _ => {}
            }
        }
        let old = now.as_micros().saturating_sub(600_000_000);
        self.addresses
            .retain(|_, a| a.connections > 0 || a.failed_at.as_micros() > old);
        self.settle(out);
    }

    /// Hands over the effects.
    pub(super) fn settle(&mut self, out: &mut Vec<Effect>) {
        while let Some(slot) = self.doomed.pop() {
            self.close(slot);
        }
        out.append(&mut self.fx);
    }
}
