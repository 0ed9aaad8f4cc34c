//! Compares the function's variables in template.yaml with those that the program reads.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use webhook_router::{
    config::{Config, VARIABLES, is_variable},
    source::{secrets_variable, vendor_names},
};

use super::stack;
use crate::{
    signed_deliveries,
    stack::{TEMPLATE, text},
    support::lookup,
    vendors::VECTORS,
};

#[test]
fn every_variable_of_a_deployment_can_be_set() {
    // These variables are in the secret, along with any others that a user puts there.
    let secret = [
        "ROUTING_SECRET",
        "ROUTING_SECRET_PREVIOUS",
        "ENVELOPE_SECRETS",
        "<VENDOR>_SECRETS",
        "SOURCES",
        "PUBLIC_URL",
        "META_VERIFY_TOKEN",
        "GCP_CREDENTIALS",
        "FORWARD_SECRETS",
    ];
    // These variables are not for Lambda. They belong to `serve`, to emulators or to Google Cloud, have
    // another name there, or name files, which Lambda does not have.
    let elsewhere = [
        "PORT",
        "MAX_CONNECTIONS",
        "MAX_BUFFERED_BYTES",
        "METRICS_LISTEN",
        "FORWARD_BUDGET_MS",
        "INBOX_WORKERS",
        "LAMBDA_EMULATOR",
        "REDIS_URL",
        "REDIS_CA_FILE",
        "GCP_CA_FILE",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GCE_METADATA_HOST",
        "GCP_CLIENT_CERT_FILE",
        "GCP_CLIENT_KEY_FILE",
        "SOURCES_FILE",
        "PAYPAL_CERT_FILE",
    ];
    let variables = &TEMPLATE["Resources"]["Router"]["Properties"]["Environment"]["Variables"];
    let set: BTreeSet<_> = variables.as_object().unwrap().keys().map(String::as_str).collect();
    let read: BTreeSet<_> = VARIABLES.iter().map(|variable| variable.name).collect();
    let expected = read.iter().filter(|name| !secret.contains(name) && !elsewhere.contains(name));
    assert_eq!(set, expected.copied().collect());
    assert!(secret.iter().chain(&elsewhere).all(|name| read.contains(name)));
    // The template's defaults are the program's.
    for variable in VARIABLES.iter().filter(|variable| set.contains(variable.name)) {
        let Some(parameter) = variables[variable.name].get("Ref").and_then(Value::as_str) else {
            continue;
        };
        let Some(default) = TEMPLATE["Parameters"][parameter].get("Default") else { continue };
        assert_eq!(text(default), variable.default, "{}", variable.name);
    }
}

#[test]
fn the_secret_alone_makes_every_vendor_served() {
    let variables = stack(&[]).variables();
    let has_a_secret = |name: &str| name.ends_with("_SECRETS") || name == "PUBLIC_URL";
    assert!(!variables.iter().any(|(name, _)| has_a_secret(name)));
    let mut vars: Vec<_> =
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let secret = signed_deliveries::secrets();
    vars.extend(secret.iter().map(|(name, value)| (*name, value.as_str())));
    let others: BTreeMap<_, _> = VECTORS
        .vectors
        .iter()
        .map(|one| (secrets_variable(&one.vendor), one.secret.as_str()))
        .filter(|(name, _)| !secret.iter().any(|(known, _)| known == name))
        .collect();
    vars.extend(others.iter().map(|(name, value)| (name.as_str(), *value)));
    let sources = "[sources.stripe-eu]\nvendor = \"stripe\"\nsecrets = [\"plainly-eu\"]";
    vars.push(("SOURCES", sources));
    assert!(vars.iter().all(|(name, _)| is_variable(name)), "the secret may not hold it");
    let config = Config::from_vars(lookup(&vars)).unwrap();
    let sources = config.intake.sources.iter().filter(|source| source.is_served());
    let served: BTreeSet<_> = sources.map(|source| source.name.as_str()).collect();
    let names = vendor_names().into_iter().chain(["stripe-eu"]).collect();
    let differing: Vec<_> = served.symmetric_difference(&names).collect();
    assert!(differing.is_empty(), "served without a vendor, or not served: {differing:?}");
    // The template adds no path to the Function URL.
    let router = TEMPLATE["Resources"]["Router"]["Properties"].to_string();
    assert!(!router.contains("/webhook"));
}
