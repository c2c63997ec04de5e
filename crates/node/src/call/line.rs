//! What the two ends say to each other before the sound, a line of JSON each: over a stream of a
//! connection between two nodes, over a TCP connection, or through two files that anything may carry.

use crate::reach::{Connection, Stream};
use serde::{Deserialize, Serialize};
use shoal_base::id::{from_hex, to_hex};
use shoal_call::media::binding::{MAX_SIGNED, SignedDescription};
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a line at most.
const MOST: usize = MAX_SIGNED + 256;
/// How long one write may take.
const WRITE_TIME: Duration = Duration::from_secs(5);
/// How long the last word over a stream has to arrive.
const LAST_WORD: Duration = Duration::from_millis(500);

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "lowercase")]
pub(crate) enum Say {
    /// An offer or an answer.
    Describe {
        /// It.
        description: SignedDescription,
    },
    /// The callee was told.
    Ringing,
    /// The callee does not want to, or cannot.
    Refuse {
        /// Why.
        why: String,
    },
    /// The call is one of a group's. From the caller before its offer: who is in it. From the callee before
    /// its answer, without members: it takes part, and calls those whose key is below its own.
    Group {
        /// Sixteen bytes that name it, in hexadecimal.
        id: String,
        /// Keys of all that are in it, in hexadecimal.
        members: Vec<String>,
    },
    /// While it is talked: so long the speaker's microphone takes. Whoever does not know the line passes
    /// over it.
    Microphone {
        /// Milliseconds.
        delay: u16,
    },
    /// The speaker hung up.
    Bye,
}

/// Members of a group at most: each has a call with each.
pub(crate) const MOST_MEMBERS: usize = 4;

/// A group that talks together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// Its name.
    pub id: [u8; 16],
    /// Keys of all that are in it, the speaker's among them.
    pub members: Vec<[u8; 32]>,
}

impl Group {
    /// Reads what was said of a group.
    pub(crate) fn read(id: &str, members: &[String]) -> io::Result<Self> {
        if members.len() > MOST_MEMBERS {
            return Err(bad("too many members"));
        }
        let keys = members.iter().map(|key| from_hex(key));
        let members = keys.collect::<Result<_, _>>();
        match (from_hex(id), members) {
            (Ok(id), Ok(members)) => Ok(Self { id, members }),
            _ => Err(bad("a group that is none")),
        }
    }

    pub(crate) fn say(&self) -> Say {
        Say::Group {
            id: to_hex(&self.id),
            members: self.members.iter().map(|key| to_hex(key)).collect(),
        }
    }
}

impl Say {
    pub(crate) fn parse(line: &str) -> io::Result<Self> {
        serde_json::from_str(line).map_err(|_| bad("a line that means nothing"))
    }

    pub(crate) fn to_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
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
        if self.came.len() > MOST {
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
        file.take(MOST as u64).read_to_string(&mut text)?;
        if !text.ends_with('\n') {
            return Ok(None);
        }
        self.theirs = None;
        Ok(Some(text.trim_end().to_owned()))
    }
}
