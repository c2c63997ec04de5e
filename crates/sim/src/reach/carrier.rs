//! The machine that carries letters, as supernodes do; a false one where that is asked for.

use super::machine::{Ctx, Message, stream};
use super::route::Hop;
use shoal_base::Time;
use shoal_reach::identity::NodeId;
use std::collections::BTreeMap;

/// What a false one makes of a letter: who gets what.
pub(super) type Lie = Box<dyn FnMut(Time, NodeId, Vec<u8>) -> Vec<(NodeId, Vec<u8>)> + Send>;

/// It.
#[derive(Default)]
pub(super) struct Carrier {
    /// Who is where.
    pub(super) places: BTreeMap<NodeId, u32>,
    pub(super) lie: Option<Lie>,
}

impl Carrier {
    /// A letter is to go to who has this name.
    pub(super) fn carry(&mut self, ctx: &mut Ctx<'_>, to: NodeId, letter: Vec<u8>) {
        let letters = match &mut self.lie {
            Some(lie) => lie(ctx.now(), to, letter),
            None => vec![(to, letter)],
        };
        for (to, letter) in letters {
            if let Some(node) = self.places.get(&to) {
                stream(ctx, Hop::Machine(*node), Message::Letter(to, letter));
            }
        }
    }
}
