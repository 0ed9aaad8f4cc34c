//! Variables of the process that the router does not read, although they seem to be meant for it.

use std::{cell::RefCell, collections::BTreeSet};

use strsim::osa_distance;

use crate::{
    config::{Config, ConfigError, VARIABLES},
    finding::Finding,
};

/// Shorter names are not compared: too many other variables resemble them.
const MIN_NAME_CHARS: usize = 8;

/// Reads the configuration as [`Config::read`] does. Also returns a warning for each variable of the
/// process whose name is probably a typing error.
pub fn read(
    variables: impl Fn(&str) -> Option<String>,
) -> (Config, Vec<ConfigError>, Vec<Finding>) {
    let read = RefCell::new(BTreeSet::new());
    let (config, problems) = Config::read(|name| {
        read.borrow_mut().insert(name.to_owned());
        variables(name)
    });
    let mut read = read.into_inner();
    read.extend(VARIABLES.iter().map(|variable| variable.name.to_owned()));
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let warnings = names.filter(|name| !read.contains(name)).filter_map(|name| {
        let is_set = |name: &str| variables(name).is_some_and(|value| !value.is_empty());
        let meant = meant(&name, &read).filter(|meant| !is_set(meant))?;
        Some(Finding::warning(&name, format!("is not read: the name of the variable is {meant}")))
    });
    let warnings = warnings.collect();
    (config, problems, warnings)
}

/// Returns the variable whose name differs in one letter, or that has the secrets of the vendor
/// whose name this one begins with.
fn meant<'a>(name: &str, read: &'a BTreeSet<String>) -> Option<&'a str> {
    // Vendors' own examples have STRIPE_WEBHOOK_SECRET, SLACK_SIGNING_SECRET and such.
    let name = name.to_ascii_uppercase().replace("_WEBHOOK_", "_").replace("_SIGNING_", "_");
    let resembles =
        |other: &&String| other.len() >= MIN_NAME_CHARS && osa_distance(&name, other) <= 1;
    read.iter().find(resembles).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_nearly_right_is_told_the_right_one() {
        let read = ["PORT", "FORWARD_TIMEOUT_MS", "SLACK_SECRETS", "STRIPE_SECRETS"];
        let read = read.map(str::to_owned).into();
        for (name, expected) in [
            ("FORWARD_TIMOUT_MS", Some("FORWARD_TIMEOUT_MS")),
            ("FORWARD_TIMEOUT_SM", Some("FORWARD_TIMEOUT_MS")),
            ("forward_timeout_ms", Some("FORWARD_TIMEOUT_MS")),
            ("STRIPE_SECRET", Some("STRIPE_SECRETS")),
            ("STRIPE_WEBHOOK_SECRET", Some("STRIPE_SECRETS")),
            ("SLACK_SIGNING_SECRET", Some("SLACK_SECRETS")),
            ("STRIPE_EU_SECRETS", None),
            ("STRIPE_SECRET_KEY", None),
            ("FORWARD_TIMEOUT", None),
            ("PORTS", None),
        ] {
            assert_eq!(meant(name, &read), expected, "{name}");
        }
    }
}
