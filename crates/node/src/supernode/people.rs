//! One end of conversations on sockets and files: a thread that owns the core, links to boxes, and a guest
//! of the ring of names.

mod by_box;
mod homes;
pub(crate) mod straight;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use ed25519_dalek::SigningKey;
use shoal_base::Time;
use shoal_call::chat::{Chat, Effect, Entry, Event, Me, NotSent, Status};
use shoal_call::mailbox::watch::Watch;
use shoal_call::mailbox::{Envelope, LetterId};
use shoal_call::record::{Home, Record};
use shoal_call::seal::Secrets;
use shoal_dht::{Answer, Failure};
use shoal_store::job::JobLog;
use shoal_store::snapshot;
use shoal_supernode::names::certificate::Certificate;
use shoal_supernode::names::log::Head;
use shoal_supernode::token::Key;

use super::ask;
use super::box_link::{BoxLink, Caller, Heard};
use super::forks;
use super::name_ring::{self, name_ring};
use crate::dht::{DhtError, DhtNode, Ticket};
use crate::reach::{Reach, overlay_of};
use by_box::ByBox;
use homes::Homes;
use straight::LetterStream;

/// How often the driver looks at links and homes.
const LOOK: Duration = Duration::from_millis(200);
/// How often the list of supernodes is asked, and while none is known.
const LIST: Duration = Duration::from_secs(60);
const LIST_SOON: Duration = Duration::from_secs(2);
/// How soon a record that could not be published is published again.
const REPUBLISH: Duration = Duration::from_secs(2);
/// After how long without a letter a link to somebody else's box is ended.
const IDLE: Duration = Duration::from_secs(60);
/// How often we look at the login server's log.
const LOG: Duration = Duration::from_secs(3600);
/// Bytes of the file of prekeys at most.
const MAX_PREKEYS: u64 = 64 << 10;

