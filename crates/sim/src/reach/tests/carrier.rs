//! False supernodes that carry the letters of two nodes which want to meet: they can keep them apart, and
//! nothing else.

use super::*;
use crate::reach::carrier::Lie;
use crate::reach::machine::{CARRIER, Machine};
use shoal_base::Rng;
use shoal_reach::agent::signal::{Candidate, Kind as Where};
use shoal_reach::agent::{Agent, Output};
use shoal_reach::identity::{Identity, NodeId};
use shoal_reach::sealed;

/// Letters that are said again.
const KEPT: usize = 50;

fn liar() -> Identity {
    Identity::from_secret(&[66; 32])
}

/// Writes one of its own in a letter's place, with an address at which it waits itself.
fn swaps() -> Lie {
    let mut rng = Rng::from_seed(6);
    Box::new(move |now, to, _| {
        let mut agent = Agent::new(now, 1, [1; 24], &mut rng);
        let trap = Candidate {
            kind: Where::Host,
            addr: ([66, 6, 6, 6], 6666).into(),
        };
        let mut out = Vec::new();
        agent.set_local(now, vec![trap], Vec::new(), &mut out);
        let signal = out.into_iter().find_map(|o| match o {
            Output::Signal(signal) => Some(signal.encode()),
            _ => None,
        });
        let mut fresh = [0; 32];
        rng.fill(&mut fresh);
        let own = sealed::seal(&liar(), &to, fresh, &signal.expect("it tells"));
        vec![(to, own.expect("it fits"))]
    })
}

/// Changes one bit.
fn twists() -> Lie {
    let mut rng = Rng::from_seed(6);
    Box::new(move |_, to, mut letter| {
        let at = rng.below(letter.len());
        letter[at] ^= 1 << rng.below(8);
        vec![(to, letter)]
    })
}

/// Loses so much of them.
fn drops(share: f64) -> Lie {
    let mut rng = Rng::from_seed(6);
    Box::new(move |_, to, letter| {
        let lost = rng.chance(share);
        (!lost).then_some((to, letter)).into_iter().collect()
    })
}

/// Hands each over twice, and once a second the first that it has seen.
fn replays() -> Lie {
    let (mut kept, mut again) = (Vec::new(), shoal_base::Time::ZERO);
    Box::new(move |now, to, letter: Vec<u8>| {
        let mut all = vec![(to, letter.clone()), (to, letter)];
        if kept.len() < KEPT {
            kept.push(all[0].clone());
        }
        if again <= now {
            again = now + secs(1);
            all.extend(kept.iter().cloned());
        }
        all
    })
}

/// Hands each to the same stranger.
fn misdelivers(stranger: NodeId) -> Lie {
    Box::new(move |_, _, letter| vec![(stranger, letter)])
}

fn carried(net: &mut Net, by: Option<Lie>) {
    net.world.call(CARRIER, |machine, _| match machine {
        Machine::Carrier(carrier) => carrier.lie = by,
        _ => unreachable!("it carries"),
    });
}

#[test]
fn a_carrier_that_changes_swaps_or_loses_letters_only_keeps_two_apart() {
    for lie in ["swaps", "twists", "misdelivers", "drops"] {
        let mut net = net(2);
        let [a, b] = two(&mut net, Kind::Port, Kind::Addr);
        let stranger = net.add(Kind::Open);
        net.run(secs(3));
        let ids = [a, b, stranger].map(|n| net.home(n).id);
        let by = match lie {
            "swaps" => swaps(),
            "twists" => twists(),
            "misdelivers" => misdelivers(ids[2]),
            _ => drops(1.0),
        };
        carried(&mut net, Some(by));
        assert_eq!(net.meet(a, b), None, "{lie}");
        let talk = net.home(a).talk.as_ref().expect("it calls");
        let why = net.home(a).endpoint.why_not(talk.session.expect("begun"));
        assert!(why.starts_with("signalling"), "{lie}: {why}");
        // Nobody took the carrier for the other, nor a letter for another's.
        for (n, others) in [(b, [0, 2]), (stranger, [0, 1])] {
            let endpoint = &net.home(n).endpoint;
            for other in others {
                assert_eq!(endpoint.session(&ids[other]), None, "{lie}: {n}");
            }
        }
        for n in [a, b] {
            assert!(net.way(n).is_none(), "{lie}: {n} has a way");
        }
        // Another supernode carries, and they meet.
        carried(&mut net, None);
        for n in [a, b] {
            let now = net.world.now();
            net.on_home(n, |home, _: &mut Ctx<'_>| home.end(now));
        }
        // What was not answered is given up after half a minute.
        net.run(secs(60));
        assert!(net.meet(a, b).is_some(), "{lie}: not replaced");
    }
}

#[test]
fn letters_that_are_lost_now_and_then_or_come_again_and_again_do_no_harm() {
    for lie in ["drops most", "replays"] {
        let mut net = net(2);
        let both = two(&mut net, Kind::Port, Kind::Addr);
        let by = match lie {
            "replays" => replays(),
            _ => drops(2.0 / 3.0),
        };
        carried(&mut net, Some(by));
        net.meet(both[0], both[1])
            .unwrap_or_else(|| panic!("{lie}: no way"));
        net.speak(both[0], both[1], true);
        net.run(secs(5));
        net.measure(&both);
        net.run(secs(20));
        for n in both {
            assert!(
                net.gap(n) < Duration::from_millis(500),
                "{lie}: {:?}",
                net.gap(n)
            );
        }
    }
}
