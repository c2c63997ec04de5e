//! Hubs and users in virtual time: what is said by whom, and what everybody hears.

mod world;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use shoal_base::Rng;

use super::*;
use world::World;

const FIRST: &str = "\"C:\\Music\\Shoal - First Song.mp3\" NOMD5COMPUTED 834000 128 44100 52";

#[test]
fn who_shares_is_found_browsed_and_downloaded_from() {
    let mut w = World::new(1);
    w.login("alice", 0);
    w.login("bob", 0);
    w.says("alice", 100, FIRST);
    w.says("alice", 870, "\"D:\\x\\\" \"Shoal Two.ogg\" 0123456789abcdef0123456789abcdef 99 64 44100 9 \"z.mp3\" 0 1 32 8000 1");
    w.says(
        "alice",
        10300,
        "\"C:\\doc\\shoal manual.pdf\" 1000 NOMD5 text/pdf",
    );
    assert_eq!(w.hears("alice"), [""; 0]);
    let first = "\"C:\\Music\\Shoal - First Song.mp3\" 00000000000000000000000000000000 834000 128 44100 52";
    // What TekNap sends.
    w.says(
        "bob",
        200,
        "FILENAME CONTAINS \"shoal\" MAX_RESULTS 10  BITRATE \"AT LEAST\" \"65\"",
    );
    assert_eq!(
        w.hears("bob"),
        [format!("201 {first} alice 16847916 9"), "202".into()]
    );
    for (filter, hits) in [
        ("", 3),
        ("TYPE audio", 2),
        ("TYPE \"pdf\"", 1),
        ("WMA-FILE", 0),
        ("SIZE \"AT BEST\" 1000", 2),
        ("FREQ \"EQUAL TO\" \"44100\"", 2),
        ("LINESPEED \"AT LEAST\" 10", 0),
        ("LINESPEED \"EQUAL TO\" 9 LOCAL_ONLY", 3),
        ("DURATION \"AT LEAST\" 10", 1),
        ("FILENAME EXCLUDES \"song\"", 2),
        ("MAX_RESULTS 1", 1),
        ("MAX_RESULTS 0", 0),
    ] {
        w.says("bob", 200, &format!("FILENAME CONTAINS \"shoal\" {filter}"));
        let heard = w.hears("bob");
        assert_eq!(heard.len(), hits + 1, "{filter}: {heard:?}");
        assert_eq!(heard[hits], "202");
    }
    // One does not find one's own.
    w.says("alice", 200, "FILENAME CONTAINS \"shoal\"");
    assert_eq!(w.hears("alice"), ["202"]);
    w.says("bob", 211, "alice");
    let heard = w.hears("bob");
    assert_eq!(heard.len(), 5, "{heard:?}");
    assert_eq!(heard[0], format!("212 alice {first}"));
    assert_eq!(heard[4], "213 alice 16847916");
    w.says("bob", 215, "0123456789ABCDEF0123456789abcdef 99");
    assert_eq!(
        w.hears("bob"),
        [
            "216 alice 16847916 6699 \"D:\\x\\Shoal Two.ogg\" 0123456789abcdef0123456789abcdef 99 9",
            "217"
        ]
    );
    w.says("bob", 203, "alice \"C:\\Music\\Shoal - First Song.mp3\"");
    assert_eq!(
        w.hears("alice"),
        ["607 bob \"C:\\Music\\Shoal - First Song.mp3\" 9"]
    );
    w.says("alice", 608, "bob \"C:\\Music\\Shoal - First Song.mp3\"");
    let ready = "alice 16847916 6699 \"C:\\Music\\Shoal - First Song.mp3\" 00000000000000000000000000000000 9";
    assert_eq!(w.hears("bob"), [format!("204 {ready}")]);
    // An answer that nobody asked for reaches nobody.
    w.says("alice", 608, "bob \"C:\\Music\\Shoal - First Song.mp3\"");
    assert_eq!(w.hears("bob"), [""; 0]);
    w.says("bob", 203, "alice \"C:\\Music\\Shoal - First Song.mp3\"");
    w.says("alice", 619, "bob \"C:\\Music\\Shoal - First Song.mp3\" 3");
    assert_eq!(
        w.hears("bob"),
        ["620 alice \"C:\\Music\\Shoal - First Song.mp3\" 834000 3"]
    );
    w.says("bob", 203, "alice \"nothing.mp3\"");
    assert_eq!(w.hears("bob"), ["206 alice \"nothing.mp3\""]);
    w.says("alice", 102, "\"C:\\Music\\Shoal - First Song.mp3\"");
    w.says("bob", 203, "alice \"C:\\Music\\Shoal - First Song.mp3\"");
    assert_eq!(
        w.hears("bob"),
        ["206 alice \"C:\\Music\\Shoal - First Song.mp3\""]
    );
    w.says("alice", 110, "");
    assert_eq!(w.hubs[0].stats().files, 0);
    w.says("alice", 100, FIRST);
    w.leaves("alice");
    assert_eq!(w.hubs[0].stats().files, 0);
    w.says("bob", 211, "alice");
    assert_eq!(w.hears("bob"), ["210 alice", "213 alice"]);
}

