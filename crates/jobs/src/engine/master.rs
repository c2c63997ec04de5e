//! The thread of a master: its log on disk, its connections, and who watches.

use super::publish::{PublishOrder, Publisher, part_name};
use super::{Clock, Line, rng};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use shoal_base::{Machine, Time};
use shoal_mapreduce::id::{AttemptId, JobId};
use shoal_mapreduce::log::LogError;
use shoal_mapreduce::master::{
    Link, Master, MasterConfig, MasterInput, MasterOutput, Outcome, Owner,
};
use shoal_mapreduce::message::{ToMaster, ToWorker};
use shoal_mapreduce::split::Submission;
use shoal_store::job::JobLog;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Events handled before what they led to is made durable and done.
const BATCH: usize = 256;

/// Why a master cannot run.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// Its log cannot be opened, or not be written.
    #[error("the execution log {path}")]
    Log {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process is at it.
    #[error("another master uses {0}")]
    Locked(String),
    /// Its log is none.
    #[error("cannot resume from {path}")]
    Resume {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: LogError,
    },
    /// No thread could be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// A look at the master from its own thread.
type Look = Box<dyn FnOnce(&Master, Time) + Send>;

/// What comes to the master's thread.
enum Event {
    Submit(Box<Submission>, Sender<JobId>),
    Cancel(JobId),
    Connected(Link, Owner, Box<dyn Line<ToWorker>>),
    Message(Link, ToMaster),
    Closed(Link),
    Published(AttemptId, Result<(), String>),
    Look(Look),
    Watch(Sender<News>),
    Stop,
}

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Something happened that people want to know.
    Notice(Option<JobId>, String),
    /// A job is over and its output sealed or removed.
    Ended(JobId, Outcome),
    /// The master cannot go on.
    Broken(String),
}

/// Says things to a running master. Cheap to clone.
#[derive(Clone)]
pub struct MasterHandle {
    events: Sender<Event>,
    links: Arc<AtomicU64>,
}

impl std::fmt::Debug for MasterHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterHandle")
    }
}

impl MasterHandle {
    /// Submits a job; nothing if the master has stopped.
    pub fn submit(&self, submission: Submission) -> Option<JobId> {
        let (reply, accepted) = unbounded();
        let event = Event::Submit(Box::new(submission), reply);
        self.events.send(event).ok()?;
        accepted.recv().ok()
    }

    /// Ends a job.
    pub fn cancel(&self, job: JobId) {
        let _ = self.events.send(Event::Cancel(job));
    }

    /// A worker connected; gives the link its messages are to be handed in with.
    pub fn connected(&self, owner: Owner, line: Box<dyn Line<ToWorker>>) -> Link {
        let link = Link(self.links.fetch_add(1, Ordering::Relaxed));
        let _ = self.events.send(Event::Connected(link, owner, line));
        link
    }

    /// A worker said something; false if the master has stopped.
    pub fn message(&self, link: Link, message: ToMaster) -> bool {
        self.events.send(Event::Message(link, message)).is_ok()
    }

    /// A connection ended.
    pub fn closed(&self, link: Link) {
        let _ = self.events.send(Event::Closed(link));
    }

    /// Runs `look` on the master's state, in its thread; nothing if the master has stopped.
    pub fn look<R: Send + 'static>(
        &self,
        look: impl FnOnce(&Master, Time) -> R + Send + 'static,
    ) -> Option<R> {
        let (reply, answer) = unbounded();
        let look: Look = Box::new(move |master, now| {
            let _ = reply.send(look(master, now));
        });
        self.events.send(Event::Look(look)).ok()?;
        answer.recv().ok()
    }

    /// What happens from now on.
    pub fn watch(&self) -> Receiver<News> {
        let (news, watch) = unbounded();
        let _ = self.events.send(Event::Watch(news));
        watch
    }

    pub(super) fn published(&self, attempt: AttemptId, done: Result<(), String>) {
        let _ = self.events.send(Event::Published(attempt, done));
    }

    /// Asks the thread to end; jobs stay in the log.
    pub fn stop(&self) {
        let _ = self.events.send(Event::Stop);
    }
}

