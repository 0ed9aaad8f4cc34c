//! `replay`: delivers dead letters again, and accepted events before their time.

use std::{future::ready, io::IsTerminal as _, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use chrono::Utc;
use clap::{ArgGroup, Args};
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::{
    backlog::Backlog,
    existing_store,
    filters::Filters,
    keys,
    shown::{harmless, print_record},
    stop::StopSignals,
    variables,
};
use crate::{
    config::{Config, StoreConfig},
    key::Key,
    outcome::{Ending, Origin, Trigger},
    redelivery::{self, End, Letters, Pace, Pending, Replayed, Summary},
    router::Budget,
    store::{Record, State, Store},
};

#[derive(Args)]
#[command(group = ArgGroup::new("which").required(true))]
pub struct Options {
    /// Keys of dead letters and of accepted events, in the form that `inspect` accepts. An accepted
    /// event is tried now, and does not wait for its schedule.
    #[arg(value_name = "KEY", group = "which")]
    keys: Vec<String>,
    /// Replay all dead letters that exist now, or those that match the filters.
    #[arg(long, group = "which")]
    all: bool,
    /// Replay all accepted events that wait for their next attempt, or those that match the filters:
    /// for example after an outage.
    #[arg(long, group = "which")]
    pending: bool,
    #[command(flatten)]
    filters: Filters,
    /// List the events that would be replayed, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Begin at most this many replays per second.
    #[arg(long, value_name = "N", value_parser = per_second())]
    per_second: Option<u32>,
}

/// Replays dead letters and accepted events, and prints the results. The exit status is 1 if an event
/// is not delivered. On Ctrl-C, the command begins no more replays, and waits for the replays under
/// way.
///
/// # Errors
/// Fails if the configuration, a key or the store cannot be used.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let is_bulk = options.all || options.pending;
    anyhow::ensure!(is_bulk || options.filters.are_none(), "filters need --all or --pending");
    let variables = variables().await?;
    let store_config = StoreConfig::from_vars(&variables)?;
    let store = existing_store(&store_config).await?;
    let records = chosen(&*store, &options).await?;
    if options.dry_run {
        let mut out = std::io::stdout().lock();
        records.iter().try_for_each(|record| print_record(record, &mut out))?;
        eprintln!("{} to replay; nothing was sent", records.len());
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::from_vars(&variables)?;
    let router = Arc::new(super::router(&config, ready(Ok(Arc::clone(&store)))).await?);
    let stop = CancellationToken::new();
    let (mut signals, stopping) = (StopSignals::listen()?, stop.clone());
    tokio::spawn(async move {
        signals.next().await;
        stopping.cancel();
        eprintln!("stopping after the replays under way; a second signal ends them at once");
        signals.next().await;
        std::process::exit(1);
    });
    let by = if is_bulk { Trigger::BulkReplay } else { Trigger::Replay };
    let pace = Pace { by, origin: Origin::default(), per_second: options.per_second, stop };
    let keys = records.iter().map(|record| record.key).collect();
    let budget = || Some(Budget::configured(&config));
    let bar = progress_bar(records.len() as u64);
    let (mut have_failed, mut are_postponed) = (false, false);
    let progress = |key, replayed: Replayed| {
        bar.inc(1);
        have_failed |= replayed.end == End::Ended(Ending::Failed);
        are_postponed |= replayed.end == End::Ended(Ending::Postponed);
        if !is_bulk || replayed.end != End::Ended(Ending::Delivered) {
            bar.suspend(|| say!("{}", line(key, &replayed)));
        }
    };
    let mut summary = Summary::default();
    redelivery::replay(&router, keys, &pace, budget, progress, &mut summary).await;
    bar.finish_and_clear();
    if is_bulk || records.len() > 1 {
        say!("{}", text(&summary));
    }
    if have_failed {
        eprintln!(
            "`inspect KEY` shows all attempts, and the beginning of the destination's answer if there was one"
        );
    }
    if are_postponed {
        eprintln!("`inspect KEY` shows the last failure and the time of the next attempt");
    }
    if options.all {
        Backlog::hint(&*store, "`replay --pending` tries them now").await;
    }
    Ok(if summary.left() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the events that the options name, or those that match the filters.
async fn chosen(store: &dyn Store, options: &Options) -> anyhow::Result<Vec<Record>> {
    let filter = options.filters.clone().into();
    if options.all {
        let records = Letters::new(store, &filter).all().await;
        return records.context("the store does not answer");
    }
    if options.pending {
        let mut records = Pending::new(store, &filter, None).all().await;
        if let Ok(records) = &mut records {
            // An attempt at the others is under way.
            records.retain(|record| matches!(record.state, State::Waiting { .. }));
        }
        return records.context("the store does not answer");
    }
    let mut records: Vec<Record> = Vec::new();
    for text in &options.keys {
        let record = match keys::find(store, text).await? {
            Some(key) => store.get(&key, Utc::now()).await.context("the store does not answer")?,
            None => None,
        };
        let record = record.filter(|record| record.failed.is_some() || record.accepted.is_some());
        let record = record.with_context(|| {
            format!(
                "{text} is neither a dead letter nor in the inbox; nothing was sent (`inspect` \
                 shows its record)"
            )
        })?;
        if records.iter().all(|known| known.key != record.key) {
            records.push(record);
        }
    }
    Ok(records)
}

fn per_second() -> clap::builder::RangedI64ValueParser<u32> {
    let (least, most) = redelivery::PER_SECOND.into_inner();
    clap::value_parser!(u32).range(i64::from(least)..=i64::from(most))
}

fn progress_bar(length: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Returns the line for a person: the key, the destination, the result, and the reason.
fn line(key: Key, replayed: &Replayed) -> String {
    let Replayed { end, destination, reason } = replayed;
    let words = match end {
        End::Ended(Ending::Delivered) => "delivered",
        End::Ended(Ending::Failed) => "failed, and is a dead letter again",
        End::Ended(Ending::Postponed) => "failed, and is tried again later",
        End::Ended(Ending::InProgress) => "not sent, because its lease has not ended",
        End::Ended(Ending::StoreUnavailable) => "not sent",
        End::Ended(Ending::NoTime | Ending::Limited) => "not begun",
        End::Ended(Ending::Accepted | Ending::Duplicate | Ending::OtherBody) => {
            "not sent, because it was delivered or accepted in the meantime"
        }
        End::Unsettled => "was sent, but the result could not be stored: counts as not delivered",
        End::Gone => "is neither a dead letter nor in the inbox any more",
    };
    let destination = destination.map(|route| format!("{route}: ")).unwrap_or_default();
    let reason = reason.as_ref().map(|reason| format!(": {}", harmless(reason)));
    format!("{key}: {destination}{words}{}", reason.unwrap_or_default())
}

fn text(summary: &Summary) -> String {
    let Summary { delivered, gone, in_progress, failed, unsettled, store_unavailable, not_begun } =
        *summary;
    let mut text = format!("{delivered} delivered");
    for (count, what) in [
        (gone, "delivered or discarded by others"),
        (in_progress, "in progress"),
        (failed, "failed"),
        (unsettled, "sent, but the result could not be stored"),
        (
            store_unavailable,
            "without an answer from the store, or with a record that cannot be read",
        ),
        (not_begun, "not begun"),
    ] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text
}
