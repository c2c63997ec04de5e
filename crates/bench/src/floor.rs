//! The floors: what the kernel and SHA-1 cost alone, without any protocol.
//!
//! The other end runs in a child process, so that our CPU time is only the measured side's.

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rustix::net::{RecvFlags, recv};
use serde_json::json;
use sha1::{Digest, Sha1};

use crate::print_json;

/// Bytes asked of one recv: what shoal's reactor uses.
const CHUNK: usize = 256 * 1024;

/// recv, SHA-1 and pwrite in one thread.
pub(crate) fn down(file: &Path, out: &Path, piece_len: u32) -> anyhow::Result<()> {
    let total = file.metadata()?.len();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut child = Command::new(std::env::current_exe()?)
        .args([
            "floor-sender",
            "--to",
            &listener.local_addr()?.to_string(),
            "--file",
        ])
        .arg(file)
        .spawn()?;
    let (mut stream, _) = listener.accept()?;
    let out = File::create(out)?;
    let start = Instant::now();
    let cpu = cpu_seconds();
    let mut buf = vec![0; CHUNK];
    let (mut at, mut in_piece, mut hasher, mut mix) = (0u64, 0u32, Sha1::new(), 0u8);
    while at < total {
        let got = stream.read(&mut buf)?;
        anyhow::ensure!(got > 0, "the sender ended early");
        let mut data = &buf[..got];
        out.write_all_at(data, at)?;
        at += got as u64;
        while !data.is_empty() {
            let n = data.len().min((piece_len - in_piece) as usize);
            hasher.update(&data[..n]);
            in_piece += n as u32;
            data = &data[n..];
            if in_piece == piece_len {
                mix ^= hasher.finalize_reset()[0];
                in_piece = 0;
            }
        }
    }
    report(total, start, cpu, mix);
    child.wait()?;
    Ok(())
}

/// sendfile in one thread.
pub(crate) fn up(file: &Path) -> anyhow::Result<()> {
    let total = file.metadata()?.len();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["floor-sink", "--from", &listener.local_addr()?.to_string()])
        .spawn()?;
    let (stream, _) = listener.accept()?;
    let start = Instant::now();
    let cpu = cpu_seconds();
    send_all(&stream, file)?;
    drop(stream);
    report(total, start, cpu, 0);
    child.wait()?;
    Ok(())
}

/// The child of [`down`].
pub(crate) fn sender(file: &Path, to: SocketAddr) -> anyhow::Result<()> {
    send_all(&TcpStream::connect(to)?, file)
}

/// The child of [`up`]: discards in the kernel.
pub(crate) fn sink(from: SocketAddr) -> anyhow::Result<()> {
    let stream = TcpStream::connect(from)?;
    let mut scratch = vec![0; CHUNK];
    while recv(&stream, &mut scratch[..], RecvFlags::TRUNC)?.1 > 0 {}
    Ok(())
}

fn send_all(stream: &TcpStream, file: &Path) -> anyhow::Result<()> {
    let file = File::open(file)?;
    let total = file.metadata()?.len();
    let mut at = 0;
    while at < total {
        let sent = rustix::fs::sendfile(stream, &file, Some(&mut at), 1 << 20)?;
        anyhow::ensure!(sent > 0, "the file shrank");
    }
    Ok(())
}

fn report(total: u64, start: Instant, cpu: f64, mix: u8) {
    let seconds = start.elapsed().as_secs_f64();
    let gib = total as f64 / (1u64 << 30) as f64;
    let cpu = cpu_seconds() - cpu;
    print_json(&json!({
        "bytes": total, "seconds": seconds, "cpu": cpu, "cpu_per_gib": cpu / gib, "mix": mix,
    }));
}

/// CPU seconds of this process so far.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
