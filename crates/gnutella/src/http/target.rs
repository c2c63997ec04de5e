//! What a request names: a file by its hash or by its number, a hash tree, or the list of all files.

use crate::guid::Guid;
use crate::huge::{Sha1, TigerRoot, Urn};

/// A request's target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `/uri-res/N2R?URN` (HUGE 0.94 §6.1).
    File(Urn),
    /// `/uri-res/N2X?urn:sha1:…;TIGER`: the hash tree, as THEX writes it.
    Tree(Sha1, Option<TigerRoot>),
    /// `/get/INDEX/NAME`; the name as it came, escapes read.
    Index(u32, Vec<u8>),
    /// `/`: all files, as query hits.
    Browse,
    /// `/gnutella/push-proxy?ServerId=…`: pass a Push on to this servent (Push Proxy 0.6 §5).
    PushProxy(Guid),
    /// Something else.
    Other,
}

impl Target {
    /// Reads a target as it stands in the request line; also one with a host before it.
    pub fn read(text: &str) -> Self {
        let path = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
                rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
            }
            _ => text,
        };
        let after = |prefix: &str| {
            let (head, rest) = path.split_at_checked(prefix.len())?;
            head.eq_ignore_ascii_case(prefix).then_some(rest)
        };
        if path == "/" {
            return Self::Browse;
        }
        if let Some(urn) = after("/uri-res/N2R?") {
            let urn = Urn::read(&unescape(urn));
            return urn.map_or(Self::Other, Self::File);
        }
        if let Some(rest) = after("/uri-res/N2X?") {
            let rest = unescape(rest);
            let (urn, root) = match rest.iter().position(|b| *b == b';') {
                Some(at) => {
                    let (urn, root) = rest.split_at(at);
                    (urn, root.get(1..))
                }
                None => (&rest[..], None),
            };
            let urn = Urn::read(urn);
            let root = root.and_then(|r| shoal_base::base32::decode(r.trim_ascii()).map(TigerRoot));
            return match urn.and_then(|urn| Some((urn.sha1()?, urn.tiger()))) {
                Some((sha1, tiger)) => Self::Tree(sha1, root.or(tiger)),
                None => Self::Other,
            };
        }
        if let Some(guid) = after("/gnutella/push-proxy?").or(after("/gnet/push-proxy?")) {
            return push_proxy(guid).map_or(Self::Other, Self::PushProxy);
        }
        if let Some((index, name)) = after("/get/").and_then(|rest| rest.split_once('/'))
            && let Some(index) = super::head::number(index)
            && let Ok(index) = u32::try_from(index)
        {
            // Old servents put `HTTP` into the name's path: nothing to do with the name.
            let name = name.strip_suffix('/').unwrap_or(name);
            return Self::Index(index, unescape(name));
        }
        Self::Other
    }

    /// Writes it.
    pub fn write(&self) -> String {
        match self {
            Self::File(urn) => format!("/uri-res/N2R?{urn}"),
            Self::Tree(sha1, root) => tree_uri(sha1, root.as_ref()),
            Self::Index(index, name) => format!("/get/{index}/{}", escape(name)),
            Self::PushProxy(guid) => {
                let guid = shoal_base::base32::encode(&guid.0);
                format!("/gnutella/push-proxy?ServerId={guid}")
            }
            Self::Browse | Self::Other => "/".to_owned(),
        }
    }
}

/// Reads who is meant: `ServerId=BASE32`, or `guid=HEX` as LimeWire had it first.
fn push_proxy(query: &str) -> Option<Guid> {
    let mut parts = query.split('&').filter_map(|part| part.split_once('='));
    parts.find_map(|(name, value)| {
        let value = value.trim().as_bytes();
        match name.to_ascii_lowercase().as_str() {
            "serverid" => shoal_base::base32::decode(value).map(Guid),
            "guid" => Guid::from_hex(value),
            _ => None,
        }
    })
}

