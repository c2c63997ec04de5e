//! Members that lie: what holds, and what does not. SECURITY.md says the same in words.

use super::net::{Net, address, settings};
use ed25519_dalek::SigningKey;
use shoal_base::{Rng, Time};
use shoal_dht::chord::{
    Contact, Endpoint, Limits, Message, Place, RingId, Settings, position, raw,
};
use shoal_dht::{Answer, Dht, Failure, Id, Item, Mutable, Output, Request};
use std::net::SocketAddr;
use std::time::Duration;

fn item(n: usize) -> Item {
    Item::immutable(format!("i{n}e").into_bytes()).expect("valid")
}

fn put(item: Item) -> Request {
    Request::Put {
        item,
        cas: None,
        keep: false,
    }
}

/// A key whose position lies within the `share`th part of the circle before `target`'s owner: what
/// grinding costs is as many keys as there are nodes.
fn ground(net: &Net, target: Id, rng: &mut Rng) -> SigningKey {
    let owner = net.order(target)[0];
    let near = net.nodes[&owner].positions()[0].me().id;
    loop {
        let mut secret = [0; 32];
        rng.fill(&mut secret);
        let key = SigningKey::from_bytes(&secret);
        let place = position(&key.verifying_key().to_bytes(), 0);
        if target.distance(place) < target.distance(near) {
            return key;
        }
    }
}

/// Nodes that keep the protocol but store nothing take the places nearest to a key.
fn sybils(count: u16) -> (Net, Item) {
    let mut net = Net::ring(31, 20, &settings());
    let item = item(1);
    assert!(net.ask(address(1), put(item.clone())).1.is_ok());
    let mut rng = Rng::from_seed(7);
    let withholding = Settings {
        limits: Limits {
            items: 0,
            ..Limits::default()
        },
        ..settings()
    };
    for n in 0..count {
        let key = ground(&net, item.target(), &mut rng);
        let node = Endpoint::new(key, withholding.clone(), net.rng.fork());
        let at = address(100 + n);
        net.nodes.insert(at, node);
        let door = address(n);
        net.with(at, |node, now, out| node.join(now, &[door], out));
        net.run(Duration::from_secs(60));
    }
    net.run(Duration::from_secs(60));
    (net, item)
}

#[test]
fn three_sybils_around_a_key_hide_nothing_and_four_hide_it() {
    let (mut net, item) = sybils(3);
    let target = item.target();
    assert!(net.order(target)[..3].iter().all(|a| *a >= address(100)));
    for asker in [2, 9, 15].map(address) {
        let (values, _) = net.ask(asker, Request::GetImmutable { target });
        assert_eq!(values, [Answer::Value(item.clone())]);
        assert!(net.ask(asker, put(item.clone())).1.is_ok());
    }
    // As many as there are replicas: what they do not give, nobody gets.
    let (mut net, item) = sybils(4);
    let target = item.target();
    let (values, end) = net.ask(address(9), Request::GetImmutable { target });
    assert_eq!(values, []);
    assert_eq!(end, Err(Failure::NotFound(4)));
}

/// A member that stands in the ring and answers what it likes.
struct Liar {
    line: raw::Line,
    at: SocketAddr,
}

impl Liar {
    fn new(net: &mut Net) -> Self {
        let key = SigningKey::from_bytes(&[77; 32]);
        let line = raw::Line::new(key, "shoal", b"", net.rng.fork());
        let at = address(200);
        Self { line, at }
    }

    fn say(&mut self, net: &mut Net, to: SocketAddr, body: Vec<u8>) {
        let mut out = Vec::new();
        self.line.say(net.now, to, body, &mut out);
        self.post(net, out);
    }

    fn post(&self, net: &mut Net, out: Vec<Output>) {
        for output in out {
            if let Output::Send { to, bytes } = output {
                net.post(self.at, to, bytes);
            }
        }
    }

    /// Hears what came for it, and lies for so long. Gives the bodies it heard.
    fn live(
        &mut self,
        net: &mut Net,
        for_: Duration,
        fakes: &[Contact<Id, Place>],
    ) -> Vec<Vec<u8>> {
        let until: Time = net.now + for_;
        let mut heard = Vec::new();
        while net.now < until {
            net.run(Duration::from_millis(20));
            for (from, bytes) in net.stray.remove(&self.at).unwrap_or_default() {
                let mut out = Vec::new();
                let body = self.line.hear(net.now, from, &bytes, &mut out);
                self.post(net, out);
                let Some(body) = body else { continue };
                let key = net.keys[&from];
                let answer = match raw::read_ring(&body, from, &key) {
                    Some(Message::GetNeighbours { nonce }) => Message::Neighbours {
                        nonce,
                        predecessor: fakes.first().copied(),
                        successors: fakes.into(),
                    },
                    Some(Message::Ping { nonce }) => Message::Pong { nonce },
                    // Taken, and never heard of again.
                    Some(Message::Query(query)) => Message::Taken { nonce: query.nonce },
                    _ => {
                        heard.push(body);
                        continue;
                    }
                };
                self.say(net, from, raw::ring(0, 0, answer));
            }
        }
        heard
    }
}

