//! `inspect`: prints what the store knows of an event.

use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::Utc;
use clap::Args;
use serde::Serialize;

use super::{
    existing_store, keys,
    shown::{Shown, harmless, harmless_lines},
    variables,
};
use crate::{config::StoreConfig, delivery::Delivery};

#[derive(Args)]
pub struct Options {
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
    /// Also print the delivery of a dead letter, or of an accepted event that is not delivered: its
    /// headers, including signatures, and its body.
    #[arg(long)]
    delivery: bool,
    /// The key as in X-Webhook-Key, its 64 hex digits, or its first 8 or more digits. Only SQLite
    /// and a single Redis server can find a key by its first digits.
    #[arg(value_name = "KEY")]
    key: String,
}

/// Prints the record of an event. The exit status is 1 if there is none.
///
/// # Errors
/// Fails if the key is malformed or ambiguous, or the store does not answer.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let config = StoreConfig::from_vars(variables().await?)?;
    let store = existing_store(&config).await?;
    let Some(key) = keys::find(&*store, &options.key).await? else {
        eprintln!("no event has a key that begins with {}", options.key);
        return Ok(ExitCode::FAILURE);
    };
    let Some(record) = store.get(&key, Utc::now()).await.context("the store does not answer")?
    else {
        eprintln!("{key} has no record: it is unknown, or its record has expired");
        return Ok(ExitCode::FAILURE);
    };
    let delivery = match options.delivery {
        true => store.delivery(&key).await.context("the store does not answer")?,
        false => None,
    };
    let inspected = Inspected {
        record: Shown::from(&record),
        delivery: delivery.as_ref().map(ShownDelivery::from),
    };
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{}", serde_json::to_string(&inspected)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    write!(out, "{}", inspected.record.text())?;
    match inspected.delivery {
        Some(delivery) => write!(out, "\n{}", delivery.text())?,
        None if options.delivery => {
            let why = "the event is neither a dead letter nor in the inbox";
            writeln!(out, "\nno delivery is kept: {why}")?;
        }
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct Inspected {
    #[serde(flatten)]
    record: Shown,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<ShownDelivery>,
}

/// The delivery of an event. A body that is not UTF-8 is in base64.
#[derive(Serialize)]
struct ShownDelivery {
    method: String,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    /// A list, because a name may occur twice.
    headers: Vec<(String, String)>,
    body: Option<String>,
    body_base64: Option<String>,
}

impl From<&Delivery> for ShownDelivery {
    fn from(delivery: &Delivery) -> Self {
        let Delivery { method, path, query, headers, body, .. } = delivery;
        let text = std::str::from_utf8(body).ok();
        let headers = headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.to_string(), value)
        });
        Self {
            method: method.to_string(),
            path: path.clone(),
            query: query.clone(),
            headers: headers.collect(),
            body: text.map(str::to_owned),
            body_base64: text.is_none().then(|| BASE64_STANDARD.encode(body)),
        }
    }
}

impl ShownDelivery {
    /// Returns the delivery in the form of an HTTP request.
    fn text(&self) -> String {
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let mut text = format!("{} {}\n", self.method, harmless(&(self.path.clone() + &query)));
        for (name, value) in &self.headers {
            text += &format!("{name}: {}\n", harmless(value));
        }
        let body = self.body.as_deref().map(harmless_lines);
        text + "\n" + &body.or(self.body_base64.clone()).unwrap_or_default() + "\n"
    }
}
