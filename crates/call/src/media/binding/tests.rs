use super::*;
use proptest::prelude::*;

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn sdp(n: u8) -> String {
    let print = [format!("{n:02X}").as_str(); 32].join(":");
    format!("v=0\r\na=fingerprint:sha-256 {print}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n")
}

fn public(n: u8) -> [u8; 32] {
    key(n).verifying_key().to_bytes()
}

#[test]
fn both_ends_read_the_same_digits_and_others_read_others() {
    let (offer, ours) = sign_offer(&key(1), [7; 16], Some(public(2)), sdp(1)).expect("signed");
    let line = SignedDescription::parse(&offer.to_line()).expect("parsed");
    let seen = line
        .verify(Expected::Offer { ours: public(2) })
        .expect("genuine");
    let (answer, theirs) = sign_answer(&key(2), &seen, sdp(2)).expect("signed");
    let expected = Expected::Answer {
        offer: &ours,
        from: Some(public(2)),
    };
    let got = answer.verify(expected).expect("genuine");
    let digits = short_authentication_string(&ours, &got);
    assert_eq!(digits, short_authentication_string(&theirs, &seen));
    assert_eq!(digits.len(), 19);
    let mut between = got;
    between.fingerprint[0] ^= 1;
    assert_ne!(digits, short_authentication_string(&ours, &between));
}

#[test]
fn whoever_sits_between_is_found_out() {
    let ours = Expected::Offer { ours: public(2) };
    let (offer, described) = sign_offer(&key(1), [7; 16], Some(public(2)), sdp(1)).expect("signed");
    let mut changed = offer.clone();
    changed.sdp = sdp(9);
    assert_eq!(changed.verify(ours), Err(BindingError::Forged));
    let mut renamed = offer.clone();
    renamed.key = to_hex(&public(9));
    assert_eq!(renamed.verify(ours), Err(BindingError::Forged));
    let mut anybody = offer.clone();
    anybody.to = None;
    assert_eq!(anybody.verify(ours), Err(BindingError::Forged));
    assert_eq!(
        offer.verify(Expected::Offer { ours: public(3) }),
        Err(BindingError::NotForUs)
    );
    // An answer to another offer, by another, or the offer sent back.
    let answers = Expected::Answer {
        offer: &described,
        from: Some(public(2)),
    };
    let (_, other) = sign_offer(&key(1), [7; 16], Some(public(2)), sdp(8)).expect("signed");
    let (late, _) = sign_answer(&key(2), &other, sdp(2)).expect("signed");
    assert_eq!(late.verify(answers), Err(BindingError::Forged));
    let (stranger, _) = sign_answer(&key(3), &described, sdp(3)).expect("signed");
    assert_eq!(stranger.verify(answers), Err(BindingError::OtherKey));
    assert_eq!(offer.verify(answers), Err(BindingError::OtherCall));
}

#[test]
fn a_description_names_one_certificate() {
    assert_eq!(fingerprint("v=0\r\n"), Err(BindingError::Fingerprint));
    assert_eq!(
        fingerprint(&(sdp(1) + &sdp(2))),
        Err(BindingError::Fingerprint)
    );
    assert_eq!(fingerprint(&(sdp(1) + &sdp(1))), Ok([1; 32]));
    assert_eq!(
        fingerprint(&sdp(1).replace("sha-256", "sha-1")),
        Err(BindingError::Fingerprint)
    );
    assert_eq!(
        fingerprint(&"x".repeat(MAX_SDP + 1)),
        Err(BindingError::TooLong)
    );
}

proptest! {
    #[test]
    fn nonsense_is_refused(text in ".{0,300}") {
        if let Ok(signed) = SignedDescription::parse(&text) {
            let ours = Expected::Offer { ours: [0; 32] };
            prop_assert!(signed.verify(ours).is_err());
        }
        let _ = fingerprint(&text);
    }
}
