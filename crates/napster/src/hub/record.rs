//! What a hub must not forget: registered nicks, bans, muzzles and the settings of rooms.
//!
//! A record is one line of text: a word that says what it is, then quoted fields, in the
//! protocol's own syntax. Of two records of one thing the later holds.

use crate::fields::{BadField, Fields, put_number, put_quoted};

/// How much a user may do; the order is that of the protocol's 606.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// May search and talk, not download.
    Leech,
    /// Everybody.
    #[default]
    User,
    /// May kick, kill, ban and muzzle users.
    Moderator,
    /// May also make moderators and delete registrations.
    Admin,
    /// May also make admins.
    Elite,
}

impl Level {
    /// All of them, from the least.
    pub const ALL: [Self; 5] = [
        Self::Leech,
        Self::User,
        Self::Moderator,
        Self::Admin,
        Self::Elite,
    ];

    /// As 604 and 606 write it.
    pub fn name(self) -> &'static [u8] {
        match self {
            Self::Leech => b"Leech",
            Self::User => b"User",
            Self::Moderator => b"Moderator",
            Self::Admin => b"Admin",
            Self::Elite => b"Elite",
        }
    }

    /// Reads a name, or its number from 0 to 4.
    pub fn parse(text: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().enumerate().find_map(|(n, level)| {
            let number = text.len() == 1 && text.first() == Some(&(b'0' + n as u8));
            (number || text.eq_ignore_ascii_case(level.name())).then_some(level)
        })
    }
}

/// A registered nick.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// As it was registered.
    pub nick: Vec<u8>,
    /// The password's hash, in whatever form the driver's hasher gave it.
    pub hash: Vec<u8>,
    /// The address for mail that was given.
    pub email: Vec<u8>,
    /// What its user may do.
    pub level: Level,
    /// When its user was last here; Unix time in seconds.
    pub seen: u64,
    /// Whom its user wants to hear of.
    pub hotlist: Vec<Vec<u8>>,
    /// Whom its user does not want to hear.
    pub ignored: Vec<Vec<u8>>,
}

/// Who is kept out: a nick, or the addresses that begin so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// A nick, a whole address, or its beginning up to a point (`10.1.`).
    pub whom: Vec<u8>,
    /// Who set it.
    pub by: Vec<u8>,
    /// Why.
    pub reason: Vec<u8>,
    /// When; Unix time in seconds.
    pub at: u64,
}

/// A room's settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoomSettings {
    /// Its name as first written.
    pub name: Vec<u8>,
    /// What is talked about.
    pub topic: Vec<u8>,
    /// The least level that may join.
    pub level: Level,
    /// Members at most; zero for no limit.
    pub limit: u32,
    /// Nicks that may not join.
    pub bans: Vec<Vec<u8>>,
}

/// One thing to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A nick is registered so.
    Account(Account),
    /// A nick is not registered any more.
    Nuked(Vec<u8>),
    /// Somebody is kept out.
    Ban(Ban),
    /// Let in again.
    Unban(Vec<u8>),
    /// Whether a nick may speak in rooms.
    Muzzled(Vec<u8>, bool),
    /// A room that stays when it is empty.
    Room(RoomSettings),
    /// A room that does not stay.
    RoomGone(Vec<u8>),
}

fn list(items: &[Vec<u8>], out: &mut Vec<u8>) {
    put_number(items.len() as u64, out);
    out.push(b' ');
    for item in items {
        put_quoted(item, out);
        out.push(b' ');
    }
}

fn read_list(fields: &mut Fields<'_>) -> Result<Vec<Vec<u8>>, BadField> {
    let n = fields.number("count")?;
    (0..n).map(|_| Ok(fields.text("entry")?.to_vec())).collect()
}

