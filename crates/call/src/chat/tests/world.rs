//! Users, supernodes with boxes, and the names' records, in virtual time.

use super::*;

pub(super) const EPOCH: u64 = 1_700_000_000;
pub(super) const SERVER: u8 = 1;

pub(super) fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

pub(super) fn public(n: u8) -> Key {
    key(n).verifying_key().to_bytes()
}

pub(super) fn certificate(name: &str, n: u8, generation: u32) -> Certificate {
    let issued = (generation, 0);
    Certificate::issue(&key(SERVER), (name, public(n)), issued, EPOCH + 30 * 86_400)
}

pub(super) fn home(n: u32) -> Home<u32> {
    let key = public(100 + n as u8);
    Home { addr: n, key }
}

/// One user: what it keeps outlives its program.
pub(super) struct User {
    pub(super) name: &'static str,
    pub(super) n: u8,
    pub(super) generation: u32,
    pub(super) chat: Option<Chat<u32>>,
    pub(super) journal: Vec<Entry>,
    pub(super) prekeys: Option<Vec<u8>>,
    pub(super) nonces: BTreeMap<u32, [u8; 32]>,
    pub(super) homes: Vec<u32>,
    pub(super) watch: Watch<u32>,
    /// Supernodes that dropped letters.
    pub(super) left: Vec<u32>,
    pub(super) events: Vec<Event>,
    pub(super) starts: u8,
}

pub(super) enum Due {
    Put(usize, Home<u32>, Envelope),
    PutDone(usize, Home<u32>, LetterId, Result<(), Option<Why>>),
    Mail(usize, u32, Envelope),
    Ack(usize, Vec<LetterId>),
    Lookup(usize, String),
    Link(usize, Key, bool),
    Straight(usize, Key, Envelope),
}

/// Users, supernodes with boxes, and the names' records, in virtual time.
pub(super) struct World {
    pub(super) now: Time,
    pub(super) rng: Rng,
    pub(super) users: Vec<User>,
    pub(super) offices: BTreeMap<u32, Office>,
    pub(super) records: BTreeMap<String, Vec<u8>>,
    pub(super) due: BTreeMap<(Time, u64), Due>,
    pub(super) number: u64,
    /// Of what is sent, this much is lost.
    pub(super) loss: f64,
    /// All bytes that supernodes saw.
    pub(super) seen: Vec<u8>,
    pub(super) liars: liars::Liars,
    pub(super) links: straight::Links,
    /// The log that the login server shows to each user.
    pub(super) logs: heads::Logs,
}

