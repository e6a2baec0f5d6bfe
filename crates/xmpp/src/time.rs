//! Moments as XMPP writes them (XEP-0082, profile `DateTime`).
//!
//! A moment is a count of microseconds, so that it is compared, stored and sent between nodes as one number. The calendar is
//! the proleptic Gregorian one, by arithmetic on days: no time zone data and no library is needed for UTC.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const MICROS: u64 = 1_000_000;
const DAY_SECS: i64 = 86_400;

/// The most octets of a moment that are looked at: a fraction may be long, but not without end.
const MAX_TEXT: usize = 64;

/// 9999-12-31T23:59:59.999999Z, the last moment that can be written.
const LAST: u64 = 253_402_300_799 * MICROS + 999_999;

/// A moment: microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

/// The string is no `DateTime` of XEP-0082.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a date and time of XEP-0082")]
pub struct NotADateTime;

impl Timestamp {
    /// A moment at a full second since the epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(MICROS))
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Full seconds since the epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / MICROS
    }

    /// The moment this much later; it stops at the end of the type.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The moment this much earlier; it stops at the epoch.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Reads `CCYY-MM-DDThh:mm:ss[.sss]TZD`, years 0001–9999. The zone must be there. Digits beyond the microsecond
    /// are dropped, and what lies before the epoch becomes the epoch: such moments occur as a filter ("since ever") only.
    pub fn parse(s: &str) -> Option<Self> {
        if s.len() > MAX_TEXT {
            return None;
        }
        let mut text = Text(s.as_bytes());
        let year = text.number(4).filter(|&year| year >= 1)?;
        text.byte(b'-')?;
        let month = text.number(2).filter(|month| (1..=12).contains(month))?;
        text.byte(b'-')?;
        let day = text.number(2).filter(|&day| day >= 1 && day <= days_in_month(year, month))?;
        text.byte(b'T')?;
        let hour = text.number(2).filter(|&hour| hour <= 23)?;
        text.byte(b':')?;
        let minute = text.number(2).filter(|&minute| minute <= 59)?;
        text.byte(b':')?;
        let second = text.number(2).filter(|&second| second <= 59)?;
        let micros = text.fraction()?;
        let offset = text.zone()?;
        if !text.0.is_empty() {
            return None;
        }

        let secs = days_from_civil(year, month, day) * DAY_SECS + hour * 3600 + minute * 60 + second - offset;
        let Ok(secs) = u64::try_from(secs) else { return Some(Self(0)) };
        let moment = secs * MICROS + micros;
        (moment <= LAST).then_some(Self(moment))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = self.0.min(LAST);
        let (secs, micros) = ((moment / MICROS) as i64, moment % MICROS);
        let (year, month, day) = civil_from_days(secs / DAY_SECS);
        let second = secs % DAY_SECS;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        match micros {
            0 => {}
            _ if micros % 1000 == 0 => write!(f, ".{:03}", micros / 1000)?,
            _ => write!(f, ".{micros:06}")?,
        }
        f.write_str("Z")
    }
}

impl FromStr for Timestamp {
    type Err = NotADateTime;

    fn from_str(s: &str) -> Result<Self, NotADateTime> {
        Self::parse(s).ok_or(NotADateTime)
    }
}

/// What is left to read.
struct Text<'a>(&'a [u8]);