#[test]
fn a_sharer_behind_a_firewall_is_asked_to_connect() {
    let mut w = World::new(1);
    w.login("bob", 0);
    w.connect("wall", 0, [1, 2, 3, 4]);
    w.says("wall", 2, "wall pw 0 \"x\" 3");
    w.says("wall", 100, FIRST);
    w.hears("wall");
    let file = "\"C:\\Music\\Shoal - First Song.mp3\"";
    w.says("bob", 203, &format!("wall {file}"));
    w.says("wall", 608, &format!("bob {file}"));
    let zeros = "0".repeat(32);
    assert_eq!(
        w.hears("bob"),
        [format!("204 wall 67305985 0 {file} {zeros} 3")]
    );
    w.hears("wall");
    w.says("bob", 500, &format!("wall {file}"));
    assert_eq!(
        w.hears("wall"),
        [format!("501 bob 16847916 6699 {file} {zeros} 9")]
    );
    w.says("bob", 640, "wall");
    assert_eq!(w.hears("wall"), ["640 bob 16847916 6699"]);
    w.says("bob", 703, "0");
    w.says("bob", 203, &format!("wall {file}"));
    assert_eq!(w.hears("bob")[1], format!("206 wall {file}"));
    w.says("bob", 626, "wall");
    assert_eq!(w.hears("wall"), ["626 bob"]);
}

#[test]
fn direct_browsing_is_brokered_once() {
    let mut w = World::new(1);
    w.login("alice", 0);
    w.login("bob", 0);
    w.says("bob", 640, "alice");
    assert_eq!(w.hears("bob"), ["642 alice \"shares nothing\""]);
    w.says("alice", 100, FIRST);
    w.says("alice", 641, "bob");
    assert_eq!(w.hears("bob"), [""; 0]);
    w.says("bob", 640, "alice");
    assert_eq!(w.hears("alice"), ["640 bob"]);
    w.says("alice", 641, "bob");
    assert_eq!(w.hears("bob"), ["641 alice 16847916 6699"]);
}

#[test]
fn a_registered_nick_needs_its_password_and_its_ghost_gives_way() {
    let mut w = World::new(1);
    w.connect("a", 0, [1, 1, 1, 1]);
    for (nick, answer) in [("alice", "8"), ("1.2.3", "10"), ("a b", "10"), ("", "10")] {
        w.says("a", 7, nick);
        assert_eq!(w.hears("a"), [answer], "{nick}");
    }
    w.says("a", 6, "Alice secret 6699 \"x\" 9 a@example.org");
    assert_eq!(w.hears("a")[0], "3 a@example.org");
    w.connect("b", 0, [2, 1, 1, 1]);
    w.says("b", 7, "ALICE");
    assert_eq!(w.hears("b"), ["9"]);
    w.says("b", 11, "alice secret");
    assert_eq!(w.hears("b"), ["12"]);
    w.says("b", 2, "alice wrong 6699 \"x\" 9");
    assert_eq!(w.hears("b"), ["0 the password is wrong"]);
    assert!(w.is_closed("b"));
    assert_eq!(w.hears("a"), ["748 2.1.1.1"]);
    w.connect("c", 0, [3, 1, 1, 1]);
    w.says("c", 2, "alice secret 6699 \"x\" 9");
    assert_eq!(w.hears("c")[0], "3 a@example.org");
    assert!(w.is_closed("a"));
    w.says("c", 701, "new");
    w.says("c", 207, "bob");
    let kept = w.saved.clone();
    // Another run of the hub, with what was kept.
    let mut w = World::new(1);
    kept.into_iter().for_each(|r| {
        let mut line = Vec::new();
        r.encode(&mut line);
        w.hubs[0].restore(Record::decode(line.trim_ascii_end()).expect("reads"));
    });
    w.login("bob", 0);
    w.connect("a", 0, [1, 1, 1, 1]);
    w.says("a", 2, "alice new 6699 \"x\" 9");
    let heard = w.hears("a");
    assert_eq!(
        (heard[0].as_str(), heard[4].as_str()),
        ("3 a@example.org", "209 bob 9")
    );
    w.leaves("bob");
    assert_eq!(w.hears("a"), ["210 bob"]);
}

