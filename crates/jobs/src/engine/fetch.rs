//! What a reduce attempt gathers: its partition of every map output, its own worker's by reference,
//! others' over connections, in memory while the budget lasts and in a file beyond it.

use super::attempt::{Finished, host_failure};
use super::outputs::{Kept, Outputs};
use super::scratch::ScratchFile;
use super::worker::WorkerHandle;
use crate::code::Stop;
use crate::digest::{self, Part, PartHasher};
use shoal_mapreduce::data::Section;
use shoal_mapreduce::data::shuffle::{IndexEntry, StoredCheck};
use shoal_mapreduce::id::AttemptId;
use shoal_mapreduce::message::{Digest, FetchProblem};
use shoal_mapreduce::worker::FetchRequest;
use shoal_store::job::SpillFile;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Read and written at once.
const CHUNK: usize = 256 << 10;

/// What became of a request.
#[derive(Debug)]
pub(super) enum Fetched {
    /// One output came, checked.
    One {
        request: u64,
        output: AttemptId,
        bytes: u64,
    },
    /// These will not come; none named: none that has not come.
    Failed {
        request: u64,
        outputs: Vec<AttemptId>,
        problem: FetchProblem,
    },
    /// All was said.
    End { request: u64 },
}

/// One output as its holder sends it.
pub struct Incoming<'a> {
    /// Whose.
    pub output: AttemptId,
    /// Where it stood with its holder.
    pub entry: IndexEntry,
    /// Of output that is compared, all of its partitions.
    pub parts: Vec<Part>,
    /// Its bytes: as many as the entry's stored length says, or fewer if the connection ends.
    pub body: &'a mut dyn Read,
}

impl std::fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Incoming({})", self.output)
    }
}

/// Ways to other workers' map output.
pub trait Fetcher: Send + Sync {
    /// Asks the holder of `request` for its outputs and hands them to `take` as they come. Outputs
    /// that the holder has not got are left out.
    ///
    /// # Errors
    /// When the holder cannot be reached, the connection ends or stands still, or `take` fails.
    fn fetch(
        &self,
        request: &FetchRequest,
        stop: &Stop,
        take: &mut dyn FnMut(Incoming<'_>) -> io::Result<()>,
    ) -> io::Result<()>;
}

/// Where there is nobody to fetch from.
#[derive(Debug)]
pub struct NoFetcher;

impl Fetcher for NoFetcher {
    fn fetch(
        &self,
        _request: &FetchRequest,
        _stop: &Stop,
        _take: &mut dyn FnMut(Incoming<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        Err(io::ErrorKind::NotConnected.into())
    }
}

fn buffered(section: Section) -> io::BufReader<Section> {
    io::BufReader::with_capacity(128 << 10, section)
}

/// One run that a reduce attempt has.
enum Run {
    Own(Arc<Kept>, u32),
    Memory(Arc<Vec<u8>>),
    File(Arc<ScratchFile>, u64),
}

/// Why an output was not taken in.
enum Refused {
    /// The connection ended.
    Lost,
    /// It does not match its sums.
    Corrupt,
    /// This machine cannot keep it: no fault of its holder.
    Disk(io::Error),
}

/// All that a reduce attempt has so far.
pub(super) struct Gathered {
    dir: PathBuf,
    state: Mutex<State>,
}

struct State {
    runs: BTreeMap<AttemptId, Run>,
    bytes: u64,
    budget: u64,
    files: u32,
}

impl Gathered {
    /// Nothing yet. Up to half of `budget` bytes are held in memory, the rest in files in `dir`.
    pub(super) fn new(dir: PathBuf, budget: u64) -> Self {
        Self {
            dir,
            state: Mutex::new(State {
                runs: BTreeMap::new(),
                bytes: 0,
                budget: budget / 2,
                files: 0,
            }),
        }
    }

    fn add(&self, output: AttemptId, run: Run, bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Another attempt of the same map task was replaced by this one.
        state.runs.retain(|other, _| other.task != output.task);
        state.runs.insert(output, run);
        state.bytes += bytes;
    }

