use super::*;
use crossbeam_channel::RecvTimeoutError;
use shoal_bittorrent::tracker::http_request::{self, HttpRequest};
use shoal_bittorrent::tracker::udp::{self, UdpReply, UdpRequest};
use shoal_bittorrent::tracker::{AnnounceEvent, http_reply};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::thread;

const PATIENCE: Duration = Duration::from_secs(10);

struct Client {
    client: TrackerClient,
    notified: Receiver<()>,
    events: Vec<TrackerEvent>,
}

impl Client {
    fn start() -> Self {
        let (tx, notified) = unbounded();
        let notify: Notify = Arc::new(move || {
            let _ = tx.send(());
        });
        let client =
            TrackerClient::spawn(notify, 7, Outbound::default()).expect("sockets on loopback");
        Self {
            client,
            notified,
            events: Vec::new(),
        }
    }

    fn next(&mut self) -> TrackerEvent {
        while self.events.is_empty() {
            match self.notified.recv_timeout(PATIENCE) {
                Ok(()) => self.client.drain(&mut self.events),
                Err(RecvTimeoutError::Timeout) => panic!("no event in {PATIENCE:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the client's thread is gone"),
            }
        }
        self.events.remove(0)
    }
}

fn params(trackers: &[&[String]]) -> AnnounceParams {
    AnnounceParams {
        info_hash: InfoHash(*b"\0info hash \xff %&=?+ ~"),
        peer_id: PeerId(*b"-SH0100-abcdefghijkl"),
        port: 6881,
        overlay: None,
        trackers: trackers.iter().map(|tier| tier.to_vec()).collect(),
        private: false,
        counters: Counters {
            uploaded: 1,
            downloaded: 2,
            left: 3,
            wants_peers: true,
        },
    }
}

/// Answers connects and announces, over and over; tells the event and `left` of each announce.
fn udp_tracker(socket: UdpSocket, peers: Vec<u8>) -> Receiver<(AnnounceEvent, u64, String)> {
    let (seen, events) = unbounded();
    thread::spawn(move || {
        let (mut buf, mut out) = ([0; 2048], Vec::new());
        while let Ok((len, from)) = socket.recv_from(&mut buf) {
            out.clear();
            let reply = match udp::decode_request(&buf[..len]).expect("a request") {
                UdpRequest::Connect { transaction } => UdpReply::Connect {
                    transaction,
                    connection: 42,
                },
                UdpRequest::Announce {
                    transaction,
                    announce,
                    connection,
                    options,
                } => {
                    assert_eq!(connection, 42);
                    let path = udp::url_data(options).unwrap_or_default();
                    let path = String::from_utf8_lossy(&path).into_owned();
                    if seen.send((announce.event, announce.left, path)).is_err() {
                        return;
                    }
                    UdpReply::Announce {
                        transaction,
                        interval: 1800,
                        leechers: 1,
                        seeders: 2,
                        peers: &peers,
                    }
                }
                UdpRequest::Scrape { .. } => panic!("nobody scrapes here"),
            };
            udp::encode_reply(&reply, &mut out);
            socket.send_to(&out, from).expect("loopback");
        }
    });
    events
}

/// Answers every request with `status` and `body`; tells the targets.
fn http_tracker(status: &'static str, body: Vec<u8>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let url = format!("http://{}/announce", listener.local_addr().expect("bound"));
    let (seen, targets) = unbounded();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("loopback");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a whole request");
                request.push(byte[0]);
            }
            let head = String::from_utf8(request).expect("ascii");
            let target = head.split(' ').nth(1).expect("a target").to_owned();
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
            if seen.send(target).is_err() {
                return;
            }
        }
    });
    (url, targets)
}

#[test]
fn udp_announces_reach_both_families_and_say_goodbye() {
    let v4 = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let url = format!("udp://{}/announce?k=1", v4.local_addr().expect("bound"));
    let seen = udp_tracker(v4, vec![10, 0, 0, 9, 0, 80]);
    let mut client = Client::start();
    client.client.add(5, params(&[std::slice::from_ref(&url)]));
    assert_eq!(
        client.next(),
        TrackerEvent::Peers {
            key: 5,
            url,
            peers: vec![([10, 0, 0, 9], 80).into()],
            interval: Duration::from_secs(1800),
            seeders: Some(2),
            leechers: Some(1),
            warning: None,
        }
    );
    let path = || "/announce?k=1".to_owned();
    let next = || seen.recv_timeout(PATIENCE);
    assert_eq!(next(), Ok((AnnounceEvent::Started, 3, path())));
    client.client.completed(5);
    assert_eq!(next(), Ok((AnnounceEvent::Completed, 0, path())));
    client.client.shutdown(PATIENCE);
    assert_eq!(next(), Ok((AnnounceEvent::Stopped, 0, path())));
}

