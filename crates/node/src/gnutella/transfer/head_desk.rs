//! The socket for asking hosts by datagrams what they have for us.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

/// Answers that nobody has taken yet; further ones are lost, as datagrams are.
const INBOX: usize = 64;
/// How often it is seen that nobody wants more.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes of an answer: fifteen hosts at most, and what is around them.
const MAX: usize = 2048;

/// A socket, and a thread that hears what comes; ends when dropped.
#[derive(Debug)]
pub(super) struct HeadDesk {
    socket: UdpSocket,
    /// From whom, and what.
    pub(super) heard: Receiver<(SocketAddr, Vec<u8>)>,
    stop: Arc<AtomicBool>,
}

impl HeadDesk {
    /// Binds a port at this address, or at any.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(local: Option<IpAddr>) -> io::Result<Self> {
        let ip = local.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let socket = UdpSocket::bind((ip, 0))?;
        socket.set_read_timeout(Some(LOOK))?;
        let (tell, heard) = bounded(INBOX);
        let stop = Arc::new(AtomicBool::new(false));
        let (listening, stopped) = (socket.try_clone()?, Arc::clone(&stop));
        thread::Builder::new()
            .name("gnutella-heads".into())
            .stack_size(128 << 10)
            .spawn(move || {
                let mut buf = [0; MAX];
                while !stopped.load(Ordering::Relaxed) {
                    // A host where nobody listens makes an error of a later call; others may answer.
                    let Ok((n, from)) = listening.recv_from(&mut buf) else {
                        continue;
                    };
                    let bytes = buf.get(..n).unwrap_or_default().to_vec();
                    let _ = tell.try_send((from, bytes));
                }
            })?;
        Ok(Self {
            socket,
            heard,
            stop,
        })
    }

    pub(super) fn send(&self, to: SocketAddr, bytes: &[u8]) {
        // Whoever cannot be asked is unknown, as before.
        let _ = self.socket.send_to(bytes, to);
    }
}

impl Drop for HeadDesk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
