//! HTTP tracker requests: the target of a GET (BEP 3, 7, 23, 48), read by the server and written
//! by the client. Headers and sockets belong to the driver.

use super::{AnnounceEvent, AnnounceRequest, compact};
use crate::peers::is_overlay;
use shoal_base::{InfoHash, PeerId};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// Torrents in one scrape that are still read; further ones are left out.
pub const MAX_SCRAPE: usize = 128;

/// Why a request target is no announce or scrape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpRequestError {
    /// A path whose last part is neither `announce` nor `scrape`.
    #[error("no such path")]
    UnknownPath,
    /// A `%` without two hexadecimal digits behind it.
    #[error("bad percent escape in {0}")]
    BadEscape(&'static str),
    /// A required parameter is not there.
    #[error("missing {0}")]
    Missing(&'static str),
    /// A parameter that does not have the form it must.
    #[error("invalid {0}")]
    Invalid(&'static str),
}

/// What a client asks by HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpRequest {
    /// Announces a peer.
    Announce {
        /// What is announced.
        announce: AnnounceRequest,
        /// Whether peers are wanted in compact form; true unless `compact=0` was said.
        compact: bool,
    },
    /// Asks for statistics of these torrents; of none if none was named.
    Scrape(Vec<InfoHash>),
}

/// Reads a request target such as `/announce?info_hash=%12…&port=6881&…`. Parts before the last of
/// the path (a passkey) and unknown parameters are ignored; of repeated ones the last counts.
pub fn decode(target: &[u8]) -> Result<HttpRequest, HttpRequestError> {
    let mut halves = target.splitn(2, |b| *b == b'?');
    let path = halves.next().unwrap_or_default();
    let query = halves.next().unwrap_or_default();
    match path.rsplit(|b| *b == b'/').next() {
        Some(b"announce") => decode_announce(query),
        Some(b"scrape") => decode_scrape(query),
        _ => Err(HttpRequestError::UnknownPath),
    }
}

fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|b| *b == b'&').filter_map(|pair| {
        let mut halves = pair.splitn(2, |b| *b == b'=');
        Some((halves.next()?, halves.next()?))
    })
}

fn decode_announce(query: &[u8]) -> Result<HttpRequest, HttpRequestError> {
    use HttpRequestError::{Invalid, Missing};
    let (mut info_hash, mut peer_id, mut port) = (None, None, None);
    let (mut uploaded, mut downloaded, mut left) = (0, 0, u64::MAX);
    let (mut event, mut num_want, mut key, mut ip) = (AnnounceEvent::None, None, 0, None);
    let (mut compact, mut overlay) = (true, None);
    for (name, value) in parameters(query) {
        match name {
            b"info_hash" => info_hash = Some(InfoHash(unescape(value, "info_hash")?)),
            b"peer_id" => peer_id = Some(PeerId(unescape(value, "peer_id")?)),
            b"port" => port = Some(number(value).ok_or(Invalid("port"))?),
            b"uploaded" => uploaded = number(value).ok_or(Invalid("uploaded"))?,
            b"downloaded" => downloaded = number(value).ok_or(Invalid("downloaded"))?,
            b"left" => left = number(value).ok_or(Invalid("left"))?,
            b"event" => {
                event = match value {
                    b"started" => AnnounceEvent::Started,
                    b"completed" => AnnounceEvent::Completed,
                    b"stopped" => AnnounceEvent::Stopped,
                    b"paused" => AnnounceEvent::Paused,
                    b"" | b"empty" | b"none" => AnnounceEvent::None,
                    _ => return Err(Invalid("event")),
                }
            }
            // Some clients send -1 for "as many as you like".
            b"numwant" => num_want = number(value),
            b"key" => key = key_bits(value),
            b"ip" => ip = std::str::from_utf8(value).ok().and_then(|s| s.parse().ok()),
            b"compact" => compact = value != b"0",
            b"overlay" => overlay = overlay_address(value),
            _ => {}
        }
    }
    Ok(HttpRequest::Announce {
        announce: AnnounceRequest {
            info_hash: info_hash.ok_or(Missing("info_hash"))?,
            peer_id: peer_id.ok_or(Missing("peer_id"))?,
            port: port.ok_or(Missing("port"))?,
            uploaded,
            downloaded,
            left,
            event,
            num_want,
            key,
            ip: ip.filter(|ip: &IpAddr| !ip.is_unspecified()),
            overlay,
        },
        compact,
    })
}

