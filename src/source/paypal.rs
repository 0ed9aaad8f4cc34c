//! PayPal, which signs with the key of a certificate
//! (<https://developer.paypal.com/api/rest/webhooks/rest/#link-verifywebhooksignature>).
//!
//! The signature covers the transmission's id and time, the webhook's id, and the CRC32 of the
//! body. A CRC32 is no protection: with a captured delivery, an attacker can make another body with
//! the same CRC32 and send it under the same signature. So before a destination acts on an event,
//! it should ask PayPal for the objects that the body names by id.
//!
//! Secrets are webhook ids. They are not secret to PayPal's customers, but they bind a delivery to
//! one webhook. A retry is another transmission with the same `id`.

use base64::Engine as _;
use chrono::{DateTime, Utc};
use http::HeaderName;
use url::Url;

use super::{
    Certificate, Check, Fetch, Fetched, Source, Vendor,
    certificate::{Hash, RSA_SIGNATURE_BYTES},
    description::Description,
    rows::{DAY, fields, names},
    scheme::{BASE64, missing, wrong},
};
use crate::{delivery::Delivery, error::Error};

/// The hosts of PayPal's certificates.
const HOSTS: [&str; 2] = ["api.paypal.com", "api.sandbox.paypal.com"];
const CERTIFICATES: &str = "/v1/notifications/certs/";

/// The names that the certificates are for.
const NAMES: [&str; 2] =
    ["messageverificationcerts.paypal.com", "messageverificationcerts.sandbox.paypal.com"];

#[derive(Debug)]
pub(super) struct PayPal(Description);

impl PayPal {
    pub(super) fn new() -> Self {
        Self(Description {
            name: "paypal".into(),
            documentation: "https://developer.paypal.com/api/rest/webhooks/",
            // The simulator's times have a month 19. They count as absent.
            fields: fields("/event_type", "/create_time", "/id"),
            retry_horizon: 3 * DAY,
            signature_headers: names(&[
                "paypal-transmission-id",
                "paypal-transmission-time",
                "paypal-transmission-sig",
                "paypal-cert-url",
                "paypal-auth-algo",
                "paypal-auth-version",
            ]),
            ..Description::default()
        })
    }
}

/// The signature of a delivery, as its headers state it and as far as it can be checked without the
/// certificate.
struct Claims<'a> {
    id: &'a str,
    time: &'a str,
    sent: DateTime<Utc>,
    signature: Vec<u8>,
    address: Url,
}

impl<'a> Claims<'a> {
    fn of(delivery: &'a Delivery) -> Result<Self, Error> {
        let header = |name| {
            let value = delivery.single_header(&HeaderName::from_static(name));
            value.filter(|value| !value.is_empty()).ok_or_else(missing)
        };
        let (id, time) = (header("paypal-transmission-id")?, header("paypal-transmission-time")?);
        let signature = header("paypal-transmission-sig")?;
        let (address, algorithm) = (header("paypal-cert-url")?, header("paypal-auth-algo")?);
        if delivery.body.is_empty() {
            return Err(missing());
        }
        let sent = DateTime::parse_from_rfc3339(time).map_err(|_| wrong())?.to_utc();
        let signature = BASE64.decode(signature).map_err(|_| wrong())?;
        let is_rsa = algorithm.eq_ignore_ascii_case("SHA256withRSA");
        if !is_rsa || !RSA_SIGNATURE_BYTES.contains(&signature.len()) {
            return Err(wrong());
        }
        let address = certificate_address(address).ok_or_else(wrong)?;
        Ok(Self { id, time, sent, signature, address })
    }
}

/// Returns the address if it is one of PayPal's certificates.
fn certificate_address(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_allowed = url.scheme() == "https"
        && url.host_str().is_some_and(|host| HOSTS.contains(&host))
        && url.port().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.path().strip_prefix(CERTIFICATES).is_some_and(|name| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            (1..=128).contains(&name.len()) && name.bytes().all(is_plain)
        });
    is_allowed.then_some(url)
}

impl Vendor for PayPal {
    fn has_signature(&self, delivery: &Delivery) -> bool {
        delivery.headers.contains_key("paypal-transmission-sig")
    }

    fn description(&self) -> &Description {
        &self.0
    }

    fn verify(&self, check: &Check<'_>) -> Result<(), Error> {
        let claims = Claims::of(check.delivery)?;
        let certificate = check
            .fetched
            .and_then(Fetched::certificate)
            .ok_or_else(|| Error::NotFetched("no certificate: set PAYPAL_CERT_FILE".into()))?;
        // The time of the signature counts: a delivery may be older than the certificate's end.
        let is_for_paypal = NAMES.iter().any(|name| certificate.is_for(name));
        if !is_for_paypal || !certificate.is_valid_at(claims.sent) {
            return Err(wrong());
        }
        let checksum = crc32fast::hash(&check.delivery.body);
        let mut webhooks = check.secrets.iter().map(crate::secret::Secret::expose);
        let is_genuine = webhooks.any(|webhook| is_signed(&claims, webhook, checksum, certificate));
        if is_genuine { Ok(()) } else { Err(wrong()) }
    }

    fn needs(&self, delivery: &Delivery, _source: &Source) -> Result<Option<Fetch>, Error> {
        Claims::of(delivery).map(|claims| Some(Fetch::Certificate(claims.address)))
    }
}

fn is_signed(claims: &Claims<'_>, webhook: &str, checksum: u32, certificate: &Certificate) -> bool {
    let Claims { id, time, signature, .. } = claims;
    let message = format!("{id}|{time}|{webhook}|{checksum}");
    certificate.has_signed(Hash::Sha256, message.as_bytes(), signature)
}

#[cfg(test)]
mod tests {
    use super::certificate_address;

    #[test]
    fn certificates_come_from_paypal_alone() {
        let good = "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-1a5f47cb";
        assert!(certificate_address(good).is_some());
        assert!(certificate_address(&good.replace("api.", "api.sandbox.")).is_some());
        for bad in [
            "http://api.paypal.com/v1/notifications/certs/CERT-1",
            "https://api.paypal.com:8443/v1/notifications/certs/CERT-1",
            "https://api.paypal.com.evil.example/v1/notifications/certs/CERT-1",
            "https://evil.example/v1/notifications/certs/CERT-1",
            "https://evil.example#@api.paypal.com/v1/notifications/certs/CERT-1",
            "https://user@api.paypal.com/v1/notifications/certs/CERT-1",
            "https://api.paypal.com/v1/notifications/certs/",
            "https://api.paypal.com/v1/notifications/certs/../../x",
            "https://api.paypal.com/v1/notifications/certs/CERT-1?next=x",
            "https://api.paypal.com/v1/oauth2/CERT-1",
            "https://www.paypal.com/v1/notifications/certs/CERT-1",
            "CERT-1",
        ] {
            assert!(certificate_address(bad).is_none(), "{bad}");
        }
    }
}
