//! `event`: signs a vendor's event, and prints it as a Lambda event or as a curl command, or sends
//! it.

mod curl;
mod fronts;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};
use chrono::{DateTime, Utc};
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use url::Url;

use self::fronts::Front;
use super::{
    arguments::{parse_header, parse_time, parse_vendor, read_file},
    samples::sample,
    sending,
    shown::{harmless, harmless_lines},
};
use crate::{
    config::Intake,
    delivery::{Delivery, Reply},
    secret::Secret,
    source::{Address, CannotSign, PrivateKey, Signing, Source, Vendor},
};

/// Headers of an answer that the command prints.
const SHOWN: [&str; 4] =
    ["x-webhook-key", "x-webhook-destination", "idempotent-replayed", "retry-after"];

#[derive(Args)]
pub struct Options {
    /// Vendor that sends the event.
    #[arg(long, value_name = "NAME", required_unless_present = "source", value_parser = parse_vendor)]
    vendor: Option<Arc<dyn Vendor>>,
    /// Source in SOURCES that the event belongs to.
    #[arg(long, value_name = "NAME", conflicts_with = "vendor")]
    source: Option<String>,
    /// Secret to sign with [default: the source's first secret that can sign, such as the first one
    /// in STRIPE_SECRETS].
    #[arg(long, value_name = "SECRET")]
    secret: Option<String>,
    /// PEM file of a private key to sign with: RSA for PayPal, Ed25519 or P-256 for vendors
    /// that use it.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Address that the vendor calls. Needed only if its signature covers the address [default: the
    /// address from PUBLIC_URL, --send or --curl].
    #[arg(long, value_parser = parse_url)]
    url: Option<Url>,
    /// Header of the delivery, but not one that signing sets. May be given several times.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Time of the signature, in Unix seconds [default: now].
    #[arg(long, value_name = "UNIX_SECONDS", value_parser = parse_time)]
    now: Option<DateTime<Utc>>,
    /// Print the Lambda event that this front makes of the delivery.
    #[arg(long, default_value = "url", conflicts_with_all = ["curl", "send"])]
    front: Front,
    /// Print a curl command that posts the delivery to this address.
    #[arg(long, value_name = "URL", conflicts_with = "send", value_parser = parse_url)]
    curl: Option<Url>,
    /// Post the delivery to this address, and print the answer. If the address has no path, the
    /// path of the source is used. The exit status is 0 if the answer is 2xx.
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    send: Option<Url>,
    /// File with the body. `-` means standard input [default: a sample of the vendor].
    #[arg(value_name = "BODY")]
    body: Option<PathBuf>,
}

