//! The words in dates.

/// The field that a number fills, named by the letter or word after it: the `h` in `10h`.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Unit {
    Hour,
    Minute,
    Second,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Meridiem {
    Am,
    Pm,
}

pub(super) fn on_24_hour_clock(hour: u64, meridiem: Meridiem) -> u64 {
    match (hour, meridiem) {
        (0..12, Meridiem::Pm) => hour + 12,
        (12, Meridiem::Am) => 0,
        _ => hour,
    }
}

pub(super) fn is_weekday(token: &str) -> bool {
    const NAMES: [&str; 7] =
        ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    NAMES.iter().any(|name| is_name_or_short(token, name))
}

pub(super) fn month(token: &str) -> Option<u64> {
    const NAMES: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let found = NAMES.iter().position(|name| is_name_or_short(token, name));
    let sept = token.eq_ignore_ascii_case("sept").then_some(8);
    found.or(sept).map(|index| index as u64 + 1)
}

/// Returns whether a token is a name or its first three letters.
fn is_name_or_short(token: &str, name: &str) -> bool {
    token.eq_ignore_ascii_case(name) || token.eq_ignore_ascii_case(&name[..3])
}

pub(super) fn meridiem(token: &str) -> Option<Meridiem> {
    match &*token.to_ascii_lowercase() {
        "am" | "a" => Some(Meridiem::Am),
        "pm" | "p" => Some(Meridiem::Pm),
        _ => None,
    }
}

pub(super) fn unit(token: &str) -> Option<Unit> {
    match &*token.to_ascii_lowercase() {
        "h" | "hour" | "hours" => Some(Unit::Hour),
        "m" | "minute" | "minutes" => Some(Unit::Minute),
        "s" | "second" | "seconds" => Some(Unit::Second),
        _ => None,
    }
}

/// Returns whether a token may occur anywhere without a meaning.
pub(super) fn is_filler(token: &str) -> bool {
    matches!(
        &*token.to_ascii_lowercase(),
        " " | "."
            | ","
            | ";"
            | "-"
            | "/"
            | "'"
            | "at"
            | "on"
            | "and"
            | "ad"
            | "m"
            | "t"
            | "of"
            | "st"
            | "nd"
            | "rd"
            | "th"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_whole_and_by_three_letters() {
        for (token, number) in [
            ("jan", Some(1)),
            ("MAY", Some(5)),
            ("Sept", Some(9)),
            ("december", Some(12)),
            ("janu", None),
        ] {
            assert_eq!(month(token), number, "{token}");
        }
        assert!(is_weekday("Wed") && is_weekday("sunday") && !is_weekday("sund"));
    }

    #[test]
    fn noon_and_midnight_are_told_apart() {
        for (hour, meridiem, on_24) in [
            (12, Meridiem::Am, 0),
            (12, Meridiem::Pm, 12),
            (1, Meridiem::Am, 1),
            (11, Meridiem::Pm, 23),
            (0, Meridiem::Pm, 12),
        ] {
            assert_eq!(on_24_hour_clock(hour, meridiem), on_24);
        }
        assert!(meridiem("P") == Some(Meridiem::Pm) && meridiem("am") == Some(Meridiem::Am));
        assert!(meridiem("x").is_none());
        assert!(unit("H") == Some(Unit::Hour) && unit("seconds") == Some(Unit::Second));
        assert!(unit("minute") == Some(Unit::Minute) && unit("d").is_none());
    }
}
