//! Amazon SNS, which signs each message with the key of a certificate
//! (<https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>).
//!
//! The signature is in the body. It covers `Message`, `MessageId`, `Subject`, `Timestamp`,
//! `TopicArn` and `Type`, and, in a confirmation, `SubscribeURL` and `Token`. Anybody could change
//! the other fields, such as `MessageAttributes`. Raw messages are not signed, so they are refused.
//!
//! Secrets are the ARNs of topics. They are not secret, but without them, messages of a stranger's
//! topic would be accepted: anybody can create a topic and subscribe the router's address to it. A
//! retry has the same `MessageId`.

use base64::Engine as _;
use chrono::{DateTime, Utc};
use url::Url;

use super::{
    Body, Check, Fetch, Fetched, Vendor,
    builders::fields,
    certificate::{Hash, RSA_SIGNATURE_BYTES},
    description::Description,
    lenient_base64::BASE64,
    scheme::{is_a_secret, missing, wrong},
    sign::{CannotSign, Signing},
};
use crate::{
    delivery::Delivery,
    error::Error,
    json::{Document, Value},
    secret::Secret,
};

/// The fields that are signed, in the order in which they are signed.
const OF_A_NOTIFICATION: [&str; 6] =
    ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"];
const OF_A_CONFIRMATION: [&str; 7] =
    ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];

const SUBSCRIPTION: &str = "SubscriptionConfirmation";

#[derive(Debug)]
pub(super) struct AwsSns(Description);

impl AwsSns {
    pub(super) fn new() -> Self {
        Self(Description {
            name: "aws-sns".into(),
            documentation: "https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html",
            fields: fields("/Type", "/Timestamp", "/MessageId"),
            ..Description::default()
        })
    }
}

/// A message, as far as it can be checked without the certificate.
struct Message {
    signed: String,
    signature: Vec<u8>,
    hash: Hash,
    sent: DateTime<Utc>,
    address: Url,
}

impl Message {
    fn of(delivery: &Delivery, secrets: &[Secret]) -> Result<Self, Error> {
        let document = Document::parse(&delivery.body).map_err(|_| missing())?;
        // If two members have the same name, a destination may read the one that was not verified
        // here.
        if !document.root().has_unique_names() {
            return Err(wrong());
        }
        let text = |name| text(document.root(), name);
        let present = |name| text(name).ok_or_else(missing);
        let signature = present("Signature")?;
        is_a_secret(&present("TopicArn")?, secrets)?;
        let hash = match present("SignatureVersion")?.as_str() {
            "1" => Hash::Sha1,
            "2" => Hash::Sha256,
            _ => return Err(wrong()),
        };
        let kind = present("Type")?;
        let names = match kind.as_str() {
            "Notification" => &OF_A_NOTIFICATION[..],
            SUBSCRIPTION | "UnsubscribeConfirmation" => &OF_A_CONFIRMATION,
            _ => return Err(wrong()),
        };
        let mut signed = String::new();
        for name in names {
            // Only an absent subject is left out. A subject that is not a text is refused.
            if *name == "Subject" && document.root().get(name).is_none() {
                continue;
            }
            let value = present(name)?;
            // With a line break in another value, the value of `Message` could end at another
            // place: the same signature would then cover another message id.
            if *name != "Message" && value.contains('\n') {
                return Err(wrong());
            }
            signed += &format!("{name}\n{value}\n");
        }
        let signature = BASE64.decode(signature).map_err(|_| wrong())?;
        if !RSA_SIGNATURE_BYTES.contains(&signature.len()) {
            return Err(wrong());
        }
        let sent = DateTime::parse_from_rfc3339(&present("Timestamp")?).map_err(|_| wrong())?;
        let address = certificate_address(&present("SigningCertURL")?).ok_or_else(wrong)?;
        Ok(Self { signed, signature, hash, sent: sent.to_utc(), address })
    }
}

