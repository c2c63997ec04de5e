//! Magnet links: an info-hash and hints where to find its torrent.
//!
//! BEP 9 (`xt`, `dn`, `tr`, `x.pe`), BEP 46 (`xs=urn:btpk:`, `s`), BEP 52 (`btmh`), BEP 53 (`so`),
//! and `ws` for web seeds. A file is also named by its SHA-1 and its Tiger tree (`urn:sha1:`,
//! `urn:tree:tiger:`, `urn:bitprint:`) and its length (`xl`), with who has it on other networks (`xs`,
//! [`FileSource`]) or on a web server (`xs`, `as`). Parameters may be numbered (`tr.1`). A wrong
//! info-hash, key, salt or selection is an error; other parameters that cannot be used are left out.

mod source;

pub use source::FileSource;

use crate::path::{Naming, sanitise_component};
use crate::tiger::TigerRoot;
use crate::url;
use shoal_base::Urn;
use shoal_base::id::{from_hex, to_hex};
use shoal_base::{InfoHash, InfoHashV2, base32};
use std::fmt;
use std::str::FromStr;

/// Longest link we read, in bytes.
pub const MAX_MAGNET_LEN: usize = 256 * 1024;

/// Longest salt of a publisher's key, in bytes (BEP 44).
const MAX_SALT: usize = 64;

/// How many trackers, web seeds and peers each are kept.
const MAX_HINTS: usize = 256;

/// A parsed link.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Magnet {
    /// The v1 info-hash (`btih`).
    pub info_hash: Option<InfoHash>,
    /// The v2 info-hash (`btmh`).
    pub info_hash_v2: Option<InfoHashV2>,
    /// Who names the newest version in the DHT (`btpk`).
    pub publisher: Option<Publisher>,
    /// SHA-1 of the one file.
    pub sha1: Option<[u8; 20]>,
    /// The root of its Tiger tree.
    pub tiger: Option<TigerRoot>,
    /// Length of the content in bytes (`xl`).
    pub len: Option<u64>,
    /// A name to show until the torrent is known; safe as a file name.
    pub name: Option<String>,
    /// Tracker URLs.
    pub trackers: Vec<String>,
    /// Web seed URLs.
    pub web_seeds: Vec<String>,
    /// Peers as `host:port`, IPv6 addresses in brackets.
    pub peers: Vec<String>,
    /// Who has the file on other networks.
    pub sources: Vec<FileSource>,
    /// The only files wanted, by number; all if none.
    pub select_only: Option<Selection>,
}

/// Whose signed value in the DHT names the info-hash of an updated torrent (BEP 46).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publisher {
    /// Ed25519 public key.
    pub key: [u8; 32],
    /// Tells apart the torrents of one key; at most 64 bytes.
    pub salt: Vec<u8>,
}

/// File numbers and ranges of them (BEP 53), rising and apart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection(Vec<(u32, u32)>);

/// Why a text is not a magnet link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MagnetError {
    /// It does not begin with `magnet:?`.
    #[error("does not begin with \"magnet:?\"")]
    NotMagnet,
    /// Longer than [`MAX_MAGNET_LEN`].
    #[error("{0} bytes long, at most {MAX_MAGNET_LEN} are supported")]
    TooLong(usize),
    /// No hash in it, and no publisher, and nobody who has the file.
    #[error("xt: no urn:btih:, urn:btmh:, urn:sha1:, urn:tree:tiger: or urn:bitprint: hash")]
    NoHash,
    /// A `btih` that is neither 40 hexadecimal digits nor 32 of base32.
    #[error("xt: urn:btih: needs 40 hexadecimal or 32 base32 digits")]
    BadV1,
    /// A `btmh` that is not a SHA-256 multihash.
    #[error("xt: urn:btmh: needs 1220 and 64 hexadecimal digits")]
    BadV2,
    /// Two hashes of one kind.
    #[error("xt: two different info-hashes")]
    TwoHashes,
    /// A `btpk` that is no public key.
    #[error("xs: urn:btpk: needs 64 hexadecimal digits")]
    BadKey,
    /// Two different public keys.
    #[error("xs: two different public keys")]
    TwoKeys,
    /// A publisher's salt that is not hexadecimal or too long.
    #[error("s: not an even number of hexadecimal digits, at most {}", 2 * MAX_SALT)]
    BadSalt,
    /// A selection that is not numbers and ranges.
    #[error("so: not a list of file numbers and ranges such as 0,2,4-6")]
    BadSelection,
}

impl Magnet {
    /// A link made of a bare hash: 40 or 64 hexadecimal digits, or 32 of base32.
    pub fn from_hash(text: &str) -> Option<Self> {
        if let Ok(v2) = from_hex::<32>(text) {
            return Some(Self {
                info_hash_v2: Some(InfoHashV2(v2)),
                ..Self::default()
            });
        }
        Some(Self {
            info_hash: Some(parse_v1(text)?),
            ..Self::default()
        })
    }

    /// The hash trackers and handshakes carry: v1 if there is one, else v2 cut to 20 bytes.
    pub fn swarm_hash(&self) -> Option<InfoHash> {
        let short = || self.info_hash_v2.map(|v2| v2.truncated());
        self.info_hash.or_else(short)
    }

