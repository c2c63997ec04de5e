//! Addresses as attributes, plain and XORed with cookie and transaction id (RFC 8489 §14.1, 14.2).

use super::message::{MAGIC, TransactionId};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const IPV4: u8 = 1;
const IPV6: u8 = 2;

/// The mask of an address: the cookie, then the transaction id.
fn mask(id: &TransactionId) -> u128 {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
    bytes[4..].copy_from_slice(&id.0);
    u128::from_be_bytes(bytes)
}

fn xor(address: SocketAddr, id: &TransactionId) -> SocketAddr {
    let port = address.port() ^ (MAGIC >> 16) as u16;
    let ip = match address.ip() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() ^ MAGIC)),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() ^ mask(id))),
    };
    SocketAddr::new(ip, port)
}

/// Reads the value of MAPPED-ADDRESS and its like; nothing if it is not one.
pub fn get_address(value: &[u8]) -> Option<SocketAddr> {
    match *value {
        [_, IPV4, p, q, a, b, c, d] => {
            let port = u16::from_be_bytes([p, q]);
            Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port))
        }
        [_, IPV6, p, q, ref ip @ ..] => {
            let ip: [u8; 16] = ip.try_into().ok()?;
            let port = u16::from_be_bytes([p, q]);
            Some(SocketAddr::new(Ipv6Addr::from(ip).into(), port))
        }
        _ => None,
    }
}

/// Reads the value of XOR-MAPPED-ADDRESS and its like; nothing if it is not one.
pub fn get_xor_address(value: &[u8], id: &TransactionId) -> Option<SocketAddr> {
    get_address(value).map(|address| xor(address, id))
}

/// The value's bytes and how many of them there are.
pub(super) fn address_value(address: SocketAddr) -> ([u8; 20], usize) {
    let mut value = [0; 20];
    let [p, q] = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(ip) => {
            value[..4].copy_from_slice(&[0, IPV4, p, q]);
            value[4..8].copy_from_slice(&ip.octets());
            (value, 8)
        }
        IpAddr::V6(ip) => {
            value[..4].copy_from_slice(&[0, IPV6, p, q]);
            value[4..].copy_from_slice(&ip.octets());
            (value, 20)
        }
    }
}

/// The same, XORed.
pub(crate) fn xor_address_value(address: SocketAddr, id: &TransactionId) -> ([u8; 20], usize) {
    address_value(xor(address, id))
}
