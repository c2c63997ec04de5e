//! How names and searches are cut into words, the same for every overlay: case and accents are
//! folded, and whatever is neither a letter nor a digit parts words.
//!
//! Folding is compatibility decomposition (NFKD, Unicode annex 15) without combining marks, then
//! lower case, ß as ss and ς as σ: `Straße`, `STRASSE` and `ﬁn`, `fin` are the same.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Bytes of a word at most; what is longer is cut between characters.
pub const MAX_WORD: usize = 64;

/// Calls `each` with every word of `text`, folded, in order; `buf` is scratch space.
pub fn each_word(text: &str, buf: &mut String, mut each: impl FnMut(&str)) {
    if text.is_ascii() {
        return each_ascii(text, buf, each);
    }
    buf.clear();
    for c in text.nfkd() {
        if is_combining_mark(c) {
            continue;
        }
        if !c.is_alphanumeric() {
            if !buf.is_empty() {
                each(buf);
                buf.clear();
            }
            continue;
        }
        let mut push = |c: char| {
            if buf.len() + c.len_utf8() <= MAX_WORD {
                buf.push(c);
            }
        };
        match c {
            'ß' | 'ẞ' => "ss".chars().for_each(push),
            'ς' => push('σ'),
            // Lower case may be another decomposed letter; its marks are no part of a word.
            _ => c
                .to_lowercase()
                .filter(|c| c.is_alphanumeric())
                .for_each(push),
        }
    }
    if !buf.is_empty() {
        each(buf);
    }
}

fn each_ascii(text: &str, buf: &mut String, mut each: impl FnMut(&str)) {
    let is_word = |b: &u8| b.is_ascii_alphanumeric();
    let mut rest = text;
    while let Some(start) = rest.bytes().position(|b| is_word(&b)) {
        rest = rest.get(start..).unwrap_or_default();
        let end = rest.bytes().position(|b| !is_word(&b));
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        buf.clear();
        buf.push_str(word.get(..MAX_WORD).unwrap_or(word));
        buf.make_ascii_lowercase();
        each(buf);
        rest = after;
    }
}

/// The text that some bytes mean: UTF-8, or else Latin-1, which old programs send.
#[must_use]
pub fn text_of(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes.iter().map(|b| char::from(*b)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<String> {
        let mut out = Vec::new();
        each_word(text, &mut String::new(), |w| out.push(w.to_owned()));
        out
    }

    #[test]
    fn names_fall_into_folded_words() {
        assert_eq!(
            words("C:\\MP3\\Led_Zeppelin - 01 Rock'n'Roll.mp3"),
            [
                "c", "mp3", "led", "zeppelin", "01", "rock", "n", "roll", "mp3"
            ]
        );
        assert_eq!(words("Ärzte—ÉTÉ ﬁn"), ["arzte", "ete", "fin"]);
        assert_eq!(
            words("Straße STRASSE ΟΔΟΣ οδος"),
            ["strasse", "strasse", "οδοσ", "οδοσ"]
        );
        assert_eq!(words("e\u{301}te\u{301} Ⅳ İ"), ["ete", "iv", "i"]);
        assert_eq!(words(&text_of(b"\xc4rzte.X")), ["arzte", "x"]);
        assert_eq!(words(&"ä".repeat(80)), ["a".repeat(64)]);
    }

    proptest! {
        #[test]
        fn words_are_short_never_empty_and_stay_as_they_are(bytes: Vec<u8>, text: String) {
            for word in words(&text_of(&bytes)).into_iter().chain(words(&text)) {
                prop_assert!(!word.is_empty() && word.len() <= MAX_WORD);
                prop_assert_eq!(words(&word), [word]);
            }
        }

        #[test]
        fn case_and_accents_make_no_difference(text in "[a-zäöüéçñ ]{0,30}") {
            let decomposed: String = text.nfd().collect();
            prop_assert_eq!(words(&text), words(&text.to_uppercase()));
            prop_assert_eq!(words(&text), words(&decomposed));
        }
    }
}
