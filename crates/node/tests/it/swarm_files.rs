//! Reading files of a torrent of which nothing is here yet.

use crate::transfer::{content, session, share, torrent};
use shoal_content::Magnet;
use shoal_node::swarm_files::{SwarmError, SwarmFiles};
use shoal_node::{AddTorrent, What};
use std::io::Read;
use std::time::Duration;

const PIECE: u64 = 65_536;

#[test]
fn only_what_is_read_is_fetched_and_it_is_exact() {
    let (there, here) = (
        tempfile::tempdir().expect("a dir"),
        tempfile::tempdir().expect("a dir"),
    );
    let data = content(40_000_000, 21);
    std::fs::write(there.path().join("data.bin"), &data).expect("written");
    let metainfo = torrent("data.bin", &data, PIECE as u32);
    let hash = metainfo.info.info_hash();
    let seed = session(&there.path().join("state"));
    share(&seed, &metainfo, there.path());

    let files = SwarmFiles::new(session(&here.path().join("state")), Duration::from_secs(30))
        .expect("a thread starts");
    let addr = seed.local_addr().expect("it listens");
    let link = format!("magnet:?xt=urn:btih:{hash}&x.pe={addr}");
    let magnet: Magnet = link.parse().expect("a magnet link");
    let what = What::Magnet(Box::new(magnet));
    let added = files.add(AddTorrent::new(what.clone(), here.path().to_owned()));
    assert_eq!(added.expect("it can be added"), hash);
    let list = files.files(hash).expect("the metadata comes");
    assert_eq!(list.len(), 1);
    assert_eq!(
        (list[0].path.as_str(), list[0].bytes),
        ("data.bin", 40_000_000)
    );
    assert!(list[0].held.is_empty());

    let (from, bytes) = (9_999_999, 5_000_001);
    let mut part = Vec::new();
    let reader = files.open(hash, "data.bin", from, bytes);
    let mut reader = reader.expect("it opens").take(bytes);
    reader.read_to_end(&mut part).expect("it can be read");
    assert!(part == data[from as usize..(from + bytes) as usize]);
    let held = files.files(hash).expect("known")[0].held.clone();
    let first = from / PIECE * PIECE;
    let end = (from + bytes).div_ceil(PIECE) * PIECE;
    assert_eq!(held, [(first, end)], "neither less nor more than was read");

    // A reader that stops early has fetched little more than it read.
    let mut reader = files
        .open(hash, "data.bin", 30_000_000, u64::MAX)
        .expect("it opens");
    let mut start = vec![0; 100_000];
    reader.read_exact(&mut start).expect("it can be read");
    assert!(start == data[30_000_000..30_100_000]);
    drop(reader);
    let mut tail = Vec::new();
    let mut reader = files
        .open(hash, "data.bin", 39_999_990, 100)
        .expect("it opens");
    reader.read_to_end(&mut tail).expect("it can be read");
    assert!(tail == data[39_999_990..]);
    let held = files.files(hash).expect("known")[0].held.clone();
    let total: u64 = held.iter().map(|(from, to)| to - from).sum();
    assert!(
        total < end - first + 3_000_000,
        "{total} bytes were fetched"
    );

    // Once more: known already, and nothing more is fetched.
    files
        .add(AddTorrent::new(what, here.path().to_owned()))
        .expect("known");
    let missing = files.open(hash, "other.bin", 0, 1);
    assert!(matches!(missing.err(), Some(SwarmError::NoFile { .. })));
    seed.stop();
}

#[test]
fn two_readers_that_hold_halves_serve_each_other() {
    let data = content(8_000_000, 22);
    let metainfo = torrent("data.bin", &data, PIECE as u32);
    let hash = metainfo.info.info_hash();
    let half = 61 * PIECE as usize;
    let dirs = [
        tempfile::tempdir().expect("a dir"),
        tempfile::tempdir().expect("a dir"),
    ];
    let mut sparse = [vec![0; data.len()], vec![0; data.len()]];
    sparse[0][..half].copy_from_slice(&data[..half]);
    sparse[1][half..].copy_from_slice(&data[half..]);
    let nodes: Vec<_> = dirs
        .iter()
        .zip(&sparse)
        .map(|(dir, bytes)| {
            std::fs::write(dir.path().join("data.bin"), bytes).expect("written");
            let session = session(&dir.path().join("state"));
            SwarmFiles::new(session, Duration::from_secs(30)).expect("a thread starts")
        })
        .collect();
    for (node, dir) in nodes.iter().zip(&dirs) {
        let what = What::Metainfo(Box::new(metainfo.clone()));
        let mut request = AddTorrent::new(what, dir.path().to_owned());
        request.peers = nodes.iter().filter_map(SwarmFiles::local_addr).collect();
        node.add(request).expect("it can be added");
    }
    let held = |n: usize| nodes[n].files(hash).expect("open")[0].held.clone();
    assert_eq!(held(0), [(0, half as u64)], "what is on disk was found");
    assert_eq!(held(1), [(half as u64, data.len() as u64)]);
    for node in &nodes {
        let mut all = Vec::new();
        let mut reader = node.open(hash, "data.bin", 0, u64::MAX).expect("it opens");
        reader.read_to_end(&mut all).expect("it can be read");
        assert!(all == data);
    }
    assert_eq!(held(0), [(0, data.len() as u64)]);
}
