//! Clients at a relay over a network that loses and delays, in virtual time.

use super::*;
use crate::stun::{datagram_frame, next_frame};
use crate::turn::credential::{Credential, Credentials};
use crate::turn::server::{
    Client as Peer, Config, Effect, Effects, HEADROOM, RelayAddress, RelayId, TAILROOM, TurnServer,
};

const SECRET: &[u8] = b"north";
const AT: &str = "198.18.1.1:1000";
const FAR: &str = "8.8.4.4:4444";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn server_config() -> Config {
    let ip = "5.5.5.5".parse().unwrap();
    Config {
        credentials: Credentials {
            secrets: vec![SECRET.to_vec()],
            users: [(b"carol".to_vec(), b"pw".to_vec())].into(),
        },
        relay_v4: Some(RelayAddress {
            bind: ip,
            public: ip,
        }),
        ..Config::default()
    }
}

/// A client, its server, a peer that echoes, and what is on the way between them.
struct World {
    now: Time,
    server: TurnServer,
    client: TurnClient,
    stream: bool,
    open: Vec<(RelayId, SocketAddr)>,
    /// When it arrives, whether at the server, what.
    way: Vec<(Time, bool, Vec<u8>)>,
    events: Vec<Event>,
    got: Vec<(SocketAddr, Vec<u8>)>,
    rng: Rng,
    loss: f64,
    dead: bool,
    requests: usize,
}

impl World {
    fn new(server: Config, stream: bool, credential: Credential, loss: f64) -> Self {
        let mut rng = Rng::from_seed(7);
        let now = Time::from_secs(5);
        let mut out = Vec::new();
        let config = ClientConfig {
            stream,
            credential,
            ipv6: false,
        };
        let mut world = Self {
            now,
            server: TurnServer::new(server, &mut rng),
            client: TurnClient::new(config, now, &mut rng, &mut out),
            stream,
            open: Vec::new(),
            way: Vec::new(),
            events: Vec::new(),
            got: Vec::new(),
            rng,
            loss,
            dead: false,
            requests: 0,
        };
        world.take(out);
        world
    }

    fn post(&mut self, to_server: bool, bytes: Vec<u8>) {
        if self.dead || self.rng.chance(self.loss) {
            return;
        }
        let delay = Duration::from_millis(20);
        self.way.push((self.now + delay, to_server, bytes));
    }

