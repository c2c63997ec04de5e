//! Which spellings are one name: those that differ in case, and those that look alike.
//!
//! Names are ASCII, so that of the confusable letters of Unicode (UTS 39) only those of ASCII are
//! left: `0 o`, `1 i l`, `rn m`, `vv w`, and the three separators.

/// A name as names are told apart: whoever has one spelling has all that fold to the same.
pub fn fold(name: &str) -> String {
    let letter = |c: char| match c.to_ascii_lowercase() {
        '0' => 'o',
        '1' | 'i' => 'l',
        '_' | '.' => '-',
        c => c,
    };
    let simple: String = name.chars().map(letter).collect();
    simple.replace("rn", "m").replace("vv", "w")
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn what_looks_alike_is_one_name() {
        for (one, other) in [
            ("Alice", "aIice"),
            ("alice", "a1ice"),
            ("bob", "B0b"),
            ("modern", "rnodem"),
            ("a.b", "a_b"),
            ("www", "vvvvvv"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
        }
        for (one, other) in [("alice", "alicia"), ("bob", "bobb"), ("a-b", "ab")] {
            assert_ne!(fold(one), fold(other));
        }
    }
}
