//! Finds the fields of a date in its tokens, by dateutil's rules (non-fuzzy, month first).
//!
//! dateutil has no grammar. It decides token by token, from the token itself and its neighbours. So
//! the order of the checks below is part of the behaviour.

use super::{
    chars::is_digit,
    date::{Date, DateNumbers, Part},
    decimal::{Decimal, integer},
    words::{Unit, is_filler, is_weekday, meridiem, month, on_24_hour_clock, unit},
};

/// The fields of a text. A field that the text does not mention is absent.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) date: Option<Date>,
    /// True if a number of the date had more than two digits or was more than 100.
    pub(super) century_given: bool,
    /// True if a year below 100 was completed with the current century.
    pub(super) century_guessed: bool,
    pub(super) hour: Option<u64>,
    pub(super) minute: Option<u64>,
    pub(super) second: Option<u64>,
    pub(super) microsecond: Option<u64>,
    pub(super) zone_name: Option<String>,
    /// Seconds east of UTC.
    pub(super) zone_offset: Option<i64>,
}

/// Reads all tokens, or returns `None` if dateutil refuses them.
pub(super) fn read(tokens: Vec<String>) -> Option<Fields> {
    let mut reader =
        Reader { tokens, at: 0, numbers: DateNumbers::default(), fields: Fields::default() };
    while reader.at < reader.tokens.len() {
        reader.token()?;
        reader.at += 1;
    }
    let Reader { numbers, mut fields, .. } = reader;
    fields.century_given = numbers.century_given;
    fields.date = numbers.resolve()?;
    Some(fields)
}

struct Reader {
    tokens: Vec<String>,
    /// The index of the current token. A method that reads further tokens leaves it at the last of
    /// them.
    at: usize,
    numbers: DateNumbers,
    fields: Fields,
}

impl Reader {
    fn token(&mut self) -> Option<()> {
        let token = self.tokens[self.at].clone();
        if let Some(value) = Decimal::parse(&token) {
            return self.number(&token, &value);
        }
        if is_weekday(&token) {
            // The date decides. dateutil does not notice a weekday that contradicts it.
        } else if let Some(month) = month(&token) {
            self.month_name(month)?;
        } else if let Some(meridiem) = meridiem(&token) {
            let hour = self.fields.hour.filter(|hour| *hour <= 12)?;
            self.fields.hour = Some(on_24_hour_clock(hour, meridiem));
        } else if self.fields.zone_offset.is_none() && self.could_be_zone_name(&token) {
            self.zone_name(token);
        } else if self.fields.hour.is_some() && matches!(&*token, "+" | "-") {
            self.zone_offset(if token == "+" { 1 } else { -1 })?;
        } else if !is_filler(&token) {
            return None;
        }
        Some(())
    }

    /// Returns the token that many places ahead.
    fn ahead(&self, places: usize) -> Option<&str> {
        self.tokens.get(self.at + places).map(String::as_str)
    }

    fn number(&mut self, text: &str, value: &Decimal<'_>) -> Option<()> {
        let next = self.ahead(1);
        let next_is_colon = next == Some(":");
        let next_is_unit = next.is_some_and(|next| unit(next).is_some());
        let time_follows_date = self.numbers.len() == 3
            && self.fields.hour.is_none()
            && !next_is_colon
            && !next_is_unit;

        match text.len() {
            // 20260506T12, 20260506T1234
            2 | 4 if time_follows_date => {
                self.fields.hour = Some(integer(&text[..2])?);
                if text.len() == 4 {
                    self.fields.minute = Some(integer(&text[2..])?);
                }
                Some(())
            }
            // 260506, 123456, 123456.789
            length if length == 6 || (length > 6 && text.find('.') == Some(6)) => {
                if self.numbers.len() == 0 && !text.contains('.') {
                    self.numbers.push_text(&text[..2], None)?;
                    self.numbers.push_text(&text[2..4], None)?;
                    self.numbers.push_text(&text[4..], None)
                } else {
                    self.fields.hour = Some(integer(&text[..2])?);
                    self.fields.minute = Some(integer(&text[2..4])?);
                    self.seconds(&text[4..])
                }
            }
            // 20260506, 202605061234, 20260506123456
            length @ (8 | 12 | 14) => {
                self.numbers.push_text(&text[..4], Some(Part::Year))?;
                self.numbers.push_text(&text[4..6], None)?;
                self.numbers.push_text(&text[6..8], None)?;
                if length > 8 {
                    self.fields.hour = Some(integer(&text[8..10])?);
                    self.fields.minute = Some(integer(&text[10..12])?);
                }
                if length > 12 {
                    self.fields.second = Some(integer(&text[12..])?);
                }
                Some(())
            }
            _ => match self.unit_beside() {
                Some((unit, last_token)) => {
                    self.at = last_token;
                    self.number_of_unit(unit, text, value)
                }
                None => self.plain_number(text, value),
            },
        }
    }

