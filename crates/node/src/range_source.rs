//! Sources that are asked for ranges of bytes: web seeds, Gnutella's hosts, Napster's users. What is
//! fetched sees them alike, whatever they speak.
//!
//! Each has a thread of its own, which waits where it reads. Blocks are asked for with
//! [`RangeSource::request`]; what comes of them goes to a [`Sink`], which may block: then the thread
//! does, and by TCP whoever sends.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use shoal_base::Bitfield;
use shoal_content::{Block, Geometry, Layout};
use shoal_gnutella::http::locations::PushLocation;
use shoal_gnutella::http::ranges::RangeSet;
use shoal_gnutella::huge::Urn;

/// Who has a content, or one file of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSpec {
    /// A web seed (BEP 19): a URL of the whole content.
    Web(String),
    /// A Gnutella host, or any HTTP server that knows `/uri-res/N2R?`.
    Gnutella {
        /// Where it listens.
        addr: SocketAddr,
        /// The file, by the one hash that it is to be asked for.
        urn: Urn,
        /// The file's length in bytes, if it is known: which of several files it is.
        len: Option<u64>,
    },
    /// A Gnutella host behind a firewall, which connects to us when it is called.
    Pushed {
        /// Who, and who passes calls on to it.
        sharer: PushLocation,
        /// The file, by the one hash that it is to be asked for.
        urn: Urn,
        /// The file's length in bytes, if it is known.
        len: Option<u64>,
    },
    /// A user of a Napster hub.
    Napster {
        /// The hub.
        hub: SocketAddr,
        /// Who shares it.
        nick: String,
        /// The path that the hub was told.
        path: Vec<u8>,
        /// The file's length in bytes, if it is known.
        len: Option<u64>,
    },
}

/// What kind of source one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceSort {
    /// A web seed.
    Web,
    /// A Gnutella host.
    Gnutella,
    /// A Napster user.
    Napster,
}

impl SourceSort {
    /// What it is called in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Gnutella => "gnutella",
            Self::Napster => "napster",
        }
    }
}

impl SourceSpec {
    /// What kind it is.
    pub fn sort(&self) -> SourceSort {
        match self {
            Self::Web(_) => SourceSort::Web,
            Self::Gnutella { .. } | Self::Pushed { .. } => SourceSort::Gnutella,
            Self::Napster { .. } => SourceSort::Napster,
        }
    }

    /// The bytes of `layout` that it has; none if that cannot be told.
    pub(crate) fn slice(&self, layout: &Layout) -> Option<Slice> {
        let (len, name) = match self {
            Self::Web(_) => return Some(Slice::whole(layout.geometry())),
            Self::Gnutella { len, .. } | Self::Pushed { len, .. } => (*len, None),
            Self::Napster { len, path, .. } => {
                let (_, name) = shoal_napster::file::split_path(path);
                (*len, Some(String::from_utf8_lossy(name)))
            }
        };
        let files = layout.files().iter().filter(|f| f.len > 0);
        let fits = files.filter(|f| len.is_none_or(|len| len == f.len));
        let fits: Vec<_> = fits.collect();
        let named = |path: &str| name.as_ref().is_some_and(|n| path.ends_with(n.as_ref()));
        let file = match fits.as_slice() {
            [one] => Some(*one),
            several => several.iter().copied().find(|f| named(f.path.as_str())),
        }?;
        Some(Slice {
            geometry: layout.geometry(),
            start: file.offset,
            len: file.len,
        })
    }
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Web(url) => f.write_str(url),
            Self::Gnutella { addr, .. } => addr.fmt(f),
            Self::Pushed { sharer, .. } => sharer.guid.fmt(f),
            Self::Napster { hub, nick, .. } => write!(f, "{nick}@{hub}"),
        }
    }
}

/// What sources of one kind do for a torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCount {
    /// Those that are known.
    pub known: usize,
    /// Those that send, or may at once.
    pub at_work: usize,
    /// Those that let us wait.
    pub queued: usize,
    /// Those that sent wrong bytes.
    pub lied: usize,
    /// Bytes of theirs that were taken.
    pub bytes: u64,
    /// Bytes a second.
    pub rate: u64,
}

