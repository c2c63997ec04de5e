//! The file that is being fetched, as the server of files knows it: what is verified of it goes to
//! who asks (partial file sharing, PFSP).

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_base::Bitfield;
use shoal_content::{Geometry, PieceIndex};
use shoal_gnutella::http::files::{Files, Lookup, Offer};
use shoal_gnutella::http::ranges::RangeSet;
use shoal_gnutella::huge::{Sha1, TigerRoot, Urn};
use shoal_store::Served;

use super::library::Openable;

/// Where the one file of a torrent is served while it is fetched.
#[derive(Debug, Clone)]
pub struct SharedPart {
    /// What is there of it.
    pub file: PartialFile,
    /// Its SHA-1, as the link says: nothing proves it before all is there.
    pub sha1: Sha1,
    /// Where others fetch it; none: they are not told.
    pub at: Option<SocketAddr>,
}

/// What is there of one file. Knows nothing before a download begins whose pieces can be checked.
#[derive(Debug, Clone, Default)]
pub struct PartialFile(Arc<Mutex<Option<Part>>>);

#[derive(Debug)]
struct Part {
    name: String,
    path: PathBuf,
    sha1: Sha1,
    /// The hash tree, root first; empty if there is none.
    levels: Vec<u8>,
    geometry: Geometry,
    have: Bitfield,
}

impl Part {
    fn offer(&self) -> Option<Offer> {
        let mut available = RangeSet::default();
        for piece in self.have.iter() {
            let start = self.geometry.piece_start(piece);
            let end = start + u64::from(self.geometry.piece_size(piece));
            // What does not fit the set is not told of.
            available.insert(start..end);
        }
        let len = self.geometry.total_len();
        Some(Offer {
            key: 0,
            name: self.name.clone(),
            len,
            sha1: self.sha1,
            tiger: self.levels.first_chunk().copied().map(TigerRoot),
            available: (available.bytes() < len).then_some(available),
        })
        .filter(|offer| offer.available.as_ref().is_none_or(|set| !set.is_empty()))
    }
}

impl PartialFile {
    fn part(&self) -> MutexGuard<'_, Option<Part>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is served from now on: nothing without the hash tree, for nothing is verified then.
    pub(super) fn begin(
        &self,
        (path, name): (PathBuf, &str),
        sha1: Sha1,
        levels: Option<Vec<u8>>,
        geometry: Geometry,
        have: &Bitfield,
    ) {
        *self.part() = levels.map(|levels| Part {
            name: name.to_owned(),
            path,
            sha1,
            levels,
            geometry,
            have: have.clone(),
        });
    }

    /// What is served from now on of a file that a torrent's pieces prove, whatever its hash tree is.
    pub(crate) fn begin_torrent(
        &self,
        (path, name): (PathBuf, &str),
        sha1: Sha1,
        geometry: Geometry,
        have: &Bitfield,
    ) {
        self.begin((path, name), sha1, Some(Vec::new()), geometry, have);
    }

    /// A piece is not there any more.
    pub(crate) fn lost(&self, piece: PieceIndex) {
        if let Some(part) = &mut *self.part() {
            part.have.clear(piece);
        }
    }

    /// A piece is verified and written.
    pub(crate) fn has(&self, piece: PieceIndex) {
        if let Some(part) = &mut *self.part() {
            part.have.set(piece);
        }
    }

    /// Whether anything can be had here.
    pub(crate) fn is_of_use(&self) -> bool {
        self.part()
            .as_ref()
            .is_some_and(|part| part.have.count() > 0)
    }
}

impl Files for PartialFile {
    fn by_urn(&self, urn: &Urn) -> Lookup {
        let offer = self.part().as_ref().and_then(Part::offer);
        let fits = |offer: &Offer| urn.is_of(Some(offer.sha1), offer.tiger);
        offer.filter(fits).map_or(Lookup::Unknown, Lookup::Found)
    }

    fn by_index(&self, _: u32) -> Lookup {
        Lookup::Unknown
    }

    fn tree(&self, _: &Offer) -> Option<Vec<u8>> {
        let levels = self.part().as_ref().map(|part| part.levels.clone());
        levels.filter(|levels| !levels.is_empty())
    }

    fn browse(&self) -> Option<Vec<u8>> {
        None
    }
}

impl Openable for PartialFile {
    fn open(&self, _: u64) -> io::Result<Served> {
        let path = self.part().as_ref().map(|part| part.path.clone());
        Served::open(&path.ok_or(io::ErrorKind::NotFound)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_torrents_file_the_pieces_that_are_there_are_served_without_a_tree() {
        let file = PartialFile::default();
        let geometry = Geometry::new(2_500_000, 1 << 20).expect("cut");
        let mut have = Bitfield::new(geometry.pieces());
        let path = PathBuf::from("/nowhere/a.bin");
        file.begin_torrent((path, "a.bin"), [1; 20], geometry, &have);
        let urn = Urn::Sha1([1; 20]);
        let found = || match file.by_urn(&urn) {
            Lookup::Found(offer) => Some(offer),
            _ => None,
        };
        assert!(found().is_none() && !file.is_of_use());
        file.has(1);
        let offer = found().expect("a piece of it");
        assert_eq!(offer.tiger, None);
        assert_eq!(file.tree(&offer), None);
        let available = offer.available.expect("not all");
        assert_eq!(
            available.first_within(&(0..2_500_000)),
            Some(1 << 20..2 << 20)
        );
        file.lost(1);
        assert!(found().is_none());
        for piece in 0..3 {
            have.set(piece);
            file.has(piece);
        }
        assert_eq!(found().expect("all of it").available, None);
        let other = Urn::Sha1([2; 20]);
        assert!(matches!(file.by_urn(&other), Lookup::Unknown));
    }
}
