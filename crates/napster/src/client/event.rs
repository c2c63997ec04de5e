//! What a hub says, understood.

use std::net::{Ipv4Addr, SocketAddrV6};

use crate::fields::{BadField, Fields, ip, number, port};
use crate::file::Facts;
use crate::kind;

/// A file that a search found, or that a user shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The path as its sharer tells it.
    pub path: Vec<u8>,
    /// What its sharer says of it.
    pub facts: Facts,
    /// Who shares it.
    pub nick: String,
    /// Where; unspecified where the hub does not tell.
    pub ip: Ipv4Addr,
    /// By which kind of link.
    pub link: u8,
}

/// Where a file is to be had, or where it is to be sent (204, 501).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The other.
    pub nick: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its data port; zero if nobody can connect to it.
    pub port: u16,
    /// The path as its sharer tells it; empty if it is about no file.
    pub path: Vec<u8>,
}

/// The first byte of overlay addresses (`fc00::/8`).
const OVERLAY: u8 = 0xfc;

/// Who a user is (604).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whois {
    /// Under which nick.
    pub nick: String,
    /// What it may do: `User`, `Moderator`...
    pub level: String,
    /// How long it has been here, in seconds.
    pub online_s: u64,
    /// The rooms it is in.
    pub rooms: Vec<String>,
    /// `Active`, `Remote`...
    pub status: String,
    /// How many files it shares.
    pub shared: u64,
    /// Its downloads now.
    pub downloads: u64,
    /// Its uploads now.
    pub uploads: u64,
    /// Its kind of link, 0 to 10.
    pub link: u8,
    /// Its program.
    pub client: String,
}

impl Whois {
    /// Where the overlay reaches it, if it says so.
    pub fn overlay(&self) -> Option<SocketAddrV6> {
        let (program, place) = self.client.rsplit_once(' ')?;
        let addr: SocketAddrV6 = place.parse().ok()?;
        let is_place = addr.ip().octets().first() == Some(&OVERLAY) && addr.port() != 0;
        (program.starts_with("shoal ") && is_place).then_some(addr)
    }
}

/// What happens in a room, whose name comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Room {
    /// We are in.
    Joined,
    /// What it is about.
    Topic(String),
    /// Somebody who is there.
    Member(String),
    /// All who are there were told.
    MembersEnd,
    /// Somebody came.
    Came(String),
    /// Somebody left.
    Left(String),
    /// Somebody says something.
    Said(String, String),
    /// Somebody does something.
    Did(String, String),
    /// An entry of the list of rooms: how many are there, what it is about.
    Listed(u64, String),
}

/// What a hub said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The login was accepted.
    LoggedIn,
    /// It was not: why.
    Refused(String),
    /// A line of the message of the day.
    Motd(String),
    /// Users, files, gigabytes.
    Stats(u64, u64, u64),
    /// A file found.
    Hit(Hit),
    /// No more will be.
    SearchEnd,
    /// A file that a user shares.
    Browsed(Hit),
    /// No more files of this user will come.
    BrowseEnd(String),
    /// A user wants to browse us (640): answer by [`super::Client::accept_browse`]. With a place, it
    /// cannot be connected to us, and we connect there.
    BrowseAsked(String, Option<Place>),
    /// A user lets us browse it, there (641).
    BrowseAt(Place),
    /// It cannot be browsed directly (642), and why.
    BrowseRefused(String, String),
    /// Who a user is.
    Whois(Whois),
    /// Who a user was that is not here: level, seconds since 1970 of when it was last seen.
    Whowas(String, String, u64),
    /// Something about a room.
    Room(String, Room),
    /// All rooms were told.
    RoomsEnd,
    /// A watched user came (true) or left.
    Presence(String, bool),
    /// A download may begin.
    Ready(Place),
    /// Somebody who cannot connect to us wants a file: we connect.
    Push(Place),
    /// Somebody wants a file: answer by [`super::Client::accept`] or [`super::Client::queue`].
    Asked(String, Vec<u8>),
    /// A file cannot be had, and why.
    Unavailable(String, Vec<u8>, String),
    /// A user answered a ping.
    Pong(String),
    /// A private message.
    Private(String, String),
    /// Something failed.
    Error(String),
}

