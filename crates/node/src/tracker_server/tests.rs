use super::http_connection::{Connection, Fate};
use super::*;
use shoal_base::{InfoHash, PeerId, Time};
use shoal_bittorrent::tracker::http_request::{announce_url, scrape_url, with_overlay};
use shoal_bittorrent::tracker::udp::{self, UdpReply, UdpRequest};
use shoal_bittorrent::tracker::{AnnounceEvent, AnnounceRequest, ScrapeStats, http_reply};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket};

const PATIENCE: Duration = Duration::from_secs(10);

fn any_port() -> Option<SocketAddr> {
    Some((Ipv4Addr::LOCALHOST, 0).into())
}

fn config() -> Config {
    Config {
        http: any_port(),
        udp: any_port(),
        workers: 2,
        seed: Some(1),
        ..Config::default()
    }
}

fn start(config: Config) -> TrackerServer {
    TrackerServer::start(config).expect("loopback")
}

fn request(port: u16, left: u64) -> AnnounceRequest {
    AnnounceRequest {
        info_hash: InfoHash(*b"\0info hash \xff %&=?+ ~"),
        peer_id: PeerId(*b"-SH0100-abcdefghijkl"),
        port,
        uploaded: 0,
        downloaded: 0,
        left,
        event: AnnounceEvent::Started,
        num_want: None,
        key: 0,
        ip: None,
        overlay: None,
    }
}

/// A UDP client without retries.
struct Client {
    socket: UdpSocket,
    connection: u64,
    buf: [u8; 2048],
}

impl Client {
    fn connect(tracker: SocketAddr) -> Self {
        let socket = UdpSocket::bind((tracker.ip(), 0)).expect("loopback");
        socket.connect(tracker).expect("loopback");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut client = Self {
            socket,
            connection: 0,
            buf: [0; 2048],
        };
        client.connection = match client.ask(&UdpRequest::Connect { transaction: 5 }) {
            UdpReply::Connect {
                transaction: 5,
                connection,
            } => connection,
            other => panic!("unexpected {other:?}"),
        };
        client
    }

