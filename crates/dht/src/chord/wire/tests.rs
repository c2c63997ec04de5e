//! What is written is read again; anything else is refused without harm.

use super::super::message::{Found, Lookup, Query};
use super::super::place::position;
use super::*;
use crate::Mutable;
use crate::item::MAX_SALT;
use proptest::collection::vec;
use proptest::prelude::*;

const KEY: [u8; 32] = [7; 32];
const SOCKET: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 7000);

fn read(bytes: &[u8]) -> Result<Body, Malformed> {
    let ends = Ends {
        socket: SOCKET,
        key: &KEY,
    };
    decode(bytes, &ends)
}

fn own(id: Id) -> Option<u8> {
    (0..4).find(|index| position(&KEY, *index) == id)
}

fn socket() -> impl Strategy<Value = SocketAddr> {
    let v4 = (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| (ip, port).into());
    let v6 = (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| (ip, port).into());
    prop_oneof![v4, v6]
}

fn id() -> impl Strategy<Value = Id> {
    any::<[u8; 20]>().prop_map(Id)
}

fn contact() -> impl Strategy<Value = Contact<Id, Place>> {
    let other = (id(), any::<u8>(), socket())
        .prop_map(|(id, index, socket)| Contact::new(id, Place { id, index, socket }));
    let own = (0u8..4).prop_map(|index| {
        let id = position(&KEY, index);
        let socket = SOCKET;
        Contact::new(id, Place { id, index, socket })
    });
    prop_oneof![4 => other, 1 => own]
}

fn contacts(most: usize) -> impl Strategy<Value = Vec<Contact<Id, Place>>> {
    vec(contact(), 0..=most)
}

fn lookup() -> impl Strategy<Value = Lookup> {
    let route = prop::sample::select(vec![
        Route::Ring,
        Route::BothWays,
        Route::Shortcuts,
        Route::Fingers,
    ]);
    let style = prop::sample::select(vec![Style::Recursive, Style::Iterative]);
    let want = prop::sample::select(vec![Want::Named, Want::Owner, Want::Predecessor]);
    (route, style, want, any::<u8>()).prop_map(|(route, style, want, replicas)| Lookup {
        route,
        style,
        want,
        replicas,
        trace: false,
    })
}

fn message() -> impl Strategy<Value = Message<Id, Place>> {
    let n = any::<u32>;
    let query = (
        (n(), id(), lookup(), any::<bool>(), any::<u16>()),
        (any::<u16>(), any::<u16>(), any::<u16>(), n(), contact()),
        prop::option::of(contacts(MAX_CONTACTS)),
    )
        .prop_map(|((nonce, key, lookup, last, skip), rest, trace)| {
            let (hops, limit, timeouts, number, origin) = rest;
            Message::Query(Query {
                nonce,
                key,
                lookup: Lookup {
                    trace: trace.is_some(),
                    ..lookup
                },
                last,
                skip,
                hops: hops.into(),
                timeouts,
                limit: limit.into(),
                origin: origin.addr,
                number,
                trace: trace.map(Box::new),
            })
        });
    let next = (n(), contacts(MAX_CONTACTS), any::<bool>()).prop_map(|(nonce, hops, last)| {
        let hops = hops.into();
        Message::Next { nonce, hops, last }
    });
    let found = (
        (n(), id(), contact(), any::<u16>(), any::<u16>()),
        contacts(MAX_CONTACTS / 2),
        contacts(MAX_CONTACTS / 2),
    )
        .prop_map(|((number, key, owner, hops, timeouts), replicas, path)| {
            let id = position(&KEY, 1);
            let by = Place {
                id,
                index: 1,
                socket: SOCKET,
            };
            Message::Found {
                number,
                found: Box::new(Found {
                    key,
                    owner,
                    by: Contact::new(id, by),
                    replicas: replicas.into(),
                    hops: hops.into(),
                    timeouts,
                    path,
                }),
            }
        });
    let neighbours = (n(), prop::option::of(contact()), contacts(MAX_CONTACTS)).prop_map(
        |(nonce, predecessor, successors)| Message::Neighbours {
            nonce,
            predecessor,
            successors: successors.into(),
        },
    );
    let own = || position(&KEY, 1);
    prop_oneof![
        query,
        next,
        found,
        neighbours,
        n().prop_map(|nonce| Message::Taken { nonce }),
        n().prop_map(|nonce| Message::GetNeighbours { nonce }),
        n().prop_map(|nonce| Message::Ping { nonce }),
        n().prop_map(|nonce| Message::Pong { nonce }),
        n().prop_map(|nonce| Message::Gone { nonce }),
        Just(Message::Notify { id: own() }),
        Just(Message::Leaving { id: own() }),
        Just(Message::Changed { id: own() }),
        contact().prop_map(|via| Message::Merge { via }),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let value = || vec(any::<u8>(), 0..=MAX_VALUE);
    let key = (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; 32]>());
    let mutable = (key, vec(any::<u8>(), 0..=64), any::<i64>(), value()).prop_map(
        |((key, a, b), salt, seq, value)| {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&a);
            signature[32..].copy_from_slice(&b);
            Item::Mutable(Box::new(Mutable {
                key,
                salt,
                seq,
                value,
                signature,
            }))
        },
    );
    prop_oneof![value().prop_map(Item::Immutable), mutable]
}

