//! The whole file is wrong although every piece was taken: whose bytes are to blame?
//!
//! A tree that only a host told of may be its invention: it is thrown away, and all fetched again
//! without. Without a tree the hosts are doubted in turn, who sent most first: what one sent is
//! fetched again from the others. If the file is right then, that host lied. One liar among
//! several hosts is always found so, as each is left out once.

use std::collections::BTreeSet;
use std::sync::Arc;

use shoal_base::Time;
use shoal_store::resume::{Change, Entry};
use shoal_store::{Registration, TorrentKey};

use super::Ended;
use super::blocks::KEY;
use super::run::{Fetch, Who};
use crate::gnutella::transfer::content::Content;

/// Who was doubted, and who is.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    tried: BTreeSet<u32>,
    suspect: Option<u32>,
}

impl Doubt {
    /// The host whose bytes were replaced last.
    pub(super) fn liar(&self, hosts: &[Who]) -> Option<Who> {
        hosts.get(self.suspect? as usize).copied()
    }
}

impl Fetch {
    pub(super) fn on_wrong_whole(&mut self, now: Time) {
        let Some(transfer) = &self.transfer else {
            return;
        };
        match &transfer.content.tree {
            Some((_, true)) => self.give_up(),
            Some((_, false)) => self.without_tree(now),
            None => self.doubt_next(now),
        }
    }

    /// What is there is worth nothing, and nobody has better.
    fn give_up(&mut self) {
        if let Some(transfer) = &self.transfer {
            let all = transfer.download.geometry().pieces();
            self.forget(0..all);
        }
        self.end(Ended::Wrong);
    }

    /// Nobody is left to be asked.
    pub(super) fn nobody_left(&mut self) {
        let transfer = self.transfer.as_ref();
        let doubted = transfer.is_some_and(|t| t.doubt.suspect.is_some());
        let now = self.now();
        if doubted {
            self.doubt_next(now);
        } else {
            self.end(Ended::NoSource);
        }
    }

    /// Starts anew without the tree, which a host made up.
    fn without_tree(&mut self, now: Time) {
        let Some(transfer) = self.transfer.take() else {
            return;
        };
        for live in self.live.values_mut() {
            live.id = None;
            live.asked.clear();
        }
        if let Some(teller) = self.asking.teller.take() {
            self.ban(Who::Host(teller), now);
        }
        let content = Content {
            tree: None,
            ..transfer.content
        };
        self.begin(content, None, true);
    }

    /// Leaves out the next host, and fetches again what it sent.
    fn doubt_next(&mut self, now: Time) {
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        let before = transfer.doubt.suspect.take();
        let cleared = before.and_then(|number| transfer.hosts.get(number as usize).copied());
        if let Some(who) = cleared {
            self.rest(who, now);
        }
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        let sent = |number: u32| {
            let pieces = transfer.senders.iter();
            pieces.filter(|senders| senders.contains(&number)).count()
        };
        let hosts = 0..transfer.hosts.len() as u32;
        let untried = hosts.filter(|number| !transfer.doubt.tried.contains(number));
        let most = untried.map(|number| (sent(number), number)).max();
        let Some((1.., number)) = most else {
            return self.give_up();
        };
        transfer.doubt.tried.insert(number);
        transfer.doubt.suspect = Some(number);
        let Some(who) = transfer.hosts.get(number as usize).copied() else {
            return;
        };
        tracing::info!(
            ?who,
            "the file is wrong; what this host sent is fetched from others"
        );
        let pieces: Vec<u32> = (0..transfer.download.geometry().pieces())
            .filter(|piece| {
                let senders = transfer.senders.get(*piece as usize);
                senders.is_some_and(|senders| senders.contains(&number))
            })
            .collect();
        self.let_go(who, now);
        self.rest(who, Time::FAR);
        self.forget(pieces.iter().copied());
        let mut out = Vec::new();
        if let Some(transfer) = &mut self.transfer {
            for piece in &pieces {
                transfer.download.on_piece_lost(now, *piece, &mut out);
                if let Some(senders) = transfer.senders.get_mut(*piece as usize) {
                    senders.clear();
                }
            }
        }
        self.take_outputs(out, now);
        self.hash_whole();
    }

    /// Makes the disk pool and the database forget pieces. Nothing is being written.
    fn forget(&self, pieces: impl Iterator<Item = u32>) {
        let (Some(transfer), Some(disk)) = (&self.transfer, &self.disk) else {
            return;
        };
        let mut have = transfer.download.have().clone();
        let mut entries = Vec::new();
        for piece in pieces {
            have.clear(piece);
            entries.push(Entry {
                torrent: transfer.resume_id,
                change: Change::Lost {
                    first: piece,
                    count: 1,
                },
            });
        }
        self.resume.record(&entries);
        let geometry = transfer.download.geometry();
        let registration = Registration {
            files: Arc::clone(&transfer.files),
            hashes: Arc::new(transfer.content.hashes(geometry)),
            have,
            partial: Vec::new(),
            resume: Some(transfer.resume_id),
        };
        let key: TorrentKey = KEY;
        if let Err(error) = disk.register(key, registration) {
            tracing::warn!(%error, "what is wrong cannot be forgotten");
        }
    }
}
