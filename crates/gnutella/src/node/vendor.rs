//! What vendor messages do.

use std::net::SocketAddrV4;

use shoal_base::Time;

use super::{ConnId, Effect, Node, Relation};
use crate::message::vendor::Vendor;
use crate::message::{Header, Kind, Packet};
use crate::shared::Shared;

impl<S: Shared> Node<S> {
    pub(super) fn on_vendor(
        &mut self,
        now: Time,
        id: ConnId,
        header: Header,
        payload: &[u8],
        out: &mut Vec<Effect>,
    ) -> Option<()> {
        let message = Vendor::read(payload).ok()?;
        // The framework knows none that travels, but for a HEAD ping that is handed to the leaf that is meant.
        let handed = matches!(message, Vendor::HeadPing(_)) && header.hops == 1;
        if header.hops > 0 && !handed {
            return None;
        }
        let listen = self.config.listen;
        let link = self.link_mut(id)?;
        match message {
            Vendor::HopsFlow(hops) => link.hops_flow = hops,
            Vendor::ConnectBack(port) if port > 0 && link.is_placed() => {
                let addr = SocketAddrV4::new(*link.addr.ip(), port);
                out.push(Effect::ConnectBack(addr));
            }
            Vendor::UdpConnectBack(port, guid) if port > 0 && link.is_placed() => {
                let to = SocketAddrV4::new(*link.addr.ip(), port);
                let guid = guid.unwrap_or(header.guid);
                let ping = Packet::ours(Kind::Ping, guid, 1, &[]);
                out.push(Effect::Datagram(to, ping));
            }
            Vendor::ProxyRequest if link.relation == Relation::Leaf => {
                link.client = Some(header.guid);
                if let Some(listen) = listen {
                    self.send_vendor(id, header.guid, &Vendor::ProxyAck(listen), out);
                }
            }
            Vendor::ProxyAck(addr) if link.relation == Relation::Shield => {
                // It may not send others to a stranger: the address is the neighbour's own.
                let own = *addr.ip() == *link.addr.ip() && addr.port() > 0;
                if own && header.guid == self.servent {
                    self.link_mut(id)?.proxy = Some(addr);
                }
            }
            Vendor::StatusRequest if link.relation == Relation::Shield => {
                self.answer_status(id, header.guid, out);
            }
            Vendor::Status(kept) if link.relation == Relation::Leaf => {
                self.on_status(now, id, header.guid, kept);
            }
            Vendor::HeadPing(ping) if link.relation == Relation::Shield => {
                let pong = self.head_pong(&ping);
                self.send_vendor(id, header.guid, &Vendor::HeadPong(pong), out);
            }
            Vendor::HeadPong(pong) if link.relation == Relation::Leaf => {
                self.pass_head_pong(now, header.guid, pong, out);
            }
            Vendor::Supported(_)
            | Vendor::Other(..)
            | Vendor::ConnectBack(_)
            | Vendor::UdpConnectBack(..)
            // These come by datagrams.
            | Vendor::OobReplies { .. }
            | Vendor::OobAck { .. }
            | Vendor::HeadPing(_)
            | Vendor::HeadPong(_)
            | Vendor::CrawlPing(_)
            | Vendor::CrawlPong(_)
            | Vendor::ProxyRequest
            | Vendor::ProxyAck(_)
            | Vendor::StatusRequest
            | Vendor::Status(_) => {}
        }
        Some(())
    }
}
