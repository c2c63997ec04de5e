//! What all workers share, and the answers to requests.

use super::lists::{ListFileError, Lists};
use super::stats::{Counters, Minute, ServerStats, Traffic, add, count};
use super::{Config, ServerError};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use shoal_base::{InfoHash, Rng, Time};
use shoal_bittorrent::tracker::http_reply::{self, AnnounceBody};
use shoal_bittorrent::tracker::swarms::{Announce, Census, SwarmsConfig};
use shoal_bittorrent::tracker::udp::{self, UdpReply, UdpRequest};
use shoal_bittorrent::tracker::{
    AddressCounts, AnnounceRequest, ConnectionIds, RequestRates, ScrapeStats, Swarms, limits,
};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shards of swarms. Many, so that two workers seldom want the same one and the sweep of one is
/// short.
const SHARDS: usize = 256;
/// How often every shard is swept.
const SWEEP_ROUND: Duration = Duration::from_secs(64);
/// Housekeeping's step: one shard of each round.
const STEP: Duration = Duration::from_millis((SWEEP_ROUND.as_millis() / SHARDS as u128) as u64);
/// Peers in a reply to an IPv6 peer by UDP at most: more would not fit the smallest packet that
/// every IPv6 network carries (1280 bytes).
const MAX_UDP_V6_PEERS: usize = 65;
/// Overlay addresses beside them, for who announces one, and how many peers are left room for then.
const MAX_UDP_OVERLAY: usize = 20;
const MAX_UDP_BESIDE: [usize; 2] = [135, MAX_UDP_V6_PEERS - MAX_UDP_OVERLAY];

/// The tracker, but for sockets and threads.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) config: Config,
    shards: Box<[Mutex<Swarms>]>,
    ids: ConnectionIds,
    rates: Option<RequestRates>,
    lists: Lists,
    start: Instant,
    /// What each worker counted.
    desks: Mutex<Vec<Arc<Counters>>>,
    minute: Mutex<Minute>,
    rng: Mutex<Rng>,
}

/// A worker's own part of the service.
#[derive(Debug)]
pub(super) struct Desk {
    service: Arc<Service>,
    pub(super) counters: Arc<Counters>,
    rng: Rng,
    scratch: Vec<u8>,
    /// Overlay addresses for the reply at hand.
    overlay: Vec<u8>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks; a poisoned one would still be consistent
    // enough to serve.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    pub(super) fn new(config: Config) -> Result<Self, ServerError> {
        let lists = Lists::open(&config)?;
        // The standard hasher's keys come from the operating system.
        let entropy = || RandomState::new().hash_one(Instant::now());
        let mut rng = Rng::from_seed(config.seed.unwrap_or_else(entropy));
        let per_address = config.max_peers_per_address;
        let counts = (per_address > 0).then(|| Arc::new(AddressCounts::new(per_address, &mut rng)));
        let per_second = config.max_requests_per_address;
        let rates = (per_second > 0).then(|| RequestRates::new(per_second, &mut rng));
        let swarms = SwarmsConfig {
            // Somebody who announces as asked is never forgotten.
            peer_life: config.peer_life.max(config.interval * 3 / 2),
            max_torrents: config.max_torrents.div_ceil(SHARDS),
            address_counts: counts,
            limit_local: config.limit_local,
        };
        Ok(Self {
            shards: (0..SHARDS)
                .map(|_| Mutex::new(Swarms::new(swarms.clone(), &mut rng)))
                .collect(),
            ids: ConnectionIds::new(&mut rng),
            rates,
            lists,
            start: Instant::now(),
            desks: Mutex::default(),
            minute: Mutex::default(),
            rng: Mutex::new(rng),
            config,
        })
    }

    pub(super) fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    /// A place for one more worker.
    pub(super) fn desk(self: &Arc<Self>) -> Desk {
        let counters = Arc::<Counters>::default();
        lock(&self.desks).push(Arc::clone(&counters));
        Desk {
            service: Arc::clone(self),
            counters,
            rng: lock(&self.rng).fork(),
            scratch: Vec::new(),
            overlay: Vec::new(),
        }
    }

    fn shard(&self, info_hash: &InfoHash) -> MutexGuard<'_, Swarms> {
        // Clients cannot gain by crowding one shard: it would slow their own torrents.
        let [.., last] = info_hash.as_bytes();
        lock(&self.shards[usize::from(*last) % SHARDS])
    }

    fn permits(&self, info_hash: &InfoHash) -> bool {
        self.lists.is_open() || self.lists.current().permits(info_hash)
    }

    /// Whether `ip` may ask once more in this window.
    fn within_rate(&self, now: Time, ip: IpAddr) -> bool {
        match &self.rates {
            Some(rates) if self.config.limit_local || !limits::is_local(ip) => rates.allow(now, ip),
            _ => true,
        }
    }

    pub(super) fn reload_lists(&self) -> Result<(), ListFileError> {
        self.lists.reload()
    }

    fn census(&self) -> Census {
        let mut sum = Census::default();
        for shard in &self.shards {
            let one = lock(shard).census();
            sum.torrents_v4 += one.torrents_v4;
            sum.torrents_v6 += one.torrents_v6;
            sum.peers_v4 += one.peers_v4;
            sum.peers_v6 += one.peers_v6;
            sum.peers_overlay += one.peers_overlay;
            sum.seeders += one.seeders;
        }
        sum
    }

    fn traffic(&self) -> Traffic {
        Traffic::sum(lock(&self.desks).iter().map(AsRef::as_ref))
    }

    pub(super) fn stats(&self) -> ServerStats {
        let total = self.traffic();
        ServerStats {
            uptime_secs: self.start.elapsed().as_secs(),
            census: self.census(),
            total,
            last_minute: lock(&self.minute).last(&total),
        }
    }

    /// Sweeps, counts and reloads until the other end of `ended` is dropped.
    pub(super) fn keep_house(&self, ended: &Receiver<()>) {
        let mut next_second = Duration::ZERO;
        for shard in self.shards.iter().cycle() {
            if ended.recv_timeout(STEP) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            lock(shard).sweep(self.now());
            if self.start.elapsed() >= next_second {
                next_second += Duration::from_secs(1);
                let total = self.traffic();
                lock(&self.minute).note(total);
                self.lists.reload_if_changed();
            }
        }
    }
}

