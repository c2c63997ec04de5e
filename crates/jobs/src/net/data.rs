//! Data connections: map output by partition, output files, side files and ranges of input.
//!
//! ```text
//! request := frame of [`Request`]
//! answer  := (frame of [`Reply`] | bytes as it says)* | frame of `Reply::End`
//! ```
//!
//! A connection is kept for the next request. How fast bytes come is TCP's flow control: who reads
//! slowly is sent slowly.

use super::auth::{self, Pass, Role};
use super::frame;
use crate::code::Stop;
use crate::digest::{self, Part};
use crate::engine::fetch::{Fetcher, Incoming};
use crate::engine::master::MasterHandle;
use crate::engine::outputs::{Kept, Outputs};
use crate::engine::publish;
use crate::input::{ContentSource, InputError, InputFile, Inputs};
use crate::side::SideSource;
use serde::{Deserialize, Serialize};
use shoal_mapreduce::data::shuffle::IndexEntry;
use shoal_mapreduce::id::{AttemptId, JobId};
use shoal_mapreduce::master::{Master, Owner};
use shoal_mapreduce::message::TaskOutput;
use shoal_mapreduce::split::Submission;
use shoal_mapreduce::wire::FRAME_MAX;
use shoal_mapreduce::worker::FetchRequest;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Written at once.
const CHUNK: usize = 256 << 10;
/// A holder that sends nothing for this long is taken for gone.
const READ_PATIENCE: Duration = Duration::from_secs(20);
/// Connections to one address that are kept for later.
const KEEP: usize = 8;

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Request {
    /// One partition of these map outputs.
    Runs {
        partition: u32,
        outputs: Vec<AttemptId>,
    },
    /// The whole output of a task whose output is the job's.
    Output(AttemptId),
    /// A side file by its SHA-256.
    Side(String),
    /// A range of an input file of some job.
    Input { file: String, from: u64, bytes: u64 },
}

/// What comes.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Reply {
    /// A run: as many bytes as the stored length.
    Run {
        output: AttemptId,
        offset: u64,
        stored_len: u64,
        raw_len: u64,
        records: u64,
        /// Of output that is compared, all of its partitions.
        parts: Vec<Part>,
    },
    /// So many bytes.
    Bytes(u64),
    /// It is not here, or cannot be read.
    Missing(String),
    /// That was all.
    End,
}

fn copy(mut from: impl Read, to: &mut impl Write, mut bytes: u64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    while bytes > 0 {
        let most = usize::try_from(bytes).unwrap_or(CHUNK).min(CHUNK);
        let room = chunk.get_mut(..most).unwrap_or_default();
        let n = match from.read(room) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        to.write_all(room.get(..n).unwrap_or_default())?;
        bytes -= n as u64;
    }
    Ok(())
}

/// A stranger that asks for nothing for this long is not served any longer.
const GUEST_PATIENCE: Duration = Duration::from_secs(60);

fn serve(
    stream: TcpStream,
    owner: Owner,
    mut answer: impl FnMut(Request, &mut TcpStream) -> io::Result<()>,
) {
    let Ok(mut to) = stream.try_clone() else {
        return;
    };
    let mut max = FRAME_MAX;
    if let Owner::Stranger(_) = owner {
        max = super::guest::MESSAGE_MAX;
        let read = stream.set_read_timeout(Some(GUEST_PATIENCE));
        if read
            .and(stream.set_write_timeout(Some(GUEST_PATIENCE)))
            .is_err()
        {
            return;
        }
    }
    let mut from = BufReader::new(stream);
    while let Ok(request) = frame::read_up_to::<Request>(&mut from, max) {
        if answer(request, &mut to).is_err() {
            return;
        }
    }
}

fn missing(to: &mut TcpStream, why: impl Into<String>) -> io::Result<()> {
    frame::write(to, &Reply::Missing(why.into()))
}

