//! `dead-letters` and `discard`: the events that could not be delivered.

use std::{
    io::{self, IsTerminal as _, Write},
    process::ExitCode,
};

use anyhow::Context as _;
use chrono::Utc;
use clap::{ArgGroup, Args};

use super::{
    backlog::Backlog,
    existing_store,
    filters::Filters,
    keys,
    shown::{Shown, print_letter, time},
    variables,
};
use crate::{
    config::{StoreConfig, StoreUrl},
    key::Key,
    redelivery::Letters,
    store::{Discarded, Record, Store},
};

#[derive(Args)]
pub struct Options {
    /// Print one JSON object per line, in the format of `inspect --json`.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filters: Filters,
}

/// Lists dead letters, oldest failure first.
///
/// # Errors
/// Fails if the store does not answer.
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
    eprintln!("{}", count(records.len(), &config.url));
    Ok(ExitCode::SUCCESS)
}

#[derive(Args)]
#[command(group = ArgGroup::new("which").required(true))]
pub struct Discard {
    /// Keys, in the form that `inspect` accepts.
    #[arg(value_name = "KEY", group = "which")]
    keys: Vec<String>,
    /// Discard all dead letters, or those that match the filters. Prints their number and asks for
    /// confirmation.
    #[arg(long, group = "which")]
    all: bool,
    #[command(flatten)]
    filters: Filters,
    /// Do not ask for confirmation. Required without a terminal.
    #[arg(long, conflicts_with = "keys")]
    yes: bool,
}

/// Deletes events that have dead letters or are in the inbox. Their vendors may still send them
/// again. The exit status is 1 if an event was not discarded.
///
/// # Errors
/// Fails if a key is malformed or ambiguous, or the store does not answer. With `--all`, fails
/// unless the question is answered with yes.
pub async fn discard(options: Discard) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(options.all || options.filters.are_none(), "filters need --all");
    let config = StoreConfig::from_vars(variables().await?)?;
    let store = existing_store(&config).await?;
    if options.all {
        return discard_all(&*store, &config, options).await;
    }
    let mut exit = ExitCode::SUCCESS;
    for text in &options.keys {
        let key = keys::find(&*store, text).await?;
        if !discard_one(&*store, key, text).await? {
            exit = ExitCode::FAILURE;
        }
    }
    Ok(exit)
}

/// How to discard what `discard --all` leaves out.
const REMEDY: &str = "`pending` lists them, and `discard KEY...` deletes them";

async fn discard_all(
    store: &dyn Store,
    config: &StoreConfig,
    options: Discard,
) -> anyhow::Result<ExitCode> {
    let filter = options.filters.into();
    let records = Letters::new(store, &filter).all().await;
    let records = records.context("the store does not answer")?;
    let what = count(records.len(), &config.url);
    if records.is_empty() {
        eprintln!("{what}: nothing to discard");
        Backlog::hint(store, REMEDY).await;
        return Ok(ExitCode::SUCCESS);
    }
    if !options.yes {
        ask(&format!("{what} would be gone for good. Discard them? Type yes: "), &what)?;
    }
    let mut left = 0;
    for Record { key, .. } in &records {
        if !discard_one(store, Some(*key), &key.to_string()).await? {
            left += 1;
        }
    }
    eprintln!("{} discarded, {left} left", records.len() - left);
    Backlog::hint(store, REMEDY).await;
    Ok(if left == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Asks at the terminal, and fails unless the answer is yes.
fn ask(question: &str, what: &str) -> anyhow::Result<()> {
    let input = io::stdin();
    anyhow::ensure!(
        input.is_terminal(),
        "{what}; nothing was discarded, because there is no terminal to ask at: add --yes"
    );
    eprint!("{question}");
    let mut answer = String::new();
    input.read_line(&mut answer).context("the answer cannot be read")?;
    anyhow::ensure!(answer.trim().eq_ignore_ascii_case("yes"), "nothing was discarded");
    Ok(())
}

/// Discards an event, and prints the result under the name that the operator gave. Returns whether
/// the event was discarded.
async fn discard_one(store: &dyn Store, key: Option<Key>, name: &str) -> anyhow::Result<bool> {
    let discarded = match key {
        Some(key) => store.discard(&key, Utc::now()).await.context("the store does not answer")?,
        None => Discarded::None,
    };
    match discarded {
        Discarded::Done => say!("{name}: discarded"),
        Discarded::None => eprintln!("{name}: is neither a dead letter nor in the inbox"),
        Discarded::InFlight { until } => {
            eprintln!(
                "{name}: is being delivered, or may have been delivered; try after {}",
                time(until)
            );
        }
    }
    Ok(discarded == Discarded::Done)
}

/// Describes the number of letters and their store.
fn count(number: usize, store: &StoreUrl) -> String {
    format!("{number} dead letter{} in {store}", if number == 1 { "" } else { "s" })
}
