//! Comparing secrets.

/// Whether two strings of bytes are equal, without telling by the time taken where they differ.
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn equal_bytes_are_the_same_and_others_are_not() {
        assert!(same(b"", b""));
        assert!(same(b"tag", b"tag"));
        assert!(!same(b"tag", b"tab"));
        assert!(!same(b"tag", b"tags"));
    }
}
