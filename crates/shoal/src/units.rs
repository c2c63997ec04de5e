//! Sizes, rates and durations as people write and read them.
//!
//! Reading takes `512K`, `3MiB`, `1.5 GB`, with an optional `/s`; a bare suffix (`K`, `M`) and
//! the IEC one (`KiB`, `MiB`) are powers of 1024, the SI one (`kB`, `MB`) powers of 1000.
//! Writing uses IEC units.

use std::fmt;
use std::time::Duration;

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SizeError {
    /// It does not start with a number.
    #[error("expected a number such as 512K, 3MiB or 1000000")]
    NoNumber,
    /// What follows the number is no unit.
    #[error("unknown unit {0:?}; use K, M, G, T (1024), KiB… or kB… (1000)")]
    Unit(String),
    /// More than 64 bits of bytes.
    #[error("too large")]
    TooLarge,
}

/// Reads a size in bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, SizeError> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(SizeError::NoNumber);
    }
    let factor = factor(unit.trim())?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or(SizeError::TooLarge);
    }
    if number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(SizeError::TooLarge);
    }
    let bytes = number.parse::<f64>().map_err(|_| SizeError::NoNumber)? * factor as f64;
    if bytes >= u64::MAX as f64 {
        return Err(SizeError::TooLarge);
    }
    Ok(bytes.round() as u64)
}

/// Reads a rate in bytes per second; the `/s` may be left out. Zero means "no limit".
pub(crate) fn parse_rate(text: &str) -> Result<u64, SizeError> {
    let text = text.trim();
    parse_size(text.strip_suffix("/s").unwrap_or(text))
}

fn factor(unit: &str) -> Result<u64, SizeError> {
    let bad = || SizeError::Unit(unit.chars().take(20).collect());
    let lower = unit.to_ascii_lowercase();
    let mut letters = lower.chars();
    let power = match letters.next() {
        None => return Ok(1),
        Some('b') if lower.len() == 1 => return Ok(1),
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some(_) => return Err(bad()),
    };
    let base: u64 = match letters.as_str() {
        "" | "i" | "ib" => 1024,
        "b" => 1000,
        _ => return Err(bad()),
    };
    Ok(base.pow(power))
}

/// Writes a size: `0 B`, `812 KiB`, `1.5 GiB`.
#[derive(Clone, Copy)]
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        // 1023.95 would print as "1024.0".
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        let digits = usize::from(value < 99.95);
        f.pad(&format!("{value:.digits$} {}", UNITS[unit]))
    }
}

/// Writes a rate: `3.1 MiB/s`.
#[derive(Clone, Copy)]
pub(crate) struct Rate(pub(crate) u64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/s", Size(self.0)))
    }
}

/// Writes a duration: `0.4s`, `12s`, `3m 05s`, `2h 10m`, `4d 03h`.
#[derive(Clone, Copy)]
pub(crate) struct Span(pub(crate) Duration);

impl Span {
    /// A span of whole seconds.
    pub(crate) fn secs(s: u64) -> Self {
        Self(Duration::from_secs(s))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0.as_secs();
        let text = match s {
            0..10 if self.0.subsec_nanos() > 0 => format!("{:.1}s", self.0.as_secs_f64()),
            0..60 => format!("{s}s"),
            60..3600 => format!("{}m {:02}s", s / 60, s % 60),
            3600..86_400 => format!("{}h {:02}m", s / 3600, s / 60 % 60),
            _ => format!("{}d {:02}h", s / 86_400, s / 3600 % 24),
        };
        f.pad(&text)
    }
}

/// Writes a count with its noun: `1 file`, `3 files`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {noun}{s}")
}

/// Seconds left for `left` bytes at `rate` bytes per second; none when nothing moves.
pub(crate) fn eta_s(left: u64, rate: u64) -> Option<u64> {
    if left == 0 {
        return Some(0);
    }
    (rate > 0).then(|| left.div_ceil(rate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_with_every_usual_suffix() {
        for (text, bytes) in [
            ("0", 0),
            ("1000000", 1_000_000),
            ("512K", 512 << 10),
            ("512k", 512 << 10),
            ("3MiB", 3 << 20),
            ("3 MiB", 3 << 20),
            ("2Mi", 2 << 20),
            ("5MB", 5_000_000),
            ("5mb", 5_000_000),
            ("1.5G", 3 << 29),
            ("1TiB", 1 << 40),
            ("7B", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "-1", "1X", "1KiBs", "1..2K", "99999999T", ".5K"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(parse_rate("2MiB/s"), Ok(2 << 20));
        assert_eq!(parse_rate("64K"), Ok(64 << 10));
    }

    #[test]
    fn sizes_and_durations_are_written_briefly() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (150 << 10, "150 KiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
        for (s, text) in [
            (0, "0s"),
            (59, "59s"),
            (65, "1m 05s"),
            (3700, "1h 01m"),
            (90_000, "1d 01h"),
        ] {
            assert_eq!(Span::secs(s).to_string(), text);
        }
        assert_eq!(eta_s(100, 0), None);
        assert_eq!(eta_s(100, 30), Some(4));
        assert_eq!(eta_s(0, 0), Some(0));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,20}") {
            let _ = parse_size(&text);
        }

        #[test]
        fn whole_numbers_of_bytes_round_trip(n in any::<u64>()) {
            prop_assert_eq!(parse_size(&n.to_string()), Ok(n));
        }
    }
}
