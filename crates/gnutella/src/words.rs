//! How names and queries are cut into words: case and accents are folded, whatever is neither a
//! letter nor a digit parts words.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Bytes of a word at most; what is longer is cut.
pub const MAX_WORD: usize = 64;
/// Words of one text that are looked at.
pub const MAX_WORDS: usize = 32;

/// Calls `each` with every word of `text`, folded, in order; `buf` is scratch space.
pub fn each_word(text: &str, buf: &mut String, mut each: impl FnMut(&str)) {
    buf.clear();
    if text.is_ascii() {
        for word in text.split(|c: char| !c.is_ascii_alphanumeric()) {
            if !word.is_empty() {
                buf.clear();
                buf.push_str(word.get(..MAX_WORD).unwrap_or(word));
                buf.make_ascii_lowercase();
                each(buf);
            }
        }
        return;
    }
    for c in text.nfkd().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            if buf.len() + c.len_utf8() <= MAX_WORD {
                buf.push(c);
            }
        } else if !is_combining_mark(c) && !buf.is_empty() {
            each(buf);
            buf.clear();
        }
    }
    if !buf.is_empty() {
        each(buf);
    }
}

/// The distinct words of a query's text, folded, [`MAX_WORDS`] at most. Bytes that are not UTF-8 are
/// taken as Latin-1, which old programs send.
pub fn fold(text: &[u8]) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let latin;
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(_) => {
            latin = text.iter().map(|b| char::from(*b)).collect::<String>();
            &latin
        }
    };
    each_word(text, &mut String::new(), |word| {
        if words.len() < MAX_WORDS && !words.iter().any(|w| w == word) {
            words.push(word.to_owned());
        }
    });
    words
}

/// Whether a name has all of `words`, each as a word or the start of one.
pub fn has_all(name: &str, words: &[String]) -> bool {
    let mut missing = if words.len() >= 32 {
        u32::MAX
    } else {
        (1 << words.len()) - 1
    };
    each_word(name, &mut String::new(), |word| {
        for (n, wanted) in words.iter().take(32).enumerate() {
            if word.starts_with(wanted.as_str()) {
                missing &= !(1 << n);
            }
        }
    });
    missing == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_fall_into_folded_words() {
        assert_eq!(
            fold(b"Led_Zeppelin - 01 Rock'n'Roll.MP3 rock"),
            ["led", "zeppelin", "01", "rock", "n", "roll", "mp3"]
        );
        assert_eq!(fold("Ärzte—ÉTÉ ﬁn".as_bytes()), ["arzte", "ete", "fin"]);
        assert_eq!(fold(b"\xc4rzte"), ["arzte"]);
    }

    #[test]
    fn words_match_where_words_begin() {
        let words = fold(b"zep roll");
        assert!(has_all("Led Zeppelin - rolling.mp3", &words));
        assert!(!has_all("Led Zeppelin - scroll.mp3", &words));
    }

    proptest! {
        #[test]
        fn words_are_short_never_empty_and_stay_as_they_are(text: Vec<u8>) {
            for word in fold(&text) {
                prop_assert!(!word.is_empty() && word.len() <= MAX_WORD);
                prop_assert_eq!(fold(word.as_bytes()), [word]);
            }
        }

        #[test]
        fn a_name_has_its_own_words(name in "\\PC{0,30}") {
            prop_assert!(has_all(&name, &fold(name.as_bytes())));
        }
    }
}
