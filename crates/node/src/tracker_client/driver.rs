//! The thread: commands, sockets and timers in; announces and events out.

use super::pool::{Done, HttpFailure, Job, Pool};
use super::{AnnounceParams, Command, Counters, Events, Notify, TrackerEvent};
use crate::outbound::Outbound;
use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
use mio::net::UdpSocket;
use mio::{Interest, Poll, Token, Waker};
use shoal_base::time::earliest;
use shoal_base::{Machine, Rng, Time};
use shoal_bittorrent::tracker::http_reply::ReplyError;
use shoal_bittorrent::tracker::http_request::announce_url;
use shoal_bittorrent::tracker::{
    AnnounceEvent, AnnounceOrder, AnnounceReply, AnnounceRequest, Announcer, AnnouncerInput,
    AnnouncerOutput, UdpClient, UdpClientOutput,
};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const WAKER: Token = Token(0);
const V4: Token = Token(1);
const V6: Token = Token(2);

/// Starts the thread and gives what wakes it.
pub(super) fn spawn(
    inbox: Receiver<Command>,
    events: Arc<Events>,
    notify: Notify,
    seed: u64,
    outbound: Outbound,
) -> io::Result<Arc<Waker>> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let bind = |any: SocketAddr, token| -> io::Result<UdpSocket> {
        let local = outbound.udp(any);
        let local = local.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mut socket = UdpSocket::bind(local)?;
        poll.registry()
            .register(&mut socket, token, Interest::READABLE)?;
        Ok(socket)
    };
    // A host may lack either family; announces that need it then fail.
    let v4 = bind((Ipv4Addr::UNSPECIFIED, 0).into(), V4).ok();
    let v6 = bind((Ipv6Addr::UNSPECIFIED, 0).into(), V6).ok();
    let (done, results) = unbounded();
    let mut rng = Rng::from_seed(seed);
    let driver = Driver {
        poll,
        v4,
        v6,
        inbox,
        results,
        pool: Pool::new(done, Arc::clone(&waker), outbound),
        udp: UdpClient::new(rng.fork()),
        rng,
        start: Instant::now(),
        keys: BTreeMap::new(),
        torrents: BTreeMap::new(),
        announces: BTreeMap::new(),
        exchanges: BTreeMap::new(),
        next_id: 0,
        events,
        notify,
        dirty: false,
        ending: None,
    };
    thread::Builder::new()
        .name("tracker-client".into())
        .stack_size(512 * 1024)
        .spawn(move || driver.run())?;
    Ok(waker)
}

struct Torrent {
    key: u32,
    params: AnnounceParams,
    /// Recognises us when our address changes.
    id_key: u32,
    announcer: Announcer,
}

/// One announce under way.
struct Announce {
    torrent: u64,
    tracker: usize,
    event: AnnounceEvent,
    num_want: u32,
    url: String,
    /// UDP exchanges not yet over (one for each address family of the tracker).
    exchanges: u32,
    /// The announcer was told of its end.
    reported: bool,
}

struct Driver {
    poll: Poll,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    inbox: Receiver<Command>,
    results: Receiver<Done>,
    pool: Pool,
    udp: UdpClient,
    rng: Rng,
    start: Instant,
    /// Torrents that are announced, by the caller's key; others in `torrents` are stopping.
    keys: BTreeMap<u32, u64>,
    torrents: BTreeMap<u64, Torrent>,
    announces: BTreeMap<u64, Announce>,
    /// From the UDP machine's token to the announce.
    exchanges: BTreeMap<u64, u64>,
    next_id: u64,
    events: Arc<Events>,
    notify: Notify,
    /// Events were queued since the last notification.
    dirty: bool,
    /// Dropped when the last `stopped` is through.
    ending: Option<Sender<()>>,
}

