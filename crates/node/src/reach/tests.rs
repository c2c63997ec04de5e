//! Nodes on loopback, with a relay, whose letters the test carries.

use super::*;
use crate::relay::{
    Config, Credential, Credentials, Policy, RelayAddress, RelayServer, RelaySettings,
};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

pub(super) fn relay() -> (RelayServer, Ticket) {
    relay_at("127.0.0.1".parse().expect("an address"))
}

fn relay_at(ip: IpAddr) -> (RelayServer, Ticket) {
    let server = RelayServer::start(RelaySettings {
        listen: vec![(ip, 0).into()],
        turn: Config {
            credentials: Credentials {
                secrets: vec![b"north".to_vec()],
                ..Credentials::default()
            },
            relay_v4: Some(RelayAddress {
                bind: ip,
                public: ip,
            }),
            policy: Policy {
                allow_private: true,
                allow: vec!["127.0.0.0/8".parse().expect("a prefix")],
                deny: Vec::new(),
            },
            ..Config::default()
        },
        certificate: None,
        max_connections: 16,
        seed: Some(1),
    })
    .expect("a relay");
    let ticket = Ticket {
        at: server.addresses().to_vec(),
        credential: Credential::short_lived(b"north", "a", u64::from(u32::MAX)),
    };
    (server, ticket)
}

fn node(n: u8, ticket: &Ticket) -> Arc<Reach> {
    node_that(n, ticket, false)
}

fn node_that(n: u8, ticket: &Ticket, hidden: bool) -> Arc<Reach> {
    let node = alone(n, hidden);
    node.offer(vec![ticket.clone()]);
    node
}

/// A node that was told of no relay.
fn alone(n: u8, hidden: bool) -> Arc<Reach> {
    let node = Reach::start(ReachSettings {
        identity: Identity::from_secret(&[n; 32]),
        listen: "127.0.0.1:0".parse().expect("an address"),
        accepts: true,
        hidden,
        port_mapping: false,
    })
    .expect("a node");
    Arc::new(node)
}

/// Carries the letters of one to the other until it ends.
fn carry(from: &Arc<Reach>, to: &Arc<Reach>) {
    let (letters, to) = (from.letters.clone(), Arc::downgrade(to));
    thread::spawn(move || {
        while let Ok((_, letter)) = letters.recv() {
            let Some(to) = to.upgrade() else {
                return;
            };
            to.letter(letter);
        }
    });
}

#[test]
fn two_nodes_talk_by_streams_and_datagrams_and_know_who_they_are() {
    let (_relay, ticket) = relay();
    let (one, two) = (node(1, &ticket), node(2, &ticket));
    carry(&one, &two);
    carry(&two, &one);
    let connection = one.connect(two.id()).expect("connected");
    assert_eq!(connection.peer(), two.id());
    let other = two.arrivals.recv_timeout(ANSWER).expect("it arrived");
    assert_eq!(other.peer(), one.id());
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut stream = connection.open().expect("a stream");
    let echo = thread::spawn(move || {
        let mut stream = other.streams.recv_timeout(ANSWER).expect("a stream");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("read");
        stream.write_all(&all).expect("written");
        stream.arrived().expect("arrived");
        let data = other.datagrams.recv_timeout(ANSWER).expect("a datagram");
        other.send(data);
        // The other end closes.
        let _ = other.streams.recv();
    });
    stream.write_all(&sent).expect("written");
    stream.finish();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("read");
    assert!(back == sent, "all came back");
    connection.send(Bytes::from_static(b"ping"));
    let data = connection
        .datagrams
        .recv_timeout(ANSWER)
        .expect("a datagram");
    assert_eq!(data.as_ref(), b"ping");
    let status = connection.status().expect("a status");
    assert_eq!(status.way.expect("a way").hops, 0, "{status:?}");
    drop(connection);
    echo.join().expect("it ended");
}

