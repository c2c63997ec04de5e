//! One node on sockets.

use crate::accept;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use ed25519_dalek::SigningKey;
use shoal_base::{Rng, Time};
use shoal_supernode::Address;
use shoal_supernode::list::Entry;
use shoal_supernode::node::{Config, Effect, Event, LinkId, Node, Role, Stats};
use shoal_supernode::token::{Presence, Token};
use shoal_supernode::wire::{File, Message, QueryId};

use super::ask;
use super::frames::{Frames, say};

/// How long a dial may take, and sending stand still.
const DIAL: Duration = Duration::from_secs(4);
const STALL: Duration = Duration::from_secs(10);
/// Messages that may wait for a link; who takes them slower is cut off.
const QUEUE: usize = 1024;
/// Messages that may wait for the core, of all links: then links are not read from.
const INBOX: usize = 1024;

/// What a node is and knows.
#[derive(Debug)]
pub struct NodeSettings {
    /// Where it listens for links; where others reach it, so no wildcard.
    pub listen: SocketAddr,
    /// Where others fetch its files.
    pub files_at: Option<SocketAddr>,
    /// Who it is.
    pub key: SigningKey,
    /// By the login server.
    pub token: Token,
    /// The list of supernodes.
    pub list: SocketAddr,
    /// Limits and wishes.
    pub config: Config,
    /// What it shares.
    pub files: Vec<File>,
    /// The seed of its choices.
    pub seed: u64,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The address cannot be listened at, or no thread be made.
    #[error(transparent)]
    Io(#[from] io::Error),
}

enum Input {
    Connected(Option<SocketAddr>, TcpStream),
    DialFailed(SocketAddr),
    Message(LinkId, Box<Message<SocketAddr>>),
    Closed(LinkId),
    Listed(Vec<Entry<SocketAddr>>),
    Search(String, Sender<Option<QueryId>>),
    Look(Sender<(Role, Option<SocketAddr>, Stats)>),
    Stop,
}

/// A running node; dropping it ends it.
#[derive(Debug)]
pub struct NodeDriver {
    addr: SocketAddr,
    inputs: Sender<Input>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// What happens.
    pub events: Receiver<Event<SocketAddr>>,
}

impl NodeDriver {
    /// Starts a node.
    ///
    /// # Errors
    /// Why not.
    pub fn start(settings: NodeSettings) -> Result<Self, DriverError> {
        let listener = TcpListener::bind(settings.listen)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let presence = Presence::new(&settings.key, settings.token, addr, settings.files_at);
        let config = Config {
            epoch: super::unix(),
            ..settings.config
        };
        let rng = Rng::from_seed(settings.seed);
        let mut node = Node::new(config, settings.key, presence, rng);
        let mut out = Vec::new();
        node.share(Time::ZERO, settings.files, &mut out);
        let (tell, events) = unbounded();
        let (inputs, inbox) = bounded(INBOX);
        let stop = Arc::new(AtomicBool::new(false));
        let core = Core {
            node,
            start: Instant::now(),
            list: settings.list,
            links: BTreeMap::new(),
            next: 1,
            inputs: inputs.clone(),
            tell,
        };
        let accepting = thread::Builder::new()
            .name("supernode-accept".into())
            .spawn({
                let (inputs, stop) = (inputs.clone(), Arc::clone(&stop));
                move || accept(&listener, &inputs, &stop)
            })?;
        let running = thread::Builder::new()
            .name("supernode".into())
            .spawn(move || core.run(&inbox))?;
        Ok(Self {
            addr,
            inputs,
            stop,
            threads: vec![accepting, running],
            events,
        })
    }

    /// Where it listens for links.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Looks for files; none if there is no word, or no supernode to ask.
    pub fn search(&self, words: &str) -> Option<QueryId> {
        let (answer, got) = bounded(1);
        self.inputs
            .send(Input::Search(words.to_owned(), answer))
            .ok()?;
        got.recv().ok()?
    }

    /// What it is, where its supernode is, what it holds and did; none when it has ended.
    pub fn look(&self) -> Option<(Role, Option<SocketAddr>, Stats)> {
        let (answer, got) = bounded(1);
        self.inputs.send(Input::Look(answer)).ok()?;
        got.recv().ok()
    }
}

impl Drop for NodeDriver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.inputs.send(Input::Stop);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of a node panicked");
            }
        }
    }
}

fn accept(listener: &TcpListener, inputs: &Sender<Input>, stop: &AtomicBool) {
    while let Some((stream, _)) = accept::wait(listener, stop) {
        if inputs.send(Input::Connected(None, stream)).is_err() {
            return;
        }
    }
}

struct Wire {
    stream: TcpStream,
    out: Sender<Message<SocketAddr>>,
}

struct Core {
    node: Node<SocketAddr>,
    start: Instant,
    list: SocketAddr,
    links: BTreeMap<LinkId, Wire>,
    /// Never used again, so that a late message finds nobody rather than somebody else.
    next: LinkId,
    inputs: Sender<Input>,
    tell: Sender<Event<SocketAddr>>,
}

impl Core {
    fn now(&self) -> Time {
        let elapsed = self.start.elapsed().as_micros();
        Time::from_micros(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    fn run(mut self, inbox: &Receiver<Input>) {
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
        }
        self.node.stop(self.now(), &mut out);
        self.act(&mut out);
        // Readers that wait to hand something over find nobody.
        for wire in self.links.values() {
            let _ = wire.stream.shutdown(std::net::Shutdown::Read);
        }
    }

    fn take(&mut self, now: Time, input: Input, out: &mut Vec<Effect<SocketAddr>>) {
        match input {
            Input::Connected(dialled, stream) => {
                let id = self.next;
                self.next = self.next.wrapping_add(1);
                let host = stream.peer_addr().map(|a| a.host());
                match host.and_then(|host| Ok((host, self.open(id, stream)?))) {
                    Ok((host, ())) => self.node.on_connected(now, id, dialled, host, out),
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
            Input::Search(words, answer) => {
                let _ = answer.send(self.node.search(now, &words, out));
            }
            Input::Look(answer) => {
                let node = &self.node;
                let _ = answer.send((node.role(), node.home(), node.stats()));
            }
            Input::Stop => {}
        }
    }

    /// Gives a connection its two threads.
    fn open(&mut self, id: LinkId, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(STALL))?;
        let (out, waiting) = bounded::<Message<SocketAddr>>(QUEUE);
        let mut writing = stream.try_clone()?;
        let mut frames = Frames::new(stream.try_clone()?);
        thread::Builder::new()
            .name("supernode-out".into())
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

    fn act(&mut self, out: &mut Vec<Effect<SocketAddr>>) {
        let mut todo: std::collections::VecDeque<_> = out.drain(..).collect();
        while let Some(effect) = todo.pop_front() {
            match effect {
                Effect::Dial(addr) => self.beside("supernode-dial", move |inputs| {
                    let _ = inputs.send(match TcpStream::connect_timeout(&addr, DIAL) {
                        Ok(stream) => Input::Connected(Some(addr), stream),
                        Err(_) => Input::DialFailed(addr),
                    });
                }),
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
                Effect::Event(event) => {
                    let _ = self.tell.send(event);
                }
            }
        }
    }

    /// Does what waits, in a thread of its own; the core asks for few at once.
    fn beside(&self, name: &str, work: impl FnOnce(&Sender<Input>) + Send + 'static) {
        let inputs = self.inputs.clone();
        let spawned = thread::Builder::new()
            .name(name.into())
            .spawn(move || work(&inputs));
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a node");
        }
    }
}

#[cfg(test)]
mod tests;
