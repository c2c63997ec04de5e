//! The download's thread: hosts come and go, news are taken in turn.

mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never, select};
use shoal_base::time::earliest;
use shoal_base::{RateMeter, Rng, Time};
use shoal_content::{Block, SourceId};
use shoal_gnutella::Guid;
use shoal_gnutella::http::client::Client;
use shoal_gnutella::http::pushes::Pushes;
use shoal_gnutella::http::ranges::RangeSet;
use shoal_gnutella::http::sources::{Sources, State};
use shoal_store::{DiskPool, Resume};

use super::hosts::Names;
use super::others::Others;
use super::outlook::Heads;
use super::start::Asking;
use super::{DownloadEvent, DownloadSettings, DownloadStats, Ended, SourceCount};
use crate::gnutella::tls::Tls;
use crate::gnutella::transfer::source::{Neighbours, News, Order, Source};
use crate::range_source::{RangeEvent, RangeSource, Slice, SourceNews, SourceSort, SourceSpec};

/// News that wait for the download; more wait at the hosts.
const INBOX: usize = 4;
/// Buffers on their way to the disk.
const MAX_IN_FLIGHT: usize = 16;
/// The longest time without a look at everything.
const LOOK: Duration = Duration::from_millis(500);
/// How often a host that has a part is asked what it has by now.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(3);

/// What is told.
pub(super) enum Heard {
    /// By a Gnutella host.
    Host(News),
    /// By somebody else.
    Other(RangeEvent),
}

/// What is told, with the numbers of those who do.
type Inbox = (Sender<(u32, Heard)>, Receiver<(u32, Heard)>);

/// Somebody who has the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// A Gnutella host.
    Host(SocketAddr),
    /// One of [`Fetch::others`], by its number.
    Other(u32),
}

/// How somebody is asked.
pub(super) enum Handle {
    Host(Source),
    Ranged(Box<dyn RangeSource>),
}

impl Handle {
    /// Asks a host; others are asked for blocks alone.
    pub(super) fn order(&self, order: Order) {
        match (self, order) {
            (Self::Host(source), order) => source.order(order),
            (Self::Ranged(source), Order::Blocks(_, blocks)) => source.request(blocks),
            (Self::Ranged(_), _) => {}
        }
    }
}

/// Somebody with a thread.
pub(super) struct Live {
    pub(super) who: Who,
    pub(super) source: Handle,
    pub(super) connected: bool,
    /// Its number in the download, once it takes part.
    pub(super) id: Option<SourceId>,
    /// What it has; none: all.
    pub(super) available: Option<RangeSet>,
    /// Blocks asked of it in this turn.
    pub(super) asked: Vec<Block>,
    /// When it is to be asked again.
    pub(super) waits: Option<Time>,
    /// Whether anything came of it yet.
    pub(super) heard: bool,
    /// When it is asked what it has by now, if it does not have all and nothing else is asked of it.
    pub(super) probe_at: Time,
    /// The sharer's name, if it connected to us.
    pub(super) pushed: Option<Guid>,
}

/// Everything of one download.
pub(super) struct Fetch {
    pub(super) settings: DownloadSettings,
    pub(super) resume: Arc<Resume>,
    pub(super) rng: Rng,
    pub(super) origin: Instant,
    tell: Sender<DownloadEvent>,
    pub(super) due: Sender<Guid>,
    stop: Receiver<()>,
    more: Receiver<Vec<SourceSpec>>,
    stats: Arc<Mutex<DownloadStats>>,
    pub(super) sources: Sources,
    /// Those who connect to us when they are asked.
    pub(super) pushes: Pushes,
    pub(super) names: Names,
    /// What hosts say by datagrams that they have for us.
    pub(super) heads: Option<Heads>,
    pub(super) tls: Option<Tls>,
    /// Who has it and is no Gnutella host.
    pub(super) others: Others,
    /// Hosts whose threads run, by a number that is never used again.
    pub(super) live: BTreeMap<u32, Live>,
    next_key: u32,
    /// What is remembered of hosts between connections: our places in their queues.
    pub(super) clients: BTreeMap<SocketAddr, Client>,
    pub(super) waiting: BTreeSet<SocketAddr>,
    pub(super) neighbours: Neighbours,
    pub(super) inbox: Inbox,
    pub(super) wake: (Sender<()>, Receiver<()>),
    pub(super) disk: Option<DiskPool>,
    pub(super) in_flight: usize,
    pub(super) asking: Asking,
    pub(super) transfer: Option<super::blocks::Transfer>,
    pub(super) downloaded: u64,
    /// Bytes of hosts that were taken.
    pub(super) host_bytes: u64,
    pub(super) rate: RateMeter,
    pub(super) over: bool,
}

