//! Ways to us: sockets, what STUN servers see of them, and addresses at relays.

use super::CallError;
use nix::ifaddrs::getifaddrs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shoal_base::{Rng, Time};
use shoal_call::media::session::OurCandidate;
use shoal_reach::stun::{Class, Message, Method, TransactionId, binding, datagram_frame};
use shoal_reach::turn::client::{ClientConfig, Event, Failure, Output, TurnClient};
use shoal_reach::turn::credential::Credential;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Sockets at most.
pub(super) const MOST_SOCKETS: usize = 8;
/// How long STUN servers and relays have to answer before the call begins without them.
const GATHER: Duration = Duration::from_millis(2500);
/// Between questions to a STUN server.
const AGAIN: Duration = Duration::from_millis(400);
/// The largest datagram looked at.
const DATAGRAM: usize = 2048;

/// A relay that we may use.
#[derive(Debug, Clone)]
pub struct Relay {
    /// Its address, by UDP.
    pub server: SocketAddr,
    /// With what.
    pub credential: Credential,
}

/// Which ways to us are tried.
#[derive(Debug, Clone, Default)]
pub struct WaySettings {
    /// Sound comes and goes here; none for every address of this machine, at any port.
    pub bind: Option<SocketAddr>,
    /// Told to the other end instead of the sockets' own addresses: what a router passes on to `bind`.
    pub advertise: Vec<SocketAddr>,
    /// STUN servers.
    pub stun: Vec<SocketAddr>,
    /// Relays, those to be preferred first.
    pub relays: Vec<Relay>,
    /// Only through relays, so that the other end does not learn our address.
    pub relay_only: bool,
}

struct Bound {
    socket: UdpSocket,
    /// As ICE knows it.
    address: SocketAddr,
    /// Other names of it that were told to the other end.
    aliases: Vec<SocketAddr>,
}

struct Relayed {
    server: SocketAddr,
    socket: usize,
    client: TurnClient,
    address: Option<SocketAddr>,
    failed: Option<Failure>,
}

/// Takes what came: the socket, from where, to which address of ours, the bytes.
type Taker<'a> = dyn FnMut(usize, SocketAddr, SocketAddr, &[u8]) + 'a;

/// All ways, opened.
pub(crate) struct Ways {
    bound: Vec<Bound>,
    relayed: Vec<Relayed>,
    out: Vec<Output>,
    base: Instant,
    candidates: Vec<OurCandidate>,
}

impl Ways {
    /// Opens the sockets and asks STUN servers and relays, for a few seconds at most.
    pub(crate) fn open(
        settings: &WaySettings,
        base: Instant,
        rng: &mut Rng,
    ) -> Result<Self, CallError> {
        let mut ways = Self {
            bound: bind(settings)?,
            relayed: Vec::new(),
            out: Vec::new(),
            base,
            candidates: Vec::new(),
        };
        ways.gather(settings, rng);
        if ways.candidates.is_empty() {
            let failed = ways.relayed.iter().find_map(|r| r.failed);
            let why = failed.map_or_else(|| "no relay answers".to_owned(), |f| f.to_string());
            return Err(CallError::Ways(why));
        }
        Ok(ways)
    }

    pub(crate) fn base(&self) -> Instant {
        self.base
    }

