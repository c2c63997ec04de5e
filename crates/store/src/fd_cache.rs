//! A bounded set of open files: a torrent of a hundred thousand files must not hold as many
//! descriptors.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustc_hash::FxHashMap;

/// An open file and what it may be used for.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) fd: OwnedFd,
    pub(crate) writable: bool,
}

#[derive(Debug)]
struct Slot {
    file: Arc<OpenFile>,
    used: u64,
}

/// Open files by number; the one unused for longest is closed to make room.
#[derive(Debug)]
pub(crate) struct FdCache {
    slots: FxHashMap<u32, Slot>,
    capacity: usize,
    tick: u64,
}

impl FdCache {
    /// Room for `capacity` files, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            slots: FxHashMap::default(),
            capacity: capacity.max(1),
            tick: 0,
        }
    }

    /// File `index` if it is open, and for writing if that is wanted.
    pub(crate) fn get(&mut self, index: u32, write: bool) -> Option<Arc<OpenFile>> {
        self.tick += 1;
        let slot = self.slots.get_mut(&index)?;
        if write && !slot.file.writable {
            return None;
        }
        slot.used = self.tick;
        Some(Arc::clone(&slot.file))
    }

    /// Keeps `file`; what it replaces or displaces is handed back, to be closed without the lock.
    #[must_use]
    pub(crate) fn put(&mut self, index: u32, file: Arc<OpenFile>) -> Option<Arc<OpenFile>> {
        self.tick += 1;
        let displaced = if self.slots.len() >= self.capacity && !self.slots.contains_key(&index) {
            let oldest = self.slots.iter().min_by_key(|(_, slot)| slot.used);
            let oldest = oldest.map(|(index, _)| *index);
            oldest.and_then(|index| self.slots.remove(&index))
        } else {
            None
        };
        let used = self.tick;
        let replaced = self.slots.insert(index, Slot { file, used });
        displaced.or(replaced).map(|slot| slot.file)
    }

    /// Forgets file `index`.
    pub(crate) fn remove(&mut self, index: u32) {
        self.slots.remove(&index);
    }

    /// Takes all files out.
    #[must_use]
    pub(crate) fn take_all(&mut self) -> Vec<Arc<OpenFile>> {
        self.slots.drain().map(|(_, slot)| slot.file).collect()
    }

    /// The open files.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Arc<OpenFile>)> {
        self.slots.iter().map(|(index, slot)| (*index, &slot.file))
    }

    /// How many files are open.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(writable: bool) -> Arc<OpenFile> {
        let fd = std::fs::File::open("/dev/null")
            .expect("always there")
            .into();
        Arc::new(OpenFile { fd, writable })
    }

    #[test]
    fn the_one_unused_for_longest_makes_room() {
        let mut cache = FdCache::new(2);
        assert!(cache.put(1, file(false)).is_none());
        assert!(cache.put(2, file(false)).is_none());
        assert!(cache.get(1, false).is_some());
        assert!(cache.put(3, file(true)).is_some());
        assert!(cache.get(2, false).is_none());
        assert!(cache.get(1, false).is_some() && cache.get(1, true).is_none());
        assert!(cache.get(3, true).is_some());
        assert!(cache.put(1, file(true)).is_some(), "replaced");
        assert_eq!(cache.len(), 2);
    }
}
