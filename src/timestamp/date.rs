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
