//! How fast the hashes of a content are made on one thread: `cargo bench -p shoal-content --bench
//! hashing`.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::hint::black_box;
use std::time::Instant;

use sha1::{Digest, Sha1};
use sha2::Sha256;
use shoal_content::FileHasher;
use shoal_content::tiger::TreeBuilder;

/// As files are read: what stays in the cache.
const READ_LEN: usize = 64 << 10;
const TOTAL: usize = 512 << 20;

/// The best of three rounds, in MiB/s.
fn measure(what: &str, mut round: impl FnMut(&[u8])) {
    let data: Vec<u8> = (0..READ_LEN).map(|n| ((n * 31) >> 3) as u8).collect();
    let best = (0..3)
        .map(|_| {
            let start = Instant::now();
            round(&data);
            start.elapsed()
        })
        .min()
        .unwrap_or_default();
    let rate = (TOTAL >> 20) as f64 / best.as_secs_f64();
    println!("{what:<40} {rate:7.0} MiB/s");
}

fn digest<D: Digest>(data: &[u8]) {
    let mut hasher = D::new();
    for _ in 0..TOTAL / READ_LEN {
        hasher.update(data);
    }
    black_box(hasher.finalize());
}

fn main() {
    measure("SHA-1", digest::<Sha1>);
    measure("SHA-256", digest::<Sha256>);
    measure("Tiger", digest::<tiger::Tiger>);
    measure("Tiger tree", |data| {
        let mut builder = TreeBuilder::new();
        for _ in 0..TOTAL / READ_LEN {
            builder.update(data);
        }
        black_box(builder.finish().root());
    });
    measure("all hashes of a file in one pass", |data| {
        let mut hasher = FileHasher::new(TOTAL as u64);
        for _ in 0..TOTAL / READ_LEN {
            hasher.update(data);
        }
        black_box(hasher.finish());
    });
}
