//! What messages carry: the attributes of STUN (RFC 8489), TURN (RFC 8656, 6062), ICE (RFC 8445)
//! and of finding out how a NAT behaves (RFC 5780).

use super::address::{address_value, get_address, get_xor_address, xor_address_value};
use super::message::TransactionId;
use std::net::SocketAddr;

/// Numbers of attributes. Those below 0x8000 must be understood.
#[expect(missing_docs, reason = "each is the name that its RFC gives it")]
pub mod kind {
    pub const MAPPED_ADDRESS: u16 = 0x0001;
    pub const CHANGE_REQUEST: u16 = 0x0003;
    pub const USERNAME: u16 = 0x0006;
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub const ERROR_CODE: u16 = 0x0009;
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    pub const CHANNEL_NUMBER: u16 = 0x000c;
    pub const LIFETIME: u16 = 0x000d;
    pub const XOR_PEER_ADDRESS: u16 = 0x0012;
    pub const DATA: u16 = 0x0013;
    pub const REALM: u16 = 0x0014;
    pub const NONCE: u16 = 0x0015;
    pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
    pub const EVEN_PORT: u16 = 0x0018;
    pub const REQUESTED_TRANSPORT: u16 = 0x0019;
    pub const DONT_FRAGMENT: u16 = 0x001a;
    pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
    pub const PASSWORD_ALGORITHM: u16 = 0x001d;
    pub const USERHASH: u16 = 0x001e;
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub const RESERVATION_TOKEN: u16 = 0x0022;
    pub const PRIORITY: u16 = 0x0024;
    pub const USE_CANDIDATE: u16 = 0x0025;
    pub const PADDING: u16 = 0x0026;
    pub const RESPONSE_PORT: u16 = 0x0027;
    pub const CONNECTION_ID: u16 = 0x002a;
    pub const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
    pub const ADDRESS_ERROR_CODE: u16 = 0x8001;
    pub const PASSWORD_ALGORITHMS: u16 = 0x8002;
    pub const ALTERNATE_DOMAIN: u16 = 0x8003;
    pub const ICMP: u16 = 0x8004;
    pub const SOFTWARE: u16 = 0x8022;
    pub const ALTERNATE_SERVER: u16 = 0x8023;
    pub const FINGERPRINT: u16 = 0x8028;
    pub const ICE_CONTROLLED: u16 = 0x8029;
    pub const ICE_CONTROLLING: u16 = 0x802a;
    pub const RESPONSE_ORIGIN: u16 = 0x802b;
    pub const OTHER_ADDRESS: u16 = 0x802c;
    /// Of our own, among those that need not be understood and that nobody has registered.
    pub const RELAY_LOAD: u16 = 0xc5e1;
}

/// Bytes of SOFTWARE, REALM, NONCE and a reason at most (RFC 8489 §14).
const MAX_TEXT: usize = 763;
/// Bytes of USERNAME at most (RFC 8489 §14.3: fewer than 509).
const MAX_USERNAME: usize = 508;
/// Bytes of ALTERNATE-DOMAIN at most.
const MAX_DOMAIN: usize = 255;

/// An attribute's value does not fit its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("attribute {kind:#06x} has a value of {len} bytes that does not fit it")]
pub struct BadAttribute {
    /// The attribute.
    pub kind: u16,
    /// Length of its value.
    pub len: usize,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason<'a> {
    /// 300 to 699.
    pub code: u16,
    /// For people; may be anything.
    pub phrase: &'a [u8],
}

