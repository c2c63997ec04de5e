//! One capped seeder and several leechers that trade: how long it takes, what the seeder sends.

use super::*;
use crate::Block;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

const LEECHERS: usize = 5;
const SEED: usize = LEECHERS;
const SEED_RATE: f64 = 32.0 * 1024.0 * 1024.0;
const PEER_RATE: f64 = 200e6;
/// Seconds a message takes.
const LATENCY: f64 = 0.000_5;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    /// Node `from` has sent a block: time for the next.
    Send {
        from: usize,
    },
    Block {
        from: usize,
        to: usize,
        block: Block,
    },
    Request {
        from: usize,
        to: usize,
        block: Block,
    },
    Cancel {
        from: usize,
        to: usize,
        block: Block,
    },
    Have {
        from: usize,
        to: usize,
        piece: u32,
    },
    Hashed {
        at: usize,
        piece: u32,
    },
    Tick {
        at: usize,
    },
}

struct Node {
    download: Download,
    left: Vec<u32>,
    done_at: Option<f64>,
}

struct Swarm {
    now: f64,
    count: u64,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    nodes: Vec<Node>,
    /// What each node has to send to each leecher, and whom it served last.
    queues: Vec<Vec<VecDeque<Block>>>,
    turn: Vec<usize>,
    sending: Vec<bool>,
    sent_by_seed: u64,
}

impl Swarm {
    fn at(&mut self, delay: f64, event: Event) {
        self.count += 1;
        let at = Time::from_micros(((self.now + delay) * 1e6) as u64);
        self.events.push(Reverse((at, self.count, event)));
    }

    fn apply(&mut self, node: usize, out: &mut Vec<DownloadOutput>) {
        for o in out.drain(..) {
            match o {
                DownloadOutput::Request { source, block } => {
                    let to = source.0 as usize;
                    self.at(
                        LATENCY,
                        Event::Request {
                            from: node,
                            to,
                            block,
                        },
                    );
                }
                DownloadOutput::Cancel { source, block } => {
                    let to = source.0 as usize;
                    self.at(
                        LATENCY,
                        Event::Cancel {
                            from: node,
                            to,
                            block,
                        },
                    );
                }
                DownloadOutput::Have(piece) => {
                    for to in (0..LEECHERS).filter(|n| *n != node) {
                        self.at(
                            LATENCY,
                            Event::Have {
                                from: node,
                                to,
                                piece,
                            },
                        );
                    }
                }
                DownloadOutput::Finished => self.nodes[node].done_at = Some(self.now),
                _ => {}
            }
        }
    }

    fn send(&mut self, from: usize) {
        let start = self.turn[from];
        for i in 1..=LEECHERS {
            let to = (start + i) % LEECHERS;
            if let Some(block) = self.queues[from][to].pop_front() {
                self.turn[from] = to;
                self.sending[from] = true;
                let rate = if from == SEED { SEED_RATE } else { PEER_RATE };
                if from == SEED {
                    self.sent_by_seed += u64::from(block.len);
                }
                let took = f64::from(block.len) / rate;
                self.at(took, Event::Send { from });
                self.at(took + LATENCY, Event::Block { from, to, block });
                return;
            }
        }
        self.sending[from] = false;
    }

    fn handle(&mut self, event: Event) {
        let now = Time::from_micros((self.now * 1e6) as u64);
        let mut out = Vec::new();
        let node = match event {
            Event::Send { from } => return self.send(from),
            Event::Request { from, to, block } => {
                self.queues[to][from].push_back(block);
                if !self.sending[to] {
                    self.send(to);
                }
                return;
            }
            Event::Cancel { from, to, block } => {
                let queue = &mut self.queues[to][from];
                if let Some(i) = queue.iter().position(|b| *b == block) {
                    queue.remove(i);
                    let id = SourceId(to as u32);
                    self.nodes[from]
                        .download
                        .on_reject(now, id, block, &mut out);
                }
                from
            }
            Event::Block { from, to, block } => {
                let n = &mut self.nodes[to];
                let id = SourceId(from as u32);
                let got = n.download.on_block(now, id, block, &mut out);
                if got == Arrival::Accept {
                    let left = &mut n.left[block.piece as usize];
                    *left -= 1;
                    if *left == 0 {
                        let piece = block.piece;
                        self.at(0.001, Event::Hashed { at: to, piece });
                    }
                }
                to
            }
            Event::Have { from, to, piece } => {
                let id = SourceId(from as u32);
                self.nodes[to].download.on_have(now, id, piece, &mut out);
                to
            }
            Event::Hashed { at, piece } => {
                let good = PieceOutcome::Verified { digests: None };
                self.nodes[at]
                    .download
                    .on_piece(now, piece, &good, &mut out);
                at
            }
            Event::Tick { at } => {
                let download = &mut self.nodes[at].download;
                if download.deadline().is_some_and(|d| d <= now) {
                    download.on_tick(now, &mut out);
                }
                self.at(0.002, Event::Tick { at });
                at
            }
        };
        self.apply(node, &mut out);
    }
}

fn run(seed: u64) -> (f64, f64) {
    let payload = 256u64 << 20;
    let geometry = Geometry::new(payload, 256 << 10).expect("few pieces");
    let mut rng = Rng::from_seed(seed);
    let nodes = (0..LEECHERS)
        .map(|_| Node {
            download: Download::new(
                geometry,
                Bitfield::new(geometry.pieces()),
                DownloadConfig::default(),
                rng.fork(),
            ),
            left: vec![16; geometry.pieces() as usize],
            done_at: None,
        })
        .collect();
    let mut swarm = Swarm {
        now: 0.0,
        count: 0,
        events: BinaryHeap::new(),
        nodes,
        queues: vec![vec![VecDeque::new(); LEECHERS]; LEECHERS + 1],
        turn: vec![0; LEECHERS + 1],
        sending: vec![false; LEECHERS + 1],
        sent_by_seed: 0,
    };
    for node in 0..LEECHERS {
        let mut out = Vec::new();
        for address in 0..=SEED as u64 {
            let options = SourceOptions {
                address,
                kind: SourceKind::Peer,
                fast: true,
                max_pipeline: 500,
            };
            let d = &mut swarm.nodes[node].download;
            let id = d.add_source(Time::ZERO, &options);
            if address as usize == SEED {
                d.on_have_all(Time::ZERO, id, &mut out);
            }
            if address as usize != node {
                d.on_unchoke(Time::ZERO, id, &mut out);
            }
        }
        swarm.apply(node, &mut out);
        swarm.at(0.0, Event::Tick { at: node });
    }
    while swarm.nodes.iter().any(|n| n.done_at.is_none()) {
        let Reverse((at, _, event)) = swarm.events.pop().expect("ticks never end");
        swarm.now = at.as_secs_f64();
        assert!(swarm.now < 60.0, "not finished");
        swarm.handle(event);
    }
    (swarm.now, swarm.sent_by_seed as f64 / payload as f64)
}

#[test]
fn a_capped_seeder_sends_little_more_than_the_payload() {
    for seed in 0..3 {
        let (took, ratio) = run(seed);
        assert!(took < 8.0 * 1.15, "seed {seed}: {took} s, {ratio}");
        assert!(ratio < 1.1, "seed {seed}: {took} s, {ratio}");
    }
}