impl Desk {
    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    /// The announce interval for one reply, in seconds.
    fn interval(&mut self) -> u32 {
        let interval = self
            .service
            .config
            .interval
            .as_secs()
            .min(u64::from(u32::MAX / 2)) as u32;
        interval + self.rng.below(interval as usize / 10 + 1) as u32
    }

    /// Answers a datagram by appending to `out`; nothing is appended if it deserves no answer.
    pub(super) fn udp(&mut self, now: Time, from: SocketAddr, datagram: &[u8], out: &mut Vec<u8>) {
        add(&self.counters.bytes_in, datagram.len() as u64);
        let ip = from.ip().to_canonical();
        let before = out.len();
        match udp::decode_request(datagram) {
            // Port zero cannot be answered.
            Ok(_) if from.port() == 0 => count(&self.counters.malformed),
            Ok(UdpRequest::Connect { transaction }) => {
                let connection = self.service.ids.issue(now, ip);
                let reply = UdpReply::Connect {
                    transaction,
                    connection,
                };
                udp::encode_reply(&reply, out);
                count(&self.counters.udp_connects);
            }
            // An id that does not hold gets no answer that could flood whoever owns the address;
            // an error is shorter than the request.
            Ok(
                UdpRequest::Announce {
                    connection,
                    transaction,
                    ..
                }
                | UdpRequest::Scrape {
                    connection,
                    transaction,
                    ..
                },
            ) if !self.service.ids.check(now, ip, connection) => {
                self.refuse(transaction, "connection id expired", out);
            }
            // Only now is the address known to be the sender's: counted sooner, anybody could use
            // up another's share in his name.
            Ok(_) if !self.within_rate(now, ip) => {}
            Ok(UdpRequest::Announce {
                transaction,
                announce,
                ..
            }) => {
                let peer = SocketAddr::new(ip, announce.port);
                self.udp_announce(now, transaction, peer, &announce, out);
            }
            Ok(UdpRequest::Scrape {
                transaction,
                info_hashes,
                ..
            }) => {
                let most = self.service.config.max_scrape.min(udp::MAX_SCRAPE);
                self.scratch.clear();
                for hash in info_hashes.iter().take(most) {
                    let stats = self.service.scrape(&InfoHash(*hash), ip);
                    self.scratch.extend_from_slice(&udp::encode_stats(stats));
                }
                let (stats, _) = self.scratch.as_chunks();
                udp::encode_reply(&UdpReply::Scrape { transaction, stats }, out);
                count(&self.counters.udp_scrapes);
            }
            Err(_) => count(&self.counters.malformed),
        }
        add(&self.counters.bytes_out, (out.len() - before) as u64);
    }

    fn refuse(&self, transaction: u32, message: &str, out: &mut Vec<u8>) {
        let message = message.as_bytes();
        udp::encode_reply(
            &UdpReply::Error {
                transaction,
                message,
            },
            out,
        );
        count(&self.counters.refused);
    }

