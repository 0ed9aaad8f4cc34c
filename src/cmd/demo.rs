//! `demo`: the main job on one machine, with real HTTP and a real Invoke call.

use std::{
    collections::HashMap, fmt::Write as _, net::Ipv4Addr, path::Path, sync::Arc, time::Duration,
};

use anyhow::{Context as _, ensure};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use clap::Args;
use http::{HeaderMap, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::{sync::watch, task::JoinSet};

use super::{
    fronts, http_server,
    listen::listen_on,
    receipts::{self, Processor, Receipt},
    stop::stop_signal,
};
use crate::{
    aws,
    config::{AwsTarget, Config, Invocation, Payload},
    delivery::{Delivery, Reply},
    destination::{self, CloudRun, Destinations, Lambda},
    router::Router,
    store,
};

/// Deliveries of one event that are sent at the same moment.
const AT_ONCE: usize = 32;

/// The sample events: the name of their file in events/, the file, and what must become of them.
const EVENTS: &[(&str, &str, Expected)] = &[
    ("stripe-payment", include_str!("../../events/stripe-payment.json"), Expected::Routed),
    (
        "stripe-payment-reordered",
        include_str!("../../events/stripe-payment-reordered.json"),
        Expected::Duplicate,
    ),
    (
        "adyen-authorisation",
        include_str!("../../events/adyen-authorisation.json"),
        Expected::Routed,
    ),
    ("github-push", include_str!("../../events/github-push.json"), Expected::Routed),
    ("shopify-order", include_str!("../../events/shopify-order.json"), Expected::Routed),
    (
        "shopify-order-offset",
        include_str!("../../events/shopify-order-offset.json"),
        Expected::Routed,
    ),
    (
        "shopify-order-fraction",
        include_str!("../../events/shopify-order-fraction.json"),
        Expected::Routed,
    ),
    (
        "paypal-capture-base64",
        include_str!("../../events/paypal-capture-base64.json"),
        Expected::Routed,
    ),
    ("acme-missing-field", include_str!("../../events/acme-missing-field.json"), Expected::Refused),
    ("acme-not-json", include_str!("../../events/acme-not-json.json"), Expected::Refused),
];

/// What the first delivery of a sample event must come to; the second is then a duplicate, or
/// refused like the first.
#[derive(Clone, Copy, PartialEq)]
enum Expected {
    Routed,
    /// It is an event that was sent before, written otherwise.
    Duplicate,
    Refused,
}

#[derive(Args)]
pub struct Options {
    /// Keep running afterwards, for trying by hand, until Ctrl-C.
    #[arg(long)]
    stay: bool,
}

/// Runs the demo; it fails when what it shows does not hold.
///
/// # Errors
/// What did not hold, or could not be started.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let (stop, stopped) = watch::channel(false);
    let site = Site::start(folder.path(), stopped).await?;
    println!("router       {}   (store: {})", site.router, site.store);
    println!("cloud run    {}   (destination gcp)", site.cloud_run);
    println!("lambda       {}   (destination aws: an Invoke API)\n", site.lambda);

    let rows = site.send_every_event_twice().await?;
    let received = site.received()?;
    println!("{}", table(&rows, &received));
    check(&rows, &received)?;
    println!("{}\n", site.race().await?);

    println!("What this shows:");
    println!("  - an event was processed once: a second delivery is answered, not forwarded,");
    println!("    also with its keys in another order and other white space;");
    println!(
        "  - one event goes to one destination, the same every time; the body's digest is part"
    );
    println!("    of its identity, so created_at written in another zone makes another event;");
    println!("  - each destination got the very bytes that were posted (compared by SHA-256);");
    println!("  - bad input was refused with its reason, and no destination saw it.");

    println!("\n{}", by_hand(&site, options.stay));
    if options.stay {
        stop_signal()?.await;
    }
    stop.send(true)?;
    Ok(())
}

/// A router on SQLite and its two destinations, on ports of this machine.
struct Site {
    client: reqwest::Client,
    router: String,
    cloud_run: String,
    lambda: String,
    store: String,
    gcp: Arc<Processor>,
    aws: Arc<Processor>,
}