/// What follows from a message.
pub(super) enum Said {
    News(Event),
    /// A message to be sent.
    Answer(u16, Vec<u8>),
    Nothing,
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|c| !c.is_control()).collect()
}

fn place(f: &mut Fields<'_>) -> Result<Place, BadField> {
    let mut place = endpoint(f)?;
    place.path = f.text("file")?.to_vec();
    Ok(place)
}

/// `nick ip port`, of no file.
fn endpoint(f: &mut Fields<'_>) -> Result<Place, BadField> {
    Ok(Place {
        nick: text(f.text("nick")?),
        ip: ip(f.text("ip")?).ok_or(BadField::Invalid("ip"))?,
        port: port(f.text("port")?).ok_or(BadField::Invalid("port"))?,
        path: Vec::new(),
    })
}

/// A kind of link; what is none is unknown.
fn link(f: &mut Fields<'_>) -> u8 {
    f.word().and_then(number).map_or(0, |n| n.min(10) as u8)
}

fn whois(f: &mut Fields<'_>) -> Result<Whois, BadField> {
    Ok(Whois {
        nick: text(f.text("nick")?),
        level: text(f.text("level")?),
        online_s: f.number("time")?,
        rooms: text(f.text("rooms")?)
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        status: text(f.text("status")?),
        shared: f.number("shared")?,
        downloads: f.number("downloads")?,
        uploads: f.number("uploads")?,
        link: link(f),
        client: text(f.word().unwrap_or_default()),
    })
}

fn room(kind: u16, f: &mut Fields<'_>) -> Result<Event, BadField> {
    let name = text(f.text("room")?);
    let said = |f: &mut Fields<'_>| Ok((text(f.text("nick")?), text(f.rest())));
    let what = match kind {
        kind::JOIN_ACK => Room::Joined,
        kind::MEMBERS_END => Room::MembersEnd,
        kind::TOPIC => Room::Topic(text(f.rest())),
        kind::MEMBER | kind::ROOM_USER => Room::Member(text(f.text("nick")?)),
        kind::JOINED => Room::Came(text(f.text("nick")?)),
        kind::PARTED => Room::Left(text(f.text("nick")?)),
        kind::ROOM_ENTRY => Room::Listed(f.number("members")?, text(f.rest())),
        kind::EMOTE => {
            let nick = text(f.text("nick")?);
            Room::Did(nick, text(f.text("text")?))
        }
        _ => {
            let (nick, text) = said(f)?;
            Room::Said(nick, text)
        }
    };
    Ok(Event::Room(name, what))
}

impl Event {
    /// A hit of a search, or the end of them; nothing else.
    pub(crate) fn of_search(kind: u16, data: &[u8]) -> Option<Self> {
        match Self::parse(kind, data) {
            Ok(Said::News(event @ (Self::Hit(_) | Self::SearchEnd))) => Some(event),
            _ => None,
        }
    }

