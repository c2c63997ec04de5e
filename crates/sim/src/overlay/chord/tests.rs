use super::*;
use crate::experiment::Silent;

fn chord() -> Chord {
    Chord {
        nodes: 500,
        lookups: 400,
        successors: 20,
        fail: 0.0,
        churn: 0.0,
        stabilise_s: 30,
        virtual_nodes: 1,
        route: Route::Fingers,
        style: Style::Recursive,
        want: Want::Owner,
        rate: 1000,
        sweep: false,
    }
}

fn check(experiment: Chord) {
    let report = experiment.run(1, &mut Silent).expect("good options");
    assert!(report.holds(), "{:?}", report.checks);
    let again = experiment.run(1, &mut Silent).expect("good options");
    assert_eq!(report.json(), again.json());
}

#[test]
fn paths_are_half_of_the_logarithm() {
    check(Chord {
        successors: 1,
        want: Want::Predecessor,
        sweep: true,
        ..chord()
    });
    check(Chord {
        style: Style::Iterative,
        ..chord()
    });
}

#[test]
fn half_of_the_nodes_die_and_no_lookup_fails() {
    for style in [Style::Recursive, Style::Iterative] {
        check(Chord {
            fail: 0.5,
            style,
            ..chord()
        });
    }
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for bad in [
        Chord {
            nodes: 1,
            ..chord()
        },
        Chord {
            fail: 1.0,
            ..chord()
        },
        Chord {
            fail: f64::NAN,
            ..chord()
        },
        Chord {
            successors: 0,
            ..chord()
        },
        Chord {
            fail: 0.1,
            churn: 0.1,
            ..chord()
        },
    ] {
        assert!(bad.run(1, &mut Silent).is_err(), "{bad:?}");
    }
}