fn decode_scrape(query: &[u8]) -> Result<HttpRequest, HttpRequestError> {
    let hashes = parameters(query)
        .filter(|(name, _)| *name == b"info_hash")
        .take(MAX_SCRAPE)
        .map(|(_, value)| unescape(value, "info_hash").map(InfoHash));
    Ok(HttpRequest::Scrape(hashes.collect::<Result<_, _>>()?))
}

/// Keys are hexadecimal digits by custom only; anything else is folded into the bits.
fn key_bits(value: &[u8]) -> u32 {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|s| u32::from_str_radix(s, 16).ok())
        .unwrap_or_else(|| {
            let fold = |sum: u32, b: &u8| sum.wrapping_mul(31).wrapping_add(u32::from(*b));
            value.iter().fold(0, fold)
        })
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(value).ok()?;
    text.parse()
        .ok()
        .filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

/// The overlay address in the path and query of a URL, as UDP announces carry them (BEP 41).
pub fn overlay_of(url: &[u8]) -> Option<SocketAddr> {
    let at = url.iter().position(|b| *b == b'?')?;
    let query = url.get(at + 1..)?;
    let named = parameters(query).filter(|(name, _)| *name == b"overlay");
    named.last().and_then(|(_, value)| overlay_address(value))
}

fn overlay_address(value: &[u8]) -> Option<SocketAddr> {
    let bytes: [u8; compact::V6_LEN] = unescape(value, "overlay").ok()?;
    let addr = compact::decode_v6(&bytes).next()?;
    (is_overlay(addr.ip()) && addr.port() != 0).then_some(addr)
}

/// `url` with the parameter that says where we are reached by the overlay.
pub fn with_overlay(url: &str, overlay: SocketAddr) -> String {
    let mut url = with_query(url);
    push_overlay(overlay, &mut url);
    url
}

fn push_overlay(overlay: SocketAddr, url: &mut String) {
    let mut bytes = Vec::with_capacity(compact::V6_LEN);
    compact::push(overlay, &mut bytes);
    url.push_str("overlay=");
    escape(&bytes, url);
}

/// Exactly `N` bytes, percent-decoded.
fn unescape<const N: usize>(value: &[u8], name: &'static str) -> Result<[u8; N], HttpRequestError> {
    let mut out = [0; N];
    let mut slots = out.iter_mut();
    let mut rest = value.iter();
    let nibble = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16));
    while let Some(&byte) = rest.next() {
        let slot = slots.next().ok_or(HttpRequestError::Invalid(name))?;
        *slot = if byte == b'%' {
            match (nibble(rest.next()), nibble(rest.next())) {
                (Some(high), Some(low)) => (high << 4 | low) as u8,
                _ => return Err(HttpRequestError::BadEscape(name)),
            }
        } else {
            byte
        };
    }
    if slots.next().is_some() {
        return Err(HttpRequestError::Invalid(name));
    }
    Ok(out)
}

/// The URL that sends `announce` to the tracker at `base`; any query of `base` is kept (trackers
/// keep passkeys there).
pub fn announce_url(base: &str, announce: &AnnounceRequest, tracker_id: Option<&[u8]>) -> String {
    let mut url = with_query(base);
    url.push_str("info_hash=");
    escape(announce.info_hash.as_bytes(), &mut url);
    url.push_str("&peer_id=");
    escape(&announce.peer_id.0, &mut url);
    let AnnounceRequest {
        port,
        uploaded,
        downloaded,
        left,
        key,
        ..
    } = announce;
    write!(url, "&port={port}&uploaded={uploaded}&downloaded={downloaded}&left={left}&compact=1&key={key:08X}")
        .expect("writing to a string cannot fail");
    if let Some(wanted) = announce.num_want {
        write!(url, "&numwant={wanted}").expect("writing to a string cannot fail");
    }
    if let Some(ip) = announce.ip {
        write!(url, "&ip={ip}").expect("writing to a string cannot fail");
    }
    if let Some(overlay) = announce.overlay {
        url.push('&');
        push_overlay(overlay, &mut url);
    }
    url.push_str(match announce.event {
        AnnounceEvent::None => "",
        AnnounceEvent::Completed => "&event=completed",
        AnnounceEvent::Started => "&event=started",
        AnnounceEvent::Stopped => "&event=stopped",
        AnnounceEvent::Paused => "&event=paused",
    });
    if let Some(id) = tracker_id {
        url.push_str("&trackerid=");
        escape(id, &mut url);
    }
    url
}

