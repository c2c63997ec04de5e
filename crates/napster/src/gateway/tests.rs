//! A hub and a gateway that is linked with it, in virtual time.

use super::*;
use crate::hub::{Config, ConnId, Effect, Hub};
use proptest::prelude::proptest;
use shoal_base::Time;

/// A hub, a gateway that is linked with it, and users of the hub.
struct World {
    hub: Hub,
    now: Time,
    link: ConnId,
    gateway: Gateway,
    events: Vec<Event>,
}

impl World {
    fn new(secret: &[u8]) -> Self {
        let config = Config {
            link_secret: Some(b"secret".to_vec()),
            ..Config::default()
        };
        let now = Time::from_secs(1);
        let mut hub = Hub::new(config, Rng::from_seed(1));
        let link = hub.connect(now, ([127, 0, 0, 1], 9).into()).expect("room");
        let guest = Guest {
            nick: "overlay".into(),
            ip: Ipv4Addr::new(44, 20, 2, 1),
            port: 6700,
            client: "a network".into(),
        };
        let gateway = Gateway::new("overlay", secret, guest, &mut Rng::from_seed(2));
        let mut w = Self {
            hub,
            now,
            link,
            gateway,
            events: Vec::new(),
        };
        w.settle();
        w
    }

    fn feed(&mut self, id: ConnId, bytes: &[u8]) {
        let mut out = Vec::new();
        self.hub.on_bytes(self.now, id, bytes, &mut out);
        for effect in out {
            if let Effect::Close(id) = effect {
                self.hub.on_closed(self.now, id, &mut Vec::new());
            }
        }
    }

    /// Carries bytes until nobody says more.
    fn settle(&mut self) {
        loop {
            let said = self.gateway.output();
            let heard = self.hub.output(self.link).to_vec();
            if said.is_empty() && heard.is_empty() {
                return;
            }
            let sent = heard.len();
            self.hub.on_sent(self.now, self.link, sent, &mut Vec::new());
            self.feed(self.link, &said);
            self.gateway
                .on_bytes(&heard, &mut self.events)
                .expect("short messages");
        }
    }

    fn user(&mut self, nick: &str, port: u16) -> ConnId {
        let id = self.hub.connect(self.now, ([127, 0, 0, 2], 9).into());
        let id = id.expect("room");
        self.says(id, kind::LOGIN, &format!("{nick} p {port} \"x\" 3"));
        self.hears(id);
        id
    }

    fn says(&mut self, id: ConnId, kind: u16, data: &str) {
        let mut bytes = Vec::new();
        frame::encode(kind, data.as_bytes(), &mut bytes);
        self.feed(id, &bytes);
        self.settle();
    }

    /// What a user was told.
    fn hears(&mut self, id: ConnId) -> Vec<(u16, String)> {
        let bytes = self.hub.output(id).to_vec();
        self.hub.on_sent(self.now, id, bytes.len(), &mut Vec::new());
        let (mut at, mut all) = (0, Vec::new());
        while let Ok(Some((message, used))) = frame::decode(&bytes[at..], MAX_DATA) {
            at += used;
            all.push((message.kind, text(message.data)));
        }
        all
    }
}

#[test]
fn a_hubs_users_search_and_fetch_from_another_network() {
    let mut w = World::new(b"secret");
    assert_eq!(w.events, [Event::Linked]);
    w.events.clear();
    let ann = w.user("ann", 0);
    w.says(
        ann,
        kind::SEARCH,
        "FILENAME CONTAINS \"blue song\" MAX_RESULTS 5",
    );
    let [Event::Search(nick, query)] = &w.events[..] else {
        panic!("{:?}", w.events);
    };
    assert_eq!(
        (nick.as_str(), &query.contains[..]),
        ("ann", &[b"blue song".to_vec()][..])
    );
    assert_eq!(w.hears(ann), [], "its end waits for us");
    let facts = Facts {
        size: 77,
        ..Facts::default()
    };
    w.gateway.found("ann", b"overlay\\a blue song.mp3", &facts);
    w.gateway.end("ann");
    w.settle();
    let told = w.hears(ann);
    let [(kind::SEARCH_HIT, hit), (kind::SEARCH_END, _)] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(
        hit.starts_with("\"overlay\\a blue song.mp3\" ") && hit.ends_with(" overlay 16913452 0")
    );
    w.events.clear();
    w.says(ann, kind::DOWNLOAD, "overlay \"overlay\\a blue song.mp3\"");
    let wanted = Event::Wanted("ann".into(), b"overlay\\a blue song.mp3".to_vec());
    assert_eq!(w.events, [wanted]);
    w.gateway.ready("ann", b"overlay\\a blue song.mp3");
    w.gateway.refuse("ann", b"another");
    w.settle();
    let told = w.hears(ann);
    let [(kind::DOWNLOAD_ACK, ready), (kind::GET_ERROR, refused)] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(ready.starts_with("overlay 16913452 6700 \"overlay\\a blue song.mp3\" "));
    assert_eq!(refused, "overlay \"another\"");
    for (kind, answer) in [
        (kind::PING, kind::PONG),
        (kind::WHOIS, kind::WHOIS_ACK),
        (kind::BROWSE, kind::BROWSE_END),
        (kind::BROWSE_DIRECT, kind::BROWSE_DIRECT_ERROR),
    ] {
        w.says(ann, kind, "overlay");
        let told = w.hears(ann);
        assert_eq!(
            told.first().map(|(kind, _)| *kind),
            Some(answer),
            "{told:?}"
        );
    }
}

#[test]
fn another_network_searches_what_a_hubs_users_share() {
    let mut w = World::new(b"secret");
    let bob = w.user("bob", 6699);
    w.says(bob, kind::SHARE, "\"C:\\m\\red song.mp3\" 0 99 128 44100 7");
    w.events.clear();
    w.gateway.search("red song", 20);
    w.settle();
    let [Event::Hit(hit), Event::SearchEnd] = &w.events[..] else {
        panic!("{:?}", w.events);
    };
    assert_eq!((hit.nick.as_str(), hit.facts.size), ("bob", 99));
    w.events.clear();
    let mut out = Vec::new();
    w.hub.on_closed(w.now, bob, &mut out);
    w.settle();
    assert_eq!(w.events, [Event::Gone("bob".into())]);
}

#[test]
fn who_does_not_know_the_secret_is_refused() {
    let w = World::new(b"guess");
    assert!(
        matches!(&w.events[..], [Event::Refused(_), ..]),
        "{:?}",
        w.events
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, kinds in proptest::collection::vec(20_001u16..20_011, 0..6)) {
        let mut w = World::new(b"secret");
        for kind in kinds {
            let mut said = Vec::new();
            frame::encode(kind, &bytes, &mut said);
            let _ = w.gateway.on_bytes(&said, &mut w.events);
        }
        let _ = w.gateway.on_bytes(&bytes, &mut w.events);
    }
}
