//! Our own downlink is the bottleneck: many sources could each send faster than their share of it.
//! What they send waits in one queue before it, so that every answer is late and none is lost.

use super::*;
use crate::Block;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Blocks under way on one connection, at most, as its TCP window has it.
const WINDOW: u32 = 4;
/// Seconds a message takes.
const LATENCY: f64 = 0.05;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    Unchoke(usize),
    Request(usize, Block),
    Cancel(usize, Block),
    /// A source has sent a block: it may send the next.
    Sent(usize),
    /// A block is at the near end of our downlink's queue.
    Queued(usize, Block),
    /// A block is here.
    Block(usize, Block),
    /// A source hears that a block arrived.
    Credit(usize),
    Hashed(u32),
    Tick,
}

#[derive(Default)]
struct Sender {
    queue: VecDeque<Block>,
    under_way: u32,
    busy: bool,
    dead: bool,
}

struct Line {
    now: f64,
    count: u64,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    download: Download,
    left: Vec<u32>,
    senders: Vec<Sender>,
    uplink: f64,
    downlink: f64,
    /// When the downlink has delivered all that waits.
    free_at: f64,
    done: bool,
}

impl Line {
    fn at(&mut self, delay: f64, event: Event) {
        self.count += 1;
        let at = Time::from_micros(((self.now + delay) * 1e6) as u64);
        self.events.push(Reverse((at, self.count, event)));
    }

    fn send(&mut self, from: usize) {
        let s = &mut self.senders[from];
        if s.busy || s.dead || s.under_way >= WINDOW {
            return;
        }
        if let Some(block) = s.queue.pop_front() {
            s.busy = true;
            s.under_way += 1;
            let took = f64::from(block.len) / self.uplink;
            self.at(took, Event::Sent(from));
            self.at(took + LATENCY, Event::Queued(from, block));
        }
    }