/// A master's thread; ends when told to, or when its log cannot be written.
#[derive(Debug)]
pub struct MasterThread {
    handle: MasterHandle,
    thread: Option<JoinHandle<()>>,
    resumed: Vec<JobId>,
}

impl MasterThread {
    /// Starts a master from the log at `log`, which is made if need be.
    ///
    /// # Errors
    /// When the log cannot be read or belongs to somebody else.
    pub fn start(
        config: MasterConfig,
        log: &Path,
        publisher: Publisher,
    ) -> Result<Self, MasterError> {
        let path = log.display().to_string();
        let (mut file, bytes) = JobLog::open(log).map_err(|source| {
            if source.kind() == io::ErrorKind::WouldBlock {
                MasterError::Locked(path.clone())
            } else {
                MasterError::Log {
                    path: path.clone(),
                    source,
                }
            }
        })?;
        let clock = Clock::new();
        let mut out = Vec::new();
        let (core, resumed) = Master::resume(config, rng(), &bytes, clock.now(), &mut out)
            .map_err(|source| MasterError::Resume {
                path: path.clone(),
                source,
            })?;
        file.cut(resumed.valid as u64)
            .map_err(|source| MasterError::Log {
                path: path.clone(),
                source,
            })?;
        let (sender, events) = unbounded();
        let handle = MasterHandle {
            events: sender,
            links: Arc::new(AtomicU64::new(1)),
        };
        let publish = publisher
            .start(handle.clone())
            .map_err(MasterError::Thread)?;
        let state = State {
            core,
            clock,
            log: file,
            path,
            lines: BTreeMap::new(),
            waiting: BTreeMap::new(),
            looks: Vec::new(),
            token: 0,
            watchers: Vec::new(),
            publish,
            publisher,
            out,
        };
        let thread = std::thread::Builder::new()
            .name("mr-master".to_owned())
            .spawn(move || state.run(&events))
            .map_err(MasterError::Thread)?;
        Ok(Self {
            handle,
            thread: Some(thread),
            resumed: resumed.jobs,
        })
    }

    /// Speaks to it.
    pub fn handle(&self) -> &MasterHandle {
        &self.handle
    }

    /// Jobs that go on from the log.
    pub fn resumed(&self) -> &[JobId] {
        &self.resumed
    }
}

