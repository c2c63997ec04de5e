//! Endpoints behind NATs of every kind, with real relays' cores, in virtual time.

use super::*;
use crate::stun::{datagram_frame, next_frame};
use crate::turn::credential::{Credential, Credentials};
use crate::turn::server::{
    Client, Config, Effect, Effects, HEADROOM, RelayAddress, RelayId as ServerRelay, TAILROOM,
    TurnServer,
};
use std::collections::BTreeSet;

const SECRET: &[u8] = b"north";
const UNIX: u64 = 1_700_000_000;
/// One way, between any two public addresses.
const DELAY: Duration = Duration::from_millis(10);

/// What a NAT does, named as in the laboratory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nat {
    Open,
    Wall,
    Full,
    Addr,
    Port,
    Sym,
    NoUdp,
    Web,
}

const ALL: [Nat; 8] = [
    Nat::Open,
    Nat::Wall,
    Nat::Full,
    Nat::Addr,
    Nat::Port,
    Nat::Sym,
    Nat::NoUdp,
    Nat::Web,
];

impl Nat {
    fn has_udp(self) -> bool {
        !matches!(self, Self::NoUdp | Self::Web)
    }

    /// Whether UDP holes can be punched between the two: what theory says.
    fn meets(self, other: Self) -> bool {
        let hard = |n| matches!(n, Self::Port | Self::Wall | Self::Sym);
        let udp = self.has_udp() && other.has_udp();
        let sym = |a, b| a == Self::Sym && hard(b);
        udp && !sym(self, other) && !sym(other, self)
    }
}

/// One home: a node and what is between it and the world.
struct Home {
    nat: Nat,
    own: SocketAddr,
    public: IpAddr,
    endpoint: Endpoint,
    /// Mappings: the destination, if each has its own, and the port outside.
    mapped: BTreeMap<Option<SocketAddr>, u16>,
    /// Where it sent to lately.
    asked: BTreeMap<SocketAddr, Time>,
    next_port: u16,
    session: Option<SessionId>,
    way: Option<InUse>,
    /// Numbers of what came, and when.
    came: Vec<(Time, u32)>,
    tcp: BTreeMap<RelayId, usize>,
}

struct Relayer {
    at: Vec<SocketAddr>,
    server: TurnServer,
    open: Vec<(ServerRelay, SocketAddr)>,
    alive: bool,
    delay: Duration,
}

enum Event {
    /// In the public network.
    Udp(SocketAddr, SocketAddr, Vec<u8>),
    Open(usize, RelayId, SocketAddr),
    Up(usize, usize, RelayId, Vec<u8>),
    Down(usize, RelayId, Vec<u8>),
    Closed(usize, RelayId),
    Letter(usize, Vec<u8>),
}

struct World {
    now: Time,
    queue: BTreeMap<(Time, u64), Event>,
    seq: u64,
    homes: Vec<Home>,
    relays: Vec<Relayer>,
    rng: Rng,
    lifetime: Duration,
}

fn identity(n: usize) -> Identity {
    Identity::from_secret(&[n as u8 + 1; 32])
}

impl World {
    fn new(relays: usize) -> Self {
        let relays = (0..relays).map(|n| {
            let ip = IpAddr::from([44, 1, 0, n as u8 + 1]);
            let config = Config {
                credentials: Credentials {
                    secrets: vec![SECRET.to_vec()],
                    users: BTreeMap::new(),
                },
                relay_v4: Some(RelayAddress {
                    bind: ip,
                    public: ip,
                }),
                unix_at_zero: UNIX,
                ..Config::default()
            };
            Relayer {
                at: vec![(ip, 3478).into(), (ip, 80).into()],
                server: TurnServer::new(config, &mut Rng::from_seed(n as u64)),
                open: Vec::new(),
                alive: true,
                delay: DELAY,
            }
        });
        Self {
            now: Time::from_secs(1),
            queue: BTreeMap::new(),
            seq: 0,
            relays: relays.collect(),
            homes: Vec::new(),
            rng: Rng::from_seed(7),
            lifetime: Duration::from_secs(30),
        }
    }

    fn tickets(&self) -> Vec<Ticket> {
        let live = self.relays.iter().filter(|r| r.alive);
        live.map(|r| Ticket {
            at: r.at.clone(),
            credential: Credential::short_lived(SECRET, "a", UNIX + 100_000),
        })
        .collect()
    }

