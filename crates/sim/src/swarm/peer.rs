//! One peer: a real torrent, its access line, and what it got and gave.

use super::message::{Packet, Segment, without_service};
use super::{Class, address, node_of};
use crate::space::Direct;
use crate::world::{Context, Process};
use rustc_hash::FxHashMap;
use shoal_base::time::earliest;
use shoal_base::{Bitfield, PeerId, Rng, Time};
use shoal_bittorrent::peers::Sources;
use shoal_bittorrent::torrent::{CloseReason, ConnId, OnDisk, Output, Torrent, TorrentConfig};
use shoal_bittorrent::wire::{self, Message};
use shoal_content::download::PieceOutcome;
use shoal_content::{Block, Info};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// A dial that is not answered for so long has failed.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Blocks under way on one connection to a receiver with a limited downlink, at most.
const WINDOW: u32 = 4;
/// Ports that diallers seem to come from start here.
const FIRST_SOURCE_PORT: u16 = 40_000;

/// What a peer tells those who watch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// It has one more verified piece.
    Have(u32),
    /// It has them all.
    Finished,
}

/// What became of a peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    /// Which of the swarm's classes it is of.
    pub class: usize,
    /// When it came.
    pub joined: Time,
    /// Pieces it came with.
    pub brought: u32,
    /// When it had the first piece it fetched.
    pub first_piece: Option<Time>,
    /// When it had everything, if it did not from the start.
    pub finished: Option<Time>,
    /// How long it is to stay as a seed, once that is drawn.
    pub stays: Option<Duration>,
    /// When it left.
    pub left: Option<Time>,
    /// Payload bytes it sent.
    pub given: u64,
    /// Payload bytes it sent while it lacked pieces.
    pub given_as_leecher: u64,
    /// Payload bytes that came from peers that lacked pieces.
    pub from_leechers: u64,
    /// Payload bytes that came from peers that had everything.
    pub from_seeds: u64,
    /// Payload bytes that came in vain.
    pub wasted: u64,
    /// Connections closed for a broken rule, and bans. Nobody here breaks one, so any is a bug.
    pub faults: u32,
}

impl Record {
    /// Seconds from coming to having everything.
    pub fn took(&self) -> Option<f64> {
        Some(self.finished?.since(self.joined).as_secs_f64())
    }

    /// Payload bytes that came.
    pub fn got(&self) -> u64 {
        self.from_leechers + self.from_seeds
    }
}

struct Conn {
    node: u32,
    link: u64,
    /// It is in the line for the uplink.
    queued: bool,
    /// The other end gives credit for blocks.
    paced: bool,
    /// Blocks sent for which there was no credit yet.
    under_way: u32,
}

impl Conn {
    fn may_send(&self) -> bool {
        !self.paced || self.under_way < WINDOW
    }
}

/// A peer of a simulated swarm.
pub struct Peer {
    /// None once it left.
    core: Option<Box<Torrent>>,
    addr: SocketAddr,
    up: u64,
    down: u64,
    shares: bool,
    conns: Vec<Option<Conn>>,
    /// Only looked up.
    links: FxHashMap<u64, ConnId>,
    dials: VecDeque<(Time, u64, SocketAddr)>,
    dialled: u64,
    /// Whose turn it is on the uplink: a block each.
    line: VecDeque<ConnId>,
    sending: Option<(Time, ConnId, Block)>,
    /// What comes in over a downlink that is slower than those who send.
    arriving: VecDeque<(Time, ConnId, Block, bool)>,
    down_free: Time,
    /// Blocks there of each unfinished piece; only looked up.
    blocks: FxHashMap<u32, u32>,
    outputs: Vec<Output>,
    /// What became of it.
    pub record: Record,
}

