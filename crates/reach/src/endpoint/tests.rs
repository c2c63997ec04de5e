//! What strangers leave in an endpoint. Endpoints behind NATs, with real relays' cores, are in the
//! simulator (`shoal_sim::reach`).

use super::*;

#[test]
fn letters_of_strangers_leave_nothing_behind() {
    let mut rng = Rng::from_seed(7);
    let mut seeded = rng.fork();
    let random: Random = Box::new(move |buf| seeded.fill(buf));
    let identity = Identity::from_secret(&[1; 32]);
    let me = identity.id();
    let own = ([44, 0, 0, 1], 5000).into();
    let mut endpoint = Endpoint::new(identity, vec![own], true, 0, random);
    let mut now = Time::from_secs(1);
    for n in 0..400u32 {
        let mut secret = [3; 32];
        secret[..4].copy_from_slice(&n.to_be_bytes());
        let stranger = Identity::from_secret(&secret);
        let mut agent = Agent::new(now, 1, [1; 24], &mut rng);
        let mut out = Vec::new();
        agent.set_local(now, Vec::new(), Vec::new(), &mut out);
        let Some(agent::Output::Signal(signal)) = out.pop() else {
            panic!("it tells");
        };
        let letter = sealed::seal(&stranger, &me, secret, &signal.encode()).unwrap();
        endpoint.on_letter(now, &letter, &mut Vec::new());
    }
    assert_eq!(endpoint.sessions.len(), MAX_ASKED);
    let end = now + Duration::from_secs(40);
    while now < end {
        now = endpoint.deadline().max(now + Duration::from_micros(1));
        endpoint.on_tick(now, &mut Vec::new());
    }
    assert_eq!(endpoint.sessions.len(), 0);
    assert_eq!(endpoint.ways.len(), 0);
}
