//! The file that is being fetched, as the server of files knows it: what is verified of it goes to
//! who asks (partial file sharing, PFSP).

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_base::Bitfield;
use shoal_content::{Geometry, PieceIndex};
use shoal_gnutella::http::files::{Files, Lookup, Offer};
use shoal_gnutella::http::ranges::RangeSet;
use shoal_gnutella::huge::{Sha1, Urn};
use shoal_store::Served;

use super::library::Openable;

/// What is there of one file. Knows nothing before a download begins whose pieces can be checked.
#[derive(Debug, Clone, Default)]
pub struct PartialFile(Arc<Mutex<Option<Part>>>);

#[derive(Debug)]
struct Part {
    name: String,
    path: PathBuf,
    sha1: Sha1,
    /// The hash tree, root first.
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
            tiger: self.levels.first_chunk().copied(),
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

    /// A piece is verified and written.
    pub(super) fn has(&self, piece: PieceIndex) {
        if let Some(part) = &mut *self.part() {
            part.have.set(piece);
        }
    }

    /// Whether anything can be had here.
    pub(super) fn is_of_use(&self) -> bool {
        self.part()
            .as_ref()
            .is_some_and(|part| part.have.count() > 0)
    }
}

impl Files for PartialFile {
    fn by_urn(&self, urn: &Urn) -> Lookup {
        let offer = self.part().as_ref().and_then(Part::offer);
        let fits = |offer: &Offer| {
            urn.sha1().is_none_or(|sha1| sha1 == offer.sha1)
                && urn.tiger().is_none_or(|root| Some(root) == offer.tiger)
        };
        offer.filter(fits).map_or(Lookup::Unknown, Lookup::Found)
    }

    fn by_index(&self, _: u32) -> Lookup {
        Lookup::Unknown
    }

    fn tree(&self, _: &Offer) -> Option<Vec<u8>> {
        self.part().as_ref().map(|part| part.levels.clone())
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
