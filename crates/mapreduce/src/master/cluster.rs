//! The workers that a master knows: connections, leases, slots.

use crate::id::{AttemptId, TaskKind, WorkerId};
use crate::master::{Link, Owner};
use crate::split::Holdings;
use shoal_base::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// More slots than any machine has: what a worker claims beyond is not believed.
pub(super) const SLOTS_MAX: u32 = 4096;

/// A worker.
#[derive(Debug)]
pub(super) struct WorkerState {
    pub(super) id: WorkerId,
    pub(super) instance: u64,
    pub(super) owner: Owner,
    pub(super) host: Arc<str>,
    pub(super) addr: Arc<str>,
    pub(super) slots: u32,
    pub(super) holds: Holdings,
    /// Its connection; nothing between the end of one and the next.
    pub(super) link: Option<Link>,
    /// When it was last heard, or its connection ended.
    pub(super) heard: Time,
    pub(super) maps: BTreeSet<AttemptId>,
    pub(super) reduces: BTreeSet<AttemptId>,
    /// Since when a map slot is free.
    pub(super) idle_since: Time,
}

impl WorkerState {
    pub(super) fn running(&self, kind: TaskKind) -> &BTreeSet<AttemptId> {
        match kind {
            TaskKind::Map => &self.maps,
            TaskKind::Reduce => &self.reduces,
        }
    }

    pub(super) fn running_mut(&mut self, kind: TaskKind) -> &mut BTreeSet<AttemptId> {
        match kind {
            TaskKind::Map => &mut self.maps,
            TaskKind::Reduce => &mut self.reduces,
        }
    }

    pub(super) fn free(&self, kind: TaskKind) -> u32 {
        let used = u32::try_from(self.running(kind).len()).unwrap_or(u32::MAX);
        match self.link {
            Some(_) => self.slots.saturating_sub(used),
            None => 0,
        }
    }

    /// How full it is, in thousandths, to give to the emptiest first.
    pub(super) fn load(&self, kind: TaskKind) -> u64 {
        (self.running(kind).len() as u64 * 1000) / u64::from(self.slots.max(1))
    }

    pub(super) const fn stranger(&self) -> Option<&[u8; 32]> {
        match &self.owner {
            Owner::Own => None,
            Owner::Stranger(key) => Some(key),
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    pub(super) workers: BTreeMap<WorkerId, WorkerState>,
    /// Open connections, whose they are, and who registered on them.
    pub(super) links: BTreeMap<Link, (Owner, Option<WorkerId>)>,
    instances: BTreeMap<(Owner, u64), WorkerId>,
}

impl Cluster {
    pub(super) fn get(&self, id: WorkerId) -> Option<&WorkerState> {
        self.workers.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: WorkerId) -> Option<&mut WorkerState> {
        self.workers.get_mut(&id)
    }

    pub(super) fn by_link(&self, link: Link) -> Option<WorkerId> {
        self.links.get(&link).and_then(|(_, worker)| *worker)
    }

    pub(super) fn by_instance(&self, owner: Owner, instance: u64) -> Option<WorkerId> {
        self.instances.get(&(owner, instance)).copied()
    }

    pub(super) fn insert(&mut self, worker: WorkerState) {
        self.instances
            .insert((worker.owner, worker.instance), worker.id);
        self.workers.insert(worker.id, worker);
    }

    pub(super) fn remove(&mut self, id: WorkerId) -> Option<WorkerState> {
        let worker = self.workers.remove(&id)?;
        self.instances.remove(&(worker.owner, worker.instance));
        Some(worker)
    }

    /// Binds a worker to a connection; gives back the one it had.
    pub(super) fn bind(&mut self, id: WorkerId, link: Link, now: Time) -> Option<Link> {
        if let Some(entry) = self.links.get_mut(&link) {
            entry.1 = Some(id);
        }
        let worker = self.workers.get_mut(&id)?;
        worker.heard = now;
        worker.link.replace(link).filter(|old| *old != link)
    }

    /// Whether results may have to be compared.
    pub(super) fn has_strangers(&self) -> bool {
        self.workers.values().any(|w| w.stranger().is_some())
    }

    /// Slots for one kind of task.
    pub(super) fn slots(&self) -> u64 {
        self.workers.values().map(|w| u64::from(w.slots)).sum()
    }
}
