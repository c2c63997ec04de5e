//! A relay on loopback, with the client's core behind real sockets.

use super::*;
use shoal_base::Time;
use shoal_reach::stun::{datagram_frame, next_frame};
use shoal_reach::turn::client::{ClientConfig, Event, Failure, Output, TurnClient};
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Instant;

const SECRET: &[u8] = b"north";
const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn settings() -> RelaySettings {
    let mut turn = Config {
        credentials: Credentials {
            secrets: vec![SECRET.to_vec()],
            ..Credentials::default()
        },
        relay_v4: Some(RelayAddress {
            bind: LOCAL,
            public: LOCAL,
        }),
        ..Config::default()
    };
    turn.policy.allow.push("127.0.0.0/8".parse().unwrap());
    RelaySettings {
        listen: vec![SocketAddr::new(LOCAL, 0)],
        turn,
        certificate: None,
        max_connections: 100,
        seed: Some(1),
    }
}

enum Socket {
    Udp(UdpSocket),
    Tcp(TcpStream, Vec<u8>),
}

/// A client that waits for what it wants.
struct User {
    core: TurnClient,
    socket: Socket,
    start: Instant,
    events: Vec<Event>,
    got: Vec<(SocketAddr, Vec<u8>)>,
}

impl User {
    fn new(server: SocketAddr, stream: bool) -> Self {
        let socket = if stream {
            let tcp = TcpStream::connect(server).unwrap();
            Socket::Tcp(tcp, Vec::new())
        } else {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            udp.connect(server).unwrap();
            Socket::Udp(udp)
        };
        let wait = Some(Duration::from_millis(20));
        match &socket {
            Socket::Udp(udp) => udp.set_read_timeout(wait).unwrap(),
            Socket::Tcp(tcp, _) => tcp.set_read_timeout(wait).unwrap(),
        }
        let config = ClientConfig {
            stream,
            credential: Credential::short_lived(SECRET, "alice", 1 << 40),
            ipv6: false,
        };
        let mut out = Vec::new();
        let core = TurnClient::new(config, Time::ZERO, &mut Rng::from_seed(2), &mut out);
        let mut user = Self {
            core,
            socket,
            start: Instant::now(),
            events: Vec::new(),
            got: Vec::new(),
        };
        user.take(out);
        user
    }

    fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    fn write(&mut self, bytes: &[u8]) {
        match &mut self.socket {
            Socket::Udp(udp) => drop(udp.send(bytes).unwrap()),
            Socket::Tcp(tcp, _) => tcp.write_all(bytes).unwrap(),
        }
    }

    fn take(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send(bytes) => self.write(&bytes),
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    /// Serves the socket until `done`, for ten seconds at most.
    fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let mut buffer = [0; 70_000];
        while !done(self) {
            assert!(self.start.elapsed() < Duration::from_secs(10), "in time");
            let now = self.now();
            let mut out = Vec::new();
            match &mut self.socket {
                Socket::Udp(udp) => {
                    if let Ok(len) = udp.recv(&mut buffer) {
                        let frame = datagram_frame(&buffer[..len]).unwrap();
                        let got = self.core.on_frame(now, frame, &mut out);
                        self.got.extend(got.map(|(a, d)| (a, d.to_vec())));
                    }
                }
                Socket::Tcp(tcp, input) => {
                    let len = tcp.read(&mut buffer).unwrap_or(0);
                    input.extend_from_slice(&buffer[..len]);
                    while let Some((frame, used)) = next_frame(input).unwrap() {
                        let got = self.core.on_frame(now, frame, &mut out);
                        self.got.extend(got.map(|(a, d)| (a, d.to_vec())));
                        input.drain(..used);
                    }
                }
            }
            self.core.on_tick(now, &mut out);
            self.take(out);
        }
    }

    fn relayed(&mut self) -> SocketAddr {
        self.until(|u| !u.events.is_empty());
        match &self.events[0] {
            Event::Allocated { relayed, .. } => relayed[0],
            other => panic!("no allocation but {other:?}"),
        }
    }

    fn permit(&mut self, peer: SocketAddr, channel: bool) {
        let mut out = Vec::new();
        self.core.permit(self.now(), peer, channel, &mut out);
        self.take(out);
        self.until(|u| match u.events.last() {
            Some(Event::Bound(bound)) => channel && *bound == peer,
            Some(Event::Permitted(ip)) => !channel && *ip == peer.ip(),
            _ => false,
        });
    }

    fn send(&mut self, peer: SocketAddr, data: &[u8]) {
        let mut frame = Vec::new();
        self.core.send(self.now(), peer, data, &mut frame).unwrap();
        self.write(&frame);
    }
}

