//! Going on after a stop, a kill and a power loss.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use shoal_base::InfoHash;
use shoal_content::Geometry;
use shoal_store::resume::{Change, Entry};
use shoal_store::{Done, Job, Resume, ResumeError, ResumeState, TorrentSettings};

use crate::harness::{INFO_HASH, Pool, content};

/// The state folder as a killed process leaves it: whatever is in the page cache.
fn snapshot(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        fs::copy(item.path(), to.path().join(item.file_name())).unwrap();
    }
    to
}

fn load(dir: &Path) -> (ResumeState, Vec<String>) {
    let resume = Resume::open(dir).unwrap();
    let state = resume.load(&INFO_HASH).unwrap().expect("known");
    (state, resume.take_notes())
}

fn settings() -> TorrentSettings {
    TorrentSettings {
        name: "näme".into(),
        dir: "/some/where".into(),
        trackers: vec![vec!["http://a/".into(), "udp://b/".into()], vec![]],
        web_seeds: vec!["http://c/".into()],
        added: 1_700_000_000,
        wanted_files: Some(vec![0, 5]),
        paused: true,
    }
}

const ALL_BLOCKS: u32 = 4;

fn geometry() -> Geometry {
    Geometry::new(10 * 65_536 - 1, 65_536).unwrap()
}

#[test]
fn what_was_asked_for_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    {
        let resume = Resume::open(dir.path()).unwrap();
        let id = resume.add(&INFO_HASH, settings(), None).unwrap();
        assert!(resume.load(&InfoHash([9; 20])).unwrap().is_none());
        resume.set_info(id, b"the info", geometry()).unwrap();
        resume.set_counters(id, 11, 22, true).unwrap();
        resume.checkpoint().unwrap();
    }
    let (state, notes) = load(dir.path());
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(state.settings, settings());
    assert_eq!(state.info.as_deref(), Some(&b"the info"[..]));
    assert_eq!(state.geometry, Some(geometry()));
    assert_eq!(
        (state.uploaded, state.downloaded, state.finished),
        (11, 22, true)
    );
    assert_eq!((state.have.len(), state.have.count()), (10, 0));

    let resume = Resume::open(dir.path()).unwrap();
    assert_eq!(resume.list().unwrap(), [(INFO_HASH, settings())]);
    resume.remove(&INFO_HASH).unwrap();
    assert!(resume.load(&INFO_HASH).unwrap().is_none());
}

