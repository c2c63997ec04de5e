//! One process that reads lines and writes lines: fed and read by one thread that waits for
//! whichever pipe is ready, so that a process that writes before it reads, never reads, or ends
//! early blocks nobody.

use super::report::Reporter;
use crate::code::Stop;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, kill_process_group, pidfd_open, prlimit,
};
use shoal_mapreduce::code::Collect;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Room that a pipe gets: few wake-ups, and still in the processor's cache.
const PIPE_BYTES: usize = 256 << 10;
const READ_BYTES: usize = 64 << 10;
const BUSY_TRIES: u32 = 50;
/// A line of output may be this long, in bytes; the record it becomes has to fit into memory.
const LINE_MAX: usize = 256 << 20;
/// How long what a process left running may still write, once it says nothing.
const LEFTOVERS: Duration = Duration::from_secs(2);
/// How often a wait looks whether the attempt was stopped.
const TICK: Duration = Duration::from_millis(500);

/// Takes whole lines of output, without their line feeds.
pub(super) trait Lines {
    fn line(&mut self, line: &[u8], out: &mut dyn Collect);
}

/// What to start, and what it may use.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) program: PathBuf,
    pub(super) args: &'a [String],
    pub(super) dir: &'a Path,
    pub(super) environment: &'a BTreeMap<String, String>,
    pub(super) log: &'a Path,
    /// Address space of each process, in bytes; 0 for no limit.
    pub(super) memory_bytes: u64,
    /// Processor time of each process, in seconds; 0 for no limit.
    pub(super) cpu_seconds: u64,
    /// A process that neither reads nor writes for this long is killed.
    pub(super) stalled: Duration,
    pub(super) stop: Arc<Stop>,
}

/// How a process came to its end, where that is not success.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("it exited with code {0}")]
    Code(i32),
    #[error("it was killed by signal {}{}", .0, signal_name(*.0))]
    Signal(i32),
    #[error("it neither read nor wrote anything for {} s and was killed", .0.as_secs_f64())]
    Stalled(Duration),
    #[error("the attempt was stopped")]
    Stopped,
    #[error("it wrote a line of more than {} MiB", LINE_MAX >> 20)]
    LongLine,
    #[error("cannot talk to it: {0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for Ended {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// A running process. Dropping it kills it and all it started.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    group: Pid,
    ending: OwnedFd,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    buffer: Vec<u8>,
    reporter: Reporter,
    stalled: Duration,
    stop: Arc<Stop>,
    exited: bool,
    reaped: bool,
    moved: Instant,
}

impl Process {
    pub(super) fn start(launch: &Launch<'_>) -> io::Result<Self> {
        let reporter = Reporter::new(launch.log)?;
        let mut child = spawn(launch)?;
        let group = Pid::from_child(&child);
        let prepared = prepare(&mut child, launch, group);
        let (ending, [stdin, stdout, stderr]) = match prepared {
            Ok(prepared) => prepared,
            Err(e) => {
                let _ = kill_process_group(group, Signal::KILL);
                let _ = child.wait();
                return Err(e);
            }
        };
        launch.stop.started(group);
        Ok(Self {
            child,
            group,
            ending,
            stdin: Some(stdin),
            stdout: Some(stdout),
            stderr: Some(stderr),
            partial: Vec::new(),
            buffer: vec![0; READ_BYTES],
            reporter,
            stalled: launch.stalled,
            stop: Arc::clone(&launch.stop),
            exited: false,
            reaped: false,
            moved: Instant::now(),
        })
    }

    /// Whether it still takes input.
    pub(super) fn reads(&self) -> bool {
        self.stdin.is_some()
    }

    /// The last lines of its standard error.
    pub(super) fn last_lines(&self) -> String {
        self.reporter.last_lines()
    }

