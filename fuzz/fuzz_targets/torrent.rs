//! A whole torrent hears arbitrary messages from three peers, in pieces of arbitrary length and
//! with time passing: it may close their connections, but never panics and never asks for what
//! does not exist.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_base::bencode::Encoder;
use shoal_base::{Bitfield, InfoHash, PeerId, Rng, Time};
use shoal_bittorrent::choker::Choking;
use shoal_bittorrent::handshake::{Handshake, Reserved};
use shoal_bittorrent::torrent::{OnDisk, Output, Torrent, TorrentConfig};
use shoal_bittorrent::wire::{self, Message};
use shoal_content::download::{Mode, PieceOutcome};
use shoal_content::{Block, Info};
use std::time::Duration;

const PIECE_LEN: u32 = 65_536;
const LEN: u64 = 5 * PIECE_LEN as u64 + 20_000;

fn info() -> Info {
    let mut e = Encoder::new();
    e.dict(|d| {
        d.key("length").int(LEN as i64);
        d.key("name").bytes("content");
        d.key("piece length").int(i64::from(PIECE_LEN));
        d.key("pieces").bytes([7; 120]);
    });
    Info::parse(&e.into_bytes()).expect("a valid info dictionary")
}

struct World {
    core: Torrent,
    now: Time,
    out: Vec<Output>,
    open: Vec<u32>,
}

impl World {
    fn settle(&mut self) {
        while let Some(output) = self.out.pop() {
            match output {
                Output::Close { conn, .. } => {
                    self.open.retain(|c| *c != conn);
                    self.core.on_disconnected(self.now, conn, &mut self.out);
                }
                Output::Connect(addr) => self.core.on_dial_failed(self.now, addr),
                Output::Wake(conn) => {
                    let bytes = self.core.take_control(self.now, conn);
                    let mut rest = &bytes[..];
                    while let Some((message, used)) =
                        wire::decode(rest, &wire::Limits::default()).expect("we speak correctly")
                    {
                        if let Message::Request(block) = message {
                            assert!(info().geometry().is_block(block), "asked for {block:?}");
                        }
                        rest = &rest[used..];
                    }
                    assert!(rest.is_empty(), "half a message was sent");
                    self.core.next_uploads(conn, 8, &mut Vec::new());
                }
                _ => {}
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((flags, mut input)) = input.split_first() else {
        return;
    };
    let info = info();
    let pieces = info.geometry().pieces();
    let config = TorrentConfig {
        max_peers: 10,
        max_half_open: 4,
        listen_port: Some(1),
        up_limit: None,
        mode: if flags & 1 != 0 { Mode::Sequential } else { Mode::default() },
        choking: Choking::default(),
        client: "fuzz".into(),
    };
    let now = Time::from_secs(1);
    let (id, rng) = (PeerId([1; 20]), Rng::from_seed(1));
    let mut out = Vec::new();
    let core = if flags & 2 != 0 {
        Torrent::with_hash(now, config, id, InfoHash([3; 20]), rng)
    } else {
        let mut core = Torrent::with_info(now, config, id, info, rng);
        let have = if flags & 4 != 0 { Bitfield::full(pieces) } else { Bitfield::new(pieces) };
        core.activate(now, OnDisk { have, ..OnDisk::default() }, &mut out);
        core
    };
    let mut world = World { core, now, out, open: Vec::new() };
    for conn in 1..=3u32 {
        let theirs = Handshake {
            info_hash: world.core.info_hash(),
            peer_id: PeerId([conn as u8 + 9; 20]),
            reserved: Reserved { extension: true, fast: conn != 2, ..Reserved::default() },
        };
        let addr = ([10, 0, 0, conn as u8], 1000).into();
        world.open.push(conn);
        world.core.on_connected(world.now, conn, addr, conn == 1, &theirs, &mut world.out);
        world.settle();
    }
    while let Some((head, rest)) = input.split_first_chunk::<2>() {
        let conn = u32::from(head[0] % 3) + 1;
        world.now = world.now + Duration::from_millis(u64::from(head[1]) * 20);
        input = rest;
        match wire::decode(input, &world.core.wire_limits()) {
            Ok(Some((message, used))) => {
                if world.open.contains(&conn) {
                    if let Message::Piece { piece, begin, data } = message {
                        let block = Block { piece, begin, len: data.len() as u32 };
                        if world.core.on_block(world.now, conn, block, &mut world.out) {
                            let outcome = if head[0] & 0x80 != 0 {
                                PieceOutcome::Corrupt { digests: vec![[head[1]; 20]; 4] }
                            } else {
                                PieceOutcome::Verified { digests: None }
                            };
                            world.core.on_piece(world.now, piece, &outcome, &mut world.out);
                        }
                    } else {
                        world.core.on_message(world.now, conn, &message, &mut world.out);
                    }
                }
                input = &input[used..];
            }
            Ok(None) => return,
            Err(_) => input = &input[input.len().min(1)..],
        }
        world.settle();
        if world.core.deadline() <= world.now {
            world.core.on_tick(world.now, &mut world.out);
            world.settle();
        }
    }
});