    /// Takes memory from the budget; false if there is not enough.
    fn reserve(&self, bytes: u64) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.budget.checked_sub(bytes) {
            Some(left) => {
                state.budget = left;
                true
            }
            None => false,
        }
    }

    fn new_file(&self) -> io::Result<SpillFile> {
        let n = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.files += 1;
            state.files
        };
        SpillFile::create(&self.dir.join(format!("fetched-{n}")))
    }

    /// Stored bytes of all runs.
    pub(super) fn bytes(&self) -> u64 {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .bytes
    }

    /// The stored bytes of the runs, in order of their map tasks, and whose they are.
    pub(super) fn sources(&self) -> Vec<(AttemptId, Box<dyn Read + Send>)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let source = |run: &Run| -> Option<Box<dyn Read + Send>> {
            Some(match run {
                Run::Own(kept, partition) => match &**kept {
                    Kept::Runs(runs, _) if runs.memory().is_some() => {
                        Box::new(runs.section(*partition))
                    }
                    Kept::Runs(runs, _) => Box::new(buffered(runs.section(*partition))),
                    Kept::File(_) => return None,
                },
                Run::Memory(bytes) => {
                    let len = bytes.len() as u64;
                    Box::new(Section::new(Arc::clone(bytes) as _, 0, len))
                }
                Run::File(file, len) => {
                    Box::new(buffered(Section::new(Arc::clone(file) as _, 0, *len)))
                }
            })
        };
        let runs = state.runs.iter();
        runs.filter_map(|(output, run)| Some((*output, source(run)?)))
            .collect()
    }

    /// Takes in one output from another worker, checking its sums on the way, and its hash where
    /// the master says what it must be.
    fn take(
        &self,
        incoming: &mut Incoming<'_>,
        partition: u32,
        committed: &Digest,
    ) -> Result<u64, Refused> {
        let stored = incoming.entry.stored_len;
        let mut wanted = None;
        if *committed != digest::NONE {
            let part = incoming.parts.get(partition as usize).copied();
            let part = part.filter(|p| p.bytes == stored);
            if part.is_none() || digest::of(&incoming.parts) != *committed {
                return Err(Refused::Corrupt);
            }
            wanted = part;
        }
        let mut hash = PartHasher::default();
        let mut body = (&mut *incoming.body).take(stored);
        let mut check = StoredCheck::new();
        let run = if self.reserve(stored) {
            let mut bytes = Vec::new();
            let read = body.read_to_end(&mut bytes);
            read.map_err(|_| Refused::Lost)?;
            check.update(&bytes).map_err(|_| Refused::Corrupt)?;
            if wanted.is_some() {
                hash.update(&bytes);
            }
            bytes.shrink_to_fit();
            if (bytes.len() as u64) < stored {
                return Err(Refused::Lost);
            }
            Run::Memory(Arc::new(bytes))
        } else {
            let mut file = self.new_file().map_err(Refused::Disk)?;
            let mut chunk = vec![0; CHUNK];
            let mut left = stored;
            while left > 0 {
                let n = match body.read(&mut chunk) {
                    Ok(0) | Err(_) => return Err(Refused::Lost),
                    Ok(n) => n,
                };
                let bytes = chunk.get(..n).unwrap_or_default();
                check.update(bytes).map_err(|_| Refused::Corrupt)?;
                if wanted.is_some() {
                    hash.update(bytes);
                }
                file.append(bytes).map_err(Refused::Disk)?;
                left -= n as u64;
            }
            Run::File(Arc::new(ScratchFile(file)), stored)
        };
        check.finish().map_err(|_| Refused::Corrupt)?;
        if wanted.is_some_and(|part| part != hash.finish()) {
            return Err(Refused::Corrupt);
        }
        self.add(incoming.output, run, stored);
        Ok(stored)
    }
}

