//! A client's side of its connection to a hub, without the connection: messages in as events, what
//! to say out as bytes.

mod event;

use std::net::SocketAddrV6;
use std::time::Duration;

use shoal_base::Rng;

use crate::fields::{put_clean, put_quoted};
use crate::file::Facts;
use crate::frame::{self, TooLong};
use crate::kind;

use event::Said;
pub use event::{Event, Hit, Place, Room, Whois};

/// Who logs in.
#[derive(Debug, Clone, Default)]
pub struct Login {
    /// Under which nick.
    pub nick: String,
    /// With which password.
    pub password: String,
    /// Where others can connect to; zero for nowhere.
    pub data_port: u16,
    /// The kind of link, 0 (unknown) to 10 (T3 or better).
    pub link: u8,
    /// Where the overlay reaches it, behind whatever NAT: said behind the program's name, which a hub
    /// shows to whoever asks who this is, so that hubs and clients need not know of it.
    pub overlay: Option<SocketAddrV6>,
}

/// One connection to a hub.
#[derive(Debug, Default)]
pub struct Client {
    input: Vec<u8>,
    out: Vec<u8>,
}

impl Client {
    /// A connection that says who is there.
    pub fn new(login: &Login) -> Self {
        let mut client = Self::default();
        client.say(kind::LOGIN, |o| {
            o.extend_from_slice(login.nick.as_bytes());
            o.push(b' ');
            if login.password.contains(' ') {
                put_quoted(login.password.as_bytes(), o);
            } else {
                o.extend_from_slice(login.password.as_bytes());
            }
            let place = login.overlay.map(|addr| format!(" {addr}"));
            let rest = format!(
                " {} \"shoal {}{}\" {}",
                login.data_port,
                env!("CARGO_PKG_VERSION"),
                place.unwrap_or_default(),
                login.link
            );
            o.extend_from_slice(rest.as_bytes());
        });
        client
    }

    /// What is to be sent; the caller takes it.
    pub fn output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Says anything.
    pub fn say(&mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
        frame::write(kind, &mut self.out, fill);
    }

    /// Shares a file.
    pub fn share(&mut self, path: &[u8], facts: &Facts) {
        self.say(kind::SHARE, |o| {
            put_quoted(path, o);
            o.push(b' ');
            facts.put(o);
        });
    }

    /// Shares a file no more (102).
    pub fn unshare(&mut self, path: &[u8]) {
        self.say(kind::UNSHARE, |o| put_quoted(path, o));
    }

    fn about(&mut self, kind: u16, nick: &str, path: &[u8], more: &str) {
        self.say(kind, |o| {
            o.extend_from_slice(nick.as_bytes());
            o.push(b' ');
            put_quoted(path, o);
            o.extend_from_slice(more.as_bytes());
        });
    }

    /// Asks to download (203).
    pub fn download(&mut self, nick: &str, path: &[u8]) {
        self.about(kind::DOWNLOAD, nick, path, "");
    }

    /// Asks a sharer behind a firewall to connect to us (500).
    pub fn push(&mut self, nick: &str, path: &[u8]) {
        self.about(kind::PUSH, nick, path, "");
    }

    /// Lets somebody download (608).
    pub fn accept(&mut self, nick: &str, path: &[u8]) {
        self.about(kind::UPLOAD_ACK, nick, path, "");
    }

    /// Tells somebody that so many uploads are the most (619).
    pub fn queue(&mut self, nick: &str, path: &[u8], most: usize) {
        self.about(kind::QUEUE_LIMIT, nick, path, &format!(" {most}"));
    }

    /// Asks whether a user is there (751).
    pub fn ping(&mut self, nick: &str) {
        self.say(kind::PING, |o| o.extend_from_slice(nick.as_bytes()));
    }

    /// Asks who a user is (603).
    pub fn whois(&mut self, nick: &str) {
        self.say(kind::WHOIS, |o| o.extend_from_slice(nick.as_bytes()));
    }

    /// Asks the hub what a user shares (211).
    pub fn browse(&mut self, nick: &str) {
        self.say(kind::BROWSE, |o| o.extend_from_slice(nick.as_bytes()));
    }

