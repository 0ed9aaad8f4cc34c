//! Reads `created_at` as the Python router does, and converts it to UTC.
//!
//! The Python router calls `dateutil.parser.parse` of python-dateutil 2.9.0 and prints the result's
//! `isoformat()` in UTC. dateutil accepts far more than RFC 3339, and the key depends on its
//! result. So this module reads every text of up to 128 bytes as dateutil does, with one exception.
//! Where dateutil's result depends on the current day, on the host's zone or on a guess about the
//! century, this module refuses the text, because two routers could disagree.
//!
//! Reading has three steps: `token` splits the text, `reader` finds the fields, and
//! [`Timestamp::parse`] converts them to a point in time. For the most common form, `rfc3339` does
//! the first two at once. `chars` has Python's letters and digits. The reader uses `words`, the
//! vocabulary; `date`, which finds year, month and day; and `decimal`, the arithmetic of Python's
//! `Decimal`.

mod chars;
mod date;
mod decimal;
mod reader;
mod rfc3339;
mod token;
mod words;

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Timelike, Utc};
use date::Date;
use reader::Fields;
use serde::{Deserialize, Serialize};

/// Longest text that is read, in bytes. The run time of dateutil is quadratic in the length.
pub const MAX_TIMESTAMP_BYTES: usize = 128;

/// The time of an event, to the microsecond.
///
/// The `Display` form is Python's `datetime.isoformat()` with `Z` in place of `+00:00`:
/// `2026-05-06T12:34:56Z`, with six digits of fraction unless they are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(DateTime<Utc>);

/// Reasons why a text is not an unambiguous point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    #[error("created_at is longer than {MAX_TIMESTAMP_BYTES} bytes")]
    TooLong,
    #[error("created_at is not a date and time")]
    Unreadable,
    #[error("created_at names no full date: year, month and day are needed")]
    IncompleteDate,
    #[error("created_at has a two-digit year, which is ambiguous")]
    TwoDigitYear,
    #[error("created_at has a zone name, which is ambiguous: give the offset, as in +01:00")]
    ZoneName,
    #[error("created_at has a field outside its range")]
    OutOfRange,
}

impl Timestamp {
    /// Reads a text as python-dateutil does. A time without a zone is UTC.
    ///
    /// ```
    /// # use webhook_router::timestamp::Timestamp;
    /// let one = Timestamp::parse("2026-05-06T14:34:56.5+02:00").unwrap();
    /// assert_eq!(one.to_string(), "2026-05-06T12:34:56.500000Z");
    /// assert_eq!(Timestamp::parse("Wed, 06 May 2026 12:34:56.5 GMT"), Ok(one));
    /// ```
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        if text.len() > MAX_TIMESTAMP_BYTES {
            return Err(TimestampError::TooLong);
        }
        let fields = rfc3339::read(text).or_else(|| reader::read(token::split(text)));
        fields.ok_or(TimestampError::Unreadable)?.timestamp()
    }

    /// Returns the point in time that many microseconds after the start of 1970, or `None` if
    /// Python does not support its year.
    pub fn from_micros(micros: i64) -> Option<Self> {
        let time = DateTime::from_timestamp_micros(micros)?;
        (1..=9999).contains(&time.year()).then_some(Self(time))
    }
}

impl Fields {
    fn timestamp(&self) -> Result<Timestamp, TimestampError> {
        let date = self.date.ok_or(TimestampError::IncompleteDate)?;
        if self.century_guessed || (date.year < 100 && !self.century_given) {
            return Err(TimestampError::TwoDigitYear);
        }
        let offset = self.utc_offset().ok_or(TimestampError::ZoneName)?;
        self.utc(date, offset).map(Timestamp).ok_or(TimestampError::OutOfRange)
    }

    /// Returns the seconds east of UTC, or `None` if only a name identifies the zone.
    fn utc_offset(&self) -> Option<i64> {
        match (self.zone_name.as_deref(), self.zone_offset) {
            (None, offset) => Some(offset.unwrap_or(0)),
            // In dateutil, these names take precedence over an offset beside them: `-0300 (UTC)` is
            // UTC.
            (Some("UTC" | "GMT" | "Z" | "z"), _) => Some(0),
            (Some(_), _) => None,
        }
    }

    fn utc(&self, date: Date, offset: i64) -> Option<DateTime<Utc>> {
        let small = |field: Option<u64>| u32::try_from(field.unwrap_or(0)).ok();
        let python_years = 1..=9999;
        let year = i32::try_from(date.year).ok().filter(|year| python_years.contains(year))?;
        let local =
            NaiveDate::from_ymd_opt(year, small(Some(date.month))?, small(Some(date.day))?)?
                .and_hms_opt(small(self.hour)?, small(self.minute)?, small(self.second)?)?
                .with_nanosecond(small(self.microsecond)?.checked_mul(1_000)?)?;
        // Python limits the offset of a zone to less than a day.
        let offset = (offset.abs() < 86_400).then(|| TimeDelta::seconds(offset))?;
        let utc = local.checked_sub_signed(offset)?;
        python_years.contains(&utc.year()).then(|| utc.and_utc())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (time, microseconds) = (self.0, self.0.nanosecond() / 1_000);
        // A formatted write of seven numbers takes several times as long.
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        for (place, number) in [
            (0..4, time.year().cast_unsigned()),
            (5..7, time.month()),
            (8..10, time.day()),
            (11..13, time.hour()),
            (14..16, time.minute()),
            (17..19, time.second()),
            (20..26, microseconds),
        ] {
            put_digits(&mut text[place], number);
        }
        let text = str::from_utf8(&text).map_err(|_| fmt::Error)?;
        if microseconds == 0 {
            f.write_str(&text[..19])?;
            f.write_str("Z")
        } else {
            f.write_str(text)
        }
    }
}

/// Writes a number with leading zeros.
fn put_digits(digits: &mut [u8], mut number: u32) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn characters_that_mean_nothing_count_only_where_dateutil_reads_them() {
        // tests/parity/reference.py gives the same answers.
        for (text, expected) in [
            ("2026-05-06T12:34:56.123456²", Some("2026-05-06T12:34:56.123456Z")),
            ("2026-05-06T12:34:56.12345²", None),
            ("2026-05-06T12:34:56²", None),
            ("2026-05-06é", None),
            ("2026-05-06T12:00+aéb", None),
            ("2026 6 May of é", Some("2026-05-06T00:00:00Z")),
            ("2026 6 May of éz", Some("2026-05-06T00:00:00Z")),
            ("2026 6 May of €z", None),
            ("2026 6 May of €t", Some("2026-05-06T00:00:00Z")),
            ("2026 6 May of 1.5", Some("2026-05-06T00:00:00Z")),
            ("2026 6 May of ²", None),
            ("6 May of ２０２６", Some("2026-05-06T00:00:00Z")),
        ] {
            let time = Timestamp::parse(text).ok().map(|time| time.to_string());
            assert_eq!(time.as_deref(), expected, "{text}");
        }
    }
}
