//! Sends the webhooks of five vendors, each of which signs in its own way. Each webhook is sent
//! genuine, then as a retry, and then forged.

use std::fmt::Write as _;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use http::{HeaderMap, Method};
use sha2::{Digest as _, Sha256};

use super::{
    answers::{DUPLICATE, PROCESSED, Receipts, arrived, header, shown},
    site::Site,
};
use crate::{
    cmd::samples::sample,
    delivery::Delivery,
    secret::Secret,
    source::{Signing, Source, secrets_variable, vendor},
};

/// A vendor for which the demo signs.
pub(super) struct Signer {
    pub name: &'static str,
    /// A value that is clearly not a real secret.
    pub secret: &'static str,
    /// A part of the body that the signature covers.
    covered: &'static str,
}

pub(super) const SIGNERS: [Signer; 5] = [
    Signer { name: "stripe", secret: "whsec_demo_not_a_secret", covered: "4200" },
    Signer { name: "github", secret: "demo-not-a-secret", covered: "refs/heads/main" },
    // The hex digits of "demo, not a secret".
    Signer { name: "adyen", secret: "64656d6f2c206e6f74206120736563726574", covered: "1999" },
    Signer { name: "slack", secret: "demo-not-a-secret", covered: "ship" },
    Signer { name: "twilio", secret: "demo-not-a-secret", covered: "delivered" },
];

/// The vendor in the commands for trying by hand. The demo itself sends no webhook in this vendor's
/// own form.
pub(super) const BY_HAND: Signer =
    Signer { name: "shopify", secret: "demo-not-a-secret", covered: "" };

/// Returns the variables with which the router serves these vendors.
pub(super) fn variables() -> impl Iterator<Item = (String, String)> {
    SIGNERS
        .iter()
        .chain([&BY_HAND])
        .map(|signer| (secrets_variable(signer.name), signer.secret.to_owned()))
}

/// The answers to a vendor's event, to its retry and to its forgery.
pub(super) struct Row {
    vendor: &'static str,
    destination: String,
    key: String,
    first: String,
    retry: String,
    forged: String,
    /// SHA-256 of the body that was posted.
    sha256: String,
}

impl Site {
    /// Sends each vendor's event, then a retry with a new signature, and then a forgery.
    pub(super) async fn send_vendors_events(&self) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for signer in &SIGNERS {
            let genuine = signer.delivery(self, TimeDelta::zero())?;
            let forged = signer.forged(&genuine)?;
            let first = self.send(&genuine).await?;
            let retry = self.send(&signer.delivery(self, TimeDelta::seconds(1))?).await?;
            rows.push(Row {
                vendor: signer.name,
                destination: header(&first, "x-webhook-destination"),
                key: header(&first, "x-webhook-key"),
                first: shown(&first),
                retry: shown(&retry),
                forged: shown(&self.send(&forged).await?),
                sha256: hex::encode(Sha256::digest(&genuine.body)),
            });
        }
        Ok(rows)
    }
}

impl Signer {
    /// Returns the sample event, signed as if `after` had passed.
    fn delivery(&self, site: &Site, after: TimeDelta) -> anyhow::Result<Delivery> {
        let vendor = vendor(self.name).context("bug: the vendor is not built in")?;
        let source = Source::new(self.name, vendor.clone());
        let delivery = Delivery {
            method: Method::POST,
            path: source.path(),
            query: None,
            headers: HeaderMap::new(),
            body: Bytes::from_static(sample(self.name).context("bug: the vendor has no sample")?),
        };
        let (secret, url) = (Secret::new(self.secret), format!("{}{}", site.router, delivery.path));
        let (url, now) = (Some(url.as_str()), Utc::now() + after);
        Ok(source.sign(&delivery, &Signing { secret: &secret, key: None, url, now })?)
    }

    /// Returns the delivery with one byte changed.
    fn forged(&self, genuine: &Delivery) -> anyhow::Result<Delivery> {
        let mut body = genuine.body.to_vec();
        let covered = self.covered.as_bytes();
        let at = body.windows(covered.len()).position(|window| window == covered);
        body[at.context("bug: the sample lacks the covered text")?] ^= 1;
        Ok(Delivery { body: body.into(), ..genuine.clone() })
    }
}

/// Fails unless every event was processed once, and every forgery was refused.
pub(super) fn check(rows: &[Row], received: &Receipts) -> anyhow::Result<()> {
    for row in rows {
        // Adyen requires this answer, so the router gives it whatever the destination answers.
        let (first, retry) = match row.vendor {
            "adyen" => ("200 [accepted]", "200 [accepted], a duplicate"),
            _ => (PROCESSED, DUPLICATE),
        };
        let answers = (row.first.as_str(), row.retry.as_str(), row.forged.as_str());
        let expected = (first, retry, "401 invalid signature");
        ensure!(answers == expected, "{} was answered {answers:?}", row.vendor);
        let found = arrived(received, &row.destination, &row.key);
        let receipt = found.with_context(|| format!("{} did not arrive", row.vendor))?;
        ensure!(receipt.deliveries == 1, "{} arrived more than once", row.vendor);
        ensure!(receipt.sha256 == row.sha256, "{} changed on its way", row.vendor);
    }
    Ok(())
}

pub(super) fn table(rows: &[Row], received: &Receipts) -> String {
    let mut text = format!(
        "{:<8} {:<25} {:<4} {:<11} {:<25} {:<29} {:<25} {}\n",
        "VENDOR",
        "TYPE",
        "DEST",
        "KEY",
        "SIGNED BY THE VENDOR",
        "SENT AGAIN, SIGNED ANEW",
        "ONE BYTE CHANGED",
        "BYTES EQUAL"
    );
    for row in rows {
        let Row { vendor, destination, first, retry, forged, .. } = row;
        let receipt = arrived(received, destination, &row.key);
        let event_type = receipt.map(|receipt| receipt.event_type.as_str()).unwrap_or_default();
        let equal = receipt.is_some_and(|receipt| receipt.sha256 == row.sha256);
        let (equal, key) = (if equal { "yes" } else { "NO" }, row.key.rsplit(':').next());
        let _ = writeln!(
            text,
            "{vendor:<8} {event_type:<25} {destination:<4} {:<11.10} {first:<25} {retry:<29} {forged:<25} {equal}",
            key.unwrap_or_default()
        );
    }
    text
}
