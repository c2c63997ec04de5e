//! The timing wheel beside heaps, at a steady number of pending events: `cargo bench -p shoal-sim`.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use shoal_base::{Rng, Time};
use shoal_sim::Queue;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Instant;

/// As large as an event with a Chord message in it.
type Payload = [u64; 9];

/// An event in a heap needs its sequence number for the order.
struct Entry {
    at: u64,
    sequence: u64,
    payload: Payload,
}

impl Entry {
    fn key(&self) -> (u64, u64) {
        (self.at, self.sequence)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// What is compared.
trait Pending {
    fn push(&mut self, at: u64, payload: Payload);
    fn pop(&mut self) -> (u64, Payload);
}

impl Pending for Queue<Payload> {
    fn push(&mut self, at: u64, payload: Payload) {
        Self::push(self, Time::from_micros(at), payload);
    }

    fn pop(&mut self) -> (u64, Payload) {
        let (at, payload) = Self::pop(self).expect("never empty");
        (at.as_micros(), payload)
    }
}

#[derive(Default)]
struct Binary {
    heap: BinaryHeap<Entry>,
    sequence: u64,
}

impl Pending for Binary {
    fn push(&mut self, at: u64, payload: Payload) {
        self.sequence += 1;
        self.heap.push(Entry {
            at,
            sequence: self.sequence,
            payload,
        });
    }

    fn pop(&mut self) -> (u64, Payload) {
        let entry = self.heap.pop().expect("never empty");
        (entry.at, entry.payload)
    }
}

/// A heap with four children a node: half as deep, four neighbours a comparison.
#[derive(Default)]
struct Quaternary {
    heap: Vec<Entry>,
    sequence: u64,
}

impl Pending for Quaternary {
    fn push(&mut self, at: u64, payload: Payload) {
        self.sequence += 1;
        self.heap.push(Entry {
            at,
            sequence: self.sequence,
            payload,
        });
        let mut i = self.heap.len() - 1;
        while i > 0 && self.heap[i].key() < self.heap[(i - 1) / 4].key() {
            self.heap.swap(i, (i - 1) / 4);
            i = (i - 1) / 4;
        }
    }

    fn pop(&mut self) -> (u64, Payload) {
        let entry = self.heap.swap_remove(0);
        let mut i = 0;
        loop {
            let children = (4 * i + 1)..(4 * i + 5).min(self.heap.len());
            let Some(least) = children.min_by_key(|c| self.heap[*c].key()) else {
                break;
            };
            if self.heap[i].key() <= self.heap[least].key() {
                break;
            }
            self.heap.swap(i, least);
            i = least;
        }
        (entry.at, entry.payload)
    }
}

/// Messages take 1 to 100 ms; one event in five is a timer of up to 30 s.
fn delay(rng: &mut Rng) -> u64 {
    match rng.below(5) {
        0 => rng.below(30_000_000) as u64,
        _ => 1000 + rng.below(99_000) as u64,
    }
}

fn measure(name: &str, queue: &mut dyn Pending, pending: usize) {
    const HOLDS: usize = 4_000_000;
    let mut rng = Rng::from_seed(7);
    let delays: Vec<u64> = (0..1 << 16).map(|_| delay(&mut rng)).collect();
    for i in 0..pending {
        queue.push(delays[i % delays.len()], [i as u64; 9]);
    }
    let mut sum = 0;
    let start = Instant::now();
    for i in 0..HOLDS {
        let (at, payload) = queue.pop();
        sum ^= payload[3];
        queue.push(at + delays[i * 7 % delays.len()], payload);
    }
    let ns = start.elapsed().as_nanos() as f64 / HOLDS as f64;
    println!(
        "{name:<16} {pending:>9} pending {ns:8.1} ns a pop and push  ({:x})",
        sum & 15
    );
}

fn main() {
    for pending in [1_000, 10_000, 100_000, 1_000_000] {
        measure("timing wheel", &mut Queue::<Payload>::new(), pending);
        measure("binary heap", &mut Binary::default(), pending);
        measure("4-ary heap", &mut Quaternary::default(), pending);
    }
}
