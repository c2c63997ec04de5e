//! Sharing and fetching between real sessions.

use sha1::{Digest, Sha1};
use shoal_base::Rng;
use shoal_content::create::{CreateOptions, Plan};
use shoal_content::{Magnet, Metainfo};
use shoal_node::{AddTorrent, Event, Session, SessionConfig, TorrentKey, What};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::from_seed(seed).fill(&mut bytes);
    bytes
}

pub(crate) fn torrent(name: &str, data: &[u8], piece_len: u32) -> Metainfo {
    let options = CreateOptions {
        piece_len: Some(piece_len),
        ..CreateOptions::default()
    };
    let plan = Plan::file(name, data.len() as u64, false, options).expect("a plan");
    let hashes: Vec<[u8; 20]> = data
        .chunks(piece_len as usize)
        .map(|c| Sha1::digest(c).into())
        .collect();
    Metainfo::new(plan.finish(&hashes).expect("an info dictionary"))
}

pub(crate) fn session(state: &Path) -> Session {
    Session::start(SessionConfig {
        listen: Some("127.0.0.1:0".parse().expect("an address")),
        state_dir: state.to_owned(),
        lsd: false,
        ..SessionConfig::default()
    })
    .expect("a session starts")
}

fn wait(session: &Session, what: &str, mut is: impl FnMut(&Event) -> bool) {
    loop {
        match session.events().recv_timeout(Duration::from_secs(10)) {
            Ok(event) if is(&event) => return,
            Ok(Event::Failed { error, .. }) => panic!("waiting for {what}: {error}"),
            Ok(_) => {}
            Err(_) => panic!("nothing more happened while waiting for {what}"),
        }
    }
}

pub(crate) fn share(session: &Session, metainfo: &Metainfo, dir: &Path) -> TorrentKey {
    let what = What::Metainfo(Box::new(metainfo.clone()));
    let mut request = AddTorrent::new(what, dir.to_owned());
    request.assume_complete = true;
    let key = session.add(request).expect("it can be shared");
    wait(session, "the start", |e| matches!(e, Event::Started { .. }));
    key
}

#[test]
fn a_file_is_fetched_from_another_node() {
    let (there, here) = (
        tempfile::tempdir().expect("a dir"),
        tempfile::tempdir().expect("a dir"),
    );
    let data = content(10_000_003, 1);
    std::fs::write(there.path().join("data.bin"), &data).expect("written");
    let metainfo = torrent("data.bin", &data, 65_536);
    let seed = session(&there.path().join("state"));
    share(&seed, &metainfo, there.path());

    let leech = session(&here.path().join("state"));
    let mut request = AddTorrent::new(What::Metainfo(Box::new(metainfo)), here.path().to_owned());
    request.peers = vec![seed.local_addr().expect("it listens")];
    let key = leech.add(request).expect("it can be fetched");
    wait(&leech, "completion", |e| {
        matches!(e, Event::Complete { .. })
    });
    let stats = leech.stats(key).expect("figures");
    assert_eq!((stats.bytes_done, stats.wasted), (data.len() as u64, 0));
    leech.stop();
    seed.stop();
    assert!(std::fs::read(here.path().join("data.bin")).expect("it is there") == data);
}

#[test]
fn a_magnet_link_is_enough() {
    let (there, here) = (
        tempfile::tempdir().expect("a dir"),
        tempfile::tempdir().expect("a dir"),
    );
    let data = content(3_000_000, 2);
    std::fs::write(there.path().join("data.bin"), &data).expect("written");
    let metainfo = torrent("data.bin", &data, 16_384);
    let seed = session(&there.path().join("state"));
    share(&seed, &metainfo, there.path());

    let addr = seed.local_addr().expect("it listens");
    let link = format!(
        "magnet:?xt=urn:btih:{}&x.pe={addr}",
        metainfo.info.info_hash()
    );
    let magnet: Magnet = link.parse().expect("a magnet link");
    let leech = session(&here.path().join("state"));
    let request = AddTorrent::new(What::Magnet(Box::new(magnet)), here.path().to_owned());
    leech.add(request).expect("it can be fetched");
    wait(&leech, "the metadata", |e| {
        matches!(e, Event::Metadata { .. })
    });
    wait(&leech, "completion", |e| {
        matches!(e, Event::Complete { .. })
    });
    leech.stop();
    assert!(std::fs::read(here.path().join("data.bin")).expect("it is there") == data);
}

#[test]
fn a_stopped_download_goes_on_where_it_was() {
    let (there, here) = (
        tempfile::tempdir().expect("a dir"),
        tempfile::tempdir().expect("a dir"),
    );
    let data = content(8_000_000, 3);
    std::fs::write(there.path().join("data.bin"), &data).expect("written");
    let metainfo = torrent("data.bin", &data, 65_536);
    let seed = session(&there.path().join("state"));
    share(&seed, &metainfo, there.path());
    let fetch = |limit: Option<u64>| {
        let leech = session(&here.path().join("state"));
        let what = What::Metainfo(Box::new(metainfo.clone()));
        let mut request = AddTorrent::new(what, here.path().to_owned());
        request.peers = vec![seed.local_addr().expect("it listens")];
        request.down_limit = limit;
        let key = leech.add(request).expect("it can be fetched");
        (leech, key)
    };
    let (leech, key) = fetch(Some(4_000_000));
    while leech.stats(key).is_none_or(|s| s.bytes_done < 2_000_000) {
        std::thread::yield_now();
    }
    let before = leech.stats(key).expect("figures").bytes_done;
    leech.stop();
    let (leech, key) = fetch(None);
    wait(&leech, "completion", |e| {
        matches!(e, Event::Complete { .. })
    });
    let stats = leech.stats(key).expect("figures");
    assert!(
        stats.downloaded <= data.len() as u64 - before,
        "pieces were fetched again"
    );
    leech.stop();
    assert!(std::fs::read(here.path().join("data.bin")).expect("it is there") == data);
}

