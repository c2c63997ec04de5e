//! Nodes and the connections between them, in virtual time.

use super::*;

/// A few files.
#[derive(Debug, Default)]
pub(super) struct Files(pub(super) Vec<SharedFile>);

impl Files {
    pub(super) fn of(names: &[&str]) -> Self {
        let files = names.iter().zip(0..).map(|(name, index)| SharedFile {
            index,
            size: 1000,
            name: (*name).into(),
            sha1: Some(sha1(name)),
            tiger: None,
        });
        Self(files.collect())
    }
}

pub(super) fn sha1(name: &str) -> Sha1 {
    let mut rng = Rng::from_seed(name.bytes().map(u64::from).sum());
    std::array::from_fn(|_| rng.next_u32() as u8)
}

impl Shared for Files {
    fn search(&mut self, words: &[String], most: usize, out: &mut Vec<SharedFile>) {
        let found = self.0.iter().filter(|f| has_all(&f.name, words));
        out.extend(found.take(most).cloned());
    }

    fn find(&mut self, urn: &Urn) -> Option<SharedFile> {
        self.0.iter().find(|f| f.sha1 == urn.sha1()).cloned()
    }

    fn names(&self, each: &mut dyn FnMut(&str, Option<Sha1>)) {
        self.0.iter().for_each(|f| each(&f.name, f.sha1));
    }

    fn size(&self) -> (u32, u32) {
        (self.0.len() as u32, self.0.len() as u32)
    }

    fn version(&self) -> u64 {
        self.0.len() as u64
    }
}

pub(super) type End = (usize, ConnId);

/// Nodes joined by wires of 50 ms; every message goes through bytes.
pub(super) struct Net {
    pub(super) now: Time,
    pub(super) nodes: Vec<Node<Files>>,
    pub(super) wires: BTreeMap<End, End>,
    pub(super) flying: Vec<(Time, End, Packet)>,
    /// When, from whom, to whom.
    pub(super) datagrams: Vec<(Time, SocketAddrV4, SocketAddrV4, Packet)>,
    pub(super) roles: Vec<(usize, Mode)>,
    pub(super) found: Vec<(usize, Guid, Answer)>,
    pub(super) gives: Vec<(usize, Push)>,
    pub(super) byes: Vec<(usize, Bye)>,
    pub(super) over: Vec<Guid>,
    /// Who cannot be connected to.
    pub(super) walled: Vec<usize>,
}

pub(super) fn addr(n: usize) -> SocketAddrV4 {
    SocketAddrV4::new([44, 20, (n / 200) as u8, (n % 200) as u8 + 1].into(), 6346)
}

