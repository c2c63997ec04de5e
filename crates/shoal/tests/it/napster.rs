//! `shoal serve napster`: raw clients of the protocol, registered nicks that outlive the hub,
//! linked hubs.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::process::Signal;

use crate::process::{LONG, Running, World};

/// A connection that speaks plain frames.
struct Raw(TcpStream);

impl Raw {
    fn connect(addr: &str) -> Self {
        let stream = TcpStream::connect(addr).expect("the hub listens");
        stream.set_read_timeout(Some(LONG)).expect("set");
        Self(stream)
    }

    fn login(addr: &str, nick: &str) -> Self {
        let mut raw = Self::connect(addr);
        raw.say(2, &format!("{nick} pw 6699 \"raw\" 9"));
        raw.wait(3);
        raw
    }

    fn say(&mut self, kind: u16, data: &str) {
        let mut bytes = (data.len() as u16).to_le_bytes().to_vec();
        bytes.extend(kind.to_le_bytes());
        bytes.extend(data.as_bytes());
        self.0.write_all(&bytes).expect("sent");
    }

    /// The data of the next message of this kind.
    fn wait(&mut self, kind: u16) -> String {
        loop {
            let mut head = [0; 4];
            self.0.read_exact(&mut head).expect("a message");
            let mut data = vec![0; usize::from(u16::from_le_bytes([head[0], head[1]]))];
            self.0.read_exact(&mut data).expect("its data");
            if u16::from_le_bytes([head[2], head[3]]) == kind {
                return String::from_utf8(data).expect("text");
            }
        }
    }
}

fn hub(world: &World, more: &[&str]) -> (Running, String) {
    let mut args = vec!["serve", "napster", "--stats-interval", "1"];
    if !more.contains(&"--listen") {
        args.extend(["--listen", "127.0.0.1:0"]);
    }
    args.extend(more);
    let mut running = world.start(&args);
    let addr = running.addr();
    (running, addr)
}

#[test]
fn a_hub_serves_and_tells_when_it_ends() {
    let world = World::new();
    fs::write(world.path("motd.txt"), "ahoy\nsailor").expect("written");
    let (mut hub, addr) = hub(&world, &["--motd", "motd.txt"]);
    let mut alice = Raw::connect(&addr);
    alice.say(2, "alice pw 6699 \"raw\" 9");
    assert_eq!(alice.wait(621), "ahoy");
    assert_eq!(alice.wait(621), "sailor");
    alice.say(100, "\"C:\\a song.mp3\" 0 123 128 44100 7");
    // The answer to a ping shows that the share before it was taken.
    alice.say(750, "");
    alice.wait(750);
    let mut bob = Raw::login(&addr, "bob");
    bob.say(200, "FILENAME CONTAINS \"song\"");
    let zeros = "0".repeat(32);
    let hit = format!("\"C:\\a song.mp3\" {zeros} 123 128 44100 7 alice 16777343 9");
    assert_eq!(bob.wait(201), hit);
    let stats = hub.wait_for("statistics", |v| {
        v["event"] == "napster_stats" && v["searches"] == 1
    });
    assert_eq!(
        (&stats["users"], &stats["files"]),
        (&2.into(), &1.into()),
        "{stats}"
    );
    hub.signal(Signal::TERM);
    assert_eq!(bob.wait(404), "the hub is going down");
    assert_eq!(hub.end().0.code(), Some(130));
}

