//! `shoal serve turn` as a process.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{Running, World};

fn relay(world: &World, more: &[&str]) -> (Running, String) {
    fs::write(world.path("secret"), "north\n").expect("written");
    let mut args = vec!["serve", "turn", "--listen", "127.0.0.1:0"];
    args.extend(["--secret-file", "secret", "--stats-interval", "1"]);
    args.extend(more);
    let mut running = world.start(&args);
    let addr = running.addr();
    (running, addr)
}

#[test]
fn a_relay_tells_addresses_challenges_and_ends() {
    let world = World::new();
    let (mut relay, addr) = relay(&world, &["--realm", "example"]);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.connect(&addr).expect("connected");
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("set");
    let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    request.extend([7; 12]);
    let mut buffer = [0; 500];
    socket.send(&request).expect("sent");
    let len = socket.recv(&mut buffer).expect("an answer");
    // XOR-MAPPED-ADDRESS with our port.
    let port = socket.local_addr().expect("bound").port() ^ 0x2112;
    let mut answer = vec![1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
    answer.extend([7; 12]);
    answer.extend([0, 0x20, 0, 8, 0, 1]);
    answer.extend(port.to_be_bytes());
    answer.extend([127 ^ 0x21, 0x12, 0xa4, 1 ^ 0x42]);
    assert_eq!(buffer[..len], answer);
    // An Allocate request without credentials is told the realm.
    request[..4].copy_from_slice(&[0, 3, 0, 8]);
    request.extend([0, 0x19, 0, 4, 17, 0, 0, 0]);
    socket.send(&request).expect("sent");
    let len = socket.recv(&mut buffer).expect("an answer");
    assert_eq!(buffer[..2], [1, 0x13]);
    assert!(buffer[..len].windows(7).any(|w| w == b"example"));
    let stats = relay.wait_for("statistics", |v| {
        v["event"] == "turn_stats" && v["challenges"] == 1
    });
    assert_eq!(
        (&stats["bindings"], &stats["allocations"]),
        (&1.into(), &0.into())
    );
    relay.signal(Signal::TERM);
    assert_eq!(relay.end().0.code(), Some(130));
}

#[test]
fn a_relay_that_cannot_start_says_why() {
    let world = World::new();
    fs::write(world.path("secret"), "north\n").expect("written");
    fs::write(world.path("users"), "alice\n").expect("written");
    let start = |more: &[&str]| {
        let mut args = vec!["serve", "turn"];
        args.extend(more);
        world.run(&args)
    };
    let here = ["--listen", "127.0.0.1:0"];
    start(&here).expect(1).says("--secret-file");
    start(&["--secret-file", "gone"]).expect(3).says("gone");
    start(&["--users-file", "users"])
        .expect(1)
        .says("NAME:PASSWORD");
    start(&["--ports", "9-8"]).expect(2).says("the lower first");
    start(&["--allow-peer", "10.0.0.0/40"])
        .expect(2)
        .says("prefix");
    let two = ["--relay-ip", "127.0.0.1", "--relay-ip", "127.0.0.2"];
    start(&[&here[..], &["--secret-file", "secret"], &two].concat())
        .expect(1)
        .says("two addresses of one family");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("bound").to_string();
    start(&["--secret-file", "secret", "--listen", &addr])
        .expect(1)
        .says("another program listens there");
}
