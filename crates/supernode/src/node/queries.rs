//! What children share, and queries: answered from the index, flooded among supernodes, their hits
//! sent back the way the query came.

use std::time::Duration;

use shoal_base::Time;
use shoal_content::keywords::{Entry, Terms};

use super::kept::Kept;
use super::links::{Link, Stage};
use super::{Effect, Event, LinkId, Node, Role};
use crate::Address;
use crate::token::{Key, Presence};
use crate::wire::{File, Hit, MAX_BATCH, MAX_PATH, MAX_WORDS, Message, QueryId, Standing, Wanted};

/// Queries remembered at most, and how long.
pub(super) const MAX_SEEN: usize = 20_000;
const REMEMBER: Duration = Duration::from_secs(120);
/// Sharers whose hits are counted for one query, at most.
const MAX_SHARERS: usize = 256;

/// What is asked for, read.
#[derive(Debug)]
enum Asked {
    Words(Terms),
    Sha1([u8; 20]),
}

impl Asked {
    /// None if nothing is asked for.
    fn read(wanted: &Wanted) -> Option<Self> {
        match wanted {
            Wanted::Words(words) => {
                let terms = Terms::parse(words);
                (!terms.is_empty()).then_some(Self::Words(terms))
            }
            Wanted::Sha1(sha1) => Some(Self::Sha1(*sha1)),
        }
    }

    fn fits(&self, file: &File) -> bool {
        match self {
            Self::Words(terms) => terms.fit(&file.path),
            Self::Sha1(sha1) => file.sha1 == *sha1,
        }
    }
}

/// Hits of one sharer for one query.
#[derive(Debug, Clone, Copy)]
pub(super) struct OfSharer {
    count: usize,
    /// The link that the first of them came by; none if the sharer is this node.
    pub(super) by: Option<LinkId>,
}

/// A query that passed here.
#[derive(Debug)]
pub(super) struct Seen {
    /// Where its hits go; none if it is our own.
    pub(super) from: Option<LinkId>,
    asked: Asked,
    /// Hits that may still go back.
    left: usize,
    /// What went of each sharer's.
    pub(super) sharers: std::collections::BTreeMap<Key, OfSharer>,
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

    /// Whether nothing was taken lately.
    pub(super) fn is_full(&self, now: Time) -> bool {
        let gained = now.since(self.at).as_secs_f64() * f64::from(self.per_minute) / 60.0;
        self.tokens + gained >= Self::most(self.per_minute)
    }

