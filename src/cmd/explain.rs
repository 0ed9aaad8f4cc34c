//! `explain`: what the router would do with a body, without doing it.

use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use bytes::Bytes;
use chrono::Utc;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Serialize;

use super::function_url;
use crate::{
    config::{EXAMPLE_ROUTING_SECRET, Intake, Unsigned},
    delivery::Delivery,
    key::route_byte,
    plan::{Plan, Planned, plan},
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
    created_at: Option<String>,
    digest: Option<String>,
    key: Option<String>,
    route_byte: Option<u8>,
    destination: Option<&'static str>,
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
    if intake.routing_secret.expose() == EXAMPLE_ROUTING_SECRET {
        eprintln!("by the example's ROUTING_SECRET; set your own for your keys and destinations");
    }
    let mut out = std::io::stdout().lock();
    let mut exit = ExitCode::SUCCESS;
    for file in &options.files {
        let explanation = match read(file, &options) {
            Ok(Ok(delivery)) => explain(&delivery, &intake),
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
            path: "/webhook".into(),
            query: None,
            headers: HeaderMap::new(),
            body: Bytes::from(bytes),
        }
    };
    delivery.headers.extend(options.headers.iter().cloned());
    Ok(Ok(delivery))
}

fn explain(delivery: &Delivery, intake: &Intake) -> Explanation {
    let plan = match plan(delivery, intake, None, Utc::now()) {
        Ok(Planned::Deliver(plan)) => plan,
        Ok(Planned::Handshake(reply) | Planned::Filtered { reply, .. }) => {
            let status = reply.status.as_u16();
            return Explanation { status, ..Explanation::default() };
        }
        Err(error) => return refusal(error.reply().status.as_u16(), error.to_string()),
    };
    let Plan { event, key, route, .. } = *plan;
    {
        Explanation {
            status: 200,
            route_byte: Some(route_byte(&intake.routing_secret, &event.logical())),
            vendor: Some(event.vendor),
            event_type: Some(event.event_type),
            created_at: event.created_at.map(|time| time.to_string()),
            digest: Some(event.digest),
            key: Some(key.to_string()),
            destination: Some(route.as_str()),
            ..Explanation::default()
        }
    }
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
    let lines = [
        ("vendor", &explanation.vendor),
        ("event_type", &explanation.event_type),
        ("created_at", &explanation.created_at),
        ("digest", &explanation.digest),
        ("key", &explanation.key),
    ];
    for (name, value) in lines {
        // A name from a payload must not control the terminal.
        let value = value.as_deref().unwrap_or_default();
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

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a header is written NAME: VALUE")?;
    let name = HeaderName::try_from(name.trim()).map_err(|error| error.to_string())?;
    let value = HeaderValue::try_from(value.trim()).map_err(|error| error.to_string())?;
    Ok((name, value))
}
