//! What a tracker client reads from trackers: UDP datagrams, bencoded announce and scrape
//! replies, and the UDP machine that matches replies to requests.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_base::{InfoHash, PeerId, Rng, Time};
use shoal_bittorrent::tracker::{
    AnnounceEvent, AnnounceRequest, UdpClient, UdpClientOutput, http_reply, udp,
};
use std::net::SocketAddr;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, data)) = data.split_first() else {
        return;
    };
    match kind % 3 {
        0 => {
            if let Ok(reply) = udp::decode_reply(data) {
                let mut bytes = Vec::new();
                udp::encode_reply(&reply, &mut bytes);
                assert_eq!(udp::decode_reply(&bytes), Ok(reply));
            }
        }
        1 => {
            if let Ok(reply) = http_reply::decode_announce(data) {
                assert!(reply.peers.iter().all(|p| p.port() != 0));
            }
            let _ = http_reply::decode_scrape(data);
        }
        _ => machine(data),
    }
});

/// Lets a tracker say anything, under the transaction ids that were really sent.
fn machine(data: &[u8]) {
    let tracker = SocketAddr::from(([127, 0, 0, 1], 6969));
    let mut client = UdpClient::new(Rng::from_seed(1));
    let announce = AnnounceRequest {
        info_hash: InfoHash([1; 20]),
        peer_id: PeerId([2; 20]),
        port: 6881,
        uploaded: 0,
        downloaded: 0,
        left: 1,
        event: AnnounceEvent::Started,
        num_want: None,
        key: 0,
        ip: None,
        overlay: Some(([0xfc01, 0, 0, 0, 0, 0, 0, 1], 6881).into()),
    };
    let mut now = Time::ZERO;
    let mut out = Vec::new();
    client.announce(now, 1, tracker, announce, "/announce", &mut out);
    for chunk in data.chunks(40) {
        let sent = out.drain(..).rev().find_map(|o| match o {
            UdpClientOutput::Send { datagram, .. } => Some(datagram),
            UdpClientOutput::Done { .. } => None,
        });
        let mut reply = chunk.to_vec();
        if let (Some(sent), Some(slot)) = (sent, reply.get_mut(4..8)) {
            slot.copy_from_slice(&sent[12..16]);
        }
        client.on_datagram(now, tracker, &reply, &mut out);
        now += std::time::Duration::from_secs(u64::from(chunk[0]));
        client.on_tick(now, &mut out);
    }
}
