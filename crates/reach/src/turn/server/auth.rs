//! Long-term credentials (RFC 8489 §9.2) without a memory of who was challenged.

use super::TurnServer;
use crate::stun::{Algorithm, Attribute, Builder, Class, Key, Message, Reason, kind};
use crate::turn::policy::Verdict;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use shoal_base::secret::same;
use shoal_base::{Rng, Time};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How a nonce begins that tells what the server can do (§9.2).
const COOKIE: &[u8] = b"obMatJos2";
/// Three bytes of features in base64: password algorithms (bit 0), and user hashes too (bit 1).
const ALGORITHMS: &[u8] = b"AAAB";
const ALGORITHMS_AND_HASHES: &[u8] = b"AAAD";
/// PASSWORD-ALGORITHMS: SHA-256, then MD5, without parameters.
const OFFERED: &[u8] = &[0, 2, 0, 0, 0, 1, 0, 0];
/// Bytes of a nonce's seconds and of its tag.
const SECONDS: usize = 4;
const TAG: usize = 12;

/// Makes nonces and knows its own.
#[derive(Debug)]
pub(super) struct Nonces {
    key: [u8; 32],
    life: Duration,
}

impl Nonces {
    pub(super) fn new(life: Duration, rng: &mut Rng) -> Self {
        let mut key = [0; 32];
        rng.fill(&mut key);
        Self { key, life }
    }

    fn tag(&self, seconds: [u8; SECONDS], from: SocketAddr) -> [u8; TAG] {
        let mut tag = [0; TAG];
        let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.key) else {
            return tag;
        };
        mac.update(&seconds);
        match from.ip() {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }
        mac.update(&from.port().to_be_bytes());
        tag.copy_from_slice(mac.finalize().into_bytes().get(..TAG).unwrap_or(&[0; TAG]));
        tag
    }

    /// A nonce for who is at `from`.
    fn issue(&self, now: Time, from: SocketAddr, features: &[u8]) -> Vec<u8> {
        let seconds = ((now.as_micros() / 1_000_000) as u32).to_be_bytes();
        let mut nonce = [COOKIE, features].concat();
        let body = [&seconds[..], &self.tag(seconds, from)].concat();
        nonce.extend(URL_SAFE_NO_PAD.encode(body).bytes());
        nonce
    }

    /// Whether a nonce is ours, of who is at `from`, and not too old.
    fn holds(&self, now: Time, from: SocketAddr, nonce: &[u8]) -> bool {
        let body = nonce.get(COOKIE.len() + ALGORITHMS.len()..);
        let Some(Ok(body)) = body.map(|b| URL_SAFE_NO_PAD.decode(b)) else {
            return false;
        };
        let Some((seconds, tag)) = body.split_first_chunk::<SECONDS>() else {
            return false;
        };
        let made = Time::from_secs(u64::from(u32::from_be_bytes(*seconds)));
        same(tag, &self.tag(*seconds, from)) && now.since(made) < self.life
    }
}

/// Who made a request.
#[derive(Debug)]
pub(super) struct Who {
    pub(super) name: Vec<u8>,
    pub(super) algorithm: Algorithm,
    pub(super) key: Key,
    pub(super) style: Style,
}

/// How a response is protected: as its request was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) sha256: bool,
    pub(super) fingerprint: bool,
}

impl Style {
    pub(super) fn of(message: &Message<'_>) -> Self {
        Self {
            sha256: message.has_integrity_sha256(),
            fingerprint: message.has_fingerprint(),
        }
    }

    /// Ends a response.
    pub(super) fn seal(self, key: &Key, builder: &mut Builder<'_>) {
        if self.sha256 {
            builder.integrity_sha256(key);
        } else {
            builder.integrity(key);
        }
        if self.fingerprint {
            builder.fingerprint();
        }
    }
}

/// Why a request is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unbelieved {
    /// Credentials are wanted (401).
    Unauthorized,
    /// The nonce is too old or another's (438).
    Stale,
    /// It is not made as requests are (400).
    Bad,
    /// It is of somebody else than who made the allocation (441).
    Another,
}

