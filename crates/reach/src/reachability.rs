//! How a node can be reached by UDP: by anybody, by those it has sent to first, or by nobody.
//!
//! Several STUN servers are asked for our address; then a peer that we never sent to is asked to
//! dial back to it. What a NAT lets in is seen rather than concluded. (Telling NATs apart further, as
//! RFC 5780 does, needs servers with two addresses each, and says little more: see its §2.)

use crate::stun::{Message, Step, Timing, Transaction, TransactionId, binding};
use shoal_base::{Machine, Rng, Time, time::earliest};
use std::net::SocketAddr;
use std::time::Duration;

/// How a node can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// What strangers send arrives.
    Open,
    /// What somebody sends arrives after we have sent to him: holes must be punched.
    Punched,
    /// No UDP: only through a relay that we connect to.
    Relayed,
}

/// Whether a NAT uses one address of its own for all that we send from one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// One for all: what a server tells, others can use (RFC 4787: endpoint-independent).
    One,
    /// Another for each address we send to: holes can be punched only by those whose own NAT does
    /// not mind from which port they hear.
    PerPeer,
    /// Fewer than two servers answered.
    Unknown,
}

/// What was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// How we are reached.
    pub reach: Reach,
    /// What our NAT does.
    pub mapping: Mapping,
    /// Our address as the first server to answer saw it.
    pub mapped: Option<SocketAddr>,
    /// The shortest round trip to a server.
    pub round_trip: Option<Duration>,
    /// When this was found.
    pub tested: Time,
}

/// What a probe is fed with.
#[derive(Debug, Clone, Copy)]
pub enum ProbeInput<'a> {
    /// Something came from there to the socket that is probed.
    Datagram(SocketAddr, &'a [u8]),
    /// The deadline has come (or the probe begins).
    Tick,
}

/// What a probe wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutput {
    /// Send this there from the socket that is probed.
    Send(SocketAddr, Vec<u8>),
    /// Have a peer whom we never sent to from this socket send [`dial_back`] there. It is asked for
    /// once; if no peer is known nothing needs to be done.
    AskDialBack(SocketAddr, TransactionId),
    /// The probe is over.
    Done(Report),
}

/// Servers may be lost on the way like anybody: each is asked four times in 3.5 s.
const TIMING: Timing = Timing {
    rto: Duration::from_millis(250),
    sends: 4,
    last_wait: 7,
};
/// How long somebody who dials back may take.
const DIAL_BACK: Duration = Duration::from_secs(4);
/// How long other servers may take after the first that answered.
const OTHERS: Duration = Duration::from_secs(1);

/// Appends what a peer sends to dial back.
pub fn dial_back(id: TransactionId, out: &mut Vec<u8>) {
    binding::request(id, out);
}

#[derive(Debug)]
struct Asked {
    server: SocketAddr,
    ask: Transaction,
    mapped: Option<SocketAddr>,
    over: bool,
}

/// One look at how we can be reached.
#[derive(Debug)]
pub struct Probe {
    servers: Vec<Asked>,
    first: Option<SocketAddr>,
    round_trip: Option<Duration>,
    dial_back: TransactionId,
    /// When no more servers are waited for.
    servers_until: Option<Time>,
    /// When dialling back is given up.
    until: Option<Time>,
    dialled: bool,
    done: bool,
}

impl Probe {
    /// A probe that asks these servers; two at different addresses tell what the NAT does.
    pub fn new(servers: &[SocketAddr], now: Time, rng: &mut Rng) -> Self {
        let servers = servers.iter().map(|&server| {
            let id = TransactionId::random(rng);
            let mut bytes = Vec::new();
            binding::request(id, &mut bytes);
            Asked {
                server,
                ask: Transaction::new(id, bytes, TIMING, now),
                mapped: None,
                over: false,
            }
        });
        Self {
            servers: servers.collect(),
            first: None,
            round_trip: None,
            dial_back: TransactionId::random(rng),
            servers_until: None,
            until: None,
            dialled: false,
            done: false,
        }
    }

