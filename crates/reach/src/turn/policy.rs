//! To which addresses a relay sends: to those of the Internet, and to no others unless told so.
//!
//! Whoever can make a relay send to its own machine or network stands inside that network (the
//! attacks on TURN servers that were published work so).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// All addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    ip: IpAddr,
    len: u8,
}

/// A text is no prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address with the length of a prefix, such as 192.0.2.0/24 or 2001:db8::/32")]
pub struct BadPrefix;

const fn v4(a: u8, b: u8, c: u8, d: u8, len: u8) -> Prefix {
    let ip = IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    Prefix { ip, len }
}

const fn v6(a: u16, b: u16, len: u8) -> Prefix {
    let ip = IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0));
    Prefix { ip, len }
}

/// Private networks: RFC 1918, carriers' NATs (RFC 6598), unique local (RFC 4193).
const PRIVATE: &[Prefix] = &[
    v4(10, 0, 0, 0, 8),
    v4(172, 16, 0, 0, 12),
    v4(192, 168, 0, 0, 16),
    v4(100, 64, 0, 0, 10),
    v6(0xfc00, 0, 7),
];
/// Special addresses (RFC 6890): this machine, this link, tests, documentation, and those of IPv6
/// that hold one of IPv4, behind which anything can hide (mapped, NAT64, Teredo, 6to4).
const SPECIAL: &[Prefix] = &[
    v4(0, 0, 0, 0, 8),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(240, 0, 0, 0, 4),
    // Unspecified, loopback, IPv4-compatible and -mapped.
    v6(0, 0, 64),
    v6(0x64, 0xff9b, 32),
    v6(0x100, 0, 64),
    v6(0x2001, 0, 23),
    v6(0x2001, 0xdb8, 32),
    v6(0x2002, 0, 16),
    v6(0xfe80, 0, 10),
    v6(0xfec0, 0, 10),
];
/// What is no single host's: never allowed.
const MANY: &[Prefix] = &[
    v4(0, 0, 0, 0, 32),
    v4(224, 0, 0, 0, 4),
    v4(255, 255, 255, 255, 32),
    v6(0, 0, 128),
    v6(0xff00, 0, 8),
];

impl Prefix {
    /// Whether `ip` begins so.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let differing = (a.to_bits() ^ b.to_bits()).leading_zeros();
                differing >= u32::from(self.len)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let differing = (a.to_bits() ^ b.to_bits()).leading_zeros();
                differing >= u32::from(self.len)
            }
            _ => false,
        }
    }
}

impl FromStr for Prefix {
    type Err = BadPrefix;

    /// An address, or an address, `/` and the length of what counts.
    fn from_str(text: &str) -> Result<Self, BadPrefix> {
        let (ip, len) = match text.split_once('/') {
            Some((ip, len)) => (ip, Some(len)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| BadPrefix)?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let len = len.map_or(Ok(most), |len| len.parse().map_err(|_| BadPrefix))?;
        (len <= most).then_some(Self { ip, len }).ok_or(BadPrefix)
    }
}

/// Whether a relay sends to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To any port.
    Allowed,
    /// Only to relayed addresses: it is the relay's own.
    RelaysOnly,
    /// Not at all.
    Forbidden,
}

/// To whom a relay sends.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Whether private networks are allowed.
    pub allow_private: bool,
    /// Allowed whatever they are, unless `deny` says otherwise; but never groups of hosts.
    pub allow: Vec<Prefix>,
    /// Never allowed.
    pub deny: Vec<Prefix>,
}

impl Policy {
    /// Whether a relay whose addresses are `own` may send to `ip`.
    pub fn verdict(&self, ip: IpAddr, own: &[IpAddr]) -> Verdict {
        let within = |list: &[Prefix]| list.iter().any(|p| p.contains(ip));
        if within(MANY) || within(&self.deny) {
            Verdict::Forbidden
        } else if within(&self.allow) {
            Verdict::Allowed
        } else if own.contains(&ip) {
            // Two that are behind the same relay send to each other's relayed addresses.
            Verdict::RelaysOnly
        } else if within(SPECIAL) || (within(PRIVATE) && !self.allow_private) {
            Verdict::Forbidden
        } else {
            Verdict::Allowed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(policy: &Policy, ip: &str) -> Verdict {
        policy.verdict(ip.parse().unwrap(), &["5.5.5.5".parse().unwrap()])
    }

    #[test]
    fn only_the_internet_is_allowed_by_itself() {
        let policy = Policy::default();
        for ip in ["1.1.1.1", "100.128.0.1", "172.32.0.1", "2600::1", "2a00::1"] {
            assert_eq!(verdict(&policy, ip), Verdict::Allowed, "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:1.1.1.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
        ] {
            assert_eq!(verdict(&policy, ip), Verdict::Forbidden, "{ip}");
        }
        assert_eq!(verdict(&policy, "5.5.5.5"), Verdict::RelaysOnly);
    }

    #[test]
    fn what_is_said_counts_but_groups_stay_forbidden() {
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        let policy = Policy {
            allow_private: true,
            allow: vec![prefix("127.0.0.0/8"), prefix("224.0.0.0/4"), prefix("::/0")],
            deny: vec![prefix("10.9.0.0/16"), prefix("8.8.8.8")],
        };
        for (ip, allowed) in [
            ("10.1.2.3", true),
            ("10.9.0.1", false),
            ("127.0.0.1", true),
            ("224.0.0.1", false),
            ("8.8.8.8", false),
            ("::1", true),
            ("ff02::1", false),
            ("169.254.1.1", false),
        ] {
            assert_eq!(verdict(&policy, ip) == Verdict::Allowed, allowed, "{ip}");
        }
    }

    #[test]
    fn prefixes_are_read() {
        for bad in [
            "",
            "1.2.3",
            "1.2.3.4/33",
            "::/129",
            "1.2.3.4/",
            "1.2.3.4/-1",
            "x/8",
        ] {
            assert_eq!(bad.parse::<Prefix>(), Err(BadPrefix), "{bad}");
        }
        let all: Prefix = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("9.9.9.9".parse().unwrap()));
        assert!(!all.contains("::1".parse().unwrap()));
    }
}
