//! The page's API over loopback; the browser itself is in the interop tests.

use super::*;
use shoal_call::media::say::Hosting;
use std::io::{Read as _, Write as _};

fn start(n: u8) -> PageServer {
    start_for(n, Vec::new())
}

fn start_for(n: u8, allow: Vec<[u8; 32]>) -> PageServer {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    PageServer::start(PageSettings {
        page: any,
        listen: Some(any),
        key: SigningKey::from_bytes(&[n; 32]),
        stun: vec!["stun.example:3478".to_owned()],
        relays: Vec::new(),
        allow,
        net: None,
    })
    .expect("it starts")
}

fn ask(server: &PageServer, head: &str, token: &str, host: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server.address).expect("connected");
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answered");
    let status = text
        .get(9..12)
        .and_then(|s| s.parse().ok())
        .expect("a status");
    let body = text.split_once("\r\n\r\n").map(|p| p.1.to_owned());
    (status, body.unwrap_or_default())
}

fn api(server: &PageServer, head: &str, body: &serde_json::Value) -> serde_json::Value {
    let host = server.address.to_string();
    let text = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let (status, answer) = ask(server, head, &server.token, &host, &text);
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str(&answer).expect("JSON")
}

/// The next news of a kind.
fn news(server: &PageServer, since: &mut u64, kind: &str) -> serde_json::Value {
    loop {
        let head = format!("GET /api/events?since={since}");
        let answer = api(server, &head, &serde_json::Value::Null);
        let events = answer["events"].as_array().expect("a list").clone();
        assert!(!events.is_empty(), "no {kind}");
        for event in events {
            *since += 1;
            if event["kind"] == kind {
                return event;
            }
        }
    }
}

fn sdp(n: u8) -> String {
    let print = [format!("{n:02X}").as_str(); 32].join(":");
    format!("v=0\r\na=fingerprint:sha-256 {print}\r\n")
}

