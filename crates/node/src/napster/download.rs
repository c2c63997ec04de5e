//! One download from one sharer: brokered by the hub, then from peer to peer, either way round.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shoal_content::SafePath;
use shoal_content::path::Naming;
use shoal_napster::client::{Event, Hit, Place};
use shoal_napster::kind;
use shoal_napster::transfer::{Answer, Request, read_answer};
use shoal_store::{Partial, StoreError};

use super::port::{Brought, DataPort, STALL, greeted, prepare};
use super::session::{Session, SessionError};
use crate::reach::Overlay;

/// How long the hub and the sharer may take to agree.
pub(super) const BROKERED: Duration = Duration::from_secs(30);
/// How long the hub may take to say who a sharer is.
pub(super) const WHOIS: Duration = Duration::from_secs(10);
/// When a sharer that does not answer is asked again: some say nothing while they believe that an
/// earlier download is still under way.
pub(super) const AGAIN: Duration = Duration::from_secs(5);
/// Bytes of what is there already that are fetched again, to see whether it is the same file.
const OVERLAP: usize = 4096;
/// Bytes of a sharer's answer before it must have said the size.
const MAX_ANSWER: usize = 256;

/// Why a file could not be had from a sharer.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The connection to the hub ended: nothing more can be asked for.
    #[error(transparent)]
    Hub(#[from] SessionError),
    /// The sharer, or the hub for it, said no.
    #[error("{0}")]
    Refused(String),
    /// The sharer did not answer in time.
    #[error("the sharer does not answer")]
    Late,
    /// The connection to the sharer failed.
    #[error("the connection to the sharer failed")]
    Peer(#[from] io::Error),
    /// It is another file than the hub told of.
    #[error("the file has {told} bytes, not {expected}")]
    Size {
        /// Bytes as the sharer tells them now.
        told: u64,
        /// Bytes as the hub told them.
        expected: u64,
    },
    /// What is there already is of another file.
    #[error("what is there already is not of this file")]
    Different,
    /// Our own disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DownloadError {
    pub(super) fn may_not_dial(ip: Ipv4Addr) -> Self {
        let why = format!("the hub names {ip}, which strangers may not make us connect to");
        Self::Refused(why)
    }

    /// Whether another sharer may do better.
    pub fn is_the_sharers(&self) -> bool {
        !matches!(self, Self::Hub(_) | Self::Store(_))
    }
}

/// The name that a file of the network gets in a folder: its last component, made safe.
pub fn local_name(path: &[u8]) -> SafePath {
    let (_, name) = shoal_napster::file::split_path(path);
    let safe = SafePath::sanitise([name], Naming::Download);
    safe.unwrap_or_else(|_| SafePath::new("file").expect("a plain name is safe"))
}

/// Fetches one file into `dir`, going on where an earlier try ended; where it is then. `told` hears
/// how many bytes are there. `ways`: the port at which sharers may bring it, and the overlay, by which
/// some are reached whom nobody can connect to otherwise.
///
/// # Errors
/// Why not; what came so far stays for the next try.
pub fn download(
    session: &mut Session,
    ways: (&DataPort, Option<&Overlay>),
    me: &str,
    hit: &Hit,
    dir: &Path,
    told: &mut dyn FnMut(u64),
) -> Result<PathBuf, DownloadError> {
    let mut partial = Partial::open(dir, &local_name(&hit.path))?;
    if partial.len() > hit.facts.size {
        partial.restart()?;
    }
    let resumed = !partial.is_empty();
    let mut result = attempt(session, ways, me, hit, &mut partial, told);
    if resumed && matches!(result, Err(DownloadError::Different)) {
        // Another file of that name was here, or the sharer sends from the beginning whatever it
        // is asked for, as TekNap does: once more from there.
        partial.restart()?;
        result = attempt(session, ways, me, hit, &mut partial, told);
    }
    result?;
    Ok(partial.finish()?)
}

/// Asks for what is missing, once.
fn attempt(
    session: &mut Session,
    (port, mut overlay): (&DataPort, Option<&Overlay>),
    me: &str,
    hit: &Hit,
    partial: &mut Partial,
    told: &mut dyn FnMut(u64),
) -> Result<(), DownloadError> {
    if partial.len() == hit.facts.size && !partial.is_empty() {
        return Ok(());
    }
    let tail = partial.tail(OVERLAP)?;
    let from = partial.len() - tail.len() as u64;
    session.core().say(kind::DOWNLOAD_START, |_| {});
    // Whom nobody can connect to cannot have it brought: some hubs say nothing at all then.
    let first = match port.addr() {
        None => by_overlay(session, &mut overlay, me, hit, from),
        Some(_) => None,
    };
    let begun = match first {
        Some(begun) => Ok(begun),
        None => match by_hub(session, (port, &mut overlay), me, hit, from) {
            Err(error) if error.is_the_sharers() => {
                by_overlay(session, &mut overlay, me, hit, from).ok_or(error)
            }
            begun => begun,
        },
    };
    let result = begun
        .and_then(|(stream, rest)| receive(stream, &rest, &tail, hit.facts.size, partial, told));
    session.core().say(kind::DOWNLOAD_DONE, |_| {});
    session.flush()?;
    result
}

/// As the hub tells: connects to the sharer, or has the sharer connect. The latter may fail without a
/// word for half a minute, so that the overlay goes before it.
fn by_hub(
    session: &mut Session,
    (port, overlay): (&DataPort, &mut Option<&Overlay>),
    me: &str,
    hit: &Hit,
    from: u64,
) -> Result<Begun, DownloadError> {
    session.core().download(&hit.nick, &hit.path);
    let place = brokered(session, hit)?;
    if place.port == 0 {
        if let Some(begun) = by_overlay(session, overlay, me, hit, from) {
            return Ok(begun);
        }
        let brought = port.expect(&hit.nick, &hit.path);
        session.core().push(&hit.nick, &hit.path);
        session.flush()?;
        let (stream, size) = wait_for(session, &brought, hit)?;
        brought_in(stream, size, hit, from)
    } else {
        session.flush()?;
        fetched(session, &place, me, hit, from)
    }
}

/// Connects to the overlay address that the sharer tells behind its program's name. None: it tells none, or
/// nothing comes from there, so that it is not tried again.
fn by_overlay(
    session: &mut Session,
    overlay: &mut Option<&Overlay>,
    me: &str,
    hit: &Hit,
    from: u64,
) -> Option<Begun> {
    let overlay = overlay.take()?;
    session.core().whois(&hit.nick);
    let until = Instant::now() + WHOIS;
    let place = loop {
        match session.next(until).ok()?? {
            Event::Whois(whois) if whois.nick.eq_ignore_ascii_case(&hit.nick) => {
                break whois.overlay()?;
            }
            Event::Whowas(nick, ..) if nick.eq_ignore_ascii_case(&hit.nick) => return None,
            _ => {}
        }
    };
    let begun = overlay.dial(place).map_err(DownloadError::from);
    match begun.and_then(|stream| ask(stream, me, hit, from)) {
        Ok(begun) => Some(begun),
        Err(error) => {
            tracing::debug!(%error, who = %hit.nick, "no file by the overlay");
            None
        }
    }
}

/// Waits until the hub tells where the file is.
fn brokered(session: &mut Session, hit: &Hit) -> Result<Place, DownloadError> {
    let until = Instant::now() + BROKERED;
    let mut ask = Instant::now() + AGAIN;
    loop {
        match session.next(ask.min(until))? {
            Some(Event::Ready(p))
                if p.nick.eq_ignore_ascii_case(&hit.nick) && p.path == hit.path =>
            {
                return Ok(p);
            }
            Some(Event::Unavailable(nick, path, why))
                if nick.eq_ignore_ascii_case(&hit.nick) && path == hit.path =>
            {
                return Err(DownloadError::Refused(why));
            }
            Some(Event::Error(why)) => tracing::debug!(why, "the hub says"),
            Some(_) => {}
            None if Instant::now() < until => {
                session.core().download(&hit.nick, &hit.path);
                ask = Instant::now() + AGAIN;
            }
            None => return Err(DownloadError::Late),
        }
    }
}

/// Waits for a sharer to connect to us, while the hub is listened to.
fn wait_for(
    session: &mut Session,
    brought: &crossbeam_channel::Receiver<Brought>,
    hit: &Hit,
) -> Result<Brought, DownloadError> {
    let until = Instant::now() + BROKERED;
    while Instant::now() < until {
        if let Ok(brought) = brought.try_recv() {
            return Ok(brought);
        }
        let soon = Instant::now() + Duration::from_millis(50);
        if let Some(Event::Unavailable(nick, path, why)) = session.next(soon)?
            && nick.eq_ignore_ascii_case(&hit.nick)
            && path == hit.path
        {
            return Err(DownloadError::Refused(why));
        }
    }
    Err(DownloadError::Late)
}

/// A connection, and what came of the file with the answer.
pub(super) type Begun = (TcpStream, Vec<u8>);

/// Connects and asks; the connection, and what came of the file with the answer.
fn fetched(
    session: &mut Session,
    place: &Place,
    me: &str,
    hit: &Hit,
    from: u64,
) -> Result<Begun, DownloadError> {
    check_place(session, place)?;
    match connect(place) {
        Ok(stream) => ask(stream, me, hit, from),
        Err(e) => {
            tell_unreachable(session, hit)?;
            Err(e.into())
        }
    }
}

/// Whether a hub may make us connect to where it says a file is.
fn check_place(session: &Session, place: &Place) -> Result<(), DownloadError> {
    if session.may_dial(place.ip) {
        return Ok(());
    }
    Err(DownloadError::may_not_dial(place.ip))
}

/// Connects to a sharer.
pub(super) fn connect(place: &Place) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::from((place.ip, place.port)), STALL)
}