impl Record {
    /// Appends its line, with the line feed.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let quoted = |text: &[u8], out: &mut Vec<u8>| {
            put_quoted(text, out);
            out.push(b' ');
        };
        match self {
            Self::Account(a) => {
                out.extend_from_slice(b"account ");
                for text in [&a.nick[..], &a.hash, &a.email, a.level.name()] {
                    quoted(text, out);
                }
                put_number(a.seen, out);
                out.push(b' ');
                list(&a.hotlist, out);
                list(&a.ignored, out);
            }
            Self::Nuked(nick) => {
                out.extend_from_slice(b"nuked ");
                quoted(nick, out);
            }
            Self::Ban(b) => {
                out.extend_from_slice(b"ban ");
                for text in [&b.whom, &b.by, &b.reason] {
                    quoted(text, out);
                }
                put_number(b.at, out);
            }
            Self::Unban(whom) => {
                out.extend_from_slice(b"unban ");
                quoted(whom, out);
            }
            Self::Muzzled(nick, muzzled) => {
                out.extend_from_slice(if *muzzled { b"muzzle " } else { b"unmuzzle " });
                quoted(nick, out);
            }
            Self::Room(r) => {
                out.extend_from_slice(b"room ");
                for text in [&r.name[..], &r.topic, r.level.name()] {
                    quoted(text, out);
                }
                put_number(u64::from(r.limit), out);
                out.push(b' ');
                list(&r.bans, out);
            }
            Self::RoomGone(name) => {
                out.extend_from_slice(b"roomgone ");
                quoted(name, out);
            }
        }
        out.push(b'\n');
    }

    /// Reads one line, without its line feed.
    ///
    /// # Errors
    /// Which field is missing or not understood.
    pub fn decode(line: &[u8]) -> Result<Self, BadField> {
        let mut f = Fields::new(line);
        let what = f.text("record")?;
        let level = |text| Level::parse(text).ok_or(BadField::Invalid("level"));
        Ok(match what {
            b"account" => Self::Account(Account {
                nick: f.text("nick")?.to_vec(),
                hash: f.text("hash")?.to_vec(),
                email: f.text("email")?.to_vec(),
                level: level(f.text("level")?)?,
                seen: f.number("seen")?,
                hotlist: read_list(&mut f)?,
                ignored: read_list(&mut f)?,
            }),
            b"nuked" => Self::Nuked(f.text("nick")?.to_vec()),
            b"ban" => Self::Ban(Ban {
                whom: f.text("whom")?.to_vec(),
                by: f.text("by")?.to_vec(),
                reason: f.text("reason")?.to_vec(),
                at: f.number("time")?,
            }),
            b"unban" => Self::Unban(f.text("whom")?.to_vec()),
            b"muzzle" => Self::Muzzled(f.text("nick")?.to_vec(), true),
            b"unmuzzle" => Self::Muzzled(f.text("nick")?.to_vec(), false),
            b"room" => Self::Room(RoomSettings {
                name: f.text("room")?.to_vec(),
                topic: f.text("topic")?.to_vec(),
                level: level(f.text("level")?)?,
                limit: f
                    .number("limit")?
                    .try_into()
                    .map_err(|_| BadField::Invalid("limit"))?,
                bans: read_list(&mut f)?,
            }),
            b"roomgone" => Self::RoomGone(f.text("room")?.to_vec()),
            _ => return Err(BadField::Invalid("record")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = Vec<u8>> {
        "[a-z ö'0-9]{0,12}".prop_map(String::into_bytes)
    }

    fn texts() -> impl Strategy<Value = Vec<Vec<u8>>> {
        proptest::collection::vec(text(), 0..4)
    }

    fn record() -> impl Strategy<Value = Record> {
        let level = || (0usize..5).prop_map(|n| Level::ALL[n]);
        prop_oneof![
            (
                text(),
                text(),
                text(),
                level(),
                any::<u64>(),
                texts(),
                texts()
            )
                .prop_map(|(nick, hash, email, level, seen, hotlist, ignored)| {
                    Record::Account(Account {
                        nick,
                        hash,
                        email,
                        level,
                        seen,
                        hotlist,
                        ignored,
                    })
                }),
            (text(), text(), text(), any::<u64>()).prop_map(|(whom, by, reason, at)| Record::Ban(
                Ban {
                    whom,
                    by,
                    reason,
                    at
                }
            )),
            (text(), text(), level(), any::<u32>(), texts()).prop_map(
                |(name, topic, level, limit, bans)| Record::Room(RoomSettings {
                    name,
                    topic,
                    level,
                    limit,
                    bans
                })
            ),
            text().prop_map(Record::Nuked),
            text().prop_map(Record::Unban),
            text().prop_map(Record::RoomGone),
            (text(), any::<bool>()).prop_map(|(nick, m)| Record::Muzzled(nick, m)),
        ]
    }

    proptest! {
        #[test]
        fn records_round_trip(record in record()) {
            let mut line = Vec::new();
            record.encode(&mut line);
            prop_assert_eq!(line.pop(), Some(b'\n'));
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(Record::decode(&line), Ok(record));
        }

        #[test]
        fn any_line_is_read_or_refused(line: Vec<u8>) {
            let _ = Record::decode(&line);
        }
    }
}
