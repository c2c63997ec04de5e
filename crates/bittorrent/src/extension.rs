//! The extension protocol's handshake (BEP 10), with partial seeds (BEP 21), and the two
//! extensions too small for a module of their own: `lt_donthave` (BEP 54) and `upload_only`.
//!
//! Numbers are per receiver: an extended message carries the number that its *receiver* chose.
//! Ours are [`Extension::id`]; the peer's are gathered in [`ExtensionIds`].

use crate::peers::is_overlay;
use crate::tracker::compact;
use shoal_base::bencode::{self, BencodeError, Encoder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest handshake dictionary that is read; real ones stay below 1 KiB.
pub const MAX_HANDSHAKE_LEN: usize = 16 * 1024;

/// Longest client name kept, in characters.
const MAX_CLIENT_CHARS: usize = 64;

/// Requests a peer may have in flight with us, as we tell it.
pub const OUR_REQUEST_QUEUE: u32 = 1024;

/// The extensions spoken here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Extension {
    /// `ut_pex` (BEP 11).
    Pex,
    /// `ut_metadata` (BEP 9).
    Metadata,
    /// `lt_donthave` (BEP 54).
    DontHave,
    /// `upload_only`: BEP 21's flag, changed while connected.
    UploadOnly,
}

impl Extension {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 4] = [Self::DontHave, Self::UploadOnly, Self::Metadata, Self::Pex];

    /// The number that peers are to use when sending it to us.
    pub const fn id(self) -> u8 {
        match self {
            Self::Pex => 1,
            Self::Metadata => 2,
            Self::DontHave => 3,
            Self::UploadOnly => 4,
        }
    }

    /// The extension that we gave the number `id`.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.id() == id)
    }

    /// Its name in the `m` dictionary.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pex => "ut_pex",
            Self::Metadata => "ut_metadata",
            Self::DontHave => "lt_donthave",
            Self::UploadOnly => "upload_only",
        }
    }

    const fn slot(self) -> usize {
        self.id() as usize - 1
    }
}

/// The numbers one side gave the extensions it understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ExtensionIds {
    /// By [`Extension::slot`]; none if not mentioned, zero if switched off.
    ids: [Option<u8>; 4],
}

impl ExtensionIds {
    /// What we offer; a private torrent has no peer exchange (BEP 27).
    pub fn ours(private: bool) -> Self {
        let mut ids = Self::default();
        for extension in Extension::ALL {
            if !(private && extension == Extension::Pex) {
                ids.set(extension, extension.id());
            }
        }
        ids
    }

    /// The number to use when sending `extension` to that side; none if it does not speak it.
    pub fn get(&self, extension: Extension) -> Option<u8> {
        self.mentioned(extension).filter(|id| *id != 0)
    }

    fn mentioned(&self, extension: Extension) -> Option<u8> {
        self.ids.get(extension.slot()).copied().flatten()
    }

    /// Gives `extension` a number; zero switches it off.
    pub fn set(&mut self, extension: Extension, id: u8) {
        if let Some(slot) = self.ids.get_mut(extension.slot()) {
            *slot = Some(id);
        }
    }

    /// Takes over what a later handshake changes (BEP 10: "the `m` dictionary is additive").
    pub fn merge(&mut self, later: &Self) {
        for (mine, theirs) in self.ids.iter_mut().zip(later.ids) {
            *mine = theirs.or(*mine);
        }
    }
}

/// The handshake dictionary. Every field may be missing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExtensionHandshake {
    /// `m`: the sender's numbers.
    pub ids: ExtensionIds,
    /// `v`: client name and version; control characters are dropped, 64 characters kept.
    pub client: Option<String>,
    /// `p`: the sender's listening TCP port.
    pub port: Option<u16>,
    /// `metadata_size` in bytes, if between 1 and [`crate::metadata::MAX_METADATA_LEN`].
    pub metadata_size: Option<u32>,
    /// `reqq`: requests the sender lets be in flight.
    pub reqq: Option<u32>,
    /// `upload_only` (BEP 21): the sender wants nothing more.
    pub upload_only: Option<bool>,
    /// `yourip`: the receiver's address as the sender sees it.
    pub yourip: Option<IpAddr>,
    /// `ipv4`: another address of the sender.
    pub ipv4: Option<Ipv4Addr>,
    /// `ipv6`: another address of the sender.
    pub ipv6: Option<Ipv6Addr>,
    /// `overlay`, a key of ours: where the sender is reached by the overlay, 18 bytes as in `peers6` (BEP 7). Not in
    /// `ipv6`, from which others would take it for an address of a host.
    pub overlay: Option<SocketAddr>,
}

/// Why an extension message cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// Longer than such a message may be.
    #[error("{name} message of {len} bytes is too long")]
    TooLong {
        /// Which message.
        name: &'static str,
        /// Its payload's length.
        len: usize,
    },
    /// Not bencode.
    #[error("{name} message is not bencoded")]
    Bencode {
        /// Which message.
        name: &'static str,
        /// What is wrong with it.
        source: BencodeError,
    },
    /// A field is missing or of the wrong type or length.
    #[error("{name} message: bad {field}")]
    BadField {
        /// Which message.
        name: &'static str,
        /// Which field.
        field: &'static str,
    },
}