/// Signs an event, and prints or sends it.
///
/// # Errors
/// Fails if the event cannot be signed, printed or sent.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let variables = super::variables().await?;
    let public_url = variables("PUBLIC_URL");
    let intake = Intake::from_vars(variables)?;
    let source = source(&intake, &options, public_url)?;
    let now = options.now.unwrap_or_else(Utc::now);
    let target = options.send.as_ref().or(options.curl.as_ref());
    let target = target.map(|url| with_path(url, &source.path()));

    let unsigned = unsigned(&source, &options, target.as_ref())?;
    let signed = signed(&source, &unsigned, &options, target.as_ref(), now)?;
    let target = target.map(|mut url| {
        url.set_query(signed.query.as_deref());
        url
    });
    match target {
        None => {
            let event = options.front.event(&signed, now);
            writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&event)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(url) if options.curl.is_some() => {
            let file = options.body.as_deref().filter(|file| *file != Path::new("-"));
            let file = file.filter(|_| signed.body == unsigned.body);
            writeln!(std::io::stdout(), "{}", curl::line(&url, &signed, file))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(url) => {
            let reply = sending::send(&sending::client()?, url, &signed).await?;
            print(&reply, &mut std::io::stdout().lock())?;
            let is_taken = reply.status.is_success();
            Ok(if is_taken { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// Returns the source that `--source` names. For `--vendor`, returns the source with the vendor's
/// name, or a new one.
fn source(
    intake: &Intake,
    options: &Options,
    public_url: Option<String>,
) -> anyhow::Result<Source> {
    let mut source = match (&options.source, &options.vendor) {
        (Some(name), _) => match intake.sources.get(name) {
            Some(source) => (**source).clone(),
            None => bail!("no source is named {name}: see `webhook-router sources`"),
        },
        (None, Some(vendor)) => match intake.sources.get(vendor.name()) {
            Some(source) => (**source).clone(),
            None => Source::new(vendor.name(), Arc::clone(vendor)),
        },
        (None, None) => bail!("--vendor or --source must be given"),
    };
    let public_url = public_url.filter(|url| !url.is_empty()).map(Address::Prefix);
    source.address = source.address.or(public_url);
    Ok(source)
}

fn unsigned(source: &Source, options: &Options, target: Option<&Url>) -> anyhow::Result<Delivery> {
    let body = match &options.body {
        Some(file) => read_file(file)?,
        None => sample(source.vendor.name())
            .with_context(|| format!("BODY must be given: {} has no sample", source.name))?
            .to_vec(),
    };
    ensure!(!body.is_empty(), "the body is empty, and no vendor sends an empty body");
    let called = options.url.as_ref().or(target);
    let mut headers = HeaderMap::new();
    for (name, value) in &options.headers {
        headers.append(name, value.clone());
    }
    Ok(Delivery {
        method: Method::POST,
        path: source.path(),
        query: called.and_then(Url::query).map(str::to_owned),
        headers,
        body: body.into(),
    })
}

/// Signs a delivery with the given secret, or with the first secret of the source that can sign. A
/// public key cannot sign.
fn signed(
    source: &Source,
    unsigned: &Delivery,
    options: &Options,
    target: Option<&Url>,
    now: DateTime<Utc>,
) -> anyhow::Result<Delivery> {
    let given = options.secret.as_ref().map(|secret| vec![Secret::new(secret)]);
    let secrets = given.unwrap_or_else(|| source.secrets.clone());
    let variable = secrets_variable(source);
    ensure!(!secrets.is_empty(), "there is nothing to sign with: set {variable}, or give --secret");
    let key = options.key.as_deref().map(|file| {
        let pem = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        PrivateKey::from_pem(&pem).with_context(|| format!("{} cannot be used", file.display()))
    });
    let key = key.transpose()?;
    let called = match (&options.url, &source.address) {
        (Some(url), _) => Some(with_path(url, &source.path())),
        (None, Some(_)) => None,
        (None, None) => target.cloned(),
    };
    let url = called.as_ref().map(Url::as_str);
    let sign = |secret| source.sign(unsigned, &Signing { secret, key: key.as_ref(), url, now });
    let mut refused = None;
    for secret in &secrets {
        match sign(secret) {
            Ok(signed) => return with_given_headers(unsigned, signed),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    let refused = refused.context("bug: no secret was tried")?;
    Err(remedied(refused)).with_context(|| format!("cannot sign for {}", source.name))
}

/// Returns the signed delivery if it still has all headers that the caller gave. Otherwise, it is
/// not the delivery that the caller asked for.
fn with_given_headers(unsigned: &Delivery, signed: Delivery) -> anyhow::Result<Delivery> {
    let [given, all] = [unsigned, &signed].map(|delivery| &delivery.headers);
    if let Some(name) = given.keys().find(|name| given.get_all(*name) != all.get_all(*name)) {
        bail!(
            "`event` sets the header {name} itself: leave it out. --now sets the time of the \
             signature. For a built-in vendor, `explain --vendor NAME --header 'NAME: VALUE' BODY` \
             verifies a signature of your own"
        );
    }
    Ok(signed)
}

fn secrets_variable(source: &Source) -> String {
    match source.secrets_from.as_str() {
        "" => crate::source::secrets_variable(&source.name),
        variable => variable.to_owned(),
    }
}

/// Adds the remedy to an error.
fn remedied(error: CannotSign) -> anyhow::Error {
    let remedy = match &error {
        CannotSign::NoUrl => "give --url, or set PUBLIC_URL",
        CannotSign::NoKey(_) => {
            "give a key of your own with --key FILE, and give the router the matching public key or \
             certificate (docs/sources.md, Trying it)"
        }
        CannotSign::Header(_) | CannotSign::Secret(_) => "give another with --secret",
        CannotSign::Body(_) | CannotSign::Circular | CannotSign::OnlyVendor(_) => {
            return error.into();
        }
    };
    anyhow::anyhow!("{error}: {remedy}")
}

/// Returns the address. If it has no path, it gets the path of the source.
fn with_path(url: &Url, path: &str) -> Url {
    let mut url = url.clone();
    if url.path() == "/" {
        url.set_path(path);
    }
    url
}

fn print(reply: &Reply, out: &mut impl std::io::Write) -> std::io::Result<()> {
    writeln!(out, "{}", reply.status)?;
    for name in SHOWN {
        if let Some(value) = reply.headers.get(name).and_then(|value| value.to_str().ok()) {
            writeln!(out, "{name}: {}", harmless(value))?;
        }
    }
    let body = harmless_lines(&String::from_utf8_lossy(&reply.body));
    writeln!(out, "\n{body}")
}

fn parse_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or("must be an http:// or https:// URL")
}
