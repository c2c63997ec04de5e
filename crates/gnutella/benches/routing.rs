//! What an ultrapeer with 50 ultrapeers and 300 leaves routes in a second of one core: queries from
//! ultrapeers with every TTL, one in three of them a copy, and hits for some of them.
//!
//! `cargo bench -p shoal-gnutella --bench routing`

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use shoal_base::{Rng, Time};
use shoal_gnutella::guid::Guid;
use shoal_gnutella::handshake::Version;
use shoal_gnutella::message::hit::{Answerer, Status};
use shoal_gnutella::message::query::{self, Wanted};
use shoal_gnutella::message::{Kind, Packet};
use shoal_gnutella::node::{Config, ConnId, Effect, Mode, Node};
use shoal_gnutella::qrp::{BITS, Table, patches, reset};
use shoal_gnutella::shared::{Nothing, SharedFile};

const ULTRAPEERS: usize = 50;
const LEAVES: usize = 300;
/// Words of names and queries; a leaf has 100 files of three words.
const WORDS: usize = 20_000;
const FILES: usize = 100;
const QUERIES: usize = 200_000;

fn addr(n: usize) -> SocketAddrV4 {
    SocketAddrV4::new([44, 20, (n / 200) as u8, (n % 200) as u8 + 1].into(), 6346)
}

fn word(rng: &mut Rng) -> String {
    // The lower the number, the more common: as the square of a uniform draw.
    let draw = rng.unit() * rng.unit();
    format!("word{}", (draw * WORDS as f64) as usize)
}

fn name(rng: &mut Rng) -> String {
    format!("{} {} {}.ogg", word(rng), word(rng), word(rng))
}

struct Ultrapeer {
    node: Node<Nothing>,
    now: Time,
    out: Vec<Effect>,
    sent: u64,
    bytes: u64,
}

impl Ultrapeer {
    fn take(&mut self, id: ConnId, packet: &Packet) {
        let (header, payload) = (packet.header(), packet.payload());
        self.node
            .on_message(self.now, id, header, payload, &mut self.out);
        self.drain();
    }

    /// As a driver would: every message is taken out at once.
    fn drain(&mut self) {
        for effect in self.out.drain(..) {
            if let Effect::Ready(id) = effect {
                while let Some(packet) = self.node.pop(id) {
                    self.sent += 1;
                    self.bytes += packet.bytes().len() as u64;
                }
            }
        }
    }
}

fn main() {
    let mut rng = Rng::from_seed(1);
    let mut config = Config::of(Mode::Ultrapeer);
    config.listen = Some(addr(0));
    config.query_rate = (u32::MAX, u32::MAX);
    let now = Time::from_secs(1);
    let mut up = Ultrapeer {
        node: Node::new(now, config, Nothing, rng.fork()),
        now,
        out: Vec::new(),
        sent: 0,
        bytes: 0,
    };
    let mut ids = Vec::new();
    for n in 0..ULTRAPEERS + LEAVES {
        let mode = if n < ULTRAPEERS {
            Mode::Ultrapeer
        } else {
            Mode::Leaf
        };
        let other = Node::new(now, Config::of(mode), Nothing, rng.fork());
        let greeting = other.greeting(None);
        let relation = up
            .node
            .judge(&greeting, Version::V06)
            .expect("there is room");
        let id = up
            .node
            .open(now, &greeting, relation, addr(n + 1), &mut up.out);
        ids.push(id);
        // An ultrapeer's table is that of thirty leaves.
        let files = if n < ULTRAPEERS { 30 * FILES } else { FILES };
        let mut table = Table::new(BITS);
        (0..files).for_each(|_| table.add(&name(&mut rng), None));
        let guid = Guid::random(&mut rng);
        up.take(id, &Packet::ours(Kind::Route, guid, 1, &reset(&table)));
        for patch in patches(None, &table, true) {
            up.take(id, &Packet::ours(Kind::Route, guid, 1, &patch));
        }
    }
    let peers = &ids[..ULTRAPEERS];
    let answerer = Answerer {
        addr: addr(9),
        speed: 1000,
        vendor: *b"TEST",
        status: Status::default(),
        proxies: Vec::new(),
        browsable: true,
        tls: false,
        overlay: None,
        servent: Guid::random(&mut rng),
    };
    // What comes in, made beforehand.
    let mut feed: Vec<(ConnId, Packet)> = Vec::with_capacity(QUERIES * 2);
    for n in 0..QUERIES {
        let text = format!("{} {}", word(&mut rng), word(&mut rng));
        let payload = query::write(0, text.as_bytes(), &Wanted::default());
        let guid = Guid::random(&mut rng);
        let ttl = [1, 1, 1, 1, 2, 2, 3][n % 7];
        let packet = Packet::ours(Kind::Query, guid, ttl, &payload);
        let from = rng.below(ULTRAPEERS);
        feed.push((peers[from], packet.clone()));
        if n % 2 == 0 {
            feed.push((peers[(from + 1) % ULTRAPEERS], packet));
        }
        if n % 5 == 0 {
            let file = SharedFile {
                index: 1,
                size: 5_000_000,
                name: format!("{text}.ogg"),
                sha1: Some([n as u8; 20]),
                tiger: None,
            };
            answerer.write(&[file], |payload| {
                let hit = Packet::ours(Kind::Hit, guid, 3, payload);
                feed.push((peers[(from + 2) % ULTRAPEERS], hit));
            });
        }
    }
    (up.sent, up.bytes) = (0, 0);
    let begun = Instant::now();
    for (n, (id, packet)) in feed.iter().enumerate() {
        if n % 10 == 0 {
            up.now += Duration::from_millis(1);
            if up.node.deadline() <= up.now {
                let now = up.now;
                up.node.on_tick(now, &mut up.out);
                up.drain();
            }
        }
        up.take(*id, packet);
    }
    let took = begun.elapsed().as_secs_f64();
    let stats = up.node.stats();
    let rate = |n: u64| n as f64 / took;
    println!(
        "{} messages in and {} out in {took:.2} s: {:.0} in/s, {:.0} routed/s, {:.1} MB/s out",
        feed.len(),
        up.sent,
        rate(feed.len() as u64),
        rate(up.sent),
        up.bytes as f64 / took / 1e6
    );
    println!(
        "{} copies, {} spared by tables, {} hits",
        stats.duplicates, stats.shielded, stats.hits
    );
}
