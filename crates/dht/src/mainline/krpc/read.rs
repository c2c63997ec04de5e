//! Reading datagrams.

use super::{
    Body, Call, MAX_READ, MAX_TID, Message, Put, Query, Reply, Samples, Signed, Want, code,
};
use crate::Id;
use crate::item::MAX_SALT;
use crate::mainline::bloom::Bloom;
use crate::mainline::node::{canonical, read_addr, read_nodes};
use shoal_base::bencode::{self, Dict, Encoder, Value};

/// Most nodes, peers and keys that are read from one answer.
const MAX_LISTED: usize = 200;
/// The longest interval between samples (BEP 51).
const MAX_INTERVAL: i64 = 21_600;

/// Why a datagram is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bad<'a> {
    /// Nothing that could be answered.
    Junk,
    /// A query with something wrong, which is told to who sent it.
    Query {
        /// Transaction id to echo.
        tid: &'a [u8],
        /// See [`code`].
        code: i64,
        /// In words.
        text: &'static str,
    },
}

/// Reads one datagram.
pub fn read(bytes: &[u8]) -> Result<Message<'_>, Bad<'_>> {
    if bytes.len() > MAX_READ || bytes.first() != Some(&b'd') {
        return Err(Bad::Junk);
    }
    // Some append bytes; what follows the dictionary is nobody's.
    let Ok((Value::Dict(top), _)) = bencode::decode_prefix(bytes) else {
        return Err(Bad::Junk);
    };
    let tid = top.bytes("t").ok_or(Bad::Junk)?;
    if tid.is_empty() || tid.len() > MAX_TID {
        return Err(Bad::Junk);
    }
    let body = match top.bytes("y") {
        Some(b"q") => {
            Body::Query(query(&top).map_err(|(code, text)| Bad::Query { tid, code, text })?)
        }
        Some(b"r") => Body::Response(Box::new(top.dict("r").and_then(reply).ok_or(Bad::Junk)?)),
        Some(b"e") => error(&top),
        _ => return Err(Bad::Junk),
    };
    let ip = top.bytes("ip").and_then(read_addr).map(canonical);
    Ok(Message { tid, ip, body })
}

fn error<'a>(top: &Dict<'a>) -> Body<'a> {
    let list = top.list("e").unwrap_or_default();
    let text = list.get(1).and_then(Value::as_bytes).unwrap_or_default();
    Body::Error {
        code: list
            .first()
            .and_then(Value::as_int)
            .unwrap_or(code::GENERIC),
        text: String::from_utf8_lossy(text).chars().take(200).collect(),
    }
}

type Fault = (i64, &'static str);

fn wrong(text: &'static str) -> Fault {
    (code::PROTOCOL, text)
}

fn id(args: &Dict<'_>, key: &str, missing: &'static str) -> Result<Id, Fault> {
    args.bytes(key)
        .and_then(Id::from_bytes)
        .ok_or(wrong(missing))
}

fn query<'a>(top: &Dict<'a>) -> Result<Query<'a>, Fault> {
    let method = top.bytes("q").ok_or(wrong("no method"))?;
    let args = top.dict("a").ok_or(wrong("no arguments"))?;
    let sender = id(args, "id", "id must be 20 bytes")?;
    let call = match method {
        b"ping" => Call::Ping,
        b"find_node" => Call::FindNode {
            target: id(args, "target", "target must be 20 bytes")?,
        },
        b"get_peers" => Call::GetPeers {
            info_hash: id(args, "info_hash", "info_hash must be 20 bytes")?,
            noseed: flag(args, "noseed"),
            scrape: flag(args, "scrape"),
        },
        b"announce_peer" => announce(args)?,
        b"get" => Call::Get {
            target: id(args, "target", "target must be 20 bytes")?,
            seq: args.int("seq"),
        },
        b"put" => Call::Put(Box::new(put(args)?)),
        b"sample_infohashes" => Call::Sample {
            target: id(args, "target", "target must be 20 bytes")?,
        },
        _ => return Err((code::UNKNOWN_METHOD, "Method Unknown")),
    };
    let mut want = Want::default();
    for family in args.list("want").unwrap_or_default().iter().take(8) {
        match family.as_bytes() {
            Some(b"n4") => want.v4 = true,
            Some(b"n6") => want.v6 = true,
            _ => {}
        }
    }
    Ok(Query {
        id: sender,
        // BEP 43 has it beside the arguments; some send it among them.
        read_only: flag(top, "ro") || flag(args, "ro"),
        want,
        call,
    })
}

fn flag(dict: &Dict<'_>, key: &str) -> bool {
    dict.int(key).is_some_and(|i| i != 0)
}

