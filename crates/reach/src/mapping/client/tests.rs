//! A client and a small router in virtual time.

use super::*;
use crate::mapping::Transport;
use proptest::prelude::{any, proptest};

const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(44, 20, 1, 1);
const PORT: Port = Port {
    transport: Transport::Udp,
    number: 4000,
};

/// What it speaks, and what it has mapped.
struct Router {
    pcp: bool,
    natpmp: bool,
    began: Time,
    /// The external port and until when.
    mapped: Option<(u16, Time)>,
    code: u8,
    asked: u32,
}

impl Router {
    fn new(pcp: bool, natpmp: bool) -> Self {
        Self {
            pcp,
            natpmp,
            began: Time::ZERO,
            mapped: None,
            code: 0,
            asked: 0,
        }
    }

    fn restarts(&mut self, now: Time) {
        (self.began, self.mapped) = (now, None);
    }

    fn answer(&mut self, now: Time, request: &[u8]) -> Option<Vec<u8>> {
        let epoch = (now.since(self.began).as_secs() as u32).to_be_bytes();
        self.asked += 1;
        let mut map = |wanted: u16, lifetime: u32| {
            let given = if wanted == 4000 { 4001 } else { wanted };
            let until = now + Duration::from_secs(lifetime.into());
            self.mapped = (lifetime > 0 && self.code == 0).then_some((given, until));
            given
        };
        match *request.get(..2)? {
            [2, _] if !self.pcp => self.natpmp.then(|| [&[0, 128, 0, 1][..], &epoch].concat()),
            [2, opcode] => {
                let mut answer = request.to_vec();
                (answer[1], answer[3]) = (opcode | 0x80, self.code);
                answer[8..12].copy_from_slice(&epoch);
                answer[12..24].fill(0);
                if opcode == 1 {
                    let lifetime = u32::from_be_bytes(request[4..8].try_into().ok()?);
                    let wanted = u16::from_be_bytes(request[42..44].try_into().ok()?);
                    let given = map(wanted, lifetime.min(3600));
                    answer[4..8].copy_from_slice(&lifetime.min(3600).to_be_bytes());
                    answer[42..44].copy_from_slice(&given.to_be_bytes());
                    answer[44..60].copy_from_slice(&OUTSIDE.to_ipv6_mapped().octets());
                }
                Some(answer)
            }
            _ if !self.natpmp => None,
            [0, 0] => Some([&[0, 128, 0, self.code][..], &epoch, &OUTSIDE.octets()].concat()),
            [0, opcode] => {
                let lifetime = u32::from_be_bytes(request[8..12].try_into().ok()?);
                let wanted = u16::from_be_bytes(request[6..8].try_into().ok()?);
                let given = map(wanted, lifetime).to_be_bytes();
                let head = [0, opcode | 128, 0, self.code];
                Some([&head[..], &epoch, &request[4..6], &given, &request[8..12]].concat())
            }
            _ => None,
        }
    }
}

/// Runs both until then; what was told.
fn run(client: &mut Client, router: &mut Router, now: &mut Time, until: Time) -> Vec<Output> {
    let mut told = Vec::new();
    let mut out = Vec::new();
    while client.deadline() <= until {
        *now = (*now).max(client.deadline());
        client.tick(*now, &mut out);
        while let Some(output) = out.pop() {
            match output {
                Output::Send(request) => {
                    if let Some(answer) = router.answer(*now, &request) {
                        client.handle(*now, &answer, &mut out);
                    }
                }
                other => told.push(other),
            }
        }
        if let Some((_, end)) = router.mapped
            && end <= *now
        {
            router.mapped = None;
        }
    }
    *now = until;
    told
}

fn client() -> Client {
    Client::new(Time::ZERO, OWN, &[PORT], Rng::from_seed(1))
}

fn at(secs: u64) -> Time {
    Time::from_secs(secs)
}

/// Mappings that were told.
fn mappings(told: &[Output]) -> Vec<(u16, Protocol)> {
    let of = |o: &Output| match o {
        Output::Mapped(m) => {
            assert_eq!((m.port, *m.external.ip()), (PORT, OUTSIDE));
            Some((m.external.port(), m.by))
        }
        _ => None,
    };
    told.iter().filter_map(of).collect()
}

