//! What a hub must not forget, in one file: a line for each record, appended as they come.
//!
//! A thread of its own appends and syncs, many records at once if many wait, so that the hub waits
//! for no disk: what was said in the last milliseconds before a crash may be lost. A torn line at
//! the end is cut off; the file is written anew when most of it is outdated.

use std::io;
use std::path::Path;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};
use shoal_napster::hub::{Hub, Record};
use shoal_store::job::JobLog;
use shoal_store::snapshot;

/// Why the records of an earlier run cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The file system refused, or another hub has the file open.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A line is not a record.
    #[error("line {line} is not understood: {why}")]
    Bad {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        why: shoal_napster::fields::BadField,
    },
}

/// Appends records to a file.
#[derive(Debug)]
pub(super) struct Keeper {
    queue: Option<Sender<Record>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Reads the file into the hub, and starts to append to it.
    pub(super) fn open(path: &Path, hub: &mut Hub) -> Result<Self, KeeperError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let (mut log, bytes) = JobLog::open(path)?;
        let whole = bytes
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        let mut lines = 0;
        for line in bytes
            .get(..whole)
            .unwrap_or_default()
            .split(|b| *b == b'\n')
        {
            lines += 1;
            if !line.is_empty() {
                let record =
                    Record::decode(line).map_err(|why| KeeperError::Bad { line: lines, why });
                hub.restore(record?);
            }
        }
        let records = hub.records();
        if lines > 1000 + 2 * records.len() {
            let mut fresh = Vec::new();
            records.iter().for_each(|r| r.encode(&mut fresh));
            snapshot::save(path, &fresh)?;
            log = JobLog::open(path)?.0;
        } else {
            log.cut(whole as u64)?;
        }
        let (queue, records) = unbounded();
        let thread = thread::Builder::new()
            .name("napster-keep".into())
            .spawn(move || append(log, &records))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Keeps a record.
    pub(super) fn keep(&self, record: Record) {
        if let Some(queue) = &self.queue {
            let _ = queue.send(record);
        }
    }
}

impl Drop for Keeper {
    /// Waits until all is written.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the keeper of a hub's records panicked");
        }
    }
}

fn append(mut log: JobLog, records: &Receiver<Record>) {
    let mut bytes = Vec::new();
    while let Ok(record) = records.recv() {
        record.encode(&mut bytes);
        while bytes.len() < 1 << 20
            && let Ok(record) = records.try_recv()
        {
            record.encode(&mut bytes);
        }
        match log.append(&bytes) {
            Ok(()) => bytes.clear(),
            // Tried again with the next; not for ever, so that memory stays bounded.
            Err(error) => {
                tracing::error!(%error, "a hub's records cannot be written");
                if bytes.len() > 1 << 20 {
                    bytes.clear();
                }
            }
        }
    }
    if !bytes.is_empty()
        && let Err(error) = log.append(&bytes)
    {
        tracing::error!(%error, "a hub's last records cannot be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_base::Rng;
    use shoal_napster::hub::{Account, Config};

    fn account(nick: &str, email: &str) -> Record {
        Record::Account(Account {
            nick: nick.into(),
            email: email.into(),
            ..Account::default()
        })
    }

    #[test]
    fn records_are_found_again_the_latest_of_each_and_the_file_stays_small() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("deep/hub");
        let hub = || Hub::new(Config::default(), Rng::from_seed(1));
        let keeper = Keeper::open(&path, &mut hub()).expect("made");
        for n in 0..3000 {
            keeper.keep(account("bob", &format!("{n}")));
        }
        keeper.keep(account("eve", "e"));
        let second = Keeper::open(&path, &mut hub()).expect_err("locked");
        assert!(matches!(second, KeeperError::Io(_)));
        drop(keeper);
        let long = std::fs::metadata(&path).expect("there").len();
        let mut again = hub();
        drop(Keeper::open(&path, &mut again).expect("opened"));
        let want = [account("bob", "2999"), account("eve", "e")];
        assert_eq!(again.records(), want);
        assert!(std::fs::metadata(&path).expect("there").len() < long / 100);
        // A torn line is cut off, a bad one is told.
        let mut text = std::fs::read(&path).expect("read");
        text.extend_from_slice(b"account \"torn");
        std::fs::write(&path, &text).expect("written");
        let mut again = hub();
        drop(Keeper::open(&path, &mut again).expect("opened"));
        assert_eq!(again.records(), want);
        std::fs::write(&path, b"nonsense\n").expect("written");
        let error = Keeper::open(&path, &mut hub()).expect_err("nonsense");
        assert_eq!(
            error.to_string(),
            "line 1 is not understood: the field record is not understood"
        );
    }
}
