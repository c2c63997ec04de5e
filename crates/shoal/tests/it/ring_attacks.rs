//! Attacks on running members of a ring, on sockets: what SECURITY.md says that they bring.

use crate::process::{Running, World};
use crate::ring::{dht, ring};
use ed25519_dalek::SigningKey;
use shoal_base::{Rng, Time};
use shoal_dht::chord::{
    Contact, Endpoint, Limits, Message, Place, RingId, Settings, position, raw,
};
use shoal_dht::{Dht, Id, Item, Mutable, Output};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A socket, and the clock of who uses it.
struct Door {
    socket: UdpSocket,
    began: Instant,
}

impl Door {
    fn open() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let began = Instant::now();
        Self { socket, began }
    }

    fn now(&self) -> Time {
        Time::from_secs(1000) + self.began.elapsed()
    }

    fn at(&self) -> SocketAddr {
        self.socket.local_addr().expect("it is bound")
    }

    fn post(&self, out: Vec<Output>) {
        for output in out {
            if let Output::Send { to, bytes } = output {
                // Whoever has gone is not there to be sent to.
                let _ = self.socket.send_to(&bytes, to);
            }
        }
    }

    fn hear(&self, within: Duration) -> Option<(SocketAddr, Vec<u8>)> {
        let within = within.max(Duration::from_millis(1));
        self.socket
            .set_read_timeout(Some(within))
            .expect("not zero");
        let mut bytes = vec![0; 2048];
        let (len, from) = self.socket.recv_from(&mut bytes).ok()?;
        bytes.truncate(len);
        Some((from, bytes))
    }

    /// All that comes until it has been quiet for so long.
    fn drain(&self, quiet: Duration) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.hear(quiet).map(|(_, bytes)| bytes)).collect()
    }
}

/// A member that says what it likes.
struct Liar {
    door: Door,
    line: raw::Line,
}

impl Liar {
    fn new() -> Self {
        let key = SigningKey::from_bytes(&[77; 32]);
        let line = raw::Line::new(key, "shoal", b"", Rng::from_seed(1));
        let door = Door::open();
        Self { door, line }
    }

    fn say(&mut self, to: SocketAddr, body: Vec<u8>) {
        let mut out = Vec::new();
        self.line.say(self.door.now(), to, body, &mut out);
        self.door.post(out);
    }

    /// The next body that somebody says to it.
    fn hear(&mut self, within: Duration) -> Option<(SocketAddr, Vec<u8>)> {
        let until = Instant::now() + within;
        loop {
            let left = until.checked_duration_since(Instant::now())?;
            let (from, bytes) = self.door.hear(left)?;
            let (now, mut out) = (self.door.now(), Vec::new());
            let body = self.line.hear(now, from, &bytes, &mut out);
            self.door.post(out);
            if let Some(body) = body {
                return Some((from, body));
            }
        }
    }
}

fn socket(addr: &str) -> SocketAddr {
    addr.parse().expect("an address")
}

/// A ring in which everybody knows enough others for a put to reach four.
fn settled(world: &World, n: usize) -> (Vec<Running>, Vec<String>) {
    let (mut nodes, at) = ring(world, n, &[]);
    for node in &mut nodes {
        node.wait_for("members enough", |v| v["contacts"].as_u64() >= Some(4));
    }
    (nodes, at)
}

fn put_all(world: &World, via: &str, count: usize) -> Vec<(String, String)> {
    let values = (0..count).map(|i| format!("value {i}"));
    values
        .map(|value| {
            let ran = world.run(&dht("put", via, &[&value])).expect(0);
            (ran.stdout.trim_end().to_owned(), value)
        })
        .collect()
}

fn got(world: &World, via: &str, name: &str, more: &[&str]) -> Option<String> {
    let mut args = vec![name];
    args.extend(more);
    let ran = world.run(&dht("get", via, &args));
    (ran.code == 0).then(|| ran.stdout.trim_end().to_owned())
}

