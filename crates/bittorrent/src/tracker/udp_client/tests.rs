use super::super::AnnounceEvent;
use super::*;
use shoal_base::{InfoHash, PeerId};

fn request() -> AnnounceRequest {
    AnnounceRequest {
        info_hash: InfoHash([1; 20]),
        peer_id: PeerId([2; 20]),
        port: 6881,
        uploaded: 0,
        downloaded: 0,
        left: 1,
        event: AnnounceEvent::Started,
        num_want: None,
        key: 5,
        ip: None,
        overlay: None,
    }
}

fn tracker() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 6969))
}

fn sent(out: &mut Vec<UdpClientOutput>) -> Vec<u8> {
    match out.drain(..).next() {
        Some(UdpClientOutput::Send { datagram, .. }) => datagram,
        other => panic!("expected a datagram, got {other:?}"),
    }
}

/// The transaction id of a request, and whether it connects.
fn transaction(datagram: &[u8]) -> (u32, bool) {
    match udp::decode_request(datagram) {
        Ok(UdpRequest::Connect { transaction }) => (transaction, true),
        Ok(UdpRequest::Announce { transaction, .. }) => (transaction, false),
        other => panic!("unexpected {other:?}"),
    }
}

fn reply(client: &mut UdpClient, now: Time, reply: &UdpReply<'_>) -> Vec<UdpClientOutput> {
    let (mut bytes, mut out) = (Vec::new(), Vec::new());
    udp::encode_reply(reply, &mut bytes);
    client.on_datagram(now, tracker(), &bytes, &mut out);
    out
}

#[test]
fn connects_then_announces_then_reuses_the_connection_for_a_minute() {
    let mut client = UdpClient::new(Rng::from_seed(1));
    let mut out = Vec::new();
    client.announce(Time::ZERO, 9, tracker(), request(), "/announce", &mut out);
    let (id, connecting) = transaction(&sent(&mut out));
    assert!(connecting);
    let connect = UdpReply::Connect {
        transaction: id,
        connection: 77,
    };
    let announce = sent(&mut reply(&mut client, Time::ZERO, &connect));
    let (id, connecting) = transaction(&announce);
    assert!(!connecting && announce.len() == udp::ANNOUNCE_LEN + 11);
    let peers = [10, 0, 0, 1, 0x1a, 0xe1, 10, 0, 0, 2, 0, 0];
    let done = reply(
        &mut client,
        Time::ZERO,
        &UdpReply::Announce {
            transaction: id,
            interval: 1800,
            leechers: 3,
            seeders: 4,
            peers: &peers,
        },
    );
    let [
        UdpClientOutput::Done {
            token: 9,
            result: Ok(got),
        },
    ] = done.as_slice()
    else {
        panic!("unexpected {done:?}");
    };
    assert_eq!(got.peers, [SocketAddr::from(([10, 0, 0, 1], 6881))]);
    assert_eq!((got.seeders, got.leechers), (Some(4), Some(3)));

    for (at, connects) in [(59, false), (61, true)] {
        client.announce(Time::from_secs(at), 10, tracker(), request(), "", &mut out);
        assert_eq!(transaction(&sent(&mut out)).1, connects);
    }
}

#[test]
fn silence_is_asked_again_and_then_given_up() {
    let mut client = UdpClient::new(Rng::from_seed(1));
    let mut out = Vec::new();
    client.announce(Time::ZERO, 9, tracker(), request(), "", &mut out);
    let mut sends = Vec::new();
    let mut now = Time::ZERO;
    loop {
        match out.pop() {
            Some(UdpClientOutput::Send { .. }) => sends.push(now.as_micros() / 1_000_000),
            Some(UdpClientOutput::Done { result, .. }) => {
                assert_eq!(result, Err(UdpFailure::Timeout));
                break;
            }
            None => {
                now = client.deadline().expect("something is under way");
                client.on_tick(now, &mut out);
            }
        }
    }
    assert_eq!((sends, now), (vec![0, 15], Time::from_secs(45)));
    assert_eq!((client.in_flight(), client.deadline()), (0, None));
}

#[test]
fn a_stale_connection_id_is_replaced_once_and_then_the_error_stands() {
    let mut client = UdpClient::new(Rng::from_seed(1));
    let mut out = Vec::new();
    client.remember(Time::ZERO, tracker(), 1);
    client.announce(Time::ZERO, 9, tracker(), request(), "", &mut out);
    let (id, connecting) = transaction(&sent(&mut out));
    assert!(!connecting);
    let error = |transaction| UdpReply::Error {
        transaction,
        message: b"bad\nid",
    };
    let again = sent(&mut reply(&mut client, Time::ZERO, &error(id)));
    let (id, connecting) = transaction(&again);
    assert!(connecting);
    let done = reply(&mut client, Time::ZERO, &error(id));
    let refused = Err(UdpFailure::Refused("badid".into()));
    let want = UdpClientOutput::Done {
        token: 9,
        result: refused,
    };
    assert_eq!(done, [want]);
}

#[test]
fn strangers_and_wrong_kinds_are_ignored() {
    let mut client = UdpClient::new(Rng::from_seed(1));
    let mut out = Vec::new();
    client.announce(Time::ZERO, 9, tracker(), request(), "", &mut out);
    let (id, _) = transaction(&sent(&mut out));
    let wrong = UdpReply::Announce {
        transaction: id,
        interval: 1,
        leechers: 0,
        seeders: 0,
        peers: &[],
    };
    assert_eq!(reply(&mut client, Time::ZERO, &wrong), []);
    let mut bytes = Vec::new();
    let connect = UdpReply::Connect {
        transaction: id,
        connection: 1,
    };
    udp::encode_reply(&connect, &mut bytes);
    let stranger = SocketAddr::from(([127, 0, 0, 2], 6969));
    client.on_datagram(Time::ZERO, stranger, &bytes, &mut out);
    assert_eq!((out.len(), client.in_flight()), (0, 1));
    client.cancel(9);
    assert_eq!(client.in_flight(), 0);
}
