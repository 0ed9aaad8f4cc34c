//! The table of vendors. A vendor that a description fits is a row of data. Every other vendor has
//! a file beside this folder.

mod built_in;
mod commerce;
mod communication;
mod content;
mod developers;
mod payments;

use std::sync::Arc;

pub(super) use self::built_in::BuiltIn;
use self::built_in::{coded, row};
use super::{
    adyen::Adyen, aws_sns::AwsSns, braintree::Braintree, builders::standard_webhooks,
    gitlab::GitLab, hubspot::HubSpot, meta::Meta, paypal::PayPal, plaid::Plaid, polar::Polar,
    trello::Trello, twilio::Twilio, zoom::Zoom,
};

static CODED: [BuiltIn; 12] = [
    coded("adyen", || Arc::new(Adyen::new())),
    coded("aws-sns", || Arc::new(AwsSns::new())),
    coded("braintree", || Arc::new(Braintree::new())),
    coded("gitlab", || Arc::new(GitLab::new())),
    coded("hubspot", || Arc::new(HubSpot::new())),
    coded("meta", || Arc::new(Meta::new())),
    coded("paypal", || Arc::new(PayPal::new())),
    coded("plaid", || Arc::new(Plaid::new())),
    coded("polar", || Arc::new(Polar::new())),
    coded("trello", || Arc::new(Trello::new())),
    coded("twilio", || Arc::new(Twilio::new())),
    coded("zoom", || Arc::new(Zoom::new())),
];

static STANDARD: [BuiltIn; 1] = [row("standard-webhooks", standard_webhooks)];

/// Returns every built-in vendor, in no order.
pub(super) fn all() -> impl Iterator<Item = &'static BuiltIn> {
    let tables = [
        &CODED[..],
        &STANDARD,
        &payments::ALL,
        &commerce::ALL,
        &developers::ALL,
        &communication::ALL,
        &content::ALL,
    ];
    tables.into_iter().flatten()
}
