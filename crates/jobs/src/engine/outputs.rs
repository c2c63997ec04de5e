//! What a worker's finished attempts made, to be read by its own reduce tasks and served to others.

use crate::digest::Part;
use shoal_mapreduce::data::shuffle::Runs;
use shoal_mapreduce::id::{AttemptId, JobId};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

/// The output of one attempt.
#[derive(Debug)]
pub enum Kept {
    /// Of a map: a run for each reduce task, in memory or in a file; and what each hashes to, if
    /// the output is compared with that of others.
    Runs(Runs, Vec<Part>),
    /// Of a task whose output is the job's: a file, removed with this unless it was published.
    File(PathBuf),
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Self::File(path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// All of them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Outputs(Arc<RwLock<BTreeMap<AttemptId, Arc<Kept>>>>);

impl Outputs {
    /// Keeps an output.
    pub fn insert(&self, attempt: AttemptId, kept: Kept) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(attempt, Arc::new(kept));
    }

    /// One that is kept.
    pub fn get(&self, attempt: AttemptId) -> Option<Arc<Kept>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&attempt).cloned()
    }

    /// Whether there are any that strangers may want: those that are compared.
    pub fn any_compared(&self) -> bool {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let compared = |kept: &Arc<Kept>| matches!(&**kept, Kept::Runs(_, p) if !p.is_empty());
        all.values().any(compared)
    }

    /// Bytes of those that are in memory.
    pub fn memory_bytes(&self) -> u64 {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let bytes = |kept: &Arc<Kept>| match &**kept {
            Kept::Runs(runs, _) => runs.memory().map_or(0, |m| m.len() as u64),
            Kept::File(_) => 0,
        };
        all.values().map(bytes).sum()
    }

    /// Lets one go; its room is free once nobody reads it any more.
    pub fn remove(&self, attempt: AttemptId) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.remove(&attempt);
    }

    /// Lets all of a job go.
    pub fn remove_job(&self, job: JobId) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|attempt, _| attempt.task.job != job);
    }
}