    /// Gives it bytes, and takes what it writes meanwhile. A process that has closed its input or
    /// ended gets no more, which is no error.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        lines: &mut dyn Lines,
        out: &mut dyn Collect,
    ) -> Result<(), Ended> {
        self.moved = Instant::now();
        while let (Some(stdin), false) = (&self.stdin, bytes.is_empty()) {
            match rustix::io::write(stdin, bytes) {
                Ok(n) => {
                    bytes = bytes.get(n..).unwrap_or_default();
                    self.moved = Instant::now();
                }
                Err(Errno::AGAIN) => self.wait(lines, out)?,
                Err(Errno::INTR) => {}
                Err(Errno::PIPE) => self.stdin = None,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Closes its input and waits until it and its output have ended.
    pub(super) fn finish(
        &mut self,
        lines: &mut dyn Lines,
        out: &mut dyn Collect,
    ) -> Result<(), Ended> {
        self.stdin = None;
        self.moved = Instant::now();
        while !self.exited || self.stdout.is_some() || self.stderr.is_some() {
            let idle = self.moved.elapsed();
            if self.exited && idle > LEFTOVERS {
                // Somebody it started holds the pipes open and says nothing.
                self.stdout = None;
                self.stderr = None;
                break;
            }
            self.wait(lines, out)?;
        }
        if !self.partial.is_empty() {
            let line = std::mem::take(&mut self.partial);
            lines.line(&line, out);
        }
        self.reporter.end(out)?;
        let status = self.reap()?;
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(()),
            (Some(code), _) => Err(Ended::Code(code)),
            (None, Some(_)) if self.stop.is_stopped() => Err(Ended::Stopped),
            (None, signal) => Err(Ended::Signal(signal.unwrap_or_default())),
        }
    }

    /// Waits until a pipe is ready or a tick is over; reads what there is.
    fn wait(&mut self, lines: &mut dyn Lines, out: &mut dyn Collect) -> Result<(), Ended> {
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: TICK.subsec_nanos().into(),
        };
        let slots = [
            (self.stdin.as_ref(), PollFlags::OUT),
            (self.stdout.as_ref(), PollFlags::IN),
            (self.stderr.as_ref(), PollFlags::IN),
            ((!self.exited).then_some(&self.ending), PollFlags::IN),
        ];
        // A slot that is not asked about waits for nothing on the descriptor of the ending.
        let mut fds = slots.map(|(fd, flags)| match fd {
            Some(fd) => PollFd::from_borrowed_fd(fd.as_fd(), flags),
            None => PollFd::from_borrowed_fd(self.ending.as_fd(), PollFlags::empty()),
        });
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = |n: usize| fds.get(n).is_some_and(|fd| !fd.revents().is_empty());
        let (says, complains, ends) = (ready(1), ready(2), ready(3));
        if says && self.stdout.is_some() {
            self.read_output(lines, out)?;
        }
        if complains && self.stderr.is_some() {
            self.read_errors(out)?;
        }
        if ends && !self.exited {
            self.exited = true;
            self.moved = Instant::now();
        }
        if self.stop.is_stopped() {
            return Err(Ended::Stopped);
        }
        if self.moved.elapsed() > self.stalled {
            return Err(Ended::Stalled(self.stalled));
        }
        Ok(())
    }

    fn read_output(&mut self, lines: &mut dyn Lines, out: &mut dyn Collect) -> Result<(), Ended> {
        let Some(n) = read(&mut self.stdout, &mut self.buffer)? else {
            return Ok(());
        };
        self.moved = Instant::now();
        let mut rest = self.buffer.get(..n).unwrap_or_default();
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.partial.is_empty() {
                lines.line(line, out);
            } else {
                self.partial.extend_from_slice(line);
                lines.line(&self.partial, out);
                self.partial.clear();
            }
        }
        self.partial.extend_from_slice(rest);
        if self.partial.len() > LINE_MAX {
            return Err(Ended::LongLine);
        }
        Ok(())
    }

    fn read_errors(&mut self, out: &mut dyn Collect) -> Result<(), Ended> {
        if let Some(n) = read(&mut self.stderr, &mut self.buffer)? {
            self.moved = Instant::now();
            let bytes = self.buffer.get(..n).unwrap_or_default();
            self.reporter.push(bytes, out)?;
        }
        Ok(())
    }

    /// Kills what is left of the group, then waits for its leader. In that order, because the
    /// group's number may be somebody else's once the leader has been waited for.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        self.stop.ended(self.group);
        if !self.reaped {
            let _ = kill_process_group(self.group, Signal::KILL);
        }
        self.reaped = true;
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.reap();
    }
}

fn spawn(launch: &Launch<'_>) -> io::Result<Child> {
    let mut command = Command::new(&launch.program);
    command
        .args(launch.args)
        .envs(launch.environment)
        .current_dir(launch.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    for _ in 0..BUSY_TRIES {
        match command.spawn() {
            // The program was written a moment ago, and a process that another thread is just
            // starting still holds it open.
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(10));
            }
            started => return started,
        }
    }
    command.spawn()
}

/// What remains to be done between the start and the first byte.
fn prepare(
    child: &mut Child,
    launch: &Launch<'_>,
    pid: Pid,
) -> io::Result<(OwnedFd, [OwnedFd; 3])> {
    let ceiling = |n: u64| Rlimit {
        current: Some(n),
        maximum: Some(n),
    };
    let mut limits = vec![(Resource::Core, 0)];
    if launch.memory_bytes > 0 {
        limits.push((Resource::As, launch.memory_bytes));
    }
    if launch.cpu_seconds > 0 {
        limits.push((Resource::Cpu, launch.cpu_seconds));
    }
    for (resource, limit) in limits {
        prlimit(Some(pid), resource, ceiling(limit))?;
    }
    let gone = || io::Error::other("a pipe is missing");
    let pipes = [
        OwnedFd::from(child.stdin.take().ok_or_else(gone)?),
        OwnedFd::from(child.stdout.take().ok_or_else(gone)?),
        OwnedFd::from(child.stderr.take().ok_or_else(gone)?),
    ];
    for pipe in &pipes {
        fcntl_setfl(pipe, fcntl_getfl(pipe)? | OFlags::NONBLOCK)?;
        // Only a matter of speed, and refused to those who have many pipes.
        let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES);
    }
    Ok((pidfd_open(pid, PidfdFlags::empty())?, pipes))
}

/// Reads once. None when nothing was there; a pipe at its end is closed.
fn read(pipe: &mut Option<OwnedFd>, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
    let Some(fd) = pipe else { return Ok(None) };
    match rustix::io::read(&*fd, buffer) {
        Ok(0) => {
            *pipe = None;
            Ok(None)
        }
        Ok(n) => Ok(Some(n)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(e) => Err(e),
    }
}

/// ` (SIGKILL)` and the like; nothing for the rare ones.
fn signal_name(number: i32) -> &'static str {
    match number {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL: by an operator, or for want of memory)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        24 => " (SIGXCPU: the limit on processor time)",
        25 => " (SIGXFSZ)",
        _ => "",
    }
}

/// Opens the log of an attempt for what the engine itself has to say.
pub(super) fn note(log: &Path, text: &str) {
    use std::io::Write as _;
    if let Ok(mut file) = File::options().create(true).append(true).open(log) {
        let _ = writeln!(file, "{text}");
    }
}