/// What happened to a source that is asked for ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceNews {
    /// It was heard of.
    Known,
    /// It lets us wait.
    Queued {
        /// Our place, if it says so.
        position: Option<u32>,
        /// Seconds until it is asked again.
        retry_s: u64,
    },
    /// It cannot be used, for now or for good.
    Failed {
        /// Why.
        why: String,
        /// Whether it is not tried again.
        for_good: bool,
    },
    /// It sent wrong bytes and is asked no more.
    Banned,
    /// All is there, and so fast it sent what came from it of late.
    Gave {
        /// Bytes a second.
        rate: u64,
    },
}

/// Where a file's bytes lie in what is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) geometry: Geometry,
    /// The file's first byte.
    pub(crate) start: u64,
    /// Bytes of the file.
    pub(crate) len: u64,
}

impl Slice {
    /// All of it.
    pub(crate) fn whole(geometry: Geometry) -> Self {
        Self {
            geometry,
            start: 0,
            len: geometry.total_len(),
        }
    }

    /// Where a block begins in the file.
    pub(crate) fn at(&self, block: &Block) -> u64 {
        let start = self.geometry.piece_start(block.piece) + u64::from(block.begin);
        start.saturating_sub(self.start)
    }

    /// The pieces that lie wholly within the file, and within what is there of it; none if those are
    /// all.
    pub(crate) fn pieces(&self, available: Option<&RangeSet>) -> Option<Bitfield> {
        if self.len == self.geometry.total_len() && available.is_none() {
            return None;
        }
        let mut bits = Bitfield::new(self.geometry.pieces());
        for piece in 0..self.geometry.pieces() {
            let start = self.geometry.piece_start(piece);
            let end = start + u64::from(self.geometry.piece_size(piece));
            if start < self.start || end > self.start + self.len {
                continue;
            }
            let range = start - self.start..end - self.start;
            if available.is_none_or(|set| set.contains(&range)) {
                bits.set(piece);
            }
        }
        Some(bits)
    }
}

/// When a source that failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// After a while that grows with each failure.
    Soon,
    /// After so long.
    After(Duration),
    /// Not at all.
    Never,
}

/// What comes of a source.
#[derive(Debug)]
pub(crate) enum RangeEvent {
    /// Data.
    Blocks {
        /// The data; at most [`crate::assembly::BUFFER_LEN`] bytes, unless one block is longer.
        buf: Vec<u8>,
        /// Which blocks, and where each begins in the buffer.
        blocks: Vec<(Block, usize)>,
    },
    /// It does not have these blocks now.
    Missed(Vec<Block>),
    /// What it has of the file; none: all.
    Has(Option<RangeSet>),
    /// Others who have the file.
    Others(Vec<SocketAddr>),
    /// It lets us wait: what it was asked for is forgotten.
    Waits {
        /// For so long.
        wait: Duration,
        /// Our place in its queue, if it says so.
        position: Option<u32>,
        /// Whether the thread lives on; else another is to be started then.
        lives: bool,
    },
    /// A failure that trying again did not mend: nothing more comes of what was asked for.
    Failed {
        /// What went wrong.
        why: String,
        /// When to try again.
        again: Again,
    },
}

/// Takes what comes of a source; fails when nobody listens any more.
pub(crate) type Sink = Box<dyn Fn(RangeEvent) -> Result<(), ()> + Send>;

/// A running source; stops when dropped, at the latest when a read times out.
pub(crate) trait RangeSource: Send {
    /// Asks for blocks; those that follow one another are fetched together.
    fn request(&self, blocks: Vec<Block>);

    /// Asks what it has by now, if it may have a part only.
    fn probe(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_file_lie_wholly_within_it() {
        let geometry = Geometry::new(10 * 16384, 16384).expect("ten pieces");
        let all = Slice::whole(geometry);
        assert_eq!(all.pieces(None), None);
        let slice = Slice {
            geometry,
            start: 20_000,
            len: 100_000,
        };
        let bits = slice.pieces(None).expect("not all");
        assert_eq!(bits.iter().collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
        let mut set = RangeSet::default();
        set.insert(20_000..60_000);
        let bits = slice.pieces(Some(&set)).expect("not all");
        // From byte 40,000 to 80,000 of the whole: pieces 3 only.
        assert_eq!(bits.iter().collect::<Vec<_>>(), [3]);
        let block = geometry.block(3, 0);
        assert_eq!(slice.at(&block), 3 * 16384 - 20_000);
    }
}
