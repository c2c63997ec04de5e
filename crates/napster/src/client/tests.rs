use super::*;
use proptest::prelude::*;
use shoal_base::Rng;
use std::net::Ipv4Addr;

#[test]
fn what_a_hub_says_becomes_events() {
    let mut client = Client::new(&Login {
        nick: "bob".into(),
        password: "p w".into(),
        data_port: 6699,
        link: 9,
        overlay: "[fc01::2]:6699".parse().ok(),
    });
    let said = client.output();
    let (message, _) = frame::decode(&said, 2048).expect("short").expect("whole");
    assert!(message.data.starts_with(b"bob \"p w\" 6699 \"shoal "));
    assert!(message.data.ends_with(b" [fc01::2]:6699\" 9"));
    let mut bytes = Vec::new();
    for (kind, data) in [
        (3, &b"anon@server"[..]),
        (201, b"\"C:\\a.mp3\" 0 123 128 44100 7 alice 16913452 9"),
        (201, b"\"C:\\bad.mp3\""),
        (202, b""),
        (204, b"alice 16913452 6699 \"C:\\a.mp3\" 0 9"),
        (607, b"eve \"C:\\b.mp3\" 3"),
        (212, b"alice \"C:\\c.mp3\" NOMD5COMPUTED 5 128 44100 7"),
        (213, b"alice"),
        (640, b"eve"),
        (640, b"eve 16913452 6699"),
        (641, b"alice 16913452 0"),
        (642, b"alice \"shares nothing\""),
        (
            604,
            b"alice \"User\" 9 \"#a #b \" \"Active\" 2 0 1 9 \"TekNap\" 3 4",
        ),
        (604, b"alice \"User\" long"),
        (605, b"alice \"User\" 1000"),
        (618, b"#a 2 about it"),
        (617, b""),
        (403, b"#a eve said \"so\""),
        (824, b"#a eve \"waves\""),
        (408, b"#a eve 0 3"),
        (209, b"eve 3"),
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
        Event::Browsed(browsed),
        Event::BrowseEnd(_),
        rest @ ..,
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((browsed.nick.as_str(), browsed.facts.size), ("alice", 5));
    let at = |nick: &str, port| Place {
        nick: nick.into(),
        ip: Ipv4Addr::new(44, 20, 2, 1),
        port,
        path: Vec::new(),
    };
    let whois = Whois {
        nick: "alice".into(),
        level: "User".into(),
        online_s: 9,
        rooms: vec!["#a".into(), "#b".into()],
        status: "Active".into(),
        shared: 2,
        downloads: 0,
        uploads: 1,
        link: 9,
        client: "TekNap".into(),
    };
    let room = |what| Event::Room("#a".into(), what);
    let expected = [
        Event::BrowseAsked("eve".into(), None),
        Event::BrowseAsked("eve".into(), Some(at("eve", 6699))),
        Event::BrowseAt(at("alice", 0)),
        Event::BrowseRefused("alice".into(), "shares nothing".into()),
        Event::Whois(whois),
        Event::Whowas("alice".into(), "User".into(), 1000),
        room(Room::Listed(2, "about it".into())),
        Event::RoomsEnd,
        room(Room::Said("eve".into(), "said \"so\"".into())),
        room(Room::Did("eve".into(), "waves".into())),
        room(Room::Member("eve".into())),
        Event::Presence("eve".into(), true),
    ];
    assert_eq!(rest, expected);
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