/// Receipts by destination and key.
type Receipts = HashMap<(&'static str, String), Receipt>;

struct Row {
    name: &'static str,
    expected: Expected,
    vendor: String,
    destination: String,
    key: String,
    first: String,
    second: String,
    /// Of the body that was posted.
    sha256: String,
}

impl Site {
    async fn start(folder: &Path, stopped: watch::Receiver<bool>) -> anyhow::Result<Self> {
        let (gcp, cloud_run) = start_processor(stopped.clone()).await?;
        let (aws, lambda) = start_processor(stopped.clone()).await?;
        let store = format!("sqlite:{}", folder.join("demo.db").display());
        let variables = HashMap::from([
            ("STORE_URL", store.as_str()),
            ("GCP_TARGET_URL", &cloud_run),
            ("AWS_TARGET_FUNCTION", "webhook-processor"),
            ("ALLOW_UNSIGNED", "true"),
        ]);
        let config = Config::from_vars(|name| variables.get(name).map(ToString::to_string))?;
        let gcp_target = config.targets.gcp.as_ref().context("the demo has a gcp target")?;
        let aws_target = AwsTarget {
            function: "webhook-processor".into(),
            role_arn: None,
            invocation: Invocation::RequestResponse,
            payload: Payload::Body,
        };
        let timeout = config.forward.timeout;
        let destinations = Destinations {
            gcp: Some(Box::new(CloudRun::new(gcp_target, timeout).map_err(anyhow::Error::msg)?)),
            aws: Some(Box::new(Lambda::with_sdk_config(
                aws_target,
                timeout,
                &local_sdk_config(&lambda),
            ))),
        };
        let opened = store::open(&config.store).await?;
        let router = Arc::new(Router::new(&config, opened, destinations));
        let listener = http_server::bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move { listen_on(listener, router, &config, until(stopped)).await });
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(destination::tls_config(None).map_err(anyhow::Error::msg)?)
            .timeout(Duration::from_secs(30))
            .build()?;
        Ok(Self { client, router: address, cloud_run, lambda, store, gcp, aws })
    }

    async fn send_every_event_twice(&self) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (name, event, expected) in EVENTS {
            let delivery = fronts::delivery(event)?;
            let first = self.post(&delivery).await?;
            let second = self.post(&delivery).await?;
            let header = |name| {
                let value = first.headers.get(name).and_then(|value| value.to_str().ok());
                value.unwrap_or("-").to_owned()
            };
            rows.push(Row {
                name,
                expected: *expected,
                vendor: vendor(&delivery),
                destination: header("x-webhook-destination"),
                key: header("x-webhook-key"),
                first: shown(&first),
                second: shown(&second),
                sha256: hex::encode(Sha256::digest(&delivery.body)),
            });
        }
        Ok(rows)
    }

    /// Sends one event many times at once, and says how it was answered.
    async fn race(&self) -> anyhow::Result<String> {
        let body = format!(
            r#"{{"vendor":"stripe","event_type":"race","created_at":"2026-05-06T12:00:00Z","n":{AT_ONCE}}}"#
        );
        let mut posts = JoinSet::new();
        for _ in 0..AT_ONCE {
            posts.spawn(self.client.post(self.webhook()).body(body.clone()).send());
        }
        let mut answers = HashMap::new();
        while let Some(post) = posts.join_next().await {
            let response = post??;
            let status = response.status();
            let replayed = response.headers().contains_key("idempotent-replayed");
            let answer = match (status, replayed) {
                (StatusCode::OK, false) => "200 processed",
                (StatusCode::OK, true) => "200 duplicate ignored",
                (StatusCode::CONFLICT, _) => "409 in progress",
                _ => anyhow::bail!("an unexpected answer in the race: {status}"),
            };
            *answers.entry(answer).or_insert(0) += 1;
        }
        let sha256 = hex::encode(Sha256::digest(&body));
        let received = self.received()?;
        let deliveries: u32 = received
            .values()
            .filter(|receipt| receipt.sha256 == sha256)
            .map(|receipt| receipt.deliveries)
            .sum();
        ensure!(deliveries == 1, "the race reached a destination {deliveries} times");
        let mut counts: Vec<_> = answers.into_iter().collect();
        counts.sort();
        let counts: Vec<_> = counts.iter().map(|(answer, n)| format!("{n} x {answer}")).collect();
        Ok(format!(
            "One event {AT_ONCE} times at the same moment: {}; it reached its destination once.",
            counts.join(", ")
        ))
    }

    async fn post(&self, delivery: &Delivery) -> anyhow::Result<Reply> {
        let request = self.client.post(self.webhook()).headers(content_type(delivery));
        let response = request.body(delivery.body.clone()).send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Reply { status, headers, body: response.bytes().await? })
    }

    fn webhook(&self) -> String {
        format!("{}/webhook", self.router)
    }

    /// What both destinations got, by destination and key.
    fn received(&self) -> anyhow::Result<Receipts> {
        let mut received = HashMap::new();
        for (name, processor) in [("gcp", &self.gcp), ("aws", &self.aws)] {
            for receipt in processor.receipts()? {
                received.insert((name, receipt.key.clone()), receipt);
            }
        }
        Ok(received)
    }
}

impl Row {
    /// What its destination received of the event, and whether that is what was posted; nothing
    /// for one that this row did not bring there.
    fn arrived<'a>(&self, received: &'a Receipts) -> Option<(&'a Receipt, bool)> {
        if self.expected != Expected::Routed {
            return None;
        }
        let found = received
            .iter()
            .find(|((destination, key), _)| *destination == self.destination && *key == self.key);
        found.map(|(_, receipt)| (receipt, receipt.sha256 == self.sha256))
    }
}

