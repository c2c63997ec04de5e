//! The index of shared files: a log of records, and for each word the ascending list of the
//! records whose path holds it.
//!
//! Records are numbered as they come. A file that is withdrawn is only marked; when a third of the
//! log is such waste, the log is cleaned from its old end, a few records for each new or withdrawn
//! one: a record that still lives is appended again, and in every list that names it the record
//! cleaned is the first, so that no list is ever searched for it. Numbers wrap around, which is
//! sound while fewer than 2^31 are in use.

use std::collections::VecDeque;
use std::hash::Hasher;

use hashbrown::HashTable;
use rustc_hash::FxHasher;
use smallvec::SmallVec;

use crate::fields::put_number;
use crate::file::{Facts, put_md5};
use crate::words::each_word;

/// Records of one block of the log.
const BLOCK: usize = 1024;
/// Records cleaned for each that comes or goes while the log is wasteful.
const CLEAN_STEPS: usize = 4;
/// Waste below which nothing is cleaned.
const CLEAN_FROM: usize = 4096;

/// A sharer's number, given by the user of the index.
pub type Owner = u32;

#[derive(Debug, Default)]
struct Block {
    offsets: Vec<u32>,
    bytes: Vec<u8>,
}

/// A word and where it occurs. The list begins at `start`; what is before it was cleaned.
#[derive(Debug, Default)]
struct Word {
    text: SmallVec<[u8; 16]>,
    list: SmallVec<[u32; 4]>,
    start: u32,
}

impl Word {
    fn list(&self) -> &[u32] {
        self.list.get(self.start as usize..).unwrap_or_default()
    }

    fn push(&mut self, id: u32) {
        if self.list.len() == self.list.capacity() {
            // A quarter more at a time: lists are most of the memory.
            let more = (self.list.len() / 4).max(4);
            self.list.reserve_exact(more);
        }
        self.list.push(id);
    }

    fn pop_first(&mut self) {
        self.start += 1;
        if self.start as usize * 2 > self.list.len() && self.start >= 8 {
            self.list.drain(..self.start as usize);
            self.start = 0;
            if self.list.len() * 4 < self.list.capacity() {
                self.list.shrink_to_fit();
            }
        }
    }
}

#[derive(Debug, Default)]
struct Folder {
    text: Box<[u8]>,
    files: u32,
    words: SmallVec<[u32; 8]>,
}

#[derive(Debug, Default)]
struct Sharer {
    /// The living records of this owner, by path.
    files: HashTable<u32>,
}

/// One file as the index holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Whose it is.
    pub owner: Owner,
    /// The folder, with its last separator.
    pub folder: &'a [u8],
    /// The name in it.
    pub name: &'a [u8],
    /// What is said of it.
    pub facts: Facts,
}

impl Entry<'_> {
    /// Appends `"path" md5 size bitrate frequency seconds`.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend_from_slice(self.folder);
        out.extend_from_slice(self.name);
        out.extend_from_slice(b"\" ");
        self.facts.put(out);
    }

    /// Appends `"path" md5`.
    pub fn put_short(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend_from_slice(self.folder);
        out.extend_from_slice(self.name);
        out.extend_from_slice(b"\" ");
        put_md5(self.facts.md5, out);
    }

    /// Appends the size in decimal.
    pub fn put_size(&self, out: &mut Vec<u8>) {
        put_number(self.facts.size, out);
    }
}

/// All files that are shared.
#[derive(Debug, Default)]
pub struct Index {
    blocks: VecDeque<Block>,
    /// Number of the first record of the first block.
    base: u32,
    /// Number of the first record not yet cleaned.
    head: u32,
    /// Number of the next record.
    next: u32,
    living: usize,
    bytes: u64,
    words: Vec<Word>,
    free_words: Vec<u32>,
    by_word: HashTable<u32>,
    folders: Vec<Folder>,
    free_folders: Vec<u32>,
    by_folder: HashTable<u32>,
    /// The folder of the last file, which is mostly that of the next.
    last_folder: Option<u32>,
    sharers: Vec<Sharer>,
    scratch: Scratch,
}

