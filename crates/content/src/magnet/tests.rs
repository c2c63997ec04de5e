use super::*;
use proptest::prelude::*;

const HEX: &str = "c9e15763f722f23e98a29decdfae341b98d53056";

fn parse(rest: &str) -> Result<Magnet, MagnetError> {
    format!("magnet:?xt=urn:btih:{HEX}{rest}").parse()
}

#[test]
fn both_spellings_of_a_hash_are_read() {
    // The example of the Wikipedia article on magnet links and its base32 form.
    let base32 = "zhqvoy7xelzd5gfctxwn7lrudomnkmcw";
    for hash in [HEX, base32, &HEX.to_uppercase(), &base32.to_uppercase()] {
        let link = format!("MAGNET:?xt=URN:BTIH:{hash}");
        let magnet: Magnet = link.parse().expect(hash);
        assert_eq!(magnet.info_hash.expect("v1").to_string(), HEX);
        assert_eq!(Magnet::from_hash(hash), Some(magnet));
    }
    assert_eq!(Magnet::from_hash("x"), None);
}

#[test]
fn every_parameter_is_read() {
    let v2 = "ab".repeat(32);
    let magnet = parse(&format!(
        "&xt.2=urn:btmh:1220{v2}&xt=urn:sha1:ABC&dn=A+b%2Bc%2F&tr=udp%3A%2F%2Fh%3A1&tr.1=http://t/a\
         &tr=udp://h:1&tr=bad%0aurl&ws=http://w/&x.pe=1.2.3.4:5&x.pe=%5B::1%5D:6&x.pe=h:0&x.pe=::1:2:x\
         &so=0,2,4-6,5-8,9&xl=10&amp;x.pe=host-1.example:7"
    ))
    .expect("sound");
    assert_eq!(magnet.info_hash_v2.expect("v2").to_string(), v2);
    assert_eq!(magnet.name.as_deref(), Some("A b+c_"));
    assert_eq!(magnet.trackers, ["udp://h:1", "http://t/a"]);
    assert_eq!(magnet.web_seeds, ["http://w/"]);
    assert_eq!(magnet.peers, ["1.2.3.4:5", "[::1]:6", "host-1.example:7"]);
    let selection = magnet.select_only.clone().expect("given");
    assert_eq!(selection.to_string(), "0,2,4-9");
    assert_eq!(selection.files(8), [0, 2, 4, 5, 6, 7]);
    assert!(!selection.contains(usize::MAX));
    assert_eq!(magnet.to_string().parse(), Ok(magnet));
}

#[test]
fn a_file_may_be_named_by_its_own_hashes_and_by_who_has_it() {
    let sha1 = "PLSTHIPQGSSZTS5FJUPAKUZWUGYQYPFB";
    let link = format!(
        "magnet:?xs=http%3A%2F%2F192.0.2.1%3A6346%2Furi-res%2FN2R%3Furn%3Asha1%3A{sha1}\
         &as=http://h/a.ogg&xs=http://h/a.torrent&xs=napster://hub:8888/bob/C%253A%255Ca.ogg&xl=77\
         &xs=http://192.0.2.2:1/uri-res/N2R?urn:sha1:{}",
        "A".repeat(32)
    );
    let magnet: Magnet = link.parse().expect("a link");
    assert_eq!(
        magnet.urn().expect("one").to_string(),
        format!("urn:sha1:{sha1}")
    );
    assert_eq!((magnet.len, magnet.swarm_hash()), (Some(77), None));
    assert_eq!(magnet.web_seeds, ["http://h/a.ogg"]);
    let shown: Vec<String> = magnet.sources.iter().map(ToString::to_string).collect();
    let host = format!("http://192.0.2.1:6346/uri-res/N2R?urn:sha1:{sha1}");
    assert_eq!(
        shown,
        [host.as_str(), "napster://hub:8888/bob/C%3A%5Ca.ogg"]
    );
    assert_eq!(magnet.to_string().parse(), Ok(magnet));
    let nobody = "magnet:?xl=5&dn=a".parse::<Magnet>();
    assert_eq!(nobody, Err(MagnetError::NoHash));
    assert!(
        "magnet:?xl=5&xs=napster://h:1/n/p"
            .parse::<Magnet>()
            .is_ok()
    );
}

