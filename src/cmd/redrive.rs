//! The invocation that replays dead letters: the `replay` command, in Lambda.
//!
//! `{"replay": {"all": true, "vendor": "stripe"}}`, or `{"replay": {"keys": ["webhook:dedup:…"]}}`.
//! The request comes from a caller that may invoke the function, for example an EventBridge
//! schedule. A front puts each request inside an event. So a sender cannot make such an invocation.
//!
//! `all` skips the dead letters that REDRIVE_LIMIT leaves to the operator, because a schedule would
//! replay them again and again. An operator names keys, or adds `"left_to_operator": true`.

use chrono::{DateTime, Utc};
use lambda_runtime::Context;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::{filters::parse_since, function::Function};
use crate::{
    key::Key,
    outcome::{Origin, Trigger},
    redelivery::{self, Filter, Letters, PER_SECOND, Pace, Summary, is_left_to_operator},
    route::Route,
    telemetry,
};

/// The dead letters to replay: `keys`, or `all` with the filters of the command.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    all: bool,
    vendor: Option<String>,
    destination: Option<Route>,
    #[serde(default, deserialize_with = "since")]
    since: Option<DateTime<Utc>>,
    /// True if `all` includes the letters that are left to the operator.
    #[serde(default)]
    left_to_operator: bool,
    #[serde(default)]
    dry_run: bool,
    per_second: Option<u32>,
}

/// The result of the request.
#[derive(Serialize, Default)]
pub(super) struct Report {
    /// Number of dead letters that were chosen. It may be incomplete if there was no time to read
    /// the whole list.
    chosen: usize,
    /// Number of dead letters that were skipped, because each of their last REDRIVE_LIMIT bulk
    /// replays ended in a status that another attempt does not change, such as 422.
    left_to_operator: usize,
    #[serde(flatten)]
    summary: Summary,
}

/// The reason why a replay did not begin, or did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum RedriveError {
    #[error("replay: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("replay: give either `keys`, or `all` with or without filters")]
    NothingChosen,
    #[error("replay: `per_second` must be from 1 to 10000")]
    PerSecond,
    #[error(
        "replay: there is no time for an attempt: the function's timeout must be longer than \
         FORWARD_TIMEOUT_MS, STORE_TIMEOUT_MS and half a second together"
    )]
    NoTime,
    #[error("replay: {0}")]
    NotAKey(#[from] crate::key::NotAKey),
    #[error("replay: the store does not answer: {0}")]
    Store(#[from] crate::store::StoreError),
    #[error("replay: bug: a panic")]
    Panic(#[from] tokio::task::JoinError),
}

/// Returns the replay request in an invocation, or `None` for an event of a front and anything
/// else.
pub(super) fn request(payload: &str) -> Option<Result<Request, RedriveError>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Invocation<'a> {
        #[serde(borrow)]
        replay: Option<&'a RawValue>,
        request_context: Option<IgnoredAny>,
    }
    let invocation: Invocation<'_> = serde_json::from_str(payload).ok()?;
    match invocation {
        Invocation { replay: Some(replay), request_context: None } => {
            Some(serde_json::from_str(replay.get()).map_err(RedriveError::from))
        }
        _ => None,
    }
}

/// Replays dead letters while there is time for an attempt.
pub(super) async fn run(
    function: &Function,
    request: Request,
    context: &Context,
    origin: Origin,
) -> Result<Report, RedriveError> {
    let Request { keys, all, vendor, destination, since, left_to_operator, dry_run, per_second } =
        request;
    let has_filters = vendor.is_some() || destination.is_some() || since.is_some();
    if keys.is_empty() != all || ((has_filters || left_to_operator) && !all) {
        return Err(RedriveError::NothingChosen);
    }
    if per_second.is_some_and(|per_second| !PER_SECOND.contains(&per_second)) {
        return Err(RedriveError::PerSecond);
    }
    let attempt = function.config.forward.timeout;
    let budget = || Some(function.budget(context)).filter(|budget| budget.has_time_for(attempt));
    if budget().is_none() {
        return Err(RedriveError::NoTime);
    }
    let by = if all { Trigger::BulkReplay } else { Trigger::Replay };
    let pace = Pace { by, origin, per_second, stop: CancellationToken::new() };
    let (router, mut report) = (&function.router, Report::default());
    let replay = async |keys: Vec<Key>, report: &mut Report| {
        report.chosen += keys.len();
        if !dry_run {
            let summary = &mut report.summary;
            redelivery::replay(router, keys, &pace, budget, |_, _| {}, summary).await;
        }
    };
    let mut left = None;
    if all {
        // The list is read page by page, so the first letters are tried at once even if there are
        // many.
        let filter = Filter { vendor, destination, since };
        let mut letters = Letters::new(router.store(), &filter);
        let is_complete = loop {
            if budget().is_none() {
                break false;
            }
            let Some(records) = letters.next().await? else { break true };
            let (passed_over, chosen): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| {
                !left_to_operator && is_left_to_operator(record, function.config.redrive_limit)
            });
            report.left_to_operator += passed_over.len();
            replay(chosen.iter().map(|record| record.key).collect(), &mut report).await;
        };
        if !has_filters {
            let known = report.summary.left() + report.left_to_operator as u32 + letters.corrupt;
            // If the list was not read to its end, more letters may be left.
            left = Some(if is_complete { known } else { known.max(1) });
        }
    } else {
        let keys = keys.iter().map(|text| {
            let digits = text.strip_prefix(Key::PREFIX).unwrap_or(text);
            format!("{}{digits}", Key::PREFIX).parse()
        });
        replay(keys.collect::<Result<_, _>>()?, &mut report).await;
    }
    if !dry_run {
        telemetry::redriven(&report, left);
    }
    Ok(report)
}

/// Reads a time, or a duration before now.
fn since<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<DateTime<Utc>>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse_since(&text)).transpose().map_err(serde::de::Error::custom)
}
