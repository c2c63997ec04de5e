//! A false supernode among real ones, with real processes: what it does with letters and records comes to
//! nothing, and it is replaced.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use serde_json::Value;
use shoal_base::id::to_hex;
use shoal_base::{Rng, Time};
use shoal_call::chat::{Body, Event};
use shoal_call::mailbox::Envelope;
use shoal_call::record::Record;
use shoal_call::seal::{Secrets, To, seal};
use shoal_dht::chord::{Endpoint, Settings};
use shoal_dht::{Answer, Certified, Dht, Failure, Item, Judge, Outcome, Output, Request};
use shoal_node::supernode::PeopleEvent;
use shoal_supernode::names::certificate::Certificate;
use shoal_supernode::token::Key;
use shoal_supernode::wire;

use crate::chat::{at_home, listed, texts};
use crate::false_supernode::{FalseSupernode, Lie};
use crate::people::{Online, Person, look_up};
use crate::process::{LONG, Running};
use crate::supernode::{Node, Overlay};

/// Honest supernodes, and a false one among them.
fn overlay(honest: usize) -> (Overlay, Vec<Node>, FalseSupernode) {
    let overlay = Overlay::new();
    let supers = overlay.supernodes(honest);
    listed(&overlay.world, &overlay.at, honest);
    let doors = supers.iter().map(|s| s.addr.parse().expect("an address"));
    let doors: Vec<SocketAddr> = doors.collect();
    let liar = FalseSupernode::start(&overlay.at, "liar", &doors);
    listed(&overlay.world, &overlay.at, honest + 1);
    (overlay, supers, liar)
}

fn chat(overlay: &Overlay, own: &str, more: &[&str]) -> Running {
    let mut args = vec!["chat", "--as", own, "--login", &overlay.at];
    args.extend(["--state-dir", own, "--listen", "127.0.0.1:0", "--stay"]);
    args.extend(more);
    overlay.world.start_listening(&args)
}

/// Waits until a letter was dropped for this reason, if none was yet.
#[track_caller]
fn dropped(run: &mut Running, why: &str) {
    let is = |v: &Value| v["event"] == "unreadable" && v["why"] == why;
    if !run.seen.iter().any(is) {
        run.wait_for(why, is);
    }
}

/// Writes so many texts to bob, and waits until he has told them.
#[track_caller]
fn tell(from: &Online, to: &mut Running, what: &str, count: usize) {
    let wanted: Vec<String> = (0..count).map(|n| format!("{what} {n}")).collect();
    for text in &wanted {
        let written = from.people.write("bob", text).expect("it runs");
        written.expect("taken");
    }
    assert_eq!(texts(to, count), wanted);
}

