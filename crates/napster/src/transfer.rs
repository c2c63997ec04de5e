//! What clients say to each other: `1`, `GET` and its request, the size, then the file.
//!
//! ```text
//!  downloader  ----- connects ---->  sharer        sharer  ------ connects ----->  downloader
//!              <-- 1 --------------                        <-- 1 ----------------
//!              --- GET ----------->                        --- SEND ------------>
//!              --- nick "f" from ->                        --- nick "f" size --->
//!              <-- size, bytes ----                        <-- from -------------
//!                                                          --- bytes ----------->
//! ```

use crate::fields::{BadField, Fields, put_number, put_quoted};

/// Bytes of a request at most.
pub const MAX_REQUEST: usize = 2048;

/// `nick "file" number`: what follows GET (the offset) and SEND (the size).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who speaks.
    pub nick: Vec<u8>,
    /// The path as its sharer tells it.
    pub path: Vec<u8>,
    /// Offset or size, in bytes.
    pub number: u64,
}

impl Request {
    /// Reads one.
    ///
    /// # Errors
    /// Which field is missing or not understood.
    pub fn parse(data: &[u8]) -> Result<Self, BadField> {
        let mut f = Fields::new(data);
        Ok(Self {
            nick: f.text("nick")?.to_vec(),
            path: f.text("file")?.to_vec(),
            number: f.number("number")?,
        })
    }

    /// Whether `data` can be a whole request: a number after the second quote. It has no end of
    /// its own; clients send it at once.
    pub fn is_whole(data: &[u8]) -> bool {
        let quotes = data.iter().filter(|b| **b == b'"').count();
        quotes >= 2 && Self::parse(data).is_ok()
    }

    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.nick);
        out.push(b' ');
        put_quoted(&self.path, out);
        out.push(b' ');
        put_number(self.number, out);
    }
}

/// What a sharer's answer begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// More bytes are needed.
    More,
    /// The size, after so many bytes.
    Size(u64, usize),
    /// Words instead: why there is no file.
    Refused(String),
}

/// Reads the size that an answer begins with. The file follows without a break, so that a file
/// that begins with a digit would change the size: the digits of the size known from the hit are
/// taken, if they are there.
pub fn read_answer(buf: &[u8], known: u64) -> Answer {
    let known = known.to_string();
    let shared = buf
        .iter()
        .zip(known.as_bytes())
        .take_while(|(a, b)| a == b)
        .count();
    if shared == known.len() {
        return Answer::Size(known.parse().unwrap_or(0), shared);
    }
    if shared == buf.len() {
        return Answer::More;
    }
    let digits = buf.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        let text = buf.get(..buf.len().min(200)).unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        return Answer::Refused(text.chars().filter(|c| !c.is_control()).collect());
    }
    // Another size than the hit's: the file was changed.
    match crate::fields::number(buf.get(..digits.min(19)).unwrap_or_default()) {
        Some(size) if digits < buf.len() || digits >= 19 => Answer::Size(size, digits.min(19)),
        _ => Answer::More,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_size_ends_where_the_known_one_does() {
        assert_eq!(
            read_answer(b"8340001234", 834_000),
            Answer::Size(834_000, 6)
        );
        assert_eq!(read_answer(b"8340", 834_000), Answer::More);
        assert_eq!(read_answer(b"", 834_000), Answer::More);
        assert_eq!(read_answer(b"512\xff\xfb", 834_000), Answer::Size(512, 3));
        assert_eq!(
            read_answer(b"FILE NOT SHARED", 5),
            Answer::Refused("FILE NOT SHARED".into())
        );
    }

    proptest! {
        #[test]
        fn requests_round_trip(nick in "[a-z]{1,9}", path in "[^\"\\x00-\\x1f\\x7f]{1,40}", number: u64) {
            let request = Request { nick: nick.into_bytes(), path: path.into_bytes(), number };
            let mut out = Vec::new();
            request.put(&mut out);
            prop_assert!(Request::is_whole(&out));
            prop_assert_eq!(Request::parse(&out), Ok(request));
        }

        #[test]
        fn any_bytes_are_read_or_refused(data: Vec<u8>, known: u64) {
            let _ = Request::is_whole(&data);
            if let Answer::Size(_, used) = read_answer(&data, known) {
                prop_assert!(used <= data.len());
            }
        }
    }
}
