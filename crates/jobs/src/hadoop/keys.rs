//! The options of `KeyFieldBasedPartitioner` and `KeyFieldBasedComparator`: `-k1,2 -k3,3nr`.

use shoal_mapreduce::job::KeyPart;

/// Reads options such as `-k1,1 -k2,2nr` or `-nr`. No `-k` means the whole key.
///
/// # Errors
/// What is wrong with them, without their name.
pub fn parse(options: &str) -> Result<Vec<KeyPart>, String> {
    let mut parts = Vec::new();
    let (mut numeric, mut reverse) = (false, false);
    let mut words = options.split_whitespace();
    while let Some(word) = words.next() {
        let text = word
            .strip_prefix('-')
            .ok_or_else(|| format!("{word:?} does not begin with a minus sign"))?;
        match text.strip_prefix('k') {
            // `-k 1,2` is `-k1,2`.
            Some("") => parts.push(part(words.next().unwrap_or_default())?),
            Some(spec) => parts.push(part(spec)?),
            None => {
                let (n, r) = flags(text).ok_or_else(|| {
                    format!("{word:?} is not understood; there are -kF,L, -n and -r")
                })?;
                numeric |= n;
                reverse |= r;
            }
        }
    }
    // Flags of their own come before the ones for all, as in `sort`.
    for part in &mut parts {
        if !part.numeric && !part.reverse {
            part.numeric = numeric;
            part.reverse = reverse;
        }
    }
    if parts.is_empty() {
        parts.push(KeyPart {
            first: 1,
            last: None,
            numeric,
            reverse,
        });
    }
    Ok(parts)
}

/// `n`, `r`, both or neither, in any order: numeric, reverse.
fn flags(text: &str) -> Option<(bool, bool)> {
    let known = text.chars().all(|c| c == 'n' || c == 'r');
    known.then(|| (text.contains('n'), text.contains('r')))
}

/// One `F[,L]` with flags behind either.
fn part(spec: &str) -> Result<KeyPart, String> {
    let bad = || format!("-k{spec} is not understood; write -kFIRST,LAST with n and r behind it");
    let (first, last) = match spec.split_once(',') {
        Some((first, last)) => (first, Some(last)),
        None => (spec, None),
    };
    let field = |text: &str| -> Result<(u32, bool, bool), String> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, rest) = text.split_at(digits);
        if rest.starts_with('.') {
            return Err(format!(
                "-k{spec}: places within a field are not supported, whole fields are"
            ));
        }
        let (n, r) = flags(rest).ok_or_else(bad)?;
        Ok((number.parse().map_err(|_| bad())?, n, r))
    };
    let (from, n1, r1) = field(first)?;
    let (to, n2, r2) = match last {
        None => (None, false, false),
        Some(last) => {
            let (to, n, r) = field(last)?;
            // Hadoop's field 0 at the end is the key's end.
            ((to > 0).then_some(to), n, r)
        }
    };
    if from == 0 || to.is_some_and(|to| to < from) {
        return Err(format!(
            "-k{spec}: fields count from 1, the first comes first"
        ));
    }
    Ok(KeyPart {
        first: from,
        last: to,
        numeric: n1 || n2,
        reverse: r1 || r2,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(first: u32, last: Option<u32>, numeric: bool, reverse: bool) -> KeyPart {
        KeyPart {
            first,
            last,
            numeric,
            reverse,
        }
    }

    #[test]
    fn options_are_read_as_hadoop_documents_them() {
        assert_eq!(parse("-k1,2"), Ok(vec![key(1, Some(2), false, false)]));
        assert_eq!(
            parse("-k1,1 -k2,2nr"),
            Ok(vec![
                key(1, Some(1), false, false),
                key(2, Some(2), true, true)
            ])
        );
        assert_eq!(parse("-k2nr"), Ok(vec![key(2, None, true, true)]));
        assert_eq!(parse("-k 3,3 -n"), Ok(vec![key(3, Some(3), true, false)]));
        assert_eq!(parse("-nr"), Ok(vec![key(1, None, true, true)]));
        assert_eq!(parse(""), Ok(vec![key(1, None, false, false)]));
        assert_eq!(parse("-k1,0"), Ok(vec![key(1, None, false, false)]));
    }

    #[test]
    fn mistakes_are_told() {
        for bad in [
            "k1",
            "-x",
            "-k0,1",
            "-k2,1",
            "-k",
            "-kx",
            "-k1,2x",
            "-k99999999999",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let why = parse("-k1.2,1.4").expect_err("places");
        assert!(why.contains("places within a field"), "{why}");
    }

    proptest! {
        #[test]
        fn any_text_is_options_or_an_error(text in "[-k0-9,.nrx ]{0,20}") {
            let _ = parse(&text);
        }

        #[test]
        fn parts_come_back(first in 1..9u32, more in 0..9u32, n: bool, r: bool) {
            let (n_text, r_text) = (if n { "n" } else { "" }, if r { "r" } else { "" });
            let text = format!("-k{first},{}{n_text}{r_text}", first + more);
            prop_assert_eq!(parse(&text), Ok(vec![key(first, Some(first + more), n, r)]));
        }
    }
}
