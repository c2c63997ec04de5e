//! DIME (draft-nielsen-dime-02): several records in one stream of bytes. Hash trees travel in it.

/// The version of DIME that all speak.
const VERSION: u8 = 1;
const BEGIN: u8 = 4;
const END: u8 = 2;
const CHUNK: u8 = 1;
const HEADER: usize = 12;
/// Records of a message that are read at most.
const MAX_RECORDS: usize = 16;

/// What the type of a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeFormat {
    /// A media type.
    Media,
    /// An absolute URI.
    Uri,
    /// Something else.
    Other(u8),
}

impl TypeFormat {
    fn code(self) -> u8 {
        match self {
            Self::Media => 1,
            Self::Uri => 2,
            Self::Other(code) => code & 15,
        }
    }
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What `kind` is.
    pub format: TypeFormat,
    /// Its name, to which other records may refer.
    pub id: &'a [u8],
    /// Its type.
    pub kind: &'a [u8],
    /// Its content.
    pub data: &'a [u8],
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DimeError {
    /// They end within a record, or before the last.
    #[error("the message ends early")]
    Truncated,
    /// Of another version, or it does not begin at the beginning.
    #[error("not a DIME message of version 1")]
    Syntax,
    /// A record in chunks: nobody writes them for hash trees.
    #[error("a record in chunks")]
    Chunked,
    /// More records than anybody needs.
    #[error("more than {MAX_RECORDS} records")]
    TooMany,
}

/// Cuts `len` bytes, padded to four, off the front. The padding of the last may be missing.
fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], DimeError> {
    let (part, after) = rest.split_at_checked(len).ok_or(DimeError::Truncated)?;
    let pad = len.next_multiple_of(4) - len;
    *rest = after.get(pad..).unwrap_or_default();
    Ok(part)
}

/// Reads a message.
///
/// # Errors
/// [`DimeError`].
pub fn read(mut rest: &[u8]) -> Result<Vec<Record<'_>>, DimeError> {
    let mut records = Vec::new();
    loop {
        let (header, after) = rest
            .split_first_chunk::<HEADER>()
            .ok_or(DimeError::Truncated)?;
        rest = after;
        let [first, format, o0, o1, i0, i1, t0, t1, d0, d1, d2, d3] = *header;
        let is_first = records.is_empty();
        if first >> 3 != VERSION || is_first != (first & BEGIN != 0) {
            return Err(DimeError::Syntax);
        }
        if first & CHUNK != 0 {
            return Err(DimeError::Chunked);
        }
        if records.len() >= MAX_RECORDS {
            return Err(DimeError::TooMany);
        }
        let short = |a, b| usize::from(u16::from_be_bytes([a, b]));
        take(&mut rest, short(o0, o1))?;
        let id = take(&mut rest, short(i0, i1))?;
        let kind = take(&mut rest, short(t0, t1))?;
        let len = u32::from_be_bytes([d0, d1, d2, d3]);
        let data = take(&mut rest, len as usize)?;
        let format = match format >> 4 {
            1 => TypeFormat::Media,
            2 => TypeFormat::Uri,
            code => TypeFormat::Other(code),
        };
        records.push(Record {
            format,
            id,
            kind,
            data,
        });
        if first & END != 0 {
            return Ok(records);
        }
    }
}

/// Writes a message. Fields are cut to what their lengths can say, data to 4 GiB.
pub fn write(records: &[Record<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (n, record) in records.iter().enumerate() {
        let begin = if n == 0 { BEGIN } else { 0 };
        let end = if n + 1 == records.len() { END } else { 0 };
        let short = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        let (id, kind) = (short(record.id), short(record.kind));
        let len = u32::try_from(record.data.len()).unwrap_or(u32::MAX);
        out.extend([VERSION << 3 | begin | end, record.format.code() << 4, 0, 0]);
        out.extend(id.to_be_bytes());
        out.extend(kind.to_be_bytes());
        out.extend(len.to_be_bytes());
        for (bytes, len) in [
            (record.id, usize::from(id)),
            (record.kind, usize::from(kind)),
            (record.data, len as usize),
        ] {
            out.extend(bytes.get(..len).unwrap_or_default());
            out.resize(out.len().next_multiple_of(4), 0);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_message_is_refused() {
        assert_eq!(read(b""), Err(DimeError::Truncated));
        assert_eq!(read(&[0; 12]), Err(DimeError::Syntax));
        let mut message = write(&[Record {
            format: TypeFormat::Media,
            id: b"",
            kind: b"text/xml",
            data: b"abcde",
        }]);
        assert_eq!(message.len(), 12 + 8 + 8);
        assert_eq!(read(&message[..24]), Err(DimeError::Truncated));
        assert!(read(&message[..25]).is_ok(), "padding may be missing");
        message[0] |= CHUNK;
        assert_eq!(read(&message), Err(DimeError::Chunked));
        message[0] = VERSION << 3;
        assert_eq!(read(&message), Err(DimeError::Syntax));
        // Claims 4 GiB.
        let huge = [
            VERSION << 3 | BEGIN | END,
            16,
            0,
            0,
            0,
            0,
            0,
            0,
            255,
            255,
            255,
            255,
        ];
        assert_eq!(read(&huge), Err(DimeError::Truncated));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(parts in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>(), any::<Vec<u8>>()), 1..5)) {
            let records: Vec<_> = parts.iter().map(|(id, kind, data)| Record {
                format: TypeFormat::Uri,
                id,
                kind,
                data,
            }).collect();
            let bytes = write(&records);
            prop_assert_eq!(read(&bytes), Ok(records));
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(mut bytes: Vec<u8>) {
            let _ = read(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = VERSION << 3 | BEGIN | END;
            }
            let _ = read(&bytes);
        }
    }
}
