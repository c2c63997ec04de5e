//! Several nodes of the `mainline` crate in one process, driven by JSON lines over TCP as
//! `lab/clients/dht_lt.py` is. Arguments: control port, bootstrap, ADDRESS:PORT…
#![expect(
    deprecated,
    reason = "the blocking interface is what a driver of one order at a time wants"
)]

use std::io::{BufRead, BufReader, Error, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};

use mainline::{Dht, Id, MutableItem, SigningKey};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The key of all mutable items here.
const SECRET: [u8; 32] = [7; 32];

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(control), Some(bootstrap)) = (args.next(), args.next()) else {
        return Err("control port, bootstrap, ADDRESS:PORT…".into());
    };
    let nodes = args
        .map(|listen| node(&listen, &bootstrap))
        .collect::<Result<Vec<_>>>()?;
    let listener = TcpListener::bind(("127.0.0.1", control.parse()?))?;
    for stream in listener.incoming() {
        obey(&nodes, &stream?)?;
    }
    Ok(())
}

fn node(listen: &str, bootstrap: &str) -> Result<Dht> {
    let addr: SocketAddrV4 = listen.parse()?;
    let mut builder = Dht::builder();
    builder
        .server_mode()
        .bind_address(*addr.ip())
        .port(addr.port())
        .bootstrap(&[bootstrap]);
    Ok(builder.build()?)
}

fn obey(nodes: &[Dht], stream: &TcpStream) -> Result<()> {
    let mut to = stream;
    for line in BufReader::new(stream).lines() {
        let order: Value = serde_json::from_str(&line?)?;
        let number = order["node"].as_u64().unwrap_or_default() as usize;
        let node = nodes.get(number).ok_or("there is no such node")?;
        let answer = act(node, &order).unwrap_or_else(|e| json!({"error": e.to_string()}));
        writeln!(to, "{answer}")?;
    }
    Ok(())
}

fn act(node: &Dht, order: &Value) -> Result<Value> {
    let text = |name: &str| order[name].as_str().unwrap_or_default();
    let salt = Some(text("salt").as_bytes()).filter(|salt| !salt.is_empty());
    let shown = |value: &[u8]| json!({"value": String::from_utf8_lossy(value)});
    match text("do") {
        "nodes" => Ok(json!({"nodes": node.to_bootstrap().len()})),
        "put" if order["mutable"] == true => {
            let key = SigningKey::from_bytes(&SECRET);
            let name = hex(&key.verifying_key().to_bytes());
            node.put_mutable(
                MutableItem::new(key, text("value").as_bytes(), 1, salt),
                None,
            )?;
            Ok(json!({"name": name}))
        }
        "put" => {
            let target = node.put_immutable(text("value").as_bytes())?;
            Ok(json!({"name": target.to_string()}))
        }
        "get" if text("name").len() == 40 => {
            let found = node.get_immutable(text("name").parse::<Id>()?);
            Ok(found.map_or(json!({}), |value| shown(&value)))
        }
        "get" => {
            let found = node.get_mutable_most_recent(&key(text("name"))?, salt);
            Ok(found.map_or(json!({}), |item| shown(item.value())))
        }
        "announce" => {
            let port = order["port"].as_u64().and_then(|port| port.try_into().ok());
            node.announce_peer(text("key").parse()?, port)?;
            Ok(json!({}))
        }
        "peers" => {
            let found = node.get_peers(text("key").parse()?).flatten();
            let mut peers: Vec<String> = found.map(|peer| peer.to_string()).collect();
            peers.sort();
            peers.dedup();
            Ok(json!({"peers": peers}))
        }
        other => Err(Error::other(format!("cannot {other}")).into()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key(hex: &str) -> Result<[u8; 32]> {
    let digits = hex.as_bytes().chunks(2);
    let bytes = digits
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect::<Result<Vec<u8>>>()?;
    bytes.try_into().map_err(|_| "a key has 32 bytes".into())
}
