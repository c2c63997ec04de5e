//! What a search asks of paths, folded as they are.

use shoal_base::words::each_word;

/// Words of one search that are looked at.
const MAX_TERMS: usize = 64;

/// The words of a search.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    /// Words that must be there.
    pub(super) words: Vec<String>,
    /// Beginnings of words that must be there.
    pub(super) beginnings: Vec<String>,
    /// Words of which none may be there.
    pub(super) without: Vec<String>,
}

fn push(to: &mut Vec<String>, text: &str) {
    each_word(text, &mut String::new(), |word| {
        if to.len() < MAX_TERMS && !to.iter().any(|known| known == word) {
            to.push(word.to_owned());
        }
    });
}

impl Terms {
    /// Reads a search as people write it: words, `-word` for one that must not be there, `begin*`
    /// for the beginning of a word.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut terms = Self::default();
        for part in text.split_whitespace() {
            match (part.strip_prefix('-'), part.strip_suffix('*')) {
                (Some(banned), _) => terms.ban(banned),
                (_, Some(begin)) => terms.require_beginning(begin),
                _ => terms.require(part),
            }
        }
        terms
    }

    /// All words of `text` must be there.
    pub fn require(&mut self, text: &str) {
        push(&mut self.words, text);
    }

    /// All words of `text` must be there, of the last of them at least the beginning.
    pub fn require_beginning(&mut self, text: &str) {
        let mut words = Vec::new();
        push(&mut words, text);
        self.beginnings.extend(words.pop());
        words.iter().for_each(|word| push(&mut self.words, word));
    }

    /// No word of `text` may be there.
    pub fn ban(&mut self, text: &str) {
        push(&mut self.without, text);
    }

    /// Whether a path holds a word that may not be there.
    #[must_use]
    pub fn bans(&self, path: &str) -> bool {
        let mut banned = false;
        each_word(path, &mut String::new(), |word| {
            banned |= self.without.iter().any(|w| w == word);
        });
        banned
    }

    /// Whether it asks for nothing, and so finds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty() && self.beginnings.is_empty()
    }

    /// Whether a path is what is asked for: what an index finds out faster.
    #[must_use]
    pub fn fit(&self, path: &str) -> bool {
        let mut words = Vec::new();
        each_word(path, &mut String::new(), |word| words.push(word.to_owned()));
        !self.is_empty()
            && self.words.iter().all(|w| words.contains(w))
            && !self.without.iter().any(|w| words.contains(w))
            && self
                .beginnings
                .iter()
                .all(|b| words.iter().any(|w| w.starts_with(b.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_are_read_as_people_write_them() {
        let terms = Terms::parse("Led zep* -LIVE rock'n'ro*");
        assert_eq!(terms.words, ["led", "rock", "n"]);
        assert_eq!(terms.beginnings, ["zep", "ro"]);
        assert_eq!(terms.without, ["live"]);
        assert!(terms.fit("Led Zeppelin/Rock 'n' Roll.mp3"));
        assert!(!terms.fit("Led Zeppelin/Rock 'n' Roll (live).mp3"));
        assert!(Terms::parse("-live * -").is_empty());
    }
}