    fn plain_number(&mut self, text: &str, value: &Decimal<'_>) -> Option<()> {
        let next = self.ahead(1);
        let after_next = self.ahead(2);
        let next_is_filler = next.is_none_or(is_filler);
        // 12:34, 12:34:56.789
        if next == Some(":")
            && let Some(minutes) = after_next
        {
            let (minute, second) = minute_and_second(&Decimal::parse(minutes)?)?;
            self.fields.hour = Some(value.trunc());
            self.fields.minute = Some(minute);
            self.fields.second = second;
            self.at += 2;
            if self.ahead(1) == Some(":")
                && let Some(seconds) = self.ahead(2).map(str::to_owned)
            {
                self.seconds(&seconds)?;
                self.at += 2;
            }
            return Some(());
        }
        // 5-6-2026, 6-May-2026, 2026/5
        if let Some(separator @ ("-" | "/" | ".")) = next {
            let separator = separator.to_owned();
            return self.date_with(text, &separator);
        }
        // 12 am, or a number of the date followed by white space or a similar separator
        if next_is_filler {
            match after_next.and_then(meridiem) {
                Some(meridiem) => {
                    self.fields.hour = Some(on_24_hour_clock(value.trunc(), meridiem));
                    self.at += 2;
                }
                None => {
                    self.numbers.push_value(value)?;
                    self.at += 1;
                }
            }
            return Some(());
        }
        // 12am
        if let Some(meridiem) = next.and_then(meridiem)
            && value.trunc() < 24
        {
            self.fields.hour = Some(on_24_hour_clock(value.trunc(), meridiem));
            self.at += 1;
            return Some(());
        }
        // 6May
        if self.numbers.could_be_day(value) {
            return self.numbers.push_value(value);
        }
        None
    }

    /// Reads the rest of a date whose numbers have equal separators. `first` is read already.
    fn date_with(&mut self, first: &str, separator: &str) -> Option<()> {
        self.numbers.push_text(first, None)?;
        self.at += 1;
        let Some(second) = self.ahead(1).filter(|token| !is_filler(token)).map(str::to_owned)
        else {
            return Some(());
        };
        match month(&second) {
            Some(month) => self.numbers.push(month, Some(Part::Month))?,
            None if integer(&second).is_some() => self.numbers.push_text(&second, None)?,
            None => return None,
        }
        self.at += 1;
        if self.ahead(1) == Some(separator) {
            let third = self.ahead(2)?.to_owned();
            match month(&third) {
                Some(month) => self.numbers.push(month, Some(Part::Month))?,
                None => self.numbers.push_text(&third, None)?,
            }
            self.at += 2;
        }
        Some(())
    }

    /// Reads the text after the name of a month: `May-06-2026`, `May of 2026`.
    fn month_name(&mut self, month: u64) -> Option<()> {
        self.numbers.push(month, Some(Part::Month))?;
        if let Some(separator @ ("-" | "/")) = self.ahead(1) {
            let separator = separator.to_owned();
            let second = self.ahead(2)?.to_owned();
            self.numbers.push_text(&second, None)?;
            self.at += 2;
            if self.ahead(1) == Some(&separator) {
                let third = self.ahead(2)?.to_owned();
                self.numbers.push_text(&third, None)?;
                self.at += 2;
            }
        } else if let (Some(" "), Some(of), Some(" "), Some(year)) =
            (self.ahead(1), self.ahead(2), self.ahead(3), self.ahead(4))
            && of.eq_ignore_ascii_case("of")
        {
            // Any token but digits is dropped unread. `²` is a digit here, but no number.
            if year.chars().all(is_digit) {
                let year = integer(year)?;
                self.fields.century_guessed |= year < 100;
                self.numbers.push_text(&format!("{year:04}"), Some(Part::Year))?;
            }
            self.at += 4;
        }
        Some(())
    }

