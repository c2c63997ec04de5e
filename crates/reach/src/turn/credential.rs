//! Who may use a relay: users with passwords, and credentials that expire by themselves.
//!
//! The latter are those of "A REST API for access to TURN services" (draft-uberti-behave-turn-rest):
//! the name is `EXPIRY:USER` with the expiry in seconds since 1970, the password is the name's
//! HMAC-SHA1 under a secret that whoever gives out credentials shares with the relay. Nothing is
//! kept for them, and coturn (`use-auth-secret`) takes the same.

use crate::stun::{Algorithm, Key, user_hash};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use smallvec::SmallVec;
use std::collections::BTreeMap;

fn password(secret: &[u8], name: &[u8]) -> Vec<u8> {
    // HMAC takes keys of any length.
    let Ok(mut mac) = <Hmac<Sha1> as KeyInit>::new_from_slice(secret) else {
        return Vec::new();
    };
    mac.update(name);
    STANDARD.encode(mac.finalize().into_bytes()).into_bytes()
}

/// A name and its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// USERNAME.
    pub name: String,
    /// Its password.
    pub password: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({})", self.name)
    }
}

impl Credential {
    /// A credential for `user` until `expires`, in seconds since 1970.
    pub fn short_lived(secret: &[u8], user: &str, expires: u64) -> Self {
        let name = format!("{expires}:{user}");
        let password = password(secret, name.as_bytes());
        Self {
            password: String::from_utf8_lossy(&password).into_owned(),
            name,
        }
    }
}

/// Whom a relay knows.
#[derive(Clone, Default)]
pub struct Credentials {
    /// What short-lived credentials are made with. Several, so that a secret can be replaced while
    /// credentials made with the old one still hold.
    pub secrets: Vec<Vec<u8>>,
    /// Names and passwords that hold for ever.
    pub users: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.users.keys().map(|n| String::from_utf8_lossy(n));
        f.debug_struct("Credentials")
            .field("secrets", &self.secrets.len())
            .field("users", &names.collect::<Vec<_>>())
            .finish()
    }
}

/// The two parts of a short-lived name, if it is one.
fn parts(name: &[u8]) -> Option<(u64, &[u8])> {
    let digits = name.iter().take_while(|b| b.is_ascii_digit()).count();
    let expires = std::str::from_utf8(name.get(..digits)?).ok()?;
    let expires = expires.parse().ok()?;
    match name.get(digits..)? {
        [] => Some((expires, b"")),
        [b':', user @ ..] => Some((expires, user)),
        _ => None,
    }
}

impl Credentials {
    /// Whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.users.is_empty()
    }

    /// The keys that a request of `name` may be made with; none if nobody is called so, or if the
    /// name has expired at `unix`, seconds since 1970.
    pub(super) fn keys(
        &self,
        unix: u64,
        name: &[u8],
        realm: &[u8],
        algorithm: Algorithm,
    ) -> SmallVec<[Key; 2]> {
        let key = |password: &[u8]| Key::long_term(algorithm, name, realm, password);
        if let Some(password) = self.users.get(name) {
            return std::iter::once(key(password)).collect();
        }
        if parts(name).is_none_or(|(expires, _)| expires <= unix) {
            return SmallVec::new();
        }
        let secrets = self.secrets.iter();
        secrets.map(|s| key(&password(s, name))).collect()
    }

    /// Who is behind a USERHASH. Only users with passwords are found by it: short-lived names are
    /// not known beforehand.
    pub(super) fn by_hash(&self, hash: &[u8; 32], realm: &[u8]) -> Option<&[u8]> {
        let mut names = self.users.keys().map(Vec::as_slice);
        names.find(|name| user_hash(name, realm) == *hash)
    }

    /// The part of a name that quotas are counted by: all credentials of one user together.
    pub(super) fn account<'n>(&self, name: &'n [u8]) -> &'n [u8] {
        if self.users.contains_key(name) {
            return name;
        }
        match parts(name) {
            Some((_, user)) if !user.is_empty() => user,
            _ => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lived_credentials_are_those_of_other_programs() {
        let ours = Credential::short_lived(b"north", "alice", 1_700_000_000);
        assert_eq!(ours.name, "1700000000:alice");
        // echo -n 1700000000:alice | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(ours.password, "Cd/49soE35ICqcJF/bCTn8Z4OyE=");
    }

    #[test]
    fn names_expire_and_secrets_are_replaced() {
        let known = Credentials {
            secrets: vec![b"new".to_vec(), b"old".to_vec()],
            users: [(b"bob".to_vec(), b"pw".to_vec())].into(),
        };
        let keys = |unix, name: &[u8]| known.keys(unix, name, b"r", Algorithm::Md5);
        assert_eq!(keys(99, b"100:alice").len(), 2);
        assert_eq!(keys(100, b"100:alice").len(), 0);
        assert_eq!(keys(99, b"alice").len(), 0);
        assert_eq!(keys(99, b"99999999999999999999999:alice").len(), 0);
        assert_eq!(keys(99, b"100alice").len(), 0);
        assert_eq!(keys(u64::MAX, b"bob").len(), 1);
        assert_eq!(known.account(b"100:alice"), b"alice");
        assert_eq!(known.account(b"bob"), b"bob");
        assert_eq!(known.account(b"100"), b"100");
        assert_eq!(
            known.by_hash(&user_hash(b"bob", b"r"), b"r"),
            Some(&b"bob"[..])
        );
        assert_eq!(known.by_hash(&[0; 32], b"r"), None);
    }
}
