//! The reader.

/// How deep lists and dictionaries may nest; the deepest real format (BEP 52 file trees) stays
/// far below.
const MAX_DEPTH: u32 = 64;

/// What is wrong with a bencoded input, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BencodeError {
    /// The input ends inside a value.
    #[error("input ends inside the value at byte {0}")]
    Truncated(usize),
    /// A byte that starts no value.
    #[error("byte {0} starts no value")]
    UnexpectedByte(usize),
    /// Not a canonical integer that fits 64 bits.
    #[error("invalid integer at byte {0}")]
    BadInteger(usize),
    /// A string length that is not a canonical number or exceeds the input.
    #[error("invalid string length at byte {0}")]
    BadLength(usize),
    /// A dictionary key that is not a string.
    #[error("dictionary key at byte {0} is not a string")]
    BadKey(usize),
    /// The same key twice in one dictionary.
    #[error("dictionary key at byte {0} is repeated")]
    DuplicateKey(usize),
    /// Nested deeper than 64 levels.
    #[error("nested too deeply at byte {0}")]
    TooDeep(usize),
    /// Bytes after the value.
    #[error("trailing bytes from byte {0}")]
    Trailing(usize),
}

/// One value, borrowing from the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// `i…e`
    Int(i64),
    /// `n:…`
    Bytes(&'a [u8]),
    /// `l…e`
    List(Vec<Self>),
    /// `d…e`
    Dict(Dict<'a>),
}

/// A dictionary, its entries in the order of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dict<'a> {
    entries: Vec<(&'a [u8], Value<'a>)>,
    sorted: bool,
    raw: &'a [u8],
}

impl<'a> Value<'a> {
    /// The integer, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(i) = self {
            Some(*i)
        } else {
            None
        }
    }

    /// The bytes, if it is a string.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        if let Self::Bytes(b) = self {
            Some(b)
        } else {
            None
        }
    }

    /// The text, if it is a string of valid UTF-8.
    pub fn as_str(&self) -> Option<&'a str> {
        self.as_bytes().and_then(|b| std::str::from_utf8(b).ok())
    }

    /// The items, if it is a list.
    pub fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(l) = self {
            Some(l)
        } else {
            None
        }
    }

    /// The dictionary, if it is one.
    pub fn as_dict(&self) -> Option<&Dict<'a>> {
        if let Self::Dict(d) = self {
            Some(d)
        } else {
            None
        }
    }
}

impl<'a> Dict<'a> {
    /// The value under `key`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<&Value<'a>> {
        let key = key.as_ref();
        if self.sorted {
            let at = self.entries.binary_search_by(|(k, _)| (*k).cmp(key)).ok()?;
            return self.entries.get(at).map(|(_, v)| v);
        }
        self.entries.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// The integer under `key`.
    pub fn int(&self, key: impl AsRef<[u8]>) -> Option<i64> {
        self.get(key)?.as_int()
    }

    /// The string under `key`.
    pub fn bytes(&self, key: impl AsRef<[u8]>) -> Option<&'a [u8]> {
        self.get(key)?.as_bytes()
    }

    /// The UTF-8 string under `key`.
    pub fn str(&self, key: impl AsRef<[u8]>) -> Option<&'a str> {
        self.get(key)?.as_str()
    }

    /// The list under `key`.
    pub fn list(&self, key: impl AsRef<[u8]>) -> Option<&[Value<'a>]> {
        self.get(key)?.as_list()
    }

    /// The dictionary under `key`.
    pub fn dict(&self, key: impl AsRef<[u8]>) -> Option<&Self> {
        self.get(key)?.as_dict()
    }

    /// The entries in the order of the input.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &Value<'a>)> {
        self.entries.iter().map(|(k, v)| (*k, v))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the keys came in the canonical, rising order.
    pub fn is_sorted(&self) -> bool {
        self.sorted
    }

    /// The dictionary's own bytes, from `d` to `e`.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }
}

/// Reads one value that must fill `input`.
pub fn decode(input: &[u8]) -> Result<Value<'_>, BencodeError> {
    let (value, used) = decode_prefix(input)?;
    if used == input.len() {
        Ok(value)
    } else {
        Err(BencodeError::Trailing(used))
    }
}