#[test]
fn an_unregistered_nick_is_its_users_while_here() {
    let mut w = World::new(1);
    w.login("bob", 0);
    w.connect("thief", 0, [9, 9, 9, 9]);
    w.says("thief", 2, "BOB other 1 \"x\" 1");
    assert_eq!(w.hears("thief"), ["0 that nick is in use"]);
    assert_eq!(w.hears("bob"), ["748 9.9.9.9"]);
    w.connect("again", 0, [9, 9, 9, 9]);
    w.says("again", 2, "bob pwbob 1 \"x\" 1");
    assert_eq!(w.hears("again")[0], "3 anon@server");
    assert!(w.is_closed("bob"));
}

#[test]
fn bad_logins_and_talk_before_login_are_refused() {
    for (kind, data, why) in [
        (
            2,
            "",
            "0 the login was not understood: the field nick is missing",
        ),
        (
            2,
            "bob pw 99999 \"x\" 1",
            "0 the login was not understood: the field port is not understood",
        ),
        (2, "bo\"b pw 1 \"x\" 1", "0 that nick cannot be one"),
        (
            2,
            "averyverylongnickname pw 1 \"x\" 1",
            "0 that nick cannot be one",
        ),
        (200, "FILENAME CONTAINS \"x\"", "0 log in first"),
        (
            6,
            "bob \"\" 1 \"x\" 1",
            "0 a registered nick needs a password",
        ),
    ] {
        let mut w = World::new(1);
        w.connect("x", 0, [1, 1, 1, 1]);
        w.says("x", kind, data);
        assert_eq!(w.hears("x"), [why]);
        assert!(w.is_closed("x"));
    }
    let mut w = World::new(1);
    w.connect("x", 0, [1, 1, 1, 1]);
    w.passes(50);
    assert!(!w.is_closed("x"));
    w.passes(20);
    assert!(w.is_closed("x"));
}

#[test]
fn people_talk_in_rooms() {
    let mut w = World::new(1);
    for name in ["alice", "bob", "carol"] {
        w.login(name, 0);
    }
    w.says("alice", 400, "#Shoal");
    assert_eq!(
        w.hears("alice"),
        [
            "405 #Shoal",
            "408 #Shoal alice 0 9",
            "409 #Shoal",
            "410 #Shoal Welcome to #Shoal"
        ]
    );
    w.says("bob", 400, "#shoal");
    assert_eq!(
        w.hears("bob")[..3],
        ["405 #Shoal", "408 #Shoal alice 0 9", "408 #Shoal bob 0 9"]
    );
    assert_eq!(w.hears("alice"), ["406 #Shoal bob 0 9"]);
    w.says("bob", 402, "#shoal hello \x1b[2J\"there\"");
    for name in ["alice", "bob"] {
        assert_eq!(w.hears(name), ["403 #Shoal bob hello [2J\"there\""]);
    }
    w.says("bob", 824, "#shoal \"waves\"");
    assert_eq!(w.hears("alice"), ["824 #Shoal bob \"waves\""]);
    w.says("carol", 402, "#shoal hi");
    assert_eq!(w.hears("carol"), ["404 you are not in that room"]);
    w.says("carol", 617, "");
    assert_eq!(w.hears("carol"), ["618 #Shoal 2 Welcome to #Shoal", "617"]);
    w.says("carol", 830, "#shoal");
    assert_eq!(
        w.hears("carol"),
        ["825 #Shoal alice 0 9", "825 #Shoal bob 0 9", "830 #shoal"]
    );
    // Who opened the room is its operator.
    w.says("bob", 410, "#shoal mine");
    assert_eq!(
        w.hears("bob")[1],
        "404 permission denied: you are no operator of that room"
    );
    w.says("alice", 410, "#shoal songs of the sea");
    assert_eq!(w.hears("bob"), ["410 #Shoal songs of the sea"]);
    w.says("alice", 422, "#shoal bob");
    w.says("alice", 829, "#shoal bob");
    assert_eq!(w.hears("bob"), ["401 #shoal", "404 alice removed you"]);
    w.says("bob", 400, "#shoal");
    assert_eq!(w.hears("bob"), ["404 you are banned from that room"]);
    w.deaf();
    w.says("carol", 400, "#shoal");
    w.deaf();
    w.leaves("alice");
    assert_eq!(w.hears("carol"), ["407 #Shoal alice 0 9"]);
    w.says("carol", 401, "#shoal");
    assert_eq!(w.hears("carol"), ["401 #shoal"]);
    assert_eq!(w.hubs[0].stats().rooms, 0);
    for n in 0..6 {
        w.says("carol", 400, &format!("room{n}"));
    }
    assert_eq!(
        w.hears("carol").last().expect("heard"),
        "404 you may be in 5 rooms"
    );
}

