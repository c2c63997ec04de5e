//! What happens when a disk is full or files vanish.

use std::path::Path;
use std::process::Command;

use shoal_store::{Done, ErrorClass, Job};

use crate::harness::{Pool, content};

/// A small file system of its own, gone when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// None where mounting is not allowed.
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir.path());
        let mounted = mount.output().is_ok_and(|o| o.status.success());
        if !mounted {
            println!("skipped: may not mount a file system");
        }
        mounted.then_some(Self(dir))
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-o", &options]).arg(self.path());
        assert!(mount.status().unwrap().success());
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[test]
fn a_full_disk_fails_the_blocks_and_a_larger_one_takes_them() {
    let Some(disk) = SmallDisk::mount("1m") else {
        return;
    };
    let (other_dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let content = content(1, 262_144, &[("f", 3 << 20, false)]);
    let pool = Pool::start(state.path());
    let id = pool.add(&content, disk.path());
    let registration = content.registration(disk.path(), Some(id));
    pool.pool.register(1, registration).unwrap();
    let registration = content.registration(other_dir.path(), None);
    pool.pool.register(2, registration).unwrap();

    let mut batches = content.all_batches(1, 16);
    batches.extend(content.all_batches(2, 16));
    let done = pool.submit_all(batches);
    let mut failed = Vec::new();
    let (mut faults, mut written) = (0, 0);
    for d in &done {
        match d {
            Done::Written {
                failed: some,
                blocks,
                ..
            } => {
                failed.extend(some.iter().copied());
                written += blocks.iter().filter(|b| b.torrent == 1).count();
            }
            Done::Fault { torrent: 1, error } => {
                assert_eq!(error.class(), ErrorClass::Full, "{error}");
                assert!(error.may_recover() && error.path().ends_with("f"));
                faults += 1;
            }
            _ => {}
        }
    }
    assert_eq!(faults, 1, "told once");
    assert!(failed.iter().all(|b| b.torrent == 1), "the other goes on");
    content.assert_on_disk(other_dir.path());
    assert_eq!(written + failed.len(), content.all_blocks().len());
    assert!(written > 0 && !failed.is_empty());

    let probe = || {
        pool.pool.submit(Job::Probe { torrent: 1 });
        match pool.wait(|all| !all.is_empty()).pop() {
            Some(Done::Probed { result, lost, .. }) => (result, lost),
            other => panic!("{other:?}"),
        }
    };
    let (result, _) = probe();
    assert_eq!(result.unwrap_err().class(), ErrorClass::Full);
    disk.resize("8m");
    assert_eq!(probe(), (Ok(()), Vec::new()));

    let again: Vec<_> = failed
        .iter()
        .map(|b| (b.block.piece, b.block.begin / 16_384))
        .collect();
    let batches = again.chunks(16).map(|b| content.batch(1, b)).collect();
    for d in pool.submit_all(batches) {
        assert!(
            !matches!(&d, Done::Written { failed, .. } if !failed.is_empty()),
            "{d:?}"
        );
    }
    content.assert_on_disk(disk.path());
    let done = pool.check(1);
    assert!(matches!(done.last(), Some(Done::Checked { have, .. }) if have.is_full()));
}

#[test]
fn files_deleted_behind_our_back_are_told_by_a_probe_and_written_anew() {
    let content = content(2, 16_384, &[("t/a", 50_000, false), ("t/b", 50_000, false)]);
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pool = Pool::start(state.path());
    let id = pool.add(&content, dir.path());
    let registration = content.registration(dir.path(), Some(id));
    pool.pool.register(1, registration).unwrap();
    pool.submit_all(content.all_batches(1, 16));
    std::fs::remove_file(dir.path().join("t/b")).unwrap();
    pool.pool.submit(Job::Probe { torrent: 1 });
    let done = pool.wait(|all| !all.is_empty());
    let Some(Done::Probed {
        result: Ok(()),
        lost,
        ..
    }) = done.first()
    else {
        panic!("{done:?}");
    };
    assert_eq!(lost, &[3, 4, 5, 6]);
    let again: Vec<_> = lost.iter().map(|piece| (*piece, 0)).collect();
    pool.submit_all(vec![content.batch(1, &again)]);
    // Piece 3 straddles both files and was written whole.
    content.assert_on_disk(dir.path());
}

#[test]
fn blocks_that_cannot_be_read_back_are_told_as_failed() {
    let content = content(3, 65_536, &[("a", 65_536, false)]);
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pool = Pool::start(state.path());
    let id = pool.add(&content, dir.path());
    pool.pool
        .register(1, content.registration(dir.path(), Some(id)))
        .unwrap();
    pool.submit_all(vec![content.batch(1, &[(0, 1), (0, 2)])]);
    // Early blocks are gone when their turn comes.
    let file = std::fs::File::options()
        .write(true)
        .open(dir.path().join("a"));
    file.unwrap().set_len(20_000).unwrap();
    let done = pool.submit_all(vec![content.batch(1, &[(0, 0)])]);
    let [
        Done::Fault { error, .. },
        Done::Written { blocks, failed, .. },
    ] = &done[..]
    else {
        panic!("{done:?}");
    };
    assert_eq!(error.class(), ErrorClass::Gone);
    assert_eq!(blocks, &[]);
    let mut failed: Vec<u32> = failed.iter().map(|b| b.block.begin / 16_384).collect();
    failed.sort_unstable();
    assert_eq!(failed, [0, 1, 2]);
    let state = pool
        .resume
        .load(&crate::harness::INFO_HASH)
        .unwrap()
        .unwrap();
    assert_eq!(state.partial, []);

    pool.pool.submit(Job::Probe { torrent: 1 });
    pool.wait(|all| !all.is_empty());
    let blocks: Vec<_> = (0..4).map(|n| (0, n)).collect();
    pool.submit_all(vec![content.batch(1, &blocks)]);
    content.assert_on_disk(dir.path());
}

#[test]
fn a_file_deleted_while_it_is_written_is_not_quietly_made_anew() {
    let content = content(4, 65_536, &[("a", 65_536, false), ("b", 65_536, false)]);
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pool = Pool::start(state.path());
    let registration = content.registration(dir.path(), None);
    let files = std::sync::Arc::clone(&registration.files);
    pool.pool.register(1, registration).unwrap();
    let blocks: Vec<_> = (0..4).map(|n| (1, n)).collect();
    pool.submit_all(vec![
        content.batch(1, &blocks),
        content.batch(1, &[(0, 0), (0, 1)]),
    ]);
    std::fs::remove_file(dir.path().join("a")).unwrap();
    std::fs::remove_file(dir.path().join("b")).unwrap();
    // As when too many others were opened since.
    files.close();
    let done = pool.submit_all(vec![content.batch(1, &[(0, 2), (0, 3)])]);
    let fault = done.iter().find_map(|d| match d {
        Done::Fault { error, .. } => Some(error.class()),
        _ => None,
    });
    assert_eq!(fault, Some(ErrorClass::Gone), "{done:?}");

    pool.pool.submit(Job::Probe { torrent: 1 });
    let done = pool.wait(|all| !all.is_empty());
    let [
        Done::Probed {
            result: Ok(()),
            lost,
            failed,
            ..
        },
    ] = &done[..]
    else {
        panic!("{done:?}");
    };
    assert_eq!(lost, &[1]);
    let failed: Vec<u32> = failed.iter().map(|b| b.block.begin / 16_384).collect();
    assert_eq!(failed, [0, 1]);
    pool.submit_all(content.all_batches(1, 8));
    content.assert_on_disk(dir.path());
}

#[test]
fn files_deleted_before_the_end_are_told_at_the_end() {
    let content = content(5, 65_536, &[("a", 65_536, false), ("b", 65_536, false)]);
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pool = Pool::start(state.path());
    pool.pool
        .register(1, content.registration(dir.path(), None))
        .unwrap();
    pool.submit_all(content.all_batches(1, 16));
    std::fs::remove_file(dir.path().join("a")).unwrap();
    pool.pool.submit(Job::Finish { torrent: 1 });
    let done = pool.wait(|all| all.len() == 2);
    assert!(
        matches!(
            &done[..],
            [Done::Fault { .. }, Done::Finished { result: Err(_), .. }]
        ),
        "{done:?}"
    );
}
