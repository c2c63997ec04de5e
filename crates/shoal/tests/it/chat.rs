//! Chat with real processes: texts for who is away, at three supernodes, one of which is listened to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{LONG, Running, World};
use crate::supernode;

/// What offline texts may take from the start of the recipient's program on.
const RETURN: Duration = Duration::from_secs(5);

/// Everything that passes between a supernode and all others.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

impl Capture {
    fn note(&self, bytes: &[u8]) {
        self.0.lock().expect("nobody panicked").extend(bytes);
    }

    fn holds(&self, text: &str) -> bool {
        let seen = self.0.lock().expect("nobody panicked");
        seen.windows(text.len()).any(|w| w == text.as_bytes())
    }
}

/// Copies one way until the end.
fn copy(mut from: TcpStream, mut to: TcpStream, capture: &Capture) {
    let mut buf = [0; 16 << 10];
    while let Ok(n) = from.read(&mut buf) {
        capture.note(&buf[..n]);
        if n == 0 || to.write_all(&buf[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// A door in front of a supernode. It ends with the test.
struct Door {
    addr: SocketAddr,
    tcp: TcpListener,
    capture: Capture,
}

impl Door {
    fn new() -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = tcp.local_addr().expect("bound");
        let capture = Capture::default();
        Self { addr, tcp, capture }
    }

    /// Lets through to `to`; what passes is noted.
    fn open(self, to: SocketAddr) -> Capture {
        let (tcp, capture) = (self.tcp, self.capture.clone());
        std::thread::spawn(move || {
            for from in tcp.incoming().map_while(Result::ok) {
                let Ok(there) = TcpStream::connect(to) else {
                    continue;
                };
                for (a, b) in [(&from, &there), (&there, &from)] {
                    let ends = (
                        a.try_clone().expect("cloned"),
                        b.try_clone().expect("cloned"),
                    );
                    let capture = capture.clone();
                    std::thread::spawn(move || copy(ends.0, ends.1, &capture));
                }
            }
        });
        self.capture
    }
}

struct Overlay {
    world: World,
    at: String,
    _login: Running,
    supers: Vec<Running>,
    capture: Capture,
}

impl Overlay {
    /// A login server and three supernodes, of which the last has a door for TCP: what comes by UDP
    /// is the ring's, which has no letters, and finds it by the others.
    fn new() -> Self {
        let supernode::Overlay { world, login, at } = supernode::Overlay::new();
        let mut supers = Vec::new();
        let start = |n: usize, more: &[&str]| {
            let (name, state) = (format!("super{n}"), format!("state-{n}"));
            let mut args = vec!["supernode", "node", "--login", &at, "--name", &name];
            args.extend(["--state-dir", &state, "--supernode", "--keep-role"]);
            args.extend(["--stats-interval", "1"]);
            args.extend(more);
            let mut run = world.start(&args);
            run.addr();
            run
        };
        for n in 0..2 {
            let relay = ["--listen", "127.0.0.1:0", "--relay", "127.0.0.1:0"];
            supers.push(start(n, &relay));
            listed(&world, &at, n + 1);
        }
        let (door, inner) = (Door::new(), Door::new());
        let (external, listen) = (door.addr.to_string(), inner.addr);
        drop(inner);
        let capture = door.open(listen);
        let listen = listen.to_string();
        supers.push(start(2, &["--listen", &listen, "--external", &external]));
        listed(&world, &at, 3);
        Self {
            world,
            at,
            _login: login,
            supers,
            capture,
        }
    }

    fn chat(&self, own: &str, more: &[&str]) -> Running {
        let mut args = vec!["chat", "--as", own, "--login", &self.at, "--state-dir", own];
        args.extend(["--listen", "127.0.0.1:0"]);
        args.extend(more);
        self.world.start_listening(&args)
    }
}

/// Waits until so many supernodes are on the list.
pub(crate) fn listed(world: &World, at: &str, wanted: usize) {
    let begun = Instant::now();
    loop {
        let ran = world.run(&["supernode", "list", "--list", at, "--json"]);
        if ran.json().len() >= wanted {
            return;
        }
        assert!(begun.elapsed() < LONG, "{ran:?}");
        // Each try is a process: a pause between them is left to the system.
    }
}

/// Waits until three boxes are open, and the ring knows of them.
pub(crate) fn at_home(run: &mut Running) {
    run.wait_for("three homes", |v| {
        v["event"] == "homes" && v["homes"].as_array().is_some_and(|h| h.len() == 3)
    });
    run.event("published");
}

/// The next so many texts.
pub(crate) fn texts(run: &mut Running, count: usize) -> Vec<String> {
    let text = |v: Value| v["text"].as_str().expect("a text").to_owned();
    (0..count).map(|_| text(run.event("text"))).collect()
}

#[test]
#[allow(
    clippy::print_stderr,
    reason = "how long it takes is read by whoever runs it"
)]
fn texts_wait_for_who_is_away_and_come_once_in_order_and_no_supernode_reads_them() {
    let overlay = Overlay::new();
    let mut bob = overlay.chat("bob", &["--stay"]);
    at_home(&mut bob);
    bob.kill();
    let mut alice = overlay.chat("alice", &["bob"]);
    let wanted: Vec<String> = (0..20)
        .map(|n| format!("the heron flies at dawn, {n}"))
        .collect();
    wanted.iter().for_each(|text| alice.say(text));
    alice.wait_for("all texts in all boxes", |v| {
        v["event"] == "stored" && v["seq"] == 19 && v["boxes"] == 3
    });
    alice.kill();
    let begun = Instant::now();
    let mut bob = overlay.chat("bob", &["alice", "--stay"]);
    let came = texts(&mut bob, 20);
    let took = begun.elapsed();
    assert_eq!(came, wanted);
    assert!(took < RETURN, "{took:?}");
    eprintln!("20 texts {took:.2?} after the start of the recipient's program");

    // Once: killed and started again it tells none of them, and what is new is told.
    bob.kill();
    let mut bob = overlay.chat("bob", &["alice", "--stay"]);
    let mut alice = overlay.chat("alice", &["bob", "--stay"]);
    alice.wait_for("a receipt", |v| v["event"] == "delivered" && v["seq"] == 19);
    alice.say("magnet:?xt=urn:btih:c9e15763f722f23e98a29decdfae341b98d53056 the plans");
    let event = bob.event("text");
    let link = "magnet:?xt=urn:btih:c9e15763f722f23e98a29decdfae341b98d53056";
    assert_eq!(
        (&event["seq"], &event["links"][0]),
        (&20.into(), &link.into())
    );
    bob.say("understood: herons");
    assert_eq!(texts(&mut alice, 1), ["understood: herons"]);
    bob.wait_for("a receipt", |v| v["event"] == "delivered");

    assert!(overlay.capture.holds("BOX1"), "letters passed there");
    for word in ["heron", "understood", "magnet"] {
        assert!(!overlay.capture.holds(word), "{word} is read on the way");
    }
}

#[test]
fn the_index_of_names_outlives_supernodes_and_presence_is_for_buddies() {
    let mut overlay = Overlay::new();
    let mut bob = overlay.chat("bob", &["--stay"]);
    at_home(&mut bob);
    let show = |overlay: &Overlay, code| {
        let args = [
            "name",
            "show",
            "BOB",
            "--login",
            &overlay.at,
            "--state-dir",
            "bob",
        ];
        let more = ["--listen", "127.0.0.1:0", "--timeout", "60s", "--json"];
        overlay.world.run(&[&args[..], &more].concat()).expect(code)
    };
    let record = show(&overlay, 0).json().pop().expect("a record");
    assert_eq!(
        (&record["name"], &record["in_log"]),
        (&"bob".into(), &true.into())
    );
    assert_eq!(record["homes"].as_array().map(Vec::len), Some(3));
    let mut alice = overlay.chat("alice", &["bob", "--stay"]);
    at_home(&mut alice);
    alice.say("/buddy bob");
    bob.wait_for("the question of one who is no buddy", |v| {
        v["event"] == "asks" && v["name"] == "alice"
    });
    bob.say("/buddy alice");
    let online = |who: &'static str| {
        move |v: &Value| v["event"] == "presence" && v["name"] == who && v["status"] == "online"
    };
    bob.wait_for("alice's presence", online("alice"));
    bob.say("/away");
    alice.wait_for("bob's absence", |v| {
        v["event"] == "presence" && v["name"] == "bob" && v["status"] == "away"
    });
    // A third of the supernodes is killed.
    overlay.supers.remove(0).kill();
    show(&overlay, 0);
    alice.say("are you there?");
    assert_eq!(texts(&mut bob, 1), ["are you there?"]);
    overlay
        .world
        .run(&[
            "name",
            "show",
            "nobody",
            "--login",
            &overlay.at,
            "--state-dir",
            "bob",
            "--listen",
            "127.0.0.1:0",
            "--timeout",
            "60s",
        ])
        .expect(3);
}

