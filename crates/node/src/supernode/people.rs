//! One end of conversations on sockets and files: a thread that owns the core, links to boxes, and a guest
//! of the ring of names.

mod by_box;
mod homes;
pub(crate) mod straight;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use ed25519_dalek::SigningKey;
use shoal_base::Time;
use shoal_call::chat::{Chat, Effect, Entry, Event, Me, NotSent, Status};
use shoal_call::mailbox::watch::Watch;
use shoal_call::seal::Secrets;
use shoal_dht::Answer;
use shoal_store::job::JobLog;
use shoal_store::snapshot;
use shoal_supernode::names::certificate::Certificate;
use shoal_supernode::names::log::Head;
use shoal_supernode::token::Key;

use super::box_link::{BoxLink, Caller, Heard};
use super::name_ring::name_ring;
use crate::dht::{DhtError, Ticket};
use crate::reach::Reach;
use by_box::ByBox;
use homes::Homes;
use straight::LetterStream;
use worker::Core;

/// Bytes of the file of prekeys at most.
const MAX_PREKEYS: u64 = 64 << 10;

/// Who takes part, and what it keeps where.
pub struct PeopleSettings {
    /// The key of the name.
    pub key: SigningKey,
    /// Its certificate.
    pub certificate: Certificate,
    /// The login server's key.
    pub server: Key,
    /// The login server, whose log is compared with what others were shown.
    pub login: SocketAddr,
    /// The list of supernodes.
    pub list: SocketAddr,
    /// Where a guest of the ring has its socket.
    pub listen: SocketAddr,
    /// The folder for the journal, prekeys and homes.
    pub dir: PathBuf,
    /// Random bytes that keys are made of.
    pub secret: [u8; 32],
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// What is kept cannot be read, or no thread be made; would block: another program uses it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No guest of the ring.
    #[error(transparent)]
    Ring(#[from] DhtError),
}

/// What happened.
#[derive(Debug)]
pub enum PeopleEvent {
    /// In conversations.
    Chat(Event),
    /// These supernodes keep our letters now.
    Homes(Vec<SocketAddr>),
    /// This one did not bring letters that two others brought: another is taken for it.
    HomeLeft(SocketAddr),
    /// Letters to and from who has this key go straight from now on, or no more.
    Straight(Key, bool),
    /// Our record is in the ring, at so many nodes.
    Published(u32),
    /// It ends, because what happens cannot be kept.
    Failed(io::Error),
}

type Work = dyn FnOnce(&mut Chat<SocketAddr>, Time, &mut Vec<Effect<SocketAddr>>) + Send;

enum Input {
    Do(Box<Work>),
    Heard(SocketAddr, u64, Heard),
    Listed(Vec<SocketAddr>),
    Ring(Ticket, Answer),
    Renew(Box<Certificate>),
    Reachable(Arc<Reach>),
    Arrived(LetterStream),
    Straight(Key, u64, straight::Heard),
    /// The log as it is shown to us now; and heads that it was not proven to begin with, and to whom they were shown.
    Shown(Box<Head>, Vec<(String, Head)>),
    Stop,
}

/// One end, running; dropping it ends it.
#[derive(Debug)]
pub struct People {
    inputs: Sender<Input>,
    thread: Option<JoinHandle<()>>,
    /// What happens.
    pub events: Receiver<PeopleEvent>,
}

impl People {
    /// Starts one.
    ///
    /// # Errors
    /// Why not.
    pub fn start(settings: PeopleSettings) -> Result<Self, PeopleError> {
        let (mut journal, bytes) = JobLog::open(&settings.dir.join("journal"))?;
        let (kept, used) = Entry::read(&bytes);
        // A torn entry at the end was never answered for.
        journal.cut(used as u64)?;
        let path = settings.dir.join("prekeys");
        let prekeys = snapshot::load(&path, MAX_PREKEYS)?;
        let homes = Homes::load(&settings.dir.join("homes"))?;
        let me = Me {
            key: settings.key.clone(),
            certificate: settings.certificate.clone(),
            server: settings.server,
        };
        let mut secrets = Secrets::new(settings.secret);
        let mut seed = [0; 8];
        secrets.fill(&mut seed);
        let chat = Chat::new(me, super::unix(), secrets, kept, prekeys.as_deref());
        let (inputs, inbox) = unbounded();
        let (tell, events) = unbounded();
        let answers = inputs.clone();
        let ring = name_ring(
            settings.server,
            settings.listen,
            None,
            &[],
            u64::from_le_bytes(seed),
            Box::new(move |ticket, answer| {
                // Fails when it is over.
                let _ = answers.send(Input::Ring(ticket, answer));
            }),
        )?;
        let core = Core {
            chat,
            start: Instant::now(),
            caller: Caller {
                key: settings.key,
                certificate: settings.certificate,
            },
            server: settings.server,
            login: settings.login,
            next_log: Instant::now(),
            list: settings.list,
            dir: settings.dir,
            journal,
            ring,
            inputs: inputs.clone(),
            tell,
            links: BTreeMap::new(),
            serial: 0,
            homes,
            watch: Watch::default(),
            reach: None,
            straight: BTreeMap::new(),
            known: Vec::new(),
            next_list: Instant::now(),
            wanted: Vec::new(),
            lookups: BTreeMap::new(),
            unpublished: None,
            publishing: None,
            by_box: ByBox::default(),
            ticket: 0,
            now: Instant::now(),
        };
        let thread = thread::Builder::new()
            .name("people".into())
            .spawn(move || core.run(&inbox))?;
        Ok(Self {
            inputs,
            thread: Some(thread),
            events,
        })
    }

    fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Chat<SocketAddr>, Time, &mut Vec<Effect<SocketAddr>>) -> T
        + Send
        + 'static,
    ) -> Option<T> {
        let (answer, got) = bounded(1);
        let work: Box<Work> = Box::new(move |chat, now, out| {
            let _ = answer.send(work(chat, now, out));
        });
        self.inputs.send(Input::Do(work)).ok()?;
        got.recv().ok()
    }

    /// Writes a text to somebody; its number. None when it has ended.
    pub fn write(&self, name: &str, text: &str) -> Option<Result<u64, NotSent>> {
        let (name, text) = (name.to_owned(), text.to_owned());
        self.with(move |chat, now, out| chat.write(now, &name, &text, out))
    }

    /// Makes a connection to somebody who is written with, as soon as that can be.
    pub fn want(&self, name: &str) {
        let name = name.to_owned();
        self.with(move |chat, now, out| chat.want(now, &name, out));
    }

    /// How many texts to somebody have no receipt; none when it has ended.
    pub fn waiting(&self, name: &str) -> Option<usize> {
        let name = name.to_owned();
        self.with(move |chat, _, _| chat.waiting(&name))
    }

    /// Makes somebody a buddy, or none any more.
    pub fn set_buddy(&self, name: &str, is: bool) {
        let name = name.to_owned();
        self.with(move |chat, now, out| chat.set_buddy(now, &name, is, out));
    }

    /// Tells buddies how we are.
    pub fn set_status(&self, status: Status) {
        self.with(move |chat, now, out| chat.set_status(now, status, out));
    }

    /// Buddies and how they are.
    pub fn buddies(&self) -> Vec<(String, Status)> {
        self.with(|chat, _, _| chat.buddies()).unwrap_or_default()
    }

    /// From now on letters go straight to who is there, by this node; it must have the key of our name.
    pub fn reach_by(&self, reach: Arc<Reach>) {
        // It may have ended.
        let _ = self.inputs.send(Input::Reachable(reach));
    }

    /// Takes streams for letters that others opened.
    pub fn arrivals(&self) -> impl Fn(LetterStream) + Send + Sync + 'static {
        let inputs = self.inputs.clone();
        move |stream| {
            let _ = inputs.send(Input::Arrived(stream));
        }
    }

    /// Takes a fresh certificate.
    pub fn renew(&self, certificate: Certificate) {
        // It may have ended.
        let _ = self.inputs.send(Input::Renew(Box::new(certificate)));
    }
}

impl Drop for People {
    fn drop(&mut self) {
        let _ = self.inputs.send(Input::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of conversations panicked");
        }
    }
}
