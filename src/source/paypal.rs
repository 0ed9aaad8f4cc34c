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
    Certificate, Check, Fetch, Fetched, Vendor,
    builders::{DAY, fields, names, sent},
    certificate::{Hash, RSA_SIGNATURE_BYTES},
    description::{Description, Sent},
    lenient_base64::BASE64,
    scheme::{missing, wrong},
    sign::{CannotSign, Signing, insert},
};
use crate::{delivery::Delivery, error::Error};

/// The hosts of PayPal's certificates.
const HOSTS: [&str; 2] = ["api.paypal.com", "api.sandbox.paypal.com"];
const CERTIFICATES: &str = "/v1/notifications/certs/";

const SIGNATURE: HeaderName = HeaderName::from_static("paypal-transmission-sig");

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
            sent: vec![
                sent("paypal-transmission-id", Sent::Id),
                sent("paypal-transmission-time", Sent::Time),
                sent(
                    "paypal-cert-url",
                    Sent::Text("https://api.paypal.com/v1/notifications/certs/CERT-sample"),
                ),
                sent("paypal-auth-algo", Sent::Text("SHA256withRSA")),
                sent("paypal-auth-version", Sent::Text("v2")),
            ],
            ..Description::default()
        })
    }
}

/// The signature of a delivery and its parts, read from the headers. Everything that needs no
/// certificate is checked already.
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
            let has_length = (6..=128).contains(&name.len());
            has_length && name.starts_with("CERT-") && name.bytes().all(is_plain)
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
        // The certificate must be valid at the time of the signature. It may have expired since.
        let is_for_paypal = NAMES.iter().any(|name| certificate.is_for(name));
        if !is_for_paypal || !certificate.is_valid_at(claims.sent) {
            return Err(wrong());
        }
        let checksum = crc32fast::hash(&check.delivery.body);
        let mut webhooks = check.secrets.iter().map(crate::secret::Secret::expose);
        let is_genuine = webhooks.any(|webhook| is_signed(&claims, webhook, checksum, certificate));
        if is_genuine { Ok(()) } else { Err(wrong()) }
    }

    /// Signs with a private key of the operator's own, because PayPal keeps its key to itself. The
    /// certificate in PAYPAL_CERT_FILE must belong to the key.
    fn sign(&self, mut delivery: Delivery, signing: &Signing<'_>) -> Result<Delivery, CannotSign> {
        let header = |name| delivery.header(name).unwrap_or_default();
        let (id, time) = (header("paypal-transmission-id"), header("paypal-transmission-time"));
        let checksum = crc32fast::hash(&delivery.body);
        let message = message(id, time, signing.secret.expose(), checksum);
        let signature = signing.key.and_then(|key| key.sign_rsa(message.as_bytes()));
        let signature = signature
            .ok_or(CannotSign::NoKey("the RSA key of a certificate, which PayPal alone has"))?;
        insert(&mut delivery.headers, &SIGNATURE, &BASE64.encode(signature))?;
        Ok(delivery)
    }

    fn needs(&self, check: &Check<'_>) -> Result<Option<Fetch>, Error> {
        Claims::of(check.delivery).map(|claims| Some(Fetch::Certificate(claims.address)))
    }
}

fn is_signed(claims: &Claims<'_>, webhook: &str, checksum: u32, certificate: &Certificate) -> bool {
    let Claims { id, time, signature, .. } = claims;
    let message = message(id, time, webhook, checksum);
    certificate.has_signed(Hash::Sha256, message.as_bytes(), signature)
}

/// Returns the text that the signature covers.
fn message(id: &str, time: &str, webhook: &str, checksum: u32) -> String {
    format!("{id}|{time}|{webhook}|{checksum}")
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
            "https://api.paypal.com/v1/notifications/certs/CERT-",
            "https://api.paypal.com/v1/notifications/certs/1",
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