/// Who takes part, and what it keeps where.
pub struct PeopleSettings {
    /// The key of the name.
    pub key: SigningKey,
    /// Its certificate.
    pub certificate: Certificate,
    /// The login server's key.
    pub server: Key,
    /// The login server, whose log is compared with what others were shown.
    pub login: SocketAddr,
    /// The list of supernodes.
    pub list: SocketAddr,
    /// Where a guest of the ring has its socket.
    pub listen: SocketAddr,
    /// The folder for the journal, prekeys and homes.
    pub dir: PathBuf,
    /// Random bytes that keys are made of.
    pub secret: [u8; 32],
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// What is kept cannot be read, or no thread be made; would block: another program uses it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No guest of the ring.
    #[error(transparent)]
    Ring(#[from] DhtError),
}

/// What happened.
#[derive(Debug)]
pub enum PeopleEvent {
    /// In conversations.
    Chat(Event),
    /// These supernodes keep our letters now.
    Homes(Vec<SocketAddr>),
    /// This one did not bring letters that two others brought: another is taken for it.
    HomeLeft(SocketAddr),
    /// Letters to and from who has this key go straight from now on, or no more.
    Straight(Key, bool),
    /// Our record is in the ring, at so many nodes.
    Published(u32),
    /// It ends, because what happens cannot be kept.
    Failed(io::Error),
}

type Work = dyn FnOnce(&mut Chat<SocketAddr>, Time, &mut Vec<Effect<SocketAddr>>) + Send;

enum Input {
    Do(Box<Work>),
    Heard(SocketAddr, u64, Heard),
    Listed(Vec<SocketAddr>),
    Ring(Ticket, Answer),
    Renew(Box<Certificate>),
    Reachable(Arc<Reach>),
    Arrived(LetterStream),
    Straight(Key, u64, straight::Heard),
    /// The log as it is shown to us now; and heads that it was not proven to begin with, and to whom they were shown.
    Shown(Box<Head>, Vec<(String, Head)>),
    Stop,
}

/// One end, running; dropping it ends it.
#[derive(Debug)]
pub struct People {
    inputs: Sender<Input>,
    thread: Option<JoinHandle<()>>,
    /// What happens.
    pub events: Receiver<PeopleEvent>,
}

impl People {
    /// Starts one.
    ///
    /// # Errors
    /// Why not.
    pub fn start(settings: PeopleSettings) -> Result<Self, PeopleError> {
        let (mut journal, bytes) = JobLog::open(&settings.dir.join("journal"))?;
        let (kept, used) = Entry::read(&bytes);
        // A torn entry at the end was never answered for.
        journal.cut(used as u64)?;
        let path = settings.dir.join("prekeys");
        let prekeys = snapshot::load(&path, MAX_PREKEYS)?;
        let homes = Homes::load(&settings.dir.join("homes"))?;
        let me = Me {
            key: settings.key.clone(),
            certificate: settings.certificate.clone(),
            server: settings.server,
        };
        let mut secrets = Secrets::new(settings.secret);
        let mut seed = [0; 8];
        secrets.fill(&mut seed);
        let chat = Chat::new(me, super::unix(), secrets, kept, prekeys.as_deref());
        let (inputs, inbox) = unbounded();
        let (tell, events) = unbounded();
        let answers = inputs.clone();
        let ring = name_ring(
            settings.server,
            settings.listen,
            None,
            &[],
            u64::from_le_bytes(seed),
            Box::new(move |ticket, answer| {
                // Fails when it is over.
                let _ = answers.send(Input::Ring(ticket, answer));
            }),
        )?;
        let core = Core {
            chat,
            start: Instant::now(),
            caller: Caller {
                key: settings.key,
                certificate: settings.certificate,
            },
            server: settings.server,
            login: settings.login,
            next_log: Instant::now(),
            list: settings.list,
            dir: settings.dir,
            journal,
            ring,
            inputs: inputs.clone(),
            tell,
            links: BTreeMap::new(),
            serial: 0,
            homes,
            watch: Watch::default(),
            reach: None,
            straight: BTreeMap::new(),
            known: Vec::new(),
            next_list: Instant::now(),
            wanted: Vec::new(),
            lookups: BTreeMap::new(),
            unpublished: None,
            publishing: None,
            by_box: ByBox::default(),
            ticket: 0,
            now: Instant::now(),
        };
        let thread = thread::Builder::new()
            .name("people".into())
            .spawn(move || core.run(&inbox))?;
        Ok(Self {
            inputs,
            thread: Some(thread),
            events,
        })
    }

    fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Chat<SocketAddr>, Time, &mut Vec<Effect<SocketAddr>>) -> T
        + Send
        + 'static,
    ) -> Option<T> {
        let (answer, got) = bounded(1);
        let work: Box<Work> = Box::new(move |chat, now, out| {
            let _ = answer.send(work(chat, now, out));
        });
        self.inputs.send(Input::Do(work)).ok()?;
        got.recv().ok()
    }

    /// Writes a text to somebody; its number. None when it has ended.
    pub fn write(&self, name: &str, text: &str) -> Option<Result<u64, NotSent>> {
        let (name, text) = (name.to_owned(), text.to_owned());
        self.with(move |chat, now, out| chat.write(now, &name, &text, out))
    }

    /// Makes a connection to somebody who is written with, as soon as that can be.
    pub fn want(&self, name: &str) {
        let name = name.to_owned();
        self.with(move |chat, now, out| chat.want(now, &name, out));
    }

    /// How many texts to somebody have no receipt; none when it has ended.
    pub fn waiting(&self, name: &str) -> Option<usize> {
        let name = name.to_owned();
        self.with(move |chat, _, _| chat.waiting(&name))
    }

    /// Makes somebody a buddy, or none any more.
    pub fn set_buddy(&self, name: &str, is: bool) {
        let name = name.to_owned();
        self.with(move |chat, now, out| chat.set_buddy(now, &name, is, out));
    }

    /// Tells buddies how we are.
    pub fn set_status(&self, status: Status) {
        self.with(move |chat, now, out| chat.set_status(now, status, out));
    }

    /// Buddies and how they are.
    pub fn buddies(&self) -> Vec<(String, Status)> {
        self.with(|chat, _, _| chat.buddies()).unwrap_or_default()
    }

    /// From now on letters go straight to who is there, by this node; it must have the key of our name.
    pub fn reach_by(&self, reach: Arc<Reach>) {
        // It may have ended.
        let _ = self.inputs.send(Input::Reachable(reach));
    }

    /// Takes streams for letters that others opened.
    pub fn arrivals(&self) -> impl Fn(LetterStream) + Send + Sync + 'static {
        let inputs = self.inputs.clone();
        move |stream| {
            let _ = inputs.send(Input::Arrived(stream));
        }
    }

    /// Takes a fresh certificate.
    pub fn renew(&self, certificate: Certificate) {
        // It may have ended.
        let _ = self.inputs.send(Input::Renew(Box::new(certificate)));
    }
}