#[test]
fn a_connection_that_is_over_means_no_other() {
    let (one, two) = (alone(1, false), alone(2, false));
    carry(&one, &two);
    carry(&two, &one);
    let mut over = Vec::new();
    for _ in 0..3 {
        let connection = one.connect(two.id()).expect("connected");
        let arrived = two.arrivals.recv_timeout(ANSWER).expect("it arrived");
        // Whoever still has those that are over lets them go now, which ends nothing else.
        over.clear();
        connection.send(Bytes::from_static(b"here"));
        let data = arrived.datagrams.recv_timeout(ANSWER);
        assert_eq!(data.as_deref(), Ok(&b"here"[..]));
        let mut stream = connection.open().expect("a stream");
        stream.write_all(b"there").expect("written");
        stream.finish();
        let mut stream = arrived.streams.recv_timeout(ANSWER).expect("a stream");
        let mut said = Vec::new();
        stream.read_to_end(&mut said).expect("read");
        assert_eq!(said, b"there");
        drop(connection);
        let begun = std::time::Instant::now();
        // Until QUIC has done with it, and calls another so.
        while arrived.status().is_some() {
            assert!(begun.elapsed() < ANSWER, "it does not end");
        }
        over.push(arrived);
    }
}

#[test]
fn two_nodes_of_one_network_need_no_relay() {
    let (one, two) = (alone(1, false), alone(2, false));
    carry(&one, &two);
    carry(&two, &one);
    let connection = one.connect(two.id()).expect("connected");
    let way = connection.status().and_then(|s| s.way).expect("a way");
    assert_eq!(way.hops, 0);
    let hidden = alone(3, true);
    carry(&hidden, &two);
    let error = hidden.connect(two.id()).expect_err("it is hidden");
    let Unreached::NoWay(why) = &error else {
        panic!("{error}");
    };
    assert!(why.starts_with("relays: none was offered"), "{why}");
}

#[test]
fn whoever_is_not_there_is_given_up_with_the_reason() {
    let (_relay, ticket) = relay();
    let one = node(1, &ticket);
    let nobody = Identity::from_secret(&[9; 32]).id();
    let error = one.connect(nobody).expect_err("nobody is there");
    assert!(error.to_string().contains("signalling"), "{error}");
}

/// A firewall before a relay, which lets nothing through but TLS.
fn firewall(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let at = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut first = [0];
                if !matches!(client.peek(&mut first), Ok(1)) || first != [22] {
                    return;
                }
                let relay = TcpStream::connect(to).expect("the relay");
                let (mut up, mut down) = (&client, &relay);
                thread::scope(|s| {
                    s.spawn(|| io::copy(&mut up, &mut &relay));
                    s.spawn(|| io::copy(&mut down, &mut &client));
                });
            });
        }
    });
    at
}

#[test]
fn where_nothing_but_tls_gets_out_a_relay_is_reached_by_that() {
    let (_relay, ticket) = relay();
    let mut behind = ticket.clone();
    behind.at = vec![firewall(ticket.at[0])];
    let (one, two) = (node_that(1, &behind, true), node(2, &ticket));
    carry(&one, &two);
    carry(&two, &one);
    let connection = two.connect(one.id()).expect("connected");
    let other = one.arrivals.recv_timeout(ANSWER).expect("it arrived");
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut stream = connection.open().expect("a stream");
    stream.write_all(&sent).expect("written");
    stream.finish();
    let mut came = Vec::new();
    let mut stream = other.streams.recv_timeout(ANSWER).expect("a stream");
    stream.read_to_end(&mut came).expect("read");
    assert!(came == sent, "all came");
    let way = other.status().expect("a status").way.expect("a way");
    assert!(way.hops > 0, "{way:?}");
    let relays = one.look().expect("it looks").relays;
    assert!(relays.iter().all(|r| r.tcp), "{relays:?}");
}

#[test]
fn a_stranger_gets_in_where_there_is_no_nat() {
    let at = |ip: &str| relay_at(ip.parse().expect("an address"));
    let (one, two) = (at("127.0.0.1"), at("127.0.0.2"));
    let listen = "127.0.0.1:0".parse().expect("an address");
    let tickets = [one.1.clone(), two.1];
    let probed = probe::probe(&tickets, listen, false).expect("it looks");
    assert_eq!(probed.state, Some(probe::State::Open), "{probed:?}");
    assert_eq!(probed.mapping, probe::Mapping::One);
    let stranger = probed.stranger.expect("a stranger");
    assert_eq!(stranger, two.0.addresses()[0]);
    // With one relay alone nobody is a stranger.
    let probed = probe::probe(&tickets[..1], listen, false).expect("it looks");
    assert_eq!((probed.state, probed.stranger), (None, None));
    assert!(probed.mapped.is_some());
}
