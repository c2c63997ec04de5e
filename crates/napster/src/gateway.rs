//! Another network as one user of a hub: for the hub's users to search it and fetch from it, and for
//! it to search what they share.
//!
//! It is a linked hub ([`crate::hub`]) that has no users but this one and knows no other hub. What
//! the hub's users search for comes here, as it would to a linked hub; what is found there is told as
//! this user's.

use std::net::Ipv4Addr;

use shoal_base::Rng;
use shoal_base::secret::same;

use crate::client::{Event as Heard, Hit};
use crate::fields::{BadField, Fields, ip_to_number, put_number, put_quoted};
use crate::file::{Facts, put_md5};
use crate::frame::{self, TooLong};
use crate::hub::{link_proof, unwrap_addressed};
use crate::kind;
use crate::query::Query;

/// Bytes of a hub's name that are taken at most.
const MAX_NAME: usize = 64;
/// Bytes of one message between hubs at most.
const MAX_DATA: usize = 60_000;

/// The user whose files are another network's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Under which nick.
    pub nick: String,
    /// Where the hub's users fetch from it.
    pub ip: Ipv4Addr,
    /// At which port.
    pub port: u16,
    /// What its program is called.
    pub client: String,
}

/// What the hub said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The link is on.
    Linked,
    /// It is refused, or over: why.
    Refused(String),
    /// A user of the hub searches: [`Gateway::found`] for each hit, then [`Gateway::end`].
    Search(String, Query),
    /// A user wants the guest's file at this path: [`Gateway::ready`] or [`Gateway::refuse`].
    Wanted(String, Vec<u8>),
    /// A file that [`Gateway::search`] found.
    Hit(Hit),
    /// No more will be.
    SearchEnd,
    /// A user left the hub.
    Gone(String),
}

/// How far the link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Hello,
    Proof,
    Hubs,
    On,
}

/// The link. See the module's text.
#[derive(Debug)]
pub struct Gateway {
    name: Vec<u8>,
    secret: Vec<u8>,
    guest: Guest,
    nonce: Vec<u8>,
    theirs: Vec<u8>,
    their_nonce: Vec<u8>,
    stage: Stage,
    input: Vec<u8>,
    out: Vec<u8>,
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|c| !c.is_control()).collect()
}