    fn add(&mut self, nat: Nat) -> usize {
        let n = self.homes.len();
        let public = IpAddr::from([44, 0, 0, n as u8 + 1]);
        let own = match nat {
            Nat::Open | Nat::Wall => SocketAddr::new(public, 5000),
            _ => ([192, 168, n as u8, 2], 5000).into(),
        };
        let mut seeded = Rng::from_seed(n as u64 + 50);
        let random: Random = Box::new(move |buf| seeded.fill(buf));
        let epoch = UNIX * 1_000_000;
        let endpoint = Endpoint::new(identity(n), vec![own], true, epoch, random);
        self.homes.push(Home {
            nat,
            own,
            public,
            endpoint,
            mapped: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_port: 20_000 + 100 * n as u16,
            session: None,
            way: None,
            came: Vec::new(),
            tcp: BTreeMap::new(),
        });
        let tickets = self.tickets();
        self.with(n, |e, now, out| e.offer(now, tickets, out));
        n
    }

    fn later(&mut self, delay: Duration, event: Event) {
        self.seq += 1;
        self.queue.insert((self.now + delay, self.seq), event);
    }

    fn with(&mut self, n: usize, act: impl FnOnce(&mut Endpoint, Time, &mut Vec<Output>)) {
        let mut out = Vec::new();
        act(&mut self.homes[n].endpoint, self.now, &mut out);
        self.act(n, out);
    }