/// Returns a member of the message that is a text. The signature covers texts alone.
fn text(message: Value<'_>, name: &str) -> Option<String> {
    message.get(name)?.as_str()?.ok()
}

/// Returns the address if it leads to Amazon SNS: `https://sns.<region>.amazonaws.com`, and
/// `.amazonaws.com.cn` for regions in China.
fn sns_address(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let region = url.host_str()?.strip_prefix("sns.")?;
    let region = match region.strip_suffix(".amazonaws.com.cn") {
        Some(region) => Some(region).filter(|region| region.starts_with("cn-")),
        None => region.strip_suffix(".amazonaws.com").filter(|region| !region.starts_with("cn-")),
    };
    let is_allowed = url.scheme() == "https"
        && region.is_some_and(is_region)
        && url.port().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none();
    is_allowed.then_some(url)
}

/// Returns whether a text has the form of a region: `us-east-1`, `us-gov-west-1`.
fn is_region(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let is_word = |part: &&str| {
        (2..=16).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_lowercase())
    };
    match parts.split_last() {
        Some((number, words)) => {
            (2..=3).contains(&words.len())
                && words.iter().all(is_word)
                && (1..=2).contains(&number.len())
                && number.bytes().all(|byte| byte.is_ascii_digit())
        }
        None => false,
    }
}

fn certificate_address(text: &str) -> Option<Url> {
    sns_address(text).filter(|url| {
        let name = url.path().strip_prefix('/').and_then(|path| path.strip_suffix(".pem"));
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        url.query().is_none()
            && name
                .is_some_and(|name| (1..=128).contains(&name.len()) && name.bytes().all(is_plain))
    })
}

/// Returns the address if a GET of it confirms a subscription to that topic, and does nothing else.
fn confirmation_address(text: &str, topic: &str) -> Option<Url> {
    sns_address(text).filter(|url| {
        let has = |name: &str, value: &str| {
            let mut found = url.query_pairs().filter(|(one, _)| one == name);
            found.next().is_some_and(|(_, one)| one == value) && found.next().is_none()
        };
        url.path() == "/" && has("Action", "ConfirmSubscription") && has("TopicArn", topic)
    })
}

impl Vendor for AwsSns {
    fn description(&self) -> &Description {
        &self.0
    }

