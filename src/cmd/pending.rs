//! `pending`: the accepted events that are not delivered yet.

use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;
use chrono::Utc;
use clap::Args;

use super::{
    existing_store,
    filters::Filters,
    shown::{Shown, print_pending},
    variables,
};
use crate::{config::StoreConfig, redelivery::Pending};

#[derive(Args)]
#[command(
    after_help = "A line has the time of the next attempt (which has passed if the event is \
    due) or `being-delivered`, the digits of the key, the destination, vendor and type, the time of \
    the acceptance, and the number of attempts since then that count for RETRY_SCHEDULE."
)]
pub struct Options {
    /// Print one JSON object per line, as `inspect --json` does.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filters: Filters,
    /// Print only events whose next attempt is due. Leaves out events that a message is about to bring.
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
    let filter = options.filters.into();
    let mut pending = Pending::new(&*store, &filter, options.due.then(Utc::now));
    let mut count = 0;
    while let Some(records) = pending.next().await.context("the store does not answer")? {
        let mut out = std::io::stdout().lock();
        for record in &records {
            if options.json {
                writeln!(out, "{}", serde_json::to_string(&Shown::from(record))?)?;
            } else {
                print_pending(record, &mut out)?;
            }
        }
        count += records.len();
    }
    eprintln!("{count} accepted event{} in {}", if count == 1 { "" } else { "s" }, config.url);
    Ok(ExitCode::SUCCESS)
}
