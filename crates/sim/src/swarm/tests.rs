//! Small swarms: that they work, replay, and come near to what theory says. The large ones are
//! `shoal sim swarm`, `freerider` and `flashcrowd`.

use super::club::Club;
use super::crowd::Crowd;
use super::diversity::Diversity;
use super::incentives::{Dealings, Group, Trade};
use super::steady::Steady;
use super::*;
use crate::experiment::Silent;

const KIB: u64 = 1024;

fn content(pieces: u32) -> Content {
    Content {
        pieces,
        piece_len: 16 * 1024,
        neighbours: 50,
    }
}

fn crowd(peers: usize) -> Crowd {
    Crowd {
        content: content(40),
        peers,
        up: 32 * KIB,
        down: None,
        seed_up: 32 * KIB,
        within_s: 5.0,
        mode: Mode::RarestFirst,
        stay: true,
        limit: 50.0,
    }
}

#[test]
fn a_crowd_gets_everything_no_faster_than_possible_and_replays() {
    let crowd = crowd(12);
    let run = crowd.run(3, 5.0, &mut Silent).expect("content");
    assert_eq!((run.took_s.len(), run.faults), (12, 0));
    let last = run.last_s.expect("all are done") / crowd.upload_s();
    assert!(last > theory::makespan(12, 40), "{last}");
    assert!(last < 4.0, "{last}");
    assert!(run.seed_sent >= 1.0, "{}", run.seed_sent);
    assert_eq!(run.spread.last().map(|s| s.only_seed), Some(0.0));
    let again = crowd.run(3, 5.0, &mut Silent).expect("content");
    assert_eq!(again.digest, run.digest);
    let other = crowd.run(4, 5.0, &mut Silent).expect("content");
    assert_ne!(other.digest, run.digest);
}

#[test]
fn a_downlink_is_never_exceeded() {
    // The seed could send the content in a tenth of the time.
    let crowd = Crowd {
        down: Some(32 * KIB),
        up: 320 * KIB,
        seed_up: 320 * KIB,
        ..crowd(2)
    };
    let run = crowd.run(1, 1.0, &mut Silent).expect("content");
    let least = crowd.content.bytes() as f64 / (32.0 * KIB as f64);
    assert_eq!(run.took_s.len(), 2);
    for took in run.took_s {
        assert!(took >= least && took < 1.5 * least + 5.0, "{took} {least}");
    }
}

#[test]
fn in_the_steady_state_the_fluid_model_is_near() {
    let steady = Steady {
        content: content(128),
        up: 32 * KIB,
        down: None,
        lambda: 0.3,
        residence: 0.5,
        patience: None,
        // The origin leaves halfway: not before its content is out, or it may be lost.
        settle: 6.0,
        measure: 4.0,
    };
    let run = steady.average(1, 2, &mut Silent).expect("content");
    assert_eq!((run.faults, run.runs), (0, 2));
    assert_eq!(run.theory_s, 32.0);
    let ratio = run.mean_s / run.theory_s;
    assert!(run.count > 30 && (0.7..1.7).contains(&ratio), "{ratio}");
    // What is measured is what uploads add up to, but for who comes and goes at the ends.
    let balance = run.mean_s / run.balance_s;
    assert!((0.7..1.3).contains(&balance), "{balance}");
    assert!((0.5..=1.01).contains(&run.seed_use), "{}", run.seed_use);
    assert!((0.5..=1.01).contains(&run.eta), "{}", run.eta);
}

#[test]
fn who_loses_patience_leaves_without_the_content() {
    let mut swarm = Swarm::new(1, content(40), Links::default()).expect("content");
    let class = swarm.class(Class {
        patience: Some(Sessions::Exponential { mean_s: 5.0 }),
        ..Class::new(32 * KIB)
    });
    // There is no seed.
    swarm.crowd(class, 10, Duration::from_secs(1));
    swarm.run_until(Time::from_secs(200));
    let census = swarm.census();
    assert_eq!((census.arrived, census.aborted), (10, 10));
    assert_eq!((census.leechers, census.seeds), (0, 0));
    assert!(swarm.copies().iter().all(|n| *n == 0));
}

#[test]
fn a_free_rider_gives_nothing_and_gets_less() {
    let group = |count, shares| Group {
        count,
        up: 48 * KIB,
        shares,
    };
    let trade = Trade {
        content: content(256),
        groups: vec![group(16, true), group(2, false)],
        choking: Choking::TitForTat,
        seeds: 1,
        // Enough that it is not the seed whom all wait for.
        seed_up: 96 * KIB,
        settle_s: 150.0,
        measure_s: 150.0,
    };
    let run = trade.run(2, &mut Silent).expect("content");
    assert_eq!(run.faults, 0);
    assert_eq!(run.mean(1, |d| d.gave), 0.0);
    let (honest, rider) = (run.mean(0, Dealings::got), run.mean(1, Dealings::got));
    assert!(rider < 0.7 * honest, "{rider} {honest}");
}

#[test]
fn a_club_that_lacks_one_piece_drains_below_the_seeds_rate_and_grows_above() {
    let growth = |load: f64| {
        let club = Club {
            content: content(8),
            up: 8 * KIB,
            down: None,
            seed_up: 8 * KIB,
            club: 25,
            lambda: load * 0.5,
            residence: 0.0,
            mode: Mode::RarestFirst,
            watch_s: 80.0,
        };
        assert_eq!(club.critical(), 0.5);
        let run = club.run(5, &mut Silent).expect("content");
        assert_eq!(run.faults, 0);
        run.growth
    };
    let (below, above) = (growth(0.2), growth(2.5));
    assert!(below < 0.0, "{below}");
    assert!(above > 0.0, "{above}");
}

#[test]
fn diversity_is_measured_without_the_seeds_copies() {
    let diversity = Diversity {
        content: content(64),
        up: 32 * KIB,
        seed_up: 32 * KIB,
        lambda: 0.2,
        mode: Mode::Random,
        settle_s: 30.0,
        measure_s: 60.0,
    };
    let run = diversity.run(1, &mut Silent).expect("content");
    assert_eq!(run.faults, 0);
    assert_eq!(run.path.len(), 9);
    let mean = run.mean;
    assert!(mean.min <= mean.mean, "{mean:?}");
    assert!((0.0..=1.0).contains(&mean.entropy), "{mean:?}");
}

#[test]
fn addresses_lead_back_to_their_nodes() {
    for node in [0, 1, 2, 255, 256, 65_537, MAX_NODES - 1] {
        assert_eq!(node_of(address(node)), Some(node));
    }
    assert_ne!(address(1), address(2));
}
