//! Where each partition's run stands in a map output.
//!
//! ```text
//! index := "SHOALIDX" | version 1 (u32 LE) | partitions (u32 LE) | entry* | crc32c of all before (u32 LE)
//! entry := offset | stored length | raw length | records      (u64 LE each)
//! ```

use super::super::error::DataError;

const MAGIC: [u8; 8] = *b"SHOALIDX";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 32;
const SUM_BYTES: usize = 4;

/// One partition's run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexEntry {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length as stored, in bytes.
    pub stored_len: u64,
    /// Its records' length, in bytes.
    pub raw_len: u64,
    /// How many records it has; a run without any need not be fetched.
    pub records: u64,
}

/// All runs of one map output, by partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// One entry for each reduce task.
    pub entries: Vec<IndexEntry>,
}

impl Index {
    /// The bytes of an index file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out =
            Vec::with_capacity(HEADER_BYTES + ENTRY_BYTES * self.entries.len() + SUM_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        // Partitions are numbered by u32.
        out.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        for e in &self.entries {
            for field in [e.offset, e.stored_len, e.raw_len, e.records] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// Reads the bytes of an index file.
    ///
    /// # Errors
    /// [`DataError::Index`] when they are not what [`Index::encode`] writes, or claim runs that
    /// overlap or leave gaps.
    pub fn decode(bytes: &[u8]) -> Result<Self, DataError> {
        let wrong = DataError::Index;
        let (body, sum) = bytes
            .split_last_chunk::<SUM_BYTES>()
            .ok_or(wrong("is cut off"))?;
        let header = body
            .first_chunk::<HEADER_BYTES>()
            .ok_or(wrong("is cut off"))?;
        let [magic @ .., _, _, _, _, _, _, _, _] = *header;
        let [.., v0, v1, v2, v3, n0, n1, n2, n3] = *header;
        if magic != MAGIC {
            return Err(wrong("does not begin as one"));
        }
        if u32::from_le_bytes([v0, v1, v2, v3]) != VERSION {
            return Err(wrong("is of an unknown version"));
        }
        if crc32c::crc32c(body) != u32::from_le_bytes(*sum) {
            return Err(wrong("is damaged: its checksum differs"));
        }
        let entries = body.get(HEADER_BYTES..).unwrap_or_default();
        let count = u32::from_le_bytes([n0, n1, n2, n3]) as usize;
        if entries.len() % ENTRY_BYTES != 0 || entries.len() / ENTRY_BYTES != count {
            return Err(wrong("has another number of entries than it says"));
        }
        let mut index = Self::default();
        let mut end = 0u64;
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            let field = |n: usize| {
                entry
                    .get(n * 8..)
                    .and_then(|rest| rest.first_chunk())
                    .map_or(0, |bytes| u64::from_le_bytes(*bytes))
            };
            let entry = IndexEntry {
                offset: field(0),
                stored_len: field(1),
                raw_len: field(2),
                records: field(3),
            };
            if entry.offset != end {
                return Err(wrong("has runs that do not follow each other"));
            }
            end = end
                .checked_add(entry.stored_len)
                .ok_or(wrong("has an impossible length"))?;
            index.entries.push(entry);
        }
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_index_comes_back(lens in proptest::collection::vec((0..1u64 << 40, any::<u64>(), any::<u64>()), 0..20)) {
            let mut index = Index::default();
            let mut offset = 0;
            for (stored_len, raw_len, records) in lens {
                index.entries.push(IndexEntry { offset, stored_len, raw_len, records });
                offset += stored_len;
            }
            let bytes = index.encode();
            prop_assert_eq!(Index::decode(&bytes).expect("ours"), index);
            for len in 0..bytes.len() {
                prop_assert!(Index::decode(&bytes[..len]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_an_index_or_an_error(bytes in any::<Vec<u8>>()) {
            let _ = Index::decode(&bytes);
        }
    }
}
