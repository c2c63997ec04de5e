//! Several torrents of the same content, joined by links in virtual time. Messages travel as real
//! wire bytes; the disk is a table of blocks that hashes a piece in no time.

use shoal_base::{Bitfield, PeerId, Rng, Time};
use shoal_bittorrent::choker::Choking;
use shoal_bittorrent::peers::Sources;
use shoal_bittorrent::torrent::{CloseReason, ConnId, OnDisk, Output, Torrent, TorrentConfig};
use shoal_bittorrent::wire::{self, Message};
use shoal_content::download::{Mode, PieceOutcome};
use shoal_content::{Block, Info};
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Bytes a second each node's uplink carries unless told otherwise.
pub(crate) const UPLINK: u64 = 10_000_000;

pub(crate) struct Node {
    pub(crate) core: Torrent,
    addr: SocketAddr,
    /// Where others on the overlay reach it.
    overlay: Option<SocketAddr>,
    /// Nobody connects to it but by the overlay.
    pub(crate) walled: bool,
    pub(crate) dialed: Vec<SocketAddr>,
    /// Sends blocks with flipped bits.
    pub(crate) lies: bool,
    uplink: u64,
    /// When the uplink is free again.
    free_at: Time,
    pub(crate) uploaded: u64,
    /// Blocks on disk of unfinished pieces, and whether each is genuine.
    disk: BTreeMap<u32, BTreeMap<u32, bool>>,
    pub(crate) verified: Bitfield,
    pub(crate) finished_at: Option<Time>,
    pub(crate) closed: Vec<CloseReason>,
    pub(crate) banned: Vec<SocketAddr>,
    pub(crate) metadata: bool,
    wake: Vec<ConnId>,
}

/// One direction of a connection: bytes under way with their arrival time.
struct Pipe {
    to: (usize, ConnId),
    flights: VecDeque<(Time, Vec<u8>, bool)>,
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) nodes: Vec<Node>,
    info: Info,
    delay: Duration,
    pipes: BTreeMap<(usize, ConnId), Pipe>,
    next_conn: ConnId,
    seed: u64,
    /// Most connections of each node added from now on.
    pub(crate) max_peers: usize,
}

impl World {
    pub(crate) fn new(info: Info, seed: u64) -> Self {
        Self {
            now: Time::from_secs(1),
            nodes: Vec::new(),
            info,
            delay: Duration::from_millis(20),
            pipes: BTreeMap::new(),
            next_conn: 1,
            seed,
            max_peers: 100,
        }
    }

    fn config(&self) -> TorrentConfig {
        TorrentConfig {
            max_peers: self.max_peers,
            max_half_open: 20,
            listen_port: Some(6881),
            up_limit: Some(UPLINK),
            mode: Mode::default(),
            choking: Choking::default(),
            client: "world".into(),
        }
    }

    /// Adds a node that has the pieces in `have`, or, without it, only the info-hash.
    pub(crate) fn add(&mut self, have: Option<Bitfield>, uplink: u64) -> usize {
        let number = self.nodes.len();
        let mut rng = Rng::from_seed(self.seed ^ (number as u64 + 1) << 32);
        let id = PeerId::generate(&mut rng);
        let mut outputs = Vec::new();
        let verified = have
            .clone()
            .unwrap_or(Bitfield::new(self.info.geometry().pieces()));
        let core = match have {
            Some(have) => {
                let mut core =
                    Torrent::with_info(self.now, self.config(), id, self.info.clone(), rng);
                let on_disk = OnDisk {
                    have,
                    ..OnDisk::default()
                };
                core.activate(self.now, on_disk, &mut outputs);
                core
            }
            None => Torrent::with_hash(self.now, self.config(), id, self.info.info_hash(), rng),
        };
        let addr = Ipv4Addr::new(10, 0, (number >> 8) as u8, number as u8 + 1);
        self.nodes.push(Node {
            core,
            addr: SocketAddr::new(addr.into(), 6881),
            overlay: None,
            walled: false,
            dialed: Vec::new(),
            lies: false,
            uplink,
            free_at: self.now,
            uploaded: 0,
            disk: BTreeMap::new(),
            verified,
            finished_at: None,
            closed: Vec::new(),
            banned: Vec::new(),
            metadata: false,
            wake: Vec::new(),
        });
        self.carry_out(number, outputs);
        number
    }

    pub(crate) fn addr(&self, node: usize) -> SocketAddr {
        self.nodes[node].addr
    }

