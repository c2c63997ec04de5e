//! Heads of requests and responses: where they end, their first line, their fields. Bounded in
//! bytes and fields; folded lines are joined, as the servents of the day write them.

use std::borrow::Cow;

/// Bytes of a head at most, its empty line counted.
pub const MAX_HEAD: usize = 16 * 1024;
/// Fields of a head at most.
pub const MAX_FIELDS: usize = 96;

/// Why a head is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// No end within [`MAX_HEAD`] bytes.
    #[error("the head is longer than {MAX_HEAD} bytes")]
    TooLong,
    /// More than [`MAX_FIELDS`] fields.
    #[error("the head has more than {MAX_FIELDS} fields")]
    TooMany,
    /// Not HTTP/1.0 or HTTP/1.1.
    #[error("not a head of HTTP/1")]
    Syntax,
}

/// The length of the head that `buf` begins with, its empty line counted; none while it has not
/// all come. The first `seen` bytes were looked at before.
///
/// # Errors
/// [`HeadError::TooLong`].
pub fn head_len(buf: &[u8], seen: usize) -> Result<Option<usize>, HeadError> {
    // The end may straddle what was seen: at most three bytes of it.
    let from = seen.saturating_sub(3);
    let looked_at = buf.get(from..buf.len().min(MAX_HEAD)).unwrap_or_default();
    for (at, _) in looked_at.iter().enumerate().filter(|(_, b)| **b == b'\n') {
        match looked_at.get(at + 1..) {
            Some([b'\n', ..]) => return Ok(Some(from + at + 2)),
            Some([b'\r', b'\n', ..]) => return Ok(Some(from + at + 3)),
            _ => {}
        }
    }
    if buf.len() >= MAX_HEAD {
        return Err(HeadError::TooLong);
    }
    Ok(None)
}

/// The fields of a head, in the order they came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    fn take(fields: &[httparse::Header<'_>]) -> Self {
        let fields = fields.iter().map(|f| {
            let value = String::from_utf8_lossy(f.value.trim_ascii()).into_owned();
            (f.name.to_ascii_lowercase(), value)
        });
        Self(fields.collect())
    }

    /// The first field of a name, which is given in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All fields of a name, which is given in lower case.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.0.iter().filter(move |(n, _)| n == name);
        named.map(|(_, value)| value.as_str())
    }

    /// The items of a list that may be spread over several fields (RFC 9110 §5.3).
    pub fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        let items = self.all(name).flat_map(|value| value.split(','));
        items.map(str::trim).filter(|item| !item.is_empty())
    }

    /// Whether a list holds a word, in any case.
    pub fn lists(&self, name: &str, word: &str) -> bool {
        self.list(name).any(|item| item.eq_ignore_ascii_case(word))
    }

    /// A field that is a number alone.
    pub fn number(&self, name: &str) -> Option<u64> {
        number(self.get(name)?)
    }
}

/// Digits alone: `u64`'s own reader takes a sign too.
pub(super) fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// A head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// Such as `GET`.
    pub method: String,
    /// As it stands.
    pub target: String,
    /// Whether it is HTTP/1.1.
    pub is_1_1: bool,
    /// Its fields.
    pub fields: Fields,
}

/// A head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: u16,
    /// For people.
    pub reason: String,
    /// Whether it is HTTP/1.1.
    pub is_1_1: bool,
    /// Its fields.
    pub fields: Fields,
}

/// Joins lines that begin with a blank to the line before (RFC 2616 §2.2; gone from HTTP since,
/// but PFSP shows it).
fn unfold(head: &[u8]) -> Cow<'_, [u8]> {
    let folded = |pair: &[u8]| matches!(pair, [b'\n', b' ' | b'\t']);
    if !head.windows(2).any(folded) {
        return Cow::Borrowed(head);
    }
    let mut out = head.to_vec();
    for at in 0..out.len() {
        if out.get(at..at + 2).is_some_and(folded) {
            let before = at.checked_sub(1).filter(|b| out.get(*b) == Some(&b'\r'));
            for place in before.into_iter().chain([at]) {
                if let Some(byte) = out.get_mut(place) {
                    *byte = b' ';
                }
            }
        }
    }
    Cow::Owned(out)
}

