//! The network between nodes: delay, jitter, loss, duplication, reordering, rates with queues,
//! partitions, clogged and slow nodes.

use crate::digest::mix;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use shoal_base::{Rng, Time};
use std::time::Duration;

/// One-way delay of a message, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Delay {
    /// Always the same.
    Constant {
        /// Microseconds.
        us: u64,
    },
    /// Equally likely between two bounds.
    Uniform {
        /// The least.
        low_us: u64,
        /// The most.
        high_us: u64,
    },
    /// Exponential above a least delay.
    Exponential {
        /// The least.
        low_us: u64,
        /// Mean of what comes on top.
        mean_us: u64,
    },
    /// Log-normal, as measured paths are.
    LogNormal {
        /// The median.
        median_us: u64,
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
    /// Nodes lie on a square: the same pair always has the same delay, and near ones a short one.
    Plane {
        /// Between nodes at one place.
        low_us: u64,
        /// On top, from one side of the square to the other.
        across_us: u64,
    },
}

impl Delay {
    fn draw(&self, from: u32, to: u32, rng: &mut Rng) -> u64 {
        match *self {
            Self::Constant { us } => us,
            Self::Uniform { low_us, high_us } => {
                low_us + rng.below((high_us.saturating_sub(low_us) + 1) as usize) as u64
            }
            Self::Exponential { low_us, mean_us } => {
                low_us + (-(1.0 - rng.unit()).ln() * mean_us as f64) as u64
            }
            Self::LogNormal { median_us, sigma } => {
                // Box and Muller's transform.
                let radius = (-2.0 * (1.0 - rng.unit()).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * rng.unit()).cos();
                (median_us as f64 * (sigma * normal).exp()) as u64
            }
            Self::Plane { low_us, across_us } => {
                let place = |node: u32| {
                    let bits = mix(u64::from(node), 0x51a7);
                    ((bits as u32) as f64, ((bits >> 32) as u32) as f64)
                };
                let ((ax, ay), (bx, by)) = (place(from), place(to));
                let distance = ((ax - bx).powi(2) + (ay - by).powi(2)).sqrt() / 4_294_967_296.0;
                low_us + (distance * across_us as f64) as u64
            }
        }
    }
}

/// What all links have in common. Probabilities are for each message.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Links {
    /// One-way delay.
    pub delay: Delay,
    /// Up to this much is added, equally likely.
    pub jitter_us: u64,
    /// Messages that vanish.
    pub loss: f64,
    /// Messages that arrive twice.
    pub duplicate: f64,
    /// Messages held back by up to `reorder_us`, so that later ones overtake them.
    pub reorder: f64,
    /// How long a held-back message is late at most.
    pub reorder_us: u64,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            delay: Delay::Constant { us: 50_000 },
            jitter_us: 0,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_us: 200_000,
        }
    }
}

/// What a node's access line carries. Zero means without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rate {
    /// Bytes a second out.
    pub up: u64,
    /// Bytes a second in.
    pub down: u64,
    /// Bytes that may wait to go out before datagrams are dropped. Streams wait instead.
    pub queue: u64,
}

/// What is special about a node.
#[derive(Debug, Clone, Copy, Default)]
struct Access {
    rate: Rate,
    /// When the line has sent, and received, all that it was given.
    up_free: Time,
    down_free: Time,
    /// Nothing arrives at it or leaves it before.
    clogged_until: Time,
    /// Added to all that it receives.
    slow_us: u64,
}

/// Which sides cannot speak to which; at most 64 sides.
#[derive(Debug, Clone)]
struct Partition {
    side: Vec<u8>,
    /// For each side the sides that hear nothing from it.
    deaf: [u64; 64],
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Arrives at this time, and perhaps a second time.
    Arrives(Time, Option<Time>),
    /// Lost, or dropped by a full queue.
    Lost,
    /// Cannot pass the partition; a stream may try again when it has healed.
    Cut,
}

/// The state of the network.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) links: Links,
    /// Empty until a node is special.
    access: Vec<Access>,
    partition: Option<Box<Partition>>,
    /// When the last part of each stream arrives; only looked up.
    streams: FxHashMap<(u32, u32), Time>,
}

/// A stream waits this long before it sends again what was lost.
const RETRANSMIT: Duration = Duration::from_millis(200);

impl Network {
    pub(crate) fn new(links: Links) -> Self {
        Self {
            links,
            ..Self::default()
        }
    }

    fn access(&mut self, node: u32) -> &mut Access {
        let i = node as usize;
        if self.access.len() <= i {
            self.access.resize(i + 1, Access::default());
        }
        &mut self.access[i]
    }

    pub(crate) fn set_rate(&mut self, node: u32, rate: Rate) {
        self.access(node).rate = rate;
    }

    pub(crate) fn set_slow(&mut self, node: u32, by: Duration) {
        self.access(node).slow_us = by.as_micros() as u64;
    }

    pub(crate) fn clog(&mut self, node: u32, until: Time) {
        let access = self.access(node);
        access.clogged_until = access.clogged_until.max(until);
    }

