//! A supernode of a test's own that lies: boxes by the real core, a place in the ring of names by the real
//! core, on the real list; what it does with letters and records is the test's to say.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use ed25519_dalek::SigningKey;
use shoal_base::id::to_hex;
use shoal_base::{Rng, Time};
use shoal_call::mailbox::office::{LinkId, Office, OfficeConfig, Out};
use shoal_call::mailbox::wire::{MAGIC, Say, Told};
use shoal_call::mailbox::{Envelope, LetterId};
use shoal_dht::chord::{Endpoint, Settings};
use shoal_dht::{Dht, Judge, Output};
use shoal_node::supernode::claim;
use shoal_supernode::list::Registration;
use shoal_supernode::token::Presence;
use shoal_supernode::wire::{self, Answer, Ask};

/// How often it tells the list that it is there: before it is forgotten.
const REGISTER: Duration = Duration::from_secs(10);
/// How often its threads look whether the test is over.
const LOOK: Duration = Duration::from_millis(50);

/// What it does with letters that are put into boxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Nothing: it begins honest, so that people take it as a home.
    None,
    /// Changes a bit.
    Twists,
    /// Puts the envelope that the test gave it in the place of each.
    Swaps,
    /// Says that it is kept, and drops it.
    Drops,
    /// Hands all that was ever there to its recipient again, with each letter and when a box is opened.
    Replays,
}

struct State {
    office: Office,
    out: BTreeMap<LinkId, TcpStream>,
    lie: Lie,
    swap: Option<Envelope>,
    seen: Vec<Envelope>,
    /// Who has opened a box.
    owners: BTreeMap<[u8; 32], LinkId>,
    keys: BTreeMap<LinkId, [u8; 32]>,
    lies: u64,
}

/// It. Ends when dropped.
pub(crate) struct FalseSupernode {
    pub(crate) addr: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Its judge keeps records up to this rank alone, and those that [`FalseSupernode::believe`] names.
    frozen: Arc<AtomicI64>,
    believed: Arc<AtomicI64>,
    records: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

fn unix() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed();
    since.expect("after 1970").as_secs()
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("nobody panicked")
}

impl FalseSupernode {
    /// Claims a name, registers, and takes a place in the ring at `doors`.
    pub(crate) fn start(login: &str, name: &str, doors: &[SocketAddr]) -> Self {
        let login: SocketAddr = login.parse().expect("an address");
        let mut secret = [66; 32];
        secret[..name.len()].copy_from_slice(name.as_bytes());
        let key = SigningKey::from_bytes(&secret);
        let granted = claim(login, name, &key).expect("granted");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = tcp.local_addr().expect("bound");
        let udp = UdpSocket::bind(addr).expect("the same port by UDP");
        let config = OfficeConfig {
            epoch: unix(),
            ..OfficeConfig::new(granted.by)
        };
        let state = Arc::new(Mutex::new(State {
            office: Office::new(config, key.clone(), Rng::from_seed(6)),
            out: BTreeMap::new(),
            lie: Lie::None,
            swap: None,
            seen: Vec::new(),
            owners: BTreeMap::new(),
            keys: BTreeMap::new(),
            lies: 0,
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (frozen, believed) = (AtomicI64::new(i64::MAX), AtomicI64::new(i64::MAX));
        let (frozen, believed) = (Arc::new(frozen), Arc::new(believed));
        let records = Arc::new(AtomicU64::new(0));
        let begun = Instant::now();

        let presence = Presence::new(&key, granted.token, addr, None);
        let (ends, signer) = (Arc::clone(&stop), key.clone());
        let registers = std::thread::spawn(move || {
            let mut next = Instant::now();
            while !ends.load(Ordering::Relaxed) {
                if next <= Instant::now() {
                    let said = Registration::new(&signer, presence.clone(), 0, unix());
                    assert!(register(login, said), "the list does not take it");
                    next = Instant::now() + REGISTER;
                }
                // The list forgets who is silent: it is told now and then, until the test is over.
                std::thread::sleep(LOOK);
            }
        });

        let (ends, boxes) = (Arc::clone(&stop), Arc::clone(&state));
        let accepts = std::thread::spawn(move || {
            for (n, stream) in tcp.incoming().map_while(Result::ok).enumerate() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let boxes = Arc::clone(&boxes);
                std::thread::spawn(move || serve(&boxes, stream, n as LinkId, begun));
            }
        });

        let judge = {
            let (frozen, believed) = (Arc::clone(&frozen), Arc::clone(&believed));
            Judge::new(move |now, item| {
                let fits = item.seq <= frozen.load(Ordering::Relaxed)
                    || item.seq == believed.load(Ordering::Relaxed);
                fits.then(|| now + Duration::from_secs(3600))
            })
        };
        let settings = Settings {
            ring: format!("shoal names {}", to_hex(&granted.by)),
            judge: Some(judge),
            ..Settings::default()
        };
        let (ends, kept, doors) = (Arc::clone(&stop), Arc::clone(&records), doors.to_vec());
        let rings = std::thread::spawn(move || {
            let mut endpoint = Endpoint::new(key, settings, Rng::from_seed(7));
            ring(&mut endpoint, &udp, &doors, &ends, &kept);
        });
        Self {
            addr,
            state,
            frozen,
            believed,
            records,
            stop,
            threads: vec![registers, accepts, rings],
        }
    }

    /// Lies so from now on.
    pub(crate) fn lie(&self, lie: Lie) {
        lock(&self.state).lie = lie;
    }

    /// Swaps letters for this one from now on.
    pub(crate) fn swap(&self, envelope: Envelope) {
        let mut state = lock(&self.state);
        (state.lie, state.swap) = (Lie::Swaps, Some(envelope));
    }

    /// How many letters it has lied about.
    pub(crate) fn lies(&self) -> u64 {
        lock(&self.state).lies
    }

    /// Keeps records of this rank at most from now on, whatever newer ones come.
    pub(crate) fn freeze(&self, rank: i64) {
        self.frozen.store(rank, Ordering::Relaxed);
    }

    /// Keeps what has this rank as well.
    pub(crate) fn believe(&self, rank: i64) {
        self.believed.store(rank, Ordering::Relaxed);
    }

    /// Records that it keeps for the ring.
    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
}

impl Drop for FalseSupernode {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes who accepts.
        let _ = TcpStream::connect(self.addr);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn register(list: SocketAddr, said: Registration<SocketAddr>) -> bool {
    let Ok(mut stream) = TcpStream::connect(list) else {
        return false;
    };
    let ask: Ask<SocketAddr> = Ask::Register(Box::new(said));
    let mut bytes = Vec::new();
    wire::encode(&ask, &mut bytes);
    if stream.write_all(&bytes).is_err() {
        return false;
    }
    let mut buf = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Ok(Some((answer, _))) = wire::decode::<Answer<SocketAddr>>(&buf) {
            return matches!(answer, Answer::Registered);
        }
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => buf.extend_from_slice(&chunk[..n]),
            _ => return false,
        }
    }
}

/// A member of the ring until the test is over.
fn ring(
    endpoint: &mut Endpoint,
    udp: &UdpSocket,
    doors: &[SocketAddr],
    stop: &AtomicBool,
    records: &AtomicU64,
) {
    let begun = Instant::now();
    let now = || Time::from_secs(1000) + begun.elapsed();
    let mut out = Vec::new();
    endpoint.join(now(), doors, &mut out);
    udp.set_read_timeout(Some(LOOK)).expect("not zero");
    let mut buf = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        for output in out.drain(..) {
            if let Output::Send { to, bytes } = output {
                // Whoever has gone is not there to be sent to.
                let _ = udp.send_to(&bytes, to);
            }
        }
        if let Ok((len, from)) = udp.recv_from(&mut buf) {
            endpoint.on_datagram(now(), from, &buf[..len], &mut out);
        }
        if endpoint.deadline().is_some_and(|at| at <= now()) {
            endpoint.on_tick(now(), &mut out);
        }
        records.store(endpoint.items() as u64, Ordering::Relaxed);
    }
}

