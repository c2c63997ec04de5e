//! A client's side of long-term credentials (RFC 8489 §9.2.5).

use crate::stun::{Algorithm, Attribute, Builder, Key, Message, kind, user_hash};
use crate::turn::credential::Credential;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Nonces that may be refused for one request, one after another.
const MOST_STALE: u32 = 3;
/// Bytes of PASSWORD-ALGORITHMS that are repeated at most.
const MOST_ALGORITHMS: usize = 128;

/// What the server said about how to prove who we are.
#[derive(Debug)]
struct Challenge {
    realm: Vec<u8>,
    nonce: Vec<u8>,
    /// PASSWORD-ALGORITHMS, to be repeated, and the one that is taken.
    algorithms: Option<(Vec<u8>, Algorithm)>,
    hashed: bool,
    key: Key,
}

pub(super) struct Login {
    name: Vec<u8>,
    password: Vec<u8>,
    challenge: Option<Challenge>,
}

/// What is to be done about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Again,
    GiveUp,
}

/// What a nonce tells of its server: password algorithms, hashed names.
fn features(nonce: &[u8]) -> (bool, bool) {
    let told = nonce.strip_prefix(b"obMatJos2").and_then(|n| n.get(..4));
    match told.map(|told| STANDARD.decode(told)).and_then(Result::ok) {
        Some(told) => match told.as_slice() {
            [_, _, bits] => (bits & 1 != 0, bits & 2 != 0),
            _ => (false, false),
        },
        None => (false, false),
    }
}

/// The first algorithm of a list that we know.
fn choose(list: &[u8]) -> Option<Algorithm> {
    let mut rest = list;
    while let [n0, n1, l0, l1, after @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*l0, *l1]));
        if let Some(known) = Algorithm::from_number(u16::from_be_bytes([*n0, *n1])) {
            return Some(known);
        }
        rest = after.get(len.next_multiple_of(4)..)?;
    }
    None
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({})", String::from_utf8_lossy(&self.name))
    }
}

impl Login {
    pub(super) fn new(credential: &Credential) -> Self {
        Self {
            name: credential.name.clone().into_bytes(),
            password: credential.password.clone().into_bytes(),
            challenge: None,
        }
    }

    /// Adds what proves who we are, if the server has said how.
    pub(super) fn sign(&self, builder: &mut Builder<'_>) {
        let Some(c) = &self.challenge else {
            return;
        };
        if c.hashed {
            builder.put(&Attribute::UserHash(user_hash(&self.name, &c.realm)));
        } else {
            builder.put(&Attribute::Username(&self.name));
        }
        builder
            .put(&Attribute::Realm(&c.realm))
            .put(&Attribute::Nonce(&c.nonce));
        if let Some((list, chosen)) = &c.algorithms {
            builder
                .put(&Attribute::PasswordAlgorithms(list))
                .put(&Attribute::PasswordAlgorithm(chosen.number()))
                .integrity_sha256(&c.key);
        } else {
            builder.integrity(&c.key);
        }
    }

    /// Whether a success is the server's.
    pub(super) fn is_believed(&self, message: &Message<'_>) -> bool {
        match &self.challenge {
            Some(c) => message.is_made_with(&c.key),
            // A server that asks for no credentials.
            None => true,
        }
    }

    /// Learns from a refusal of a request for which `stale` nonces were refused before.
    pub(super) fn on_error(&mut self, code: u16, message: &Message<'_>, stale: u32) -> Next {
        // A 401 to credentials of its own realm says that they are wrong.
        let refused = code == 401 && self.challenge.is_some();
        if !matches!(code, 401 | 438) || refused || stale >= MOST_STALE {
            return Next::GiveUp;
        }
        let realm = message.get(kind::REALM);
        let nonce = message.get(kind::NONCE);
        let (Some(Ok(Attribute::Realm(realm))), Some(Ok(Attribute::Nonce(nonce)))) = (realm, nonce)
        else {
            return Next::GiveUp;
        };
        let (has_algorithms, hashed) = features(nonce);
        let list = message.value(kind::PASSWORD_ALGORITHMS);
        let list = list.filter(|l| l.len() <= MOST_ALGORITHMS);
        let algorithms = match list.filter(|_| has_algorithms) {
            Some(list) => match choose(list) {
                Some(chosen) => Some((list.to_vec(), chosen)),
                None => return Next::GiveUp,
            },
            // The nonce tells of a list that somebody has taken out.
            None if has_algorithms => return Next::GiveUp,
            None => None,
        };
        let algorithm = algorithms.as_ref().map_or(Algorithm::Md5, |(_, a)| *a);
        self.challenge = Some(Challenge {
            key: Key::long_term(algorithm, &self.name, realm, &self.password),
            realm: realm.to_vec(),
            nonce: nonce.to_vec(),
            algorithms,
            hashed,
        });
        Next::Again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_tell_features_and_the_first_known_algorithm_is_taken() {
        assert_eq!(features(b"obMatJos2AAABxyz"), (true, false));
        assert_eq!(features(b"obMatJos2AAADxyz"), (true, true));
        for plain in [
            &b"obMatJos2"[..],
            b"obMatJos2A=AB",
            b"f//499k954d6OL34oL9FSTvy64sA",
            b"",
        ] {
            assert_eq!(features(plain), (false, false));
        }
        assert_eq!(
            choose(&[0, 9, 0, 3, 1, 2, 3, 0, 0, 2, 0, 0]),
            Some(Algorithm::Sha256)
        );
        assert_eq!(choose(&[0, 1, 0, 0, 0, 2, 0, 0]), Some(Algorithm::Md5));
        assert_eq!(choose(&[0, 9, 255, 255]), None);
        assert_eq!(choose(&[]), None);
    }
}