impl Gateway {
    /// A connection to a hub that links with who knows `secret`; `name` is ours among hubs.
    pub fn new(name: &str, secret: &[u8], guest: Guest, rng: &mut Rng) -> Self {
        let nonce = format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64()).into_bytes();
        let mut gateway = Self {
            name: name.as_bytes().to_vec(),
            secret: secret.to_vec(),
            guest,
            nonce,
            theirs: Vec::new(),
            their_nonce: Vec::new(),
            stage: Stage::Hello,
            input: Vec::new(),
            out: Vec::new(),
        };
        let mut hello = Vec::new();
        put_quoted(&gateway.name, &mut hello);
        hello.push(b' ');
        hello.extend_from_slice(&gateway.nonce);
        gateway.say(kind::LINK_HELLO, &hello);
        gateway
    }

    /// The user that it is.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// What is to be sent; the caller takes it.
    pub fn output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    fn say(&mut self, kind: u16, data: &[u8]) {
        frame::encode(kind, data, &mut self.out);
    }

    /// `nick type data`, in either direction.
    fn addressed(&mut self, how: u16, nick: &[u8], kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut data = nick.to_vec();
        data.push(b' ');
        put_number(u64::from(kind), &mut data);
        data.push(b' ');
        fill(&mut data);
        if data.len() <= MAX_DATA {
            self.say(how, &data);
        }
    }

    fn tell(&mut self, nick: &str, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
        self.addressed(kind::LINK_TO, nick.as_bytes(), kind, fill);
    }

    /// Asks the hub's users for files, at most `most`; one search at a time.
    pub fn search(&mut self, words: &str, most: u32) {
        let query = Query {
            contains: vec![words.as_bytes().to_vec()],
            max_results: Some(most),
            local_only: true,
            ..Query::default()
        };
        let me = self.guest.nick.clone();
        self.addressed(kind::LINK_AS, me.as_bytes(), kind::SEARCH, |o| query.put(o));
    }

    /// A file of the other network, for who searches.
    pub fn found(&mut self, nick: &str, path: &[u8], facts: &Facts) {
        let guest = self.guest.clone();
        self.tell(nick, kind::SEARCH_HIT, |o| {
            put_quoted(path, o);
            o.push(b' ');
            facts.put(o);
            o.push(b' ');
            o.extend_from_slice(guest.nick.as_bytes());
            o.push(b' ');
            put_number(u64::from(ip_to_number(guest.ip)), o);
            // A link of no known kind.
            o.extend_from_slice(b" 0");
        });
    }

    /// No more will be found.
    pub fn end(&mut self, nick: &str) {
        self.tell(nick, kind::SEARCH_END, |_| {});
    }

    /// Who wanted a file may fetch it.
    pub fn ready(&mut self, nick: &str, path: &[u8]) {
        let guest = self.guest.clone();
        self.tell(nick, kind::DOWNLOAD_ACK, |o| {
            o.extend_from_slice(guest.nick.as_bytes());
            for n in [u64::from(ip_to_number(guest.ip)), u64::from(guest.port)] {
                o.push(b' ');
                put_number(n, o);
            }
            o.push(b' ');
            put_quoted(path, o);
            o.push(b' ');
            put_md5(None, o);
            o.extend_from_slice(b" 0");
        });
    }

    /// Who wanted a file cannot have it.
    pub fn refuse(&mut self, nick: &str, path: &[u8]) {
        let me = self.guest.nick.clone();
        self.tell(nick, kind::GET_ERROR, |o| {
            o.extend_from_slice(me.as_bytes());
            o.push(b' ');
            put_quoted(path, o);
        });
    }

    /// Bytes came from the hub.
    ///
    /// # Errors
    /// A message longer than any hub sends: the connection is useless.
    pub fn on_bytes(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), TooLong> {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while let Some((message, used)) =
            frame::decode(input.get(at..).unwrap_or_default(), MAX_DATA)?
        {
            at += used;
            if let Err(error) = self.take(message.kind, message.data, events) {
                events.push(Event::Refused(format!("message {}: {error}", message.kind)));
            }
        }
        self.input = input.get(at..).unwrap_or_default().to_vec();
        Ok(())
    }

    fn take(&mut self, kind: u16, data: &[u8], events: &mut Vec<Event>) -> Result<(), BadField> {
        match (kind, self.stage) {
            (kind::LOGIN_ERROR | kind::ERROR, _) => events.push(Event::Refused(text(data))),
            (kind::LINK_HELLO, Stage::Hello) => self.hello(data)?,
            (kind::LINK_PROOF, Stage::Proof) => {
                let parts: [&[u8]; 4] = [&self.theirs, &self.name, &self.their_nonce, &self.nonce];
                if !same(&link_proof(&self.secret, b"accepted", parts), data) {
                    return Err(BadField::Invalid("proof"));
                }
                self.stage = Stage::Hubs;
                let mut hubs = Vec::new();
                put_quoted(&self.name, &mut hubs);
                self.say(kind::LINK_HUBS, &hubs);
            }
            (kind::LINK_HUBS, Stage::Hubs) => {
                self.stage = Stage::On;
                self.introduce();
                events.push(Event::Linked);
            }
            (kind::LINK_GONE, Stage::On) => {
                let nick = Fields::new(data).text("nick")?;
                events.push(Event::Gone(text(nick)));
            }
            (kind::LINK_AS, Stage::On) => self.asked(data, events)?,
            (kind::LINK_TO, Stage::On) => {
                let (_, kind, inner) = unwrap_addressed(data)?;
                match Heard::of_search(kind, inner) {
                    Some(Heard::Hit(hit)) => events.push(Event::Hit(hit)),
                    Some(Heard::SearchEnd) => events.push(Event::SearchEnd),
                    _ => {}
                }
            }
            (kind::LINK_HELLO | kind::LINK_PROOF | kind::LINK_HUBS, _) => {
                return Err(BadField::Invalid("order"));
            }
            // Of other users and hubs: they concern nobody here.
            _ => {}
        }
        Ok(())
    }

    fn hello(&mut self, data: &[u8]) -> Result<(), BadField> {
        let mut f = Fields::new(data);
        let (name, nonce) = (f.text("hub")?.to_vec(), f.text("nonce")?.to_vec());
        if name.is_empty() || name.len() > MAX_NAME || nonce.len() > MAX_NAME {
            return Err(BadField::Invalid("hub"));
        }
        (self.theirs, self.their_nonce, self.stage) = (name, nonce, Stage::Proof);
        let parts: [&[u8]; 4] = [&self.name, &self.theirs, &self.nonce, &self.their_nonce];
        let proof = link_proof(&self.secret, b"dialled", parts);
        self.say(kind::LINK_PROOF, &proof);
        Ok(())
    }

    /// Tells of the guest.
    fn introduce(&mut self) {
        let mut came = self.guest.nick.clone().into_bytes();
        came.push(b' ');
        put_quoted(&self.name, &mut came);
        for n in [ip_to_number(self.guest.ip), self.guest.port.into()] {
            came.push(b' ');
            put_number(u64::from(n), &mut came);
        }
        came.extend_from_slice(b" 0 User ");
        put_quoted(self.guest.client.as_bytes(), &mut came);
        self.say(kind::LINK_USER, &came);
    }

    /// A user of the hub asks for something.
    fn asked(&mut self, data: &[u8], events: &mut Vec<Event>) -> Result<(), BadField> {
        let (nick, kind, inner) = unwrap_addressed(data)?;
        let nick = text(nick);
        let me = self.guest.nick.clone();
        let mine = |f: &mut Fields<'_>| {
            f.word()
                .is_some_and(|n| n.eq_ignore_ascii_case(me.as_bytes()))
        };
        let mut f = Fields::new(inner);
        match kind {
            kind::SEARCH => match Query::parse(inner) {
                Ok(query) => events.push(Event::Search(nick, query)),
                Err(_) => self.end(&nick),
            },
            kind::DOWNLOAD if mine(&mut f) => {
                let path = f.text("file")?.to_vec();
                events.push(Event::Wanted(nick, path));
            }
            kind::PING if mine(&mut f) => {
                self.tell(&nick, kind::PONG, |o| o.extend_from_slice(me.as_bytes()));
            }
            kind::BROWSE if mine(&mut f) => {
                let ip = self.guest.ip;
                self.tell(&nick, kind::BROWSE_END, |o| {
                    o.extend_from_slice(me.as_bytes());
                    o.push(b' ');
                    put_number(u64::from(ip_to_number(ip)), o);
                });
            }
            kind::BROWSE_DIRECT if mine(&mut f) => {
                self.tell(&nick, kind::BROWSE_DIRECT_ERROR, |o| {
                    o.extend_from_slice(me.as_bytes());
                    o.extend_from_slice(b" \"search instead\"");
                });
            }
            kind::WHOIS if mine(&mut f) => {
                let client = self.guest.client.clone();
                self.tell(&nick, kind::WHOIS_ACK, |o| {
                    o.extend_from_slice(me.as_bytes());
                    o.extend_from_slice(b" \"User\" 0 \"\" \"Active\" 0 0 0 0 ");
                    put_quoted(client.as_bytes(), o);
                });
            }
            // Rooms and messages: nobody is here who would hear them.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
