//! Taking the resume data up: the lock on its folder, and what the last process left in journals.

use std::fs;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;
use shoal_base::InfoHash;

use super::ResumeId;
use super::database::Database;
use super::error::{ResumeError, io_error};
use super::journal::{self, BootId};
use super::record::Record;

/// Takes in the journals at or above `floor`: the records that change, encoded.
pub(super) fn replay(
    database: &Database,
    journals: &[(u64, PathBuf)],
    floor: u64,
    boot: &BootId,
    notes: &mut Vec<String>,
) -> Result<Vec<(InfoHash, Vec<u8>)>, ResumeError> {
    let mut replays = Vec::new();
    for (generation, path) in journals {
        if *generation < floor {
            continue;
        }
        let replay = journal::read(path).map_err(io_error("read", path))?;
        match replay {
            Some(replay) if replay.header.database == database.id() => {
                if replay.cut > 0 {
                    notes.push(format!(
                        "{}: cut {} bytes at the end that were torn or damaged",
                        path.display(),
                        replay.cut
                    ));
                }
                replays.push(replay);
            }
            Some(_) => notes.push(format!("{}: of another database, ignored", path.display())),
            None => notes.push(format!("{}: no good header, ignored", path.display())),
        }
    }
    if replays.iter().all(|r| r.entries.is_empty()) {
        return Ok(Vec::new());
    }
    let mut records: FxHashMap<ResumeId, Record> = FxHashMap::default();
    database.each(|_, record| {
        if let Ok(mut record) = record {
            record.settle(boot);
            records.insert(record.id, record);
        }
    })?;
    let mut touched: Vec<ResumeId> = Vec::new();
    for replay in &replays {
        let trusted = replay.header.boot == *boot;
        for entry in &replay.entries {
            let Some(record) = records.get_mut(&entry.torrent) else {
                continue;
            };
            touched.push(entry.torrent);
            if trusted {
                record.apply(entry.change);
            } else {
                record.apply_doubtful(entry.change);
            }
        }
    }
    touched.sort_unstable();
    touched.dedup();
    let encode = |id| records.get(id).map(|r: &Record| (r.info_hash, r.encode()));
    Ok(touched.iter().filter_map(encode).collect())
}

/// The journals in `dir`, oldest first.
pub(super) fn journals(dir: &Path) -> Result<Vec<(u64, PathBuf)>, ResumeError> {
    let mut out = Vec::new();
    for item in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let item = item.map_err(io_error("list", dir))?;
        if let Some(generation) = item.file_name().to_str().and_then(journal::generation_of) {
            out.push((generation, item.path()));
        }
    }
    out.sort_unstable();
    Ok(out)
}

pub(super) fn remove_journals_below(dir: &Path, floor: u64) {
    for (generation, path) in journals(dir).unwrap_or_default() {
        if generation < floor {
            // One left over is below the floor and ignored.
            let _ = fs::remove_file(path);
        }
    }
}

/// Locks `dir` for this process until the file is dropped.
pub(super) fn take_lock(dir: &Path) -> Result<fs::File, ResumeError> {
    use std::io::{Read, Write};
    let path = dir.join("lock");
    let open = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let mut file = open.map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok();
            let pid = pid.and_then(|_| text.trim().parse().ok());
            let dir = dir.to_owned();
            return Err(ResumeError::Locked { dir, pid });
        }
        Err(fs::TryLockError::Error(e)) => return Err(io_error("lock", &path)(e)),
    }
    // The process number is only for the message.
    let _ = file.set_len(0);
    let _ = writeln!(file, "{}", std::process::id());
    Ok(file)
}

/// This boot's id; on systems that do not tell, a number that matches no other run.
pub(super) fn boot_id() -> BootId {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    shoal_base::id::from_hex(&digits).unwrap_or_else(|_| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |d| d.as_nanos()).to_be_bytes()
    })
}
