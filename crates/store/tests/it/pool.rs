//! Writing, hashing, reading and checking through the pool.

use std::sync::Arc;

use shoal_base::{Bitfield, Rng};
use shoal_content::Block;
use shoal_content::{PieceHashes, PieceOutcome};
use shoal_store::{Done, Job, ReadPart};

use crate::harness::{Content, Pool, content};

const FILES: &[(&str, u64, bool)] = &[
    ("t/a", 100_000, false),
    ("t/empty", 0, false),
    ("t/pad", 31_072, true),
    ("t/sub/b", 300_001, false),
    ("t/c", 5, false),
];

fn verified(done: &[Done]) -> Vec<u32> {
    let mut pieces: Vec<u32> = done
        .iter()
        .filter_map(|d| match d {
            Done::Piece {
                piece,
                outcome: PieceOutcome::Verified { .. },
                ..
            } => Some(*piece),
            _ => None,
        })
        .collect();
    pieces.sort_unstable();
    pieces
}

fn run(content: &Content, order: &[(u32, u32)], per_batch: usize) {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pool = Pool::start(state.path());
    let id = pool.add(content, dir.path());
    let registration = content.registration(dir.path(), Some(id));
    pool.pool.register(1, registration).unwrap();
    let batches = order.chunks(per_batch);
    let done = pool.submit_all(batches.map(|b| content.batch(1, b)).collect());
    for d in &done {
        assert!(
            !matches!(d, Done::Written { failed, .. } if !failed.is_empty()),
            "{d:?}"
        );
    }
    let all: Vec<u32> = (0..content.layout.geometry().pieces()).collect();
    assert_eq!(verified(&done), all);
    pool.pool.submit(Job::Prepare {
        torrent: 1,
        wanted: None,
    });
    pool.wait(|all| all.iter().any(|d| matches!(d, Done::Prepared { .. })));
    content.assert_on_disk(dir.path());

    let done = pool.check(1);
    let Some(Done::Checked { have, error, .. }) = done.last() else {
        panic!("{done:?}");
    };
    assert!(have.is_full() && error.is_none());

    pool.pool.stop().unwrap();
    drop(pool.resume);
    let again = Pool::start(state.path());
    let state = again
        .resume
        .load(&crate::harness::INFO_HASH)
        .unwrap()
        .unwrap();
    assert!(state.have.is_full());
}

#[test]
fn blocks_in_order_are_verified_and_on_disk() {
    for piece_len in [16_384, 32_768, 65_536, 1 << 20] {
        let content = content(1, piece_len, FILES);
        run(&content, &content.all_blocks(), 16);
    }
}

#[test]
fn blocks_in_any_order_are_verified_and_on_disk() {
    for seed in 0..20 {
        let mut rng = Rng::from_seed(seed);
        let piece_len = [16_384, 32_768, 65_536, 262_144][rng.below(4)];
        let content = content(2, piece_len, FILES);
        let mut order = content.all_blocks();
        for i in (1..order.len()).rev() {
            order.swap(i, rng.below(i + 1));
        }
        run(&content, &order, 1 + rng.below(16));
    }
}

#[test]
fn pieces_of_which_nothing_is_known_are_taken_and_never_found_right() {
    let mut content = content(3, 65_536, &[("f", 131_072, false)]);
    content.hashes = Arc::new(PieceHashes::Unknown(2));
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pool = Pool::start(state.path());
    pool.pool
        .register(1, content.registration(dir.path(), None))
        .unwrap();
    // Backwards, so that nothing is hashed in order.
    let batches: Vec<_> = (0..4).rev().map(|n| content.batch(1, &[(0, n)])).collect();
    let done = pool.submit_all(batches);
    let taken = done.iter().find_map(|d| match d {
        Done::Piece { piece, outcome, .. } => Some((*piece, outcome.clone())),
        _ => None,
    });
    assert_eq!(taken, Some((0, PieceOutcome::Verified { digests: None })));
    let checked = pool.check(1);
    assert!(
        checked
            .iter()
            .any(|d| matches!(d, Done::Checked { have, .. } if have.count() == 0))
    );
}