#[test]
fn while_both_are_there_letters_go_straight_and_boxes_get_what_a_killed_end_missed() {
    let overlay = Overlay::new();
    let mut bob = overlay.chat("bob", &["alice", "--stay"]);
    at_home(&mut bob);
    let mut alice = overlay.chat("alice", &["bob", "--stay"]);
    at_home(&mut alice);
    // The first text makes the connection, or goes into boxes if that takes too long.
    let straight = |v: &Value| v["event"] == "straight" && v["up"] == true;
    alice.say("first");
    let mut came = texts(&mut bob, 1);
    if !alice.seen.iter().any(straight) {
        alice.wait_for("a connection", straight);
    }
    bob.say("seen");
    assert_eq!(texts(&mut alice, 1), ["seen"]);
    bob.wait_for("a receipt", |v| v["event"] == "delivered");
    for n in 0..20 {
        alice.say(&format!("straight {n}"));
        bob.say(&format!("back {n}"));
    }
    came.extend(texts(&mut bob, 20));
    let back: Vec<String> = (0..20).map(|n| format!("back {n}")).collect();
    assert_eq!(texts(&mut alice, 20), back);
    // The last receipt may come before the other end's last text.
    let receipt = |v: &Value| v["event"] == "delivered" && v["seq"] == 20;
    if !alice.seen.iter().any(receipt) {
        alice.wait_for("a receipt", receipt);
    }
    let stored = |v: &&Value| v["event"] == "stored" && v["seq"].as_u64() > Some(0);
    assert_eq!(
        alice.seen.iter().filter(stored).count(),
        0,
        "{:#?}",
        alice.seen
    );

    // Killed: what it missed lies in boxes, and comes once, after what came straight.
    bob.kill();
    for n in 0..5 {
        alice.say(&format!("missed {n}"));
    }
    alice.wait_for("all in boxes", |v| {
        v["event"] == "stored" && v["seq"] == 25 && v["boxes"] == 3
    });
    let mut bob = overlay.chat("bob", &["alice", "--stay"]);
    came.extend(texts(&mut bob, 5));
    alice.say("last");
    came.extend(texts(&mut bob, 1));
    let straight = (0..20).map(|n| format!("straight {n}"));
    let missed = (0..5).map(|n| format!("missed {n}"));
    let wanted: Vec<String> = std::iter::once("first".to_owned())
        .chain(straight)
        .chain(missed)
        .chain(std::iter::once("last".to_owned()))
        .collect();
    assert_eq!(came, wanted);
    assert!(!overlay.capture.holds("straight") && !overlay.capture.holds("missed"));
}

