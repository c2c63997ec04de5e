//! What the other end of a call sends before and in it: signed descriptions, SDP, datagrams, Opus.

#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use shoal_base::{Rng, Time};
use shoal_call::media::binding::{Expected, SignedDescription, fingerprint};
use shoal_call::media::session::{OurCandidate, Session, SessionConfig};
use shoal_call::media::{FRAME, Packet, Receiver};

fuzz_target!(|data: &[u8]| {
    let Some((&kind, data)) = data.split_first() else {
        return;
    };
    match kind % 4 {
        0 => {
            let text = String::from_utf8_lossy(data);
            if let Ok(signed) = SignedDescription::parse(&text) {
                assert!(signed.verify(Expected::Offer { ours: [0; 32] }).is_err());
            }
            let _ = fingerprint(&text);
        }
        1 => answer(&String::from_utf8_lossy(data), &[]),
        2 => answer(OFFER, data),
        _ => play(data),
    }
});

const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    a=fingerprint:sha-256 01:01:01:01:01:01:01:01:01:01:01:01:01:01:01:01:01:01:01:01:01:01:01:01:01:01:01:01:01:01:01:01\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n\
    a=setup:actpass\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=ssrc:1 cname:a\r\n";

/// An answer to whatever offer, then whatever datagrams.
fn answer(offer: &str, datagrams: &[u8]) {
    let ours = "192.0.2.1:5000".parse().expect("an address");
    let theirs = "192.0.2.2:6000".parse().expect("an address");
    let mut now = Time::from_secs(1);
    let made = Session::answer(
        Instant::now(),
        now,
        SessionConfig::default(),
        &[OurCandidate::Host(ours)],
        offer,
        &mut Rng::from_seed(1),
    );
    let Ok((mut session, _)) = made else {
        return;
    };
    let mut rest = datagrams;
    while let Some((&length, tail)) = rest.split_first() {
        let (datagram, tail) = tail.split_at(usize::from(length).min(tail.len()));
        rest = tail;
        session.on_datagram(now, theirs, ours, datagram);
        now = now + Duration::from_millis(20);
        session.on_deadline(now);
        let _ = session.datagrams().count();
    }
}

/// Packets of whatever is called Opus.
fn play(data: &[u8]) {
    let Ok(mut receiver) = Receiver::new() else {
        return;
    };
    let (mut rest, mut now, mut sequence) = (data, 1_000_000, 0u64);
    while let [length, step, tail @ ..] = rest {
        let (payload, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        // Most come in order, some do not.
        sequence = sequence.wrapping_add(u64::from(step % 4)).saturating_sub(u64::from(*step > 250) * 7);
        let packet = Packet {
            sequence,
            time: sequence * FRAME as u64,
            payload: payload.to_vec(),
        };
        receiver.on_packet(Time::from_micros(now), packet);
        now += 20_000;
        receiver.pull(Time::from_micros(now), &mut [0; FRAME]);
    }
}
