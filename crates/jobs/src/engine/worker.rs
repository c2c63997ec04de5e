//! The thread of a worker: its connection to the master, its attempts, and what they fetch.

mod handle;

use super::attempt::{self, Finished, Setting, Told};
use super::fetch::{Fetched, Gathered};
use super::{Clock, Line, rng};
use crate::code::Stop;
use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use handle::Event;
pub use handle::{Connector, WorkerHandle, WorkerNews, WorkerSetup};
use shoal_base::Machine;
use shoal_mapreduce::data::shuffle::Codec;
use shoal_mapreduce::id::{AttemptId, JobId, TaskKind};
use shoal_mapreduce::message::{Assignment, JobInfo, ToMaster};
use shoal_mapreduce::worker::{Worker, WorkerInput, WorkerOutput};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A worker's thread. Dropping it ends the worker without a word to the master.
#[derive(Debug)]
pub struct WorkerThread {
    handle: WorkerHandle,
    thread: Option<JoinHandle<()>>,
}

impl WorkerThread {
    /// Starts a worker.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(setup: WorkerSetup) -> io::Result<Self> {
        let (sender, events) = unbounded();
        let handle = WorkerHandle(sender);
        let state = State {
            core: Worker::new(setup.config.clone(), rng()),
            clock: Clock::new(),
            handle: handle.clone(),
            line: None,
            lines: 0,
            running: BTreeMap::new(),
            requests: BTreeMap::new(),
            setup,
            out: Vec::new(),
            welcomed: false,
        };
        let thread = std::thread::Builder::new()
            .name("mr-worker".to_owned())
            .spawn(move || state.run(&events))?;
        Ok(Self {
            handle,
            thread: Some(thread),
        })
    }

    /// Speaks to it.
    pub fn handle(&self) -> &WorkerHandle {
        &self.handle
    }

    /// Waits until it has ended.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        self.handle.stop(false);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How map output that is served at `addr` is compressed: not at all where nobody fetches it over a
/// connection, lightly for processes of one machine, well for other machines.
fn codec_for(addr: &str) -> Codec {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    match ip {
        _ if addr.is_empty() => Codec::None,
        Ok(ip) if ip.to_canonical().is_loopback() => Codec::Lz4,
        Err(_) if host == "localhost" => Codec::Lz4,
        _ => Codec::Zstd,
    }
}

/// An attempt under way.
struct Running {
    assignment: Assignment,
    job: JobInfo,
    stop: Arc<Stop>,
    /// Of a reduce attempt that still gathers its input.
    gathered: Option<Arc<Gathered>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    core: Worker,
    clock: Clock,
    handle: WorkerHandle,
    line: Option<(u64, Box<dyn Line<ToMaster>>)>,
    lines: u64,
    running: BTreeMap<AttemptId, Running>,
    /// Requests under way: whose, and whether they are still wanted.
    requests: BTreeMap<u64, (AttemptId, Arc<Stop>)>,
    setup: WorkerSetup,
    out: Vec<WorkerOutput>,
    welcomed: bool,
}

