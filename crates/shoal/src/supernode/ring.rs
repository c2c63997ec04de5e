//! A supernode's place in the ring that keeps people's records and nodes' places, while it is one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use shoal_node::dht::DhtNode;
use shoal_node::reach::overlay_of;
use shoal_node::supernode::{BoxServer, NodeDriver, is_of_places, name_ring, supernodes};

use super::Member;
use crate::gnutella;
use crate::ui::Ui;

/// How often the list is asked for others of the ring.
const LIST: Duration = Duration::from_secs(15);

/// It.
pub(super) struct NamePlace {
    node: Arc<DhtNode>,
    driver: Arc<NodeDriver>,
    boxes: Option<BoxServer>,
    list: SocketAddr,
    own: SocketAddr,
    next: Instant,
    doors: Receiver<Vec<SocketAddr>>,
}

fn others(list: SocketAddr, own: SocketAddr) -> Vec<SocketAddr> {
    let entries = supernodes(list).unwrap_or_default();
    let others = entries.iter().map(|e| e.addr);
    // Who has an overlay address alone stands in no ring of UDP.
    let others = others.filter(|a| *a != own && overlay_of(*a).is_none());
    others.collect()
}

impl NamePlace {
    /// Takes a place, with a socket at `listen` (UDP); `own` is where others reach this node. Who has a link to
    /// `boxes` may ask the ring by it, and `driver` finds by it where letters are to go.
    pub(super) fn take(
        member: &Member,
        driver: &Arc<NodeDriver>,
        boxes: Option<&BoxServer>,
        listen: SocketAddr,
        own: SocketAddr,
        ui: &Ui,
    ) -> Option<Self> {
        let list = member.list;
        let doors = others(list, own);
        let seed = gnutella::rng().next_u64();
        let (answers, of_places) = (boxes.cloned(), driver.ring_answers());
        let sink = Box::new(move |ticket, answer| {
            if is_of_places(ticket) {
                of_places(ticket, answer);
            } else if let Some(boxes) = &answers {
                boxes.ring_answered(ticket, answer);
            }
        });
        let key = Some(&member.key);
        let node = name_ring(member.trusted, listen, key, &doors, seed, sink);
        let node = node
            .inspect_err(|e| ui.warn(&format!("no place in the ring of names: {e}")))
            .ok()?;
        let node = Arc::new(node);
        if let Some(boxes) = boxes {
            boxes.ask_ring_by(Arc::downgrade(&node), member.trusted);
        }
        driver.ask_ring_by(Arc::downgrade(&node), member.trusted);
        Some(Self {
            node,
            driver: Arc::clone(driver),
            boxes: boxes.cloned(),
            list,
            own,
            next: Instant::now() + LIST,
            doors: unbounded().1,
        })
    }

    /// Tells the ring of other supernodes now and then, so that rings that began apart become one.
    pub(super) fn poll(&mut self) {
        if let Ok(doors) = self.doors.try_recv() {
            self.node.add_contacts(doors);
        }
        if self.next > Instant::now() {
            return;
        }
        self.next = Instant::now() + LIST;
        let (send, doors) = unbounded();
        let (list, own) = (self.list, self.own);
        // Asking may take seconds.
        std::thread::spawn(move || drop(send.send(others(list, own))));
        self.doors = doors;
    }

    /// Records kept.
    pub(super) fn records(&self) -> usize {
        self.node.status().map_or(0, |s| s.items)
    }

    /// Hands over what it keeps, and leaves.
    pub(super) fn leave(self) {
        if let Some(boxes) = self.boxes {
            boxes.leave_ring();
        }
        self.driver.leave_ring();
        // Nobody else has it any more.
        if let Some(node) = Arc::into_inner(self.node) {
            node.stop();
        }
    }
}
