//! Write tokens (BEP 5): who stores here must have received at the address it claims.

use sha1::{Digest, Sha1};
use shoal_base::{Rng, Time};
use std::net::IpAddr;
use std::time::Duration;

/// How often the secret changes; a token is good for one to two periods (BEP 5: up to ten minutes).
const PERIOD: Duration = Duration::from_secs(300);

/// Bytes of a token.
pub(super) const TOKEN: usize = 8;

/// Makes and checks tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    secrets: [[u8; 16]; 2],
    changed: Time,
}

impl Tokens {
    /// With fresh secrets.
    pub(super) fn new(now: Time, rng: &mut Rng) -> Self {
        let mut secrets = [[0; 16]; 2];
        secrets.iter_mut().for_each(|s| rng.fill(s));
        Self {
            secrets,
            changed: now,
        }
    }

    fn turn(&mut self, now: Time, rng: &mut Rng) {
        let age = now.since(self.changed);
        if age >= PERIOD {
            self.secrets[1] = self.secrets[0];
            rng.fill(&mut self.secrets[0]);
            if age >= PERIOD * 2 {
                rng.fill(&mut self.secrets[1]);
            }
            self.changed = now;
        }
    }

    /// The token for `ip` at `now`.
    pub(super) fn issue(&mut self, now: Time, ip: IpAddr, rng: &mut Rng) -> [u8; TOKEN] {
        self.turn(now, rng);
        token(&self.secrets[0], ip)
    }

    /// Whether `given` was issued to `ip` within the last ten minutes.
    pub(super) fn check(&mut self, now: Time, ip: IpAddr, given: &[u8], rng: &mut Rng) -> bool {
        self.turn(now, rng);
        self.secrets.iter().any(|s| token(s, ip) == given)
    }
}

fn token(secret: &[u8; 16], ip: IpAddr) -> [u8; TOKEN] {
    let mut hash = Sha1::new().chain_update(secret);
    match ip {
        IpAddr::V4(ip) => hash.update(ip.octets()),
        IpAddr::V6(ip) => hash.update(ip.octets()),
    }
    let hash: [u8; 20] = hash.finalize().into();
    let mut out = [0; TOKEN];
    out.copy_from_slice(&hash[..TOKEN]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_address_and_about_ten_minutes() {
        let mut rng = Rng::from_seed(1);
        let ip: IpAddr = "1.2.3.4".parse().unwrap();
        let mut tokens = Tokens::new(Time::ZERO, &mut rng);
        let token = tokens.issue(Time::from_secs(299), ip, &mut rng);
        assert!(tokens.check(Time::from_secs(299), ip, &token, &mut rng));
        assert!(!tokens.check(
            Time::from_secs(299),
            "1.2.3.5".parse().unwrap(),
            &token,
            &mut rng
        ));
        assert!(tokens.check(Time::from_secs(301), ip, &token, &mut rng));
        assert!(tokens.check(Time::from_secs(600), ip, &token, &mut rng));
        assert!(!tokens.check(Time::from_secs(601), ip, &token, &mut rng));
        assert!(!tokens.check(Time::from_secs(601), ip, b"", &mut rng));
        // Nothing survives a long sleep.
        let token = tokens.issue(Time::from_secs(700), ip, &mut rng);
        assert!(!tokens.check(Time::from_secs(7000), ip, &token, &mut rng));
    }
}