impl Drop for MasterThread {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct State {
    core: Master,
    clock: Clock,
    log: JobLog,
    path: String,
    lines: BTreeMap<Link, Box<dyn Line<ToWorker>>>,
    waiting: BTreeMap<u64, Sender<JobId>>,
    /// Questions that came since the machine's wishes were last done.
    looks: Vec<Look>,
    token: u64,
    watchers: Vec<Sender<News>>,
    publish: Sender<PublishOrder>,
    publisher: Publisher,
    out: Vec<MasterOutput>,
}

impl State {
    fn run(mut self, events: &Receiver<Event>) {
        // What ended while nobody was there to seal it.
        for job in self.core.jobs().collect::<Vec<_>>() {
            if let Some(outcome) = self
                .core
                .progress(self.clock.now(), job)
                .and_then(|p| p.outcome)
            {
                self.close_output(job, &outcome);
            }
        }
        let mut going = true;
        while going {
            if let Err(e) = self.act() {
                tracing::error!("execution log {}: {e}", self.path);
                self.tell(&News::Broken(format!(
                    "cannot write the execution log {}: {e}",
                    self.path
                )));
                return;
            }
            // Nobody sees what is not written yet, nor a job's end before its output is sealed.
            for look in self.looks.drain(..) {
                look(&self.core, self.clock.now());
            }
            let wait = self.clock.until(self.core.deadline());
            match events.recv_timeout(wait) {
                Ok(event) => {
                    going = self.on_event(event);
                    for event in events.try_iter().take(BATCH) {
                        going &= self.on_event(event);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = self.clock.now();
            if self.core.deadline().is_some_and(|at| at <= now) {
                self.core.handle(now, MasterInput::Tick, &mut self.out);
            }
        }
        for line in self.lines.values() {
            line.close();
        }
    }

    fn on_event(&mut self, event: Event) -> bool {
        let input = match event {
            Event::Stop => return false,
            Event::Submit(submission, reply) => {
                self.token += 1;
                self.waiting.insert(self.token, reply);
                MasterInput::Submit {
                    token: self.token,
                    submission,
                }
            }
            Event::Cancel(job) => MasterInput::Cancel(job),
            Event::Connected(link, owner, line) => {
                self.lines.insert(link, line);
                MasterInput::Connected { link, owner }
            }
            Event::Message(link, message) => {
                if !self.lines.contains_key(&link) {
                    return true;
                }
                MasterInput::Message { link, message }
            }
            Event::Closed(link) => {
                if self.lines.remove(&link).is_none() {
                    return true;
                }
                MasterInput::Closed(link)
            }
            Event::Published(attempt, Ok(())) => MasterInput::Published { attempt },
            Event::Published(attempt, Err(why)) => MasterInput::PublishFailed { attempt, why },
            Event::Look(look) => {
                self.looks.push(look);
                return true;
            }
            Event::Watch(watcher) => {
                self.watchers.push(watcher);
                return true;
            }
        };
        self.core.handle(self.clock.now(), input, &mut self.out);
        true
    }

    /// Does what the machine wants: first the log, then the rest.
    fn act(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            let out = std::mem::take(&mut self.out);
            let mut log = Vec::new();
            for output in &out {
                if let MasterOutput::Append(bytes) = output {
                    log.extend_from_slice(bytes);
                }
            }
            if !log.is_empty() {
                self.log.append(&log)?;
            }
            for output in out {
                self.do_one(output);
            }
        }
        Ok(())
    }

    fn do_one(&mut self, output: MasterOutput) {
        match output {
            MasterOutput::Append(_) => {}
            MasterOutput::Accepted { token, job } => {
                if let Some(reply) = self.waiting.remove(&token) {
                    let _ = reply.send(job);
                }
            }
            MasterOutput::Send { link, message } => {
                if let Some(line) = self.lines.get(&link) {
                    line.send(message);
                }
            }
            MasterOutput::Close(link) => {
                if let Some(line) = self.lines.remove(&link) {
                    line.close();
                }
            }
            MasterOutput::Publish {
                attempt,
                holder: _,
                addr,
                output,
            } => {
                let Some(submission) = self.core.submission(attempt.task.job) else {
                    return;
                };
                let order = PublishOrder {
                    attempt,
                    addr,
                    output,
                    folder: submission.spec.output.clone().into(),
                    name: part_name(&submission.spec, attempt),
                };
                let _ = self.publish.send(order);
            }
            MasterOutput::Ended { job, outcome } => {
                self.close_output(job, &outcome);
                self.tell(&News::Ended(job, outcome));
            }
            MasterOutput::Notice { job, text } => {
                tracing::info!(
                    "{}: {text}",
                    job.map_or_else(String::new, |j| j.to_string())
                );
                self.tell(&News::Notice(job, text));
            }
        }
    }

    fn close_output(&self, job: JobId, outcome: &Outcome) {
        let Some(submission) = self.core.submission(job) else {
            return;
        };
        let folder = Path::new(&submission.spec.output);
        if let Err(e) = self.publisher.close(folder, *outcome == Outcome::Succeeded) {
            tracing::error!("output of {job}: {e}");
        }
    }

    fn tell(&mut self, news: &News) {
        self.watchers.retain(|w| w.send(news.clone()).is_ok());
    }
}