#[test]
fn registered_nicks_and_bans_outlive_the_hub() {
    let world = World::new();
    fs::write(world.path("pw"), "root password\n").expect("written");
    let keep = [
        "--dir",
        "state",
        "--admin",
        "root",
        "--admin-password-file",
        "pw",
    ];
    let (mut running, addr) = hub(&world, &keep);
    let mut alice = Raw::connect(&addr);
    alice.say(6, "alice secret 6699 \"raw\" 9 a@example.org");
    assert_eq!(alice.wait(3), "a@example.org");
    let mut root = Raw::connect(&addr);
    root.say(2, "root \"root password\" 0 \"raw\" 9");
    root.wait(3);
    root.say(612, "eve \"knows why\"");
    root.say(615, "");
    root.wait(615);
    // What is kept is written within milliseconds, by a thread of its own.
    let file = world.path("state/hub");
    let start = std::time::Instant::now();
    while !fs::read_to_string(&file)
        .expect("a file")
        .contains("ban \"eve\"")
    {
        assert!(start.elapsed() < LONG);
        std::thread::yield_now();
    }
    running.kill();
    let (_running, addr) = hub(&world, &keep);
    let mut thief = Raw::connect(&addr);
    thief.say(2, "alice guess 6699 \"raw\" 9");
    assert_eq!(thief.wait(0), "the password is wrong");
    let mut alice = Raw::connect(&addr);
    alice.say(2, "alice secret 6699 \"raw\" 9");
    assert_eq!(alice.wait(3), "a@example.org");
    let mut eve = Raw::connect(&addr);
    eve.say(2, "eve x 6699 \"raw\" 9");
    assert_eq!(eve.wait(0), "you are banned: knows why");
}

#[test]
fn linked_hubs_find_each_others_files_also_after_one_was_away() {
    let world = World::new();
    fs::write(world.path("secret"), "between us\n").expect("written");
    let secret = ["--link-secret-file", "secret"];
    let (mut first, one) = hub(&world, &[&secret[..], &["--name", "one"]].concat());
    let linked = [&secret[..], &["--name", "two", "--link", &one]].concat();
    let (mut second, two) = hub(&world, &linked);
    let is_linked = |v: &serde_json::Value| v["event"] == "napster_stats" && v["links"] == 1;
    second.wait_for("a link", is_linked);
    let mut bob = Raw::login(&two, "bob");
    for _ in 0..2 {
        let mut alice = Raw::login(&one, "alice");
        alice.say(100, "\"C:\\a song.mp3\" 0 123 128 44100 7");
        alice.say(750, "");
        alice.wait(750);
        bob.say(200, "FILENAME CONTAINS \"song\"");
        assert!(bob.wait(201).ends_with(" alice 16777343 9"));
        bob.say(205, "alice over the link");
        assert_eq!(alice.wait(205), "bob over the link");
        first.kill();
        second.wait_for("the loss of the link", |v| {
            v["event"] == "napster_stats" && v["links"] == 0
        });
        let again = [&secret[..], &["--name", "one", "--listen", &one]].concat();
        first = hub(&world, &again).0;
        second.wait_for("a new link", is_linked);
    }
}

#[test]
fn a_hub_that_cannot_start_says_why() {
    let world = World::new();
    fs::create_dir(world.path("state")).expect("made");
    fs::write(world.path("state/hub"), "nonsense\n").expect("written");
    let start = |more: &[&str]| {
        let mut args = vec!["serve", "napster", "--listen", "127.0.0.1:0"];
        args.extend(more);
        world.run(&args)
    };
    start(&["--dir", "state"])
        .expect(1)
        .says("line 1 is not understood");
    start(&["--motd", "gone"]).expect(3).says("gone");
    start(&["--admin", "root"])
        .expect(2)
        .says("--admin-password-file");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("bound").to_string();
    start(&["--listen", &addr]).expect(2);
    world
        .run(&["serve", "napster", "--listen", &addr])
        .expect(1)
        .says("another program listens there");
}

/// Shares a folder under a nick, and waits until the hub has its list.
fn sharer(world: &World, hub: &str, nick: &str, folder: &str, more: &[&str]) -> Running {
    let mut args = vec!["napster", "share", folder, "--hub", hub, "--nick", nick];
    args.extend(["--listen", "127.0.0.1:0"]);
    args.extend(more);
    let mut running = world.start(&args);
    running.wait_for("the hub", |v| v["event"] == "hub" && v["connected"] == true);
    running
}

