//! The RFCs' own messages, and any message.

use super::*;
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| d as u8)
        .collect();
    digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect()
}

/// RFC 5769 §2.1.
const REQUEST: &str = "00010058 2112a442 b7e7a701bc34d686fa87dfae
    80220010 5354554e207465737420636c69656e74 00240004 6e0001ff 80290008 932ff9b151263b36
    00060009 6576746a3a68367659202020 00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2
    80280004 e57a3bcf";
/// RFC 5769 §2.2.
const RESPONSE_V4: &str = "0101003c 2112a442 b7e7a701bc34d686fa87dfae
    8022000b 7465737420766563746f7220 00200008 0001a147e112a643
    00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7 80280004 c07d4c96";
/// RFC 5769 §2.3.
const RESPONSE_V6: &str = "01010048 2112a442 b7e7a701bc34d686fa87dfae
    8022000b 7465737420766563746f7220 00200014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9
    00080014 a382954e4be67bf11784c97c8292c275bfe3ed41 80280004 c8fb0b4c";
/// RFC 5769 §2.4.
const LONG_TERM: &str = "00010060 2112a442 78ad3433c6ad72c029da412e
    00060012 e3839ee38388e383aae38383e382afe382b90000
    0015001c 662f2f3439396b39353464364f4c33346f4c39465354767936347341
    0014000b 6578616d706c652e6f726700 00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666";
/// RFC 8489 appendix B.1, as erratum 6268 corrects it.
const SHA256: &str = "00010090 2112a442 78ad3433c6ad72c029da412e
    001e0020 4a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704
    00150029 6f624d61744a6f7332414141
             43662f2f3439396b39353464364f4c33346f4c39465354767936347341000000
    0014000b 6578616d706c652e6f726700 001d0004 00020000
    001c0020 b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65";

const SHORT_TERM_PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";
const USER: &str = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";

#[test]
fn the_request_of_rfc_5769_is_read_and_believed() {
    let bytes = hex(REQUEST);
    let message = Message::decode(&bytes).unwrap();
    assert_eq!(
        (message.class(), message.method()),
        (Class::Request, Method::BINDING)
    );
    assert!(message.has_fingerprint() && message.has_integrity());
    let read: Vec<_> = message
        .attributes()
        .map(|(k, v)| Attribute::decode(k, v, &message.id()).unwrap())
        .collect();
    assert_eq!(
        read,
        [
            Attribute::Software(b"STUN test client"),
            Attribute::Priority(0x6e00_01ff),
            Attribute::IceControlled(0x932f_f9b1_5126_3b36),
            Attribute::Username(b"evtj:h6vY"),
        ]
    );
    assert!(message.is_made_with(&Key::short_term(SHORT_TERM_PASSWORD)));
    assert!(!message.is_made_with(&Key::short_term(b"another")));
}

#[test]
fn the_responses_of_rfc_5769_are_read_and_written_alike() {
    for (text, mapped) in [
        (RESPONSE_V4, "192.0.2.1:32853"),
        (RESPONSE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ] {
        let bytes = hex(text);
        let message = Message::decode(&bytes).unwrap();
        let mapped: SocketAddr = mapped.parse().unwrap();
        assert_eq!(
            message.get(kind::XOR_MAPPED_ADDRESS),
            Some(Ok(Attribute::XorMappedAddress(mapped)))
        );
        let key = Key::short_term(SHORT_TERM_PASSWORD);
        assert!(message.is_made_with(&key));
        let mut ours = Vec::new();
        Builder::new(&mut ours, Class::Success, Method::BINDING, message.id())
            .put(&Attribute::Software(b"test vector"))
            .put(&Attribute::XorMappedAddress(mapped))
            .integrity(&key)
            .fingerprint();
        // The RFC pads with spaces, we with zeros, so that the sums differ; nothing else does.
        assert_eq!(ours.len(), bytes.len());
        assert_eq!(ours[..35], bytes[..35]);
        assert_eq!(ours[36..bytes.len() - 32], bytes[36..bytes.len() - 32]);
        assert!(Message::decode(&ours).unwrap().is_made_with(&key));
    }
}

#[test]
fn long_term_credentials_of_both_rfcs_are_written_to_the_byte() {
    let md5 = Key::long_term(
        Algorithm::Md5,
        USER.as_bytes(),
        b"example.org",
        b"TheMatrIX",
    );
    let bytes = hex(LONG_TERM);
    let message = Message::decode(&bytes).unwrap();
    assert!(message.is_made_with(&md5));
    let mut ours = Vec::new();
    Builder::new(&mut ours, Class::Request, Method::BINDING, message.id())
        .put(&Attribute::Username(USER.as_bytes()))
        .put(&Attribute::Nonce(b"f//499k954d6OL34oL9FSTvy64sA"))
        .put(&Attribute::Realm(b"example.org"))
        .integrity(&md5);
    assert_eq!(ours, bytes);

    let sha = Key::long_term(
        Algorithm::Sha256,
        USER.as_bytes(),
        b"example.org",
        b"TheMatrIX",
    );
    let bytes = hex(SHA256);
    let message = Message::decode(&bytes).unwrap();
    assert!(message.is_made_with(&sha) && !message.is_made_with(&md5));
    let mut ours = Vec::new();
    Builder::new(&mut ours, Class::Request, Method::BINDING, message.id())
        .put(&Attribute::UserHash(user_hash(
            USER.as_bytes(),
            b"example.org",
        )))
        .put(&Attribute::Nonce(
            b"obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA",
        ))
        .put(&Attribute::Realm(b"example.org"))
        .put(&Attribute::PasswordAlgorithm(Algorithm::Sha256.number()))
        .integrity_sha256(&sha);
    assert_eq!(ours, bytes);
}

#[test]
fn any_changed_bit_of_the_request_is_noticed() {
    let bytes = hex(REQUEST);
    let key = Key::short_term(SHORT_TERM_PASSWORD);
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let believed = Message::decode(&changed).is_ok_and(|m| m.is_made_with(&key));
        // Whether the checksum fits is known only while its attribute is one.
        let of_fingerprint = bit / 8 >= bytes.len() - 8;
        assert!(!believed || of_fingerprint, "bit {bit}");
    }
}