#[test]
fn a_flood_of_hellos_gets_no_more_than_it_sends_and_the_ring_answers_on() {
    let world = World::new();
    let (_nodes, at) = ring(&world, 3, &[]);
    let kept = put_all(&world, &at[0], 1).remove(0);
    let flooder = Door::open();
    let mut line = Liar::new().line;
    let mut out = Vec::new();
    line.say(flooder.now(), socket(&at[1]), vec![1], &mut out);
    let [Output::Send { bytes: hello, .. }] = &out[..] else {
        panic!("one hello: {out:?}");
    };
    let stop = AtomicBool::new(false);
    let (sent, came, answers) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let (mut sent, mut came, mut answers) = (0, 0, 0);
            while !stop.load(Ordering::Relaxed) && sent < 200_000 * hello.len() {
                for _ in 0..50 {
                    let _ = flooder.socket.send_to(hello, socket(&at[1]));
                    sent += hello.len();
                }
                while let Some((_, bytes)) = flooder.hear(Duration::from_millis(1)) {
                    came += bytes.len();
                    answers += 1;
                }
            }
            (sent, came, answers)
        });
        // In the midst of it a stranger to all of them joins at that very node, and asks.
        let value = got(&world, &at[1], &kept.0, &["--timeout", "20"]);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(value.as_ref(), Some(&kept.1));
        flood.join().expect("it ends")
    });
    assert!(answers > 0, "not one was answered: this attacks nothing");
    assert!(came <= sent, "{came} bytes for {sent}");
    assert_eq!(got(&world, &at[1], &kept.0, &[]), Some(kept.1));
}

#[test]
fn what_was_overheard_and_changed_changes_nothing() {
    let world = World::new();
    let (_nodes, at) = ring(&world, 3, &[]);
    // Whoever joins through this door is heard.
    let (wire, upstream) = (Door::open(), Door::open());
    let node = socket(&at[1]);
    let stop = AtomicBool::new(false);
    let log = std::thread::scope(|scope| {
        let tap = scope.spawn(|| {
            let (mut log, mut user) = (Vec::new(), None);
            while !stop.load(Ordering::Relaxed) {
                if let Some((from, bytes)) = wire.hear(Duration::from_millis(2)) {
                    user = Some(from);
                    let _ = upstream.socket.send_to(&bytes, node);
                    log.push(bytes);
                }
                if let (Some((_, bytes)), Some(user)) =
                    (upstream.hear(Duration::from_millis(2)), user)
                {
                    let _ = wire.socket.send_to(&bytes, user);
                }
            }
            log
        });
        let through = wire.at().to_string();
        let args = ["--key", "me.key", "--seq", "5", "five"];
        world.run(&dht("put", &through, &args)).expect(0);
        let name = put_all(&world, &through, 1).remove(0);
        assert_eq!(got(&world, &through, &name.0, &[]), Some(name.1));
        stop.store(true, Ordering::Relaxed);
        tap.join().expect("it ends")
    });
    assert!(log.len() > 5, "{} datagrams were overheard", log.len());
    let elsewhere = Door::open();
    let quiet = Duration::from_millis(200);
    upstream.drain(quiet);
    let mut sessions = 0;
    for bytes in &log {
        let _ = upstream.socket.send_to(bytes, node);
        for at in [0, 3, 4, 12, 20, bytes.len() - 1] {
            let mut forged = bytes.clone();
            if let Some(byte) = forged.get_mut(at) {
                *byte ^= 1;
            }
            let _ = upstream.socket.send_to(&forged, node);
        }
        let _ = elsewhere.socket.send_to(bytes, node);
        // Hellos are answered by anybody's; what belongs to a session is not.
        if bytes.get(3).is_some_and(|kind| *kind > 3) {
            sessions += 1;
            for answer in elsewhere.drain(Duration::from_millis(5)) {
                assert!(answer.len() <= 8, "{} bytes for a stranger", answer.len());
            }
        } else {
            elsewhere.drain(Duration::from_millis(5));
        }
    }
    assert!(sessions > 2, "{sessions} datagrams of a session");
    upstream.drain(quiet);
    // What was put is there, once; a put that was replayed did not come back as newer.
    let args = ["--key", "me.key", "--seq", "6", "six"];
    world.run(&dht("put", &at[2], &args)).expect(0);
    for bytes in &log {
        let _ = upstream.socket.send_to(bytes, node);
    }
    upstream.drain(quiet);
    let late = ["--key", "me.key", "--seq", "5", "five"];
    world.run(&dht("put", &at[0], &late)).expect(5);
}