#[derive(Debug, Default)]
struct Scratch {
    word: Vec<u8>,
    ids: SmallVec<[u32; 32]>,
    record: Vec<u8>,
}

/// Words of one path that are indexed at most.
const MAX_WORDS: usize = 64;
/// How many list positions one search may look at.
const SEARCH_BUDGET: usize = 2_000_000;

const DEAD: u8 = 1;
const HAS_MD5: u8 = 2;
/// Bytes of a record before its name: flags, owner, folder, size, bitrate, frequency, seconds.
const FIXED: usize = 1 + 4 + 4 + 8 + 4 + 4 + 4;

fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = FxHasher::default();
    // Byte by byte over the parts, so that where a path was cut does not matter.
    let mut word = 0u64;
    let mut n = 0u32;
    for byte in parts.iter().copied().flatten() {
        word = (word << 8) | u64::from(*byte);
        n += 1;
        if n.is_multiple_of(8) {
            hasher.write_u64(word);
            word = 0;
        }
    }
    hasher.write_u64(word);
    hasher.write_u32(n);
    hasher.finish()
}

/// Whether `a` is before `b` among numbers that wrap.
fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

fn decode(record: &[u8]) -> Option<(u8, u32, u32, Facts, &[u8])> {
    let (&[flags], rest) = record.split_first_chunk::<1>()?;
    let (owner, rest) = rest.split_first_chunk::<4>()?;
    let (folder, rest) = rest.split_first_chunk::<4>()?;
    let (size, rest) = rest.split_first_chunk::<8>()?;
    let (bitrate, rest) = rest.split_first_chunk::<4>()?;
    let (frequency, rest) = rest.split_first_chunk::<4>()?;
    let (seconds, rest) = rest.split_first_chunk::<4>()?;
    let (md5, name) = if flags & HAS_MD5 == 0 {
        (None, rest)
    } else {
        let (md5, name) = rest.split_first_chunk::<16>()?;
        (Some(*md5), name)
    };
    let facts = Facts {
        size: u64::from_le_bytes(*size),
        bitrate: u32::from_le_bytes(*bitrate),
        frequency: u32::from_le_bytes(*frequency),
        seconds: u32::from_le_bytes(*seconds),
        md5,
    };
    let owner = u32::from_le_bytes(*owner);
    Some((flags, owner, u32::from_le_bytes(*folder), facts, name))
}

impl Index {
    /// Files shared.
    pub fn len(&self) -> usize {
        self.living
    }

    /// Whether nothing is shared.
    pub fn is_empty(&self) -> bool {
        self.living == 0
    }

    /// Bytes of all shared files together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Different words known.
    pub fn words(&self) -> usize {
        self.by_word.len()
    }

    /// Files of one owner.
    pub fn files_of(&self, owner: Owner) -> usize {
        self.sharers
            .get(owner as usize)
            .map_or(0, |s| s.files.len())
    }

    fn record(&self, id: u32) -> Option<&[u8]> {
        let at = id.wrapping_sub(self.base) as usize;
        let block = self.blocks.get(at / BLOCK)?;
        let slot = at % BLOCK;
        let from = *block.offsets.get(slot)? as usize;
        let to = block
            .offsets
            .get(slot + 1)
            .map_or(block.bytes.len(), |o| *o as usize);
        block.bytes.get(from..to)
    }

    fn flags_mut(&mut self, id: u32) -> Option<&mut u8> {
        let at = id.wrapping_sub(self.base) as usize;
        let block = self.blocks.get_mut(at / BLOCK)?;
        let from = *block.offsets.get(at % BLOCK)? as usize;
        block.bytes.get_mut(from)
    }

