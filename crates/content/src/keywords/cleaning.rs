//! Files are withdrawn, and the log is cleaned of them from its old end.

use super::{BLOCK, CLEAN_FROM, DEAD, Facts, Index, Owner, decode, hash};

/// Records cleaned for each that comes or goes while the log is wasteful.
const CLEAN_STEPS: usize = 4;

impl<F: Facts> Index<F> {
    /// Withdraws one file of an owner; false if it is not shared.
    pub fn remove(&mut self, owner: Owner, folder: &[u8], name: &[u8]) -> bool {
        let Some(id) = self.find(owner, folder, name) else {
            return false;
        };
        if let Some(sharer) = self.sharers.get_mut(owner as usize)
            && let Ok(found) = sharer.files.find_entry(hash(&[folder, name]), |i| *i == id)
        {
            found.remove();
        }
        self.kill(id);
        self.clean();
        true
    }

    /// Withdraws all files of an owner.
    pub fn remove_all(&mut self, owner: Owner) {
        let Some(sharer) = self.sharers.get_mut(owner as usize) else {
            return;
        };
        for id in std::mem::take(&mut sharer.files) {
            self.kill(id);
            self.clean();
        }
    }

    pub(super) fn kill(&mut self, id: u32) {
        if let Some(size) = self.entry(id).map(|e| e.facts.size()) {
            self.living -= 1;
            self.bytes = self.bytes.saturating_sub(size);
        }
        self.forget_hashes(id);
        if let Some(flags) = self.flags_mut(id) {
            *flags |= DEAD;
        }
    }

    /// Cleans a few records at the old end of the log, if much of it is waste.
    pub(super) fn clean(&mut self) {
        for _ in 0..CLEAN_STEPS {
            let used = self.next.wrapping_sub(self.head) as usize;
            let waste = used - self.living;
            if waste < CLEAN_FROM || waste * 3 < used {
                return;
            }
            self.clean_one();
        }
    }

    pub(super) fn clean_one(&mut self) {
        let id = self.head;
        let Some(record) = self.record(id).map(<[u8]>::to_vec) else {
            return;
        };
        let Some((flags, owner, folder, facts, name)) = decode::<F>(&record) else {
            return;
        };
        if flags & DEAD == 0 {
            let path = self.path_hash(id);
            if let Some(sharer) = self.sharers.get_mut(owner as usize)
                && let Ok(found) = sharer.files.find_entry(path, |i| *i == id)
            {
                found.remove();
            }
            self.forget_hashes(id);
            let moved = self.append(owner, folder, name, &facts);
            if let Some(flags) = self.flags_mut(id) {
                *flags |= DEAD;
            }
            self.enlist(owner, moved);
        }
        let words = self.words_of(folder, name, false);
        for word in &words {
            self.words.pop(*word, id);
        }
        self.scratch.ids = words;
        self.leave_folder(folder);
        self.head = self.head.wrapping_add(1);
        if self.head.wrapping_sub(self.base) as usize >= BLOCK {
            self.blocks.pop_front();
            self.base = self.base.wrapping_add(BLOCK as u32);
        }
    }

    pub(super) fn leave_folder(&mut self, id: u32) {
        let Some(folder) = self.folders.get_mut(id as usize) else {
            return;
        };
        folder.files -= 1;
        if folder.files == 0 {
            let text = std::mem::take(folder).text;
            if let Ok(found) = self.by_folder.find_entry(hash(&[&text]), |i| *i == id) {
                found.remove();
            }
            self.free_folders.push(id);
            self.last_folder = self.last_folder.filter(|last| *last != id);
        }
    }
}
