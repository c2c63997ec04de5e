//! QueryHit: files that match a query, and who shares them (0.4 §"QueryHit", the Query Hit
//! Descriptor, HUGE 0.94).

use std::net::{SocketAddrV4, SocketAddrV6};

use shoal_base::Cursor;

use super::vendor::MAX_TOKEN;
use super::{Malformed, port_and_ip, read_addresses, write_address};
use crate::ggep::{self, Writer};
use crate::guid::Guid;
use crate::huge::{Extension, Sha1, TigerRoot, Urn, extensions, urn_of_ggep};
use crate::overlay;
use crate::shared::SharedFile;

/// Other sources of a file, and push proxies of a servent, that are read at most.
pub const MAX_SOURCES: usize = 32;
/// Where a hit's results are cut into several messages, in bytes of payload.
pub const FULL: usize = 4096;

const PUSH: u8 = 0x01;
const BUSY: u8 = 0x04;
const UPLOADED: u8 = 0x08;
const SPEED: u8 = 0x10;
const GGEP: u8 = 0x20;

/// A file that somebody shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'a> {
    /// Its number there.
    pub index: u32,
    /// Its size in bytes.
    pub size: u64,
    /// Its name: data, never a path.
    pub name: &'a [u8],
    /// Its SHA-1.
    pub sha1: Option<Sha1>,
    /// The root of its Tiger tree.
    pub tiger: Option<TigerRoot>,
    /// Who else shares it (ALT).
    pub sources: Vec<SocketAddrV4>,
}

/// What a servent says of itself behind its results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// It cannot be connected to, and waits for a Push.
    pub firewalled: Option<bool>,
    /// All its slots are taken.
    pub busy: Option<bool>,
    /// Somebody did fetch from it.
    pub uploaded: Option<bool>,
    /// The speed was measured.
    pub measured: Option<bool>,
}

/// The files of one servent that match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit<'a> {
    /// Where it serves.
    pub addr: SocketAddrV4,
    /// Its upload speed in kbit/s.
    pub speed: u32,
    /// What it shares.
    pub results: Vec<Found<'a>>,
    /// The program's vendor, four letters; NULs when it does not say.
    pub vendor: [u8; 4],
    /// What it says of itself.
    pub status: Status,
    /// Who passes a Push on to it (PUSH).
    pub proxies: Vec<SocketAddrV4>,
    /// That it may be browsed (BH).
    pub browsable: bool,
    /// That it speaks TLS (TLS).
    pub tls: bool,
    /// Where it is on the overlay, an extension of ours.
    pub overlay: Option<SocketAddrV6>,
    /// What a search out of band must see again (SO); empty if there is none.
    pub token: Vec<u8>,
    /// Names it; a Push is sent to this.
    pub servent: Guid,
}

/// How many results a payload claims, and whose they are: what a node that passes it on needs.
pub fn peek(payload: &[u8]) -> Option<(u8, Guid)> {
    // The fixed head, one result of at least ten bytes, and the servent's name.
    if payload.len() < 11 + 10 + 16 {
        return None;
    }
    let count = *payload.first()?;
    let (_, servent) = payload.split_last_chunk::<16>()?;
    (count > 0).then_some((count, Guid(*servent)))
}

impl<'a> Hit<'a> {
    /// Reads a payload.
    ///
    /// # Errors
    /// It ends early.
    pub fn read(payload: &'a [u8]) -> Result<Self, Malformed> {
        let (rest, servent) = payload
            .split_last_chunk::<16>()
            .ok_or(Malformed::Unterminated)?;
        let mut c = Cursor::new(rest);
        let count = c.u8()?;
        let addr = port_and_ip(&mut c)?;
        let speed = c.u32_le()?;
        let mut results = Vec::new();
        for _ in 0..count {
            results.push(found(&mut c)?);
        }
        let mut hit = Self {
            addr,
            speed,
            results,
            vendor: [0; 4],
            status: Status::default(),
            proxies: Vec::new(),
            browsable: false,
            tls: false,
            overlay: None,
            token: Vec::new(),
            servent: Guid(*servent),
        };
        // A trailer that cannot be read costs the trailer.
        let _ = hit.trailer(&mut c);
        Ok(hit)
    }

