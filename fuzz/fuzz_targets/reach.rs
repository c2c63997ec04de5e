//! What strangers send to a node that others reach: letters, the signals in them, datagrams.

#![no_main]

use std::net::SocketAddr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use shoal_base::Time;
use shoal_reach::agent::signal::Signal;
use shoal_reach::endpoint::{Endpoint, Output};
use shoal_reach::identity::Identity;
use shoal_reach::relays::Ticket;
use shoal_reach::sealed::{open, seal};
use shoal_reach::turn::credential::Credential;

fn endpoint(own: SocketAddr) -> Endpoint {
    let mut n = 0u8;
    let random = move |buf: &mut [u8]| {
        buf.iter_mut().for_each(|b| {
            n = n.wrapping_add(1);
            *b = n;
        });
    };
    let identity = Identity::from_secret(&[1; 32]);
    Endpoint::new(identity, vec![own], true, 1, Box::new(random))
}

/// Nothing is sent where nobody may be, and little of it.
fn check(out: &[Output], most: usize) {
    assert!(out.len() <= most, "{} things at once", out.len());
    for output in out {
        if let Output::Udp(to, bytes) = output {
            assert!(to.port() != 0 && !to.ip().is_multicast() && !to.ip().is_unspecified());
            assert!(bytes.len() < 1200);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let (me, other) = (Identity::from_secret(&[1; 32]), Identity::from_secret(&[2; 32]));
    // Nobody here signs.
    assert!(open(&me, data).is_err());
    let told = Signal::decode(data);
    if let Ok(signal) = &told {
        assert_eq!(Signal::decode(&signal.encode()).as_ref(), Ok(signal));
    }
    let own: SocketAddr = ([44, 0, 0, 1], 5000).into();
    let relay: SocketAddr = ([44, 0, 0, 2], 3478).into();
    let mut node = endpoint(own);
    let mut out = Vec::new();
    let credential = Credential { name: "a".into(), password: "b".into() };
    node.offer(Time::ZERO, vec![Ticket { at: vec![relay], credential }], &mut out);
    let mut now = Time::ZERO;
    let tick = |node: &mut Endpoint, now: &mut Time, until: Time| {
        let mut steps = 0;
        while node.deadline() <= until {
            *now = node.deadline().max(*now);
            let mut out = Vec::new();
            node.on_tick(*now, &mut out);
            check(&out, 200);
            steps += 1;
            assert!(steps < 5000, "time stands still at {now:?}");
        }
        *now = until;
    };
    // Without an answer of the relay nodes are told of us after a while.
    tick(&mut node, &mut now, Time::from_secs(3));
    let Ok(letter) = seal(&other, &me.id(), [3; 32], data) else {
        return;
    };
    assert_eq!(open(&me, &letter).expect("it is sealed for us"), (other.id(), data.to_vec()));
    let mut out = Vec::new();
    node.on_letter(now, &letter, &mut out);
    check(&out, 200);
    assert!(told.is_ok() || out.is_empty());
    // What comes from where it says that it is, and from the relay: as a whole and in pieces.
    let told = told.map(|s| s.candidates).unwrap_or_default();
    let from = told.into_iter().map(|c| c.addr).chain([relay]);
    for (at, from) in from.enumerate() {
        let piece = data.get(at * 20..).unwrap_or(data);
        let mut out = Vec::new();
        node.on_udp(now, from, piece, &mut out);
        check(&out, 200);
        now += Duration::from_millis(7);
    }
    tick(&mut node, &mut now, Time::from_secs(45));
});