#[test]
fn forged_late_and_oversized_puts_are_refused_by_every_member() {
    let world = World::new();
    let (_nodes, at) = ring(&world, 3, &[]);
    let key = SigningKey::from_bytes(&[9; 32]);
    let signed = |seq, value: &str| {
        let value = format!("{}:{value}", value.len()).into_bytes();
        Mutable::sign(&key, b"", seq, value).expect("valid")
    };
    let mutable = |m: Mutable| Item::Mutable(Box::new(m));
    let mut liar = Liar::new();
    let good = mutable(signed(5, "good"));
    let mut answer = |to: &str, number, body| {
        liar.say(socket(to), body);
        let until = Instant::now() + Duration::from_secs(20);
        while let Some((from, body)) = liar.hear(until - Instant::now()) {
            match raw::stored(&body, from, &[0; 32]) {
                Some((n, stored)) if n == number => return Some(stored),
                _ => {}
            }
        }
        None
    };
    for member in &at {
        assert_eq!(
            answer(member, 1, raw::put(1, good.clone(), None)),
            Some(true)
        );
    }
    let wrong = [
        mutable(signed(4, "late")),
        mutable(signed(5, "other")),
        mutable(Mutable {
            seq: 9,
            ..signed(6, "forged")
        }),
        mutable(Mutable {
            value: b"6:forged".to_vec(),
            ..signed(7, "right!")
        }),
    ];
    for member in &at {
        for (number, item) in (2..).zip(&wrong) {
            let body = raw::put(number, item.clone(), None);
            assert_eq!(answer(member, number, body), Some(false), "{item:?}");
        }
        // One byte more than a value may have is no body at all, and the session goes on.
        let mut long = raw::put(50, mutable(signed(8, &"x".repeat(990))), None);
        let length = long.len() - 994 - 2;
        long[length] = 0xff;
        let to = socket(member);
        answer_nothing(&mut Liar::new(), to, long);
        let again = raw::put(60, good.clone(), None);
        assert_eq!(answer(member, 60, again), Some(true));
    }
    let key: String = key
        .verifying_key()
        .to_bytes()
        .map(|b| format!("{b:02x}"))
        .concat();
    let ran = world.run(&dht("get", &at[0], &[&key])).expect(0);
    assert_eq!(ran.stdout.trim_end(), "good");
}

/// Says it, and hears nothing about it; a question after it shows that it had arrived.
fn answer_nothing(liar: &mut Liar, to: SocketAddr, body: Vec<u8>) {
    liar.say(to, body);
    let asked = raw::get(51, Id::hash(b"nothing"));
    liar.say(to, asked);
    let heard = liar.hear(Duration::from_secs(20));
    assert!(heard.is_some(), "the question after it is answered");
    assert_eq!(liar.hear(Duration::from_millis(200)), None);
}

#[test]
fn invented_neighbours_hurt_nobody_for_long() {
    let world = World::new();
    let (_nodes, at) = settled(&world, 5);
    let values = put_all(&world, &at[0], 8);
    let mut liar = Liar::new();
    let place = liar.line.place(liar.door.at());
    // One of the inventions is somebody who has nothing to do with it.
    let victim = Door::open();
    let mut id = place.id;
    let fakes: Vec<Contact<Id, Place>> = (0..8)
        .map(|n| {
            id = id.plus_power(100 + n);
            let socket = victim.at();
            let place = Place {
                id,
                index: 0,
                socket,
            };
            Contact::new(id, place)
        })
        .collect();
    let (mut asked, begun) = (0, Instant::now());
    for round in 0.. {
        for member in &at {
            let notify = Message::Notify { id: place.id };
            liar.say(socket(member), raw::ring(0, 0, notify));
        }
        let until = Instant::now() + Duration::from_secs(1);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let Some((from, body)) = liar.hear(left) else {
                break;
            };
            let answer = match raw::read_ring(&body, from, &[0; 32]) {
                Some(Message::GetNeighbours { nonce }) => Message::Neighbours {
                    nonce,
                    predecessor: fakes.first().copied(),
                    successors: fakes.clone().into(),
                },
                Some(Message::Ping { nonce }) => Message::Pong { nonce },
                Some(Message::Query(query)) => Message::Taken { nonce: query.nonce },
                _ => continue,
            };
            asked += 1;
            liar.say(from, raw::ring(0, 0, answer));
        }
        if round >= 10 && asked > 10 {
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "nobody asks it: this attacks nothing"
        );
    }
    let pestered: usize = victim
        .drain(Duration::from_millis(100))
        .iter()
        .map(Vec::len)
        .sum();
    // Hellos of 76 bytes, four within 8 s from each of five members for each invention.
    let most = 76 * 4 * at.len() * fakes.len() * (1 + begun.elapsed().as_secs() as usize / 8);
    assert!(
        pestered <= most,
        "{pestered} bytes at one who had no part in it"
    );
    // It falls silent; whatever it hid is found again.
    for (name, value) in &values {
        let deadline = Instant::now() + Duration::from_secs(60);
        while got(&world, &at[3], name, &["--timeout", "5"]).as_ref() != Some(value) {
            assert!(Instant::now() < deadline, "{value} stays hidden");
        }
    }
}

