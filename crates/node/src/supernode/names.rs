//! Asking the login server about names that people keep: claims, changes of key, the public log.

use std::net::SocketAddr;

use ed25519_dalek::SigningKey;
use shoal_supernode::names::certificate::Certificate;
use shoal_supernode::names::log::{Hash, Head, MAX_PROOF, extends};
use shoal_supernode::names::register::Entry;
use shoal_supernode::names::{Act, MAX_ENTRIES, NameAnswer, NameAsk, Statement};
use shoal_supernode::token::Key;
use shoal_supernode::wire::{Answer, Ask};

use super::ask::{AskError, Asking};

/// A connection to a login server.
pub struct NamesDesk(Asking);

impl NamesDesk {
    /// Connects.
    ///
    /// # Errors
    /// Why not.
    pub fn open(server: SocketAddr) -> Result<Self, AskError> {
        Asking::open(server).map(Self)
    }

    fn ask(&mut self, ask: NameAsk) -> Result<NameAnswer, AskError> {
        match self.0.ask(&Ask::Name(Box::new(ask)))? {
            Answer::Name(answer) => Ok(*answer),
            _ => Err(AskError::Nonsense),
        }
    }

    /// Claims a name for the key `new`, or changes its key to that; `by` is who may: of a claim the
    /// key itself. The certificate, and the login server's key.
    ///
    /// # Errors
    /// Why not.
    pub fn certify(
        &mut self,
        act: Act,
        name: &str,
        (by, new): (&SigningKey, &SigningKey),
        recovery: Option<Key>,
    ) -> Result<(Certificate, Key), AskError> {
        let key = new.verifying_key().to_bytes();
        let named = name.to_owned();
        let ask = match act {
            Act::Claim => NameAsk::Claim {
                name: named,
                key,
                recovery,
            },
            Act::Change => NameAsk::Change {
                name: named,
                key,
                recovery,
            },
        };
        let NameAnswer::Challenge(nonce, server) = self.ask(ask)? else {
            return Err(AskError::Nonsense);
        };
        let said = Statement {
            act,
            nonce: &nonce,
            server: &server,
            name,
            key: &key,
            recovery,
        };
        let (by, new) = (said.sign(by), said.sign(new));
        match self.ask(NameAsk::Prove { by, new })? {
            NameAnswer::Certified(certificate) if certificate.key == key => {
                Ok((certificate, server))
            }
            _ => Err(AskError::Nonsense),
        }
    }

    /// The log's head.
    ///
    /// # Errors
    /// Why not.
    pub fn head(&mut self) -> Result<Head, AskError> {
        match self.ask(NameAsk::Head)? {
            NameAnswer::Head(head) => Ok(head),
            _ => Err(AskError::Nonsense),
        }
    }

    /// Entries of the log from one on, as many as one answer holds.
    ///
    /// # Errors
    /// Why not.
    pub fn entries(&mut self, from: u64) -> Result<Vec<Entry>, AskError> {
        match self.ask(NameAsk::Entries { from })? {
            NameAnswer::Entries(entries) if entries.len() <= MAX_ENTRIES => Ok(entries),
            _ => Err(AskError::Nonsense),
        }
    }

    /// The last entry of a name and its number in the log; none: nobody has the name. As the server says:
    /// [`NamesDesk::inclusion`] proves that it is in the log.
    ///
    /// # Errors
    /// Why not.
    pub fn owner(&mut self, name: &str) -> Result<Option<(u64, Entry)>, AskError> {
        let name = name.to_owned();
        match self.ask(NameAsk::Owner { name })? {
            NameAnswer::Owner(owner) => Ok(owner),
            _ => Err(AskError::Nonsense),
        }
    }

    /// A proof that an entry is in the log of this size.
    ///
    /// # Errors
    /// Why not.
    pub fn inclusion(&mut self, index: u64, size: u64) -> Result<Vec<Hash>, AskError> {
        self.proof(NameAsk::Inclusion { index, size })
    }

    /// A proof that the longer log begins with the shorter.
    ///
    /// # Errors
    /// Why not.
    pub fn consistency(&mut self, from: u64, to: u64) -> Result<Vec<Hash>, AskError> {
        self.proof(NameAsk::Consistency { from, to })
    }

    fn proof(&mut self, ask: NameAsk) -> Result<Vec<Hash>, AskError> {
        match self.ask(ask)? {
            NameAnswer::Proof(proof) if proof.len() <= MAX_PROOF => Ok(proof),
            _ => Err(AskError::Nonsense),
        }
    }
}

/// The log that a login server shows now, and of each of these heads whether it proves that its log begins so.
///
/// # Errors
/// It does not answer, or what it says is not signed by `server`.
pub(super) fn same_log(
    login: SocketAddr,
    server: &Key,
    others: &[&Head],
) -> Result<(Head, Vec<bool>), AskError> {
    let mut desk = NamesDesk::open(login)?;
    let head = desk.head()?;
    if !head.is_by(server) {
        return Err(AskError::Nonsense);
    }
    let mut same = Vec::new();
    for other in others {
        // One that is longer was shown before this one.
        let proof = match desk.consistency(other.size, head.size) {
            Ok(proof) => proof,
            Err(AskError::Io(error)) => return Err(AskError::Io(error)),
            Err(_) => Vec::new(),
        };
        let (from, to) = ((other.size, &other.root), (head.size, &head.root));
        same.push(extends(from, to, &proof));
    }
    Ok((head, same))
}
