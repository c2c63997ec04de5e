//! The execution log: what a master must not forget, as an append-only file of checksummed records.
//!
//! ```text
//! log    := "shoal-mr" | version (u8) | record*
//! record := length of the body (u32, little endian) | CRC-32C of the body (u32, little endian) | body
//! ```
//!
//! The body is a [`Record`] in the postcard format. A process that dies while it appends leaves a
//! record that is cut or does not match its checksum; reading stops before it. So every prefix of a
//! log is a log: what its records say happened, and nothing else did.

use crate::id::{AttemptId, JobId, TaskId, WorkerId};
use crate::master::Outcome;
use crate::message::{Counters, Failure, RecordRange, TaskOutput};
use crate::split::Submission;
use serde::{Deserialize, Serialize};

/// How a log begins.
pub const MAGIC: &[u8; 8] = b"shoal-mr";
/// The version of log that this program writes and reads.
pub const VERSION: u8 = 2;
const HEADER_BYTES: usize = MAGIC.len() + 1;
const FRAME_BYTES: usize = 8;

/// Why bytes are no execution log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// It begins with something else.
    #[error("this is not an execution log of shoal")]
    Foreign,
    /// Another version of shoal wrote it.
    #[error("the execution log has version {0}, this program reads version {VERSION}")]
    Version(u8),
}

/// A finished attempt whose output counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Which.
    pub attempt: AttemptId,
    /// Who has the output.
    pub holder: WorkerId,
    /// The holder's process, which keeps this name over restarts of the master.
    pub instance: u64,
    /// The holder's machine.
    pub host: String,
    /// Where the holder serves.
    pub addr: String,
    /// What it made.
    pub output: TaskOutput,
    /// What it counted.
    pub counters: Counters,
    /// The stranger who made it, if one did.
    pub stranger: Option<[u8; 32]>,
    /// Whether another worker made the same, or it is one of ours.
    pub verified: bool,
}

/// Something that happened. All times are microseconds of the driver's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A master came up, for the how manieth time.
    Started {
        /// From 0.
        incarnation: u32,
    },
    /// A job was taken on.
    Submitted {
        /// Its name.
        job: JobId,
        /// What it is.
        submission: Box<Submission>,
        /// When.
        at_us: u64,
    },
    /// An attempt failed.
    Failed {
        /// Which.
        attempt: AttemptId,
        /// Where.
        host: String,
        /// Why.
        failure: Failure,
    },
    /// These records of a task's input are left out from now on.
    Skipped {
        /// Whose.
        task: TaskId,
        /// Which.
        records: RecordRange,
    },
    /// An attempt's output counts.
    Committed(Commit),
    /// What was committed is gone or wrong: the task runs again.
    Lost {
        /// Which.
        attempt: AttemptId,
    },
    /// What was lost is back.
    Found {
        /// Which.
        attempt: AttemptId,
        /// Who has it.
        holder: WorkerId,
        /// Where it serves.
        addr: String,
    },
    /// The output has its final name.
    Published {
        /// Whose.
        attempt: AttemptId,
    },
    /// The job is over.
    Ended {
        /// Which.
        job: JobId,
        /// How.
        outcome: Outcome,
        /// When.
        at_us: u64,
    },
    /// A stranger's result was wrong.
    Liar {
        /// Who.
        key: [u8; 32],
    },
    /// Strangers' results were the same as another's: they are trusted more from now on.
    Confirmed {
        /// Whose; one entry for each result.
        keys: Vec<[u8; 32]>,
    },
}

/// Appends the header that stands before the first record.
pub fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
    out.push(VERSION);
}

/// Appends one record. False if it is longer than a record can be (4 GiB); nothing is appended then.
pub fn append(record: &Record, out: &mut Vec<u8>) -> bool {
    let Ok(body) = postcard::to_allocvec(record) else {
        return false;
    };
    let Ok(length) = u32::try_from(body.len()) else {
        return false;
    };
    out.reserve(FRAME_BYTES + body.len());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    out.extend_from_slice(&body);
    true
}

/// The records of a log. Ends before the first that is not whole.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    log: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `log`. One that ends within its header is empty.
    ///
    /// # Errors
    /// When it is no log, or one of another version.
    pub fn new(log: &'a [u8]) -> Result<Self, LogError> {
        let magic = log.len().min(MAGIC.len());
        if log.get(..magic) != MAGIC.get(..magic) {
            return Err(LogError::Foreign);
        }
        match log.get(MAGIC.len()) {
            None => Ok(Self { log: &[], at: 0 }),
            Some(&VERSION) => Ok(Self {
                log,
                at: HEADER_BYTES,
            }),
            Some(&other) => Err(LogError::Version(other)),
        }
    }

    /// Bytes up to the end of the last record read, or of the header.
    pub const fn valid(&self) -> usize {
        self.at
    }

    /// Whether a whole record comes after the one that reading stopped at: then the log was not torn
    /// by a process that died, its bytes went bad.
    pub fn is_damaged(&self) -> bool {
        let rest = self.log.get(self.at..).unwrap_or_default();
        let Some(&[a, b, c, d]) = rest.first_chunk::<4>() else {
            return false;
        };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let mut after = Self {
            log: self.log,
            at: self.at.saturating_add(FRAME_BYTES).saturating_add(length),
        };
        after.next().is_some()
    }
}

impl Iterator for Reader<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let rest = self.log.get(self.at..)?;
        let (frame, rest) = rest.split_first_chunk::<FRAME_BYTES>()?;
        let [a, b, c, d, e, f, g, h] = *frame;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let body = rest.get(..length)?;
        if crc32c::crc32c(body) != u32::from_le_bytes([e, f, g, h]) {
            return None;
        }
        let (record, left) = postcard::take_from_bytes(body).ok()?;
        if !left.is_empty() {
            return None;
        }
        self.at += FRAME_BYTES + length;
        Some(record)
    }
}
