//! A disk that forgets what was not synced, and tears what it was writing, when the power fails.

use serde::{Deserialize, Serialize};
use shoal_base::Rng;

/// Bytes that a disk writes whole or not at all.
pub const SECTOR: usize = 512;

/// What may happen to each write that was not synced when the power fails. Shares of one; what is
/// left of one is written whole.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PowerLoss {
    /// Not a byte is written.
    pub lost: f64,
    /// Some of its sectors are written, others not.
    pub torn: f64,
}

impl Default for PowerLoss {
    fn default() -> Self {
        Self {
            lost: 0.5,
            torn: 0.25,
        }
    }
}

/// One file on a disk: what is durable, and what a crash may undo.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    durable: Vec<u8>,
    /// As its owner sees it.
    cached: Vec<u8>,
    /// Writes since the last sync, in order.
    pending: Vec<(usize, Vec<u8>)>,
}

impl Disk {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes as their owner sees them.
    pub fn read(&self) -> &[u8] {
        &self.cached
    }

    /// Writes at an offset; the file grows by zeros up to there. Not durable before [`Disk::sync`].
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.cached, offset, bytes);
        self.pending.push((offset, bytes.to_vec()));
    }

    /// Writes at the end.
    pub fn append(&mut self, bytes: &[u8]) {
        self.write_at(self.cached.len(), bytes);
    }

    /// Makes all writes durable.
    pub fn sync(&mut self) {
        self.durable.clone_from(&self.cached);
        self.pending.clear();
    }

    /// The power fails: each write since the last sync is there, torn or gone, independently of the
    /// others, as caches write back in any order.
    pub fn power_loss(&mut self, how: PowerLoss, rng: &mut Rng) {
        for (offset, bytes) in std::mem::take(&mut self.pending) {
            let u = rng.unit();
            if u < how.lost {
                continue;
            }
            let torn = u < how.lost + how.torn;
            let mut at = 0;
            while at < bytes.len() {
                let end = (at + SECTOR - (offset + at) % SECTOR).min(bytes.len());
                if !torn || rng.chance(0.5) {
                    put(&mut self.durable, offset + at, &bytes[at..end]);
                }
                at = end;
            }
        }
        self.cached.clone_from(&self.durable);
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_and_the_rest_may_not() {
        let mut seen = [false; 3];
        for seed in 0..200 {
            let mut rng = Rng::from_seed(seed);
            let mut disk = Disk::new();
            disk.append(&[1; 100]);
            disk.sync();
            disk.append(&[2; 2000]);
            assert_eq!(disk.read().len(), 2100);
            disk.power_loss(PowerLoss::default(), &mut rng);
            assert_eq!(&disk.read()[..100], &[1; 100]);
            let kept = disk.read()[100..].iter().filter(|b| **b == 2).count();
            seen[match kept {
                0 => 0,
                2000 => 2,
                _ => 1,
            }] = true;
        }
        assert_eq!(seen, [true; 3], "lost, torn and whole all happen");
    }

    #[test]
    fn writes_are_torn_at_sectors() {
        let how = PowerLoss {
            lost: 0.0,
            torn: 1.0,
        };
        for seed in 0..50 {
            let mut disk = Disk::new();
            disk.write_at(10, &[3; 1500]);
            disk.power_loss(how, &mut Rng::from_seed(seed));
            let bytes = disk.read();
            for i in 10..bytes.len().saturating_sub(1) {
                assert!(
                    bytes[i] == bytes[i + 1] || (i + 1) % SECTOR == 0,
                    "torn at {i}"
                );
            }
        }
    }
}
