//! Web seeds against a small server with every habit, and against nginx if it is installed.

use super::*;
use crate::outbound::Outbound;
use crossbeam_channel::Receiver;
use shoal_content::{FileAttr, SafePath};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

/// What the test server does instead of the right thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Habit {
    Ranges,
    WholeFiles,
    /// Ends every other body early.
    CutsShort,
    /// Answers with half of the range.
    HalfRanges,
    Missing,
    /// Busy the first time only.
    BusyOnce,
    Busy,
    WrongFile,
    /// Sends from elsewhere.
    WrongRange,
    Redirects,
    /// Redirects to itself for ever.
    Circles,
}

type Files = Arc<BTreeMap<String, Vec<u8>>>;

/// Serves until the process ends; gives its address.
fn serve(files: Files, habit: Habit) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let requests = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (files, requests) = (Arc::clone(&files), Arc::clone(&requests));
            thread::spawn(move || {
                let _ = answer_all(stream, &files, habit, &requests);
            });
        }
    });
    format!("http://{addr}")
}

fn answer_all(
    stream: TcpStream,
    files: &Files,
    habit: Habit,
    requests: &std::sync::atomic::AtomicUsize,
) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let (mut path, mut range) = (String::new(), None);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim();
            if let Some(rest) = line.strip_prefix("GET ") {
                path = rest.split(' ').next().unwrap_or_default().to_owned();
            } else if let Some(("range", value)) = line
                .split_once(": ")
                .map(|(n, v)| (n.to_ascii_lowercase(), v))
                .as_ref()
                .map(|(n, v)| (n.as_str(), *v))
            {
                let (a, b) = value
                    .strip_prefix("bytes=")
                    .and_then(|v| v.split_once('-'))
                    .expect("a byte range");
                let number = |s: &str| s.parse::<usize>().expect("a number");
                range = Some((number(a), number(b)));
            } else if line.is_empty() {
                break;
            }
        }
        let nth = requests.fetch_add(1, Ordering::SeqCst);
        let redirect = match habit {
            Habit::Redirects => !path.starts_with("/moved"),
            Habit::Circles => true,
            _ => false,
        };
        if redirect {
            write!(
                out,
                "HTTP/1.1 302 Found\r\nLocation: /moved{path}\r\nContent-Length: 0\r\n\r\n"
            )?;
            continue;
        }
        let path = path.strip_prefix("/moved").unwrap_or(&path);
        let status = match habit {
            Habit::Missing => Some("404 Not Found"),
            Habit::Busy => Some("503 Busy"),
            Habit::BusyOnce if nth == 0 => Some("503 Busy"),
            _ => None,
        };
        let retry = if habit == Habit::Busy {
            "Retry-After: 77\r\n"
        } else {
            ""
        };
        let (Some(data), None) = (files.get(path), status) else {
            let status = status.unwrap_or("404 Not Found");
            write!(
                out,
                "HTTP/1.1 {status}\r\n{retry}Content-Length: 2\r\n\r\nno"
            )?;
            continue;
        };
        let (mut first, mut last) = range.expect("always asked for a range");
        let mut total = data.len();
        match habit {
            Habit::WholeFiles => {
                write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n")?;
                out.write_all(data)?;
                continue;
            }
            Habit::HalfRanges => last = first + (last - first) / 2,
            Habit::WrongFile => total += 1,
            Habit::WrongRange => first += 1,
            _ => {}
        }
        let body = &data[first..=last];
        write!(
            out,
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{total}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )?;
        if habit == Habit::CutsShort && nth.is_multiple_of(2) {
            return out.write_all(&body[..body.len() / 2]);
        }
        out.write_all(body)?;
    }
}

fn pattern(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251 + salt) as u8).collect()
}

