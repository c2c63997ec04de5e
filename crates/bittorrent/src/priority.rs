//! Canonical peer priority (BEP 40): both ends of a possible connection compute the same number,
//! so that everyone prefers the same, evenly spread, connections.

use std::net::{IpAddr, SocketAddr};

/// The priority of a connection between `a` and `b`, the same both ways; higher is better.
///
/// Addresses of two families are compared as IPv6 (BEP 40 does not say).
pub fn canonical(a: SocketAddr, b: SocketAddr) -> u32 {
    match (a.ip().to_canonical(), b.ip().to_canonical()) {
        (x, y) if x == y => {
            let (low, high) = (a.port().min(b.port()), a.port().max(b.port()));
            crc32c([low.to_be_bytes(), high.to_be_bytes()].as_flattened())
        }
        (IpAddr::V4(x), IpAddr::V4(y)) => masked(x.octets(), y.octets(), 2),
        (x, y) => masked(v6(x), v6(y), 6),
    }
}

fn v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The hash of both addresses under the mask: `whole` bytes count in full, more if the addresses
/// agree in them, and of the rest every second bit.
fn masked<const N: usize>(mut x: [u8; N], mut y: [u8; N], whole: usize) -> u32 {
    let common = x.iter().zip(&y).take_while(|(a, b)| a == b).count();
    let whole = if common < whole { whole } else { common + 1 };
    for byte in x.iter_mut().skip(whole).chain(y.iter_mut().skip(whole)) {
        *byte &= 0x55;
    }
    let (low, high) = (x.min(y), x.max(y));
    crc32c([low, high].as_flattened())
}

const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

/// CRC-32C (Castagnoli), RFC 3720 appendix B.4.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        crc >> 8 ^ CRC32C[usize::from(crc as u8 ^ byte)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(a: &str, b: &str, hashed: &[u8]) -> u32 {
        let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
        let priority = canonical(a, b);
        assert_eq!(priority, crc32c(hashed), "{a} {b}");
        assert_eq!(priority, canonical(b, a));
        priority
    }

    #[test]
    fn the_specification_s_examples_come_out() {
        let hashed = [0x62, 0x4c, 0x14, 0, 0x7b, 0xd5, 0, 0];
        let got = check("123.213.32.10:1", "98.76.54.32:1", &hashed);
        assert_eq!(got, 0xec2d_7224);
        let hashed = [0x7b, 0xd5, 0x20, 0x0a, 0x7b, 0xd5, 0x20, 0xea];
        let got = check("123.213.32.10:1", "123.213.32.234:1", &hashed);
        assert_eq!(got, 0x9956_8189);
    }

    #[test]
    fn the_mask_widens_as_addresses_share_a_prefix() {
        let hashed = [10, 0, 1, 0x55, 10, 0, 2, 0x55];
        check("10.0.1.255:1", "10.0.2.255:1", &hashed);
        check("10.0.0.1:258", "10.0.0.1:772", &[1, 2, 3, 4]);
        let v6 = |head: [u8; 9], tail: u8| {
            let mut bytes = [tail; 16];
            bytes[..9].copy_from_slice(&head);
            bytes
        };
        let far = [
            v6([0x20, 1, 0, 0, 0, 0, 0x55, 0x55, 0x55], 0x55),
            v6([0x20, 1, 0, 0, 0, 1, 0x55, 0x55, 0x55], 0x55),
        ];
        check(
            "[2001:0:0:ffff:ffff:ffff:ffff:ffff]:1",
            "[2001:0:1:ffff:ffff:ffff:ffff:ffff]:1",
            far.as_flattened(),
        );
        let same_48 = [
            v6([0x20, 1, 0, 0, 0, 0, 0xaa, 0x55, 0x55], 0x55),
            v6([0x20, 1, 0, 0, 0, 0, 0xff, 0x55, 0x55], 0x55),
        ];
        check(
            "[2001:0:0:aaff:ffff:ffff:ffff:ffff]:1",
            "[2001:0:0:ffff:ffff:ffff:ffff:ffff]:1",
            same_48.as_flattened(),
        );
        let same_56 = [
            v6([0x20, 1, 0, 0, 0, 0, 0xff, 0xaa, 0x55], 0x55),
            v6([0x20, 1, 0, 0, 0, 0, 0xff, 0xff, 0x55], 0x55),
        ];
        check(
            "[2001:0:0:ffaa:ffff:ffff:ffff:ffff]:1",
            "[2001:0:0:ffff:ffff:ffff:ffff:ffff]:1",
            same_56.as_flattened(),
        );
    }

    #[test]
    fn the_checksum_is_castagnoli_s() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn both_ends_agree(a in any::<([u8; 16], bool, u16)>(), b in any::<([u8; 16], bool, u16)>()) {
            let addr = |(ip, v4, port): ([u8; 16], bool, u16)| {
                let ip = if v4 { IpAddr::from(*ip.first_chunk::<4>().unwrap()) } else { ip.into() };
                SocketAddr::new(ip, port)
            };
            prop_assert_eq!(canonical(addr(a), addr(b)), canonical(addr(b), addr(a)));
        }
    }
}