    fn ask(&mut self, request: &UdpRequest<'_>) -> UdpReply<'_> {
        let mut out = Vec::new();
        udp::encode_request(request, &mut out);
        self.socket.send(&out).expect("loopback");
        let len = self.socket.recv(&mut self.buf).expect("an answer");
        udp::decode_reply(&self.buf[..len]).expect("a reply")
    }

    /// Seeders, leechers and peers; or the error.
    fn announce(
        &mut self,
        announce: AnnounceRequest,
    ) -> Result<(u32, u32, Vec<SocketAddr>), String> {
        let tracker = self.socket.peer_addr().expect("connected");
        let connection = self.connection;
        let mut options = Vec::new();
        if let Some(overlay) = announce.overlay {
            udp::encode_url_data(&with_overlay("/announce", overlay), &mut options);
        }
        let request = UdpRequest::Announce {
            connection,
            transaction: 6,
            announce,
            options: &options,
        };
        match self.ask(&request) {
            UdpReply::Announce {
                transaction: 6,
                interval,
                leechers,
                seeders,
                peers,
            } => {
                assert!((1800..=1980).contains(&interval), "{interval}");
                Ok((seeders, leechers, udp::reply_peers(tracker, peers)))
            }
            UdpReply::Error { message, .. } => Err(http_reply::words(message)),
            other => panic!("unexpected {other:?}"),
        }
    }
}

/// Sends `text` and reads `replies` replies: status and body of each.
fn talk(stream: &mut TcpStream, text: &[u8], replies: usize) -> Vec<(u16, Vec<u8>)> {
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(text).expect("loopback");
    (0..replies).map(|_| reply(stream)).collect()
}

fn reply(stream: &mut impl Read) -> (u16, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a whole head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("ascii");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    let length = head.split("Content-Length: ").nth(1);
    let length = length.and_then(|l| l.lines().next()?.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    stream.read_exact(&mut body).expect("a whole body");
    (status.expect("a status"), body)
}

fn get(server: &TrackerServer, target: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(server.http_addr().expect("http")).expect("loopback");
    let text = format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n");
    talk(&mut stream, text.as_bytes(), 1).remove(0)
}

#[test]
fn peers_meet_over_udp_and_http() {
    let server = start(config());
    let mut udp = Client::connect(server.udp_addr().expect("udp"));
    assert_eq!(udp.announce(request(1000, 9)), Ok((0, 1, vec![])));
    let (status, body) = get(&server, &announce_url("/announce", &request(2000, 0), None));
    assert_eq!(status, 200);
    let told = http_reply::decode_announce(&body).expect("peers");
    let first = SocketAddr::from((Ipv4Addr::LOCALHOST, 1000));
    let second = SocketAddr::from((Ipv4Addr::LOCALHOST, 2000));
    assert_eq!(told.peers, [first]);
    assert_eq!((told.seeders, told.leechers), (Some(1), Some(1)));
    assert_eq!(told.external_ip, Some(Ipv4Addr::LOCALHOST.into()));
    assert_eq!(told.min_interval, Some(300));
    assert_eq!(udp.announce(request(1000, 9)), Ok((1, 1, vec![second])));

    let plain =
        announce_url("/announce", &request(1000, 9), None).replace("compact=1", "compact=0");
    let (_, body) = get(&server, &plain);
    assert!(body.windows(7).any(|w| w == b"2:ip9:1"));
    let told = http_reply::decode_announce(&body).expect("peers");
    assert_eq!(told.peers, [second]);

    let hash = request(0, 0).info_hash;
    let stats = ScrapeStats {
        seeders: 1,
        completed: 0,
        leechers: 1,
    };
    let scrape = UdpRequest::Scrape {
        connection: udp.connection,
        transaction: 7,
        info_hashes: &[hash.0, [9; 20]],
    };
    let UdpReply::Scrape { stats: told, .. } = udp.ask(&scrape) else {
        panic!("a scrape should be answered");
    };
    let told: Vec<_> = udp::scrape_stats(told).collect();
    assert_eq!(told, [stats, ScrapeStats::default()]);
    let (_, body) = get(
        &server,
        &scrape_url("/announce", &[hash]).expect("a scrape"),
    );
    assert_eq!(http_reply::decode_scrape(&body), Ok(vec![(hash, stats)]));

    let gone = AnnounceRequest {
        event: AnnounceEvent::Stopped,
        ..request(2000, 0)
    };
    get(&server, &announce_url("/announce", &gone, None));
    assert_eq!(udp.announce(request(1000, 9)), Ok((0, 1, vec![])));

    let told = server.stats();
    assert_eq!((told.census.torrents_v4, told.census.peers_v4), (1, 1));
    assert_eq!(
        (told.total.udp_announces, told.total.http_announces),
        (3, 3)
    );
    server.stop();
}

#[test]
fn ipv6_peers_meet_only_their_own_kind() {
    let loopback = Some((Ipv6Addr::LOCALHOST, 0).into());
    let both = Config {
        udp: loopback,
        http: loopback,
        ..config()
    };
    // A host without IPv6 has nothing to test here.
    let Ok(server) = TrackerServer::start(both) else {
        return;
    };
    let mut udp = Client::connect(server.udp_addr().expect("udp"));
    assert_eq!(udp.announce(request(1000, 9)), Ok((0, 1, vec![])));
    let (_, body) = get(&server, &announce_url("/announce", &request(2000, 9), None));
    let told = http_reply::decode_announce(&body).expect("peers");
    assert_eq!(told.peers, [(Ipv6Addr::LOCALHOST, 1000).into()]);
    assert_eq!(server.stats().census.peers_v6, 2);
}

#[test]
fn overlay_addresses_go_to_who_announces_one_over_udp_and_http() {
    let server = start(config());
    let [one, two] =
        ["[fc01::1]:1000", "[fc02::2]:6881"].map(|a| a.parse::<SocketAddr>().expect("an address"));
    let of = |port, overlay| AnnounceRequest {
        overlay: Some(overlay),
        ..request(port, 9)
    };
    let by_http = |request| {
        let (_, body) = get(&server, &announce_url("/announce", &request, None));
        http_reply::decode_announce(&body).expect("peers").peers
    };
    let plain = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut udp = Client::connect(server.udp_addr().expect("udp"));
    assert_eq!(udp.announce(of(1000, one)), Ok((0, 1, vec![])));
    assert_eq!(by_http(of(2000, two)), [plain(1000), one]);
    let (seeders, leechers, mut peers) = udp.announce(of(1000, one)).expect("peers");
    peers.sort_unstable();
    assert_eq!((seeders, leechers, peers), (0, 2, vec![plain(2000), two]));
    // A client of another kind sees addresses that it can dial alone.
    let mut peers = by_http(request(3000, 9));
    peers.sort_unstable();
    assert_eq!(peers, [plain(1000), plain(2000)]);
    assert_eq!(udp.announce(request(4000, 9)).expect("peers").2.len(), 3);
    assert_eq!(server.stats().census.peers_overlay, 2);
    let list = announce_url("/announce", &of(1000, one), None).replace("compact=1", "compact=0");
    let (_, body) = get(&server, &list);
    let told = http_reply::decode_announce(&body).expect("peers");
    assert!(told.peers.contains(&two) && told.peers.len() == 4);
}

#[test]
fn a_connection_id_that_was_not_issued_is_refused() {
    let server = start(config());
    let mut udp = Client::connect(server.udp_addr().expect("udp"));
    udp.connection ^= 2;
    assert_eq!(
        udp.announce(request(1, 1)),
        Err("connection id expired".into())
    );
    assert_eq!(server.stats().census.peers_v4, 0);
}

#[test]
fn http_requests_may_be_pipelined_split_and_malformed() {
    let server = start(config());
    let connect = || TcpStream::connect(server.http_addr().expect("http")).expect("loopback");
    let announce = announce_url("/announce", &request(1, 1), None);
    let one = format!("GET {announce} HTTP/1.1\r\nHost: t\r\n\r\n");
    let statuses = |replies: Vec<(u16, Vec<u8>)>| -> Vec<u16> {
        replies.into_iter().map(|(status, _)| status).collect()
    };
    let mut stream = connect();
    let many = [one.as_str(), "GET / HTTP/1.1\r\n\r\n", &one, "GET /sta"].concat();
    let told = statuses(talk(&mut stream, many.as_bytes(), 3));
    assert_eq!(told, [200, 404, 200]);
    let told = talk(&mut stream, b"ts HTTP/1.1\r\n\r\n", 1).remove(0);
    let json = String::from_utf8(told.1).expect("text");
    assert!(json.contains("\"http_announces\":2"), "{json}");
    assert_eq!(get(&server, "/metrics").0, 200);

    // What the server answers before it closes, and nothing after.
    let huge = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(9000));
    let fields = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100));
    for (text, status) in [
        (huge.as_str(), 431),
        (fields.as_str(), 431),
        ("POST /announce HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", 405),
        ("\0\0\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n", 404),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 404),
        ("GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 404),
    ] {
        let mut stream = connect();
        assert_eq!(statuses(talk(&mut stream, text.as_bytes(), 1)), [status]);
        let mut rest = Vec::new();
        // A reset is an end as well: there was more to read that nobody wanted.
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(rest, b"", "after {text:.30}");
    }
    let (status, body) = get(&server, "/announce?info_hash=abc");
    assert_eq!(status, 200);
    assert_eq!(body, b"d14:failure reason17:invalid info_hashe");
    assert_eq!(get(&server, "/scrape").1[..17], *b"d14:failure reaso");
}

