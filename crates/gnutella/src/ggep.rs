//! GGEP, the extensions of messages (GGEP 0.51): a magic byte, then items of an identifier and data
//! that may be deflated and written without NULs.

use std::borrow::Cow;

use flate2::{Compression, Decompress, FlushDecompress, Status};
use shoal_base::{Cursor, cursor::Truncated};

/// The first byte of a block.
pub const MAGIC: u8 = 0xc3;
/// Items of a block that are read at most.
pub const MAX_ITEMS: usize = 64;
/// Bytes of an item's data at most, inflated.
pub const MAX_DATA: usize = 16 << 10;
/// The longest identifier.
pub const MAX_ID: usize = 15;

const LAST: u8 = 0x80;
const COBS: u8 = 0x40;
const DEFLATED: u8 = 0x20;
const RESERVED: u8 = 0x10;

/// Why a block cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GgepError {
    /// It ends early.
    #[error("ends early: {0}")]
    Truncated(#[from] Truncated),
    /// Not a block of this version.
    #[error("not a block of GGEP 0.5")]
    Magic,
    /// An identifier without a byte, or with a NUL.
    #[error("a bad identifier")]
    Id,
    /// A length that is not written as lengths are.
    #[error("a bad length")]
    Length,
    /// Data that is not COBS, does not inflate, or inflates to too much.
    #[error("data that cannot be decoded")]
    Data,
    /// More than [`MAX_ITEMS`].
    #[error("too many items")]
    Many,
}

/// One extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item<'a> {
    /// Which.
    pub id: &'a [u8],
    /// What it says, decoded.
    pub data: Cow<'a, [u8]>,
}

/// Reads one block from the start of `bytes`; says how many bytes it took.
///
/// # Errors
/// Why it cannot be read.
pub fn read(bytes: &[u8]) -> Result<(Vec<Item<'_>>, usize), GgepError> {
    let mut c = Cursor::new(bytes);
    if c.u8()? != MAGIC {
        return Err(GgepError::Magic);
    }
    let mut items = Vec::new();
    loop {
        let flags = c.u8()?;
        if flags & RESERVED != 0 {
            return Err(GgepError::Magic);
        }
        let id = c.take(usize::from(flags & 0x0f))?;
        if id.is_empty() || id.contains(&0) {
            return Err(GgepError::Id);
        }
        let len = read_length(&mut c)?;
        let mut data = Cow::Borrowed(c.take(len)?);
        if flags & COBS != 0 {
            data = Cow::Owned(uncobs(&data).ok_or(GgepError::Data)?);
        }
        if flags & DEFLATED != 0 {
            data = Cow::Owned(inflate(&data).ok_or(GgepError::Data)?);
        }
        if items.len() == MAX_ITEMS {
            return Err(GgepError::Many);
        }
        items.push(Item { id, data });
        if flags & LAST != 0 {
            return Ok((items, c.position()));
        }
    }
}