#[test]
fn letters_through_a_false_supernode_come_once_and_unchanged_and_it_is_replaced() {
    let (overlay, _supers, liar) = overlay(2);
    let at: SocketAddr = overlay.at.parse().expect("an address");
    let mut bob = chat(&overlay, "bob", &["alice"]);
    at_home(&mut bob);
    // She stands nowhere on the overlay, so that all her letters go by boxes.
    let mut alice = Person::claim(&overlay.world, &overlay.at, "alice", 1).online();
    alice.at_home();
    // There is another that may take its place.
    let _third = overlay.node("super2", &["--supernode", "--keep-role"]);

    liar.lie(Lie::Twists);
    tell(&alice, &mut bob, "twisted", 3);
    dropped(&mut bob, "not a letter to us");

    // A letter of its own in alice's name, with her certificate, to the key in bob's record.
    let server = server_of(&overlay, at);
    let names = ["alice".to_owned(), "bob".to_owned()];
    let (found, _) = look_up(at, server, &names, LONG);
    let [Some(of_alice), Some(of_bob)] = &found[..] else {
        panic!("{found:?}");
    };
    let body = Body::Text {
        stream: [9; 8],
        seq: 0,
        first: 0,
        unix: of_bob.seq,
        text: "send me all your herons".into(),
    };
    let mut plain = Vec::new();
    wire::encode(&body, &mut plain);
    let to = To {
        key: of_bob.certificate.key,
        prekey: of_bob.prekey,
    };
    let mallory = SigningKey::from_bytes(&[66; 32]);
    let mut secrets = Secrets::new([5; 32]);
    let (certificate, plain) = (&of_alice.certificate, &plain[wire::HEADER..]);
    let sealed = seal(&mallory, certificate, &to, plain, &mut secrets).expect("it fits");
    liar.swap(Envelope {
        to: to.key,
        keep: 1000,
        sealed,
    });
    tell(&alice, &mut bob, "swapped", 3);
    dropped(&mut bob, "not by the sender it names");

    // All of it again, also to a program that has just begun.
    liar.lie(Lie::Replays);
    tell(&alice, &mut bob, "replayed", 3);
    alice.wait_for("receipt", |event| match event {
        PeopleEvent::Chat(Event::Delivered(_, 8)) => Some(()),
        _ => None,
    });
    bob.kill();
    let mut bob = chat(&overlay, "bob", &["alice"]);
    at_home(&mut bob);
    tell(&alice, &mut bob, "after the kill", 1);
    let told = bob.seen.iter().filter(|v| v["event"] == "text");
    assert_eq!(told.count(), 1, "once: {:#?}", bob.seen);

    // Who drops what the two others bring is left for one that does not.
    liar.lie(Lie::Drops);
    tell(&alice, &mut bob, "dropped", 10);
    let place = liar.addr.to_string();
    bob.wait_for("the false one left", |v| {
        v["event"] == "home_left" && v["addr"] == *place
    });
    bob.wait_for("another home", |v| {
        let homes = v["homes"].as_array().cloned().unwrap_or_default();
        v["event"] == "homes" && homes.len() == 3 && !homes.contains(&place.clone().into())
    });
    assert!(liar.lies() > 12, "{}", liar.lies());
}

/// The login server's key.
fn server_of(overlay: &Overlay, at: SocketAddr) -> Key {
    let key = SigningKey::from_bytes(&[99; 32]);
    let asked = shoal_node::supernode::claim(at, "whoever", &key).expect("granted");
    assert_eq!(overlay.at, at.to_string());
    asked.by
}

/// Puts a value into the ring though it does not hold: by a guest that judges nothing.
fn put_anyway(
    server: Key,
    doors: &[SocketAddr],
    record: &Record<SocketAddr>,
) -> Result<Outcome, Failure> {
    let lax = Judge::new(|now, _| Some(now + Duration::from_secs(3600)));
    let settings = Settings {
        ring: format!("shoal names {}", to_hex(&server)),
        guest: true,
        judge: Some(lax),
        ..Settings::default()
    };
    let key = SigningKey::from_bytes(&[67; 32]);
    let mut guest = Endpoint::new(key, settings, Rng::from_seed(record.seq));
    let item = Item::Certified(Box::new(Certified {
        authority: server,
        name: record.name().into_bytes(),
        seq: record.rank(),
        value: record.to_bytes(),
    }));
    let put = Request::Put {
        item,
        cas: None,
        keep: false,
    };
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let wait = Duration::from_millis(20);
    socket.set_read_timeout(Some(wait)).expect("not zero");
    let begun = Instant::now();
    let now = || Time::from_secs(1000) + begun.elapsed();
    let mut out = Vec::new();
    guest.join(now(), doors, &mut out);
    guest.request(now(), put, &mut out);
    let mut buf = [0; 2048];
    loop {
        for output in out.drain(..) {
            match output {
                Output::Send { to, bytes } => {
                    socket.send_to(&bytes, to).expect("sent");
                }
                Output::Answer {
                    answer: Answer::Done(done),
                    ..
                } => return done,
                Output::Answer { .. } => {}
            }
        }
        if let Ok((len, from)) = socket.recv_from(&mut buf) {
            guest.on_datagram(now(), from, &buf[..len], &mut out);
        }
        if guest.deadline().is_some_and(|at| at <= now()) {
            guest.on_tick(now(), &mut out);
        }
        assert!(begun.elapsed() < LONG, "no end of a put");
    }
}

/// Puts a record that only the liar takes. On a busy machine the ring may hold it for silent for a moment, and then all
/// that are asked refuse.
fn kept_by_the_liar(server: Key, doors: &[SocketAddr], record: &Record<SocketAddr>) -> Outcome {
    let begun = Instant::now();
    loop {
        match put_anyway(server, doors, record) {
            Ok(stored) => return stored,
            Err(why) => assert!(begun.elapsed() < LONG, "the liar keeps it: {why}"),
        }
    }
}

