//! The words of queries and names.

use shoal_base::words::{each_word, text_of};

/// Words of one text that are looked at.
pub const MAX_WORDS: usize = 32;

/// The distinct words of a query's text, folded, [`MAX_WORDS`] at most. Bytes that are not UTF-8 are
/// taken as Latin-1, which old programs send.
pub fn fold(text: &[u8]) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    each_word(&text_of(text), &mut String::new(), |word| {
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
                prop_assert!(!word.is_empty() && word.len() <= shoal_base::words::MAX_WORD);
                prop_assert_eq!(fold(word.as_bytes()), [word]);
            }
        }

        #[test]
        fn a_name_has_its_own_words(name in "\\PC{0,30}") {
            prop_assert!(has_all(&name, &fold(name.as_bytes())));
        }
    }
}