/// Tells a hub that a sharer cannot be connected to where it says.
fn tell_unreachable(session: &mut Session, hit: &Hit) -> Result<(), SessionError> {
    session.core().say(kind::PORT_ERROR, |o| {
        o.extend_from_slice(hit.nick.as_bytes());
    });
    session.flush()
}

/// Asks a sharer for a file from `from` on.
pub(super) fn ask(
    mut stream: TcpStream,
    me: &str,
    hit: &Hit,
    from: u64,
) -> Result<Begun, DownloadError> {
    prepare(&stream)?;
    greeted(&mut stream)?;
    let mut said = Vec::new();
    Request {
        nick: me.as_bytes().to_vec(),
        path: hit.path.clone(),
        number: from,
    }
    .put(&mut said);
    // A packet of its own, as clients of the day read it.
    stream.write_all(b"GET")?;
    stream.write_all(&said)?;
    let (mut answer, mut buf) = (Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut buf)?;
        answer.extend_from_slice(buf.get(..n).unwrap_or_default());
        match read_answer(&answer, hit.facts.size) {
            Answer::Size(told, used) if told == hit.facts.size => {
                return Ok((stream, answer.get(used..).unwrap_or_default().to_vec()));
            }
            Answer::Size(told, _) => {
                let expected = hit.facts.size;
                return Err(DownloadError::Size { told, expected });
            }
            Answer::Refused(why) if !why.is_empty() => {
                return Err(DownloadError::Refused(format!("the sharer says: {why}")));
            }
            _ if n == 0 || answer.len() > MAX_ANSWER => {
                return Err(DownloadError::Refused("the sharer tells no size".into()));
            }
            _ => {}
        }
    }
}

