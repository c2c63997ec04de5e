//! A worker: takes the next job, reads and writes before checks, until told to stop.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::check::{CheckRun, Checker, Step};
use super::job::{Done, Job, ReadPart, TorrentKey};
use super::torrent::Torrent;
use super::write::Writer;
use super::{Shared, lock};
use crate::error::{Operation, StoreError};

/// What a worker does next.
enum Work {
    Job(Job),
    Check(Arc<CheckRun>),
}

pub(super) struct Worker<'s> {
    shared: &'s Shared,
    number: usize,
    writer: Writer,
    done: Vec<Done>,
    /// Whether the last job was a write: reads and writes take turns.
    wrote: bool,
}

/// Runs worker `number` until the pool stops.
pub(super) fn run(shared: &Shared, number: usize) {
    let mut worker = Worker {
        shared,
        number,
        writer: Writer::default(),
        done: Vec::new(),
        wrote: false,
    };
    // Large, and needed by checks only.
    let mut checker = None;
    while let Some(work) = worker.wait() {
        match work {
            Work::Job(job) => worker.run_job(job),
            Work::Check(run) => {
                let checker = checker.get_or_insert_with(Checker::default);
                worker.run_check(&run, checker);
                continue;
            }
        }
        // Between checks the buffer is given back.
        checker = None;
    }
}

impl Worker<'_> {
    /// The next thing to do; none when the pool stops and all writes are done.
    fn wait(&mut self) -> Option<Work> {
        let mut queues = lock(&self.shared.queues);
        loop {
            if let Some(job) = self.take_urgent(&mut queues) {
                return Some(Work::Job(job));
            }
            if let Some(run) = queues.checks.front() {
                return Some(Work::Check(Arc::clone(run)));
            }
            if queues.stopping {
                return None;
            }
            if let Some(idle) = queues.idle.get_mut(self.number) {
                *idle = true;
            }
            let waker = self.shared.wakers.get(self.number)?;
            queues = waker.wait(queues).unwrap_or_else(PoisonError::into_inner);
            if let Some(idle) = queues.idle.get_mut(self.number) {
                *idle = false;
            }
        }
    }

    fn take_urgent(&mut self, queues: &mut super::Queues) -> Option<Job> {
        let lane = queues.lanes.get_mut(self.number)?;
        let job = if self.wrote {
            queues.shared.pop_front().or_else(|| lane.pop_front())
        } else {
            lane.pop_front().or_else(|| queues.shared.pop_front())
        }?;
        self.wrote = matches!(job, Job::Write(_));
        self.shared.urgent.fetch_sub(1, Ordering::Relaxed);
        Some(job)
    }

    /// Does the reads and writes that came in while a check was on.
    pub(super) fn yield_to_urgent(&mut self) {
        while self.shared.urgent.load(Ordering::Relaxed) > 0 {
            let job = self.take_urgent(&mut lock(&self.shared.queues));
            match job {
                Some(job) => self.run_job(job),
                // Another worker's.
                None => return,
            }
        }
    }

    fn run_job(&mut self, job: Job) {
        match job {
            Job::Write(batch) => self.writer.write(self.shared, batch, &mut self.done),
            Job::Read {
                torrent,
                token,
                mut buf,
                parts,
            } => {
                let result = match self.shared.torrent(torrent) {
                    Some(torrent) => read(&torrent, &mut buf, &parts),
                    None => Err(StoreError::unknown(Operation::Read)),
                };
                self.done.push(Done::Read {
                    torrent,
                    token,
                    buf,
                    parts,
                    result,
                });
            }
            Job::Probe { torrent } => self.probe(torrent),
            Job::Prepare { torrent, wanted } => {
                let wanted = wanted.map(FxHashSet::from_iter);
                let wants = |n| wanted.as_ref().is_none_or(|wanted| wanted.contains(&n));
                let result = self.with(torrent, |t| t.files.prepare(wants));
                self.done.push(Done::Prepared { torrent, result });
            }
            Job::Finish { torrent } => {
                let result = self.with(torrent, |t| t.files.finish());
                if let (Err(error), Some(t)) = (&result, self.shared.torrent(torrent))
                    && error.may_recover()
                    && t.set_faulted()
                {
                    let error = error.clone();
                    self.done.push(Done::Fault { torrent, error });
                }
                self.done.push(Done::Finished { torrent, result });
            }
            Job::CloseLane { torrent, lanes } => self.close(torrent, &lanes),
            // Not for workers: see `DiskPool::submit`.
            Job::Check { .. } | Job::Sync { .. } | Job::Checkpoint { .. } | Job::Close { .. } => {}
        }
        self.shared.finish(&mut self.done);
    }

    fn with(
        &self,
        key: TorrentKey,
        f: impl FnOnce(&Torrent) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match self.shared.torrent(key) {
            Some(torrent) => f(&torrent),
            None => Err(StoreError::unknown(Operation::Open)),
        }
    }

    fn probe(&mut self, key: TorrentKey) {
        let mut result = Err(StoreError::unknown(Operation::Open));
        let (mut lost, mut failed) = (Vec::new(), Vec::new());
        if let Some(torrent) = self.shared.torrent(key) {
            result = torrent.files.probe();
            if result.is_ok() {
                torrent.clear_fault();
                (lost, failed) = torrent.forget_missing(&self.shared.resume);
            }
        }
        self.done.push(Done::Probed {
            torrent: key,
            result,
            lost,
            failed,
        });
    }

    fn close(&mut self, key: TorrentKey, lanes: &AtomicUsize) {
        if lanes.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let removed = {
            let torrents = &self.shared.torrents;
            torrents
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&key)
        };
        if let Some(torrent) = removed {
            torrent.note_stamps(&self.shared.resume);
            torrent.files.close();
        }
        self.done.push(Done::Closed { torrent: key });
    }

    fn run_check(&mut self, run: &Arc<CheckRun>, checker: &mut Checker) {
        let step = run.step(self, checker);
        if step != Step::Working {
            let mut queues = lock(&self.shared.queues);
            queues.checks.retain(|other| !Arc::ptr_eq(other, run));
            // The next one may begin.
            self.shared.wake_all(&mut queues);
        }
        self.shared.finish(&mut self.done);
    }

    pub(super) fn shared(&self) -> &Shared {
        self.shared
    }

    pub(super) fn answer(&mut self, done: Done) {
        self.done.push(done);
        self.shared.finish(&mut self.done);
    }
}

