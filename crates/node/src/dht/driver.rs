//! The thread: datagrams, commands and the clock in; datagrams and answers out.

use super::{ByOverlay, DhtConfig, DhtStatus, Overlay, Sink, Ticket};
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};
use shoal_base::Time;
use shoal_dht::{Answer, OpId, Output, Request};
use shoal_reach::overlay::overlay;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) const WAKER: Token = Token(usize::MAX);

/// Datagrams taken from a socket before the clock and the other socket have their turn.
const PER_TURN: usize = 256;
/// Longest datagram there can be.
const MAX_DATAGRAM: usize = 65_536;
/// How often contacts are stored.
const SAVE: Duration = Duration::from_secs(300);
/// How long what a node says at its end may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// How often it is asked whether names are to be looked up again.
const LOOK_UP: Duration = Duration::from_secs(30);

/// What the thread is told.
pub(super) enum Command {
    Request(Ticket, Box<Request>),
    Cancel(Ticket),
    Contacts(Vec<SocketAddr>),
    /// Names were looked up; what they stand for.
    LookedUp(Vec<SocketAddr>),
    Status(Sender<DhtStatus>),
    Stop,
}

/// How the thread hears and tells.
pub(super) struct Links {
    pub(super) inbox: Receiver<Command>,
    /// For its own helpers to tell it something.
    pub(super) back: (Sender<Command>, Arc<Waker>),
    pub(super) sink: Sink,
}

pub(super) struct Driver {
    config: DhtConfig,
    poll: Poll,
    /// Each with whether it is of IPv4.
    sockets: Vec<(bool, UdpSocket)>,
    /// Instead of sockets.
    reached: Option<ByOverlay>,
    core: Box<dyn Overlay>,
    links: Links,
    started: Instant,
    /// Operations under way, by both names.
    ops: BTreeMap<OpId, Ticket>,
    tickets: BTreeMap<Ticket, OpId>,
    /// Tickets of operations that end with their first [`Answer::Done`].
    once: BTreeSet<Ticket>,
    out: Vec<Output>,
    save_at: Time,
    look_up_at: Time,
    looking_up: bool,
    /// Told to stop: until when goodbyes are exchanged.
    ending: Option<Time>,
    sent: (u64, u64),
    received: (u64, u64),
}

impl Driver {
    pub(super) fn new(
        config: DhtConfig,
        poll: Poll,
        (sockets, reached): (Vec<std::net::UdpSocket>, Option<ByOverlay>),
        core: Box<dyn Overlay>,
        links: Links,
    ) -> io::Result<Self> {
        let mut polled = Vec::new();
        for (n, socket) in sockets.into_iter().enumerate() {
            let mut socket = UdpSocket::from_std(socket);
            let registry = poll.registry();
            registry.register(&mut socket, Token(n), Interest::READABLE)?;
            let is_v4 = socket.local_addr()?.is_ipv4();
            polled.push((is_v4, socket));
        }
        Ok(Self {
            config,
            poll,
            sockets: polled,
            reached,
            core,
            links,
            started: Instant::now(),
            ops: BTreeMap::new(),
            tickets: BTreeMap::new(),
            once: BTreeSet::new(),
            out: Vec::new(),
            save_at: Time::ZERO + SAVE,
            look_up_at: Time::ZERO,
            looking_up: false,
            ending: None,
            sent: (0, 0),
            received: (0, 0),
        })
    }

