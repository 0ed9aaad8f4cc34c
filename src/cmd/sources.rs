//! `sources`: lists the served sources with their rules, and the other sources with the remedy. It
//! prints no secret.

use std::{collections::BTreeMap, io::Write as _, process::ExitCode};

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::shown::harmless;
use crate::{
    config::{Intake, Unsigned},
    source::{Address, KeyRule, Rules, Source, envelope, secrets_variable, vendor_names},
};

#[derive(Args)]
pub struct Options {
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// A path and its source.
#[derive(Serialize)]
struct Listed {
    path: String,
    source: String,
    vendor: String,
    served: bool,
    /// The name of a variable, or SOURCES.
    secrets_from: String,
    /// Number of secrets.
    secrets: usize,
    /// Rules by the names of their fields in SOURCES.
    rules: BTreeMap<&'static str, Value>,
    /// The setting that is missing, if the source is not served.
    remedy: Option<String>,
}

/// Lists every configured source, and every built-in vendor that is not configured.
///
/// # Errors
/// Fails if the configuration cannot be used, or the output cannot be written.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let intake = Intake::from_vars(super::variables().await?)?;
    let listed = list(&intake);
    let mut out = std::io::stdout().lock();
    if options.json {
        for one in &listed {
            writeln!(out, "{}", serde_json::to_string(one)?)?;
        }
    } else {
        print(&listed, &mut out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list(intake: &Intake) -> Vec<Listed> {
    let configured = intake.sources.iter().map(Listed::configured);
    let names = vendor_names().into_iter();
    let missing = names.filter(|name| intake.sources.get(name).is_none()).map(Listed::of_vendor);
    [Listed::envelope(intake)].into_iter().chain(configured).chain(missing).collect()
}

impl Listed {
    fn envelope(intake: &Intake) -> Self {
        let secrets = intake.envelope_secrets.len();
        let is_open = intake.unsigned == Unsigned::FromAnyone;
        let remedy = format!(
            "set {} (not needed for unsigned envelopes from this machine if serve listens on loopback)",
            envelope::SECRETS
        );
        Self {
            path: envelope::PATH.into(),
            source: "envelope".into(),
            vendor: "envelope".into(),
            served: secrets > 0 || is_open,
            secrets_from: if secrets == 0 && is_open {
                "ALLOW_UNSIGNED"
            } else {
                envelope::SECRETS
            }
            .into(),
            secrets,
            rules: BTreeMap::new(),
            remedy: (secrets == 0 && !is_open).then_some(remedy),
        }
    }

    fn configured(source: &Source) -> Self {
        let lacks_url = source.vendor.signs_url() && source.address.is_none();
        let remedy = match (source.is_served(), lacks_url) {
            (false, _) => Some(format!("set {}", source.secrets_from)),
            (true, true) => Some(format!(
                "set PUBLIC_URL (or `url` of [sources.{}]): the vendor signs the address",
                source.name
            )),
            (true, false) => None,
        };
        Self {
            path: source.path(),
            source: source.name.clone(),
            vendor: source.vendor.name().to_owned(),
            served: remedy.is_none(),
            secrets_from: source.secrets_from.clone(),
            secrets: source.secrets.len(),
            rules: rules(source),
            remedy,
        }
    }

    /// Creates the entry of a built-in vendor that is not configured.
    fn of_vendor(name: &str) -> Self {
        let variable = secrets_variable(name);
        Self {
            path: format!("{}/{name}", envelope::PATH),
            source: name.to_owned(),
            vendor: name.to_owned(),
            served: false,
            remedy: Some(format!("set {variable}")),
            secrets_from: variable,
            secrets: 0,
            rules: BTreeMap::new(),
        }
    }
}

/// Returns the rules that differ from the default.
fn rules(source: &Source) -> BTreeMap<&'static str, Value> {
    let Rules { key, ignore, only, except, wanted, answer, destination, threshold } = &source.rules;
    let mut rules = BTreeMap::new();
    let mut add = |name, value: Option<Value>| {
        rules.extend(value.map(|value| (name, value)));
    };
    let texts = |texts: Vec<String>| (!texts.is_empty()).then(|| json!(texts));
    add("key", (*key != KeyRule::default()).then(|| json!(key.to_string())));
    add("ignore", texts(ignore.iter().map(ToString::to_string).collect()));
    add("only", texts(only.iter().map(ToString::to_string).collect()));
    add("except", texts(except.iter().map(ToString::to_string).collect()));
    add("where", texts(wanted.iter().map(|(at, wanted)| format!("{at} = {wanted}")).collect()));
    add("answer", answer.map(|answer| json!(answer.as_str())));
    add("destination", destination.map(|route| json!(route.as_str())));
    add("threshold", threshold.map(|threshold| json!(threshold)));
    let address = source.address.as_ref().filter(|_| source.vendor.signs_url());
    let address = address.map(|address| match address {
        Address::Prefix(url) | Address::Whole(url) => json!(url),
    });
    add("url", address);
    rules
}

fn print(listed: &[Listed], out: &mut impl std::io::Write) -> std::io::Result<()> {
    let (served, idle): (Vec<_>, Vec<_>) = listed.iter().partition(|one| one.served);
    let width = listed.iter().map(|one| one.path.len()).max().unwrap_or_default();
    let vendor = listed.iter().map(|one| one.vendor.len()).max().unwrap_or_default();
    writeln!(out, "served:{}", if served.is_empty() { " nothing" } else { "" })?;
    for Listed { path, vendor: name, secrets_from, secrets, rules, .. } in served {
        write!(out, "  {path:<width$}  {name:<vendor$}  {secrets_from} ({secrets})")?;
        for (name, value) in rules {
            write!(out, "  {name}={}", harmless(&shown(value)))?;
        }
        writeln!(out)?;
    }
    writeln!(out, "not served:")?;
    for Listed { path, vendor: name, remedy, .. } in idle {
        let remedy = remedy.as_deref().unwrap_or_default();
        writeln!(out, "  {path:<width$}  {name:<vendor$}  {remedy}")?;
    }
    Ok(())
}

/// Writes a rule's value in a line, with commas between the entries of a list.
fn shown(value: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value.as_array() {
        Some(values) => values.iter().map(text).collect::<Vec<_>>().join(","),
        None => text(value),
    }
}