    /// Asks to browse a user without the hub (640).
    pub fn browse_direct(&mut self, nick: &str) {
        self.say(kind::BROWSE_DIRECT, |o| {
            o.extend_from_slice(nick.as_bytes());
        });
    }

    /// Lets a user browse us (641).
    pub fn accept_browse(&mut self, nick: &str) {
        self.say(kind::BROWSE_DIRECT_ACK, |o| {
            o.extend_from_slice(nick.as_bytes());
        });
    }

    /// Watches for a user's coming and going (207).
    pub fn watch(&mut self, nick: &str) {
        self.say(kind::HOTLIST_ADD, |o| o.extend_from_slice(nick.as_bytes()));
    }

    /// Asks for the rooms (617).
    pub fn list_rooms(&mut self) {
        self.say(kind::LIST_ROOMS, |_| {});
    }

    /// Enters a room (400).
    pub fn join(&mut self, room: &str) {
        self.say(kind::JOIN, |o| put_clean(room.as_bytes(), o));
    }

    /// Leaves a room (401).
    pub fn part(&mut self, room: &str) {
        self.say(kind::PART, |o| put_clean(room.as_bytes(), o));
    }

    /// Says something in a room (402), or does it (824).
    pub fn speak(&mut self, room: &str, text: &str, emote: bool) {
        let kind = if emote { kind::EMOTE } else { kind::PUBLIC };
        self.say(kind, |o| {
            put_clean(room.as_bytes(), o);
            o.push(b' ');
            if emote {
                put_quoted(text.as_bytes(), o);
            } else {
                put_line(text, o);
            }
        });
    }

    /// Sets a room's topic (410).
    pub fn topic(&mut self, room: &str, text: &str) {
        self.say(kind::TOPIC, |o| {
            put_clean(room.as_bytes(), o);
            o.push(b' ');
            put_line(text, o);
        });
    }

    /// Says something to one user (205).
    pub fn private(&mut self, nick: &str, text: &str) {
        self.say(kind::PRIVATE, |o| {
            put_clean(nick.as_bytes(), o);
            o.push(b' ');
            put_line(text, o);
        });
    }

    /// Bytes came from the hub.
    ///
    /// # Errors
    /// A message longer than any hub sends: the connection is useless.
    pub fn on_bytes(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), TooLong> {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while let Some((message, used)) =
            frame::decode(input.get(at..).unwrap_or_default(), 16 << 10)?
        {
            at += used;
            // What is not understood is passed over: there are many hubs.
            match Event::parse(message.kind, message.data) {
                Ok(Said::News(event)) => events.push(event),
                Ok(Said::Answer(kind, data)) => self.say(kind, |o| o.extend_from_slice(&data)),
                Ok(Said::Nothing) | Err(_) => {}
            }
        }
        self.input = input.get(at..).unwrap_or_default().to_vec();
        Ok(())
    }
}

/// Appends a text that runs to the end of a message: quotes may stay.
fn put_line(text: &str, out: &mut Vec<u8>) {
    out.extend(
        text.bytes()
            .map(|b| if b < 32 || b == 127 { b'_' } else { b }),
    );
}

/// How long to wait before a hub is dialled again: twice as long each time, up to five minutes,
/// and up to half of that by chance, so that a hub's users do not all come back at once.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(300);

    /// Nothing failed yet.
    pub fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// The wait after one more failure.
    pub fn wait(&mut self, rng: &mut Rng) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(Self::MOST);
        wait.mul_f64(0.5 + rng.unit() / 2.0)
    }

    /// It went well.
    pub fn reset(&mut self) {
        self.next = Self::FIRST;
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

/// Puts hits into the order in which they should be tried: who answered a ping first, the fastest
/// answer first; then by link, then by bitrate.
pub fn rank(hits: &mut [(Hit, Option<Duration>)]) {
    hits.sort_by(|(a, ping_a), (b, ping_b)| {
        // Answers within 20 ms of each other are as good.
        let class = |p: &Option<Duration>| p.map_or(u128::MAX, |p| p.as_millis() / 20);
        let key = |h: &Hit| (h.link, h.facts.bitrate);
        class(ping_a)
            .cmp(&class(ping_b))
            .then_with(|| key(b).cmp(&key(a)))
            .then_with(|| ping_a.cmp(ping_b))
    });
}

#[cfg(test)]
mod tests;
