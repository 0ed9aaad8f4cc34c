//! HubSpot, which signs the method, the called address, the body and the time
//! (<https://developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/request-validation>).
//!
//! The signature covers type, time and id of every event in the batch. HubSpot signs the address
//! with some of its escapes decoded. `attemptNumber` changes between deliveries. HubSpot does not
//! promise that no other event has the same `eventId`, so the id also names the subscription, the
//! object and the time.

use super::{
    Check, Vendor,
    builders::{fields, header, hmac_body, joined, signed, template},
    description::{
        Description, Encoding, Fields, Joined, Signed, Stamp, StampPlace, Tolerance, Unit,
    },
    scheme::{self, CHEAP_BODY_BYTES},
    sign::{CannotSign, Signing, by_description},
};
use crate::{
    delivery::Delivery,
    error::{Error, SignatureFault},
    json::Pointer,
};

/// The escapes that HubSpot decodes before it signs.
const DECODED: [(&str, &str); 12] = [
    ("3A", ":"),
    ("2F", "/"),
    ("3F", "?"),
    ("40", "@"),
    ("21", "!"),
    ("24", "$"),
    ("27", "'"),
    ("28", "("),
    ("29", ")"),
    ("2A", "*"),
    ("2C", ","),
    ("3B", ";"),
];

#[derive(Debug)]
pub(super) struct HubSpot(Description);

impl HubSpot {
    pub(super) fn new() -> Self {
        let id = ["/eventId", "/subscriptionId", "/objectId", "/occurredAt"];
        Self(Description {
            name: "hubspot".into(),
            documentation: "https://developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/request-validation",
            scheme: signed(Signed {
                encoding: Encoding::Base64,
                stamp: Some(Stamp {
                    place: StampPlace::At(header("x-hubspot-request-timestamp")),
                    unit: Unit::Milliseconds,
                    tolerance: Tolerance::Configured,
                }),
                template: template("{method}{url}{body}{timestamp}"),
                is_json: true,
                ..hmac_body("x-hubspot-signature-v3")
            }),
            fields: Fields {
                each: Some(Pointer::root()),
                unit: Unit::Milliseconds,
                id: vec![Joined { needs_all: false, ..joined(&id, ":") }],
                ..fields("/subscriptionType", "/occurredAt", "")
            },
            ..Description::default()
        })
    }
}

impl Vendor for HubSpot {
    fn description(&self) -> &Description {
        &self.0
    }

    fn verify(&self, check: &Check<'_>) -> Result<(), Error> {
        let decoded = check.url.map(decoded);
        let first = scheme::verify(&self.0, &Check { url: decoded.as_deref(), ..*check });
        // An address with escapes is tried as it was called, too, if a second hash is cheap.
        let is_worth_it = matches!(first, Err(Error::Signature(SignatureFault::Wrong)))
            && decoded.as_deref() != check.url
            && check.delivery.body.len() <= CHEAP_BODY_BYTES;
        if is_worth_it { scheme::verify(&self.0, check) } else { first }
    }

    fn sign(&self, delivery: Delivery, signing: &Signing<'_>) -> Result<Delivery, CannotSign> {
        let decoded = signing.url.map(decoded);
        by_description(&self.0, delivery, &Signing { url: decoded.as_deref(), ..*signing })
    }
}

/// Returns the address with HubSpot's escapes decoded.
fn decoded(url: &str) -> String {
    let mut parts = url.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let escape = part.get(..2).and_then(|code| {
            DECODED.iter().find(|(escaped, _)| escaped.eq_ignore_ascii_case(code))
        });
        match escape {
            Some((_, character)) => {
                decoded += character;
                decoded += &part[2..];
            }
            None => {
                decoded += "%";
                decoded += part;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn only_hubspots_escapes_are_decoded() {
        for (url, expected) in [
            ("https://a.example/x?y=1", "https://a.example/x?y=1"),
            ("https://a.example/x?u=https%3A%2f%2Fb", "https://a.example/x?u=https://b"),
            ("https://a.example/%20%26%3D%25", "https://a.example/%20%26%3D%25"),
            ("https://a.example/%253A%3", "https://a.example/%253A%3"),
            ("https://a.example/%é", "https://a.example/%é"),
        ] {
            assert_eq!(decoded(url), expected);
        }
    }
}
