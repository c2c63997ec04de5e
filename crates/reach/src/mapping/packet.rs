//! Packets of NAT-PMP (RFC 6886, section 3) and PCP (RFC 6887, sections 7 and 11), to and from port
//! [`SERVER`] of a router.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use super::{Port, Protocol, Refusal, Transport};

/// The port that routers listen at.
pub const SERVER: u16 = 5351;
/// Bytes of the longest packet (RFC 6887, section 7).
pub const MAX_PACKET: usize = 1100;

/// Random bytes that tell who made a mapping of PCP.
pub type Nonce = [u8; 12];

const PCP: u8 = 2;
const ANNOUNCE: u8 = 0;
const MAP: u8 = 1;
const ANSWER: u8 = 0x80;

/// What a router says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// In which protocol.
    pub by: Protocol,
    /// Zero, or why not.
    pub code: u16,
    /// Seconds since it began to keep its mappings.
    pub epoch: u32,
    /// What it is about.
    pub about: About,
}

/// What an answer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Nothing but the epoch.
    Epoch,
    /// The router's address towards the world.
    Address(Ipv4Addr),
    /// A mapping of PCP: its nonce, our port, what it is mapped to, and for how many seconds, or with a code for how
    /// many seconds the same would be answered.
    Pcp(Nonce, Port, SocketAddrV4, u32),
    /// A mapping of NAT-PMP: our port, the port that it is mapped to, and for how many seconds.
    NatPmp(Port, u16, u32),
}

impl Answer {
    /// Why not; none: it is done.
    pub fn refusal(&self) -> Option<Refusal> {
        Some(match (self.by, self.code) {
            (_, 0) => return None,
            (_, 2) => Refusal::NotAuthorized,
            (Protocol::NatPmp, 3) | (Protocol::Pcp, 7 | 11) => Refusal::NoNetwork,
            (Protocol::NatPmp, 4) | (Protocol::Pcp, 8 | 10) => Refusal::NoResources,
            (by, code) => Refusal::Code(by, code),
        })
    }

    /// Whether the router does not speak the protocol, but an older one.
    pub fn is_other_version(&self) -> bool {
        self.code == 1
    }
}

fn mapped(ip: Ipv4Addr) -> [u8; 16] {
    ip.to_ipv6_mapped().octets()
}

fn pcp(opcode: u8, lifetime: u32, own: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![PCP, opcode, 0, 0];
    bytes.extend(lifetime.to_be_bytes());
    bytes.extend(mapped(own));
    bytes
}

/// Asks for a mapping by PCP, for so many seconds; none ends it. `wanted` is what it was, or would be.
pub fn pcp_map(
    own: Ipv4Addr,
    nonce: &Nonce,
    port: Port,
    wanted: SocketAddrV4,
    lifetime: u32,
) -> Vec<u8> {
    let mut bytes = pcp(MAP, lifetime, own);
    bytes.extend(nonce);
    bytes.extend([port.transport.number(), 0, 0, 0]);
    bytes.extend(port.number.to_be_bytes());
    bytes.extend(wanted.port().to_be_bytes());
    bytes.extend(mapped(*wanted.ip()));
    bytes
}

/// Asks for nothing but the epoch, by PCP.
pub fn pcp_announce(own: Ipv4Addr) -> Vec<u8> {
    pcp(ANNOUNCE, 0, own)
}

/// Asks for the address towards the world, by NAT-PMP.
pub fn natpmp_address() -> Vec<u8> {
    vec![0, 0]
}

/// Asks for a mapping by NAT-PMP, for so many seconds; none ends it, and `wanted` is zero then.
pub fn natpmp_map(port: Port, wanted: u16, lifetime: u32) -> Vec<u8> {
    let mut bytes = vec![0, natpmp_opcode(port.transport), 0, 0];
    bytes.extend(port.number.to_be_bytes());
    bytes.extend(wanted.to_be_bytes());
    bytes.extend(lifetime.to_be_bytes());
    bytes
}