#[test]
fn a_port_is_mapped_kept_and_given_back_by_either_protocol() {
    for (pcp, natpmp, by) in [
        (true, true, Protocol::Pcp),
        (true, false, Protocol::Pcp),
        (false, true, Protocol::NatPmp),
    ] {
        let (mut client, mut router, mut now) = (client(), Router::new(pcp, natpmp), Time::ZERO);
        let told = run(&mut client, &mut router, &mut now, at(1));
        assert_eq!(mappings(&told), [(4001, by)], "{by}");
        // Renewed for a day, always to the same port, and nothing is lost in between.
        let told = run(&mut client, &mut router, &mut now, at(86_400));
        assert!(mappings(&told).len() >= 12, "{told:?}");
        assert!(mappings(&told).iter().all(|m| *m == (4001, by)));
        assert!(!told.contains(&Output::Lost(PORT)));
        assert!(router.mapped.is_some());
        // Looked after, not pestered: the epoch twice a minute, and renewals.
        assert!(router.asked < 3000, "{}", router.asked);
        let mut out = Vec::new();
        client.stop(&mut out);
        for output in out {
            if let Output::Send(request) = output {
                router.answer(now, &request);
            }
        }
        assert_eq!(router.mapped, None);
    }
}

#[test]
fn a_router_that_was_started_again_is_asked_again() {
    for (pcp, by) in [(true, Protocol::Pcp), (false, Protocol::NatPmp)] {
        let (mut client, mut router, mut now) = (client(), Router::new(pcp, true), Time::ZERO);
        run(&mut client, &mut router, &mut now, at(1000));
        router.restarts(now);
        let told = run(&mut client, &mut router, &mut now, at(1032));
        let mut told = mappings(&told);
        told.dedup();
        assert_eq!(told, [(4001, by)]);
        assert!(router.mapped.is_some());
    }
}

#[test]
fn a_router_that_goes_is_told_when_its_mapping_ends() {
    let (mut client, mut router, mut now) = (client(), Router::new(true, true), Time::ZERO);
    run(&mut client, &mut router, &mut now, at(1));
    (router.pcp, router.natpmp) = (false, false);
    let told = run(&mut client, &mut router, &mut now, at(3700));
    assert_eq!(told, [Output::Lost(PORT)]);
    // It comes back.
    router.pcp = true;
    router.restarts(now);
    let told = run(&mut client, &mut router, &mut now, at(4700));
    assert_eq!(mappings(&told), [(4001, Protocol::Pcp)]);
}

#[test]
fn a_router_that_refuses_or_is_silent_is_let_be_for_a_while() {
    let (mut client, mut router, mut now) = (client(), Router::new(true, true), Time::ZERO);
    router.code = 2;
    let told = run(&mut client, &mut router, &mut now, at(20));
    assert_eq!(told, [Output::Refused(Refusal::NotAuthorized)]);
    router.code = 0;
    let told = run(&mut client, &mut router, &mut now, at(700));
    assert_eq!(mappings(&told), [(4001, Protocol::Pcp)]);

    let (mut client, mut router, mut now) = (self::client(), Router::new(false, false), Time::ZERO);
    let told = run(&mut client, &mut router, &mut now, at(599));
    assert_eq!(told, [Output::Silent]);
    assert!(router.asked <= 9, "{}", router.asked);
    router.natpmp = true;
    let told = run(&mut client, &mut router, &mut now, at(1300));
    assert_eq!(mappings(&told), [(4001, Protocol::NatPmp)]);
}

#[test]
fn another_ones_mapping_is_not_ours() {
    let mut client = client();
    let mut out = Vec::new();
    client.tick(Time::ZERO, &mut out);
    let Some(Output::Send(request)) = out.pop() else {
        panic!("nothing was asked");
    };
    let mut router = Router::new(true, true);
    let mut answer = router.answer(Time::ZERO, &request).expect("an answer");
    answer[30] ^= 1;
    client.handle(Time::ZERO, &answer, &mut out);
    assert_eq!(out, []);
    answer[30] ^= 1;
    client.handle(Time::ZERO, &answer, &mut out);
    assert_eq!(mappings(&out), [(4001, Protocol::Pcp)]);
}

proptest! {
    /// Whatever a router says, little is sent, and only what it let through is told.
    #[test]
    fn any_answers_leave_it_sound(
        answers in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..64), 0_u64..5000, any::<bool>()), 0..40),
    ) {
        let mut client = client();
        let mut now = Time::ZERO;
        let mut nonce = None;
        for (mut bytes, wait, ours) in answers {
            now += Duration::from_millis(wait);
            let mut out = Vec::new();
            if client.deadline() <= now {
                client.tick(now, &mut out);
            }
            for output in &out {
                if let Output::Send(request) = output
                    && request.len() == 60
                {
                    nonce = Some(request.clone());
                }
            }
            if let Some(request) = nonce.as_ref().filter(|_| ours) {
                // Like an answer, but for some bytes.
                let mut like = request.clone();
                like[1] |= 0x80;
                for (n, byte) in bytes.iter().enumerate().take(24) {
                    like[4 + (n * 7) % 56] ^= byte & 3;
                }
                bytes = like;
            }
            client.handle(now, &bytes, &mut out);
            assert!(out.len() <= 8, "{out:?}");
            assert!(client.deadline() > Time::ZERO);
        }
    }
}
