//! Builds the parts of descriptions that several vendors share.

use std::time::Duration;

use http::HeaderName;

use super::{
    description::{
        Algorithm, Description, Encoding, Fields, Joined, KeyForm, Place, Scheme, Sent, Signed,
        Stamp, StampPlace, Tolerance, Unit,
    },
    template::Template,
};
use crate::json::Pointer;

pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// The signature covers the body and the id, which is the same in every attempt. The timestamp in
/// the header is the time of the attempt. Svix's own headers begin with `svix-`.
pub fn standard_webhooks() -> Description {
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
pub fn standard(documentation: &'static str, fields: Fields) -> Description {
    let standard = standard_webhooks();
    let fields = Fields { id: standard.fields.id.clone(), ..fields };
    Description { documentation, fields, ..standard }
}

pub fn signed(signed: Signed) -> Option<Scheme> {
    Some(Scheme::Signed(Box::new(signed)))
}

/// Describes HMAC-SHA256 over only the body, in hex, with the text of the secret as the key.
pub fn hmac_body(name: &str) -> Signed {
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

pub fn stamp(place: StampPlace) -> Stamp {
    Stamp { place, unit: Unit::Seconds, tolerance: Tolerance::Configured }
}

/// Describes fields at these pointers. An empty pointer means no field.
pub fn fields(event_type: &str, created_at: &str, id: &str) -> Fields {
    let place = |path: &str| (!path.is_empty()).then(|| pointer(path));
    Fields {
        event_type: place(event_type).map(Joined::from).into_iter().collect(),
        created_at: place(created_at).into_iter().collect(),
        id: place(id).map(Joined::from).into_iter().collect(),
        ..Fields::default()
    }
}

#[expect(clippy::expect_used, reason = "a test reads every row of `rows/`")]
pub fn template(text: &str) -> Template {
    text.parse().expect("a template")
}

#[expect(clippy::expect_used, reason = "a test reads every row of `rows/`")]
pub fn pointer_to(path: &str) -> Pointer {
    path.parse().expect("a pointer")
}

/// Describes a value that is joined from the values at all of these pointers.
pub fn joined(paths: &[&str], with: &'static str) -> Joined {
    Joined { places: paths.iter().map(|path| pointer(path)).collect(), with, needs_all: true }
}

pub fn pointer(path: &str) -> Place {
    Place::Pointer(pointer_to(path))
}

pub fn header(name: &'static str) -> Place {
    Place::Header(HeaderName::from_static(name))
}

pub fn sent(name: &'static str, sent: Sent) -> (HeaderName, Sent) {
    (HeaderName::from_static(name), sent)
}

/// Returns the headers of these names. Empty names are left out.
pub fn names(names: &[&str]) -> Vec<HeaderName> {
    names.iter().filter_map(|name| name.parse().ok()).collect()
}
