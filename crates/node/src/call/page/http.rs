//! As much HTTP as the page needs: one request a connection, small bodies, strict headers.

use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_call::media::binding::MAX_SDP;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of a head at most.
const MOST_HEAD: usize = 16 << 10;
/// Bytes of a body at most: a description, with every line's end written as two characters.
const MOST_BODY: usize = 2 * MAX_SDP;
/// How long a request may take to come.
const TIME: Duration = Duration::from_secs(10);
const HEADERS: usize = 64;

/// A request.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    host: String,
    pub(super) bearer: Option<String>,
    body: Vec<u8>,
}

impl Request {
    /// Whether it was meant for us: by the address, or by `localhost`.
    pub(super) fn is_for(&self, address: SocketAddr) -> bool {
        self.host == address.to_string()
            || (address.ip().is_loopback() && self.host == format!("localhost:{}", address.port()))
    }

    pub(super) fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads a request.
pub(super) fn read(stream: &mut TcpStream) -> io::Result<Request> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(TIME))?;
    let end = Instant::now() + TIME;
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    let mut more = |stream: &mut TcpStream, bytes: &mut Vec<u8>| -> io::Result<()> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                bytes.extend_from_slice(chunk.get(..n).unwrap_or_default());
                Ok(())
            }
        }
    };
    let (mut request, head, length) = loop {
        if let Some(parsed) = parse(&bytes)? {
            break parsed;
        }
        if bytes.len() > MOST_HEAD {
            return Err(bad("a head that does not end"));
        }
        more(stream, &mut bytes)?;
    };
    if length > MOST_BODY {
        return Err(bad("a body that is too long"));
    }
    while bytes.len() < head + length {
        more(stream, &mut bytes)?;
    }
    request.body = bytes.get(head..head + length).unwrap_or_default().to_vec();
    Ok(request)
}

/// The request, the length of its head, that of its body; none if more must come.
fn parse(bytes: &[u8]) -> io::Result<Option<(Request, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(bad("no request")),
    };
    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: parsed.path.unwrap_or_default().to_owned(),
        ..Request::default()
    };
    let mut length = 0;
    for header in parsed.headers.iter() {
        let value =
            std::str::from_utf8(header.value).map_err(|_| bad("a header that is no text"))?;
        if header.name.eq_ignore_ascii_case("host") {
            request.host = value.to_ascii_lowercase();
        } else if header.name.eq_ignore_ascii_case("authorization") {
            request.bearer = value.strip_prefix("Bearer ").map(str::to_owned);
        } else if header.name.eq_ignore_ascii_case("content-length") {
            length = value
                .trim()
                .parse()
                .map_err(|_| bad("a length that is none"))?;
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(bad("a body in pieces"));
        }
    }
    Ok(Some((request, head, length)))
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    status: u16,
    kind: &'static str,
    body: Vec<u8>,
}

impl Reply {
    pub(super) fn page(kind: &'static str, text: &str) -> Self {
        Self {
            status: 200,
            kind,
            body: text.as_bytes().to_vec(),
        }
    }

    pub(super) fn json(value: &impl Serialize) -> Self {
        Self {
            status: 200,
            kind: "application/json",
            body: serde_json::to_vec(value).unwrap_or_default(),
        }
    }

    pub(super) fn done() -> Self {
        Self::json(&serde_json::json!({}))
    }

    pub(super) fn error(status: u16, why: &str) -> Self {
        Self {
            status,
            ..Self::json(&serde_json::json!({ "error": why }))
        }
    }
}

/// Sends an answer.
pub(super) fn write(stream: &mut TcpStream, reply: &Reply) -> io::Result<()> {
    let words = match reply.status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        _ => "Service Unavailable",
    };
    // Nothing from elsewhere runs in the page, nobody frames it, and no other page reads it.
    let head = format!(
        "HTTP/1.1 {} {words}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
         Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         media-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'\r\n\
         Permissions-Policy: microphone=(self), camera=()\r\nCross-Origin-Resource-Policy: same-origin\r\n\r\n",
        reply.status,
        reply.kind,
        reply.body.len(),
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&reply.body)?;
    stream.flush()
}