    /// A living file by its number.
    pub fn entry(&self, id: u32) -> Option<Entry<'_>> {
        let (flags, owner, folder, facts, name) = decode(self.record(id)?)?;
        if flags & DEAD != 0 {
            return None;
        }
        let folder = &self.folders.get(folder as usize)?.text;
        Some(Entry {
            owner,
            folder,
            name,
            facts,
        })
    }

    fn path_hash(&self, id: u32) -> u64 {
        self.entry(id).map_or(0, |e| hash(&[e.folder, e.name]))
    }

    fn is_path(&self, id: u32, folder: &[u8], name: &[u8]) -> bool {
        self.entry(id).is_some_and(|e| {
            e.folder.len() + e.name.len() == folder.len() + name.len()
                && e.folder.iter().chain(e.name).eq(folder.iter().chain(name))
        })
    }

    /// The number of an owner's file; the path is that of both parts together.
    pub fn find(&self, owner: Owner, folder: &[u8], name: &[u8]) -> Option<u32> {
        let sharer = self.sharers.get(owner as usize)?;
        let found = sharer
            .files
            .find(hash(&[folder, name]), |id| self.is_path(*id, folder, name));
        found.copied()
    }

    /// Adds a file; false if its owner shares that path already.
    pub fn add(&mut self, owner: Owner, folder: &[u8], name: &[u8], facts: &Facts) -> bool {
        if self.find(owner, folder, name).is_some() {
            return false;
        }
        let folder = self.folder(folder);
        let id = self.append(owner, folder, name, facts);
        let at = owner as usize;
        if self.sharers.len() <= at {
            self.sharers.resize_with(at + 1, Sharer::default);
        }
        self.enlist(owner, id);
        self.living += 1;
        self.bytes = self.bytes.saturating_add(facts.size);
        self.clean();
        true
    }

    fn enlist(&mut self, owner: Owner, id: u32) {
        let hash = self.path_hash(id);
        let Some(sharer) = self.sharers.get_mut(owner as usize) else {
            return;
        };
        let mut files = std::mem::take(&mut sharer.files);
        files.insert_unique(hash, id, |id| self.path_hash(*id));
        if let Some(sharer) = self.sharers.get_mut(owner as usize) {
            sharer.files = files;
        }
    }

    /// Appends a record and names it in the lists of its words.
    fn append(&mut self, owner: Owner, folder: u32, name: &[u8], facts: &Facts) -> u32 {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let mut record = std::mem::take(&mut self.scratch.record);
        record.clear();
        record.reserve(FIXED + 16 + name.len());
        record.push(if facts.md5.is_some() { HAS_MD5 } else { 0 });
        record.extend_from_slice(&owner.to_le_bytes());
        record.extend_from_slice(&folder.to_le_bytes());
        record.extend_from_slice(&facts.size.to_le_bytes());
        record.extend_from_slice(&facts.bitrate.to_le_bytes());
        record.extend_from_slice(&facts.frequency.to_le_bytes());
        record.extend_from_slice(&facts.seconds.to_le_bytes());
        record.extend(facts.md5.iter().flatten());
        record.extend_from_slice(name);
        if self.blocks.back().is_none_or(|b| b.offsets.len() >= BLOCK) {
            if let Some(full) = self.blocks.back_mut() {
                full.bytes.shrink_to_fit();
            }
            let offsets = Vec::with_capacity(BLOCK);
            self.blocks.push_back(Block {
                offsets,
                bytes: Vec::new(),
            });
        }
        if let Some(block) = self.blocks.back_mut() {
            block.offsets.push(block.bytes.len() as u32);
            block.bytes.extend_from_slice(&record);
        }
        self.scratch.record = record;
        if let Some(folder) = self.folders.get_mut(folder as usize) {
            folder.files += 1;
        }
        let words = self.words_of(folder, name, true);
        for word in &words {
            if let Some(word) = self.words.get_mut(*word as usize) {
                word.push(id);
            }
        }
        self.scratch.ids = words;
        id
    }

    /// The different words of a path, each once.
    fn words_of(&mut self, folder: u32, name: &[u8], make: bool) -> SmallVec<[u32; 32]> {
        let mut ids = std::mem::take(&mut self.scratch.ids);
        let mut buf = std::mem::take(&mut self.scratch.word);
        ids.clear();
        if let Some(folder) = self.folders.get(folder as usize) {
            ids.extend_from_slice(&folder.words);
        }
        each_word(name, &mut buf, |word| {
            if ids.len() < MAX_WORDS
                && let Some(id) = if make {
                    Some(self.word(word))
                } else {
                    self.known(word)
                }
                && !ids.contains(&id)
            {
                ids.push(id);
            }
        });
        self.scratch.word = buf;
        ids
    }

    fn known(&self, word: &[u8]) -> Option<u32> {
        let is = |id: &u32| {
            self.words
                .get(*id as usize)
                .is_some_and(|w| w.text.as_slice() == word)
        };
        self.by_word.find(hash(&[word]), is).copied()
    }

    fn word(&mut self, text: &[u8]) -> u32 {
        if let Some(id) = self.known(text) {
            return id;
        }
        let word = Word {
            text: SmallVec::from_slice(text),
            ..Word::default()
        };
        let id = self.free_words.pop().unwrap_or(self.words.len() as u32);
        match self.words.get_mut(id as usize) {
            Some(slot) => *slot = word,
            None => self.words.push(word),
        }
        let words = &self.words;
        self.by_word.insert_unique(hash(&[text]), id, |id| {
            hash(&[words.get(*id as usize).map_or(&[][..], |w| &w.text)])
        });
        id
    }

    fn folder(&mut self, text: &[u8]) -> u32 {
        let is = |id: &u32| {
            self.folders
                .get(*id as usize)
                .is_some_and(|f| &*f.text == text)
        };
        if let Some(last) = self.last_folder
            && is(&last)
        {
            return last;
        }
        let found = self.by_folder.find(hash(&[text]), is).copied();
        let id = found.unwrap_or_else(|| self.new_folder(text));
        self.last_folder = Some(id);
        id
    }

    fn new_folder(&mut self, text: &[u8]) -> u32 {
        let mut words = SmallVec::new();
        let mut buf = std::mem::take(&mut self.scratch.word);
        each_word(text, &mut buf, |word| {
            if words.len() < MAX_WORDS / 2 {
                let id = self.word(word);
                if !words.contains(&id) {
                    words.push(id);
                }
            }
        });
        self.scratch.word = buf;
        let folder = Folder {
            text: text.into(),
            files: 0,
            words,
        };
        let id = self.free_folders.pop().unwrap_or(self.folders.len() as u32);
        match self.folders.get_mut(id as usize) {
            Some(slot) => *slot = folder,
            None => self.folders.push(folder),
        }
        let folders = &self.folders;
        self.by_folder.insert_unique(hash(&[text]), id, |id| {
            hash(&[folders.get(*id as usize).map_or(&[][..], |f| &f.text)])
        });
        id
    }

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

    fn kill(&mut self, id: u32) {
        if let Some(size) = self.entry(id).map(|e| e.facts.size) {
            self.living -= 1;
            self.bytes = self.bytes.saturating_sub(size);
        }
        if let Some(flags) = self.flags_mut(id) {
            *flags |= DEAD;
        }
    }

    /// Cleans a few records at the old end of the log, if much of it is waste.
    fn clean(&mut self) {
        for _ in 0..CLEAN_STEPS {
            let used = self.next.wrapping_sub(self.head) as usize;
            let waste = used - self.living;
            if waste < CLEAN_FROM || waste * 3 < used {
                return;
            }
            self.clean_one();
        }
    }

    fn clean_one(&mut self) {
        let id = self.head;
        let Some(record) = self.record(id).map(<[u8]>::to_vec) else {
            return;
        };
        let Some((flags, owner, folder, facts, name)) = decode(&record) else {
            return;
        };
        if flags & DEAD == 0 {
            let path = self.path_hash(id);
            if let Some(sharer) = self.sharers.get_mut(owner as usize)
                && let Ok(found) = sharer.files.find_entry(path, |i| *i == id)
            {
                found.remove();
            }
            let moved = self.append(owner, folder, name, &facts);
            if let Some(flags) = self.flags_mut(id) {
                *flags |= DEAD;
            }
            self.enlist(owner, moved);
        }
        let words = self.words_of(folder, name, false);
        for at in &words {
            let Some(word) = self.words.get_mut(*at as usize) else {
                continue;
            };
            if word.list().first() == Some(&id) {
                word.pop_first();
            }
            if word.list().is_empty() {
                let text = std::mem::take(word).text;
                if let Ok(found) = self.by_word.find_entry(hash(&[&text]), |i| i == at) {
                    found.remove();
                }
                self.free_words.push(*at);
            }
        }
        self.scratch.ids = words;
        self.leave_folder(folder);
        self.head = self.head.wrapping_add(1);
        if self.head.wrapping_sub(self.base) as usize >= BLOCK {
            self.blocks.pop_front();
            self.base = self.base.wrapping_add(BLOCK as u32);
        }
    }

    fn leave_folder(&mut self, id: u32) {
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

    /// Calls `each` with the files of an owner, in the order of the log.
    pub fn each_of(&self, owner: Owner, mut each: impl FnMut(&Entry<'_>)) {
        let Some(sharer) = self.sharers.get(owner as usize) else {
            return;
        };
        let mut ids: Vec<u32> = sharer.files.iter().copied().collect();
        ids.sort_unstable_by_key(|id| id.wrapping_sub(self.head));
        for id in ids {
            if let Some(entry) = self.entry(id) {
                each(&entry);
            }
        }
    }

    /// Calls `each` with files whose paths hold all words of `contains` and none of `excludes`,
    /// until it returns false. `luck` decides where the search begins, so that of many hits not
    /// always the same come first.
    pub fn search(
        &self,
        contains: &[Vec<u8>],
        excludes: &[Vec<u8>],
        luck: usize,
        mut each: impl FnMut(&Entry<'_>) -> bool,
    ) {
        let mut buf = Vec::new();
        let mut all = true;
        let mut wanted: SmallVec<[u32; 16]> = SmallVec::new();
        for text in contains {
            each_word(text, &mut buf, |word| match self.known(word) {
                Some(id) if !wanted.contains(&id) => wanted.push(id),
                Some(_) => {}
                None => all = false,
            });
        }
        if !all || wanted.is_empty() {
            return;
        }
        let list = |id: &u32| self.words.get(*id as usize).map_or(&[][..], Word::list);
        let mut lists: SmallVec<[&[u32]; 16]> = wanted.iter().map(list).collect();
        lists.sort_by_key(|l| l.len());
        let mut banned: SmallVec<[&[u32]; 16]> = SmallVec::new();
        for text in excludes {
            each_word(text, &mut buf, |word| {
                if let Some(id) = self.known(word) {
                    banned.push(list(&id));
                }
            });
        }
        let Some((rarest, others)) = lists.split_first() else {
            return;
        };
        let from = luck % rarest.len().max(1);
        let (early, late) = rarest.split_at(from);
        let mut budget = SEARCH_BUDGET;
        for part in [late, early] {
            let mut cursors: SmallVec<[&[u32]; 16]> = SmallVec::from_slice(others);
            let mut bans = banned.clone();
            'ids: for id in part {
                if budget == 0 {
                    return;
                }
                budget -= 1;
                for cursor in &mut cursors {
                    if !advance(cursor, *id) {
                        if cursor.is_empty() {
                            break 'ids;
                        }
                        continue 'ids;
                    }
                }
                if bans.iter_mut().any(|cursor| advance(cursor, *id)) {
                    continue;
                }
                if let Some(entry) = self.entry(*id)
                    && !each(&entry)
                {
                    return;
                }
            }
        }
    }

    /// Calls `each` with the files of a checksum and size until it returns false. Looks at every
    /// record: there is no list by checksum.
    pub fn by_content(&self, md5: [u8; 16], size: u64, mut each: impl FnMut(&Entry<'_>) -> bool) {
        let mut id = self.head;
        while id != self.next {
            if let Some(entry) = self.entry(id)
                && entry.facts.md5 == Some(md5)
                && entry.facts.size == size
                && !each(&entry)
            {
                return;
            }
            id = id.wrapping_add(1);
        }
    }
}

/// Moves a cursor to the first number that is not before `id`, by doubling steps; whether it is
/// `id`.
fn advance(cursor: &mut &[u32], id: u32) -> bool {
    let list = *cursor;
    let mut step = 1;
    while list.get(step).is_some_and(|n| before(*n, id)) {
        step *= 2;
    }
    let from = step / 2;
    let window = list.get(from..list.len().min(step + 1)).unwrap_or_default();
    let skip = from + window.partition_point(|n| before(*n, id));
    *cursor = list.get(skip..).unwrap_or_default();
    cursor.first() == Some(&id)
}

#[cfg(test)]
mod tests;
