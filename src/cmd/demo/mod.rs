//! `demo`: shows the router's main job on one machine, with real HTTP and a real Invoke call.

mod site;
mod traffic;
mod vendors;

use std::{collections::HashMap, fmt::Write as _, sync::atomic::Ordering};

use anyhow::{Context as _, ensure};
use clap::Args;
use http::{HeaderMap, header::CONTENT_TYPE};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use self::site::Site;
use super::{fronts, receipts::Receipt, stop::stop_signal};
use crate::delivery::{Delivery, Reply};

const PROCESSED: &str = "200 processed";
const DUPLICATE: &str = "200 duplicate ignored";

/// The sample events: the name of the file in events/, its content, and the expected result.
const EVENTS: &[(&str, &str, Expected)] = &[
    ("stripe-payment", include_str!("../../../events/stripe-payment.json"), Expected::Routed),
    (
        "stripe-payment-reordered",
        include_str!("../../../events/stripe-payment-reordered.json"),
        Expected::Duplicate,
    ),
    (
        "adyen-authorisation",
        include_str!("../../../events/adyen-authorisation.json"),
        Expected::Routed,
    ),
    ("github-push", include_str!("../../../events/github-push.json"), Expected::Routed),
    ("shopify-order", include_str!("../../../events/shopify-order.json"), Expected::Routed),
    (
        "shopify-order-offset",
        include_str!("../../../events/shopify-order-offset.json"),
        Expected::Routed,
    ),
    (
        "shopify-order-fraction",
        include_str!("../../../events/shopify-order-fraction.json"),
        Expected::Routed,
    ),
    (
        "paypal-capture-base64",
        include_str!("../../../events/paypal-capture-base64.json"),
        Expected::Routed,
    ),
    (
        "acme-missing-field",
        include_str!("../../../events/acme-missing-field.json"),
        Expected::Refused,
    ),
    ("acme-not-json", include_str!("../../../events/acme-not-json.json"), Expected::Refused),
];

/// The expected result of the first delivery of a sample event. The second delivery is then a
/// duplicate, or is refused like the first.
#[derive(Clone, Copy, PartialEq)]
enum Expected {
    Routed,
    /// An event that was sent before, in another notation.
    Duplicate,
    Refused,
}

#[derive(Args)]
pub struct Options {
    /// Keep the servers running until Ctrl-C, so that you can try them by hand.
    #[arg(long)]
    stay: bool,
}

/// Runs the demo, and checks everything that it shows.
///
/// # Errors
/// Fails if a result is not as expected, or a part cannot be started.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let (stop, stopped) = watch::channel(false);
    let site = Site::start(folder.path(), stopped).await?;
    say!("router       {}   (store: {})", site.router, site.store);
    say!("cloud run    {}   (destination gcp)", site.cloud_run);
    say!("lambda       {}   (destination aws: an Invoke API)\n", site.lambda);

    let signed = site.send_vendors_events().await?;
    let rows = site.send_every_event_twice().await?;
    let received = site.received()?;
    say!("{}", vendors::table(&signed, &received));
    say!("{}", table(&rows, &received));
    vendors::check(&signed, &received)?;
    check(&rows, &received)?;
    ensure!(
        received.len() == signed.len() + rows.iter().filter(|row| row.is_routed()).count(),
        "a destination received an event that it should not have received"
    );
    say!("{}\n", site.race().await?);

    say!("What this shows:");
    say!(
        "  - the router verifies each vendor's signature, whatever its scheme; it refuses a forgery;"
    );
    say!("  - an event is processed once: a second delivery is answered, not forwarded, also");
    say!("    when it is signed anew, or has its keys in another order and other white space;");
    say!("  - an event always goes to the same destination, and its bytes arrive unchanged");
    say!("    (compared by SHA-256);");
    say!("  - bad input is refused with its reason, and no destination sees it.");

    say!("\n{}", by_hand(&site, options.stay));
    if options.stay {
        site.shows_traffic.store(true, Ordering::Relaxed);
        stop_signal()?.await;
    }
    stop.send(true)?;
    Ok(())
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
    /// SHA-256 of the body that was posted.
    sha256: String,
}

impl Site {
    async fn send_every_event_twice(&self) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (name, event, expected) in EVENTS {
            let delivery = fronts::delivery(event)?;
            let delivery = Delivery { headers: content_type(&delivery), ..delivery };
            let first = self.send(&delivery).await?;
            let second = self.send(&delivery).await?;
            rows.push(Row {
                name,
                expected: *expected,
                vendor: vendor(&delivery),
                destination: header(&first, "x-webhook-destination"),
                key: header(&first, "x-webhook-key"),
                first: shown(&first),
                second: shown(&second),
                sha256: hex::encode(Sha256::digest(&delivery.body)),
            });
        }
        Ok(rows)
    }
}