/// The links of BEP 46.
#[test]
fn a_publisher_is_read() {
    let key = "8543d3e6115f0f98c944077a4493dcd543e49c739fd998550a1f614ab36ed63e";
    for (rest, salt) in [("", &b""[..]), ("&s=6e", b"n")] {
        let link = format!("magnet:?xs=urn:btpk:{key}{rest}");
        let magnet: Magnet = link.parse().expect("a link");
        let publisher = magnet.publisher.as_ref().expect("given");
        assert_eq!(
            (to_hex(&publisher.key).as_str(), &publisher.salt[..]),
            (key, salt)
        );
        assert_eq!(magnet.swarm_hash(), None);
        assert_eq!(magnet.to_string(), link);
    }
    let no_key = parse("&xs=http://h/x.torrent&s=zz").expect("a link");
    assert_eq!(no_key.publisher, None);
}

#[test]
fn what_is_wrong_is_said() {
    let short = |link: &str| link.parse::<Magnet>().expect_err(link);
    assert_eq!(short("http://x"), MagnetError::NotMagnet);
    assert_eq!(short("magnet:?é"), MagnetError::NoHash);
    assert_eq!(short("magnet:?dn=a"), MagnetError::NoHash);
    assert_eq!(short("magnet:?xt=urn:btih:12"), MagnetError::BadV1);
    assert_eq!(short("magnet:?xt=urn:btmh:1220ab"), MagnetError::BadV2);
    assert_eq!(parse("&xs=urn:btpk:12"), Err(MagnetError::BadKey));
    let key = format!("&xs=urn:btpk:{}", "1".repeat(64));
    for bad in ["a".to_owned(), "zz".to_owned(), "0".repeat(130)] {
        let got = parse(&format!("{key}&s={bad}"));
        assert_eq!(got, Err(MagnetError::BadSalt), "{bad}");
    }
    let two = format!("{key}&xs=urn:btpk:{}", "2".repeat(64));
    assert_eq!(parse(&two), Err(MagnetError::TwoKeys));
    let other = format!("&xt=urn:btih:{}", "0".repeat(40));
    assert_eq!(parse(&other), Err(MagnetError::TwoHashes));
    for bad in ["", "a", "1-", "3-1", "1,,2", "+1", "4294967296"] {
        let got = parse(&format!("&so={bad}"));
        assert_eq!(got, Err(MagnetError::BadSelection), "{bad}");
    }
    let long = format!("&dn={}", "a".repeat(MAX_MAGNET_LEN));
    assert!(matches!(parse(&long), Err(MagnetError::TooLong(_))));
}

fn magnets() -> impl Strategy<Value = Magnet> {
    let urls = || prop::collection::vec("(udp|http)://[!-~]{1,12}", 0..4);
    (
        any::<Option<[u8; 20]>>(),
        any::<[u8; 32]>(),
        any::<Option<([u8; 32], [u8; 3])>>(),
        prop::option::of("\\PC{1,20}"),
        urls(),
        urls(),
        prop::collection::vec(
            "([a-z0-9.]{1,9}|\\[::[0-9a-f]{1,4}\\]):[1-9][0-9]{0,3}",
            0..3,
        ),
        prop::option::of(prop::collection::vec(0u32..20, 1..6)),
    )
        .prop_map(
            |(v1, v2, publisher, name, trackers, web_seeds, peers, files)| {
                let unique = |list: Vec<String>| {
                    let mut kept = Vec::new();
                    list.into_iter().for_each(|v| keep(&mut kept, Some(v)));
                    kept
                };
                Magnet {
                    info_hash: v1.map(InfoHash),
                    info_hash_v2: Some(InfoHashV2(v2)),
                    publisher: publisher.map(|(key, salt)| Publisher {
                        key,
                        salt: salt.to_vec(),
                    }),
                    name: name.and_then(|n| sanitise_component(n.as_bytes(), Naming::Download)),
                    trackers: unique(trackers),
                    web_seeds: unique(web_seeds),
                    peers: unique(peers),
                    sha1: v1,
                    tiger: v1.map(|_| TigerRoot([7; 24])),
                    len: v1.map(|hash| u64::from(hash[0])),
                    sources: v1
                        .map(|sha1| FileSource::Gnutella {
                            host: "h:1".into(),
                            urn: Urn::Sha1(sha1),
                        })
                        .into_iter()
                        .collect(),
                    select_only: files.map(Selection::new),
                }
            },
        )
}

proptest! {
    #[test]
    fn links_round_trip(magnet in magnets()) {
        prop_assert_eq!(magnet.to_string().parse(), Ok(magnet));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,80}", tail in "[&=%.,0-9a-z:+\\-é]{0,60}") {
        let _ = text.parse::<Magnet>();
        if let Ok(magnet) = parse(&tail) {
            prop_assert_eq!(magnet.to_string().parse(), Ok(magnet));
        }
    }
}
