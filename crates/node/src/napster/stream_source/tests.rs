//! A source among real sockets: our hub, and sharers of several manners.

use super::*;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use shoal_base::Rng;
use shoal_content::{BLOCK_LEN, Geometry};
use shoal_napster::client::{Event, Login};
use shoal_napster::hub::Config;
use shoal_napster::transfer::Request;

use crate::napster::{HubServer, HubSettings, Session};

const PATH: &[u8] = b"C:\\Music\\song.mp3";
const LONG: Duration = Duration::from_secs(20);

/// How a sharer behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Sends from the offset that it is asked for.
    Proper,
    /// Sends from the beginning, as TekNap does.
    Restarts,
    /// Says nothing to the hub.
    Mute,
}

fn hub() -> (HubServer, SocketAddr) {
    let server = HubServer::start(HubSettings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        dir: None,
        admin: None,
        links: Vec::new(),
        hub: Config::default(),
        seed: Some(1),
    });
    let server = server.expect("a hub");
    let addr = server.addr();
    (server, addr)
}

/// Somebody who shares `bytes` at the hub.
fn sharer(hub: SocketAddr, nick: &str, manner: Manner, bytes: Arc<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let login = Login {
        nick: nick.to_owned(),
        password: "secret".to_owned(),
        data_port: listener.local_addr().expect("bound").port(),
        link: 0,
        overlay: None,
    };
    let facts = Facts {
        size: bytes.len() as u64,
        ..Facts::default()
    };
    let mut session = Session::connect(hub, &login).expect("logged in");
    session.core().share(PATH, &facts);
    // The hub does one thing of a user's after the other: when it has answered it has the file.
    session.core().whois(nick);
    let answered = |event: Option<Event>| matches!(event.expect("an answer"), Event::Whois(_));
    while !answered(session.next(Instant::now() + LONG).expect("the hub")) {}
    thread::spawn(move || {
        // Until the hub is gone.
        while let Ok(event) = session.next(Instant::now() + LONG) {
            if let Some(Event::Asked(who, path)) = event
                && manner != Manner::Mute
            {
                session.core().accept(&who, &path);
            }
        }
    });
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let bytes = Arc::clone(&bytes);
            // Who downloads goes when it likes.
            thread::spawn(move || upload(stream, manner, &bytes));
        }
    });
}

fn upload(mut stream: TcpStream, manner: Manner, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(b"1")?;
    stream.read_exact(&mut [0; 3])?;
    let (mut said, mut buf) = (Vec::new(), [0; 512]);
    while !Request::is_whole(&said) {
        let n = stream.read(&mut buf)?;
        said.extend_from_slice(&buf[..n]);
    }
    let from = match manner {
        Manner::Restarts => 0,
        _ => Request::parse(&said).expect("a request").number,
    };
    stream.write_all(bytes.len().to_string().as_bytes())?;
    stream.write_all(&bytes[from as usize..])
}

fn desk(hub: SocketAddr) -> Arc<HubDesk> {
    let mut rng = Rng::from_seed(7);
    Arc::new(HubDesk::new(hub, Login::default(), None, None, &mut rng))
}

/// A source, and what it brings.
fn source(
    desk: &Arc<HubDesk>,
    nick: &str,
    geometry: Geometry,
) -> (StreamSource, Receiver<RangeEvent>) {
    let (tell, news) = unbounded();
    let sink: Sink = Box::new(move |event| tell.send(event).map_err(drop));
    let slice = Slice::whole(geometry);
    let source = StreamSource::spawn(Arc::clone(desk), nick, PATH, slice, sink);
    (source.expect("a thread"), news)
}

/// Asks for a piece, and compares what comes.
fn comes(
    source: &StreamSource,
    news: &Receiver<RangeEvent>,
    geometry: Geometry,
    piece: u32,
    bytes: &[u8],
) {
    let blocks = geometry.piece_size(piece).div_ceil(BLOCK_LEN);
    let blocks: Vec<Block> = (0..blocks).map(|n| geometry.block(piece, n)).collect();
    let mut missing = blocks.len();
    source.request(blocks);
    while missing > 0 {
        match news.recv_timeout(LONG).expect("news") {
            RangeEvent::Blocks { buf, blocks } => {
                for (block, at) in blocks {
                    let start = geometry.piece_start(block.piece) as usize + block.begin as usize;
                    let len = block.len as usize;
                    assert!(
                        buf[at..at + len] == bytes[start..start + len],
                        "{block:?} is wrong"
                    );
                    missing -= 1;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

fn random(len: usize) -> Arc<Vec<u8>> {
    let mut bytes = vec![0; len];
    Rng::from_seed(3).fill(&mut bytes);
    Arc::new(bytes)
}

#[test]
fn who_sends_from_the_beginning_is_passed_over_to_where_it_was_asked_for() {
    let (_server, hub) = hub();
    // Farther than a new stream's reach, so that another is opened.
    let len = 12 << 20;
    let bytes = random(len);
    let geometry = Geometry::new(len as u64, 1 << 20).expect("pieces");
    let desk = desk(hub);
    for (nick, manner) in [("alice", Manner::Restarts), ("bob", Manner::Proper)] {
        sharer(hub, nick, manner, Arc::clone(&bytes));
        let (source, news) = source(&desk, nick, geometry);
        for piece in [8, 9, 11, 2] {
            comes(&source, &news, geometry, piece, &bytes);
        }
    }
}

#[test]
fn the_last_bytes_of_a_file_are_not_taken_for_its_first() {
    let (_server, hub) = hub();
    let len = (6 << 20) + 3;
    let mut bytes = (*random(len)).clone();
    // The rest looks like the beginning.
    bytes.copy_within(..3, len - 3);
    let bytes = Arc::new(bytes);
    let geometry = Geometry::new(len as u64, 1 << 20).expect("pieces");
    let desk = desk(hub);
    for (nick, manner) in [("alice", Manner::Restarts), ("bob", Manner::Proper)] {
        sharer(hub, nick, manner, Arc::clone(&bytes));
        let (source, news) = source(&desk, nick, geometry);
        comes(&source, &news, geometry, 6, &bytes);
        comes(&source, &news, geometry, 5, &bytes);
    }
}

#[test]
fn a_sharer_that_does_not_answer_keeps_no_other_waiting() {
    let (_server, hub) = hub();
    let bytes = random(1 << 20);
    let geometry = Geometry::new(1 << 20, 1 << 20).expect("a piece");
    sharer(hub, "mute", Manner::Mute, Arc::clone(&bytes));
    sharer(hub, "alice", Manner::Proper, Arc::clone(&bytes));
    let desk = desk(hub);
    let (mute, silence) = source(&desk, "mute", geometry);
    mute.request(vec![geometry.block(0, 0)]);
    let (alice, news) = source(&desk, "alice", geometry);
    comes(&alice, &news, geometry, 0, &bytes);
    assert!(silence.try_recv().is_err());
}
