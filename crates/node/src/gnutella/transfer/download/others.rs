//! Web servers and users of Napster hubs, which take part in a download beside Gnutella's hosts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_base::Time;
use shoal_content::download::SourceKind;

use super::run::{Fetch, Handle, Heard, Who};
use super::{DownloadEvent, SourceCount};
use crate::napster::{HubDesk, StreamSource};
use crate::range_source::{
    Again, RangeEvent, RangeSource, Sink, SourceNews, SourceSort, SourceSpec,
};
use crate::webseed::{WebSeedEvent, WebSeedHandle};

/// How long one rests after its first failure; twice as long after each further one …
const REST: Duration = Duration::from_secs(2);
/// … up to this; and how many without a byte between them are the end.
const MAX_REST: Duration = Duration::from_secs(60);
const MAX_FAILURES: u32 = 8;
/// How many are known at most.
const MAX_OTHERS: usize = 256;

/// Somebody who has the file, and is no Gnutella host.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) spec: SourceSpec,
    /// When it is to be started; never if it is dropped for good.
    retry_at: Time,
    running: bool,
    failures: u32,
    pub(super) lied: bool,
    pub(super) bytes: u64,
}

impl Other {
    fn new(spec: SourceSpec) -> Self {
        Self {
            spec,
            retry_at: Time::ZERO,
            running: false,
            failures: 0,
            lied: false,
            bytes: 0,
        }
    }
}

/// All of them, by their numbers, and where we are logged in.
#[derive(Default)]
pub(super) struct Others {
    pub(super) all: Vec<Other>,
    desks: BTreeMap<SocketAddr, Arc<HubDesk>>,
}

impl Others {
    /// One more, unless it is known.
    pub(super) fn add(&mut self, spec: SourceSpec) {
        if self.all.len() < MAX_OTHERS && !self.all.iter().any(|o| o.spec == spec) {
            self.all.push(Other::new(spec));
        }
    }

    /// When the next is to be started.
    pub(super) fn deadline(&self) -> Option<Time> {
        let resting = self.all.iter().filter(|o| !o.running);
        let times = resting.map(|o| o.retry_at).filter(|at| *at < Time::FAR);
        times.min()
    }

    /// Whether any may still send something.
    pub(super) fn any_left(&self) -> bool {
        self.all.iter().any(|o| o.running || o.retry_at < Time::FAR)
    }

    fn get(&mut self, number: u32) -> Option<&mut Other> {
        self.all.get_mut(number as usize)
    }

    pub(super) fn liar(&mut self, number: u32) {
        if let Some(other) = self.get(number) {
            (other.lied, other.retry_at) = (true, Time::FAR);
        }
    }

    /// Not before `at`.
    pub(super) fn rest(&mut self, number: u32, at: Time) {
        if let Some(other) = self.get(number)
            && !other.lied
        {
            other.retry_at = at;
        }
    }

    pub(super) fn ended(&mut self, number: u32) {
        if let Some(other) = self.get(number) {
            other.running = false;
        }
    }

    pub(super) fn on_bytes(&mut self, number: u32, bytes: u64) {
        if let Some(other) = self.get(number) {
            other.failures = 0;
            other.bytes += bytes;
        }
    }

    /// What those of a kind did.
    pub(super) fn count(&self, sort: SourceSort) -> SourceCount {
        let mut count = SourceCount::default();
        for other in self.all.iter().filter(|o| o.spec.sort() == sort) {
            count.known += 1;
            count.at_work += usize::from(other.running);
            count.lied += usize::from(other.lied);
            count.bytes += other.bytes;
        }
        count
    }
}

impl Fetch {
    /// Starts those whose time has come, once it is known what they are to be asked for.
    pub(super) fn start_others(&mut self, now: Time) {
        let Some(transfer) = &self.transfer else {
            return;
        };
        let layout = Arc::clone(transfer.files.layout());
        for number in 0..self.others.all.len() as u32 {
            let Some(other) = self.others.get(number) else {
                return;
            };
            if other.running || other.retry_at > now {
                continue;
            }
            let spec = other.spec.clone();
            let key = self.take_key();
            let inbox = self.inbox.0.clone();
            let sink: Sink =
                Box::new(move |event| inbox.send((key, Heard::Other(event))).map_err(drop));
            let started = match spec.slice(&layout) {
                None => Err("the file is not of that length".to_owned()),
                Some(slice) => self.spawn_other(&spec, slice, &layout, sink),
            };
            match started {
                Ok(handle) => {
                    if let Some(other) = self.others.get(number) {
                        other.running = true;
                    }
                    self.take_in(key, Who::Other(number), Handle::Ranged(handle));
                    if let Some(live) = self.live.get_mut(&key) {
                        live.connected = true;
                    }
                    self.join(key, now);
                }
                Err(why) => {
                    self.others.rest(number, Time::FAR);
                    let for_good = true;
                    self.tell_other(number, SourceNews::Failed { why, for_good });
                }
            }
        }
    }