#[test]
fn every_shorter_piece_is_refused() {
    let bytes = hex(REQUEST);
    for len in 0..bytes.len() {
        assert!(Message::decode(&bytes[..len]).is_err());
    }
    let mut longer = bytes;
    longer.push(0);
    assert_eq!(
        Message::decode(&longer).unwrap_err(),
        DecodeError::Length {
            told: 0x58,
            came: 0x59
        }
    );
}

const ID: TransactionId = TransactionId([7; 12]);

#[test]
fn what_follows_integrity_does_not_count_and_nothing_follows_the_fingerprint() {
    let key = Key::short_term(b"secret");
    let mut bytes = Vec::new();
    Builder::new(&mut bytes, Class::Request, Method::BINDING, ID)
        .put(&Attribute::Priority(1))
        .integrity(&key)
        .put(&Attribute::UseCandidate)
        .integrity_sha256(&key)
        .put(&Attribute::Lifetime(3))
        .fingerprint();
    let message = Message::decode(&bytes).unwrap();
    assert!(message.is_made_with(&key) && message.has_integrity_sha256());
    let kinds: Vec<_> = message.attributes().map(|(k, _)| k).collect();
    assert_eq!(kinds, [kind::PRIORITY]);
    let mut late = Vec::new();
    Builder::new(&mut late, Class::Request, Method::BINDING, ID)
        .fingerprint()
        .put(&Attribute::UseCandidate);
    // The checksum was made for another length, so it no longer fits either.
    assert!(matches!(
        Message::decode(&late),
        Err(DecodeError::Checksum | DecodeError::Fingerprint)
    ));
}

#[test]
fn of_repeated_attributes_the_first_counts_and_unknown_ones_are_told() {
    let mut bytes = Vec::new();
    Builder::new(&mut bytes, Class::Request, Method::BINDING, ID)
        .put(&Attribute::Lifetime(1))
        .put(&Attribute::Lifetime(2))
        .put(&Attribute::Other {
            kind: 0x7777,
            value: b"?",
        })
        .put(&Attribute::Other {
            kind: 0x7777,
            value: b"!",
        })
        .put(&Attribute::Other {
            kind: 0x9999,
            value: b"",
        });
    let message = Message::decode(&bytes).unwrap();
    assert_eq!(
        message.get(kind::LIFETIME),
        Some(Ok(Attribute::Lifetime(1)))
    );
    assert_eq!(message.unknown(&[kind::LIFETIME]).as_slice(), [0x7777]);
}

#[test]
fn a_crowd_of_attributes_and_wrong_lengths_are_refused() {
    let mut bytes = Vec::new();
    let mut builder = Builder::new(&mut bytes, Class::Request, Method::BINDING, ID);
    for _ in 0..129 {
        builder.put(&Attribute::UseCandidate);
    }
    assert_eq!(Message::decode(&bytes).unwrap_err(), DecodeError::TooMany);
    for (kind, len) in [
        (kind::MESSAGE_INTEGRITY, 19),
        (kind::MESSAGE_INTEGRITY_SHA256, 12),
        (kind::MESSAGE_INTEGRITY_SHA256, 18),
    ] {
        let mut bytes = Vec::new();
        let value = &[0; 32][..len];
        Builder::new(&mut bytes, Class::Request, Method::BINDING, ID)
            .put(&Attribute::Other { kind, value });
        assert_eq!(Message::decode(&bytes).unwrap_err(), DecodeError::Integrity);
    }
    for (kind, value) in [
        (kind::XOR_PEER_ADDRESS, &[0, 1, 0, 0, 1, 2, 3][..]),
        (kind::XOR_PEER_ADDRESS, &[0, 3, 0, 0, 1, 2, 3, 4]),
        (kind::USERNAME, &[b'x'; 509]),
        (kind::REALM, &[b'x'; 764]),
        (kind::ERROR_CODE, &[0, 0, 2, 0]),
        (kind::ERROR_CODE, &[0, 0, 4, 100]),
        (kind::LIFETIME, &[0, 0, 1]),
        (kind::USERHASH, &[0; 31]),
        (kind::PASSWORD_ALGORITHM, &[0, 1, 0, 4]),
    ] {
        assert!(Attribute::decode(kind, value, &ID).is_err(), "{kind:#x}");
    }
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    any::<(IpAddr, u16)>().prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn any_bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..=most)
}