    fn act(&mut self, n: usize, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Udp(to, bytes) => self.leave(n, to, bytes),
                Output::Open { id, to, .. } => self.later(DELAY * 2, Event::Open(n, id, to)),
                Output::Tcp(id, bytes) => {
                    if let Some(relay) = self.homes[n].tcp.get(&id) {
                        let relay = *relay;
                        self.later(DELAY, Event::Up(relay, n, id, bytes));
                    }
                }
                Output::Close(id) => drop(self.homes[n].tcp.remove(&id)),
                Output::Letter(to, letter) => {
                    let to = (0..self.homes.len()).find(|h| identity(*h).id() == to);
                    if let Some(to) = to {
                        self.later(DELAY * 2, Event::Letter(to, letter));
                    }
                }
                Output::Way(id, way) => {
                    let home = &mut self.homes[n];
                    home.session = Some(id);
                    home.way = way;
                }
            }
        }
    }

    fn delay(&self, a: IpAddr, b: IpAddr) -> Duration {
        let of = |ip| self.relays.iter().find(|r| r.at[0].ip() == ip);
        of(a).or(of(b)).map_or(DELAY, |r| r.delay)
    }

    /// A packet leaves a home through its NAT.
    fn leave(&mut self, n: usize, to: SocketAddr, bytes: Vec<u8>) {
        let (now, rng) = (self.now, &mut self.rng);
        let home = &mut self.homes[n];
        if !home.nat.has_udp() || matches!(to.ip(), IpAddr::V4(ip) if ip.is_private()) {
            return;
        }
        let port = match home.nat {
            Nat::Open | Nat::Wall => home.own.port(),
            Nat::Sym => *home
                .mapped
                .entry(Some(to))
                .or_insert_with(|| 30_000 + rng.below(30_000) as u16),
            _ => {
                home.next_port += 1;
                *home.mapped.entry(None).or_insert(home.next_port)
            }
        };
        home.asked.insert(to, now);
        let from = SocketAddr::new(home.public, port);
        let delay = self.delay(from.ip(), to.ip());
        self.later(delay, Event::Udp(from, to, bytes));
    }

    /// Whether a home's NAT lets a packet in.
    fn lets_in(&self, home: &Home, from: SocketAddr, port: u16) -> bool {
        let fresh = |at: &Time| self.now.since(*at) < self.lifetime;
        let asked = home.asked.get(&from).is_some_and(fresh);
        let asked_ip = || {
            home.asked
                .iter()
                .any(|(a, at)| a.ip() == from.ip() && fresh(at))
        };
        let cone = home.mapped.get(&None) == Some(&port);
        match home.nat {
            Nat::Open => port == home.own.port(),
            Nat::Wall => port == home.own.port() && asked,
            Nat::Full => cone && home.asked.values().any(fresh),
            Nat::Addr => cone && asked_ip(),
            Nat::Port => cone && asked,
            Nat::Sym => home.mapped.get(&Some(from)) == Some(&port) && asked,
            Nat::NoUdp | Nat::Web => false,
        }
    }

    /// A NAT forgets everything, as when it is started again.
    fn flush(&mut self, n: usize) {
        self.homes[n].mapped.clear();
        self.homes[n].asked.clear();
    }

    fn kill(&mut self, relay: usize) {
        self.relays[relay].alive = false;
        for n in 0..self.homes.len() {
            let of = |(id, r): (&RelayId, &usize)| (*r == relay).then_some(*id);
            for id in self.homes[n].tcp.iter().filter_map(of).collect::<Vec<_>>() {
                self.later(DELAY, Event::Closed(n, id));
            }
        }
    }

    /// Does what a relay's server wants.
    fn settle(&mut self, r: usize, mut out: Effects) {
        loop {
            let list = std::mem::take(&mut out.list);
            let bytes = std::mem::take(&mut out.bytes);
            if list.is_empty() {
                return;
            }
            for effect in list {
                match effect {
                    Effect::Reply(Client::Udp(_, to), range) => {
                        let from = self.relays[r].at[0];
                        let delay = self.relays[r].delay;
                        self.later(delay, Event::Udp(from, to, bytes[range].to_vec()));
                    }
                    Effect::Reply(Client::Stream(s), range) => {
                        let (n, id) = ((s >> 32) as usize, s as RelayId);
                        self.later(DELAY, Event::Down(n, id, bytes[range].to_vec()));
                    }
                    Effect::OpenRelay(id, at) => {
                        let relay = &mut self.relays[r];
                        let used = relay.open.iter().any(|(_, a)| *a == at);
                        let bound = (!used).then_some(at);
                        relay.open.extend(bound.map(|at| (id, at)));
                        relay.server.on_relay(self.now, id, bound, &mut out);
                    }
                    Effect::CloseRelay(id) => self.relays[r].open.retain(|(i, _)| *i != id),
                }
            }
        }
    }

    fn serve(&mut self, r: usize, client: Client, from: SocketAddr, bytes: &[u8]) {
        let frame = match client {
            Client::Udp(..) => datagram_frame(bytes),
            Client::Stream(_) => next_frame(bytes).ok().flatten().map(|(f, _)| f),
        };
        let Some(frame) = frame.filter(|_| self.relays[r].alive) else {
            return;
        };
        let mut out = Effects::default();
        let now = self.now;
        let relay = &mut self.relays[r];
        if let Some(sent) = relay.server.on_client(now, client, from, frame, &mut out) {
            let by = relay.open.iter().find(|(id, _)| *id == sent.relay).unwrap();
            let event = Event::Udp(by.1, sent.to, sent.data.to_vec());
            self.later(DELAY, event);
        }
        self.settle(r, out);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Udp(from, to, bytes) => {
                if let Some(r) = self.relays.iter().position(|r| r.at[0].ip() == to.ip()) {
                    if self.relays[r].at.contains(&to) {
                        return self.serve(r, Client::Udp(0, from), from, &bytes);
                    }
                    let relay = &mut self.relays[r];
                    let open = relay.open.iter().find(|(_, a)| *a == to).copied();
                    let Some((id, _)) = open.filter(|_| relay.alive) else {
                        return;
                    };
                    let mut buffer = vec![0; HEADROOM + bytes.len() + TAILROOM];
                    let range = HEADROOM..HEADROOM + bytes.len();
                    buffer[range.clone()].copy_from_slice(&bytes);
                    let sent = relay.server.on_peer(self.now, id, from, &mut buffer, range);
                    if let Some(sent) = sent {
                        let bytes = buffer[sent.bytes].to_vec();
                        let (at, delay) = (relay.at[0], relay.delay);
                        match sent.client {
                            Client::Udp(_, to) => self.later(delay, Event::Udp(at, to, bytes)),
                            Client::Stream(s) => {
                                let (n, id) = ((s >> 32) as usize, s as RelayId);
                                self.later(DELAY, Event::Down(n, id, bytes));
                            }
                        }
                    }
                    return;
                }
                let home = self.homes.iter().position(|h| h.public == to.ip());
                if let Some(n) = home.filter(|n| self.lets_in(&self.homes[*n], from, to.port())) {
                    let mut out = Vec::new();
                    let now = self.now;
                    let came = self.homes[n].endpoint.on_udp(now, from, &bytes, &mut out);
                    let came = came.map(|(s, data)| (s, data.to_vec()));
                    self.came(n, came);
                    self.act(n, out);
                }
            }
            Event::Open(n, id, to) => {
                let allowed = self.homes[n].nat != Nat::Web || matches!(to.port(), 80 | 443);
                let relay = self
                    .relays
                    .iter()
                    .position(|r| r.at.contains(&to) && r.alive);
                match relay.filter(|_| allowed) {
                    Some(r) => {
                        self.homes[n].tcp.insert(id, r);
                        self.with(n, |e, now, out| e.on_open(now, id, out));
                    }
                    None => self.with(n, |e, now, out| e.on_closed(now, id, out)),
                }
            }
            Event::Up(r, n, id, bytes) => {
                let client = Client::Stream(((n as u64) << 32) | u64::from(id));
                let from = SocketAddr::new(self.homes[n].public, id as u16);
                self.serve(r, client, from, &bytes);
            }
            Event::Down(n, id, bytes) => {
                let mut out = Vec::new();
                let mut came = Vec::new();
                let now = self.now;
                let endpoint = &mut self.homes[n].endpoint;
                endpoint.on_tcp(now, id, &bytes, &mut out, |s, d| came.push((s, d.to_vec())));
                came.into_iter().for_each(|c| self.came(n, Some(c)));
                self.act(n, out);
            }
            Event::Closed(n, id) => {
                self.homes[n].tcp.remove(&id);
                self.with(n, |e, now, out| e.on_closed(now, id, out));
            }
            Event::Letter(n, letter) => self.with(n, |e, now, out| e.on_letter(now, &letter, out)),
        }
    }

    fn came(&mut self, n: usize, came: Option<(SessionId, Vec<u8>)>) {
        if let Some((session, data)) = came
            && let Some(number) = data.get(1..5).and_then(|b| b.try_into().ok())
        {
            self.homes[n]
                .came
                .push((self.now, u32::from_be_bytes(number)));
            self.homes[n].session = Some(session);
            self.with(n, |e, now, _| e.hold(now, session, true));
        }
    }

    /// Sends a datagram as somebody above does.
    fn say(&mut self, n: usize, number: u32) {
        let Some(session) = self.homes[n].session else {
            return;
        };
        let mut data = vec![0xc0];
        data.extend(number.to_be_bytes());
        data.extend([0; 100]);
        let now = self.now;
        let way = self.homes[n].endpoint.way(now, session);
        match way {
            Some(Way::Direct(to)) => self.leave(n, to, data),
            Some(Way::Relay(id, peer)) => {
                let mut frame = Vec::new();
                let endpoint = &mut self.homes[n].endpoint;
                match endpoint.frame(now, id, peer, &data, &mut frame) {
                    Ok(Some(to)) => self.leave(n, to, frame),
                    Ok(None) => self.act(n, vec![Output::Tcp(id, frame)]),
                    Err(_) => {}
                }
            }
            None => {}
        }
    }

    fn runs(&mut self, span: Duration) {
        let end = self.now + span;
        let mut steps = 0;
        loop {
            let due = self.homes.iter().enumerate();
            let due = due.map(|(n, h)| (h.endpoint.deadline(), n)).min().unwrap();
            let next = self.queue.keys().next().copied();
            let at = due.0.min(next.map_or(Time::FAR, |n| n.0));
            if at > end {
                break;
            }
            steps += 1;
            assert!(steps < 1_000_000, "time stands still: {due:?}");
            self.now = self.now.max(at);
            match next {
                Some(key) if key.0 <= at => {
                    let event = self.queue.remove(&key).unwrap();
                    self.happen(event);
                }
                _ => self.with(due.1, Endpoint::on_tick),
            }
        }
        self.now = end;
    }

    /// Two talk, each sending every 20 ms.
    fn talk(&mut self, a: usize, b: usize, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            let number = (self.now.as_micros() / 1000) as u32;
            self.say(a, number);
            self.say(b, number);
            self.runs(Duration::from_millis(20));
        }
    }

    /// The longest time without anything, since `from`.
    fn gap(&self, n: usize, from: Time) -> Duration {
        let came = self.homes[n]
            .came
            .iter()
            .map(|(at, _)| *at)
            .filter(|at| *at >= from);
        let ends = std::iter::once(from).chain(came.clone());
        let next = came.chain(std::iter::once(self.now));
        ends.zip(next).map(|(a, b)| b.since(a)).max().unwrap()
    }

    /// Both ends have a way; how long that took.
    fn meet(&mut self, a: usize, b: usize) -> Option<Duration> {
        let began = self.now;
        let to = identity(b).id();
        let mut id = None;
        self.with(a, |e, now, out| id = e.open(now, to, out));
        self.homes[a].session = id;
        let end = self.now + Duration::from_secs(20);
        while self.now < end {
            self.runs(Duration::from_millis(10));
            if self.homes[a].way.is_some() && self.homes[b].way.is_some() {
                return Some(self.now.since(began));
            }
        }
        None
    }

    fn hops(&self, n: usize) -> u8 {
        self.homes[n].way.expect("a way").hops
    }
}

