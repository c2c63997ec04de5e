//! A leaf that becomes an ultrapeer when it has been up for long, has the bandwidth and is reached by
//! others, and a leaf again when nobody needs it. What gtk-gnutella asks for is much the same.

use std::time::Duration;

use shoal_base::Time;

use super::{Config, Effect, Mode, Node, Relation};
use crate::message::bye::code;
use crate::shared::Shared;

/// How long an ultrapeer may be without leaves, and with few neighbours, before it is a leaf again.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// Neighbours that make an ultrapeer useful even without leaves.
const FEW: usize = 3;

/// When a leaf becomes an ultrapeer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promotion {
    /// Up for so long.
    pub uptime: Duration,
    /// Able to send so many kB/s ([`Config::speed`]).
    pub speed: u32,
}

impl Default for Promotion {
    fn default() -> Self {
        Self {
            uptime: Duration::from_secs(3600),
            // Fifty ultrapeers and 300 leaves take about 20 kB/s of a modern node.
            speed: 50,
        }
    }
}

impl<S: Shared> Node<S> {
    /// Changes the role when it is time.
    pub(super) fn review_role(&mut self, now: Time, out: &mut Vec<Effect>) {
        let Some(promotion) = self.config.promotion else {
            return;
        };
        match self.config.mode {
            Mode::Leaf => {
                let (connections, datagrams) = self.is_reached();
                let fit = connections
                    && datagrams
                    && !self.config.firewalled
                    && self.config.speed >= promotion.speed
                    && now.since(self.since) >= promotion.uptime;
                if fit {
                    self.change_role(now, Mode::Ultrapeer, out);
                }
            }
            Mode::Ultrapeer => {
                let leaves = self.links().any(|l| l.relation == Relation::Leaf);
                if leaves || self.links().count() >= FEW {
                    self.useful = now;
                } else if now.since(self.useful) >= IDLE {
                    // It may be promoted again after as long as the first time.
                    self.since = now;
                    self.change_role(now, Mode::Leaf, out);
                }
            }
            Mode::Flood => {}
        }
    }

    fn change_role(&mut self, now: Time, mode: Mode, out: &mut Vec<Effect>) {
        let usual = Config::of(mode);
        self.config.mode = mode;
        self.config.ultrapeers = usual.ultrapeers;
        self.config.leaves = usual.leaves;
        self.config.ttl = usual.ttl;
        self.useful = now;
        // What neighbours are to us depends on the role: all links begin anew.
        let all: Vec<_> = self.links().map(|l| l.id).collect();
        for id in all {
            self.bye(id, code::ROLE, "Changing between leaf and ultrapeer", out);
        }
        self.dirty = true;
        out.push(Effect::Role(mode));
    }
}
