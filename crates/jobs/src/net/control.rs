//! Control connections: the master's listener, and a worker's way to its master.

use super::auth::{self, Door, Pass, Role, Ways};
use super::guest::{self, Guests, Pace};
use super::{client, data, frame};
use crate::engine::Line;
use crate::engine::master::MasterHandle;
use crate::engine::worker::{Connector, WorkerHandle};
use crossbeam_channel::{Sender, unbounded};
use serde::Serialize;
use shoal_mapreduce::master::Owner;
use shoal_mapreduce::message::{ToMaster, ToWorker};
use std::io::{self, BufReader, BufWriter, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// An end that takes nothing for this long is taken for gone.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// After an error of `accept`, for example no free file descriptor.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Messages on their way out, written by a thread of their own.
pub(super) struct TcpLine<M> {
    queue: Sender<M>,
    stream: TcpStream,
}

impl<M: Serialize + Send + 'static> TcpLine<M> {
    pub(super) fn start(stream: &TcpStream) -> io::Result<Self> {
        let (queue, messages) = unbounded::<M>();
        let out = stream.try_clone()?;
        out.set_write_timeout(Some(WRITE_PATIENCE))?;
        std::thread::Builder::new()
            .name("mr-line".to_owned())
            .stack_size(256 << 10)
            .spawn(move || {
                let mut writer = BufWriter::new(&out);
                for message in &messages {
                    let mut sent = frame::write(&mut writer, &message);
                    // What is there already goes with it.
                    while sent.is_ok()
                        && let Ok(more) = messages.try_recv()
                    {
                        sent = frame::write(&mut writer, &more);
                    }
                    if sent.and_then(|()| writer.flush()).is_err() {
                        break;
                    }
                }
                let _ = writer.flush();
                let _ = out.shutdown(Shutdown::Both);
            })?;
        Ok(Self {
            queue,
            stream: stream.try_clone()?,
        })
    }
}

impl<M: Send> Line<M> for TcpLine<M> {
    fn send(&self, message: M) {
        let _ = self.queue.send(message);
    }

    fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// What is done with somebody who got in: a connection, from where, what for, whose.
type Serve = dyn Fn(TcpStream, IpAddr, Role, Owner) + Send + Sync;

/// Where connections get in, whatever way they came. Clones are the same.
#[derive(Clone)]
pub struct Entrance {
    door: Door,
    guests: Guests,
    serve: Arc<Serve>,
}

impl std::fmt::Debug for Entrance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entrance({:?})", self.door)
    }
}

impl Entrance {
    /// Hears, in a thread of its own, who connected from there.
    pub fn take(&self, mut stream: TcpStream, from: IpAddr) {
        let Some(guest) = self.guests.admit(from) else {
            return;
        };
        let (serve, door) = (Arc::clone(&self.serve), self.door.clone());
        let spawned = std::thread::Builder::new()
            .name("mr-connection".to_owned())
            .stack_size(512 << 10)
            .spawn(move || match auth::accept(&mut stream, from, &door) {
                Ok((role, Owner::Own)) => {
                    drop(guest);
                    serve(stream, from, role, Owner::Own);
                }
                Ok((role, owner)) => {
                    serve(stream, from, role, owner);
                    drop(guest);
                }
                Err(e) => tracing::warn!("refused a connection: {e}"),
            });
        if spawned.is_err() {
            // Out of threads: those that serve others must end first, and nothing tells when one has.
            std::thread::sleep(ACCEPT_REST);
        }
    }
}

/// Accepts connections until it is dropped.
#[derive(Debug)]
pub struct Listener {
    addr: SocketAddr,
    ended: Arc<AtomicBool>,
    entrance: Entrance,
}

fn no_secret(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, what)
}

impl Listener {
    /// Listens, and gives each connection that passes the handshake to `serve` in a thread of its
    /// own.
    ///
    /// # Errors
    /// When the address cannot be had, or a public one is asked for without a secret.
    pub fn start(
        addr: SocketAddr,
        door: Door,
        serve: impl Fn(TcpStream, IpAddr, Role, Owner) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        if !door.may_be_public() && !addr.ip().is_loopback() {
            let what = "without a secret only a loopback address can be listened at";
            return Err(no_secret(what));
        }
        let listener = TcpListener::bind(addr)?;
        let addr = listener.local_addr()?;
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        let entrance = Entrance {
            door,
            guests: Guests::default(),
            serve: Arc::new(serve),
        };
        let taking = entrance.clone();
        std::thread::Builder::new()
            .name("mr-listen".to_owned())
            .spawn(move || {
                for stream in listener.incoming() {
                    if flag.load(Ordering::Relaxed) {
                        return;
                    }
                    let Ok(stream) = stream else {
                        // Out of descriptors, most likely: asking again at once would only spin.
                        std::thread::sleep(ACCEPT_REST);
                        continue;
                    };
                    if let Ok(from) = stream.peer_addr() {
                        taking.take(stream, from.ip());
                    }
                }
            })?;
        Ok(Self {
            addr,
            ended,
            entrance,
        })
    }

