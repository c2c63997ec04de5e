//! Data connections: map output by partition, output files, side files and ranges of input.
//!
//! ```text
//! request := frame of [`Request`]
//! answer  := (frame of [`Reply`] | bytes as it says)* | frame of `Reply::End`
//! ```
//!
//! A connection is kept for the next request. How fast bytes come is TCP's flow control: who reads
//! slowly is sent slowly.

use super::auth::{self, Role, Secret};
use super::frame;
use crate::code::Stop;
use crate::engine::fetch::{Fetcher, Incoming};
use crate::engine::master::MasterHandle;
use crate::engine::outputs::{Kept, Outputs};
use crate::engine::publish;
use crate::input::{ContentSource, InputError, InputFile, Inputs};
use crate::side::SideSource;
use serde::{Deserialize, Serialize};
use shoal_mapreduce::data::shuffle::IndexEntry;
use shoal_mapreduce::id::AttemptId;
use shoal_mapreduce::message::TaskOutput;
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

fn serve(stream: TcpStream, mut answer: impl FnMut(Request, &mut TcpStream) -> io::Result<()>) {
    let Ok(mut to) = stream.try_clone() else {
        return;
    };
    let mut from = BufReader::new(stream);
    while let Ok(request) = frame::read::<Request>(&mut from) {
        if answer(request, &mut to).is_err() {
            return;
        }
    }
}

fn missing(to: &mut TcpStream, why: impl Into<String>) -> io::Result<()> {
    frame::write(to, &Reply::Missing(why.into()))
}

/// Serves a worker's outputs.
pub fn serve_worker(stream: TcpStream, outputs: &Outputs) {
    serve(stream, |request, to| match request {
        Request::Runs {
            partition,
            outputs: wanted,
        } => {
            for output in wanted {
                let Some(kept) = outputs.get(output) else {
                    continue;
                };
                let Kept::Runs(runs) = &*kept else { continue };
                let entry = runs.entry(partition);
                let reply = Reply::Run {
                    output,
                    offset: entry.offset,
                    stored_len: entry.stored_len,
                    raw_len: entry.raw_len,
                    records: entry.records,
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
/// themselves, their input. Nothing that no job names.
pub(super) fn serve_master(stream: TcpStream, master: &MasterHandle) {
    let inputs = Inputs::default();
    serve(stream, |request, to| match request {
        Request::Side(sha256) => match side_path(master, sha256) {
            Some(path) => send_file(&path, to),
            None => missing(to, "no job has such a side file"),
        },
        Request::Input { file, from, bytes } => {
            if !is_input(master, file.clone()) {
                return missing(to, format!("{file} is no input of a job"));
            }
            let opened = std::fs::metadata(&file)
                .map_err(|e| e.to_string())
                .and_then(|meta| {
                    let len = meta.len().saturating_sub(from).min(bytes);
                    let source = inputs.source(&file).map_err(|e| e.to_string())?;
                    let reader = source.open(&file, from, len).map_err(|e| e.to_string())?;
                    Ok((reader, len))
                });
            match opened {
                Ok((reader, len)) => {
                    frame::write(to, &Reply::Bytes(len))?;
                    copy(reader, to, len)
                }
                Err(why) => missing(to, format!("{file}: {why}")),
            }
        }
        Request::Runs { .. } | Request::Output(_) => missing(to, "a master has none"),
    });
}

fn side_path(master: &MasterHandle, sha256: String) -> Option<PathBuf> {
    master.look(move |m, _| {
        m.jobs().find_map(|job| {
            let files = &m.submission(job)?.spec.side_files;
            let file = files.iter().find(|f| f.sha256 == sha256)?;
            Some(PathBuf::from(&file.source))
        })
    })?
}

fn is_input(master: &MasterHandle, file: String) -> bool {
    let found = master.look(move |m, _| {
        m.jobs().any(|job| {
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
    secret: Secret,
    idle: Arc<Mutex<BTreeMap<String, Vec<TcpStream>>>>,
}

impl DataClient {
    /// None yet.
    pub fn new(secret: Secret) -> Self {
        Self {
            secret,
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
        let stream = auth::connect(addr, Role::Data, &self.secret)?;
        stream.set_read_timeout(Some(READ_PATIENCE))?;
        Ok(stream)
    }

    fn to_file(&self, addr: &str, request: &Request, to: &Path) -> io::Result<()> {
        self.ask(addr, request, &mut |reply, body| match reply {
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
        self.to_file(addr, &Request::Output(attempt), to)?;
        let len = std::fs::metadata(to)?.len();
        if len != output.bytes {
            let what = format!(
                "{attempt} came with {len} bytes instead of {}",
                output.bytes
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
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
}

impl SideSource for FromMaster {
    fn fetch(&self, sha256: &str, to: &Path) -> io::Result<()> {
        let request = Request::Side(sha256.to_owned());
        self.client.to_file(&self.master, &request, to)
    }
}

/// Bytes of input asked for at once from the master.
const INPUT_STEP: u64 = 4 << 20;

/// Input files that only the master's machine has.
impl ContentSource for FromMaster {
    fn takes(&self, what: &str) -> bool {
        !(what.contains("://") || what.starts_with("magnet:") || Path::new(what).exists())
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
        self.at += bytes.len() as u64;
        self.ready = io::Cursor::new(bytes);
        self.ready.read(buf)
    }
}
