//! The words of queueing: `X-Queue`, `X-Queued` (PARQ 1.1), the older `X-Queue` of BearShare and
//! Shareaza, and the lines `QUEUE` and `GIV` with which a servent opens a connection to us.

use std::fmt;
use std::net::SocketAddr;

use super::head::{Fields, number};
use super::locations::read_location;
use crate::guid::Guid;

/// Bytes of a `GIV` or `QUEUE` line at most, its end counted.
pub const MAX_LINE: usize = 512;

/// What a downloader understands of queueing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Queueing {
    /// Nothing: it comes again by itself.
    #[default]
    None,
    /// The older kind, `X-Queue: 0.1`: it polls on an open connection.
    Legacy,
    /// PARQ, `X-Queue: 1.0` and later.
    Parq,
}

impl Queueing {
    /// What a request says.
    pub fn read(fields: &Fields) -> Self {
        let version = fields.get("x-queue").map(str::trim);
        let feature = fields
            .list("x-features")
            .find_map(|f| f.strip_prefix("queue/"));
        match version.or(feature) {
            Some(v) if v.starts_with("0.") => Self::Legacy,
            Some(v) if v.starts_with(|c: char| c.is_ascii_digit()) => Self::Parq,
            _ => Self::None,
        }
    }
}

/// `X-Queued`: a place in a PARQ queue (PARQ §4). Only `position` and `ID` are mandatory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// From one.
    pub position: u32,
    /// Places there are.
    pub length: Option<u32>,
    /// Seconds until the place is first.
    pub eta: Option<u64>,
    /// Seconds for which the place is kept.
    pub lifetime: Option<u64>,
    /// Names the place.
    pub id: Guid,
}

impl Queued {
    /// Reads one; names in any case and order.
    pub fn read(text: &str) -> Option<Self> {
        let (mut position, mut id) = (None, None);
        let (mut length, mut eta, mut lifetime) = (None, None, None);
        for part in text.split(';') {
            let Some((name, value)) = part.split_once('=') else {
                continue;
            };
            let small = || number(value).and_then(|n| u32::try_from(n).ok());
            match name.trim().to_ascii_lowercase().as_str() {
                "position" => position = small(),
                "length" => length = small(),
                "eta" => eta = number(value),
                "lifetime" => lifetime = number(value),
                "id" => id = Guid::from_hex(value.trim().as_bytes()),
                _ => {}
            }
        }
        Some(Self {
            position: position?,
            length,
            eta,
            lifetime,
            id: id?,
        })
    }
}

impl fmt::Display for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "position={}; ", self.position)?;
        if let Some(length) = self.length {
            write!(f, "length={length}; ")?;
        }
        if let Some(eta) = self.eta {
            write!(f, "ETA={eta}; ")?;
        }
        if let Some(lifetime) = self.lifetime {
            write!(f, "lifetime={lifetime}; ")?;
        }
        write!(f, "ID={}", self.id)
    }
}

/// `X-Queue: position=2,length=5,limit=4,pollMin=45,pollMax=120` in an answer (PARQ §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LegacyQueued {
    /// From one.
    pub position: u32,
    /// Places there are.
    pub length: Option<u32>,
    /// Uploads at once.
    pub limit: Option<u32>,
    /// Seconds before which not to ask again.
    pub poll_min: u64,
    /// Seconds after which the place is lost.
    pub poll_max: u64,
}

impl LegacyQueued {
    /// Reads what stands in one field or several.
    pub fn read(fields: &Fields) -> Option<Self> {
        let find = |wanted: &str| {
            let mut items = fields.list("x-queue");
            items.find_map(|item| {
                let (name, value) = item.split_once('=')?;
                let same = name.trim().eq_ignore_ascii_case(wanted);
                same.then(|| number(value.trim_matches('"'))).flatten()
            })
        };
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let poll_min = find("pollMin").unwrap_or(0);
        Some(Self {
            position: small(find("position")?),
            length: find("length").map(small),
            limit: find("limit").map(small),
            poll_min,
            poll_max: find("pollMax")
                .unwrap_or(poll_min.saturating_add(60))
                .max(poll_min),
        })
    }
}

impl fmt::Display for LegacyQueued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "position={},", self.position)?;
        if let Some(length) = self.length {
            write!(f, "length={length},")?;
        }
        if let Some(limit) = self.limit {
            write!(f, "limit={limit},")?;
        }
        write!(f, "pollMin={},pollMax={}", self.poll_min, self.poll_max)
    }
}

/// How a connection begins that a servent opened to us for a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// A sharer that was asked to push: `GIV index:guid/name`, and an empty line.
    Giv {
        /// The number of the file that was asked for.
        index: u32,
        /// Who the sharer is.
        guid: Guid,
        /// The file's name, if it says one.
        name: String,
    },
    /// A sharer whose queue we wait in: `QUEUE id ip:port` (PARQ §4).
    Queue {
        /// Our place.
        id: Guid,
        /// Where the sharer is now.
        addr: SocketAddr,
    },
}

