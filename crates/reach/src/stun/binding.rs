//! Binding: the question what address one has, and its answer (RFC 8489 §3).

use super::attribute::{Attribute, Reason, kind};
use super::build::Builder;
use super::message::{Message, TransactionId};
use super::method::{Class, Method};
use std::net::SocketAddr;

/// What a Binding request may hold besides what may be ignored. Integrity is not asked for, ICE's
/// checks are for an agent and not for a server; both are answered like any other.
const KNOWN: &[u16] = &[
    kind::USERNAME,
    kind::MESSAGE_INTEGRITY,
    kind::REALM,
    kind::NONCE,
    kind::PRIORITY,
    kind::USE_CANDIDATE,
];

/// Appends a Binding request.
pub fn request(id: TransactionId, out: &mut Vec<u8>) {
    Builder::new(out, Class::Request, Method::BINDING, id).fingerprint();
}

/// Appends a Binding request that also asks a relay how busy it is.
pub fn request_load(id: TransactionId, out: &mut Vec<u8>) {
    Builder::new(out, Class::Request, Method::BINDING, id)
        .put(&Attribute::RelayLoad(0))
        .fingerprint();
}

/// Appends the answer of a server to a Binding request that came from `from`. The answer holds no
/// more than it must: it is at most 24 bytes longer than a request, so that nobody gains by asking
/// in another's name. Gives whether there is an answer.
pub fn answer(request: &Message<'_>, from: SocketAddr, out: &mut Vec<u8>) -> bool {
    answer_of(request, from, None, out)
}

/// The same of a relay that is so busy, in thousandths, which it tells who asks.
pub fn answer_of(
    request: &Message<'_>,
    from: SocketAddr,
    load: Option<u16>,
    out: &mut Vec<u8>,
) -> bool {
    if request.class() != Class::Request || request.method() != Method::BINDING {
        return false;
    }
    let unknown = request.unknown(KNOWN);
    if !unknown.is_empty() {
        refuse_unknown(request, &unknown, out);
        return true;
    }
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    let mut builder = Builder::new(out, Class::Success, Method::BINDING, request.id());
    builder.put(&Attribute::XorMappedAddress(from));
    // As many bytes as asked for it.
    if let (Some(load), Some(Ok(Attribute::RelayLoad(_)))) = (load, request.get(kind::RELAY_LOAD)) {
        builder.put(&Attribute::RelayLoad(load));
    }
    if request.has_fingerprint() {
        builder.fingerprint();
    }
    true
}

/// Appends the refusal of a request with attributes that are not understood (420).
pub(crate) fn refuse_unknown(request: &Message<'_>, unknown: &[u16], out: &mut Vec<u8>) {
    // No longer than the request that named them.
    let kinds: Vec<u8> = unknown.iter().flat_map(|k| k.to_be_bytes()).collect();
    let mut builder = Builder::new(out, Class::Error, request.method(), request.id());
    builder
        .put(&Attribute::ErrorCode(Reason {
            code: 420,
            phrase: b"",
        }))
        .put(&Attribute::UnknownAttributes(&kinds));
    if request.has_fingerprint() {
        builder.fingerprint();
    }
}

/// The address that a Binding response tells, if it is one and tells any.
pub fn mapped_address(response: &Message<'_>) -> Option<SocketAddr> {
    if response.class() != Class::Success || response.method() != Method::BINDING {
        return None;
    }
    // Servers older than RFC 5389 know only the plain one.
    for kind in [kind::XOR_MAPPED_ADDRESS, kind::MAPPED_ADDRESS] {
        if let Some(Ok(Attribute::XorMappedAddress(a) | Attribute::MappedAddress(a))) =
            response.get(kind)
        {
            return Some(a);
        }
    }
    None
}

/// How busy the relay that answers is, in thousandths, if it says so.
pub fn load(response: &Message<'_>) -> Option<u16> {
    match response.get(kind::RELAY_LOAD) {
        Some(Ok(Attribute::RelayLoad(load))) => Some(load.min(1000)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TransactionId = TransactionId([5; 12]);

    #[test]
    fn the_asker_learns_its_address_and_no_more_than_that_is_sent() {
        let mut ask = Vec::new();
        request(ID, &mut ask);
        for from in ["192.0.2.7:5000", "[2001:db8::1]:80", "[::ffff:192.0.2.7]:1"] {
            let from: SocketAddr = from.parse().unwrap();
            let mut said = Vec::new();
            assert!(answer(&Message::decode(&ask).unwrap(), from, &mut said));
            let response = Message::decode(&said).unwrap();
            let mapped = mapped_address(&response).unwrap();
            assert_eq!(mapped.ip(), from.ip().to_canonical());
            assert_eq!((mapped.port(), response.id()), (from.port(), ID));
            assert!(said.len() <= ask.len() + 24);
            // An answer is never answered.
            assert!(!answer(&response, from, &mut Vec::new()));
        }
    }

    #[test]
    fn a_relay_tells_its_load_to_who_asks_and_answers_grow_no_more() {
        let from = "[2001:db8::1]:80".parse().unwrap();
        let (mut ask, mut plain) = (Vec::new(), Vec::new());
        request_load(ID, &mut ask);
        request(ID, &mut plain);
        for (ask, told) in [(&ask, Some(700)), (&plain, None)] {
            let mut said = Vec::new();
            let question = Message::decode(ask).unwrap();
            assert!(answer_of(&question, from, Some(700), &mut said));
            assert_eq!(load(&Message::decode(&said).unwrap()), told);
            assert!(said.len() <= ask.len() + 24);
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let mut ask = Vec::new();
        Builder::new(&mut ask, Class::Request, Method::BINDING, ID)
            .put(&Attribute::ChangeRequest {
                ip: true,
                port: true,
            })
            .put(&Attribute::Padding(1000));
        let mut said = Vec::new();
        let from = "192.0.2.7:5000".parse().unwrap();
        assert!(answer(&Message::decode(&ask).unwrap(), from, &mut said));
        let response = Message::decode(&said).unwrap();
        assert_eq!(response.class(), Class::Error);
        assert_eq!(
            response.get(kind::UNKNOWN_ATTRIBUTES),
            Some(Ok(Attribute::UnknownAttributes(&[0, 3, 0, 0x26])))
        );
        assert!(said.len() < ask.len());
    }
}