#[test]
fn every_pair_meets_and_directly_exactly_where_holes_can_be_punched() {
    let mut slowest = Duration::ZERO;
    for a in ALL {
        for b in ALL {
            let mut w = World::new(2);
            let (one, two) = (w.add(a), w.add(b));
            w.runs(Duration::from_secs(3));
            let took = w.meet(one, two);
            let took = took
                .unwrap_or_else(|| panic!("{a:?} and {b:?}: {}", w.homes[one].endpoint.why_not(1)));
            slowest = slowest.max(took);
            w.talk(one, two, Duration::from_secs(5));
            let since = w.now;
            w.talk(one, two, Duration::from_secs(5));
            for n in [one, two] {
                let direct = w.hops(n) == 0;
                assert_eq!(direct, a.meets(b), "{a:?} to {b:?}: {:?}", w.homes[n].way);
                assert!(
                    w.gap(n, since) < Duration::from_millis(100),
                    "{a:?} to {b:?}"
                );
            }
        }
    }
    assert!(slowest < Duration::from_millis(600), "{slowest:?}");
}

#[test]
fn who_hides_is_reached_by_relays_and_tells_no_address() {
    for other in ALL {
        let mut w = World::new(2);
        let (one, two) = (w.add(Nat::Open), w.add(other));
        w.homes[one].endpoint.hide();
        w.runs(Duration::from_secs(3));
        w.meet(two, one).expect("they meet");
        w.talk(one, two, Duration::from_secs(5));
        let since = w.now;
        w.talk(one, two, Duration::from_secs(5));
        for n in [one, two] {
            assert!(w.hops(n) > 0, "{other:?}: {:?}", w.homes[n].way);
            assert!(w.gap(n, since) < Duration::from_millis(100), "{other:?}");
        }
        let address = w.homes[one].public;
        let knows = w.homes[two].endpoint.ways.keys();
        assert!(knows.clone().all(|way| way.peer.ip() != address));
    }
}