/// Fetches by words; the last event.
fn fetched(world: &World, hub: &str, words: &str, more: &[&str]) -> serde_json::Value {
    let mut args = vec![
        "napster", "fetch", words, "--hub", hub, "--json", "--dir", "out",
    ];
    args.extend(more);
    let ran = world.run(&args).expect(0);
    ran.json().pop().expect("an event")
}

#[test]
fn files_are_found_and_fetched_directly_and_through_firewalls_also_after_the_hub_was_away() {
    let world = World::new();
    let (mut running, addr) = hub(&world, &[]);
    world.file("alice/sea/first song.mp3", 300_000, 1);
    world.file("bob/second song.ogg", 1_000_000, 2);
    let mut alice = sharer(&world, &addr, "alice", "alice", &[]);
    let bob = sharer(&world, &addr, "bob", "bob", &["--firewalled"]);
    let same = |event: &serde_json::Value, of: &str| {
        let path = world.path(event["path"].as_str().expect("a path"));
        let got = fs::read(path).expect("fetched");
        assert_eq!(got, fs::read(world.path(of)).expect("shared"));
    };
    let found = world
        .run(&["find", "song", "--hub", &addr, "--json"])
        .expect(0)
        .json();
    let found: Vec<_> = found
        .into_iter()
        .filter(|v| v["event"] == "found")
        .collect();
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found.iter().all(|h| h["ping_ms"].is_number()), "{found:#?}");
    let event = fetched(&world, &addr, "first", &[]);
    same(&event, "alice/sea/first song.mp3");
    let up = alice.event("uploaded");
    assert_eq!(
        (&up["bytes"], &up["whole"]),
        (&300_000.into(), &true.into())
    );
    // A part that is there already is not fetched again, but for its end, which must fit.
    let whole = fs::read(world.path("bob/second song.ogg")).expect("shared");
    fs::write(world.path("out/second song.ogg.part"), &whole[..600_000]).expect("written");
    let event = fetched(&world, &addr, "second", &["--listen", "127.0.0.1:0"]);
    same(&event, "bob/second song.ogg");
    running.kill();
    let why = alice.wait_for("the loss", |v| {
        v["event"] == "hub" && v["connected"] == false
    });
    assert!(why["why"].is_string(), "{why}");
    let (_running, _) = hub(&world, &["--listen", &addr]);
    alice.wait_for("the hub", |v| v["event"] == "hub" && v["connected"] == true);
    let event = fetched(&world, &addr, "first", &[]);
    same(&event, "alice/sea/first song.mp3");
    assert!(
        event["path"]
            .as_str()
            .expect("a path")
            .contains("first song"),
        "{event}"
    );
    drop(bob);
}

#[test]
fn the_next_sharer_is_taken_if_one_does_not_deliver() {
    let world = World::new();
    let (_hub, addr) = hub(&world, &[]);
    world.file("alice/song.mp3", 200_000, 1);
    // Says that it has the same, and accepts, but nobody listens at its port.
    let mut liar = Raw::connect(&addr);
    liar.say(2, "liar pw 9 \"raw\" 10");
    liar.wait(3);
    liar.say(100, "\"C:\\song.mp3\" 0 200000 320 44100 7");
    let _alice = sharer(&world, &addr, "alice", "alice", &[]);
    let fetch = world.start(&[
        "napster",
        "fetch",
        "song",
        "--hub",
        &addr,
        "--no-ping",
        "--dir",
        "out",
    ]);
    let asked = liar.wait(607);
    let fetcher = asked.split(' ').next().expect("a nick");
    liar.say(608, &format!("{fetcher} \"C:\\song.mp3\""));
    assert!(
        liar.wait(626).contains(fetcher),
        "told that nobody can connect to it"
    );
    let (status, seen, stderr) = fetch.end();
    assert_eq!(status.code(), Some(0), "{seen:#?} {stderr}");
    assert_eq!(seen.last().expect("events")["nick"], "alice");
}

