//! Where downloads from users of one hub are brokered, several side by side over one login.
//!
//! A thread of its own hears the hub and hands each answer to who asked; what is said goes out from
//! whoever says it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, SocketAddrV6, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use shoal_base::Rng;
use shoal_napster::client::{Client, Event, Hit, Login, Place};
use shoal_napster::kind;

use super::download::{AGAIN, BROKERED, Begun, DownloadError, WHOIS, ask, brought_in, connect};
use super::port::{Brought, DataPort};
use super::session::{Session, SessionError, may_dial};
use crate::reach::Overlay;

/// Answers that wait for who asked; what is said beyond that says nothing new.
const ANSWERS: usize = 4;

/// We, logged in at a hub, or about to be: shared by everybody whom we ask there.
pub(crate) struct HubDesk {
    hub: SocketAddr,
    login: Login,
    /// Where sharers whom nobody can connect to bring their files; none: nowhere.
    port: Option<DataPort>,
    /// By which some are reached whom nobody can connect to otherwise.
    overlay: Option<Overlay>,
    link: Mutex<Option<Arc<Link>>>,
}

impl HubDesk {
    /// Nothing is sent before somebody is asked for something. A login without a nick gets one by
    /// chance. `listen`: the address at which others may connect, if they may.
    pub(crate) fn new(
        hub: SocketAddr,
        mut login: Login,
        listen: Option<IpAddr>,
        overlay: Option<Overlay>,
        rng: &mut Rng,
    ) -> Self {
        if login.nick.is_empty() {
            login.nick = format!("shoal{}", rng.below(1_000_000));
            login.password = format!("{:016x}", rng.next_u64());
        }
        let open = |ip| {
            let addr = SocketAddr::new(ip, 0);
            DataPort::open(Some(addr), &login.nick, BTreeMap::new(), 0)
        };
        let port = listen.and_then(|ip| match open(ip) {
            Ok(port) => Some(port),
            Err(error) => {
                tracing::warn!(%error, "nobody can bring files of Napster's users");
                None
            }
        });
        login.data_port = port.as_ref().map_or(0, DataPort::port);
        Self {
            hub,
            login,
            port,
            overlay,
            link: Mutex::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<Link>>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to the hub; a new one if there is none. Who comes meanwhile waits for it.
    fn link(&self) -> Result<Arc<Link>, SessionError> {
        let mut held = self.held();
        if let Some(link) = held.as_ref().filter(|link| !link.is_over()) {
            return Ok(Arc::clone(link));
        }
        let link = Link::open(Session::connect(self.hub, &self.login)?)?;
        Ok(Arc::clone(held.insert(link)))
    }

    /// A stream of a file from `from` on.
    pub(super) fn begin(&self, hit: &Hit, from: u64) -> Result<Begun, DownloadError> {
        let link = self.link()?;
        link.say(|core| core.say(kind::DOWNLOAD_START, |_| {}))?;
        let mut overlay = self.overlay.as_ref();
        // Whom nobody can connect to hears nothing at all of some sharers at some hubs.
        if self.port.is_none()
            && let Some(begun) = self.by_overlay(&mut overlay, &link, hit, from)
        {
            return Ok(begun);
        }
        match self.by_hub(&mut overlay, &link, hit, from) {
            Err(error) if error.is_the_sharers() => {
                let begun = self.by_overlay(&mut overlay, &link, hit, from);
                begun.ok_or(error)
            }
            begun => begun,
        }
    }

    /// At the overlay address that the sharer tells behind its program's name. None: it tells none, or
    /// nothing comes from there, so that it is not tried again.
    fn by_overlay(
        &self,
        overlay: &mut Option<&Overlay>,
        link: &Link,
        hit: &Hit,
        from: u64,
    ) -> Option<Begun> {
        let overlay = overlay.take()?;
        let place = link.place_on_overlay(&hit.nick)?;
        let begun = overlay.dial(place).map_err(DownloadError::from);
        match begun.and_then(|stream| ask(stream, &self.login.nick, hit, from)) {
            Ok(begun) => Some(begun),
            Err(error) => {
                tracing::debug!(%error, who = %hit.nick, "no file by the overlay");
                None
            }
        }
    }

    /// As the hub tells: connects to the sharer, or has the sharer connect. The latter may fail without
    /// a word for half a minute, so that the overlay goes before it.
    fn by_hub(
        &self,
        overlay: &mut Option<&Overlay>,
        link: &Arc<Link>,
        hit: &Hit,
        from: u64,
    ) -> Result<Begun, DownloadError> {
        let answers = link.ask(hit)?;
        let place = answers.place(hit)?;
        if place.port == 0 {
            if let Some(begun) = self.by_overlay(overlay, link, hit, from) {
                return Ok(begun);
            }
            let Some(port) = &self.port else {
                let why = "nobody can connect to its sharer, nor to us";
                return Err(DownloadError::Refused(why.into()));
            };
            let brought = port.expect(&hit.nick, &hit.path);
            link.say(|core| core.push(&hit.nick, &hit.path))?;
            let (stream, size) = answers.brought(&brought)?;
            return brought_in(stream, size, hit, from);
        }
        if !may_dial(self.hub, place.ip) {
            return Err(DownloadError::may_not_dial(place.ip));
        }
        match connect(&place) {
            Ok(stream) => ask(stream, &self.login.nick, hit, from),
            Err(error) => {
                // Said for the hub's sake alone: what became of it is of no interest.
                let _ = link.say(|core| {
                    core.say(kind::PORT_ERROR, |o| {
                        o.extend_from_slice(hit.nick.as_bytes());
                    });
                });
                Err(error.into())
            }
        }
    }

    /// A stream ended.
    pub(super) fn done(&self) {
        let link = self.held().clone();
        if let Some(link) = link {
            // A hub that is gone need not know.
            let _ = link.say(|core| core.say(kind::DOWNLOAD_DONE, |_| {}));
        }
    }
}

impl Drop for HubDesk {
    fn drop(&mut self) {
        if let Some(link) = self.held().take() {
            link.close();
        }
    }
}

/// What a hub answers to who asked for a file.
enum Answer {
    Ready(Place),
    Unavailable(String),
}

/// What is heard of one download.
struct Answers {
    number: u64,
    heard: Receiver<Answer>,
    link: Arc<Link>,
}

impl Answers {
    /// Where the file is, once the hub and its sharer have agreed.
    fn place(&self, hit: &Hit) -> Result<Place, DownloadError> {
        let until = Instant::now() + BROKERED;
        loop {
            let again = (Instant::now() + AGAIN).min(until);
            match self.heard.recv_deadline(again) {
                Ok(Answer::Ready(place)) => return Ok(place),
                Ok(Answer::Unavailable(why)) => return Err(DownloadError::Refused(why)),
                Err(RecvTimeoutError::Disconnected) => return Err(SessionError::Closed.into()),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= until => {
                    return Err(DownloadError::Late);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let link = &self.link;
                    link.say(|core| core.download(&hit.nick, &hit.path))?;
                }
            }
        }
    }

    /// The connection that the sharer makes to us.
    fn brought(&self, brought: &Receiver<Brought>) -> Result<Brought, DownloadError> {
        let late = crossbeam_channel::after(BROKERED);
        loop {
            select! {
                recv(brought) -> brought => return brought.map_err(|_| DownloadError::Late),
                recv(self.heard) -> answer => match answer {
                    Ok(Answer::Unavailable(why)) => return Err(DownloadError::Refused(why)),
                    // A second answer to what was asked twice.
                    Ok(Answer::Ready(_)) => {}
                    Err(_) => return Err(SessionError::Closed.into()),
                },
                recv(late) -> _ => return Err(DownloadError::Late),
            }
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.link.forget(self.number);
    }
}

/// Somebody who waits for what the hub says of a file.
struct Asked {
    number: u64,
    nick: String,
    path: Vec<u8>,
    tell: Sender<Answer>,
}

/// Who waits; none once the connection is over.
struct Waiting {
    asked: Option<Vec<Asked>>,
    /// Who waits to hear who this is.
    whois: Vec<(String, Sender<Option<SocketAddrV6>>)>,
    next: u64,
}

/// A connection to a hub that several use.
struct Link {
    socket: TcpStream,
    core: Mutex<Client>,
    waiting: Mutex<Waiting>,
}

impl Link {
    fn open(session: Session) -> Result<Arc<Self>, SessionError> {
        let (socket, core) = session.into_parts();
        socket.set_read_timeout(None)?;
        let link = Arc::new(Self {
            socket,
            core: Mutex::new(core),
            waiting: Mutex::new(Waiting {
                asked: Some(Vec::new()),
                whois: Vec::new(),
                next: 0,
            }),
        });
        let hears = Arc::clone(&link);
        thread::Builder::new()
            .name("napster-hub".into())
            .stack_size(256 << 10)
            .spawn(move || {
                if let Err(error) = hears.hear() {
                    tracing::debug!(%error, "the connection to the hub ended");
                }
                hears.close();
            })?;
        Ok(link)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.waiting().asked.is_none()
    }

    /// Ends it: who waits hears so.
    fn close(&self) {
        let mut waiting = self.waiting();
        waiting.asked = None;
        waiting.whois.clear();
        drop(waiting);
        // It may be gone already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn say(&self, what: impl FnOnce(&mut Client)) -> Result<(), SessionError> {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        what(&mut core);
        // Under the lock: one message after the other.
        let sent = (&self.socket).write_all(&core.output());
        drop(core);
        if let Err(error) = sent {
            self.close();
            return Err(error.into());
        }
        Ok(())
    }

    /// Asks to download, and listens for what is said of it.
    fn ask(self: &Arc<Self>, hit: &Hit) -> Result<Answers, SessionError> {
        let (tell, heard) = bounded(ANSWERS);
        let number = {
            let mut waiting = self.waiting();
            let number = waiting.next;
            waiting.next += 1;
            let Some(asked) = &mut waiting.asked else {
                return Err(SessionError::Closed);
            };
            asked.push(Asked {
                number,
                nick: hit.nick.clone(),
                path: hit.path.clone(),
                tell,
            });
            number
        };
        let answers = Answers {
            number,
            heard,
            link: Arc::clone(self),
        };
        self.say(|core| core.download(&hit.nick, &hit.path))?;
        Ok(answers)
    }

    /// Where a user is reached by the overlay, if it tells so.
    fn place_on_overlay(&self, nick: &str) -> Option<SocketAddrV6> {
        let (tell, heard) = bounded(1);
        let mut waiting = self.waiting();
        waiting.asked.as_ref()?;
        waiting.whois.push((nick.to_owned(), tell));
        drop(waiting);
        self.say(|core| core.whois(nick)).ok()?;
        heard.recv_timeout(WHOIS).ok()?
    }

    fn tell_place(&self, nick: &str, place: Option<SocketAddrV6>) {
        self.waiting().whois.retain(|(who, tell)| {
            let is_it = who.eq_ignore_ascii_case(nick);
            if is_it {
                // It may have given up.
                let _ = tell.try_send(place);
            }
            !is_it
        });
    }

    fn forget(&self, number: u64) {
        if let Some(asked) = &mut self.waiting().asked {
            asked.retain(|asked| asked.number != number);
        }
    }

    /// Hands out what the hub says, until the connection ends.
    fn hear(&self) -> Result<(), SessionError> {
        let mut buf = [0; 16 << 10];
        let mut events = Vec::new();
        loop {
            let n = match (&self.socket).read(&mut buf) {
                Ok(0) => return Err(SessionError::Closed),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
            };
            let mut understood = Ok(());
            self.say(|core| {
                understood = core.on_bytes(buf.get(..n).unwrap_or_default(), &mut events);
            })?;
            understood?;
            for event in events.drain(..) {
                match event {
                    Event::Ready(place) => {
                        let (nick, path) = (place.nick.clone(), place.path.clone());
                        self.answer(&nick, &path, || Answer::Ready(place.clone()));
                    }
                    Event::Unavailable(nick, path, why) => {
                        self.answer(&nick, &path, || Answer::Unavailable(why.clone()));
                    }
                    Event::Whois(who) => self.tell_place(&who.nick, who.overlay()),
                    Event::Whowas(nick, ..) => self.tell_place(&nick, None),
                    Event::Error(why) => tracing::debug!(why, "the hub says"),
                    _ => {}
                }
            }
        }
    }

    fn answer(&self, nick: &str, path: &[u8], answer: impl Fn() -> Answer) {
        let waiting = self.waiting();
        let asked = waiting.asked.iter().flatten();
        for who in asked.filter(|who| who.nick.eq_ignore_ascii_case(nick) && who.path == path) {
            // It may have given up.
            let _ = who.tell.try_send(answer());
        }
    }
}