#[test]
fn people_find_and_ignore_each_other() {
    let mut w = World::new(1);
    w.login("alice", 0);
    w.login("bob", 0);
    w.says("bob", 205, "alice hello there");
    assert_eq!(w.hears("alice"), ["205 bob hello there"]);
    w.says("bob", 205, "nobody hello");
    assert_eq!(w.hears("bob"), ["404 user nobody is not online"]);
    w.says("bob", 751, "alice 17");
    assert_eq!(w.hears("alice"), ["751 bob 17"]);
    w.says("alice", 752, "bob 17");
    assert_eq!(w.hears("bob"), ["752 alice 17"]);
    w.says("bob", 751, "nobody");
    assert_eq!(w.hears("bob"), ["404 ping failed, nobody is not online"]);
    w.says("bob", 600, "alice");
    assert_eq!(w.hears("bob"), ["601 alice 9"]);
    w.says("alice", 400, "sea");
    w.says("alice", 220, "");
    w.deaf();
    w.now += Duration::from_secs(77);
    w.says("bob", 603, "ALICE");
    assert_eq!(
        w.hears("bob"),
        ["604 alice \"User\" 77 \"sea \" \"Active\" 0 0 1 9 \"test\""]
    );
    w.says("alice", 322, "bob");
    w.says("alice", 322, "bob");
    w.says("alice", 320, "");
    assert_eq!(w.hears("alice"), ["322 bob", "325 bob", "321 bob", "320 1"]);
    w.says("bob", 205, "alice again");
    w.says("alice", 323, "bob");
    w.says("alice", 323, "bob");
    assert_eq!(w.hears("alice"), ["323 bob", "324 bob"]);
    w.says("alice", 207, "carol");
    assert_eq!(w.hears("alice"), ["301 carol"]);
    w.login("carol", 0);
    assert_eq!(w.hears("alice"), ["209 carol 9"]);
    w.says("alice", 303, "carol");
    w.leaves("carol");
    assert_eq!(w.hears("alice"), [""; 0]);
    w.says("bob", 9999, "");
    assert_eq!(w.hears("bob"), ["404 message 9999 is not known here"]);
}

