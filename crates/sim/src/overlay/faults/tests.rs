use super::*;

#[test]
fn random_faults_heal_to_an_ideal_ring() {
    for seed in 0..12 {
        let plan = plan(seed);
        let passed = run(&plan).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        if seed < 2 {
            assert_eq!(Ok(passed), run(&plan), "seed {seed} replays");
        }
    }
}

fn one(fault: Fault) -> Plan {
    Plan {
        seed: 3,
        nodes: 16,
        faulty_us: FAULTY_US,
        faults: vec![(1_000_000, fault)],
    }
}

#[test]
fn nodes_that_do_not_repair_are_caught() {
    let death = one(Fault::Crash {
        node: 3,
        back_us: None,
        disk: false,
    });
    assert!(run(&death).is_ok());
    let newcomer = one(Fault::Join);
    assert!(run(&newcomer).is_ok());
    let deaf = Config {
        stabilise: None,
        ..config()
    };
    assert!(run_with(&death, deaf).is_err());
    let lazy = Config {
        fix_fingers: None,
        ..config()
    };
    let violated = run_with(&newcomer, lazy).expect_err("old fingers");
    assert!(violated.contains("fingers are exact"), "{violated}");
}

/// Once each side of a long split counts the other as dead, two rings stand side by side. Each
/// keeps in mind whom it lost, and they become one again; without that they stay two.
#[test]
fn two_rings_that_a_long_split_left_become_one() {
    for sides in [2, 3, 16] {
        let mut split = one(Fault::Split {
            side: (0..16).map(|i| i % sides).collect(),
            cuts: (0..sides)
                .flat_map(|a| (0..sides).map(move |b| (a, b)))
                .filter(|(a, b)| a != b)
                .collect(),
            us: 50_000_000,
        });
        for seed in 0..4 {
            split.seed = seed;
            run(&split).unwrap_or_else(|e| panic!("{sides} sides, seed {seed}: {e}"));
        }
        let forgetful = Config {
            merge: None,
            ..config()
        };
        let violated = run_with(&split, forgetful).expect_err("several rings");
        assert!(violated.contains("600 s after healing"), "{violated}");
    }
}