    fn now(&self) -> Time {
        Time::ZERO + self.started.elapsed()
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(16);
        let mut buf = vec![0; MAX_DATAGRAM];
        let named = self.look_up_literals();
        self.core.add_contacts(Time::ZERO, &named);
        // A socket may hold more than one turn takes.
        let mut more = false;
        loop {
            let now = self.now();
            let due = self
                .core
                .deadline()
                .unwrap_or(Time::FAR)
                .min(self.save_at)
                .min(self.look_up_at)
                .min(self.ending.unwrap_or(Time::FAR));
            let wait = if more { Duration::ZERO } else { due.since(now) };
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "the DHT cannot wait for datagrams");
                return;
            }
            if !self.obey() {
                // What is on its way now is answered, and nothing new begun.
                let now = self.now();
                self.save();
                self.core.leave(now, &mut self.out);
                self.carry_out();
                self.ending = Some(now + GOODBYE);
            }
            if self
                .ending
                .is_some_and(|end| end <= self.now() || self.core.is_done(self.now()))
            {
                return;
            }
            more = false;
            for n in 0..self.sockets.len() {
                more |= self.receive(n, &mut buf);
            }
            more |= self.receive_reached();
            let now = self.now();
            if self.core.deadline().is_some_and(|at| at <= now) {
                self.core.dht().on_tick(now, &mut self.out);
            }
            self.carry_out();
            if now >= self.look_up_at && self.ending.is_none() {
                self.look_up(now);
            }
            if now >= self.save_at {
                self.save_at = now + SAVE;
                self.save();
            }
        }
    }

    /// Takes all commands; false if it is to end.
    fn obey(&mut self) -> bool {
        if self.ending.is_some() {
            return true;
        }
        loop {
            let now = self.now();
            match self.links.inbox.try_recv() {
                Ok(Command::Request(ticket, request)) => self.begin(now, ticket, *request),
                Ok(Command::Cancel(ticket)) => {
                    self.once.remove(&ticket);
                    if let Some(op) = self.tickets.remove(&ticket) {
                        self.ops.remove(&op);
                        self.core.dht().cancel(now, op, &mut self.out);
                    }
                }
                Ok(Command::Contacts(addrs)) => {
                    let usable = self.usable(addrs);
                    self.core.add_contacts(now, &usable);
                }
                Ok(Command::LookedUp(addrs)) => {
                    self.looking_up = false;
                    let usable = self.usable(addrs);
                    self.core.add_contacts(now, &usable);
                }
                Ok(Command::Status(answer)) => {
                    let status = DhtStatus {
                        sent: self.sent,
                        received: self.received,
                        ..self.core.report()
                    };
                    // The asker may have given up waiting.
                    let _ = answer.send(status);
                }
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
            self.carry_out();
        }
    }

    fn begin(&mut self, now: Time, ticket: Ticket, request: Request) {
        let goes_on = matches!(
            request,
            Request::Put { keep: true, .. }
                | Request::Announce { keep: true, .. }
                | Request::Subscribe { .. }
        );
        let op = self.core.dht().request(now, request, &mut self.out);
        self.ops.insert(op, ticket);
        self.tickets.insert(ticket, op);
        if !goes_on {
            self.once.insert(ticket);
        }
    }

    /// Takes what a socket holds; true if it may hold more.
    fn receive(&mut self, n: usize, buf: &mut [u8]) -> bool {
        for _ in 0..PER_TURN {
            let Some((_, socket)) = self.sockets.get(n) else {
                return false;
            };
            match socket.recv_from(buf) {
                Ok((len, from)) => self.heard(from, buf.get(..len).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                // An ICMP error of an earlier datagram: that one is lost.
                Err(_) => {}
            }
        }
        true
    }

    /// Takes what came by the overlay; true if there may be more.
    fn receive_reached(&mut self) -> bool {
        for _ in 0..PER_TURN {
            let came = self.reached.as_ref().map(|(_, came)| came.try_recv());
            let Some(Ok((from, data))) = came else {
                return false;
            };
            self.heard(from, &data);
        }
        true
    }

    fn heard(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.received.0 += 1;
        self.received.1 += datagram.len() as u64;
        let now = self.now();
        let dht = self.core.dht();
        dht.on_datagram(now, from, datagram, &mut self.out);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        self.core.log();
        for output in self.out.drain(..) {
            match output {
                Output::Send { to, bytes } => {
                    if let Some((socket, _)) = &self.reached {
                        if let Some(to) = overlay(to) {
                            socket.send(to, &bytes);
                            self.sent.0 += 1;
                            self.sent.1 += bytes.len() as u64;
                        }
                        continue;
                    }
                    // What cannot be sent is lost, as datagrams are.
                    let socket = self.sockets.iter().find(|(v4, _)| *v4 == to.is_ipv4());
                    if let Some((_, socket)) = socket
                        && socket.send_to(&bytes, to).is_ok()
                    {
                        self.sent.0 += 1;
                        self.sent.1 += bytes.len() as u64;
                    }
                }
                Output::Answer { op, answer } => {
                    let Some(ticket) = self.ops.get(&op).copied() else {
                        continue;
                    };
                    let done = matches!(answer, Answer::Done(_));
                    if done && self.once.remove(&ticket) {
                        self.ops.remove(&op);
                        self.tickets.remove(&ticket);
                    }
                    (self.links.sink)(ticket, answer);
                }
            }
        }
    }

    /// Those addresses for which there is a way.
    fn usable(&self, mut addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
        if self.reached.is_some() {
            addrs.retain(|to| overlay(*to).is_some());
            return addrs;
        }
        addrs.retain(|to| {
            let is_v4 = to.ip().to_canonical().is_ipv4();
            self.sockets.iter().any(|(v4, _)| *v4 == is_v4)
        });
        addrs
    }

    /// Nodes to start from that are given by address.
    fn look_up_literals(&self) -> Vec<SocketAddr> {
        let names = self.config.bootstrap.iter();
        let addrs = names.filter_map(|name| name.parse().ok()).collect();
        self.usable(addrs)
    }

    /// Looks up the names of nodes to start from, on a thread of its own, if that helps.
    fn look_up(&mut self, now: Time) {
        self.look_up_at = now + LOOK_UP;
        let names = self.config.bootstrap.iter();
        let names: Vec<String> = names
            .filter(|name| name.parse::<SocketAddr>().is_err())
            .cloned()
            .collect();
        if self.looking_up || !self.core.wants_contacts() {
            return;
        }
        let known = self.look_up_literals();
        if names.is_empty() {
            if !known.is_empty() {
                self.core.add_contacts(now, &known);
            }
            return;
        }
        let (commands, waker) = self.links.back.clone();
        let spawned = std::thread::Builder::new()
            .name("dht-names".into())
            .stack_size(256 * 1024)
            .spawn(move || {
                let mut found = known;
                for name in names {
                    match name.to_socket_addrs() {
                        Ok(addrs) => found.extend(addrs),
                        Err(error) => tracing::debug!(name, %error, "cannot look up a DHT node"),
                    }
                }
                if commands.send(Command::LookedUp(found)).is_ok() {
                    let _ = waker.wake();
                }
            });
        self.looking_up = spawned.is_ok();
    }

    fn save(&self) {
        let Some(path) = &self.config.contacts else {
            return;
        };
        // A node that met nobody has nothing to add to what is there.
        if self.core.report().contacts == 0 {
            return;
        }
        if let Err(error) = shoal_store::snapshot::save(path, &self.core.save()) {
            tracing::warn!(path = %path.display(), %error, "cannot store the DHT's contacts");
        }
    }
}
