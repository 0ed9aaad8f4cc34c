//! The limits on what one process sends to a destination.

use std::{fmt, num::NonZeroU32, ops::RangeInclusive};

use super::vars::Vars;
use crate::table::Reader;

/// The fields of a destination.
pub(super) const MAX_CONCURRENT: &str = "max_concurrent";
pub(super) const MAX_PER_SECOND: &str = "max_per_second";

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
    /// Reads the limits in the table of a destination.
    pub(super) fn read(reader: &mut Reader<'_, '_>) -> Self {
        let mut most = |field| reader.number(field, RANGE).and_then(NonZeroU32::new);
        Self { max_concurrent: most(MAX_CONCURRENT), max_per_second: most(MAX_PER_SECOND) }
    }

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

impl Vars<'_> {
    /// Reads the limits of the destination whose variables begin with a prefix.
    pub(super) fn limit(&mut self, prefix: &str) -> Limit {
        let mut most = |field: &str| {
            let name = format!("{prefix}_{}", field.to_uppercase());
            self.text(&name)?;
            let (least, most) = RANGE.into_inner();
            NonZeroU32::new(self.number(&name, least.into()..=most.into()) as u32)
        };
        Limit { max_concurrent: most(MAX_CONCURRENT), max_per_second: most(MAX_PER_SECOND) }
    }
}

#[cfg(test)]
mod tests {
    use crate::{config::Config, testing::lookup};

    fn limits(vars: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let config = Config::from_vars(lookup(vars)).map_err(|errors| errors.to_string())?;
        Ok(config
            .targets
            .iter()
            .map(|target| format!("{}: {}", target.name, target.limit))
            .collect())
    }

    const PLACES: [(&str, &str); 2] =
        [("GCP_TARGET_URL", "https://x.dev"), ("AWS_TARGET_FUNCTION", "p")];

    #[test]
    fn each_destination_has_limits_of_its_own() {
        let some = [("GCP_MAX_CONCURRENT", "10"), ("AWS_MAX_PER_SECOND", "200")];
        let (gcp, aws) = ("gcp: at most 10 attempts at once", "at most 200 attempts per second");
        assert_eq!(limits(&[PLACES, some].concat()).unwrap(), [gcp, &format!("aws: {aws}")]);
        let table = "[destinations.eu]\nkind = \"http\"\nurl = \"https://x.dev\"\nbytes = \"0-255\"\n\
                     max_concurrent = 10\nmax_per_second = 200";
        let both = format!("eu: at most 10 attempts at once and {aws}");
        assert_eq!(limits(&[("DESTINATIONS", table)]).unwrap(), [both]);
        let beside = limits(&[("DESTINATIONS", table), some[0]]).unwrap_err();
        assert!(beside.contains("GCP_MAX_CONCURRENT: must not be set beside"), "{beside}");
    }

    #[test]
    fn a_limit_is_a_whole_number_and_not_zero() {
        for (text, is_limit) in [
            ("1", true),
            ("10000", true),
            ("0", false),
            ("10001", false),
            ("-1", false),
            ("1.5", false),
            ("99999999999999999999", false),
        ] {
            for name in ["GCP_MAX_CONCURRENT", "AWS_MAX_PER_SECOND"] {
                let read = limits(&[&PLACES[..], &[(name, text)]].concat());
                let remedy = format!("{name}: must be a whole number from 1 to 10000");
                assert_eq!(
                    read.clone().err().is_none_or(|text| !text.contains(&remedy)),
                    is_limit,
                    "{read:?}"
                );
            }
            let table = format!(
                "[destinations.eu]\nkind = \"http\"\nurl = \"https://x.dev\"\nbytes = \"0-255\"\n\
                 max_per_second = {text}"
            );
            assert_eq!(limits(&[("DESTINATIONS", &table)]).is_ok(), is_limit, "{text}");
        }
    }
}
