//! Chokers and download machines in a virtual swarm: one seed with a capped upload, leechers that
//! trade what they got. Shows that the rules of this module let the seed send every piece about
//! once, and everyone finish soon after.

use super::*;
use shoal_base::{Bitfield, RateMeter};
use shoal_content::download::{Arrival, SourceKind, SourceOptions};
use shoal_content::{Block, Download, DownloadConfig, DownloadOutput, Geometry, PieceOutcome};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

/// One way between two nodes.
const DELAY: Duration = Duration::from_micros(200);
/// From the last block of a piece to its hash.
const HASHING: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    /// `from` tells `to` something.
    Message { from: usize, to: usize, what: What },
    /// The uplink of a node is free again.
    Uplink(usize),
    /// A piece of a node was hashed.
    Hashed(usize, u32),
    /// A node's timers.
    Tick(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum What {
    Interested(bool),
    Choke(bool),
    Have(u32),
    Request(Block),
    Cancel(Block),
    Block(Block),
}

/// What a node keeps of another.
struct Link {
    peer: ChokePeer,
    /// Requests waiting for our uplink.
    queue: VecDeque<Block>,
    up: RateMeter,
    down: RateMeter,
}

struct Node {
    links: BTreeMap<usize, Link>,
    choker: Choker,
    download: Option<Download>,
    /// Blocks received of each piece.
    received: BTreeMap<u32, u32>,
    /// Bytes a second.
    up_rate: u64,
    up_limited: bool,
    up: RateMeter,
    sending: bool,
    /// Whose turn it is on the uplink.
    turn: usize,
    sent: u64,
    finished_at: Option<Time>,
}

struct Swarm {
    now: Time,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    count: u64,
    nodes: Vec<Node>,
}

const SEED: usize = 0;

impl Swarm {
    /// A seed (node 0) that may send `cap` bytes a second, and leechers that may send `up` each.
    fn new(geometry: Geometry, cap: u64, leechers: usize, up: u64, seed: u64) -> Self {
        let mut rng = Rng::from_seed(seed);
        let now = Time::from_secs(1);
        let mut swarm = Self {
            now,
            events: BinaryHeap::new(),
            count: 0,
            nodes: Vec::new(),
        };
        for i in 0..=leechers {
            let have = Bitfield::new(geometry.pieces());
            let config = DownloadConfig::default();
            let download = Download::new(geometry, have, config, rng.fork());
            let links = (0..=leechers).filter(|j| *j != i).map(|j| {
                let peer = ChokePeer {
                    key: j as u32,
                    interested: false,
                    choked: true,
                    upload_only: false,
                    rate_down: 0,
                    rate_up: 0,
                    snubbed: false,
                    connected_at: now,
                    unchoked_at: None,
                    sent_in_turn: 0,
                    sent: 0,
                };
                let link = Link {
                    peer,
                    queue: VecDeque::new(),
                    up: RateMeter::new(now),
                    down: RateMeter::new(now),
                };
                (j, link)
            });
            swarm.nodes.push(Node {
                links: links.collect(),
                choker: Choker::new(Choking::TitForTat, rng.fork()),
                download: (i != SEED).then_some(download),
                received: BTreeMap::new(),
                up_rate: if i == SEED { cap } else { up },
                up_limited: i == SEED,
                up: RateMeter::new(now),
                sending: false,
                turn: 0,
                sent: 0,
                finished_at: None,
            });
        }
        for i in 1..=leechers {
            for j in (0..=leechers).filter(|j| *j != i) {
                let options = SourceOptions {
                    address: j as u64,
                    kind: SourceKind::Peer,
                    fast: true,
                    max_pipeline: 1000,
                };
                let download = swarm.nodes[i].download.as_mut().expect("a leecher");
                let id = download.add_source(now, &options);
                assert_eq!(id.0 as usize, source_of(i, j));
                if j == SEED {
                    let mut out = Vec::new();
                    download.on_have_all(now, id, &mut out);
                    swarm.apply(i, out);
                }
            }
        }
        for i in 0..=leechers {
            swarm.at(now, Event::Tick(i));
        }
        swarm
    }

    fn at(&mut self, at: Time, event: Event) {
        self.count += 1;
        self.events.push(Reverse((at, self.count, event)));
    }

    fn tell(&mut self, from: usize, to: usize, what: What) {
        self.at(self.now + DELAY, Event::Message { from, to, what });
    }

    fn apply(&mut self, node: usize, out: Vec<DownloadOutput>) {
        for output in out {
            match output {
                DownloadOutput::Request { source, block } => {
                    self.tell(node, link_of(node, source.0), What::Request(block));
                }
                DownloadOutput::Cancel { source, block } => {
                    self.tell(node, link_of(node, source.0), What::Cancel(block));
                }
                DownloadOutput::Interested { source, interested } => {
                    let to = link_of(node, source.0);
                    self.tell(node, to, What::Interested(interested));
                }
                DownloadOutput::Have(piece) => {
                    let others: Vec<_> = self.nodes[node].links.keys().copied().collect();
                    for to in others {
                        self.tell(node, to, What::Have(piece));
                    }
                }
                DownloadOutput::Finished => self.nodes[node].finished_at = Some(self.now),
                DownloadOutput::Ban { .. } | DownloadOutput::Drop { .. } => {
                    panic!("all are honest: {output:?}")
                }
            }
        }
    }

    /// Runs a choker, at its round or between rounds.
    fn choke(&mut self, node: usize, fill: bool) {
        let now = self.now;
        let n = &mut self.nodes[node];
        for link in n.links.values_mut() {
            link.peer.rate_down = link.down.rate(now);
            link.peer.rate_up = link.up.rate(now);
        }
        let peers: Vec<_> = n.links.values().map(|l| l.peer).collect();
        let seeding = n.finished_at.is_some() || n.download.is_none();
        let upload = Upload {
            limit: n.up_limited.then_some(n.up_rate),
            rate: n.up.rate(now),
        };
        let mut out = Vec::new();
        if fill {
            n.choker.fill(&peers, seeding, upload, &mut out);
        } else {
            n.choker.on_tick(now, &peers, seeding, upload, &mut out);
        }
        for change in out {
            let (key, choked) = match change {
                ChokeChange::Choke(key) => (key, true),
                ChokeChange::Unchoke(key) => (key, false),
            };
            let link = self.nodes[node].links.get_mut(&(key as usize));
            let link = link.expect("the choker names whom it was given");
            link.peer.choked = choked;
            if choked {
                assert!(!link.peer.interested || link.queue.len() < 1 << 20);
                link.queue.clear();
            } else {
                link.peer.unchoked_at = Some(now);
                link.peer.sent_in_turn = 0;
            }
            self.tell(node, key as usize, What::Choke(choked));
        }
    }

    /// Sends the next block, each peer in turn.
    fn send(&mut self, node: usize) {
        let now = self.now;
        let n = &mut self.nodes[node];
        if n.sending {
            return;
        }
        let count = n.links.len() + 1;
        for step in 1..=count {
            let to = (n.turn + step) % count;
            let Some(link) = n.links.get_mut(&to) else {
                continue;
            };
            let Some(block) = link.queue.pop_front() else {
                continue;
            };
            let len = u64::from(block.len);
            link.up.add(now, len);
            link.peer.sent += len;
            link.peer.sent_in_turn += len;
            n.up.add(now, len);
            n.sent += len;
            n.turn = to;
            n.sending = true;
            let busy = Duration::from_secs_f64(len as f64 / n.up_rate as f64);
            self.at(now + busy, Event::Uplink(node));
            let what = What::Block(block);
            self.at(
                now + busy + DELAY,
                Event::Message {
                    from: node,
                    to,
                    what,
                },
            );
            return;
        }
    }

    fn on_message(&mut self, from: usize, to: usize, what: What) {
        let now = self.now;
        let mut out = Vec::new();
        let node = &mut self.nodes[to];
        let link = node.links.get_mut(&from).expect("all are linked");
        let id = shoal_content::SourceId(if to == SEED {
            0
        } else {
            source_of(to, from) as u32
        });
        match what {
            What::Interested(interested) => {
                link.peer.interested = interested;
                self.choke(to, true);
            }
            What::Request(block) => {
                if !link.peer.choked {
                    link.queue.push_back(block);
                    self.send(to);
                }
            }
            What::Cancel(block) => link.queue.retain(|b| *b != block),
            What::Choke(choked) => {
                if let Some(download) = &mut node.download {
                    if choked {
                        download.on_choke(now, id, &mut out);
                    } else {
                        download.on_unchoke(now, id, &mut out);
                    }
                }
            }
            What::Have(piece) => {
                if let Some(download) = &mut node.download {
                    download.on_have(now, id, piece, &mut out);
                }
            }
            What::Block(block) => {
                link.down.add(now, u64::from(block.len));
                let download = node.download.as_mut().expect("the seed asks for nothing");
                if download.on_block(now, id, block, &mut out) == Arrival::Accept {
                    let received = node.received.entry(block.piece).or_default();
                    *received += 1;
                    if *received == download.geometry().blocks(block.piece) {
                        self.at(now + HASHING, Event::Hashed(to, block.piece));
                    }
                }
            }
        }
        self.apply(to, out);
    }

    /// Runs until all have finished; gives the seconds that took.
    fn run(&mut self) -> f64 {
        let start = self.now;
        while self.nodes[1..].iter().any(|n| n.finished_at.is_none()) {
            let event = self.events.peek().map(|e| e.0.0);
            let timer = (1..self.nodes.len())
                .filter_map(|i| Some((self.nodes[i].download.as_ref()?.deadline()?, i)))
                .min();
            match (timer, event) {
                (Some((at, node)), next) if next.is_none_or(|next| at < next) => {
                    self.now = self.now.max(at);
                    let mut out = Vec::new();
                    let download = self.nodes[node].download.as_mut();
                    download
                        .expect("it has a timer")
                        .on_tick(self.now, &mut out);
                    self.apply(node, out);
                }
                _ => {
                    let Reverse((at, _, event)) = self.events.pop().expect("a tick is due");
                    self.now = self.now.max(at);
                    self.on_event(event);
                }
            }
            assert!(self.now - start < Duration::from_secs(600), "stuck");
        }
        (self.now - start).as_secs_f64()
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Message { from, to, what } => self.on_message(from, to, what),
            Event::Uplink(node) => {
                self.nodes[node].sending = false;
                self.send(node);
            }
            Event::Hashed(node, piece) => {
                let mut out = Vec::new();
                let outcome = PieceOutcome::Verified { digests: None };
                let download = self.nodes[node].download.as_mut().expect("a leecher");
                download.on_piece(self.now, piece, &outcome, &mut out);
                self.apply(node, out);
            }
            Event::Tick(node) => {
                self.choke(node, false);
                self.at(self.nodes[node].choker.deadline(), Event::Tick(node));
            }
        }
    }
}