/// The URL that asks the tracker at `base` about `hashes`; none if the last part of its path does
/// not begin with `announce`, which by convention means that it cannot be scraped (BEP 48).
pub fn scrape_url(base: &str, hashes: &[InfoHash]) -> Option<String> {
    let (path, query) = match base.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (base, None),
    };
    let (front, last) = path.rsplit_once('/')?;
    let tail = last.strip_prefix("announce")?;
    let mut scrape = format!("{front}/scrape{tail}");
    if let Some(query) = query {
        scrape.push('?');
        scrape.push_str(query);
    }
    let mut url = with_query(&scrape);
    for hash in hashes {
        url.push_str("info_hash=");
        escape(hash.as_bytes(), &mut url);
        url.push('&');
    }
    url.pop();
    Some(url)
}

/// `base` without its fragment, ending where a parameter may follow.
fn with_query(base: &str) -> String {
    let base = base.split_once('#').map_or(base, |(url, _)| url);
    let joint = match base.split_once('?') {
        None => "?",
        Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
        Some(_) => "&",
    };
    format!("{base}{joint}")
}

/// Appends `bytes` with everything but RFC 3986's unreserved characters escaped.
fn escape(bytes: &[u8], url: &mut String) {
    for &b in bytes {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            url.push(char::from(b));
        } else {
            write!(url, "%{b:02X}").expect("writing to a string cannot fail");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::any_announce;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn announces_round_trip(announce in any_announce(), id in prop::option::of(any::<Vec<u8>>())) {
            for base in ["http://t/announce", "http://t/x/announce?key=1", "http://t/announce?#f"] {
                let url = announce_url(base, &announce, id.as_deref());
                prop_assert_eq!(
                    decode(url.as_bytes()),
                    Ok(HttpRequest::Announce { announce: announce.clone(), compact: true })
                );
            }
        }

        #[test]
        fn scrapes_round_trip(hashes in prop::collection::vec(any::<[u8; 20]>(), 0..5)) {
            let hashes: Vec<InfoHash> = hashes.into_iter().map(InfoHash).collect();
            let url = scrape_url("http://t/a/announce.php?k=v", &hashes).expect("can be scraped");
            let url = url.replace(".php", "");
            prop_assert_eq!(decode(url.as_bytes()), Ok(HttpRequest::Scrape(hashes)));
        }

        #[test]
        fn arbitrary_targets_never_panic(bytes: Vec<u8>, query in "(announce|scrape)\\?([a-z_]{1,9}=[%a-f0-9]{0,30}&){0,9}") {
            let _ = decode(&bytes);
            let _ = decode(query.as_bytes());
        }
    }

    const HASH: &str = "info_hash=aaaaaaaaaaaaaaaaaaaa";
    const ID: &str = "peer_id=-XX0000-bbbbbbbbbbbb";

    #[test]
    fn malformed_targets_are_named() {
        use HttpRequestError::*;
        let check = |target: String, error| assert_eq!(decode(target.as_bytes()), Err(error));
        check("/".into(), UnknownPath);
        check("/announcement".into(), UnknownPath);
        check("/announce".into(), Missing("info_hash"));
        check(format!("/announce?{HASH}"), Missing("peer_id"));
        check(format!("/announce?{HASH}&{ID}"), Missing("port"));
        check(format!("/announce?{HASH}&{ID}&port=65536"), Invalid("port"));
        check(format!("/announce?{HASH}&{ID}&port=+1"), Invalid("port"));
        check(format!("/announce?{HASH}a"), Invalid("info_hash"));
        check("/announce?info_hash=a".into(), Invalid("info_hash"));
        check("/announce?info_hash=%a".into(), BadEscape("info_hash"));
        check("/announce?info_hash=%+1".into(), BadEscape("info_hash"));
        check(
            format!("/announce?{HASH}&{ID}&port=1&event=x"),
            Invalid("event"),
        );
    }

    #[test]
    fn compact_is_the_default_and_can_be_refused() {
        for (extra, want) in [("", true), ("&compact=1", true), ("&compact=0", false)] {
            let target = format!("/k/announce?{HASH}&{ID}&port=1&numwant=-1{extra}");
            let Ok(HttpRequest::Announce { compact, announce }) = decode(target.as_bytes()) else {
                panic!("{target} should be an announce");
            };
            assert_eq!((compact, announce.num_want), (want, None));
        }
    }

    #[test]
    fn only_announce_urls_can_be_scraped() {
        let hash = [InfoHash([b'a'; 20])];
        let check = |base, want: Option<&str>| {
            let got = scrape_url(base, &hash);
            assert_eq!(got.as_deref(), want);
        };
        check(
            "http://t/announce?x=1",
            Some("http://t/scrape?x=1&info_hash=aaaaaaaaaaaaaaaaaaaa"),
        );
        check("http://t/a", None);
        check("http://t/announce/x", None);
    }
}
