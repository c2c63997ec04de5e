//! Many Mainline nodes of shoal in one process, on sockets of their own, driven by JSON lines
//! over TCP as the laboratory drives other programs' nodes: `{"node": N, "do": VERB, …}` is
//! answered by one line with what came of it and how long it took.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use crossbeam_channel::Receiver;
use serde::Deserialize;
use serde_json::{Value, json};
use shoal_base::bencode::{self, Encoder};
use shoal_dht::{Answer, Id, Item, Outcome, Request};
use shoal_node::dht::{DhtConfig, DhtNode, Ticket};

/// How long an operation may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Args)]
pub(crate) struct Nodes {
    /// TCP port on 127.0.0.1 for orders
    #[arg(long)]
    control: u16,
    /// The node all start from
    #[arg(long)]
    bootstrap: String,
    /// Where each node listens
    #[arg(required = true)]
    listen: Vec<SocketAddr>,
}

#[derive(Deserialize)]
struct Order {
    #[serde(rename = "do")]
    verb: String,
    node: usize,
    #[serde(default)]
    value: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    key: String,
    #[serde(default)]
    port: u16,
}

struct Network {
    nodes: Vec<DhtNode>,
    answers: Receiver<(Ticket, Answer)>,
    next: Ticket,
}

/// Runs the nodes until killed.
pub(crate) fn nodes(args: &Nodes) -> anyhow::Result<()> {
    let (sender, answers) = crossbeam_channel::unbounded();
    let mut nodes = Vec::new();
    for (seed, addr) in (1..).zip(&args.listen) {
        let config = DhtConfig {
            listen: vec![*addr],
            bootstrap: vec![args.bootstrap.clone()],
            seed,
            ..DhtConfig::default()
        };
        let sender = sender.clone();
        let sink = Box::new(move |ticket, answer| {
            // The receiver lives as long as the process.
            let _ = sender.send((ticket, answer));
        });
        nodes.push(DhtNode::start(config, sink)?);
    }
    let mut network = Network {
        nodes,
        answers,
        next: 0,
    };
    let listener = TcpListener::bind(("127.0.0.1", args.control))?;
    for stream in listener.incoming() {
        network.obey(&stream?)?;
    }
    Ok(())
}

impl Network {
    /// Carries out the orders of one connection, one after the other.
    fn obey(&mut self, stream: &TcpStream) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        let mut to = stream;
        for line in BufReader::new(stream).lines() {
            let order = serde_json::from_str(&line?)?;
            let answer = match self.carry_out(&order) {
                Ok(answer) => answer,
                Err(error) => json!({"error": error.to_string()}),
            };
            writeln!(to, "{answer}")?;
        }
        Ok(())
    }

    fn carry_out(&mut self, order: &Order) -> anyhow::Result<Value> {
        match order.verb.as_str() {
            "nodes" => {
                let node = self.nodes.get(order.node).context("no such node")?;
                let status = node.status().context("the node has stopped")?;
                Ok(json!({"nodes": status.contacts, "memory": status.memory}))
            }
            "put" => {
                let mut value = Encoder::new();
                value.bytes(order.value.as_bytes());
                let item = Item::immutable(value.into_bytes())?;
                let name = item.target().to_string();
                let put = Request::Put {
                    item,
                    cas: None,
                    keep: false,
                };
                let took = self.run(order.node, put, |_| false)?;
                Ok(json!({"name": name, "stored": took.outcome.stored, "ms": took.all}))
            }
            "get" => {
                let target: Id = order.name.parse()?;
                let mut text = None;
                let took = self.run(order.node, Request::GetImmutable { target }, |answer| {
                    let Answer::Value(item) = answer else {
                        return false;
                    };
                    if let Ok(bencode::Value::Bytes(bytes)) = bencode::decode(item.value()) {
                        text = Some(String::from_utf8_lossy(bytes).into_owned());
                    }
                    true
                })?;
                Ok(json!({"value": text, "ms": took.first, "all_ms": took.all}))
            }
            "announce" => {
                let announce = Request::Announce {
                    key: order.key.parse()?,
                    port: Some(order.port),
                    seed: false,
                    keep: false,
                };
                let took = self.run(order.node, announce, |_| false)?;
                Ok(json!({"stored": took.outcome.stored, "ms": took.all}))
            }
            "peers" => {
                let key = order.key.parse()?;
                let mut peers = Vec::new();
                let took = self.run(order.node, Request::Peers { key }, |answer| {
                    let Answer::Peers(new) = answer else {
                        return false;
                    };
                    peers.extend(new.iter().map(ToString::to_string));
                    true
                })?;
                peers.sort();
                Ok(json!({"peers": peers, "ms": took.first, "all_ms": took.all}))
            }
            other => bail!("cannot {other}"),
        }
    }

    /// Runs an operation; `wanted` says which of its news is what was looked for.
    fn run(
        &mut self,
        node: usize,
        request: Request,
        mut wanted: impl FnMut(&Answer) -> bool,
    ) -> anyhow::Result<Took> {
        let node = self.nodes.get(node).context("no such node")?;
        self.next += 1;
        let start = Instant::now();
        let ms = || start.elapsed().as_secs_f64() * 1e3;
        node.request(self.next, request);
        let mut first = None;
        loop {
            let (ticket, answer) = self.answers.recv_deadline(start + PATIENCE)?;
            if ticket != self.next {
                continue;
            }
            match answer {
                Answer::Done(done) => {
                    return Ok(Took {
                        first,
                        all: ms(),
                        outcome: done?,
                    });
                }
                news if wanted(&news) => first = first.or(Some(ms())),
                _ => {}
            }
        }
    }
}

/// Milliseconds of an operation.
struct Took {
    /// To the first that was looked for.
    first: Option<f64>,
    /// To its end.
    all: f64,
    outcome: Outcome,
}