#[test]
fn a_liar_hides_what_lies_behind_it_and_its_inventions_become_no_neighbours() {
    let mut net = Net::ring(32, 16, &settings());
    let items: Vec<_> = (0..30).map(item).collect();
    for item in &items {
        assert!(net.ask(address(0), put(item.clone())).1.is_ok());
    }
    let mut liar = Liar::new(&mut net);
    let place = liar.line.place(liar.at);
    // It tells of nodes right behind it that do not exist, to whoever asks.
    let mut id = place.id;
    let fakes: Vec<_> = (0..8u16)
        .map(|n| {
            id = id.plus_power(100 + u32::from(n));
            let socket = address(300 + n);
            let place = Place {
                id,
                index: 0,
                socket,
            };
            Contact::new(id, place)
        })
        .collect();
    let successor = net.order(place.id)[0];
    for _ in 0..20 {
        let notify = Message::Notify { id: place.id };
        liar.say(&mut net, successor, raw::ring(0, 0, notify));
        liar.live(&mut net, Duration::from_secs(15), &fakes);
    }
    let poisoned = net.nodes.values().filter(|n| n.known().contains(&liar.at));
    assert!(poisoned.count() >= 1, "the attack does something");
    let fake: Vec<_> = fakes.iter().map(|f| f.id).collect();
    for node in net.nodes.values() {
        let position = &node.positions()[0];
        // Nobody follows it: an invented node answers nobody, and never becomes first.
        let first = position.successors().first();
        assert!(first.is_none_or(|s| !fake.contains(&s.id)));
        let fingers = position.fingers().iter();
        assert!(fingers.filter(|f| fake.contains(&f.id)).count() <= 1);
    }
    let mut found = 0;
    for (n, item) in items.iter().enumerate() {
        let target = item.target();
        let op = Request::GetImmutable { target };
        let asker = address(n as u16 % 16);
        let op = net.with(asker, |node, now, out| node.request(now, op, out));
        liar.live(&mut net, Duration::from_secs(31), &fakes);
        let answers = net.answers.remove(&(asker, op)).unwrap_or_default();
        found += usize::from(answers.contains(&Answer::Value(item.clone())));
    }
    // It swallows what passes through it, and the node before it knows nobody behind it. Half of
    // the values at least are on other ways.
    assert!(found >= 15, "{found} of 30");
}

#[test]
fn forged_late_and_oversized_puts_change_nothing() {
    let mut net = Net::ring(33, 3, &settings());
    let key = SigningKey::from_bytes(&[9; 32]);
    let signed = |seq, value: &str| {
        let value = format!("{}:{value}", value.len()).into_bytes();
        Mutable::sign(&key, b"", seq, value).expect("valid")
    };
    let good = Item::Mutable(Box::new(signed(5, "good")));
    let target = good.target();
    assert!(net.ask(address(0), put(good.clone())).1.is_ok());
    let mut liar = Liar::new(&mut net);
    let mutable = |m: Mutable| Item::Mutable(Box::new(m));
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
    let owner = net.order(target)[0];
    for (number, item) in (1..).zip(wrong) {
        liar.say(&mut net, owner, raw::put(number, item, None));
        let heard = liar.live(&mut net, Duration::from_secs(1), &[]);
        let key = net.keys[&owner];
        let answers: Vec<_> = heard
            .iter()
            .filter_map(|b| raw::stored(b, owner, &key))
            .collect();
        assert_eq!(answers, [(number, false)], "refused");
    }
    // One byte more than a value may have is no body at all, whatever its length says.
    let mut long = raw::put(50, mutable(signed(8, &"x".repeat(990))), None);
    let at = long.len() - 994 - 2;
    long[at] = 0xff;
    liar.say(&mut net, owner, long);
    assert_eq!(
        liar.live(&mut net, Duration::from_secs(1), &[]),
        Vec::<Vec<u8>>::new()
    );
    let get = Request::GetMutable {
        key: key.verifying_key().to_bytes(),
        salt: Vec::new(),
        newer_than: None,
    };
    assert_eq!(net.ask(address(2), get).0, [Answer::Value(good)]);
}