#[test]
fn forwarded_addresses_are_believed_of_trusted_proxies_only() {
    for (trusted, want) in [
        (vec![], Ipv4Addr::LOCALHOST),
        (
            vec![Ipv4Addr::LOCALHOST.into()],
            Ipv4Addr::new(203, 0, 113, 7),
        ),
    ] {
        let server = start(Config {
            trusted_proxies: trusted,
            ..config()
        });
        let mut stream = TcpStream::connect(server.http_addr().expect("http")).expect("loopback");
        let target = announce_url("/announce", &request(1, 1), None);
        let text =
            format!("GET {target} HTTP/1.1\r\nX-Forwarded-For: 10.0.0.1, 203.0.113.7\r\n\r\n");
        let (_, body) = talk(&mut stream, text.as_bytes(), 1).remove(0);
        let told = http_reply::decode_announce(&body).expect("peers");
        assert_eq!(told.external_ip, Some(want.into()));
    }
}

#[test]
fn lists_of_torrents_are_obeyed_and_reloaded() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("allowed");
    let listed = format!("{}\n", request(0, 0).info_hash);
    std::fs::write(&path, "# none\n").expect("a file");
    let server = start(Config {
        allow: Some(path.clone()),
        ..config()
    });
    let mut udp = Client::connect(server.udp_addr().expect("udp"));
    let refused = Err("this torrent is not served here".to_owned());
    assert_eq!(udp.announce(request(1, 1)), refused);
    std::fs::write(&path, &listed).expect("a file");
    server.reload_lists().expect("a good list");
    assert_eq!(udp.announce(request(1, 1)), Ok((0, 1, vec![])));
    std::fs::write(&path, "nonsense").expect("a file");
    server.reload_lists().expect_err("a bad list");
    assert_eq!(udp.announce(request(1, 1)), Ok((0, 1, vec![])));

    let both = Config {
        allow: Some(path.clone()),
        deny: Some(path.clone()),
        ..config()
    };
    let start = TrackerServer::start;
    assert!(matches!(start(both), Err(ServerError::TwoLists)));
    let bad = Config {
        deny: Some(path),
        ..config()
    };
    assert!(matches!(start(bad), Err(ServerError::List(_))));
    assert!(matches!(
        start(Config::default()),
        Err(ServerError::NoAddress)
    ));
}

