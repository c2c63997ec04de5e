use super::*;
use crate::mailbox::wire::{Found, MAX_RECORD, Unkept, ack, client_proof, is_server};
use proptest::prelude::{Strategy, any, proptest};
use shoal_supernode::names::certificate::Certificate;
use shoal_supernode::token::Invalid;

const EPOCH: u64 = 1_700_000_000;

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn public(n: u8) -> Key {
    key(n).verifying_key().to_bytes()
}

fn certificate(server: u8, n: u8) -> std::boxed::Box<Certificate> {
    let name = format!("user{n}");
    let issued = Certificate::issue(&key(server), (&name, public(n)), (0, 0), EPOCH + 86_400);
    std::boxed::Box::new(issued)
}

fn office(change: impl FnOnce(&mut OfficeConfig)) -> Office {
    let mut config = OfficeConfig {
        epoch: EPOCH,
        ..OfficeConfig::new(public(1))
    };
    change(&mut config);
    Office::new(config, key(50), Rng::from_seed(1))
}

/// What is told to one link.
fn told(out: &[Out], link: LinkId) -> Vec<Told> {
    let of = |o: &Out| match o {
        Out::Send(id, told) if *id == link => Some(told.clone()),
        _ => None,
    };
    out.iter().filter_map(of).collect()
}

fn says(office: &mut Office, at: u64, link: LinkId, say: Say) -> Vec<Out> {
    let mut out = Vec::new();
    office.said(Time::from_secs(at), link, say, &mut out);
    office.check_invariants();
    out
}

/// Connects user `n` as link `n`; the link's nonce.
fn join(office: &mut Office, at: u64, n: u8) -> [u8; 32] {
    let link = LinkId::from(n);
    office.connected(Time::from_secs(at), link, &mut Vec::new());
    let out = says(office, at, link, Say::Hello(certificate(1, n), [n; 32]));
    let [Told::Hello(server, nonce, proof)] = &told(&out, link)[..] else {
        panic!("{out:?}");
    };
    assert!(is_server(server, &[n; 32], &public(n), proof));
    let proof = client_proof(&key(n), nonce, server);
    let out = says(office, at, link, Say::Proof(proof));
    assert_eq!(told(&out, link), [Told::Welcome]);
    *nonce
}

fn letter(to: u8, text: u8) -> Envelope {
    Envelope {
        to: public(to),
        keep: 1000,
        sealed: vec![text; 100],
    }
}

fn put(office: &mut Office, at: u64, link: u8, envelope: &Envelope) -> Told {
    let out = says(office, at, link.into(), Say::Put(envelope.clone()));
    told(&out, link.into()).pop().expect("an answer")
}

#[test]
fn letters_wait_come_in_order_and_go_when_they_are_acknowledged() {
    let mut office = office(|_| {});
    join(&mut office, 0, 2);
    assert_eq!(
        put(&mut office, 0, 2, &letter(3, 1)),
        Told::Refused(Some(letter(3, 1).id()), Why::NoBox)
    );
    let nonce = join(&mut office, 0, 3);
    assert!(told(&says(&mut office, 0, 3, Say::Open), 3).is_empty());
    office.closed(Time::from_secs(1), 3);
    for text in [1, 2, 2, 3] {
        let kept = put(&mut office, 2, 2, &letter(3, text));
        assert_eq!(kept, Told::Stored(letter(3, text).id()));
    }
    office.closed(Time::from_secs(2), 2);
    let again = join(&mut office, 5, 3);
    assert_ne!(nonce, again);
    let mail: Vec<_> = [1, 2, 3].map(|t| Told::Mail(letter(3, t))).into();
    assert_eq!(told(&says(&mut office, 5, 3, Say::Open), 3), mail);
    let ids = vec![letter(3, 1).id(), letter(3, 2).id()];
    // One signed on an earlier link does nothing.
    let old = ack(&key(3), &nonce, &ids);
    let out = says(&mut office, 6, 3, Say::Ack(ids.clone(), old));
    assert_eq!(told(&out, 3), [Told::Refused(None, Why::Unproven)]);
    let nonce = join(&mut office, 7, 3);
    let seal = ack(&key(3), &nonce, &ids);
    says(&mut office, 7, 3, Say::Ack(ids, seal));
    assert_eq!(told(&says(&mut office, 8, 3, Say::Open), 3), mail[2..]);
    // Whoever has a copy cannot bring it back.
    join(&mut office, 9, 4);
    put(&mut office, 9, 4, &letter(3, 1));
    let stats = office.stats();
    assert_eq!((stats.letters, stats.taken, stats.delivered), (1, 3, 2));
    // While the box is open, letters come at once.
    let out = says(&mut office, 9, 4, Say::Put(letter(3, 9)));
    assert_eq!(told(&out, 3), [Told::Mail(letter(3, 9))]);
}