async fn start_processor(
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<(Arc<Processor>, String)> {
    let processor = Arc::new(Processor::open(":memory:")?);
    let listener = http_server::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = format!("http://{}", listener.local_addr()?);
    tokio::spawn(receipts::serve(listener, Arc::clone(&processor), until(stopped)));
    Ok((processor, address))
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the demo is over, which is a stop as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// AWS settings for an endpoint on this machine, which checks no credentials.
fn local_sdk_config(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new("demo", "demo", None, None, "demo");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(aws_credential_types::provider::SharedCredentialsProvider::new(
            credentials,
        ))
        .http_client(aws::http_client())
        .endpoint_url(endpoint)
        .build()
}

/// Fails unless every event came to what it must, and reached no destination but its own.
fn check(rows: &[Row], received: &Receipts) -> anyhow::Result<()> {
    const PROCESSED: &str = "200 processed";
    const DUPLICATE: &str = "200 duplicate ignored";
    let mut routed = 0;
    for row in rows {
        let answers = (row.first.as_str(), row.second.as_str());
        let good = match row.expected {
            Expected::Routed => answers == (PROCESSED, DUPLICATE),
            Expected::Duplicate => answers == (DUPLICATE, DUPLICATE),
            Expected::Refused => row.first.starts_with("400 ") && row.first == row.second,
        };
        ensure!(good, "{} was answered {answers:?}", row.name);
        if row.expected == Expected::Routed {
            let arrived = row.arrived(received);
            let (receipt, equal) =
                arrived.with_context(|| format!("{} did not arrive", row.name))?;
            ensure!(receipt.deliveries == 1, "{} arrived more than once", row.name);
            ensure!(equal, "{} changed on its way", row.name);
            routed += 1;
        }
    }
    ensure!(received.len() == routed, "a destination got what it should not have");
    Ok(())
}

fn table(rows: &[Row], received: &Receipts) -> String {
    let mut text = format!(
        "{:<25} {:<8} {:<4} {:<11} {:<40} {:<40} {}\n",
        "EVENT", "VENDOR", "DEST", "KEY", "FIRST ANSWER", "SECOND ANSWER", "BYTES EQUAL"
    );
    for row in rows {
        let key = row.key.rsplit(':').next().unwrap_or_default();
        let equal = match row.arrived(received) {
            Some((_, true)) => "yes",
            Some((_, false)) => "NO",
            None => "-",
        };
        let _ = writeln!(
            text,
            "{:<25} {:<8} {:<4} {:<11.10} {:<40} {:<40} {equal}",
            row.name, row.vendor, row.destination, key, row.first, row.second
        );
    }
    text
}

/// An answer in a few words.
fn shown(reply: &Reply) -> String {
    let status = reply.status.as_u16();
    let body = String::from_utf8_lossy(&reply.body);
    if body.contains("\"processed\":true") {
        return format!("{status} processed");
    }
    format!("{status} {body}").chars().take(40).collect()
}

/// The vendor that the body names, for the table.
fn vendor(delivery: &Delivery) -> String {
    let document = crate::json::Document::parse(&delivery.body).ok();
    let vendor = document.as_ref().and_then(|document| document.root().get("vendor")?.as_str());
    vendor.and_then(Result::ok).unwrap_or_else(|| "-".into())
}

fn content_type(delivery: &Delivery) -> HeaderMap {
    let name = http::header::CONTENT_TYPE;
    delivery.headers.get(&name).map(|value| (name, value.clone())).into_iter().collect()
}

fn by_hand(site: &Site, staying: bool) -> String {
    let body = r#"{"vendor":"stripe","event_type":"payment.succeeded","created_at":"2026-05-06T12:34:56Z","amount":4200}"#;
    if staying {
        return format!(
            "Go on by hand (twice, and the second is a duplicate); Ctrl-C ends it:\n  \
             curl -i {}/webhook -d '{body}'\n  curl {}/receipts\n  curl {}/receipts",
            site.router, site.cloud_run, site.lambda
        );
    }
    format!(
        "Go on by hand: `make demo-stay` keeps these servers running. Or start your own:\n  \
         target/debug/webhook-processor &\n  \
         export GCP_TARGET_URL=http://127.0.0.1:9090 AWS_TARGET_FUNCTION=webhook-processor\n  \
         export AWS_ENDPOINT_URL_LAMBDA=http://127.0.0.1:9090 AWS_REGION=us-east-1\n  \
         export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local\n  \
         target/debug/webhook-router serve &\n  \
         curl -i http://127.0.0.1:8080/webhook -d '{body}'\n  \
         curl http://127.0.0.1:9090/receipts"
    )
}
