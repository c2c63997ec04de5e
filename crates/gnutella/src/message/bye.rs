//! Bye: why the sender closes the connection (Bye 0.1).

use shoal_base::Cursor;

use super::Malformed;

/// Longest reason that is kept, in bytes.
pub const MAX_REASON: usize = 200;

/// The codes we send (Bye §2: 2xx by choice, 4xx the other's fault, 5xx our own).
pub mod code {
    /// We stop.
    pub const SHUTDOWN: u16 = 200;
    /// The place is wanted for a better neighbour.
    pub const REPLACED: u16 = 202;
    /// The sender becomes an ultrapeer, or a leaf.
    pub const ROLE: u16 = 203;
    /// Too many messages that cannot be read.
    pub const MALFORMED: u16 = 400;
    /// Too many copies of messages.
    pub const DUPLICATES: u16 = 401;
    /// Nothing came for too long.
    pub const IDLE: u16 = 405;
    /// Pings of one hop went unanswered.
    pub const NO_PONG: u16 = 406;
    /// Answers to what was never asked.
    pub const UNASKED: u16 = 408;
    /// Updates of a query routing table out of order, or too large.
    pub const ROUTES: u16 = 413;
    /// More queries than one may ask.
    pub const TOO_FAST: u16 = 414;
    /// What waits to be sent grew too much.
    pub const FULL: u16 = 502;
}

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bye {
    /// 2xx, 4xx or 5xx, see [`code`].
    pub code: u16,
    /// In words; headers that may follow are left out.
    pub reason: String,
}

impl Bye {
    /// Reads a payload.
    ///
    /// # Errors
    /// It ends before the code does.
    pub fn read(payload: &[u8]) -> Result<Self, Malformed> {
        let mut c = Cursor::new(payload);
        let code = c.u16_le()?;
        let end = c.rest().iter().position(|b| matches!(b, 0 | b'\r' | b'\n'));
        let text = c
            .rest()
            .get(..end.unwrap_or(c.rest().len()).min(MAX_REASON));
        let text = String::from_utf8_lossy(text.unwrap_or_default());
        let reason = text.chars().filter(|c| !c.is_control()).collect();
        Ok(Self { code, reason })
    }

    /// The payload, with a `Server` header naming `agent`.
    pub fn write(&self, agent: &str) -> Vec<u8> {
        let text = format!("{}\r\nServer: {agent}\r\n\r\n\0", self.reason);
        [&self.code.to_le_bytes()[..], text.as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_reason_stands_before_the_headers() {
        let bye = Bye {
            code: code::FULL,
            reason: "Send Queue Full".into(),
        };
        let bytes = bye.write("shoal/0.1");
        assert!(bytes.starts_with(b"\xf6\x01Send Queue Full\r\nServer: shoal/0.1\r\n"));
        assert_eq!(Bye::read(&bytes), Ok(bye));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes: Vec<u8>) {
            match Bye::read(&bytes) {
                Ok(bye) => prop_assert!(bye.reason.len() <= 3 * MAX_REASON),
                Err(_) => prop_assert!(bytes.len() < 2),
            }
        }
    }
}
