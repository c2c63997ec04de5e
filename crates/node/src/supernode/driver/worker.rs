//! The thread that has the node: links, dials, and what goes between them.

use super::{Input, Looked};
use crate::reach::{WeakOverlay, overlay_of};
use crate::supernode::frames::{Frames, say};
use crate::supernode::place_ring::{Came, PlaceRing};
use crate::supernode::{ask, beyond};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use shoal_base::Time;
use shoal_supernode::Address;
use shoal_supernode::node::{Effect, Event, LinkId, Node};
use shoal_supernode::wire::{Message, Wanted};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::time::Instant;
use std::{io, thread};

/// How long a dial may take, and sending stand still.
const DIAL: Duration = Duration::from_secs(4);
const STALL: Duration = Duration::from_secs(10);
/// Stack of a link's threads.
const STACK: usize = 256 << 10;
/// Messages that may wait for a link; who takes them slower is cut off.
const QUEUE: usize = 1024;
/// Names of children's files that another network is told of, at most.
const MAX_NAMES: usize = 200_000;

pub(super) struct Wire {
    pub(super) stream: TcpStream,
    pub(super) out: Sender<Message<SocketAddr>>,
}

pub(super) struct Core {
    pub(super) node: Node<SocketAddr>,
    pub(super) start: Instant,
    pub(super) list: SocketAddr,
    pub(super) links: BTreeMap<LinkId, Wire>,
    pub(super) overlay: Option<WeakOverlay>,
    pub(super) ring: Option<PlaceRing>,
    /// Never used again, so that a late message finds nobody rather than somebody else.
    pub(super) next: LinkId,
    pub(super) inputs: Sender<Input>,
    pub(super) tell: Sender<Event<SocketAddr>>,
    /// Of what children share.
    pub(super) version: Arc<AtomicU64>,
}

impl Core {
    pub(super) fn now(&self) -> Time {
        let elapsed = self.start.elapsed().as_micros();
        Time::from_micros(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    pub(super) fn run(mut self, inbox: &Receiver<Input>) {
        let mut out = Vec::new();
        self.node.start(self.now(), &mut out);
        self.act(&mut out);
        loop {
            let wait = self.node.deadline().since(self.now());
            let input = inbox.recv_timeout(wait).ok();
            let now = self.now();
            match input {
                Some(Input::Stop) => break,
                Some(input) => self.take(now, input, &mut out),
                None => {}
            }
            if self.node.deadline() <= now {
                self.node.on_tick(now, &mut out);
            }
            self.act(&mut out);
            let version = self.node.children_version();
            self.version.store(version, Ordering::Relaxed);
        }
        self.node.stop(self.now(), &mut out);
        self.act(&mut out);
        // Readers that wait to hand something over find nobody.
        for wire in self.links.values() {
            let _ = wire.stream.shutdown(std::net::Shutdown::Read);
        }
    }

    pub(super) fn take(&mut self, now: Time, input: Input, out: &mut Vec<Effect<SocketAddr>>) {
        match input {
            Input::MayRise(may) => self.node.set_may_rise(may),
            Input::Overlay(overlay) => self.overlay = Some(overlay),
            Input::Connected(dialled, stream, first, host) => {
                let id = self.next;
                self.next = self.next.wrapping_add(1);
                match self.open(id, stream, first) {
                    Ok(()) => self.node.on_connected(now, id, dialled, host, out),
                    Err(_) => {
                        if let Some(addr) = dialled {
                            self.node.on_dial_failed(now, addr, out);
                        }
                    }
                }
            }
            Input::DialFailed(addr) => self.node.on_dial_failed(now, addr, out),
            Input::Message(id, message) => self.node.on_message(now, id, *message, out),
            Input::Closed(id) => {
                self.links.remove(&id);
                self.node.on_closed(now, id, out);
            }
            Input::Listed(entries) => self.node.on_list(now, &entries, out),
            Input::Search(wanted, answer) => {
                let id = match wanted {
                    Wanted::Words(words) => self.node.search(now, &words, out),
                    Wanted::Sha1(sha1) => self.node.seek(now, sha1, out),
                };
                let _ = answer.send(id);
            }
            Input::Push(query, sharer, sha1) => {
                if !self.node.push(now, query, &sharer, sha1, out) {
                    tracing::debug!("a sharer cannot be asked to connect: its hit is forgotten");
                }
            }
            Input::Letter(to, sealed) => {
                if !self.node.write(now, to, sealed, out) {
                    tracing::debug!("a letter has no way to go");
                }
            }
            Input::Renew(token) => self.node.renew(now, token, out),
            Input::Share(file) => self.node.share_more(now, file, out),
            Input::Unshare(path) => self.node.unshare(now, &path, out),
            Input::Stand(standing) => self.node.stand(now, standing, out),
            Input::Elsewhere(id, files) => self.node.found_elsewhere(now, id, files, out),
            Input::OfChildren(wanted, most, answer) => {
                // Whoever asked may not wait any more.
                let _ = answer.send(self.node.of_children(&wanted, most));
            }
            Input::ChildrensNames(answer) => {
                let mut names = Vec::new();
                self.node.each_of_children(|file| {
                    names.push((file.path.clone(), file.sha1));
                    names.len() < MAX_NAMES
                });
                let _ = answer.send(names);
            }
            Input::Look(answer) => {
                let node = &self.node;
                let _ = answer.send(Looked {
                    role: node.role(),
                    home: node.home(),
                    stats: node.stats(),
                });
            }
            Input::Ring(ring) => {
                self.ring = ring.map(|(node, server)| PlaceRing::new(node, server));
                self.node.set_finds(now, self.ring.is_some(), out);
            }
            Input::RingAnswered(ticket, answer) => {
                let came = self.ring.as_mut().and_then(|r| r.answered(ticket, *answer));
                came.into_iter().for_each(|came| self.came(came, out));
            }
            Input::Stop => {}
        }
    }

    /// The ring said something of places.
    pub(super) fn came(&mut self, came: Came, out: &mut Vec<Effect<SocketAddr>>) {
        let now = self.now();
        match came {
            Came::Place(of, place) => self.node.on_place(now, of, place.map(|p| *p), out),
            Came::Unkept(place) => self.node.on_unkept(now, place),
        }
    }

    /// Gives a connection, of which `first` was read, its two threads.
    pub(super) fn open(&mut self, id: LinkId, stream: TcpStream, first: Vec<u8>) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(STALL))?;
        let (out, waiting) = bounded::<Message<SocketAddr>>(QUEUE);
        let mut writing = stream.try_clone()?;
        let mut frames = Frames::after(stream.try_clone()?, first);
        thread::Builder::new()
            .name("supernode-out".into())
            .stack_size(STACK)
            .spawn(move || {
                while let Ok(message) = waiting.recv() {
                    if say(&mut writing, &message).is_err() {
                        break;
                    }
                }
                let _ = writing.shutdown(std::net::Shutdown::Both);
            })?;
        let inputs = self.inputs.clone();
        thread::Builder::new()
            .name("supernode-in".into())
            .stack_size(STACK)
            .spawn(move || {
                while let Ok(Some(message)) = frames.next() {
                    if inputs.send(Input::Message(id, Box::new(message))).is_err() {
                        return;
                    }
                }
                let _ = inputs.send(Input::Closed(id));
            })?;
        self.links.insert(id, Wire { stream, out });
        Ok(())
    }

