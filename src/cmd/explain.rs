//! `explain`: what the router would do with a body, without doing it.

use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Serialize;

use super::function_url;
use crate::{
    config::{EXAMPLE_ROUTING_SECRET, Intake, Unsigned},
    delivery::{Delivery, Reply},
    key::route_byte,
    plan::{Plan, Planned, plan},
    source::{self, Address, Source, Vendor, envelope},
};

#[derive(Args)]
pub struct Options {
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// The files are Function URL events (payload format 2.0), not bodies.
    #[arg(long)]
    event: bool,
    /// A header of the delivery; may be given several times.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The vendor whose own payloads the files hold. They are verified when its variable, such as
    /// STRIPE_SECRETS, is set.
    #[arg(long, value_name = "NAME", conflicts_with = "event", value_parser = parse_vendor)]
    vendor: Option<Arc<dyn Vendor>>,
    /// The time to verify at, in Unix seconds [default: now].
    #[arg(long, value_name = "UNIX_SECONDS", value_parser = parse_time)]
    now: Option<DateTime<Utc>>,
    /// The address that the vendor called, where it signs the address.
    #[arg(long, requires = "vendor")]
    url: Option<String>,
    /// Files with a raw body each; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What is printed of one file.
#[derive(Default, Serialize)]
struct Explanation {
    file: String,
    /// 200, or the status of the refusal.
    status: u16,
    vendor: Option<String>,
    event_type: Option<String>,
    event_id: Option<String>,
    created_at: Option<String>,
    digest: Option<String>,
    key: Option<String>,
    route_byte: Option<u8>,
    destination: Option<&'static str>,
    /// Why nothing is forwarded, although nothing is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<&'static str>,
    error: Option<String>,
}

/// Explains every file. A refusal is an explanation too; only a file that cannot be read fails
/// the command, after all the others.
///
/// # Errors
/// When the configuration cannot be used, or the output not be written.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut intake = Intake::from_vars(super::variables().await?)?;
    // What is explained was not sent by anybody: without secrets, there is nothing to verify.
    intake.unsigned = Unsigned::FromAnyone;
    if let Some(vendor) = &options.vendor {
        intake.sources.insert(source(&intake, vendor, &options));
    }
    if intake.routing_secret.expose() == EXAMPLE_ROUTING_SECRET {
        eprintln!("by the example's ROUTING_SECRET; set your own for your keys and destinations");
    }
    let mut out = std::io::stdout().lock();
    let mut exit = ExitCode::SUCCESS;
    for file in &options.files {
        let explanation = match read(file, &options) {
            Ok(Ok(delivery)) => explain(&delivery, &intake, options.now.unwrap_or_else(Utc::now)),
            Ok(Err(refused)) => refused,
            Err(error) => {
                eprintln!("error: {error:#}");
                exit = ExitCode::FAILURE;
                continue;
            }
        };
        let explanation = Explanation { file: file.display().to_string(), ..explanation };
        if options.json {
            writeln!(out, "{}", serde_json::to_string(&explanation)?)?;
        } else {
            print(&explanation, &intake, &mut out)?;
        }
    }
    Ok(exit)
}

/// The delivery in a file, or why an event holds none.
fn read(file: &Path, options: &Options) -> anyhow::Result<Result<Delivery, Explanation>> {
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    let bytes = bytes.with_context(|| format!("cannot read {}", file.display()))?;
    let mut delivery = if options.event {
        match function_url::delivery(&String::from_utf8_lossy(&bytes)) {
            Ok(delivery) => delivery,
            Err(error) => return Ok(Err(refusal(400, error.to_string()))),
        }
    } else {
        Delivery {
            method: Method::POST,
            path: options.vendor.as_ref().map_or_else(
                || envelope::PATH.to_owned(),
                |vendor| format!("{}/{}", envelope::PATH, vendor.name()),
            ),
            query: None,
            headers: HeaderMap::new(),
            body: Bytes::from(bytes),
        }
    };
    for (name, value) in &options.headers {
        delivery.headers.append(name, value.clone());
    }
    Ok(Ok(delivery))
}

