//! Web seeds (BEP 19): a content's files on an HTTP server as a source of blocks.
//!
//! Which URL and byte range of which file holds a block, what to make of the server's answer, and
//! when to try again after a failure. Opens no connection: the node does.

use shoal_content::{Block, Layout, url};
use std::ops::Range;
use std::time::Duration;

/// Bytes asked for in one range, at most: a few pieces, so that keep-alive pays and a failure
/// costs little.
pub const MAX_RANGE: u64 = 4 << 20;

/// Bytes of a whole file that are read and thrown away to get at the range, at most, when a
/// server ignores ranges.
const MAX_SKIP: u64 = 1 << 20;

/// How long a server that has not got the content is left alone.
const ABSENT: Duration = Duration::from_secs(3600);
/// How long a server that is not well is left alone, if it does not say.
const UNWELL: Duration = Duration::from_secs(60);
/// The longest `Retry-After` that is heeded in full.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(6 * 3600);

/// The URL of file number `file` below a web seed's `base` (BEP 19): of a single file, `base`
/// itself, or below it if it ends in a slash; of several, always below it. None if there is no
/// such file.
pub fn file_url(base: &str, layout: &Layout, file: usize) -> Option<String> {
    let entry = layout.files().get(file)?;
    let single = layout.files().len() == 1 && entry.path.components().count() == 1;
    let mut out = String::from(base);
    if single && !base.ends_with('/') {
        return Some(out);
    }
    for (n, component) in entry.path.components().enumerate() {
        if n > 0 || !base.ends_with('/') {
            out.push('/');
        }
        out.push_str(&url::encode(component.as_bytes()));
    }
    Some(out)
}

/// What a part of a run is filled from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// A range of a file on the server.
    File {
        /// The file's number.
        file: usize,
        /// First byte within the file.
        start: u64,
        /// Bytes.
        len: u64,
    },
    /// Padding (BEP 47): no server has it.
    Zeros {
        /// Bytes.
        len: u64,
    },
}

impl Part {
    /// Bytes in it.
    pub fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } | Self::Zeros { len } => *len,
        }
    }

    /// Whether it has no bytes; no part of a run has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How many of `blocks`, from the first on, follow one another in the content and fit one range:
/// at least one, unless there are none.
pub fn run_len(layout: &Layout, blocks: &[Block]) -> usize {
    let geometry = layout.geometry();
    let start = |b: &Block| geometry.piece_start(b.piece) + u64::from(b.begin);
    let Some(first) = blocks.first() else {
        return 0;
    };
    let mut end = start(first) + u64::from(first.len);
    let mut n = 1;
    for block in blocks.iter().skip(1) {
        let next = end + u64::from(block.len);
        if start(block) != end || next - start(first) > MAX_RANGE {
            break;
        }
        end = next;
        n += 1;
    }
    n
}

/// What a run of blocks (see [`run_len`]) is made of, in order.
pub fn parts(layout: &Layout, run: &[Block]) -> Vec<Part> {
    let Some(first) = run.first() else {
        return Vec::new();
    };
    let offset = layout.geometry().piece_start(first.piece) + u64::from(first.begin);
    let len = run.iter().map(|b| u64::from(b.len)).sum();
    layout
        .spans(offset, len)
        .filter_map(|span| {
            let pad = layout.files().get(span.file)?.attr.pad;
            Some(if pad {
                Part::Zeros { len: span.len }
            } else {
                Part::File {
                    file: span.file,
                    start: span.offset,
                    len: span.len,
                }
            })
        })
        .collect()
}

/// The value of a `Range` header (RFC 9110 §14.2) for `range`, which is not empty.
pub fn range_header(range: &Range<u64>) -> String {
    format!("bytes={}-{}", range.start, range.end.saturating_sub(1))
}

/// What a `Content-Range` header says (RFC 9110 §14.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContentRange {
    /// First byte.
    pub first: u64,
    /// Last byte.
    pub last: u64,
    /// The whole length, if it is known.
    pub total: Option<u64>,
}

impl ContentRange {
    /// Reads `bytes first-last/total` or `bytes first-last/*`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (unit, rest) = text.split_once(' ')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (range, total) = rest.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let range = Self {
            first: number(first)?,
            last: number(last)?,
            total: match total.trim() {
                "*" => None,
                digits => Some(number(digits)?),
            },
        };
        let fits = range.first <= range.last && range.total.is_none_or(|t| range.last < t);
        fits.then_some(range)
    }
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    // `parse` alone would take a plus sign.
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// The head of an answer, as far as it matters here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer<'a> {
    /// The status code.
    pub status: u16,
    /// `Content-Range`.
    pub content_range: Option<&'a str>,
    /// `Content-Length`.
    pub content_length: Option<u64>,
    /// `Content-Encoding`.
    pub content_encoding: Option<&'a str>,
    /// `Retry-After`.
    pub retry_after: Option<&'a str>,
}

/// Where the wanted bytes are in the body that follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Body {
    /// Bytes to throw away first.
    pub skip: u64,
    /// Bytes that are wanted after that; may be fewer than were asked for, never none.
    pub len: u64,
    /// Whether the body ends with them: only then can the connection be used again.
    pub whole: bool,
}