fn error(e: httparse::Error) -> HeadError {
    match e {
        httparse::Error::TooManyHeaders => HeadError::TooMany,
        _ => HeadError::Syntax,
    }
}

/// Reads a whole head, as long as [`head_len`] says.
///
/// # Errors
/// [`HeadError`].
pub fn read_request(head: &[u8]) -> Result<RequestHead, HeadError> {
    let head = unfold(head);
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let whole = request.parse(&head).map_err(error)?.is_complete();
    match (request.method, request.path, request.version) {
        (Some(method), Some(target), Some(version)) if whole => Ok(RequestHead {
            method: method.to_owned(),
            target: target.to_owned(),
            is_1_1: version == 1,
            fields: Fields::take(request.headers),
        }),
        _ => Err(HeadError::Syntax),
    }
}

/// Reads a whole head, as long as [`head_len`] says.
///
/// # Errors
/// [`HeadError`].
pub fn read_response(head: &[u8]) -> Result<ResponseHead, HeadError> {
    let head = unfold(head);
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let whole = response.parse(&head).map_err(error)?.is_complete();
    match (response.code, response.version) {
        (Some(status), Some(version)) if whole => Ok(ResponseHead {
            status,
            reason: response.reason.unwrap_or_default().to_owned(),
            is_1_1: version == 1,
            fields: Fields::take(response.headers),
        }),
        _ => Err(HeadError::Syntax),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_head_is_found_however_it_is_cut() {
        let bytes = b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest";
        for seen in 0..25 {
            assert_eq!(head_len(bytes, seen), Ok(Some(24)), "{seen} seen");
        }
        assert_eq!(head_len(&bytes[..23], 0), Ok(None));
        assert_eq!(head_len(b"GET / HTTP/1.1\n\nx", 0), Ok(Some(16)));
        assert_eq!(head_len(&[b'a'; MAX_HEAD], 0), Err(HeadError::TooLong));
    }

    #[test]
    fn lists_spread_over_fields_and_folded_lines_are_joined() {
        let head = b"GET /x HTTP/1.1\r\nX-Alt: 1.2.3.4,\r\n 5.6.7.8:9\r\nx-alt: 9.9.9.9\r\n\r\n";
        let request = read_request(head).expect("a head");
        let list: Vec<_> = request.fields.list("x-alt").collect();
        assert_eq!(list, ["1.2.3.4", "5.6.7.8:9", "9.9.9.9"]);
        assert!(request.is_1_1);
    }

    #[test]
    fn other_heads_are_refused() {
        assert_eq!(
            read_request(b"GNUTELLA CONNECT/0.6\r\n\r\n"),
            Err(HeadError::Syntax)
        );
        assert_eq!(
            read_request(b"GET / HTTP/2.0\r\n\r\n"),
            Err(HeadError::Syntax)
        );
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "a: b\r\n".repeat(MAX_FIELDS + 1)
        );
        assert_eq!(read_request(many.as_bytes()), Err(HeadError::TooMany));
        assert!(read_response(b"HTTP/1.0 503\r\n\r\n").is_ok());
        assert_eq!(number("+1"), None);
        assert_eq!(number("99999999999999999999999"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes: Vec<u8>, text in "(GET|HTTP/1.1) [ -~\r\n]{0,200}\r\n\r\n") {
            for bytes in [&bytes[..], text.as_bytes()] {
                if let Ok(Some(len)) = head_len(bytes, 0) {
                    prop_assert!(len <= bytes.len());
                    let _ = read_request(&bytes[..len]);
                    let _ = read_response(&bytes[..len]);
                }
            }
        }
    }
}