impl Peer {
    /// A peer of `class` that has the pieces of `have`.
    pub(super) fn new(
        now: Time,
        node: u32,
        class: &Class,
        neighbours: usize,
        info: &Info,
        have: Bitfield,
        mut rng: Rng,
    ) -> Self {
        let addr = address(node);
        let config = TorrentConfig {
            max_peers: neighbours,
            max_half_open: 20,
            listen_port: Some(addr.port()),
            up_limit: Some(class.up),
            mode: class.mode,
            choking: class.choking,
            client: String::new(),
        };
        let id = PeerId::generate(&mut rng);
        let record = Record {
            class: class.index,
            joined: now,
            brought: have.count(),
            ..Record::default()
        };
        let mut core = Torrent::with_info(now, config, id, info.clone(), rng);
        let mut outputs = Vec::new();
        let on_disk = OnDisk {
            have,
            ..OnDisk::default()
        };
        core.activate(now, on_disk, &mut outputs);
        Self {
            core: Some(Box::new(core)),
            addr,
            up: class.up,
            down: class.down.unwrap_or(0),
            shares: class.shares,
            conns: Vec::new(),
            links: FxHashMap::default(),
            dials: VecDeque::new(),
            dialled: 0,
            line: VecDeque::new(),
            sending: None,
            arriving: VecDeque::new(),
            down_free: now,
            blocks: FxHashMap::default(),
            outputs,
            record,
        }
    }