    pub(crate) fn now(&self) -> Time {
        let micros = self.base.elapsed().as_micros();
        Time::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    pub(crate) fn candidates(&self) -> &[OurCandidate] {
        &self.candidates
    }

    fn gather(&mut self, settings: &WaySettings, rng: &mut Rng) {
        if !settings.relay_only {
            for bound in &self.bound {
                let told = if settings.advertise.is_empty() {
                    std::slice::from_ref(&bound.address)
                } else {
                    bound.aliases.as_slice()
                };
                self.candidates
                    .extend(told.iter().copied().map(OurCandidate::Host));
            }
        }
        for relay in &settings.relays {
            let fits = |b: &Bound| {
                b.address.is_ipv4() == relay.server.is_ipv4() && reaches(b.address, relay.server)
            };
            let Some(socket) = self.bound.iter().position(fits) else {
                continue;
            };
            let config = ClientConfig {
                stream: false,
                credential: relay.credential.clone(),
                ipv6: false,
            };
            let client = TurnClient::new(config, self.now(), rng, &mut self.out);
            self.relayed.push(Relayed {
                server: relay.server,
                socket,
                client,
                address: None,
                failed: None,
            });
            self.flush(self.relayed.len() - 1);
        }
        let stun: Vec<_> = settings
            .stun
            .iter()
            .filter(|_| !settings.relay_only)
            .copied()
            .collect();
        let mut asked: Vec<(TransactionId, usize)> = Vec::new();
        let (end, mut again) = (Instant::now() + GATHER, Instant::now());
        let mut seen: Vec<SocketAddr> = Vec::new();
        loop {
            let waiting = self
                .relayed
                .iter()
                .any(|r| r.address.is_none() && r.failed.is_none());
            let unseen = !stun.is_empty() && seen.is_empty();
            let now = Instant::now();
            if now >= end || !(waiting || unseen) {
                break;
            }
            if now >= again {
                again = now + AGAIN;
                for (i, bound) in self.bound.iter().enumerate() {
                    for server in stun.iter().filter(|s| reaches(bound.address, **s)) {
                        let id = TransactionId::random(rng);
                        asked.push((id, i));
                        let mut request = Vec::new();
                        binding::request(id, &mut request);
                        let _ = bound.socket.send_to(&request, server);
                    }
                }
            }
            self.wait(again.min(end).saturating_duration_since(now));
            let mut answers: Vec<(usize, SocketAddr)> = Vec::new();
            self.receive(&mut |index, _source, _destination, bytes| {
                let Ok(message) = Message::decode(bytes) else {
                    return;
                };
                let ours = asked.contains(&(message.id(), index));
                if ours
                    && message.class() == Class::Success
                    && message.method() == Method::BINDING
                    && let Some(address) = binding::mapped_address(&message)
                {
                    answers.push((index, address));
                }
            });
            for (index, address) in answers {
                if seen.contains(&address) {
                    continue;
                }
                seen.push(address);
                let Some(bound) = self.bound.get(index) else {
                    continue;
                };
                if bound.address != address {
                    let base = bound.address;
                    self.candidates
                        .push(OurCandidate::Reflexive { address, base });
                }
            }
            self.tick();
        }
        for relayed in &self.relayed {
            if let (Some(address), Some(bound)) = (relayed.address, self.bound.get(relayed.socket))
            {
                let base = bound.address;
                self.candidates
                    .push(OurCandidate::Relayed { address, base });
            }
        }
    }

    /// Waits until something comes, or for so long.
    pub(crate) fn wait(&self, time: Duration) {
        let mut fds: Vec<_> = self
            .bound
            .iter()
            .map(|b| PollFd::new(&b.socket, PollFlags::IN))
            .collect();
        let timeout = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        let _ = poll(&mut fds, Some(&timeout));
    }

    /// Hands over what came.
    pub(crate) fn receive(&mut self, take: &mut Taker<'_>) {
        let mut buffer = [0; DATAGRAM];
        let now = self.now();
        for (i, bound) in self.bound.iter().enumerate() {
            // So many at once that the clock is looked at in between.
            for _ in 0..64 {
                let (n, source) = match bound.socket.recv_from(&mut buffer) {
                    Ok(came) => came,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    // An ICMP error of something sent earlier.
                    Err(_) => continue,
                };
                let bytes = buffer.get(..n).unwrap_or_default();
                let source = SocketAddr::new(source.ip().to_canonical(), source.port());
                let relay = self
                    .relayed
                    .iter_mut()
                    .find(|r| r.socket == i && r.server == source);
                match relay {
                    Some(relayed) => {
                        let Some(frame) = datagram_frame(bytes) else {
                            continue;
                        };
                        let data = relayed.client.on_frame(now, frame, &mut self.out);
                        if let (Some((peer, data)), Some(address)) = (data, relayed.address) {
                            take(i, peer, address, data);
                        } else {
                            // It may be a STUN server as well.
                            take(i, source, bound.address, bytes);
                        }
                    }
                    None => {
                        let to = bound.aliases.first().copied().unwrap_or(bound.address);
                        take(i, source, to, bytes);
                    }
                }
            }
        }
        self.flush_all();
    }

    /// Sends a datagram from a socket or through a relay.
    pub(crate) fn send(&mut self, source: SocketAddr, destination: SocketAddr, bytes: &[u8]) {
        let now = self.now();
        if let Some(i) = self.relayed.iter().position(|r| r.address == Some(source)) {
            let Some(relayed) = self.relayed.get_mut(i) else {
                return;
            };
            relayed.client.permit(now, destination, true, &mut self.out);
            let mut frame = Vec::new();
            // Not let in yet: ICE sends it again.
            if relayed
                .client
                .send(now, destination, bytes, &mut frame)
                .is_ok()
                && let Some(bound) = self.bound.get(relayed.socket)
            {
                let _ = bound.socket.send_to(&frame, relayed.server);
            }
            self.flush(i);
            return;
        }
        let from = self
            .bound
            .iter()
            .find(|b| b.address == source || b.aliases.contains(&source));
        if let Some(bound) = from {
            // What is lost here is lost as on any path.
            let _ = bound.socket.send_to(bytes, destination);
        }
    }

    /// Lets the relays' clients do what is due.
    pub(crate) fn tick(&mut self) {
        let now = self.now();
        for i in 0..self.relayed.len() {
            if let Some(relayed) = self.relayed.get_mut(i)
                && relayed.client.deadline().is_some_and(|d| d <= now)
            {
                relayed.client.on_tick(now, &mut self.out);
                self.flush(i);
            }
        }
    }

    fn flush_all(&mut self) {
        // Only one client at a time has something to say: it was told a frame.
        for i in 0..self.relayed.len() {
            self.flush(i);
        }
    }

    /// Does what the client of relay `i` wants.
    fn flush(&mut self, i: usize) {
        let Some(relayed) = self.relayed.get_mut(i) else {
            return;
        };
        for output in self.out.drain(..) {
            match output {
                Output::Send(bytes) => {
                    if let Some(bound) = self.bound.get(relayed.socket) {
                        let _ = bound.socket.send_to(&bytes, relayed.server);
                    }
                }
                Output::Event(Event::Allocated {
                    relayed: addresses, ..
                }) => {
                    relayed.address = addresses.first().copied();
                }
                Output::Event(Event::Failed(failure)) => {
                    tracing::debug!(server = %relayed.server, %failure, "a relay is not there");
                    relayed.failed = Some(failure);
                }
                Output::Event(_) => {}
            }
        }
    }
}

impl Drop for Ways {
    fn drop(&mut self) {
        let now = self.now();
        for i in 0..self.relayed.len() {
            if let Some(relayed) = self.relayed.get_mut(i) {
                relayed.client.release(now, &mut self.out);
                self.flush(i);
            }
        }
    }
}

/// Whether packets from `from` can get to `to`: loopback is for loopback alone.
fn reaches(from: SocketAddr, to: SocketAddr) -> bool {
    from.is_ipv4() == to.is_ipv4() && from.ip().is_loopback() == to.ip().is_loopback()
}

fn bind(settings: &WaySettings) -> Result<Vec<Bound>, CallError> {
    let fail = |e: io::Error| CallError::Ways(e.to_string());
    let wanted = match settings.bind {
        Some(address) => vec![address],
        None => addresses()
            .into_iter()
            .map(|ip| SocketAddr::new(ip, 0))
            .collect(),
    };
    let mut bound = Vec::new();
    for address in wanted.into_iter().take(MOST_SOCKETS) {
        let opened = UdpSocket::bind(address).and_then(|socket| {
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            Ok(Bound {
                socket,
                address,
                aliases: settings.advertise.clone(),
            })
        });
        match opened {
            Ok(b) => bound.push(b),
            Err(e) if settings.bind.is_some() => return Err(fail(e)),
            // An address that went away just now.
            Err(_) => {}
        }
    }
    if bound.is_empty() {
        return Err(CallError::Ways("this machine has no address".to_owned()));
    }
    Ok(bound)
}

/// This machine's addresses, those that lead somewhere first.
pub(super) fn addresses() -> Vec<IpAddr> {
    let mut found = Vec::new();
    if let Ok(interfaces) = getifaddrs() {
        for address in interfaces.filter_map(|i| i.address) {
            let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
                (Some(v4), _) => IpAddr::V4(v4.ip()),
                (_, Some(v6)) if !v6.ip().is_unicast_link_local() => IpAddr::V6(v6.ip()),
                _ => continue,
            };
            if !found.contains(&ip) {
                found.push(ip);
            }
        }
    }
    if found.is_empty() {
        found.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    found.sort_by_key(IpAddr::is_loopback);
    found
}
