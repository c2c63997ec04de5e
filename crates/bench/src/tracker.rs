//! Load for trackers: filling one with peers by UDP, and announces by HTTP from several threads.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::json;

use crate::print_json;

/// What a connect request carries instead of an id (BEP 15).
const MAGIC: u64 = 0x0417_2710_1980;
/// Announces under way at once.
const WINDOW: usize = 128;
/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which announces are made.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Crowd {
    /// Where the tracker is
    #[arg(long)]
    tracker: SocketAddr,
    #[arg(long, default_value_t = 1000)]
    torrents: u32,
    /// Peers in all
    #[arg(long, default_value_t = 1_000_000)]
    peers: u32,
}

impl Crowd {
    /// Torrent and port of peer `n`: torrent after torrent, over and over, the port one up each
    /// time. All have one address, which is what a test on one machine has.
    fn peer(&self, n: u32) -> ([u8; 20], u16) {
        let torrent = n % self.torrents;
        // Scrambled, so that info-hashes look like hashes.
        let mut hash = [0; 20];
        let mut state = u64::from(torrent) + 1;
        for chunk in hash.chunks_mut(4) {
            state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (state >> 29);
            chunk.copy_from_slice(&state.to_be_bytes()[..4]);
        }
        (hash, 1 + (n / self.torrents) as u16)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.torrents > 0, "no torrents");
        let ports = self.peers.div_ceil(self.torrents);
        ensure!(ports < 65_536, "a torrent has room for 65,535 peers");
        Ok(())
    }
}

/// Announces every peer of `crowd` once by UDP; lost ones again.
pub(crate) fn fill(crowd: Crowd) -> anyhow::Result<()> {
    crowd.check()?;
    let started = Instant::now();
    let local: SocketAddr = if crowd.tracker.is_ipv4() {
        ([127, 0, 0, 1], 0).into()
    } else {
        ([0, 0, 0, 0, 0, 0, 0, 1u16], 0).into()
    };
    let socket = UdpSocket::bind(local)?;
    socket.connect(crowd.tracker)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut connection = connect(&socket)?;
    let mut connected = Instant::now();
    let (mut failed, mut told) = (0u64, 0u64);
    let mut buf = [0; 2048];
    for first in (0..crowd.peers).step_by(WINDOW) {
        let mut waiting: Vec<u32> = (first..crowd.peers).take(WINDOW).collect();
        let mut tries = 0;
        while !waiting.is_empty() {
            tries += 1;
            ensure!(tries < 10, "the tracker does not answer");
            if connected.elapsed() > Duration::from_secs(50) {
                connection = connect(&socket)?;
                connected = Instant::now();
            }
            for n in &waiting {
                socket.send(&announce(connection, *n, crowd.peer(*n)))?;
            }
            while !waiting.is_empty() {
                let len = match socket.recv(&mut buf) {
                    Ok(len) => len,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => return Err(e).context("receiving from the tracker"),
                };
                let reply = &buf[..len];
                ensure!(len >= 8, "a reply of {len} bytes");
                let number = u32::from_be_bytes([reply[4], reply[5], reply[6], reply[7]]);
                let before = waiting.len();
                waiting.retain(|n| *n != number);
                if waiting.len() < before {
                    failed += u64::from(reply[3] != 1);
                    told += (len.saturating_sub(20) / 6) as u64;
                }
            }
        }
    }
    print_json(&json!({
        "peers": crowd.peers,
        "torrents": crowd.torrents,
        "seconds": started.elapsed().as_secs_f64(),
        "refused": failed,
        "peers_told": told,
    }));
    Ok(())
}

