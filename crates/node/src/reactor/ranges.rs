//! Sources that are asked for ranges: web seeds, Gnutella's hosts, Napster's users. Who they are,
//! what they are asked, and what they bring.

mod retry;

use super::Reactor;
use crate::gnutella::transfer::{Place, PushDesk};
use crate::napster::HubDesk;
use crate::range_source::{
    Again, RangeEvent, RangeSource, SourceCount, SourceNews, SourceSort, SourceSpec,
};
use crate::session::{Event, TorrentStats};
use crossbeam_channel::{Receiver, Sender};
use shoal_base::Time;
use shoal_bittorrent::torrent::Torrent;
use shoal_content::{BLOCK_LEN, Block};
use shoal_gnutella::http::locations::may_name;
use shoal_store::{BlockWrite, Job, TorrentKey, WriteBatch};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// How long a source rests after its first failure; twice as long after each further one …
const REST: Duration = Duration::from_secs(2);
/// … up to this.
const MAX_REST: Duration = Duration::from_secs(60);
/// A web seed that says nothing about when to come back has tried again by itself.
const WEB_REST: Duration = Duration::from_secs(30);
/// Buffers on their way to the disk; more wait at the sources' own threads.
const MAX_IN_FLIGHT: usize = 16;
/// Sources of one torrent, and those at work at once.
const MAX_KNOWN: usize = 256;
const MAX_AT_WORK: usize = 32;
/// Sources that one host may tell of, and how often a source may fail without having sent anything.
const MAX_TOLD: usize = 16;
const MAX_FAILURES: u32 = 8;
/// How often a source that has a part is asked what it has by now.
const PROBE_EVERY: Duration = Duration::from_secs(3);

/// A source of a torrent.
pub(super) struct Ranged {
    pub(super) spec: SourceSpec,
    /// None while it rests.
    handle: Option<Box<dyn RangeSource>>,
    /// Blocks the core asked for in this turn.
    pub(super) asked: Vec<Block>,
    /// When a resting source is tried again; never if it is dropped for good.
    retry_at: Time,
    /// When it is asked what it has by now, if it has a part only.
    probe_at: Option<Time>,
    /// Until when it lets us wait, with its thread alive.
    waits: Option<Time>,
    /// What is remembered of a Gnutella host from one connection to the next.
    place: Place,
    /// Failures since it last sent something.
    failures: u32,
    lied: bool,
    /// How often it was started: what an earlier thread still says is of no interest.
    life: u32,
    /// Bytes that came of it and were taken.
    bytes: u64,
    /// Who told of it, and how many it told of.
    teller: Option<IpAddr>,
}

impl Ranged {
    pub(super) fn new(spec: SourceSpec, retry_at: Time) -> Self {
        Self {
            spec,
            handle: None,
            asked: Vec::new(),
            retry_at,
            probe_at: None,
            waits: None,
            place: Place::default(),
            failures: 0,
            lied: false,
            life: 0,
            bytes: 0,
            teller: None,
        }
    }

    /// Is to be started at `at`, whatever was before, unless it lied.
    pub(super) fn begin_anew(&mut self, at: Time) {
        self.handle = None;
        self.waits = None;
        self.asked.clear();
        self.retry_at = if self.lied { Time::FAR } else { at };
    }

    /// Never again.
    pub(super) fn retire(&mut self) {
        self.handle = None;
        self.retry_at = Time::FAR;
    }
}

/// The number of a source, and which of its threads speaks.
type Life = (u32, u32);

/// What the sources of a torrent bring. Each torrent has a queue of its own, so that one that waits
/// for its rate limit holds up no other.
pub(super) struct Inbox {
    sender: Sender<(Life, RangeEvent)>,
    events: Receiver<(Life, RangeEvent)>,
    /// What came before the rate limits had room for it.
    held: Option<(Life, RangeEvent)>,
}

/// Events that wait in a torrent's inbox; its sources wait with more.
const INBOX: usize = 2;

impl Default for Inbox {
    fn default() -> Self {
        let (sender, events) = crossbeam_channel::bounded(INBOX);
        Self {
            sender,
            events,
            held: None,
        }
    }
}

/// Who we are at Napster's hubs, and where we are logged in.
/// And where Gnutella's sharers behind firewalls connect to us.
#[derive(Default)]
pub(super) struct Desks {
    hubs: BTreeMap<SocketAddr, Arc<HubDesk>>,
    pushes: Option<Arc<PushDesk>>,
}

/// What each kind of source did for a torrent.
pub(super) fn counts(ranged: &[Ranged], core: &Torrent, stats: &mut TorrentStats) {
    for (number, source) in (0u32..).zip(ranged) {
        let count = match source.spec.sort() {
            SourceSort::Web => &mut stats.web,
            SourceSort::Gnutella => &mut stats.gnutella,
            SourceSort::Napster => &mut stats.napster,
        };
        let works = source.handle.is_some() && source.waits.is_none();
        *count = SourceCount {
            known: count.known + 1,
            at_work: count.at_work + usize::from(works),
            queued: count.queued + usize::from(source.waits.is_some()),
            lied: count.lied + usize::from(source.lied),
            bytes: count.bytes + source.bytes,
            rate: count.rate + core.range_rate(number),
        };
    }
    stats.web_seeds = stats.web.at_work;
    let all = [stats.web, stats.gnutella, stats.napster];
    let (bytes, rate) = all
        .iter()
        .fold((0, 0), |sum, c| (sum.0 + c.bytes, sum.1 + c.rate));
    stats.peer_bytes = stats.downloaded.saturating_sub(bytes);
    stats.peer_rate = stats.rate_down.saturating_sub(rate);
}

