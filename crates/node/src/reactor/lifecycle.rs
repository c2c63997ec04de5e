//! A torrent's life: added, opened, checked, active, paused by a fault, finished, stopped.

mod disk;

use super::entry::Entry;
use super::ranges::Ranged;
use super::timers::PROBE_EVERY;
use super::{Command, Reactor};
use crate::session::{Event, GOODBYE, Prepared, What};
use crate::tracker_client::{AnnounceParams, TrackerEvent};
use shoal_base::{Bitfield, Time};
use shoal_bittorrent::choker::Choking;
use shoal_bittorrent::peers::Sources;
use shoal_bittorrent::torrent::{OnDisk, Torrent, TorrentConfig};
use shoal_content::download::Mode;
use shoal_store::{Job, OpenOptions, Registration, StoreError, TorrentFiles, TorrentKey};
use std::net::SocketAddr;
use std::sync::Arc;

impl Reactor {
    /// Takes what the session asks; false: the session is gone and the loop is to end at once.
    pub(super) fn take_commands(&mut self, now: Time) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Add(torrent, answer)) => {
                    let result = self.add(*torrent, now);
                    // The asker may have given up waiting.
                    let _ = answer.send(result);
                }
                Ok(Command::AddSources(key, specs)) => self.add_sources(key, specs, now),
                Ok(Command::AddPeers(key, peers)) => {
                    if let Some(entry) = self.torrents.get_mut(&key) {
                        entry.core.on_peers(now, Sources::MANUAL, &peers);
                    }
                }
                Ok(Command::Arrived(stream, from)) => match stream.set_nonblocking(true) {
                    Ok(()) => self.let_in(mio::net::TcpStream::from_std(stream), from, now),
                    Err(error) => tracing::debug!(%error, "a connection cannot be used"),
                },
                Ok(Command::Port(port)) => self.set_port(port),
                Ok(Command::Select(key, files)) => self.select(key, files, now),
                Ok(Command::Open(key, answer)) => self.open(key, answer),
                Ok(Command::Want(key, pieces, told)) => self.want(key, pieces, told, now),
                Ok(Command::Stop) => self.begin_stop(now),
                Err(crossbeam_channel::TryRecvError::Empty) => return true,
                Err(crossbeam_channel::TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// A router lets others through to us at this port of its own: that is told from now on.
    fn set_port(&mut self, port: u16) {
        if self.port == Some(port) {
            return;
        }
        self.port = Some(port);
        self.trackers.set_port(port);
        for entry in self.torrents.values_mut() {
            entry.core.set_listen_port(port);
        }
    }

    /// Takes what other threads have finished.
    pub(super) fn take_finished(&mut self, now: Time) {
        let mut done = std::mem::take(&mut self.disk_done);
        self.disk.drain(&mut done);
        for item in done.drain(..) {
            self.on_disk_done(item, now);
        }
        self.disk_done = done;
        let mut events = std::mem::take(&mut self.tracker_done);
        self.trackers.drain(&mut events);
        for event in events.drain(..) {
            self.on_tracker(event, now);
        }
        self.tracker_done = events;
        self.take_range_events(now);
        self.take_dht_answers(now);
    }

    fn add(&mut self, torrent: Prepared, now: Time) -> TorrentKey {
        let Prepared {
            request,
            hash,
            info,
            resumed,
            resume_id,
        } = torrent;
        let config = TorrentConfig {
            max_peers: self.config.max_peers,
            max_half_open: 50,
            listen_port: self.port,
            up_limit: request.up_limit.or(self.config.up_limit),
            mode: if request.sequential || request.on_demand {
                Mode::Sequential
            } else {
                Mode::RarestFirst
            },
            choking: Choking::TitForTat,
            client: concat!("shoal ", env!("CARGO_PKG_VERSION")).into(),
        };
        let rng = self.rng.fork();
        let mut core = match info {
            Some(info) => Torrent::with_info(now, config, self.our_id, info, rng),
            None => Torrent::with_hash(now, config, self.our_id, hash, rng),
        };
        if request.on_demand {
            core.set_on_demand();
        }
        let dht_port = self
            .dhts
            .iter()
            .find(|link| !link.ring)
            .and_then(|link| link.node.local_addrs().first());
        core.set_dht_port(dht_port.map(SocketAddr::port));
        core.set_overlay(self.overlay_addr);
        let key = self.next_key;
        self.next_key += 1;
        let mut entry = Entry::new(core, request);
        let specs = entry.request.all_sources().into_iter();
        entry.ranged = specs.map(|spec| Ranged::new(spec, now)).collect();
        entry.resume_id = resume_id;
        if let Some(state) = resumed {
            entry.uploaded_before = state.uploaded;
            entry.downloaded_before = state.downloaded;
            entry.resumed = Some(state);
        }
        entry
            .core
            .on_peers(now, Sources::MANUAL, &entry.request.peers);
        if let What::Magnet(magnet) = &entry.request.what {
            let named: Vec<SocketAddr> =
                magnet.peers.iter().filter_map(|p| p.parse().ok()).collect();
            entry.core.on_peers(now, Sources::MANUAL, &named);
        }
        let known = entry.core.info().cloned();
        let is_magnet = matches!(entry.request.what, What::Magnet(_));
        let hold = entry.request.hold;
        self.torrents.insert(key, entry);
        self.by_hash.insert(hash, key);
        if let Some(info) = known {
            if is_magnet {
                // From an earlier run: the asker cannot know it yet.
                let info = Box::new(info);
                self.tell(Event::Metadata { key, info });
            }
            if !hold {
                self.load(key, now);
            }
        }
        self.start_trackers(key, now);
        key
    }

    fn select(&mut self, key: TorrentKey, files: Option<Vec<usize>>, now: Time) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        if std::mem::take(&mut entry.request.hold) {
            entry.request.wanted_files = files;
            if entry.core.info().is_some() {
                self.load(key, now);
            }
        }
    }

    fn start_trackers(&mut self, key: TorrentKey, now: Time) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        self.trackers.add(
            key,
            AnnounceParams {
                info_hash: entry.core.info_hash(),
                peer_id: self.our_id,
                port: self.port.unwrap_or(0),
                overlay: self.overlay_addr,
                trackers: entry.request.all_trackers(),
                private: entry.core.is_private(),
                counters: entry.counters(now),
            },
        );
    }

    /// Opens the files and finds out what is on disk, by memory or by looking.
    pub(super) fn load(&mut self, key: TorrentKey, now: Time) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        let Some(info) = entry.core.info().cloned() else {
            return;
        };
        let options = OpenOptions {
            writable: !entry.request.assume_complete,
            preallocate: entry.request.preallocate,
            ..OpenOptions::default()
        };
        let opened = TorrentFiles::open(&entry.request.dir, info.layout.clone(), options);
        let files = match opened {
            Ok(files) => Arc::new(files),
            Err(error) => return self.on_open_failed(key, &error, now),
        };
        let geometry = info.geometry();
        let pieces = geometry.pieces();
        let mut have = Bitfield::new(pieces);
        let mut partial = Vec::new();
        let mut recheck = Bitfield::new(pieces);
        if let Err(error) = self.resume.set_info(entry.resume_id, info.raw(), geometry) {
            tracing::warn!(%error, "cannot store the metadata");
        }
        if entry.request.assume_complete {
            have = Bitfield::full(pieces);
            self.resume.record(&[shoal_store::resume::Entry {
                torrent: entry.resume_id,
                change: shoal_store::resume::Change::Verified {
                    first: 0,
                    count: pieces,
                },
            }]);
        } else if let Some(mut state) = entry.resumed.take().filter(|s| s.have.len() == pieces) {
            self.resume.reconcile(&mut state, &files);
            (have, partial) = (state.have, state.partial);
            for piece in state.recheck {
                recheck.set(piece);
            }
        } else if files.has_data() {
            recheck = Bitfield::full(pieces);
        }
        let registration = Registration {
            files: files.clone(),
            hashes: info.hashes.clone(),
            have: have.clone(),
            partial: partial.clone(),
            resume: Some(entry.resume_id),
        };
        if let Err(error) = self.disk.register(key, registration) {
            return self.on_open_failed(key, &error, now);
        }
        if !entry.request.assume_complete {
            let wanted = entry.request.wanted_files.clone();
            self.disk.submit(Job::Prepare {
                torrent: key,
                wanted,
            });
        }
        entry.files = Some(files);
        entry.partial = partial;
        let was_paused = entry.paused.take().is_some();
        if recheck.count() > 0 {
            let total = recheck.count();
            entry.checking = true;
            self.disk.submit(Job::Check {
                torrent: key,
                pieces: Some(recheck),
            });
            self.tell(Event::Checking {
                key,
                done: 0,
                total,
            });
        } else {
            self.activate(key, have, now);
        }
        if was_paused {
            self.tell(Event::Resumed { key });
        }
    }

    fn on_open_failed(&mut self, key: TorrentKey, error: &StoreError, now: Time) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        let reason = error.to_string();
        if !error.may_recover() {
            return self.tell(Event::Failed { key, error: reason });
        }
        entry.probe_at = now + PROBE_EVERY;
        if entry.paused.replace(reason.clone()).is_none() {
            self.tell(Event::Paused { key, reason });
        }
    }

    fn activate(&mut self, key: TorrentKey, have: Bitfield, now: Time) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        entry.checking = false;
        let partial = std::mem::take(&mut entry.partial);
        let on_disk = OnDisk {
            have,
            partial,
            wanted: entry.wanted(),
        };
        entry.core.activate(now, on_disk, &mut self.outputs);
        entry.share_part();
        let finished = entry.core.is_finished();
        let retry_at = if finished { Time::FAR } else { now };
        entry.ranged.iter_mut().for_each(|s| s.begin_anew(retry_at));
        self.queue_outputs(key);
        self.tell(Event::Started { key });
        self.tell_opened(key);
        self.retry_sources(now);
        if finished {
            self.on_finished(key);
        }
        self.publish_stats(now);
    }

    pub(super) fn on_finished(&mut self, key: TorrentKey) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        if !entry.request.assume_complete {
            self.disk.submit(Job::Finish { torrent: key });
        }
        entry.ranged.iter_mut().for_each(Ranged::retire);
        let now = self.now();
        self.publish_stats(now);
        self.tell(Event::Complete { key });
    }

    fn on_tracker(&mut self, event: TrackerEvent, now: Time) {
        match event {
            TrackerEvent::Peers {
                key, url, peers, ..
            } => {
                if let Some(entry) = self.torrents.get_mut(&key) {
                    entry.core.on_peers(now, Sources::TRACKER, &peers);
                    self.tell(Event::Tracker {
                        key,
                        url,
                        result: Ok(peers.len()),
                    });
                }
            }
            TrackerEvent::Error {
                key, url, error, ..
            } => {
                self.tell(Event::Tracker {
                    key,
                    url,
                    result: Err(error),
                });
            }
        }
    }

    /// Saves counters and folds the journal into the database, in the disk pool's own time.
    pub(super) fn checkpoint(&mut self) {
        self.save_counters();
        self.disk.submit(Job::Checkpoint { sync: true });
    }

    fn save_counters(&mut self) {
        let now = self.now();
        for entry in self.torrents.values_mut() {
            let figures = entry.core.figures(now);
            let _ = self.resume.set_counters(
                entry.resume_id,
                entry.uploaded_before + figures.uploaded,
                entry.downloaded_before + figures.downloaded,
                entry.core.is_finished(),
            );
        }
    }

    fn begin_stop(&mut self, now: Time) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(now + GOODBYE);
        let slots: Vec<_> = self.conns.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.close(slot, now);
        }
        let keys: Vec<_> = self.torrents.keys().copied().collect();
        for key in keys {
            self.trackers.remove(key);
        }
        self.next_housekeeping = now;
    }

    /// Whether everything received is on disk, or the time for it is over.
    pub(super) fn may_end(&self, now: Time, until: Time) -> bool {
        now >= until || (self.buffers.all_home() && self.ranges_in_flight == 0)
    }

    /// The end: what is known is stored, trackers have heard of it.
    pub(super) fn shut_down(mut self) {
        for entry in self.torrents.values_mut() {
            entry.ranged.clear();
        }
        self.save_counters();
        for link in std::mem::take(&mut self.dhts) {
            link.node.stop();
        }
        self.trackers.shutdown(GOODBYE);
        if let Err(error) = self.disk.stop() {
            tracing::warn!(%error, "cannot store the resume data");
        }
    }
}
