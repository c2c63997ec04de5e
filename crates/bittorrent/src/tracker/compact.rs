//! Compact peer lists: 6 bytes a v4 peer (BEP 23), 18 bytes a v6 peer (BEP 7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of a v4 peer.
pub const V4_LEN: usize = 6;
/// Bytes of a v6 peer.
pub const V6_LEN: usize = 18;

/// Address and port as sent for a v4 peer.
pub fn encode_v4(ip: Ipv4Addr, port: u16) -> [u8; V4_LEN] {
    let [a, b, c, d] = ip.octets();
    let [high, low] = port.to_be_bytes();
    [a, b, c, d, high, low]
}

/// Address and port as sent for a v6 peer.
pub fn encode_v6(ip: Ipv6Addr, port: u16) -> [u8; V6_LEN] {
    let mut out = [0; V6_LEN];
    let (head, tail) = out.split_at_mut(16);
    head.copy_from_slice(&ip.octets());
    tail.copy_from_slice(&port.to_be_bytes());
    out
}

/// Appends `peer` in the form of its family.
pub fn push(peer: SocketAddr, out: &mut Vec<u8>) {
    match peer.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&encode_v4(ip, peer.port())),
        IpAddr::V6(ip) => out.extend_from_slice(&encode_v6(ip, peer.port())),
    }
}

/// The v4 peers in `bytes`; an incomplete last one is left out.
pub fn decode_v4(bytes: &[u8]) -> impl Iterator<Item = SocketAddr> + '_ {
    let (peers, _) = bytes.as_chunks::<V4_LEN>();
    peers.iter().map(|&[a, b, c, d, high, low]| {
        SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low])))
    })
}

/// The v6 peers in `bytes`; an incomplete last one is left out.
pub fn decode_v6(bytes: &[u8]) -> impl Iterator<Item = SocketAddr> + '_ {
    let (peers, _) = bytes.as_chunks::<V6_LEN>();
    peers.iter().map(|peer| {
        let mut ip = [0; 16];
        let (head, tail) = peer.split_at(16);
        ip.copy_from_slice(head);
        let mut port = [0; 2];
        port.copy_from_slice(tail);
        SocketAddr::from((ip, u16::from_be_bytes(port)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn peers_round_trip(v4 in prop::collection::vec(any::<([u8; 4], u16)>(), 0..5), v6 in prop::collection::vec(any::<([u8; 16], u16)>(), 0..5)) {
            let v4: Vec<SocketAddr> = v4.into_iter().map(SocketAddr::from).collect();
            let v6: Vec<SocketAddr> = v6.into_iter().map(SocketAddr::from).collect();
            let mut bytes = Vec::new();
            v4.iter().for_each(|p| push(*p, &mut bytes));
            bytes.push(0);
            prop_assert_eq!(decode_v4(&bytes).collect::<Vec<_>>(), v4);
            bytes.clear();
            v6.iter().for_each(|p| push(*p, &mut bytes));
            prop_assert_eq!(decode_v6(&bytes).collect::<Vec<_>>(), v6);
        }
    }
}