impl Reactor {
    /// Takes what sources brought, a torrent after the other, as far as the disk and the rate
    /// limits have room. The rest waits in bounded queues, and so, by TCP, at the servers.
    pub(super) fn take_range_events(&mut self, now: Time) {
        self.ranges_ready_at = Time::FAR;
        let keys = self.torrents.iter().filter(|(_, e)| e.inbox.is_some());
        let mut waiting: SmallVec<[TorrentKey; 8]> = keys.map(|(key, _)| *key).collect();
        while !waiting.is_empty() {
            waiting.retain(|key| {
                self.ranges_in_flight < MAX_IN_FLIGHT && self.take_range_event(*key, now)
            });
        }
    }

    /// Takes one event of a torrent's sources; false if there is none for now.
    fn take_range_event(&mut self, key: TorrentKey, now: Time) -> bool {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return false;
        };
        let Some(inbox) = &mut entry.inbox else {
            return false;
        };
        let next = inbox.held.take().or_else(|| inbox.events.try_recv().ok());
        let Some((source, event)) = next else {
            return false;
        };
        if let RangeEvent::Blocks { blocks, .. } = &event {
            let bytes: usize = blocks.iter().map(|(block, _)| block.len as usize).sum();
            // Peers read what little the limits have room for at any time: who brings whole buffers
            // would never find room for one. So both have turns, a buffer's worth each.
            let peers_wait = !self.throttled.is_empty() || !self.read_queue.is_empty();
            if !peers_wait {
                self.peers_turn = 0;
            }
            let room = match self.peers_turn {
                0 => bytes.min(BLOCK_LEN as usize),
                _ => bytes,
            };
            let ready = self.limits.down_ready(&mut entry.limits, now, room);
            if ready > now {
                self.ranges_ready_at = self.ranges_ready_at.min(ready);
                inbox.held = Some((source, event));
                return false;
            }
            self.limits.down.spend(bytes);
            entry.limits.down.spend(bytes);
            self.peers_turn = bytes;
        }
        let (number, life) = source;
        let speaks = entry.ranged.get(number as usize);
        if speaks.is_some_and(|s| s.life == life && s.handle.is_some()) {
            self.on_range_event(key, number, event, now);
        }
        true
    }

    fn on_range_event(&mut self, key: TorrentKey, number: u32, event: RangeEvent, now: Time) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        let Some(source) = entry.ranged.get_mut(number as usize) else {
            return;
        };
        match event {
            RangeEvent::Blocks { buf, blocks } => {
                self.on_range_blocks(key, number, buf, blocks, now);
            }
            RangeEvent::Missed(blocks) => {
                let out = &mut self.outputs;
                entry.core.on_range_missed(now, number, &blocks, out);
                self.queue_outputs(key);
            }
            RangeEvent::Has(available) => {
                source.probe_at = available.as_ref().map(|_| now + PROBE_EVERY);
                let layout = entry.core.info().map(|info| Arc::clone(&info.layout));
                let slice = layout.and_then(|layout| source.spec.slice(&layout));
                if let Some(bits) = slice.map(|s| (s, s.pieces(available.as_ref()))) {
                    let (slice, bits) = bits;
                    let bits =
                        bits.unwrap_or_else(|| shoal_base::Bitfield::full(slice.geometry.pieces()));
                    let out = &mut self.outputs;
                    entry.core.on_range_pieces(now, number, &bits, out);
                    self.queue_outputs(key);
                }
            }
            RangeEvent::Others(addrs) => self.learn_hosts(key, number, &addrs, now),
            RangeEvent::Waits {
                wait,
                position,
                lives,
            } => {
                let until = now + wait;
                let news = SourceNews::Queued {
                    position,
                    retry_s: wait.as_secs(),
                };
                if lives {
                    source.waits = Some(until);
                    source.asked.clear();
                    let out = &mut self.outputs;
                    entry.core.on_range_wait(now, number, true, out);
                    self.queue_outputs(key);
                } else {
                    self.rest_source(key, number, until, now);
                }
                self.tell_source(key, number, news);
            }
            RangeEvent::Failed { why, again } => {
                source.failures += 1;
                let web = source.spec.sort() == SourceSort::Web;
                let rest = match again {
                    Again::Never => None,
                    Again::After(rest) => Some(rest),
                    Again::Soon if web => Some(WEB_REST),
                    Again::Soon if source.failures > MAX_FAILURES => None,
                    Again::Soon => Some((REST * (1 << (source.failures - 1).min(6))).min(MAX_REST)),
                };
                let until = rest.map_or(Time::FAR, |rest| now + rest);
                self.rest_source(key, number, until, now);
                let for_good = rest.is_none();
                self.tell_source(key, number, SourceNews::Failed { why, for_good });
            }
        }
    }

    fn tell_source(&self, key: TorrentKey, number: u32, news: SourceNews) {
        let entry = self.torrents.get(&key);
        if let Some(source) = entry.and_then(|e| e.ranged.get(number as usize)) {
            tracing::debug!(source = %source.spec, ?news, "a source");
            self.tell(Event::Source {
                key,
                source: source.spec.to_string(),
                sort: source.spec.sort(),
                news,
            });
        }
    }

    /// Stops using a source until `until`.
    fn rest_source(&mut self, key: TorrentKey, number: u32, until: Time, now: Time) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        let Some(source) = entry.ranged.get_mut(number as usize) else {
            return;
        };
        source.handle = None;
        source.waits = None;
        source.asked.clear();
        source.retry_at = until;
        let out = &mut self.outputs;
        entry.core.remove_range_source(now, number, out);
        self.queue_outputs(key);
    }

    /// The core will have no more of a source.
    pub(super) fn drop_source(&mut self, key: TorrentKey, number: u32, lied: bool, now: Time) {
        self.rest_source(key, number, Time::FAR, now);
        let entry = self.torrents.get_mut(&key);
        let source = entry.and_then(|entry| entry.ranged.get_mut(number as usize));
        let Some(source) = source else {
            return;
        };
        if std::mem::replace(&mut source.lied, lied) {
            return;
        }
        let news = match lied {
            true => SourceNews::Banned,
            false => SourceNews::Failed {
                why: "it does not send what it was asked for".into(),
                for_good: true,
            },
        };
        self.tell_source(key, number, news);
    }

    /// More sources of a torrent; those it knows already change nothing.
    pub(super) fn add_sources(&mut self, key: TorrentKey, specs: Vec<SourceSpec>, now: Time) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        let finished = entry.core.is_finished();
        let retry_at = if finished { Time::FAR } else { now };
        let mut new = Vec::new();
        for spec in specs {
            let known = entry.ranged.iter().any(|source| source.spec == spec);
            if !known && entry.ranged.len() < MAX_KNOWN {
                entry.ranged.push(Ranged::new(spec, retry_at));
                new.push(entry.ranged.len() as u32 - 1);
            }
        }
        for number in new {
            self.tell_source(key, number, SourceNews::Known);
        }
        self.retry_sources(now);
    }

    /// A Gnutella host told of others.
    fn learn_hosts(&mut self, key: TorrentKey, number: u32, addrs: &[SocketAddr], now: Time) {
        let Some(entry) = self.torrents.get(&key) else {
            return;
        };
        let Some(SourceSpec::Gnutella { addr, urn, len }) = entry
            .ranged
            .get(number as usize)
            .map(|source| source.spec.clone())
        else {
            return;
        };
        let told = entry.ranged.iter();
        let told = told.filter(|s| s.teller == Some(addr.ip())).count();
        let new: Vec<SourceSpec> = addrs
            .iter()
            .filter(|a| may_name(addr.ip(), **a))
            .map(|a| SourceSpec::Gnutella { addr: *a, urn, len })
            .filter(|spec| !entry.ranged.iter().any(|source| source.spec == *spec))
            .take(MAX_TOLD.saturating_sub(told))
            .collect();
        if new.is_empty() {
            return;
        }
        let before = entry.ranged.len();
        self.add_sources(key, new, now);
        if let Some(entry) = self.torrents.get_mut(&key) {
            let learnt = entry.ranged.get_mut(before..).unwrap_or_default();
            learnt
                .iter_mut()
                .for_each(|source| source.teller = Some(addr.ip()));
        }
    }

    /// Hands the blocks asked for in this turn to their sources.
    pub(super) fn ask_sources(&mut self) {
        for entry in self.torrents.values_mut() {
            for source in &mut entry.ranged {
                if source.asked.is_empty() {
                    continue;
                }
                let blocks = std::mem::take(&mut source.asked);
                if let Some(handle) = &source.handle {
                    handle.request(blocks);
                }
            }
        }
    }

    /// A source sent data.
    fn on_range_blocks(
        &mut self,
        key: TorrentKey,
        number: u32,
        buf: Vec<u8>,
        blocks: Vec<(Block, usize)>,
        now: Time,
    ) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        let mut writes = Vec::with_capacity(blocks.len());
        let mut taken = 0;
        for (block, start) in blocks {
            let out = &mut self.outputs;
            if entry.core.on_range_block(now, number, block, out) {
                taken += u64::from(block.len);
                writes.push(BlockWrite {
                    torrent: key,
                    block,
                    start,
                });
            }
        }
        if let Some(source) = entry.ranged.get_mut(number as usize) {
            source.failures = 0;
            source.bytes += taken;
        }
        self.queue_outputs(key);
        if !writes.is_empty() {
            self.ranges_in_flight += 1;
            self.disk.submit(Job::Write(WriteBatch {
                buf,
                blocks: writes,
            }));
        }
    }
}