    fn udp_announce(
        &mut self,
        now: Time,
        transaction: u32,
        peer: SocketAddr,
        request: &AnnounceRequest,
        out: &mut Vec<u8>,
    ) {
        let [v4, v6] = match request.overlay {
            Some(_) => MAX_UDP_BESIDE,
            None => [usize::MAX, MAX_UDP_V6_PEERS],
        };
        let most = if peer.is_ipv4() { v4 } else { v6 };
        let head = out.len();
        out.extend_from_slice(&[0; udp::ANNOUNCE_REPLY_HEADER]);
        match self.announce(now, peer, request, (most, MAX_UDP_OVERLAY), out) {
            Ok(stats) => {
                out.extend_from_slice(&self.overlay);
                let interval = self.interval();
                let header = udp::announce_reply_header(
                    transaction,
                    interval,
                    stats.leechers,
                    stats.seeders,
                );
                if let Some(slot) = out.get_mut(head..head + header.len()) {
                    slot.copy_from_slice(&header);
                }
                count(&self.counters.udp_announces);
            }
            Err(why) => {
                out.truncate(head);
                self.refuse(transaction, &why, out);
            }
        }
    }

    /// Notes an announce, appends compact peers and leaves overlay addresses in `self.overlay`, at
    /// `most` of each; or tells why not.
    fn announce(
        &mut self,
        now: Time,
        peer: SocketAddr,
        request: &AnnounceRequest,
        most: (usize, usize),
        out: &mut Vec<u8>,
    ) -> Result<ScrapeStats, String> {
        let service = &self.service;
        self.overlay.clear();
        if !service.permits(&request.info_hash) {
            return Err("this torrent is not served here".into());
        }
        let wanted = request
            .num_want
            .map_or(service.config.default_peers, |n| n as usize);
        let wanted = wanted.min(service.config.max_peers);
        let mut announce = Announce {
            info_hash: request.info_hash,
            peer,
            seeder: request.left == 0,
            event: request.event,
            num_want: wanted.min(most.0),
        };
        let random = self.rng.next_u64();
        let mut shard = service.shard(&request.info_hash);
        let stats = shard.announce(now, &announce, random, out);
        let stats = stats.map_err(|refusal| refusal.to_string())?;
        if let Some(overlay) = request.overlay {
            announce.num_want = wanted.min(most.1);
            // What the peer has beside its plain address is refused without a word.
            let others = &mut self.overlay;
            let _ = shard.announce_overlay(now, &announce, overlay, random, others);
        }
        Ok(stats)
    }

    /// Answers an announce by HTTP with a bencoded body; whether it was accepted.
    pub(super) fn http_announce(
        &mut self,
        now: Time,
        ip: IpAddr,
        request: &AnnounceRequest,
        compact: bool,
        out: &mut Vec<u8>,
    ) {
        let peer = SocketAddr::new(ip, request.port);
        let mut peers = std::mem::take(&mut self.scratch);
        peers.clear();
        match self.announce(now, peer, request, (usize::MAX, usize::MAX), &mut peers) {
            Ok(stats) => {
                let interval = self.interval();
                let (v4, v6): (&[u8], &[u8]) = if ip.is_ipv4() {
                    (&peers, &self.overlay)
                } else {
                    peers.extend_from_slice(&self.overlay);
                    (&[], &peers)
                };
                let min = self.service.config.min_interval.as_secs();
                let body = AnnounceBody {
                    interval,
                    min_interval: u32::try_from(min).unwrap_or(u32::MAX),
                    seeders: stats.seeders,
                    leechers: stats.leechers,
                    completed: stats.completed,
                    peers: v4,
                    peers6: v6,
                    compact,
                    external_ip: ip,
                };
                http_reply::encode_announce(&body, out);
                count(&self.counters.http_announces);
            }
            Err(why) => {
                http_reply::encode_failure(&why, out);
                count(&self.counters.refused);
            }
        }
        self.scratch = peers;
    }

    /// Answers a scrape by HTTP with a bencoded body.
    pub(super) fn http_scrape(&mut self, ip: IpAddr, hashes: &[InfoHash], out: &mut Vec<u8>) {
        let most = self.service.config.max_scrape;
        let stats = |hash: &InfoHash| (*hash, self.service.scrape(hash, ip));
        let files: Vec<_> = hashes.iter().take(most).map(stats).collect();
        let min = self.service.config.min_interval.as_secs();
        let min = u32::try_from(min).unwrap_or(u32::MAX);
        out.extend_from_slice(&http_reply::encode_scrape(&files, min));
        count(&self.counters.http_scrapes);
    }

    /// Whether `ip` may ask once more; counts it if not.
    pub(super) fn within_rate(&self, now: Time, ip: IpAddr) -> bool {
        let within = self.service.within_rate(now, ip);
        if !within {
            count(&self.counters.limited);
        }
        within
    }
}

impl Service {
    fn scrape(&self, info_hash: &InfoHash, family: IpAddr) -> ScrapeStats {
        if self.permits(info_hash) {
            self.shard(info_hash).scrape(info_hash, family)
        } else {
            ScrapeStats::default()
        }
    }
}