#[test]
fn strangers_and_thieves_get_nothing() {
    let mut office = office(|_| {});
    office.connected(Time::ZERO, 1, &mut Vec::new());
    let out = says(&mut office, 0, 1, Say::Hello(certificate(9, 2), [0; 32]));
    let foreign = Told::Refused(None, Why::Certificate(Invalid::Foreign));
    assert_eq!(told(&out, 1), [foreign]);
    office.connected(Time::ZERO, 2, &mut Vec::new());
    let out = says(&mut office, 0, 2, Say::Hello(certificate(1, 3), [0; 32]));
    let [Told::Hello(server, nonce, _)] = &told(&out, 2)[..] else {
        panic!("{out:?}");
    };
    let thief = client_proof(&key(4), nonce, server);
    let out = says(&mut office, 0, 2, Say::Proof(thief));
    assert_eq!(told(&out, 2), [Told::Refused(None, Why::Unproven)]);
    office.connected(Time::ZERO, 3, &mut Vec::new());
    let out = says(&mut office, 0, 3, Say::Open);
    assert_eq!(told(&out, 3), [Told::Refused(None, Why::Turn)]);
    assert_eq!(out.last(), Some(&Out::Close(3)));
    let mut late = Vec::new();
    office.connected(Time::ZERO, 4, &mut Vec::new());
    office.tick(Time::from_secs(20), &mut late);
    assert_eq!(late, [Out::Close(4)]);
}

#[test]
fn nobody_fills_a_box_and_nothing_is_kept_for_ever() {
    let mut office = office(|c| {
        c.letters = 5;
        c.letters_of_sender = 3;
        c.puts_per_minute = 7;
    });
    join(&mut office, 0, 3);
    says(&mut office, 0, 3, Say::Open);
    office.closed(Time::ZERO, 3);
    join(&mut office, 0, 2);
    join(&mut office, 0, 4);
    let mut put = |at, from, text| put(&mut office, at, from, &letter(3, text));
    for text in 0..3 {
        assert!(matches!(put(0, 2, text), Told::Stored(_)));
    }
    assert!(matches!(put(0, 2, 3), Told::Refused(_, Why::Enough)));
    assert!(matches!(put(0, 4, 4), Told::Stored(_)));
    assert!(matches!(put(0, 4, 5), Told::Stored(_)));
    assert!(matches!(put(0, 4, 6), Told::Refused(_, Why::Full)));
    for text in 10..14 {
        put(0, 2, text);
    }
    assert!(matches!(put(0, 2, 20), Told::Refused(_, Why::Often)));
    let mut long = letter(3, 1);
    long.sealed = vec![0; crate::seal::MAX_SEALED + 1];
    assert!(!long.fits());
    office.tick(Time::from_secs(999), &mut Vec::new());
    assert_eq!(office.stats().letters, 5);
    office.tick(Time::from_secs(1010), &mut Vec::new());
    assert_eq!((office.stats().letters, office.stats().bytes), (0, 0));
    office.tick(Time::from_secs(31 * 86_400), &mut Vec::new());
    assert_eq!(office.stats().boxes, 0);
    office.check_invariants();
}

