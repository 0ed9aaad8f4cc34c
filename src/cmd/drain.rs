//! `drain`: delivers the accepted events that are due, once.

use std::{process::ExitCode, sync::Arc};

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{existing_store, stop::stop_signal, variables};
use crate::{
    config::Config,
    inbox::{self, Drained},
    router::Budget,
};

#[derive(Args)]
pub struct Options {
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// Delivers what is due, and prints the result. The exit status is 1 if due events may be left: a
/// destination is down, the store failed, or a signal came. After SIGTERM or Ctrl-C, it begins no
/// more attempts, and waits for the attempts under way.
///
/// # Errors
/// Fails if the configuration or the store cannot be used.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let config = Config::from_vars(variables().await?)?;
    existing_store(&config.store).await?;
    let router = Arc::new(super::router(&config).await?);
    let (stop, signal) = (CancellationToken::new(), stop_signal()?);
    let stopping = stop.clone();
    tokio::spawn(async move {
        signal.await;
        stopping.cancel();
    });
    let workers = config.inbox.workers;
    let budgets = Arc::new(move || Budget::of_attempt(&config));
    let drained = inbox::drain(router, workers, budgets, stop.clone()).await;
    let Drained { delivered, postponed, failed, down, is_incomplete } = drained;
    if options.json {
        println!("{}", serde_json::to_string(&drained)?);
    } else {
        println!("{delivered} delivered, {postponed} to be tried again, {failed} failed");
        if down > 0 {
            eprintln!(
                "{down} of the destinations could not be reached or answered 503: their events wait"
            );
        }
        if is_incomplete {
            eprintln!(
                "the store did not answer every time, or a record cannot be read; the log says more \
                 (RUST_LOG=warn)"
            );
        }
    }
    let is_done = down == 0 && !is_incomplete && !stop.is_cancelled();
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
