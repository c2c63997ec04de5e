//! Nodes on loopback, with a relay, whose letters the test carries.

use super::*;
use crate::reach::tests::relay;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::OnceLock;

const PATIENCE: Duration = Duration::from_secs(30);

type Post = Arc<Mutex<BTreeMap<[u8; 32], Overlay>>>;

fn node(n: u8, post: &Post, ticket: &Ticket) -> Overlay {
    let identity = Identity::from_secret(&[n; 32]);
    let (from, at) = (identity.id().0, Arc::downgrade(post));
    let overlay = Overlay::start(OverlaySettings {
        port_mapping: false,
        identity,
        listen: "127.0.0.1:0".parse().expect("an address"),
        write: Box::new(move |to, letter| {
            let Some(post) = at.upgrade() else {
                return;
            };
            let nodes = post.lock().expect("nobody panicked");
            let mut readers = nodes
                .iter()
                .filter(|(key, _)| shoal_reach::overlay::is_for(&to, key));
            let reader = readers.next().map(|(_, reader)| reader.clone());
            drop(nodes);
            // Who answers at once writes, too.
            if let Some(reader) = reader {
                reader.letter(from, letter);
            }
        }),
    })
    .expect("a node");
    overlay.offer(vec![ticket.clone()]);
    let id = overlay.id().0;
    let mut nodes = post.lock().expect("nobody panicked");
    nodes.insert(id, overlay.clone());
    overlay
}

fn v6(addr: SocketAddr) -> SocketAddrV6 {
    shoal_reach::overlay::overlay(addr).expect("an overlay address")
}

#[test]
fn a_service_is_reached_by_its_address_and_the_other_way_round() {
    let (post, (_relay, ticket)) = (Post::default(), relay());
    let (one, two) = (node(1, &post, &ticket), node(2, &post, &ticket));
    let (tell, told): (Sender<SocketAddr>, Receiver<SocketAddr>) = unbounded();
    let _echo = two
        .listen(7, move |mut stream, from| {
            tell.send(from).expect("heard");
            let mut all = Vec::new();
            stream.read_to_end(&mut all).expect("read");
            stream.write_all(&all).expect("written");
        })
        .expect("a service");
    let mut stream = one.dial(v6(two.at(7))).expect("reached");
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    stream.write_all(&sent).expect("written");
    stream.shutdown(Shutdown::Write).expect("half closed");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("read");
    assert!(back == sent, "all came back");
    let from = told.recv_timeout(PATIENCE).expect("it came from somewhere");
    assert_eq!(from.ip(), one.ip());
    // The same connection serves both.
    let _nothing = one.listen(9, |_, _| {}).expect("a service");
    let mut back = two.dial(v6(one.at(9))).expect("reached");
    assert_eq!(back.read(&mut [0]).expect("the end"), 0);
    assert_eq!(one.0.lock().links.len(), 1);
}

#[test]
fn what_nobody_offers_is_refused_and_who_is_nobody_is_not_found() {
    let (post, (_relay, ticket)) = (Post::default(), relay());
    let (one, two) = (node(1, &post, &ticket), node(2, &post, &ticket));
    let service = two.listen(7, |_, _| {}).expect("a service");
    assert!(two.listen(7, |_, _| {}).is_err());
    drop(service);
    let refused = one.dial(v6(two.at(7))).expect_err("gone");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let own = one.dial(v6(one.at(7))).expect_err("itself");
    assert_eq!(own.kind(), io::ErrorKind::ConnectionRefused);
    let nobody = address(&Identity::from_secret(&[9; 32]).id());
    let unknown = one.dial(SocketAddrV6::new(nobody, 7, 0, 0));
    assert_eq!(
        unknown.expect_err("nobody").kind(),
        io::ErrorKind::HostUnreachable
    );
    // A dial that does not wait ends with the connection.
    let mut soon = one.dial_soon(v6(two.at(7))).expect("begun");
    soon.set_read_timeout(Some(PATIENCE)).expect("set");
    assert_eq!(soon.read(&mut [0]).expect("the end"), 0);
    assert_eq!(one.0.streams.load(Ordering::Acquire), 0);
}

#[test]
fn datagrams_go_from_port_to_port_also_long_ones() {
    let (post, (_relay, ticket)) = (Post::default(), relay());
    let (one, two) = (node(1, &post, &ticket), node(2, &post, &ticket));
    let (tell, told) = unbounded();
    let echo: Arc<OnceLock<OverlaySocket>> = Arc::default();
    let own = Arc::downgrade(&echo);
    let socket = two.socket(5, move |from, data| {
        if let Some(echo) = own.upgrade()
            && let Some(socket) = echo.get()
        {
            socket.send(v6(from), data);
        }
    });
    echo.set(socket.expect("a port")).expect("once");
    let socket = one
        .socket(6, move |from, data| {
            tell.send((from, data.to_vec())).expect("heard");
        })
        .expect("a port");
    for len in [0, 1, 1100, 1101, 1232, 2200] {
        let data: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        socket.send(v6(two.at(5)), &data);
        let (from, back) = told.recv_timeout(PATIENCE).expect("an answer");
        assert_eq!((from, back), (two.at(5), data));
    }
    socket.send(v6(two.at(4)), b"to nobody");
}

#[test]
fn a_stream_that_says_nothing_of_use_is_closed() {
    let (post, (_relay, ticket)) = (Post::default(), relay());
    let (one, two) = (node(1, &post, &ticket), node(2, &post, &ticket));
    let _service = two.listen(7, |_, _| {}).expect("a service");
    let (link, _) = one.0.link(two.id()).expect("reached");
    let mut stream = link.connection.open().expect("a stream");
    stream
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .expect("written");
    // An end or a reset, but no answer.
    let ended = stream.read(&mut [0]);
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}