/// The data of the first item named `id`.
pub fn find<'a>(items: &'a [Item<'_>], id: &[u8]) -> Option<&'a [u8]> {
    items.iter().find(|i| i.id == id).map(|i| &*i.data)
}

fn read_length(c: &mut Cursor<'_>) -> Result<usize, GgepError> {
    let mut len = 0;
    for _ in 0..3 {
        let byte = c.u8()?;
        len = len << 6 | usize::from(byte & 0x3f);
        match byte >> 6 {
            0b01 => return Ok(len),
            0b10 => {}
            _ => break,
        }
    }
    Err(GgepError::Length)
}

fn write_length(len: usize, out: &mut Vec<u8>) {
    for (shift, mark) in [(12, 0x80), (6, 0x80), (0, 0x40)] {
        if shift == 0 || len >> shift > 0 {
            out.push(mark | (len >> shift & 0x3f) as u8);
        }
    }
}

/// Consistent overhead byte stuffing (Cheshire and Baker 1997): runs without NULs, each led by its
/// length plus one; 0xff leads 254 bytes behind which no NUL stood.
fn uncobs(data: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(data.len());
    let mut rest = data;
    while let Some((&code, after)) = rest.split_first() {
        let (run, after) = after.split_at_checked(usize::from(code.checked_sub(1)?))?;
        if run.contains(&0) {
            return None;
        }
        out.extend_from_slice(run);
        if code != 0xff && !after.is_empty() {
            out.push(0);
        }
        rest = after;
    }
    Some(out)
}

fn cobs(data: &[u8], out: &mut Vec<u8>) {
    for mut run in data.split(|b| *b == 0) {
        // A run of exactly 254 bytes that ends the data, or stands before a NUL, needs an empty run
        // behind it, for 0xff says that no NUL follows.
        while let Some((head, rest)) = run.split_at_checked(254) {
            out.push(0xff);
            out.extend_from_slice(head);
            run = rest;
        }
        out.push(run.len() as u8 + 1);
        out.extend_from_slice(run);
    }
}

fn inflate(data: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity((data.len() * 4).clamp(64, MAX_DATA));
    let mut stream = Decompress::new(true);
    loop {
        let (read, written) = (stream.total_in(), stream.total_out());
        let rest = data.get(usize::try_from(read).ok()?..)?;
        let status = stream
            .decompress_vec(rest, &mut out, FlushDecompress::None)
            .ok()?;
        match status {
            Status::StreamEnd => return Some(out),
            _ if out.len() == out.capacity() => {
                if out.len() >= MAX_DATA {
                    return None;
                }
                out.reserve_exact(out.len().min(MAX_DATA - out.len()));
            }
            // Nothing moved though there is room: the stream ends early.
            _ if stream.total_in() == read && stream.total_out() == written => return None,
            _ => {}
        }
    }
}

/// Writes one block.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Where the flags of the last item are.
    last: Option<usize>,
    no_nul: bool,
}

impl<'a> Writer<'a> {
    /// A block at the end of `out`; with `no_nul` data that has NULs is stuffed, as it must be where
    /// a NUL ends the extensions (results of hits, queries).
    pub fn new(out: &'a mut Vec<u8>, no_nul: bool) -> Self {
        Self {
            out,
            last: None,
            no_nul,
        }
    }

    /// Adds an item. One that cannot be written (no or too long an identifier, more than 2^18 bytes)
    /// is left out.
    pub fn item(&mut self, id: &[u8], data: &[u8]) -> &mut Self {
        self.put(id, data, 0)
    }

    /// Adds an item deflated, if that makes it smaller.
    pub fn deflated(&mut self, id: &[u8], data: &[u8]) -> &mut Self {
        let mut packed = Vec::with_capacity(data.len());
        let mut stream = flate2::Compress::new(Compression::default(), true);
        let done = stream.compress_vec(data, &mut packed, flate2::FlushCompress::Finish);
        match done {
            Ok(Status::StreamEnd) if packed.len() < data.len() => self.put(id, &packed, DEFLATED),
            _ => self.put(id, data, 0),
        }
    }

    fn put(&mut self, id: &[u8], data: &[u8], mut flags: u8) -> &mut Self {
        let mut stuffed = Vec::new();
        let mut data = data;
        if self.no_nul && data.contains(&0) {
            cobs(data, &mut stuffed);
            data = &stuffed;
            flags |= COBS;
        }
        let named = (1..=MAX_ID).contains(&id.len()) && !id.contains(&0);
        if !named || data.len() >= 1 << 18 {
            return self;
        }
        if self.last.is_none() {
            self.out.push(MAGIC);
        }
        self.last = Some(self.out.len());
        self.out.push(flags | id.len() as u8);
        self.out.extend_from_slice(id);
        write_length(data.len(), self.out);
        self.out.extend_from_slice(data);
        self
    }