    fn topic(&mut self, topic: &[u8]) -> Result<(), MagnetError> {
        let topic = String::from_utf8_lossy(topic);
        let twice = MagnetError::TwoHashes;
        if let Some(hash) = after(&topic, "urn:btih:") {
            let hash = parse_v1(hash).ok_or(MagnetError::BadV1)?;
            set_once(&mut self.info_hash, hash, twice)
        } else if let Some(hash) = after(&topic, "urn:btmh:") {
            let digits = hash.strip_prefix("1220");
            let hash = digits.and_then(|d| from_hex(d).ok());
            let hash = InfoHashV2(hash.ok_or(MagnetError::BadV2)?);
            set_once(&mut self.info_hash_v2, hash, twice)
        } else {
            // Of a kind that is not known, or not well written: names of other programs.
            if let Ok(urn) = topic.parse::<Urn>() {
                self.sha1 = self.sha1.or(urn.sha1());
                self.tiger = self.tiger.or(urn.tiger());
            }
            Ok(())
        }
    }

    /// Whether it says what is to be fetched: by a hash, or by who has a file of which length.
    fn is_of_use(&self) -> bool {
        let hash = self.swarm_hash().is_some() || self.sha1.is_some() || self.tiger.is_some();
        hash || self.publisher.is_some() || (self.len.is_some() && !self.sources.is_empty())
    }

    /// Takes an exact or acceptable source.
    fn source(&mut self, raw: &[u8]) {
        let Some(url) = url::clean(raw) else { return };
        if let Some(source) = FileSource::read(&url) {
            if self.sources.len() < MAX_HINTS && !self.sources.contains(&source) {
                self.sources.push(source);
            }
        } else if after(&url, "http://").is_some() || after(&url, "https://").is_some() {
            // A .torrent file is no source of what it describes.
            if !url.to_ascii_lowercase().ends_with(".torrent") {
                keep(&mut self.web_seeds, Some(url));
            }
        }
    }

    /// The name of the one file by its own hashes, if it has any.
    pub fn urn(&self) -> Option<Urn> {
        Urn::of(self.sha1, self.tiger)
    }
}

impl FromStr for Magnet {
    type Err = MagnetError;

    fn from_str(link: &str) -> Result<Self, MagnetError> {
        let link = link.trim();
        if link.len() > MAX_MAGNET_LEN {
            return Err(MagnetError::TooLong(link.len()));
        }
        let query = link
            .split_at_checked("magnet:?".len())
            .filter(|(head, _)| head.eq_ignore_ascii_case("magnet:?"));
        let (_, query) = query.ok_or(MagnetError::NotMagnet)?;
        let mut magnet = Self::default();
        let (mut key, mut salt) = (None, Vec::new());
        for parameter in query.split('&') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            // Links copied from the source of a page.
            let name = name.strip_prefix("amp;").unwrap_or(name);
            let raw = url::decode(value.as_bytes());
            match without_number(name).to_ascii_lowercase().as_str() {
                "xt" => magnet.topic(&raw)?,
                "xs" => {
                    if let Some(digits) = after(&String::from_utf8_lossy(&raw), "urn:btpk:") {
                        let found = from_hex(digits).map_err(|_| MagnetError::BadKey)?;
                        set_once(&mut key, found, MagnetError::TwoKeys)?;
                    } else {
                        magnet.source(&raw);
                    }
                }
                "as" => magnet.source(&raw),
                "xl" => {
                    let text = String::from_utf8_lossy(&raw);
                    magnet.len = magnet.len.or(text.trim().parse().ok());
                }
                "s" => salt = raw,
                "dn" if magnet.name.is_none() => {
                    let spaced = url::decode(value.replace('+', " ").as_bytes());
                    magnet.name = sanitise_component(&spaced, Naming::Download);
                }
                "tr" => keep(&mut magnet.trackers, url::clean(&raw)),
                "ws" => keep(&mut magnet.web_seeds, url::clean(&raw)),
                "x.pe" => keep(&mut magnet.peers, peer(&raw)),
                "so" => {
                    let text = String::from_utf8_lossy(&raw);
                    magnet.select_only = Some(text.parse()?);
                }
                _ => {}
            }
        }
        // Without a key, `s` is somebody else's parameter.
        if let Some(key) = key {
            let salt = from_hex_digits(&salt).ok_or(MagnetError::BadSalt)?;
            magnet.publisher = Some(Publisher { key, salt });
        }
        // Who is asked for another file is no source of this.
        let told = |hash: fn(&Urn) -> bool| {
            let mut urns = magnet.sources.iter().filter_map(FileSource::urn);
            urns.find(hash)
        };
        let sha1 = told(|urn| urn.sha1().is_some()).and_then(|urn| urn.sha1());
        let tiger = told(|urn| urn.tiger().is_some()).and_then(|urn| urn.tiger());
        magnet.sha1 = magnet.sha1.or(sha1);
        magnet.tiger = magnet.tiger.or(tiger);
        let own = magnet.urn();
        let same = |urn: &Urn| own.is_none_or(|own| own.agrees(urn));
        magnet
            .sources
            .retain(|s| s.urn().is_none_or(|urn| same(&urn)));
        if magnet.is_of_use() {
            Ok(magnet)
        } else {
            Err(MagnetError::NoHash)
        }
    }
}

