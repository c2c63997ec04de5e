//! What `fetch` and `torrent show` are given: a magnet link, a .torrent file or its URL, an
//! info-hash.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use shoal_content::{Magnet, Metainfo};

use crate::failure::{Exit, Failure, Outcome};

/// Largest .torrent read from a file or a server: a content of many terabytes stays far below.
const MAX_TORRENT_LEN: u64 = 64 * 1024 * 1024;
/// How long a server may take to hand over a .torrent.
const HTTP_TIMEOUT: Duration = Duration::from_secs(60);

/// A content to fetch or to show.
#[derive(Debug)]
pub(crate) enum Source {
    /// A .torrent file.
    Metainfo(Box<Metainfo>),
    /// A link; the rest comes from peers.
    Magnet(Box<Magnet>),
}

/// Finds out what `what` is, and reads it.
pub(crate) fn resolve(what: &str) -> Outcome<Source> {
    let what = what.trim();
    if what.is_empty() {
        return Err(Failure::usage("nothing was named")
            .hint("in a script, is the variable that holds the link empty?"));
    }
    if has_scheme(what, "magnet:") {
        return magnet(what);
    }
    if has_scheme(what, "http://") || has_scheme(what, "https://") {
        let bytes = download(what)?;
        return parse(&bytes, what);
    }
    if what != "-"
        && !Path::new(what).exists()
        && let Some(magnet) = Magnet::from_hash(what)
    {
        return Ok(Source::Magnet(Box::new(magnet)));
    }
    parse(&read(what)?, what)
}

/// Reads a .torrent file; `-` is stdin.
pub(crate) fn metainfo(file: &str) -> Outcome<Metainfo> {
    let bytes = read(file)?;
    match parse(&bytes, file)? {
        Source::Metainfo(metainfo) => Ok(*metainfo),
        Source::Magnet(_) => Err(Failure::usage(format!("{file} holds a magnet link"))
            .hint("this needs a .torrent file")),
    }
}

fn has_scheme(what: &str, scheme: &str) -> bool {
    what.get(..scheme.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(scheme))
}

fn magnet(link: &str) -> Outcome<Source> {
    let magnet: Magnet = link.parse().map_err(|e| {
        Failure::failed("the magnet link is invalid")
            .because(&e)
            .hint("in a shell, put the whole link in single quotes")
    })?;
    Ok(Source::Magnet(Box::new(magnet)))
}

fn read(file: &str) -> Outcome<Vec<u8>> {
    if file == "-" {
        return bounded(io::stdin().lock(), "-");
    }
    let path = Path::new(file);
    if path.is_dir() {
        return Err(
            Failure::failed(format!("{file} is a folder, not a .torrent file"))
                .hint(format!("to make one of it: shoal torrent create {file}")),
        );
    }
    let open = File::open(path).map_err(|e| {
        let failure = Failure::io("read", path, &e);
        match failure.exit {
            Exit::NotFound => failure.hint(
                "give a magnet link, a .torrent file, its URL, or an info-hash of 40 hexadecimal digits",
            ),
            _ => failure,
        }
    })?;
    bounded(open, file)
}

fn bounded(from: impl Read, name: &str) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_TORRENT_LEN + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::io("read", Path::new(name), &e))?;
    if bytes.len() as u64 > MAX_TORRENT_LEN {
        return Err(Failure::failed(format!("{name} is no .torrent file"))
            .reason(format!("it is larger than {MAX_TORRENT_LEN} bytes")));
    }
    Ok(bytes)
}

fn parse(bytes: &[u8], name: &str) -> Outcome<Source> {
    // A file or a server may well hold just the link.
    if let Ok(text) = std::str::from_utf8(bytes.get(..8192).unwrap_or(bytes))
        && has_scheme(text.trim(), "magnet:")
    {
        return magnet(text.trim());
    }
    let metainfo = Metainfo::parse(bytes).map_err(|e| {
        let failure = Failure::failed(format!("{name} is not a valid .torrent file")).because(&e);
        if bytes.trim_ascii_start().starts_with(b"<") {
            failure.hint("it is a web page; look for the link to the .torrent file on it")
        } else {
            failure
        }
    })?;
    Ok(Source::Metainfo(Box::new(metainfo)))
}

fn download(url: &str) -> Outcome<Vec<u8>> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(HTTP_TIMEOUT))
        .max_redirects(5)
        .user_agent(concat!("shoal/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let response = agent.get(url).call().map_err(|e| http_failure(url, &e))?;
    response
        .into_body()
        .into_with_config()
        .limit(MAX_TORRENT_LEN)
        .read_to_vec()
        .map_err(|e| http_failure(url, &e))
}

fn http_failure(url: &str, error: &ureq::Error) -> Failure {
    use ureq::Error as E;
    let exit = match error {
        E::StatusCode(404 | 410) => Exit::NotFound,
        E::StatusCode(401 | 403 | 429 | 451) => Exit::Refused,
        E::StatusCode(_) | E::BodyExceedsLimit(_) | E::BadUri(_) | E::TooManyRedirects => {
            Exit::Failed
        }
        _ => Exit::Unreachable,
    };
    Failure::new(exit, format!("cannot download {url}")).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_base::InfoHash;

    #[test]
    fn every_form_is_told_apart() {
        let id = InfoHash([0xab; 20]);
        for what in [
            id.to_string(),
            format!("magnet:?xt=urn:btih:{id}"),
            format!("MAGNET:?xt=urn:btih:{id}"),
        ] {
            assert!(matches!(resolve(&what), Ok(Source::Magnet(_))), "{what}");
        }
        let missing = resolve("no-such.torrent").expect_err("it does not exist");
        assert_eq!(missing.exit, Exit::NotFound);
        assert_eq!(resolve("/").expect_err("a folder").exit, Exit::Failed);
        assert_eq!(resolve("magnet:?xt=x").expect_err("bad").exit, Exit::Failed);
    }

    #[test]
    fn a_web_page_is_recognised() {
        let failure = parse(b"<!doctype html>", "x").expect_err("no torrent");
        assert!(failure.hint.is_some_and(|h| h.contains("web page")));
    }
}