    fn take(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send(bytes) => {
                    self.requests += 1;
                    self.post(true, bytes);
                }
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    fn peer(&self) -> Peer {
        if self.stream {
            Peer::Stream(1)
        } else {
            Peer::Udp(0, address(AT))
        }
    }

    fn settle(&mut self, mut out: Effects) {
        while !out.list.is_empty() {
            let (list, bytes) = (
                std::mem::take(&mut out.list),
                std::mem::take(&mut out.bytes),
            );
            for effect in list {
                match effect {
                    Effect::Reply(_, range) => self.post(false, bytes[range].to_vec()),
                    Effect::OpenRelay(relay, at) => {
                        self.open.push((relay, at));
                        self.server.on_relay(self.now, relay, Some(at), &mut out);
                    }
                    Effect::CloseRelay(relay) => self.open.retain(|(id, _)| *id != relay),
                }
            }
        }
    }

    fn at_server(&mut self, bytes: &[u8]) {
        let mut out = Effects::default();
        let frame = if self.stream {
            let (frame, used) = next_frame(bytes).unwrap().unwrap();
            assert_eq!(used, bytes.len());
            frame
        } else {
            datagram_frame(bytes).unwrap()
        };
        let sent = self
            .server
            .on_client(self.now, self.peer(), address(AT), frame, &mut out);
        if let Some(sent) = sent {
            // The peer echoes at once.
            let mut buffer = vec![0; HEADROOM];
            buffer.extend_from_slice(sent.data);
            let data = HEADROOM..buffer.len();
            buffer.extend([0; TAILROOM]);
            let (relay, to) = (sent.relay, sent.to);
            if let Some(back) = self.server.on_peer(self.now, relay, to, &mut buffer, data) {
                self.post(false, buffer[back.bytes].to_vec());
            }
        }
        self.settle(out);
    }

    fn run(&mut self, secs: u64) {
        let end = self.now + Duration::from_secs(secs);
        loop {
            let arrival = self.way.iter().map(|(at, ..)| *at).min();
            let next = [arrival, self.client.deadline(), self.server.deadline()];
            let next = next.into_iter().flatten().min().unwrap_or(Time::FAR);
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            if let Some(at) = self.way.iter().position(|(at, ..)| *at <= self.now) {
                let (_, to_server, bytes) = self.way.remove(at);
                if to_server {
                    self.at_server(&bytes);
                } else {
                    let mut out = Vec::new();
                    let frame = datagram_frame(&bytes).unwrap();
                    let got = self.client.on_frame(self.now, frame, &mut out);
                    self.got
                        .extend(got.map(|(from, data)| (from, data.to_vec())));
                    self.take(out);
                }
                continue;
            }
            let mut out = Vec::new();
            self.client.on_tick(self.now, &mut out);
            self.take(out);
            let mut out = Effects::default();
            self.server.on_tick(self.now, &mut out);
            self.settle(out);
        }
    }

    /// Until the client has answered a challenge.
    fn challenged(&mut self) {
        while self.client.requests.iter().all(|r| r.stale == 0) {
            self.now += Duration::from_millis(1);
            self.run(0);
        }
    }

    fn permit(&mut self, peer: &str, channel: bool) {
        let mut out = Vec::new();
        self.client
            .permit(self.now, address(peer), channel, &mut out);
        self.take(out);
    }

    fn send(&mut self, data: &[u8]) -> Result<usize, Unsent> {
        let mut frame = Vec::new();
        self.client.send(self.now, address(FAR), data, &mut frame)?;
        let len = frame.len();
        self.post(true, frame);
        Ok(len)
    }
}

fn alice() -> Credential {
    Credential::short_lived(SECRET, "alice", 1 << 40)
}

#[test]
fn data_goes_to_a_peer_and_back() {
    for stream in [false, true] {
        let mut w = World::new(server_config(), stream, alice(), 0.0);
        assert_eq!(w.send(b"early"), Err(Unsent::NotAllocated));
        w.run(1);
        let relayed = w.open[0].1;
        assert_eq!(
            w.events,
            [Event::Allocated {
                relayed: [relayed].into_iter().collect(),
                mapped: Some(address(AT)),
            }]
        );
        // One challenge, one request that holds.
        assert_eq!(w.requests, 2);
        assert_eq!(w.send(b"early"), Err(Unsent::NotPermitted));
        w.permit(FAR, false);
        w.run(1);
        assert_eq!(w.send(b"hello"), Ok(20 + 12 + 4 + 8));
        w.permit(FAR, true);
        w.run(1);
        assert_eq!(w.send(b"world"), Ok(if stream { 12 } else { 9 }));
        w.run(1);
        let far = address(FAR);
        assert_eq!(
            w.events[1..],
            [Event::Permitted(far.ip()), Event::Bound(far)]
        );
        assert_eq!(w.got, [(far, b"hello".to_vec()), (far, b"world".to_vec())]);
        assert_eq!(w.send(&[0; 65_001]), Err(Unsent::TooLong));
    }
}

#[test]
fn an_hour_passes_at_thirty_percent_loss_and_everything_holds() {
    for channel in [false, true] {
        let mut config = server_config();
        // Nonces that get old on the way, too.
        config.nonce_life = Duration::from_secs(400);
        let mut w = World::new(config, false, alice(), 0.3);
        w.run(40);
        w.permit(FAR, channel);
        w.run(40);
        let mut back = 0;
        for _ in 0..360 {
            w.got.clear();
            w.send(b"still there?").unwrap();
            w.run(10);
            back += w.got.len();
        }
        // Half of what is sent comes back over two ways that lose three of ten.
        assert!((140..215).contains(&back), "{back} came back");
        assert_eq!(w.server.stats().allocated, 1);
        assert!(!w.events.iter().any(|e| matches!(e, Event::Failed(_))));
    }
}

#[test]
fn what_is_given_back_is_gone_and_what_is_forgotten_ends() {
    let mut w = World::new(server_config(), false, alice(), 0.0);
    w.run(1);
    w.permit(FAR, true);
    w.run(1);
    w.client.forget(address(FAR).ip());
    assert_eq!(w.send(b"x"), Err(Unsent::NotPermitted));
    let asked = w.requests;
    w.run(400);
    assert_eq!(
        w.requests, asked,
        "nothing is renewed but the allocation, later"
    );
    let mut out = Vec::new();
    w.client.release(w.now, &mut out);
    w.take(out);
    w.run(1);
    assert_eq!(w.events.last(), Some(&Event::Failed(Failure::Released)));
    assert_eq!(
        (w.server.stats().allocations, w.client.deadline()),
        (0, None)
    );
}

#[test]
fn every_failure_is_told_as_what_it_is() {
    let fails = |config: Config, credential: Credential| {
        let mut w = World::new(config, false, credential, 0.0);
        w.run(60);
        match w.events.as_slice() {
            [Event::Failed(failure)] => *failure,
            other => panic!("no failure but {other:?}"),
        }
    };
    let wrong = Credential::short_lived(b"south", "alice", 1 << 40);
    assert_eq!(fails(server_config(), wrong), Failure::Unauthorized);
    let mut full = server_config();
    full.max_allocations = 0;
    assert_eq!(fails(full.clone(), alice()), Failure::Full(508));
    full.alternate = Some(address("192.0.2.9:3478"));
    assert_eq!(
        fails(full, alice()),
        Failure::Elsewhere(address("192.0.2.9:3478"))
    );
    let mut none = server_config();
    none.max_allocations_per_user = 0;
    assert_eq!(fails(none, alice()), Failure::Full(486));

    let mut w = World::new(server_config(), false, alice(), 0.0);
    w.dead = true;
    w.way.clear();
    w.run(39);
    assert_eq!((w.events.as_slice(), w.requests), (&[][..], 7));
    w.run(1);
    assert_eq!(w.events, [Event::Failed(Failure::NoAnswer)]);

    // A peer that the server does not send to.
    let mut w = World::new(server_config(), false, alice(), 0.0);
    w.run(1);
    for channel in [false, true] {
        w.events.clear();
        w.permit("10.0.0.1:1", channel);
        w.run(1);
        let ip = address("10.0.0.1:1").ip();
        assert_eq!(w.events, [Event::NotPermitted(ip, 403)]);
    }
    // A server that has started anew does not know us.
    w.server = TurnServer::new(server_config(), &mut Rng::from_seed(99));
    w.events.clear();
    w.run(600);
    assert_eq!(w.events, [Event::Failed(Failure::Mismatch)]);
}

#[test]
fn a_forged_success_is_not_believed() {
    let mut w = World::new(server_config(), false, alice(), 0.0);
    // The challenge comes, the answer does not.
    w.challenged();
    w.way.clear();
    let id = w.client.requests[0].transaction.id();
    let mut forged = Vec::new();
    Builder::new(&mut forged, Class::Success, Method::ALLOCATE, id)
        .put(&Attribute::XorRelayedAddress(address("6.6.6.6:6")))
        .put(&Attribute::Lifetime(600));
    let mut out = Vec::new();
    w.client.on_frame(w.now, Frame::Stun(&forged), &mut out);
    assert_eq!((out.len(), w.client.is_allocated()), (0, false));
    w.run(2);
    assert!(
        w.client.is_allocated(),
        "the true one comes at the second try"
    );
}

#[test]
fn users_with_passwords_hide_their_names() {
    let mut config = server_config();
    config.credentials.secrets.clear();
    let carol = Credential {
        name: "carol".into(),
        password: "pw".into(),
    };
    let mut w = World::new(config, false, carol, 0.0);
    w.challenged();
    let (_, _, request) = w.way.last().unwrap();
    let request = Message::decode(request).unwrap();
    assert!(request.value(kind::USERHASH).is_some() && request.value(kind::USERNAME).is_none());
    w.run(1);
    assert!(w.client.is_allocated());
}
