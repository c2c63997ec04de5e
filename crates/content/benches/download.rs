//! What the download machine costs per event with a thousand peers: `cargo bench -p shoal-content`.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use shoal_base::{Bitfield, Rng, Time};
use shoal_content::download::{SourceKind, SourceOptions};
use shoal_content::{
    Block, Download, DownloadConfig, DownloadOutput, Geometry, PieceOutcome, SourceId,
};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

const PEERS: u32 = 1000;

fn download(pieces: u32, piece_len: u32) -> Download {
    let total = u64::from(pieces) * u64::from(piece_len);
    let geometry = Geometry::new(total, piece_len).expect("few pieces");
    let none = Bitfield::new(pieces);
    Download::new(geometry, none, DownloadConfig::default(), Rng::from_seed(1))
}

fn options(address: u32) -> SourceOptions {
    SourceOptions {
        address: u64::from(address),
        kind: SourceKind::Peer,
        fast: true,
        max_pipeline: 500,
    }
}

fn report(what: &str, n: u64, took: Duration) {
    let ns = took.as_nanos() as f64 / n as f64;
    println!("{what:<58} {ns:8.1} ns  ({n} events)");
}

/// Every peer starts with nothing and tells of every piece it gets.
fn haves(pieces: u32) {
    let mut d = download(pieces, 1 << 20);
    let mut out = Vec::new();
    let mut rng = Rng::from_seed(2);
    let peers: Vec<SourceId> = (0..PEERS)
        .map(|a| d.add_source(Time::ZERO, &options(a)))
        .collect();
    let events: Vec<(SourceId, u32)> = (0..2_000_000)
        .map(|_| {
            let peer = peers[rng.below(peers.len())];
            (peer, rng.below(pieces as usize) as u32)
        })
        .collect();
    let start = Instant::now();
    for (peer, piece) in &events {
        d.on_have(Time::ZERO, *peer, *piece, &mut out);
        out.clear();
    }
    let what = format!("HAVE, {PEERS} peers, {pieces} pieces");
    report(&what, events.len() as u64, start.elapsed());
}

/// `active` of a thousand peers deliver everything; the rest have what they have.
fn blocks(pieces: u32, piece_len: u32, active: usize, share: f64) {
    let mut d = download(pieces, piece_len);
    let geometry = d.geometry();
    let mut rng = Rng::from_seed(3);
    let mut out = Vec::new();
    let mut queue: VecDeque<(SourceId, Block)> = VecDeque::new();
    let mut now = Time::ZERO;
    let peers: Vec<SourceId> = (0..PEERS).map(|a| d.add_source(now, &options(a))).collect();
    for (i, peer) in peers.iter().enumerate() {
        if i < active && share >= 1.0 {
            d.on_have_all(now, *peer, &mut out);
        } else {
            let mut bits = Bitfield::new(pieces);
            for p in 0..pieces {
                if rng.chance(share.min(0.7)) {
                    bits.set(p);
                }
            }
            d.on_bitfield(now, *peer, &bits, &mut out);
        }
    }
    let mut left = vec![0u32; pieces as usize];
    for p in 0..pieces {
        left[p as usize] = geometry.blocks(p);
    }
    let good = PieceOutcome::Verified { digests: None };
    let start = Instant::now();
    for peer in peers.iter().take(active) {
        d.on_unchoke(now, *peer, &mut out);
    }
    let mut events = 0u64;
    loop {
        for o in out.drain(..) {
            if let DownloadOutput::Request { source, block } = o {
                queue.push_back((source, block));
            }
        }
        let Some((source, block)) = queue.pop_front() else {
            break;
        };
        now += Duration::from_micros(16);
        let _ = d.on_block(now, source, block, &mut out);
        events += 1;
        let left = &mut left[block.piece as usize];
        *left = left.saturating_sub(1);
        if *left == 0 {
            d.on_piece(now, block.piece, &good, &mut out);
        }
        if d.deadline().is_some_and(|at| at <= now) {
            d.on_tick(now, &mut out);
        }
    }
    let what = format!(
        "request + block, {active} of {PEERS} peers active, {} KiB pieces",
        piece_len >> 10
    );
    report(&what, events, start.elapsed());
    assert!(d.is_finished(), "{} missing", d.missing().count());
}

fn main() {
    haves(1_000);
    haves(10_000);
    haves(100_000);
    blocks(16_384, 1 << 16, 1, 1.0);
    blocks(4_096, 1 << 20, 1, 1.0);
    blocks(4_096, 1 << 20, 50, 1.0);
    blocks(4_096, 1 << 20, 1000, 1.0);
    blocks(4_096, 1 << 20, 1000, 0.5);
    blocks(256, 16 << 20, 1000, 0.5);
    blocks(65_536, 1 << 14, 50, 1.0);
    blocks(65_536, 1 << 14, 1000, 0.5);
}
