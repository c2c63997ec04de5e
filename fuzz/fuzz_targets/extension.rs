//! Messages of the extension protocol and of local discovery: the handshake's dictionary,
//! metadata, peer exchange. What is read is written and read back the same; the machines behind
//! survive whatever comes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_base::{InfoHash, Rng, Time};
use shoal_bittorrent::extension::{self, ExtensionHandshake};
use shoal_bittorrent::lsd::{Lsd, LsdAnnounce, MAX_PACKET_LEN};
use shoal_bittorrent::metadata::{
    MetadataAnswer, MetadataFetch, MetadataMessage, MetadataOutput, MetadataServe,
};
use shoal_bittorrent::pex::{PexInbox, PexMessage};

fuzz_target!(|data: &[u8]| {
    let Some((&kind, data)) = data.split_first() else {
        return;
    };
    match kind % 5 {
        0 => handshake(data),
        1 => metadata(data),
        2 => pex(data),
        3 => lsd(data),
        _ => fetch(data),
    }
});

fn handshake(data: &[u8]) {
    let _ = extension::decode_dont_have(data);
    let _ = extension::decode_upload_only(data);
    if let Ok(read) = ExtensionHandshake::decode(data) {
        let mut bytes = Vec::new();
        read.encode(&mut bytes);
        assert_eq!(ExtensionHandshake::decode(&bytes), Ok(read));
    }
}

fn metadata(data: &[u8]) {
    if let Ok(read) = MetadataMessage::decode(data) {
        let mut bytes = Vec::new();
        read.encode(&mut bytes);
        assert_eq!(MetadataMessage::decode(&bytes), Ok(read));
        if let MetadataMessage::Request { piece } = read {
            let answer = MetadataServe::new().on_request(Time::ZERO, piece, Some(data));
            assert_ne!(answer, MetadataAnswer::Flood);
        }
    }
}

fn pex(data: &[u8]) {
    if let Ok(read) = PexMessage::decode(data) {
        let mut bytes = Vec::new();
        read.encode(&mut bytes);
        assert_eq!(PexMessage::decode(&bytes), Ok(read));
    }
    let from = [192, 0, 2, 1].into();
    if let Ok(kept) = PexInbox::new().on_message(Time::ZERO, from, data) {
        assert!(kept.added.iter().all(|p| p.addr.port() != 0));
    }
}

fn lsd(data: &[u8]) {
    let mut lsd = Lsd::new(1, &mut Rng::from_seed(1));
    let from = ([10, 0, 0, 1], 6771).into();
    let _ = lsd.on_packet(Time::ZERO, from, data);
    if let Ok(read) = LsdAnnounce::decode(data) {
        let packet = read.encode(false);
        if packet.len() <= MAX_PACKET_LEN {
            assert_eq!(LsdAnnounce::decode(&packet), Ok(read));
        }
    }
}

/// Every three bytes are something that happens to a fetch of metadata.
fn fetch(data: &[u8]) {
    let mut fetch = MetadataFetch::new(InfoHash([0; 20]));
    let mut out = Vec::new();
    let mut now = Time::ZERO;
    let mut asked = 0;
    for event in data.as_chunks::<3>().0.iter().take(500) {
        let [what, peer, n] = *event;
        let (peer, piece) = (u32::from(peer % 8), u32::from(n % 8));
        let size = (piece + 1) * 16_384 - u32::from(n);
        match what % 6 {
            0 => fetch.on_peer(now, peer, size, &mut out),
            1 => fetch.on_gone(now, peer, &mut out),
            2 => fetch.on_data(now, peer, piece, 0, &[n; 16_384], &mut out),
            3 => fetch.on_reject(now, peer, piece, &mut out),
            4 => fetch.on_data(
                now,
                peer,
                piece,
                size,
                &vec![n; 16_384 - usize::from(n)],
                &mut out,
            ),
            _ => {
                if let Some(at) = fetch.deadline() {
                    now = now.max(at);
                    fetch.on_tick(now, &mut out);
                    assert!(fetch.deadline().is_none_or(|next| next > now));
                }
            }
        }
        for output in out.drain(..) {
            match output {
                MetadataOutput::Request { .. } => asked += 1,
                MetadataOutput::Done(_) => panic!("nothing hashes to zero"),
                MetadataOutput::Ban { .. } | MetadataOutput::Drop { .. } => {}
            }
        }
        let (here, all) = fetch.progress();
        assert!(here <= all);
    }
    assert!(asked <= 500 * 32, "{asked} requests");
}