fn record() -> impl Strategy<Value = Record> {
    let key = (any::<[u8; 32]>(), id(), any::<u64>(), any::<u32>());
    (key, "[a-zü ]{0,80}").prop_map(|((publisher, content, size, made), title)| Record {
        publisher,
        content,
        size,
        made,
        title,
        signature: [9; 64],
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    let seq = || prop::option::of(any::<i64>());
    prop_oneof![
        id().prop_map(|target| Ask::Get { target }),
        (item(), seq()).prop_map(|(item, cas)| Ask::Put { item, cas }),
        (item(), any::<u32>(), any::<u64>(), any::<bool>()).prop_map(
            |(item, left, publisher, owned)| Ask::Replicate {
                item,
                left,
                publisher,
                owned,
            }
        ),
        (id(), any::<u16>(), any::<bool>()).prop_map(|(key, port, seed)| Ask::Announce {
            key,
            port,
            seed
        }),
        id().prop_map(|key| Ask::Peers { key }),
        (id(), seq()).prop_map(|(target, seq)| Ask::Subscribe { target, seq }),
        item().prop_map(|item| Ask::Push { item }),
        ("[a-z]{1,40}", record()).prop_map(|(word, record)| Ask::Publish { word, record }),
        (vec("[a-z]{1,40}", 0..=MAX_WORDS), any::<u8>())
            .prop_map(|(words, most)| Ask::Find { words, most }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let why = prop::sample::select(vec![Refusal::Invalid, Refusal::Full, Refusal::Quota]);
    prop_oneof![
        prop::option::of(item()).prop_map(Reply::Value),
        Just(Reply::Stored),
        any::<i64>().prop_map(Reply::Older),
        Just(Reply::Cas),
        why.prop_map(Reply::Refused),
        (vec(socket(), 0..=MAX_PEERS), any::<u32>(), any::<u32>()).prop_map(
            |(peers, seeds, leechers)| Reply::Peers {
                peers,
                seeds,
                leechers,
            }
        ),
        (any::<u32>(), vec(record(), 0..5))
            .prop_map(|(count, records)| Reply::Records { count, records }),
    ]
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        (any::<u8>(), message()).prop_map(|(to, message)| Body::Ring {
            to,
            from: 1,
            message,
        }),
        (any::<u32>(), ask()).prop_map(|(number, ask)| Body::Ask { number, ask }),
        (any::<u32>(), reply()).prop_map(|(number, reply)| Body::Reply { number, reply }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_again_and_fits_a_datagram(body in body()) {
        let bytes = encode(&body, &own);
        let room = MAX_DATAGRAM - super::super::links::OVERHEAD;
        prop_assert!(bytes.len() <= room, "{} bytes", bytes.len());
        prop_assert_eq!(read(&bytes), Ok(body));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..1300)) {
        if let Ok(body) = read(&bytes) {
            // Own contacts may be written in two ways; what is read is the same.
            prop_assert_eq!(read(&encode(&body, &own)), Ok(body));
        }
    }

    #[test]
    fn what_is_cut_short_is_refused(body in body(), share in 0.0f64..1.0) {
        let bytes = encode(&body, &own);
        let cut = (bytes.len() as f64 * share) as usize;
        prop_assert!(read(&bytes[..cut]).is_err());
        prop_assert!(read(&[&bytes[..], &[0]].concat()).is_err());
    }
}

#[test]
fn the_longest_item_fits_a_datagram() {
    let item = Item::Mutable(Box::new(Mutable {
        key: [1; 32],
        salt: vec![2; MAX_SALT],
        seq: 3,
        value: vec![4; MAX_VALUE],
        signature: [5; 64],
    }));
    let ask = Ask::Replicate {
        item,
        left: 1,
        publisher: 2,
        owned: true,
    };
    let bytes = encode(&Body::Ask { number: 1, ask }, &own);
    assert!(bytes.len() + super::super::links::OVERHEAD <= MAX_DATAGRAM);
}

#[test]
fn replicas_and_path_share_one_limit() {
    let own_contact = Contact::new(
        position(&KEY, 0),
        Place {
            id: position(&KEY, 0),
            index: 0,
            socket: SOCKET,
        },
    );
    let found = Found {
        key: own_contact.id,
        owner: own_contact,
        by: own_contact,
        hops: 1,
        timeouts: 0,
        replicas: [].into(),
        path: Vec::new(),
    };
    let message = Message::Found {
        number: 1,
        found: Box::new(found),
    };
    let body = Body::Ring {
        to: 0,
        from: 0,
        message,
    };
    let bytes = encode(&body, &own);
    let head = bytes.strip_suffix(&[0, 0]).expect("two empty lists");
    let with = |replicas: u8, path: u8| {
        let list = |n: u8| [vec![n], vec![0; 2 * usize::from(n)]].concat();
        read(&[head.to_vec(), list(replicas), list(path)].concat())
    };
    assert!(with(10, 10).is_ok());
    assert_eq!(with(10, 11), Err(Malformed::Field("number of contacts")));
    assert_eq!(with(20, 20), Err(Malformed::Field("number of contacts")));
}
