use super::*;
use shoal_mapreduce::data::MemoryStorage;
use shoal_mapreduce::data::shuffle::{Codec, Growing, Runs, RunsWriter};
use shoal_mapreduce::id::{JobId, TaskId, TaskKind};

/// Two partitions of one record each.
fn runs(value: &str) -> Runs {
    let mut storage = MemoryStorage;
    let out = Growing::new(1 << 20);
    let mut writer = RunsWriter::new(&mut storage, out, 0, Codec::Lz4, 4096);
    for key in ["a", "b"] {
        writer.push(key.as_bytes(), value.as_bytes()).expect("fits");
        writer.end_partition().expect("ends");
    }
    writer.finish()
}

/// What comes of fetching partition 1 of `served`, told to be of `parts`, where `committed` is
/// the digest that the master gave.
fn fetched(
    served: &Runs,
    parts: Vec<Part>,
    committed: &Digest,
    budget: u64,
) -> Result<u64, Refused> {
    let dir = tempfile::tempdir().expect("a folder");
    let gathered = Gathered::new(dir.path().to_owned(), budget);
    let task = TaskId {
        job: JobId(1),
        kind: TaskKind::Map,
        index: 0,
    };
    let mut incoming = Incoming {
        output: AttemptId { task, number: 0 },
        entry: served.entry(1),
        parts,
        body: &mut served.section(1),
    };
    gathered.take(&mut incoming, 1, committed)
}

#[test]
fn only_what_was_committed_is_taken() {
    let (right, wrong) = (runs("1"), runs("2"));
    let parts = |runs: &Runs| -> Vec<Part> {
        let part = |p| digest::part_of(runs.section(p)).expect("reads");
        vec![part(0), part(1)]
    };
    let committed = digest::of(&parts(&right));
    // In memory, and in a file.
    for budget in [1 << 20, 0] {
        let take = |served, parts| fetched(served, parts, &committed, budget);
        assert!(take(&right, parts(&right)).is_ok());
        let corrupt = |taken| matches!(taken, Err(Refused::Corrupt));
        assert!(corrupt(take(&wrong, parts(&wrong))), "another list");
        assert!(corrupt(take(&wrong, parts(&right))), "other bytes");
        assert!(corrupt(take(&right, Vec::new())), "no list");
        assert!(fetched(&wrong, Vec::new(), &digest::NONE, budget).is_ok());
    }
}