impl Text<'_> {
    fn take(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn byte(&mut self, wanted: u8) -> Option<()> {
        (self.take()? == wanted).then_some(())
    }

    fn number(&mut self, digits: usize) -> Option<i64> {
        let mut number = 0;
        for _ in 0..digits {
            let byte = self.take().filter(u8::is_ascii_digit)?;
            number = number * 10 + i64::from(byte - b'0');
        }
        Some(number)
    }

    /// Microseconds of an optional fraction: a point needs a digit.
    fn fraction(&mut self) -> Option<u64> {
        if self.0.first() != Some(&b'.') {
            return Some(0);
        }
        let digits = &self.0[1..];
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return None;
        }
        self.0 = &digits[count..];
        let known = digits[..count].iter().map(|byte| u64::from(byte - b'0')).chain(std::iter::repeat(0));
        Some(known.take(6).fold(0, |micros, digit| micros * 10 + digit))
    }

    /// Seconds east of Greenwich. XML Schema ends the zones at fourteen hours.
    fn zone(&mut self) -> Option<i64> {
        let sign = match self.take()? {
            b'Z' => return Some(0),
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        let hours = self.number(2)?;
        self.byte(b':')?;
        let minutes = self.number(2).filter(|&minutes| minutes <= 59)?;
        let offset = hours * 60 + minutes;
        (offset <= 14 * 60).then_some(sign * offset * 60)
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of a 400-year cycle, after which the calendar repeats.
const CYCLE_DAYS: i64 = 146_097;

/// Days from 0000-03-01 to 1970-01-01. Years are taken to begin in March, which puts the leap day at their end.
const EPOCH: i64 = 719_468;

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (cycle, year) = (year.div_euclid(400), year.rem_euclid(400));
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    cycle * CYCLE_DAYS + year * 365 + year / 4 - year / 100 + day_of_year - EPOCH
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH;
    let (cycle, day) = (days.div_euclid(CYCLE_DAYS), days.rem_euclid(CYCLE_DAYS));
    // The last day of the 4-, 100- and 400-year periods would otherwise begin one more year.
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (year * 365 + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = cycle * 400 + year;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn micros(s: &str) -> Option<u64> {
        Timestamp::parse(s).map(Timestamp::as_micros)
    }

    #[test]
    fn reads_the_examples_of_the_specification() {
        assert_eq!(micros("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(micros("2002-09-10T23:08:25Z"), Some(1_031_699_305 * MICROS));
        assert_eq!(micros("2002-09-10T23:41:07.500-05:00"), micros("2002-09-11T04:41:07.5Z"));
        // Before the epoch.
        assert_eq!(micros("1969-07-21T02:56:15Z"), Some(0));
        assert_eq!(micros("0001-01-01T00:00:00+14:00"), Some(0));
        assert_eq!(micros("9999-12-31T23:59:59.9999999Z"), Some(LAST));
        assert_eq!(micros("2024-02-29T12:00:00.000001Z"), Some(1_709_208_000 * MICROS + 1));
    }

    #[test]
    fn refuses_what_is_not_a_date_time() {
        let long = format!("2024-02-29T12:00:00.{}Z", "1".repeat(60));
        for bad in [
            "",
            "2024-02-29",
            "12:00:00Z",
            "20240229T12:00:00Z",
            "2024-02-29T12:00:00",
            "2024-02-29 12:00:00Z",
            "2024-02-29t12:00:00z",
            "2023-02-29T12:00:00Z",
            "1900-02-29T12:00:00Z",
            "2024-13-01T12:00:00Z",
            "2024-00-01T12:00:00Z",
            "2024-04-31T12:00:00Z",
            "2024-04-00T12:00:00Z",
            "2024-04-30T24:00:00Z",
            "2024-04-30T12:60:00Z",
            "2024-04-30T12:00:60Z",
            "2024-04-30T12:00:00.Z",
            "2024-04-30T12:00:00,5Z",
            "2024-04-30T12:00:00+14:01",
            "2024-04-30T12:00:00+0100",
            "2024-04-30T12:00:00+01",
            "2024-04-30T12:00:00+01:60",
            "2024-04-30T12:00:00Zz",
            " 2024-04-30T12:00:00Z",
            "0000-01-01T00:00:00Z",
            "-001-01-01T00:00:00Z",
            "12024-04-30T12:00:00Z",
            "9999-12-31T23:59:59-00:01",
            "２024-04-30T12:00:00Z",
            long.as_str(),
        ] {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn writes_no_more_digits_than_needed() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp(1_795_239_900_123_456).to_string(), "2026-11-21T05:45:00.123456Z");
        assert_eq!(Timestamp(1_795_239_900_120_000).to_string(), "2026-11-21T05:45:00.120Z");
        assert_eq!(Timestamp(951_782_400 * MICROS + 1).to_string(), "2000-02-29T00:00:00.000001Z");
        assert_eq!(Timestamp(u64::MAX).to_string(), "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut date = (1970, 1, 1);
        for days in 0..(LAST / MICROS) as i64 / DAY_SECS {
            assert_eq!(civil_from_days(days), date);
            assert_eq!(days_from_civil(date.0, date.1, date.2), days);
            date = match date {
                (year, 12, 31) => (year + 1, 1, 1),
                (year, month, day) if day == days_in_month(year, month) => (year, month + 1, 1),
                (year, month, day) => (year, month, day + 1),
            };
        }
    }

    #[test]
    fn arithmetic_saturates() {
        let now = Timestamp::from_secs(10);
        assert_eq!(now.plus(Duration::from_millis(1)), Timestamp(10_001_000));
        assert_eq!(now.minus(Duration::from_secs(11)), Timestamp(0));
        assert_eq!(now.plus(Duration::MAX), Timestamp(u64::MAX));
        assert_eq!(now.saturating_since(Timestamp::from_secs(4)), Duration::from_secs(6));
        assert_eq!(Timestamp(0).saturating_since(now), Duration::ZERO);
        assert_eq!(Timestamp::from_secs(u64::MAX), Timestamp(u64::MAX));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(moment in 0..=LAST) {
            prop_assert_eq!(Timestamp::parse(&Timestamp(moment).to_string()), Some(Timestamp(moment)));
        }

        #[test]
        fn an_offset_moves_the_moment(
            secs in 100_000..200_000_000_000u64,
            offset in 0..=14 * 60u64,
            east in any::<bool>(),
        ) {
            let text = Timestamp::from_secs(secs).to_string();
            let sign = if east { '+' } else { '-' };
            let zoned = text.replace('Z', &format!("{sign}{:02}:{:02}", offset / 60, offset % 60));
            let expected = if east { secs - offset * 60 } else { secs + offset * 60 };
            prop_assert_eq!(Timestamp::parse(&zoned), Some(Timestamp::from_secs(expected)));
        }

        #[test]
        fn no_input_panics(text in "[0-9TZ:.+-]{0,70}|\\PC{0,30}") {
            let _ = Timestamp::parse(&text);
        }
    }
}
