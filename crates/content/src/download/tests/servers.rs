//! Web seeds and streams among peers.

use super::*;

#[test]
fn a_web_seed_is_asked_for_long_runs() {
    let mut w = World::new(14, 400, DownloadConfig::default());
    let habits = Habits {
        kind: SourceKind::Web,
        ..with_address(1)
    };
    let a = w.add(&habits, None);
    let blocks = w.all[a].pending.clone();
    assert!(blocks.len() >= 32);
    let linear = blocks.windows(2).all(|b| {
        b[0].piece * 4 + b[0].begin / BLOCK_LEN + 1 == b[1].piece * 4 + b[1].begin / BLOCK_LEN
    });
    assert!(linear, "{blocks:?}");
    w.run(60.0);
}

/// How often the blocks that a source sent do not follow one another.
fn jumps(w: &World, key: usize) -> usize {
    let g = w.download.geometry();
    let at = |b: &Block| g.piece_start(b.piece) + u64::from(b.begin);
    let asked = &w.all[key].asked;
    let follows = |b: &[Block]| at(&b[0]) + u64::from(b[0].len) == at(&b[1]);
    asked.windows(2).filter(|b| !follows(b)).count()
}

#[test]
fn streams_among_peers_and_servers_seldom_jump_and_are_as_busy_as_the_rest() {
    let mut w = World::new(21, 600, DownloadConfig::default());
    let of = |kind, rate, address| Habits {
        kind,
        rate,
        delay: 0.05,
        ..with_address(address)
    };
    let peers = [1, 2].map(|n| of(SourceKind::Peer, 4e6, n));
    peers.iter().for_each(|habits| {
        w.add(habits, None);
    });
    w.add(&of(SourceKind::Web, 4e6, 3), None);
    let fast = w.add(&of(SourceKind::Stream, 4e6, 4), None);
    let slow = w.add(&of(SourceKind::Stream, 5e5, 5), None);
    let took = w.run(60.0);
    let ideal = w.download.geometry().total_len() as f64 / 16.5e6;
    assert!(took < 1.2 * ideal, "{took} s, ideal {ideal} s");
    for key in [fast, slow] {
        assert!(w.all[key].sent > 20);
        assert!(jumps(&w, key) <= 12, "{} jumps", jumps(&w, key));
    }
}
