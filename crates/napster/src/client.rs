//! A client's side of its connection to a hub, without the connection: messages in as events, what
//! to say out as bytes.

use std::net::Ipv4Addr;
use std::time::Duration;

use shoal_base::Rng;

use crate::fields::{BadField, Fields, ip, put_quoted};
use crate::file::Facts;
use crate::frame::{self, TooLong};
use crate::kind;

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
}

/// A file that a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The path as its sharer tells it.
    pub path: Vec<u8>,
    /// What its sharer says of it.
    pub facts: Facts,
    /// Who shares it.
    pub nick: String,
    /// Where.
    pub ip: Ipv4Addr,
    /// By which kind of link.
    pub link: u8,
}

/// Where a file is to be had, or where it is to be sent (204, 501).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The other.
    pub nick: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its data port; zero if nobody can connect to it.
    pub port: u16,
    /// The path as its sharer tells it.
    pub path: Vec<u8>,
}

/// What a hub said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The login was accepted.
    LoggedIn,
    /// It was not: why.
    Refused(String),
    /// A line of the message of the day.
    Motd(String),
    /// Users, files, gigabytes.
    Stats(u64, u64, u64),
    /// A file found.
    Hit(Hit),
    /// No more will be.
    SearchEnd,
    /// A download may begin.
    Ready(Place),
    /// Somebody who cannot connect to us wants a file: we connect.
    Push(Place),
    /// Somebody wants a file: answer by [`Client::accept`] or [`Client::queue`].
    Asked(String, Vec<u8>),
    /// A file cannot be had, and why.
    Unavailable(String, Vec<u8>, String),
    /// A user answered a ping.
    Pong(String),
    /// A private message.
    Private(String, String),
    /// Something failed.
    Error(String),
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|c| !c.is_control()).collect()
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
            let rest = format!(
                " {} \"shoal {}\" {}",
                login.data_port,
                env!("CARGO_PKG_VERSION"),
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
            if let Ok(Some(event)) = self.event(message.kind, message.data) {
                events.push(event);
            }
        }
        self.input = input.get(at..).unwrap_or_default().to_vec();
        Ok(())
    }

    fn event(&mut self, kind: u16, data: &[u8]) -> Result<Option<Event>, BadField> {
        let mut f = Fields::new(data);
        Ok(Some(match kind {
            kind::LOGIN_ACK => Event::LoggedIn,
            kind::LOGIN_ERROR => Event::Refused(text(data)),
            kind::MOTD => Event::Motd(text(data)),
            kind::STATS => Event::Stats(f.number("users")?, f.number("files")?, f.number("size")?),
            kind::SEARCH_HIT => Event::Hit(Hit {
                path: f.text("file")?.to_vec(),
                facts: Facts::parse(&mut f)?,
                nick: text(f.text("nick")?),
                ip: ip(f.text("ip")?).ok_or(BadField::Invalid("ip"))?,
                link: f
                    .word()
                    .and_then(crate::fields::number)
                    .map_or(0, |n| n.min(10) as u8),
            }),
            kind::SEARCH_END => Event::SearchEnd,
            kind::DOWNLOAD_ACK => Event::Ready(place(&mut f)?),
            kind::PUSH_ACK => Event::Push(place(&mut f)?),
            kind::UPLOAD_REQUEST => Event::Asked(text(f.text("nick")?), f.text("file")?.to_vec()),
            kind::GET_ERROR | kind::UPLOAD_REFUSED => Event::Unavailable(
                text(f.text("nick")?),
                f.text("file")?.to_vec(),
                "not available".into(),
            ),
            kind::QUEUE_LIMITED => Event::Unavailable(
                text(f.text("nick")?),
                f.text("file")?.to_vec(),
                "no free slot".into(),
            ),
            kind::PING => {
                let nick = text(f.text("nick")?);
                self.say(kind::PONG, |o| o.extend_from_slice(nick.as_bytes()));
                return Ok(None);
            }
            kind::PONG => Event::Pong(text(f.text("nick")?)),
            kind::SERVER_PING => {
                // With data, so that two ends do not answer each other for ever.
                self.say(kind::SERVER_PING, |o| o.extend_from_slice(b"pong"));
                return Ok(None);
            }
            kind::PRIVATE => Event::Private(text(f.text("nick")?), text(f.rest())),
            kind::ERROR => Event::Error(text(data)),
            _ => return Ok(None),
        }))
    }
}

