//! Whether strangers reach us by UDP: the driver of `shoal_reach::reachability`.
//!
//! Relays are asked for our address. One of them is kept apart: to it goes nothing by UDP, but by TCP an
//! allocation is made there, from which a packet is sent to the address that the others saw. It comes
//! from somebody whom our socket has never sent to, so that a NAT or a firewall takes it for a stranger's.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use shoal_base::{Machine, Rng, Time};
use shoal_reach::reachability::{Probe, ProbeInput, ProbeOutput, dial_back};
use shoal_reach::relays::Ticket;
use shoal_reach::stun::{Message, TransactionId, binding, next_frame};
use shoal_reach::turn::client::{ClientConfig, Event, Output, TurnClient};

pub use shoal_reach::reachability::{Mapping, Reach as State};

use crate::mapping::{Port, PortMapper, Standing, Transport};

/// How long a connection to a relay may take, and an allocation there.
const CONNECT: Duration = Duration::from_secs(2);
const ALLOCATE: Duration = Duration::from_secs(4);
/// How often a stranger sends, as packets may be lost, and how long he waits in between.
const DIALS: usize = 4;
const AGAIN: Duration = Duration::from_millis(400);
/// How long the router has for an answer.
const ROUTER: Duration = Duration::from_secs(5);
/// How often it is looked for what came.
const LOOK: Duration = Duration::from_millis(50);
/// The longest frame that is waited for.
const FRAME: usize = 4096;

/// How we are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Of three; none: no stranger could be asked, so that it was not decided.
    pub state: Option<State>,
    /// What our NAT does.
    pub mapping: Mapping,
    /// Our address as others see it.
    pub mapped: Option<SocketAddr>,
    /// The shortest round trip to a relay.
    pub round_trip: Option<Duration>,
    /// The relay that sent to us as a stranger.
    pub stranger: Option<SocketAddr>,
    /// What the router lets through to us meanwhile, or why not; none: it was not asked, and why.
    pub router: Result<Standing, String>,
}

struct Clock(Instant);

impl Clock {
    fn now(&self) -> Time {
        Time::ZERO + self.0.elapsed()
    }
}

/// An allocation by TCP.
struct Stranger {
    tcp: TcpStream,
    client: TurnClient,
    clock: Clock,
    rest: Vec<u8>,
}

impl Stranger {
    /// Allocates at one of a relay's addresses, those first that firewalls let through.
    fn start(ticket: &Ticket, rng: &mut Rng) -> Option<(Self, SocketAddr)> {
        let mut at = ticket.at.clone();
        at.sort_by_key(|a| !matches!(a.port(), 80 | 443));
        let tcp = at
            .iter()
            .find_map(|a| TcpStream::connect_timeout(a, CONNECT).ok())?;
        let relay = tcp.peer_addr().ok()?;
        tcp.set_read_timeout(Some(LOOK)).ok()?;
        let config = ClientConfig {
            stream: true,
            credential: ticket.credential.clone(),
            ipv6: false,
        };
        let mut out = Vec::new();
        let clock = Clock(Instant::now());
        let client = TurnClient::new(config, clock.now(), rng, &mut out);
        let mut stranger = Self {
            tcp,
            client,
            clock,
            rest: Vec::new(),
        };
        let allocated = |e: &Event| matches!(e, Event::Allocated { .. });
        stranger.until(out, allocated).then_some((stranger, relay))
    }

    /// Carries frames until something is told; whether it was.
    fn until(&mut self, out: Vec<Output>, told: impl Fn(&Event) -> bool) -> bool {
        let began = Instant::now();
        let mut out = out;
        let mut buf = [0; FRAME];
        while began.elapsed() < ALLOCATE {
            for output in std::mem::take(&mut out) {
                match output {
                    Output::Send(bytes) if self.tcp.write_all(&bytes).is_err() => return false,
                    Output::Send(_) => {}
                    Output::Event(Event::Failed(_)) => return false,
                    Output::Event(event) if told(&event) => return true,
                    Output::Event(_) => {}
                }
            }
            match self.tcp.read(&mut buf) {
                Ok(0) => return false,
                Ok(n) => self
                    .rest
                    .extend_from_slice(buf.get(..n).unwrap_or_default()),
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) => {}
                Err(_) => return false,
            }
            let now = self.clock.now();
            while let Ok(Some((frame, len))) = next_frame(&self.rest) {
                self.client.on_frame(now, frame, &mut out);
                self.rest.drain(..len);
            }
            if self.rest.len() > FRAME {
                return false;
            }
            self.client.on_tick(now, &mut out);
        }
        false
    }

    /// Sends to addresses from the relayed one.
    fn dial(&mut self, all: &[SocketAddr], id: TransactionId) {
        // What is permitted is an address, whatever the port.
        let mut permitted = Vec::new();
        for to in all {
            if permitted.contains(&to.ip()) {
                continue;
            }
            permitted.push(to.ip());
            let mut out = Vec::new();
            self.client.permit(self.clock.now(), *to, false, &mut out);
            if !self.until(out, |e| *e == Event::Permitted(to.ip())) {
                return;
            }
        }
        let mut bytes = Vec::new();
        dial_back(id, &mut bytes);
        for _ in 0..DIALS {
            for to in all {
                let mut frame = Vec::new();
                let framed = self.client.send(self.clock.now(), *to, &bytes, &mut frame);
                if framed.is_err() || self.tcp.write_all(&frame).is_err() {
                    return;
                }
            }
            // Datagrams may be lost, and nobody answers them: they are spread over the seconds that the
            // one who asked waits for one of them.
            thread::sleep(AGAIN);
        }
    }
}

