//! Names of people with real processes: claims, thieves, changes of key, the public log, `kill -9`.

use serde_json::Value;

use crate::process::{Running, World};

fn login(world: &World, listen: &str) -> Running {
    let args = [
        "serve",
        "login",
        "--with-list",
        "--listen",
        listen,
        "--dir",
        "login",
    ];
    world.start(&args)
}

#[test]
fn a_name_is_its_first_owners_and_changes_by_its_keys_alone() {
    let world = World::new();
    let mut server = login(&world, "127.0.0.1:0");
    let at = server.addr();
    let run = |who: &str, args: &[&str], code| -> Vec<Value> {
        let more = ["--login", &at, "--state-dir", who, "--json"];
        world.run(&[args, &more].concat()).expect(code).json()
    };
    let first = run("alice", &["name", "claim", "alice"], 0);
    assert_eq!(first[0]["generation"], 0);
    // A second key, by the same letters, other case, or letters that look alike.
    for name in ["alice", "ALICE", "a1ice", "aIice"] {
        run("mallory", &["name", "claim", name], 5);
    }
    run("mallory", &["name", "change", "alice"], 5);
    let again = run("alice", &["name", "claim", "Alice"], 0);
    assert_eq!(
        (&again[0]["key"], &again[0]["entry"]),
        (&first[0]["key"], &first[0]["entry"])
    );
    let log = run("alice", &["name", "log"], 0);
    let head = log.last().expect("a head").clone();
    assert_eq!((&head["size"], &head["ours"]), (&1.into(), &true.into()));

    // The server is killed as soon as it has answered: the name is kept.
    run("bob", &["name", "claim", "bob"], 0);
    server.kill();
    let mut server = login(&world, &at);
    assert_eq!(server.addr(), at);
    run("mallory", &["name", "claim", "bob"], 5);

    // A new key by the old one; then the old key's owner has lost it, and the log tells so.
    std::fs::create_dir(world.path("thief")).expect("a folder");
    let copied = world.path("thief/names/of-allce");
    std::fs::create_dir_all(&copied).expect("a folder");
    for file in ["names/of-allce/key", "names/trusted"] {
        let (from, to) = (
            world.path("alice").join(file),
            world.path("thief").join(file),
        );
        std::fs::copy(from, to).expect("copied");
    }
    let stolen = run("thief", &["name", "change", "alice"], 0);
    assert_eq!(stolen[0]["generation"], 1);
    run("alice", &["name", "log"], 5);
    run("alice", &["name", "claim", "alice"], 5);
    let recovery = world.path("alice/names/of-allce/recovery");
    let recovery = recovery.to_str().expect("text");
    let back = run("alice", &["name", "change", "alice", "--by", recovery], 0);
    assert_eq!(back[0]["generation"], 2);
    run("thief", &["name", "change", "alice"], 5);
    let log = run("alice", &["name", "log", "alice"], 0);
    let hows: Vec<_> = log.iter().filter_map(|e| e["how"].as_str()).collect();
    assert_eq!(hows, ["claimed", "key", "recovery"]);

    // No supernode keeps a record of it: whose it is the log proves all the same.
    let shown = run("bob", &["name", "show", "ALICE"], 0);
    let owner = shown.last().expect("an owner");
    assert_eq!(
        (&owner["event"], &owner["key"], &owner["generation"]),
        (&"owner".into(), &back[0]["key"], &2.into())
    );
    run("bob", &["name", "show", "nobody"], 3);
}

#[test]
fn a_log_that_was_rewritten_is_told() {
    let world = World::new();
    let mut server = login(&world, "127.0.0.1:0");
    let at = server.addr();
    let run = |args: &[&str]| {
        let more = ["--login", &at, "--state-dir", "me", "--json"];
        world.run(&[args, &more].concat())
    };
    run(&["name", "claim", "alice"]).expect(0);
    run(&["name", "claim", "bob"]).expect(0);
    run(&["name", "log"]).expect(0);
    server.kill();
    let path = world.path("login/names");
    let text = std::fs::read_to_string(&path).expect("kept");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.swap(0, 1);
    std::fs::write(&path, lines.join("\n") + "\n").expect("written");
    let mut server = login(&world, &at);
    server.addr();
    run(&["name", "log"]).expect(5).says("rewritten");
}

/// One was shown a log, the other one that was rewritten since, of the same length: each is told by what the other
/// was shown, and keeps what the login server signed.
#[test]
fn two_who_write_to_each_other_keep_what_convicts_a_login_server_of_two_logs() {
    let world = World::new();
    let separate = ["serve", "login", "--dir", "login", "--listen"];
    let start = |listen: &str| world.start(&[&separate[..], &[listen]].concat());
    let mut server = start("127.0.0.1:0");
    let at = server.addr();
    let key = world.run(&[
        "name",
        "claim",
        "alice",
        "--login",
        &at,
        "--state-dir",
        "alice",
        "--json",
    ]);
    key.expect(0);
    let trusted = std::fs::read_to_string(world.path("alice/names/trusted")).expect("kept");
    let (_, trust) = trusted
        .trim()
        .split_once(' ')
        .expect("a server and its key");
    let mut list = world.start(&[
        "serve",
        "supernodes",
        "--trust",
        trust,
        "--listen",
        "127.0.0.1:0",
    ]);
    let list_at = list.addr();
    let servers = ["--login", &at, "--list", &list_at, "--trust", trust];
    let with = |args: &[&str], state: &str| {
        let own = ["--state-dir", state, "--json"];
        world.run(&[args, &servers, &own].concat())
    };
    with(&["name", "claim", "bob"], "bob").expect(0);
    let node = [
        "supernode",
        "node",
        "--supernode",
        "--keep-role",
        "--listen",
        "127.0.0.1:0",
    ];
    let mut supernode = world.start(&[&node[..], &servers, &["--state-dir", "super"]].concat());
    supernode.addr();
    let chat = |who: &str, to: &str| {
        let args = ["chat", to, "--as", who, "--stay", "--listen", "127.0.0.1:0"];
        world.start_listening(&[&args[..], &servers, &["--state-dir", who]].concat())
    };
    let mut alice = chat("alice", "bob");
    // It was shown the log long before that.
    alice.event("published");

    server.kill();
    let path = world.path("login/names");
    let text = std::fs::read_to_string(&path).expect("kept");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.swap(0, 1);
    std::fs::write(&path, lines.join("\n") + "\n").expect("written");
    let mut server = start(&at);
    server.addr();

    let mut bob = chat("bob", "alice");
    bob.event("published");
    bob.say("hello");
    let heads = |event: &Value| {
        assert_eq!(
            (&event["proof"], &event["size"]),
            (&true.into(), &event["our_size"])
        );
        let root = |name: &str| event[name].as_str().expect("a root").to_owned();
        (root("root"), root("our_root"))
    };
    let (theirs, ours) = heads(&alice.event("forked"));
    assert_eq!(heads(&bob.event("forked")), (ours, theirs));
    for run in [&mut alice, &mut bob] {
        run.kill();
    }

    for (who, other) in [("alice", "bob"), ("bob", "alice")] {
        let log = with(&["name", "log"], who)
            .expect(5)
            .says("signed two logs");
        let told = log.json().into_iter().find(|e| e["event"] == "forked");
        assert_eq!(told.expect("told")["name"], other);
        let show = ["name", "show", other, "--listen", "127.0.0.1:0"];
        let shown = with(&show, who).expect(5).json();
        assert!(shown.iter().any(|e| e["event"] == "forked"), "{shown:?}");
    }
    // Who has not heard of it is told nothing.
    with(&["name", "log"], "carol").expect(0);
}