    fn trailer(&mut self, c: &mut Cursor<'a>) -> Result<(), Malformed> {
        if c.is_empty() {
            return Ok(());
        }
        self.vendor = c.array()?;
        let len = usize::from(c.u8()?);
        let open = c.take(len)?;
        let Some(&[first, second]) = open.get(..2).and_then(|two| two.first_chunk::<2>()) else {
            return Ok(());
        };
        // The first byte says which of the second's bits mean something; for PUSH the roles are
        // swapped (0.6 §2.2.6).
        let told = |bit| (first & bit != 0).then_some(second & bit != 0);
        self.status = Status {
            firewalled: (second & PUSH != 0).then_some(first & PUSH != 0),
            busy: told(BUSY),
            uploaded: told(UPLOADED),
            measured: told(SPEED),
        };
        if told(GGEP) != Some(true) {
            return Ok(());
        }
        let private = c.rest();
        let at = private.iter().position(|b| *b == ggep::MAGIC);
        let Some(block) = at.and_then(|at| private.get(at..)) else {
            return Ok(());
        };
        let (items, _) = ggep::read(block)?;
        self.browsable = ggep::find(&items, b"BH").is_some();
        self.tls = ggep::find(&items, b"TLS").is_some();
        self.overlay = ggep::find(&items, overlay::GGEP).and_then(overlay::read);
        if let Some(token) = ggep::find(&items, b"SO") {
            self.token = token.get(..MAX_TOKEN).unwrap_or(token).to_vec();
        }
        if let Some(data) = ggep::find(&items, b"PUSH") {
            self.proxies = read_addresses(data).take(MAX_SOURCES).collect();
        }
        Ok(())
    }
}

fn found<'a>(c: &mut Cursor<'a>) -> Result<Found<'a>, Malformed> {
    let index = c.u32_le()?;
    let size = c.u32_le()?;
    let name = until_nul(c)?;
    let area = until_nul(c)?;
    let mut found = Found {
        index,
        size: u64::from(size),
        name,
        sha1: None,
        tiger: None,
        sources: Vec::new(),
    };
    for extension in extensions(area) {
        match extension {
            Extension::Urn(urn) => found.learn(urn),
            Extension::Ggep(items) => {
                for item in &items {
                    match item.id {
                        b"H" => {
                            if let Some(urn) = urn_of_ggep(&item.data) {
                                found.learn(urn);
                            }
                        }
                        b"TT" | b"TTH" => {
                            let root = (*item.data).try_into().ok().map(TigerRoot);
                            found.tiger = root.or(found.tiger);
                        }
                        b"LF" => {
                            let mut bytes = [0; 8];
                            if let Some(head) = bytes.get_mut(..item.data.len()) {
                                head.copy_from_slice(&item.data);
                                found.size = u64::from_le_bytes(bytes);
                            }
                        }
                        b"ALT" => {
                            let left = MAX_SOURCES - found.sources.len();
                            found.sources.extend(read_addresses(&item.data).take(left));
                        }
                        _ => {}
                    }
                }
            }
            Extension::WantsUrns | Extension::Text(_) => {}
        }
    }
    Ok(found)
}

impl Found<'_> {
    fn learn(&mut self, urn: Urn) {
        self.sha1 = urn.sha1().or(self.sha1);
        self.tiger = urn.tiger().or(self.tiger);
    }
}

fn until_nul<'a>(c: &mut Cursor<'a>) -> Result<&'a [u8], Malformed> {
    let end = c.rest().iter().position(|b| *b == 0);
    let text = c.take(end.ok_or(Malformed::Unterminated)?)?;
    c.take(1)?;
    Ok(text)
}

/// Who answers: what is the same in all its hits.
#[derive(Debug, Clone)]
pub struct Answerer {
    /// Where it serves.
    pub addr: SocketAddrV4,
    /// Its upload speed in kbit/s.
    pub speed: u32,
    /// Its program's vendor.
    pub vendor: [u8; 4],
    /// What it says of itself.
    pub status: Status,
    /// Who passes a Push on to it.
    pub proxies: Vec<SocketAddrV4>,
    /// That it may be browsed.
    pub browsable: bool,
    /// That it speaks TLS.
    pub tls: bool,
    /// Where it is on the overlay.
    pub overlay: Option<SocketAddrV6>,
    /// Names it.
    pub servent: Guid,
}