    /// What a message of a hub means. What is not understood is an error or nothing, to be passed
    /// over: there are many hubs.
    pub(super) fn parse(kind: u16, data: &[u8]) -> Result<Said, BadField> {
        let mut f = Fields::new(data);
        let nick_and_file =
            |f: &mut Fields<'_>| Ok((text(f.text("nick")?), f.text("file")?.to_vec()));
        Ok(Said::News(match kind {
            kind::LOGIN_ACK => Self::LoggedIn,
            kind::LOGIN_ERROR => Self::Refused(text(data)),
            kind::MOTD => Self::Motd(text(data)),
            kind::STATS => Self::Stats(f.number("users")?, f.number("files")?, f.number("size")?),
            kind::SEARCH_HIT => Self::Hit(Hit {
                path: f.text("file")?.to_vec(),
                facts: Facts::parse(&mut f)?,
                nick: text(f.text("nick")?),
                ip: ip(f.text("ip")?).ok_or(BadField::Invalid("ip"))?,
                link: link(&mut f),
            }),
            kind::SEARCH_END => Self::SearchEnd,
            kind::BROWSE_HIT => Self::Browsed(Hit {
                nick: text(f.text("nick")?),
                path: f.text("file")?.to_vec(),
                facts: Facts::parse(&mut f)?,
                ip: Ipv4Addr::UNSPECIFIED,
                link: 0,
            }),
            kind::BROWSE_END => Self::BrowseEnd(text(f.text("nick")?)),
            kind::BROWSE_DIRECT => {
                let nick = text(Fields::new(data).text("nick")?);
                Self::BrowseAsked(nick, endpoint(&mut f).ok())
            }
            kind::BROWSE_DIRECT_ACK => Self::BrowseAt(endpoint(&mut f)?),
            kind::BROWSE_DIRECT_ERROR => {
                Self::BrowseRefused(text(f.text("nick")?), text(f.word().unwrap_or_default()))
            }
            kind::WHOIS_ACK => Self::Whois(whois(&mut f)?),
            kind::WHOWAS => Self::Whowas(
                text(f.text("nick")?),
                text(f.text("level")?),
                f.number("time")?,
            ),
            kind::JOIN_ACK
            | kind::MEMBER
            | kind::MEMBERS_END
            | kind::TOPIC
            | kind::JOINED
            | kind::PARTED
            | kind::PUBLIC_HEARD
            | kind::EMOTE
            | kind::ROOM_ENTRY
            | kind::ROOM_USER => room(kind, &mut f)?,
            kind::LIST_ROOMS => Self::RoomsEnd,
            kind::SIGNON => Self::Presence(text(f.text("nick")?), true),
            kind::SIGNOFF => Self::Presence(text(f.text("nick")?), false),
            kind::DOWNLOAD_ACK => Self::Ready(place(&mut f)?),
            kind::PUSH_ACK => Self::Push(place(&mut f)?),
            kind::UPLOAD_REQUEST => {
                let (nick, file) = nick_and_file(&mut f)?;
                Self::Asked(nick, file)
            }
            kind::GET_ERROR | kind::UPLOAD_REFUSED => {
                let (nick, file) = nick_and_file(&mut f)?;
                Self::Unavailable(nick, file, "not available".into())
            }
            kind::QUEUE_LIMITED => {
                let (nick, file) = nick_and_file(&mut f)?;
                Self::Unavailable(nick, file, "no free slot".into())
            }
            kind::PING => {
                return Ok(Said::Answer(kind::PONG, text(f.text("nick")?).into_bytes()));
            }
            kind::PONG => Self::Pong(text(f.text("nick")?)),
            // With data, so that two ends do not answer each other for ever.
            kind::SERVER_PING => return Ok(Said::Answer(kind::SERVER_PING, b"pong".to_vec())),
            kind::PRIVATE => Self::Private(text(f.text("nick")?), text(f.rest())),
            kind::ERROR => Self::Error(text(data)),
            _ => return Ok(Said::Nothing),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_node_of_ours_says_is_an_overlay_address() {
        let whois = |client: &str| Whois {
            nick: "a".into(),
            level: "User".into(),
            online_s: 0,
            rooms: Vec::new(),
            status: "Active".into(),
            shared: 0,
            downloads: 0,
            uploads: 0,
            link: 0,
            client: client.into(),
        };
        let told = whois("shoal 0.1.0 [fc01::2]:6699").overlay();
        assert_eq!(told, "[fc01::2]:6699".parse().ok());
        for other in [
            "",
            "shoal 0.1.0",
            "TekNap 1.3g",
            "TekNap [fc01::2]:6699",
            "shoal 0.1.0 [2001:db8::1]:6699",
            "shoal 0.1.0 [fc01::2]:0",
            "shoal 0.1.0 192.0.2.1:6699",
        ] {
            assert_eq!(whois(other).overlay(), None, "{other}");
        }
    }
}