/// A torrent of two files with padding between, as (layout, what a server has, all bytes).
fn two_files() -> (Arc<Layout>, Files, Vec<u8>) {
    let (a, b) = (pattern(700_000, 1), pattern(900_001, 2));
    let pad = 786_432 - 700_000;
    let file = |path: &str, len: usize, pad: bool| {
        let attr = FileAttr {
            pad,
            ..FileAttr::default()
        };
        (SafePath::new(path).expect("a safe path"), len as u64, attr)
    };
    let layout = Layout::new(
        [
            file("top/a b", a.len(), false),
            file("top/.pad/1", pad, true),
            file("top/sub/b", b.len(), false),
        ],
        1 << 18,
    )
    .expect("a layout");
    let mut all = a.clone();
    all.resize(786_432, 0);
    all.extend(&b);
    let files = [
        ("/x/top/a%20b".to_owned(), a),
        ("/x/top/sub/b".to_owned(), b),
    ];
    (Arc::new(layout), Arc::new(files.into()), all)
}

fn all_blocks(layout: &Layout) -> Vec<Block> {
    let g = layout.geometry();
    (0..g.pieces())
        .flat_map(|p| (0..g.blocks(p)).map(move |n| g.block(p, n)))
        .collect()
}

fn start(url: &str, layout: &Arc<Layout>) -> (WebSeedHandle, Receiver<WebSeedEvent>) {
    let (sender, events) = crossbeam_channel::bounded(4);
    let sink = Box::new(move |event| {
        let _ = sender.send(event);
    });
    let handle =
        WebSeedHandle::spawn(url, Arc::clone(layout), Outbound::default(), sink).expect("started");
    (handle, events)
}

/// Asks for everything and gives what came, or the failure.
fn fetch(url: &str, layout: &Arc<Layout>) -> Result<Vec<u8>, (String, Option<Duration>)> {
    let (handle, events) = start(url, layout);
    let blocks = all_blocks(layout);
    let mut left = blocks.len();
    handle.request(blocks);
    let g = layout.geometry();
    let mut all = vec![0xee; layout.total_len() as usize];
    while left > 0 {
        match events
            .recv_timeout(Duration::from_secs(60))
            .expect("an event")
        {
            WebSeedEvent::Blocks { buf, blocks } => {
                assert!(buf.len() <= EVENT_LEN);
                left -= blocks.len();
                for (block, start) in blocks {
                    let at = g.piece_start(block.piece) as usize + block.begin as usize;
                    let len = block.len as usize;
                    all[at..at + len].copy_from_slice(&buf[start..start + len]);
                }
            }
            WebSeedEvent::Failed { why, retry_after } => return Err((why, retry_after)),
        }
    }
    Ok(all)
}

#[test]
fn every_byte_comes_whatever_the_servers_habits() {
    for habit in [
        Habit::Ranges,
        Habit::WholeFiles,
        Habit::HalfRanges,
        Habit::CutsShort,
        Habit::BusyOnce,
        Habit::Redirects,
    ] {
        let (layout, files, all) = two_files();
        let url = serve(files, habit) + "/x/";
        let got = fetch(&url, &layout);
        assert!(got.as_ref() == Ok(&all), "{habit:?}: {:?}", got.err());
    }
}

#[test]
fn a_server_that_cannot_serve_says_why_and_rests() {
    for (habit, reason, rest) in [
        (Habit::Missing, "404", 3600),
        (Habit::Busy, "busy", 77),
        (Habit::WrongFile, "700001 bytes", 3600),
        (Habit::WrongRange, "the server sent", 3600),
        (Habit::Circles, "redirect", 3600),
    ] {
        let (layout, files, _) = two_files();
        let url = serve(files, habit) + "/x";
        let (why, retry) = fetch(&url, &layout).expect_err("fails");
        assert!(why.contains(reason), "{habit:?}: {why}");
        assert_eq!(retry, Some(Duration::from_secs(rest)), "{habit:?}");
    }
}

#[test]
fn only_http_urls_are_taken() {
    let (layout, ..) = two_files();
    for url in [
        "ftp://h/",
        "file:///etc/passwd",
        "http://",
        "http://a b/",
        "",
    ] {
        let sink = Box::new(|_| {});
        let got = WebSeedHandle::spawn(url, Arc::clone(&layout), Outbound::default(), sink);
        assert!(matches!(got, Err(WebSeedError::Url(_))), "{url:?}");
    }
}

