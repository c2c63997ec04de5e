use super::*;
use proptest::prelude::*;
use shoal_base::{PeerId, Rng};
use std::time::Duration;

const NOW: Time = Time::from_secs(1000);

fn book() -> PeerBook {
    PeerBook::new(PeerBookConfig::default(), Rng::from_seed(3))
}

fn addr(n: u32) -> SocketAddr {
    let [_, b, c, d] = n.to_be_bytes();
    SocketAddr::from(([80 + d % 100, b, c, d], 6881))
}

fn check_counts(book: &PeerBook) {
    let count = |state| {
        book.candidates
            .values()
            .filter(|c| c.state == state)
            .count()
    };
    assert_eq!(book.half_open, count(State::Opening));
    assert_eq!(book.connected, count(State::Connected));
    let only_pex = book
        .candidates
        .values()
        .filter(|c| c.sources == Sources::PEX);
    assert_eq!(book.only_pex, only_pex.count());
    assert!(book.bans.len() == book.ban_order.len());
}

#[test]
fn candidates_come_once_in_the_order_of_what_is_known() {
    let mut book = book();
    book.set_external("1.2.3.4:5".parse().unwrap());
    for n in 0..20 {
        book.add(NOW, addr(n), Sources::TRACKER).unwrap();
        book.add(NOW, addr(n), Sources::PEX).unwrap();
    }
    book.add(NOW, addr(77), Sources::MANUAL).unwrap();
    let first = book.next_candidates(NOW, 100);
    assert_eq!(first.len(), 21);
    assert_eq!(first[0], addr(77), "the user's own comes first");
    let priority = |a: &SocketAddr| priority_of(book.external, *a);
    assert!(first[1..].is_sorted_by_key(|a| std::cmp::Reverse(priority(a))));
    assert!(book.next_candidates(NOW, 100).is_empty());
    assert_eq!((book.len(), book.half_open()), (21, 21));
    assert_eq!(book.deadline(), None);
}

#[test]
fn half_open_connections_are_limited() {
    let mut book = book();
    for n in 0..100 {
        book.add(NOW, addr(n), Sources::TRACKER).unwrap();
    }
    let opening = book.next_candidates(NOW, 100);
    assert_eq!(opening.len(), 32);
    assert!(book.next_candidates(NOW, 1).is_empty());
    assert_eq!(book.deadline(), None, "waits for news of the connections");
    book.on_connected(opening[0]);
    assert_eq!(book.deadline(), Some(NOW));
    assert_eq!(book.next_candidates(NOW, 100).len(), 1);
    check_counts(&book);
}

#[test]
fn failures_back_off_until_given_up() {
    let mut book = book();
    book.add(NOW, addr(1), Sources::TRACKER).unwrap();
    let (mut now, mut waits) = (NOW, Vec::new());
    while let Some(at) = book.deadline() {
        waits.push((at - now).as_secs());
        now = at;
        assert_eq!(book.next_candidates(now, 1), [addr(1)]);
        book.on_ended(now, addr(1), Ended::Failed);
        check_counts(&book);
    }
    assert_eq!(waits.len(), 6, "{waits:?}");
    assert!(waits.is_sorted() && waits[5] >= 900, "{waits:?}");
    assert!(book.is_empty());
    assert!(
        book.add(now, addr(1), Sources::TRACKER).is_ok(),
        "heard of again"
    );
}

#[test]
fn what_the_user_named_is_tried_for_ever() {
    let mut book = book();
    book.add(NOW, addr(1), Sources::MANUAL).unwrap();
    let mut now = NOW;
    for _ in 0..50 {
        now = book.deadline().unwrap();
        assert_eq!(book.next_candidates(now, 1).len(), 1);
        book.on_ended(now, addr(1), Ended::Failed);
    }
    assert!(book.deadline().unwrap() - now <= Duration::from_secs(72));
}

#[test]
fn what_worked_is_tried_before_what_is_unknown() {
    let mut book = book();
    book.add(NOW, addr(1), Sources::TRACKER).unwrap();
    book.next_candidates(NOW, 1);
    book.on_connected(addr(1));
    assert_eq!(book.connected(), 1);
    book.on_ended(NOW, addr(1), Ended::Useful);
    for n in 2..30 {
        book.add(NOW, addr(n), Sources::TRACKER).unwrap();
    }
    let later = NOW + Duration::from_secs(20);
    assert_eq!(book.next_candidates(later, 1), [addr(1)]);
}

#[test]
fn a_ban_is_on_the_address_whatever_the_port() {
    let mut book = book();
    let other_port = SocketAddr::new(addr(1).ip(), 7000);
    book.add(NOW, addr(1), Sources::TRACKER).unwrap();
    book.add(NOW, other_port, Sources::PEX).unwrap();
    book.ban(addr(1));
    assert!(book.is_empty() && book.is_banned(other_port));
    assert_eq!(book.on_incoming(other_port), Err(PeerRefusal::Banned));
    assert_eq!(
        book.add(NOW, addr(1), Sources::MANUAL),
        Err(PeerRefusal::Banned)
    );
    let mapped = SocketAddr::from((std::net::Ipv4Addr::new(81, 0, 0, 1).to_ipv6_mapped(), 9));
    assert!(book.is_banned(mapped));
}

#[test]
fn on_loopback_a_ban_is_on_one_peer() {
    let mut book = book();
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    book.add(NOW, local(1), Sources::TRACKER).unwrap();
    book.add(NOW, local(2), Sources::TRACKER).unwrap();
    book.ban(local(1));
    assert_eq!(book.next_candidates(NOW, 9), [local(2)]);
}

