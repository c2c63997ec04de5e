//! What children share, and queries: answered from the index, flooded among supernodes, their hits
//! sent back the way the query came.

use std::time::Duration;

use shoal_base::Time;
use shoal_content::TigerRoot;
use shoal_content::keywords::{LocalFile, Terms};

use super::links::{Link, Stage};
use super::{Effect, Event, LinkId, Node, Role};
use crate::Address;
use crate::token::Presence;
use crate::wire::{File, Hit, MAX_BATCH, MAX_PATH, MAX_WORDS, Message, QueryId};

/// Queries remembered at most, and how long.
pub(super) const MAX_SEEN: usize = 20_000;
const REMEMBER: Duration = Duration::from_secs(120);
/// Presences remembered as checked, at most.
const MAX_CHECKED: usize = 4096;
/// Sharers whose hits are counted for one query, at most.
const MAX_SHARERS: usize = 256;

/// A query that passed here.
#[derive(Debug)]
pub(super) struct Seen {
    /// Where its hits go; none if it is our own.
    from: Option<LinkId>,
    terms: Terms,
    /// Hits that may still go back.
    left: usize,
    /// How many of each sharer went.
    sharers: std::collections::BTreeMap<crate::token::Key, usize>,
    since: Time,
}

/// Lets so many pass in a minute, and a sixth of them (at least five) at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    per_minute: u32,
    tokens: f64,
    at: Time,
}

impl Allowance {
    pub(super) fn new(per_minute: u32) -> Self {
        Self {
            per_minute,
            tokens: Self::most(per_minute),
            at: Time::ZERO,
        }
    }

    fn most(per_minute: u32) -> f64 {
        (f64::from(per_minute) / 6.0).max(5.0)
    }

    fn take(&mut self, now: Time) -> bool {
        let gained = now.since(self.at).as_secs_f64() * f64::from(self.per_minute) / 60.0;
        self.tokens = (self.tokens + gained).min(Self::most(self.per_minute));
        self.at = now;
        let passes = self.tokens >= 1.0;
        if passes {
            self.tokens -= 1.0;
        }
        passes
    }
}

fn facts(file: &File) -> LocalFile {
    LocalFile {
        size: file.size,
        sha1: file.sha1,
        tiger: TigerRoot(file.tiger),
    }
}

/// Splits a path behind its last `/`.
fn halves(path: &str) -> (&[u8], &[u8]) {
    let at = path.rfind('/').map_or(0, |at| at + 1);
    let (folder, name) = path.split_at(at);
    (folder.as_bytes(), name.as_bytes())
}

impl<A: Address> Node<A> {
    /// Says what this node shares; what was shared before is withdrawn.
    pub fn share(&mut self, now: Time, files: Vec<File>, out: &mut Vec<Effect<A>>) {
        self.now = now;
        let old = std::mem::replace(&mut self.files, files);
        if self.role == Role::Supernode {
            self.index_own();
        } else if let Some(parent) = self.parent {
            let gone: Vec<String> = old.into_iter().map(|f| f.path).collect();
            for batch in gone.chunks(MAX_BATCH) {
                self.send(parent, Message::Unshare(batch.to_vec()));
            }
            let batches: Vec<Vec<File>> = self.files.chunks(MAX_BATCH).map(<[_]>::to_vec).collect();
            for batch in batches {
                self.send(parent, Message::Share(batch));
            }
        }
        self.flush(out);
    }

    /// Puts one's own files into the index, where they wait for the role.
    pub(super) fn index_own(&mut self) {
        self.index.remove_all(0);
        for file in &self.files {
            let (folder, name) = halves(&file.path);
            self.index.add(0, folder, name, &facts(file));
        }
    }

