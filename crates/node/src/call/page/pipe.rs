//! What carries a browser's packets: sockets on this machine, and the connection of its node.

use crate::call::CallError;
use crate::call::ways::{MOST_SOCKETS, addresses};
use crate::reach::{Bytes, Connection};
use crossbeam_channel::RecvTimeoutError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shoal_call::media::passage::Passage;
use shoal_call::media::pieces::{Joiner, Splitter};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The largest datagram looked at.
const DATAGRAM: usize = 2048;
/// How often it is seen whether the call is over.
const LOOK: Duration = Duration::from_millis(100);
const STACK: usize = 256 << 10;

/// Carries a browser's packets until it is dropped.
#[derive(Debug)]
pub(super) struct Pipe {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    connection: Arc<Connection>,
    sockets: Vec<(UdpSocket, SocketAddr)>,
    /// Where the browser may be: this machine, and where the page is looked at.
    machine: Vec<IpAddr>,
    browser: Arc<Mutex<Option<IpAddr>>>,
    passage: Mutex<Passage>,
    stop: AtomicBool,
}

impl Pipe {
    /// Begins to carry; `browser`: where the page was asked from last, with its token.
    pub(super) fn open(
        connection: Arc<Connection>,
        browser: Arc<Mutex<Option<IpAddr>>>,
    ) -> Result<Self, CallError> {
        let machine = addresses();
        let mut sockets = Vec::new();
        for ip in machine.iter().take(MOST_SOCKETS) {
            // An address that went away just now is done without.
            if let Ok(socket) = UdpSocket::bind((*ip, 0)) {
                socket.set_nonblocking(true)?;
                let at = socket.local_addr()?;
                sockets.push((socket, at));
            }
        }
        if sockets.is_empty() {
            return Err(CallError::Ways("this machine has no address".to_owned()));
        }
        let shared = Arc::new(Shared {
            connection,
            sockets,
            machine,
            browser,
            passage: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let mut pipe = Self {
            shared,
            threads: Vec::new(),
        };
        for carry in [Shared::out, Shared::back] {
            let shared = Arc::clone(&pipe.shared);
            let thread = thread::Builder::new().name("phone-pipe".to_owned());
            let started = thread.stack_size(STACK).spawn(move || carry(&shared))?;
            pipe.threads.push(started);
        }
        Ok(pipe)
    }

    /// Where the browser finds the other end.
    pub(super) fn at(&self) -> Vec<SocketAddr> {
        self.shared.sockets.iter().map(|s| s.1).collect()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of a call broke");
            }
        }
    }
}

impl Shared {
    fn over(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn is_browser(&self, ip: IpAddr) -> bool {
        let seen = || *self.browser.lock().unwrap_or_else(PoisonError::into_inner);
        self.machine.contains(&ip) || seen() == Some(ip)
    }

    /// From the browser to the other end.
    fn out(&self) {
        let mut buffer = [0; DATAGRAM];
        let mut splitter = Splitter::default();
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(LOOK.subsec_nanos()),
        };
        while !self.over() {
            let mut fds: Vec<_> = self
                .sockets
                .iter()
                .map(|s| PollFd::new(&s.0, PollFlags::IN))
                .collect();
            let _ = poll(&mut fds, Some(&timeout));
            for (place, (socket, _)) in self.sockets.iter().enumerate() {
                // So many at once that the others are looked at in between.
                for _ in 0..64 {
                    let (n, source) = match socket.recv_from(&mut buffer) {
                        Ok(came) => came,
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                        // An ICMP error of something sent earlier.
                        Err(_) => continue,
                    };
                    let packet = buffer.get(..n).unwrap_or_default();
                    if !self.is_browser(source.ip()) {
                        continue;
                    }
                    let mut passage = self.passage.lock().unwrap_or_else(PoisonError::into_inner);
                    let passes = passage.from_browser((place, source), packet);
                    drop(passage);
                    if passes {
                        splitter.split(packet, |piece| {
                            self.connection.send(Bytes::copy_from_slice(piece));
                        });
                    }
                    if self.over() {
                        return;
                    }
                }
            }
        }
    }

    /// From the other end to the browser.
    fn back(&self) {
        let mut joiner = Joiner::default();
        while !self.over() {
            let came = match self.connection.datagrams.recv_timeout(LOOK) {
                Ok(came) => came,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let Some(packet) = joiner.join(&came) else {
                continue;
            };
            let mut passage = self.passage.lock().unwrap_or_else(PoisonError::into_inner);
            let pair = passage.to_browser(&packet);
            drop(passage);
            if let Some((place, to)) = pair
                && let Some((socket, _)) = self.sockets.get(place)
            {
                // What is lost here is lost as on any path.
                let _ = socket.send_to(&packet, to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::tests::nodes;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn a_browsers_packets_go_over_the_connection_and_nobody_elses() {
        let (one, two) = nodes(|letter| letter);
        let connection = one.connect(two.id()).expect("connected");
        let pipe = Pipe::open(Arc::new(connection), Arc::default()).expect("a pipe");
        let at = pipe.at().into_iter().find(|at| at.ip().is_loopback());
        let at = at.expect("a place on loopback");
        let bind = |ip: &str| UdpSocket::bind((ip, 0)).expect("a socket");
        let (browser, stranger) = (bind("127.0.0.1"), bind("127.0.0.9"));
        browser.set_read_timeout(Some(PATIENCE)).expect("set");
        // DTLS by its first byte, and as large as a browser's.
        let (foreign, hello) = ([21; 40], [22; 1200]);
        stranger.send_to(&foreign, at).expect("sent");
        browser.send_to(&[0; 20], at).expect("sent");
        browser.send_to(&hello, at).expect("sent");
        let other = two.arrivals.recv_timeout(PATIENCE).expect("it came");
        let (mut joiner, mut came) = (Joiner::default(), Vec::new());
        while came.len() < 2 {
            let data = other.datagrams.recv_timeout(PATIENCE).expect("a datagram");
            came.extend(joiner.join(&data).map(|p| p.to_vec()));
        }
        assert!(came.contains(&hello.to_vec()) && came.contains(&vec![0; 20]));
        other.send(Bytes::from_static(&[128, 111, 7]));
        let mut buffer = [0; 64];
        let n = browser.recv(&mut buffer).expect("the answer");
        assert_eq!(buffer.get(..n), Some([128, 111, 7].as_slice()));
    }
}