/// Where the tree of a file is had, as `X-Thex-URI` tells it too.
pub fn tree_uri(sha1: &Sha1, root: Option<&TigerRoot>) -> String {
    let mut uri = format!("/uri-res/N2X?{}", Urn::Sha1(*sha1));
    if let Some(root) = root {
        uri.push(';');
        uri.push_str(&root.to_string());
    }
    uri
}

/// Reads `X-Thex-URI: URI;ROOT` (PFSP §2): the URI, a path on the same host, and the root.
pub fn read_thex_uri(text: &str) -> Option<(String, TigerRoot)> {
    let (uri, root) = text.rsplit_once(';')?;
    let root: TigerRoot = root.trim().parse().ok()?;
    let uri = uri.trim();
    let plain = |b: u8| b.is_ascii_graphic();
    if !uri.starts_with('/') || !uri.bytes().all(plain) || uri.len() > 1024 {
        return None;
    }
    // The whole of it is what gtk-gnutella serves: its URI has the root in it.
    let whole = uri.to_ascii_lowercase().starts_with("/uri-res/n2x?");
    let uri = if whole {
        format!("{uri};{root}")
    } else {
        uri.to_owned()
    };
    Some((uri, root))
}

/// Reads `%41` and the like; what is no escape stays.
pub(super) fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = match after {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                out.push(high << 4 | low);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|d| d as u8)
}

/// Writes bytes so that they stand in a target as one step.
fn escape(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(*byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_servents_ask_for_is_understood() {
        let sha1 = shoal_base::base32::encode(&[7; 20]);
        let root = shoal_base::base32::encode(&[9; 24]);
        let read = |text: String| Target::read(&text);
        assert_eq!(
            read(format!("/uri-res/N2R?urn:sha1:{sha1}")),
            Target::File(Urn::Sha1([7; 20]))
        );
        assert_eq!(
            read(format!(
                "http://1.2.3.4:6346/uri-res/n2r?urn:bitprint:{sha1}.{root}"
            )),
            Target::File(Urn::Bitprint([7; 20], TigerRoot([9; 24])))
        );
        assert_eq!(
            read(format!("/uri-res/N2X?urn:sha1:{sha1};{root}")),
            Target::Tree([7; 20], Some(TigerRoot([9; 24])))
        );
        assert_eq!(
            read(format!("/uri-res/N2X?urn:sha1:{sha1}")),
            Target::Tree([7; 20], None)
        );
        assert_eq!(
            read("/get/12/A%20song.mp3".into()),
            Target::Index(12, b"A song.mp3".to_vec())
        );
        assert_eq!(read("/".into()), Target::Browse);
        for other in [
            "",
            "*",
            "/get/12",
            "/get/x/y",
            "/uri-res/N2R?urn:sha1:x",
            "/etc/passwd",
        ] {
            assert_eq!(read(other.into()), Target::Other, "{other}");
        }
    }

    #[test]
    fn trees_are_found_where_the_field_says() {
        let root = shoal_base::base32::encode(&[9; 24]);
        let uri = tree_uri(&[7; 20], None);
        let field = format!("{uri};{root}");
        assert_eq!(
            read_thex_uri(&field),
            Some((field.clone(), TigerRoot([9; 24])))
        );
        let own = format!("/tree/5 ; {root}");
        assert_eq!(
            read_thex_uri(&own),
            Some(("/tree/5".into(), TigerRoot([9; 24])))
        );
        assert_eq!(read_thex_uri(&format!("http://elsewhere/;{root}")), None);
        assert_eq!(read_thex_uri("/tree/5"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(sha1: [u8; 20], root: [u8; 24], index: u32, name: Vec<u8>) {
            for target in [
                Target::File(Urn::Sha1(sha1)),
                Target::Tree(sha1, Some(TigerRoot(root))),
                Target::File(Urn::Tiger(TigerRoot(root))),
                Target::Tree(sha1, None),
                Target::Index(index, name),
                Target::Browse,
            ] {
                prop_assert_eq!(Target::read(&target.write()), target);
            }
        }

        #[test]
        fn any_text_is_read(text in "(/uri-res/N2[RX]\\?|/get/)?[ -~]{0,60}") {
            let _ = Target::read(&text);
            let _ = read_thex_uri(&text);
        }
    }
}