impl State {
    fn run(mut self, events: &Receiver<Event>) {
        self.feed(WorkerInput::Tick);
        loop {
            self.act();
            let wait = self.clock.until(self.core.deadline());
            match events.recv_timeout(wait) {
                Ok(Event::Stop { leave }) => {
                    if leave {
                        self.feed(WorkerInput::Leave);
                        self.act();
                    }
                    break;
                }
                Ok(event) => self.on_event(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = self.clock.now();
            if self.core.deadline().is_some_and(|at| at <= now) {
                self.feed(WorkerInput::Tick);
            }
        }
        for running in self.running.values() {
            running.stop.stop();
        }
        for running in std::mem::take(&mut self.running).into_values() {
            if let Some(thread) = running.thread {
                let _ = thread.join();
            }
        }
        if let Some((_, line)) = &self.line {
            line.close();
        }
    }

    fn feed(&mut self, input: WorkerInput) {
        self.core.handle(self.clock.now(), input, &mut self.out);
    }

    fn tell(&self, news: WorkerNews) {
        if let Some(watcher) = &self.setup.news {
            let _ = watcher.send(news);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Joined(line, to) => {
                if line == self.lines {
                    self.line = Some((line, to));
                    self.feed(WorkerInput::Connected);
                } else {
                    to.close();
                }
            }
            Event::Said(line, message) => {
                if self.line.as_ref().is_some_and(|(n, _)| *n == line) {
                    self.feed(WorkerInput::Message(message));
                    if !self.welcomed
                        && let Some(id) = self.core.id()
                    {
                        self.welcomed = true;
                        self.tell(WorkerNews::Welcome(id.to_string()));
                    }
                }
            }
            Event::Lost(line, why) => {
                if line == self.lines {
                    self.line = None;
                    self.welcomed = false;
                    self.tell(WorkerNews::Lost(why));
                    self.feed(WorkerInput::Disconnected);
                }
            }
            Event::Told(attempt, told) => {
                if self.running.contains_key(&attempt) {
                    let Told(progress) = told;
                    self.feed(WorkerInput::Progress { attempt, progress });
                }
            }
            Event::Finished(attempt, finished) => self.on_finished(attempt, *finished),
            Event::Fetched(fetched) => self.on_fetched(fetched),
            Event::Holds(holds) => self.feed(WorkerInput::Holds(holds)),
            Event::Stop { .. } => {}
        }
    }

    fn on_finished(&mut self, attempt: AttemptId, finished: Finished) {
        // A killed attempt is not known any more; what it made goes as `finished` is dropped.
        if self.running.remove(&attempt).is_none() {
            return;
        }
        match finished {
            Finished::Done {
                output,
                counters,
                kept,
            } => {
                if let Some(kept) = kept {
                    self.setup.outputs.insert(attempt, kept);
                }
                self.tell(WorkerNews::Ended(attempt, None));
                self.feed(WorkerInput::Finished {
                    attempt,
                    output,
                    counters,
                });
            }
            Finished::Failed(failure) => {
                self.stop_requests(attempt);
                self.tell(WorkerNews::Ended(attempt, Some(failure.what.clone())));
                self.feed(WorkerInput::Failed { attempt, failure });
            }
        }
    }

    fn on_fetched(&mut self, fetched: Fetched) {
        let (request, last) = match &fetched {
            Fetched::One { request, .. } => (*request, false),
            Fetched::Failed { request, .. } => (*request, false),
            Fetched::End { request } => (*request, true),
        };
        if !self.requests.contains_key(&request) {
            return;
        }
        if last {
            self.requests.remove(&request);
            return;
        }
        let input = match fetched {
            Fetched::One {
                request,
                output,
                bytes,
            } => WorkerInput::Fetched {
                request,
                output,
                bytes,
            },
            Fetched::Failed {
                request,
                outputs,
                problem,
            } => WorkerInput::FetchFailed {
                request,
                outputs,
                problem,
            },
            Fetched::End { .. } => return,
        };
        self.feed(input);
    }

    fn act(&mut self) {
        while !self.out.is_empty() {
            for output in std::mem::take(&mut self.out) {
                self.do_one(output);
            }
        }
    }

    fn do_one(&mut self, output: WorkerOutput) {
        match output {
            WorkerOutput::Connect => {
                self.lines += 1;
                self.line = None;
                self.welcomed = false;
                self.setup
                    .connector
                    .connect(self.lines, self.handle.clone());
            }
            WorkerOutput::Disconnect => {
                if let Some((_, line)) = self.line.take() {
                    line.close();
                }
            }
            WorkerOutput::Send(message) => {
                if let Some((_, line)) = &self.line {
                    line.send(message);
                }
            }
            WorkerOutput::Start { assignment, job } => self.start(assignment, job),
            WorkerOutput::Kill(attempt) => self.kill(attempt),
            WorkerOutput::Fetch(request) => {
                let Some(gathered) = self
                    .running
                    .get(&request.attempt)
                    .and_then(|r| r.gathered.clone())
                else {
                    return;
                };
                let stop = Arc::new(Stop::default());
                self.requests
                    .insert(request.request, (request.attempt, Arc::clone(&stop)));
                let own = self.core.id() == Some(request.holder);
                super::fetch::start(
                    request,
                    own.then(|| self.setup.outputs.clone()),
                    Arc::clone(&self.setup.fetcher),
                    gathered,
                    stop,
                    self.handle.clone(),
                );
            }
            WorkerOutput::CancelFetch(request) => {
                if let Some((_, stop)) = self.requests.remove(&request) {
                    stop.stop();
                }
            }
            WorkerOutput::Complete(attempt) => self.complete(attempt),
            WorkerOutput::Drop(attempt) => self.setup.outputs.remove(attempt),
            WorkerOutput::JobEnd(job) => self.end_job(job),
            WorkerOutput::Notice(text) => self.tell(WorkerNews::Notice(text)),
        }
    }

    fn setting(&self) -> Setting {
        Setting {
            dir: self.setup.dir.clone(),
            logs: self.setup.logs.clone(),
            inputs: self.setup.inputs.clone(),
            side: Arc::clone(&self.setup.side),
            worker: self.handle.clone(),
            outputs: self.setup.outputs.clone(),
            sandbox_only: self.setup.config.sandbox_only,
            codec: codec_for(&self.setup.config.addr),
        }
    }

    fn start(&mut self, assignment: Assignment, job: JobInfo) {
        let attempt = assignment.attempt;
        self.tell(WorkerNews::Started(attempt));
        let mut running = Running {
            assignment,
            job,
            stop: Arc::new(Stop::default()),
            gathered: None,
            thread: None,
        };
        match attempt.task.kind {
            TaskKind::Map => {
                let (setting, stop) = (self.setting(), Arc::clone(&running.stop));
                let (assignment, job) = (running.assignment.clone(), running.job.clone());
                running.thread = self.spawn(attempt, move || {
                    attempt::map(&setting, &assignment, &job, &stop)
                });
            }
            TaskKind::Reduce => {
                let budget = running.job.spec.limits.memory_bytes;
                let dir = attempt::dir(&self.setup.dir, attempt);
                running.gathered = Some(Arc::new(Gathered::new(dir, budget)));
            }
        }
        self.running.insert(attempt, running);
    }

    fn complete(&mut self, attempt: AttemptId) {
        let setting = self.setting();
        let Some(running) = self.running.get_mut(&attempt) else {
            return;
        };
        let Some(gathered) = running.gathered.take() else {
            return;
        };
        let stop = Arc::clone(&running.stop);
        let (assignment, job) = (running.assignment.clone(), running.job.clone());
        let thread = self.spawn(attempt, move || {
            attempt::reduce(&setting, &assignment, &job, &gathered, &stop)
        });
        if let Some(running) = self.running.get_mut(&attempt) {
            running.thread = thread;
        }
    }

    /// Runs an attempt in a thread of its own; what it comes to is told, also if it cannot begin.
    fn spawn(
        &self,
        attempt: AttemptId,
        run: impl FnOnce() -> Finished + Send + 'static,
    ) -> Option<JoinHandle<()>> {
        let worker = self.handle.clone();
        let spawned = std::thread::Builder::new()
            .name(attempt.to_string())
            .spawn(move || {
                // A bug of ours costs the attempt, not the worker.
                let run = std::panic::AssertUnwindSafe(run);
                let finished = std::panic::catch_unwind(run).unwrap_or_else(|panic| {
                    let text = panic.downcast_ref::<String>().map(String::as_str);
                    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                    let what = format!("shoal has a bug: {}", text.unwrap_or("panicked"));
                    Finished::Failed(attempt::code_failure(what))
                });
                worker.finished(attempt, finished);
            });
        match spawned {
            Ok(thread) => Some(thread),
            Err(e) => {
                let failure = attempt::host_failure(format!("cannot start a thread: {e}"));
                self.handle.finished(attempt, Finished::Failed(failure));
                None
            }
        }
    }

    fn kill(&mut self, attempt: AttemptId) {
        if let Some(running) = self.running.remove(&attempt) {
            running.stop.stop();
            let error = Some("killed".to_owned());
            self.tell(WorkerNews::Ended(attempt, error));
        }
        self.stop_requests(attempt);
    }

    fn stop_requests(&mut self, attempt: AttemptId) {
        self.requests.retain(|_, (whose, stop)| {
            if *whose == attempt {
                stop.stop();
            }
            *whose != attempt
        });
    }

    fn end_job(&mut self, job: JobId) {
        let of_job = |a: &&AttemptId| a.task.job == job;
        let attempts: Vec<AttemptId> = self.running.keys().filter(of_job).copied().collect();
        for attempt in attempts {
            self.kill(attempt);
        }
        self.setup.outputs.remove_job(job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_to_other_machines_is_compressed_well() {
        assert_eq!(codec_for(""), Codec::None);
        for near in [
            "127.0.0.1:7",
            "[::1]:7",
            "[::ffff:127.0.0.1]:7",
            "localhost:7",
        ] {
            assert_eq!(codec_for(near), Codec::Lz4, "{near}");
        }
        for far in ["10.0.0.2:7", "[2001:db8::1]:7", "node1:7", "0.0.0.0:7"] {
            assert_eq!(codec_for(far), Codec::Zstd, "{far}");
        }
    }
}