    /// Returns the unit of the current number, and the index of the last token of number and unit
    /// together: `10h`, `10 h`. After a number with a unit, the unit is the next smaller one:
    /// `10h30`.
    fn unit_beside(&self) -> Option<(Option<Unit>, usize)> {
        let unit_at = |place: Option<usize>| unit(self.tokens.get(place?)?);
        let is_space = |place: Option<usize>| {
            place.and_then(|place| self.tokens.get(place)).is_some_and(|token| token == " ")
        };
        let at = self.at;
        if let Some(unit) = unit_at(Some(at + 1)) {
            return Some((Some(unit), at + 1));
        }
        if is_space(Some(at + 1))
            && let Some(unit) = unit_at(Some(at + 2))
        {
            return Some((Some(unit), at + 2));
        }
        let smaller = |unit| match unit {
            Unit::Hour => Some(Unit::Minute),
            Unit::Minute => Some(Unit::Second),
            Unit::Second => None,
        };
        if let Some(unit) = unit_at(at.checked_sub(1)) {
            return Some((smaller(unit), at));
        }
        if at + 1 == self.tokens.len()
            && is_space(at.checked_sub(1))
            && let Some(unit) = unit_at(at.checked_sub(2))
        {
            return Some((smaller(unit), at));
        }
        None
    }

    fn number_of_unit(
        &mut self,
        unit: Option<Unit>,
        text: &str,
        value: &Decimal<'_>,
    ) -> Option<()> {
        match unit {
            Some(Unit::Hour) => {
                self.fields.hour = Some(value.trunc());
                if let Some(minute) = value.sixtieths().ok()? {
                    self.fields.minute = Some(minute);
                }
            }
            Some(Unit::Minute) => {
                let (minute, second) = minute_and_second(value)?;
                self.fields.minute = Some(minute);
                self.fields.second = second;
            }
            Some(Unit::Second) => self.seconds(text)?,
            // No unit is smaller than a second, so dateutil drops the number.
            None => {}
        }
        Some(())
    }

    /// Reads seconds with a fraction. dateutil looks only at the first six characters of the
    /// fraction.
    fn seconds(&mut self, text: &str) -> Option<()> {
        let (second, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let fraction: String = fraction.chars().chain(std::iter::repeat('0')).take(6).collect();
        self.fields.second = Some(integer(second)?);
        self.fields.microsecond = Some(integer(&fraction)?);
        Some(())
    }

    fn could_be_zone_name(&self, token: &str) -> bool {
        let upper_case = token.bytes().all(|byte| byte.is_ascii_uppercase());
        self.fields.hour.is_some()
            && self.fields.zone_name.is_none()
            && token.len() <= 5
            && (upper_case || token == "z")
    }

    fn zone_name(&mut self, name: String) {
        let is_utc = matches!(&*name, "UTC" | "GMT" | "Z" | "z");
        self.fields.zone_name = Some(name);
        // As in POSIX, `GMT+3` means "add 3 to get GMT". So the sign is inverted, and the zone is
        // no longer GMT.
        let sign = self.tokens.get_mut(self.at + 1);
        if let Some(sign) = sign.filter(|sign| matches!(sign.as_str(), "+" | "-")) {
            *sign = if sign == "+" { "-" } else { "+" }.into();
            if is_utc {
                self.fields.zone_name = None;
            }
        } else if self.fields.zone_name.as_deref() == Some("z") {
            // `z` is the only name whose offset dateutil itself knows, by an accident of case.
            self.fields.zone_offset = Some(0);
        }
    }

    /// Reads `+0100`, `+01:00` or `+1`, and a name in parentheses after it.
    fn zone_offset(&mut self, sign: i64) -> Option<()> {
        let digits = self.ahead(1)?;
        // After this, there are only ASCII digits, so the length is their number.
        let number = integer(digits)?;
        let (hours, minutes, tokens) = if digits.len() == 4 {
            (number / 100, number % 100, 1)
        } else if self.ahead(2) == Some(":") {
            (number, integer(self.ahead(3)?)?, 3)
        } else if digits.len() <= 2 {
            (number, 0, 1)
        } else {
            return None;
        };
        let seconds = i64::try_from(hours)
            .ok()
            .and_then(|hours| hours.checked_mul(3600))
            .and_then(|seconds| seconds.checked_add_unsigned(minutes.checked_mul(60)?))
            .unwrap_or(i64::MAX);
        self.fields.zone_offset = Some(sign * seconds);
        self.at += tokens;
        if let (Some(space), Some("("), Some(name), Some(")")) =
            (self.ahead(1), self.ahead(2), self.ahead(3), self.ahead(4))
            && is_filler(space)
            && name.len() >= 3
            && self.could_be_zone_name(name)
        {
            self.fields.zone_name = Some(name.to_owned());
            self.at += 4;
        }
        Some(())
    }
}

fn minute_and_second(value: &Decimal<'_>) -> Option<(u64, Option<u64>)> {
    Some((value.trunc(), value.sixtieths().ok()?))
}
