use super::*;
use proptest::prelude::*;

fn peer(n: u16) -> PexPeer {
    let [hi, lo] = n.to_be_bytes();
    PexPeer {
        addr: SocketAddr::from(([80, 1, hi, lo], 6881)),
        flags: PexFlags::REACHABLE,
    }
}

fn any_addr() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        any::<([u8; 16], u16)>().prop_map(SocketAddr::from),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        mut added in prop::collection::vec((any_addr(), any::<u8>()), 0..100),
        mut dropped in prop::collection::vec(any_addr(), 0..100),
    ) {
        added.sort_by_key(|(a, _)| a.is_ipv6());
        dropped.sort_by_key(SocketAddr::is_ipv6);
        let added = added.into_iter().map(|(addr, f)| PexPeer { addr, flags: PexFlags(f) });
        let sent = PexMessage { added: added.collect(), dropped };
        let mut bytes = Vec::new();
        sent.encode(&mut bytes);
        prop_assert_eq!(PexMessage::decode(&bytes), Ok(sent));
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        head in prop::sample::select(vec!["", "d5:added7:", "d5:added0:8:added6.f"]),
        tail in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let bytes = [head.as_bytes(), &tail].concat();
        let _ = PexInbox::new().on_message(Time::ZERO, [1, 2, 3, 4].into(), &bytes);
    }

    #[test]
    fn the_receiver_s_picture_follows_the_swarm(
        rounds in prop::collection::vec(prop::collection::btree_set(0u16..300, 0..200), 1..12),
    ) {
        let mut state = PexState::new();
        let mut picture: Vec<SocketAddr> = Vec::new();
        let mut now = Time::from_secs(100);
        let mut last = Vec::new();
        for swarm in rounds {
            let swarm: Vec<_> = swarm.into_iter().map(peer).collect();
            let first = !state.begun;
            if let Some(message) = state.poll(now, PexReader::default(), &swarm) {
                let most = if first { MAX_FIRST } else { MAX_ENTRIES };
                prop_assert!(message.added.len() <= most);
                prop_assert!(message.dropped.len() <= 50);
                for addr in &message.dropped {
                    let at = picture.iter().position(|a| a == addr);
                    picture.swap_remove(at.expect("only what was told is dropped"));
                }
                for p in &message.added {
                    prop_assert!(!picture.contains(&p.addr), "told once");
                    picture.push(p.addr);
                }
            }
            if state.next == now + INTERVAL {
                let soon = now + Duration::from_secs(59);
                prop_assert_eq!(state.poll(soon, PexReader::default(), &[]), None);
            }
            now += INTERVAL;
            last = swarm;
        }
        // Left alone, it becomes the same.
        for _ in 0..10 {
            if let Some(message) = state.poll(now, PexReader::default(), &last) {
                picture.retain(|a| !message.dropped.contains(a));
                picture.extend(message.added.iter().map(|p| p.addr));
            }
            now += INTERVAL;
        }
        picture.sort_unstable();
        let mut want: Vec<_> = last.iter().map(|p| p.addr).collect();
        want.sort_unstable();
        prop_assert_eq!(picture, want);
    }
}

fn at(listen: SocketAddr) -> PexReader {
    PexReader {
        listen: Some(listen),
        overlay: None,
    }
}

#[test]
fn overlay_addresses_are_told_on_the_overlay_alone() {
    let [one, own] = ["[fc01::1]:1", "[fc02::2]:2"].map(|a| a.parse().unwrap());
    let swarm = [one, own, peer(2).addr].map(|addr| PexPeer {
        addr,
        flags: PexFlags::REACHABLE,
    });
    let told = |to| {
        let message = PexState::new().poll(Time::ZERO, to, &swarm).unwrap();
        let added = message.added.into_iter().map(|p| p.addr);
        added.collect::<Vec<_>>()
    };
    for listen in ["8.8.8.8:1", "10.0.0.1:1", "127.0.0.1:1", "[2a00::1]:1"] {
        let to = at(listen.parse().unwrap());
        assert_eq!(told(to), [peer(2).addr]);
        let overlay = Some(own);
        assert_eq!(told(PexReader { overlay, ..to }), [one, peer(2).addr]);
    }
}

