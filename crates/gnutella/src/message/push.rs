//! Push: a request to connect to somebody and offer a file (0.4 §"Push").

use std::net::{Ipv4Addr, SocketAddrV4};

use shoal_base::Cursor;

use super::Malformed;
use crate::guid::Guid;

/// Who is to connect, where to, and for which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Push {
    /// The servent that shares the file.
    pub servent: Guid,
    /// The file's number there.
    pub index: u32,
    /// Where to connect.
    pub addr: SocketAddrV4,
}

impl Push {
    /// Reads a payload; extensions are left aside.
    ///
    /// # Errors
    /// It ends early.
    pub fn read(payload: &[u8]) -> Result<Self, Malformed> {
        let mut c = Cursor::new(payload);
        Ok(Self {
            servent: Guid(c.array()?),
            index: c.u32_le()?,
            addr: SocketAddrV4::new(Ipv4Addr::from(c.array::<4>()?), c.u16_le()?),
        })
    }

    /// The payload.
    pub fn write(&self) -> Vec<u8> {
        let mut out = self.servent.0.to_vec();
        out.extend_from_slice(&self.index.to_le_bytes());
        super::write_address(self.addr, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(servent: [u8; 16], index: u32, ip: [u8; 4], port: u16) {
            let addr = SocketAddrV4::new(ip.into(), port);
            let push = Push { servent: Guid(servent), index, addr };
            let mut bytes = push.write();
            prop_assert_eq!(bytes.len(), 26);
            prop_assert!(Push::read(&bytes[..25]).is_err());
            bytes.push(0xc3);
            prop_assert_eq!(Push::read(&bytes), Ok(push));
        }
    }
}