    pub(super) fn share_of(&mut self, id: LinkId, files: &[File]) {
        let Some(owner) = self.links.get(&id).and_then(|l| l.owner) else {
            return;
        };
        if files.len() > MAX_BATCH {
            return self.strike(id);
        }
        for file in files {
            let full = self.index.files_of(owner) >= self.config.max_files;
            if full || file.path.is_empty() || file.path.len() > MAX_PATH {
                continue;
            }
            let (folder, name) = halves(&file.path);
            self.index.add(owner, folder, name, &facts(file));
        }
    }

    pub(super) fn unshare_of(&mut self, id: LinkId, paths: &[String]) {
        let Some(owner) = self.links.get(&id).and_then(|l| l.owner) else {
            return;
        };
        for path in paths {
            let (folder, name) = halves(path);
            self.index.remove(owner, folder, name);
        }
    }

    /// Looks for files; what is found comes as [`Event::Hits`] with this name, while it is
    /// remembered. None if there is no word in it, or no supernode to ask.
    pub fn search(&mut self, now: Time, words: &str, out: &mut Vec<Effect<A>>) -> Option<QueryId> {
        self.now = now;
        let terms = Terms::parse(words);
        if terms.is_empty() || words.len() > MAX_WORDS {
            return None;
        }
        let mut id = [0; 16];
        self.rng.fill(&mut id);
        match self.role {
            Role::Peer => {
                let parent = self.parent?;
                self.remember(id, None, terms);
                let words = words.to_owned();
                self.send(parent, Message::Query { id, words, ttl: 0 });
            }
            Role::Supernode => self.answer(None, id, words, self.config.ttl),
        }
        self.flush(out);
        Some(id)
    }

    fn remember(&mut self, id: QueryId, from: Option<LinkId>, terms: Terms) {
        if self.seen.len() >= MAX_SEEN
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        let seen = Seen {
            from,
            terms,
            left: self.config.max_results,
            sharers: std::collections::BTreeMap::new(),
            since: self.now,
        };
        self.seen.insert(id, seen);
        self.seen_order.push_back(id);
    }

    pub(super) fn forget_queries(&mut self) {
        while let Some(id) = self.seen_order.front()
            && self
                .seen
                .get(id)
                .is_none_or(|s| self.now.since(s.since) >= REMEMBER)
        {
            self.seen.remove(id);
            self.seen_order.pop_front();
        }
    }

    /// A child's or a neighbour's query.
    pub(super) fn query_from(
        &mut self,
        from: LinkId,
        stage: Stage,
        id: QueryId,
        words: &str,
        ttl: u8,
    ) {
        let now = self.now;
        let passes = self
            .links
            .get_mut(&from)
            .is_some_and(|l| l.queries.take(now));
        if !passes {
            self.stats.limited += 1;
            return;
        }
        if words.len() > MAX_WORDS {
            return self.strike(from);
        }
        // How far a child's query goes is ours to say; a neighbour's no farther than our own.
        let ttl = match stage {
            Stage::Child => self.config.ttl,
            _ => ttl.min(self.config.ttl),
        };
        self.answer(Some(from), id, words, ttl);
    }

    fn answer(&mut self, from: Option<LinkId>, id: QueryId, words: &str, ttl: u8) {
        self.stats.queries += 1;
        if self.seen.contains_key(&id) {
            self.stats.duplicates += 1;
            return;
        }
        let terms = Terms::parse(words);
        if terms.is_empty() {
            return;
        }
        let hits = self.local_hits(&terms, from);
        self.remember(id, from, terms);
        self.pass_back(id, hits);
        if ttl > 0 {
            for link in self.of_stage(Stage::Neighbour) {
                if Some(link) != from {
                    let words = words.to_owned();
                    self.send(
                        link,
                        Message::Query {
                            id,
                            words,
                            ttl: ttl - 1,
                        },
                    );
                }
            }
        }
    }