impl Answerer {
    /// Writes payloads for all of `files`, each of about [`FULL`] bytes at most, and hands each to
    /// `each`.
    pub fn write(&self, files: &[SharedFile], each: impl FnMut(&[u8])) {
        self.write_parts(files, FULL, &[], each);
    }

    /// As [`Self::write`], with payloads of about `full` bytes that repeat a search's token.
    pub fn write_parts(
        &self,
        files: &[SharedFile],
        full: usize,
        token: &[u8],
        mut each: impl FnMut(&[u8]),
    ) {
        let mut out = Vec::new();
        let mut count = 0_u8;
        for file in files {
            if count == 0 {
                self.head(&mut out);
            }
            result(file, &mut out);
            count += 1;
            if count == u8::MAX || out.len() >= full {
                self.end(count, token, &mut out);
                each(&out);
                count = 0;
            }
        }
        if count > 0 {
            self.end(count, token, &mut out);
            each(&out);
        }
    }

    fn head(&self, out: &mut Vec<u8>) {
        out.clear();
        out.push(0);
        out.extend_from_slice(&self.addr.port().to_le_bytes());
        out.extend_from_slice(&self.addr.ip().octets());
        out.extend_from_slice(&self.speed.to_le_bytes());
    }

    fn end(&self, count: u8, token: &[u8], out: &mut Vec<u8>) {
        if let Some(first) = out.first_mut() {
            *first = count;
        }
        let mut block = Vec::new();
        let mut w = Writer::new(&mut block, false);
        if self.browsable {
            w.item(b"BH", &[]);
        }
        if !self.proxies.is_empty() {
            let mut hosts = Vec::new();
            for addr in self.proxies.iter().take(MAX_SOURCES) {
                write_address(*addr, &mut hosts);
            }
            w.item(b"PUSH", &hosts);
        }
        if let Some(addr) = &self.overlay {
            w.item(overlay::GGEP, &overlay::write(addr));
        }
        if !token.is_empty() {
            w.item(b"SO", token);
        }
        if self.tls {
            w.item(b"TLS", &[]);
        }
        w.finish();
        let s = &self.status;
        let (mut first, mut second) = (0, 0);
        for (bit, value) in [(BUSY, s.busy), (UPLOADED, s.uploaded), (SPEED, s.measured)] {
            if let Some(value) = value {
                first |= bit;
                second |= if value { bit } else { 0 };
            }
        }
        if let Some(firewalled) = s.firewalled {
            second |= PUSH;
            first |= if firewalled { PUSH } else { 0 };
        }
        if !block.is_empty() {
            first |= GGEP;
            second |= GGEP;
        }
        out.extend_from_slice(&self.vendor);
        out.extend_from_slice(&[2, first, second]);
        out.extend_from_slice(&block);
        out.extend_from_slice(&self.servent.0);
    }
}

fn result(file: &SharedFile, out: &mut Vec<u8>) {
    out.extend_from_slice(&file.index.to_le_bytes());
    let size = u32::try_from(file.size);
    out.extend_from_slice(&size.unwrap_or(u32::MAX).to_le_bytes());
    let name = file.name.as_bytes();
    out.extend(name.iter().take(MAX_NAME).filter(|b| **b != 0));
    out.push(0);
    if let Some(sha1) = file.sha1 {
        out.extend_from_slice(Urn::Sha1(sha1).to_string().as_bytes());
        if file.tiger.is_some() || size.is_err() {
            out.push(crate::huge::SEPARATOR);
        }
    }
    let mut w = Writer::new(out, true);
    if let Some(root) = file.tiger {
        w.item(b"TT", &root.0);
    }
    if size.is_err() {
        w.item(b"LF", super::ping::trim(&file.size.to_le_bytes()));
    }
    w.finish();
    out.push(0);
}

/// Bytes of a name that are sent at most.
const MAX_NAME: usize = 512;

#[cfg(test)]
mod tests;