#[test]
fn data_that_is_there_is_checked_and_used() {
    let (there, here) = (
        tempfile::tempdir().expect("a dir"),
        tempfile::tempdir().expect("a dir"),
    );
    let data = content(4_000_000, 4);
    std::fs::write(there.path().join("data.bin"), &data).expect("written");
    let metainfo = torrent("data.bin", &data, 32_768);
    let seed = session(&there.path().join("state"));
    share(&seed, &metainfo, there.path());

    let mut damaged = data.clone();
    damaged[1_000_000] ^= 1;
    std::fs::write(here.path().join("data.bin"), &damaged).expect("written");
    let leech = session(&here.path().join("state"));
    let mut request = AddTorrent::new(What::Metainfo(Box::new(metainfo)), here.path().to_owned());
    request.peers = vec![seed.local_addr().expect("it listens")];
    let key = leech.add(request).expect("it can be fetched");
    wait(&leech, "completion", |e| {
        matches!(e, Event::Complete { .. })
    });
    assert_eq!(leech.stats(key).expect("figures").downloaded, 32_768);
    leech.stop();
    assert!(std::fs::read(here.path().join("data.bin")).expect("it is there") == data);
}

/// An HTTP server that knows one file and ranges, for as long as the test runs.
fn web_server(data: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!(
        "http://{}/data.bin",
        listener.local_addr().expect("an address")
    );
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let data = data.clone();
            std::thread::spawn(move || serve_ranges(&stream, &data));
        }
    });
    url
}

fn serve_ranges(stream: &TcpStream, data: &[u8]) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    loop {
        let mut range = None;
        loop {
            let line = lines.next()?.ok()?.to_ascii_lowercase();
            if let Some(bytes) = line.strip_prefix("range: bytes=") {
                let (from, to) = bytes.split_once('-')?;
                range = Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()?));
            }
            if line.is_empty() {
                break;
            }
        }
        let (from, to) = range?;
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{to}/{}\r\n\r\n",
            to - from + 1,
            data.len()
        );
        let mut stream = stream;
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(data.get(from..=to)?).ok()?;
    }
}

fn fetch_from_web(node_limit: Option<u64>, torrent_limit: Option<u64>) -> Duration {
    let here = tempfile::tempdir().expect("a dir");
    let data = content(3_000_000, 5);
    let mut metainfo = torrent("data.bin", &data, 65_536);
    metainfo.web_seeds = vec![web_server(data.clone())];
    let leech = Session::start(SessionConfig {
        state_dir: here.path().join("state"),
        lsd: false,
        down_limit: node_limit,
        ..SessionConfig::default()
    })
    .expect("a session starts");
    let what = What::Metainfo(Box::new(metainfo));
    let mut request = AddTorrent::new(what, here.path().to_owned());
    request.down_limit = torrent_limit;
    let started = Instant::now();
    leech.add(request).expect("it can be fetched");
    wait(&leech, "completion", |e| {
        matches!(e, Event::Complete { .. })
    });
    let took = started.elapsed();
    leech.stop();
    assert!(std::fs::read(here.path().join("data.bin")).expect("it is there") == data);
    took
}

#[test]
fn a_web_seed_is_bound_by_the_rate_limits() {
    fetch_from_web(None, None);
    // A lower bound only: what passes at once is a burst (a quarter second) and one event of
    // 256 KiB that may go into debt; the other 2.4 MB cannot come in less than two seconds.
    let least = Duration::from_secs(2);
    for (node, torrent) in [(Some(1_000_000), None), (None, Some(1_000_000))] {
        let took = fetch_from_web(node, torrent);
        assert!(
            took >= least,
            "limits {node:?} and {torrent:?}: took {took:?}"
        );
    }
}

#[test]
fn a_web_seed_that_waits_for_its_torrents_limit_holds_up_no_other() {
    let here = tempfile::tempdir().expect("a dir");
    let leech = session(&here.path().join("state"));
    let add = |name: &str, seed: u64, limit: Option<u64>| {
        let data = content(3_000_000, seed);
        let mut metainfo = torrent(name, &data, 65_536);
        metainfo.web_seeds = vec![web_server(data)];
        let what = What::Metainfo(Box::new(metainfo));
        let mut request = AddTorrent::new(what, here.path().join(name));
        request.down_limit = limit;
        leech.add(request).expect("it can be fetched")
    };
    // At this rate the first would take an hour.
    let slow = add("slow.bin", 7, Some(1000));
    let fast = add("fast.bin", 8, None);
    wait(
        &leech,
        "completion",
        |e| matches!(e, Event::Complete { key } if *key == fast),
    );
    let stats = leech.stats(slow).expect("it runs");
    assert!(stats.bytes_done < stats.bytes_total);
    leech.stop();
}
