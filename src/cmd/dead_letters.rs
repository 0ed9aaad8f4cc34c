//! `dead-letters` and `discard`: the events that could not be delivered.

use std::{io::Write, process::ExitCode};

use anyhow::Context as _;
use chrono::Utc;
use clap::Args;

use super::{
    existing_store,
    filters::Filters,
    keys,
    shown::{Shown, print_letter, time},
    variables,
};
use crate::{config::StoreConfig, redelivery::Letters, store::Discarded};

#[derive(Args)]
pub struct Options {
    /// Print a JSON object a line, as `inspect --json` does.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filters: Filters,
}

/// Lists dead letters, those that failed first coming first.
///
/// # Errors
/// A store that does not answer.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let config = StoreConfig::from_vars(variables().await?)?;
    let store = existing_store(&config).await?;
    let filter = options.filters.into();
    let records = Letters::new(&*store, &filter).all().await;
    let records = records.context("the store does not answer")?;
    let mut out = std::io::stdout().lock();
    for record in &records {
        if options.json {
            writeln!(out, "{}", serde_json::to_string(&Shown::from(record))?)?;
        } else {
            print_letter(record, &mut out)?;
        }
    }
    let count = records.len();
    eprintln!("{count} dead letter{} in {}", if count == 1 { "" } else { "s" }, config.url);
    Ok(ExitCode::SUCCESS)
}

#[derive(Args)]
pub struct Discard {
    /// Keys, as `inspect` takes them.
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
}

/// Forgets events that have dead letters. Their vendors may still send them again. The exit status
/// is 1 when one was not discarded.
///
/// # Errors
/// A key that cannot be read or is ambiguous, or a store that does not answer.
pub async fn discard(options: Discard) -> anyhow::Result<ExitCode> {
    let config = StoreConfig::from_vars(variables().await?)?;
    let store = existing_store(&config).await?;
    let mut exit = ExitCode::SUCCESS;
    for text in &options.keys {
        let discarded = match keys::find(&*store, text).await? {
            Some(key) => {
                store.discard(&key, Utc::now()).await.context("the store does not answer")?
            }
            None => Discarded::None,
        };
        match discarded {
            Discarded::Done => {
                println!("{text}: discarded");
                continue;
            }
            Discarded::None => eprintln!("{text}: there is no dead letter"),
            Discarded::InFlight { until } => {
                eprintln!(
                    "{text}: is being delivered, or may have been; try after {}",
                    time(until)
                );
            }
        }
        exit = ExitCode::FAILURE;
    }
    Ok(exit)
}