#[test]
fn scattered_blocks_come_as_asked() {
    let (layout, files, all) = two_files();
    let url = serve(files, Habit::Ranges) + "/x/";
    let (handle, events) = start(&url, &layout);
    let g = layout.geometry();
    let asked = [g.block(5, 3), g.block(2, 9), g.block(2, 10), g.block(6, 0)];
    handle.request(asked[..2].to_vec());
    handle.request(asked[2..].to_vec());
    let mut got = Vec::new();
    while got.len() < asked.len() {
        let event = events
            .recv_timeout(Duration::from_secs(60))
            .expect("an event");
        let WebSeedEvent::Blocks { buf, blocks } = event else {
            panic!("{event:?}");
        };
        for (block, start) in blocks {
            let at = g.piece_start(block.piece) as usize + block.begin as usize;
            let len = block.len as usize;
            assert!(all[at..at + len] == buf[start..start + len]);
            got.push(block);
        }
    }
    assert_eq!(got, asked);
}

#[test]
fn a_dropped_handle_ends_the_thread() {
    let (layout, files, _) = two_files();
    let url = serve(files, Habit::Ranges) + "/x/";
    let (handle, events) = start(&url, &layout);
    handle.request(all_blocks(&layout));
    assert!(events.recv_timeout(Duration::from_secs(60)).is_ok());
    drop(handle);
    // The sink, and with it the sender, goes with the thread.
    let limit = std::time::Instant::now() + Duration::from_secs(60);
    while events.recv_deadline(limit).is_ok() {}
    assert_eq!(
        events.try_recv().expect_err("nothing more"),
        crossbeam_channel::TryRecvError::Disconnected
    );
}

/// An nginx that serves a folder, ended when dropped.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn nginx_serves_every_byte() {
    let program = "/usr/sbin/nginx";
    if !std::path::Path::new(program).exists() {
        eprintln!("skipped: no {program}");
        return;
    }
    let (layout, files, all) = two_files();
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path();
    for (path, name) in [
        ("/x/top/a%20b", "x/top/a b"),
        ("/x/top/sub/b", "x/top/sub/b"),
    ] {
        let file = root.join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(file, &files[path]).expect("written");
    }
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a free port")
        .port();
    let d = root.display();
    let config = format!(
        "worker_processes 1; daemon off; master_process off; pid {d}/pid; error_log {d}/error;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log {d}/access; client_body_temp_path {d}/t1; proxy_temp_path {d}/t2;\n\
         fastcgi_temp_path {d}/t3; uwsgi_temp_path {d}/t4; scgi_temp_path {d}/t5;\n\
         server {{ listen 127.0.0.1:{port}; root {d}; }} }}\n"
    );
    let path = root.join("conf");
    std::fs::write(&path, config).expect("written");
    let child = Command::new(program)
        .args([
            "-c".as_ref(),
            path.as_os_str(),
            "-p".as_ref(),
            root.as_os_str(),
        ])
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let _nginx = Nginx(child);
    let limit = std::time::Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(std::time::Instant::now() < limit, "nginx does not listen");
        thread::yield_now();
    }
    let got = fetch(&format!("http://127.0.0.1:{port}/x"), &layout);
    assert!(got.as_ref() == Ok(&all), "{:?}", got.err());
    let log = std::fs::read_to_string(root.join("access")).expect("a log");
    assert!(log.lines().all(|l| l.contains(" 206 ")), "{log}");
    assert!(log.lines().count() <= 2, "one range per file: {log}");
}

#[test]
fn a_query_to_a_local_server_is_refused() {
    for (host, local) in [
        ("localhost", true),
        ("127.0.0.1", true),
        ("[::1]", true),
        ("192.168.1.1", true),
        ("example.org", false),
        ("8.8.8.8", false),
    ] {
        assert_eq!(is_local_host(host), local, "{host}");
    }
}