#[test]
fn nothing_is_done_without_the_token_or_under_another_name() {
    let server = start(1);
    let host = server.address.to_string();
    let (status, page) = ask(&server, "GET /", "", &host, "");
    assert_eq!(status, 200);
    assert!(page.contains("phone.js"));
    assert_eq!(ask(&server, "GET /api/config", "", &host, "").0, 401);
    assert_eq!(ask(&server, "GET /api/config", "0", &host, "").0, 401);
    let token = server.token.clone();
    assert_eq!(
        ask(&server, "GET /api/config", &token, "evil.example", "").0,
        403
    );
    assert_eq!(ask(&server, "GET /nothing", &token, &host, "").0, 404);
    assert_eq!(ask(&server, "POST /api/call", &token, &host, "{}").0, 400);
    assert_eq!(
        ask(&server, "POST /api/bye", &token, &host, r#"{"id":7}"#).0,
        404
    );
    let config = api(&server, "GET /api/config", &serde_json::Value::Null);
    assert_eq!(config["ice"][0]["urls"], "stun:stun.example:3478");
}

#[test]
fn two_pages_call_each_other() {
    let (a, b) = (start(1), start(2));
    let whom = b.listening().expect("it listens").to_string();
    let call = serde_json::json!({ "whom": whom, "expect": null, "sdp": sdp(1) });
    let id = api(&a, "POST /api/call", &call)["id"].clone();
    let (mut seen_a, mut seen_b) = (0, 0);
    let incoming = news(&b, &mut seen_b, "incoming");
    assert_eq!(incoming["sdp"], sdp(1));
    news(&a, &mut seen_a, "ringing");
    let answer = serde_json::json!({ "id": incoming["id"], "sdp": sdp(2) });
    api(&b, "POST /api/answer", &answer);
    let at_b = news(&b, &mut seen_b, "described");
    let at_a = news(&a, &mut seen_a, "described");
    assert_eq!(at_a["digits"], at_b["digits"]);
    assert_eq!(news(&a, &mut seen_a, "answered")["sdp"], sdp(2));
    api(&a, "POST /api/bye", &serde_json::json!({ "id": id }));
    news(&b, &mut seen_b, "ended");
}

#[test]
fn a_page_refuses() {
    let (a, b) = (start(1), start(2));
    let whom = b.listening().expect("it listens").to_string();
    let call = serde_json::json!({ "whom": whom, "expect": null, "sdp": sdp(1) });
    api(&a, "POST /api/call", &call);
    let incoming = news(&b, &mut 0, "incoming");
    api(
        &b,
        "POST /api/refuse",
        &serde_json::json!({ "id": incoming["id"] }),
    );
    let failed = news(&a, &mut 0, "failed");
    assert_eq!(failed["why"], "refused: declined");
}

#[test]
fn members_of_a_group_are_let_in_once_one_of_them_was() {
    let [friend, named, stranger] = [[2; 32], [3; 32], [4; 32]];
    let server = start_for(1, vec![friend]);
    let ours = server.shared.key.verifying_key().to_bytes();
    let shared = &server.shared;
    let group = |id: u8, members: &[[u8; 32]]| Group {
        id: [id; 16],
        members: members.to_vec(),
    };
    let theirs = group(7, &[ours, friend, named]);
    // Nobody was said yes to yet: the named one is not believed, and who does not name us invites nobody.
    assert!(shared.judge(&named, Some(&theirs)).is_err());
    assert_eq!(shared.judge(&friend, None), Ok(false));
    let without = group(7, &[friend, named]);
    assert_eq!(shared.judge(&friend, Some(&without)), Ok(false));
    assert_eq!(shared.judge(&friend, Some(&theirs)), Ok(true));
    let (id, _) = shared.state.open(MOST_CALLS).expect("a call");
    shared.enter(id, theirs.clone(), &friend);
    let heard = api(&server, "GET /api/events?since=0", &serde_json::Value::Null);
    let news = &heard["events"][0];
    assert_eq!(news["group"]["id"], to_hex(&theirs.id));
    // Those whose key is below ours are called.
    assert_eq!(
        news["call"].as_array().map(Vec::len),
        Some(usize::from(named < ours))
    );
    assert_eq!(shared.judge(&named, Some(&theirs)), Ok(true));
    assert!(shared.judge(&stranger, Some(&theirs)).is_err());
    assert!(
        shared
            .judge(&named, Some(&group(8, &[ours, named])))
            .is_err()
    );
    assert!(shared.judge(&named, None).is_err());
    // It ends with the last call.
    shared.close(id, Ok(()));
    assert!(shared.judge(&named, Some(&theirs)).is_err());
}

#[test]
fn who_called_tells_who_mixes_and_nobody_is_mixed_here() {
    let [friend, host, stranger] = [[2; 32], [3; 32], [4; 32]];
    let server = start_for(1, Vec::new());
    let ours = server.shared.key.verifying_key().to_bytes();
    let group = |members: &[[u8; 32]]| Group {
        id: [7; 16],
        members: members.to_vec(),
    };
    // To be mixed, or as one of many: not by a browser.
    assert!(server.shared.judge(&friend, Some(&group(&[]))).is_err());
    let five = group(&[[9; 32]; MOST_MESHED + 1]);
    assert!(server.shared.judge(&friend, Some(&five)).is_err());
    let told = |members: &[[u8; 32]]| Hosting {
        group: group(members),
        hosts: vec![host, ours, stranger, friend],
    };
    let (id, _) = server.shared.state.open(MOST_CALLS).expect("a call");
    // Who is not in it says nothing of it, and of others than its members nothing is believed.
    server.shared.hosts(id, &told(&[ours, host]), &friend);
    server.shared.hosts(id, &told(&[friend, host]), &friend);
    server
        .shared
        .hosts(id, &told(&[ours, friend, host]), &friend);
    let heard = api(&server, "GET /api/events?since=0", &serde_json::Value::Null);
    let news = heard["events"].as_array().expect("news");
    assert_eq!(news.len(), 1, "{news:?}");
    let hosts = [to_hex(&host), to_hex(&friend)];
    assert_eq!(news[0]["hosts"], serde_json::json!(hosts));
    assert_eq!(news[0]["group"]["members"], serde_json::json!([]));
    assert_eq!(news[0]["caller"], to_hex(&friend));
}
