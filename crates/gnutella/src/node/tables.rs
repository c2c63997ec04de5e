//! Query routing tables: taken from leaves and ultrapeers, merged, and sent on.

use std::sync::Arc;

use shoal_base::Time;

use super::{ConnId, Effect, Mode, Node, Relation};
use crate::guid::Guid;
use crate::message::bye::code;
use crate::message::route::Route;
use crate::message::{Kind, Packet};
use crate::qrp::{BITS, Table, patches, reset};
use crate::shared::Shared;

impl<S: Shared> Node<S> {
    pub(super) fn on_route(
        &mut self,
        id: ConnId,
        payload: &[u8],
        out: &mut Vec<Effect>,
    ) -> Option<()> {
        let route = Route::read(payload).ok()?;
        let link = self.link_mut(id)?;
        if !matches!(link.relation, Relation::Leaf | Relation::Peer) {
            return Some(());
        }
        let leaf = link.relation == Relation::Leaf;
        match link.table.on_message(route) {
            Ok(complete) => self.dirty |= complete && leaf,
            Err(error) => self.bye(id, code::ROUTES, &error.to_string(), out),
        }
        Some(())
    }

    /// Makes our table anew and sends what changed.
    pub(super) fn update_tables(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.tables_due = now + self.config.tables;
        self.dirty = false;
        self.version = self.shared.version();
        if self.config.mode == Mode::Flood {
            return;
        }
        let mut table = Table::new(BITS);
        self.shared.names(&mut |name, sha1| table.add(name, sha1));
        for leaf in self.links().filter(|l| l.relation == Relation::Leaf) {
            if let Some(theirs) = leaf.table.table() {
                table.merge(theirs);
            }
        }
        if self.table.as_deref() != Some(&table) {
            self.table = Some(Arc::new(table));
        }
        let all: Vec<ConnId> = self.links().map(|l| l.id).collect();
        for id in all {
            self.send_table(now, id, out);
        }
    }

    /// Sends a neighbour our table, or what changed in it.
    pub(super) fn send_table(&mut self, now: Time, id: ConnId, out: &mut Vec<Effect>) {
        let table = match &self.table {
            Some(table) => Arc::clone(table),
            None => {
                self.tables_due = self.tables_due.min(now);
                return;
            }
        };
        let Some(link) = self.link_mut(id) else {
            return;
        };
        let wants = match link.relation {
            Relation::Peer => link.ultrapeer_routes,
            Relation::Shield => link.routes,
            Relation::Leaf | Relation::Equal => false,
        };
        // A neighbour that is still busy with the last update gets the next later.
        if !wants || link.sent.is_some() && link.out.has_control() {
            self.dirty |= wants;
            return;
        }
        let same = link
            .sent
            .as_ref()
            .is_some_and(|sent| Arc::ptr_eq(sent, &table));
        if same {
            return;
        }
        let mut messages = Vec::new();
        if link.sent.is_none() {
            messages.push(reset(&table));
        }
        messages.extend(patches(link.sent.as_deref(), &table, link.one_bit));
        link.sent = Some(table);
        for payload in messages {
            let guid = Guid::random(&mut self.rng);
            self.send(id, Packet::ours(Kind::Route, guid, 1, &payload), out);
        }
    }
}
