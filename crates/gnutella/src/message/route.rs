//! Updates of query routing tables: RESET and PATCH (QRP 0.6 §"Message formats").

use shoal_base::Cursor;

use super::Malformed;

/// The longest table that is taken: 2^21 slots, what gtk-gnutella takes.
pub const MAX_SLOTS: u32 = 1 << 21;

/// An update, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'a> {
    /// Forget the table; the new one has this many slots, all at `infinity`.
    Reset {
        /// A power of two.
        slots: u32,
        /// The value that means "not here".
        infinity: u8,
    },
    /// Changes of slots.
    Patch(Patch<'a>),
}

/// One of a sequence of messages that change a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch<'a> {
    /// Which of the sequence, from one.
    pub seq: u8,
    /// How many there are.
    pub of: u8,
    /// Whether the data of all parts together are one zlib stream.
    pub packed: bool,
    /// Bits of an entry: 1 (a toggle), 4 or 8 (what is added, two's complement).
    pub bits: u8,
    /// The entries.
    pub data: &'a [u8],
}

impl<'a> Route<'a> {
    /// Reads a payload.
    ///
    /// # Errors
    /// It ends early, or a number is out of range.
    pub fn read(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut c = Cursor::new(payload);
        match c.u8()? {
            0 => {
                let slots = c.u32_le()?;
                if !slots.is_power_of_two() || !(8..=MAX_SLOTS).contains(&slots) {
                    return Err(Malformed::Range("number of slots"));
                }
                let infinity = c.u8()?;
                Ok(Self::Reset { slots, infinity })
            }
            1 => {
                let [seq, of, packed, bits] = c.array()?;
                if seq == 0 || seq > of {
                    return Err(Malformed::Range("sequence number"));
                }
                if packed > 1 {
                    return Err(Malformed::Range("compressor"));
                }
                if !matches!(bits, 1 | 4 | 8) {
                    return Err(Malformed::Range("bits of an entry"));
                }
                Ok(Self::Patch(Patch {
                    seq,
                    of,
                    packed: packed == 1,
                    bits,
                    data: c.rest(),
                }))
            }
            _ => Err(Malformed::Range("variant")),
        }
    }

    /// The payload.
    pub fn write(&self) -> Vec<u8> {
        match self {
            Self::Reset { slots, infinity } => {
                [&[0][..], &slots.to_le_bytes(), &[*infinity]].concat()
            }
            Self::Patch(p) => [&[1, p.seq, p.of, u8::from(p.packed), p.bits][..], p.data].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            power in 3_u32..=21,
            infinity: u8,
            of in 1_u8..,
            packed: bool,
            bits in prop::sample::select(&[1_u8, 4, 8][..]),
            data: Vec<u8>,
        ) {
            let reset = Route::Reset { slots: 1 << power, infinity };
            let bytes = reset.write();
            prop_assert_eq!(Route::read(&bytes), Ok(reset));
            let patch = Route::Patch(Patch { seq: of / 2 + 1, of, packed, bits, data: &data });
            let bytes = patch.write();
            prop_assert_eq!(Route::read(&bytes), Ok(patch));
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes: Vec<u8>, variant in 0_u8..3) {
            let bytes = [&[variant], &bytes[..]].concat();
            if let Ok(route) = Route::read(&bytes) {
                prop_assert!(bytes.starts_with(&route.write()));
            }
        }
    }
}