const fn natpmp_opcode(transport: Transport) -> u8 {
    match transport {
        Transport::Udp => 1,
        Transport::Tcp => 2,
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

/// Reads what a router says; none: it is no answer that we know.
pub fn read(bytes: &[u8]) -> Option<Answer> {
    let [version, opcode, ..] = *bytes else {
        return None;
    };
    if bytes.len() > MAX_PACKET || opcode & ANSWER == 0 {
        return None;
    }
    match version {
        0 => read_natpmp(bytes, opcode & !ANSWER),
        // Other versions are those of routers that tell which they speak; the form is PCP's.
        _ => read_pcp(bytes, opcode & !ANSWER),
    }
}

fn read_natpmp(bytes: &[u8], opcode: u8) -> Option<Answer> {
    let code = u16_at(bytes, 2)?;
    let epoch = u32_at(bytes, 4)?;
    let transport = match opcode {
        2 => Transport::Tcp,
        _ => Transport::Udp,
    };
    let about = match opcode {
        0 if code == 0 => About::Address(array(bytes, 8)?.into()),
        1 | 2 if code == 0 || bytes.len() >= 16 => {
            let number = u16_at(bytes, 8)?;
            let port = Port { transport, number };
            About::NatPmp(port, u16_at(bytes, 10)?, u32_at(bytes, 12)?)
        }
        _ => About::Epoch,
    };
    let by = Protocol::NatPmp;
    Some(Answer {
        by,
        code,
        epoch,
        about,
    })
}

fn read_pcp(bytes: &[u8], opcode: u8) -> Option<Answer> {
    let code = u16::from(*bytes.get(3)?);
    let lifetime = u32_at(bytes, 4)?;
    let epoch = u32_at(bytes, 8)?;
    let about = match opcode {
        MAP if bytes.len() >= 60 => {
            let nonce = array(bytes, 24)?;
            let transport = match bytes.get(36)? {
                17 => Transport::Udp,
                6 => Transport::Tcp,
                _ => return None,
            };
            let number = u16_at(bytes, 40)?;
            let ip = Ipv6Addr::from(array::<16>(bytes, 44)?);
            // With a code that is what we asked for.
            let ip = ip.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED);
            let external = SocketAddrV4::new(ip, u16_at(bytes, 42)?);
            About::Pcp(nonce, Port { transport, number }, external, lifetime)
        }
        _ => About::Epoch,
    };
    let by = Protocol::Pcp;
    Some(Answer {
        by,
        code,
        epoch,
        about,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, proptest};

    const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
    const PORT: Port = Port {
        transport: Transport::Udp,
        number: 4000,
    };

    #[test]
    fn requests_are_as_the_documents_draw_them() {
        assert_eq!(natpmp_address(), [0, 0]);
        let map = natpmp_map(PORT, 4001, 7200);
        assert_eq!(map, [0, 1, 0, 0, 15, 160, 15, 161, 0, 0, 28, 32]);
        let wanted = SocketAddrV4::new(Ipv4Addr::new(1, 2, 3, 4), 4001);
        let map = pcp_map(OWN, &[7; 12], PORT, wanted, 7200);
        assert_eq!(map.len(), 60);
        assert_eq!(map[..8], [2, 1, 0, 0, 0, 0, 28, 32]);
        assert_eq!(map[8..24], OWN.to_ipv6_mapped().octets());
        assert_eq!(map[24..36], [7; 12]);
        assert_eq!(map[36..44], [17, 0, 0, 0, 15, 160, 15, 161]);
        assert_eq!(map[44..], wanted.ip().to_ipv6_mapped().octets());
        assert_eq!(pcp_announce(OWN).len(), 24);
    }

    #[test]
    fn answers_are_read() {
        let natpmp = [0, 128, 0, 0, 0, 0, 0, 9, 44, 20, 1, 1];
        let answer = read(&natpmp).expect("an answer");
        assert_eq!(answer.about, About::Address(Ipv4Addr::new(44, 20, 1, 1)));
        assert_eq!((answer.by, answer.epoch), (Protocol::NatPmp, 9));
        let natpmp = [0, 129, 0, 0, 0, 0, 0, 9, 15, 160, 15, 161, 0, 0, 28, 32];
        let about = read(&natpmp).expect("an answer").about;
        assert_eq!(about, About::NatPmp(PORT, 4001, 7200));
        // What a router of NAT-PMP alone says to a request of PCP.
        let other = read(&[0, 129, 0, 1, 0, 0, 0, 9]).expect("an answer");
        assert!(other.is_other_version() && other.about == About::Epoch);
        let wanted = SocketAddrV4::new(Ipv4Addr::new(1, 2, 3, 4), 4001);
        let mut pcp = pcp_map(OWN, &[7; 12], PORT, wanted, 600);
        pcp[1] |= ANSWER;
        pcp[8..12].copy_from_slice(&77_u32.to_be_bytes());
        let answer = read(&pcp).expect("an answer");
        assert_eq!((answer.epoch, answer.refusal()), (77, None));
        assert_eq!(answer.about, About::Pcp([7; 12], PORT, wanted, 600));
        pcp[3] = 2;
        let answer = read(&pcp).expect("an answer");
        assert_eq!(answer.refusal(), Some(Refusal::NotAuthorized));
        // A request is no answer.
        assert_eq!(read(&natpmp_address()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&bytes);
        }
    }
}