fn anything() -> impl Strategy<Value = (u8, u8, u8, u16)> {
    (0_u8..12, 2_u8..6, any::<u8>(), 0_u16..400)
}

proptest! {
    #[test]
    fn any_order_of_words_leaves_it_sound(steps in proptest::collection::vec(anything(), 0..60)) {
        let mut office = office(|c| {
            c.letters = 6;
            c.bytes = 700;
            c.bytes_in_all = 1000;
            c.boxes = 3;
            c.links = 4;
        });
        let mut at = 0;
        for (what, who, text, later) in steps {
            at += u64::from(later) / 8;
            let (link, now, mut out) = (LinkId::from(who), Time::from_secs(at), Vec::new());
            match what {
                0 => office.closed(now, link),
                1 => office.connected(now, link, &mut out),
                2 => office.tick(now, &mut out),
                3..=5 => {
                    office.connected(now, link, &mut out);
                    office.said(now, link, Say::Hello(certificate(1, who), [1; 32]), &mut out);
                    if let Some(Told::Hello(server, nonce, _)) = told(&out, link).pop() {
                        let proof = client_proof(&key(who), &nonce, &server);
                        office.said(now, link, Say::Proof(proof), &mut out);
                        office.said(now, link, Say::Open, &mut out);
                        if let Some(Told::Mail(letter)) = told(&out, link).pop() {
                            let ids = vec![letter.id()];
                            let seal = ack(&key(who), &nonce, &ids);
                            office.said(now, link, Say::Ack(ids, seal), &mut out);
                        }
                    }
                }
                6 => office.said(now, link, Say::Open, &mut out),
                7 => office.said(now, link, Say::Ping, &mut out),
                _ => office.said(now, link, Say::Put(letter(2 + text % 4, text)), &mut out),
            }
            office.check_invariants();
        }
    }
}

#[test]
fn the_ring_is_asked_for_a_link_so_often_and_for_its_own_name_alone() {
    let mut office = office(|c| c.asks_per_minute = 3);
    // Who has not proven its key asks nothing.
    office.connected(Time::ZERO, 9, &mut Vec::new());
    let out = says(&mut office, 0, 9, Say::Look("user2".into()));
    assert_eq!(told(&out, 9), [Told::Refused(None, Why::Turn)]);
    join(&mut office, 0, 2);
    let out = says(&mut office, 0, 2, Say::Publish(vec![7; 50]));
    assert_eq!(out, [Out::Publish(2, "user2".into(), vec![7; 50])]);
    let out = says(&mut office, 0, 2, Say::Publish(vec![7; MAX_RECORD + 1]));
    assert_eq!(told(&out, 2), [Told::Published(Err(Unkept::Unfit))]);
    let out = says(&mut office, 1, 2, Say::Look("User3".into()));
    assert_eq!(out, [Out::Look(2, "User3".into())]);
    let out = says(&mut office, 1, 2, Say::Look("no name at all".into()));
    let nothing = Told::Looked(String::new(), Found::Nothing);
    assert_eq!(told(&out, 2), [nothing]);
    says(&mut office, 2, 2, Say::Look("user3".into()));
    // Another link of the same key has no more.
    office.closed(Time::from_secs(2), 2);
    join(&mut office, 3, 2);
    let out = says(&mut office, 3, 2, Say::Look("user3".into()));
    assert_eq!(told(&out, 2), [Told::Looked("user3".into(), Found::Often)]);
    let out = says(&mut office, 3, 2, Say::Publish(vec![7; 50]));
    assert_eq!(told(&out, 2), [Told::Published(Err(Unkept::Often))]);
    // Letters are counted apart, and a minute later all begins again.
    says(&mut office, 3, 2, Say::Open);
    let kept = put(&mut office, 3, 2, &letter(2, 1));
    assert_eq!(kept, Told::Stored(letter(2, 1).id()));
    let out = says(&mut office, 61, 2, Say::Look("user3".into()));
    assert_eq!(out, [Out::Look(2, "user3".into())]);
}
