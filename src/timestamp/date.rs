//! Decides which number of a date is the year, the month and the day.

use super::decimal::{Decimal, integer};

#[derive(Clone, Copy)]
pub(super) struct Date {
    pub(super) year: u64,
    pub(super) month: u64,
    pub(super) day: u64,
}

/// The numbers of a date, in the order of the text.
#[derive(Default)]
pub(super) struct DateNumbers {
    values: Vec<u64>,
    year_at: Option<usize>,
    month_at: Option<usize>,
    /// True if a number had more than two digits or was more than 100.
    pub(super) century_given: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Part {
    Year,
    Month,
}

impl DateNumbers {
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Adds digits as written. More than two digits are a year.
    pub(super) fn push_text(&mut self, digits: &str, part: Option<Part>) -> Option<()> {
        let value = integer(digits)?;
        if digits.len() > 2 { self.push_year(value, part) } else { self.push(value, part) }
    }

    /// Adds a number by its value, without its fraction. A number above 100 is a year.
    pub(super) fn push_value(&mut self, value: &Decimal<'_>) -> Option<()> {
        if value.exceeds(100) {
            self.push_year(value.trunc(), None)
        } else {
            self.push(value.trunc(), None)
        }
    }

    fn push_year(&mut self, value: u64, part: Option<Part>) -> Option<()> {
        self.century_given = true;
        if part == Some(Part::Month) {
            return None;
        }
        self.push(value, Some(Part::Year))
    }

    pub(super) fn push(&mut self, value: u64, part: Option<Part>) -> Option<()> {
        let position = self.values.len();
        self.values.push(value);
        let already = match part {
            Some(Part::Year) => self.year_at.replace(position),
            Some(Part::Month) => self.month_at.replace(position),
            None => None,
        };
        already.is_none().then_some(())
    }

    pub(super) fn could_be_day(&self, value: &Decimal<'_>) -> bool {
        let last = match self.month_at.map(|at| self.values[at]) {
            None => 31,
            Some(4 | 6 | 9 | 11) => 30,
            // Without a year, dateutil checks against the leap year 2000.
            Some(2) if self.year_at.is_none_or(|at| is_leap_year(self.values[at])) => 29,
            Some(2) => 28,
            Some(_) => 31,
        };
        value.trunc() >= 1 && !value.exceeds(last)
    }

    /// Decides which number is the year, the month and the day. The inner `None` means that one of
    /// them is missing. The outer `None` is a refusal.
    pub(super) fn resolve(&self) -> Option<Option<Date>> {
        let &[a, b, c] = self.values.as_slice() else {
            return if self.len() > 3 { None } else { Some(None) };
        };
        let date = |year, month, day| Some(Some(Date { year, month, day }));
        match (self.year_at, self.month_at) {
            (Some(year), Some(month)) => {
                date(self.values[year], self.values[month], self.values[3 - year - month])
            }
            (_, Some(0)) if b > 31 => date(b, a, c),
            (_, Some(0)) => date(c, a, b),
            (_, Some(1)) if a > 31 => date(a, b, c),
            (_, Some(1)) => date(c, b, a),
            (_, Some(_)) if b > 31 => date(b, c, a),
            (_, Some(_)) => date(a, c, b),
            (Some(0), None) => date(a, b, c),
            (_, None) if a > 31 => date(a, b, c),
            (_, None) if a > 12 => date(c, b, a),
            (_, None) => date(c, a, b),
        }
    }
}

fn is_leap_year(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(parts: &[(&str, Option<Part>)]) -> Option<Option<(u64, u64, u64)>> {
        let mut numbers = DateNumbers::default();
        for (digits, part) in parts {
            numbers.push_text(digits, *part)?;
        }
        let resolved = numbers.resolve()?;
        Some(resolved.map(|Date { year, month, day }| (year, month, day)))
    }

    #[test]
    fn year_month_and_day_are_told_apart_by_their_size_and_place() {
        let month = Some(Part::Month);
        let sixth_of_may = Some(Some((2024, 5, 6)));
        for parts in [
            [("2024", None), ("05", None), ("06", None)],
            // Slashed dates are month first.
            [("05", None), ("06", None), ("2024", None)],
            [("05", month), ("06", None), ("2024", None)],
            [("05", month), ("2024", None), ("06", None)],
            [("06", None), ("05", month), ("2024", None)],
            [("2024", None), ("05", month), ("06", None)],
            [("2024", None), ("06", None), ("05", month)],
        ] {
            let digits = parts.map(|(digits, _)| digits);
            assert_eq!(date(&parts), sixth_of_may, "{digits:?}");
        }
        let day_first = [("13", None), ("05", None), ("2024", None)];
        assert_eq!(date(&day_first), Some(Some((2024, 5, 13))));
        let short_year = [("32", None), ("05", None), ("06", None)];
        assert_eq!(date(&short_year), Some(Some((32, 5, 6))));
        assert_eq!(date(&[("2024", None), ("05", None)]), Some(None));
        assert_eq!(date(&[("1", None), ("2", None), ("3", None), ("4", None)]), None);
        assert_eq!(date(&[("2024", None), ("2025", None), ("1", None)]), None);
        assert_eq!(date(&[("100", month)]), None);
    }

    #[test]
    fn a_day_is_within_its_month() {
        let could_be = |month: &str, year: Option<&str>, day: &str| {
            let mut numbers = DateNumbers::default();
            numbers.push_text(month, Some(Part::Month)).unwrap();
            if let Some(year) = year {
                numbers.push_text(year, None).unwrap();
            }
            numbers.could_be_day(&Decimal::parse(day).unwrap())
        };
        for (month, year, last) in [
            ("1", None, 31),
            ("4", None, 30),
            ("2", None, 29),
            ("2", Some("2024"), 29),
            ("2", Some("2023"), 28),
            ("2", Some("1900"), 28),
            ("2", Some("2000"), 29),
        ] {
            assert!(could_be(month, year, &last.to_string()), "{month} {year:?}");
            assert!(!could_be(month, year, &(last + 1).to_string()), "{month} {year:?}");
            assert!(!could_be(month, year, "0"));
        }
    }
}
