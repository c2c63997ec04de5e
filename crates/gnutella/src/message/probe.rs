//! Datagrams that ask what a node has and whom it knows: HEAD pings (LIME/23 and 24) and the crawler's
//! (LIME/5 and 6). Nobody documented them; the layouts are those that LimeWire and gtk-gnutella
//! speak.

use std::net::SocketAddrV4;

use shoal_base::Cursor;

use super::{Malformed, read_addresses, write_address};
use crate::ggep::{self, Writer};
use crate::guid::Guid;
use crate::huge::{Extension, Sha1, extensions};

/// Other sources that a HEAD pong names at most.
pub const MAX_ALTERNATES: usize = 15;
/// Neighbours that a crawler is told of at most, of each kind.
pub const MAX_CRAWLED: u8 = 100;

/// "Tell who else has it", a flag of HEAD pings.
const ALTERNATES: u8 = 0x02;
/// "GGEP follows", a flag of HEAD pings.
const GGEP: u8 = 0x10;
/// "Tell since when", a feature of crawler's pings.
const MINUTES: u8 = 0x01;

// What a HEAD pong says of the file.
const COMPLETE: u8 = 0x01;
const PARTIAL: u8 = 0x02;
const FIREWALLED: u8 = 0x04;

/// Asks whether a servent has a file and a slot (LIME/23).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadPing {
    /// Which file.
    pub sha1: Sha1,
    /// Whether to tell who else has it.
    pub alternates: bool,
    /// The leaf that is meant, if not whoever gets this.
    pub servent: Option<Guid>,
    /// Wants the newer answer, in GGEP.
    pub second: bool,
}

impl HeadPing {
    pub(super) fn read(version: u16, c: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let flags = c.u8()?;
        let rest = c.rest();
        let block = rest.iter().position(|b| *b == ggep::MAGIC);
        let (urn, block) = match block.and_then(|at| rest.split_at_checked(at)) {
            Some((urn, block)) => (urn, Some(block)),
            None => (rest, None),
        };
        let mut urns = extensions(urn).filter_map(|e| match e {
            Extension::Urn(urn) => urn.sha1(),
            _ => None,
        });
        let sha1 = urns.next().ok_or(Malformed::Unterminated)?;
        let mut servent = None;
        if flags & GGEP != 0
            && let Some(block) = block
        {
            let (items, _) = ggep::read(block)?;
            servent = ggep::find(&items, b"PUSH").and_then(|d| Some(Guid(*d.first_chunk()?)));
        }
        Ok(Self {
            sha1,
            alternates: flags & ALTERNATES != 0,
            servent,
            second: version >= 2,
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut flags = if self.alternates { ALTERNATES } else { 0 };
        flags |= if self.servent.is_some() { GGEP } else { 0 };
        out.push(flags);
        out.extend_from_slice(crate::huge::Urn::Sha1(self.sha1).to_string().as_bytes());
        if let Some(servent) = self.servent {
            Writer::new(out, false).item(b"PUSH", &servent.0).finish();
        }
    }
}

/// Says whether a servent has a file and a slot (LIME/24).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadPong {
    /// It has all of it.
    pub complete: bool,
    /// It has a part of it.
    pub partial: bool,
    /// Nobody can connect to it.
    pub firewalled: bool,
    /// The program, in four letters.
    pub vendor: [u8; 4],
    /// Free slots if negative, downloaders that wait otherwise; 127 when it serves nobody.
    pub queue: i8,
    /// Who else has it.
    pub alternates: Vec<SocketAddrV4>,
    /// The newer layout, in GGEP.
    pub second: bool,
}

impl HeadPong {
    /// Whether there is anything of it to be had.
    pub fn has_any(&self) -> bool {
        self.complete || self.partial
    }

