//! How often strangers are answered, in constant memory.
//!
//! A challenge is three times as long as the shortest request, and the address a request came from
//! may be forged: without a bound a relay would be somebody's amplifier. Networks are counted in
//! cells; those that share one share its bound.

use shoal_base::{Rng, Time};
use std::net::{IpAddr, SocketAddr};

const CELLS_BITS: u32 = 12;

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    second: u32,
    count: u32,
}

#[derive(Debug)]
pub(super) struct Challenges {
    most: u32,
    key: u64,
    cells: Box<[Cell]>,
}

impl Challenges {
    pub(super) fn new(most: u32, rng: &mut Rng) -> Self {
        Self {
            most,
            key: rng.next_u64() | 1,
            cells: vec![Cell::default(); 1 << CELLS_BITS].into(),
        }
    }

    /// Counts an answer to `to`, unless there were too many in this second.
    pub(super) fn allow(&mut self, now: Time, to: SocketAddr) -> bool {
        let network = match to.ip() {
            IpAddr::V4(ip) => u64::from(ip.to_bits() >> 8),
            IpAddr::V6(ip) => (ip.to_bits() >> 80) as u64 | 1 << 63,
        };
        // The upper bits of a product with a secret odd number: who does not know it cannot choose
        // whose cell he fills.
        let hash = (network ^ network >> 32).wrapping_mul(self.key);
        let index = (hash >> (64 - CELLS_BITS)) as usize;
        let Some(cell) = self.cells.get_mut(index) else {
            return false;
        };
        let second = (now.as_micros() / 1_000_000) as u32;
        if cell.second != second {
            *cell = Cell { second, count: 0 };
        }
        cell.count += 1;
        cell.count <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_does_not_use_up_anothers_answers() {
        let mut challenges = Challenges::new(3, &mut Rng::from_seed(1));
        let now = Time::from_secs(100);
        let near: [SocketAddr; 2] = ["9.9.9.1:1", "9.9.9.200:2"].map(|a| a.parse().unwrap());
        let far = "[2600::1]:3".parse().unwrap();
        let allowed = (0..10)
            .filter(|n| challenges.allow(now, near[n % 2]))
            .count();
        assert_eq!(allowed, 3);
        assert!(challenges.allow(now, far));
        assert!(challenges.allow(Time::from_secs(101), near[0]));
    }
}
