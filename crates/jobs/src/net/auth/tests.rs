use super::*;
use std::net::TcpListener;

type Met = (io::Result<()>, io::Result<(Role, Owner)>);

fn meet(client: &Secret, server: &Secret) -> Met {
    see(None, &Pass::own(client.clone()), &Door::own(server.clone()))
}

fn see(key: Option<identity::Key>, client: &Pass, server: &Door) -> Met {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    let addr = key.map_or_else(|| addr.to_string(), |key| identity::addr_of(&key, addr));
    std::thread::scope(|scope| {
        let accepted = scope.spawn(|| {
            let (mut stream, from) = listener.accept()?;
            accept(&mut stream, from.ip(), server)
        });
        let connected = connect(&addr, Role::Data, client).map(drop);
        (connected, accepted.join().expect("no panic"))
    })
}

#[test]
fn only_those_who_know_the_secret_meet() {
    let (one, two) = (Secret(vec![1; 16]), Secret(vec![2; 16]));
    let (connected, accepted) = meet(&one, &one);
    connected.expect("both know it");
    assert_eq!(accepted.expect("both know it"), (Role::Data, Owner::Own));
    let (connected, accepted) = meet(&one, &two);
    assert!(connected.is_err() && accepted.is_err());
    let (connected, accepted) = meet(&Secret::default(), &two);
    assert!(connected.is_err() && accepted.is_err());
    let (connected, accepted) = meet(&Secret::default(), &Secret::default());
    assert!(connected.is_ok() && accepted.is_ok());
}

#[test]
fn strangers_are_let_in_by_their_key_where_they_are_wanted() {
    let (me, they) = (Identity::fresh(), Identity::fresh());
    let pass = Pass::stranger(me.clone());
    let secret = Secret(vec![1; 16]);
    let door = Door::own(secret.clone()).and_strangers(they.clone(), || true);
    let (connected, accepted) = see(None, &pass, &door);
    connected.expect("let in");
    let owner = Owner::Stranger(me.key());
    assert_eq!(accepted.expect("let in"), (Role::Data, owner));
    // The same door for those who know the secret, and for who looks for its key.
    let own = Pass::own(secret.clone());
    assert_eq!(see(None, &own, &door).1.expect("knows it").1, Owner::Own);
    assert!(see(Some(they.key()), &own, &door).0.is_ok());
    assert!(see(Some(me.key()), &own, &door).0.is_err(), "another's key");
    // Where strangers are not wanted, and where only they are.
    let (connected, accepted) = see(None, &pass, &Door::own(secret.clone()));
    assert!(accepted.is_err());
    let why = connected.expect_err("shut out").to_string();
    assert!(why.contains("takes no strangers"), "{why}");
    let shut = Door::own(secret).and_strangers(they.clone(), || false);
    assert!(see(None, &pass, &shut).0.is_err());
    assert!(see(None, &own, &Door::strangers(they)).0.is_err());
}
