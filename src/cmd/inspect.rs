//! `inspect`: what the store knows of an event.

use std::process::ExitCode;

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
    /// Also show the delivery that a dead letter keeps: its headers, signatures among them, and its
    /// body.
    #[arg(long)]
    delivery: bool,
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
    let config = StoreConfig::from_vars(variables().await?)?;
    let store = existing_store(&config).await?;
    let Some(key) = keys::find(&*store, &options.key).await? else {
        eprintln!("no event has a key that begins with {}", options.key);
        return Ok(ExitCode::FAILURE);
    };
    let Some(record) = store.get(&key, Utc::now()).await.context("the store does not answer")?
    else {
        eprintln!("{key} is not known, or forgotten");
        return Ok(ExitCode::FAILURE);
    };
    let letter = match options.delivery {
        true => store.dead_letter(&key).await.context("the store does not answer")?,
        false => None,
    };
    let inspected = Inspected {
        record: Shown::from(&record),
        delivery: letter.map(|letter| ShownDelivery::from(&letter.delivery)),
    };
    if options.json {
        println!("{}", serde_json::to_string(&inspected)?);
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", inspected.record.text());
    match inspected.delivery {
        Some(delivery) => print!("\n{}", delivery.text()),
        None if options.delivery => println!("\nno dead letter, and so no delivery, is kept"),
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

/// A delivery that a dead letter keeps. What is not UTF-8 is in base64.
#[derive(Serialize)]
struct ShownDelivery {
    method: String,
    path: String,
    /// A name may stand twice.
    headers: Vec<(String, String)>,
    body: Option<String>,
    body_base64: Option<String>,
}

impl From<&Delivery> for ShownDelivery {
    fn from(delivery: &Delivery) -> Self {
        let Delivery { method, path, headers, body, .. } = delivery;
        let text = std::str::from_utf8(body).ok();
        let headers = headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.to_string(), value)
        });
        Self {
            method: method.to_string(),
            path: path.clone(),
            headers: headers.collect(),
            body: text.map(str::to_owned),
            body_base64: text.is_none().then(|| BASE64_STANDARD.encode(body)),
        }
    }
}

impl ShownDelivery {
    /// As a request of HTTP is written.
    fn text(&self) -> String {
        let mut text = format!("{} {}\n", self.method, harmless(&self.path));
        for (name, value) in &self.headers {
            text += &format!("{name}: {}\n", harmless(value));
        }
        let body = self.body.as_deref().map(harmless_lines);
        text + "\n" + &body.or(self.body_base64.clone()).unwrap_or_default() + "\n"
    }
}