impl Fetch {
    pub(super) fn new(
        mut settings: DownloadSettings,
        resume: Arc<Resume>,
        (tell, due): (Sender<DownloadEvent>, Sender<Guid>),
        (stop, more): (Receiver<()>, Receiver<Vec<SourceSpec>>),
        stats: Arc<Mutex<DownloadStats>>,
    ) -> Self {
        let mut sources = Sources::new();
        for addr in std::mem::take(&mut settings.from) {
            sources.name(addr);
        }
        for addr in std::mem::take(&mut settings.tls_hosts) {
            sources.set_tls(&addr, true);
        }
        // No TLS is no reason not to fetch.
        let tls = settings.tls.then(Tls::new).and_then(Result::ok);
        let rng = std::mem::replace(&mut settings.rng, Rng::from_seed(0));
        let specs = std::mem::take(&mut settings.sources);
        let asking = Asking::of(settings.len);
        let mut fetch = Self {
            settings,
            resume,
            rng,
            origin: Instant::now(),
            tell,
            due,
            stop,
            more,
            stats,
            sources,
            others: Others::default(),
            pushes: Pushes::new(),
            names: Names::default(),
            heads: None,
            tls,
            live: BTreeMap::new(),
            next_key: 0,
            clients: BTreeMap::new(),
            waiting: BTreeSet::new(),
            neighbours: Neighbours::default(),
            inbox: bounded(INBOX),
            wake: bounded(1),
            disk: None,
            in_flight: 0,
            asking,
            transfer: None,
            downloaded: 0,
            host_bytes: 0,
            rate: RateMeter::new(Time::ZERO),
            over: false,
        };
        fetch.heads = fetch.open_heads();
        fetch.learn(specs);
        fetch
    }

    pub(super) fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    pub(super) fn say(&self, event: DownloadEvent) {
        // Whoever listened may be gone.
        let _ = self.tell.send(event);
    }

    /// All is there: who brought it how fast is told before.
    pub(super) fn complete(&mut self, path: PathBuf) {
        if let Some(transfer) = &self.transfer {
            for live in self.live.values() {
                let rate = live.id.map_or(0, |id| transfer.download.rate(id));
                let news = SourceNews::Gave { rate };
                match live.who {
                    _ if rate == 0 => {}
                    Who::Other(number) => self.tell_other(number, news),
                    Who::Host(addr) => self.say(DownloadEvent::Source {
                        source: addr.to_string(),
                        sort: SourceSort::Gnutella,
                        news,
                    }),
                }
            }
        }
        self.say(DownloadEvent::Complete { path });
        self.over = true;
    }

    /// Nothing more comes of it.
    pub(super) fn end(&mut self, why: Ended) {
        self.over = true;
        self.say(DownloadEvent::Ended(why));
    }

    pub(super) fn run(mut self) {
        self.take_up();
        while !self.over {
            self.work();
            self.tell_stats();
            if self.over {
                break;
            }
            let wait = self.deadline().since(self.now()).min(LOOK);
            // What comes waits while the disk has enough.
            let inbox = match self.in_flight < MAX_IN_FLIGHT {
                true => self.inbox.1.clone(),
                false => never(),
            };
            let listener = self.settings.listener.as_ref();
            let incoming = listener.map_or_else(never, |l| l.incoming.clone());
            let whole = self.transfer.as_ref().and_then(|t| t.whole.as_ref());
            let whole = whole.map_or_else(never, |w| w.result.clone());
            let heads = self.heads.as_ref();
            let heads = heads.map_or_else(never, |h| h.desk.heard.clone());
            select! {
                recv(inbox) -> news => {
                    if let Ok((key, news)) = news {
                        self.on_news(key, news);
                    }
                    while self.in_flight < MAX_IN_FLIGHT && let Ok((key, news)) = self.inbox.1.try_recv() {
                        self.on_news(key, news);
                    }
                }
                recv(self.wake.1) -> _ => {}
                recv(heads) -> heard => {
                    if let Ok((from, bytes)) = heard {
                        self.on_head(from, &bytes);
                    }
                }
                recv(incoming) -> incoming => {
                    if let Ok(incoming) = incoming {
                        self.on_incoming(incoming);
                    }
                }
                recv(whole) -> found => {
                    if let Ok(found) = found {
                        self.on_whole(found);
                    }
                }
                recv(self.more) -> specs => {
                    if let Ok(specs) = specs {
                        self.learn(specs);
                    }
                }
                recv(self.stop) -> _ => self.over = true,
                default(wait) => {}
            }
        }
        self.tell_stats();
        self.live.clear();
        // Nobody waits any more for room in it.
        drop(std::mem::replace(&mut self.inbox, bounded(0)));
        if let Some(disk) = self.disk.take()
            && let Err(error) = disk.stop()
        {
            tracing::warn!(%error, "what is there cannot be remembered");
        }
    }

