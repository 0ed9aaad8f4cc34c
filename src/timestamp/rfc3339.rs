//! Reads the common form of a time, `2026-05-06T14:34:56.789+02:00`, without splitting it into tokens.
//!
//! Nearly every vendor sends this form. The fields are those that `reader` finds, in a fraction of
//! the time.

use super::{date::Date, reader::Fields};

/// Returns the fields of a text of that form. The fraction and the zone may be absent, and the zone
/// may be `Z`. Returns `None` for any other text.
pub(super) fn read(text: &str) -> Option<Fields> {
    let (date_and_time, rest) = text.as_bytes().split_first_chunk::<19>()?;
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, separator)| date_and_time[*at] != *separator) {
        return None;
    }
    let field = |start: usize, end: usize| number(&date_and_time[start..end]);
    let (microsecond, zone) = fraction(rest)?;
    let date = Date { year: field(0, 4)?, month: field(5, 7)?, day: field(8, 10)? };
    Some(Fields {
        date: Some(date),
        century_given: true,
        hour: Some(field(11, 13)?),
        minute: Some(field(14, 16)?),
        second: Some(field(17, 19)?),
        microsecond: Some(microsecond),
        zone_offset: offset(zone)?,
        ..Fields::default()
    })
}

/// Reads a fraction of a second, if there is one. Returns the microseconds, and the text after it.
fn fraction(text: &[u8]) -> Option<(u64, &[u8])> {
    let Some(fraction) = text.strip_prefix(b".") else { return Some((0, text)) };
    let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = fraction.split_at(length);
    let kept = &digits[..length.min(6)];
    let unit = 10_u64.pow(6 - kept.len() as u32);
    (length > 0).then_some((number(kept)? * unit, rest))
}

/// Reads the seconds east of UTC. The inner `None` means that the text gives no zone.
fn offset(zone: &[u8]) -> Option<Option<i64>> {
    match *zone {
        [] => Some(None),
        [b'Z'] => Some(Some(0)),
        [sign @ (b'+' | b'-'), ref hours @ .., b':', tens, ones] if hours.len() == 2 => {
            let seconds = (number(hours)? * 3_600 + number(&[tens, ones])? * 60) as i64;
            Some(Some(if sign == b'+' { seconds } else { -seconds }))
        }
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use crate::timestamp::{Timestamp, TimestampError, reader, rfc3339, token};

    #[test]
    fn both_readers_find_the_same_time() {
        let mut texts = Vec::new();
        for date in
            ["2026-05-06", "0050-01-31", "2024-02-29", "2023-02-29", "9999-12-31", "0000-13-00"]
        {
            for time in ["00:00:00", "14:34:56", "23:59:59", "24:00:00", "12:60:00", "12:00:60"] {
                for fraction in ["", ".5", ".789", ".123456", ".1234567899", ".000000001", ".0"] {
                    for zone in
                        ["", "Z", "+00:00", "+02:00", "-11:30", "+05:99", "-24:00", "+99:99"]
                    {
                        texts.push(format!("{date}T{time}{fraction}{zone}"));
                    }
                }
            }
        }
        for text in &texts {
            let other = reader::read(token::split(text)).unwrap().timestamp();
            assert_eq!(rfc3339::read(text).unwrap().timestamp(), other, "{text}");
        }
    }

    #[test]
    fn any_other_form_is_left_to_the_other_reader() {
        for text in [
            "",
            "2026-05-06",
            "2026-05-06 14:34:56",
            "2026-05-06T14:34",
            "2026/05/06T14:34:56",
            "2026-05-06T14:34:5",
            "2026-05-06T14:34:56.",
            "2026-05-06T14:34:56,5",
            "2026-05-06T14:34:56z",
            "2026-05-06T14:34:56 Z",
            "2026-05-06T14:34:56+02",
            "2026-05-06T14:34:56+0200",
            "2026-05-06T14:34:56+2:00",
            "2026-05-06T14:34:56+02:00 ",
            "2026-05-06T14:34:56UTC",
            "2026-05-06T1a:34:56Z",
            "202\u{661}-05-06T14:34:56",
        ] {
            assert!(rfc3339::read(text).is_none(), "{text}");
        }
        assert_eq!(Timestamp::parse("2026-05-06T25:00:00Z"), Err(TimestampError::OutOfRange));
    }
}