impl Opening {
    /// Reads what a connection begins with: the opening, and the bytes it took. `Ok(None)`: more is
    /// needed; `Err`: it is something else.
    #[expect(
        clippy::result_unit_err,
        reason = "there is nothing to say but that it is none"
    )]
    pub fn read(buf: &[u8]) -> Result<Option<(Self, usize)>, ()> {
        let is = |prefix: &[u8]| {
            let n = prefix.len().min(buf.len());
            buf.get(..n) == prefix.get(..n)
        };
        if !is(b"GIV ") && !is(b"QUEUE ") {
            return Err(());
        }
        let seen = buf.get(..buf.len().min(MAX_LINE)).unwrap_or_default();
        let Some(end) = seen.iter().position(|b| *b == b'\n') else {
            return if buf.len() < MAX_LINE {
                Ok(None)
            } else {
                Err(())
            };
        };
        let line = seen.get(..end).unwrap_or_default().trim_ascii_end();
        let line = String::from_utf8_lossy(line);
        if let Some(rest) = line.strip_prefix("GIV ") {
            let after = seen.get(end + 1..).unwrap_or_default();
            // The empty line belongs to it.
            let used = match after {
                [b'\n', ..] => end + 2,
                [b'\r', b'\n', ..] => end + 3,
                [] | [b'\r'] => return Ok(None),
                _ => return Err(()),
            };
            let (index, rest) = rest.split_once(':').ok_or(())?;
            let (guid, name) = rest.split_once('/').unwrap_or((rest, ""));
            // Some write more digits than an index has: what counts is the GUID.
            let index = number(index)
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(0);
            let guid = Guid::from_hex(guid.trim().as_bytes()).ok_or(())?;
            let name = name.to_owned();
            return Ok(Some((Self::Giv { index, guid, name }, used)));
        }
        let rest = line.strip_prefix("QUEUE ").ok_or(())?;
        let (id, addr) = rest.trim().split_once(' ').ok_or(())?;
        let id = Guid::from_hex(id.as_bytes()).ok_or(())?;
        let addr = read_location(addr).ok_or(())?;
        Ok(Some((Self::Queue { id, addr }, end + 1)))
    }

    /// Writes it as [`Self::read`] reads it.
    pub fn write(&self) -> Vec<u8> {
        match self {
            Self::Giv { index, guid, name } => {
                let name: String = name.chars().filter(|c| !c.is_control()).take(255).collect();
                format!("GIV {index}:{guid}/{name}\n\n").into_bytes()
            }
            Self::Queue { id, addr } => format!("QUEUE {id} {addr}\r\n").into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::read_response;
    use proptest::prelude::*;

    #[test]
    fn a_place_is_read_as_the_specification_writes_it() {
        let text = "position=1503; length=1840;ETA=4200; lifetime=3600;\tID=6a074979f3201edbf323b6425fef4a53";
        let queued = Queued::read(text).expect("a place");
        assert_eq!((queued.position, queued.eta), (1503, Some(4200)));
        assert_eq!(Queued::read("position=3"), None);
        assert_eq!(Queued::read("ID=6a074979f3201edbf323b6425fef4a53"), None);
        let head = b"HTTP/1.1 503 Busy\r\nX-Queue: position=2,length=5\r\nX-Queue: limit=4,pollMin=45,pollMax=120\r\n\r\n";
        let fields = read_response(head).expect("a head").fields;
        let legacy = LegacyQueued::read(&fields).expect("a place");
        assert_eq!(
            (legacy.position, legacy.poll_min, legacy.poll_max),
            (2, 45, 120)
        );
        assert_eq!(
            legacy.to_string(),
            "position=2,length=5,limit=4,pollMin=45,pollMax=120"
        );
    }

    #[test]
    fn openings_of_others_are_told_apart() {
        assert_eq!(Opening::read(b"GI"), Ok(None));
        assert_eq!(Opening::read(b"GET / HTTP/1.1\r\n"), Err(()));
        let guid = "6a074979f3201edbf323b6425fef4a53";
        let giv = format!("GIV 7:{guid}/a name\n\nHTTP");
        let (opening, used) = Opening::read(giv.as_bytes()).expect("read").expect("whole");
        assert_eq!(used, giv.len() - 4);
        assert!(matches!(opening, Opening::Giv { index: 7, name, .. } if name == "a name"));
        assert_eq!(
            Opening::read(format!("GIV 7:{guid}/a\n").as_bytes()),
            Ok(None)
        );
        assert_eq!(
            Opening::read(&[b"QUEUE ", &[b'a'; MAX_LINE][..]].concat()),
            Err(())
        );
        assert_eq!(Opening::read(b"QUEUE x 1.2.3.4:5\r\n"), Err(()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            position: u32, length: Option<u32>, eta: Option<u64>, lifetime: Option<u64>, id: [u8; 16],
            index: u32, name in "[^\\p{Cc}\\p{Z}]{0,40}", port in 1u16..
        ) {
            let id = Guid(id);
            let queued = Queued { position, length, eta, lifetime, id };
            prop_assert_eq!(Queued::read(&queued.to_string()), Some(queued));
            let addr = SocketAddr::from(([1, 2, 3, 4], port));
            for opening in [Opening::Giv { index, guid: id, name }, Opening::Queue { id, addr }] {
                let bytes = opening.write();
                prop_assert_eq!(Opening::read(&bytes), Ok(Some((opening, bytes.len()))));
            }
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes: Vec<u8>, text in "(GIV |QUEUE )?[ -~\n]{0,80}") {
            for bytes in [&bytes[..], text.as_bytes()] {
                if let Ok(Some((_, used))) = Opening::read(bytes) {
                    prop_assert!(used <= bytes.len());
                }
            }
            let _ = Queued::read(&text);
        }
    }
}