fn peer() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[test]
fn data_is_relayed_by_udp_and_tcp_by_channel_and_without() {
    let relay = RelayServer::start(settings()).unwrap();
    for stream in [false, true] {
        for channel in [false, true] {
            let mut user = User::new(relay.addresses()[0], stream);
            let relayed = user.relayed();
            let (socket, at) = peer();
            user.permit(at, channel);
            let mut buffer = [0; 70_000];
            // Trains both ways, and lengths of all kinds.
            let lengths = [900, 900, 900, 10, 0, 3, 1200, 1200, 1, 20_000];
            let data = |n: usize| vec![n as u8; lengths[n]];
            for n in 0..lengths.len() {
                user.send(at, &data(n));
            }
            for n in 0..lengths.len() {
                let (len, from) = socket.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..len], from), (data(n).as_slice(), relayed));
            }
            for n in 0..lengths.len() {
                socket.send_to(&data(n), relayed).unwrap();
            }
            user.until(|u| u.got.len() >= lengths.len());
            for (n, (from, got)) in user.got.iter().enumerate() {
                assert_eq!((*from, got), (at, &data(n)));
            }
        }
    }
    let stats = relay.stop();
    assert_eq!((stats.packets_up, stats.packets_down), (40, 40));
    assert_eq!((stats.allocated, stats.unwanted), (4, 0));
}

#[test]
fn an_allocation_ends_with_its_connection_and_nonsense_ends_a_connection() {
    let relay = RelayServer::start(settings()).unwrap();
    let mut user = User::new(relay.addresses()[0], true);
    let relayed = user.relayed();
    assert!(UdpSocket::bind(relayed).is_err(), "the address is in use");
    drop(user);
    let end = Instant::now() + Duration::from_secs(5);
    while UdpSocket::bind(relayed).is_err() {
        assert!(Instant::now() < end, "the address is free again");
        // The relay's thread hears of the end by itself; there is nothing here to wait for.
        thread::sleep(Duration::from_millis(5));
    }
    // HTTP, SSH.
    for nonsense in [&b"POST / HTTP/1.1\r\n\r\n"[..], b"SSH-2.0-x\r\n"] {
        let mut tcp = TcpStream::connect(relay.addresses()[0]).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        tcp.write_all(nonsense).unwrap();
        match tcp.read(&mut [0; 100]) {
            Ok(0) => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {}
            other => panic!("not closed without a word: {other:?}"),
        }
    }
    // What begins as TLS and goes on as nothing gets an alert at most.
    let mut tcp = TcpStream::connect(relay.addresses()[0]).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    tcp.write_all(b"\x16\x03\x01\0\x08nonsense").unwrap();
    let mut alert = Vec::new();
    match tcp.read_to_end(&mut alert) {
        Err(e) if e.kind() != io::ErrorKind::ConnectionReset => panic!("not closed: {e}"),
        _ => assert!(alert.is_empty() || alert[0] == 0x15 && alert.len() < 10),
    }
}

#[test]
fn many_users_at_once_each_get_their_own() {
    let mut settings = settings();
    settings.turn.max_allocations_per_user = 60;
    let relay = RelayServer::start(settings).unwrap();
    let (socket, at) = peer();
    let mut users: Vec<User> = (0..50)
        .map(|_| User::new(relay.addresses()[0], false))
        .collect();
    for user in &mut users {
        user.relayed();
        user.permit(at, true);
    }
    for (n, user) in users.iter_mut().enumerate() {
        user.send(at, &[n as u8; 100]);
    }
    let mut buffer = [0; 200];
    for _ in 0..users.len() {
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        socket.send_to(&buffer[..len], from).unwrap();
    }
    for (n, user) in users.iter_mut().enumerate() {
        user.until(|u| !u.got.is_empty());
        assert_eq!(user.got, [(at, vec![n as u8; 100])]);
    }
}

#[test]
fn a_wrong_secret_gets_nothing_and_a_relay_without_users_does_not_start() {
    let mut other = settings();
    other.turn.credentials.secrets = vec![b"south".to_vec()];
    let relay = RelayServer::start(other).unwrap();
    let mut user = User::new(relay.addresses()[0], false);
    user.until(|u| !u.events.is_empty());
    assert_eq!(user.events, [Event::Failed(Failure::Unauthorized)]);
    let mut nobody = settings();
    nobody.turn.credentials = Credentials::default();
    assert!(matches!(
        RelayServer::start(nobody),
        Err(RelayError::Nobody)
    ));
    let mut nowhere = settings();
    nowhere.listen.clear();
    assert!(matches!(
        RelayServer::start(nowhere),
        Err(RelayError::NoAddress)
    ));
}