/// Fills `buf` with `parts`; neighbouring ones in one system call.
fn read(torrent: &Torrent, buf: &mut [u8], parts: &[ReadPart]) -> Result<(), StoreError> {
    let nonsense = || StoreError::unknown(Operation::Read);
    let offset = |part: &ReadPart| {
        torrent.geometry.piece_start(part.block.piece) + u64::from(part.block.begin)
    };
    let mut rest = buf;
    let mut rest_at = 0;
    let mut slices: SmallVec<[IoSliceMut<'_>; 32]> = SmallVec::new();
    let (mut from, mut next) = (0, 0);
    for part in parts {
        if !torrent.geometry.contains(part.block) {
            return Err(nonsense());
        }
        if !slices.is_empty() && offset(part) != next {
            torrent.files.read_at(from, &mut slices)?;
            slices.clear();
        }
        if slices.is_empty() {
            from = offset(part);
        }
        let skip = part.start.checked_sub(rest_at).ok_or_else(nonsense)?;
        let len = part.block.len as usize;
        let (_, tail) = rest.split_at_mut_checked(skip).ok_or_else(nonsense)?;
        let (bytes, tail) = tail.split_at_mut_checked(len).ok_or_else(nonsense)?;
        slices.push(IoSliceMut::new(bytes));
        rest = tail;
        rest_at = part.start + len;
        next = offset(part) + u64::from(part.block.len);
    }
    torrent.files.read_at(from, &mut slices)
}
