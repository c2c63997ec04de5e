//! Input over HTTP(S): its length from a HEAD or a range of one byte, its parts by ranges.

use super::{ContentSource, InputError, InputFile};
use std::io::{self, Read};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Times a broken body is asked for again from where it broke.
const RETRIES: u32 = 4;

/// What `http://` and `https://` URLs are read with. The agent is made at the first use: local jobs
/// shall not wait for certificates to be loaded.
#[derive(Default)]
pub(super) struct Web {
    agent: std::sync::OnceLock<ureq::Agent>,
}

impl Web {
    fn agent(&self) -> &ureq::Agent {
        self.agent.get_or_init(|| {
            ureq::Agent::config_builder()
                .timeout_connect(Some(CONNECT_TIMEOUT))
                .timeout_recv_response(Some(HEAD_TIMEOUT))
                .timeout_per_read(Some(READ_TIMEOUT))
                .http_status_as_error(false)
                .accept_encoding("identity")
                .user_agent(concat!("shoal/", env!("CARGO_PKG_VERSION")))
                .input_buffer_size(64 * 1024)
                .build()
                .into()
        })
    }
}

fn web(url: &str, why: impl Into<String>) -> InputError {
    InputError::Web {
        url: url.to_owned(),
        why: why.into(),
    }
}

impl ContentSource for Web {
    fn takes(&self, what: &str) -> bool {
        ["http://", "https://"].iter().any(|scheme| {
            what.get(..scheme.len())
                .is_some_and(|s| s.eq_ignore_ascii_case(scheme))
        })
    }

    fn expand(&self, url: &str) -> Result<Vec<InputFile>, InputError> {
        // A range of one byte tells the length and whether ranges are understood.
        let answer = self
            .agent()
            .get(url)
            .header("Range", "bytes=0-0")
            .call()
            .map_err(|e| web(url, e.to_string()))?;
        let header = |name: &str| answer.headers().get(name)?.to_str().ok();
        let (bytes, ranges) = match answer.status().as_u16() {
            206 => (header("content-range").and_then(total_of), true),
            200 => (header("content-length").and_then(|v| v.parse().ok()), false),
            // An empty file has no first byte.
            416 => (Some(0), true),
            404 | 410 => return Err(InputError::Missing(url.to_owned())),
            status => return Err(web(url, format!("the server answers {status}"))),
        };
        let bytes = bytes.ok_or_else(|| web(url, "the server does not tell its length"))?;
        Ok(vec![InputFile {
            name: url.to_owned(),
            bytes,
            splittable: ranges,
            unit: 0,
            lead: 0,
            holders: Vec::new(),
        }])
    }

    fn open(&self, url: &str, from: u64, bytes: u64) -> Result<Box<dyn Read + Send>, InputError> {
        let mut body = Body {
            agent: self.agent().clone(),
            url: url.to_owned(),
            at: from,
            end: (bytes != u64::MAX).then(|| from.saturating_add(bytes)),
            left: RETRIES,
            reader: None,
        };
        body.ask().map_err(|why| web(url, why.to_string()))?;
        Ok(Box::new(body))
    }
}

/// `bytes 0-0/1234` → 1234.
fn total_of(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.trim().parse().ok()
}

/// A body that goes on from where it broke.
struct Body {
    agent: ureq::Agent,
    url: String,
    at: u64,
    end: Option<u64>,
    left: u32,
    reader: Option<Box<dyn Read + Send>>,
}

impl Body {
    fn ask(&mut self) -> io::Result<()> {
        self.reader = None;
        if self.end.is_some_and(|end| self.at >= end) {
            return Ok(());
        }
        let range = match self.end {
            Some(end) => format!("bytes={}-{}", self.at, end - 1),
            None => format!("bytes={}-", self.at),
        };
        let mut request = self.agent.get(&self.url);
        if self.at > 0 || self.end.is_some() {
            request = request.header("Range", &range);
        }
        let answer = request.call().map_err(io::Error::other)?;
        match answer.status().as_u16() {
            206 => {}
            // All of it: fine where that is what was wanted.
            200 if self.at == 0 => {}
            416 => return Ok(()),
            status => return Err(io::Error::other(format!("the server answers {status}"))),
        }
        let length = answer.body().content_length();
        let limit = self.end.map_or(u64::MAX, |end| end - self.at);
        if self.end.is_none() {
            self.end = length.map(|n| self.at.saturating_add(n));
        }
        self.reader = Some(Box::new(answer.into_body().into_reader().take(limit)));
        Ok(())
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(reader) = &mut self.reader else {
                return Ok(0);
            };
            let why = match reader.read(buf) {
                Ok(0) if buf.is_empty() || self.end.is_none_or(|end| self.at >= end) => {
                    return Ok(0);
                }
                Ok(0) => io::Error::from(io::ErrorKind::UnexpectedEof),
                Ok(n) => {
                    self.at += n as u64;
                    return Ok(n);
                }
                Err(e) => e,
            };
            if self.left == 0 {
                return Err(why);
            }
            self.left -= 1;
            self.ask()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Inputs;
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    /// Answers ranges of `text`; breaks each body after `cut` bytes.
    fn serve(text: &'static [u8], cut: usize, ranges: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(&stream, text, cut, ranges);
            }
        });
        format!("http://{addr}/a.txt")
    }

    fn answer(mut stream: &TcpStream, text: &[u8], cut: usize, ranges: bool) {
        let mut range = None;
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if line.is_empty() {
                break;
            }
            if let Some(r) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
                let (from, to) = r.split_once('-').expect("a range");
                let to = to.parse().map_or(text.len(), |n: usize| n + 1);
                range = Some((from.parse::<usize>().expect("a number"), to.min(text.len())));
            }
        }
        let (from, to) = range.filter(|_| ranges).unwrap_or((0, text.len()));
        let status = if range.is_some() && ranges {
            "206 P"
        } else {
            "200 OK"
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-range: bytes {from}-{}/{}\r\nconnection: close\r\n\r\n",
            to - from,
            to.saturating_sub(1),
            text.len()
        );
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&text[from..to.min(from + cut)]);
    }

    fn read(url: &str, from: u64, bytes: u64) -> io::Result<String> {
        let mut out = String::new();
        Inputs::default()
            .open(url, from, bytes, &Arc::default())
            .map_err(io::Error::other)?
            .take(bytes)
            .read_to_string(&mut out)?;
        Ok(out)
    }

    #[test]
    fn ranges_are_read_and_a_broken_body_goes_on() {
        let url = serve(b"0123456789abcdef", 6, true);
        let files = Inputs::default()
            .expand(std::slice::from_ref(&url))
            .expect("there");
        assert_eq!((files[0].bytes, files[0].splittable), (16, true));
        assert_eq!(read(&url, 0, u64::MAX).expect("reads"), "0123456789abcdef");
        assert_eq!(read(&url, 3, 8).expect("reads"), "3456789a");
        let stuck = serve(b"0123456789abcdef", 0, true);
        assert!(read(&stuck, 3, 8).is_err());
    }

    #[test]
    fn a_server_without_ranges_is_read_whole() {
        let url = serve(b"0123", 9, false);
        let files = Inputs::default()
            .expand(std::slice::from_ref(&url))
            .expect("there");
        assert_eq!((files[0].bytes, files[0].splittable), (4, false));
        assert_eq!(read(&url, 0, u64::MAX).expect("reads"), "0123");
    }
}
