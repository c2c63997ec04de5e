use super::*;
use proptest::prelude::*;

fn any_handshake() -> impl Strategy<Value = ExtensionHandshake> {
    let ids = any::<[Option<u8>; 4]>().prop_map(|ids| ExtensionIds { ids });
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ];
    (
        ids,
        prop::option::of("[a-zé ]{1,64}"),
        prop::option::of(1u16..),
        prop::option::of(1..=crate::metadata::MAX_METADATA_LEN),
        prop::option::of(1u32..),
        any::<Option<bool>>(),
        prop::option::of(ip),
        any::<Option<[u8; 4]>>(),
        any::<Option<[u8; 16]>>(),
        prop::option::of((any::<[u8; 15]>(), 1u16..)),
    )
        .prop_map(
            |(ids, client, port, metadata_size, reqq, upload_only, yourip, v4, v6, overlay)| {
                let overlay = overlay.map(|(key, port)| {
                    let mut ip = [0xfc; 16];
                    ip[1..].copy_from_slice(&key);
                    SocketAddr::from((ip, port))
                });
                ExtensionHandshake {
                    ids,
                    client,
                    port,
                    metadata_size,
                    reqq,
                    upload_only,
                    yourip,
                    ipv4: v4.map(Ipv4Addr::from),
                    ipv6: v6.map(Ipv6Addr::from),
                    overlay,
                }
            },
        )
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(sent in any_handshake()) {
        let mut bytes = Vec::new();
        sent.encode(&mut bytes);
        prop_assert_eq!(ExtensionHandshake::decode(&bytes), Ok(sent));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ExtensionHandshake::decode(&bytes);
        let _ = decode_dont_have(&bytes);
        let _ = decode_upload_only(&bytes);
    }
}

#[test]
fn the_specification_s_example_is_read() {
    let bytes = b"d1:md11:LT_metadatai1e6:ut_pexi2ee1:pi6881e1:v13:\xc2\xb5Torrent 1.2e";
    let got = ExtensionHandshake::decode(bytes).unwrap();
    assert_eq!(got.ids.get(Extension::Pex), Some(2));
    assert_eq!(got.ids.get(Extension::Metadata), None);
    assert_eq!(got.port, Some(6881));
    assert_eq!(got.client.as_deref(), Some("µTorrent 1.2"));
}

#[test]
fn impossible_values_are_taken_as_missing() {
    let bytes = b"d1:md6:ut_pexi900e11:ut_metadatai-1ee13:metadata_sizei99999999999e\
        7:overlay18:\x20\x01aaaaaaaaaaaaaaaa1:pi70000e4:reqqi-5e1:v3:\x01\x02\n6:yourip3:abce";
    assert_eq!(
        ExtensionHandshake::decode(bytes),
        Ok(ExtensionHandshake::default())
    );
}

#[test]
fn a_later_handshake_changes_only_what_it_names() {
    let mut ids = ExtensionIds::ours(false);
    let mut later = ExtensionIds::default();
    later.set(Extension::Metadata, 0);
    later.set(Extension::DontHave, 9);
    ids.merge(&later);
    assert_eq!(ids.get(Extension::Metadata), None);
    assert_eq!(ids.get(Extension::DontHave), Some(9));
    assert_eq!(ids.get(Extension::Pex), Some(Extension::Pex.id()));
}

#[test]
fn private_torrents_offer_no_peer_exchange() {
    assert_eq!(ExtensionIds::ours(true).get(Extension::Pex), None);
    assert!(ExtensionIds::ours(true).get(Extension::Metadata).is_some());
}

#[test]
fn errors_name_the_message() {
    let long = vec![b'i'; MAX_HANDSHAKE_LEN + 1];
    let message = |bytes: &[u8]| ExtensionHandshake::decode(bytes).unwrap_err().to_string();
    assert_eq!(
        message(&long),
        "extension handshake message of 16385 bytes is too long"
    );
    assert_eq!(
        message(b"i1e"),
        "extension handshake message: bad dictionary"
    );
    assert_eq!(message(b"d"), "extension handshake message is not bencoded");
}
