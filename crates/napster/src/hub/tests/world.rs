//! Some hubs and their users, and the wires between them.

use super::*;

/// One user's connection to one of the hubs.
pub(super) type Seat = (usize, ConnId);

/// Some hubs, their users, and the wires between them.
pub(super) struct World {
    pub(super) now: Time,
    pub(super) hubs: Vec<Hub>,
    pub(super) users: BTreeMap<String, Seat>,
    pub(super) wires: BTreeMap<Seat, Seat>,
    pub(super) saved: Vec<Record>,
    pub(super) closed: Vec<Seat>,
    /// Connections that the hubs told of bytes for.
    pub(super) told: BTreeSet<Seat>,
}

impl World {
    pub(super) fn new(hubs: usize) -> Self {
        Self::with(hubs, |_| {})
    }

    pub(super) fn with(hubs: usize, change: impl Fn(&mut Config)) -> Self {
        let hub = |n: usize| {
            let mut config = Config {
                name: format!("hub{n}").into_bytes(),
                motd: vec![b"hello".to_vec(), Vec::new()],
                epoch: 1_000_000,
                link_secret: Some(b"secret".to_vec()),
                ..Config::default()
            };
            change(&mut config);
            Hub::new(config, Rng::from_seed(n as u64))
        };
        Self {
            now: Time::from_secs(1),
            hubs: (0..hubs).map(hub).collect(),
            users: BTreeMap::new(),
            wires: BTreeMap::new(),
            saved: Vec::new(),
            closed: Vec::new(),
            told: BTreeSet::new(),
        }
    }

    /// Does what the driver would, until nothing is left to do.
    pub(super) fn settle(&mut self, hub: usize, out: Vec<Effect>) {
        let mut todo: Vec<(usize, Effect)> = out.into_iter().map(|e| (hub, e)).collect();
        let mut n = 0;
        while n < todo.len() {
            let (at, effect) = todo[n].clone();
            n += 1;
            let mut out = Vec::new();
            match effect {
                Effect::Write(id) => {
                    self.told.insert((at, id));
                    if let Some((far, there)) = self.wires.get(&(at, id)).copied() {
                        let bytes = self.hubs[at].output(id).to_vec();
                        self.hubs[at].on_sent(self.now, id, bytes.len(), &mut out);
                        let mut news = Vec::new();
                        self.hubs[far].on_bytes(self.now, there, &bytes, &mut news);
                        todo.extend(news.into_iter().map(|e| (far, e)));
                    }
                }
                Effect::Close(id) => {
                    self.closed.push((at, id));
                    if let Some((far, there)) = self.wires.remove(&(at, id)) {
                        self.wires.remove(&(far, there));
                        let mut news = Vec::new();
                        self.hubs[far].on_closed(self.now, there, &mut news);
                        todo.extend(news.into_iter().map(|e| (far, e)));
                        self.hubs[at].on_closed(self.now, id, &mut out);
                    }
                }
                Effect::Hash { conn, password } => {
                    let hash = [b"h:", &password[..]].concat();
                    self.hubs[at].on_hashed(self.now, conn, hash, &mut out);
                }
                Effect::Verify {
                    conn,
                    password,
                    hash,
                } => {
                    let right = hash == [b"h:", &password[..]].concat();
                    self.hubs[at].on_verified(self.now, conn, right, &mut out);
                }
                Effect::Save(record) => self.saved.push(record),
                Effect::Linked { .. } => {}
            }
            todo.extend(out.into_iter().map(|e| (at, e)));
        }
        self.hubs.iter().for_each(Hub::check_invariants);
    }

    pub(super) fn connect(&mut self, name: &str, hub: usize, ip: [u8; 4]) {
        let id = self.hubs[hub]
            .connect(self.now, (ip, 5000).into())
            .expect("let in");
        self.users.insert(name.to_owned(), (hub, id));
    }

    pub(super) fn says(&mut self, name: &str, kind: u16, data: &str) {
        let (hub, id) = self.users[name];
        let mut bytes = Vec::new();
        frame::encode(kind, data.as_bytes(), &mut bytes);
        let mut out = Vec::new();
        self.hubs[hub].on_bytes(self.now, id, &bytes, &mut out);
        self.settle(hub, out);
    }

    /// All that a user was told since the last look: `type data`.
    pub(super) fn hears(&mut self, name: &str) -> Vec<String> {
        let (hub, id) = self.users[name];
        let bytes = self.hubs[hub].output(id).to_vec();
        if bytes.is_empty() {
            return Vec::new();
        }
        // A driver looks only where it was told to.
        assert!(self.told.remove(&(hub, id)), "{name} was not told of");
        let mut out = Vec::new();
        self.hubs[hub].on_sent(self.now, id, bytes.len(), &mut out);
        self.settle(hub, out);
        let (mut lines, mut at) = (Vec::new(), 0);
        while let Some((frame, used)) = frame::decode(&bytes[at..], 65_535).expect("fits") {
            let text = String::from_utf8_lossy(frame.data);
            lines.push(format!("{} {text}", frame.kind).trim_end().to_owned());
            at += used;
        }
        assert_eq!(at, bytes.len());
        lines
    }

    /// Logs in at a hub, from an address of its own, by a T1 (9) and with data port 6699.
    pub(super) fn login(&mut self, name: &str, hub: usize) {
        let n = self.users.len() as u8 + 1;
        self.connect(name, hub, [44, 20, n, 1]);
        self.says(
            name,
            kind::LOGIN,
            &format!("{name} pw{name} 6699 \"test\" 9 5201 0"),
        );
        let heard = self.hears(name);
        assert_eq!(
            heard[..3],
            ["3 anon@server", "621 hello", "621"],
            "{heard:?}"
        );
        assert!(heard[3].starts_with("214 "), "{heard:?}");
    }

    pub(super) fn leaves(&mut self, name: &str) {
        let (hub, id) = self.users.remove(name).expect("was here");
        let mut out = Vec::new();
        self.hubs[hub].on_closed(self.now, id, &mut out);
        self.settle(hub, out);
    }

    pub(super) fn is_closed(&self, name: &str) -> bool {
        self.closed.contains(&self.users[name])
    }

    /// Lays a wire between two hubs; the first dials.
    pub(super) fn link(&mut self, a: usize, b: usize) -> Seat {
        let far = self.hubs[b]
            .connect(self.now, ([10, 0, 0, a as u8], 1).into())
            .expect("let in");
        let near = self.hubs[a]
            .connect(self.now, ([10, 0, 1, b as u8], 1).into())
            .expect("let in");
        self.wires.insert((a, near), (b, far));
        self.wires.insert((b, far), (a, near));
        let mut out = Vec::new();
        self.hubs[a].on_dialled(self.now, near, &mut out);
        self.settle(a, out);
        (a, near)
    }

    pub(super) fn cut(&mut self, (hub, near): Seat) {
        let (other, far) = self.wires.remove(&(hub, near)).expect("a wire");
        self.wires.remove(&(other, far));
        for (hub, id) in [(hub, near), (other, far)] {
            let mut out = Vec::new();
            self.hubs[hub].on_closed(self.now, id, &mut out);
            self.settle(hub, out);
        }
    }

    pub(super) fn passes(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            self.now += Duration::from_secs(5);
            for hub in 0..self.hubs.len() {
                let mut out = Vec::new();
                self.hubs[hub].on_tick(self.now, &mut out);
                self.settle(hub, out);
            }
        }
    }

    pub(super) fn deaf(&mut self) {
        for name in self.users.keys().cloned().collect::<Vec<_>>() {
            self.hears(&name);
        }
    }
}