impl Driver {
    fn run(mut self) {
        let mut ready = mio::Events::with_capacity(16);
        loop {
            let now = self.now();
            let deadline = self
                .torrents
                .values()
                .fold(self.udp.deadline(), |soonest, t| {
                    earliest(soonest, t.announcer.deadline())
                });
            let timeout = deadline.map(|at| at.since(now));
            if let Err(error) = self.poll.poll(&mut ready, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "the tracker client cannot wait for events");
                return;
            }
            self.receive(V4);
            self.receive(V6);
            self.collect();
            if !self.obey() {
                return;
            }
            self.tick();
            self.torrents.retain(|_, t| !t.announcer.is_finished());
            if std::mem::take(&mut self.dirty) {
                (self.notify)();
            }
            if self.ending.is_some() && self.torrents.is_empty() {
                return;
            }
        }
    }

    fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Takes all commands; false once the handle is gone.
    fn obey(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Command::Add(key, params)) => {
                    self.stop(key);
                    self.add(key, *params);
                }
                Ok(Command::Update(key, counters)) => self.update(key, counters),
                Ok(Command::Completed(key)) => {
                    if let Some(torrent) = self.torrent(key) {
                        torrent.params.counters.left = 0;
                    }
                    self.tell(key, AnnouncerInput::Completed);
                }
                Ok(Command::Remove(key)) => self.stop(key),
                Ok(Command::Port(port)) => {
                    self.torrents
                        .values_mut()
                        .for_each(|t| t.params.port = port);
                }
                Ok(Command::Shutdown(done)) => {
                    self.ending = Some(done);
                    let keys: Vec<u32> = self.keys.keys().copied().collect();
                    keys.into_iter().for_each(|key| self.stop(key));
                }
                Err(TryRecvError::Empty) => return true,
                // Without a shutdown under way there is nobody left to serve.
                Err(TryRecvError::Disconnected) => return self.ending.is_some(),
            }
        }
    }

    fn torrent(&mut self, key: u32) -> Option<&mut Torrent> {
        self.torrents.get_mut(self.keys.get(&key)?)
    }

    fn add(&mut self, key: u32, params: AnnounceParams) {
        let now = self.now();
        let id = self.new_id();
        let mut announcer = Announcer::new(now, &params.trackers, params.private, self.rng.fork());
        let wants = AnnouncerInput::WantsPeers(params.counters.wants_peers);
        announcer.handle(now, wants, &mut Vec::new());
        let id_key = self.rng.next_u32();
        self.keys.insert(key, id);
        self.torrents.insert(
            id,
            Torrent {
                key,
                params,
                id_key,
                announcer,
            },
        );
    }

    fn update(&mut self, key: u32, counters: Counters) {
        if let Some(torrent) = self.torrent(key) {
            torrent.params.counters = counters;
        }
        self.tell(key, AnnouncerInput::WantsPeers(counters.wants_peers));
    }

    fn stop(&mut self, key: u32) {
        self.tell(key, AnnouncerInput::Stop);
        self.keys.remove(&key);
    }

    fn tell(&mut self, key: u32, input: AnnouncerInput<'_>) {
        if let Some(id) = self.keys.get(&key) {
            self.feed(*id, input);
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        let due: Vec<u64> = self
            .torrents
            .iter()
            .filter(|(_, t)| t.announcer.deadline().is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        due.into_iter()
            .for_each(|id| self.feed(id, AnnouncerInput::Tick));
        let mut out = Vec::new();
        self.udp.on_tick(now, &mut out);
        self.carry_out(out);
    }

    /// Runs one announcer and does what it wants.
    fn feed(&mut self, id: u64, input: AnnouncerInput<'_>) {
        self.feed_with_error(id, input, None);
    }

    fn feed_with_error(&mut self, id: u64, input: AnnouncerInput<'_>, error: Option<&str>) {
        let now = self.now();
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        let mut out = Vec::new();
        torrent.announcer.handle(now, input, &mut out);
        for output in out {
            match output {
                AnnouncerOutput::Announce(order) => self.announce(id, &order),
                AnnouncerOutput::Failed { tracker, retry_in } => {
                    let Some(torrent) = self.torrents.get(&id) else {
                        continue;
                    };
                    self.events.push(TrackerEvent::Error {
                        key: torrent.key,
                        url: torrent
                            .announcer
                            .url(tracker)
                            .unwrap_or_default()
                            .to_owned(),
                        error: error.unwrap_or_default().to_owned(),
                        retry_in,
                    });
                    self.dirty = true;
                }
            }
        }
    }

    fn announce(&mut self, id: u64, order: &AnnounceOrder) {
        let token = self.new_id();
        let Some(torrent) = self.torrents.get(&id) else {
            return;
        };
        let url = torrent.announcer.url(order.tracker).unwrap_or_default();
        let announce = Announce {
            torrent: id,
            tracker: order.tracker,
            event: order.event,
            num_want: order.num_want,
            url: url.to_owned(),
            exchanges: 0,
            reported: false,
        };
        let job = match udp_host(url) {
            Some((host, _)) => Job::Resolve {
                token,
                host: host.to_owned(),
            },
            None => {
                let request = request(torrent, &announce);
                let url = announce_url(url, &request, order.tracker_id.as_deref());
                Job::Get { token, url }
            }
        };
        self.announces.insert(token, announce);
        // An address needs no lookup, and so no thread.
        match job {
            Job::Resolve { token, host } if host.parse::<SocketAddr>().is_ok() => {
                let addr = host.parse::<SocketAddr>().into_iter().collect();
                self.resolved(token, Ok(addr));
            }
            job => self.pool.submit(job),
        }
    }

    /// Takes what the pool finished.
    fn collect(&mut self) {
        while let Ok(done) = self.results.try_recv() {
            match done {
                Done::Resolved { token, result } => self.resolved(token, result),
                Done::Got { token, result } => match result {
                    Ok(reply) => self.succeeded(token, reply),
                    Err(error) => {
                        let come_back = match &error {
                            HttpFailure::Reply(ReplyError::Failure { retry_in, .. }) => *retry_in,
                            _ => None,
                        };
                        self.failed(token, &error.to_string(), come_back);
                    }
                },
            }
        }
    }

    fn resolved(&mut self, token: u64, result: io::Result<Vec<SocketAddr>>) {
        let addresses = match result {
            Ok(addresses) => addresses,
            Err(error) => {
                let why = format!("cannot look up the tracker's name: {error}");
                return self.failed(token, &why, None);
            }
        };
        let now = self.now();
        let Some(announce) = self.announces.get_mut(&token) else {
            return;
        };
        let Some(torrent) = self.torrents.get(&announce.torrent) else {
            return;
        };
        // BEP 7, 15: each family learns only its own peers, so both are asked.
        let have = |addr: &&SocketAddr| match addr {
            SocketAddr::V4(_) => self.v4.is_some(),
            SocketAddr::V6(_) => self.v6.is_some(),
        };
        let usable = || addresses.iter().filter(have);
        let v4 = usable().find(|a| a.is_ipv4());
        let v6 = usable().find(|a| a.is_ipv6());
        let path = udp_host(&announce.url).map_or("", |(_, path)| path);
        let request = request(torrent, announce);
        let mut out = Vec::new();
        for to in [v4, v6].into_iter().flatten() {
            announce.exchanges += 1;
            self.next_id += 1;
            self.exchanges.insert(self.next_id, token);
            self.udp
                .announce(now, self.next_id, *to, request.clone(), path, &mut out);
        }
        if announce.exchanges == 0 {
            return self.failed(token, "no address of the tracker can be reached", None);
        }
        self.carry_out(out);
    }

    fn carry_out(&mut self, out: Vec<UdpClientOutput>) {
        for output in out {
            match output {
                UdpClientOutput::Send { to, datagram } => {
                    let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
                    // A datagram that cannot be sent is like one that is lost: it is sent again.
                    if let Some(Err(error)) = socket.as_ref().map(|s| s.send_to(&datagram, to)) {
                        tracing::debug!(%to, %error, "cannot send to a tracker");
                    }
                }
                UdpClientOutput::Done { token, result } => {
                    let Some(token) = self.exchanges.remove(&token) else {
                        continue;
                    };
                    match result {
                        Ok(reply) => self.succeeded(token, reply),
                        Err(error) => self.failed(token, &error.to_string(), None),
                    }
                }
            }
        }
    }

    fn receive(&mut self, token: Token) {
        let mut buf = [0; 4096];
        let mut out = Vec::new();
        loop {
            let socket = if token == V4 { &self.v4 } else { &self.v6 };
            let Some(socket) = socket else { return };
            match socket.recv_from(&mut buf) {
                Ok((len, from)) => {
                    let now = self.now();
                    let datagram = buf.get(..len).unwrap_or_default();
                    self.udp.on_datagram(now, from, datagram, &mut out);
                    self.carry_out(std::mem::take(&mut out));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error of an earlier datagram: its announce will time out.
                Err(error) => tracing::debug!(%error, "receiving from a tracker"),
            }
        }
    }

    /// An announce (or one address family of it) was answered.
    fn succeeded(&mut self, token: u64, reply: AnnounceReply) {
        let Some(announce) = self.announces.get_mut(&token) else {
            return;
        };
        announce.exchanges = announce.exchanges.saturating_sub(1);
        let first = !std::mem::replace(&mut announce.reported, true);
        let (id, tracker) = (announce.torrent, announce.tracker);
        let stopping = announce.event == AnnounceEvent::Stopped;
        let url = announce.url.clone();
        if announce.exchanges == 0 {
            self.announces.remove(&token);
        }
        if first {
            let result = Ok(&reply);
            self.feed(id, AnnouncerInput::Done { tracker, result });
        }
        let Some(torrent) = self.torrents.get(&id) else {
            return;
        };
        if !stopping && self.keys.get(&torrent.key) == Some(&id) {
            self.events.push(TrackerEvent::Peers {
                key: torrent.key,
                url,
                peers: reply.peers,
                interval: Duration::from_secs(u64::from(reply.interval)),
                seeders: reply.seeders,
                leechers: reply.leechers,
                warning: reply.warning,
            });
            self.dirty = true;
        }
    }

    /// An announce (or one address family of it) failed.
    fn failed(&mut self, token: u64, error: &str, come_back: Option<Duration>) {
        let Some(announce) = self.announces.get_mut(&token) else {
            return;
        };
        announce.exchanges = announce.exchanges.saturating_sub(1);
        if announce.exchanges > 0 {
            return;
        }
        let (id, tracker) = (announce.torrent, announce.tracker);
        let reported = announce.reported;
        self.announces.remove(&token);
        if !reported {
            let result = Err(come_back);
            self.feed_with_error(id, AnnouncerInput::Done { tracker, result }, Some(error));
        }
    }
}

fn request(torrent: &Torrent, announce: &Announce) -> AnnounceRequest {
    let params = &torrent.params;
    AnnounceRequest {
        info_hash: params.info_hash,
        peer_id: params.peer_id,
        port: params.port,
        uploaded: params.counters.uploaded,
        downloaded: params.counters.downloaded,
        // Trackers parse it as a signed number.
        left: params.counters.left.min(i64::MAX as u64),
        event: announce.event,
        num_want: Some(announce.num_want),
        key: torrent.id_key,
        ip: None,
        overlay: params.overlay,
    }
}

/// The `host:port` of a UDP tracker and the path and query behind it.
fn udp_host(url: &str) -> Option<(&str, &str)> {
    const SCHEME: &str = "udp://";
    let head = url.get(..SCHEME.len())?;
    let rest = url.get(SCHEME.len()..)?;
    if !head.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at_checked(end)?;
    Some((host, path.split('#').next().unwrap_or_default()))
}