    fn check_secret(&self, secret: &Secret) -> Result<(), &'static str> {
        let parts: Vec<_> = secret.expose().split(':').collect();
        match parts[..] {
            ["arn", partition, "sns", region, account, topic]
                if partition.starts_with("aws")
                    && is_region(region)
                    && account.len() == 12
                    && account.bytes().all(|byte| byte.is_ascii_digit())
                    && !topic.is_empty() =>
            {
                Ok(())
            }
            _ => Err("must be the ARN of a topic: arn:aws:sns:REGION:ACCOUNT:NAME"),
        }
    }

    fn verify(&self, check: &Check<'_>) -> Result<(), Error> {
        let message = Message::of(check.delivery, check.secrets)?;
        let certificate = check.fetched.and_then(Fetched::certificate);
        let certificate = certificate.ok_or_else(|| Error::NotFetched("no certificate".into()))?;
        // The certificate must be valid at the time of the signature. It may have expired since.
        if !certificate.is_valid_at(message.sent) {
            return Err(wrong());
        }
        let Message { signed, signature, hash, .. } = &message;
        let is_genuine = certificate.has_signed(*hash, signed.as_bytes(), signature);
        if is_genuine { Ok(()) } else { Err(wrong()) }
    }

    fn sign(&self, _: Delivery, _: &Signing<'_>) -> Result<Delivery, CannotSign> {
        Err(CannotSign::OnlyVendor("Amazon SNS"))
    }

    fn needs(&self, check: &Check<'_>) -> Result<Option<Fetch>, Error> {
        let message = Message::of(check.delivery, check.secrets)?;
        Ok(Some(Fetch::Certificate(message.address)))
    }

    fn confirmation(&self, body: &Body<'_>) -> Result<Option<Fetch>, Error> {
        let Some(message) = body.root() else { return Ok(None) };
        let text = |name| text(message, name);
        if text("Type").as_deref() != Some(SUBSCRIPTION) {
            return Ok(None);
        }
        let (address, topic) = (text("SubscribeURL"), text("TopicArn"));
        let address =
            address.zip(topic).and_then(|(url, topic)| confirmation_address(&url, &topic));
        Ok(Some(Fetch::Confirmation(address.ok_or_else(wrong)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::{AwsSns, certificate_address, confirmation_address};
    use crate::{secret::Secret, source::Vendor as _};

    #[test]
    fn certificates_come_from_sns_alone() {
        let good = "https://sns.us-west-2.amazonaws.com/SimpleNotificationService-0a1b.pem";
        assert!(certificate_address(good).is_some());
        for host in ["sns.us-gov-west-1.amazonaws.com", "sns.cn-north-1.amazonaws.com.cn"] {
            let other = good.replace("sns.us-west-2.amazonaws.com", host);
            assert!(certificate_address(&other).is_some(), "{host}");
        }
        for bad in [
            "http://sns.us-west-2.amazonaws.com/S-1.pem",
            "https://sns.us-west-2.amazonaws.com:8443/S-1.pem",
            "https://sns.us-west-2.amazonaws.com.evil.example/S-1.pem",
            "https://sns.us-west-2.amazonaws.com.cn/S-1.pem",
            "https://sns.cn-north-1.amazonaws.com/S-1.pem",
            "https://evil.example/sns.us-west-2.amazonaws.com/S-1.pem",
            "https://evil.example#@sns.us-west-2.amazonaws.com/S-1.pem",
            "https://user@sns.us-west-2.amazonaws.com/S-1.pem",
            "https://s3.us-west-2.amazonaws.com/S-1.pem",
            "https://sns.evil.s3.amazonaws.com/S-1.pem",
            "https://sns.evil.amazonaws.com/S-1.pem",
            "https://sns..amazonaws.com/S-1.pem",
            "https://sns.amazonaws.com/S-1.pem",
            "https://sns.us-west-2.amazonaws.com/S-1.pem?x=.pem",
            "https://sns.us-west-2.amazonaws.com/../S/1.pem",
            "https://sns.us-west-2.amazonaws.com/S-1.key",
            "https://sns.us-west-2.amazonaws.com/.pem",
            "S-1.pem",
        ] {
            assert!(certificate_address(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn only_the_confirmation_of_the_topic_is_visited() {
        let topic = "arn:aws:sns:us-west-2:123456789012:orders";
        let good = format!(
            "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}&Token=1"
        );
        assert!(confirmation_address(&good, topic).is_some());
        for (part, other) in [
            ("https", "http"),
            ("ConfirmSubscription", "DeleteTopic"),
            ("Action=", "X="),
            (":orders", ":others"),
            ("/?", "/x?"),
            ("sns.", "sqs."),
            ("Token=1", "Action=DeleteTopic"),
            ("amazonaws.com", "amazonaws.example"),
        ] {
            let bad = good.replacen(part, other, 1);
            assert!(confirmation_address(&bad, topic).is_none(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_arns_of_topics() {
        let check = |text: &str| AwsSns::new().check_secret(&Secret::new(text)).is_ok();
        assert!(check("arn:aws:sns:us-west-2:123456789012:orders"));
        assert!(check("arn:aws-cn:sns:cn-north-1:123456789012:orders.fifo"));
        for bad in [
            "",
            "orders",
            "arn:aws:sqs:us-west-2:123456789012:orders",
            "arn:aws:sns:us-west-2:1:orders",
            "arn:aws:sns:us-west-2:123456789012:",
            "arn:aws:sns:us-west-2:123456789012:orders:subscription",
        ] {
            assert!(!check(bad), "{bad}");
        }
    }
}
