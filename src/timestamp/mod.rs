//! `created_at` to UTC, as the Python router reads it.
//!
//! That router calls `dateutil.parser.parse` of python-dateutil 2.9.0 and prints the result's
//! `isoformat()` in UTC. dateutil accepts far more than RFC 3339, and the key depends on its
//! reading, so this module reads every text as dateutil does. Where dateutil's answer depends on
//! the day, on the host's zone or on a guess about the century, it refuses instead: two routers
//! could disagree.
//!
//! Three steps: `token` splits the text, `reader` finds the fields, and [`Timestamp::parse`]
//! makes a point in time of them. The reader uses `words`, the vocabulary; `date`, which tells
//! year, month and day apart; and `decimal`, the arithmetic of Python's `Decimal`.

mod date;
mod decimal;
mod reader;
mod token;
mod words;

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Timelike, Utc};
use date::Date;
use reader::Fields;
use serde::{Deserialize, Serialize};

/// Longest text that is read, in bytes. dateutil's time is quadratic in the length.
pub const MAX_TIMESTAMP_BYTES: usize = 128;

/// When an event happened, to the microsecond.
///
/// Displays as Python's `datetime.isoformat()` with `+00:00` written `Z`:
/// `2026-05-06T12:34:56Z`, with six digits of fraction unless they are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(DateTime<Utc>);

/// Why a text is not an unambiguous point in time.
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
    /// Reads a text as python-dateutil does; a time without a zone is UTC.
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
        let tokens = token::split(text).ok_or(TimestampError::Unreadable)?;
        let fields = reader::read(tokens).ok_or(TimestampError::Unreadable)?;
        fields.timestamp()
    }

    /// The point in time that lies so many microseconds after the beginning of 1970; nothing when
    /// its year is none of Python's.
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

    /// Seconds east of UTC; nothing when only a name says which zone is meant.
    fn utc_offset(&self) -> Option<i64> {
        match (self.zone_name.as_deref(), self.zone_offset) {
            (None, offset) => Some(offset.unwrap_or(0)),
            // To dateutil these names outweigh an offset beside them: `-0300 (UTC)` is UTC.
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
        // Python's limit for the offset of a zone is a day, exclusive.
        let offset = (offset.abs() < 86_400).then(|| TimeDelta::seconds(offset))?;
        let utc = local.checked_sub_signed(offset)?;
        python_years.contains(&utc.year()).then(|| utc.and_utc())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (time, microseconds) = (self.0, self.0.nanosecond() / 1_000);
        write!(f, "{}", time.format("%Y-%m-%dT%H:%M:%S"))?;
        if microseconds != 0 {
            write!(f, ".{microseconds:06}")?;
        }
        f.write_str("Z")
    }
}
