use super::*;

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn server(change: impl FnOnce(&mut LoginConfig)) -> LoginServer {
    let mut config = LoginConfig {
        epoch: 1_000_000,
        ..LoginConfig::default()
    };
    change(&mut config);
    LoginServer::new(config, key(1), Rng::from_seed(1))
}

fn login(s: &mut LoginServer, at: u64, name: &str, n: u8) -> Result<(Token, bool), Refusal> {
    let now = Time::from_secs(at);
    let public = key(n).verifying_key().to_bytes();
    let nonce = s.claim(now, 5, 9, name, public)?;
    let seal = prove(&key(n), &nonce, &s.key(), name);
    let grant = s.prove(now, 5, 9, &seal)?;
    let fresh = grant.entry.is_some();
    grant.entry.into_iter().for_each(|e| s.commit(e));
    Ok((grant.answer, fresh))
}

/// Claims or changes: `keys` are who asks for it, who shall have it, and the recovery key.
fn name(
    s: &mut LoginServer,
    act: Act,
    name: &str,
    keys: (u8, u8, Option<u8>),
) -> Result<Certificate, Refusal> {
    let now = Time::ZERO;
    let public = |n| key(n).verifying_key().to_bytes();
    let (own, recovery) = (public(keys.1), keys.2.map(public));
    let ask = match act {
        Act::Claim => NameAsk::Claim {
            name: name.into(),
            key: own,
            recovery,
        },
        Act::Change => NameAsk::Change {
            name: name.into(),
            key: own,
            recovery,
        },
    };
    let Ok(NameAnswer::Challenge(nonce, server)) = s.about_names(now, 5, 9, &ask).map(|g| g.answer)
    else {
        return Err(s.about_names(now, 5, 9, &ask).expect_err("refused"));
    };
    let said = Statement {
        act,
        nonce: &nonce,
        server: &server,
        name,
        key: &own,
        recovery,
    };
    let (by, new) = (said.sign(&key(keys.0)), said.sign(&key(keys.1)));
    let grant = s.about_names(now, 5, 9, &NameAsk::Prove { by, new })?;
    grant.entry.into_iter().for_each(|e| s.commit(e));
    match grant.answer {
        NameAnswer::Certified(certificate) => Ok(certificate),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_name_changes_its_key_by_the_old_one_or_the_recovery_key_alone() {
    let mut s = server(|_| {});
    let public = |n| key(n).verifying_key().to_bytes();
    let first = name(&mut s, Act::Claim, "alice", (2, 2, Some(7))).expect("hers");
    assert_eq!(first.check(&s.key(), 1_000_000), Ok(()));
    assert_eq!((first.generation, first.entry), (0, 0));
    assert_eq!(
        name(&mut s, Act::Claim, "a1ice", (3, 3, None)),
        Err(Refusal::Taken),
        "a name that looks alike is the same"
    );
    assert_eq!(
        name(&mut s, Act::Change, "alice", (3, 3, None)),
        Err(Refusal::Unproven),
        "by a stranger"
    );
    assert_eq!(
        name(&mut s, Act::Change, "bob", (3, 3, None)),
        Err(Refusal::Unknown)
    );
    let second = name(&mut s, Act::Change, "alice", (2, 4, None)).expect("by the old key");
    assert_eq!(
        (second.key, second.generation, second.entry),
        (public(4), 1, 1)
    );
    assert_eq!(
        name(&mut s, Act::Change, "alice", (4, 4, Some(8))),
        Err(Refusal::Recovery),
        "a thief of the key cannot name another recovery key"
    );
    let third = name(&mut s, Act::Change, "alice", (7, 5, Some(8))).expect("recovered");
    assert_eq!((third.key, third.generation), (public(5), 2));
    assert_eq!(
        name(&mut s, Act::Change, "alice", (7, 6, None)),
        Err(Refusal::Unproven),
        "the old recovery key counts no more"
    );
    assert_eq!(login(&mut s, 0, "alice", 4), Err(Refusal::Taken));
    assert!(login(&mut s, 0, "alice", 5).is_ok());
    let renewed = name(&mut s, Act::Claim, "Alice", (5, 5, None)).expect("renewed");
    assert_eq!(
        (renewed.entry, s.register.tree().len()),
        (2, 3),
        "nothing new in the log"
    );
}

#[test]
fn the_log_proves_who_got_which_name() {
    use crate::names::log::{extends, includes};
    let mut s = server(|_| {});
    let ask =
        |s: &mut LoginServer, ask| s.about_names(Time::ZERO, 1, 1, &ask).expect("told").answer;
    let mut heads = Vec::new();
    for n in 2..20 {
        name(
            &mut s,
            Act::Claim,
            &format!("n-{}", "abcdefghijkmnopqrstuv".split_at(n.into()).0),
            (n, n, None),
        )
        .expect("new");
        let NameAnswer::Head(head) = ask(&mut s, NameAsk::Head) else {
            panic!("no head")
        };
        assert!(head.is_by(&s.key()) && !head.is_by(&[3; 32]));
        heads.push(head);
    }
    let NameAnswer::Entries(entries) = ask(&mut s, NameAsk::Entries { from: 0 }) else {
        panic!()
    };
    let own = NameAsk::Owner {
        name: entries[0].name.to_uppercase(),
    };
    let owner = NameAnswer::Owner(Some((0, entries[0].clone())));
    assert_eq!(ask(&mut s, own), owner);
    let nobody = NameAsk::Owner {
        name: "nobody".into(),
    };
    assert_eq!(ask(&mut s, nobody), NameAnswer::Owner(None));
    let last = heads.last().expect("one");
    for (index, entry) in (0..).zip(&entries) {
        let size = last.size;
        let NameAnswer::Proof(proof) = ask(&mut s, NameAsk::Inclusion { index, size }) else {
            panic!()
        };
        assert!(includes(&entry.leaf(), index, size, &last.root, &proof));
    }
    for head in &heads {
        let (from, to) = (head.size, last.size);
        let NameAnswer::Proof(proof) = ask(&mut s, NameAsk::Consistency { from, to }) else {
            panic!()
        };
        assert!(extends((from, &head.root), (to, &last.root), &proof));
    }
}

#[test]
fn a_name_is_its_first_owners() {
    let mut s = server(|_| {});
    let (token, fresh) = login(&mut s, 0, "Alice", 2).expect("hers");
    assert!(fresh);
    assert_eq!(token.check(&s.key(), 1_000_000 + 86_399), Ok(()));
    assert!(token.check(&s.key(), 1_000_000 + 86_400).is_err());
    assert_eq!(login(&mut s, 1, "alice", 3), Err(Refusal::Taken));
    let (again, fresh) = login(&mut s, 2, "ALICE", 2).expect("hers");
    assert_eq!((again.name.as_str(), fresh), ("Alice", false));
    let mut later = server(|_| {});
    let kept = s.register.entries(0).iter().map(Entry::line);
    kept.for_each(|line| later.commit(Entry::parse(&line).expect("reads")));
    assert_eq!(login(&mut later, 0, "alice", 3), Err(Refusal::Taken));
}

#[test]
fn a_challenge_serves_once_for_who_got_it() {
    let mut s = server(|_| {});
    let now = Time::ZERO;
    let public = key(2).verifying_key().to_bytes();
    let nonce = s.claim(now, 5, 9, "alice", public).expect("asked");
    let stolen = prove(&key(3), &nonce, &s.key(), "alice");
    assert_eq!(s.prove(now, 5, 9, &stolen), Err(Refusal::Unproven));
    let right = prove(&key(2), &nonce, &s.key(), "alice");
    assert_eq!(
        s.prove(now, 5, 9, &right),
        Err(Refusal::Unproven),
        "used up"
    );
    let nonce = s.claim(now, 5, 9, "alice", public).expect("asked");
    let other = prove(&key(2), &nonce, &[7; 32], "alice");
    assert_eq!(
        s.prove(now, 5, 9, &other),
        Err(Refusal::Unproven),
        "for another server"
    );
    let nonce = s.claim(now, 5, 9, "alice", public).expect("asked");
    let right = prove(&key(2), &nonce, &s.key(), "alice");
    let late = Time::from_secs(30);
    assert_eq!(s.prove(late, 5, 9, &right), Err(Refusal::Unproven), "late");
}

#[test]
fn one_address_gets_few_names_and_few_tries() {
    let mut s = server(|c| c.names_per_host = 2);
    assert!(login(&mut s, 0, "a", 2).is_ok() && login(&mut s, 0, "b", 2).is_ok());
    assert_eq!(login(&mut s, 0, "c", 2), Err(Refusal::Often));
    assert!(login(&mut s, 0, "a", 2).is_ok(), "its own it may have");
    assert!(login(&mut s, 86_400, "c", 2).is_ok(), "the next day");
    let mut s = server(|c| c.requests_per_minute = 3);
    let tries = |s: &mut LoginServer, at| (0..9).filter(|_| login(s, at, "a", 2).is_ok()).count();
    assert_eq!(tries(&mut s, 0), 3);
    assert_eq!(tries(&mut s, 60), 3);
}