#[test]
fn a_relay_that_dies_is_left_within_a_second_and_a_half() {
    for (a, b) in [
        (Nat::Sym, Nat::Sym),
        (Nat::Port, Nat::Sym),
        (Nat::NoUdp, Nat::Sym),
        (Nat::Web, Nat::NoUdp),
    ] {
        let mut w = World::new(3);
        let (one, two) = (w.add(a), w.add(b));
        w.runs(Duration::from_secs(3));
        w.meet(one, two).expect("they meet");
        w.talk(one, two, Duration::from_secs(5));
        let mut killed = BTreeSet::new();
        // The relay in use, and then the next.
        for _ in 0..2 {
            let way = w.homes[one].way.expect("a way");
            let base = match way.path.base {
                Base::Direct => way.path.peer.ip(),
                Base::Relay(id) => {
                    let relays = w.homes[one].endpoint.relays();
                    let own = relays.in_use().find(|r| r.id == id);
                    own.expect("a relay of ours").at.ip()
                }
            };
            let relay = w.relays.iter().position(|r| r.at[0].ip() == base);
            let relay = relay.expect("a relay");
            assert!(
                killed.insert(relay),
                "{a:?} to {b:?}: a dead relay is in use"
            );
            let since = w.now;
            w.kill(relay);
            w.talk(one, two, Duration::from_secs(12));
            for n in [one, two] {
                let gap = w.gap(n, since);
                assert!(gap < Duration::from_millis(1500), "{a:?} to {b:?}: {gap:?}");
            }
        }
    }
}

#[test]
fn a_nat_that_forgets_costs_less_than_three_seconds() {
    for a in ALL {
        for b in [Nat::Port, Nat::Sym, Nat::Full] {
            if !a.has_udp() {
                continue;
            }
            let mut w = World::new(2);
            let (one, two) = (w.add(a), w.add(b));
            w.runs(Duration::from_secs(3));
            w.meet(one, two).expect("they meet");
            w.talk(one, two, Duration::from_secs(6));
            for n in [one, two] {
                let since = w.now;
                w.flush(n);
                w.talk(one, two, Duration::from_secs(10));
                for n in [one, two] {
                    let gap = w.gap(n, since);
                    assert!(gap < Duration::from_secs(3), "{a:?} to {b:?}: {gap:?}");
                }
            }
        }
    }
}