#[test]
fn two_processes_cannot_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Resume::open(dir.path()).unwrap();
    match Resume::open(dir.path()) {
        Err(e @ ResumeError::Locked { .. }) => {
            let text = e.to_string();
            assert!(text.contains(&std::process::id().to_string()), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn killed_at_any_point_of_a_download_nothing_written_is_forgotten() {
    let content = content(
        1,
        65_536,
        &[("t/a", 300_000, false), ("t/b", 77_777, false)],
    );
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pool = Pool::start(state.path());
    let id = pool.add(&content, dir.path());
    let registration = content.registration(dir.path(), Some(id));
    pool.pool.register(1, registration).unwrap();
    let g = content.layout.geometry();
    let mut order = content.all_blocks();
    // Pieces side by side, as from several peers.
    order.sort_by_key(|(piece, n)| (n % 2, *piece, *n));
    let mut written: Vec<(u32, u32)> = Vec::new();
    for (step, blocks) in order.chunks(2).enumerate() {
        pool.submit_all(vec![content.batch(1, blocks)]);
        written.extend(blocks);
        if step == 4 {
            pool.resume.checkpoint().unwrap();
        }
        let killed = snapshot(state.path());
        let (resumed, notes) = load(killed.path());
        assert_eq!(notes, Vec::<String>::new());
        assert_eq!(resumed.recheck, []);
        for piece in 0..g.pieces() {
            let there = |n: &u32| written.contains(&(piece, *n));
            let blocks: Vec<u32> = (0..g.blocks(piece)).filter(there).collect();
            let whole = blocks.len() as u32 == g.blocks(piece);
            assert_eq!(resumed.have.get(piece), whole, "piece {piece} step {step}");
            let partial = resumed.partial.iter().find(|(p, _)| *p == piece);
            let partial: Vec<u32> = partial.iter().flat_map(|(_, b)| b.iter()).collect();
            assert_eq!(partial, if whole { vec![] } else { blocks });
        }

        // And the download goes on from there, reading back what is not in memory.
        let again = Pool::start(killed.path());
        let mut state = again.resume.load(&INFO_HASH).unwrap().unwrap();
        let mut registration = content.registration(dir.path(), Some(state.id));
        let found = again.resume.reconcile(&mut state, &registration.files);
        assert_eq!(found, Default::default());
        registration.have = state.have;
        registration.partial = state.partial;
        again.pool.register(1, registration).unwrap();
        let rest: Vec<_> = order
            .iter()
            .filter(|b| !written.contains(b))
            .copied()
            .collect();
        again.submit_all(rest.chunks(3).map(|b| content.batch(1, b)).collect());
        content.assert_on_disk(dir.path());
        again.pool.stop().unwrap();
        drop(again.resume);
        assert!(load(killed.path()).0.have.is_full());
    }
}

#[test]
fn after_a_power_loss_only_what_was_synced_is_believed() {
    let content = content(2, 32_768, &[("t/a", 300_000, false)]);
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pool = Pool::start(state.path());
    let id = pool.add(&content, dir.path());
    let registration = content.registration(dir.path(), Some(id));
    pool.pool.register(1, registration).unwrap();
    let blocks = |pieces: std::ops::Range<u32>| -> Vec<_> {
        pieces.flat_map(|p| [(p, 0), (p, 1)]).collect()
    };
    pool.submit_all(vec![content.batch(1, &blocks(0..3))]);
    pool.pool.submit(Job::Sync { torrent: 1 });
    pool.wait(|all| matches!(all, [Done::Synced { result: Ok(()), .. }]));
    pool.submit_all(vec![content.batch(1, &blocks(3..5))]);
    pool.resume.checkpoint().unwrap();
    pool.submit_all(vec![
        content.batch(1, &blocks(5..6)),
        content.batch(1, &[(7, 0)]),
    ]);

    let killed = snapshot(state.path());
    let (resumed, _) = load(killed.path());
    assert_eq!(resumed.have.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(resumed.recheck, []);
    assert_eq!(resumed.partial.len(), 1);

    let lost = snapshot(state.path());
    let resume = Resume::open_in_boot(lost.path(), [0xbb; 16]).unwrap();
    let resumed = resume.load(&INFO_HASH).unwrap().unwrap();
    assert_eq!(resumed.have.iter().collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(resumed.recheck, [3, 4, 5]);
    assert_eq!(resumed.partial, []);
    drop(resume);

    // Killed again before the check: still to be checked.
    let again = Pool::with_resume(Resume::open_in_boot(lost.path(), [0xbb; 16]).unwrap());
    let resumed = again.resume.load(&INFO_HASH).unwrap().unwrap();
    assert_eq!(resumed.recheck, [3, 4, 5]);
    let mut registration = content.registration(dir.path(), Some(resumed.id));
    registration.have = resumed.have;
    again.pool.register(1, registration).unwrap();
    let mut pieces = shoal_base::Bitfield::new(10);
    for piece in resumed.recheck {
        pieces.set(piece);
    }
    again.pool.submit(Job::Check {
        torrent: 1,
        pieces: Some(pieces),
    });
    let done = again.wait(|all| all.iter().any(|d| matches!(d, Done::Checked { .. })));
    let Some(Done::Checked { have, .. }) = done.last() else {
        panic!("{done:?}");
    };
    assert_eq!(have.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    again.pool.stop().unwrap();
    drop(again.resume);
    let resume = Resume::open_in_boot(lost.path(), [0xbb; 16]).unwrap();
    let resumed = resume.load(&INFO_HASH).unwrap().unwrap();
    assert_eq!(resumed.have.count(), 6);
    assert_eq!(resumed.recheck, []);
}

#[test]
fn changed_and_missing_files_show_after_a_clean_stop() {
    let files = [
        ("t/a", 65_536, false),
        ("t/b", 65_536, false),
        ("t/c", 65_536, false),
    ];
    let content = content(3, 32_768, &files);
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    {
        let pool = Pool::start(state.path());
        let id = pool.add(&content, dir.path());
        let registration = content.registration(dir.path(), Some(id));
        pool.pool.register(1, registration).unwrap();
        pool.submit_all(content.all_batches(1, 16));
        pool.pool.stop().unwrap();
    }
    {
        let resume = Resume::open(state.path()).unwrap();
        let mut state = resume.load(&INFO_HASH).unwrap().unwrap();
        let found = resume.reconcile(&mut state, &content.files(dir.path()));
        assert_eq!(found, Default::default(), "nothing was touched");
        assert!(state.have.is_full());
    }
    fs::remove_file(dir.path().join("t/a")).unwrap();
    let b = fs::File::options()
        .write(true)
        .open(dir.path().join("t/b"))
        .unwrap();
    b.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    drop(b);
    for _ in 0..2 {
        let resume = Resume::open(state.path()).unwrap();
        let mut state = resume.load(&INFO_HASH).unwrap().unwrap();
        let first = state.have.is_full();
        let found = resume.reconcile(&mut state, &content.files(dir.path()));
        if first {
            assert_eq!(found.lost, [0, 1]);
            assert_eq!(found.changed, [0, 1]);
        }
        assert_eq!(state.recheck, [2, 3]);
        assert_eq!(state.have.iter().collect::<Vec<_>>(), [4, 5]);
        resume.checkpoint().unwrap();
    }
}

#[test]
fn a_damaged_database_is_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("resume.redb");
    {
        let resume = Resume::open(dir.path()).unwrap();
        for n in 0..50 {
            let info = Some((&[n; 3000][..], geometry()));
            resume.add(&InfoHash([n; 20]), settings(), info).unwrap();
        }
    }
    let good = fs::read(&path).unwrap();
    type Damage = dyn Fn(&mut Vec<u8>);
    let damage: [&Damage; 4] = [
        &|bytes| bytes.fill(0x55),
        &|bytes| bytes.truncate(100),
        &|bytes| bytes[..64].fill(0),
        &|bytes| {
            let from = bytes.len() / 4;
            bytes[from..].fill(0xff);
        },
    ];
    for (n, damage) in damage.iter().enumerate() {
        let mut bytes = good.clone();
        damage(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let resume = Resume::open(dir.path()).unwrap();
        let notes = resume.take_notes();
        assert!(
            matches!(&notes[..], [note] if note.contains("moved to")),
            "damage {n}: {notes:?}"
        );
        assert_eq!(resume.list().unwrap(), []);
        resume.add(&INFO_HASH, settings(), None).unwrap();
    }
    let asides = fs::read_dir(dir.path()).unwrap().filter(|item| {
        let name = item.as_ref().unwrap().file_name();
        name.to_string_lossy().contains("damaged")
    });
    assert_eq!(asides.count(), 4);
}

#[test]
fn a_damaged_byte_anywhere_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    {
        let resume = Resume::open(dir.path()).unwrap();
        for n in 0..20 {
            let info = Some((&[n; 500][..], geometry()));
            resume.add(&InfoHash([n; 20]), settings(), info).unwrap();
        }
    }
    let path = dir.path().join("resume.redb");
    let good = fs::read(&path).unwrap();
    let used: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
    let mut survived = 0;
    for at in used.iter().step_by(used.len() / 150) {
        let copy = tempfile::tempdir().unwrap();
        let mut bytes = good.clone();
        bytes[*at] ^= 0xff;
        fs::write(copy.path().join("resume.redb"), bytes).unwrap();
        let resume = Resume::open(copy.path()).unwrap();
        for n in 0..20 {
            // Either as it was, or unknown: never wrong.
            if let Ok(Some(state)) = resume.load(&InfoHash([n; 20])) {
                assert_eq!(state.settings, settings());
                survived += 1;
            }
        }
        resume.add(&InfoHash([99; 20]), settings(), None).unwrap();
    }
    assert!(survived > 0);
}

#[test]
fn a_journal_of_a_removed_database_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    {
        let resume = Resume::open(dir.path()).unwrap();
        let info = Some((&b"i"[..], geometry()));
        let torrent = resume.add(&INFO_HASH, settings(), info).unwrap();
        let change = Change::Verified { first: 0, count: 9 };
        resume.record(&[Entry { torrent, change }]);
    }
    fs::remove_file(dir.path().join("resume.redb")).unwrap();
    let resume = Resume::open(dir.path()).unwrap();
    assert!(resume.take_notes()[0].contains("another database"));
    let info = Some((&b"i"[..], geometry()));
    resume.add(&INFO_HASH, settings(), info).unwrap();
    let state = resume.load(&INFO_HASH).unwrap().unwrap();
    assert_eq!(state.have.count(), 0);
}

#[test]
fn thousands_of_torrents_load_quickly() {
    let dir = tempfile::tempdir().unwrap();
    let hash = |n: u32| {
        let mut hash = [0; 20];
        hash[..4].copy_from_slice(&n.to_be_bytes());
        InfoHash(hash)
    };
    let many = 3_000;
    {
        let resume = Resume::open(dir.path()).unwrap();
        let added = (0..many).map(|n| (hash(n), settings(), Some((&b"info"[..], geometry()))));
        resume.add_all(added).unwrap();
    }
    let start = std::time::Instant::now();
    let resume = Resume::open(dir.path()).unwrap();
    for (info_hash, _) in resume.list().unwrap() {
        assert!(resume.load(&info_hash).unwrap().is_some());
    }
    println!("{many} torrents listed and loaded in {:?}", start.elapsed());
}

/// A model of what should be known: per piece, whether it is there and which blocks are.
type Model = Vec<(bool, [bool; ALL_BLOCKS as usize])>;

fn apply(model: &mut Model, change: Change) {
    let range = |first: u32, count: u32| first.min(10) as usize..(first + count).min(10) as usize;
    match change {
        Change::Blocks {
            piece,
            first,
            count,
        } => {
            let (have, blocks) = &mut model[piece as usize];
            if !*have {
                let to = (first + count).min(ALL_BLOCKS);
                blocks[first as usize..to as usize].fill(true);
            }
        }
        Change::Verified { first, count } => model[range(first, count)].fill((true, [false; 4])),
        Change::Lost { first, count } => model[range(first, count)].fill((false, [false; 4])),
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0u32..10, 0u32..4, 1u32..4)
            .prop_map(|(piece, first, count)| Change::Blocks { piece, first, count }),
        2 => (0u32..10, 1u32..3).prop_map(|(first, count)| Change::Verified { first, count }),
        1 => (0u32..10, 1u32..3).prop_map(|(first, count)| Change::Lost { first, count }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Changes, checkpoints and kills in any order; after a kill the journal may be torn.
    #[test]
    fn any_history_is_remembered(
        steps in prop::collection::vec(prop_oneof![
            8 => change().prop_map(Some),
            1 => Just(None),
        ], 1..40),
        torn in 0usize..60,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let resume = Resume::open(dir.path()).unwrap();
        let info = Some((&b"i"[..], geometry()));
        let torrent = resume.add(&INFO_HASH, settings(), info).unwrap();
        let mut models: Vec<Model> = vec![vec![(false, [false; 4]); 10]];
        let mut in_journal = 0;
        for step in steps {
            match step {
                Some(change) => {
                    resume.record(&[Entry { torrent, change }]);
                    in_journal += 1;
                    let mut model = models.last().unwrap().clone();
                    apply(&mut model, change);
                    models.push(model);
                }
                None => {
                    resume.checkpoint().unwrap();
                    in_journal = 0;
                }
            }
        }
        let killed = snapshot(dir.path());
        let journal = fs::read_dir(killed.path()).unwrap().map(|item| item.unwrap().path());
        let mut journals = journal.filter(|p| p.extension().is_some_and(|e| e == "journal"));
        let journal = journals.next().unwrap();
        prop_assert_eq!(journals.next(), None);
        let mut bytes = fs::read(&journal).unwrap();
        prop_assert_eq!(bytes.len(), 48 + 24 * in_journal);
        let torn = torn.min(bytes.len() - 48);
        bytes.truncate(bytes.len() - torn);
        fs::write(&journal, bytes).unwrap();

        let (state, _) = load(killed.path());
        let want = &models[models.len() - 1 - torn.div_ceil(24)];
        for piece in 0..10u32 {
            let (have, blocks) = want[piece as usize];
            prop_assert_eq!(state.have.get(piece), have);
            let partial = state.partial.iter().find(|(p, _)| *p == piece);
            for n in 0..ALL_BLOCKS {
                let there = partial.is_some_and(|(_, bits)| bits.get(n));
                prop_assert_eq!(there, blocks[n as usize]);
            }
        }
    }
}