    pub(super) fn act(&mut self, out: &mut Vec<Effect<SocketAddr>>) {
        let mut todo: std::collections::VecDeque<_> = out.drain(..).collect();
        while let Some(effect) = todo.pop_front() {
            match effect {
                Effect::Dial(addr) => {
                    if !self.dial(addr) {
                        let mut more = Vec::new();
                        self.node.on_dial_failed(self.now(), addr, &mut more);
                        todo.extend(more);
                    }
                }
                Effect::Send(id, message) => {
                    let full =
                        |w: &Wire| matches!(w.out.try_send(message), Err(TrySendError::Full(_)));
                    if self.links.get(&id).is_some_and(full) {
                        self.links.remove(&id);
                        let mut more = Vec::new();
                        self.node.on_closed(self.now(), id, &mut more);
                        todo.extend(more);
                    }
                }
                // The writer sends what waits, then ends the connection.
                Effect::Close(id) => drop(self.links.remove(&id)),
                Effect::AskList => {
                    let list = self.list;
                    self.beside("supernode-list", move |inputs| {
                        match ask::supernodes(list) {
                            Ok(entries) => drop(inputs.send(Input::Listed(entries))),
                            Err(error) => tracing::debug!(%error, "the list of supernodes"),
                        }
                    });
                }
                Effect::Register(said) => {
                    let list = self.list;
                    self.beside("supernode-list", move |_| {
                        if let Err(error) = ask::register(list, said) {
                            tracing::warn!(%error, "the list of supernodes");
                        }
                    });
                }
                Effect::Find(of) => {
                    let none = Some(Came::Place(of, None));
                    let came = self.ring.as_mut().map_or(none, |ring| ring.find(of));
                    let mut more = Vec::new();
                    came.into_iter().for_each(|came| self.came(came, &mut more));
                    todo.extend(more);
                }
                Effect::Keep(place) => {
                    // Who has left the ring hands over to none.
                    let came = self.ring.as_mut().and_then(|ring| ring.keep(place));
                    came.into_iter()
                        .for_each(|came| self.came(came, &mut Vec::new()));
                }
                Effect::Event(event) => {
                    let _ = self.tell.send(event);
                }
            }
        }
    }

    /// Dials, on a thread of its own; false: there is no way to such an address.
    pub(super) fn dial(&self, addr: SocketAddr) -> bool {
        let Some(to) = overlay_of(addr) else {
            self.beside("supernode-dial", move |inputs| {
                let _ = inputs.send(match TcpStream::connect_timeout(&addr, DIAL) {
                    Ok(stream) => Input::Connected(Some(addr), stream, Vec::new(), addr.host()),
                    Err(_) => Input::DialFailed(addr),
                });
            });
            return true;
        };
        // Without a link nobody carries the letters by which another is reached.
        let overlay = self.overlay.as_ref().filter(|_| !self.links.is_empty());
        let Some(overlay) = overlay.and_then(WeakOverlay::upgrade) else {
            return false;
        };
        self.beside("supernode-dial", move |inputs| {
            let _ = inputs.send(match beyond::dial(&overlay, to) {
                Ok((stream, host)) => Input::Connected(Some(addr), stream, Vec::new(), host),
                Err(error) => {
                    tracing::debug!(%addr, %error, "a link by the overlay");
                    Input::DialFailed(addr)
                }
            });
        });
        true
    }

    /// Does what waits, in a thread of its own; the core asks for few at once.
    pub(super) fn beside(&self, name: &str, work: impl FnOnce(&Sender<Input>) + Send + 'static) {
        let inputs = self.inputs.clone();
        let spawned = thread::Builder::new()
            .name(name.into())
            .spawn(move || work(&inputs));
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a node");
        }
    }
}
