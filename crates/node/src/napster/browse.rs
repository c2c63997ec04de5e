//! Browsing a user without the hub: the list goes from peer to peer, either way round.
//!
//! ```text
//!  asker  ------- connects ------>  sharer       sharer  ------- connects ------->  asker
//!         <------ 1 --------------                       <------ 1 --------------
//!         ------- GETLIST ------->                       ------- SENDLIST nick -->
//!         <------ nick, lines ----                       ------- lines ---------->
//! ```

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use shoal_napster::client::{Event, Hit, Place};
use shoal_napster::fields::put_quoted;
use shoal_napster::file::parse_share;

use super::download::DownloadError;
use super::port::{DataPort, Desk, STALL, bad, greeted, prepare};
use super::session::Session;

/// How long the hub and the sharer may take to agree, and a list to arrive that is brought.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the end of GETLIST's line may take.
const GRACE: Duration = Duration::from_millis(250);
/// Bytes of SENDLIST's line, which has a nick, at most.
const MAX_NICK: usize = 64;
/// Between looks at whether a list was brought.
const LOOK: Duration = Duration::from_millis(50);
/// Files of a list, and bytes of a line and of the list, that are taken at most.
const MAX_FILES: usize = 200_000;
const MAX_LINE: u64 = 2048;
const MAX_BYTES: u64 = 64 << 20;

/// What a user shares.
pub(super) type List = Vec<Hit>;

/// Asks a user for the list of all that it shares, without the hub's limit on it.
///
/// # Errors
/// The user or the hub refuses, cannot be reached, or does not answer.
pub fn browse(
    session: &mut Session,
    port: &DataPort,
    nick: &str,
) -> Result<Vec<Hit>, DownloadError> {
    let brought = port.expect_list(nick);
    session.core().browse_direct(nick);
    let place = agreed(session, nick)?;
    if place.port == 0 {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Ok(list) = brought.try_recv() {
                return Ok(list);
            }
            session.next(Instant::now() + LOOK)?;
        }
        return Err(DownloadError::Late);
    }
    session.flush()?;
    if !session.may_dial(place.ip) {
        return Err(DownloadError::may_not_dial(place.ip));
    }
    let mut stream = dial((place.ip, place.port).into())?;
    // No end of a line: TekNap does not read it, and breaks the connection for it.
    stream.write_all(b"GETLIST")?;
    Ok(read(&mut stream, nick)?)
}

/// Waits until the hub tells where the user is.
fn agreed(session: &mut Session, nick: &str) -> Result<Place, DownloadError> {
    let until = Instant::now() + PATIENCE;
    while let Some(event) = session.next(until)? {
        match event {
            Event::BrowseAt(place) if place.nick.eq_ignore_ascii_case(nick) => return Ok(place),
            Event::BrowseRefused(who, why) if who.eq_ignore_ascii_case(nick) => {
                return Err(DownloadError::Refused(why));
            }
            Event::Error(why) => return Err(DownloadError::Refused(why)),
            _ => {}
        }
    }
    Err(DownloadError::Late)
}

fn dial(addr: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&addr, STALL)?;
    prepare(&stream)?;
    greeted(&mut stream)?;
    Ok(stream)
}

/// After GET or SEND: what was read if LIST does not follow, which is then read to its line's end.
/// A nick may begin with LIST too, but a quote follows it.
pub(super) fn not_a_list(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while b"LIST".starts_with(line.get(..4).unwrap_or(&line)) {
        if line.ends_with(b"\n") {
            return Ok(None);
        }
        if line.contains(&b'"') || line.len() > MAX_NICK {
            break;
        }
        // Some send no end of a line after GETLIST.
        let complete = line == b"LIST";
        stream.set_read_timeout(Some(if complete { GRACE } else { STALL }))?;
        let read = stream.read(&mut byte);
        stream.set_read_timeout(Some(STALL))?;
        match read {
            Ok(0) if !complete => break,
            Ok(0) => return Ok(None),
            Ok(_) => line.extend_from_slice(&byte),
            Err(e)
                if complete
                    && matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(Some(line))
}

/// Reads a list to its empty line or the connection's end. Lines that are no file (the sharer's
/// nick is the first) are passed over.
pub(super) fn read(stream: &mut TcpStream, nick: &str) -> io::Result<List> {
    let mut input = BufReader::new(stream.take(MAX_BYTES));
    let mut list = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(list);
        }
        if line.trim_ascii().is_empty() {
            return Ok(list);
        }
        if list.len() >= MAX_FILES {
            return Err(bad("the list does not end"));
        }
        if line.starts_with(b"\"")
            && let Ok((path, facts)) = parse_share(&line)
        {
            list.push(Hit {
                path: path.to_vec(),
                facts,
                nick: nick.to_owned(),
                ip: Ipv4Addr::UNSPECIFIED,
                link: 0,
            });
        }
    }
}

/// Sends what is shared: our nick, a line each, an empty line.
pub(super) fn send(desk: &Desk, stream: &mut TcpStream) -> io::Result<()> {
    let mut out = desk.nick.clone().into_bytes();
    out.push(b'\n');
    for (path, offer) in desk.files().iter() {
        put_quoted(path, &mut out);
        out.push(b' ');
        offer.facts.put(&mut out);
        out.push(b'\n');
        if out.len() >= 64 << 10 {
            stream.write_all(&out)?;
            out.clear();
        }
    }
    out.push(b'\n');
    stream.write_all(&out)
}

/// Takes the list to somebody who cannot fetch it.
pub(super) fn bring(desk: &Desk, addr: SocketAddr) -> io::Result<()> {
    let mut stream = dial(addr)?;
    stream.write_all(format!("SENDLIST {}\n", desk.nick).as_bytes())?;
    send(desk, &mut stream)
}
