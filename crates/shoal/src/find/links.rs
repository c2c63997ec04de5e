//! What a search found, as links that `fetch` takes; those of the last search are kept, so that a
//! number is enough.

use std::path::{Path, PathBuf};

use shoal_content::hits::{Found, Hits};
use shoal_content::path::Naming;
use shoal_content::{FileSource, Magnet, SafePath, Urn};
use shoal_store::snapshot;

use crate::failure::{Failure, Outcome};

/// Bytes of the last search's links at most, and sources of one.
const MAX_SAVED: u64 = 16 << 20;
const MAX_SOURCES: usize = 64;

/// The link of a result: its hashes, and everybody who has it, or says so under its name and size.
/// Who lies is found out by the hashes.
pub(super) fn link(found: &Found, hits: &Hits) -> Magnet {
    let size = found.size();
    let mut link = Magnet {
        info_hash: found.hashes.info_hash.map(shoal_base::InfoHash),
        sha1: found.hashes.sha1,
        tiger: found.hashes.tiger,
        len: Some(size),
        name: SafePath::sanitise([found.name().as_bytes()], Naming::Download)
            .ok()
            .map(|name| name.as_str().to_owned()),
        ..Magnet::default()
    };
    let mut add = |source: &FileSource| {
        let other = source
            .urn()
            .is_some_and(|urn| !urn.is_of(link.sha1, link.tiger));
        if !other && link.sources.len() < MAX_SOURCES && !link.sources.contains(source) {
            link.sources.push(source.clone());
        }
    };
    let same = |hit: &&shoal_content::hits::Hit| hit.size == size;
    let own = found.hits.iter().filter(same);
    own.filter_map(|hit| hit.source.as_ref()).for_each(&mut add);
    if !found.hashes.is_empty()
        && let Some(unproven) = hits.unproven(size, found.name())
    {
        let theirs = unproven.hits.iter().filter(same);
        theirs
            .filter_map(|hit| hit.source.as_ref())
            .for_each(&mut add);
    }
    link
}

fn path(base: &Path) -> PathBuf {
    base.join("last-find")
}

/// Keeps the links of a search for [`lookup`], in the order in which they were told.
pub(super) fn save(links: &[Magnet], base: &Path) -> Outcome {
    let text: String = links.iter().map(|link| format!("{link}\n")).collect();
    let path = path(base);
    snapshot::save(&path, text.as_bytes()).map_err(|e| Failure::io("write", &path, &e))
}

fn load(base: &Path) -> Outcome<Vec<Option<Magnet>>> {
    let path = path(base);
    let bytes = snapshot::load(&path, MAX_SAVED);
    let bytes = bytes.map_err(|e| Failure::io("read", &path, &e))?;
    let text = String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default();
    // A result that nobody can be asked for keeps its number.
    Ok(text.lines().map(|line| line.parse().ok()).collect())
}

/// What `what` names of the last search: a number, or a `urn:` of hashes. None if it is neither.
pub(crate) fn lookup(what: &str, base: &Path) -> Outcome<Option<Magnet>> {
    let what = what.trim();
    if let Ok(urn) = what.parse::<Urn>() {
        let same = |link: &Magnet| match (urn.sha1(), urn.tiger()) {
            (Some(sha1), _) => link.sha1 == Some(sha1),
            (None, tiger) => link.tiger == tiger,
        };
        let known = load(base)?.into_iter().flatten().find(same);
        let mut link = known.unwrap_or_default();
        link.sha1 = link.sha1.or(urn.sha1());
        link.tiger = link.tiger.or(urn.tiger());
        return Ok(Some(link));
    }
    let number = what.len() <= 5 && what.bytes().all(|b| b.is_ascii_digit());
    if !number || Path::new(what).exists() {
        return Ok(None);
    }
    let links = load(base)?;
    let n: usize = what.parse().unwrap_or(0);
    let link = n.checked_sub(1).and_then(|n| links.get(n));
    match link {
        Some(Some(link)) => Ok(Some(link.clone())),
        Some(None) => Err(Failure::not_found(format!(
            "nobody can be asked for result {n}"
        ))),
        None => Err(
            Failure::not_found(format!("the last search has no result {what}")).hint(
                match links.len() {
                    0 => "shoal find WORDS searches".to_owned(),
                    last => format!("it has 1 to {last}"),
                },
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_content::hits::{Hashes, Hit};

    fn napster(nick: &str, size: u64) -> Hit {
        Hit {
            via: "napster",
            sharer: nick.into(),
            name: "x\\A Song.ogg".into(),
            size,
            source: Some(FileSource::Napster {
                hub: "h:1".into(),
                nick: nick.into(),
                path: b"x\\A Song.ogg".to_vec(),
            }),
            ..Hit::default()
        }
    }

    #[test]
    fn a_link_names_all_who_have_it_and_is_found_again() {
        let sha1 = [7; 20];
        let mut hits = Hits::default();
        hits.add(napster("bob", 10));
        hits.add(napster("eve", 11));
        hits.add(Hit {
            via: "gnutella",
            sharer: "192.0.2.1:6346".into(),
            name: "a song.ogg".into(),
            size: 10,
            hashes: Hashes {
                sha1: Some(sha1),
                ..Hashes::default()
            },
            source: Some(FileSource::Gnutella {
                host: "192.0.2.1:6346".into(),
                urn: Urn::Sha1(sha1),
            }),
            ..Hit::default()
        });
        let links: Vec<Magnet> = (0..hits.len())
            .filter_map(|n| hits.get(n))
            .map(|found| link(found, &hits))
            .collect();
        let with_hash = links.iter().find(|l| l.sha1.is_some()).expect("one");
        assert_eq!(with_hash.len, Some(10));
        assert_eq!(with_hash.sources.len(), 2, "bob has it too: {with_hash}");
        let dir = tempfile::tempdir().expect("a folder");
        save(&links, dir.path()).expect("saved");
        let n = links.iter().position(|l| l.sha1.is_some()).expect("one") + 1;
        let found = |what: &str| lookup(what, dir.path());
        let by_number = found(&n.to_string()).expect("there");
        assert_eq!(by_number.as_ref(), Some(with_hash));
        let urn = with_hash.urn().expect("a hash").to_string();
        assert_eq!(found(&urn).expect("there").as_ref(), Some(with_hash));
        assert!(found("9").is_err());
        assert!(found("0").is_err());
        assert_eq!(found("a.torrent").expect("no hit"), None);
    }
}
