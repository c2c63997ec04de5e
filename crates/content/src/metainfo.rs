//! Torrents: the info dictionary and the `.torrent` file around it.
//!
//! BEP 3 (v1), 12 (tracker tiers), 19 (web seeds), 27 (private), 47 (padding, attributes, links)
//! and 52 (v2; read and shown, downloaded only where a v1 part comes with it). Every name is made
//! safe before anything else sees it ([`crate::path`]). Fields that only inform are left out when
//! they are malformed; fields that decide where bytes go are errors that name the field.
//!
//! Left out: `md5sum`, `httpseeds` (BEP 17), `nodes`, `encoding`, signatures.

mod fault;
mod files;
mod info;
mod link;
mod tree;

pub use fault::{Fault, MetainfoError};
pub(crate) use files::{RawFile, lay_out};
pub use info::Info;
pub(crate) use link::Link;
pub(crate) use tree::aligned;

use crate::magnet::Magnet;
use crate::path::Naming;
use crate::url;
use fault::fail;
use shoal_base::bencode::{BencodeError, Dict, Encoder, Value, decode_prefix};
use std::sync::Arc;

/// Longest piece we take, in bytes; longer ones would have to be fetched whole before a single
/// byte could be trusted.
pub const MAX_PIECE_LEN: u32 = 256 << 20;

/// How many trackers and how many web seeds of a file are kept.
const MAX_URLS: usize = 256;

/// A `.torrent` file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metainfo {
    /// What it is about.
    pub info: Info,
    /// Tracker URLs in tiers (BEP 12).
    pub trackers: Vec<Vec<String>>,
    /// URLs of HTTP servers that have the files (BEP 19).
    pub web_seeds: Vec<String>,
    /// Free text.
    pub comment: Option<String>,
    /// The program that made the file.
    pub created_by: Option<String>,
    /// When the file was made, in seconds since 1970.
    pub creation_date: Option<i64>,
    /// The bencoded `piece layers` of a v2 torrent, kept as they are.
    pub piece_layers: Option<Arc<[u8]>>,
}

impl Metainfo {
    /// A file about `info` and nothing else.
    pub fn new(info: Info) -> Self {
        Self {
            info,
            trackers: Vec::new(),
            web_seeds: Vec::new(),
            comment: None,
            created_by: None,
            creation_date: None,
            piece_layers: None,
        }
    }

    /// Reads a `.torrent` file, with names changed as downloads need.
    pub fn parse(file: &[u8]) -> Result<Self, MetainfoError> {
        Self::parse_named(file, Naming::Download)
    }

    /// Reads a `.torrent` file, with names changed as `naming` says.
    pub fn parse_named(file: &[u8], naming: Naming) -> Result<Self, MetainfoError> {
        let (value, used) = decode_prefix(file)?;
        // Files that went through an editor or a mail end in a line feed.
        let rest = file.get(used..).unwrap_or_default();
        if !rest.trim_ascii().is_empty() {
            return Err(BencodeError::Trailing(used).into());
        }
        let top = value.as_dict().ok_or(MetainfoError::NotADictionary)?;
        let info = top
            .get("info")
            .ok_or_else(|| fail("info", Fault::Missing))?
            .as_dict()
            .ok_or_else(|| fail("info", Fault::NotA("a dictionary")))?;
        let text = |key: &str| {
            let utf8 = top.str(format!("{key}.utf-8"));
            utf8.or_else(|| top.str(key)).map(str::to_owned)
        };
        Ok(Self {
            info: Info::from_dict(info, naming)?,
            trackers: read_trackers(top),
            web_seeds: read_web_seeds(top),
            comment: text("comment"),
            created_by: text("created by"),
            creation_date: top.int("creation date"),
            piece_layers: top.dict("piece layers").map(|layers| layers.raw().into()),
        })
    }

    /// The `.torrent` file; its info dictionary is the one that was read.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.dict(|d| {
            let mut all = self.trackers.iter().flatten();
            if let Some(first) = all.next() {
                d.key("announce").bytes(first);
                if all.next().is_some() {
                    d.key("announce-list").list(|tiers| {
                        for tier in self.trackers.iter().filter(|t| !t.is_empty()) {
                            tiers.list(|urls| tier.iter().for_each(|url| urls.bytes(url)));
                        }
                    });
                }
            }
            if let Some(comment) = &self.comment {
                d.key("comment").bytes(comment);
            }
            if let Some(created_by) = &self.created_by {
                d.key("created by").bytes(created_by);
            }
            if let Some(date) = self.creation_date {
                d.key("creation date").int(date);
            }
            d.key("info").raw(self.info.raw());
            if let Some(layers) = &self.piece_layers {
                d.key("piece layers").raw(layers);
            }
            match self.web_seeds.as_slice() {
                [] => {}
                [one] => d.key("url-list").bytes(one),
                many => {
                    let list = d.key("url-list");
                    list.list(|urls| many.iter().for_each(|url| urls.bytes(url)));
                }
            }
        });
        out.into_bytes()
    }

    /// A link that leads others to the same torrent.
    pub fn magnet(&self) -> Magnet {
        Magnet {
            info_hash: self.info.info_hash_v1(),
            info_hash_v2: self.info.info_hash_v2(),
            name: Some(self.info.name.clone()),
            trackers: self.trackers.iter().flatten().cloned().collect(),
            web_seeds: self.web_seeds.clone(),
            ..Magnet::default()
        }
    }
}

/// BEP 12: `announce-list` counts if it is there, else `announce`.
fn read_trackers(top: &Dict<'_>) -> Vec<Vec<String>> {
    let mut seen: Vec<String> = Vec::new();
    let mut tiers = Vec::new();
    for tier in top.list("announce-list").unwrap_or_default() {
        // Some programs leave out the inner list.
        let urls = tier.as_list().unwrap_or(std::slice::from_ref(tier));
        let mut kept = Vec::new();
        for url in urls.iter().filter_map(Value::as_bytes) {
            match url::clean(url) {
                Some(url) if seen.len() < MAX_URLS && !seen.contains(&url) => {
                    seen.push(url.clone());
                    kept.push(url);
                }
                _ => {}
            }
        }
        if !kept.is_empty() {
            tiers.push(kept);
        }
    }
    if tiers.is_empty() {
        let announce = top.bytes("announce").and_then(url::clean);
        tiers.extend(announce.map(|url| vec![url]));
    }
    tiers
}

/// BEP 19: one URL or a list of them.
fn read_web_seeds(top: &Dict<'_>) -> Vec<String> {
    let mut kept = Vec::new();
    let Some(value) = top.get("url-list") else {
        return kept;
    };
    let urls = value.as_list().unwrap_or(std::slice::from_ref(value));
    for url in urls
        .iter()
        .filter_map(Value::as_bytes)
        .filter_map(url::clean)
    {
        if kept.len() < MAX_URLS && !kept.contains(&url) {
            kept.push(url);
        }
    }
    kept
}

#[cfg(test)]
mod tests;