/// Starts on a request. `own` is this worker's own output, if that is what is asked for.
pub(super) fn start(
    request: FetchRequest,
    own: Option<Outputs>,
    fetcher: Arc<dyn Fetcher>,
    gathered: Arc<Gathered>,
    stop: Arc<Stop>,
    worker: WorkerHandle,
) {
    let number = request.request;
    if let Some(outputs) = own {
        take_own(&request, &outputs, &gathered, &worker);
        worker.fetched(Fetched::End { request: number });
        return;
    }
    let name = format!("fetch-{number}");
    let told = worker.clone();
    let spawned = std::thread::Builder::new()
        .name(name)
        .stack_size(256 << 10)
        .spawn(move || {
            from_other(&request, &*fetcher, &gathered, &stop, &worker);
            worker.fetched(Fetched::End { request: number });
        });
    if spawned.is_err() {
        told.fetched(Fetched::Failed {
            request: number,
            outputs: Vec::new(),
            problem: FetchProblem::Unreachable,
        });
        told.fetched(Fetched::End { request: number });
    }
}

fn take_own(request: &FetchRequest, outputs: &Outputs, gathered: &Gathered, worker: &WorkerHandle) {
    let partition = request.attempt.task.index;
    for (output, _) in &request.outputs {
        let taken = match outputs.get(*output) {
            None => Err(FetchProblem::Missing),
            Some(kept) => match &*kept {
                Kept::File(_) => Err(FetchProblem::Missing),
                Kept::Runs(runs, _) => {
                    let stored = runs.entry(partition).stored_len;
                    // What lies in a file may have been damaged since; memory is believed.
                    if runs.memory().is_none() && !intact(&mut runs.section(partition)) {
                        Err(FetchProblem::Corrupt)
                    } else {
                        let run = Run::Own(Arc::clone(&kept), partition);
                        gathered.add(*output, run, stored);
                        Ok(stored)
                    }
                }
            },
        };
        worker.fetched(match taken {
            Ok(bytes) => Fetched::One {
                request: request.request,
                output: *output,
                bytes,
            },
            Err(problem) => Fetched::Failed {
                request: request.request,
                outputs: vec![*output],
                problem,
            },
        });
    }
}

/// Whether stored bytes match their checksums.
pub(crate) fn intact(bytes: &mut dyn Read) -> bool {
    let mut check = StoredCheck::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match bytes.read(&mut chunk) {
            Ok(0) => return check.finish().is_ok(),
            Ok(n) => {
                let part = chunk.get(..n).unwrap_or_default();
                if check.update(part).is_err() {
                    return false;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

fn from_other(
    request: &FetchRequest,
    fetcher: &dyn Fetcher,
    gathered: &Gathered,
    stop: &Stop,
    worker: &WorkerHandle,
) {
    let mut missing: Vec<AttemptId> = request.outputs.iter().map(|(output, _)| *output).collect();
    let failed = |outputs: Vec<AttemptId>, problem| Fetched::Failed {
        request: request.request,
        outputs,
        problem,
    };
    let mut disk = None;
    let done = fetcher.fetch(request, stop, &mut |mut incoming| {
        let output = incoming.output;
        if stop.is_stopped() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let committed = request.outputs.iter().find(|(of, _)| *of == output);
        let committed = committed.map_or(digest::NONE, |(_, digest)| *digest);
        match gathered.take(&mut incoming, request.attempt.task.index, &committed) {
            Ok(bytes) => {
                missing.retain(|m| *m != output);
                worker.fetched(Fetched::One {
                    request: request.request,
                    output,
                    bytes,
                });
                Ok(())
            }
            Err(Refused::Corrupt) => {
                missing.retain(|m| *m != output);
                worker.fetched(failed(vec![output], FetchProblem::Corrupt));
                // Where the next one begins is not certain any more.
                Err(io::ErrorKind::InvalidData.into())
            }
            Err(Refused::Lost) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(Refused::Disk(e)) => {
                disk = Some(e);
                Err(io::ErrorKind::StorageFull.into())
            }
        }
    });
    if let Some(e) = disk {
        let failure = host_failure(format!("cannot keep fetched map output: {e}"));
        return worker.finished(request.attempt, Finished::Failed(failure));
    }
    match done {
        Ok(()) if missing.is_empty() => {}
        Ok(()) => worker.fetched(failed(missing, FetchProblem::Missing)),
        Err(_) => worker.fetched(failed(missing, FetchProblem::Unreachable)),
    }
}

#[cfg(test)]
mod tests;