    /// Goes on until all is there, but not beyond `end`.
    fn run_until(&mut self, end: f64) {
        while !self.done && self.now < end {
            let Reverse((at, _, event)) = self.events.pop().expect("ticks never end");
            self.now = at.as_secs_f64();
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        let now = Time::from_micros((self.now * 1e6) as u64);
        let mut out = Vec::new();
        match event {
            Event::Unchoke(from) => {
                let id = SourceId(from as u32);
                self.download.on_unchoke(now, id, &mut out);
            }
            Event::Request(to, block) => {
                self.senders[to].queue.push_back(block);
                self.send(to);
            }
            Event::Cancel(to, block) => {
                let queue = &mut self.senders[to].queue;
                if let Some(i) = queue.iter().position(|b| *b == block) {
                    queue.remove(i);
                    let id = SourceId(to as u32);
                    self.download.on_reject(now, id, block, &mut out);
                }
            }
            Event::Sent(from) => {
                self.senders[from].busy = false;
                self.send(from);
            }
            Event::Queued(from, block) => {
                self.free_at = self.free_at.max(self.now) + f64::from(block.len) / self.downlink;
                self.at(self.free_at - self.now, Event::Block(from, block));
            }
            Event::Block(from, block) => {
                self.at(LATENCY, Event::Credit(from));
                let id = SourceId(from as u32);
                if self.download.on_block(now, id, block, &mut out) == Arrival::Accept {
                    let left = &mut self.left[block.piece as usize];
                    *left -= 1;
                    if *left == 0 {
                        self.at(0.001, Event::Hashed(block.piece));
                    }
                }
            }
            Event::Credit(from) => {
                self.senders[from].under_way -= 1;
                self.send(from);
            }
            Event::Hashed(piece) => {
                let good = PieceOutcome::Verified { digests: None };
                self.download.on_piece(now, piece, &good, &mut out);
            }
            Event::Tick => {
                if self.download.deadline().is_some_and(|d| d <= now) {
                    self.download.on_tick(now, &mut out);
                }
                self.at(0.01, Event::Tick);
            }
        }
        for o in out {
            match o {
                DownloadOutput::Request { source, block } => {
                    self.at(LATENCY, Event::Request(source.0 as usize, block));
                }
                DownloadOutput::Cancel { source, block } => {
                    self.at(LATENCY, Event::Cancel(source.0 as usize, block));
                }
                DownloadOutput::Finished => self.done = true,
                _ => {}
            }
        }
    }
}

const PAYLOAD: u64 = 32 << 20;

/// 32 MiB at seeds that choke us yet; rates in KiB/s.
fn line(seed: u64, sources: usize, uplink: f64, downlink: f64) -> Line {
    let geometry = Geometry::new(PAYLOAD, 256 << 10).expect("few pieces");
    let mut line = Line {
        now: 0.0,
        count: 0,
        events: BinaryHeap::new(),
        download: Download::new(
            geometry,
            Bitfield::new(geometry.pieces()),
            DownloadConfig::default(),
            Rng::from_seed(seed),
        ),
        left: vec![16; geometry.pieces() as usize],
        senders: (0..sources).map(|_| Sender::default()).collect(),
        uplink: uplink * 1024.0,
        downlink: downlink * 1024.0,
        free_at: 0.0,
        done: false,
    };
    for address in 0..sources as u64 {
        let options = SourceOptions {
            address,
            kind: SourceKind::Peer,
            fast: true,
            max_pipeline: 500,
        };
        let id = line.download.add_source(Time::ZERO, &options);
        line.download.on_have_all(Time::ZERO, id, &mut Vec::new());
    }
    line
}

/// Fetches all from seeds that unchoke us `apart` seconds after one another. How many times the
/// seconds that the downlink needs it took, and the share of the payload that came twice.
fn run(seed: u64, sources: usize, apart: f64, uplink: f64, downlink: f64) -> (f64, f64) {
    let mut line = line(seed, sources, uplink, downlink);
    for from in 0..sources {
        line.at(from as f64 * apart, Event::Unchoke(from));
    }
    line.at(0.0, Event::Tick);
    line.run_until(20_000.0);
    assert!(line.done, "not finished");
    let ideal = PAYLOAD as f64 / line.downlink;
    let twice = line.download.waste().duplicate as f64 / PAYLOAD as f64;
    (line.now / ideal, twice)
}

#[test]
fn a_full_downlink_brings_hardly_a_block_twice() {
    for (sources, apart, uplink, downlink) in [
        (5, 1.0, 48.0, 96.0),
        (20, 0.0, 48.0, 96.0),
        (20, 3.0, 48.0, 96.0),
        (40, 2.0, 12.0, 96.0),
        (50, 1.0, 1024.0, 96.0),
        (50, 1.0, 1024.0, 1024.0),
    ] {
        let what = format!("{sources} sources {apart} s apart, {uplink} into {downlink} KiB/s");
        let (took, twice) = run(1, sources, apart, uplink, downlink);
        assert!(took < 1.06, "{what}: {took} times as long as it need");
        assert!(twice < 0.03, "{what}: {twice} of it twice");
    }
}

#[test]
fn who_falls_silent_in_a_full_downlink_is_found_out() {
    let mut line = line(1, 10, 48.0, 96.0);
    for from in 0..10 {
        line.at(0.0, Event::Unchoke(from));
    }
    line.at(0.0, Event::Tick);
    line.run_until(60.0);
    assert!(!line.done);
    let (held, _) = line.download.pipeline(SourceId(3));
    assert!(held > 0, "it has requests to leave unanswered");
    line.senders[3].dead = true;
    let ideal = PAYLOAD as f64 / line.downlink;
    line.run_until(ideal * 1.05);
    assert!(
        line.done,
        "what the silent one held back is fetched from others"
    );
    assert!(line.download.waste().duplicate < PAYLOAD / 100);
}
