//! Keywords: finding content by the words of its title, over the ring.
//!
//! A publisher signs one small [`Record`] a content and keeps it under each word of its title, at
//! the word's owner. Each record carries the whole title, so that a search by several words is
//! answered by one node: the owner of the rarest word, which looks for the other words in what it
//! keeps under that one. Only matches travel, never whole lists.

use crate::Id;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

/// Longest title, in bytes.
pub const MAX_TITLE: usize = 160;
/// Most words of a title that it is kept under.
pub const MAX_TITLE_WORDS: usize = 12;
/// Longest word, in bytes; longer ones are cut.
pub const MAX_WORD: usize = 40;

/// What a publisher says about one content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Ed25519 public key of who says so.
    pub publisher: [u8; 32],
    /// What is described: an info-hash.
    pub content: Id,
    /// Its length in bytes.
    pub size: u64,
    /// When it was signed, in minutes since 1970, as the publisher says. A newer record of the same
    /// publisher and content replaces an older one.
    pub made: u32,
    /// At most [`MAX_TITLE`] bytes.
    pub title: String,
    /// Over all of the above.
    pub signature: [u8; 64],
}

impl Record {
    /// Signs a record; the title is cut to [`MAX_TITLE`] bytes.
    pub fn sign(key: &SigningKey, content: Id, size: u64, made: u32, title: &str) -> Self {
        let end = (0..=MAX_TITLE.min(title.len()))
            .rev()
            .find(|end| title.is_char_boundary(*end));
        let title = title.get(..end.unwrap_or(0)).unwrap_or_default().to_owned();
        let mut record = Self {
            publisher: key.verifying_key().to_bytes(),
            content,
            size,
            made,
            title,
            signature: [0; 64],
        };
        record.signature = key.sign(&record.signed()).to_bytes();
        record
    }

    /// Whether the signature is the publisher's and the title short enough.
    pub fn verify(&self) -> bool {
        self.title.len() <= MAX_TITLE
            && VerifyingKey::from_bytes(&self.publisher).is_ok_and(|key| {
                let signature = Signature::from_bytes(&self.signature);
                key.verify_strict(&self.signed(), &signature).is_ok()
            })
    }

    /// Whether every one of `words` is a word of the title.
    pub fn matches(&self, words: &[String]) -> bool {
        let own = words_of(&self.title);
        words.iter().all(|word| own.contains(word))
    }

    fn signed(&self) -> Vec<u8> {
        let mut out = b"shoal keyword record 1\0".to_vec();
        out.extend(self.publisher);
        out.extend(self.content.0);
        out.extend(self.size.to_be_bytes());
        out.extend(self.made.to_be_bytes());
        out.extend(self.title.as_bytes());
        out
    }
}

/// The words of a title or a search: runs of letters and digits, in lower case, each once, in their
/// order, at most [`MAX_TITLE_WORDS`].
pub fn words_of(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(|c: char| !c.is_alphanumeric()) {
        let mut lower = word.to_lowercase();
        while lower.len() > MAX_WORD {
            lower.pop();
        }
        if !lower.is_empty() && !words.contains(&lower) {
            words.push(lower);
            if words.len() == MAX_TITLE_WORDS {
                break;
            }
        }
    }
    words
}

/// Where the records with `word` are kept.
pub fn word_key(word: &str) -> Id {
    Id::hash(&[b"shoal keyword\0", word.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lower_case_runs_of_letters_and_digits() {
        assert_eq!(
            words_of("Led Zeppelin - IV (1971) [FLAC] led"),
            ["led", "zeppelin", "iv", "1971", "flac"]
        );
        assert_eq!(
            words_of("  Ärger_ÜBER\u{2014}Größe "),
            ["ärger", "über", "größe"]
        );
        assert_eq!(words_of(&"x".repeat(100))[0].len(), MAX_WORD);
    }

    #[test]
    fn a_record_verifies_until_it_is_changed() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let title = "ü".repeat(200);
        let record = Record::sign(&key, Id([1; 20]), 5, 6, &title);
        assert_eq!(record.title.len(), MAX_TITLE);
        assert!(record.verify());
        assert!(
            !Record {
                size: 6,
                ..record.clone()
            }
            .verify()
        );
        assert!(record.matches(&words_of(&title)));
        assert!(!record.matches(&["other".to_owned()]));
    }
}
