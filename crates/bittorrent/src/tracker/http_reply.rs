//! HTTP tracker replies (BEP 3, 7, 23, 24, 31, 48): bencoded, read by the client and written by
//! the server.

use super::{AnnounceReply, ScrapeStats, compact};
use shoal_base::InfoHash;
use shoal_base::bencode::{BencodeError, Dict, Encoder, decode};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Peers of one reply that are read; further ones are left out.
const MAX_PEERS: usize = 2_000;
/// Characters of a tracker's words that are kept.
const MAX_WORDS: usize = 300;

/// Why an HTTP reply gives no peers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The tracker refused.
    #[error("tracker says: {reason}")]
    Failure {
        /// Its words, cut and without control characters.
        reason: String,
        /// When it says to come back (BEP 31); `Duration::MAX` for never.
        retry_in: Option<Duration>,
    },
    /// Not bencode.
    #[error("malformed tracker reply: {0}")]
    Bencode(#[from] BencodeError),
    /// Bencode, but not a dictionary.
    #[error("tracker reply is not a dictionary")]
    NotADict,
    /// A field that is missing or of the wrong kind.
    #[error("tracker reply with a missing or wrong {0:?}")]
    Field(&'static str),
}

/// What a tracker says to the user, made safe to print.
pub fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_WORDS)
        .collect()
}

/// Reads the reply to an announce.
pub fn decode_announce(body: &[u8]) -> Result<AnnounceReply, ReplyError> {
    let value = decode(body)?;
    let dict = value.as_dict().ok_or(ReplyError::NotADict)?;
    check_failure(dict)?;
    let seconds = |key: &str| {
        dict.int(key)
            .map(|i| i.clamp(0, i64::from(u32::MAX)) as u32)
    };
    let mut peers = Vec::new();
    if let Some(bytes) = dict.bytes("peers") {
        peers.extend(compact::decode_v4(bytes).take(MAX_PEERS));
    } else if let Some(list) = dict.list("peers") {
        let listed = list.iter().filter_map(|p| p.as_dict().and_then(peer));
        peers.extend(listed.take(MAX_PEERS));
    } else if dict.get("peers").is_some() {
        return Err(ReplyError::Field("peers"));
    }
    if let Some(bytes) = dict.bytes("peers6") {
        peers.extend(compact::decode_v6(bytes).take(MAX_PEERS));
    }
    peers.retain(|p| p.port() != 0 && !p.ip().is_unspecified());
    Ok(AnnounceReply {
        interval: seconds("interval").ok_or(ReplyError::Field("interval"))?,
        min_interval: seconds("min interval"),
        seeders: seconds("complete"),
        leechers: seconds("incomplete"),
        peers,
        warning: dict.bytes("warning message").map(words),
        tracker_id: dict
            .bytes("tracker id")
            .filter(|id| id.len() <= 256)
            .map(<[u8]>::to_vec),
        external_ip: dict.bytes("external ip").and_then(address),
    })
}

fn check_failure(dict: &Dict<'_>) -> Result<(), ReplyError> {
    let Some(reason) = dict.bytes("failure reason") else {
        return Ok(());
    };
    // BEP 31: minutes, or "never".
    let retry_in = match (dict.int("retry in"), dict.bytes("retry in")) {
        (Some(minutes), _) => u64::try_from(minutes)
            .ok()
            .map(|m| Duration::from_secs(m.saturating_mul(60))),
        (_, Some(b"never")) => Some(Duration::MAX),
        (_, Some(text)) => std::str::from_utf8(text)
            .ok()
            .and_then(|t| t.parse::<u32>().ok())
            .map(|m| Duration::from_secs(u64::from(m) * 60)),
        _ => None,
    };
    Err(ReplyError::Failure {
        reason: words(reason),
        retry_in,
    })
}

fn peer(dict: &Dict<'_>) -> Option<SocketAddr> {
    // A host name is allowed by BEP 3 and sent by nobody; we do not look it up.
    let ip: IpAddr = dict.str("ip")?.parse().ok()?;
    let port = u16::try_from(dict.int("port")?).ok()?;
    Some(SocketAddr::new(ip, port))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|b| Ipv4Addr::from(b).into());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|b| Ipv6Addr::from(b).into()))
        .ok()
}