#[test]
fn bans_are_bounded_and_the_oldest_goes_first() {
    let mut book = PeerBook::new(
        PeerBookConfig {
            max_bans: 3,
            ..PeerBookConfig::default()
        },
        Rng::from_seed(1),
    );
    (0..4).for_each(|n| book.ban(addr(n)));
    assert!(!book.is_banned(addr(0)) && book.is_banned(addr(1)) && book.is_banned(addr(3)));
}

#[test]
fn we_do_not_dial_ourselves_twice() {
    let mut book = book();
    book.add(NOW, addr(1), Sources::TRACKER).unwrap();
    book.next_candidates(NOW, 1);
    book.on_self(addr(1));
    assert_eq!(
        book.add(NOW, addr(1), Sources::PEX),
        Err(PeerRefusal::Ourselves)
    );
    check_counts(&book);
}

#[test]
fn three_hosts_must_agree_on_our_address() {
    let mut book = book();
    let mut told = |from: &str, ours: &str| {
        book.on_yourip(from.parse().unwrap(), ours.parse().unwrap(), 6881);
        book.external[0].map(|a| a.to_string())
    };
    assert_eq!(told("9.9.9.1", "7.7.7.7"), None);
    assert_eq!(told("9.9.9.1", "7.7.7.7"), None, "one host has one vote");
    assert_eq!(told("9.9.9.2", "7.7.7.7"), None);
    assert_eq!(told("9.9.9.3", "10.0.0.1"), None, "it cannot know that");
    assert_eq!(told("9.9.9.3", "6.6.6.6"), None);
    assert_eq!(told("9.9.9.4", "7.7.7.7").as_deref(), Some("7.7.7.7:6881"));
    assert_eq!(
        told("10.0.0.2", "10.0.0.1").as_deref(),
        Some("10.0.0.1:6881")
    );
    let ours = "7.7.7.7:6881".parse().unwrap();
    let refused = book.add(NOW, ours, Sources::PEX);
    assert_eq!(refused, Err(PeerRefusal::Ourselves));
}

#[test]
fn seeds_are_not_dialled_while_seeding() {
    let mut book = book();
    book.add(NOW, addr(1), Sources::TRACKER).unwrap();
    book.set_seed(addr(1), true);
    book.set_seeding(NOW, true);
    assert!(book.next_candidates(NOW, 1).is_empty());
    book.set_seeding(NOW, false);
    assert_eq!(book.next_candidates(NOW, 1), [addr(1)]);
}

#[test]
fn a_second_connection_to_the_same_peer_is_noticed() {
    let mut book = book();
    book.add(NOW, addr(1), Sources::TRACKER).unwrap();
    assert_eq!(book.on_listen_addr(NOW, addr(1)), Ok(()));
    assert_eq!(
        book.on_listen_addr(NOW, addr(1)),
        Err(PeerRefusal::Connected)
    );
    assert!(book.next_candidates(NOW, 1).is_empty(), "connected already");
    book.on_ended(NOW, addr(1), Ended::Useless);
    check_counts(&book);
    let (a, b) = (PeerId([1; 20]), PeerId([2; 20]));
    assert_ne!(keeps_ours(a, b), keeps_ours(b, a));
}

#[test]
fn addresses_that_cannot_be_dialled_are_refused() {
    let mut book = book();
    for bad in [
        "1.2.3.4:0",
        "0.0.0.0:1",
        "0.1.2.3:1",
        "224.0.0.1:1",
        "[::]:1",
        "[ff02::1]:1",
        "255.255.255.255:1",
        "[::ffff:0.0.0.0]:1",
    ] {
        let refused = book.add(NOW, bad.parse().unwrap(), Sources::TRACKER);
        assert_eq!(refused, Err(PeerRefusal::Undialable), "{bad}");
    }
}

#[test]
fn a_flood_of_pex_does_not_push_out_the_tracker_s_peers() {
    let mut book = book();
    for n in 0..1500 {
        book.add(NOW, addr(n), Sources::TRACKER).unwrap();
    }
    for n in 10_000..12_500 {
        let _ = book.add(NOW, addr(n), Sources::PEX);
    }
    assert_eq!(book.len(), 2000);
    assert!((0..1500).all(|n| book.candidates.contains_key(&addr(n))));
    book.add(NOW, addr(30_000), Sources::TRACKER).unwrap();
    assert_eq!(book.len(), 2000);
    check_counts(&book);
    let same_ip = |port| SocketAddr::from(([99, 0, 0, 1], port));
    for port in 1..100 {
        let _ = book.add(NOW, same_ip(port), Sources::PEX);
    }
    let ports = book.iter().filter(|p| p.addr.ip() == same_ip(1).ip());
    assert!(ports.count() <= 4, "ports of one address");
}

proptest! {
    #[test]
    fn counts_hold_whatever_happens(ops in prop::collection::vec((0u8..10, 0u32..40), 0..200)) {
        let config = PeerBookConfig { max_candidates: 20, max_pex: 8, ..PeerBookConfig::default() };
        let mut book = PeerBook::new(config, Rng::from_seed(9));
        let mut now = NOW;
        for (op, n) in ops {
            let a = addr(n);
            match op {
                0 | 1 => drop(book.add(now, a, Sources::PEX)),
                2 => drop(book.add(now, a, Sources::TRACKER)),
                3 => drop(book.next_candidates(now, n as usize)),
                4 => book.on_connected(a),
                5 => drop(book.on_listen_addr(now, a)),
                6 => book.on_ended(now, a, if n % 2 == 0 { Ended::Failed } else { Ended::Useful }),
                7 => book.ban(a),
                8 => book.on_self(a),
                _ => now += Duration::from_secs(u64::from(n) * 7),
            }
            check_counts(&book);
            prop_assert!(book.len() <= 20 + 1);
        }
    }
}
