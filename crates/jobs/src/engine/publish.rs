//! Gives output that counts its final name; a thread, because output may have to be fetched first.

use super::master::MasterHandle;
use crossbeam_channel::{Sender, unbounded};
use shoal_mapreduce::id::{AttemptId, TaskKind};
use shoal_mapreduce::job::JobSpec;
use shoal_mapreduce::message::TaskOutput;
use shoal_store::job::OutputFolder;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One output to be published.
#[derive(Debug)]
pub struct PublishOrder {
    /// Whose it is.
    pub attempt: AttemptId,
    /// Where its holder serves it.
    pub addr: String,
    /// What it is.
    pub output: TaskOutput,
    /// The job's output folder.
    pub folder: PathBuf,
    /// Its name there.
    pub name: String,
}

/// Fetches an attempt's output from its holder into a file.
pub trait Fetch: Send + Sync {
    /// Fetches it.
    ///
    /// # Errors
    /// When the holder cannot be reached or has it no more, or the file cannot be written.
    fn fetch(
        &self,
        addr: &str,
        attempt: AttemptId,
        output: &TaskOutput,
        to: &Path,
    ) -> io::Result<()>;
}

/// How outputs come to be where they belong.
#[derive(Clone, Default)]
pub struct Publisher {
    fetch: Option<Arc<dyn Fetch>>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Publisher")
    }
}

/// The property that makes names of parts plain: `part-00000`, as Hadoop Streaming has them.
pub const PLAIN_PARTS: &str = "shoal.output.plain.parts";

/// The final name of a task's output, as Hadoop has it.
pub fn part_name(spec: &JobSpec, attempt: AttemptId) -> String {
    if spec.properties.get(PLAIN_PARTS).map(String::as_str) == Some("true") {
        return format!("part-{:05}", attempt.task.index);
    }
    let kind = match attempt.task.kind {
        TaskKind::Map => 'm',
        TaskKind::Reduce => 'r',
    };
    format!("part-{kind}-{:05}", attempt.task.index)
}

impl Publisher {
    /// One that fetches what is elsewhere by `fetch`.
    pub fn fetching(fetch: Arc<dyn Fetch>) -> Self {
        Self { fetch: Some(fetch) }
    }

    pub(super) fn start(&self, master: MasterHandle) -> io::Result<Sender<PublishOrder>> {
        let (orders, queue) = unbounded::<PublishOrder>();
        let this = self.clone();
        std::thread::Builder::new()
            .name("mr-publish".to_owned())
            .spawn(move || {
                for order in &queue {
                    let done = this.publish(&order).map_err(|e| e.to_string());
                    master.published(order.attempt, done);
                }
            })?;
        Ok(orders)
    }

    fn publish(&self, order: &PublishOrder) -> io::Result<()> {
        let folder = OutputFolder::claimed(&order.folder);
        let name = &order.name;
        let attempt = folder.attempts().join(order.attempt.to_string());
        if let Some(fetch) = &self.fetch
            && !attempt.exists()
            && !order.folder.join(name).exists()
        {
            let partial = folder.attempts().join(format!("{}.fetched", order.attempt));
            let _ = std::fs::remove_file(&partial);
            fetch.fetch(&order.addr, order.attempt, &order.output, &partial)?;
            std::fs::rename(&partial, &attempt)?;
        }
        folder.publish(&attempt, name)
    }

    /// Seals the folder of a job that succeeded, removes that of one that did not.
    pub(super) fn close(&self, folder: &Path, succeeded: bool) -> io::Result<()> {
        let folder = OutputFolder::claimed(folder);
        // Once it is sealed its private part is gone, and what happens to it is the user's affair.
        if folder.claim_of().is_err() {
            return Ok(());
        }
        if succeeded {
            folder.seal()
        } else {
            folder.abandon();
            Ok(())
        }
    }
}
