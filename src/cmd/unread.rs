//! Variables of the process that the router does not read, although they seem to be meant for it.

use std::{cell::RefCell, collections::BTreeSet};

use strsim::osa_distance;

use super::address;
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
    // Some variables are read only beside others.
    read.extend(VARIABLES.iter().map(|variable| variable.name.to_owned()));
    let is_set = |name: &str| variables(name).is_some_and(|value| !value.is_empty());
    // Without the sources, the variables that they name are not known.
    let knows_sources =
        ["SOURCES", "SOURCES_FILE"].iter().all(|name| address::is_sound(name, &problems));
    let names = std::env::vars_os().filter(|(_, value)| !value.is_empty());
    let names = names.map(|(name, _)| name.to_string_lossy().into_owned());
    let unread =
        names.filter(|name| !read.contains(name) && (knows_sources || !name.ends_with("_SECRETS")));
    let warnings = unread.filter_map(|name| {
        let meant = meant(&name, &read).filter(|meant| !is_set(meant))?;
        let text = format!("is not read: if it is meant for the router, rename it to {meant}");
        Some(Finding::warning(&name, text))
    });
    let warnings = warnings.collect();
    (config, problems, warnings)
}

/// Returns the variable that a name was probably meant for. Capitals do not count. The name has one
/// letter too many, too few or wrong, or two swapped letters. Or it has `_WEBHOOK_` or `_SIGNING_`
/// in addition, as in the examples of vendors: STRIPE_WEBHOOK_SECRET, SLACK_SIGNING_SECRET.
fn meant<'a>(name: &str, read: &'a BTreeSet<String>) -> Option<&'a str> {
    let name = name.to_ascii_uppercase();
    let short = name.replace("_WEBHOOK_", "_").replace("_SIGNING_", "_");
    let is_near = |one: &str, other: &str| {
        // Most names differ in length, so the distance need not be computed.
        one.len().abs_diff(other.len()) <= 1 && osa_distance(one, other) <= 1
    };
    let resembles = |other: &&String| {
        other.len() >= MIN_NAME_CHARS && (is_near(&name, other) || is_near(&short, other))
    };
    read.iter().find(resembles).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_nearly_right_is_told_the_right_one() {
        let read = [
            "PORT",
            "FORWARD_TIMEOUT_MS",
            "SLACK_SECRETS",
            "STANDARD_WEBHOOKS_SECRETS",
            "STRIPE_SECRETS",
        ];
        let read = read.map(str::to_owned).into();
        for (name, expected) in [
            ("FORWARD_TIMOUT_MS", Some("FORWARD_TIMEOUT_MS")),
            ("FORWARD_TIMEOUT_SM", Some("FORWARD_TIMEOUT_MS")),
            ("forward_timeout_ms", Some("FORWARD_TIMEOUT_MS")),
            ("STRIPE_SECRET", Some("STRIPE_SECRETS")),
            ("STRIPE_WEBHOOK_SECRET", Some("STRIPE_SECRETS")),
            ("SLACK_SIGNING_SECRET", Some("SLACK_SECRETS")),
            ("STANDARD_WEBHOOK_SECRETS", Some("STANDARD_WEBHOOKS_SECRETS")),
            ("STRIPE_EU_SECRETS", None),
            ("STRIPE_SECRET_KEY", None),
            ("FORWARD_TIMEOUT", None),
            ("PORTS", None),
        ] {
            assert_eq!(meant(name, &read), expected, "{name}");
        }
    }
}
