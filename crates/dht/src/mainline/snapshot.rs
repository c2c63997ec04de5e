//! What is worth keeping of a node between two runs: its identifiers and whom it knew.

use super::node::{Node, read_nodes, write_addr};
use crate::Id;
use shoal_base::bencode::{self, Encoder, Value};

/// Most contacts kept.
pub const MAX_CONTACTS: usize = 256;

/// Identifiers and contacts of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Identifier in the IPv4 table.
    pub id4: Option<Id>,
    /// Identifier in the IPv6 table.
    pub id6: Option<Id>,
    /// Nodes that answered.
    pub contacts: Vec<Node>,
}

impl Snapshot {
    /// As one bencoded dictionary.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        e.dict(|e| {
            if let Some(id) = self.id4 {
                e.key("id4").bytes(id.0);
            }
            if let Some(id) = self.id6 {
                e.key("id6").bytes(id.0);
            }
            for (key, v6) in [("nodes", false), ("nodes6", true)] {
                let mut compact = Vec::new();
                for node in self.contacts.iter().filter(|n| n.addr.is_ipv6() == v6) {
                    compact.extend_from_slice(&node.id.0);
                    write_addr(&node.addr, &mut compact);
                }
                e.key(key).bytes(compact);
            }
        });
        e.into_bytes()
    }

    /// Reads what [`Snapshot::to_bytes`] wrote; none if it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let Ok(Value::Dict(dict)) = bencode::decode(bytes) else {
            return None;
        };
        let mut contacts = Vec::new();
        read_nodes(dict.bytes("nodes")?, false, &mut contacts);
        read_nodes(dict.bytes("nodes6")?, true, &mut contacts);
        contacts.truncate(MAX_CONTACTS);
        Some(Self {
            id4: dict.bytes("id4").and_then(Id::from_bytes),
            id6: dict.bytes("id6").and_then(Id::from_bytes),
            contacts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_read_as_it_was_written() {
        let node = |addr: &str| Node {
            id: Id([7; 20]),
            addr: addr.parse().unwrap(),
        };
        let snapshot = Snapshot {
            id4: Some(Id([1; 20])),
            id6: None,
            contacts: vec![node("1.2.3.4:5"), node("[2001:db8::9]:6")],
        };
        assert_eq!(
            Snapshot::from_bytes(&snapshot.to_bytes()),
            Some(snapshot.clone())
        );
        assert_eq!(Snapshot::from_bytes(b"junk"), None);
    }
}
