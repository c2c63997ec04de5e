//! By whom the page's node reaches others without an address.

use crate::call::CallError;
use crate::call::callers::{Callers, GREETING, Letters};
use crate::call::line::{Line, StreamLine};
use crate::reach::{Connection, NodeId, Reach, Ticket};
use std::sync::Arc;

/// Finds the node of a name or key; else says why not.
type Find = Box<dyn Fn(&str) -> Result<NodeId, String> + Send + Sync>;
/// Relays that may be used at the moment.
type Tickets = Box<dyn Fn() -> Vec<Ticket> + Send + Sync>;

/// See the module's text.
pub struct PageNet {
    reach: Arc<Reach>,
    find: Find,
    tickets: Tickets,
    letters: Arc<Letters>,
}

impl std::fmt::Debug for PageNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.reach.fmt(f)
    }
}

impl PageNet {
    /// A node, what finds others by their names, and what tells its relays.
    pub fn new(reach: Arc<Reach>, find: Find, tickets: Tickets) -> Self {
        Self {
            reach,
            find,
            tickets,
            letters: Arc::new(drop),
        }
    }

    /// Connections that are for letters are for this.
    pub fn beside(self, letters: Arc<Letters>) -> Self {
        Self { letters, ..self }
    }

    pub(super) fn callers(&self) -> Callers {
        Callers::beside(self.reach.arrivals.clone(), Arc::clone(&self.letters))
    }

    pub(super) fn tickets(&self) -> Vec<Ticket> {
        (self.tickets)()
    }

    /// The key of a name, or of a key.
    pub(super) fn key_of(&self, whom: &str) -> Result<[u8; 32], String> {
        (self.find)(whom).map(|node| node.0)
    }

    /// A connection to whoever has a name or key, and a line over it.
    pub(super) fn reach(&self, whom: &str) -> Result<(Box<dyn Line>, Arc<Connection>), CallError> {
        let node = (self.find)(whom).map_err(CallError::Line)?;
        let connection = self.reach.connect(node);
        let connection = connection.map_err(|e| CallError::Line(e.to_string()))?;
        let connection = Arc::new(connection);
        let mut line = StreamLine::new(connection.open()?, Arc::clone(&connection));
        line.send(GREETING)?;
        Ok((Box::new(line), connection))
    }
}
