//! A downloader that costs next to nothing: asks for everything, throws it away in the kernel.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use rustix::net::{RecvFlags, recv};
use serde_json::json;
use shoal_base::{PeerId, Rng};
use shoal_content::{Block, Geometry};

use crate::{Content, print_json, raw};

/// Fetches all blocks once; prints how long it took from the first unchoke to the last byte.
pub(crate) fn run(content: Content, peer: SocketAddr, pipeline: usize) -> anyhow::Result<()> {
    let geometry = content.geometry()?;
    let start = Instant::now();
    let mut stream = TcpStream::connect(peer)?;
    stream.set_nodelay(true)?;
    let mut rng = Rng::from_seed(u64::from(std::process::id()));
    raw::shake_hands(&mut stream, content.info_hash, PeerId::generate(&mut rng))?;
    let mut hello = Vec::new();
    raw::push_plain(&mut hello, raw::INTERESTED);
    stream.write_all(&hello)?;

    let mut todo: VecDeque<Block> = VecDeque::new();
    let mut blocks = all_blocks(geometry);
    let mut open: VecDeque<Block> = VecDeque::new();
    let mut choked = true;
    let mut unchoked_at = None;
    let mut received = 0u64;
    let mut scratch = vec![0; 64 * 1024];
    let mut out = Vec::new();
    while received < geometry.total_len() {
        // Asks in batches of half the pipeline, so that a batch is one packet.
        if !choked && open.len() <= pipeline / 2 {
            out.clear();
            while open.len() < pipeline {
                let Some(block) = todo.pop_front().or_else(|| blocks.next()) else {
                    break;
                };
                raw::push_request(&mut out, block);
                open.push_back(block);
            }
            stream.write_all(&out)?;
        }
        let mut head = [0; 5];
        stream.read_exact(&mut head[..4])?;
        let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        if len == 0 {
            continue;
        }
        stream.read_exact(&mut head[4..])?;
        let mut body = len as usize - 1;
        match head[4] {
            raw::CHOKE => {
                choked = true;
                todo.extend(open.drain(..));
            }
            raw::UNCHOKE => {
                choked = false;
                unchoked_at.get_or_insert_with(Instant::now);
            }
            raw::PIECE => {
                let mut at = [0; 8];
                stream.read_exact(&mut at)?;
                body = body.saturating_sub(8);
                received += body as u64;
                let piece = u32::from_be_bytes([at[0], at[1], at[2], at[3]]);
                let begin = u32::from_be_bytes([at[4], at[5], at[6], at[7]]);
                // Answers come in order, so the search ends at once.
                match open
                    .iter()
                    .position(|b| (b.piece, b.begin) == (piece, begin))
                {
                    Some(n) => open.remove(n),
                    None => anyhow::bail!("a block nobody asked for: piece {piece} at {begin}"),
                };
            }
            _ => {}
        }
        discard(&stream, &mut scratch, body)?;
    }
    let unchoked_at = unchoked_at.unwrap_or(start);
    print_json(&json!({
        "bytes": received,
        "seconds": unchoked_at.elapsed().as_secs_f64(),
        "seconds_with_handshake": start.elapsed().as_secs_f64(),
    }));
    Ok(())
}

fn all_blocks(geometry: Geometry) -> impl Iterator<Item = Block> {
    (0..geometry.pieces())
        .flat_map(move |p| (0..geometry.blocks(p)).map(move |n| geometry.block(p, n)))
}

/// Drops `left` bytes of the stream; `MSG_TRUNC` keeps them from being copied (tcp(7)).
fn discard(stream: &TcpStream, scratch: &mut [u8], mut left: usize) -> anyhow::Result<()> {
    while left > 0 {
        let want = left.min(scratch.len());
        let (_, got) = recv(stream, &mut scratch[..want], RecvFlags::TRUNC)?;
        anyhow::ensure!(got > 0, "the peer closed the connection");
        left -= got;
    }
    Ok(())
}