#[test]
fn failures_of_a_client_are_told() {
    let world = World::new();
    let (_hub, addr) = hub(&world, &["--registered-only"]);
    let find = |hub: &str| world.run(&["find", "x", "--hub", hub]);
    find(&addr).expect(5).says("only registered nicks");
    find("127.0.0.1:1")
        .expect(4)
        .says("no service from the hub");
    find("nonsense").expect(2).says("HOST:PORT");
    let (_hub, addr) = hub(&world, &[]);
    find(&addr).expect(3).says("nobody shares");
}

/// The files that a browse of alice lists.
fn browsed(world: &World, hub: &str, more: &[&str]) -> Vec<String> {
    let mut args = vec!["napster", "browse", "alice", "--hub", hub, "--json"];
    args.extend(more);
    let seen = world.run(&args).expect(0).json();
    let hits = seen.iter().filter(|v| v["event"] == "hit");
    let mut files: Vec<String> = hits
        .map(|h| h["file"].as_str().expect("a path").to_owned())
        .collect();
    files.sort();
    files
}

#[test]
fn users_are_looked_up_and_browsed_by_the_hub_directly_and_through_firewalls() {
    let world = World::new();
    let (_hub, addr) = hub(&world, &[]);
    world.file("alice/sea/a.mp3", 3000, 1);
    world.file("alice/b.ogg", 2000, 2);
    let all = [r"alice\b.ogg", r"alice\sea\a.mp3"];
    let brought = ["--direct", "--listen", "127.0.0.1:0"];
    for (more, firewalled) in [(&[][..], false), (&["--firewalled"], true)] {
        let _alice = sharer(&world, &addr, "alice", "alice", more);
        assert_eq!(browsed(&world, &addr, &[]), all);
        assert_eq!(browsed(&world, &addr, &brought), all);
        if firewalled {
            let args = ["napster", "browse", "alice", "--hub", &addr, "--direct"];
            world
                .run(&args)
                .expect(4)
                .says("neither of you can be connected to");
        } else {
            assert_eq!(browsed(&world, &addr, &["--direct"]), all);
        }
        let who = world
            .run(&["napster", "whois", "alice", "--hub", &addr, "--json"])
            .expect(0)
            .json();
        assert_eq!(who[0]["shared"], 2, "{who:?}");
    }
    let nobody = |command: &str| world.run(&["napster", command, "eve", "--hub", &addr]);
    nobody("whois").expect(3).says("eve");
    nobody("browse").expect(3).says("eve shares nothing");
    for more in [&[][..], &["--listen", "127.0.0.1:0"]] {
        let direct = ["napster", "browse", "eve", "--hub", &addr, "--direct"];
        world
            .run(&[&direct[..], more].concat())
            .expect(3)
            .says("eve is not here");
    }
}

#[test]
fn people_talk_in_rooms_and_in_private() {
    let world = World::new();
    let (_hub, addr) = hub(&world, &[]);
    let mut bob = Raw::login(&addr, "bob");
    bob.say(400, "#sea");
    bob.wait(409);
    let chat = ["napster", "chat", "#sea", "--hub", &addr, "--nick", "alice"];
    let said = b"ahoy \"all\"\n/me waves\n/topic shanties\n/msg bob between us\n/quit\n";
    let ran = world
        .run_with(&[&chat[..], &["--json"]].concat(), said)
        .expect(0);
    assert_eq!(bob.wait(403), "#sea alice ahoy \"all\"");
    assert_eq!(bob.wait(824), "#sea alice \"waves\"");
    assert_eq!(bob.wait(205), "alice between us");
    let seen = ran.json();
    let saw = |what: &str, nick: &str| {
        let is = |v: &&serde_json::Value| v["what"] == what && v["nick"] == nick;
        assert!(seen.iter().any(|v| is(&v)), "{what} {nick}: {seen:#?}");
    };
    saw("joined", "alice");
    saw("member", "bob");
    let list = ["napster", "rooms", "--hub", &addr, "--json"];
    let rooms = world.run(&list).expect(0).json();
    assert_eq!(rooms[0]["room"], "#sea", "{rooms:?}");
}