const HANDSHAKE: &str = "extension handshake";

impl ExtensionHandshake {
    /// Appends the dictionary to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut encoder = Encoder::new();
        encoder.dict(|d| {
            if let Some(ip) = self.ipv4 {
                d.key("ipv4").bytes(ip.octets());
            }
            if let Some(ip) = self.ipv6 {
                d.key("ipv6").bytes(ip.octets());
            }
            d.key("m").dict(|m| {
                for extension in Extension::ALL {
                    if let Some(id) = self.ids.mentioned(extension) {
                        m.key(extension.name()).int(i64::from(id));
                    }
                }
            });
            if let Some(size) = self.metadata_size {
                d.key("metadata_size").int(i64::from(size));
            }
            if let Some(overlay) = self.overlay {
                let mut place = Vec::with_capacity(compact::V6_LEN);
                compact::push(overlay, &mut place);
                d.key("overlay").bytes(place);
            }
            if let Some(port) = self.port {
                d.key("p").int(i64::from(port));
            }
            if let Some(reqq) = self.reqq {
                d.key("reqq").int(i64::from(reqq));
            }
            if let Some(upload_only) = self.upload_only {
                d.key("upload_only").int(i64::from(upload_only));
            }
            if let Some(client) = &self.client {
                d.key("v").bytes(client);
            }
            match self.yourip {
                Some(IpAddr::V4(ip)) => d.key("yourip").bytes(ip.octets()),
                Some(IpAddr::V6(ip)) => d.key("yourip").bytes(ip.octets()),
                None => {}
            }
        });
        out.extend_from_slice(&encoder.into_bytes());
    }

    /// Reads a handshake's payload. Fields with values that cannot be are taken as missing, as
    /// clients differ; what is not a dictionary at all is an error.
    pub fn decode(payload: &[u8]) -> Result<Self, ExtensionError> {
        if payload.len() > MAX_HANDSHAKE_LEN {
            return Err(ExtensionError::TooLong {
                name: HANDSHAKE,
                len: payload.len(),
            });
        }
        // Some clients pad the dictionary, so what follows it is not looked at.
        let (value, _) =
            bencode::decode_prefix(payload).map_err(|source| ExtensionError::Bencode {
                name: HANDSHAKE,
                source,
            })?;
        let dict = value.as_dict().ok_or(ExtensionError::BadField {
            name: HANDSHAKE,
            field: "dictionary",
        })?;
        let mut ids = ExtensionIds::default();
        if let Some(m) = dict.dict("m") {
            for extension in Extension::ALL {
                if let Some(id) = m.int(extension.name()).and_then(|id| u8::try_from(id).ok()) {
                    ids.set(extension, id);
                }
            }
        }
        let number = |key: &str| dict.int(key).and_then(|n| u32::try_from(n).ok());
        Ok(Self {
            ids,
            client: dict.bytes("v").and_then(client_name),
            port: number("p")
                .and_then(|p| u16::try_from(p).ok())
                .filter(|p| *p != 0),
            metadata_size: number("metadata_size")
                .filter(|n| (1..=crate::metadata::MAX_METADATA_LEN).contains(n)),
            reqq: number("reqq").filter(|n| *n > 0),
            upload_only: dict.int("upload_only").map(|n| n != 0),
            yourip: dict.bytes("yourip").and_then(ip),
            ipv4: dict
                .bytes("ipv4")
                .and_then(octets)
                .map(Ipv4Addr::from_octets),
            ipv6: dict
                .bytes("ipv6")
                .and_then(octets)
                .map(Ipv6Addr::from_octets),
            overlay: dict
                .bytes("overlay")
                .filter(|place| place.len() == compact::V6_LEN)
                .and_then(|place| compact::decode_v6(place).next())
                .filter(|place| is_overlay(place.ip()) && place.port() != 0),
        })
    }
}

/// A name fit to be shown: no control characters, of bounded length, none if nothing is left.
fn client_name(bytes: &[u8]) -> Option<String> {
    let name: String = String::from_utf8_lossy(bytes.get(..1024).unwrap_or(bytes))
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_CLIENT_CHARS)
        .collect();
    (!name.is_empty()).then_some(name)
}

fn octets<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    octets::<4>(bytes)
        .map(IpAddr::from)
        .or_else(|| octets::<16>(bytes).map(IpAddr::from))
}

/// The payload of `lt_donthave`: a piece that the sender no longer has.
pub fn encode_dont_have(piece: u32) -> [u8; 4] {
    piece.to_be_bytes()
}

/// Reads the payload of `lt_donthave`.
pub fn decode_dont_have(payload: &[u8]) -> Result<u32, ExtensionError> {
    octets(payload)
        .map(u32::from_be_bytes)
        .ok_or(ExtensionError::BadField {
            name: "lt_donthave",
            field: "piece",
        })
}

/// Reads the payload of `upload_only`: one byte, not zero if the sender wants nothing more.
pub fn decode_upload_only(payload: &[u8]) -> Result<bool, ExtensionError> {
    octets::<1>(payload)
        .map(|[flag]| flag != 0)
        .ok_or(ExtensionError::BadField {
            name: "upload_only",
            field: "flag",
        })
}

#[cfg(test)]
mod tests;