/// The sharer connected to us and told the size: from where it shall send.
pub(super) fn brought_in(
    mut stream: TcpStream,
    size: u64,
    hit: &Hit,
    from: u64,
) -> Result<Begun, DownloadError> {
    if size != hit.facts.size {
        stream.write_all(b"INVALID REQUEST")?;
        return Err(DownloadError::Size {
            told: size,
            expected: hit.facts.size,
        });
    }
    stream.write_all(from.to_string().as_bytes())?;
    Ok((stream, Vec::new()))
}

/// Takes the file from an offset: first what must be there already, then the rest.
fn receive(
    mut stream: TcpStream,
    first: &[u8],
    tail: &[u8],
    size: u64,
    partial: &mut Partial,
    told: &mut dyn FnMut(u64),
) -> Result<(), DownloadError> {
    let mut expected = tail;
    let mut buf = vec![0; 64 << 10];
    let mut bytes = first.to_vec();
    loop {
        let n = expected.len().min(bytes.len());
        let (again, new) = bytes.split_at(n);
        if expected.get(..n) != Some(again) {
            return Err(DownloadError::Different);
        }
        expected = expected.get(n..).unwrap_or_default();
        let room = usize::try_from(size - partial.len()).unwrap_or(usize::MAX);
        partial.append(new.get(..new.len().min(room)).unwrap_or_default())?;
        told(partial.len());
        if partial.len() == size {
            return Ok(());
        }
        let n = stream.read(&mut buf)?;
        if n == 0 {
            return Err(DownloadError::Peer(io::ErrorKind::UnexpectedEof.into()));
        }
        bytes = buf.get(..n).unwrap_or_default().to_vec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_network_stay_in_their_folder() {
        for (path, name) in [
            (&b"C:\\Music\\a song.mp3"[..], "a song.mp3"),
            (b"../../etc/passwd", "passwd"),
            (b"C:\\x\\..", "_"),
            (b"", "_"),
        ] {
            assert_eq!(local_name(path).as_str(), name);
            assert_eq!(local_name(path).components().count(), 1);
        }
    }
}