/// Reads one value from the front of `input` and tells how many bytes it took.
pub fn decode_prefix(input: &[u8]) -> Result<(Value<'_>, usize), BencodeError> {
    let mut reader = Reader { input, at: 0 };
    let value = reader.value(MAX_DEPTH)?;
    Ok((value, reader.at))
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self, start: usize) -> Result<u8, BencodeError> {
        self.input
            .get(self.at)
            .copied()
            .ok_or(BencodeError::Truncated(start))
    }

    fn value(&mut self, depth: u32) -> Result<Value<'a>, BencodeError> {
        let start = self.at;
        if depth == 0 {
            return Err(BencodeError::TooDeep(start));
        }
        match self.peek(start)? {
            b'i' => {
                self.at += 1;
                let end = self.find(b'e', start, 21)?;
                let number = self
                    .integer(self.at, end)
                    .ok_or(BencodeError::BadInteger(start))?;
                self.at = end + 1;
                Ok(Value::Int(number))
            }
            b'0'..=b'9' => Ok(Value::Bytes(self.string()?)),
            b'l' => {
                self.at += 1;
                let mut items = Vec::new();
                while self.peek(start)? != b'e' {
                    items.push(self.value(depth - 1)?);
                }
                self.at += 1;
                Ok(Value::List(items))
            }
            b'd' => self.dict(depth).map(Value::Dict),
            _ => Err(BencodeError::UnexpectedByte(start)),
        }
    }

    fn dict(&mut self, depth: u32) -> Result<Dict<'a>, BencodeError> {
        let start = self.at;
        self.at += 1;
        let mut entries: Vec<(&[u8], Value<'_>)> = Vec::new();
        let mut sorted = true;
        loop {
            let key_at = self.at;
            match self.peek(start)? {
                b'e' => break,
                b'0'..=b'9' => {}
                _ => return Err(BencodeError::BadKey(key_at)),
            }
            let key = self.string()?;
            if let Some((last, _)) = entries.last() {
                match (*last).cmp(key) {
                    std::cmp::Ordering::Less => {}
                    std::cmp::Ordering::Equal => return Err(BencodeError::DuplicateKey(key_at)),
                    std::cmp::Ordering::Greater => sorted = false,
                }
            }
            let value = self.value(depth - 1)?;
            entries.push((key, value));
        }
        self.at += 1;
        if !sorted {
            // A repeat need not be adjacent here; sorting a copy keeps this O(n log n).
            let mut keys: Vec<_> = entries.iter().map(|(k, _)| *k).collect();
            keys.sort_unstable();
            if keys.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(BencodeError::DuplicateKey(start));
            }
        }
        Ok(Dict {
            entries,
            sorted,
            raw: &self.input[start..self.at],
        })
    }

    /// The position of `byte`, at most `within` bytes ahead.
    fn find(&self, byte: u8, start: usize, within: usize) -> Result<usize, BencodeError> {
        let rest = &self.input[self.at..];
        match rest.iter().take(within).position(|b| *b == byte) {
            Some(n) => Ok(self.at + n),
            None if rest.len() < within => Err(BencodeError::Truncated(start)),
            None if byte == b':' => Err(BencodeError::BadLength(start)),
            None => Err(BencodeError::BadInteger(start)),
        }
    }

    /// A canonical decimal number: no leading zeros, no plus, no "-0".
    fn integer(&self, from: usize, to: usize) -> Option<i64> {
        let text = std::str::from_utf8(&self.input[from..to]).ok()?;
        let digits = text.strip_prefix('-').unwrap_or(text);
        let canonical = digits.bytes().all(|b| b.is_ascii_digit())
            && (digits == "0" && text == "0" || !digits.starts_with('0'));
        if canonical { text.parse().ok() } else { None }
    }

    fn string(&mut self) -> Result<&'a [u8], BencodeError> {
        let start = self.at;
        let colon = self.find(b':', start, 20)?;
        let len = self
            .integer(start, colon)
            .and_then(|n| usize::try_from(n).ok());
        let len = len.ok_or(BencodeError::BadLength(start))?;
        let rest = &self.input[colon + 1..];
        let Some(bytes) = rest.get(..len) else {
            return Err(BencodeError::Truncated(start));
        };
        self.at = colon + 1 + len;
        Ok(bytes)
    }
}
