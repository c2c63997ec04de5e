//! `shoal supernode`: a node of the overlay, searches, downloads, and its servers in [`serve`].

mod children;
mod fetch;
pub(crate) mod find;
mod node;
mod ring;
pub(crate) mod serve;

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use rustix::fs::{FlockOperation, flock};
use shoal_base::id::{from_hex, to_hex};
use shoal_node::reach::{NodeId, address_of};
use shoal_node::supernode::{AskError, claim, supernodes};
use shoal_store::snapshot;
use shoal_supernode::token::{Key, Token, is_name};
use shoal_supernode::wire::OVERLAY_FILES;

use crate::cli::{JoinFlags, SupernodeCommand, SupernodeListArgs};
use crate::failure::{Exit, Failure, Outcome};
use crate::name::Own;
use crate::report::OverlayReport;
use crate::ui::Ui;
use crate::{key, transfer};

/// Commands at once that ask, or serve, with a name of their own.
const ASKERS: usize = 32;
/// Bytes of the file of trusted keys at most.
const MAX_TRUSTED: u64 = 64 << 10;
/// How soon a token that could not be renewed is asked for again.
const AGAIN: Duration = Duration::from_secs(30);

/// Runs `supernode`.
pub(crate) fn supernode(command: &SupernodeCommand, ui: &Ui) -> Outcome<Exit> {
    match command {
        SupernodeCommand::Node(args) => node::node(args, ui),
        SupernodeCommand::Find(args) => find::find(args, ui),
        SupernodeCommand::Fetch(args) => fetch::fetch(args, ui),
        SupernodeCommand::List(args) => list(args, ui),
    }
}

/// The address of `HOST:PORT`.
pub(crate) fn resolve(text: &str) -> Outcome<SocketAddr> {
    let found = text.to_socket_addrs().map_err(|e| {
        Failure::new(Exit::Unreachable, format!("cannot look up {text}"))
            .because(&e)
            .hint("write HOST:PORT, such as login.example.org:1213")
    })?;
    let mut found = found.into_iter();
    found
        .next()
        .ok_or_else(|| Failure::new(Exit::Unreachable, format!("{text} has no address")))
}

/// Where the login server and the list are.
pub(crate) fn servers(flags: &JoinFlags) -> Outcome<(SocketAddr, SocketAddr)> {
    let login = flags.login.as_deref().ok_or_else(|| {
        Failure::usage("no login server")
            .hint("name one with --login HOST:PORT, or in $SHOAL_LOGIN; shoal serve login runs one")
    })?;
    let login = resolve(login)?;
    let list = flags.list.as_deref().map_or(Ok(login), resolve)?;
    Ok((login, list))
}

pub(crate) fn refused(what: String, error: &AskError) -> Failure {
    let exit = match error {
        AskError::Refused(_) => Exit::Refused,
        AskError::Io(_) | AskError::Nonsense => Exit::Unreachable,
    };
    Failure::new(exit, what).because(error)
}

/// A member of the overlay: a name, its key, and a token that says so.
pub(crate) struct Member {
    login: SocketAddr,
    list: SocketAddr,
    pub(crate) key: SigningKey,
    token: Token,
    pub(crate) trusted: Key,
    /// The address that we have on the way to the login server.
    pub(crate) own: IpAddr,
    /// Whether the router is asked to let others through.
    pub(crate) port_mapping: bool,
    /// When to ask for the next token.
    renew_at: Instant,
    /// Whether the login server's key was seen for the first time.
    new_trust: bool,
    /// Keeps the key from others while it is in use; none when whoever has the name does.
    _lock: Option<File>,
}

/// As whom to log in.
pub(crate) enum Who<'a> {
    /// A node that stays, under this name or one made of its key.
    Node(Option<&'a str>),
    /// A node that has this name, by the name's key.
    Named(&'a Own),
    /// A command that asks and goes.
    Asker,
    /// A command that others reach, beside others of its kind on this machine. The first has the same
    /// key each time.
    Service,
}

pub(crate) fn unix() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs())
}