#[test]
fn the_first_message_goes_as_soon_as_there_is_news() {
    let mut state = PexState::new();
    let to = at(peer(1).addr);
    let now = Time::from_secs(9);
    assert_eq!(state.poll(now, to, &[peer(1)]), None, "nothing but itself");
    let now = state.next_at();
    let message = state.poll(now, to, &[peer(1), peer(2), peer(2)]).unwrap();
    assert_eq!(message.added, [peer(2)]);
    assert_eq!(state.next_at(), now + INTERVAL);
    assert_eq!(state.poll(now, to, &[peer(1), peer(2), peer(3)]), None);
    assert_eq!(state.poll(now + INTERVAL, to, &[peer(1), peer(2)]), None);
    let message = state.poll(state.next_at(), to, &[peer(1)]).unwrap();
    assert_eq!(message.dropped, [peer(2).addr]);
}

#[test]
fn local_addresses_are_told_only_to_whom_they_mean_something() {
    let [loopback, private, public] =
        ["127.0.0.1:1", "192.168.1.5:1", "9.9.9.9:1"].map(|a| PexPeer {
            addr: a.parse().unwrap(),
            flags: PexFlags::default(),
        });
    let swarm = [loopback, private, public];
    let told = |to: &str| {
        let to = at(to.parse().unwrap());
        let message = PexState::new().poll(Time::ZERO, to, &swarm);
        message.map(|m| m.added).unwrap_or_default()
    };
    assert_eq!(told("127.0.0.1:9"), swarm);
    assert_eq!(told("10.0.0.1:9"), [private, public]);
    assert_eq!(told("8.8.8.8:9"), [public]);
}

fn hear(
    inbox: &mut PexInbox,
    at_s: u64,
    from: &str,
    added: &[&str],
) -> Result<Vec<String>, PexFault> {
    let added = added.iter().map(|a| PexPeer {
        addr: a.parse().unwrap(),
        flags: PexFlags::default(),
    });
    let mut bytes = Vec::new();
    PexMessage {
        added: added.collect(),
        dropped: Vec::new(),
    }
    .encode(&mut bytes);
    let got = inbox.on_message(Time::from_secs(at_s), from.parse().unwrap(), &bytes)?;
    Ok(got.added.iter().map(|p| p.addr.to_string()).collect())
}

#[test]
fn bogus_and_repeated_addresses_are_passed_over() {
    let bogus = [
        "0.0.0.0:1",
        "1.2.3.4:0",
        "224.1.2.3:5",
        "127.0.0.1:5",
        "10.1.1.1:5",
        "[::]:1",
        "[ff02::1]:9",
        "[::1]:5",
        "9.9.9.9:1",
        "9.9.9.9:2",
        "[2a00::1]:3",
    ];
    let got = hear(&mut PexInbox::new(), 0, "8.8.8.8", &bogus).unwrap();
    assert_eq!(got, ["9.9.9.9:1", "[2a00::1]:3"]);
    let got = hear(
        &mut PexInbox::new(),
        0,
        "127.0.0.1",
        &["127.0.0.1:5", "127.0.0.1:6"],
    );
    assert_eq!(got.unwrap().len(), 2, "one host may hold many local peers");
}

#[test]
fn floods_are_passed_over_then_cut() {
    let mut inbox = PexInbox::new();
    assert_eq!(
        hear(&mut inbox, 0, "8.8.8.8", &["9.9.9.9:1"])
            .unwrap()
            .len(),
        1
    );
    for _ in 0..10 {
        assert_eq!(
            hear(&mut inbox, 1, "8.8.8.8", &["9.9.9.9:1"])
                .unwrap()
                .len(),
            0
        );
    }
    assert_eq!(
        hear(&mut inbox, 31, "8.8.8.8", &["9.9.9.9:1"])
            .unwrap()
            .len(),
        1
    );
    assert_eq!(hear(&mut inbox, 32, "8.8.8.8", &[]), Err(PexFault::Flood));
}

#[test]
fn a_message_of_libtorrent_s_form_is_read() {
    let got = PexMessage::decode(
        b"d5:added12:\x01\x02\x03\x04\x1a\xe1\x05\x06\x07\x08\x1a\xe27:added.f2:\x02\x107:dropped0:e",
    );
    let got = got.unwrap();
    assert_eq!(got.added.len(), 2);
    assert_eq!(got.added[1].addr, "5.6.7.8:6882".parse().unwrap());
    assert!(got.added[0].flags.has(PexFlags::SEED) && got.added[1].flags.has(PexFlags::REACHABLE));
    assert!(PexMessage::decode(b"le").is_err() && PexMessage::decode(b"de").unwrap().is_empty());
}
