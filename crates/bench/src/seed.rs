//! A seeder as cheap as sendfile makes it, and with every vice a test may want.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::net::sockopt::set_tcp_cork;
use serde_json::json;
use shoal_base::{InfoHash, PeerId, Rng};
use shoal_content::{BLOCK_LEN, Block, Geometry};

use crate::{Content, print_json, raw};

/// How this peer wrongs others; nothing by default.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Vice {
    /// Send this share of the blocks with a byte changed
    #[arg(long, default_value_t = 0.0)]
    corrupt: f64,
    /// Fall silent after this many blocks
    #[arg(long)]
    stall_after: Option<u64>,
    /// Send nonsense instead of messages
    #[arg(long)]
    noise: bool,
    /// Announce a message of 2 GiB
    #[arg(long)]
    huge: bool,
    /// Send at most this many bytes a second to each peer
    #[arg(long)]
    rate: Option<u64>,
}

/// Serves until killed; prints where it listens, when each peer's first request came, and what it
/// got once it is gone.
pub(crate) fn run(
    content: Content,
    file: &Path,
    listen: SocketAddr,
    vice: Vice,
) -> anyhow::Result<()> {
    let geometry = content.geometry()?;
    let file = Arc::new(File::open(file)?);
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let listener = TcpListener::bind(listen)?;
    print_json(&json!({"event": "listening", "addr": listener.local_addr()?.to_string()}));
    for (n, stream) in (0..).zip(listener.incoming()) {
        let (stream, file, ledger) = (stream?, Arc::clone(&file), Arc::clone(&ledger));
        std::thread::spawn(move || {
            let from = stream.peer_addr();
            let mut visit = Visit {
                number: n,
                vice,
                geometry,
                file: &file,
                ledger: &ledger,
                given: Given::default(),
            };
            let why = visit.serve(stream, content.info_hash).err();
            let given = visit.given;
            if let Ok(mut ledger) = ledger.lock() {
                ledger.left.insert(n, Instant::now());
            }
            print_json(&json!({
                "event": "gone",
                "peer": from.map(|a| a.to_string()).unwrap_or_default(),
                "why": why.map(|e| e.to_string()),
                "blocks": given.blocks,
                "again": given.again,
                "oldest_again_s": given.oldest_again.as_secs_f64(),
            }));
        });
    }
    Ok(())
}

/// Who was given each block last, and when visitors left.
#[derive(Default)]
struct Ledger {
    given: BTreeMap<(u32, u32), (u64, Instant)>,
    left: BTreeMap<u64, Instant>,
}

/// What one visitor was given.
#[derive(Default, Clone, Copy)]
struct Given {
    blocks: u64,
    /// Blocks that a visitor before, gone by then, had been given already.
    again: u64,
    /// The longest that such a block had been given before that visitor left.
    oldest_again: Duration,
}

/// One connection.
struct Visit<'a> {
    number: u64,
    vice: Vice,
    geometry: Geometry,
    file: &'a File,
    ledger: &'a Mutex<Ledger>,
    given: Given,
}

impl Visit<'_> {
    fn serve(&mut self, mut stream: TcpStream, info_hash: InfoHash) -> anyhow::Result<()> {
        let mut rng = Rng::from_seed(self.number);
        stream.set_nodelay(true)?;
        raw::shake_hands(&mut stream, info_hash, PeerId::generate(&mut rng))?;
        if self.vice.noise {
            let mut junk = [0; 4096];
            loop {
                rng.fill(&mut junk);
                stream.write_all(&junk)?;
            }
        }
        let mut out = Vec::new();
        if self.vice.huge {
            out.extend_from_slice(&0x7fff_ffffu32.to_be_bytes());
            out.push(raw::PIECE);
        }
        raw::push_full_bitfield(&mut out, self.geometry.pieces());
        raw::push_plain(&mut out, raw::UNCHOKE);
        stream.write_all(&out)?;

        let mut requests = BufReader::with_capacity(64 * 1024, stream.try_clone()?);
        let mut payload = Vec::new();
        let mut corked = false;
        let mut start = None;
        loop {
            if corked && requests.buffer().is_empty() {
                set_tcp_cork(&stream, false)?;
                corked = false;
            }
            if raw::read_message(&mut requests, &mut payload)? != raw::REQUEST {
                continue;
            }
            let Some(block) = raw::parse_block(&payload).filter(|b| self.geometry.contains(*b))
            else {
                anyhow::bail!("a request outside of the torrent");
            };
            if self
                .vice
                .stall_after
                .is_some_and(|max| self.given.blocks >= max)
            {
                continue;
            }
            let start = *start.get_or_insert_with(|| {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
                let at = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
                print_json(&json!({"event": "asked", "at": at}));
                Instant::now()
            });
            self.pace(start);
            if !corked && self.vice.rate.is_none() {
                set_tcp_cork(&stream, true)?;
                corked = true;
            }
            stream.write_all(&raw::piece_header(block))?;
            if self.vice.corrupt > 0.0 {
                let spoil = rng.chance(self.vice.corrupt);
                send_copy(&mut stream, self.file, self.geometry, block, spoil)?;
            } else {
                send_file(&stream, self.file, self.geometry, block)?;
            }
            self.record(block);
        }
    }

    /// Sleeps until the rate allows one more block.
    fn pace(&self, start: Instant) {
        if let Some(rate) = self.vice.rate {
            let bytes = self.given.blocks * u64::from(BLOCK_LEN);
            let due = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }

    fn record(&mut self, block: Block) {
        self.given.blocks += 1;
        let Ok(mut ledger) = self.ledger.lock() else {
            return;
        };
        let before = ledger
            .given
            .insert((block.piece, block.begin), (self.number, Instant::now()));
        let Some((visitor, at)) = before.filter(|(visitor, _)| *visitor != self.number) else {
            return;
        };
        if let Some(left) = ledger.left.get(&visitor) {
            self.given.again += 1;
            self.given.oldest_again = self
                .given
                .oldest_again
                .max(left.saturating_duration_since(at));
        }
    }
}

fn offset(geometry: Geometry, block: Block) -> u64 {
    geometry.piece_start(block.piece) + u64::from(block.begin)
}

fn send_copy(
    stream: &mut TcpStream,
    file: &File,
    geometry: Geometry,
    block: Block,
    spoil: bool,
) -> anyhow::Result<()> {
    let mut data = vec![0; block.len as usize];
    file.read_exact_at(&mut data, offset(geometry, block))?;
    if spoil && let Some(byte) = data.first_mut() {
        *byte ^= 0x55;
    }
    Ok(stream.write_all(&data)?)
}

fn send_file(
    stream: &TcpStream,
    file: &File,
    geometry: Geometry,
    block: Block,
) -> anyhow::Result<()> {
    let mut at = offset(geometry, block);
    let end = at + u64::from(block.len);
    while at < end {
        let left = (end - at) as usize;
        let sent = rustix::fs::sendfile(stream, file, Some(&mut at), left)?;
        anyhow::ensure!(sent > 0, "the file is shorter than the torrent");
    }
    Ok(())
}
