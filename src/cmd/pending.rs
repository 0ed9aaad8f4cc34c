//! `pending`: the accepted events that are not delivered yet.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context as _;
use chrono::Utc;
use clap::Args;

use super::{
    existing_store,
    shown::{Shown, harmless, time},
    variables,
};
use crate::{
    config::StoreConfig,
    key::Key,
    route::Route,
    store::{Record, State, Store, StoreError},
};

/// The number of entries that are read per page.
const PAGE: usize = 256;

#[derive(Args)]
pub struct Options {
    /// Print one JSON object per line, as `inspect --json` does.
    #[arg(long)]
    json: bool,
    /// Print only events of this vendor. Case does not matter.
    #[arg(long)]
    vendor: Option<String>,
    /// Print only events that go to gcp, or to aws.
    #[arg(long, value_name = "gcp|aws")]
    destination: Option<Route>,
    /// Print only events whose next attempt is due.
    #[arg(long)]
    due: bool,
}

/// Lists accepted events by destination, in the order in which they are due.
///
/// # Errors
/// Fails if the store does not answer.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let config = StoreConfig::from_vars(variables().await?)?;
    let store = existing_store(&config).await?;
    let mut count = 0;
    for route in Route::ALL {
        if options.destination.is_some_and(|only| only != route) {
            continue;
        }
        let mut after = None;
        loop {
            let by_now = options.due.then(Utc::now);
            let page = store.due(route, by_now, after, PAGE).await;
            let page = page.context("the store does not answer")?;
            let Some(last) = page.last() else { break };
            after = Some(*last);
            for due in page {
                let record = pending(&*store, &due.key, &options).await;
                if let Some(record) = record.context("the store does not answer")? {
                    print(&record, options.json)?;
                    count += 1;
                }
            }
        }
    }
    eprintln!("{count} accepted event{} in {}", if count == 1 { "" } else { "s" }, config.url);
    Ok(ExitCode::SUCCESS)
}

/// Returns the record of an event if it is still in the inbox and the vendor matches.
async fn pending(
    store: &dyn Store,
    key: &Key,
    options: &Options,
) -> Result<Option<Record>, StoreError> {
    let record = store.get(key, Utc::now()).await?;
    Ok(record.filter(|record| {
        let vendor = record.details.as_ref().map(|details| details.vendor.to_lowercase());
        record.accepted.is_some()
            && options.vendor.as_ref().is_none_or(|only| Some(only.to_lowercase()) == vendor)
    }))
}

/// Prints a line: the time of the next attempt, the digits of the key, destination, vendor and type,
/// the time of the acceptance, and the number of attempts since then.
fn print(record: &Record, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        return writeln!(out, "{}", serde_json::to_string(&Shown::from(record))?);
    }
    let (Some(details), Some(accepted)) = (&record.details, &record.accepted) else {
        return Ok(());
    };
    let next = match record.state {
        State::Waiting { due } => time(due),
        _ => "being delivered".to_owned(),
    };
    writeln!(
        out,
        "{next} {} {} {} {} accepted={} tries={}",
        record.key.to_string().trim_start_matches(Key::PREFIX),
        details.route,
        harmless(&details.vendor),
        harmless(&details.event_type),
        time(accepted.at),
        accepted.tries,
    )
}
