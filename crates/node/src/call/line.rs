//! What the two ends say to each other before the sound, a line of JSON each: over a stream of a
//! connection between two nodes, over a TCP connection, or through two files that anything may carry.

use crate::reach::{Connection, Stream};
use shoal_call::media::say::{MOST_LINE, Say};
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one write may take.
const WRITE_TIME: Duration = Duration::from_secs(5);
/// How long the last word over a stream has to arrive.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Reads a line.
pub(crate) fn read(line: &str) -> io::Result<Say> {
    Say::parse(line).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What carries lines to the other end and back. Neither call waits.
pub trait Line {
    /// Sends a line.
    ///
    /// # Errors
    /// If it cannot be sent.
    fn send(&mut self, line: &str) -> io::Result<()>;
    /// The next line, if one came.
    ///
    /// # Errors
    /// If none will come any more.
    fn poll(&mut self) -> io::Result<Option<String>>;
}

/// What came, cut into lines.
#[derive(Debug, Default)]
struct Cutter {
    came: Vec<u8>,
}

impl Cutter {
    /// The next whole line.
    fn next(&mut self) -> io::Result<Option<String>> {
        if let Some(end) = self.came.iter().position(|b| *b == b'\n') {
            let rest = self.came.split_off(end + 1);
            let mut line = std::mem::replace(&mut self.came, rest);
            line.pop();
            let text = String::from_utf8(line).map_err(|_| bad("a line that is no text"))?;
            return Ok(Some(text));
        }
        if self.came.len() > MOST_LINE {
            return Err(bad("a line that does not end"));
        }
        Ok(None)
    }

    /// Takes what came; an end if that is nothing.
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.came.extend_from_slice(bytes);
        Ok(())
    }
}

/// Lines over a stream of a connection to a node. The last ones arrive before it is dropped, if they
/// do at all.
#[derive(Debug)]
pub(crate) struct StreamLine {
    stream: Stream,
    cutter: Cutter,
    /// Nothing comes when nobody has it any more.
    _connection: Arc<Connection>,
}

impl StreamLine {
    /// Takes a stream of a connection.
    pub(crate) fn new(stream: Stream, connection: Arc<Connection>) -> Self {
        Self {
            stream,
            cutter: Cutter::default(),
            _connection: connection,
        }
    }
}

impl Line for StreamLine {
    fn send(&mut self, line: &str) -> io::Result<()> {
        let mut bytes = line.as_bytes().to_vec();
        bytes.push(b'\n');
        // Who refuses may close the connection before we have said all: why is still to be read, and
        // after it `poll` tells the end.
        let _ = self.stream.write_all(&bytes);
        Ok(())
    }

    fn poll(&mut self) -> io::Result<Option<String>> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(line) = self.cutter.next()? {
                return Ok(Some(line));
            }
            match self.stream.read_now(&mut chunk) {
                Ok(Some(n)) => self.cutter.take(chunk.get(..n).unwrap_or_default())?,
                Ok(None) => return Ok(None),
                // Whoever closes the connection has gone.
                Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

impl Drop for StreamLine {
    fn drop(&mut self) {
        // The connection may be closed next, and would take a last word with it.
        let _ = self.stream.arrived_by(Some(Instant::now() + LAST_WORD));
    }
}

/// Lines over TCP.
#[derive(Debug)]
pub struct TcpLine {
    stream: TcpStream,
    cutter: Cutter,
}

impl TcpLine {
    /// Takes a connection.
    ///
    /// # Errors
    /// If it is none any more.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        stream.set_write_timeout(Some(WRITE_TIME))?;
        Ok(Self {
            stream,
            cutter: Cutter::default(),
        })
    }
}

impl Line for TcpLine {
    fn send(&mut self, line: &str) -> io::Result<()> {
        // A few kilobytes into an empty buffer: this does not wait unless the other end does not read.
        self.stream.set_nonblocking(false)?;
        let mut bytes = line.as_bytes().to_vec();
        bytes.push(b'\n');
        let result = self.stream.write_all(&bytes);
        self.stream.set_nonblocking(true)?;
        result
    }

    fn poll(&mut self) -> io::Result<Option<String>> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(line) = self.cutter.next()? {
                return Ok(Some(line));
            }
            match self.stream.read(&mut chunk) {
                Ok(n) => self.cutter.take(chunk.get(..n).unwrap_or_default())?,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Lines through files: one that we write, one that we wait for. Each holds one description; nothing
/// rings and nobody says goodbye.
#[derive(Debug)]
pub struct FileLine {
    ours: Option<PathBuf>,
    theirs: Option<PathBuf>,
}

impl FileLine {
    /// Writes to `ours`, once, and reads from `theirs`, once it is there.
    pub fn new(ours: PathBuf, theirs: PathBuf) -> Self {
        Self {
            ours: Some(ours),
            theirs: Some(theirs),
        }
    }
}

impl Line for FileLine {
    fn send(&mut self, line: &str) -> io::Result<()> {
        if !matches!(Say::parse(line), Ok(Say::Describe { .. })) {
            return Ok(());
        }
        let Some(path) = self.ours.take() else {
            return Ok(());
        };
        // Whole or not at all, as the other end looks at it meanwhile.
        let mut part = path.clone().into_os_string();
        part.push(".part");
        fs::write(&part, format!("{line}\n"))?;
        fs::rename(&part, &path)
    }

    fn poll(&mut self) -> io::Result<Option<String>> {
        let Some(path) = &self.theirs else {
            return Ok(None);
        };
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut text = String::new();
        file.take(MOST_LINE as u64).read_to_string(&mut text)?;
        if !text.ends_with('\n') {
            return Ok(None);
        }
        self.theirs = None;
        Ok(Some(text.trim_end().to_owned()))
    }
}
