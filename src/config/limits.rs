//! The limits on what one process sends to a destination.

use std::{fmt, num::NonZeroU32, ops::RangeInclusive};

use super::vars::Vars;
use crate::route::Route;

/// The allowed range of each limit.
const RANGE: RangeInclusive<u32> = 1..=10_000;

/// The limits of a destination. `None` means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limit {
    /// Most attempts at a time.
    pub max_concurrent: Option<NonZeroU32>,
    /// Most attempts that begin per second.
    pub max_per_second: Option<NonZeroU32>,
}

impl Limit {
    /// Returns whether there is no limit.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = [
            self.max_concurrent.map(|most| format!("at most {most} attempts at once")),
            self.max_per_second.map(|most| format!("at most {most} attempts per second")),
        ];
        f.write_str(&limits.into_iter().flatten().collect::<Vec<_>>().join(" and "))
    }
}

/// Reads a limit.
///
/// # Errors
/// Fails with the remedy if the text is no whole number in the allowed range.
pub(super) fn limit(text: &str) -> Result<NonZeroU32, String> {
    let number = text.parse().ok().filter(|number| RANGE.contains(number));
    number.and_then(NonZeroU32::new).ok_or_else(|| {
        let (least, most) = RANGE.into_inner();
        format!("must be a whole number from {least} to {most}; without it, there is no limit")
    })
}

impl Vars<'_> {
    /// Reads the limits of each destination.
    pub(super) fn limits(&mut self) -> Vec<(Route, Limit)> {
        let destinations = [("GCP", Route::Gcp), ("AWS", Route::Aws)];
        destinations.map(|(prefix, route)| (route, self.limits_of(prefix))).into()
    }

    fn limits_of(&mut self, prefix: &str) -> Limit {
        Limit {
            max_concurrent: self.limit(&format!("{prefix}_MAX_CONCURRENT")),
            max_per_second: self.limit(&format!("{prefix}_MAX_PER_SECOND")),
        }
    }

    fn limit(&mut self, name: &str) -> Option<NonZeroU32> {
        match limit(&self.text(name)?) {
            Ok(limit) => Some(limit),
            Err(remedy) => {
                self.problem(name, remedy);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, testing::lookup};

    #[test]
    fn a_limit_is_a_whole_number_and_not_zero() {
        for (text, number) in [
            ("1", Some(1)),
            ("200", Some(200)),
            ("10000", Some(10_000)),
            ("0", None),
            ("10001", None),
            ("-1", None),
            ("1.5", None),
            ("many", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(limit(text).ok().map(NonZeroU32::get), number, "{text}");
        }
    }

    #[test]
    fn each_destination_has_limits_of_its_own() {
        let vars = [
            ("GCP_TARGET_URL", "https://x.dev"),
            ("AWS_TARGET_FUNCTION", "p"),
            ("GCP_MAX_CONCURRENT", "10"),
            ("AWS_MAX_PER_SECOND", "200"),
        ];
        let Config { limits, .. } = Config::from_vars(lookup(&vars)).unwrap();
        let told: Vec<_> = limits.iter().map(|(route, limit)| format!("{route}: {limit}")).collect();
        assert_eq!(told, [
            "gcp: at most 10 attempts at once",
            "aws: at most 200 attempts per second"
        ]);
        let both = [&vars[..], &[("GCP_MAX_PER_SECOND", "5")]].concat();
        let Config { limits, .. } = Config::from_vars(lookup(&both)).unwrap();
        let gcp = "at most 10 attempts at once and at most 5 attempts per second";
        assert_eq!(limits[0].1.to_string(), gcp);
    }
}