fn connect(socket: &UdpSocket) -> anyhow::Result<u64> {
    let mut request = MAGIC.to_be_bytes().to_vec();
    request.extend([0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let mut buf = [0; 2048];
    for _ in 0..5 {
        socket.send(&request)?;
        // Late replies to announces may come first.
        while let Ok(len) = socket.recv(&mut buf) {
            if len == 16 && buf[..8] == [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff] {
                let mut id = [0; 8];
                id.copy_from_slice(&buf[8..16]);
                return Ok(u64::from_be_bytes(id));
            }
        }
    }
    bail!("the tracker gives no connection id")
}

fn announce(connection: u64, transaction: u32, (hash, port): ([u8; 20], u16)) -> Vec<u8> {
    let mut out = Vec::with_capacity(98);
    out.extend(connection.to_be_bytes());
    out.extend(1u32.to_be_bytes());
    out.extend(transaction.to_be_bytes());
    out.extend(hash);
    out.extend(*b"-BE0000-000000000000");
    for number in [0u64, 1, 0] {
        out.extend(number.to_be_bytes());
    }
    // Started; no address of its own; no key; fifty peers.
    for number in [2u32, 0, 0, 50] {
        out.extend(number.to_be_bytes());
    }
    out.extend(port.to_be_bytes());
    out
}

/// How announces by HTTP are made.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct HttpLoad {
    #[command(flatten)]
    crowd: Crowd,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[arg(long, default_value_t = 8)]
    threads: u32,
    /// A new connection for every announce, as most clients make it
    #[arg(long)]
    close: bool,
}

/// Announces by HTTP for a while.
pub(crate) fn http(load: HttpLoad) -> anyhow::Result<()> {
    load.crowd.check()?;
    let started = Instant::now();
    let threads: Vec<_> = (0..load.threads)
        .map(|n| thread::spawn(move || client(load, n)))
        .collect();
    let (mut answered, mut failed, mut connections) = (0, 0, 0);
    for thread in threads {
        let Ok(counts) = thread.join() else {
            bail!("a thread panicked");
        };
        answered += counts.0;
        failed += counts.1;
        connections += counts.2;
    }
    print_json(&json!({
        "answered": answered,
        "failed": failed,
        "connections": connections,
        "seconds": started.elapsed().as_secs_f64(),
    }));
    Ok(())
}

/// Answers, failures, connections.
fn client(load: HttpLoad, thread: u32) -> (u64, u64, u64) {
    let end = Instant::now() + Duration::from_secs_f64(load.seconds);
    let (mut answered, mut failed, mut connections) = (0, 0, 0);
    let mut stream = None;
    let mut buf = vec![0; 16 * 1024];
    let mut n = thread;
    while Instant::now() < end {
        n = (n + load.threads) % load.crowd.peers;
        let request = get(load, n);
        let open = stream.take().map_or_else(
            || {
                connections += 1;
                let stream = TcpStream::connect_timeout(&load.crowd.tracker, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                Ok(stream)
            },
            Ok::<_, std::io::Error>,
        );
        let Ok(mut open) = open else {
            failed += 1;
            continue;
        };
        match exchange(&mut open, &request, &mut buf) {
            Some(keep) => {
                answered += 1;
                if keep && !load.close {
                    stream = Some(open);
                }
            }
            None => failed += 1,
        }
    }
    (answered, failed, connections)
}

fn get(load: HttpLoad, n: u32) -> String {
    let (hash, port) = load.crowd.peer(n);
    let hash: String = hash.iter().map(|b| format!("%{b:02x}")).collect();
    let connection = if load.close { "close" } else { "keep-alive" };
    format!(
        "GET /announce?info_hash={hash}&peer_id=-BE0000-000000000000&port={port}&uploaded=0\
         &downloaded=0&left=1&compact=1&numwant=50&event=started HTTP/1.1\r\n\
         Host: tracker\r\nConnection: {connection}\r\n\r\n"
    )
}

/// Sends a request and reads its reply whole; whether the connection stays.
fn exchange(stream: &mut TcpStream, request: &str, buf: &mut [u8]) -> Option<bool> {
    stream.write_all(request.as_bytes()).ok()?;
    let mut len = 0;
    loop {
        let read = stream.read(buf.get_mut(len..)?).ok()?;
        len += read;
        let text = buf.get(..len)?;
        let head = text.windows(4).position(|w| w == b"\r\n\r\n");
        if let Some(head) = head {
            let fields = String::from_utf8_lossy(&text[..head]).to_ascii_lowercase();
            let length = fields.split("content-length:").nth(1);
            let length = length.and_then(|l| l.lines().next()?.trim().parse::<usize>().ok());
            let whole = length.map(|length| head + 4 + length);
            let body = &text[head + 4..];
            let refused = body.starts_with(b"d14:failure reason");
            let ok = fields.contains(" 200 ") && body.starts_with(b"d") && !refused;
            if whole.is_some_and(|whole| len >= whole) {
                let keep = fields.starts_with("http/1.1") && !fields.contains("connection: close");
                return ok.then_some(keep);
            }
            if read == 0 {
                return (ok && whole.is_none()).then_some(false);
            }
        } else if read == 0 {
            return None;
        }
    }
}
