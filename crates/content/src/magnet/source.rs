//! Who has the file that a link names, on networks other than BitTorrent: the link's exact sources
//! (`xs`), as URLs.
//!
//! | network | form |
//! |---|---|
//! | Gnutella | `http://HOST:PORT/uri-res/N2R?urn:sha1:…` (RFC 2169), as servents write it; `urn:tree:tiger:…` where that alone is known |
//! | Gnutella, behind a firewall | `gnutella://SERVENT@PROXY:PORT,PROXY:PORT/uri-res/N2R?urn:sha1:…`: its id, 32 hexadecimal digits, and who passes calls on to it |
//! | Napster | `napster://HUB:PORT/NICK/PATH`, nick and path percent-encoded |

use super::{after, peer};
use crate::url;
use shoal_base::Urn;
use shoal_base::id::{from_hex, to_hex};
use std::fmt;

const RESOLVE: &str = "/uri-res/N2R?";
/// Bytes of a nick and of a path, at most.
const MAX_NICK: usize = 128;
const MAX_PATH: usize = 1024;
/// Proxies of one host.
const MAX_PROXIES: usize = 4;

/// Who has a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FileSource {
    /// A Gnutella host, or any HTTP server that finds files by their hashes.
    Gnutella {
        /// `host:port`.
        host: String,
        /// The one hash that it is to be asked for.
        urn: Urn,
    },
    /// A Gnutella host that nobody can connect to: it connects to who calls it through its proxies.
    Pushed {
        /// Its id.
        servent: [u8; 16],
        /// Who passes calls on: `host:port` each, at least one.
        proxies: Vec<String>,
        /// The one hash that it is to be asked for.
        urn: Urn,
    },
    /// A user of a Napster hub.
    Napster {
        /// The hub's `host:port`.
        hub: String,
        /// Who shares it.
        nick: String,
        /// The path that the hub was told.
        path: Vec<u8>,
    },
}

impl FileSource {
    /// What it is asked for, if it is asked by a hash.
    pub fn urn(&self) -> Option<Urn> {
        match self {
            Self::Gnutella { urn, .. } | Self::Pushed { urn, .. } => Some(*urn),
            Self::Napster { .. } => None,
        }
    }

    /// Reads one; none if the URL is of another kind.
    pub fn read(text: &str) -> Option<Self> {
        if let Some(rest) = after(text, "napster://") {
            let (hub, rest) = rest.split_once('/')?;
            let (nick, path) = rest.split_once('/')?;
            let nick = String::from_utf8(url::decode(nick.as_bytes())).ok()?;
            let path = url::decode(path.as_bytes());
            // Messages of a hub are lines of words; a nick is one word.
            let plain = |c: char| !c.is_control() && !c.is_whitespace() && c != '"';
            let sound = (1..=MAX_NICK).contains(&nick.len()) && nick.chars().all(plain);
            let fits = (1..=MAX_PATH).contains(&path.len())
                && !path.iter().any(|b| b.is_ascii_control() || *b == b'"');
            let hub = peer(hub.as_bytes())?;
            return (sound && fits).then_some(Self::Napster { hub, nick, path });
        }
        if let Some(rest) = after(text, "gnutella://") {
            let (servent, rest) = rest.split_once('@')?;
            let (proxies, rest) = rest.split_once('/')?;
            let proxies = proxies.split(',').map(|proxy| peer(proxy.as_bytes()));
            let proxies: Vec<String> = proxies.collect::<Option<_>>()?;
            let servent = from_hex(servent).ok()?;
            let urn: Urn = rest.strip_prefix(&RESOLVE[1..])?.parse().ok()?;
            let urn = urn.shortest();
            return (proxies.len() <= MAX_PROXIES).then_some(Self::Pushed {
                servent,
                proxies,
                urn,
            });
        }
        let (host, rest) = after(text, "http://")?.split_once('/')?;
        let urn: Urn = rest.strip_prefix(&RESOLVE[1..])?.parse().ok()?;
        // The port of HTTP need not be written.
        let host = peer(host.as_bytes()).or_else(|| peer(format!("{host}:80").as_bytes()))?;
        let urn = urn.shortest();
        Some(Self::Gnutella { host, urn })
    }
}

impl fmt::Display for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gnutella { host, urn } => write!(f, "http://{host}{RESOLVE}{urn}"),
            Self::Pushed {
                servent,
                proxies,
                urn,
            } => {
                let servent = to_hex(servent);
                let proxies = proxies.join(",");
                write!(f, "gnutella://{servent}@{proxies}{RESOLVE}{urn}")
            }
            Self::Napster { hub, nick, path } => {
                let (nick, path) = (url::encode(nick.as_bytes()), url::encode(path));
                write!(f, "napster://{hub}/{nick}/{path}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shoal_base::urn::TigerRoot;

    #[test]
    fn urls_of_other_kinds_are_none() {
        let sha1 = "urn:sha1:PLSTHIPQGSSZTS5FJUPAKUZWUGYQYPFB";
        let host = format!("http://192.0.2.1:6346/uri-res/N2R?{sha1}");
        let read = FileSource::read(&host).expect("a host");
        assert_eq!(read.to_string(), host);
        let plain = format!("HTTP://example.org/uri-res/N2R?{sha1}");
        assert!(
            matches!(FileSource::read(&plain), Some(FileSource::Gnutella { host, .. })
            if host == "example.org:80")
        );
        for bad in [
            "http://h/x.iso",
            "http://h:1/uri-res/N2R?urn:sha1:xyz",
            "napster://h/n/p",
            "napster://h:1/n",
            "napster://h:1//p",
            "napster://h:1/two%20words/p",
            "napster://h:1/n/a%22b",
            "napster://h:1/n/a%0ab",
            "napster://h:1/n/",
            "gnutella://07070707070707070707070707070707@/uri-res/N2R?urn:sha1:PLSTHIPQGSSZTS5FJUPAKUZWUGYQYPFB",
            "gnutella://07@h:1/uri-res/N2R?urn:sha1:PLSTHIPQGSSZTS5FJUPAKUZWUGYQYPFB",
            "",
        ] {
            assert_eq!(FileSource::read(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn users_of_hubs_round_trip(nick in "[!#-~é]{1,20}", path in "[ !#-~é\\\\]{1,60}") {
            let source = FileSource::Napster { hub: "hub.example:8888".into(), nick, path: path.into() };
            prop_assert_eq!(FileSource::read(&source.to_string()), Some(source));
        }

        #[test]
        fn hosts_behind_firewalls_round_trip(servent: [u8; 16], sha1: [u8; 20], n in 1usize..4) {
            let proxies = vec!["192.0.2.1:6346".to_owned(); n];
            let urn = if n == 1 { Urn::Sha1(sha1) } else { Urn::Tiger(TigerRoot([n as u8; 24])) };
            let source = FileSource::Pushed { servent, proxies, urn };
            prop_assert_eq!(FileSource::read(&source.to_string()), Some(source));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(napster|http|gnutella)://\\PC{0,40}") {
            if let Some(source) = FileSource::read(&text) {
                prop_assert_eq!(FileSource::read(&source.to_string()), Some(source));
            }
        }
    }
}