#[test]
fn a_corrupt_piece_tells_its_blocks_digests_and_can_be_fetched_anew() {
    use sha1::{Digest, Sha1};
    let content = || content(3, 65_536, &[("f", 131_072, false)]);
    for (content, split) in [
        (content(), 1),
        (content(), 4),
        (content().with_tiger(), 1),
        (content().with_tiger(), 4),
    ] {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pool = Pool::start(state.path());
        let id = pool.add(&content, dir.path());
        pool.pool
            .register(1, content.registration(dir.path(), Some(id)))
            .unwrap();
        let blocks: Vec<_> = (0..4).map(|n| (1, n)).collect();
        let mut batches: Vec<_> = blocks
            .chunks(4 / split)
            .map(|b| content.batch(1, b))
            .collect();
        let last = batches.last_mut().unwrap();
        *last.buf.last_mut().unwrap() ^= 1;
        let done = pool.submit_all(batches);
        let digests = done.iter().find_map(|d| match d {
            Done::Piece {
                outcome: PieceOutcome::Corrupt { digests },
                ..
            } => Some(digests.clone()),
            _ => None,
        });
        let digests = digests.expect("found corrupt");
        let right: Vec<[u8; 20]> = content.bytes[65_536..]
            .chunks(16_384)
            .map(|b| Sha1::digest(b).into())
            .collect();
        assert_eq!(digests[..3], right[..3]);
        assert_ne!(digests[3], right[3]);

        let done = pool.submit_all(vec![content.batch(1, &blocks)]);
        let outcome = done.iter().find_map(|d| match d {
            Done::Piece { outcome, .. } => Some(outcome.clone()),
            _ => None,
        });
        let digests = Some(right);
        assert_eq!(outcome, Some(PieceOutcome::Verified { digests }));
        let checked = pool.check(1);
        let have = checked.iter().find_map(|d| match d {
            Done::Checked { have, .. } => Some(have.iter().collect::<Vec<_>>()),
            _ => None,
        });
        assert_eq!(have, Some(vec![1]));
    }
}

#[test]
fn reads_scatter_blocks_into_one_buffer() {
    let content = content(4, 32_768, FILES);
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pool = Pool::start(state.path());
    pool.pool
        .register(1, content.registration(dir.path(), None))
        .unwrap();
    pool.submit_all(content.all_batches(1, 16));
    let blocks = [
        Block {
            piece: 0,
            begin: 0,
            len: 16_384,
        },
        Block {
            piece: 0,
            begin: 16_384,
            len: 16_384,
        },
        Block {
            piece: 1,
            begin: 0,
            len: 16_384,
        },
        Block {
            piece: 3,
            begin: 100,
            len: 3,
        },
    ];
    let mut start = 0;
    let parts: Vec<ReadPart> = blocks
        .iter()
        .map(|block| {
            let part = ReadPart {
                block: *block,
                start: start + 13,
            };
            start = part.start + block.len as usize;
            part
        })
        .collect();
    let read = |torrent, parts: Vec<ReadPart>, len| {
        pool.pool.submit(Job::Read {
            torrent,
            token: 9,
            buf: vec![0xaa; len],
            parts,
        });
        let mut done = pool.wait(|all| !all.is_empty());
        match done.pop() {
            Some(Done::Read {
                buf,
                result,
                token: 9,
                ..
            }) => (buf, result),
            other => panic!("{other:?}"),
        }
    };
    let (buf, result) = read(1, parts.clone(), start);
    assert_eq!(result, Ok(()));
    for part in &parts {
        let from = (u64::from(part.block.piece) * 32_768) as usize + part.block.begin as usize;
        let len = part.block.len as usize;
        assert!(buf[part.start..part.start + len] == content.bytes[from..from + len]);
        assert_eq!(buf[part.start - 13..part.start], [0xaa; 13]);
    }
    assert!(
        read(1, parts.clone(), start - 1).1.is_err(),
        "too small a buffer"
    );
    assert!(read(2, parts, start).1.is_err(), "unknown torrent");
}

