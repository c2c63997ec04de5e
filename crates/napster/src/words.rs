//! How names are cut into words: letters, digits and everything beyond ASCII belong to a word,
//! and upper case is folded.

/// Bytes of a word at most; what is longer is cut.
pub const MAX_WORD: usize = 48;

/// Calls `each` with every word of `text`, folded, in order; `buf` is scratch space.
pub fn each_word(text: &[u8], buf: &mut Vec<u8>, mut each: impl FnMut(&[u8])) {
    if !text.is_ascii()
        && let Ok(text) = std::str::from_utf8(text)
    {
        buf.clear();
        for c in text.chars() {
            if c.is_alphanumeric() {
                for low in c.to_lowercase() {
                    let mut bytes = [0; 4];
                    buf.extend_from_slice(low.encode_utf8(&mut bytes).as_bytes());
                }
            } else if !buf.is_empty() {
                each(cut(buf));
                buf.clear();
            }
        }
        if !buf.is_empty() {
            each(cut(buf));
        }
        return;
    }
    // ASCII, or bytes of some code page, which are taken as letters.
    let mut rest = text;
    while let Some(start) = rest.iter().position(|b| is_word(*b)) {
        rest = rest.get(start..).unwrap_or_default();
        let end = rest.iter().position(|b| !is_word(*b)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        buf.clear();
        buf.extend(word.iter().take(MAX_WORD).map(u8::to_ascii_lowercase));
        each(buf);
        rest = after;
    }
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b >= 0x80
}

fn cut(word: &[u8]) -> &[u8] {
    word.get(..MAX_WORD).unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &[u8]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        each_word(text, &mut Vec::new(), |w| out.push(w.to_vec()));
        out
    }

    #[test]
    fn names_fall_into_folded_words() {
        assert_eq!(
            words(b"C:\\MP3\\Led_Zeppelin - 01 Rock'n'Roll.mp3"),
            [
                &b"c"[..],
                b"mp3",
                b"led",
                b"zeppelin",
                b"01",
                b"rock",
                b"n",
                b"roll",
                b"mp3"
            ]
        );
        assert_eq!(
            words("Ärzte—ÉTÉ".as_bytes()),
            ["ärzte".as_bytes(), "été".as_bytes()]
        );
        assert_eq!(words(b"\xc4rzte.X"), [&b"\xc4rzte"[..], b"x"]);
    }

    proptest! {
        #[test]
        fn words_are_short_and_never_empty(text: Vec<u8>) {
            for word in words(&text) {
                prop_assert!(!word.is_empty() && word.len() <= MAX_WORD);
            }
        }
    }
}
