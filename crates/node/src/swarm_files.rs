//! Files of torrents as something to read: what a reader touches is fetched from the swarm, what
//! is on disk already is not.
//!
//! This is how jobs read content by magnet link. Nothing is fetched before it is read, but for a
//! little read-ahead; everything verified is served to others.

use crate::session::{AddTorrent, Event, NodeError, Opened, Session, TorrentStats, What};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use shoal_base::InfoHash;
use shoal_content::{FileEntry, PieceIndex};
use shoal_store::TorrentKey;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSliceMut, Read};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How far ahead of a reader pieces are asked for, in bytes; at least one piece.
const READ_AHEAD: u64 = 2 << 20;

/// One file of a torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwarmFile {
    /// Its path within the torrent, parts joined by `/`.
    pub path: String,
    /// Its length, in bytes.
    pub bytes: u64,
    /// Length of the torrent's pieces, in bytes.
    pub piece_bytes: u32,
    /// Where the first piece begins that does not begin before the file, in bytes from its start.
    pub first_piece: u32,
    /// Stretches of it that are verified and on this disk: first byte, byte after the last.
    pub held: Vec<(u64, u64)>,
}

/// Why a torrent's file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// The torrent was not added here.
    #[error("{0} is not among the torrents of this node")]
    Unknown(InfoHash),
    /// No such file.
    #[error("{hash} has no file {path:?}")]
    NoFile {
        /// Of which torrent.
        hash: InfoHash,
        /// What was asked for.
        path: String,
    },
    /// The torrent cannot be used.
    #[error("{hash}: {why}")]
    Failed {
        /// Which torrent.
        hash: InfoHash,
        /// Why.
        why: String,
    },
    /// The node said no.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// The torrents of one session, to be read from.
pub struct SwarmFiles {
    session: Arc<Session>,
    patience: Duration,
    members: Mutex<BTreeMap<InfoHash, TorrentKey>>,
    /// Why torrents failed.
    failed: Arc<Mutex<BTreeMap<TorrentKey, String>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SwarmFiles {
    /// Takes over a session and its events. Metadata, and each piece, may take `patience` to come
    /// before reading it fails.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(session: Session, patience: Duration) -> io::Result<Self> {
        let failed: Arc<Mutex<BTreeMap<TorrentKey, String>>> = Arc::default();
        let (events, found) = (session.events().clone(), failed.clone());
        // Ends with the session, whose events end then.
        std::thread::Builder::new()
            .name("swarm-events".into())
            .spawn(move || {
                for event in events {
                    if let Event::Failed { key, error } = event {
                        lock(&found).insert(key, error);
                    }
                }
            })?;
        Ok(Self {
            session: Arc::new(session),
            patience,
            members: Mutex::default(),
            failed,
        })
    }

    /// Adds a torrent, of which nothing is fetched before it is read. One that is here already only
    /// learns of more peers.
    ///
    /// # Errors
    /// When it cannot be added.
    pub fn add(&self, mut request: AddTorrent) -> Result<InfoHash, SwarmError> {
        let hash = match &request.what {
            What::Metainfo(metainfo) => metainfo.info.info_hash_v1(),
            What::Magnet(magnet) => magnet.info_hash,
        };
        let hash = hash.ok_or(NodeError::V2Only)?;
        let mut members = lock(&self.members);
        if let Some(key) = members.get(&hash) {
            let mut peers = request.peers;
            if let What::Magnet(magnet) = &request.what {
                peers.extend(
                    magnet
                        .peers
                        .iter()
                        .filter_map(|p| p.parse::<SocketAddr>().ok()),
                );
            }
            self.session.add_peers(*key, peers)?;
            return Ok(hash);
        }
        request.on_demand = true;
        let key = self.session.add(request)?;
        members.insert(hash, key);
        Ok(hash)
    }

    /// The torrents that were added.
    pub fn hashes(&self) -> Vec<InfoHash> {
        lock(&self.members).keys().copied().collect()
    }