    /// Lets those in, too, who come by these ways to the same port; the address that they come to.
    ///
    /// # Errors
    /// When there is no secret, or the port is taken there.
    pub fn open_to(&self, ways: &dyn Ways) -> io::Result<SocketAddr> {
        if !self.entrance.door.may_be_public() {
            return Err(no_secret(
                "without a secret nobody is let in from elsewhere",
            ));
        }
        ways.listen(self.addr.port(), self.entrance.clone())
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the thread up, so that the port is free again.
        let _ = TcpStream::connect_timeout(&self.addr, ACCEPT_REST);
    }
}

/// Serves workers and clients of a master.
///
/// # Errors
/// As for [`Listener::start`].
pub fn listen(addr: SocketAddr, door: Door, master: MasterHandle) -> io::Result<Listener> {
    let strangers = door.takes_strangers();
    Listener::start(addr, door, move |stream, from, role, owner| match role {
        Role::Control => serve_worker(stream, from, &master, owner),
        Role::Client => client::serve(stream, &master, strangers),
        Role::Data => data::serve_master(stream, &master, owner),
    })
}

/// The next message of a worker.
fn next_message(from: &mut impl io::Read, owner: Owner, pace: &mut Pace) -> io::Result<ToMaster> {
    match owner {
        Owner::Own => frame::read(from),
        Owner::Stranger(_) => {
            pace.wait();
            frame::read_up_to(from, guest::MESSAGE_MAX)
        }
    }
}

/// A worker that listens on all addresses of its machine is reached where it comes from.
fn reachable(mut message: ToMaster, ip: IpAddr) -> ToMaster {
    if let ToMaster::Register(hello) = &mut message
        && let Ok(addr) = hello.addr.parse::<SocketAddr>()
        && addr.ip().is_unspecified()
    {
        hello.addr = SocketAddr::new(ip.to_canonical(), addr.port()).to_string();
    }
    message
}

fn serve_worker(stream: TcpStream, peer: IpAddr, master: &MasterHandle, owner: Owner) {
    let Ok(line) = TcpLine::<ToWorker>::start(&stream) else {
        return;
    };
    let link = master.connected(owner, Box::new(line));
    let mut reader = BufReader::new(stream);
    let mut pace = Pace::new();
    loop {
        match next_message(&mut reader, owner, &mut pace) {
            Ok(message) => {
                let message = match owner {
                    Owner::Own => Ok(Some(reachable(message, peer))),
                    Owner::Stranger(key) => guest::tame(message, &key, peer),
                };
                let message = match message {
                    Ok(Some(message)) => message,
                    Ok(None) => continue,
                    Err(why) => {
                        tracing::warn!("a stranger at {peer} is not served: {why}");
                        break;
                    }
                };
                if !master.message(link, message) {
                    break;
                }
            }
            Err(e) => {
                if e.kind() == io::ErrorKind::InvalidData {
                    tracing::warn!("a worker at {peer} sent nonsense: {e}");
                }
                break;
            }
        }
    }
    let _ = reader.get_ref().shutdown(Shutdown::Both);
    master.closed(link);
}

/// A worker's way to its master.
#[derive(Debug)]
pub struct TcpConnector {
    /// The master's address.
    pub master: String,
    /// How it is proved who connects.
    pub pass: Pass,
}

impl Connector for TcpConnector {
    fn connect(&self, line: u64, worker: WorkerHandle) {
        let (master, pass) = (self.master.clone(), self.pass.clone());
        let told = worker.clone();
        let spawned = std::thread::Builder::new()
            .name("mr-control".to_owned())
            .spawn(move || {
                let stream = match auth::connect(&master, Role::Control, &pass) {
                    Ok(stream) => stream,
                    Err(e) => return worker.lost(line, format!("{master}: {e}")),
                };
                match TcpLine::<ToMaster>::start(&stream) {
                    Ok(to) => worker.joined(line, Box::new(to)),
                    Err(e) => return worker.lost(line, e.to_string()),
                }
                let mut reader = BufReader::new(stream);
                loop {
                    match frame::read::<ToWorker>(&mut reader) {
                        Ok(message) => {
                            if !worker.said(line, message) {
                                return;
                            }
                        }
                        Err(e) => {
                            let _ = reader.get_ref().shutdown(Shutdown::Both);
                            return worker.lost(line, format!("{master}: {e}"));
                        }
                    }
                }
            });
        if let Err(e) = spawned {
            told.lost(line, e.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_mapreduce::message::Register;

    #[test]
    fn a_worker_on_all_addresses_is_reached_where_it_comes_from() {
        let seen_as = |addr: &str| {
            let hello = ToMaster::Register(Register {
                instance: 1,
                host: "node1".to_owned(),
                addr: addr.to_owned(),
                slots: 1,
                holds: vec![],
                outputs: vec![],
                running: vec![],
            });
            match reachable(hello, "::ffff:192.0.2.1".parse().expect("an address")) {
                ToMaster::Register(hello) => hello.addr,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(seen_as("0.0.0.0:22"), "192.0.2.1:22");
        assert_eq!(seen_as("[::]:22"), "192.0.2.1:22");
        assert_eq!(seen_as("10.0.0.1:22"), "10.0.0.1:22");
        assert_eq!(seen_as("node1.example:22"), "node1.example:22");
    }
}