    fn deadline(&self) -> Time {
        let waits = self.live.values().map(|live| live.waits);
        let waits = waits.fold(self.sources.deadline(), earliest);
        let transfer = self.transfer.as_ref().and_then(|t| t.deadline());
        let others = self.transfer.as_ref().and_then(|_| self.others.deadline());
        let waits = earliest(waits, self.pushes.deadline());
        let waits = earliest(waits, self.heads_deadline(self.now()));
        earliest(earliest(waits, transfer), others).unwrap_or(Time::FAR)
    }

    /// Whatever is due.
    fn work(&mut self) {
        let now = self.now();
        self.on_disk(now);
        let due: Vec<u32> = self
            .live
            .iter()
            .filter(|(_, live)| live.waits.is_some_and(|at| at <= now))
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            self.ask_again(key, now);
        }
        self.tick(now);
        self.probe_partial(now);
        self.push(now);
        self.ask_heads(now);
        self.dial(now);
        self.start_others(now);
        self.settle(now);
        self.send_orders();
    }

    /// Hosts that have a part are asked again and again what they have by now.
    fn probe_partial(&mut self, now: Time) {
        let Some(transfer) = &self.transfer else {
            return;
        };
        for live in self.live.values_mut() {
            let idle = live
                .id
                .is_some_and(|id| transfer.download.pipeline(id).0 == 0);
            let partial = live.available.is_some() && live.connected && live.waits.is_none();
            if partial && idle && live.asked.is_empty() && live.probe_at <= now {
                live.probe_at = now + PROBE_EVERY;
                live.source.order(Order::Probe);
            }
        }
    }

    /// Whether all is there.
    pub(super) fn is_finished(&self) -> bool {
        let transfer = self.transfer.as_ref();
        transfer.is_some_and(|t| t.download.is_finished())
    }

    /// What is asked of hosts in this turn goes to them.
    fn send_orders(&mut self) {
        let Some(geometry) = self.transfer.as_ref().map(|t| t.download.geometry()) else {
            return;
        };
        for live in self.live.values_mut() {
            if !live.asked.is_empty() {
                let blocks = std::mem::take(&mut live.asked);
                live.source
                    .order(Order::Blocks(Slice::whole(geometry), blocks));
            }
        }
    }

    fn tell_stats(&mut self) {
        let now = self.now();
        let mut stats = DownloadStats {
            bytes_total: self.len().unwrap_or(0),
            downloaded: self.downloaded,
            rate: self.rate.rate(now),
            sources: self
                .live
                .values()
                .filter(|l| l.connected && l.waits.is_none())
                .count(),
            queued: self.waiting.len(),
            known: self.sources.count(|_| true) + self.others.all.len(),
            banned: self.sources.count(|s| s == State::Liar)
                + self.others.all.iter().filter(|o| o.lied).count(),
            web: self.others.count(SourceSort::Web),
            napster: self.others.count(SourceSort::Napster),
            ..DownloadStats::default()
        };
        if let Some(transfer) = &self.transfer {
            stats.bytes_done = transfer.download.bytes_done();
            let waste = transfer.download.waste();
            stats.wasted = waste.duplicate + waste.unrequested + waste.corrupt;
            for live in self.live.values() {
                let Some(id) = live.id else { continue };
                let rate = transfer.download.rate(id);
                match live.who {
                    Who::Host(_) => stats.gnutella.rate += rate,
                    Who::Other(number) => match self.others.all.get(number as usize) {
                        Some(o) if o.spec.sort() == SourceSort::Napster => {
                            stats.napster.rate += rate;
                        }
                        _ => stats.web.rate += rate,
                    },
                }
            }
            let hosts = self.live.values().filter(|l| matches!(l.who, Who::Host(_)));
            let at_work = hosts.filter(|l| l.connected && l.waits.is_none()).count();
            stats.gnutella = SourceCount {
                known: self.sources.count(|_| true),
                at_work,
                queued: self.waiting.len(),
                lied: self.sources.count(|s| s == State::Liar),
                bytes: self.host_bytes,
                rate: stats.gnutella.rate,
            };
        }
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }
}