/// One attribute. Message integrity and fingerprint are made and checked by the message as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each is what the RFC's attribute of that name is"
)]
pub enum Attribute<'a> {
    MappedAddress(SocketAddr),
    XorMappedAddress(SocketAddr),
    Username(&'a [u8]),
    UserHash([u8; 32]),
    Realm(&'a [u8]),
    Nonce(&'a [u8]),
    ErrorCode(Reason<'a>),
    /// Kinds, two bytes each.
    UnknownAttributes(&'a [u8]),
    /// Number, length of parameters, parameters: of each algorithm.
    PasswordAlgorithms(&'a [u8]),
    /// The algorithm's number; those that exist have no parameters.
    PasswordAlgorithm(u16),
    Software(&'a [u8]),
    AlternateServer(SocketAddr),
    AlternateDomain(&'a [u8]),
    ChannelNumber(u16),
    /// Seconds.
    Lifetime(u32),
    XorPeerAddress(SocketAddr),
    XorRelayedAddress(SocketAddr),
    Data(&'a [u8]),
    /// 1 for IPv4, 2 for IPv6.
    RequestedAddressFamily(u8),
    AdditionalAddressFamily(u8),
    AddressErrorCode {
        family: u8,
        reason: Reason<'a>,
    },
    /// Whether the next higher port shall be kept.
    EvenPort(bool),
    /// A protocol's number: 17 for UDP, 6 for TCP.
    RequestedTransport(u8),
    DontFragment,
    ReservationToken([u8; 8]),
    ConnectionId(u32),
    Icmp {
        kind: u8,
        code: u8,
        data: [u8; 4],
    },
    Priority(u32),
    UseCandidate,
    IceControlled(u64),
    IceControlling(u64),
    ChangeRequest {
        ip: bool,
        port: bool,
    },
    /// That many bytes.
    Padding(u16),
    ResponsePort(u16),
    ResponseOrigin(SocketAddr),
    OtherAddress(SocketAddr),
    /// How busy a relay is, in thousandths; in a request zero, which asks for it.
    RelayLoad(u16),
    /// Any other, or one whose value is not looked into here.
    Other {
        kind: u16,
        value: &'a [u8],
    },
}

fn reason(value: &[u8]) -> Option<(u8, Reason<'_>)> {
    let [first, _, class, number, phrase @ ..] = value else {
        return None;
    };
    let class = class & 0b111;
    if !(3..=6).contains(&class) || *number > 99 || phrase.len() > MAX_TEXT {
        return None;
    }
    let code = u16::from(class) * 100 + u16::from(*number);
    Some((*first, Reason { code, phrase }))
}

fn at_most(value: &[u8], most: usize) -> Option<&[u8]> {
    (value.len() <= most).then_some(value)
}

impl<'a> Attribute<'a> {
    /// Reads a value. A kind that is not known is read as [`Attribute::Other`].
    pub fn decode(kind: u16, value: &'a [u8], id: &TransactionId) -> Result<Self, BadAttribute> {
        let bad = BadAttribute {
            kind,
            len: value.len(),
        };
        Self::read(kind, value, id).ok_or(bad)
    }

    fn read(kind: u16, value: &'a [u8], id: &TransactionId) -> Option<Self> {
        let word = || Some(u32::from_be_bytes(value.try_into().ok()?));
        let long = || Some(u64::from_be_bytes(value.try_into().ok()?));
        // A small number in the first bytes of a word whose rest is reserved.
        let first = || word().map(|w| (w >> 24) as u8);
        let upper = || word().map(|w| (w >> 16) as u16);
        let address = || get_address(value);
        let xored = || get_xor_address(value, id);
        let text = || at_most(value, MAX_TEXT);
        Some(match kind {
            kind::MAPPED_ADDRESS => Self::MappedAddress(address()?),
            kind::XOR_MAPPED_ADDRESS => Self::XorMappedAddress(xored()?),
            kind::USERNAME => Self::Username(at_most(value, MAX_USERNAME)?),
            kind::USERHASH => Self::UserHash(value.try_into().ok()?),
            kind::REALM => Self::Realm(text()?),
            kind::NONCE => Self::Nonce(text()?),
            kind::ERROR_CODE => Self::ErrorCode(reason(value)?.1),
            kind::UNKNOWN_ATTRIBUTES if value.len().is_multiple_of(2) => {
                Self::UnknownAttributes(value)
            }
            kind::UNKNOWN_ATTRIBUTES => return None,
            kind::PASSWORD_ALGORITHMS => Self::PasswordAlgorithms(value),
            kind::PASSWORD_ALGORITHM => {
                let [a, b, rest @ ..] = value else {
                    return None;
                };
                let [l0, l1, parameters @ ..] = rest else {
                    return None;
                };
                if usize::from(u16::from_be_bytes([*l0, *l1])) > parameters.len() {
                    return None;
                }
                Self::PasswordAlgorithm(u16::from_be_bytes([*a, *b]))
            }
            kind::SOFTWARE => Self::Software(text()?),
            kind::ALTERNATE_SERVER => Self::AlternateServer(address()?),
            kind::ALTERNATE_DOMAIN => Self::AlternateDomain(at_most(value, MAX_DOMAIN)?),
            kind::CHANNEL_NUMBER => Self::ChannelNumber(upper()?),
            kind::LIFETIME => Self::Lifetime(word()?),
            kind::XOR_PEER_ADDRESS => Self::XorPeerAddress(xored()?),
            kind::XOR_RELAYED_ADDRESS => Self::XorRelayedAddress(xored()?),
            kind::DATA => Self::Data(value),
            kind::REQUESTED_ADDRESS_FAMILY => Self::RequestedAddressFamily(first()?),
            kind::ADDITIONAL_ADDRESS_FAMILY => Self::AdditionalAddressFamily(first()?),
            kind::ADDRESS_ERROR_CODE => {
                let (family, reason) = reason(value)?;
                Self::AddressErrorCode { family, reason }
            }
            kind::EVEN_PORT => match value {
                // RFC 8656 §18.6: a single byte; some pad it to a word of their own.
                [flags] | [flags, _, _, _] => Self::EvenPort(flags & 0x80 != 0),
                _ => return None,
            },
            kind::REQUESTED_TRANSPORT => Self::RequestedTransport(first()?),
            kind::DONT_FRAGMENT => value.is_empty().then_some(Self::DontFragment)?,
            kind::RESERVATION_TOKEN => Self::ReservationToken(value.try_into().ok()?),
            kind::CONNECTION_ID => Self::ConnectionId(word()?),
            kind::ICMP => match *value {
                [_, _, kind, code, a, b, c, d] => Self::Icmp {
                    kind,
                    code,
                    data: [a, b, c, d],
                },
                _ => return None,
            },
            kind::PRIORITY => Self::Priority(word()?),
            kind::USE_CANDIDATE => value.is_empty().then_some(Self::UseCandidate)?,
            kind::ICE_CONTROLLED => Self::IceControlled(long()?),
            kind::ICE_CONTROLLING => Self::IceControlling(long()?),
            kind::CHANGE_REQUEST => {
                let flags = word()?;
                Self::ChangeRequest {
                    ip: flags & 4 != 0,
                    port: flags & 2 != 0,
                }
            }
            kind::PADDING => Self::Padding(u16::try_from(value.len()).ok()?),
            kind::RESPONSE_PORT => Self::ResponsePort(upper()?),
            kind::RESPONSE_ORIGIN => Self::ResponseOrigin(address()?),
            kind::OTHER_ADDRESS => Self::OtherAddress(address()?),
            kind::RELAY_LOAD => Self::RelayLoad(upper()?),
            kind => Self::Other { kind, value },
        })
    }

    /// Its number.
    pub fn kind(&self) -> u16 {
        match self {
            Self::MappedAddress(_) => kind::MAPPED_ADDRESS,
            Self::XorMappedAddress(_) => kind::XOR_MAPPED_ADDRESS,
            Self::Username(_) => kind::USERNAME,
            Self::UserHash(_) => kind::USERHASH,
            Self::Realm(_) => kind::REALM,
            Self::Nonce(_) => kind::NONCE,
            Self::ErrorCode(_) => kind::ERROR_CODE,
            Self::UnknownAttributes(_) => kind::UNKNOWN_ATTRIBUTES,
            Self::PasswordAlgorithms(_) => kind::PASSWORD_ALGORITHMS,
            Self::PasswordAlgorithm(_) => kind::PASSWORD_ALGORITHM,
            Self::Software(_) => kind::SOFTWARE,
            Self::AlternateServer(_) => kind::ALTERNATE_SERVER,
            Self::AlternateDomain(_) => kind::ALTERNATE_DOMAIN,
            Self::ChannelNumber(_) => kind::CHANNEL_NUMBER,
            Self::Lifetime(_) => kind::LIFETIME,
            Self::XorPeerAddress(_) => kind::XOR_PEER_ADDRESS,
            Self::XorRelayedAddress(_) => kind::XOR_RELAYED_ADDRESS,
            Self::Data(_) => kind::DATA,
            Self::RequestedAddressFamily(_) => kind::REQUESTED_ADDRESS_FAMILY,
            Self::AdditionalAddressFamily(_) => kind::ADDITIONAL_ADDRESS_FAMILY,
            Self::AddressErrorCode { .. } => kind::ADDRESS_ERROR_CODE,
            Self::EvenPort(_) => kind::EVEN_PORT,
            Self::RequestedTransport(_) => kind::REQUESTED_TRANSPORT,
            Self::DontFragment => kind::DONT_FRAGMENT,
            Self::ReservationToken(_) => kind::RESERVATION_TOKEN,
            Self::ConnectionId(_) => kind::CONNECTION_ID,
            Self::Icmp { .. } => kind::ICMP,
            Self::Priority(_) => kind::PRIORITY,
            Self::UseCandidate => kind::USE_CANDIDATE,
            Self::IceControlled(_) => kind::ICE_CONTROLLED,
            Self::IceControlling(_) => kind::ICE_CONTROLLING,
            Self::ChangeRequest { .. } => kind::CHANGE_REQUEST,
            Self::Padding(_) => kind::PADDING,
            Self::ResponsePort(_) => kind::RESPONSE_PORT,
            Self::ResponseOrigin(_) => kind::RESPONSE_ORIGIN,
            Self::OtherAddress(_) => kind::OTHER_ADDRESS,
            Self::RelayLoad(_) => kind::RELAY_LOAD,
            Self::Other { kind, .. } => *kind,
        }
    }

    /// Appends the value.
    pub(super) fn encode(&self, id: &TransactionId, out: &mut Vec<u8>) {
        let mut address = |(value, len): ([u8; 20], usize)| {
            out.extend_from_slice(value.get(..len).unwrap_or_default());
        };
        match *self {
            Self::MappedAddress(a)
            | Self::AlternateServer(a)
            | Self::ResponseOrigin(a)
            | Self::OtherAddress(a) => address(address_value(a)),
            Self::XorMappedAddress(a) | Self::XorPeerAddress(a) | Self::XorRelayedAddress(a) => {
                address(xor_address_value(a, id));
            }
            Self::Username(value)
            | Self::Realm(value)
            | Self::Nonce(value)
            | Self::UnknownAttributes(value)
            | Self::PasswordAlgorithms(value)
            | Self::Software(value)
            | Self::AlternateDomain(value)
            | Self::Data(value)
            | Self::Other { value, .. } => out.extend_from_slice(value),
            Self::UserHash(value) => out.extend_from_slice(&value),
            Self::ReservationToken(value) => out.extend_from_slice(&value),
            Self::ErrorCode(reason) => put_reason(0, reason, out),
            Self::AddressErrorCode { family, reason } => put_reason(family, reason, out),
            Self::PasswordAlgorithm(n)
            | Self::ChannelNumber(n)
            | Self::ResponsePort(n)
            | Self::RelayLoad(n) => {
                out.extend_from_slice(&n.to_be_bytes());
                out.extend_from_slice(&[0, 0]);
            }
            Self::Lifetime(n) | Self::ConnectionId(n) | Self::Priority(n) => {
                out.extend_from_slice(&n.to_be_bytes());
            }
            Self::RequestedAddressFamily(n)
            | Self::AdditionalAddressFamily(n)
            | Self::RequestedTransport(n) => out.extend_from_slice(&[n, 0, 0, 0]),
            Self::EvenPort(keep) => out.push(u8::from(keep) << 7),
            Self::DontFragment | Self::UseCandidate => {}
            Self::Icmp { kind, code, data } => {
                out.extend_from_slice(&[0, 0, kind, code]);
                out.extend_from_slice(&data);
            }
            Self::IceControlled(n) | Self::IceControlling(n) => {
                out.extend_from_slice(&n.to_be_bytes());
            }
            Self::ChangeRequest { ip, port } => {
                out.extend_from_slice(&[0, 0, 0, u8::from(ip) << 2 | u8::from(port) << 1]);
            }
            Self::Padding(len) => out.resize(out.len() + usize::from(len), 0),
        }
    }
}

fn put_reason(first: u8, reason: Reason<'_>, out: &mut Vec<u8>) {
    let code = reason.code.clamp(300, 699);
    out.extend_from_slice(&[first, 0, (code / 100) as u8, (code % 100) as u8]);
    out.extend_from_slice(reason.phrase);
}