/// One link to the boxes; links of the overlay are closed at once.
fn serve(state: &Mutex<State>, mut stream: TcpStream, link: LinkId, begun: Instant) {
    let now = || Time::from_micros(begun.elapsed().as_micros() as u64);
    let mut magic = [0; 4];
    if stream.read_exact(&mut magic).is_err() || magic != MAGIC {
        return;
    }
    let mut out = Vec::new();
    {
        let mut state = lock(state);
        let writer = stream.try_clone().expect("cloned");
        state.out.insert(link, writer);
        state.office.connected(now(), link, &mut out);
        state.act(out);
    }
    let mut buf = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        while let Ok(Some((said, used))) = wire::decode::<Say>(&buf) {
            buf.drain(..used);
            lock(state).said(now(), link, said);
        }
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => buf.extend_from_slice(&chunk[..n]),
            _ => break,
        }
    }
    let mut state = lock(state);
    state.out.remove(&link);
    state.office.closed(now(), link);
}

impl State {
    fn said(&mut self, now: Time, link: LinkId, said: Say) {
        let mut out = Vec::new();
        match said {
            Say::Put(envelope) if self.lie != Lie::None => self.lied(link, envelope),
            said => {
                if let Say::Hello(certificate, _) = &said {
                    self.keys.insert(link, certificate.key);
                }
                let opens = said == Say::Open;
                self.office.said(now, link, said, &mut out);
                if opens && let Some(key) = self.keys.get(&link).copied() {
                    self.owners.insert(key, link);
                    if self.lie == Lie::Replays {
                        self.replay();
                    }
                }
            }
        }
        self.act(out);
    }

    /// Takes a letter, and lies about it.
    fn lied(&mut self, link: LinkId, mut envelope: Envelope) {
        let id: LetterId = envelope.id();
        self.lies += 1;
        self.send(link, &Told::Stored(id));
        match self.lie {
            Lie::Drops => return,
            Lie::Twists => {
                let at = envelope.sealed.len() / 2;
                envelope.sealed[at] ^= 1;
            }
            Lie::Swaps => {
                let own = self.swap.clone().expect("the test gave one");
                if own.to == envelope.to {
                    envelope = own;
                }
            }
            Lie::Replays | Lie::None => {}
        }
        self.seen.push(envelope.clone());
        if let Some(owner) = self.owners.get(&envelope.to).copied() {
            self.send(owner, &Told::Mail(envelope));
        }
        if self.lie == Lie::Replays {
            self.replay();
        }
    }

    fn replay(&mut self) {
        for envelope in self.seen.clone() {
            if let Some(owner) = self.owners.get(&envelope.to).copied() {
                self.send(owner, &Told::Mail(envelope));
            }
        }
    }

    fn act(&mut self, out: Vec<Out>) {
        for out in out {
            match out {
                Out::Send(to, told) => self.send(to, &told),
                Out::Close(link) => drop(self.out.remove(&link)),
                // It has no place in the ring.
                Out::Publish(..) | Out::Look(..) => {}
            }
        }
    }

    fn send(&mut self, to: LinkId, told: &Told) {
        let mut bytes = Vec::new();
        wire::encode(told, &mut bytes);
        if let Some(stream) = self.out.get_mut(&to) {
            // It may have gone.
            let _ = stream.write_all(&bytes);
        }
    }
}