/// The source number that `node` gave to `other`: they were added in rising order.
fn source_of(node: usize, other: usize) -> usize {
    other - usize::from(other > node)
}

fn link_of(node: usize, source: u32) -> usize {
    let source = source as usize;
    source + usize::from(source >= node)
}

#[test]
fn a_capped_seed_sends_every_piece_about_once() {
    let (piece, total) = (256 * 1024, 256 << 20);
    let geometry = Geometry::new(total, piece).expect("few pieces");
    let mut swarm = Swarm::new(geometry, 32 << 20, 5, 200 << 20, 1);
    let (time, sent) = (
        swarm.run() / 8.0,
        swarm.nodes[SEED].sent as f64 / total as f64,
    );
    // Measured: 1.08 both.
    assert!(time < 1.15, "took {time:.3} times the ideal");
    assert!(sent < 1.15, "the seed sent {sent:.3} times the payload");
    let served = swarm.nodes[SEED].links.values().map(|l| l.peer.sent);
    assert!(served.clone().min() > served.max().map(|most| most / 2));
}

#[test]
fn with_few_slots_everyone_still_finishes() {
    // 20 KiB/s give four slots for nine leechers.
    let geometry = Geometry::new(2 << 20, 32 * 1024).expect("few pieces");
    let mut swarm = Swarm::new(geometry, 20 * 1024, 9, 40 * 1024, 1);
    let ideal = 2048.0 / 20.0;
    let time = swarm.run() / ideal;
    assert!(time < 2.0, "took {time:.2} times the ideal");
}