/// The source that a vendor's payloads are explained for: the one that bears its name, if there is
/// one. Without secrets, nothing is verified: nobody sent what is in a file.
fn source(intake: &Intake, vendor: &Arc<dyn Vendor>, options: &Options) -> Source {
    let found = intake.sources.get(vendor.name());
    let mut source = found
        .map_or_else(|| Source::new(vendor.name(), Arc::clone(vendor)), |found| (**found).clone());
    if let Some(url) = &options.url {
        source.address = Some(Address::Whole(url.clone()));
    }
    if source.secrets.is_empty() { source.explained() } else { source }
}

fn explain(delivery: &Delivery, intake: &Intake, now: DateTime<Utc>) -> Explanation {
    let Plan { event, key, route, .. } = match plan(delivery, intake, None, now) {
        Ok(Planned::Deliver(plan)) => *plan,
        Ok(Planned::Handshake(reply)) => return answered(&reply, "a handshake, which is answered"),
        Ok(Planned::Confirm { reply, .. }) => {
            return answered(&reply, "a subscription, which is confirmed");
        }
        Ok(Planned::Filtered { reply, .. }) => return answered(&reply, "filtered by the rules"),
        Err(error) => return refusal(error.reply().status.as_u16(), error.to_string()),
    };
    Explanation {
        status: 200,
        route_byte: Some(route_byte(&intake.routing_secret, &event.logical())),
        event_id: event.id().map(str::to_owned),
        vendor: Some(event.vendor),
        event_type: Some(event.event_type),
        created_at: event.created_at.map(|time| time.to_string()),
        digest: Some(event.digest),
        key: Some(key.to_string()),
        destination: Some(route.as_str()),
        ..Explanation::default()
    }
}

/// What is answered with 2xx, and reaches no destination.
fn answered(reply: &Reply, why: &'static str) -> Explanation {
    let (status, answered) = (reply.status.as_u16(), Some(why));
    Explanation { status, answered, ..Explanation::default() }
}

fn refusal(status: u16, error: String) -> Explanation {
    Explanation { status, error: Some(error), ..Explanation::default() }
}

fn print(
    explanation: &Explanation,
    intake: &Intake,
    out: &mut impl std::io::Write,
) -> std::io::Result<()> {
    let Explanation { file, status, error, route_byte, destination, .. } = explanation;
    writeln!(out, "{file}")?;
    if let Some(error) = error {
        return writeln!(out, "  refused      {status}: {error}");
    }
    if let Some(answered) = explanation.answered {
        return writeln!(out, "  answered     {status}: {answered}");
    }
    let lines = [
        ("vendor", &explanation.vendor),
        ("event_type", &explanation.event_type),
        ("event_id", &explanation.event_id),
        ("created_at", &explanation.created_at),
        ("digest", &explanation.digest),
        ("key", &explanation.key),
    ];
    for (name, value) in lines {
        let Some(value) = value else { continue };
        // A name from a payload must not control the terminal.
        let shown: String = value
            .chars()
            .map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char })
            .collect();
        writeln!(out, "  {name:<12} {shown}")?;
    }
    let (byte, threshold) = (route_byte.unwrap_or_default(), intake.route_threshold);
    let sign = if u16::from(byte) < threshold { "<" } else { ">=" };
    writeln!(out, "  {:<12} {byte} ({sign} {threshold})", "route byte")?;
    writeln!(out, "  {:<12} {}", "destination", destination.unwrap_or_default())
}

/// A built-in vendor. Its two libraries call Standard Webhooks by names of their own.
fn parse_vendor(name: &str) -> Result<Arc<dyn Vendor>, String> {
    let name = match name {
        "standardwebhooks" | "svix" => "standard-webhooks",
        name => name,
    };
    source::vendor(name).cloned().ok_or_else(|| {
        let mut names: Vec<_> = source::vendors().iter().map(|vendor| vendor.name()).collect();
        names.sort_unstable();
        format!("no such vendor: there are {}", names.join(", "))
    })
}

fn parse_time(text: &str) -> Result<DateTime<Utc>, &'static str> {
    let seconds = text.parse().map_err(|_| "must be whole seconds since 1970")?;
    DateTime::from_timestamp(seconds, 0).ok_or("is beyond every calendar")
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a header is written NAME: VALUE")?;
    let name = HeaderName::try_from(name.trim()).map_err(|error| error.to_string())?;
    let value = HeaderValue::try_from(value.trim()).map_err(|error| error.to_string())?;
    Ok((name, value))
}
