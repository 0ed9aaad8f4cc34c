//! The table of vendors. A vendor that a description fits is a row of data. Every other vendor has
//! a file beside this folder.

mod commerce;
mod communication;
mod content;
mod developers;
mod payments;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::HeaderName;

use super::{
    Described, Vendor,
    adyen::Adyen,
    aws_sns::AwsSns,
    braintree::Braintree,
    description::{
        Algorithm, Description, Encoding, Fields, Joined, KeyForm, Place, Scheme, Sent, Signed,
        Stamp, StampPlace, Tolerance, Unit,
    },
    gitlab::GitLab,
    hubspot::HubSpot,
    meta::Meta,
    paypal::PayPal,
    plaid::Plaid,
    polar::Polar,
    template::Template,
    trello::Trello,
    twilio::Twilio,
    zoom::Zoom,
};
use crate::json::Pointer;

const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// A built-in vendor. It is made when it is first needed: a cold start needs only the configured vendors.
pub(super) struct BuiltIn {
    pub name: &'static str,
    make: Make,
    made: OnceLock<Arc<dyn Vendor>>,
}

enum Make {
    Described(fn() -> Description),
    Coded(fn() -> Arc<dyn Vendor>),
}

impl BuiltIn {
    const fn new(name: &'static str, make: Make) -> Self {
        Self { name, make, made: OnceLock::new() }
    }

    pub(super) fn vendor(&self) -> &Arc<dyn Vendor> {
        self.made.get_or_init(|| match self.make {
            Make::Described(describe) => {
                Arc::new(Described(Description { name: self.name.into(), ..describe() }))
            }
            Make::Coded(make) => make(),
        })
    }
}

/// A vendor that a description fits. The row has its name.
const fn row(name: &'static str, describe: fn() -> Description) -> BuiltIn {
    BuiltIn::new(name, Make::Described(describe))
}

/// A vendor with a file of its own, whose description repeats the name.
const fn coded(name: &'static str, make: fn() -> Arc<dyn Vendor>) -> BuiltIn {
    BuiltIn::new(name, Make::Coded(make))
}

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

/// The signature covers the body and the id, which is the same in every attempt. The timestamp in
/// the header is the time of the attempt. Svix's own headers begin with `svix-`.
fn standard_webhooks() -> Description {
    Description {
        documentation: "https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md",
        scheme: Some(Scheme::StandardWebhooks),
        fields: Fields {
            id: vec![header("webhook-id").into(), header("svix-id").into()],
            ..fields("/type", "/timestamp", "")
        },
        // The example in the specification ends after 75.6 hours.
        retry_horizon: 76 * HOUR,
        signature_headers: names(&[
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
            "svix-id",
            "svix-timestamp",
            "svix-signature",
        ]),
        ..Description::default()
    }
}

/// Describes a vendor that signs as Standard Webhooks, and whose payload has fields of its own.
pub(super) fn standard(documentation: &'static str, fields: Fields) -> Description {
    let standard = standard_webhooks();
    let fields = Fields { id: standard.fields.id.clone(), ..fields };
    Description { documentation, fields, ..standard }
}

pub(super) fn signed(signed: Signed) -> Option<Scheme> {
    Some(Scheme::Signed(Box::new(signed)))
}

/// Describes HMAC-SHA256 over only the body, in hex, with the text of the secret as the key.
pub(super) fn hmac_body(name: &str) -> Signed {
    Signed {
        algorithm: Algorithm::HmacSha256,
        signature: names(&[name]).into_iter().map(Place::Header).collect(),
        separator: None,
        prefix: String::new(),
        encoding: Encoding::Hex,
        key: KeyForm::Text,
        key_id: None,
        stamp: None,
        template: Template::default(),
        is_json: false,
    }
}

fn stamp(place: StampPlace) -> Stamp {
    Stamp { place, unit: Unit::Seconds, tolerance: Tolerance::Configured }
}

/// Describes fields at these pointers. An empty pointer means no field.
pub(super) fn fields(event_type: &str, created_at: &str, id: &str) -> Fields {
    let place = |path: &str| (!path.is_empty()).then(|| pointer(path));
    Fields {
        event_type: place(event_type).map(Joined::from).into_iter().collect(),
        created_at: place(created_at).into_iter().collect(),
        id: place(id).map(Joined::from).into_iter().collect(),
        ..Fields::default()
    }
}

#[expect(clippy::expect_used, reason = "a test reads every row of this table")]
pub(super) fn template(text: &str) -> Template {
    text.parse().expect("a template")
}

#[expect(clippy::expect_used, reason = "a test reads every row of this table")]
pub(super) fn pointer_to(path: &str) -> Pointer {
    path.parse().expect("a pointer")
}

/// Describes a value that is joined from the values at all of these pointers.
pub(super) fn joined(paths: &[&str], with: &'static str) -> Joined {
    Joined { places: paths.iter().map(|path| pointer(path)).collect(), with, needs_all: true }
}

fn pointer(path: &str) -> Place {
    Place::Pointer(pointer_to(path))
}

pub(super) fn header(name: &'static str) -> Place {
    Place::Header(HeaderName::from_static(name))
}

pub(super) fn sent(name: &'static str, sent: Sent) -> (HeaderName, Sent) {
    (HeaderName::from_static(name), sent)
}

/// Returns the headers of these names. Empty names are left out.
pub(super) fn names(names: &[&str]) -> Vec<HeaderName> {
    names.iter().filter_map(|name| name.parse().ok()).collect()
}
