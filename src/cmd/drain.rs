//! `drain`: delivers the accepted events that are due, once.

use std::{future::ready, process::ExitCode, sync::Arc};

use clap::Args;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{backlog::Backlog, existing_store, stop::stop_signal, variables};
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

/// The result, and the events that are still in the inbox.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    drained: Drained,
    /// `None` if the store does not answer.
    #[serde(flatten)]
    left: Option<Backlog>,
}

/// Delivers what is due, and prints the result, and what is still in the inbox. The exit status is 1
/// when due events are left. After SIGTERM or Ctrl-C, it begins no more attempts, and waits for the
/// attempts under way.
///
/// # Errors
/// Fails if the configuration or the store cannot be used.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let config = Config::from_vars(variables().await?)?;
    let store = existing_store(&config.store).await?;
    let router = Arc::new(super::router(&config, ready(Ok(store))).await?);
    let (stop, signal) = (CancellationToken::new(), stop_signal()?);
    let stopping = stop.clone();
    tokio::spawn(async move {
        signal.await;
        stopping.cancel();
    });
    let workers = config.inbox.workers;
    let budgets = Arc::new(move || Budget::of_attempt(&config));
    let mut drained = inbox::drain(Arc::clone(&router), workers, budgets, stop.clone()).await;
    let left = Backlog::read(router.store()).await;
    drained.is_incomplete |= left.is_err();
    let has_left = !drained.down.is_empty() || !drained.busy.is_empty();
    let is_done = !has_left && !drained.is_incomplete && !stop.is_cancelled();
    let report = Report { drained, left: left.ok() };
    if options.json {
        say!("{}", serde_json::to_string(&report)?);
    } else {
        report.print();
    }
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Report {
    fn print(&self) {
        let Drained { delivered, postponed, failed, down, busy, is_incomplete } = &self.drained;
        say!("{delivered} delivered, {postponed} to be tried again, {failed} failed");
        for route in down {
            eprintln!("{route} is down (it cannot be reached, or answers 503): its events wait");
        }
        for route in busy {
            eprintln!(
                "{route} is busy (Lambda throttles the function): its events wait; raise the \
                 function's concurrency, or lower INBOX_WORKERS"
            );
        }
        if let Some(left) = self.left.as_ref().filter(|left| left.pending > 0) {
            eprintln!("{} left; the next attempt is due {}", left.count(), left.next());
        }
        if *is_incomplete {
            eprintln!(
                "the store did not answer every time, or a record cannot be read; the log says more \
                 (RUST_LOG=warn)"
            );
        }
    }
}