#[test]
fn mappings_of_thirty_seconds_hold_through_silence() {
    for (a, b) in [
        (Nat::Port, Nat::Port),
        (Nat::Sym, Nat::Sym),
        (Nat::Addr, Nat::Sym),
    ] {
        let mut w = World::new(2);
        let (one, two) = (w.add(a), w.add(b));
        w.runs(Duration::from_secs(3));
        w.meet(one, two).expect("they meet");
        w.talk(one, two, Duration::from_secs(3));
        w.runs(Duration::from_secs(600));
        let since = w.now;
        w.talk(one, two, Duration::from_secs(1));
        for n in [one, two] {
            assert!(
                w.gap(n, since) < Duration::from_millis(100),
                "{a:?} to {b:?}"
            );
        }
    }
}

#[test]
fn the_relay_with_the_shortest_way_is_taken() {
    let mut w = World::new(3);
    for (relay, ms) in w.relays.iter_mut().zip([150, 10, 50]) {
        relay.delay = Duration::from_millis(ms);
    }
    let (one, two) = (w.add(Nat::Sym), w.add(Nat::Sym));
    w.runs(Duration::from_secs(4));
    w.meet(one, two).expect("they meet");
    w.talk(one, two, Duration::from_secs(5));
    for n in [one, two] {
        let way = w.homes[n].way.expect("a way");
        assert_eq!(way.hops, 1);
        assert!(way.rtt < Duration::from_millis(60), "{way:?}");
    }
}

#[test]
fn a_relay_that_loses_packets_is_left_for_another() {
    let mut w = World::new(2);
    let (one, two) = (w.add(Nat::Sym), w.add(Nat::Sym));
    w.runs(Duration::from_secs(3));
    w.meet(one, two).expect("they meet");
    w.talk(one, two, Duration::from_secs(5));
    let session = w.homes[one].session.expect("a session");
    let relay = |w: &World| {
        let way = w.homes[one].way.expect("a way");
        let relays = w.homes[one].endpoint.relays();
        let ours = relays.in_use().find(|r| way.path.base == Base::Relay(r.id));
        ours.map_or(way.path.peer.ip(), |r| r.at.ip())
    };
    let first = relay(&w);
    let carried = |w: &mut World, lost| {
        for _ in 0..4 {
            w.with(one, |e, now, out| {
                e.on_carried(now, session, 100, lost, out);
            });
            w.talk(one, two, Duration::from_secs(1));
        }
    };
    carried(&mut w, 0);
    assert_eq!(relay(&w), first);
    carried(&mut w, 8);
    assert_ne!(relay(&w), first);
    // It stays so while the other is better.
    carried(&mut w, 1);
    assert_ne!(relay(&w), first);
}

#[test]
fn who_is_not_there_is_named_as_the_reason() {
    let mut w = World::new(1);
    let one = w.add(Nat::Port);
    w.runs(Duration::from_secs(3));
    let nobody = identity(77).id();
    w.with(one, |e, now, out| {
        e.open(now, nobody, out);
    });
    w.runs(Duration::from_secs(20));
    let why = w.homes[one].endpoint.why_not(1);
    assert!(why.starts_with("signalling"), "{why}");
}

#[test]
fn letters_of_strangers_leave_nothing_behind() {
    let mut w = World::new(1);
    let one = w.add(Nat::Open);
    w.runs(Duration::from_secs(3));
    let me = identity(one).id();
    for n in 0..400u32 {
        let mut secret = [3; 32];
        secret[..4].copy_from_slice(&n.to_be_bytes());
        let stranger = Identity::from_secret(&secret);
        let mut agent = Agent::new(w.now, 1, [1; 24], &mut w.rng);
        let mut out = Vec::new();
        agent.set_local(w.now, Vec::new(), Vec::new(), &mut out);
        let Some(agent::Output::Signal(signal)) = out.pop() else {
            panic!("it tells");
        };
        let letter = sealed::seal(&stranger, &me, secret, &signal.encode()).unwrap();
        w.with(one, |e, now, out| e.on_letter(now, &letter, out));
    }
    assert_eq!(w.homes[one].endpoint.sessions.len(), MAX_ASKED);
    w.runs(Duration::from_secs(40));
    assert_eq!(w.homes[one].endpoint.sessions.len(), 0);
    assert_eq!(w.homes[one].endpoint.ways.len(), 0);
}