    pub(super) fn read(version: u16, c: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let mut pong = Self {
            complete: false,
            partial: false,
            firewalled: false,
            vendor: [0; 4],
            queue: 0,
            alternates: Vec::new(),
            second: version >= 2,
        };
        if version < 2 {
            let flags = c.u8()?;
            pong.learn(c.u8()?);
            if pong.has_any() {
                pong.vendor = c.array()?;
                pong.queue = c.u8()? as i8;
                if flags & ALTERNATES != 0 {
                    let len = usize::from(c.u16()?);
                    pong.alternates = read_addresses(c.take(len)?).take(MAX_ALTERNATES).collect();
                }
            }
            return Ok(pong);
        }
        let (items, _) = ggep::read(c.rest())?;
        let first = |id: &[u8]| ggep::find(&items, id).and_then(|d| d.first().copied());
        pong.learn(first(b"C").ok_or(Malformed::Unterminated)?);
        pong.queue = first(b"Q").unwrap_or(0) as i8;
        if let Some(vendor) = ggep::find(&items, b"V").and_then(|d| d.first_chunk()) {
            pong.vendor = *vendor;
        }
        if let Some(hosts) = ggep::find(&items, b"A") {
            pong.alternates = read_addresses(hosts).take(MAX_ALTERNATES).collect();
        }
        Ok(pong)
    }

    fn learn(&mut self, code: u8) {
        self.complete = code & COMPLETE != 0;
        self.partial = !self.complete && code & PARTIAL != 0;
        self.firewalled = code & FIREWALLED != 0;
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut code = match (self.complete, self.partial) {
            (true, _) => COMPLETE,
            (false, true) => PARTIAL,
            (false, false) => 0,
        };
        if self.has_any() && self.firewalled {
            code |= FIREWALLED;
        }
        let mut hosts = Vec::new();
        for addr in self.alternates.iter().take(MAX_ALTERNATES) {
            write_address(*addr, &mut hosts);
        }
        if !self.second {
            let told = self.has_any() && !hosts.is_empty();
            out.extend([if told { ALTERNATES } else { 0 }, code]);
            if self.has_any() {
                out.extend_from_slice(&self.vendor);
                out.push(self.queue as u8);
            }
            if told {
                // The one length of these messages that is big-endian.
                out.extend_from_slice(&(hosts.len() as u16).to_be_bytes());
                out.extend_from_slice(&hosts);
            }
            return;
        }
        let mut w = Writer::new(out, false);
        w.item(b"C", &[code]);
        if self.has_any() {
            w.item(b"Q", &[self.queue as u8]).item(b"V", &self.vendor);
            if !hosts.is_empty() {
                w.item(b"A", &hosts);
            }
        }
        w.finish();
    }
}

/// Asks for a node's neighbours (LIME/5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrawlPing {
    /// Ultrapeers wanted at most; 255 for all.
    pub ultrapeers: u8,
    /// Leaves wanted at most; 255 for all.
    pub leaves: u8,
    /// Whether to tell since when they are there.
    pub minutes: bool,
}

impl CrawlPing {
    pub(super) fn read(c: &mut Cursor<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            ultrapeers: c.u8()?,
            leaves: c.u8()?,
            minutes: c.u8()? & MINUTES != 0,
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend([self.ultrapeers, self.leaves, u8::from(self.minutes)]);
    }
}

/// A node's neighbours (LIME/6): where each listens, and for how many minutes it has been there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CrawlPong {
    /// Ultrapeers.
    pub ultrapeers: Vec<(SocketAddrV4, u16)>,
    /// Leaves.
    pub leaves: Vec<(SocketAddrV4, u16)>,
    /// Whether the minutes are told.
    pub minutes: bool,
}

impl CrawlPong {
    pub(super) fn read(c: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let (ultrapeers, leaves) = (c.u8()?, c.u8()?);
        let mut pong = Self {
            minutes: c.u8()? & MINUTES != 0,
            ..Self::default()
        };
        for n in 0..usize::from(ultrapeers) + usize::from(leaves) {
            let addr = super::ip_and_port(c)?;
            let minutes = if pong.minutes { c.u16_le()? } else { 0 };
            let list = match n < usize::from(ultrapeers) {
                true => &mut pong.ultrapeers,
                false => &mut pong.leaves,
            };
            list.push((addr, minutes));
        }
        Ok(pong)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let part = |list: &[(SocketAddrV4, u16)]| list.len().min(usize::from(MAX_CRAWLED));
        let (ultrapeers, leaves) = (part(&self.ultrapeers), part(&self.leaves));
        out.extend([ultrapeers as u8, leaves as u8, u8::from(self.minutes)]);
        let ultrapeers = self.ultrapeers.iter().take(ultrapeers);
        for (addr, minutes) in ultrapeers.chain(self.leaves.iter().take(leaves)) {
            write_address(*addr, out);
            if self.minutes {
                out.extend_from_slice(&minutes.to_le_bytes());
            }
        }
    }
}