/// Why an answer brings nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebSeedFault {
    /// The server says no.
    #[error("the server answered {0}")]
    Status(u16),
    /// The server asks for patience.
    #[error("the server is busy ({0})")]
    Busy(u16),
    /// A partial answer with another range, or none, or one that is no range.
    #[error("asked for bytes {from} to {to}, the server sent {got:?}")]
    Range {
        /// First byte asked for.
        from: u64,
        /// Last byte asked for.
        to: u64,
        /// `Content-Range` of the answer.
        got: String,
    },
    /// The file there is not the file of the torrent.
    #[error("the file has {got} bytes on the server, {expected} in the torrent")]
    Length {
        /// Bytes of the file in the torrent.
        expected: u64,
        /// Bytes of the file there.
        got: u64,
    },
    /// It sends whole files only, and the range is far into one.
    #[error("the server does not send ranges")]
    NoRanges,
    /// The body is compressed, though that was not asked for.
    #[error("the body is encoded as {0:?}")]
    Encoding(String),
}

impl WebSeedFault {
    /// Whether asking again soon can help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Busy(_) => true,
            Self::Status(status) => *status >= 500 || *status == 408,
            _ => false,
        }
    }

    /// How long to leave the server alone.
    pub fn rest(&self) -> Duration {
        if self.is_transient() { UNWELL } else { ABSENT }
    }
}

/// What to make of an answer to the request for `wanted` (not empty) of a file of `file_len`
/// bytes. An error comes with how long to leave the server alone.
pub fn check_answer(
    answer: &Answer<'_>,
    wanted: &Range<u64>,
    file_len: u64,
) -> Result<Body, (WebSeedFault, Duration)> {
    judge(answer, wanted, file_len).map_err(|fault| {
        let asked = answer
            .retry_after
            .and_then(number)
            .map(Duration::from_secs)
            .filter(|_| fault.is_transient());
        let rest = asked.map_or(fault.rest(), |d| d.min(MAX_RETRY_AFTER));
        (fault, rest)
    })
}

fn judge(answer: &Answer<'_>, wanted: &Range<u64>, file_len: u64) -> Result<Body, WebSeedFault> {
    if !matches!(answer.status, 200 | 206) {
        return Err(match answer.status {
            status @ (429 | 503) => WebSeedFault::Busy(status),
            status => WebSeedFault::Status(status),
        });
    }
    if let Some(coding) = answer.content_encoding
        && !coding.trim().eq_ignore_ascii_case("identity")
    {
        return Err(WebSeedFault::Encoding(coding.chars().take(40).collect()));
    }
    let asked = wanted.end.saturating_sub(wanted.start);
    let wrong_length = |got| WebSeedFault::Length {
        expected: file_len,
        got,
    };
    if answer.status == 200 {
        if let Some(got) = answer.content_length.filter(|len| *len != file_len) {
            return Err(wrong_length(got));
        }
        if wanted.start > MAX_SKIP {
            return Err(WebSeedFault::NoRanges);
        }
        return Ok(Body {
            skip: wanted.start,
            len: asked,
            whole: wanted.end == file_len,
        });
    }
    let wrong_range = || WebSeedFault::Range {
        from: wanted.start,
        to: wanted.end.saturating_sub(1),
        got: answer
            .content_range
            .unwrap_or("no range")
            .chars()
            .take(80)
            .collect(),
    };
    let range = answer
        .content_range
        .and_then(ContentRange::parse)
        .ok_or_else(wrong_range)?;
    if let Some(got) = range.total.filter(|total| *total != file_len) {
        return Err(wrong_length(got));
    }
    if range.first != wanted.start || range.last >= wanted.end {
        return Err(wrong_range());
    }
    let len = range.last - range.first + 1;
    if answer.content_length.is_some_and(|l| l != len) {
        return Err(wrong_range());
    }
    Ok(Body {
        skip: 0,
        len,
        whole: true,
    })
}

/// When to ask again after failures on the way (refused, reset, timed out, busy).
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Tries in a row after which the web seed is left alone for a while.
    const TRIES: u32 = 4;

    /// Data came.
    pub fn on_success(&mut self) {
        self.failures = 0;
    }

    /// A try failed: how long to wait for the next, or none if the web seed is to rest.
    pub fn on_failure(&mut self) -> Option<Duration> {
        self.failures += 1;
        (self.failures < Self::TRIES)
            .then(|| Duration::from_millis(250u64 << (2 * self.failures).min(12)))
    }

    /// How long to rest after the last try failed.
    pub fn rest(&self) -> Duration {
        UNWELL
    }
}

/// What the fuzz target runs on any bytes.
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let range = ContentRange::parse(text);
    let answer = Answer {
        status: 206,
        content_range: Some(text),
        retry_after: Some(text),
        ..Answer::default()
    };
    if let Ok(body) = check_answer(&answer, &(100..1000), 5000) {
        assert!(range.is_some() && body.len > 0 && body.len <= 900);
    }
}

#[cfg(test)]
mod tests;
