//! Turns the code that a job names into code that runs in one attempt: a function of ours, a
//! process ([`crate::streaming`]) or a sandbox (`crate::wasm`).

use crate::streaming::{StreamMapper, StreamReducer};
#[cfg(feature = "wasm")]
use crate::wasm::{WasmMapper, WasmReducer};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};
use shoal_mapreduce::code::{CodeError, MapCode, ReduceCode};
use shoal_mapreduce::id::AttemptId;
use shoal_mapreduce::job::{Code, JobSpec};

/// What code needs to know of the attempt it runs in, and what the attempt lends it.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The job.
    pub spec: Arc<JobSpec>,
    /// Which attempt of which task.
    pub id: AttemptId,
    /// A folder of this attempt alone, which exists. Processes run in folders below it; whoever
    /// made it removes it.
    pub dir: PathBuf,
    /// Where each of [`JobSpec::side_files`] lies on this machine, in their order. Archives are
    /// still packed.
    pub side_files: Vec<PathBuf>,
    /// What code says for people, such as a process's standard error, is appended to this file.
    pub log: PathBuf,
    /// Ends the code from another thread.
    pub stop: Arc<Stop>,
}

/// What a reducer is used as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// On the output of one map task; what it emits is shuffled.
    Combine,
    /// In a reduce task; what it emits is the job's output.
    Reduce,
}

/// Ends the code of one attempt: its processes are killed and its sandboxes interrupted; what they
/// were called for returns an error soon after.
#[derive(Debug, Default)]
pub struct Stop {
    stopped: AtomicBool,
    groups: Mutex<Vec<Pid>>,
}

impl Stop {
    /// Ends the code now, and whatever would start later.
    pub fn stop(&self) {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        self.stopped.store(true, Ordering::Release);
        for group in &*groups {
            // A group that has ended has nothing left to kill.
            let _ = kill_process_group(*group, Signal::KILL);
        }
    }

    /// Whether [`Self::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Takes note of a process group that has started.
    pub(crate) fn started(&self, group: Pid) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_stopped() {
            let _ = kill_process_group(group, Signal::KILL);
        }
        groups.push(group);
    }

    /// Forgets a group whose leader is about to be waited for, after which its number may go to
    /// somebody else.
    pub(crate) fn ended(&self, group: Pid) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|known| *known != group);
    }
}

/// The mapper of an attempt.
///
/// # Errors
/// When there is no such code, or it cannot be started.
pub fn mapper(code: &Code, attempt: &Attempt) -> Result<Box<dyn MapCode + Send>, CodeError> {
    match code {
        Code::Streaming { command } => Ok(Box::new(StreamMapper::new(command, attempt)?)),
        #[cfg(feature = "wasm")]
        Code::Wasm { module, args } => Ok(Box::new(WasmMapper::new(module, args, attempt)?)),
        other => Err(unknown(other)),
    }
}

/// The reducer or combiner of an attempt.
///
/// # Errors
/// When there is no such code, or it cannot be started.
pub fn reducer(
    code: &Code,
    role: Role,
    attempt: &Attempt,
) -> Result<Box<dyn ReduceCode + Send>, CodeError> {
    match code {
        Code::Streaming { command } => Ok(Box::new(StreamReducer::new(command, role, attempt)?)),
        #[cfg(feature = "wasm")]
        Code::Wasm { module, args } => Ok(Box::new(WasmReducer::new(module, args, role, attempt)?)),
        other => Err(unknown(other)),
    }
}

fn unknown(code: &Code) -> CodeError {
    failed(format!("this build runs no code such as {code:?}"))
}

/// A failure at no record in particular.
pub(crate) fn failed(what: impl Into<String>) -> CodeError {
    CodeError {
        what: what.into(),
        record: None,
    }
}