#[test]
fn nonsense_and_repeated_blocks_do_no_harm() {
    let content = content(5, 32_768, &[("f", 65_536, false)]);
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pool = Pool::start(state.path());
    pool.pool
        .register(1, content.registration(dir.path(), None))
        .unwrap();
    let mut batch = content.batch(1, &[(0, 0), (0, 1), (1, 0)]);
    let mut wrong = batch.blocks[0];
    wrong.block.begin = 7;
    let mut beyond = batch.blocks[0];
    beyond.start = usize::MAX;
    let mut unknown = batch.blocks[0];
    unknown.torrent = 3;
    batch.blocks.extend([wrong, beyond, unknown]);
    let done = pool.submit_all(vec![batch]);
    let Some(Done::Written { blocks, failed, .. }) = done.first() else {
        panic!("{done:?}");
    };
    assert_eq!((blocks.len(), failed.len()), (3, 3));
    assert_eq!(verified(&done), [0]);

    // Once a piece is right, or a block is hashed, nothing overwrites it.
    let mut again = content.batch(1, &[(0, 0), (1, 0)]);
    again.buf.fill(0);
    pool.submit_all(vec![again]);
    let done = pool.submit_all(vec![content.batch(1, &[(1, 1)])]);
    assert_eq!(verified(&done), [1]);
    content.assert_on_disk(dir.path());
}

#[test]
fn what_a_peer_sends_for_padding_does_not_matter() {
    let content = content(8, 16_384, &[("a", 20_000, false), ("p", 12_768, true)]);
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pool = Pool::start(state.path());
    pool.pool
        .register(1, content.registration(dir.path(), None))
        .unwrap();
    let mut batch = content.batch(1, &[(1, 0), (0, 0)]);
    let padding = batch.blocks[0].start + 20_000 - 16_384;
    batch.buf[padding..padding + 12_768].fill(0x55);
    assert_eq!(verified(&pool.submit_all(vec![batch])), [0, 1]);
    content.assert_on_disk(dir.path());
}

#[test]
fn a_check_finds_exactly_the_good_pieces() {
    let content = content(6, 16_384, FILES);
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pool = Pool::start(state.path());
    let fresh = || {
        pool.pool
            .register(1, content.registration(dir.path(), None))
            .unwrap();
    };
    fresh();
    pool.submit_all(content.all_batches(1, 16));
    let done = pool.check(1);
    assert!(matches!(done.last(), Some(Done::Checked { have, .. }) if have.is_full()));
    // "c" shares its piece with the end of "sub/b".
    std::fs::remove_file(dir.path().join("t/c")).unwrap();
    let mut b = std::fs::read(dir.path().join("t/sub/b")).unwrap();
    b[0] ^= 1;
    std::fs::write(dir.path().join("t/sub/b"), b).unwrap();
    let done = pool.check(1);
    let Some(Done::Checked {
        have,
        cancelled: false,
        error: None,
        ..
    }) = done.last()
    else {
        panic!("{done:?}");
    };
    let mut want = Bitfield::full(content.layout.geometry().pieces());
    want.clear(131_072 / 16_384);
    want.clear(content.layout.geometry().pieces() - 1);
    assert_eq!(*have, want);
}

#[test]
fn a_cancelled_check_answers_and_closing_waits_for_writes() {
    let content = content(7, 16_384, FILES);
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pool = Pool::start(state.path());
    pool.pool
        .register(1, content.registration(dir.path(), None))
        .unwrap();
    pool.pool.submit(Job::Check {
        torrent: 1,
        pieces: None,
    });
    pool.pool.cancel_check(1);
    pool.wait(|all| all.iter().any(|d| matches!(d, Done::Checked { .. })));
    // The check may have come as far as a piece that is all padding, and found it good.
    pool.pool
        .register(1, content.registration(dir.path(), None))
        .unwrap();
    for batch in content.all_batches(1, 4) {
        pool.pool.submit(Job::Write(batch));
    }
    pool.pool.submit(Job::Close { torrent: 1 });
    let done = pool.wait(|all| all.iter().any(|d| matches!(d, Done::Closed { .. })));
    assert_eq!(
        verified(&done).len() as u32,
        content.layout.geometry().pieces()
    );
}
