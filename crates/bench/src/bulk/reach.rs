//! The ends of a connection of ours; their letters go by a TCP connection between the two processes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use serde_json::json;
use shoal_node::reach::{Connection, Identity, NodeId, Reach, ReachSettings, Ticket};
use shoal_node::relay::Credential;

use super::{Goal, Meter, PIECE, Place, hex, payload, pieces, tell, unhex};

/// How long anything but the transfer may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn node(place: &Place, n: u8, hidden: bool) -> anyhow::Result<Arc<Reach>> {
    let reach = Reach::start(ReachSettings {
        identity: Identity::from_secret(&[n; 32]),
        listen: place.listen,
        accepts: true,
        hidden,
        port_mapping: false,
    })?;
    if let (Some(relay), Some(secret)) = (place.relay, &place.secret) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        reach.offer(vec![Ticket {
            at: vec![relay],
            credential: Credential::short_lived(secret.as_bytes(), "bench", unix + 3600),
        }]);
        let began = Instant::now();
        while reach.look().is_none_or(|l| l.relays.is_empty()) {
            if began.elapsed() > PATIENCE {
                bail!("the relay at {relay} gives no address");
            }
            // There is nothing that tells when relays have answered.
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(Arc::new(reach))
}

/// Carries letters both ways until the connection ends.
fn carry(reach: &Arc<Reach>, tcp: TcpStream) -> anyhow::Result<()> {
    let (letters, mut to) = (reach.letters.clone(), tcp.try_clone()?);
    thread::spawn(move || {
        while let Ok((_, letter)) = letters.recv() {
            if writeln!(to, "{}", hex(&letter)).is_err() {
                return;
            }
        }
    });
    let reach = Arc::downgrade(reach);
    thread::spawn(move || {
        for line in BufReader::new(tcp).lines().map_while(Result::ok) {
            if let (Some(reach), Ok(letter)) = (reach.upgrade(), unhex(&line)) {
                reach.letter(letter);
            }
        }
    });
    Ok(())
}

/// Receives one stream.
pub(super) fn sink(place: &Place) -> anyhow::Result<()> {
    let reach = node(place, 1, false)?;
    let letters = TcpListener::bind((place.listen.ip(), 0))?;
    tell(letters.local_addr()?, &reach.id().0);
    carry(&reach, letters.accept()?.0)?;
    let connection = reach.arrivals.recv()?;
    let mut stream = connection.streams.recv()?;
    let mut buf = vec![0; PIECE];
    let mut len = 0;
    let mut meter = None;
    loop {
        let n = stream.read(&mut buf)?;
        if n == 0 {
            break;
        }
        meter.get_or_insert_with(Meter::start);
        len += n as u64;
    }
    meter.unwrap_or_else(Meter::start).tell(len, &json!({}));
    stream.finish();
    // Until the other side closes.
    let _ = connection.streams.recv();
    Ok(())
}

/// Waits until the way is the one that is to be measured.
fn settled(connection: &Connection, relayed: bool) -> anyhow::Result<u8> {
    let began = Instant::now();
    loop {
        let status = connection.status().context("the connection ended")?;
        match status.way {
            Some(way) if (way.hops > 0) == relayed => return Ok(way.hops),
            _ if began.elapsed() > PATIENCE => bail!("not the way that was wanted: {status:?}"),
            // There is nothing that tells when ways change.
            _ => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Sends by one stream.
pub(super) fn source(place: &Place, goal: &Goal, relayed: bool) -> anyhow::Result<()> {
    let reach = node(place, 2, relayed)?;
    carry(&reach, TcpStream::connect(goal.to)?)?;
    let key: [u8; 32] = unhex(&goal.key)?
        .try_into()
        .map_err(|_| anyhow::anyhow!("a key has 32 bytes"))?;
    let connection = reach.connect(NodeId(key))?;
    let hops = settled(&connection, relayed)?;
    let mut stream = connection.open()?;
    let piece = payload();
    let meter = Meter::start();
    for now in pieces(&piece, goal.len) {
        stream.write_all(now)?;
    }
    stream.finish();
    // All has arrived when the other side ends its half.
    stream.read_to_end(&mut Vec::new())?;
    let status = connection.status().context("the connection ended")?;
    let more = json!({"relays": hops, "sent_packets": status.sent, "lost_packets": status.lost});
    meter.tell(goal.len, &more);
    Ok(())
}
