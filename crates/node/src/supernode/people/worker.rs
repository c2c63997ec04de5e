//! The thread that is who talks: its office, its boxes, its questions.

use super::by_box::ByBox;
use super::homes::Homes;
use super::{Input, PeopleEvent, straight};
use crate::dht::{DhtNode, Ticket};
use crate::reach::{Reach, overlay_of};
use crate::supernode::box_link::{BoxLink, Caller, Heard};
use crate::supernode::{ask, forks, name_ring};
use crossbeam_channel::{Receiver, Sender};
use shoal_base::Time;
use shoal_base::address::may_name;
use shoal_call::chat::{Chat, Effect, Event};
use shoal_call::mailbox::watch::Watch;
use shoal_call::mailbox::{Envelope, LetterId};
use shoal_call::record::{Home, Record};
use shoal_dht::{Answer, Failure};
use shoal_store::job::JobLog;
use shoal_store::snapshot;
use shoal_supernode::names::log::Head;
use shoal_supernode::token::Key;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

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

pub(super) struct Linked {
    pub(super) link: BoxLink,
    pub(super) serial: u64,
    /// The supernode's key, once it is proven.
    pub(super) up: Option<Key>,
    /// Whether our box there is open.
    pub(super) own: bool,
    pub(super) used: Instant,
    pub(super) pending: BTreeMap<LetterId, Home<SocketAddr>>,
}

pub(super) struct Core {
    pub(super) chat: Chat<SocketAddr>,
    pub(super) start: Instant,
    pub(super) caller: Caller,
    pub(super) server: Key,
    pub(super) login: SocketAddr,
    pub(super) next_log: Instant,
    pub(super) list: SocketAddr,
    pub(super) dir: PathBuf,
    pub(super) journal: JobLog,
    pub(super) ring: DhtNode,
    pub(super) inputs: Sender<Input>,
    pub(super) tell: Sender<PeopleEvent>,
    pub(super) links: BTreeMap<SocketAddr, Linked>,
    pub(super) serial: u64,
    pub(super) homes: Homes,
    pub(super) watch: Watch<SocketAddr>,
    pub(super) reach: Option<Arc<Reach>>,
    /// Connections to other ends, by number: whose, and who takes letters for it, once it is there.
    pub(super) straight: BTreeMap<u64, (Key, Option<Sender<Envelope>>)>,
    /// Supernodes of the list.
    pub(super) known: Vec<SocketAddr>,
    pub(super) next_list: Instant,
    /// Lookups that wait for somebody to ask.
    pub(super) wanted: Vec<String>,
    pub(super) lookups: BTreeMap<Ticket, (String, Option<Record<SocketAddr>>)>,
    pub(super) unpublished: Option<(Box<Record<SocketAddr>>, Instant)>,
    pub(super) publishing: Option<Ticket>,
    pub(super) by_box: ByBox,
    pub(super) ticket: Ticket,
    pub(super) now: Instant,
}

impl Core {
    pub(super) fn time(&self) -> Time {
        let elapsed = self.start.elapsed().as_micros();
        Time::from_micros(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    pub(super) fn run(mut self, inbox: &Receiver<Input>) {
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

    pub(super) fn take(&mut self, time: Time, input: Input, out: &mut Vec<Effect<SocketAddr>>) {
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

    pub(super) fn heard(
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

    pub(super) fn answered(
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

    pub(super) fn look_up(&mut self, name: String) {
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

    pub(super) fn open(&mut self, addr: SocketAddr, expected: Option<Key>, own: bool) {
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
    pub(super) fn compare(&self, theirs: Option<(String, Box<Head>)>) {
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
                match crate::supernode::names::same_log(login, &server, &heads) {
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
    pub(super) fn look(&mut self, time: Time, out: &mut Vec<Effect<SocketAddr>>) {
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
    pub(super) fn act(&mut self, out: &mut Vec<Effect<SocketAddr>>) -> io::Result<()> {
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
    pub(super) fn put(&mut self, home: Home<SocketAddr>, envelope: Envelope) -> Option<LetterId> {
        let id = envelope.id();
        // Whoever signs a record names his homes: none in our own network, unless the login server is there too.
        if !may_name(self.login.ip(), home.addr) {
            return Some(id);
        }
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
