//! A seeder as cheap as sendfile makes it, and with every vice a test may want.

use std::fs::File;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use rustix::net::sockopt::set_tcp_cork;
use serde_json::json;
use shoal_base::{PeerId, Rng};
use shoal_content::{Block, Geometry};

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
    /// Announce nonsensical lengths
    #[arg(long)]
    huge: bool,
}

/// Serves until killed; prints the address it listens on.
pub(crate) fn run(
    content: Content,
    file: &Path,
    listen: SocketAddr,
    vice: Vice,
) -> anyhow::Result<()> {
    let geometry = content.geometry()?;
    let file = Arc::new(File::open(file)?);
    let listener = TcpListener::bind(listen)?;
    print_json(&json!({"event": "listening", "addr": listener.local_addr()?.to_string()}));
    for (n, stream) in (0..).zip(listener.incoming()) {
        let (stream, file) = (stream?, Arc::clone(&file));
        std::thread::spawn(move || {
            let from = stream.peer_addr();
            let served = serve(stream, content, geometry, &file, vice, n);
            print_json(&json!({
                "event": "gone",
                "peer": from.map(|a| a.to_string()).unwrap_or_default(),
                "why": served.err().map(|e| e.to_string()),
            }));
        });
    }
    Ok(())
}

fn serve(
    mut stream: TcpStream,
    content: Content,
    geometry: Geometry,
    file: &File,
    vice: Vice,
    n: u64,
) -> anyhow::Result<()> {
    let mut rng = Rng::from_seed(n);
    stream.set_nodelay(true)?;
    raw::shake_hands(&mut stream, content.info_hash, PeerId::generate(&mut rng))?;
    if vice.noise {
        let mut junk = [0; 4096];
        loop {
            rng.fill(&mut junk);
            stream.write_all(&junk)?;
        }
    }
    let mut out = Vec::new();
    if vice.huge {
        out.extend_from_slice(&0x7fff_ffffu32.to_be_bytes());
        out.push(raw::PIECE);
    }
    raw::push_full_bitfield(&mut out, geometry.pieces());
    raw::push_plain(&mut out, raw::UNCHOKE);
    stream.write_all(&out)?;

    let mut requests = BufReader::with_capacity(64 * 1024, stream.try_clone()?);
    let mut payload = Vec::new();
    let mut corked = false;
    let mut served = 0;
    loop {
        if corked && requests.buffer().is_empty() {
            set_tcp_cork(&stream, false)?;
            corked = false;
        }
        if raw::read_message(&mut requests, &mut payload)? != raw::REQUEST {
            continue;
        }
        let Some(block) = raw::parse_block(&payload).filter(|b| geometry.contains(*b)) else {
            anyhow::bail!("a request outside of the torrent");
        };
        if vice.stall_after.is_some_and(|max| served >= max) {
            continue;
        }
        served += 1;
        if !corked {
            set_tcp_cork(&stream, true)?;
            corked = true;
        }
        stream.write_all(&raw::piece_header(block))?;
        if vice.corrupt > 0.0 {
            send_copy(&mut stream, file, geometry, block, rng.chance(vice.corrupt))?;
        } else {
            send_file(&stream, file, geometry, block)?;
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