    /// A torrent's figures.
    pub fn stats(&self, hash: InfoHash) -> Option<TorrentStats> {
        let key = *lock(&self.members).get(&hash)?;
        self.session.stats(key)
    }

    /// Where peers reach the node.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.session.local_addr()
    }

    /// The files of a torrent in its order, padding left out. Waits for the metadata.
    ///
    /// # Errors
    /// When the torrent is unknown or its metadata does not come.
    pub fn files(&self, hash: InfoHash) -> Result<Vec<SwarmFile>, SwarmError> {
        let (_, opened) = self.opened(hash)?;
        let geometry = opened.info.geometry();
        let files = opened.info.layout.files().iter().enumerate();
        Ok(files
            .filter(|(_, file)| !file.attr.pad)
            .map(|(number, file)| SwarmFile {
                path: path_of(file),
                bytes: file.len,
                piece_bytes: geometry.piece_len(),
                first_piece: first_piece(file.offset, geometry.piece_len()),
                held: held(&opened, number, file),
            })
            .collect())
    }

    /// Opens a file of a torrent at byte `from`, to read about `about` bytes. The reader goes on to
    /// the end of the file, but of what comes after those only the piece being read is fetched.
    ///
    /// # Errors
    /// As for `files`, or when there is no such file.
    pub fn open(
        &self,
        hash: InfoHash,
        path: &str,
        from: u64,
        about: u64,
    ) -> Result<SwarmReader, SwarmError> {
        let (key, opened) = self.opened(hash)?;
        let files = opened.info.layout.files();
        let file = files.iter().find(|f| !f.attr.pad && path_of(f) == path);
        let file = file.ok_or_else(|| SwarmError::NoFile {
            hash,
            path: path.to_owned(),
        })?;
        let from = from.min(file.len);
        let at = file.offset + from;
        let end = file.offset + file.len;
        Ok(SwarmReader {
            session: self.session.clone(),
            failed: self.failed.clone(),
            patience: self.patience,
            key,
            at,
            about: at.saturating_add(about).min(end),
            end,
            asked: 0,
            coming: None,
            ready: opened.have.iter().collect(),
            opened,
        })
    }

    fn opened(&self, hash: InfoHash) -> Result<(TorrentKey, Opened), SwarmError> {
        let key = lock(&self.members).get(&hash).copied();
        let key = key.ok_or(SwarmError::Unknown(hash))?;
        let why = |key| lock(&self.failed).get(&key).cloned();
        match self.session.open(key, self.patience) {
            Ok(opened) => Ok((key, opened)),
            Err(NodeError::Patience(patience)) => match why(key) {
                Some(why) => Err(SwarmError::Failed { hash, why }),
                None => Err(NodeError::Patience(patience).into()),
            },
            Err(error) => Err(error.into()),
        }
    }
}

/// A path within a torrent as text.
fn path_of(file: &FileEntry) -> String {
    file.path.as_path().to_string_lossy().into_owned()
}

/// The verified stretches of a file.
/// Bytes of a file before the first piece that begins within it.
fn first_piece(offset: u64, piece_bytes: u32) -> u32 {
    let over = offset % u64::from(piece_bytes.max(1));
    match u32::try_from(over) {
        Ok(over) if over > 0 => piece_bytes - over,
        _ => 0,
    }
}

fn held(opened: &Opened, number: usize, file: &FileEntry) -> Vec<(u64, u64)> {
    let geometry = opened.info.geometry();
    let mut stretches: Vec<(u64, u64)> = Vec::new();
    for piece in opened.info.layout.pieces_of(number) {
        if !opened.have.get(piece) {
            continue;
        }
        let start = geometry.piece_start(piece);
        let end = start + u64::from(geometry.piece_size(piece));
        let from = start.max(file.offset) - file.offset;
        let to = end.min(file.offset + file.len) - file.offset;
        match stretches.last_mut() {
            Some(last) if last.1 == from => last.1 = to,
            _ => stretches.push((from, to)),
        }
    }
    stretches
}

