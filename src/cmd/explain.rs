//! `explain`: shows what the router would do with a body, without doing it.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize, de::IgnoredAny};

use super::{
    arguments::{parse_header, parse_time, parse_vendor, read_file},
    fronts,
    shown::harmless,
};
use crate::{
    config::{EXAMPLE_ROUTING_SECRET, Intake, Unsigned},
    delivery::{Delivery, Reply},
    key::RouteBytes,
    plan::{Plan, Planned, plan},
    route::Route,
    source::{Address, Source, Vendor, envelope, secrets_variable},
};

#[derive(Args)]
pub struct Options {
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    /// Read the files as events of a Function URL, an API Gateway or a load balancer, not as
    /// bodies.
    #[arg(long)]
    event: bool,
    /// Header of the delivery. May be given several times.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Vendor whose own payloads the files hold. Their signatures are verified if the vendor's
    /// variable, such as STRIPE_SECRETS, is set.
    #[arg(long, value_name = "NAME", conflicts_with = "event", value_parser = parse_vendor)]
    vendor: Option<Arc<dyn Vendor>>,
    /// Time of the verification, in Unix seconds [default: now].
    #[arg(long, value_name = "UNIX_SECONDS", value_parser = parse_time)]
    now: Option<DateTime<Utc>>,
    /// Address that the vendor called. Needed only if its signature covers the address.
    #[arg(long, requires = "vendor")]
    url: Option<String>,
    /// Files that each hold a raw body. `-` means standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// The output for one file.
#[derive(Default, Serialize)]
struct Explanation {
    file: String,
    /// The status of the answer: 200 for an event that would be delivered, else that of the
    /// refusal, or of the reply to a handshake or a filtered event.
    status: u16,
    /// True if the source has a destination or a threshold of its own.
    #[serde(skip)]
    has_own_rule: bool,
    vendor: Option<String>,
    event_type: Option<String>,
    event_id: Option<String>,
    created_at: Option<String>,
    digest: Option<String>,
    key: Option<String>,
    route_byte: Option<u8>,
    destination: Option<Route>,
    /// `delivered` if the sender gets the destination's reply, `accepted` if it is answered at once.
    answer: Option<&'static str>,
    /// The reason why the delivery is answered with 2xx, but not forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<&'static str>,
    error: Option<String>,
    /// Advice for a file that does not fit the options.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
}

/// Explains every file. A refusal also counts as an explanation. A file that cannot be read makes
/// the command fail after all files are explained.
///
/// # Errors
/// Fails if the configuration cannot be used, or the output cannot be written.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut intake = Intake::from_vars(super::variables().await?)?;
    // The body comes from a file, not from a sender. So without secrets, an envelope needs no
    // signature.
    intake.unsigned = Unsigned::FromAnyone;
    if let Some(vendor) = &options.vendor {
        let source = source(&intake, vendor, &options);
        if source.secrets.is_empty() {
            eprintln!("signature not verified: set {}", source.secrets_from);
        }
        intake.sources.insert(source);
    }
    if intake.routing_secret.expose() == EXAMPLE_ROUTING_SECRET {
        eprintln!(
            "ROUTING_SECRET has its default value: set your own to see your keys and destinations"
        );
    }
    let mut out = std::io::stdout().lock();
    let mut exit = ExitCode::SUCCESS;
    for file in &options.files {
        let explanation = match read(file, &options) {
            Ok(Ok(delivery)) => {
                let hint = hint(&delivery, &options);
                let now = options.now.unwrap_or_else(Utc::now);
                Explanation { hint, ..explain(&delivery, &intake, now) }
            }
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

/// Reads the delivery in a file. Returns the refusal if an event does not hold a delivery.
fn read(file: &Path, options: &Options) -> anyhow::Result<Result<Delivery, Explanation>> {
    let bytes = read_file(file)?;
    let mut delivery = if options.event {
        match fronts::delivery(&String::from_utf8_lossy(&bytes)) {
            Ok(delivery) => delivery,
            Err(error) => {
                let hint = Some("omit --event if the file is a raw body");
                return Ok(Err(Explanation { hint, ..refusal(400, error.to_string()) }));
            }
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

/// Returns advice if a file was given as a raw body, but looks like an event of a front.
fn hint(delivery: &Delivery, options: &Options) -> Option<&'static str> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Event {
        request_context: Option<IgnoredAny>,
        vendor: Option<IgnoredAny>,
    }
    let is_event = |body| {
        let event: Event = serde_json::from_slice(body)?;
        Ok::<_, serde_json::Error>(event.request_context.is_some() && event.vendor.is_none())
    };
    let is_given_as_body = !options.event && is_event(&delivery.body).unwrap_or(false);
    is_given_as_body.then_some(
        "the file looks like an event of a Function URL, an API Gateway or a load balancer, and a raw \
         body was expected: add --event",
    )
}

/// Returns the source for a vendor's payloads: the source with the vendor's name, if it is
/// configured, else a default one. If it has no secrets, it does not verify signatures.
fn source(intake: &Intake, vendor: &Arc<dyn Vendor>, options: &Options) -> Source {
    let found = intake.sources.get(vendor.name());
    let mut source = found
        .map_or_else(|| Source::new(vendor.name(), Arc::clone(vendor)), |found| (**found).clone());
    if source.secrets_from.is_empty() {
        source.secrets_from = secrets_variable(vendor.name());
    }
    if let Some(url) = &options.url {
        source.address = Some(Address::Whole(url.clone()));
    }
    if source.secrets.is_empty() { source.explained() } else { source }
}

fn explain(delivery: &Delivery, intake: &Intake, now: DateTime<Utc>) -> Explanation {
    let Plan { event, key, route, answer, .. } = match plan(delivery, intake, None, now) {
        Ok(Planned::Deliver(plan)) => *plan,
        Ok(Planned::Handshake(reply)) => return answered(&reply, "a handshake, which is answered"),
        Ok(Planned::Confirm { reply, .. }) => {
            return answered(&reply, "a subscription, which is confirmed");
        }
        Ok(Planned::Filtered { reply, .. }) => return answered(&reply, "filtered by the rules"),
        Err(error) => return refusal(error.reply().status.as_u16(), error.to_string()),
    };
    let source = event.source.as_deref().and_then(|name| intake.sources.get(name));
    let rules = source.map(|source| &source.rules);
    Explanation {
        status: 200,
        has_own_rule: rules
            .is_some_and(|rules| rules.destination.is_some() || rules.threshold.is_some()),
        route_byte: Some(RouteBytes::derive(&intake.routing_secret, &event.logical()).route),
        event_id: event.id().map(str::to_owned),
        vendor: Some(event.vendor),
        event_type: Some(event.event_type),
        created_at: event.created_at.map(|time| time.to_string()),
        digest: Some(event.digest),
        key: Some(key.to_string()),
        destination: Some(route),
        answer: Some(answer.as_str()),
        ..Explanation::default()
    }
}

/// Returns the explanation of a delivery that is answered with 2xx and reaches no destination.
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
    if let Some(hint) = explanation.hint {
        writeln!(out, "  hint         {hint}")?;
    }
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
        writeln!(out, "  {name:<12} {}", harmless(value))?;
    }
    if let (Some(byte), Some(route)) = (route_byte, destination) {
        if explanation.has_own_rule {
            writeln!(out, "  {:<12} {byte}", "route byte")?;
            writeln!(out, "  {:<12} {route} (by the rules of the source)", "destination")?;
        } else {
            let of = intake.shares.of(*byte);
            writeln!(out, "  {:<12} {byte} ({of} has {})", "route byte", intake.shares.bytes(of))?;
            writeln!(out, "  {:<12} {route}", "destination")?;
        }
    }
    let when = match explanation.answer {
        Some("accepted") => "at once, before the delivery",
        _ => "when the event is delivered",
    };
    writeln!(out, "  {:<12} {when}", "answered")
}