/// The key in a file, made if need be, while nobody else uses it.
pub(crate) fn own_key(path: &Path) -> Outcome<Option<(SigningKey, File)>> {
    let key = key::load_or_make(path)?;
    let cannot = |e: io::Error| Failure::io("use", path, &e);
    let file = File::open(path).map_err(cannot)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some((key, file))),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(cannot(e.into())),
    }
}

impl Member {
    /// Logs in. `dir`: where keys are kept.
    pub(crate) fn join(flags: &JoinFlags, who: &Who<'_>, dir: &Path) -> Outcome<Self> {
        let (login, list) = servers(flags)?;
        fs::create_dir_all(dir).map_err(|e| Failure::io("create the folder", dir, &e))?;
        let (key, lock) = match who {
            Who::Node(_) => {
                let path = dir.join("key");
                let (key, lock) = own_key(&path)?.ok_or_else(|| {
                    Failure::failed(format!("{} is in use", path.display()))
                        .hint("another node runs with it; give another --state-dir")
                })?;
                (key, Some(lock))
            }
            Who::Named(own) => (own.key().clone(), None),
            Who::Asker | Who::Service => {
                let kind = match who {
                    Who::Service => "service",
                    _ => "asker",
                };
                let mut keys = (0..ASKERS).map(|n| own_key(&dir.join(format!("{kind}-{n}.key"))));
                let free = keys.find_map(Result::transpose).transpose()?;
                let (key, lock) =
                    free.ok_or_else(|| Failure::failed("too many commands ask at once"))?;
                (key, Some(lock))
            }
        };
        let id = to_hex(key.verifying_key().as_bytes());
        let start = id.get(..12).unwrap_or_default();
        let name = match who {
            Who::Node(Some(name)) => (*name).to_owned(),
            Who::Named(own) => own.name().to_owned(),
            Who::Node(None) | Who::Service => format!("peer-{start}"),
            Who::Asker => format!("asker-{start}"),
        };
        if !is_name(&name) {
            return Err(Failure::usage(format!("--name {name:?}"))
                .reason("a name has 1 to 32 letters, digits, -, _ and ."));
        }
        let granted = claim(login, &name, &key)
            .map_err(|e| refused(format!("cannot log in as {name} at {login}"), &e))?;
        let trusted = granted.by;
        let new_trust = trust(flags, login, trusted, &dir.join("trusted"))?;
        if let Err(invalid) = granted.token.check(&trusted, unix()) {
            return Err(
                Failure::new(Exit::Refused, "the login server gave a token of no use")
                    .because(&invalid)
                    .hint("the clocks of both machines should agree"),
            );
        }
        Ok(Self {
            login,
            list,
            key,
            renew_at: renewal(&granted.token),
            token: granted.token,
            trusted,
            own: granted.own,
            port_mapping: !flags.no_port_mapping,
            new_trust,
            _lock: lock,
        })
    }

    /// The login server and the list of supernodes.
    pub(crate) fn servers(&self) -> (SocketAddr, SocketAddr) {
        (self.login, self.list)
    }

    /// Tells as whom it logged in, and whom it believes.
    pub(crate) fn tell(&self, ui: &Ui) {
        if self.new_trust {
            let (login, key) = (self.login, to_hex(&self.trusted));
            ui.news("Trusting", &format!("{login} with the key {key}"));
        }
        ui.report(&OverlayReport::LoggedIn {
            name: &self.token.name,
            key: &to_hex(&self.token.key),
            expires: self.token.expires,
        });
    }

    /// A fresh token, if it is time for one.
    pub(crate) fn renew(&mut self, ui: &Ui) -> Option<Token> {
        self.renewed()?.inspect_err(|why| ui.warn(why)).ok()
    }

    /// A fresh token, if it is time for one, or why there is none.
    pub(crate) fn renewed(&mut self) -> Option<Result<Token, String>> {
        if Instant::now() < self.renew_at {
            return None;
        }
        let why = match claim(self.login, &self.token.name, &self.key) {
            Ok(granted) if granted.token.check(&self.trusted, unix()).is_ok() => {
                self.renew_at = renewal(&granted.token);
                self.token = granted.token;
                return Some(Ok(self.token.clone()));
            }
            Ok(_) => "the login server signs with another key now".to_owned(),
            Err(error) => format!("the token cannot be renewed: {error}"),
        };
        self.renew_at = Instant::now() + AGAIN;
        Some(Err(why))
    }