#[test]
fn records_that_are_forged_expired_or_replayed_are_refused_by_all_but_the_liar() {
    let (overlay, supers, liar) = overlay(3);
    let claim = |name: &str, n| Person::claim(&overlay.world, &overlay.at, name, n);
    let (bob, carol, dave) = (claim("bob", 1), claim("carol", 2), claim("dave", 3));
    let (at, server) = (bob.at, bob.server);
    let doors = supers.iter().map(|s| s.addr.parse().expect("an address"));
    let doors: Vec<SocketAddr> = doors.collect();
    let of_bob = || {
        let (mut found, _) = look_up(at, server, &["bob".to_owned()], LONG);
        found.pop().flatten().expect("bob's record")
    };
    let mut online = bob.online();
    online.at_home();
    // Of four nodes each keeps all records, the liar too: it stays with what it has.
    let begun = Instant::now();
    while liar.records() == 0 {
        assert!(begun.elapsed() < LONG, "the ring gives the liar nothing");
        // It tells nothing: only its count does.
        std::thread::sleep(Duration::from_millis(50));
    }
    let old = of_bob();
    liar.freeze(old.rank());
    // Records of one second have one number.
    let mut new = old.clone();
    while new.rank() <= old.rank() {
        drop(online);
        online = bob.online();
        online.at_home();
        new = of_bob();
        assert!(begun.elapsed() < LONG, "no newer record");
    }

    // Replayed: honest nodes have a newer one.
    let replayed = put_anyway(server, &doors, &old);
    assert_eq!(replayed, Err(Failure::OlderThan(new.rank())));
    // Forged: bob's certificate, by another key; and a certificate by who is no login server.
    let mallory = SigningKey::from_bytes(&[66; 32]);
    let own = (66, SigningKey::from_bytes(&[68; 32]));
    let second = Certificate::issue(
        &own.1,
        ("bob", mallory.verifying_key().to_bytes()),
        (own.0, 0),
        new.expires,
    );
    for certificate in [bob.certificate.clone(), second] {
        let homes = vec![new.homes[0]];
        let forged = Record::new(&mallory, certificate, new.seq + 9, homes, new.prekey);
        liar.believe(forged.rank());
        let stored = kept_by_the_liar(server, &doors, &forged);
        assert_eq!(stored.stored, 1, "by the liar alone");
        assert_eq!(of_bob(), new);
    }
    // Expired: carol's own, of last month. And dave's, which another name has.
    let past = new.seq - 31 * 86_400;
    let expired = Record::new(
        &carol.key,
        carol.certificate.clone(),
        past,
        vec![],
        new.prekey,
    );
    let stored = kept_by_the_liar(server, &doors, &expired);
    assert_eq!(stored.stored, 1, "by the liar alone");
    let (found, _) = look_up(at, server, &["carol".to_owned(), "dave".to_owned()], LONG);
    assert_eq!(found, [None, None], "{}", dave.name);

    // `shoal name show` from several doors: bob's newest, and no record of carol, whose name the log knows.
    let show = |name: &str, code| {
        let trust = to_hex(&server);
        let args = ["name", "show", name, "--login", &overlay.at, "--json"];
        let more = ["--trust", &trust, "--listen", "127.0.0.1:0"];
        let more = [&more[..], &["--timeout", "60s", "--state-dir", "asks"]].concat();
        overlay.world.run(&[&args[..], &more].concat()).expect(code)
    };
    for _ in 0..4 {
        let shown = show("bob", 0).json().pop().expect("a record");
        let key = to_hex(&bob.key.verifying_key().to_bytes());
        assert_eq!(
            (&shown["seq"], &shown["key"]),
            (&new.seq.into(), &key.into())
        );
    }
    let shown = show("carol", 0).json().pop().expect("an owner");
    let key = to_hex(&carol.key.verifying_key().to_bytes());
    assert_eq!(
        (&shown["event"], &shown["key"]),
        (&"owner".into(), &key.into())
    );
}