#[test]
fn an_address_that_asks_too_often_is_not_heard() {
    let server = start(Config {
        limit_local: true,
        max_requests_per_address: 1,
        max_peers_per_address: 2,
        ..config()
    });
    let mut udp = Client::connect(server.udp_addr().expect("udp"));
    assert_eq!(udp.announce(request(1, 1)), Ok((0, 1, vec![])));
    assert!(udp.announce(request(2, 1)).is_ok());
    assert_eq!(
        udp.announce(request(3, 1)),
        Err("too many peers from your address".into())
    );
    let mut statuses = Vec::new();
    while !statuses.contains(&429) && statuses.len() < 40 {
        statuses.push(get(&server, "/").0);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    assert!(server.stats().total.limited > 0);
}

#[test]
fn ports_are_free_again_after_a_stop() {
    let server = start(config());
    let again = Config {
        udp: server.udp_addr(),
        http: server.http_addr(),
        ..config()
    };
    // Held open by a client, which must not matter.
    let _held = TcpStream::connect(server.http_addr().expect("http")).expect("loopback");
    server.stop();
    start(again).stop();
}

/// A stream whose peer sends what the test puts in, a byte at each read.
struct Trickle(Vec<u8>);

impl Read for Trickle {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buf[0] = self.0.remove(0);
        Ok(1)
    }
}

impl Write for Trickle {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_request_that_trickles_in_gets_no_more_time() {
    let service = Arc::new(Service::new(config()).expect("no lists"));
    let mut desk = service.desk();
    let ip = Ipv4Addr::LOCALHOST.into();
    let mut buf = [0; 64];
    let mut connection = Connection::new(Trickle(Vec::new()), ip, Time::ZERO);
    let silent = connection.deadline();
    for at in 1..9 {
        let more: &[u8] = if at == 1 { b"GET /" } else { b"aaaa" };
        connection.stream.0.extend(more);
        let fate = connection.advance(Time::from_secs(at), &mut desk, &mut buf);
        assert_eq!(fate, Fate::Reading);
        assert!(connection.deadline() <= silent + Duration::from_secs(1));
    }
    // A whole request earns time for its reply to be taken, once.
    connection.stream.0 = b" HTTP/1.1\r\n\r\n".to_vec();
    connection.advance(Time::from_secs(9), &mut desk, &mut buf);
    let fate = connection.advance(Time::from_secs(9), &mut desk, &mut buf);
    assert_eq!(fate, Fate::Writing);
    let deadline = connection.deadline();
    connection.stream.0 = b"GET / HTTP/1.1\r\n\r\n".to_vec();
    connection.advance(Time::from_secs(20), &mut desk, &mut buf);
    assert_eq!(connection.deadline(), deadline);
}