/// Serves a worker's outputs; to strangers only those that are compared, which are of jobs in which
/// strangers take part.
pub fn serve_worker(stream: TcpStream, owner: Owner, outputs: &Outputs) {
    serve(stream, owner, |request, to| match request {
        Request::Runs {
            partition,
            outputs: wanted,
        } => {
            for output in wanted {
                let Some(kept) = outputs.get(output) else {
                    continue;
                };
                let Kept::Runs(runs, parts) = &*kept else {
                    continue;
                };
                if owner != Owner::Own && parts.is_empty() {
                    continue;
                }
                let entry = runs.entry(partition);
                let reply = Reply::Run {
                    output,
                    offset: entry.offset,
                    stored_len: entry.stored_len,
                    raw_len: entry.raw_len,
                    records: entry.records,
                    parts: parts.clone(),
                };
                frame::write(to, &reply)?;
                match runs.memory() {
                    Some(all) => {
                        let from = usize::try_from(entry.offset).unwrap_or(usize::MAX);
                        let bytes = usize::try_from(entry.stored_len)
                            .ok()
                            .and_then(|len| all.get(from..)?.get(..len))
                            .ok_or(io::ErrorKind::UnexpectedEof)?;
                        to.write_all(bytes)?;
                    }
                    None => copy(runs.section(partition), to, entry.stored_len)?,
                }
            }
            frame::write(to, &Reply::End)
        }
        Request::Output(attempt) => match outputs.get(attempt).as_deref() {
            Some(Kept::File(path)) => send_file(path, to),
            _ => missing(to, format!("{attempt} is not here")),
        },
        Request::Side(_) | Request::Input { .. } => missing(to, "a worker has none"),
    });
}

fn send_file(path: &Path, to: &mut TcpStream) -> io::Result<()> {
    let opened = File::open(path).and_then(|f| f.metadata().map(|m| (f, m.len())));
    match opened {
        Ok((file, len)) => {
            frame::write(to, &Reply::Bytes(len))?;
            copy(file, to, len)
        }
        Err(e) => missing(to, format!("{}: {e}", path.display())),
    }
}

/// Serves what jobs of a master need: their side files and, to workers that cannot open it
/// themselves, their input. Nothing that no job names, and to strangers nothing of a job that they
/// may not run.
pub(super) fn serve_master(stream: TcpStream, master: &MasterHandle, owner: Owner) {
    let inputs = Inputs::default();
    serve(stream, owner, |request, to| match request {
        Request::Side(sha256) => match side_path(master, sha256, owner) {
            Some(path) => send_file(&path, to),
            None => missing(to, "no job has such a side file"),
        },
        Request::Input { file, from, bytes } => {
            if !is_input(master, file.clone(), owner) {
                return missing(to, format!("{file} is no input of a job"));
            }
            // Read before it is announced: where a file on the web ends is not known before.
            let mut read = Vec::new();
            let bytes = bytes.min(INPUT_STEP);
            let opened = inputs
                .source(&file)
                .and_then(|s| s.open(&file, from, bytes));
            let done = opened.map_err(|e| e.to_string()).and_then(|r| {
                r.take(bytes)
                    .read_to_end(&mut read)
                    .map_err(|e| e.to_string())
            });
            match done {
                Ok(len) => {
                    frame::write(to, &Reply::Bytes(len as u64))?;
                    to.write_all(&read)
                }
                Err(why) => missing(to, format!("{file}: {why}")),
            }
        }
        Request::Runs { .. } | Request::Output(_) => missing(to, "a master has none"),
    });
}

/// Jobs of which somebody may see the files.
fn jobs_for(master: &Master, owner: Owner) -> impl Iterator<Item = JobId> + '_ {
    master.jobs().filter(move |job| {
        let of_strangers = |s: &Submission| master.is_live(*job) && s.spec.is_sandboxed();
        owner == Owner::Own || master.submission(*job).is_some_and(of_strangers)
    })
}

fn side_path(master: &MasterHandle, sha256: String, owner: Owner) -> Option<PathBuf> {
    master.look(move |m, _| {
        jobs_for(m, owner).find_map(|job| {
            let files = &m.submission(job)?.spec.side_files;
            let file = files.iter().find(|f| f.sha256 == sha256)?;
            Some(PathBuf::from(&file.source))
        })
    })?
}