#[test]
fn letters_go_straight_to_a_phone_and_to_a_room_and_back() {
    let overlay = Overlay::new();
    for (name, what) in [
        ("bob", &["phone", "--page", "127.0.0.1:0"][..]),
        ("carol", &["answer", "--conference"]),
    ] {
        let mut args = what.to_vec();
        args.extend([
            "--chat",
            "--as",
            name,
            "--login",
            &overlay.at,
            "--state-dir",
            name,
        ]);
        args.extend(["--udp", "127.0.0.1:0"]);
        let mut there = overlay.world.start_listening(&args);
        at_home(&mut there);
        let mut alice = overlay.chat("alice", &[name, "--stay"]);
        at_home(&mut alice);
        // The first text makes the connection, or goes into boxes if that takes too long.
        let straight = |v: &Value| v["event"] == "straight" && v["up"] == true;
        alice.say("first");
        let mut came = texts(&mut there, 1);
        if !alice.seen.iter().any(straight) {
            alice.wait_for("a connection", straight);
        }
        let wanted: Vec<String> = (0..5).map(|n| format!("straight {n}")).collect();
        wanted.iter().for_each(|text| alice.say(text));
        came.extend(texts(&mut there, 5));
        assert_eq!(came[1..], wanted);
        let receipt = |v: &Value| v["event"] == "delivered" && v["seq"] == 5;
        if !alice.seen.iter().any(receipt) {
            alice.wait_for("a receipt", receipt);
        }
        let stored = |v: &Value| v["event"] == "stored" && v["seq"].as_u64() > Some(0);
        assert!(!alice.seen.iter().any(stored), "{name}: {:#?}", alice.seen);
        // One program takes calls and texts of a name, and writes: a second one says so.
        let twice = ["chat", "--as", name, "--login", &overlay.at, "--state-dir"];
        let ran = overlay.world.run(&[&twice[..], &[name]].concat()).expect(1);
        ran.says("--chat");
        there.say("nobody gets this");
        there.wait_for("a question", |v| v["event"] == "warning");
        there.say("/to alice");
        there.say("from here");
        assert_eq!(texts(&mut alice, 1), ["from here"]);
    }
}