    fn spawn_other(
        &mut self,
        spec: &SourceSpec,
        slice: crate::range_source::Slice,
        layout: &Arc<shoal_content::Layout>,
        sink: Sink,
    ) -> Result<Box<dyn RangeSource>, String> {
        match spec {
            SourceSpec::Web(url) => {
                let sink = Box::new(move |event: WebSeedEvent| {
                    // Its handle is gone if nobody listens.
                    let _ = sink(event.into());
                });
                let outbound = self.settings.outbound.clone();
                let seed = WebSeedHandle::spawn(url, Arc::clone(layout), outbound, sink);
                Ok(Box::new(seed.map_err(|e| e.to_string())?))
            }
            SourceSpec::Napster {
                hub, nick, path, ..
            } => {
                let login = self.settings.hub_login.clone();
                let listen = self.settings.data_ip;
                let rng = &mut self.rng;
                let desk = self.others.desks.entry(*hub);
                let overlay = self.settings.outbound.overlay().cloned();
                let new = || Arc::new(HubDesk::new(*hub, login, listen, overlay, rng));
                let desk = desk.or_insert_with(new);
                let stream = StreamSource::spawn(Arc::clone(desk), nick, path, slice, sink);
                Ok(Box::new(stream.map_err(|e| e.to_string())?))
            }
            SourceSpec::Gnutella { .. } | SourceSpec::Pushed { .. } => {
                Err("hosts of Gnutella are asked otherwise".into())
            }
        }
    }

    pub(super) fn tell_other(&self, number: u32, news: SourceNews) {
        if let Some(other) = self.others.all.get(number as usize) {
            self.say(DownloadEvent::Source {
                source: other.spec.to_string(),
                sort: other.spec.sort(),
                news,
            });
        }
    }

    pub(super) fn on_other(&mut self, key: u32, number: u32, event: RangeEvent, now: Time) {
        match event {
            RangeEvent::Blocks { buf, blocks } => self.on_data(key, buf, &blocks, now),
            RangeEvent::Missed(blocks) => self.on_missed(key, &blocks, now),
            RangeEvent::Has(available) => {
                if let Some(live) = self.live.get_mut(&key) {
                    live.available = available;
                    self.update_pieces(key, now);
                }
            }
            RangeEvent::Others(_) => {}
            RangeEvent::Waits { wait, lives, .. } => {
                if !lives {
                    self.end_other(key, number, Some(now + wait), now);
                } else if let Some(live) = self.live.get_mut(&key) {
                    live.waits = Some(now + wait);
                    self.choke(key, now);
                }
                let (position, retry_s) = (None, wait.as_secs());
                self.tell_other(number, SourceNews::Queued { position, retry_s });
            }
            RangeEvent::Failed { why, again } => {
                let failures = self.others.get(number).map_or(0, |other| {
                    other.failures += 1;
                    other.failures
                });
                let rest = match again {
                    Again::Never => None,
                    Again::After(rest) => Some(rest),
                    Again::Soon if failures > MAX_FAILURES => None,
                    Again::Soon => {
                        Some((REST * (1 << failures.saturating_sub(1).min(6))).min(MAX_REST))
                    }
                };
                self.end_other(key, number, rest.map(|rest| now + rest), now);
                let for_good = rest.is_none();
                self.tell_other(number, SourceNews::Failed { why, for_good });
            }
        }
    }

    fn end_other(&mut self, key: u32, number: u32, again: Option<Time>, now: Time) {
        if let Some(live) = self.live.remove(&key) {
            self.leave(&live, now);
        }
        self.others.ended(number);
        self.others.rest(number, again.unwrap_or(Time::FAR));
    }
}

/// What kind of source the picker takes one for.
pub(super) fn kind_of(who: Who, others: &Others) -> SourceKind {
    match who {
        Who::Host(_) => SourceKind::Web,
        Who::Other(number) => match others.all.get(number as usize).map(|o| o.spec.sort()) {
            Some(SourceSort::Napster) => SourceKind::Stream,
            _ => SourceKind::Web,
        },
    }
}