    pub(super) fn take(&mut self, now: Time) -> bool {
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
        self.index_own();
        if self.role == Role::Peer
            && let Some(parent) = self.parent
        {
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

    /// Shares a file more.
    pub fn share_more(&mut self, now: Time, file: File, out: &mut Vec<Effect<A>>) {
        self.now = now;
        let (folder, name) = halves(&file.path);
        match (self.role, self.parent, Kept::of(&file)) {
            (Role::Supernode, _, Some(facts)) => drop(self.index.add(0, folder, name, &facts)),
            (Role::Peer, Some(parent), _) => {
                self.send(parent, Message::Share(vec![file.clone()]));
            }
            _ => {}
        }
        self.files.push(file);
        self.flush(out);
    }

    /// Shares the file at a path no more.
    pub fn unshare(&mut self, now: Time, path: &str, out: &mut Vec<Effect<A>>) {
        self.now = now;
        self.files.retain(|file| file.path != path);
        let (folder, name) = halves(path);
        match (self.role, self.parent) {
            (Role::Supernode, _) => drop(self.index.remove(0, folder, name)),
            (Role::Peer, Some(parent)) => {
                self.send(parent, Message::Unshare(vec![path.to_owned()]));
            }
            (Role::Peer, None) => {}
        }
        self.flush(out);
    }

    /// Says how this node stands with those who fetch from it; hits of its files carry it.
    pub fn stand(&mut self, now: Time, standing: Standing, out: &mut Vec<Effect<A>>) {
        self.now = now;
        if self.standing.replace(standing) != Some(standing) {
            self.tell_standing();
        }
        self.flush(out);
    }

    /// Tells the supernode, if there is one and something to tell.
    pub(super) fn tell_standing(&mut self) {
        if let (Role::Peer, Some(parent), Some(standing)) = (self.role, self.parent, self.standing)
        {
            self.send(parent, Message::Standing(standing));
        }
    }

    /// Puts one's own files into the index of a supernode; a peer has none.
    pub(super) fn index_own(&mut self) {
        self.index.remove_all(0);
        if self.role == Role::Peer {
            return;
        }
        for file in &self.files {
            let (folder, name) = halves(&file.path);
            if let Some(facts) = Kept::of(file) {
                self.index.add(0, folder, name, &facts);
            }
        }
    }

    pub(super) fn share_of(&mut self, id: LinkId, files: &[File]) {
        let Some(owner) = self.links.get(&id).and_then(|l| l.owner) else {
            return;
        };
        if files.len() > MAX_BATCH {
            return self.strike(id);
        }
        self.shared_version += 1;
        for file in files {
            let full = self.index.files_of(owner) >= self.config.max_files;
            if full || file.path.is_empty() || file.path.len() > MAX_PATH {
                continue;
            }
            let (folder, name) = halves(&file.path);
            if let Some(facts) = Kept::of(file) {
                self.index.add(owner, folder, name, &facts);
            }
        }
    }

    pub(super) fn unshare_of(&mut self, id: LinkId, paths: &[String]) {
        let Some(owner) = self.links.get(&id).and_then(|l| l.owner) else {
            return;
        };
        self.shared_version += 1;
        for path in paths {
            let (folder, name) = halves(path);
            self.index.remove(owner, folder, name);
        }
    }

    /// Looks for files; what is found comes as [`Event::Hits`] with this name, while it is
    /// remembered. None if there is no word in it, or no supernode to ask.
    pub fn search(&mut self, now: Time, words: &str, out: &mut Vec<Effect<A>>) -> Option<QueryId> {
        if words.len() > MAX_WORDS {
            return None;
        }
        self.ask(now, Wanted::Words(words.to_owned()), out)
    }

    /// Looks for who has the file with this SHA-1; as [`Node::search`].
    pub fn seek(&mut self, now: Time, sha1: [u8; 20], out: &mut Vec<Effect<A>>) -> Option<QueryId> {
        self.ask(now, Wanted::Sha1(sha1), out)
    }

    fn ask(&mut self, now: Time, wanted: Wanted, out: &mut Vec<Effect<A>>) -> Option<QueryId> {
        self.now = now;
        let asked = Asked::read(&wanted)?;
        let mut id = [0; 16];
        self.rng.fill(&mut id);
        match self.role {
            Role::Peer => {
                let parent = self.parent?;
                self.remember(id, None, asked);
                let ttl = 0;
                self.send(parent, Message::Query { id, wanted, ttl });
            }
            Role::Supernode => self.answer(None, id, &wanted, self.config.ttl),
        }
        self.flush(out);
        Some(id)
    }

    fn remember(&mut self, id: QueryId, from: Option<LinkId>, asked: Asked) {
        if self.seen.len() >= MAX_SEEN
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        let seen = Seen {
            from,
            asked,
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
        wanted: &Wanted,
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
        if matches!(&wanted, Wanted::Words(words) if words.len() > MAX_WORDS) {
            return self.strike(from);
        }
        // How far a child's query goes is ours to say; a neighbour's no farther than our own.
        let ttl = match stage {
            Stage::Child => self.config.ttl,
            _ => ttl.min(self.config.ttl),
        };
        self.answer(Some(from), id, wanted, ttl);
    }

    fn answer(&mut self, from: Option<LinkId>, id: QueryId, wanted: &Wanted, ttl: u8) {
        self.stats.queries += 1;
        if self.seen.contains_key(&id) {
            self.stats.duplicates += 1;
            return;
        }
        let Some(asked) = Asked::read(wanted) else {
            return;
        };
        let hits = self.local_hits(&asked, from);
        self.remember(id, from, asked);
        self.pass_back(id, hits);
        if self.config.bridge {
            self.tell(Event::Asked(id, wanted.clone()));
        }
        let Some(ttl) = ttl.checked_sub(1) else {
            return;
        };
        for link in self.of_stage(Stage::Neighbour) {
            if Some(link) != from {
                let wanted = wanted.clone();
                self.send(link, Message::Query { id, wanted, ttl });
            }
        }
    }

    /// What the index has, and by which link its sharer is here; not what the asker itself shares.
    fn local_hits(&mut self, asked: &Asked, from: Option<LinkId>) -> Vec<(Hit<A>, Option<LinkId>)> {
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
        let take = |entry: &Entry<'_, Kept>| {
            looked += 1;
            let count = counts.entry(entry.owner).or_insert(0usize);
            if Some(entry.owner) != asker && *count < of_each {
                *count += 1;
                found.push((entry.owner, Kept::told(entry)));
            }
            found.len() < most && looked < 20 * most
        };
        match asked {
            Asked::Words(terms) => self.index.search(terms, luck, take),
            Asked::Sha1(sha1) => self.index.with_hash(sha1, take),
        }
        let mut hits = Vec::new();
        for (owner, file) in found {
            let by = self.owners.get(owner as usize).copied().flatten();
            let child = by.and_then(|id| self.links.get(&id));
            let (sharer, standing) = match owner {
                0 => (Some(self.presence.clone()), self.standing),
                _ => (
                    child.and_then(|l| l.theirs.clone()),
                    child.and_then(Link::standing),
                ),
            };
            let elsewhere = None;
            let hit = |sharer| Hit {
                file,
                sharer,
                elsewhere,
                standing,
            };
            hits.extend(sharer.map(|sharer| (hit(sharer), by)));
        }
        hits
    }

    /// Another network has these files, at these hosts: they answer a query that passed here, in our
    /// name.
    pub fn found_elsewhere(
        &mut self,
        now: Time,
        id: QueryId,
        files: Vec<(File, A)>,
        out: &mut Vec<Effect<A>>,
    ) {
        self.now = now;
        if let Some(seen) = self.seen.get(&id) {
            let fits = |f: &File| f.path.len() <= MAX_PATH && seen.asked.fits(f);
            let fitting = files.into_iter().filter(|(file, _)| fits(file));
            let hits = fitting.take(MAX_BATCH).map(|(file, host)| Hit {
                file,
                sharer: self.presence.clone(),
                elsewhere: Some(host),
                standing: None,
            });
            let hits = hits.map(|hit| (hit, None)).collect();
            self.pass_back(id, hits);
        }
        self.flush(out);
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
            .map(|h| h.file.path.len() <= MAX_PATH && seen.asked.fits(&h.file))
            .collect();
        let mut good = Vec::new();
        let mut forged = 0;
        for (hit, fits) in hits.into_iter().zip(fits) {
            if fits && self.holds(&hit.sharer) {
                good.push((hit, Some(from)));
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
    pub(super) fn holds(&self, presence: &Presence<A>) -> bool {
        let (trusted, unix) = (&self.config.trusted, self.unix());
        self.config.verified.check(presence, trusted, unix).is_ok()
    }

    fn pass_back(&mut self, id: QueryId, hits: Vec<(Hit<A>, Option<LinkId>)>) {
        let most = self.config.max_of_sharer;
        let Some(seen) = self.seen.get_mut(&id) else {
            return;
        };
        let mut passed = Vec::new();
        for (hit, by) in hits {
            let key = hit.sharer.token.key;
            if seen.sharers.len() >= MAX_SHARERS && !seen.sharers.contains_key(&key) {
                continue;
            }
            let of = OfSharer { count: 0, by };
            let of = seen.sharers.entry(key).or_insert(of);
            if seen.left == 0 || of.count >= most {
                continue;
            }
            of.count += 1;
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