    fn on_datagram(
        &mut self,
        now: Time,
        from: SocketAddr,
        bytes: &[u8],
        out: &mut Vec<ProbeOutput>,
    ) {
        let Ok(message) = Message::decode(bytes) else {
            return;
        };
        // What a server of ours sends would come through any NAT.
        let known = self.servers.iter().any(|s| s.server.ip() == from.ip());
        if message.id() == self.dial_back && self.first.is_some() && !known {
            self.dialled = true;
            return;
        }
        let answered = self
            .servers
            .iter_mut()
            .find(|s| s.server == from && s.ask.id() == message.id() && !s.over);
        let (Some(asked), Some(mapped)) = (answered, binding::mapped_address(&message)) else {
            return;
        };
        asked.over = true;
        asked.mapped = Some(mapped);
        let trips = [self.round_trip, asked.ask.round_trip(now)];
        self.round_trip = trips.into_iter().flatten().min();
        if self.first.is_none() {
            self.first = Some(mapped);
            self.servers_until = Some(now + OTHERS);
            self.until = Some(now + DIAL_BACK);
            out.push(ProbeOutput::AskDialBack(mapped, self.dial_back));
        }
    }

    fn mapping(&self) -> Mapping {
        let mut all = self
            .servers
            .iter()
            .filter_map(|s| Some((s.server, s.mapped?)));
        let Some((server, first)) = all.next() else {
            return Mapping::Unknown;
        };
        let mut others = all.filter(|(s, _)| s.ip() != server.ip()).peekable();
        if others.peek().is_none() {
            Mapping::Unknown
        } else if others.all(|(_, mapped)| mapped == first) {
            Mapping::One
        } else {
            Mapping::PerPeer
        }
    }

    fn report(&self, now: Time) -> Option<Report> {
        let waiting = self.servers.iter().any(|s| !s.over)
            && self.servers_until.is_none_or(|until| now < until);
        let reach = match self.first {
            _ if waiting => return None,
            None => Reach::Relayed,
            Some(_) if self.dialled => Reach::Open,
            Some(_) if self.until.is_some_and(|until| now < until) => return None,
            Some(_) => Reach::Punched,
        };
        Some(Report {
            reach,
            mapping: self.mapping(),
            mapped: self.first,
            round_trip: self.round_trip,
            tested: now,
        })
    }
}

impl Machine for Probe {
    type Input<'a> = ProbeInput<'a>;
    type Output = ProbeOutput;

    fn handle(&mut self, now: Time, input: ProbeInput<'_>, out: &mut Vec<ProbeOutput>) {
        if self.done {
            return;
        }
        if let ProbeInput::Datagram(from, bytes) = input {
            self.on_datagram(now, from, bytes, out);
        }
        for asked in self.servers.iter_mut().filter(|s| !s.over) {
            match asked.ask.poll(now) {
                Step::Send => {
                    let bytes = asked.ask.bytes().to_vec();
                    out.push(ProbeOutput::Send(asked.server, bytes));
                }
                Step::Wait => {}
                Step::GivenUp => asked.over = true,
            }
        }
        if let Some(report) = self.report(now) {
            self.done = true;
            out.push(ProbeOutput::Done(report));
        }
    }