/// Reads the reply to a scrape: every torrent it names, in its order.
pub fn decode_scrape(body: &[u8]) -> Result<Vec<(InfoHash, ScrapeStats)>, ReplyError> {
    let value = decode(body)?;
    let dict = value.as_dict().ok_or(ReplyError::NotADict)?;
    check_failure(dict)?;
    let files = dict.dict("files").ok_or(ReplyError::Field("files"))?;
    let entry = |(hash, stats): (&[u8], &shoal_base::bencode::Value<'_>)| {
        let hash = InfoHash(hash.try_into().ok()?);
        let stats = stats.as_dict()?;
        let count = |key: &str| u32::try_from(stats.int(key).unwrap_or(0)).unwrap_or(0);
        Some((
            hash,
            ScrapeStats {
                seeders: count("complete"),
                completed: count("downloaded"),
                leechers: count("incomplete"),
            },
        ))
    };
    Ok(files.iter().filter_map(entry).collect())
}

/// What the server puts into a reply to an announce.
#[derive(Debug, Clone, Copy)]
pub struct AnnounceBody<'a> {
    /// Seconds to the next regular announce.
    pub interval: u32,
    /// Seconds before any other.
    pub min_interval: u32,
    /// Peers that have everything.
    pub seeders: u32,
    /// Peers that do not.
    pub leechers: u32,
    /// How often `completed` was announced.
    pub completed: u32,
    /// Compact v4 peers.
    pub peers: &'a [u8],
    /// Compact v6 peers.
    pub peers6: &'a [u8],
    /// Whether to send the peers compact, or as a list of dictionaries without peer ids.
    pub compact: bool,
    /// The asking peer's address.
    pub external_ip: IpAddr,
}

/// Appends the reply to an announce, keys in canonical order.
pub fn encode_announce(body: &AnnounceBody<'_>, out: &mut Vec<u8>) {
    out.push(b'd');
    pair(out, "complete", body.seeders);
    pair(out, "downloaded", body.completed);
    string(out, b"external ip");
    match body.external_ip {
        IpAddr::V4(ip) => string(out, &ip.octets()),
        IpAddr::V6(ip) => string(out, &ip.octets()),
    }
    pair(out, "incomplete", body.leechers);
    pair(out, "interval", body.interval);
    pair(out, "min interval", body.min_interval);
    string(out, b"peers");
    if body.compact {
        string(out, body.peers);
        if !body.peers6.is_empty() {
            string(out, b"peers6");
            string(out, body.peers6);
        }
    } else {
        out.push(b'l');
        for peer in compact::decode_v4(body.peers).chain(compact::decode_v6(body.peers6)) {
            out.push(b'd');
            string(out, b"ip");
            string(out, peer.ip().to_string().as_bytes());
            pair(out, "port", u32::from(peer.port()));
            out.push(b'e');
        }
        out.push(b'e');
    }
    out.push(b'e');
}

/// Appends a refusal.
pub fn encode_failure(reason: &str, out: &mut Vec<u8>) {
    out.push(b'd');
    string(out, b"failure reason");
    string(out, reason.as_bytes());
    out.push(b'e');
}

/// The reply to a scrape; `interval` is the least number of seconds between scrapes.
pub fn encode_scrape(files: &[(InfoHash, ScrapeStats)], interval: u32) -> Vec<u8> {
    let mut files = files.to_vec();
    files.sort_unstable_by_key(|(hash, _)| *hash);
    files.dedup_by_key(|(hash, _)| *hash);
    let mut e = Encoder::new();
    e.dict(|d| {
        d.key("files").dict(|d| {
            for (hash, stats) in &files {
                d.key(hash.as_bytes()).dict(|d| {
                    d.key("complete").int(i64::from(stats.seeders));
                    d.key("downloaded").int(i64::from(stats.completed));
                    d.key("incomplete").int(i64::from(stats.leechers));
                });
            }
        });
        d.key("flags").dict(|d| {
            d.key("min_request_interval").int(i64::from(interval));
        });
    });
    e.into_bytes()
}

// Written by hand rather than by the encoder: a busy tracker writes these into its send buffer
// without an allocation.
fn decimal(out: &mut Vec<u8>, mut number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (number % 10) as u8;
        number /= 10;
        at -= 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    decimal(out, bytes.len());
    out.push(b':');
    out.extend_from_slice(bytes);
}