    /// The torrent, while it is here.
    pub fn torrent(&self) -> Option<&Torrent> {
        self.core.as_deref()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections it has.
    pub fn neighbours(&self) -> usize {
        self.links.len()
    }

    /// The tracker's answer.
    pub(super) fn on_tracker(&mut self, ctx: &mut Context<'_, Self>, peers: &[SocketAddr]) {
        if let Some(core) = &mut self.core {
            core.on_peers(ctx.now(), Sources::TRACKER, peers);
        }
        self.settle(ctx);
    }

    /// It leaves, and closes its connections.
    pub(super) fn leave(&mut self, ctx: &mut Context<'_, Self>) {
        for conn in self.conns.iter().flatten() {
            send(ctx, conn.node, conn.link, Packet::Bye);
        }
        for (_, link, addr) in &self.dials {
            if let Some(node) = node_of(*addr) {
                send(ctx, node, *link, Packet::Bye);
            }
        }
        self.record.left = Some(ctx.now());
        if let Some(mut core) = self.core.take() {
            self.record.wasted = core.figures(ctx.now()).wasted;
        }
        self.conns = Vec::new();
        self.links = FxHashMap::default();
        self.dials = VecDeque::new();
        self.line = VecDeque::new();
        self.arriving = VecDeque::new();
        self.sending = None;
        self.blocks = FxHashMap::default();
    }

    /// Lets the torrent act, then carries out what it wants.
    fn drive(
        &mut self,
        ctx: &mut Context<'_, Self>,
        act: impl FnOnce(&mut Torrent, Time, &mut Vec<Output>),
    ) {
        if let Some(core) = &mut self.core {
            act(core, ctx.now(), &mut self.outputs);
        }
        self.settle(ctx);
    }

    fn settle(&mut self, ctx: &mut Context<'_, Self>) {
        while !self.outputs.is_empty() {
            for output in std::mem::take(&mut self.outputs) {
                self.carry_out(ctx, output);
            }
        }
        self.transmit(ctx.now());
    }

    fn carry_out(&mut self, ctx: &mut Context<'_, Self>, output: Output) {
        match output {
            Output::Wake(conn) => self.on_wake(ctx, conn),
            Output::Close { conn, why } => {
                if matches!(why, CloseReason::Protocol(_) | CloseReason::Corrupt) {
                    self.record.faults += 1;
                }
                if let Some((node, link)) = self.forget(conn) {
                    send(ctx, node, link, Packet::Bye);
                }
                if let Some(core) = &mut self.core {
                    core.on_disconnected(ctx.now(), conn, &mut self.outputs);
                }
            }
            Output::Connect(addr) => self.dial(ctx, addr),
            // Its answer will find no dial, and be closed.
            Output::GiveUpDial(addr) => self.dials.retain(|d| d.2 != addr),
            Output::Have(piece) => {
                self.record.first_piece.get_or_insert(ctx.now());
                ctx.tell(News::Have(piece));
            }
            Output::Finished => {
                self.record.finished.get_or_insert(ctx.now());
                ctx.tell(News::Finished);
            }
            Output::Banned(_) | Output::BadMetadata(_) => self.record.faults += 1,
            Output::Metadata(_)
            | Output::RangeRequest { .. }
            | Output::RangeDrop { .. }
            | Output::DhtNode(_) => {}
        }
    }

    fn on_wake(&mut self, ctx: &mut Context<'_, Self>, id: ConnId) {
        let (Some(core), Some(Some(conn))) = (&mut self.core, self.conns.get_mut(id as usize))
        else {
            return;
        };
        let mut bytes = core.take_control(ctx.now(), id);
        if !self.shares {
            bytes = without_service(&bytes);
        }
        if !bytes.is_empty() {
            send(ctx, conn.node, conn.link, Packet::Control(bytes));
        }
        if self.shares && !conn.queued && conn.may_send() && core.has_output(id) {
            conn.queued = true;
            self.line.push_back(id);
        }
    }

    fn dial(&mut self, ctx: &mut Context<'_, Self>, addr: SocketAddr) {
        let Some(core) = &mut self.core else { return };
        let Some(node) = node_of(addr) else {
            return core.on_dial_failed(ctx.now(), addr);
        };
        let link = u64::from(ctx.me()) << 32 | self.dialled;
        self.dialled += 1;
        self.dials.push_back((ctx.now() + DIAL_TIMEOUT, link, addr));
        let hello = Packet::Hello(Box::new(core.handshake()), self.down > 0);
        send(ctx, node, link, hello);
    }

    /// Notes a new connection; gives its number.
    fn note(&mut self, node: u32, link: u64, paced: bool) -> ConnId {
        let id = self.conns.len() as ConnId;
        self.conns.push(Some(Conn {
            node,
            link,
            queued: false,
            paced,
            under_way: 0,
        }));
        self.links.insert(link, id);
        id
    }

    /// Strikes a connection off; gives whom it was to.
    fn forget(&mut self, id: ConnId) -> Option<(u32, u64)> {
        let conn = self.conns.get_mut(id as usize)?.take()?;
        self.links.remove(&conn.link);
        Some((conn.node, conn.link))
    }

    /// Puts the next block on the uplink if that is free.
    fn transmit(&mut self, now: Time) {
        let Some(core) = &mut self.core else { return };
        let mut block = Vec::new();
        while self.sending.is_none() && self.up > 0 {
            let Some(id) = self.line.pop_front() else {
                return;
            };
            core.next_uploads(id, 1, &mut block);
            let Some(Some(conn)) = self.conns.get_mut(id as usize) else {
                continue;
            };
            match block.pop() {
                Some(block) => {
                    self.sending = Some((now + transmission(block.len, self.up), id, block));
                }
                None => conn.queued = false,
            }
        }
    }

    /// A block has left the uplink.
    fn on_sent(&mut self, ctx: &mut Context<'_, Self>, id: ConnId, block: Block) {
        let Some(core) = &mut self.core else { return };
        let Some(Some(conn)) = self.conns.get_mut(id as usize) else {
            return;
        };
        core.on_uploaded(ctx.now(), id, u64::from(block.len));
        let by_seed = core.is_finished();
        self.record.given += u64::from(block.len);
        if !by_seed {
            self.record.given_as_leecher += u64::from(block.len);
        }
        conn.under_way += 1;
        conn.queued = conn.may_send() && core.has_output(id);
        if conn.queued {
            self.line.push_back(id);
        }
        send(ctx, conn.node, conn.link, Packet::Block { block, by_seed });
    }

    fn on_control(&mut self, ctx: &mut Context<'_, Self>, id: ConnId, bytes: &[u8]) {
        let limits = match &self.core {
            Some(core) => core.wire_limits(),
            None => return,
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let Ok(Some((message, used))) = wire::decode(rest, &limits) else {
                self.record.faults += 1;
                return;
            };
            self.drive_message(ctx, id, &message);
            rest = rest.get(used..).unwrap_or(&[]);
        }
        self.settle(ctx);
    }

    fn drive_message(&mut self, ctx: &mut Context<'_, Self>, id: ConnId, message: &Message<'_>) {
        if let Some(core) = &mut self.core {
            core.on_message(ctx.now(), id, message, &mut self.outputs);
        }
    }

    /// A block is at the end of the downlink.
    fn on_block(&mut self, ctx: &mut Context<'_, Self>, id: ConnId, block: Block, by_seed: bool) {
        if by_seed {
            self.record.from_seeds += u64::from(block.len);
        } else {
            self.record.from_leechers += u64::from(block.len);
        }
        let mut complete = false;
        if let Some(core) = &mut self.core
            && core.on_block(ctx.now(), id, block, &mut self.outputs)
        {
            let all = core
                .info()
                .map_or(0, |info| info.geometry().blocks(block.piece));
            let there = self.blocks.entry(block.piece).or_default();
            *there += 1;
            complete = *there == all;
        }
        if complete {
            self.blocks.remove(&block.piece);
            let outcome = PieceOutcome::Verified { digests: None };
            self.drive(ctx, |core, now, out| {
                core.on_piece(now, block.piece, &outcome, out);
            });
        } else {
            self.settle(ctx);
        }
    }
}

impl Process for Peer {
    type Space = Direct;
    type Message = Segment;
    type Event = News;

