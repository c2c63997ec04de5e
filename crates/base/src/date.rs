//! Seconds since 1970 as a date and a time of day, in UTC.

/// A moment of the proleptic Gregorian calendar, in UTC without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    /// The year; negative before the year 0.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

impl Date {
    /// The date `seconds` after the beginning of 1970 (days-to-civil after Howard Hinnant); nothing
    /// for one that is ten thousand years away.
    pub fn utc(seconds: i64) -> Option<Self> {
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        if days.abs() > 3_650_000 {
            return None;
        }
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        Some(Self {
            year: yoe + era * 400 + i64::from(month <= 2),
            month: month as u8,
            day: (doy - (153 * mp + 2) / 5 + 1) as u8,
            hour: (rest / 3600) as u8,
            minute: (rest / 60 % 60) as u8,
            second: (rest % 60) as u8,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        let date = |s| {
            let d = Date::utc(s).expect("near");
            (d.year, d.month, d.day, d.hour, d.minute, d.second)
        };
        assert_eq!(date(0), (1970, 1, 1, 0, 0, 0));
        assert_eq!(date(951_827_696), (2000, 2, 29, 12, 34, 56));
        assert_eq!(date(-1), (1969, 12, 31, 23, 59, 59));
        assert_eq!(Date::utc(i64::MAX), None);
    }
}