#[test]
fn moderators_rule_and_bans_last() {
    let mut w = World::new(1);
    let root = Account {
        nick: b"root".to_vec(),
        hash: b"h:pw".to_vec(),
        level: Level::Elite,
        ..Account::default()
    };
    w.hubs[0].restore(Record::Account(root));
    w.connect("root", 0, [1, 1, 1, 1]);
    w.says("root", 2, "root pw 1 \"x\" 1");
    w.connect("mod", 0, [2, 2, 2, 2]);
    w.says("mod", 6, "mod pw 1 \"x\" 1 m@x");
    w.login("bob", 0);
    w.deaf();
    w.says("bob", 610, "mod \"no\"");
    assert_eq!(w.hears("bob"), ["404 permission denied"]);
    w.says("mod", 606, "bob moderator");
    assert_eq!(w.hears("mod"), ["404 permission denied"]);
    w.says("root", 606, "mod Moderator");
    assert_eq!(w.hears("mod"), ["404 your level is now Moderator"]);
    w.says("mod", 610, "root");
    assert_eq!(w.hears("mod"), ["404 permission denied"]);
    w.says("mod", 622, "bob \"loud\"");
    w.says("bob", 400, "sea");
    assert_eq!(w.hears("bob"), ["404 you are muzzled"]);
    w.says("mod", 623, "bob");
    w.says("bob", 400, "sea");
    assert_eq!(w.hears("bob")[0], "405 sea");
    w.says("mod", 410, "sea kept for ever");
    w.says("root", 628, "the hub \x07closes");
    assert_eq!(
        w.hears("bob"),
        ["410 sea kept for ever", "628 root the hub closes"]
    );
    w.says("mod", 627, "psst");
    assert_eq!(w.hears("root").last().expect("heard"), "627 mod psst");
    assert_eq!(w.hears("bob"), [""; 0]);
    w.says("mod", 612, "44.20. \"flood\"");
    assert!(w.is_closed("bob"));
    assert_eq!(w.hears("bob"), ["404 you are banned: flood"]);
    let refused = w.hubs[0].connect(w.now, ([44, 20, 9, 9], 1).into());
    assert_eq!(refused, Err(Refusal::Banned));
    w.deaf();
    w.says("mod", 615, "");
    assert_eq!(
        w.hears("mod"),
        ["616 44.20. mod \"flood\" 1000001 0", "615"]
    );
    let records = w.hubs[0].records();
    let mut again = World::new(1);
    records.into_iter().for_each(|r| again.hubs[0].restore(r));
    assert!(
        again.hubs[0]
            .connect(w.now, ([44, 20, 9, 9], 1).into())
            .is_err()
    );
    assert_eq!(again.hubs[0].stats().accounts, 2);
    assert_eq!(again.hubs[0].stats().rooms, 1);
    w.says("mod", 614, "44.20.");
    assert!(w.hubs[0].connect(w.now, ([44, 20, 9, 9], 1).into()).is_ok());
    w.says("root", 611, "mod");
    assert!(w.is_closed("mod"));
}

#[test]
fn limits_hold_and_are_told() {
    let mut w = World::with(1, |c| {
        c.max_shared = 2;
        c.max_clones = 2;
        c.searches_per_minute = 20;
        c.max_connections = 4;
    });
    w.login("bob", 0);
    for n in 0..3 {
        w.says("bob", 100, &format!("\"f{n}.mp3\" 0 1 1 1 1"));
    }
    assert_eq!(w.hears("bob"), ["404 you share 2 files, no more are taken"]);
    for n in 0..8 {
        w.says("bob", 200, "FILENAME CONTAINS \"x\"");
        let heard = w.hears("bob");
        assert_eq!(heard[0], "202");
        assert_eq!(heard.len(), if n < 5 { 1 } else { 2 }, "{n}: {heard:?}");
    }
    w.connect("c1", 0, [7, 7, 7, 7]);
    w.connect("c2", 0, [7, 7, 7, 7]);
    let refused = w.hubs[0].connect(w.now, ([7, 7, 7, 7], 1).into());
    assert_eq!(refused, Err(Refusal::Clones));
    w.connect("l1", 0, [127, 0, 0, 1]);
    let refused = w.hubs[0].connect(w.now, ([8, 7, 7, 7], 1).into());
    assert_eq!(refused, Err(Refusal::Full));
    let v6 = w.hubs[0].connect(w.now, "[2001:db8::1]:1".parse().expect("an address"));
    assert_eq!(v6, Err(Refusal::NotIpv4));
    let mut out = Vec::new();
    let (_, id) = w.users["bob"];
    w.hubs[0].on_bytes(w.now, id, &[0xff, 0xff, 1, 0], &mut out);
    w.settle(0, out);
    assert_eq!(
        w.hears("bob"),
        ["404 a message of type 1 announces 65535 bytes, the most is 2048"]
    );
}

