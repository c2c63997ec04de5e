use super::super::Inputs;
use super::*;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

type Objects = &'static [(&'static str, &'static str)];

const OBJECTS: Objects = &[
    ("logs/2024/a.txt", "0123456789abcdef"),
    ("logs/2024/b.txt", "b\n"),
    ("logs/2024/_tmp/c.txt", "hidden"),
    ("logs/2025/d.log", "d\n"),
    ("logs/.e", "hidden"),
    ("logsmore", "another"),
];

/// A server that speaks as much of S3 as reading takes: lists, heads, ranges of the bucket
/// `b`. Gives an address for it; bodies break off after `cut` bytes.
fn s3(cut: usize) -> Stores {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(&stream, cut));
        }
    });
    let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Stores::with(vec![
        option("aws_endpoint_url", &format!("http://{addr}")),
        option("aws_allow_http", "true"),
        option("aws_region", "us-east-1"),
        option("aws_access_key_id", "id"),
        option("aws_secret_access_key", "secret"),
    ])
}

fn answer(mut stream: &TcpStream, cut: usize) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let mut range = None;
    let mut signed = false;
    for line in lines.by_ref() {
        let line = line.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        signed |= line.starts_with("authorization: aws4-hmac-sha256");
        if let Some(r) = line.strip_prefix("range: bytes=") {
            range = r
                .split_once('-')
                .map(|(a, b)| (a.parse::<usize>().expect("from"), b.parse::<usize>()));
        }
    }
    let mut words = request.split(' ');
    let (method, target) = (words.next().expect("GET"), words.next().expect("a path"));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let send = |mut stream: &TcpStream, status: &str, more: &str, body: &[u8], len: usize| {
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {len}\r\nlast-modified: Wed, 21 Oct 2015 07:28:00 GMT\r\netag: \"e\"\r\nconnection: close\r\n{more}\r\n"
        );
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(body);
    };
    if !signed {
        return send(stream, "403 Forbidden", "", b"", 0);
    }
    if query.contains("list-type=2") {
        let prefix = query.split('&').find_map(|q| q.strip_prefix("prefix="));
        let prefix = prefix.unwrap_or_default().replace("%2F", "/");
        let all = OBJECTS.iter().filter(|(name, _)| name.starts_with(&prefix));
        let rows: String = all
            .map(|(name, text)| {
                let len = text.len();
                format!("<Contents><Key>{name}</Key><LastModified>2015-10-21T07:28:00.000Z</LastModified><ETag>e</ETag><Size>{len}</Size></Contents>")
            })
            .collect();
        let body =
            format!("<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>");
        return send(stream, "200 OK", "", body.as_bytes(), body.len());
    }
    let name = path.strip_prefix("/b/").unwrap_or(path);
    let Some((_, text)) = OBJECTS.iter().find(|(n, _)| *n == name) else {
        return send(stream, "404 Not Found", "", b"", 0);
    };
    let (from, to) = match range {
        Some((from, to)) => (from, to.map_or(text.len(), |to| (to + 1).min(text.len()))),
        None => (0, text.len()),
    };
    if method == "HEAD" {
        return send(stream, "200 OK", "", b"", text.len());
    }
    let more = format!(
        "content-range: bytes {from}-{}/{}\r\n",
        to.saturating_sub(1),
        text.len()
    );
    let body = &text.as_bytes()[from..to.min(from.saturating_add(cut))];
    send(stream, "206 Partial Content", &more, body, to - from);
    let _ = stream.flush();
}

fn names(stores: &Stores, what: &str) -> Vec<(String, u64)> {
    let files = stores.expand(what).expect("there");
    files.into_iter().map(|f| (f.name, f.bytes)).collect()
}

#[test]
fn objects_are_found_by_name_by_prefix_and_by_glob() {
    let stores = s3(usize::MAX);
    let a = ("s3://b/logs/2024/a.txt".to_owned(), 16);
    let b = ("s3://b/logs/2024/b.txt".to_owned(), 2);
    let d = ("s3://b/logs/2025/d.log".to_owned(), 2);
    assert_eq!(
        names(&stores, "s3://b/logs/2024/a.txt"),
        std::slice::from_ref(&a)
    );
    let all = [a.clone(), b.clone(), d.clone()];
    assert_eq!(names(&stores, "s3://b/logs"), all);
    assert_eq!(names(&stores, "S3://b/logs/"), all);
    assert_eq!(
        names(&stores, "s3://b/logs/*/*.txt"),
        [a.clone(), b.clone()]
    );
    assert_eq!(names(&stores, "s3://b/logs/2024/[ax]*"), [a]);
    assert_eq!(names(&stores, "s3://b/logs/*5"), [d]);
    let none = stores.expand("s3://b/nothing");
    assert!(matches!(none, Err(InputError::Missing(_))), "{none:?}");
    let none = stores.expand("s3://b/logs/*.csv");
    assert!(matches!(none, Err(InputError::Empty(_))), "{none:?}");
}

#[test]
fn ranges_are_read_and_a_broken_body_goes_on() {
    for cut in [usize::MAX, 5] {
        let inputs = Inputs::default().with(Arc::new(s3(cut)));
        let name = "s3://b/logs/2024/a.txt";
        let read = |from, about, limit| {
            let mut text = String::new();
            let reader = inputs.open(name, from, about, &Arc::default());
            let reader = reader.expect("opens");
            reader.take(limit).read_to_string(&mut text).expect("reads");
            text
        };
        assert_eq!(read(0, u64::MAX, u64::MAX), "0123456789abcdef");
        assert_eq!(read(3, 4, 8), "3456789a");
        let mut part = String::new();
        let ranged = inputs.source(name).and_then(|s| s.open(name, 10, 3));
        ranged
            .expect("opens")
            .read_to_string(&mut part)
            .expect("reads");
        assert_eq!(part, "abc");
    }
    let missing = s3(9).open("s3://b/none", 0, 1).map(drop);
    assert!(matches!(missing, Err(InputError::Missing(_))));
}