    fn deadline(&self) -> Option<Time> {
        if self.done {
            return None;
        }
        let asks = self.servers.iter().filter(|s| !s.over);
        let waits = earliest(self.servers_until, self.until);
        let next = asks.map(|s| s.ask.deadline()).min();
        // Deadlines that have passed have been seen to.
        match waits {
            Some(_) if self.servers.iter().all(|s| s.over) => self.until,
            _ => earliest(next, waits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A NAT in front of the probe, two servers and a stranger behind it.
    struct World {
        udp: bool,
        per_peer: bool,
        lets_strangers_in: bool,
        lose: u32,
    }

    const SERVERS: [&str; 2] = ["192.0.2.1:3478", "198.51.100.1:3478"];
    const STRANGER: &str = "203.0.113.9:999";

    fn run(mut world: World) -> Report {
        let servers: Vec<SocketAddr> = SERVERS.iter().map(|s| s.parse().unwrap()).collect();
        let mut rng = Rng::from_seed(1);
        let mut probe = Probe::new(&servers, Time::ZERO, &mut rng);
        let mut now = Time::ZERO;
        // What comes in, and when.
        let mut coming: Vec<(Time, SocketAddr, Vec<u8>)> = Vec::new();
        let mut out = Vec::new();
        probe.handle(now, ProbeInput::Tick, &mut out);
        loop {
            for output in out.drain(..) {
                match output {
                    ProbeOutput::Done(report) => return report,
                    ProbeOutput::AskDialBack(_, id) => {
                        let mut bytes = Vec::new();
                        dial_back(id, &mut bytes);
                        let at = now + Duration::from_millis(100);
                        coming.push((at, STRANGER.parse().unwrap(), bytes));
                    }
                    ProbeOutput::Send(to, bytes) => {
                        if !world.udp || world.lose > 0 {
                            world.lose = world.lose.saturating_sub(1);
                            continue;
                        }
                        let port = if world.per_peer && to == servers[1] {
                            7
                        } else {
                            6
                        };
                        let mapped = SocketAddr::new([203, 0, 113, 1].into(), port);
                        let mut answer = Vec::new();
                        let ask = Message::decode(&bytes).unwrap();
                        assert!(binding::answer(&ask, mapped, &mut answer));
                        coming.push((now + Duration::from_millis(20), to, answer));
                    }
                }
            }
            coming.sort_by_key(|(at, ..)| *at);
            let deadline = probe.deadline().expect("a probe that is not over waits");
            assert!(now < Time::from_secs(20), "a probe ends");
            match coming.first() {
                Some((at, ..)) if *at <= deadline => {
                    let (at, from, bytes) = coming.remove(0);
                    now = now.max(at);
                    if world.lets_strangers_in || from != STRANGER.parse().unwrap() {
                        probe.handle(now, ProbeInput::Datagram(from, &bytes), &mut out);
                    }
                }
                _ => {
                    now = now.max(deadline);
                    probe.handle(now, ProbeInput::Tick, &mut out);
                }
            }
        }
    }

    #[test]
    fn each_kind_of_nat_is_told_as_what_it_is() {
        for (udp, per_peer, lets_strangers_in, reach, mapping) in [
            (true, false, true, Reach::Open, Mapping::One),
            (true, false, false, Reach::Punched, Mapping::One),
            (true, true, false, Reach::Punched, Mapping::PerPeer),
            (false, false, false, Reach::Relayed, Mapping::Unknown),
        ] {
            for lose in [0, 1, 3] {
                let report = run(World {
                    udp,
                    per_peer,
                    lets_strangers_in,
                    lose,
                });
                assert_eq!(
                    (report.reach, report.mapping),
                    (reach, mapping),
                    "{lose} lost"
                );
                assert!(report.tested <= Time::from_secs(7));
                assert_eq!(report.mapped.is_some(), udp);
            }
        }
    }

    #[test]
    fn neither_a_server_nor_a_guess_passes_for_a_stranger() {
        let server: SocketAddr = SERVERS[0].parse().unwrap();
        let mut rng = Rng::from_seed(2);
        let mut probe = Probe::new(&[server], Time::ZERO, &mut rng);
        let mut out = Vec::new();
        probe.handle(Time::ZERO, ProbeInput::Tick, &mut out);
        let Some(ProbeOutput::Send(_, ask)) = out.pop() else {
            panic!("a server is asked at once");
        };
        let mut answer = Vec::new();
        let us = "203.0.113.1:6".parse().unwrap();
        binding::answer(&Message::decode(&ask).unwrap(), us, &mut answer);
        // Not from whom was asked.
        probe.handle(Time::ZERO, ProbeInput::Datagram(us, &answer), &mut out);
        assert_eq!(out, []);
        probe.handle(Time::ZERO, ProbeInput::Datagram(server, &answer), &mut out);
        let Some(ProbeOutput::AskDialBack(at, id)) = out.pop() else {
            panic!("dialling back is asked for");
        };
        assert_eq!(at, us);
        let mut bytes = Vec::new();
        dial_back(id, &mut bytes);
        let same_host = SocketAddr::new(server.ip(), 1);
        probe.handle(
            Time::ZERO,
            ProbeInput::Datagram(same_host, &bytes),
            &mut out,
        );
        let mut guess = Vec::new();
        dial_back(TransactionId([0; 12]), &mut guess);
        let stranger = STRANGER.parse().unwrap();
        probe.handle(Time::ZERO, ProbeInput::Datagram(stranger, &guess), &mut out);
        assert_eq!(out, []);
        probe.handle(Time::from_secs(5), ProbeInput::Tick, &mut out);
        assert!(matches!(out.as_slice(), [ProbeOutput::Done(r)] if r.reach == Reach::Punched));
    }
}
