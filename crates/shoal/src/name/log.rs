//! `shoal name log`: the public log, read whole and checked.

use std::net::SocketAddr;

use shoal_base::id::{from_hex, to_hex};
use shoal_node::supernode::{AskError, NamesDesk};
use shoal_store::snapshot;
use shoal_supernode::names::fold::fold;
use shoal_supernode::names::log::{Hash, Head, includes};
use shoal_supernode::names::register::{Entry, Register};
use shoal_supernode::token::Key;

use super::forks::tell_kept;
use super::keep::{folder, known, own_keys, trusted};
use crate::cli::NameLogArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::report::PeopleReport;
use crate::supernode::{refused, servers, trust};
use crate::ui::Ui;

/// Bytes of the file with the last head at most.
const MAX_HEAD: u64 = 4096;

/// Runs the command.
pub(super) fn log(args: &NameLogArgs, ui: &Ui) -> Outcome<Exit> {
    let (login, _) = servers(&args.flags.join)?;
    let dir = folder(args.flags.state_dir.as_deref());
    std::fs::create_dir_all(&dir).map_err(|e| Failure::io("create the folder", &dir, &e))?;
    let cannot = |e| refused(format!("cannot read the log of names at {login}"), &e);
    let mut desk = NamesDesk::open(login).map_err(cannot)?;
    let head = desk.head().map_err(cannot)?;
    let register = read(&mut desk, &head, &cannot, |at, entry| {
        let wanted = args
            .name
            .as_ref()
            .is_none_or(|n| fold(n) == fold(&entry.name));
        if wanted {
            tell(at, entry, ui);
        }
    })?;
    let by = known(&dir, &args.flags.join)?;
    if !head.is_by(&by) {
        return Err(broken("the head is not signed by the login server's key")
            .hint("--trust KEY names another key"));
    }
    trust(&args.flags.join, login, by, &trusted(&dir))?;
    if register.tree().root(head.size) != Some(head.root) {
        return Err(broken("the entries do not give the root that was signed"));
    }
    let path = dir.join(format!("head-{}", to_hex(by.get(..8).unwrap_or(&by))));
    let kept = snapshot::load(&path, MAX_HEAD).map_err(|e| Failure::io("read", &path, &e))?;
    if let Some((size, root)) = kept.as_deref().and_then(parse) {
        // The whole log is here: no proof is needed, its beginning must be what it was.
        if size > head.size || register.tree().root(size) != Some(root) {
            // Told as well, though this alone says enough.
            let _ = tell_kept(args.flags.state_dir.as_deref(), &by, ui);
            return Err(
                broken("the log was rewritten since the last time").reason(format!(
                    "it had {size} entries and the root {}",
                    to_hex(&root)
                )),
            );
        }
    }
    let line = format!("{} {}\n", head.size, to_hex(&head.root));
    snapshot::save(&path, line.as_bytes()).map_err(|e| Failure::io("write", &path, &e))?;
    let mut stolen = Vec::new();
    for (name, key) in own_keys(args.flags.state_dir.as_deref()) {
        let other = register.owner(&name).filter(|(_, e)| e.key != key);
        if let Some((at, entry)) = other {
            stolen.push(format!("{} has another key since entry {at}", entry.name));
        }
    }
    told(&head, register.count(), stolen.is_empty(), ui);
    let forks = tell_kept(args.flags.state_dir.as_deref(), &by, ui);
    match stolen.is_empty() {
        true => forks.map(|()| Exit::Ok),
        false => Err(stolen
            .into_iter()
            .fold(broken("a name of ours is another's"), Failure::reason)
            .hint("shoal name change NAME --by RECOVERY-KEY takes it back")),
    }
}

/// All entries of the log up to its head; `each` sees them as they come.
fn read(
    desk: &mut NamesDesk,
    head: &Head,
    cannot: &dyn Fn(AskError) -> Failure,
    mut each: impl FnMut(u64, &Entry),
) -> Outcome<Register> {
    let mut register = Register::default();
    while register.tree().len() < head.size {
        let more = desk.entries(register.tree().len()).map_err(cannot)?;
        if more.is_empty() {
            return Err(broken("the log ends before its head says"));
        }
        for entry in more {
            if register.tree().len() < head.size {
                each(register.tree().len(), &entry);
                register.push(entry);
            }
        }
    }
    Ok(register)
}

/// The last entry of a name as the login server says, and proves to be in its public log: for who finds no
/// record in the ring.
pub(crate) fn owner(name: &str, server: &Key, login: SocketAddr) -> Outcome<(u64, Entry)> {
    let cannot = |e| refused(format!("cannot ask {login} whose {name} is"), &e);
    let mut desk = NamesDesk::open(login).map_err(cannot)?;
    let owner = desk.owner(name).map_err(cannot)?;
    let (at, entry) = owner.ok_or_else(|| {
        Failure::not_found(format!("nobody has the name {name}"))
            .hint("shoal name claim NAME makes it yours")
    })?;
    let head = desk.head().map_err(cannot)?;
    if !head.is_by(server) {
        return Err(broken(
            "the head of the log is not signed by the login server's key",
        ));
    }
    let proof = desk.inclusion(at, head.size).map_err(cannot)?;
    let shown = includes(&entry.leaf(), at, head.size, &head.root, &proof);
    if !shown || fold(&entry.name) != fold(name) {
        return Err(broken(
            "the public log does not have what was said of the name",
        ));
    }
    Ok((at, entry))
}

fn broken(what: &str) -> Failure {
    Failure::new(Exit::Refused, what)
}

fn parse(bytes: &[u8]) -> Option<(u64, Hash)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (size, root) = text.trim_end().split_once(' ')?;
    Some((size.parse().ok()?, from_hex(root).ok()?))
}

fn tell(at: u64, entry: &Entry, ui: &Ui) {
    let (key, recovery) = (to_hex(&entry.key), entry.recovery.map(|r| to_hex(&r)));
    ui.report(&PeopleReport::LogEntry {
        entry: at,
        name: &entry.name,
        key: &key,
        recovery: recovery.as_deref(),
        generation: entry.generation,
        unix: entry.unix,
        how: entry.how.word(),
    });
    ui.result(&format!(
        "{at:>6} {} {key} by {}",
        entry.name,
        entry.how.word()
    ));
}

fn told(head: &Head, names: usize, ours: bool, ui: &Ui) {
    let root = to_hex(&head.root);
    ui.report(&PeopleReport::LogHead {
        size: head.size,
        root: &root,
        unix: head.unix,
        names: names as u64,
        ours,
    });
    ui.status("Checked", &format!("{} entries, root {root}", head.size));
}