/// Reads a stretch of a torrent's file, waiting for pieces that are still to come.
pub struct SwarmReader {
    session: Arc<Session>,
    failed: Arc<Mutex<BTreeMap<TorrentKey, String>>>,
    patience: Duration,
    key: TorrentKey,
    opened: Opened,
    /// Next byte, as a position in the content.
    at: u64,
    /// Past the last byte that is worth fetching ahead.
    about: u64,
    /// Past the last byte.
    end: u64,
    /// Past the last piece asked for.
    asked: PieceIndex,
    /// Tells of those asked for last.
    coming: Option<Receiver<PieceIndex>>,
    ready: BTreeSet<PieceIndex>,
}

impl SwarmReader {
    /// Asks for the piece and for those that follow it, unless they are there or asked for.
    fn ask_ahead(&mut self, piece: PieceIndex) -> io::Result<()> {
        while let Some(Ok(ready)) = self.coming.as_ref().map(Receiver::try_recv) {
            self.ready.insert(ready);
        }
        let piece_len = u64::from(self.opened.info.geometry().piece_len());
        let ahead = (self.at + READ_AHEAD.max(piece_len)).min(self.about);
        let ahead = ahead.max(self.at + 1);
        // Within the content, so the numbers of pieces fit.
        let ahead = ahead.div_ceil(piece_len) as PieceIndex;
        let missing = (piece..ahead).any(|p| !self.ready.contains(&p));
        // Asking costs as much for one piece as for all: not before half of what was asked for is read.
        let due = self.asked <= piece || (ahead - self.asked) * 2 >= ahead - piece;
        if missing && self.asked < ahead && due {
            // The new receiver tells also of what was asked for before and has not come.
            self.coming = Some(self.want(piece..ahead)?);
            self.asked = ahead;
        }
        Ok(())
    }

    /// Waits until the piece is there.
    fn await_piece(&mut self, piece: PieceIndex) -> io::Result<()> {
        self.ask_ahead(piece)?;
        let mut asked_again = false;
        while !self.ready.contains(&piece) {
            let told = match &self.coming {
                Some(coming) => coming.recv_timeout(self.patience),
                None => Err(RecvTimeoutError::Disconnected),
            };
            match told {
                Ok(ready) => drop(self.ready.insert(ready)),
                Err(RecvTimeoutError::Timeout) => return Err(self.late(piece)),
                // It told of as many as were missing, but another was lost meanwhile.
                Err(RecvTimeoutError::Disconnected) if !asked_again => {
                    asked_again = true;
                    self.coming = Some(self.want(piece..piece + 1)?);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other(NodeError::Stopped));
                }
            }
        }
        Ok(())
    }

    fn want(&self, pieces: Range<PieceIndex>) -> io::Result<Receiver<PieceIndex>> {
        let wanted = self.session.want(self.key, pieces);
        wanted.map_err(io::Error::other)
    }

    fn late(&self, piece: PieceIndex) -> io::Error {
        if let Some(why) = lock(&self.failed).get(&self.key) {
            return io::Error::other(why.clone());
        }
        let seconds = self.patience.as_secs();
        let what = format!("piece {piece} did not come from the swarm within {seconds} s");
        io::Error::new(io::ErrorKind::TimedOut, what)
    }
}

impl Read for SwarmReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.end || buf.is_empty() {
            return Ok(0);
        }
        let geometry = self.opened.info.geometry();
        // Positions lie within the content, so the piece's number fits.
        let piece = (self.at / u64::from(geometry.piece_len())) as PieceIndex;
        self.await_piece(piece)?;
        let piece_end = geometry.piece_start(piece) + u64::from(geometry.piece_size(piece));
        let left = piece_end.min(self.end) - self.at;
        let n = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let Some(part) = buf.get_mut(..n) else {
            return Ok(0);
        };
        self.opened
            .files
            .read_at(self.at, &mut [IoSliceMut::new(part)])
            .map_err(io::Error::other)?;
        self.at += n as u64;
        Ok(n)
    }
}