/// Keeps the protocol on a socket until told to stop; says when it has a place in the ring.
fn live(via: SocketAddr, node: &mut Endpoint, stop: &AtomicBool, placed: &Barrier) {
    let (door, mut waits) = (Door::open(), true);
    let mut out = Vec::new();
    node.join(door.now(), &[via], &mut out);
    while !stop.load(Ordering::Relaxed) {
        door.post(std::mem::take(&mut out));
        let wait = node
            .deadline()
            .map_or(Duration::MAX, |at| at.since(door.now()));
        if let Some((from, bytes)) = door.hear(wait.min(Duration::from_millis(50))) {
            node.on_datagram(door.now(), from, &bytes, &mut out);
        }
        if node.deadline().is_some_and(|at| at <= door.now()) {
            node.on_tick(door.now(), &mut out);
        }
        let position = &node.positions()[0];
        if waits && position.predecessor().is_some() && !position.successors().is_empty() {
            waits = false;
            placed.wait();
        }
    }
}

/// A key whose place lies within a 512th of the circle before `target`: nearer than five honest
/// ones, but for one time in a hundred.
fn ground(target: Id, rng: &mut Rng) -> SigningKey {
    loop {
        let mut secret = [0; 32];
        rng.fill(&mut secret);
        let key = SigningKey::from_bytes(&secret);
        let far = target.distance(position(&key.verifying_key().to_bytes(), 0));
        if far.as_bytes()[0] == 0 && far.as_bytes()[1] < 128 {
            return key;
        }
    }
}

#[test]
fn three_sybils_at_a_key_do_not_hide_it() {
    let world = World::new();
    let (_nodes, at) = settled(&world, 5);
    let (name, value) = put_all(&world, &at[0], 1).remove(0);
    let target: Id = name.parse().expect("an identifier");
    let withholding = Settings {
        limits: Limits {
            items: 0,
            ..Limits::default()
        },
        ..Settings::default()
    };
    let (stop, mut rng) = (AtomicBool::new(false), Rng::from_seed(7));
    let placed = Barrier::new(4);
    std::thread::scope(|scope| {
        let sybils: Vec<_> = (0..3)
            .map(|n| {
                let key = ground(target, &mut rng);
                let mut node = Endpoint::new(key, withholding.clone(), rng.fork());
                let (stop, placed, via) = (&stop, &placed, socket(&at[n]));
                scope.spawn(move || {
                    live(via, &mut node, stop, placed);
                    node
                })
            })
            .collect();
        // Until they stand between the key and whoever had it.
        placed.wait();
        let found: Vec<_> = (0..3).map(|n| got(&world, &at[n], &name, &[])).collect();
        world.run(&dht("put", &at[4], &[&value])).expect(0);
        stop.store(true, Ordering::Relaxed);
        for sybil in sybils {
            let node = sybil.join().expect("it ends");
            assert!(!node.holds(target));
        }
        assert!(
            found.iter().all(|f| f.as_ref() == Some(&value)),
            "{found:?}"
        );
    });
}
