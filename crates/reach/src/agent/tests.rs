//! What an agent makes of checks that come in bursts.

use super::signal::Kind;
use super::*;
use crate::stun::{Attribute, Builder, Class, Message, Method, TransactionId};

/// Longer than checks are apart.
const WAIT: Duration = Duration::from_millis(100);

fn told(out: &mut Vec<Output>) -> Signal {
    let signal = out.drain(..).rev().find_map(|o| match o {
        Output::Signal(signal) => Some(signal),
        _ => None,
    });
    signal.expect("it tells")
}

fn checks(out: &[Output]) -> Vec<Vec<u8>> {
    let sent = out.iter().filter_map(|o| match o {
        Output::Send(_, bytes) => Some(bytes.clone()),
        _ => None,
    });
    let request = |b: &Vec<u8>| Message::decode(b).is_ok_and(|m| m.class() == Class::Request);
    sent.filter(request).collect()
}

#[test]
fn many_checks_at_once_are_answered_by_one() {
    let mut rng = Rng::from_seed(4);
    let now = Time::from_secs(1);
    let (mut one, mut two) = (
        Agent::new(now, 1, [1; 24], &mut rng),
        Agent::new(now, 1, [2; 24], &mut rng),
    );
    let places: [SocketAddr; 2] = [([44, 0, 0, 1], 5).into(), ([44, 0, 0, 2], 5).into()];
    let host = |addr| {
        vec![Candidate {
            kind: Kind::Host,
            addr,
        }]
    };
    let mut out = Vec::new();
    one.set_local(now, host(places[0]), Vec::new(), &mut out);
    let first = told(&mut out);
    two.set_local(now, host(places[1]), Vec::new(), &mut out);
    let second = told(&mut out);
    one.on_signal(now, second, &mut out);
    let key = Key::short_term(two.ours.password.as_bytes());
    let name = format!("{}:{}", two.ours.name, one.ours.name);
    two.on_signal(now, first, &mut out);
    out.clear();
    let path = Path {
        base: Base::Direct,
        peer: places[0],
    };
    // As many as the kernel hands over at once, while answers are still on their way.
    let mut back = Vec::new();
    for burst in 0..3u64 {
        let now = now + Duration::from_millis(burst * 10);
        for _ in 0..20 {
            let mut bytes = Vec::new();
            let id = TransactionId::random(&mut rng);
            Builder::new(&mut bytes, Class::Request, Method::BINDING, id)
                .put(&Attribute::Username(name.as_bytes()))
                .integrity(&key)
                .fingerprint();
            let message = Message::decode(&bytes).expect("a message");
            two.on_stun(now, path, &message, &mut out);
            back.extend(checks(&out));
            out.clear();
        }
    }
    assert!(back.len() <= 1, "{} checks", back.len());
    let later = now + WAIT;
    two.on_tick(later, &mut out);
    let asked = checks(&out).pop().expect("it goes on checking");
    out.clear();
    let id = Message::decode(&asked).expect("a message").id();
    let mut answer = Vec::new();
    Builder::new(&mut answer, Class::Success, Method::BINDING, id)
        .put(&Attribute::XorMappedAddress(places[1]))
        .integrity(&one.our_key)
        .fingerprint();
    let message = Message::decode(&answer).expect("a message");
    two.on_stun(later, path, &message, &mut out);
    assert_eq!(two.in_use().map(|way| way.path), Some(path));
}
