//! Flags of `serve turn`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, ValueHint};
use shoal_node::relay::{CertificateFiles, Prefix};

use super::{listen_addr, rate, seconds};

/// Run a STUN and TURN relay: through it reach each other those whom no other way connects
///
/// Who has the secret makes credentials by himself: the name is EXPIRY:USER, with the expiry in
/// seconds since 1970; the password is base64(HMAC-SHA1(secret, name)). coturn's use-auth-secret
/// takes the same.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal serve turn --secret-file secret              Port 3478, UDP and TCP, both on all addresses
  shoal serve turn --secret-file secret --listen :3478 --listen :443 --listen '[::]:3478'
                                                     More ports, for those behind strict firewalls
  shoal serve turn --secret-file secret --listen :443 --tls-cert fullchain.pem --tls-key privkey.pem
                                                     By TLS with a name that browsers believe
  shoal serve turn --users-file users --allow-private --max-rate-per-user 1M
                                                     For a network of one's own, with passwords")]
pub(crate) struct RelayArgs {
    /// Listen here, for UDP and TCP (may be repeated)
    #[arg(long, value_name = "ADDR", default_value = ":3478", value_parser = listen_addr)]
    pub(crate) listen: Vec<SocketAddr>,
    /// The file whose first line short-lived credentials are made with (may be repeated, while an
    /// old secret is replaced)
    #[arg(long = "secret-file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) secrets: Vec<PathBuf>,
    /// A file of NAME:PASSWORD, one a line
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) users_file: Option<PathBuf>,
    /// The realm that clients are told
    #[arg(long, value_name = "NAME", default_value = "shoal")]
    pub(crate) realm: String,
    /// Relayed addresses are at this address of ours (once for IPv4, once for IPv6) [default: where
    /// we listen, or the one with the way to the Internet]
    #[arg(long = "relay-ip", value_name = "IP")]
    pub(crate) relay_ips: Vec<IpAddr>,
    /// Tell clients this address for the relayed ones: that of a NAT which passes all ports on
    #[arg(long = "external-ip", value_name = "IP")]
    pub(crate) external_ips: Vec<IpAddr>,
    /// Ports of relayed addresses
    #[arg(long, value_name = "LOW-HIGH", default_value = "49152-65535", value_parser = ports)]
    pub(crate) ports: std::ops::RangeInclusive<u16>,
    /// Relay to private networks too
    #[arg(long)]
    pub(crate) allow_private: bool,
    /// Relay to these addresses, whatever they are (may be repeated)
    #[arg(long = "allow-peer", value_name = "IP/LENGTH")]
    pub(crate) allow_peers: Vec<Prefix>,
    /// Never relay to these addresses (may be repeated)
    #[arg(long = "deny-peer", value_name = "IP/LENGTH")]
    pub(crate) deny_peers: Vec<Prefix>,
    /// Allocations at once
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub(crate) max_allocations: usize,
    /// Allocations of one user at once
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) max_allocations_per_user: usize,
    /// Relay no more than this a second, both directions together [default: no limit]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) max_rate: Option<u64>,
    /// Relay no more than this a second for one user [default: no limit]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) max_rate_per_user: Option<u64>,
    #[command(flatten)]
    pub(crate) tls: RelayTlsFlags,
    /// Connections by TCP at once
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub(crate) max_connections: usize,
    /// Send clients there when there are too many allocations
    #[arg(long, value_name = "ADDR", value_parser = listen_addr)]
    pub(crate) alternate: Option<SocketAddr>,
    /// Print a JSON statistics line this often
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) stats_interval: u64,
}

/// By which certificate a relay is known.
#[derive(Debug, Args)]
pub(crate) struct RelayTlsFlags {
    /// Show this certificate (PEM, with those between it and the root) to who begins with TLS; read
    /// again when it changes [default: one made at the start, which browsers refuse]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl RelayTlsFlags {
    /// They, if they are named.
    pub(crate) fn files(&self) -> Option<CertificateFiles> {
        let (chain, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(CertificateFiles { chain, key })
    }
}

/// Reads a range of ports.
fn ports(text: &str) -> Result<std::ops::RangeInclusive<u16>, String> {
    let bad = || "expected two ports such as 49152-65535, the lower first".to_owned();
    let (low, high) = text.split_once('-').ok_or_else(bad)?;
    let low: u16 = low.parse().map_err(|_| bad())?;
    let high: u16 = high.parse().map_err(|_| bad())?;
    if low == 0 || low > high {
        return Err(bad());
    }
    Ok(low..=high)
}

#[cfg(test)]
mod tests {
    use super::ports;

    #[test]
    fn ports_are_a_range() {
        assert_eq!(ports("1000-2000"), Ok(1000..=2000));
        assert_eq!(ports("7-7"), Ok(7..=7));
        for bad in ["", "7", "8-7", "0-9", "1-65536", "a-b"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}