fn announce<'a>(args: &Dict<'a>) -> Result<Call<'a>, Fault> {
    let info_hash = id(args, "info_hash", "info_hash must be 20 bytes")?;
    let port = if flag(args, "implied_port") {
        None
    } else {
        let port = args.int("port").and_then(|p| u16::try_from(p).ok());
        Some(
            port.filter(|p| *p != 0)
                .ok_or(wrong("port must be 1 to 65535"))?,
        )
    };
    Ok(Call::Announce {
        info_hash,
        port,
        seed: flag(args, "seed"),
        token: args.bytes("token").ok_or(wrong("no token"))?,
    })
}

fn put<'a>(args: &Dict<'a>) -> Result<Put<'a>, Fault> {
    let value = args.get("v").ok_or(wrong("no value"))?;
    let value = raw(value).ok_or(wrong("the value's keys are not sorted"))?;
    if value.len() > crate::item::MAX_VALUE {
        return Err((code::TOO_BIG, "message (v field) too big"));
    }
    let signed = match args.get("k") {
        None => None,
        Some(key) => {
            let key = key.as_bytes().and_then(|k| k.try_into().ok());
            let signature = args.bytes("sig").and_then(|s| s.try_into().ok());
            let salt = match args.get("salt") {
                None => &[][..],
                Some(salt) => salt.as_bytes().ok_or(wrong("salt must be a string"))?,
            };
            if salt.len() > MAX_SALT {
                return Err((code::SALT_TOO_BIG, "salt (salt field) too big"));
            }
            Some(Signed {
                key: key.ok_or(wrong("k must be 32 bytes"))?,
                salt,
                seq: args
                    .int("seq")
                    .filter(|seq| *seq >= 0)
                    .ok_or(wrong("seq must be a number from zero"))?,
                signature: signature.ok_or(wrong("sig must be 64 bytes"))?,
            })
        }
    };
    let cas = match args.get("cas") {
        None => None,
        Some(cas) => Some(cas.as_int().ok_or(wrong("cas must be a number"))?),
    };
    Ok(Put {
        token: args.bytes("token").ok_or(wrong("no token"))?,
        value,
        signed,
        cas,
        target: args.bytes("target").and_then(Id::from_bytes),
    })
}

/// The value's own bytes, if it is canonical: everything but the order of keys is strict already
/// when read, so that writing it again gives what was sent.
fn raw(value: &Value<'_>) -> Option<Vec<u8>> {
    fn sorted(value: &Value<'_>) -> bool {
        match value {
            Value::Int(_) | Value::Bytes(_) => true,
            Value::List(items) => items.iter().all(sorted),
            Value::Dict(dict) => dict.is_sorted() && dict.iter().all(|(_, v)| sorted(v)),
        }
    }
    sorted(value).then(|| {
        let mut out = Encoder::new();
        out.value(value);
        out.into_bytes()
    })
}

fn reply<'a>(r: &Dict<'a>) -> Option<Reply<'a>> {
    let mut nodes = Vec::new();
    for (key, v6) in [("nodes", false), ("nodes6", true)] {
        read_nodes(r.bytes(key).unwrap_or_default(), v6, &mut nodes);
    }
    nodes.truncate(MAX_LISTED);
    let values = match r.get("values") {
        Some(Value::List(list)) => list
            .iter()
            .take(MAX_LISTED)
            .filter_map(|v| v.as_bytes().and_then(read_addr))
            .collect(),
        // Ancient nodes send one string.
        Some(Value::Bytes(all)) => all
            .chunks_exact(6)
            .take(MAX_LISTED)
            .filter_map(read_addr)
            .collect(),
        _ => Vec::new(),
    };
    let filter = |key| r.bytes(key).and_then(Bloom::from_bytes);
    let samples = r.bytes("samples").map(|keys| Samples {
        interval: r.int("interval").unwrap_or(0).clamp(0, MAX_INTERVAL) as u32,
        num: r.int("num").unwrap_or(0).clamp(0, i64::from(u32::MAX)) as u32,
        keys: keys
            .chunks_exact(20)
            .take(MAX_LISTED)
            .filter_map(Id::from_bytes)
            .collect(),
    });
    Some(Reply {
        id: r.bytes("id").and_then(Id::from_bytes)?,
        nodes,
        token: r.bytes("token").filter(|t| t.len() <= MAX_TOKEN),
        values,
        filters: filter("BFsd").zip(filter("BFpe")),
        value: r.get("v").and_then(raw),
        key: r.bytes("k").and_then(|k| k.try_into().ok()),
        signature: r.bytes("sig").and_then(|s| s.try_into().ok()),
        seq: r.int("seq"),
        samples,
    })
}

/// Longest token that is kept; real ones have 2 to 20 bytes.
const MAX_TOKEN: usize = 64;