impl Drop for People {
    fn drop(&mut self) {
        let _ = self.inputs.send(Input::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of conversations panicked");
        }
    }
}

struct Linked {
    link: BoxLink,
    serial: u64,
    /// The supernode's key, once it is proven.
    up: Option<Key>,
    /// Whether our box there is open.
    own: bool,
    used: Instant,
    pending: BTreeMap<LetterId, Home<SocketAddr>>,
}

struct Core {
    chat: Chat<SocketAddr>,
    start: Instant,
    caller: Caller,
    server: Key,
    login: SocketAddr,
    next_log: Instant,
    list: SocketAddr,
    dir: PathBuf,
    journal: JobLog,
    ring: DhtNode,
    inputs: Sender<Input>,
    tell: Sender<PeopleEvent>,
    links: BTreeMap<SocketAddr, Linked>,
    serial: u64,
    homes: Homes,
    watch: Watch<SocketAddr>,
    reach: Option<Arc<Reach>>,
    /// Connections to other ends, by number: whose, and who takes letters for it, once it is there.
    straight: BTreeMap<u64, (Key, Option<Sender<Envelope>>)>,
    /// Supernodes of the list.
    known: Vec<SocketAddr>,
    next_list: Instant,
    /// Lookups that wait for somebody to ask.
    wanted: Vec<String>,
    lookups: BTreeMap<Ticket, (String, Option<Record<SocketAddr>>)>,
    unpublished: Option<(Box<Record<SocketAddr>>, Instant)>,
    publishing: Option<Ticket>,
    by_box: ByBox,
    ticket: Ticket,
    now: Instant,
}