fn is_input(master: &MasterHandle, file: String, owner: Owner) -> bool {
    let found = master.look(move |m, _| {
        jobs_for(m, owner).any(|job| {
            m.submission(job).is_some_and(|s| {
                let mut parts = s.splits.iter().flat_map(|split| &split.parts);
                parts.any(|part| part.file == file)
            })
        })
    });
    found.unwrap_or(false)
}

/// Reads an answer; gives something once it was the last.
type Take<'a, R> = dyn FnMut(Reply, &mut dyn Read) -> io::Result<Option<R>> + 'a;

/// Connections to others, kept for the next request.
#[derive(Debug, Clone)]
pub struct DataClient {
    pass: Pass,
    idle: Arc<Mutex<BTreeMap<String, Vec<TcpStream>>>>,
}

impl DataClient {
    /// None yet.
    pub fn new(pass: Pass) -> Self {
        Self {
            pass,
            idle: Arc::default(),
        }
    }

    fn take(&self, addr: &str) -> Option<TcpStream> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.get_mut(addr)?.pop()
    }

    fn give_back(&self, addr: &str, stream: TcpStream) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(addr.to_owned()).or_default();
        if kept.len() < KEEP {
            kept.push(stream);
        }
    }

    /// Asks, and lets `take` read the answer to its end. A kept connection may have ended
    /// meanwhile: then a new one is made, unless something was read already.
    fn ask<R>(&self, addr: &str, request: &Request, take: &mut Take<'_, R>) -> io::Result<R> {
        let kept = self.take(addr);
        let mut fresh = kept.is_none();
        let mut stream = match kept {
            Some(stream) => stream,
            None => self.connect(addr)?,
        };
        loop {
            let mut from = BufReader::with_capacity(CHUNK, stream.try_clone()?);
            let first =
                frame::write(&mut stream, request).and_then(|()| frame::read::<Reply>(&mut from));
            let mut reply = match first {
                Ok(reply) => reply,
                Err(_) if !fresh => {
                    stream = self.connect(addr)?;
                    fresh = true;
                    continue;
                }
                Err(e) => return Err(e),
            };
            loop {
                if let Some(done) = take(reply, &mut from)? {
                    self.give_back(addr, stream);
                    return Ok(done);
                }
                reply = frame::read(&mut from)?;
            }
        }
    }

    fn connect(&self, addr: &str) -> io::Result<TcpStream> {
        let stream = auth::connect(addr, Role::Data, &self.pass)?;
        stream.set_read_timeout(Some(READ_PATIENCE))?;
        Ok(stream)
    }

    /// Fetches at most `max` bytes into a file.
    fn to_file(&self, addr: &str, request: &Request, to: &Path, max: u64) -> io::Result<()> {
        self.ask(addr, request, &mut |reply, body| match reply {
            Reply::Bytes(len) if len > max => {
                let what = format!("{len} bytes are offered, {max} at most are wanted");
                Err(io::Error::new(io::ErrorKind::InvalidData, what))
            }
            Reply::Bytes(len) => {
                let mut file = File::create(to)?;
                copy(body, &mut file, len)?;
                Ok(Some(()))
            }
            Reply::Missing(why) => Err(io::Error::new(io::ErrorKind::NotFound, why)),
            Reply::Run { .. } | Reply::End => Err(io::ErrorKind::InvalidData.into()),
        })
    }
}