    /// What the index has; not what the asker itself shares.
    fn local_hits(&mut self, terms: &Terms, from: Option<LinkId>) -> Vec<Hit<A>> {
        let asker = match from {
            None => Some(0),
            Some(id) => self.links.get(&id).and_then(|l| l.owner),
        };
        let (most, of_each) = (self.config.max_results, self.config.max_of_sharer);
        let luck = self.rng.next_u64() as usize;
        let mut found = Vec::new();
        let mut counts = std::collections::BTreeMap::new();
        // Who shares very much is looked at for a bounded time only.
        let mut looked = 0;
        self.index.search(terms, luck, |entry| {
            looked += 1;
            let count = counts.entry(entry.owner).or_insert(0usize);
            if Some(entry.owner) != asker && *count < of_each {
                *count += 1;
                let path = [entry.folder, entry.name].concat();
                let file = File {
                    path: String::from_utf8_lossy(&path).into_owned(),
                    size: entry.facts.size,
                    sha1: entry.facts.sha1,
                    tiger: entry.facts.tiger.0,
                };
                found.push((entry.owner, file));
            }
            found.len() < most && looked < 20 * most
        });
        let mut hits = Vec::new();
        for (owner, file) in found {
            let sharer = match owner {
                0 => Some(self.presence.clone()),
                _ => self
                    .owners
                    .get(owner as usize)
                    .copied()
                    .flatten()
                    .and_then(|id| self.links.get(&id)?.theirs.clone()),
            };
            hits.extend(sharer.map(|sharer| Hit { file, sharer }));
        }
        hits
    }

    /// Hits came: those that hold go back to who asked.
    pub(super) fn hits_from(&mut self, from: LinkId, id: QueryId, hits: Vec<Hit<A>>) {
        let Some(seen) = self.seen.get(&id) else {
            // It may only be late.
            self.stats.forged += hits.len() as u64;
            return;
        };
        if hits.len() > MAX_BATCH {
            return self.strike(from);
        }
        let fits: Vec<bool> = hits
            .iter()
            .map(|h| h.file.path.len() <= MAX_PATH && seen.terms.fit(&h.file.path))
            .collect();
        let mut good = Vec::new();
        let mut forged = 0;
        for (hit, fits) in hits.into_iter().zip(fits) {
            if fits && self.holds(&hit.sharer) {
                good.push(hit);
            } else {
                forged += 1;
            }
        }
        self.stats.forged += forged;
        if forged > 0 {
            self.strike(from);
        }
        self.pass_back(id, good);
    }

    /// Whether a presence is valid; each is checked once.
    fn holds(&mut self, presence: &Presence<A>) -> bool {
        let unix = self.unix();
        if unix >= presence.token.expires {
            return false;
        }
        let Ok(bytes) = postcard::to_allocvec(presence) else {
            return false;
        };
        if self.checked.contains(&bytes) {
            return true;
        }
        let holds = presence.check(&self.config.trusted, unix).is_ok();
        if holds {
            if self.checked.len() >= MAX_CHECKED {
                self.checked.clear();
            }
            self.checked.insert(bytes);
        }
        holds
    }

    fn pass_back(&mut self, id: QueryId, hits: Vec<Hit<A>>) {
        let most = self.config.max_of_sharer;
        let Some(seen) = self.seen.get_mut(&id) else {
            return;
        };
        let mut passed = Vec::new();
        for hit in hits {
            let key = hit.sharer.token.key;
            if seen.sharers.len() >= MAX_SHARERS && !seen.sharers.contains_key(&key) {
                continue;
            }
            let count = seen.sharers.entry(key).or_insert(0);
            if seen.left == 0 || *count >= most {
                continue;
            }
            *count += 1;
            seen.left -= 1;
            passed.push(hit);
        }
        if passed.is_empty() {
            return;
        }
        self.stats.hits += passed.len() as u64;
        match seen.from {
            None => self.tell(Event::Hits(id, passed)),
            Some(to) if self.links.get(&to).is_some_and(is_up) => {
                self.send(to, Message::Hits(id, passed));
            }
            Some(_) => {}
        }
    }
}

fn is_up<A>(link: &Link<A>) -> bool {
    matches!(link.stage, Stage::Child | Stage::Neighbour)
}