impl World {
    pub(super) fn new(seed: u64, names: &[&'static str]) -> Self {
        let mut rng = Rng::from_seed(seed);
        let office = |n: u32, rng: &mut Rng| {
            let config = OfficeConfig {
                epoch: EPOCH,
                ..OfficeConfig::new(public(SERVER))
            };
            (n, Office::new(config, key(100 + n as u8), rng.fork()))
        };
        let offices = (0..5).map(|n| office(n, &mut rng)).collect();
        let user = |(n, name): (usize, &&'static str)| User {
            name,
            n: 10 + n as u8,
            generation: 0,
            chat: None,
            journal: Vec::new(),
            prekeys: None,
            nonces: BTreeMap::new(),
            homes: Vec::new(),
            watch: Watch::default(),
            left: Vec::new(),
            events: Vec::new(),
            starts: 0,
        };
        let users = names.iter().enumerate().map(user).collect();
        Self {
            now: Time::ZERO,
            rng,
            users,
            offices,
            records: BTreeMap::new(),
            due: BTreeMap::new(),
            number: 0,
            loss: 0.0,
            seen: Vec::new(),
            liars: liars::Liars::default(),
            links: straight::Links::default(),
            logs: heads::Logs::default(),
        }
    }

    pub(super) fn later(&mut self, due: Due) {
        let delay = Duration::from_millis(5 + self.rng.below(200) as u64);
        self.number += 1;
        self.due.insert((self.now + delay, self.number), due);
    }

    /// Starts a user's program, with homes at these supernodes.
    pub(super) fn start(&mut self, who: usize, homes: &[u32]) {
        let user = &mut self.users[who];
        let me = Me {
            key: key(user.n),
            certificate: certificate(user.name, user.n, user.generation),
            server: public(SERVER),
        };
        user.starts += 1;
        let secrets = Secrets::new([user.n, user.starts].repeat(16).try_into().expect("32"));
        let (kept, prekeys) = (user.journal.clone(), user.prekeys.clone());
        user.chat = Some(Chat::new(me, EPOCH, secrets, kept, prekeys.as_deref()));
        if self.links.on
            && let Some(chat) = &mut self.users[who].chat
        {
            chat.can_reach();
        }
        self.users[who].watch = Watch::default();
        self.live_at(who, homes);
    }

    /// These supernodes are a user's homes from now on.
    pub(super) fn live_at(&mut self, who: usize, homes: &[u32]) {
        self.users[who].homes = homes.to_vec();
        let homes: Vec<_> = homes.iter().map(|n| home(*n)).collect();
        for home in &homes {
            self.users[who].watch.opened(self.now, home.addr);
            self.say(who, home.addr, Say::Open);
        }
        self.act(who, |chat, now, out| chat.set_homes(now, &homes, out));
    }

    pub(super) fn stop(&mut self, who: usize) {
        self.users[who].chat = None;
        self.users[who].nonces.clear();
        for office in self.offices.values_mut() {
            office.closed(self.now, who as LinkId);
        }
        let of = |due: &Due| match due {
            Due::Put(w, ..)
            | Due::PutDone(w, ..)
            | Due::Mail(w, ..)
            | Due::Ack(w, _)
            | Due::Lookup(w, _)
            | Due::Link(w, ..)
            | Due::Straight(w, ..) => *w,
        };
        self.due.retain(|_, due| of(due) != who);
        self.cut(who);
    }

    /// Says something on a user's link to a supernode, made if need be; what came back at once.
    pub(super) fn say(&mut self, who: usize, at: u32, say: Say) -> Vec<Told> {
        let n = self.users[who].n;
        let (name, generation) = (self.users[who].name, self.users[who].generation);
        let mut all = Vec::new();
        let now = self.now;
        let link = who as LinkId;
        let Some(office) = self.offices.get_mut(&at) else {
            return Vec::new();
        };
        let mut out = Vec::new();
        let new = !self.users[who].nonces.contains_key(&at);
        if new {
            office.connected(now, link, &mut out);
            let hello = Say::Hello(Box::new(certificate(name, n, generation)), [0; 32]);
            office.said(now, link, hello, &mut out);
            if let Some(Out::Send(_, Told::Hello(server, nonce, _))) = out.pop() {
                let proof = client_proof(&key(n), &nonce, &server);
                office.said(now, link, Say::Proof(proof), &mut out);
                self.users[who].nonces.insert(at, nonce);
            }
            out.clear();
        }
        shoal_supernode::wire::encode(&say, &mut self.seen);
        office.said(now, link, say, &mut out);
        office.check_invariants();
        for out in out {
            match out {
                Out::Send(to, Told::Mail(envelope)) => {
                    shoal_supernode::wire::encode(&envelope, &mut self.seen);
                    self.later(Due::Mail(to as usize, at, envelope));
                }
                Out::Send(to, told) if to == link => all.push(told),
                // Here all ask the ring themselves.
                Out::Send(..) | Out::Close(_) | Out::Publish(..) | Out::Look(..) => {}
            }
        }
        all
    }

    pub(super) fn act<T>(
        &mut self,
        who: usize,
        act: impl FnOnce(&mut Chat<u32>, Time, &mut Vec<Effect<u32>>) -> T,
    ) -> T {
        let mut out = Vec::new();
        let now = self.now;
        let chat = self.users[who].chat.as_mut().expect("it runs");
        let result = act(chat, now, &mut out);
        for effect in out {
            match effect {
                Effect::Keep(entry) => {
                    let (read, _) = Entry::read(&entry.to_bytes());
                    self.users[who].journal.extend(read);
                }
                Effect::Prekeys(bytes) => self.users[who].prekeys = Some(bytes),
                Effect::Publish(record) => {
                    let (name, bytes) = (record.name(), record.to_bytes());
                    let unix = EPOCH + now.as_micros() / 1_000_000;
                    let check = |b: &[u8]| Record::<u32>::check(&public(SERVER), &name, b, unix);
                    let old = self.records.get(&name).and_then(|b| check(b).ok());
                    let new = check(&bytes).expect("a record that holds");
                    if old.is_none_or(|old| old.rank() < new.rank()) {
                        self.records.insert(name, bytes);
                    }
                }
                Effect::Lookup(name) => self.later(Due::Lookup(who, name)),
                Effect::Put(home, envelope) => self.later(Due::Put(who, home, envelope)),
                Effect::Ack(ids) => self.later(Due::Ack(who, ids)),
                Effect::Compare(name, head) => self.compare(who, &name, &head),
                Effect::Reach(key) => self.reach(who, key),
                Effect::Hand(key, envelope) => self.hand(who, key, envelope),
                Effect::Event(event) => self.users[who].events.push(event),
            }
        }
        result
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let ticks = self
                .users
                .iter()
                .filter_map(|u| u.chat.as_ref())
                .map(Chat::deadline);
            let tick = ticks.min().unwrap_or(Time::FAR);
            let next = self.due.keys().next().map_or(Time::FAR, |(at, _)| *at);
            let at = tick.min(next);
            if at > end {
                break;
            }
            self.now = self.now.max(at);
            if next <= tick {
                let (_, due) = self.due.pop_first().expect("it is due");
                self.step(due);
            } else {
                for who in 0..self.users.len() {
                    let due = |c: &Chat<u32>| c.deadline() <= tick;
                    if self.users[who].chat.as_ref().is_some_and(due) {
                        self.act(who, |chat, now, out| chat.tick(now, out));
                        self.leave_liars(who);
                    }
                }
                let now = self.now;
                self.offices
                    .values_mut()
                    .for_each(|o| o.tick(now, &mut Vec::new()));
                for who in 0..self.users.len() {
                    for at in self.users[who].nonces.keys().copied().collect::<Vec<_>>() {
                        self.say(who, at, Say::Ping);
                    }
                }
            }
        }
        self.now = end;
    }

