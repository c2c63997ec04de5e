//! Sources that rest are tried again, and which are worth a place.

use super::{MAX_AT_WORK, PROBE_EVERY, Ranged};
use crate::gnutella::transfer::{Dial, HostSource, Place, PushDesk};
use crate::napster::{HubDesk, StreamSource};
use crate::range_source::{RangeSource, Sink, Slice, SourceNews, SourceSort, SourceSpec};
use crate::reactor::Reactor;
use crate::session::Event;
use crate::webseed::{WebSeedEvent, WebSeedHandle};
use shoal_base::Time;
use shoal_content::download::SourceKind;
use shoal_gnutella::huge::Urn;
use shoal_store::TorrentKey;
use smallvec::SmallVec;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Blocks a source may be asked for ahead: 8 MiB, so that its ranges are long.
const PIPELINE: u32 = 512;
/// Other hosts that a Gnutella host is told of.
const TOLD: usize = 10;

impl Reactor {
    /// Starts the sources that are not resting, and asks again those that let us wait.
    pub(in crate::reactor) fn retry_sources(&mut self, now: Time) {
        let keys: SmallVec<[TorrentKey; 8]> = self.torrents.keys().copied().collect();
        for key in keys {
            self.retry_sources_of(key, now);
        }
    }

    pub(super) fn retry_sources_of(&mut self, key: TorrentKey, now: Time) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        // Nothing can be asked for before what is on disk was looked at.
        if !entry.core.is_active() || entry.core.is_finished() {
            return;
        }
        let Some(layout) = entry.core.info().map(|i| Arc::clone(&i.layout)) else {
            return;
        };
        for (number, source) in (0u32..).zip(&mut entry.ranged) {
            let idle = source.waits.is_none() && entry.core.range_requests(number) == 0;
            if let Some(handle) = source.handle.as_ref().filter(|_| idle)
                && source.probe_at.is_some_and(|at| at <= now)
            {
                source.probe_at = Some(now + PROBE_EVERY);
                handle.probe();
            }
            if source.waits.take_if(|at| *at <= now).is_some() {
                entry
                    .core
                    .on_range_wait(now, number, false, &mut self.outputs);
            }
        }
        self.queue_outputs(key);
        loop {
            let Some(entry) = self.torrents.get_mut(&key) else {
                return;
            };
            let at_work = entry.ranged.iter().filter(|s| s.handle.is_some()).count();
            let due = |s: &Ranged| s.handle.is_none() && s.retry_at <= now;
            let Some(number) = entry.ranged.iter().position(due) else {
                return;
            };
            if at_work >= MAX_AT_WORK {
                return;
            }
            let Some(source) = entry.ranged.get_mut(number) else {
                return;
            };
            source.life += 1;
            let (spec, life) = (source.spec.clone(), source.life);
            let inbox = entry.inbox.get_or_insert_default();
            let (sender, waker) = (inbox.sender.clone(), Arc::clone(&self.waker));
            let sink: Sink = Box::new(move |event| {
                // Blocks while the loop has enough in hand; fails when the loop is gone.
                sender.send(((number as u32, life), event)).map_err(drop)?;
                waker.wake().map_err(drop)
            });
            let started = match spec.slice(&layout) {
                Some(slice) => self.start_source(key, number, &spec, slice, &layout, sink),
                None => Err("no file of the torrent is of that length".into()),
            };
            let Some(entry) = self.torrents.get_mut(&key) else {
                return;
            };
            let Some(source) = entry.ranged.get_mut(number) else {
                return;
            };
            match started {
                Ok(handle) => {
                    source.handle = Some(handle);
                    let kind = match spec.sort() {
                        SourceSort::Napster => SourceKind::Stream,
                        SourceSort::Web | SourceSort::Gnutella => SourceKind::Web,
                    };
                    let (number, out) = (number as u32, &mut self.outputs);
                    entry
                        .core
                        .add_range_source(now, number, kind, PIPELINE, out);
                    let slice = spec.slice(&layout);
                    if let Some(bits) = slice.and_then(|slice| slice.pieces(None)) {
                        entry.core.on_range_pieces(now, number, &bits, out);
                    }
                    self.queue_outputs(key);
                }
                Err(why) => {
                    source.retry_at = Time::FAR;
                    let news = SourceNews::Failed {
                        why,
                        for_good: true,
                    };
                    self.tell_source(key, number as u32, news);
                }
            }
        }
    }

    pub(super) fn start_source(
        &mut self,
        key: TorrentKey,
        number: usize,
        spec: &SourceSpec,
        slice: Slice,
        layout: &Arc<shoal_content::Layout>,
        sink: Sink,
    ) -> Result<Box<dyn RangeSource>, String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        match spec {
            SourceSpec::Web(url) => {
                let sink = Box::new(move |event: WebSeedEvent| {
                    // Its handle is gone if nobody listens.
                    let _ = sink(event.into());
                });
                let seed =
                    WebSeedHandle::spawn(url, Arc::clone(layout), self.outbound.clone(), sink);
                let seed = seed.map_err(|e| text(&e))?;
                Ok(Box::new(seed))
            }
            SourceSpec::Gnutella { addr, urn, .. } => {
                let (neighbours, place) = self.hosts_of(key, number, *addr, urn);
                let dial = (Dial::Out(self.outbound.clone()), self.started);
                let host = HostSource::spawn(*addr, *urn, slice, dial, neighbours, place, sink);
                Ok(Box::new(host.map_err(|e| text(&e))?))
            }
            SourceSpec::Pushed { sharer, urn, .. } => {
                let desk = self.push_desk().map_err(|e| text(&e))?;
                // Where it is is not known before it comes, and not told on.
                let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
                let (neighbours, place) = self.hosts_of(key, number, addr, urn);
                let dial = (Dial::Call(desk, sharer.clone()), self.started);
                let host = HostSource::spawn(addr, *urn, slice, dial, neighbours, place, sink);
                Ok(Box::new(host.map_err(|e| text(&e))?))
            }
            SourceSpec::Napster {
                hub, nick, path, ..
            } => {
                let desk = self.desk(*hub);
                let stream = StreamSource::spawn(desk, nick, path, slice, sink);
                Ok(Box::new(stream.map_err(|e| text(&e))?))
            }
        }
    }

    /// Where sharers behind firewalls connect to us; from the first of them on.
    pub(super) fn push_desk(&mut self) -> io::Result<Arc<PushDesk>> {
        if let Some(desk) = &self.desks.pushes {
            return Ok(Arc::clone(desk));
        }
        let ip = self
            .config
            .listen
            .map_or(Ipv4Addr::UNSPECIFIED.into(), |a| a.ip());
        let events = self.events.clone();
        let due = Box::new(move |sharer, back| {
            // Whoever listened may be gone.
            let _ = events.send(Event::Pushing { sharer, back });
        });
        let desk = Arc::new(PushDesk::open((ip, 0).into(), due)?);
        Ok(Arc::clone(self.desks.pushes.insert(desk)))
    }

    /// Where we are logged in at a hub, or will be when somebody asks for something there.
    pub(super) fn desk(&mut self, hub: SocketAddr) -> Arc<HubDesk> {
        let login = self.config.hub_login.clone().unwrap_or_default();
        let listen = self.config.listen.map(|addr| addr.ip());
        let overlay = self.outbound.overlay().cloned();
        let desk = self.desks.hubs.entry(hub);
        let rng = &mut self.rng;
        let desk = desk.or_insert_with(|| Arc::new(HubDesk::new(hub, login, listen, overlay, rng)));
        Arc::clone(desk)
    }

    /// Other hosts of the same file, those of use and those of none; and what is remembered of this.
    pub(super) fn hosts_of(
        &self,
        key: TorrentKey,
        number: usize,
        addr: SocketAddr,
        urn: &Urn,
    ) -> ((Vec<SocketAddr>, Vec<SocketAddr>), Place) {
        let entry = self.torrents.get(&key);
        let ranged = entry.map(|e| e.ranged.as_slice()).unwrap_or_default();
        let (mut good, mut dead) = (Vec::new(), Vec::new());
        let part = entry.and_then(|e| e.request.shared_part.as_ref());
        let ours = part.filter(|p| *urn == Urn::Sha1(p.sha1) && p.file.is_of_use());
        good.extend(ours.and_then(|part| part.at));
        for source in ranged {
            if let SourceSpec::Gnutella {
                addr: other,
                urn: theirs,
                ..
            } = &source.spec
                && *other != addr
                && theirs == urn
            {
                if source.bytes > 0 && !source.lied && good.len() < TOLD {
                    good.push(*other);
                } else if (source.lied || source.retry_at == Time::FAR) && dead.len() < TOLD {
                    dead.push(*other);
                }
            }
        }
        let place = ranged
            .get(number)
            .map(|s| Arc::clone(&s.place))
            .unwrap_or_default();
        ((good, dead), place)
    }
}