    fn on_start(&mut self, ctx: &mut Context<'_, Self>) {
        self.settle(ctx);
    }

    fn on_message(&mut self, ctx: &mut Context<'_, Self>, from: u32, segment: Segment) {
        let link = segment.link;
        let known = self.links.get(&link).copied();
        match (segment.packet, known) {
            (Packet::Hello(theirs, paced), None) => {
                let Some(core) = &self.core else { return };
                let welcome = Packet::Welcome(Box::new(core.handshake()), self.down > 0);
                send(ctx, from, link, welcome);
                let id = self.note(from, link, paced);
                // The port a peer dials from is not the one it listens on.
                let port = FIRST_SOURCE_PORT + (link % 20_000) as u16;
                let source = SocketAddr::new(address(from).ip(), port);
                self.drive(ctx, |core, now, out| {
                    core.on_connected(now, id, source, false, &theirs, out);
                });
            }
            (Packet::Welcome(theirs, paced), None) => {
                let Some(at) = self.dials.iter().position(|d| d.1 == link) else {
                    return send(ctx, from, link, Packet::Bye);
                };
                let Some((_, _, addr)) = self.dials.remove(at) else {
                    return;
                };
                let id = self.note(from, link, paced);
                self.drive(ctx, |core, now, out| {
                    core.on_connected(now, id, addr, true, &theirs, out);
                });
            }
            (Packet::Control(bytes), Some(id)) => self.on_control(ctx, id, &bytes),
            (Packet::Block { block, by_seed }, Some(id)) => {
                if self.down == 0 {
                    return self.on_block(ctx, id, block, by_seed);
                }
                let begin = self.down_free.max(ctx.now());
                self.down_free = begin + transmission(block.len, self.down);
                self.arriving
                    .push_back((self.down_free, id, block, by_seed));
            }
            (Packet::Credit, Some(id)) => {
                if let Some(Some(conn)) = self.conns.get_mut(id as usize) {
                    conn.under_way = conn.under_way.saturating_sub(1);
                }
                self.on_wake(ctx, id);
                self.transmit(ctx.now());
            }
            (Packet::Bye, Some(id)) => {
                self.forget(id);
                self.drive(ctx, |core, now, out| core.on_disconnected(now, id, out));
            }
            // What was under way when the connection closed.
            _ => {}
        }
    }

    fn on_tick(&mut self, ctx: &mut Context<'_, Self>) {
        let now = ctx.now();
        if let Some((_, id, block)) = self.sending.take_if(|s| s.0 <= now) {
            self.on_sent(ctx, id, block);
        }
        while let Some((_, id, block, by_seed)) = pop_due(&mut self.arriving, now, |a| a.0) {
            if let Some(Some(conn)) = self.conns.get(id as usize) {
                send(ctx, conn.node, conn.link, Packet::Credit);
            }
            self.on_block(ctx, id, block, by_seed);
        }
        while let Some((_, _, addr)) = pop_due(&mut self.dials, now, |d| d.0) {
            self.drive(ctx, |core, now, _| core.on_dial_failed(now, addr));
        }
        self.drive(ctx, |core, now, out| {
            if core.deadline() <= now {
                core.on_tick(now, out);
            }
        });
    }

    fn deadline(&self) -> Option<Time> {
        let core = self.core.as_ref()?.deadline();
        let line = earliest(
            self.sending.as_ref().map(|s| s.0),
            self.arriving.front().map(|a| a.0),
        );
        let dials = self.dials.front().map(|d| d.0);
        earliest(Some(core), earliest(line, dials))
    }
}

/// The wire's own overhead is not counted: rates are of payload.
fn send(ctx: &mut Context<'_, Peer>, node: u32, link: u64, packet: Packet) {
    ctx.send_stream(node, Segment { link, packet }, 0);
}

fn transmission(bytes: u32, rate: u64) -> Duration {
    Duration::from_micros(u64::from(bytes) * 1_000_000 / rate.max(1))
}

fn pop_due<T>(queue: &mut VecDeque<T>, now: Time, at: impl Fn(&T) -> Time) -> Option<T> {
    if at(queue.front()?) <= now {
        queue.pop_front()
    } else {
        None
    }
}
