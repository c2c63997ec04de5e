//! The writer.

use super::Value;

/// Appends canonical bencode to a buffer.
///
/// ```
/// use shoal_base::bencode::Encoder;
/// let mut e = Encoder::new();
/// e.dict(|d| {
///     d.key("a").int(1);
///     d.key("b").list(|l| l.bytes("x"));
/// });
/// assert_eq!(e.into_bytes(), b"d1:ai1e1:bl1:xee");
/// ```
#[derive(Debug, Default)]
pub struct Encoder {
    out: Vec<u8>,
    /// The last key of each open dictionary, to check their order.
    #[cfg(debug_assertions)]
    keys: Vec<Option<Vec<u8>>>,
}

impl Encoder {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes an integer.
    pub fn int(&mut self, i: i64) {
        self.out.push(b'i');
        self.out.extend_from_slice(i.to_string().as_bytes());
        self.out.push(b'e');
    }

    /// Writes a string.
    pub fn bytes(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.out
            .extend_from_slice(bytes.len().to_string().as_bytes());
        self.out.push(b':');
        self.out.extend_from_slice(bytes);
    }

    /// Writes a list of whatever `items` writes.
    pub fn list(&mut self, items: impl FnOnce(&mut Self)) {
        self.out.push(b'l');
        items(self);
        self.out.push(b'e');
    }

    /// Writes a dictionary; `entries` writes [`Encoder::key`] and a value, keys in rising order.
    pub fn dict(&mut self, entries: impl FnOnce(&mut Self)) {
        self.out.push(b'd');
        #[cfg(debug_assertions)]
        self.keys.push(None);
        entries(self);
        #[cfg(debug_assertions)]
        self.keys.pop();
        self.out.push(b'e');
    }

    /// Writes a key; its value must follow.
    pub fn key(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        let key = key.as_ref();
        #[cfg(debug_assertions)]
        {
            let last = self
                .keys
                .last_mut()
                .expect("a key is written inside a dictionary");
            debug_assert!(last.as_deref().is_none_or(|l| l < key), "keys out of order");
            *last = Some(key.to_vec());
        }
        self.bytes(key);
        self
    }

    /// Writes bytes that are already bencode.
    pub fn raw(&mut self, bencoded: &[u8]) {
        self.out.extend_from_slice(bencoded);
    }

    /// Writes a decoded value, its dictionaries sorted.
    pub fn value(&mut self, value: &Value<'_>) {
        match value {
            Value::Int(i) => self.int(*i),
            Value::Bytes(b) => self.bytes(b),
            Value::List(items) => self.list(|e| items.iter().for_each(|v| e.value(v))),
            Value::Dict(dict) => {
                let mut entries: Vec<_> = dict.iter().collect();
                entries.sort_by_key(|(k, _)| *k);
                self.dict(|e| entries.iter().for_each(|(k, v)| e.key(k).value(v)));
            }
        }
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }
}