#[test]
fn who_guesses_passwords_is_stopped() {
    let mut w = World::new(1);
    w.connect("a", 0, [1, 1, 1, 1]);
    w.says("a", 6, "alice secret 6699 \"x\" 9 a@b");
    for n in 0..12 {
        w.connect("thief", 0, [6, 6, 6, 6]);
        w.says("thief", 2, "alice guess 6699 \"x\" 9");
        let heard = w.hears("thief");
        let wrong = heard == ["0 the password is wrong"];
        assert_eq!(wrong, n < 10, "{heard:?}");
        w.leaves("thief");
    }
}

#[test]
fn who_does_not_listen_is_waited_for_and_then_cut_off() {
    let mut w = World::with(1, |c| {
        c.searches_per_minute = 0;
        c.lines_per_minute = 0;
        c.soft_queue = 10_000;
        c.hard_queue = 50_000;
    });
    w.login("alice", 0);
    w.login("bob", 0);
    for n in 0..50 {
        w.says(
            "alice",
            100,
            &format!("\"dir\\song number {n}.mp3\" 0 1 1 1 1"),
        );
    }
    let (_, id) = w.users["bob"];
    let mut bytes = Vec::new();
    for _ in 0..100 {
        frame::encode(200, b"FILENAME CONTAINS \"song\"", &mut bytes);
    }
    let mut out = Vec::new();
    w.hubs[0].on_bytes(w.now, id, &bytes, &mut out);
    w.settle(0, out);
    assert!(!w.hubs[0].takes(id));
    assert!(w.hubs[0].output(id).len() < 20_000);
    // As he reads, the rest of his searches is answered.
    let mut ends = 0;
    for _ in 0..100 {
        ends += w.hears("bob").iter().filter(|l| *l == "202").count();
    }
    assert_eq!(ends, 100);
    for _ in 0..60 {
        w.says("alice", 205, &format!("bob {}", "x".repeat(1000)));
    }
    assert!(w.is_closed("bob"));
    assert_eq!(w.hubs[0].stats().cut_off, 1);
    assert!(w.hubs[0].output(id).is_empty());
}

#[test]
fn a_silent_client_is_asked_whether_it_is_there() {
    let mut w = World::new(1);
    w.login("bob", 0);
    w.passes(620);
    let heard = w.hears("bob");
    assert!(heard.contains(&"750".to_owned()), "{heard:?}");
    assert!(heard.iter().filter(|l| l.starts_with("214 1 0 0")).count() > 8);
}

#[test]
fn linked_hubs_are_one_directory() {
    let mut w = World::new(3);
    w.link(0, 1);
    let second = w.link(1, 2);
    w.login("alice", 0);
    w.login("bob", 2);
    w.login("carol", 1);
    w.says("alice", 100, FIRST);
    w.deaf();
    w.says("bob", 200, "FILENAME CONTAINS \"song\"");
    let heard = w.hears("bob");
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[0].ends_with(" 52 alice 16847916 9"), "{heard:?}");
    w.says("bob", 200, "FILENAME CONTAINS \"song\" LOCAL_ONLY");
    assert_eq!(w.hears("bob"), ["202"]);
    let file = "\"C:\\Music\\Shoal - First Song.mp3\"";
    w.says("bob", 203, &format!("alice {file}"));
    assert_eq!(w.hears("alice"), [format!("607 bob {file} 9")]);
    w.says("alice", 608, &format!("bob {file}"));
    let zeros = "0".repeat(32);
    assert_eq!(
        w.hears("bob"),
        [format!("204 alice 16847916 6699 {file} {zeros} 9")]
    );
    w.says("bob", 500, &format!("alice {file}"));
    assert_eq!(
        w.hears("alice"),
        [format!("501 bob 16913452 6699 {file} {zeros} 9")]
    );
    w.says("bob", 211, "alice");
    assert_eq!(w.hears("bob").len(), 2);
    w.says("bob", 205, "alice over two hubs");
    assert_eq!(w.hears("alice"), ["205 bob over two hubs"]);
    w.says("bob", 603, "alice");
    assert!(w.hears("bob")[0].starts_with("604 alice \"User\" 0 \"\" \"Active\" 1 "));
    w.says("alice", 400, "sea");
    w.says("bob", 400, "sea");
    let heard = w.hears("bob");
    assert!(heard.contains(&"408 sea alice 0 9".to_owned()), "{heard:?}");
    w.says("bob", 402, "sea ahoy");
    let heard = w.hears("alice");
    assert_eq!(
        heard[heard.len() - 2..],
        ["406 sea bob 0 9", "403 sea bob ahoy"]
    );
    w.says("alice", 829, "sea bob");
    assert_eq!(
        w.hears("bob"),
        ["403 sea bob ahoy", "401 sea", "404 alice removed you"]
    );
    w.says("bob", 400, "sea");
    w.deaf();
    // A third link would close a loop: it is refused, the others stay.
    w.link(0, 2);
    w.says("bob", 205, "alice still here");
    assert_eq!(w.hears("alice"), ["205 bob still here"]);
    assert_eq!(
        w.hubs[0].stats().links + w.hubs[1].stats().links + w.hubs[2].stats().links,
        4
    );
    // A split: who is beyond it has left.
    w.cut(second);
    assert_eq!(w.hears("alice"), ["407 sea bob 0 9"]);
    w.says("bob", 205, "alice hello");
    assert_eq!(
        w.hears("bob").last().expect("heard"),
        "404 user alice is not online"
    );
    assert_eq!(w.hubs[0].stats().remote_users, 1);
    // One logs in under the other's nick meanwhile; when the parts join, every hub decides alike.
    w.connect("other", 2, [5, 5, 5, 5]);
    w.says("other", 2, "alice else 1 \"x\" 1");
    w.deaf();
    w.link(2, 0);
    assert!(w.is_closed("other") && !w.is_closed("alice"));
    assert_eq!(w.hears("alice"), ["406 sea bob 0 9"]);
    w.says("carol", 205, "bob round the other way");
    assert_eq!(
        w.hears("bob").last().expect("heard"),
        "205 carol round the other way"
    );
}