/// Writes one attribute of every kind with values made of the arguments; gives them back.
fn all<'a>(a: SocketAddr, n: u32, long: u64, text: &'a [u8]) -> Vec<Attribute<'a>> {
    let even = &text[..text.len() / 2 * 2];
    let reason = Reason {
        code: 300 + (n % 400) as u16,
        phrase: text,
    };
    let [b, ..] = n.to_be_bytes();
    vec![
        Attribute::MappedAddress(a),
        Attribute::XorMappedAddress(a),
        Attribute::Username(text),
        Attribute::UserHash([b; 32]),
        Attribute::Realm(text),
        Attribute::Nonce(text),
        Attribute::ErrorCode(reason),
        Attribute::UnknownAttributes(even),
        Attribute::PasswordAlgorithms(text),
        Attribute::PasswordAlgorithm(n as u16),
        Attribute::Software(text),
        Attribute::AlternateServer(a),
        Attribute::AlternateDomain(&text[..text.len().min(255)]),
        Attribute::ChannelNumber(n as u16),
        Attribute::Lifetime(n),
        Attribute::XorPeerAddress(a),
        Attribute::XorRelayedAddress(a),
        Attribute::Data(text),
        Attribute::RequestedAddressFamily(b),
        Attribute::AdditionalAddressFamily(b),
        Attribute::AddressErrorCode { family: b, reason },
        Attribute::EvenPort(n.is_multiple_of(2)),
        Attribute::RequestedTransport(b),
        Attribute::DontFragment,
        Attribute::ReservationToken(long.to_be_bytes()),
        Attribute::ConnectionId(n),
        Attribute::Icmp {
            kind: b,
            code: 3,
            data: n.to_be_bytes(),
        },
        Attribute::Priority(n),
        Attribute::UseCandidate,
        Attribute::IceControlled(long),
        Attribute::IceControlling(long),
        Attribute::ChangeRequest {
            ip: n.is_multiple_of(2),
            port: n.is_multiple_of(3),
        },
        Attribute::Padding(n as u16 % 100),
        Attribute::ResponsePort(n as u16),
        Attribute::ResponseOrigin(a),
        Attribute::OtherAddress(a),
        Attribute::RelayLoad(n as u16),
        Attribute::Other {
            kind: 0x7f00,
            value: text,
        },
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_the_same(
        a in any_address(), n: u32, long: u64, text in any_bytes(400), id: [u8; 12],
        key in any_bytes(80), before in any_bytes(9),
    ) {
        let id = TransactionId(id);
        let all = all(a, n, long, &text);
        let key = Key::short_term(&key);
        let mut out = before.clone();
        let mut builder = Builder::new(&mut out, Class::Indication, Method::SEND, id);
        for attribute in &all {
            builder.put(attribute);
        }
        builder.integrity(&key).integrity_sha256(&key).fingerprint();
        let message = Message::decode(&out[before.len()..]).unwrap();
        let read: Vec<_> = message
            .attributes()
            .map(|(k, v)| Attribute::decode(k, v, &id).unwrap())
            .collect();
        prop_assert_eq!(read, all);
        prop_assert_eq!((message.class(), message.method(), message.id()), (Class::Indication, Method::SEND, id));
        prop_assert!(message.is_made_with(&key));
        prop_assert!(looks_like_stun(message.bytes()));
    }

    #[test]
    fn any_bytes_are_survived(mut bytes in any_bytes(300), whole: bool) {
        if whole && bytes.len() >= HEADER {
            bytes.truncate(bytes.len() / 4 * 4);
            let len = bytes.len();
            bytes[0] &= 0x3f;
            bytes[2..4].copy_from_slice(&((len - HEADER) as u16).to_be_bytes());
            bytes[4..8].copy_from_slice(&MAGIC.to_be_bytes());
        }
        if let Ok(message) = Message::decode(&bytes) {
            let _ = message.is_made_with(&Key::short_term(b"k"));
            let _ = message.unknown(&[]);
            for (kind, value) in message.attributes() {
                if let Ok(attribute) = Attribute::decode(kind, value, &message.id()) {
                    prop_assert_eq!(attribute.kind(), kind);
                }
            }
            let _ = format!("{message:?}");
        }
    }
}
