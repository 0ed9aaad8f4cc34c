//! Decimal numbers with the arithmetic of Python's `decimal` module.

/// Significant digits of Python's default decimal context.
const PRECISION: usize = 28;

/// An unsigned decimal number in a text.
pub(super) struct Decimal<'a> {
    integer: &'a str,
    fraction: &'a str,
}

/// Reads digits as Python's `int` does. A number that is too large for any field of a date becomes
/// another number that is too large.
pub(super) fn integer(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

impl<'a> Decimal<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        (integer(whole).is_some() && integer(fraction).is_some())
            .then_some(Self { integer: whole, fraction })
    }

    /// Returns the number without its fraction.
    pub(super) fn trunc(&self) -> u64 {
        integer(self.integer).unwrap_or(u64::MAX)
    }

    pub(super) fn exceeds(&self, limit: u64) -> bool {
        self.trunc() > limit || (self.trunc() == limit && !self.is_whole())
    }

    fn is_whole(&self) -> bool {
        self.fraction.bytes().all(|digit| digit == b'0')
    }

    /// Returns sixty times the fraction, cut to an integer: the seconds in a fraction of a minute.
    /// Returns `None` for a whole number.
    ///
    /// # Errors
    /// Fails when Python raises `InvalidOperation`: the integer part has more digits than the
    /// precision.
    pub(super) fn sixtieths(&self) -> Result<Option<u64>, ()> {
        if self.integer.trim_start_matches('0').len() > PRECISION {
            return Err(());
        }
        if self.is_whole() {
            return Ok(None);
        }
        // The fraction is `coefficient`, with `scale` places after the point.
        let significant = self.fraction.trim_start_matches('0');
        let (coefficient, dropped) = round(significant);
        let scale = self.fraction.len() - dropped;
        // The product has at most 30 digits. More than 28 are rounded again, as Python rounds after
        // each operation.
        let product = (coefficient * 60).to_string();
        let (product, dropped) = round(&product);
        let scale = (scale - dropped.min(scale)) as u32;
        let seconds = 10u128.checked_pow(scale).map_or(0, |unit| product / unit);
        Ok(Some(seconds as u64))
    }
}

/// Rounds digits to [`PRECISION`] digits, half to even. Returns the number that the kept digits
/// make, and the number of dropped digits.
fn round(digits: &str) -> (u128, usize) {
    let number = |digits: &str| digits.parse::<u128>().unwrap_or(0);
    if digits.len() <= PRECISION {
        return (number(digits), 0);
    }
    let (kept, cut) = digits.split_at(PRECISION);
    let kept = number(kept);
    let half = format!("5{:0<1$}", "", cut.len() - 1);
    let up = match cut.cmp(half.as_str()) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Equal => kept % 2,
        std::cmp::Ordering::Greater => 1,
    };
    (kept + up, cut.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_and_nothing_else() {
        for (text, value) in [
            ("007", Some(7)),
            ("", None),
            ("+7", None),
            ("7a", None),
            ("1".repeat(30).as_str(), Some(u64::MAX)),
        ] {
            assert_eq!(integer(text), value, "{text}");
        }
        for text in ["", ".", "1.", ".5", "1.a", "a.1", "1.2.3"] {
            assert!(Decimal::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_fraction_counts_beyond_a_limit() {
        let exceeds = |text, limit| Decimal::parse(text).unwrap().exceeds(limit);
        assert!(exceeds("31.1", 31) && exceeds("32", 31));
        assert!(!exceeds("31", 31) && !exceeds("31.00", 31) && !exceeds("30.9", 31));
        assert_eq!(Decimal::parse("31.9").unwrap().trunc(), 31);
    }

    #[test]
    fn a_fraction_of_a_minute_is_cut_to_seconds() {
        let nines = format!("1.{}", "9".repeat(40));
        for (text, seconds) in [
            ("10.5", Some(30)),
            ("10.25", Some(15)),
            ("10.0166", Some(0)),
            ("10.01667", Some(1)),
            ("10", None),
            ("10.00", None),
            // Rounded to 28 digits, it is a whole minute.
            (&nines, Some(60)),
        ] {
            assert_eq!(Decimal::parse(text).unwrap().sixtieths(), Ok(seconds), "{text}");
        }
        let whole = |digits| format!("{}.5", "1".repeat(digits));
        assert_eq!(Decimal::parse(&whole(28)).unwrap().sixtieths(), Ok(Some(30)));
        assert_eq!(Decimal::parse(&whole(29)).unwrap().sixtieths(), Err(()));
    }

    #[test]
    fn halves_are_rounded_to_even() {
        let kept = "100000000000000000000000000";
        for (last, cut, rounded) in [
            ("2", "5", 2),
            ("3", "5", 4),
            ("2", "51", 3),
            ("2", "49", 2),
            ("3", "4", 3),
            ("3", "", 3),
        ] {
            let expected = format!("{kept}{rounded}").parse().unwrap();
            assert_eq!(round(&format!("{kept}{last}{cut}")), (expected, cut.len()), "{last}{cut}");
        }
    }
}