#[test]
fn a_hub_that_does_not_know_the_secret_is_not_linked() {
    let mut w = World::new(2);
    w.hubs[1].config.link_secret = Some(b"other".to_vec());
    w.link(0, 1);
    assert_eq!((w.hubs[0].stats().links, w.hubs[1].stats().links), (0, 0));
    w.login("bob", 0);
    w.says("bob", kind::LINK_USER, "eve \"hub1\" 1 1 1 Elite \"x\"");
    assert_eq!(w.hears("bob"), ["404 message 20006 is not known here"]);
}

fn data() -> impl Strategy<Value = String> {
    let word = || {
        prop_oneof![
            "[ab]",
            Just("sea".to_owned()),
            "[0-9]{1,3}",
            "\"[ab ]{0,4}\"",
            "\\PC{0,4}"
        ]
    };
    proptest::collection::vec(word(), 0..6).prop_map(|w| w.join(" "))
}

fn any_kind() -> impl Strategy<Value = u16> {
    let known: Vec<u16> = (0..=u16::MAX)
        .filter(|k| kind::describe(*k).is_some())
        .collect();
    prop_oneof![8 => proptest::sample::select(known), 1 => any::<u16>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is said in whatever order, bounds and tables hold (checked after each message).
    #[test]
    fn no_sequence_of_messages_breaks_a_hub(
        steps in proptest::collection::vec((0usize..4, any_kind(), data()), 1..80),
        linked: bool,
    ) {
        let mut w = World::with(2, |c| {
            c.max_list = 3;
            c.max_shared = 5;
            c.max_rooms = 2;
            c.max_bans = 3;
            c.max_accounts = 3;
            c.lines_per_minute = 0;
            c.searches_per_minute = 0;
        });
        let root = Account { nick: b"a".to_vec(), hash: b"h:a".to_vec(), level: Level::Elite, ..Account::default() };
        w.hubs[0].restore(Record::Account(root));
        if linked {
            w.link(0, 1);
        }
        let names = ["a", "b", "ab", "ba"];
        for (n, kind, data) in steps {
            let name = names[n];
            if w.users.get(name).is_none_or(|_| w.is_closed(name)) {
                if w.users.contains_key(name) {
                    w.leaves(name);
                }
                w.closed.clear();
                let Ok(id) = w.hubs[n % 2].connect(w.now, ([1, 1, 1, n as u8], 1).into()) else { continue };
                w.users.insert(name.to_owned(), (n % 2, id));
                w.says(name, 2, &format!("{name} {name} 5 \"x\" 3"));
            } else {
                w.says(name, kind, &data);
            }
            if n == 3 {
                w.passes(5);
            }
        }
        w.deaf();
    }
}