impl Core {
    fn time(&self) -> Time {
        let elapsed = self.start.elapsed().as_micros();
        Time::from_micros(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    fn run(mut self, inbox: &Receiver<Input>) {
        let mut out = Vec::new();
        loop {
            let input = inbox.recv_timeout(LOOK).ok();
            self.now = Instant::now();
            let time = self.time();
            match input {
                Some(Input::Stop) => break,
                Some(input) => self.take(time, input, &mut out),
                None => {}
            }
            if self.chat.deadline() <= time {
                self.chat.tick(time, &mut out);
            }
            self.look(time, &mut out);
            if let Err(error) = self.act(&mut out) {
                let _ = self.tell.send(PeopleEvent::Failed(error));
                break;
            }
        }
        self.ring.stop();
    }

    fn take(&mut self, time: Time, input: Input, out: &mut Vec<Effect<SocketAddr>>) {
        match input {
            Input::Do(work) => work(&mut self.chat, time, out),
            Input::Heard(addr, serial, heard) => self.heard(time, addr, serial, heard, out),
            Input::Listed(known) => {
                self.ring.add_contacts(known.clone());
                self.known = known;
                for name in std::mem::take(&mut self.wanted) {
                    self.look_up(name);
                }
            }
            Input::Ring(ticket, answer) => self.answered(time, ticket, answer, out),
            Input::Renew(certificate) => {
                self.caller.certificate = *certificate.clone();
                self.chat.renew(time, *certificate);
            }
            Input::Shown(head, others) => {
                self.chat.set_head(*head);
                for (name, theirs) in others {
                    self.chat.on_compared(&name, theirs, false, out);
                }
            }
            Input::Reachable(reach) => {
                self.reach = Some(reach);
                self.chat.can_reach();
            }
            Input::Arrived(stream) => {
                let key = stream.key();
                if let Some(tell) = self.new_straight(key)
                    && let Err(error) = straight::take(stream, tell)
                {
                    tracing::warn!(%error, "no thread for a connection");
                }
            }
            Input::Straight(key, number, heard) => {
                self.heard_straight(time, key, number, heard, out);
            }
            Input::Stop => {}
        }
    }

    fn heard(
        &mut self,
        time: Time,
        addr: SocketAddr,
        serial: u64,
        heard: Heard,
        out: &mut Vec<Effect<SocketAddr>>,
    ) {
        let Some(at) = self.links.get_mut(&addr).filter(|l| l.serial == serial) else {
            return;
        };
        match heard {
            Heard::Up(key) => {
                at.up = Some(key);
                if at.own {
                    self.homes.up(Home { addr, key }, self.now);
                    self.watch.opened(time, addr);
                }
            }
            Heard::Mail(envelope) => {
                self.watch.brought(time, addr, envelope.id());
                self.chat.on_mail(time, &envelope, out);
            }
            Heard::Put(id, result) => {
                at.used = self.now;
                if let Some(home) = at.pending.remove(&id) {
                    let result = result.map_err(Some);
                    self.chat.on_put(time, &home, &id, result, out);
                }
            }
            Heard::Published(result) => self.published_by_box(time, result),
            Heard::Looked(name, found) => self.looked_by_box(time, &name, found, out),
            Heard::Down(why) => {
                tracing::debug!(%addr, why, "boxes cannot be reached");
                if let Some(gone) = self.links.remove(&addr) {
                    self.homes.down(addr, self.now);
                    self.watch.closed(&addr);
                    for (id, home) in gone.pending {
                        self.chat.on_put(time, &home, &id, Err(None), out);
                    }
                }
            }
        }
    }

    fn answered(
        &mut self,
        time: Time,
        ticket: Ticket,
        answer: Answer,
        out: &mut Vec<Effect<SocketAddr>>,
    ) {
        self.by_box.ring_answered(&answer);
        if self.publishing == Some(ticket) {
            if let Answer::Done(done) = answer {
                self.publishing = None;
                match done {
                    Ok(outcome) => self.published(outcome.stored),
                    Err(Failure::OlderThan(rank)) => self.outranked(time, rank),
                    Err(why) => {
                        tracing::debug!(%why, "our record");
                        if let Some((_, at)) = &mut self.unpublished {
                            *at = self.now + REPUBLISH;
                        }
                    }
                }
            }
            return;
        }
        let Some((name, found)) = self.lookups.get_mut(&ticket) else {
            return;
        };
        match answer {
            Answer::Value(item) => {
                let record = name_ring::read(&self.server, name, &item);
                let newer = |r: &Record<_>| found.as_ref().is_none_or(|f| r.rank() > f.rank());
                if let Some(record) = record.filter(newer) {
                    *found = Some(record);
                }
            }
            Answer::Done(done) => {
                let Some((name, found)) = self.lookups.remove(&ticket) else {
                    return;
                };
                let heard = matches!(done, Ok(_) | Err(Failure::NotFound(_)));
                if found.is_none() && !heard && self.look_by_box(&name) {
                    return;
                }
                let found = found.ok_or(match done {
                    Err(Failure::NotFound(_)) => {
                        "nobody has told where letters to this name are kept"
                    }
                    _ => "no supernode of the ring answers",
                });
                self.chat.on_record(time, &name, found, out);
            }
            _ => {}
        }
    }

    fn look_up(&mut self, name: String) {
        if self.known.is_empty() {
            self.wanted.push(name);
            return;
        }
        if self.by_box.is_deaf(self.now) && self.look_by_box(&name) {
            return;
        }
        self.by_box.ring_asked(self.now);
        self.ticket += 1;
        let request = name_ring::get(self.server, &name);
        self.ring.request(self.ticket, request);
        self.lookups.insert(self.ticket, (name, None));
    }

    fn open(&mut self, addr: SocketAddr, expected: Option<Key>, own: bool) {
        self.serial += 1;
        let (serial, inputs) = (self.serial, self.inputs.clone());
        let tell = move |heard| inputs.send(Input::Heard(addr, serial, heard)).is_ok();
        match BoxLink::open(addr, expected, own, self.caller.clone(), tell) {
            Ok(link) => {
                let linked = Linked {
                    link,
                    serial,
                    up: None,
                    own,
                    used: self.now,
                    pending: BTreeMap::new(),
                };
                self.links.insert(addr, linked);
            }
            Err(error) => tracing::warn!(%error, "no thread for a link"),
        }
    }

    /// Asks the login server for its log, and whether what somebody was shown is the same one.
    fn compare(&self, theirs: Option<(String, Box<Head>)>) {
        let (login, server, inputs) = (self.login, self.server, self.inputs.clone());
        let (ours, own) = (
            self.chat.head().cloned(),
            self.caller.certificate.name.clone(),
        );
        let asked = thread::Builder::new()
            .name("people-log".into())
            .spawn(move || {
                // What we ourselves were shown before is told under our own name.
                let theirs = theirs.map(|(name, head)| (name, *head));
                let others: Vec<_> = ours
                    .map(|head| (own, head))
                    .into_iter()
                    .chain(theirs)
                    .collect();
                let heads: Vec<&Head> = others.iter().map(|(_, head)| head).collect();
                match super::names::same_log(login, &server, &heads) {
                    Ok((head, same)) => {
                        let all = others.into_iter().zip(same);
                        let forked = all.filter(|(_, same)| !same).map(|(other, _)| other);
                        let _ = inputs.send(Input::Shown(Box::new(head), forked.collect()));
                    }
                    Err(error) => tracing::debug!(%error, "the log of names"),
                }
            });
        if let Err(error) = asked {
            tracing::warn!(%error, "no thread for the log of names");
        }
    }

    /// Sees to links, homes, the list, and the record.
    fn look(&mut self, time: Time, out: &mut Vec<Effect<SocketAddr>>) {
        if self.next_list <= self.now {
            let wait = if self.known.is_empty() {
                LIST_SOON
            } else {
                LIST
            };
            self.next_list = self.now + wait;
            let (list, inputs) = (self.list, self.inputs.clone());
            let asked = thread::Builder::new()
                .name("people-list".into())
                .spawn(move || match ask::supernodes(list) {
                    Ok(mut entries) => {
                        entries.sort_by_key(|e| e.load >= 100);
                        let known = entries.iter().map(|e| e.addr);
                        let known = known.filter(|a| overlay_of(*a).is_none()).collect();
                        let _ = inputs.send(Input::Listed(known));
                    }
                    Err(error) => tracing::debug!(%error, "the list of supernodes"),
                });
            if let Err(error) = asked {
                tracing::warn!(%error, "no thread for the list");
            }
        }
        if self.next_log <= self.now {
            self.next_log = self.now + LOG;
            self.compare(None);
        }
        let now = self.now;
        self.links
            .retain(|_, l| l.own || !l.pending.is_empty() || now < l.used + IDLE);
        let links = &self.links;
        let is_own = |addr: &SocketAddr| links.get(addr).is_some_and(|l| l.own);
        for (addr, expected) in self.homes.missing(now, &self.known, is_own) {
            // A link that was made to put letters there does not have our box.
            if let Some(other) = self.links.remove(&addr) {
                for (id, home) in other.pending {
                    self.chat.on_put(time, &home, &id, Err(None), out);
                }
            }
            self.open(addr, expected, true);
        }
        if let Some(addr) = self.watch.tick(time) {
            self.homes.leave(addr);
            let _ = self.tell.send(PeopleEvent::HomeLeft(addr));
        }
        if let Some(homes) = self.homes.changed(now) {
            if let Err(error) = self.homes.save(&self.dir.join("homes")) {
                tracing::warn!(%error, "homes cannot be written");
            }
            self.chat.set_homes(time, &homes, out);
            let addrs = homes.iter().map(|h| h.addr).collect();
            let _ = self.tell.send(PeopleEvent::Homes(addrs));
        }
        self.look_after_boxes(time, out);
        if self.publishing.is_none()
            && !self.known.is_empty()
            && let Some((record, at)) = &self.unpublished
            && *at <= now
        {
            self.ticket += 1;
            self.publishing = Some(self.ticket);
            self.by_box.ring_asked(now);
            self.ring
                .request(self.ticket, name_ring::put(self.server, record));
        }
    }

    /// Does what the core wants done; what is to be kept first.
    fn act(&mut self, out: &mut Vec<Effect<SocketAddr>>) -> io::Result<()> {
        let mut kept = Vec::new();
        for effect in out.iter() {
            if let Effect::Keep(entry) = effect {
                kept.extend(entry.to_bytes());
            }
        }
        if !kept.is_empty() {
            self.journal.append(&kept)?;
        }
        let (mut refused, mut unreached) = (Vec::new(), Vec::new());
        for effect in out.drain(..) {
            match effect {
                Effect::Keep(_) => {}
                Effect::Prekeys(bytes) => {
                    snapshot::save_private(&self.dir.join("prekeys"), &bytes)?;
                }
                Effect::Lookup(name) => self.look_up(name),
                Effect::Publish(record) => {
                    self.unpublished = Some((record, self.now));
                    self.publishing = None;
                }
                Effect::Put(home, envelope) => {
                    if let Some(id) = self.put(home, envelope) {
                        refused.push((home, id));
                    }
                }
                Effect::Ack(ids) => {
                    let own = self.links.values().filter(|l| l.own && l.up.is_some());
                    own.for_each(|l| l.link.ack(ids.clone()));
                }
                Effect::Compare(name, theirs) => self.compare(Some((name, theirs))),
                Effect::Reach(key) => {
                    let reached = self.reach.clone().zip(self.new_straight(key));
                    let begun = reached.is_some_and(|(reach, tell)| {
                        let begun = straight::reach(reach, key, tell);
                        begun
                            .inspect_err(
                                |error| tracing::warn!(%error, "no thread to reach somebody"),
                            )
                            .is_ok()
                    });
                    if !begun {
                        unreached.push(key);
                    }
                }
                Effect::Hand(key, envelope) => {
                    let mut links = self.straight.values().rev();
                    let link = links.find_map(|(k, up)| up.as_ref().filter(|_| *k == key));
                    // What does not go there goes into boxes a moment later.
                    if let Some(link) = link {
                        let _ = link.try_send(envelope);
                    }
                }
                Effect::Event(event) => {
                    if let Event::Forked(fork) = &event {
                        forks::keep(&self.dir, &self.server, fork)?;
                    }
                    let _ = self.tell.send(PeopleEvent::Chat(event));
                }
            }
        }
        let time = self.time();
        for (home, id) in refused {
            self.chat.on_put(time, &home, &id, Err(None), out);
        }
        for key in unreached {
            self.chat.on_link(time, key, false, out);
        }
        Ok(())
    }

    /// Carries a letter to a box; its name if that cannot be.
    fn put(&mut self, home: Home<SocketAddr>, envelope: Envelope) -> Option<LetterId> {
        let id = envelope.id();
        if !self.links.contains_key(&home.addr) {
            self.open(home.addr, Some(home.key), false);
        }
        let Some(at) = self.links.get_mut(&home.addr) else {
            return Some(id);
        };
        if at.up.is_some_and(|key| key != home.key) || !at.link.put(envelope) {
            return Some(id);
        }
        at.used = self.now;
        at.pending.insert(id, home);
        None
    }
}