impl Fetcher for DataClient {
    fn fetch(
        &self,
        request: &FetchRequest,
        stop: &Stop,
        take: &mut dyn FnMut(Incoming<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let wanted: Vec<AttemptId> = request.outputs.iter().map(|(output, _)| *output).collect();
        let runs = Request::Runs {
            partition: request.attempt.task.index,
            outputs: wanted.clone(),
        };
        self.ask(&request.addr, &runs, &mut |reply, body| {
            if stop.is_stopped() {
                return Err(io::Error::other("not wanted any more"));
            }
            match reply {
                Reply::Run {
                    output,
                    offset,
                    stored_len,
                    raw_len,
                    records,
                    parts,
                } if wanted.contains(&output) => {
                    let entry = IndexEntry {
                        offset,
                        stored_len,
                        raw_len,
                        records,
                    };
                    take(Incoming {
                        output,
                        entry,
                        parts,
                        body,
                    })?;
                    Ok(None)
                }
                Reply::End => Ok(Some(())),
                _ => Err(io::ErrorKind::InvalidData.into()),
            }
        })
    }
}

impl publish::Fetch for DataClient {
    fn fetch(
        &self,
        addr: &str,
        attempt: AttemptId,
        output: &TaskOutput,
        to: &Path,
    ) -> io::Result<()> {
        self.to_file(addr, &Request::Output(attempt), to, output.bytes)?;
        let len = std::fs::metadata(to)?.len();
        if len != output.bytes {
            let what = format!(
                "{attempt} came with {len} bytes instead of {}",
                output.bytes
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        if output.digest != digest::NONE {
            let part = digest::part_of(File::open(to)?)?;
            if digest::of(&[part]) != output.digest {
                let what = format!("{attempt} came with other bytes than were committed");
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
        Ok(())
    }
}

/// What a worker gets from its master.
#[derive(Debug, Clone)]
pub struct FromMaster {
    /// Connections.
    pub client: DataClient,
    /// The master's address.
    pub master: String,
    /// Whether all input but content of a swarm comes from there: a stranger's job is not let at
    /// the files of this machine, nor at the web that it sees.
    pub all: bool,
}

/// The longest side file that is taken from a stranger, in bytes.
const SIDE_MAX: u64 = 256 << 20;

impl SideSource for FromMaster {
    fn fetch(&self, sha256: &str, to: &Path) -> io::Result<()> {
        let request = Request::Side(sha256.to_owned());
        let max = if self.all { SIDE_MAX } else { u64::MAX };
        self.client.to_file(&self.master, &request, to, max)
    }
}

/// Whether an input is content of a swarm, by whatever name.
pub(crate) fn is_magnet(what: &str) -> bool {
    what.get(..7)
        .is_some_and(|s| s.eq_ignore_ascii_case("magnet:"))
}

/// Bytes of input asked for at once from the master.
const INPUT_STEP: u64 = 4 << 20;

/// Input files that only the master's machine has.
impl ContentSource for FromMaster {
    fn takes(&self, what: &str) -> bool {
        if self.all {
            return !is_magnet(what);
        }
        !(what.contains("://") || is_magnet(what) || Path::new(what).exists())
    }

    fn expand(&self, what: &str) -> Result<Vec<InputFile>, InputError> {
        Err(InputError::Missing(what.to_owned()))
    }

    fn open(&self, name: &str, from: u64, bytes: u64) -> Result<Box<dyn Read + Send>, InputError> {
        Ok(Box::new(RemoteInput {
            source: self.clone(),
            file: name.to_owned(),
            at: from,
            end: from.saturating_add(bytes),
            ready: io::Cursor::new(Vec::new()),
        }))
    }
}

/// Reads an input file of the master's in steps.
struct RemoteInput {
    source: FromMaster,
    file: String,
    at: u64,
    end: u64,
    ready: io::Cursor<Vec<u8>>,
}

impl Read for RemoteInput {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.ready.read(buf)?;
        if n > 0 || buf.is_empty() || self.at >= self.end {
            return Ok(n);
        }
        let request = Request::Input {
            file: self.file.clone(),
            from: self.at,
            bytes: (self.end - self.at).min(INPUT_STEP),
        };
        let source = &self.source;
        let bytes =
            source
                .client
                .ask(&source.master, &request, &mut |reply, body| match reply {
                    Reply::Bytes(len) if len <= INPUT_STEP => {
                        let mut bytes = Vec::new();
                        body.take(len).read_to_end(&mut bytes)?;
                        if (bytes.len() as u64) < len {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                        Ok(Some(bytes))
                    }
                    Reply::Missing(why) => Err(io::Error::new(io::ErrorKind::NotFound, why)),
                    _ => Err(io::ErrorKind::InvalidData.into()),
                })?;
        if bytes.is_empty() {
            // The file is over.
            self.end = self.at;
        }
        self.at += bytes.len() as u64;
        self.ready = io::Cursor::new(bytes);
        self.ready.read(buf)
    }
}
