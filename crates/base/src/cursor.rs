//! A reader over a byte slice that cannot run past its end.

/// The input ended before a field did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{needed} more bytes wanted at offset {at}, only {left} left")]
pub struct Truncated {
    /// Offset of the field.
    pub at: usize,
    /// Length of the field.
    pub needed: usize,
    /// Bytes that were left.
    pub left: usize,
}

/// Reads fields one after another, big-endian unless their name says otherwise; every read is
/// checked.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the first byte of `all`.
    pub fn new(all: &'a [u8]) -> Self {
        Self { all, at: 0 }
    }

    /// Offset of the next unread byte.
    pub fn position(&self) -> usize {
        self.at
    }

    /// All bytes not yet read, without reading them.
    pub fn rest(&self) -> &'a [u8] {
        &self.all[self.at..]
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.at == self.all.len()
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Truncated> {
        let rest = self.rest();
        let Some(head) = rest.get(..n) else {
            return Err(Truncated {
                at: self.at,
                needed: n,
                left: rest.len(),
            });
        };
        self.at += n;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        Ok(self.array::<1>()?[0])
    }

    /// A big-endian 16-bit number.
    pub fn u16(&mut self) -> Result<u16, Truncated> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// A little-endian 16-bit number.
    pub fn u16_le(&mut self) -> Result<u16, Truncated> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A little-endian 32-bit number.
    pub fn u32_le(&mut self) -> Result<u32, Truncated> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A big-endian 32-bit number.
    pub fn u32(&mut self) -> Result<u32, Truncated> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A big-endian 64-bit number.
    pub fn u64(&mut self) -> Result<u64, Truncated> {
        Ok(u64::from_be_bytes(self.array()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_and_reports_the_missing_one() {
        let mut c = Cursor::new(&[1, 0, 2, 0, 0, 0, 3, 9]);
        assert_eq!((c.u8(), c.u16(), c.u32()), (Ok(1), Ok(2), Ok(3)));
        assert_eq!(
            c.u16(),
            Err(Truncated {
                at: 7,
                needed: 2,
                left: 1
            })
        );
        assert_eq!(c.rest(), &[9]);
        let mut c = Cursor::new(&[1, 2, 3, 4, 5, 6]);
        assert_eq!((c.u16_le(), c.u32_le()), (Ok(0x201), Ok(0x605_0403)));
    }
}