    pub(crate) fn unclog_all(&mut self) {
        for access in &mut self.access {
            access.clogged_until = Time::ZERO;
            access.slow_us = 0;
        }
    }

    /// When the line of `node` will have sent all that it was given.
    pub(crate) fn uplink_free(&self, node: u32) -> Time {
        self.access
            .get(node as usize)
            .map_or(Time::ZERO, |a| a.up_free)
    }

    pub(crate) fn part(&mut self, side: Vec<u8>, cuts: &[(u8, u8)]) {
        let mut partition = Partition {
            side,
            deaf: [0; 64],
        };
        for (from, to) in cuts {
            partition.deaf[usize::from(*from) % 64] |= 1 << (to % 64);
        }
        self.partition = Some(Box::new(partition));
    }

    pub(crate) fn heal(&mut self) {
        self.partition = None;
    }

    /// Whether the partition lets messages pass from one node to another.
    pub(crate) fn connected(&self, from: u32, to: u32) -> bool {
        self.partition.as_ref().is_none_or(|p| {
            let side = |node: u32| p.side.get(node as usize).copied().unwrap_or(0) % 64;
            p.deaf[usize::from(side(from))] >> side(to) & 1 == 0
        })
    }

    /// When a datagram arrives, if it does.
    pub(crate) fn datagram(
        &mut self,
        now: Time,
        from: u32,
        to: u32,
        bytes: u32,
        rng: &mut Rng,
    ) -> Fate {
        if !self.connected(from, to) {
            return Fate::Cut;
        }
        let Some(sent) = self.send(now, from, bytes, true) else {
            return Fate::Lost;
        };
        let links = self.links;
        if links.loss > 0.0 && rng.chance(links.loss) {
            return Fate::Lost;
        }
        let mut late = 0;
        if links.reorder > 0.0 && rng.chance(links.reorder) {
            late = rng.below(links.reorder_us as usize + 1) as u64;
        }
        let mut travel = |rng: &mut Rng| {
            let delay = self.travel(from, to, rng) + late;
            self.receive(sent + Duration::from_micros(delay), from, to, bytes)
        };
        let first = travel(rng);
        let again = links.duplicate > 0.0 && rng.chance(links.duplicate);
        Fate::Arrives(first, again.then(|| travel(rng)))
    }

    /// When a part of a stream arrives: in order, and late rather than never.
    pub(crate) fn stream(
        &mut self,
        now: Time,
        from: u32,
        to: u32,
        bytes: u32,
        rng: &mut Rng,
    ) -> Fate {
        if !self.connected(from, to) {
            return Fate::Cut;
        }
        let mut sent = self.send(now, from, bytes, false).unwrap_or(now);
        // Never for ever, even if all is lost.
        for _ in 0..100 {
            if self.links.loss <= 0.0 || !rng.chance(self.links.loss) {
                break;
            }
            sent += RETRANSMIT;
        }
        let delay = self.travel(from, to, rng);
        let arrives = self.receive(sent + Duration::from_micros(delay), from, to, bytes);
        let last = self.streams.entry((from, to)).or_insert(arrives);
        *last = arrives.max(*last);
        Fate::Arrives(*last, None)
    }

    fn travel(&self, from: u32, to: u32, rng: &mut Rng) -> u64 {
        let mut us = self.links.delay.draw(from, to, rng);
        if self.links.jitter_us > 0 {
            us += rng.below(self.links.jitter_us as usize + 1) as u64;
        }
        us
    }

    /// When the sender's line has taken the bytes; none if its queue is full.
    fn send(&mut self, now: Time, from: u32, bytes: u32, may_drop: bool) -> Option<Time> {
        let Some(line) = self.access.get_mut(from as usize) else {
            return Some(now);
        };
        let start = now.max(line.clogged_until);
        if line.rate.up == 0 {
            return Some(start);
        }
        let begin = start.max(line.up_free);
        if may_drop && line.rate.queue > 0 {
            let waiting = (begin - start).as_micros() * u128::from(line.rate.up) / 1_000_000;
            if waiting + u128::from(bytes) > u128::from(line.rate.queue) {
                return None;
            }
        }
        line.up_free = begin + transmission(bytes, line.rate.up);
        Some(line.up_free)
    }

    /// When the receiver has the whole of a message whose last byte reaches its line at `at`.
    fn receive(&mut self, at: Time, _from: u32, to: u32, bytes: u32) -> Time {
        let Some(line) = self.access.get_mut(to as usize) else {
            return at;
        };
        let mut at = at.max(line.clogged_until);
        if line.rate.down > 0 {
            line.down_free = line.down_free.max(at) + transmission(bytes, line.rate.down);
            at = line.down_free;
        }
        at + Duration::from_micros(line.slow_us)
    }
}

fn transmission(bytes: u32, rate: u64) -> Duration {
    Duration::from_micros(u64::from(bytes) * 1_000_000 / rate)
}

#[cfg(test)]
mod tests;