/// Has a stranger ready, who dials where he is told once.
fn stranger(
    ticket: Ticket,
    mut rng: Rng,
    told: Receiver<(Vec<SocketAddr>, TransactionId)>,
) -> Option<SocketAddr> {
    let (tell, ready) = channel();
    thread::spawn(move || {
        let Some((mut stranger, relay)) = Stranger::start(&ticket, &mut rng) else {
            return;
        };
        if tell.send(relay).is_ok()
            && let Ok((to, id)) = told.recv()
        {
            stranger.dial(&to, id);
        }
    });
    ready.recv().ok()
}

/// Asks one more server for our address.
fn ask(socket: &UdpSocket, server: SocketAddr, rng: &mut Rng) -> Option<SocketAddr> {
    let id = TransactionId::random(rng);
    let mut bytes = Vec::new();
    binding::request(id, &mut bytes);
    let mut buf = [0; FRAME];
    for _ in 0..DIALS {
        socket.send_to(&bytes, server).ok()?;
        let until = Instant::now() + AGAIN;
        while Instant::now() < until {
            let Ok((len, from)) = socket.recv_from(&mut buf) else {
                continue;
            };
            let message = Message::decode(buf.get(..len).unwrap_or_default());
            if let Ok(message) = message
                && from == server
                && message.id() == id
            {
                return binding::mapped_address(&message);
            }
        }
    }
    None
}

/// Has the router let others through to the socket here, if it is to be asked.
fn forward(listen: SocketAddr, port_mapping: bool) -> Result<PortMapper, String> {
    if !port_mapping {
        return Err("not to be asked".into());
    }
    let port = Port {
        transport: Transport::Udp,
        number: listen.port(),
    };
    PortMapper::start(listen, vec![port], |_| {}).map_err(|e| e.to_string())
}

/// Looks from a socket at this address; takes four seconds and a half at most where all answer. With
/// `port_mapping` the router is asked first to let others through, for which it has five seconds more.
///
/// # Errors
/// The socket cannot be made.
pub fn probe(tickets: &[Ticket], listen: SocketAddr, port_mapping: bool) -> io::Result<Probed> {
    let mut seed = [0; 8];
    super::random(&mut seed);
    let mut rng = Rng::from_seed(u64::from_le_bytes(seed));
    let socket = UdpSocket::bind(listen)?;
    socket.set_read_timeout(Some(LOOK))?;
    let mapper = forward(socket.local_addr()?, port_mapping);
    let router = mapper.as_ref().map(|m| m.settled(1, ROUTER));
    let router = router.map_err(Clone::clone);
    let forwarded = router.as_ref().ok().and_then(|r| r.mappings.first());
    let forwarded = forwarded.map(|m| SocketAddr::from(m.external));
    let at = |t: &Ticket| {
        t.at.iter()
            .copied()
            .find(|a| a.is_ipv4() == listen.is_ipv4())
    };
    let mut servers: Vec<SocketAddr> = tickets.iter().filter_map(at).collect();
    let (tell, told) = channel();
    // The last one whose address no other has.
    let apart = tickets.iter().rev().find(|t| {
        let ip = at(t).map(|a| a.ip());
        ip.is_some() && servers.iter().any(|s| Some(s.ip()) != ip)
    });
    let kept = apart.and_then(at);
    let by = apart.and_then(|t| stranger(t.clone(), rng.fork(), told));
    if by.is_some() {
        servers.retain(|s| Some(s.ip()) != kept.map(|k| k.ip()));
    }
    let clock = Clock(Instant::now());
    let mut probe = Probe::new(&servers, clock.now(), &mut rng);
    let mut out = Vec::new();
    let mut buf = [0; FRAME];
    probe.handle(clock.now(), ProbeInput::Tick, &mut out);
    let mut dialled = false;
    let report = 'look: loop {
        for output in out.drain(..) {
            match output {
                // What cannot be sent is lost.
                ProbeOutput::Send(to, bytes) => drop(socket.send_to(&bytes, to)),
                ProbeOutput::AskDialBack(to, id) => {
                    let other = forwarded.filter(|f| *f != to);
                    let all = [Some(to), other].into_iter().flatten().collect();
                    dialled = tell.send((all, id)).is_ok();
                }
                ProbeOutput::Done(report) => break 'look report,
            }
        }
        let input = match socket.recv_from(&mut buf) {
            Ok((len, from)) => ProbeInput::Datagram(from, buf.get(..len).unwrap_or_default()),
            Err(_) => ProbeInput::Tick,
        };
        probe.handle(clock.now(), input, &mut out);
    };
    let mut mapping = report.mapping;
    if mapping == Mapping::Unknown
        && let (Some(mapped), Some(other)) = (report.mapped, kept)
        && let Some(seen) = ask(&socket, other, &mut rng)
    {
        mapping = match seen == mapped {
            true => Mapping::One,
            false => Mapping::PerPeer,
        };
    }
    let decided = report.mapped.is_none() || (dialled && by.is_some());
    Ok(Probed {
        state: decided.then_some(report.reach),
        mapping,
        mapped: report.mapped,
        round_trip: report.round_trip,
        stranger: by.filter(|_| dialled),
        router,
    })
}