impl Row {
    fn is_routed(&self) -> bool {
        self.expected == Expected::Routed
    }

    /// Returns the receipt, and whether it matches the posted body. Returns `None` if the event did
    /// not reach its destination, or should not reach one.
    fn arrived<'a>(&self, received: &'a Receipts) -> Option<(&'a Receipt, bool)> {
        let found = arrived(received, &self.destination, &self.key).filter(|_| self.is_routed());
        found.map(|receipt| (receipt, receipt.sha256 == self.sha256))
    }
}

/// Returns a destination's receipt for the event with that key.
fn arrived<'a>(received: &'a Receipts, destination: &str, key: &str) -> Option<&'a Receipt> {
    let is_it = |to: &&str, of: &String| *to == destination && of == key;
    received.iter().find(|((to, of), _)| is_it(to, of)).map(|(_, receipt)| receipt)
}

/// Fails unless every event has its expected result.
fn check(rows: &[Row], received: &Receipts) -> anyhow::Result<()> {
    for row in rows {
        let answers = (row.first.as_str(), row.second.as_str());
        let good = match row.expected {
            Expected::Routed => answers == (PROCESSED, DUPLICATE),
            Expected::Duplicate => answers == (DUPLICATE, DUPLICATE),
            Expected::Refused => row.first.starts_with("400 ") && row.first == row.second,
        };
        ensure!(good, "{} was answered {answers:?}", row.name);
        if row.is_routed() {
            let arrived = row.arrived(received);
            let (receipt, equal) =
                arrived.with_context(|| format!("{} did not arrive", row.name))?;
            ensure!(receipt.deliveries == 1, "{} arrived more than once", row.name);
            ensure!(equal, "{} changed on its way", row.name);
        }
    }
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

/// Describes an answer in a few words.
fn shown(reply: &Reply) -> String {
    let status = reply.status.as_u16();
    let body = String::from_utf8_lossy(&reply.body);
    if body.contains("\"processed\":true") {
        return PROCESSED.into();
    }
    let is_duplicate = reply.headers.contains_key("idempotent-replayed");
    if is_duplicate && !body.contains("duplicate") {
        return format!("{status} {body}, a duplicate");
    }
    format!("{status} {body}").chars().take(40).collect()
}

/// Returns a header of an answer, for the table.
fn header(reply: &Reply, name: &str) -> String {
    let value = reply.headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or("-").to_owned()
}

/// Returns the vendor that the body names, for the table.
fn vendor(delivery: &Delivery) -> String {
    let document = crate::json::Document::parse(&delivery.body).ok();
    let vendor = document.as_ref().and_then(|document| document.root().get("vendor")?.as_str());
    vendor.and_then(Result::ok).unwrap_or_else(|| "-".into())
}

fn content_type(delivery: &Delivery) -> HeaderMap {
    let value = delivery.headers.get(CONTENT_TYPE);
    value.map(|value| (CONTENT_TYPE, value.clone())).into_iter().collect()
}

fn by_hand(site: &Site, staying: bool) -> String {
    let body = r#"{"vendor":"stripe","event_type":"payment.succeeded","created_at":"2026-05-06T12:34:56Z","amount":4200}"#;
    let program = std::env::args().next().unwrap_or_else(|| "webhook-router".into());
    if staying {
        let vendors::Signer { name, secret, .. } = vendors::BY_HAND;
        let event = format!("{program} event --vendor {name}");
        return format!(
            "Go on by hand, in another terminal. Every request is shown here; Ctrl-C ends it:\n  \
             {event} --secret {secret} --send {router}   # again: a duplicate\n  \
             {event} --secret another --send {router}   # 401\n  \
             {event} --secret {secret} --curl {router}   # the same with curl\n  \
             curl -i {router}/webhook -d '{body}'\n  curl {cloud_run}/receipts\n  \
             curl {lambda}/receipts\n",
            router = site.router,
            cloud_run = site.cloud_run,
            lambda = site.lambda,
        );
    }
    format!(
        "Go on by hand: `make demo-stay` keeps these servers running. Or start your own:\n  \
         target/debug/webhook-processor &\n  \
         export GCP_TARGET_URL=http://127.0.0.1:9090 AWS_TARGET_FUNCTION=webhook-processor\n  \
         export AWS_ENDPOINT_URL_LAMBDA=http://127.0.0.1:9090 AWS_REGION=us-east-1\n  \
         export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local\n  \
         export STRIPE_SECRETS=whsec_demo_not_a_secret\n  \
         target/debug/webhook-router serve &\n  \
         target/debug/webhook-router event --vendor stripe --send http://127.0.0.1:8080\n  \
         curl -i http://127.0.0.1:8080/webhook -d '{body}'\n  \
         curl http://127.0.0.1:9090/receipts"
    )
}
