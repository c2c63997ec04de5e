use super::*;
use crate::huge::TigerRoot;
use proptest::prelude::{any, prop, prop_assert, proptest};

const SHA1: [u8; 20] = [7; 20];
const NOW: Time = Time::from_secs(100);

fn client() -> Client {
    let config = ClientConfig {
        agent: "test".into(),
        urn: Urn::Sha1(SHA1),
        node: None,
        tls: true,
    };
    let mut client = Client::new(config, SocketAddr::from(([1, 2, 3, 4], 6346)));
    client.connected(false);
    client
}

fn ask(client: &mut Client, range: Range<u64>) -> String {
    let bytes = client.ask(NOW, Want::Range(range), &Others::default());
    String::from_utf8(bytes).expect("text")
}

/// Asks, and answers with this head and body.
fn answer(client: &mut Client, range: Range<u64>, text: &str) -> Step {
    ask(client, range);
    client.on_bytes(NOW, text.replace('\n', "\r\n").as_bytes())
}

fn failure(step: &Step) -> &Failure {
    match &step.event {
        Some(Event::Failed(failure)) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

#[test]
fn a_part_of_what_was_asked_is_taken() {
    let mut client = client();
    let text =
        "HTTP/1.1 206 Partial Content\nContent-Range: bytes 20-29/1000\nContent-Length: 10\n\nabc";
    let step = answer(&mut client, 10..100, text);
    assert_eq!(step.event, Some(Event::Body(20..30)));
    assert_eq!(step.used, text.replace('\n', "\r\n").len() - 3);
    assert_eq!(step.told.map(|t| t.len), Some(Some(1000)));
    assert_eq!(
        client.on_bytes(NOW, b"abc"),
        Step::default(),
        "the driver's"
    );
    assert!(!client.on_body(NOW, 3) && !client.is_reusable());
    assert!(client.on_body(NOW, 7) && client.is_reusable());
    assert_eq!(client.deadline(), None);
}

#[test]
fn a_whole_file_is_taken_as_far_as_it_was_asked() {
    let mut client = client();
    let step = answer(
        &mut client,
        0..10,
        "HTTP/1.1 200 OK\nContent-Length: 1000\n\n",
    );
    assert_eq!(step.event, Some(Event::Body(0..10)));
    client.on_body(NOW, 10);
    assert!(!client.is_reusable(), "the rest would come");
    client.connected(false);
    let step = answer(
        &mut client,
        5..10,
        "HTTP/1.1 200 OK\nContent-Length: 1000\n\n",
    );
    assert!(matches!(failure(&step), Failure::Nonsense(_)));
}

#[test]
fn other_files_and_nonsense_are_refused() {
    let of = |head: &str| {
        let mut client = client();
        client.set_len(1000);
        let step = answer(&mut client, 0..10, &format!("{head}\n\n"));
        assert!(!client.is_reusable());
        failure(&step).clone()
    };
    let other = Urn::Sha1([8; 20]);
    let urn = format!("HTTP/1.1 200 OK\nContent-Length: 1000\nX-Gnutella-Content-URN: {other}");
    assert_eq!(of(&urn), Failure::OtherFile);
    assert_eq!(
        of("HTTP/1.1 200 OK\nContent-Length: 999"),
        Failure::OtherFile
    );
    for head in [
        "HTTP/1.1 206 OK\nContent-Length: 10",
        "HTTP/1.1 206 OK\nContent-Range: bytes 0-9/1000\nContent-Length: 11",
        "HTTP/1.1 206 OK\nContent-Range: bytes 10-19/1000",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK\nContent-Length: 1000\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\nContent-Length: 1000\nContent-Encoding: deflate",
        "GNUTELLA/0.6 200 OK",
    ] {
        assert!(matches!(of(head), Failure::Nonsense(_)), "{head}");
    }
    let mut client = client();
    ask(&mut client, 0..10);
    let step = client.on_bytes(NOW, &[b'a'; MAX_HEAD + 5]);
    assert!(matches!(failure(&step), Failure::Nonsense(_)));
}

#[test]
fn a_place_in_a_queue_is_kept_and_told() {
    let mut client = client();
    let id = "6A074979F3201EDBF323B6425FEF4A53";
    let head = format!(
        "HTTP/1.1 503 Queued\nX-Queued: position=3; ID={id}\nRetry-After: 70\nContent-Length: 0\n\n"
    );
    let step = answer(&mut client, 0..10, &head);
    let wait = Event::Wait {
        at: Time::from_secs(170),
        until: Time::from_secs(230),
        position: Some(3),
        keep: true,
    };
    assert_eq!(step.event, Some(wait));
    client.connected(false);
    let asked = ask(&mut client, 0..10);
    assert!(
        asked.contains(&format!("X-Queued: position=3; ID={id}\r\n")),
        "{asked}"
    );
    let tree = client.ask(NOW, Want::Tree("/tree".into()), &Others::default());
    assert!(!String::from_utf8_lossy(&tree).contains("X-Queued"));
    client.connected(false);
    answer(
        &mut client,
        0..10,
        "HTTP/1.1 200 OK\nContent-Length: 1000\n\n",
    );
    assert_eq!(client.place(), None);
}

#[test]
fn the_older_queue_and_plain_busy_hosts_are_waited_for() {
    let mut client = client();
    let legacy = "HTTP/1.1 503 Busy\nX-Queue: position=2,length=5,limit=4,pollMin=40,pollMax=120\nContent-Length: 4\n\nbusy";
    let step = answer(&mut client, 0..10, legacy);
    assert_eq!(step.event, None, "its page is passed over first");
    let rest = client.on_bytes(NOW, b"busy");
    assert_eq!(rest.used, 4);
    let Some(Event::Wait {
        at, until, keep, ..
    }) = rest.event
    else {
        panic!("no wait: {rest:?}");
    };
    assert_eq!(
        (at, until, keep),
        (Time::from_secs(160), Time::from_secs(220), true)
    );
    assert!(client.is_reusable());
    let step = answer(&mut client, 0..10, "HTTP/1.1 503 Busy\nRetry-After: 5\n\n");
    let Some(Event::Wait {
        at, position, keep, ..
    }) = step.event
    else {
        panic!("no wait");
    };
    assert_eq!((at, position, keep), (Time::from_secs(105), None, false));
}

#[test]
fn what_a_host_lacks_is_told() {
    let mut client = client();
    let head =
        "HTTP/1.1 416 No\nContent-Length: 0\nX-Available-Ranges: bytes 0-9\nX-Alt: 5.6.7.8\n\n";
    let step = answer(&mut client, 10..20, head);
    assert_eq!(step.event, Some(Event::Lacks));
    let told = step.told.expect("something");
    assert_eq!(told.available.map(|a| a.bytes()), Some(10));
    assert_eq!(told.alternates.len(), 1);
    assert!(client.is_reusable());
    let step = answer(
        &mut client,
        10..20,
        "HTTP/1.1 404 No\nContent-Length: 0\n\n",
    );
    assert_eq!(failure(&step), &Failure::NotThere(404));
    let step = answer(
        &mut client,
        10..20,
        "HTTP/1.1 403 Go away\nContent-Length: 0\n\n",
    );
    assert!(matches!(failure(&step), Failure::Refused(403, why) if why == "Go away"));
}

#[test]
fn a_tree_comes_in_parts() {
    let mut client = client();
    client.set_len(5000);
    let body = thex::write(5000, &TigerRoot([1; 24]), &[1; 48]);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let ask = |client: &mut Client| client.ask(NOW, Want::Tree("/t".into()), &Others::default());
    ask(&mut client);
    assert_eq!(client.on_bytes(NOW, head.as_bytes()).used, head.len());
    let (first, rest) = body.split_at(30);
    assert_eq!(client.on_bytes(NOW, first).event, None);
    let step = client.on_bytes(NOW, &[rest, b"more"].concat());
    assert_eq!(
        (step.used, step.event),
        (rest.len(), Some(Event::Tree(vec![1; 48])))
    );
    ask(&mut client);
    let step = client.on_bytes(NOW, b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n");
    assert_eq!(failure(&step), &Failure::Tree(thex::ThexError::TooLong));
    client.connected(false);
    ask(&mut client);
    let step = client.on_bytes(NOW, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert!(matches!(failure(&step), Failure::Tree(_)));
}

proptest! {
    #[test]
    fn an_answer_may_come_in_any_parts(cuts in prop::collection::vec(1usize..20, 0..20)) {
        let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 206 OK\r\nContent-Range: bytes 0-9/10\r\n\r\n0123456789";
        let mut client = client();
        ask(&mut client, 0..10);
        let (mut at, mut event) = (0, None);
        for cut in cuts.into_iter().chain([text.len()]) {
            let end = (at + cut).min(text.len());
            while at < end && event.is_none() {
                let step = client.on_bytes(NOW, &text[at..end]);
                prop_assert!(step.used > 0 || step.event.is_some());
                at += step.used;
                event = step.event;
            }
        }
        prop_assert!(event == Some(Event::Body(0..10)) && at == text.len() - 10);
    }

    #[test]
    fn arbitrary_answers_are_borne(
        heads in prop::collection::vec("HTTP/1.1 (200|206|416|404|503|301) OK\r\n((Content-Length|Content-Range|X-Queued|X-Queue|Retry-After): [ -~]{0,30}\r\n|Content-Range: bytes [0-9]-[0-9]{1,2}/[0-9]{2}\r\n|Content-Length: [0-9]{1,3}\r\n){0,3}\r\n", 0..5),
        bytes: Vec<u8>,
        tree in any::<bool>(),
    ) {
        let mut client = client();
        for head in &heads {
            if tree {
                client.ask(NOW, Want::Tree("/t".into()), &Others::default());
            } else {
                ask(&mut client, 3..50);
            }
            for part in [head.as_bytes(), &bytes] {
                let step = client.on_bytes(NOW, part);
                prop_assert!(step.used <= part.len());
                if let Some(Event::Body(range)) = step.event {
                    prop_assert!(range.start >= 3 && range.end <= 50 && range.start < range.end);
                }
            }
            client.connected(false);
        }
    }
}

#[test]
fn a_connection_changes_to_tls_before_the_answer() {
    const CHANGES: &str =
        "HTTP/1.1 101 Switching Protocols\nUpgrade: TLS/1.0, HTTP/1.1\nConnection: Upgrade\n\n";
    let mut client = client();
    assert!(ask(&mut client, 0..10).contains("\r\nUpgrade: TLS/1.0\r\nConnection: Upgrade\r\n"));
    let bytes = CHANGES.replace('\n', "\r\n");
    let step = client.on_bytes(NOW, bytes.as_bytes());
    assert_eq!((step.used, step.event), (bytes.len(), Some(Event::Secure)));
    // A second time it is one of those that announce nothing.
    assert_eq!(client.on_bytes(NOW, bytes.as_bytes()).event, None);
    let text = "HTTP/1.1 206 Partial Content\nX-Features: queue/1.1, tls/1.0\n\
                X-Alt: tls=4,1.2.3.4,1.2.3.5\nContent-Range: bytes 0-9/10\nContent-Length: 10\n\n";
    let step = client.on_bytes(NOW, text.replace('\n', "\r\n").as_bytes());
    assert_eq!(step.event, Some(Event::Body(0..10)));
    let told = step.told.expect("what it says");
    assert!(told.speaks_tls && told.tls == told.alternates[1..]);
    client.on_body(NOW, 10);
    assert!(!ask(&mut client, 0..10).contains("Upgrade"), "said once");
    client.connected(true);
    assert!(
        !ask(&mut client, 0..10).contains("Upgrade"),
        "it is so already"
    );
    client.distrust_tls();
    client.connected(false);
    assert!(!ask(&mut client, 0..10).contains("Upgrade"), "it failed");
}
