//! Vendor messages (Framework for Vendor-specific Messages 0.1): those that are understood here.

use std::net::{Ipv4Addr, SocketAddrV4};

use shoal_base::Cursor;

use super::Malformed;

/// Items of a list of messages that are read at most.
pub const MAX_SUPPORTED: usize = 128;

/// Names a vendor's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Four letters; NULs for messages that are nobody's.
    pub vendor: [u8; 4],
    /// Which of the vendor's.
    pub selector: u16,
}

const fn name(vendor: [u8; 4], selector: u16) -> Name {
    Name { vendor, selector }
}

/// Which messages a servent understands.
pub const SUPPORTED: Name = name([0; 4], 0);
/// The most hops of queries that a neighbour wants.
pub const HOPS_FLOW: Name = name(*b"BEAR", 4);
/// Asks for a connection, to see whether the sender can be reached.
pub const CONNECT_BACK: Name = name(*b"BEAR", 7);
/// Asks a leaf how many results of a query it kept.
pub const STATUS_REQUEST: Name = name(*b"BEAR", 11);
/// A leaf's answer.
pub const STATUS: Name = name(*b"BEAR", 12);
/// Asks to be a push proxy.
pub const PROXY_REQUEST: Name = name(*b"LIME", 21);
/// Agrees to be one.
pub const PROXY_ACK: Name = name(*b"LIME", 22);

/// What we tell others that we understand, with versions.
pub const OURS: [(Name, u16); 6] = [
    (HOPS_FLOW, 1),
    (CONNECT_BACK, 1),
    (STATUS_REQUEST, 1),
    (STATUS, 1),
    (PROXY_REQUEST, 1),
    (PROXY_ACK, 2),
];

/// The hits that a leaf reports when it wants no more.
pub const ENOUGH: u16 = 0xffff;

/// A vendor's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vendor {
    /// The sender understands these.
    Supported(Vec<(Name, u16)>),
    /// Queries of this many hops or more are not wanted.
    HopsFlow(u8),
    /// Connect to this port.
    ConnectBack(u16),
    /// How many results of the query named by the message's GUID were kept?
    StatusRequest,
    /// That many; [`ENOUGH`] when no more are wanted.
    Status(u16),
    /// Be a push proxy for the servent that the message's GUID names.
    ProxyRequest,
    /// Agreed; reachable here.
    ProxyAck(SocketAddrV4),
    /// Another one.
    Other(Name, u16),
}

impl Vendor {
    /// Reads a payload.
    ///
    /// # Errors
    /// It ends early.
    pub fn read(payload: &[u8]) -> Result<Self, Malformed> {
        let mut c = Cursor::new(payload);
        let (which, version) = read_name(&mut c)?;
        Ok(match which {
            SUPPORTED => {
                let count = usize::from(c.u16_le()?);
                let mut list = Vec::new();
                for _ in 0..count.min(MAX_SUPPORTED) {
                    list.push(read_name(&mut c)?);
                }
                Self::Supported(list)
            }
            HOPS_FLOW => Self::HopsFlow(c.u8()?),
            CONNECT_BACK => Self::ConnectBack(c.u16_le()?),
            STATUS_REQUEST => Self::StatusRequest,
            STATUS => Self::Status(c.u16_le()?),
            PROXY_REQUEST => Self::ProxyRequest,
            PROXY_ACK => {
                let ip = Ipv4Addr::from(c.array::<4>()?);
                Self::ProxyAck(SocketAddrV4::new(ip, c.u16_le()?))
            }
            other => Self::Other(other, version),
        })
    }

    /// The payload. [`Vendor::Other`] has no body.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Supported(list) => {
                write_name(SUPPORTED, 0, &mut out);
                let list = list.get(..MAX_SUPPORTED).unwrap_or(list);
                out.extend_from_slice(&(list.len() as u16).to_le_bytes());
                for (which, version) in list {
                    write_name(*which, *version, &mut out);
                }
            }
            Self::HopsFlow(hops) => {
                write_name(HOPS_FLOW, 1, &mut out);
                out.push(*hops);
            }
            Self::ConnectBack(port) => {
                write_name(CONNECT_BACK, 1, &mut out);
                out.extend_from_slice(&port.to_le_bytes());
            }
            Self::StatusRequest => write_name(STATUS_REQUEST, 1, &mut out),
            Self::Status(hits) => {
                write_name(STATUS, 1, &mut out);
                out.extend_from_slice(&hits.to_le_bytes());
            }
            Self::ProxyRequest => write_name(PROXY_REQUEST, 1, &mut out),
            Self::ProxyAck(addr) => {
                write_name(PROXY_ACK, 2, &mut out);
                super::write_address(*addr, &mut out);
            }
            Self::Other(which, version) => write_name(*which, *version, &mut out),
        }
        out
    }
}

fn read_name(c: &mut Cursor<'_>) -> Result<(Name, u16), Malformed> {
    let vendor = c.array()?;
    let selector = c.u16_le()?;
    Ok((name(vendor, selector), c.u16_le()?))
}

fn write_name(which: Name, version: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&which.vendor);
    out.extend_from_slice(&which.selector.to_le_bytes());
    out.extend_from_slice(&version.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hops_flow_is_laid_out_as_the_framework_says() {
        let bytes = Vendor::HopsFlow(3).write();
        assert_eq!(bytes, b"BEAR\x04\x00\x01\x00\x03");
    }

    fn any_vendor() -> impl Strategy<Value = Vendor> {
        let names = prop::collection::vec((any::<[u8; 4]>(), any::<u16>(), any::<u16>()), 0..9);
        prop_oneof![
            names.prop_map(|list| {
                let list = list.into_iter().map(|(v, s, n)| (name(v, s), n));
                Vendor::Supported(list.collect())
            }),
            any::<u8>().prop_map(Vendor::HopsFlow),
            any::<u16>().prop_map(Vendor::ConnectBack),
            Just(Vendor::StatusRequest),
            any::<u16>().prop_map(Vendor::Status),
            Just(Vendor::ProxyRequest),
            any::<([u8; 4], u16)>()
                .prop_map(|(ip, port)| Vendor::ProxyAck(SocketAddrV4::new(ip.into(), port))),
            any::<(u16, u16)>().prop_map(|(s, v)| Vendor::Other(name(*b"GTKG", s), v)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(vendor in any_vendor()) {
            prop_assert_eq!(Vendor::read(&vendor.write()), Ok(vendor));
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes: Vec<u8>, which in 0_usize..6) {
            let mut message = Vec::new();
            write_name(OURS[which].0, 1, &mut message);
            message.extend_from_slice(&bytes);
            let _ = Vendor::read(&message);
            let _ = Vendor::read(&bytes);
        }
    }
}