#[test]
fn udp_trackers_over_ipv6_give_ipv6_peers() {
    // A host without IPv6 has nothing to test here.
    let Ok(v6) = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) else {
        return;
    };
    let url = format!("udp://{}", v6.local_addr().expect("bound"));
    let mut peer = vec![0; 15];
    peer.extend([1, 0, 80]);
    let _seen = udp_tracker(v6, peer);
    let mut client = Client::start();
    client.client.add(1, params(&[&[url]]));
    let TrackerEvent::Peers { peers, .. } = client.next() else {
        panic!("the announce should succeed");
    };
    assert_eq!(peers, [(Ipv6Addr::LOCALHOST, 80).into()]);
}

#[test]
fn http_announces_carry_every_byte_and_survive_a_hanging_tracker_beside() {
    let body = b"d8:intervali900e5:peers6:\x7f\0\0\x01\x1a\xe115:warning message4:slowe".to_vec();
    let (good, targets) = http_tracker("200 OK", body);
    // Accepts connections into its backlog and never answers.
    let hanging = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let address = hanging.local_addr().expect("bound");
    let hanging_urls: Vec<String> = (0..6)
        .map(|n| format!("http://{address}/{n}/announce"))
        .collect();
    let mut tiers: Vec<&[String]> = hanging_urls.iter().map(std::slice::from_ref).collect();
    let good_tier = [good.clone()];
    tiers.push(&good_tier);
    let mut client = Client::start();
    let params = params(&tiers);
    client.client.add(1, params.clone());
    let TrackerEvent::Peers {
        url,
        peers,
        warning,
        ..
    } = client.next()
    else {
        panic!("the good tracker should answer first");
    };
    assert_eq!((url, warning), (good, Some("slow".to_owned())));
    assert_eq!(peers, [([127, 0, 0, 1], 6881).into()]);
    let target = targets.recv_timeout(PATIENCE).expect("a request");
    let Ok(HttpRequest::Announce { announce, compact }) = http_request::decode(target.as_bytes())
    else {
        panic!("{target} should be an announce");
    };
    assert!(compact);
    assert_eq!(announce.info_hash, params.info_hash);
    assert_eq!(announce.peer_id, params.peer_id);
    assert_eq!(
        (announce.uploaded, announce.downloaded, announce.left),
        (1, 2, 3)
    );
    assert_eq!(announce.event, AnnounceEvent::Started);
}

#[test]
fn errors_are_told_in_the_trackers_words_and_the_next_tracker_is_asked() {
    let mut body = Vec::new();
    http_reply::encode_failure("unregistered torrent", &mut body);
    let (refusing, _a) = http_tracker("403 Forbidden", body);
    let (lost, _b) = http_tracker("404 Not Found", b"<html>".to_vec());
    let (nonsense, _c) = http_tracker("200 OK", b"<html>".to_vec());
    let (huge, _d) = http_tracker("200 OK", vec![b'1'; (1 << 20) + 1]);
    let closed = "http://127.0.0.1:1/announce".to_owned();
    let mut client = Client::start();
    client.client.add(
        1,
        params(&[&[
            refusing.clone(),
            lost.clone(),
            nonsense.clone(),
            huge.clone(),
            closed.clone(),
        ]]),
    );
    let mut last = Duration::ZERO;
    for n in 0..5 {
        let TrackerEvent::Error {
            url,
            error,
            retry_in,
            ..
        } = client.next()
        else {
            panic!("nobody answers well here");
        };
        let want = match &url {
            u if *u == refusing => "tracker says: unregistered torrent",
            u if *u == lost => "http status 404",
            u if *u == nonsense => "malformed tracker reply",
            u if *u == huge => "limit",
            _ => "refused",
        };
        assert!(error.contains(want), "{url}: {error:?} lacks {want:?}");
        assert_eq!(retry_in.is_zero(), n < 4, "only the last one waits");
        last = retry_in;
    }
    assert!(last > Duration::from_secs(10), "{last:?}");
    client.client.shutdown(PATIENCE);
}