    /// A listening socket, and the address to tell of it.
    fn listen(
        &self,
        listen: SocketAddr,
        external: Option<SocketAddr>,
    ) -> Outcome<(TcpListener, SocketAddr)> {
        let bound = TcpListener::bind(listen).and_then(|l| Ok((l.local_addr()?, l)));
        let (at, listener) = bound.map_err(|e| {
            let failure = Failure::failed(format!("cannot listen on {listen}")).because(&e);
            transfer::bind_hint(failure, &e)
        })?;
        let own = match at.ip().is_unspecified() {
            true => SocketAddr::new(self.own, at.port()),
            false => at,
        };
        Ok((listener, external.unwrap_or(own)))
    }
}

/// When a token is to be renewed: when half of its time is over.
fn renewal(token: &Token) -> Instant {
    let left = Duration::from_secs(token.expires.saturating_sub(unix()));
    Instant::now() + left / 2
}

/// Sees to it that a login server's key is the one named, else the one that it had the first time;
/// whether this is the first time.
pub(crate) fn trust(flags: &JoinFlags, login: SocketAddr, by: Key, path: &Path) -> Outcome<bool> {
    let other = |wanted: &Key| {
        Failure::new(
            Exit::Refused,
            format!("the login server {login} has another key"),
        )
        .reason(format!("it is {}, not {}", to_hex(&by), to_hex(wanted)))
        .hint("if that is right, name the new key with --trust")
    };
    if let Some(wanted) = &flags.trust {
        return if *wanted == by {
            Ok(false)
        } else {
            Err(other(wanted))
        };
    }
    let name = flags.login.clone().unwrap_or_default();
    let loaded = snapshot::load(path, MAX_TRUSTED).map_err(|e| Failure::io("read", path, &e))?;
    let mut text = String::from_utf8_lossy(&loaded.unwrap_or_default()).into_owned();
    for line in text.lines() {
        if let Some((server, known)) = line.split_once(' ')
            && server == name
        {
            let known: Key = from_hex(known).map_err(|_| {
                Failure::failed(format!("{} is damaged", path.display()))
                    .hint("remove it: keys of login servers will be believed anew")
            })?;
            return if known == by {
                Ok(false)
            } else {
                Err(other(&known))
            };
        }
    }
    text.push_str(&format!("{name} {}\n", to_hex(&by)));
    snapshot::save(path, text.as_bytes()).map_err(|e| Failure::io("write", path, &e))?;
    Ok(true)
}

/// The folder for what nodes and askers keep.
pub(crate) fn folder(state_dir: Option<&Path>) -> PathBuf {
    crate::state::base(state_dir, Path::new(".")).join("supernode")
}

/// Where a sharer serves its files whom nobody can connect to.
pub(crate) fn overlay_files(key: &Key) -> SocketAddr {
    (address_of(&NodeId(*key)), OVERLAY_FILES).into()
}

/// What a stranger says, as it can be shown.
pub(crate) fn shown(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '_' } else { c })
        .collect()
}

/// The lines of stdin as they come.
pub(crate) fn lines() -> crossbeam_channel::Receiver<String> {
    let (send, lines) = crossbeam_channel::bounded(1);
    // Ends with stdin, or with the program.
    std::thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Runs `supernode list`.
fn list(args: &SupernodeListArgs, ui: &Ui) -> Outcome<Exit> {
    let at = match &args.join.list {
        Some(list) => resolve(list)?,
        None => servers(&args.join)?.1,
    };
    let mut entries =
        supernodes(at).map_err(|e| refused(format!("no list of supernodes from {at}"), &e))?;
    entries.sort_by_key(|e| (e.load, e.addr));
    for entry in &entries {
        ui.report(&OverlayReport::Supernode {
            addr: entry.addr,
            load: entry.load,
            age: entry.age,
        });
        let addr = entry.addr.to_string();
        ui.result(&format!(
            "{addr:<22} {:>3} % full, heard of {} s ago",
            entry.load, entry.age
        ));
    }
    if entries.is_empty() {
        return Err(Failure::not_found("no supernode is on the list")
            .hint("shoal supernode node --supernode runs one"));
    }
    Ok(Exit::Ok)
}