impl fmt::Display for Magnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "magnet:?";
        let mut parameter = |key: &str, value: &str| {
            let before = std::mem::replace(&mut separator, "&");
            write!(f, "{before}{key}={value}")
        };
        if let Some(hash) = self.info_hash {
            parameter("xt", &format!("urn:btih:{hash}"))?;
        }
        if let Some(hash) = self.info_hash_v2 {
            parameter("xt", &format!("urn:btmh:1220{hash}"))?;
        }
        if let Some(urn) = self.urn() {
            parameter("xt", &urn.to_string())?;
        }
        if let Some(publisher) = &self.publisher {
            parameter("xs", &format!("urn:btpk:{}", to_hex(&publisher.key)))?;
            if !publisher.salt.is_empty() {
                parameter("s", &to_hex(&publisher.salt))?;
            }
        }
        if let Some(name) = &self.name {
            parameter("dn", &url::encode(name.as_bytes()))?;
        }
        if let Some(len) = self.len {
            parameter("xl", &len.to_string())?;
        }
        for source in &self.sources {
            parameter("xs", &url::encode(source.to_string().as_bytes()))?;
        }
        let hints = [
            ("tr", &self.trackers),
            ("ws", &self.web_seeds),
            ("x.pe", &self.peers),
        ];
        for (key, values) in hints {
            for value in values {
                parameter(key, &url::encode(value.as_bytes()))?;
            }
        }
        if let Some(selection) = &self.select_only {
            parameter("so", &selection.to_string())?;
        }
        Ok(())
    }
}

impl Selection {
    /// A selection of these files.
    pub fn new(files: impl IntoIterator<Item = u32>) -> Self {
        Self::of_ranges(files.into_iter().map(|n| (n, n)).collect())
    }

    /// Whether file number `file` is in it.
    pub fn contains(&self, file: usize) -> bool {
        let Ok(file) = u32::try_from(file) else {
            return false;
        };
        let before = self.0.partition_point(|(_, last)| *last < file);
        self.0.get(before).is_some_and(|(first, _)| *first <= file)
    }

    /// The selected ones of `count` files, rising.
    pub fn files(&self, count: usize) -> Vec<usize> {
        (0..count).filter(|file| self.contains(*file)).collect()
    }

    fn of_ranges(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }
}

impl FromStr for Selection {
    type Err = MagnetError;

    fn from_str(text: &str) -> Result<Self, MagnetError> {
        let number = |digits: &str| {
            let plain = digits.bytes().all(|b| b.is_ascii_digit());
            let number = digits.parse().ok().filter(|_| plain);
            number.ok_or(MagnetError::BadSelection)
        };
        let range = |part: &str| match part.split_once('-') {
            None => number(part).map(|n| (n, n)),
            Some((first, last)) => match (number(first)?, number(last)?) {
                (first, last) if first <= last => Ok((first, last)),
                _ => Err(MagnetError::BadSelection),
            },
        };
        let ranges: Result<Vec<_>, _> = text.split(',').map(range).collect();
        ranges.map(Self::of_ranges)
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (first, last)) in self.0.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

/// What follows `prefix`, in whatever case it is written.
fn after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, tail) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(tail)
}

/// Reads at most [`MAX_SALT`] bytes.
fn from_hex_digits(digits: &[u8]) -> Option<Vec<u8>> {
    if digits.len() > 2 * MAX_SALT || !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .chunks_exact(2)
        .map(|pair| {
            let [byte] = from_hex::<1>(std::str::from_utf8(pair).ok()?).ok()?;
            Some(byte)
        })
        .collect()
}

fn set_once<T: PartialEq>(
    slot: &mut Option<T>,
    value: T,
    twice: MagnetError,
) -> Result<(), MagnetError> {
    if slot.as_ref().is_some_and(|old| *old != value) {
        return Err(twice);
    }
    *slot = Some(value);
    Ok(())
}

fn keep(list: &mut Vec<String>, value: Option<String>) {
    if let Some(value) = value.filter(|v| list.len() < MAX_HINTS && !list.contains(v)) {
        list.push(value);
    }
}

/// `tr.1` is `tr`.
fn without_number(key: &str) -> &str {
    match key.rsplit_once('.') {
        Some((head, digits)) if digits.bytes().all(|b| b.is_ascii_digit()) => head,
        _ => key,
    }
}

/// A `host:port` that could be one.
fn peer(raw: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(raw).ok()?.trim();
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let sound = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed)
        }
    };
    (sound && port > 0).then(|| format!("{host}:{port}"))
}

fn parse_v1(text: &str) -> Option<InfoHash> {
    from_hex(text)
        .ok()
        .or_else(|| base32::decode(text.as_bytes()))
        .map(InfoHash)
}

#[cfg(test)]
mod tests;