    /// Ends the block. Without an item nothing is written.
    pub fn finish(&mut self) {
        if let Some(flags) = self.last.take().and_then(|at| self.out.get_mut(at)) {
            *flags |= LAST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(items: &[(&[u8], &[u8])], no_nul: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out, no_nul);
        for (id, data) in items {
            w.item(id, data);
        }
        w.finish();
        out
    }

    #[test]
    fn lengths_are_written_as_the_document_shows() {
        for (len, bytes) in [
            (0, &[0x40][..]),
            (63, &[0x7f]),
            (64, &[0x81, 0x40]),
            (4095, &[0xbf, 0x7f]),
            (4096, &[0x81, 0x80, 0x40]),
            (262_143, &[0xbf, 0xbf, 0x7f]),
        ] {
            let mut out = Vec::new();
            write_length(len, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(read_length(&mut Cursor::new(bytes)), Ok(len));
        }
        let open = [0x80, 0x80, 0x80, 0x40];
        assert_eq!(read_length(&mut Cursor::new(&open)), Err(GgepError::Length));
        assert_eq!(
            read_length(&mut Cursor::new(&[0xc0])),
            Err(GgepError::Length)
        );
    }

    #[test]
    fn stuffing_follows_the_paper() {
        for (plain, stuffed) in [
            (&b"\0"[..], &b"\x01\x01"[..]),
            (b"\0\0", b"\x01\x01\x01"),
            (b"11\x22\x003", b"\x0411\x22\x023"),
            (b"", b"\x01"),
        ] {
            let mut out = Vec::new();
            cobs(plain, &mut out);
            assert_eq!(out, stuffed);
            assert_eq!(uncobs(stuffed).as_deref(), Some(plain));
        }
        // A reader takes the paper's shorter form for a run of 254 bytes, too.
        let short: Vec<u8> = std::iter::once(0xff).chain(1..=254).collect();
        assert_eq!(uncobs(&short), Some((1..=254).collect()));
        assert_eq!(uncobs(&[5, 1]), None);
        assert_eq!(uncobs(&[0]), None);
    }

    #[test]
    fn a_bomb_does_not_go_off() {
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out, false);
        w.deflated(b"Z", &vec![0; 4 * MAX_DATA]);
        w.finish();
        assert!(out.len() < 1000);
        assert_eq!(read(&out), Err(GgepError::Data));
    }

    #[test]
    fn a_block_ends_where_it_says() {
        let mut bytes = block(&[(b"SCP", b"\x01"), (b"VC", b"SHOA")], true);
        let len = bytes.len();
        bytes.extend_from_slice(b"\x1crest");
        let (items, used) = read(&bytes).unwrap();
        assert_eq!(used, len);
        assert_eq!(find(&items, b"VC"), Some(&b"SHOA"[..]));
        assert_eq!(find(&items, b"UP"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            items in prop::collection::vec(
                ("[A-Z]{1,15}", prop::collection::vec(0_u8..4, 0..600)), 1..8),
            no_nul: bool,
            packed: bool,
        ) {
            let mut out = Vec::new();
            let mut w = Writer::new(&mut out, no_nul);
            for (id, data) in &items {
                match packed {
                    true => w.deflated(id.as_bytes(), data),
                    false => w.item(id.as_bytes(), data),
                };
            }
            w.finish();
            prop_assert!(!no_nul || !out.contains(&0));
            let (back, used) = read(&out).unwrap();
            prop_assert_eq!(used, out.len());
            let back: Vec<_> = back.iter().map(|i| (i.id, i.data.to_vec())).collect();
            let want: Vec<_> = items.iter().map(|(i, d)| (i.as_bytes(), d.clone())).collect();
            prop_assert_eq!(back, want);
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(mut bytes: Vec<u8>) {
            bytes.insert(0, MAGIC);
            if let Ok((items, used)) = read(&bytes) {
                prop_assert!(used <= bytes.len() && items.len() <= MAX_ITEMS);
                prop_assert!(items.iter().all(|i| i.data.len() <= MAX_DATA.max(bytes.len())));
            }
        }
    }
}
