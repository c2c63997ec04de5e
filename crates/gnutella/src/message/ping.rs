//! Ping and Pong (0.4 §"Ping", "Pong"), with the extensions that ask for and carry cached hosts
//! (SCP, IPP), and what pongs say of their sender (DU, UP, VC).

use std::net::SocketAddrV4;

use shoal_base::Cursor;

use super::{Malformed, port_and_ip, read_addresses, write_address};
use crate::ggep::{self, Writer};

/// Addresses of packed hosts that are read from one pong at most.
pub const MAX_PACKED: usize = 64;

/// What a ping asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ping {
    /// Asks for cached hosts (SCP): whether those wanted are ultrapeers with free slots for
    /// ultrapeers (true) or for leaves (false).
    pub cached: Option<bool>,
}

impl Ping {
    /// Reads a payload.
    ///
    /// # Errors
    /// A block of extensions that cannot be read.
    pub fn read(payload: &[u8]) -> Result<Self, Malformed> {
        let mut ping = Self::default();
        if payload.first() == Some(&ggep::MAGIC) {
            let (items, _) = ggep::read(payload)?;
            ping.cached = ggep::find(&items, b"SCP")
                .map(|data| data.first().is_some_and(|flags| flags & 1 != 0));
        }
        Ok(ping)
    }

    /// The payload.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(ultrapeers) = self.cached {
            Writer::new(&mut out, false)
                .item(b"SCP", &[u8::from(ultrapeers)])
                .finish();
        }
        out
    }
}

/// Free slots that an ultrapeer's pong tells (UP).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots {
    /// For leaves.
    pub leaves: u8,
    /// For ultrapeers.
    pub ultrapeers: u8,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pong {
    /// Where it listens.
    pub addr: SocketAddrV4,
    /// Files it shares.
    pub files: u32,
    /// Their size in KiB.
    pub kib: u32,
    /// Its average uptime a day in seconds (DU).
    pub uptime: Option<u32>,
    /// That it is an ultrapeer, and its slots (UP).
    pub slots: Option<Slots>,
    /// Hosts it knows (IPP), in answer to SCP.
    pub packed: Vec<SocketAddrV4>,
}

impl Pong {
    /// One that says only this.
    pub fn new(addr: SocketAddrV4, files: u32, kib: u32) -> Self {
        Self {
            addr,
            files,
            kib,
            uptime: None,
            slots: None,
            packed: Vec::new(),
        }
    }

    /// Reads a payload. Extensions that cannot be read are passed over: the address is what counts.
    ///
    /// # Errors
    /// It ends early.
    pub fn read(payload: &[u8]) -> Result<Self, Malformed> {
        let mut c = Cursor::new(payload);
        let addr = port_and_ip(&mut c)?;
        let mut pong = Self::new(addr, c.u32_le()?, c.u32_le()?);
        let Ok((items, _)) = ggep::read(c.rest()) else {
            return Ok(pong);
        };
        pong.uptime = ggep::find(&items, b"DU").and_then(read_number);
        if let Some(&[_, leaves, ultrapeers, ..]) = ggep::find(&items, b"UP") {
            pong.slots = Some(Slots { leaves, ultrapeers });
        }
        if let Some(data) = ggep::find(&items, b"IPP") {
            pong.packed = read_addresses(data).take(MAX_PACKED).collect();
        }
        Ok(pong)
    }

    /// Whether its sender is an ultrapeer: it says so, or its KiB are a power of two of at least 8
    /// (how older ultrapeers mark their pongs).
    pub fn ultrapeer(&self) -> bool {
        self.slots.is_some() || self.kib >= 8 && self.kib.is_power_of_two()
    }

    /// The payload.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&self.addr.port().to_le_bytes());
        out.extend_from_slice(&self.addr.ip().octets());
        out.extend_from_slice(&self.files.to_le_bytes());
        out.extend_from_slice(&self.kib.to_le_bytes());
        let mut w = Writer::new(&mut out, false);
        if let Some(uptime) = self.uptime {
            w.item(b"DU", trim(&uptime.to_le_bytes()));
        }
        if let Some(slots) = self.slots {
            w.item(b"UP", &[2, slots.leaves, slots.ultrapeers]);
        }
        if !self.packed.is_empty() {
            let mut hosts = Vec::with_capacity(self.packed.len() * 6);
            for addr in self.packed.iter().take(MAX_PACKED) {
                write_address(*addr, &mut hosts);
            }
            w.item(b"IPP", &hosts);
        }
        w.finish();
        out
    }
}

/// A little-endian number without its trailing zeros, as GGEP has them.
pub(super) fn read_number(data: &[u8]) -> Option<u32> {
    let mut bytes = [0; 4];
    bytes.get_mut(..data.len())?.copy_from_slice(data);
    Some(u32::from_le_bytes(bytes))
}

pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    let len = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    bytes.get(..len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pong_is_laid_out_as_0_4_says() {
        let pong = Pong::new("44.20.1.1:6346".parse().unwrap(), 3, 1024);
        assert_eq!(
            pong.write(),
            [0xca, 0x18, 44, 20, 1, 1, 3, 0, 0, 0, 0, 4, 0, 0]
        );
        assert!(pong.ultrapeer());
    }

    proptest! {
        #[test]
        fn pongs_round_trip(
            addr: ([u8; 4], u16),
            files: u32,
            kib: u32,
            uptime: Option<u32>,
            slots: Option<(u8, u8)>,
            packed in prop::collection::vec(any::<([u8; 4], u16)>(), 0..20),
        ) {
            let host = |(ip, port): ([u8; 4], u16)| SocketAddrV4::new(ip.into(), port);
            let pong = Pong {
                addr: host(addr),
                files,
                kib,
                uptime,
                slots: slots.map(|(leaves, ultrapeers)| Slots { leaves, ultrapeers }),
                packed: packed.into_iter().map(host).collect(),
            };
            prop_assert_eq!(Pong::read(&pong.write()), Ok(pong));
        }

        #[test]
        fn pings_round_trip(cached: Option<bool>) {
            let ping = Ping { cached };
            prop_assert_eq!(Ping::read(&ping.write()), Ok(ping));
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Ping::read(&bytes);
            let _ = Pong::read(&[&[0; 14][..], &[ggep::MAGIC], &bytes].concat());
            prop_assert_eq!(Pong::read(&bytes).is_ok(), bytes.len() >= 14);
        }
    }
}