fn place(f: &mut Fields<'_>) -> Result<Place, BadField> {
    Ok(Place {
        nick: text(f.text("nick")?),
        ip: ip(f.text("ip")?).ok_or(BadField::Invalid("ip"))?,
        port: crate::fields::port(f.text("port")?).ok_or(BadField::Invalid("port"))?,
        path: f.text("file")?.to_vec(),
    })
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shoal_base::Rng;

    #[test]
    fn what_a_hub_says_becomes_events() {
        let mut client = Client::new(&Login {
            nick: "bob".into(),
            password: "p w".into(),
            data_port: 6699,
            link: 9,
        });
        let said = client.output();
        let (message, _) = frame::decode(&said, 2048).expect("short").expect("whole");
        assert!(message.data.starts_with(b"bob \"p w\" 6699 \"shoal "));
        let mut bytes = Vec::new();
        for (kind, data) in [
            (3, &b"anon@server"[..]),
            (201, b"\"C:\\a.mp3\" 0 123 128 44100 7 alice 16913452 9"),
            (201, b"\"C:\\bad.mp3\""),
            (202, b""),
            (204, b"alice 16913452 6699 \"C:\\a.mp3\" 0 9"),
            (607, b"eve \"C:\\b.mp3\" 3"),
            (751, b"eve "),
            (750, b""),
        ] {
            frame::encode(kind, data, &mut bytes);
        }
        let mut events = Vec::new();
        for chunk in bytes.chunks(7) {
            client.on_bytes(chunk, &mut events).expect("fits");
        }
        let [
            Event::LoggedIn,
            Event::Hit(hit),
            Event::SearchEnd,
            Event::Ready(place),
            Event::Asked(nick, path),
        ] = &events[..]
        else {
            panic!("{events:?}");
        };
        assert_eq!((hit.ip, hit.facts.size), (Ipv4Addr::new(44, 20, 2, 1), 123));
        assert_eq!(
            (place.port, nick.as_str(), &path[..]),
            (6699, "eve", &b"C:\\b.mp3"[..])
        );
        assert_eq!(client.output(), b"\x03\x00\xf0\x02eve\x04\x00\xee\x02pong");
    }

    #[test]
    fn the_nearest_and_best_come_first() {
        let hit = |nick: &str, link, ms: Option<u64>| {
            let hit = Hit {
                path: Vec::new(),
                facts: Facts::default(),
                nick: nick.into(),
                ip: Ipv4Addr::LOCALHOST,
                link,
            };
            (hit, ms.map(Duration::from_millis))
        };
        let mut hits = [
            hit("silent", 10, None),
            hit("far", 10, Some(300)),
            hit("near", 3, Some(5)),
            hit("fast", 9, Some(15)),
        ];
        rank(&mut hits);
        let order: Vec<_> = hits.iter().map(|(h, _)| h.nick.as_str()).collect();
        assert_eq!(order, ["fast", "near", "far", "silent"]);
    }

    #[test]
    fn waits_grow_to_a_bound_and_differ() {
        let (mut backoff, mut rng) = (Backoff::new(), Rng::from_seed(1));
        let waits: Vec<_> = (0..20).map(|_| backoff.wait(&mut rng)).collect();
        assert!(waits[0] <= Duration::from_secs(1) && waits[19] >= Duration::from_secs(150));
        assert!(waits.iter().all(|w| *w <= Duration::from_secs(300)));
        backoff.reset();
        assert!(backoff.wait(&mut rng) <= Duration::from_secs(1));
    }

    proptest! {
        #[test]
        fn any_bytes_are_events_or_an_error(bytes: Vec<u8>) {
            let _ = Client::default().on_bytes(&bytes, &mut Vec::new());
        }
    }
}
