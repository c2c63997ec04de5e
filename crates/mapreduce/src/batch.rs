//! Records in bulk: the one layout in which keys and values travel through memory, through the
//! shuffle's files and into sandboxes.
//!
//! ```text
//! record := key length (u32, little endian) | value length (u32, little endian) | key | value
//! batch  := record*
//! ```

/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 8;

/// Why bytes are not a batch of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end within a record.
    #[error("the record at byte {at} needs {needed} bytes, {left} are left")]
    Truncated {
        /// Where the record begins.
        at: usize,
        /// What its header promises, the header included.
        needed: u64,
        /// What is there.
        left: usize,
    },
}

/// Appends one record.
///
/// # Errors
/// Hands key or value back as too long when its length does not fit 32 bits; nothing is appended.
pub fn push(batch: &mut Vec<u8>, key: &[u8], value: &[u8]) -> Result<(), TooLong> {
    let header = header(key, value)?;
    batch.reserve(HEADER_BYTES + key.len() + value.len());
    batch.extend_from_slice(&header);
    batch.extend_from_slice(key);
    batch.extend_from_slice(value);
    Ok(())
}

/// What stands before a record's key and value.
///
/// # Errors
/// As for [`push`].
#[inline]
pub(crate) fn header(key: &[u8], value: &[u8]) -> Result<[u8; HEADER_BYTES], TooLong> {
    let len = |what: &[u8]| u32::try_from(what.len()).map_err(|_| TooLong(what.len()));
    let [a, b, c, d] = len(key)?.to_le_bytes();
    let [e, f, g, h] = len(value)?.to_le_bytes();
    Ok([a, b, c, d, e, f, g, h])
}

/// A key or a value of 4 GiB or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key or value of {0} bytes is too long: the limit is 4 GiB")]
pub struct TooLong(pub usize);

/// The records of a batch, in order. Stops after the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// Reads `bytes` as a batch.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let rest = self.bytes.get(at..).filter(|rest| !rest.is_empty())?;
        // From here on an error ends the iteration.
        self.at = self.bytes.len();
        let truncated = |needed: u64| BatchError::Truncated {
            at,
            needed,
            left: rest.len(),
        };
        let Some((header, body)) = rest.split_first_chunk::<HEADER_BYTES>() else {
            return Some(Err(truncated(HEADER_BYTES as u64)));
        };
        let [a, b, c, d, e, f, g, h] = *header;
        let key_len = u32::from_le_bytes([a, b, c, d]) as usize;
        let value_len = u32::from_le_bytes([e, f, g, h]) as usize;
        let Some((key, value)) = body
            .split_at_checked(key_len)
            .and_then(|(key, rest)| Some((key, rest.get(..value_len)?)))
        else {
            let needed = HEADER_BYTES as u64 + key_len as u64 + value_len as u64;
            return Some(Err(truncated(needed)));
        };
        self.at = at + HEADER_BYTES + key_len + value_len;
        Some(Ok((key, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_come_back_as_they_went_in(
            records in proptest::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..20),
        ) {
            let mut batch = Vec::new();
            for (key, value) in &records {
                push(&mut batch, key, value).expect("short");
            }
            let back: Vec<_> = Records::new(&batch)
                .map(|r| r.map(|(k, v)| (k.to_vec(), v.to_vec())))
                .collect::<Result<_, _>>()
                .expect("what push wrote");
            prop_assert_eq!(back, records);
        }

        #[test]
        fn any_bytes_end_in_records_or_one_error(bytes in any::<Vec<u8>>()) {
            let all: Vec<_> = Records::new(&bytes).collect();
            let errors = all.iter().filter(|r| r.is_err()).count();
            prop_assert!(errors <= 1 && all.iter().rev().skip(1).all(Result::is_ok));
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_an_error_that_says_where() {
        let mut batch = Vec::new();
        push(&mut batch, b"k", b"v").expect("short");
        batch.extend_from_slice(&[255; 8]);
        let all: Vec<_> = Records::new(&batch).collect();
        assert_eq!(all.len(), 2);
        assert!(matches!(
            all[1],
            Err(BatchError::Truncated {
                at: 10,
                left: 8,
                ..
            })
        ));
    }
}