fn pair(out: &mut Vec<u8>, key: &str, number: u32) {
    string(out, key.as_bytes());
    out.push(b'i');
    decimal(out, number as usize);
    out.push(b'e');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn announce_replies_round_trip(n in any::<[u32; 5]>(), compact: bool, ip: IpAddr,
            v4 in prop::collection::vec(any::<([u8; 4], u16)>(), 0..4), v6 in prop::collection::vec(any::<([u8; 16], u16)>(), 0..4)) {
            let known = |p: &SocketAddr| p.port() != 0 && !p.ip().is_unspecified();
            let v4: Vec<SocketAddr> = v4.into_iter().map(SocketAddr::from).filter(known).collect();
            let v6: Vec<SocketAddr> = v6.into_iter().map(SocketAddr::from).filter(known).collect();
            let (mut peers, mut peers6) = (Vec::new(), Vec::new());
            v4.iter().for_each(|p| compact::push(*p, &mut peers));
            v6.iter().for_each(|p| compact::push(*p, &mut peers6));
            let mut out = Vec::new();
            encode_announce(&AnnounceBody {
                interval: n[0], min_interval: n[1], seeders: n[2], leechers: n[3], completed: n[4],
                peers: &peers, peers6: &peers6, compact, external_ip: ip,
            }, &mut out);
            prop_assert!(decode(&out).is_ok_and(|v| v.as_dict().is_some_and(Dict::is_sorted)));
            let want = AnnounceReply {
                interval: n[0], min_interval: Some(n[1]), seeders: Some(n[2]), leechers: Some(n[3]),
                peers: [v4, v6].concat(), warning: None, tracker_id: None, external_ip: Some(ip),
            };
            prop_assert_eq!(decode_announce(&out), Ok(want));
        }

        #[test]
        fn scrape_replies_round_trip(files in prop::collection::btree_map(any::<[u8; 20]>(), any::<[u32; 3]>(), 0..5)) {
            let files: Vec<_> = files.into_iter().map(|(hash, [seeders, completed, leechers])| {
                (InfoHash(hash), ScrapeStats { seeders, completed, leechers })
            }).collect();
            prop_assert_eq!(decode_scrape(&encode_scrape(&files, 5)), Ok(files));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, peers: Vec<u8>) {
            let _ = decode_announce(&bytes);
            let _ = decode_scrape(&bytes);
            let reply = [format!("d8:intervali1e5:peers{}:", peers.len()).as_bytes(), &peers, b"e"].concat();
            let _ = decode_announce(&reply);
        }
    }

    #[test]
    fn refusals_carry_their_words_and_when_to_come_back() {
        let check = |body: &[u8], reason: &str, retry_in| {
            let reason = reason.to_owned();
            assert_eq!(
                decode_announce(body),
                Err(ReplyError::Failure { reason, retry_in })
            );
        };
        check(b"d14:failure reason4:\x1bnoee", "noe", None);
        check(
            b"d14:failure reason2:no8:retry ini5ee",
            "no",
            Some(Duration::from_secs(300)),
        );
        check(
            b"d14:failure reason2:no8:retry in5:nevere",
            "no",
            Some(Duration::MAX),
        );
        let mut out = Vec::new();
        encode_failure("not here", &mut out);
        check(&out, "not here", None);
    }

    #[test]
    fn wrong_replies_are_named() {
        assert_eq!(decode_announce(b"le"), Err(ReplyError::NotADict));
        assert_eq!(decode_announce(b"de"), Err(ReplyError::Field("interval")));
        assert_eq!(
            decode_announce(b"d8:intervali1e5:peersi1ee"),
            Err(ReplyError::Field("peers"))
        );
        assert!(matches!(
            decode_announce(b"<html>"),
            Err(ReplyError::Bencode(_))
        ));
    }

    #[test]
    fn warnings_and_tracker_ids_are_kept() {
        let reply = decode_announce(
            b"d8:intervali-1e5:peersld2:ip9:127.0.0.14:porti80eed2:ip1:x4:porti1eee10:tracker id2:ab15:warning message4:slowe",
        )
        .expect("a valid reply");
        assert_eq!(reply.interval, 0);
        assert_eq!(reply.peers, [SocketAddr::from(([127, 0, 0, 1], 80))]);
        assert_eq!(reply.tracker_id.as_deref(), Some(b"ab".as_slice()));
        assert_eq!(reply.warning.as_deref(), Some("slow"));
    }
}
