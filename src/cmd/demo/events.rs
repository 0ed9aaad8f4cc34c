//! Sends the sample events, each of them twice.

use std::fmt::Write as _;

use anyhow::{Context as _, ensure};
use http::{HeaderMap, header::CONTENT_TYPE};
use sha2::{Digest as _, Sha256};

use super::{
    answers::{DUPLICATE, PROCESSED, Receipts, arrived, header, shown},
    site::Site,
};
use crate::{
    cmd::{fronts, receipts::Receipt},
    delivery::Delivery,
    json::Document,
};

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

pub(super) struct Row {
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
    pub(super) async fn send_every_event_twice(&self) -> anyhow::Result<Vec<Row>> {
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
    pub fn is_routed(&self) -> bool {
        self.expected == Expected::Routed
    }

    /// Returns the receipt, and whether it matches the posted body. Returns `None` if the event did
    /// not reach its destination, or should not reach one.
    fn arrived<'a>(&self, received: &'a Receipts) -> Option<(&'a Receipt, bool)> {
        let found = arrived(received, &self.destination, &self.key).filter(|_| self.is_routed());
        found.map(|receipt| (receipt, receipt.sha256 == self.sha256))
    }
}

/// Fails unless every event has its expected result.
pub(super) fn check(rows: &[Row], received: &Receipts) -> anyhow::Result<()> {
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

pub(super) fn table(rows: &[Row], received: &Receipts) -> String {
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

/// Returns the vendor that the body names, for the table.
fn vendor(delivery: &Delivery) -> String {
    let document = Document::parse(&delivery.body).ok();
    let vendor = document.as_ref().and_then(|document| document.root().get("vendor")?.as_str());
    vendor.and_then(Result::ok).unwrap_or_else(|| "-".into())
}

fn content_type(delivery: &Delivery) -> HeaderMap {
    let value = delivery.headers.get(CONTENT_TYPE);
    value.map(|value| (CONTENT_TYPE, value.clone())).into_iter().collect()
}