    /// A home that does not bring what others do is replaced.
    pub(super) fn leave_liars(&mut self, who: usize) {
        let Some(liar) = self.users[who].watch.tick(self.now) else {
            return;
        };
        self.users[who].left.push(liar);
        let mut homes = self.users[who].homes.clone();
        let fresh = self.offices.keys().find(|n| !homes.contains(n)).copied();
        homes.retain(|n| *n != liar);
        homes.extend(fresh);
        self.live_at(who, &homes);
    }

    pub(super) fn step(&mut self, due: Due) {
        match due {
            Due::Put(who, home, envelope) => {
                let id = envelope.id();
                if self.rng.chance(self.loss) || !self.offices.contains_key(&home.addr) {
                    return self.later(Due::PutDone(who, home, id, Err(None)));
                }
                if self.lied(who, home.addr, &envelope) {
                    return self.later(Due::PutDone(who, home, id, Ok(())));
                }
                let told = self.say(who, home.addr, Say::Put(envelope));
                let result = match told.last() {
                    Some(Told::Stored(_)) => Ok(()),
                    Some(Told::Refused(_, why)) => Err(Some(*why)),
                    _ => Err(None),
                };
                // The answer may be lost too.
                let result = if self.rng.chance(self.loss) {
                    Err(None)
                } else {
                    result
                };
                self.later(Due::PutDone(who, home, id, result));
            }
            Due::PutDone(who, home, id, result) => {
                self.act(who, |chat, now, out| {
                    chat.on_put(now, &home, &id, result, out);
                });
            }
            Due::Mail(who, at, envelope) => {
                if self.users[who].chat.is_some() {
                    let now = self.now;
                    self.users[who].watch.brought(now, at, envelope.id());
                    self.act(who, |chat, now, out| chat.on_mail(now, &envelope, out));
                }
            }
            Due::Link(who, key, up) => {
                if self.users[who].chat.is_some() {
                    self.act(who, |chat, now, out| chat.on_link(now, key, up, out));
                }
            }
            Due::Straight(who, key, envelope) => {
                if self.users[who].chat.is_some() {
                    let take = |chat: &mut Chat<u32>, now: Time, out: &mut Vec<_>| {
                        chat.on_straight(now, key, &envelope, out);
                    };
                    self.act(who, take);
                }
            }
            Due::Ack(who, ids) => {
                let nonces = self.users[who].nonces.clone();
                for (at, nonce) in nonces {
                    if !self.rng.chance(self.loss) {
                        let seal = ack(&key(self.users[who].n), &nonce, &ids);
                        self.say(who, at, Say::Ack(ids.clone(), seal));
                    }
                }
            }
            Due::Lookup(who, name) => {
                let unix = EPOCH + self.now.as_micros() / 1_000_000;
                let found = self.records.get(&name).ok_or("nobody has that name");
                let found = found
                    .and_then(|b| Record::check(&public(SERVER), &name, b, unix).map_err(|_| "no"));
                self.act(who, |chat, now, out| chat.on_record(now, &name, found, out));
            }
        }
    }

    pub(super) fn write(&mut self, who: usize, to: &str, text: &str) {
        self.act(who, |chat, now, out| chat.write(now, to, text, out))
            .expect("taken");
    }

    pub(super) fn texts(&self, who: usize) -> Vec<String> {
        let text = |e: &Event| match e {
            Event::Text {
                text, late: false, ..
            } => Some(text.clone()),
            _ => None,
        };
        self.users[who].events.iter().filter_map(text).collect()
    }

    pub(super) fn heard(&self, who: usize, event: &Event) -> bool {
        self.users[who].events.contains(event)
    }
}
