//! `inspect`: what the store knows of an event.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use serde::Serialize;

use super::env;
use crate::{
    config::StoreConfig,
    delivery::Reply,
    key::Key,
    plan::Route,
    store::{self, Attempt, Failed, Failure, Outcome, Record, Source, State, Store},
};

/// Fewest hex digits that a key may be shortened to.
const MIN_DIGITS: usize = 8;

#[derive(Args)]
pub struct Options {
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
    /// The key as in X-Webhook-Key, its 64 hex digits, or the first 8 or more of them where the
    /// store can find them (SQLite, and Redis other than as a cluster).
    #[arg(value_name = "KEY")]
    key: String,
}

/// Prints the record of an event; the exit status is 1 when there is none.
///
/// # Errors
/// A key that cannot be read or is ambiguous, or a store that does not answer.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let config = StoreConfig::from_vars(env)?;
    let store = store::open(&config).await.context("the store cannot be used")?;
    let Some(key) = find(&*store, &options.key).await? else {
        eprintln!("no event has a key that begins with {}", options.key);
        return Ok(ExitCode::FAILURE);
    };
    let Some(record) = store.get(&key, Utc::now()).await.context("the store does not answer")?
    else {
        eprintln!("{key} is not known, or forgotten");
        return Ok(ExitCode::FAILURE);
    };
    let shown = Shown::from(&record);
    if options.json {
        println!("{}", serde_json::to_string(&shown)?);
    } else {
        print!("{}", shown.text());
    }
    Ok(ExitCode::SUCCESS)
}

/// The key that was meant.
async fn find(store: &dyn Store, text: &str) -> anyhow::Result<Option<Key>> {
    let digits = text.strip_prefix(Key::PREFIX).unwrap_or(text).to_ascii_lowercase();
    if let Ok(key) = format!("{}{digits}", Key::PREFIX).parse() {
        return Ok(Some(key));
    }
    let is_short_key = (MIN_DIGITS..64).contains(&digits.len())
        && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    anyhow::ensure!(
        is_short_key,
        "`{text}` is no key: give {}<64 hex digits>, or the first {MIN_DIGITS} digits or more",
        Key::PREFIX
    );
    let found = store.find(&digits, Utc::now()).await.context("the store does not answer")?;
    let found = found.context("this store cannot find a key by its first digits: give all 64")?;
    match found[..] {
        [] => Ok(None),
        [key] => Ok(Some(key)),
        _ => anyhow::bail!("several keys begin with {digits}: give more digits"),
    }
}

/// A record as it is shown. Times are RFC 3339, in UTC.
#[derive(Default, Serialize)]
struct Shown {
    key: String,
    /// `in_flight`, `delivered` or `dead_letter`.
    state: &'static str,
    /// The last owner, and the end of its lease.
    owner: Option<String>,
    until: Option<String>,
    delivered_at: Option<String>,
    failed_at: Option<String>,
    failure: Option<ShownFailure>,
    vendor: Option<String>,
    event_type: Option<String>,
    created_at: Option<String>,
    destination: Option<Route>,
    first_seen: Option<String>,
    attempts: Vec<ShownAttempt>,
    reply: Option<ShownReply>,
}

#[derive(Serialize)]
struct ShownAttempt {
    number: u32,
    at: String,
    by: Source,
    destination: Route,
    outcome: String,
    milliseconds: u64,
}

#[derive(Serialize)]
struct ShownFailure {
    outcome: String,
    detail: String,
}

#[derive(Serialize)]
struct ShownReply {
    status: u16,
    content_type: Option<String>,
    bytes: usize,
    /// When it is text.
    body: Option<String>,
}

impl From<&Record> for Shown {
    fn from(record: &Record) -> Self {
        let Record { key, details, attempts, failed, state } = record;
        let mut shown = Self {
            key: key.to_string(),
            attempts: attempts.iter().map(ShownAttempt::from).collect(),
            ..Self::default()
        };
        if let Some(details) = details {
            shown.vendor = Some(details.vendor.clone());
            shown.event_type = Some(details.event_type.clone());
            shown.created_at = Some(details.created_at.to_string());
            shown.destination = Some(details.route);
            shown.first_seen = Some(time(details.first_seen));
        }
        match state {
            State::InFlight { owner, until } => {
                shown.state = "in_flight";
                shown.owner = Some(owner.clone());
                shown.until = Some(time(*until));
            }
            State::Delivered { at, reply } => {
                shown.state = "delivered";
                shown.delivered_at = at.map(time);
                shown.reply = reply.as_ref().map(ShownReply::from);
            }
            State::DeadLetter => shown.state = "dead_letter",
        }
        if let Some(Failed { at, failure: Failure { outcome, detail } }) = failed {
            shown.failed_at = Some(time(*at));
            let outcome = words(*outcome);
            shown.failure = Some(ShownFailure { outcome, detail: detail.clone() });
        }
        shown
    }
}

impl From<&Attempt> for ShownAttempt {
    fn from(attempt: &Attempt) -> Self {
        let Attempt { number, at, by, destination, outcome, milliseconds } = *attempt;
        Self { number, at: time(at), by, destination, outcome: words(outcome), milliseconds }
    }
}

impl From<&Reply> for ShownReply {
    fn from(reply: &Reply) -> Self {
        Self {
            status: reply.status.as_u16(),
            content_type: reply.content_type().map(str::to_owned),
            bytes: reply.body.len(),
            body: String::from_utf8(reply.body.to_vec()).ok(),
        }
    }
}

impl Shown {
    /// Lines for a person.
    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                // What comes from a payload must not control the terminal.
                let value = value.replace(char::is_control, "\u{FFFD}");
                let _ = writeln!(text, "{name:<12} {value}");
            }
        };
        line("key", Some(self.key.clone()));
        line("state", Some(self.state.replace('_', " ")));
        line("owner", self.owner.clone());
        line("lease until", self.until.clone());
        line("delivered", self.delivered_at.clone());
        line("failed", self.failed_at.clone());
        line("failure", self.failure.as_ref().map(|failure| failure.detail.clone()));
        line("vendor", self.vendor.clone());
        line("event_type", self.event_type.clone());
        line("created_at", self.created_at.clone());
        line("destination", self.destination.map(|route| route.to_string()));
        line("first seen", self.first_seen.clone());
        for ShownAttempt { number, at, by, destination, outcome, milliseconds } in &self.attempts {
            let attempt =
                format!("{number}: {at}, {destination}, {outcome}, {milliseconds} ms, by {by}");
            line("attempt", Some(attempt));
        }
        line(
            "reply",
            self.reply.as_ref().map(|reply| {
                let ShownReply { status, content_type, bytes, .. } = reply;
                let content_type = content_type.as_deref().unwrap_or("no content type");
                format!("{status}, {content_type}, {bytes} bytes")
            }),
        );
        if self.vendor.is_none() {
            line("details", Some("not known: another router delivered it".into()));
        }
        text
    }
}

fn words(outcome: Outcome) -> String {
    match outcome {
        Outcome::Status(status) => status.to_string(),
        Outcome::Unreachable => "unreachable".into(),
        Outcome::TimedOut => "timed out".into(),
        Outcome::Broken => "connection broken".into(),
    }
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