impl TurnServer {
    /// Who made a request, by the credentials it carries.
    pub(super) fn who(
        &self,
        now: Time,
        from: SocketAddr,
        message: &Message<'_>,
        allocation: Option<usize>,
    ) -> Result<Who, Unbelieved> {
        if !message.has_integrity() {
            return Err(Unbelieved::Unauthorized);
        }
        let (realm, nonce) = (message.value(kind::REALM), message.value(kind::NONCE));
        let (Some(realm), Some(nonce)) = (realm, nonce) else {
            return Err(Unbelieved::Bad);
        };
        // Before anything dear is computed.
        if !self.nonces.holds(now, from, nonce) {
            return Err(Unbelieved::Stale);
        }
        let ours = self.config.realm.as_bytes();
        if realm != ours {
            return Err(Unbelieved::Unauthorized);
        }
        let name = match (message.get(kind::USERNAME), message.get(kind::USERHASH)) {
            (Some(Ok(Attribute::Username(name))), _) => name,
            (None, Some(Ok(Attribute::UserHash(hash)))) => {
                let name = self.config.credentials.by_hash(&hash, ours);
                name.ok_or(Unbelieved::Unauthorized)?
            }
            _ => return Err(Unbelieved::Bad),
        };
        let algorithm = chosen_algorithm(message)?;
        let style = Style::of(message);
        let believe = |key: Key| Who {
            name: name.to_vec(),
            algorithm,
            key,
            style,
        };
        if let Some(own) = allocation.and_then(|key| self.allocations.get(key)) {
            // RFC 8656 §5: all of an allocation's requests are of the one who made it. His key
            // is known, so that credentials may expire while he uses what he got with them.
            if own.name != name {
                return Err(Unbelieved::Another);
            }
            if own.algorithm == algorithm && message.is_made_with(&own.key) {
                return Ok(believe(own.key.clone()));
            }
        }
        let unix = self.config.unix_at_zero + now.as_micros() / 1_000_000;
        let keys = self.config.credentials.keys(unix, name, ours, algorithm);
        let key = keys.into_iter().find(|key| message.is_made_with(key));
        key.map(believe).ok_or(Unbelieved::Unauthorized)
    }

    /// Appends the answer to a request that is not believed; nothing if its network had too many.
    pub(super) fn challenge(
        &mut self,
        now: Time,
        from: SocketAddr,
        validated: bool,
        message: &Message<'_>,
        why: Unbelieved,
        out: &mut Vec<u8>,
    ) {
        // On a stream the address is no forgery.
        if !validated && !self.challenges.allow(now, from) {
            self.stats.unanswered += 1;
            return;
        }
        let code = match why {
            Unbelieved::Unauthorized => 401,
            Unbelieved::Stale => 438,
            Unbelieved::Bad => 400,
            Unbelieved::Another => 441,
        };
        let mut builder = Builder::new(out, Class::Error, message.method(), message.id());
        // No phrase: what is short serves nobody as an amplifier.
        builder.put(&Attribute::ErrorCode(Reason { code, phrase: b"" }));
        if matches!(why, Unbelieved::Unauthorized | Unbelieved::Stale) {
            self.stats.challenges += 1;
            let credentials = &self.config.credentials;
            let features = if credentials.secrets.is_empty() && !credentials.users.is_empty() {
                ALGORITHMS_AND_HASHES
            } else {
                ALGORITHMS
            };
            builder
                .put(&Attribute::Realm(self.config.realm.as_bytes()))
                .put(&Attribute::Nonce(&self.nonces.issue(now, from, features)))
                .put(&Attribute::PasswordAlgorithms(OFFERED));
        } else {
            self.stats.refused += 1;
        }
        if message.has_fingerprint() {
            builder.fingerprint();
        }
    }

    /// Whether a peer may be sent to: an address of our own only if it is a relayed one.
    pub(super) fn may_send(&self, to: SocketAddr) -> bool {
        match self.config.policy.verdict(to.ip(), &self.own) {
            Verdict::Allowed => true,
            Verdict::RelaysOnly => self.ports.is_relayed(to),
            Verdict::Forbidden => false,
        }
    }
}

/// How the request's key was made (§9.2.4): a client of RFC 5389 says nothing, another repeats what
/// it was offered and says what it took.
fn chosen_algorithm(message: &Message<'_>) -> Result<Algorithm, Unbelieved> {
    let offered = message.value(kind::PASSWORD_ALGORITHMS);
    match (offered, message.get(kind::PASSWORD_ALGORITHM)) {
        (None, None) => Ok(Algorithm::Md5),
        // Somebody on the way who took out the better one is noticed here.
        (Some(OFFERED), Some(Ok(Attribute::PasswordAlgorithm(number)))) => {
            Algorithm::from_number(number).ok_or(Unbelieved::Bad)
        }
        _ => Err(Unbelieved::Bad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_holds_for_its_client_and_its_time() {
        let nonces = Nonces::new(Duration::from_secs(60), &mut Rng::from_seed(1));
        let a: SocketAddr = "192.0.2.1:5".parse().unwrap();
        let b: SocketAddr = "192.0.2.1:6".parse().unwrap();
        let nonce = nonces.issue(Time::from_secs(100), a, ALGORITHMS);
        let holds = |secs, from| nonces.holds(Time::from_secs(secs), from, &nonce);
        assert!(holds(100, a) && holds(159, a));
        assert!(!holds(160, a) && !holds(100, b));
        assert_eq!(nonce.len(), 35);
        for at in 13..nonce.len() {
            let mut other = nonce.clone();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            assert!(!nonces.holds(Time::from_secs(100), a, &other));
        }
        for len in 0..nonce.len() {
            assert!(!nonces.holds(Time::from_secs(100), a, &nonce[..len]));
        }
    }
}
