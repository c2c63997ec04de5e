//! Whole messages from and to a stream.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_supernode::wire;

/// Reads messages, one after the other.
#[derive(Debug)]
pub(super) struct Frames {
    stream: TcpStream,
    buf: Vec<u8>,
}

impl Frames {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self::after(stream, Vec::new())
    }

    /// Of a stream from which `read` was read already.
    pub(super) fn after(stream: TcpStream, read: Vec<u8>) -> Self {
        Self { stream, buf: read }
    }

    /// The next message; none at the end of the stream.
    pub(super) fn next<M: DeserializeOwned>(&mut self) -> io::Result<Option<M>> {
        let mut chunk = [0; 16 << 10];
        loop {
            let decoded = wire::decode::<M>(&self.buf);
            let decoded = decoded.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            if let Some((message, used)) = decoded {
                self.buf.drain(..used);
                return Ok(Some(message));
            }
            let n = self.stream.read(&mut chunk)?;
            if n == 0 {
                return Ok(None);
            }
            self.buf
                .extend_from_slice(chunk.get(..n).unwrap_or_default());
        }
    }
}

/// Writes one message.
pub(super) fn say(stream: &mut TcpStream, message: &impl Serialize) -> io::Result<()> {
    let mut bytes = Vec::new();
    wire::encode(message, &mut bytes);
    stream.write_all(&bytes)
}