    /// Gives a node a place on the overlay, told to whoever connects from now on.
    pub(crate) fn join_overlay(&mut self, node: usize) -> SocketAddr {
        let place = SocketAddr::from(([0xfc01, 0, 0, 0, 0, 0, 0, node as u16], 6881));
        self.nodes[node].overlay = Some(place);
        self.nodes[node].core.set_overlay(Some(place));
        place
    }

    pub(crate) fn introduce(&mut self, node: usize, to: usize) {
        let addr = self.addr(to);
        self.nodes[node]
            .core
            .on_peers(self.now, Sources::MANUAL, &[addr]);
    }

    fn carry_out(&mut self, node: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Wake(conn) => self.nodes[node].wake.push(conn),
                Output::Close { conn, why } => {
                    self.nodes[node].closed.push(why);
                    self.disconnect(node, conn);
                }
                Output::Connect(addr) => self.connect(node, addr),
                Output::Metadata(info) => {
                    assert_eq!(info.info_hash(), self.info.info_hash());
                    self.nodes[node].metadata = true;
                    let have = Bitfield::new(info.geometry().pieces());
                    let mut out = Vec::new();
                    let on_disk = OnDisk {
                        have,
                        ..OnDisk::default()
                    };
                    self.nodes[node].core.activate(self.now, on_disk, &mut out);
                    self.carry_out(node, out);
                }
                Output::Have(piece) => {
                    assert!(
                        self.nodes[node].verified.get(piece),
                        "announced what was not verified"
                    );
                }
                Output::Finished => self.nodes[node].finished_at = Some(self.now),
                Output::Banned(addr) => self.nodes[node].banned.push(addr),
                Output::BadMetadata(error) => panic!("{error}"),
                Output::RangeRequest { .. }
                | Output::RangeDrop { .. }
                | Output::GiveUpDial(_)
                | Output::DhtNode(_) => {}
            }
        }
    }

    fn connect(&mut self, from: usize, addr: SocketAddr) {
        self.nodes[from].dialed.push(addr);
        let by_overlay = self.nodes[from].overlay.is_some();
        let reached =
            |n: &Node| (n.addr == addr && !n.walled) || (by_overlay && n.overlay == Some(addr));
        let Some(to) = self.nodes.iter().position(reached) else {
            self.nodes[from].core.on_dial_failed(self.now, addr);
            return;
        };
        let (a, b) = (self.next_conn, self.next_conn + 1);
        self.next_conn += 2;
        self.pipes.insert(
            (from, a),
            Pipe {
                to: (to, b),
                flights: VecDeque::new(),
            },
        );
        self.pipes.insert(
            (to, b),
            Pipe {
                to: (from, a),
                flights: VecDeque::new(),
            },
        );
        let greetings = (
            self.nodes[from].core.handshake(),
            self.nodes[to].core.handshake(),
        );
        // The port a peer dials from is not the one it listens on.
        let own = match self.nodes[from].overlay {
            Some(own) if self.nodes[to].overlay == Some(addr) => own,
            _ => self.nodes[from].addr,
        };
        let source = SocketAddr::new(own.ip(), 40_000 + a as u16);
        let mut out = Vec::new();
        self.nodes[from]
            .core
            .on_connected(self.now, a, addr, true, &greetings.1, &mut out);
        self.carry_out(from, out);
        let mut out = Vec::new();
        self.nodes[to]
            .core
            .on_connected(self.now, b, source, false, &greetings.0, &mut out);
        self.carry_out(to, out);
    }

    fn disconnect(&mut self, node: usize, conn: ConnId) {
        let Some(pipe) = self.pipes.remove(&(node, conn)) else {
            return;
        };
        self.pipes.remove(&pipe.to);
        for (n, c) in [(node, conn), pipe.to] {
            let mut out = Vec::new();
            self.nodes[n].core.on_disconnected(self.now, c, &mut out);
            self.carry_out(n, out);
        }
    }

    /// Puts what a node has to send on its links, as far as the uplink is free.
    fn send(&mut self, node: usize) {
        let mut wake = std::mem::take(&mut self.nodes[node].wake);
        wake.sort_unstable();
        wake.dedup();
        for conn in wake {
            let control = self.nodes[node].core.take_control(self.now, conn);
            let arrival = self.now + self.delay;
            let Some(pipe) = self.pipes.get_mut(&(node, conn)) else {
                continue;
            };
            if !control.is_empty() {
                pipe.flights.push_back((arrival, control, false));
            }
            if self.nodes[node].free_at > self.now {
                self.nodes[node].wake.push(conn);
                continue;
            }
            let mut blocks = Vec::new();
            self.nodes[node].core.next_uploads(conn, 1, &mut blocks);
            for block in blocks {
                let sender = &mut self.nodes[node];
                let time = Duration::from_secs_f64(f64::from(block.len) / sender.uplink as f64);
                sender.free_at = self.now + time;
                sender.uploaded += u64::from(block.len);
                let mut bytes = wire::piece_header(block).to_vec();
                bytes.resize(bytes.len() + block.len as usize, u8::from(sender.lies));
                sender
                    .core
                    .on_uploaded(self.now, conn, u64::from(block.len));
                pipe.flights
                    .push_back((sender.free_at + self.delay, bytes, true));
                sender.wake.push(conn);
            }
        }
    }

    fn receive(&mut self, node: usize, conn: ConnId, bytes: &[u8]) {
        let mut at = 0;
        let mut out = Vec::new();
        while at < bytes.len() {
            let decoded = wire::decode(&bytes[at..], &wire::Limits::default());
            let (message, used) = decoded.expect("valid").expect("whole");
            match message {
                Message::Piece { piece, begin, data } => {
                    let block = Block {
                        piece,
                        begin,
                        len: data.len() as u32,
                    };
                    if self.nodes[node]
                        .core
                        .on_block(self.now, conn, block, &mut out)
                    {
                        self.write(node, block, data.first() == Some(&0), &mut out);
                    }
                }
                other => self.nodes[node]
                    .core
                    .on_message(self.now, conn, &other, &mut out),
            }
            at += used;
        }
        self.carry_out(node, out);
    }

    fn write(&mut self, node: usize, block: Block, genuine: bool, out: &mut Vec<Output>) {
        let blocks = self.info.geometry().blocks(block.piece) as usize;
        let target = &mut self.nodes[node];
        let piece = target.disk.entry(block.piece).or_default();
        assert!(
            piece.insert(block.begin, genuine).is_none(),
            "block written twice"
        );
        if piece.len() < blocks {
            return;
        }
        let piece = target.disk.remove(&block.piece).expect("just filled");
        let digests: Vec<[u8; 20]> = piece
            .values()
            .map(|genuine| [u8::from(!genuine); 20])
            .collect();
        let outcome = if piece.values().all(|genuine| *genuine) {
            assert!(target.verified.set(block.piece), "piece verified twice");
            PieceOutcome::Verified {
                digests: Some(digests),
            }
        } else {
            PieceOutcome::Corrupt { digests }
        };
        target.core.on_piece(self.now, block.piece, &outcome, out);
    }

    /// Advances to the next thing that happens; false when nothing will.
    fn step(&mut self) {
        for node in 0..self.nodes.len() {
            self.send(node);
        }
        let arrivals = self
            .pipes
            .values()
            .filter_map(|p| p.flights.front())
            .map(|f| f.0)
            .min();
        let ticks = self.nodes.iter().map(|n| n.core.deadline()).min();
        let links = self
            .nodes
            .iter()
            .filter(|n| !n.wake.is_empty() && n.free_at > self.now)
            .map(|n| n.free_at)
            .min();
        let next = [arrivals, ticks, links]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Time::FAR);
        self.now = self.now.max(next.min(self.now + Duration::from_secs(1)));
        let due: Vec<_> = self
            .pipes
            .iter()
            .filter(|(_, p)| p.flights.front().is_some_and(|f| f.0 <= self.now))
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            let Some(pipe) = self.pipes.get_mut(&key) else {
                continue;
            };
            let to = pipe.to;
            let Some((_, bytes, _)) = pipe.flights.pop_front() else {
                continue;
            };
            self.receive(to.0, to.1, &bytes);
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].core.deadline() <= self.now {
                let mut out = Vec::new();
                self.nodes[node].core.on_tick(self.now, &mut out);
                self.carry_out(node, out);
            }
        }
    }

    /// Runs until `done` holds; panics with the seed if it does not within `limit`.
    pub(crate) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let started = self.now;
        while !done(self) {
            assert!(
                self.now.since(started) < limit,
                "seed {}: not done after {limit:?} of virtual time; verified {:?}",
                self.seed,
                self.nodes
                    .iter()
                    .map(|n| n.verified.count())
                    .collect::<Vec<_>>()
            );
            self.step();
        }
        self.now.since(started)
    }
}
