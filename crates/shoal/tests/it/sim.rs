//! `shoal sim`: what it prints, what it writes, how it ends.

use std::fs;

use crate::process::World;

#[test]
fn chord_prints_one_object_and_writes_a_page() {
    let world = World::new();
    let args = [
        "sim",
        "chord",
        "--nodes",
        "256",
        "--lookups",
        "2000",
        "--seed",
        "9",
        "--json",
        "--report",
        "r.html",
    ];
    let first = world.run(&args).expect(0).json();
    assert_eq!(first.len(), 1);
    let v = &first[0];
    let hops = v["mean_hops"].as_f64().expect("a number");
    assert!((hops - 4.0).abs() < 0.35, "{hops}");
    assert_eq!(v["seed"], 9);
    for field in ["events", "events_per_s", "events_per_cpu_s", "memory_peak"] {
        assert!(v[field].as_f64().is_some_and(|n| n > 0.0), "{field}");
    }
    let page = fs::read_to_string(world.path("r.html")).expect("the page");
    assert!(page.contains("<svg") && page.contains(v["digest"].as_str().expect("a digest")));

    let again = world.run(&args).expect(0).json();
    assert_eq!(again[0]["digest"], v["digest"]);
    let other = world
        .run(&["sim", "chord", "--nodes", "256", "--seed", "10", "--json"])
        .expect(0)
        .json();
    assert_ne!(other[0]["digest"], v["digest"]);
}

#[test]
fn the_seed_and_options_are_said_first() {
    let world = World::new();
    let ran = world
        .run(&["sim", "gossip", "--nodes", "50", "--seed", "4"])
        .expect(0);
    let first = ran.stderr.lines().next().unwrap_or_default();
    assert!(
        first.contains("seed 4") && first.contains("nodes 50"),
        "{first}"
    );
}

#[test]
fn faults_say_how_many_seeds_heal() {
    let world = World::new();
    let ran = world.run(&[
        "sim", "faults", "chord", "--seeds", "2", "--keep", "kept", "--json",
    ]);
    let v = &ran.expect(0).json()[0];
    assert_eq!(v["chord_failed"], 0);
    assert_eq!(v["regressions"].as_array().map(Vec::len), Some(0));
    assert_eq!(fs::read_dir(world.path("kept")).expect("made").count(), 0);
}

#[test]
fn reach_tells_each_pair_of_nats_and_what_deaths_of_relays_cost() {
    let world = World::new();
    let args = [
        "sim", "reach", "--nat", "full,sym", "--churn", "0", "--seed", "3", "--json",
    ];
    let v = &world.run(&args).expect(0).json()[0];
    let pairs = v["pairs"].as_array().expect("pairs");
    let direct = |caller: &str, called: &str| {
        let of = |p: &&serde_json::Value| p["caller"] == caller && p["called"] == called;
        pairs.iter().find(of).expect("the pair")["direct"].as_f64()
    };
    assert_eq!(direct("full", "sym"), Some(1.0));
    assert_eq!(direct("sym", "sym"), Some(0.0));
    assert!(v["relayed_bytes"].as_u64() > Some(0));
    assert!(v["relay_killed"]["max_ms"].as_f64() < Some(1500.0));
    let again = &world.run(&args).expect(0).json()[0];
    assert_eq!(again["digest"], v["digest"]);
}

#[test]
fn options_that_make_no_sense_exit_2() {
    let world = World::new();
    for args in [
        &["sim", "chord", "--nodes", "1"][..],
        &["sim", "chord", "--fail", "2"],
        &["sim", "chord", "--fail", "0.1", "--churn", "0.1"],
        &["sim", "kademlia", "--loss", "0.9"],
        &["sim", "gossip", "--loss", "1"],
        &["sim", "reach", "--nat", "moebius"],
        &["sim", "reach", "--relays", "0"],
    ] {
        world.run(args).expect(2);
    }
}