impl Net {
    pub(super) fn new() -> Self {
        Self {
            now: Time::from_secs(1),
            nodes: Vec::new(),
            wires: BTreeMap::new(),
            flying: Vec::new(),
            datagrams: Vec::new(),
            roles: Vec::new(),
            found: Vec::new(),
            gives: Vec::new(),
            byes: Vec::new(),
            over: Vec::new(),
            walled: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, mode: Mode, names: &[&str]) -> usize {
        let n = self.nodes.len();
        let config = Config {
            listen: Some(addr(n)),
            ..Config::of(mode)
        };
        self.add_with(config, names)
    }

    pub(super) fn add_with(&mut self, config: Config, names: &[&str]) -> usize {
        let n = self.nodes.len();
        let rng = Rng::from_seed(n as u64);
        let node = Node::new(self.now, config, Files::of(names), rng);
        self.nodes.push(node);
        n
    }

    /// Joins two, as handshakes would.
    pub(super) fn join(&mut self, a: usize, b: usize) -> (ConnId, ConnId) {
        let mut out = Vec::new();
        let (ga, gb) = (self.nodes[a].greeting(None), self.nodes[b].greeting(None));
        let ra = self.nodes[a].judge(&gb, Version::V06).unwrap();
        let rb = self.nodes[b].judge(&ga, Version::V06).unwrap();
        let ia = self.nodes[a].open(self.now, &gb, ra, addr(b), &mut out);
        self.act(a, &mut out);
        let ib = self.nodes[b].open(self.now, &ga, rb, addr(a), &mut out);
        self.wires.insert((a, ia), (b, ib));
        self.wires.insert((b, ib), (a, ia));
        self.act(b, &mut out);
        self.flush((a, ia));
        (ia, ib)
    }

    pub(super) fn flush(&mut self, end: End) {
        let Some(to) = self.wires.get(&end).copied() else {
            return;
        };
        while let Some(packet) = self.nodes[end.0].pop(end.1) {
            let at = self.now + Duration::from_millis(50);
            self.flying.push((at, to, packet));
        }
    }

    pub(super) fn act(&mut self, n: usize, out: &mut Vec<Effect>) {
        for effect in std::mem::take(out) {
            match effect {
                Effect::Ready(id) => self.flush((n, id)),
                Effect::Close(id) => {
                    self.flush((n, id));
                    self.nodes[n].on_closed(self.now, id);
                    self.wires.remove(&(n, id));
                }
                Effect::Found { search, answer } => self.found.push((n, search, *answer)),
                Effect::Searched(guid) => self.over.push(guid),
                Effect::Give(push) => self.gives.push((n, push)),
                Effect::Farewell(_, bye) => self.byes.push((n, bye)),
                Effect::Datagram(to, packet) => {
                    let at = self.now + Duration::from_millis(50);
                    self.datagrams.push((at, addr(n), to, packet));
                }
                Effect::ConnectBack(to) => {
                    if let Some(n) = self.at(to).filter(|n| !self.walled.contains(n)) {
                        self.nodes[n].reached();
                    }
                }
                Effect::Role(mode) => self.roles.push((n, mode)),
                Effect::Dial(_) => {}
            }
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut out = Vec::new();
        loop {
            // The earliest message, in the order of sending among equals.
            let next = self
                .flying
                .iter()
                .enumerate()
                .min_by_key(|(n, f)| (f.0, *n));
            let next = next.map(|(at, f)| (f.0, at));
            let tick = self.nodes.iter().map(Node::deadline).min().unwrap();
            let first = self
                .datagrams
                .iter()
                .map(|d| d.0)
                .min()
                .unwrap_or(Time::FAR);
            let at = next.map_or(tick, |(time, _)| time.min(tick));
            let at = at.min(first).max(self.now);
            if at > end {
                self.now = end;
                return;
            }
            self.now = at;
            if first <= at {
                self.datagram();
                continue;
            }
            match next.filter(|(time, _)| *time <= at) {
                Some((_, which)) => {
                    let (_, (n, id), packet) = self.flying.remove(which);
                    let mut reader = Reader::default();
                    reader.push(packet.bytes());
                    let (header, payload) = reader.message().unwrap().unwrap();
                    self.nodes[n].on_message(self.now, id, header, payload, &mut out);
                    self.act(n, &mut out);
                }
                None => {
                    for n in 0..self.nodes.len() {
                        if self.nodes[n].deadline() <= self.now {
                            self.nodes[n].on_tick(self.now, &mut out);
                            self.act(n, &mut out);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn at(&self, place: SocketAddrV4) -> Option<usize> {
        (0..self.nodes.len()).find(|n| addr(*n) == place)
    }

    /// The first datagram arrives.
    pub(super) fn datagram(&mut self) {
        let (_, from, to, packet) = self.datagrams.remove(0);
        if let Some(n) = self.at(to) {
            let mut out = Vec::new();
            self.nodes[n].on_datagram(self.now, from, packet.bytes(), &mut out);
            self.act(n, &mut out);
        }
    }

    pub(super) fn secs(&mut self, s: u64) {
        self.run(Duration::from_secs(s));
    }

    pub(super) fn search(&mut self, n: usize, text: &str) -> Guid {
        self.search_for(n, text, Wanted::default())
    }

    pub(super) fn search_for(&mut self, n: usize, text: &str, wanted: Wanted) -> Guid {
        let mut out = Vec::new();
        let guid = self.nodes[n].search(self.now, text, wanted, &mut out);
        self.act(n, &mut out);
        guid
    }

    pub(super) fn names(&self) -> Vec<String> {
        let files = self.found.iter().flat_map(|(_, _, a)| &a.files);
        let mut names: Vec<String> = files.map(|f| f.name.clone()).collect();
        names.sort();
        names
    }

    /// Sends bytes to `n` as if the other end of `id` had.
    pub(super) fn forge(&mut self, n: usize, id: ConnId, packet: &Packet) {
        let mut out = Vec::new();
        self.nodes[n].on_message(self.now, id, packet.header(), packet.payload(), &mut out);
        self.act(n, &mut out);
    }
}
