use super::super::http_request::with_overlay;
use super::super::tests::any_announce;
use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn requests_round_trip(connection: u64, transaction: u32, mut announce in any_announce(), hashes in prop::collection::vec(any::<[u8; 20]>(), 1..5), options: Vec<u8>) {
        announce.ip = announce.ip.filter(IpAddr::is_ipv4);
        announce.overlay = None;
        for request in [
            UdpRequest::Connect { transaction },
            UdpRequest::Announce { connection, transaction, announce, options: &options },
            UdpRequest::Scrape { connection, transaction, info_hashes: &hashes },
        ] {
            let mut bytes = Vec::new();
            encode_request(&request, &mut bytes);
            prop_assert_eq!(decode_request(&bytes), Ok(request));
        }
    }

    #[test]
    fn replies_round_trip(n in any::<[u32; 4]>(), connection: u64, bytes: Vec<u8>, stats in prop::collection::vec(any::<[u8; 12]>(), 0..5)) {
        let [transaction, interval, leechers, seeders] = n;
        for reply in [
            UdpReply::Connect { transaction, connection },
            UdpReply::Announce { transaction, interval, leechers, seeders, peers: &bytes },
            UdpReply::Scrape { transaction, stats: &stats },
            UdpReply::Error { transaction, message: &bytes },
        ] {
            let mut out = Vec::new();
            encode_reply(&reply, &mut out);
            prop_assert_eq!(decode_reply(&out), Ok(reply));
        }
        let back: Vec<_> = scrape_stats(&stats).map(encode_stats).collect();
        prop_assert_eq!(back, stats);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = decode_request(&bytes);
        let _ = decode_reply(&bytes);
        let _ = url_data(&bytes);
    }

    #[test]
    fn url_data_round_trips(path in "/[a-z?=&/]{0,700}") {
        let mut options = vec![1];
        encode_url_data(&path, &mut options);
        prop_assert_eq!(url_data(&options), Some(path.into_bytes()));
    }
}

#[test]
fn malformed_requests_are_named() {
    let mut connect = Vec::new();
    encode_request(&UdpRequest::Connect { transaction: 7 }, &mut connect);
    assert!(matches!(
        decode_request(&connect[..15]),
        Err(UdpError::Truncated(_))
    ));
    connect[0] = 1;
    assert!(matches!(
        decode_request(&connect),
        Err(UdpError::BadMagic(_))
    ));
    connect[11] = 9;
    assert_eq!(decode_request(&connect), Err(UdpError::BadAction(9)));
    connect[11] = 2;
    assert_eq!(decode_request(&connect), Err(UdpError::BadScrape(0)));
    connect.extend([0; 21]);
    assert_eq!(decode_request(&connect), Err(UdpError::BadScrape(21)));
}

#[test]
fn overlay_addresses_stand_behind_those_of_ipv4() {
    let peers: Vec<SocketAddr> = ["1.2.3.4:5", "251.1.1.1:1", "[fc01::9]:6881", "[fcff::1]:7"]
        .map(|a| a.parse().expect("an address"))
        .into();
    let mut bytes = Vec::new();
    peers.iter().for_each(|p| compact::push(*p, &mut bytes));
    let tracker = "9.9.9.9:1".parse().expect("an address");
    assert_eq!(reply_peers(tracker, &bytes), peers);
    // What is cut, or is something else, is left out.
    assert_eq!(reply_peers(tracker, &bytes[..bytes.len() - 1]), peers[..3]);
    bytes.extend([1; 18]);
    assert_eq!(reply_peers(tracker, &bytes), peers);
}

#[test]
fn an_overlay_address_is_read_from_the_url() {
    let overlay = "[fc01::9]:6881".parse().expect("an address");
    let fixed = &[0; ANNOUNCE_LEN - 16];
    for (path, want) in [
        (with_overlay("/announce?key=1", overlay), Some(overlay)),
        (with_overlay("", overlay), Some(overlay)),
        ("/announce?overlay=%FC".into(), None),
        (
            with_overlay("/a", "[2001:db8::1]:1".parse().expect("an address")),
            None,
        ),
    ] {
        let mut datagram = [&7u64.to_be_bytes()[..], &[0, 0, 0, 1, 0, 0, 0, 2], fixed].concat();
        encode_url_data(&path, &mut datagram);
        match decode_request(&datagram) {
            Ok(UdpRequest::Announce { announce, .. }) => assert_eq!(announce.overlay, want),
            other => panic!("unexpected {other:?}"),
        }
    }
}

#[test]
fn url_data_survives_nonsense() {
    assert_eq!(url_data(&[]), None);
    assert_eq!(url_data(&[2, 3, b'/', b'a']), None);
    assert_eq!(
        url_data(&[2, 1, b'/', 9, 1, 0, 2, 1, b'b', 0, 2, 1, b'c']),
        Some(b"/b".to_vec())
    );
}
