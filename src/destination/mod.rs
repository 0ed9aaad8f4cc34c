//! The destinations that events are delivered to.
//!
//! CONTRIBUTING.md lists what a new destination needs.

mod cloud_run;
mod lambda;
mod payload;
mod tls;
mod token;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use chrono::Utc;
pub use cloud_run::CloudRun;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
pub use lambda::{Lambda, endpoint as lambda_endpoint};
pub use tls::tls_config;
pub use token::IdTokens;

use crate::{
    config::{Place, Targets},
    delivery::{Delivery, Reply, TRACE_HEADERS},
    plan::Plan,
    route::Route,
    signing::{self, Signer},
    source::EVENT_HEADERS,
};

/// Largest reply that is passed on, in bytes. A Function URL's answer is limited to 6 MB, and
/// base64 turns three bytes into four.
pub const MAX_REPLY_BYTES: usize = 4 * 1024 * 1024;

/// Longest vendor name or event type that a destination gets in addition to the body, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// A place that events are delivered to.
#[async_trait]
pub trait Destination: Send + Sync {
    /// Sends an event, and waits for the answer at most for `timeout`. An answer is a reply,
    /// whatever its status. The event is sent once, except to a service that answers a kept ID
    /// token with 401: it gets the event again with a new token.
    async fn send(&self, event: &Outgoing<'_>, timeout: Duration) -> Result<Reply, SendError>;
}

/// An event as one attempt sends it.
pub struct Outgoing<'a> {
    pub delivery: &'a Delivery,
    pub plan: &'a Plan,
    /// The number of the attempt, counted from 1 over the event's life. The attempts of an
    /// owner that died are not stored, so their numbers come again.
    pub attempt: u32,
    /// The trace context: names and values of headers.
    pub trace: &'a [(&'static str, String)],
    /// Signs the event, if FORWARD_SECRETS is set.
    pub signer: Option<&'a Signer>,
    /// True if this is a copy for a mirror.
    pub is_copy: bool,
}

/// Reasons why an attempt has no reply to pass on. The texts are for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The destination did not receive the event: no connection was made, or the router had no
    /// credentials for the call. Another attempt may succeed.
    #[error("{0}")]
    NotSent(String),
    /// The destination did not receive the event, because it has too much to do. Another attempt may
    /// succeed soon.
    #[error("{detail}")]
    Throttled {
        detail: String,
        /// The pause that the destination asked for.
        retry_after: Option<Duration>,
    },
    /// The destination did not receive the event, and another attempt fails until somebody changes
    /// something.
    #[error("{0}")]
    Refused(String),
    /// The destination received the event, and reports a failure of its own or gives an answer that
    /// cannot be read.
    #[error("{}", .0.detail)]
    Failed(Box<FailedAnswer>),
    /// The destination may have received the event: there was no answer in time, or the connection
    /// broke.
    #[error("{}", .0.detail)]
    Unknown(NoAnswer),
}

/// An answer for the operator only, because it may reveal the destination's internals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAnswer {
    /// Describes the failure without quoting the answer.
    pub detail: String,
    pub answer: Reply,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAnswer {
    pub timed_out: bool,
    pub detail: String,
}

impl SendError {
    fn timed_out(timeout: Duration) -> Self {
        let detail = format!("no answer within {} ms", timeout.as_millis());
        Self::Unknown(NoAnswer { timed_out: true, detail })
    }

    fn broken(detail: String) -> Self {
        Self::Unknown(NoAnswer { timed_out: false, detail })
    }
}

/// Creates a destination. It connects at its first use.
///
/// # Errors
/// Fails if a file or the URL cannot be used.
pub fn create(place: &Place, attempt_timeout: Duration) -> Result<Box<dyn Destination>, String> {
    match place {
        Place::Http(http) => Ok(Box::new(CloudRun::new(http, attempt_timeout)?)),
        Place::Lambda(lambda) => Ok(Box::new(Lambda::new(lambda.clone(), attempt_timeout))),
    }
}

/// The destinations that are configured, by name.
#[derive(Default)]
pub struct Destinations(BTreeMap<Route, Box<dyn Destination>>);

impl Destinations {
    /// Creates the configured destinations. They connect at their first use.
    ///
    /// # Errors
    /// Fails if a file cannot be used. The text names the file and the reason.
    pub fn new(targets: &Targets, attempt_timeout: Duration) -> Result<Self, String> {
        let named = targets.iter().map(|target| {
            let destination = create(&target.place, attempt_timeout);
            let destination = destination.map_err(|error| format!("{}: {error}", target.setting));
            Ok((target.name, destination?))
        });
        named.collect()
    }

    /// Returns the destination of a route.
    ///
    /// # Errors
    /// Fails with [`SendError::Refused`] if that destination is not configured: a record may pin a
    /// route that new events no longer take.
    pub fn get(&self, route: Route) -> Result<&dyn Destination, SendError> {
        let missing = || SendError::Refused(format!("the destination {route} is not configured"));
        self.0.get(&route).map(|destination| &**destination).ok_or_else(missing)
    }

    /// Returns the names of the destinations, in alphabetical order.
    pub fn routes(&self) -> impl Iterator<Item = Route> {
        self.0.keys().copied()
    }
}

impl FromIterator<(Route, Box<dyn Destination>)> for Destinations {
    fn from_iter<I: IntoIterator<Item = (Route, Box<dyn Destination>)>>(named: I) -> Self {
        Self(named.into_iter().collect())
    }
}

/// Returns the values that a destination gets in addition to the body, by name: HTTP headers for
/// Cloud Run, entries of the client context for the Lambda. All values are printable ASCII. Each
/// call signs the event anew, with the time of this attempt.
fn particulars(outgoing: &Outgoing<'_>) -> Vec<(&'static str, String)> {
    let Outgoing { delivery, plan, attempt, trace, signer, is_copy } = outgoing;
    let mut particulars = vec![
        ("idempotency-key", plan.key.to_string()),
        ("x-webhook-vendor", visible_ascii(&plan.event.vendor)),
        ("x-webhook-event-type", visible_ascii(&plan.event.event_type)),
        ("x-webhook-attempt", attempt.to_string()),
    ];
    particulars.extend_from_slice(trace);
    if *is_copy {
        particulars.push(("x-webhook-mirror", "true".to_owned()));
    }
    if let Some(signer) = signer {
        particulars.extend(signer.headers(&plan.key, &delivery.body, Utc::now()));
    }
    particulars
}

/// Returns the headers of the request to a destination: the particulars, the user agent, the
/// content type as received, and the vendor's signature headers.
fn headers(outgoing: &Outgoing<'_>) -> HeaderMap {
    const USUAL_HEADERS: usize = 12;
    const AGENT: &str = concat!("webhook-router/", env!("CARGO_PKG_VERSION"));
    let particulars = particulars(outgoing).into_iter().filter_map(|(name, value)| {
        Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?))
    });
    let mut headers = HeaderMap::with_capacity(USUAL_HEADERS);
    headers.extend(particulars);
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if let Some(content_type) = content_type(outgoing.delivery) {
        headers.insert(CONTENT_TYPE, content_type.clone());
    }
    for (name, value) in signature_headers(outgoing) {
        headers.append(name, value.clone());
    }
    headers
}

/// Returns the vendor's signature headers, so that the destination can verify the signature again.
/// They leave out every header that the router sets itself, also those of its own signature if it
/// signs.
fn signature_headers<'a>(
    event: &'a Outgoing<'_>,
) -> impl Iterator<Item = (HeaderName, &'a HeaderValue)> {
    // The signature of a custom source may need a header that the router sets. So does Sanity's,
    // which has the id in Idempotency-Key.
    let signs = event.signer.is_some();
    let is_ours = move |name: &HeaderName| {
        let name = name.as_str();
        ["content-type", "content-length", "host", "user-agent"].contains(&name)
            || EVENT_HEADERS.contains(&name)
            || TRACE_HEADERS.contains(&name)
            || (signs && signing::HEADERS.contains(&name))
    };
    let names = event.plan.signature_headers().into_iter();
    names.filter(move |name| !is_ours(name)).flat_map(|name| {
        let values = event.delivery.headers.get_all(&name).iter();
        values.map(move |value| (name.clone(), value))
    })
}

/// Returns the time limit for name resolution, connection and TLS within an attempt. It ends before
/// the attempt does, so that an event is known to be unsent if no connection was made.
fn connect_timeout(attempt_timeout: Duration) -> Duration {
    (attempt_timeout * 3 / 4).min(Duration::from_secs(5))
}

/// Returns the headers of a reply that are passed on: the content type, and after a failure also
/// `Retry-After`.
fn kept_headers(status: StatusCode, headers: &HeaderMap) -> HeaderMap {
    let names =
        if status.is_success() { &[CONTENT_TYPE][..] } else { &[CONTENT_TYPE, RETRY_AFTER] };
    let kept = names.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone())));
    kept.collect()
}

/// Takes the place of a reply that is too large to be passed on.
fn left_out(status: StatusCode) -> Reply {
    Reply::text(status, format!("reply of more than {MAX_REPLY_BYTES} bytes left out"))
}

fn content_type(delivery: &Delivery) -> Option<&http::HeaderValue> {
    delivery.headers.get(CONTENT_TYPE)
}

/// Converts a name from a payload to a header value: percent-encoded where it is not visible ASCII,
/// and cut to [`MAX_NAME_BYTES`]. The body has the full name.
fn visible_ascii(name: &str) -> String {
    let mut value = String::with_capacity(name.len());
    for byte in name.bytes() {
        let is_visible = matches!(byte, b'!'..=b'~') && byte != b'%';
        let length = if is_visible { 1 } else { "%00".len() };
        if value.len() + length > MAX_NAME_BYTES {
            break;
        }
        if is_visible {
            value.push(char::from(byte));
        } else {
            value += &format!("%{byte:02X}");
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Identity, testing};

    /// Returns the plan of an event of the source `s`.
    fn plan_at(sources: &str) -> Plan {
        let intake = crate::config::Intake::from_vars(testing::lookup(&[("SOURCES", sources)]));
        let source = intake.unwrap().sources.get("s").cloned();
        let Plan { event, key, route, .. } = testing::plan(Identity::Content, "one");
        Plan::kept(event, key, route, source)
    }

    const STRIPE: &str = "[sources.s]\nvendor = \"stripe\"\nsecrets = [\"plainly\"]";

    #[test]
    fn a_reply_keeps_its_content_type_and_a_failure_also_its_retry_after() {
        let pairs = [("content-type", "text/csv"), ("retry-after", "7"), ("x-other", "no")];
        let headers = testing::delivery("/", &pairs, "").headers;
        for (status, kept) in
            [(StatusCode::OK, 1), (StatusCode::NOT_FOUND, 2), (StatusCode::BAD_GATEWAY, 2)]
        {
            let headers = kept_headers(status, &headers);
            assert_eq!(headers.len(), kept, "{status}");
            assert_eq!(headers[CONTENT_TYPE], "text/csv");
            assert_eq!(headers.contains_key(RETRY_AFTER), kept == 2);
        }
    }

    #[test]
    fn a_name_is_told_in_visible_ascii_and_cut_between_characters() {
        for (name, told) in [
            ("paid", "paid"),
            ("!~", "!~"),
            ("a b%", "a%20b%25"),
            ("é\r\n\u{7f}", "%C3%A9%0D%0A%7F"),
        ] {
            assert_eq!(visible_ascii(name), told);
        }
        assert_eq!(visible_ascii(&"x".repeat(257)), "x".repeat(256));
        // The result has 85 whole characters of three bytes, and no part of another.
        assert_eq!(visible_ascii(&"é".repeat(50)).len(), 255);
        assert_eq!(visible_ascii(&format!("x{}", "é".repeat(50))).len(), 256);
    }

    #[test]
    fn connecting_ends_before_the_attempt_does() {
        for (attempt, connecting) in [(400, 300), (1000, 750), (10_000, 5000)] {
            let connecting = Duration::from_millis(connecting);
            assert_eq!(connect_timeout(Duration::from_millis(attempt)), connecting);
        }
    }

    #[test]
    fn a_destination_that_is_not_configured_is_named() {
        let refused = |name: &str| {
            let text = format!("the destination {name} is not configured");
            Some(SendError::Refused(text))
        };
        let none = Destinations::default();
        for name in ["gcp", "aws", "eu-1"] {
            assert_eq!(none.get(name.parse().unwrap()).err(), refused(name));
        }
        let vars = [("GCP_TARGET_URL", "https://x.dev"), ("ROUTE_THRESHOLD", "256")];
        let config = crate::config::Config::from_vars(testing::lookup(&vars)).unwrap();
        let one = Destinations::new(&config.targets, Duration::from_secs(1)).unwrap();
        assert!(one.get(Route::GCP).is_ok() && one.routes().eq([Route::GCP]));
        assert_eq!(one.get(Route::AWS).err(), refused("aws"));
    }

    #[test]
    fn a_vendor_s_header_never_takes_the_place_of_the_router_s() {
        let sources = "[sources.s]\nvendor = \"sanity\"\nsecrets = [\"plainly\"]";
        let plan = plan_at(sources);
        let came = [("idempotency-key", "of-sanity"), ("sanity-webhook-signature", "t=1,v1=x")];
        let delivery = testing::delivery("/webhook/s", &came, "");
        let told = headers(&testing::outgoing(&delivery, &plan));
        let keys: Vec<_> = told.get_all("idempotency-key").iter().collect();
        assert_eq!(keys, [plan.key.to_string().as_str()]);
        assert_eq!(told["sanity-webhook-signature"], "t=1,v1=x");
    }

    #[test]
    fn a_trace_header_that_a_vendor_signs_does_not_come_twice() {
        let plan = plan_at(
            "[sources.s]\nvendor = \"custom\"\nsecrets = [\"plainly\"]\nscheme = \"hmac-body\"\n\
             header = \"x-signature\"\ntemplate = \"{header:traceparent}{body}\"",
        );
        let came = [("traceparent", "of-the-vendor"), ("x-signature", "x")];
        let delivery = testing::delivery("/webhook/s", &came, "");
        let trace = [("traceparent", "00-1".to_owned())];
        let told = headers(&Outgoing { trace: &trace, ..testing::outgoing(&delivery, &plan) });
        assert_eq!(told.get_all("traceparent").iter().collect::<Vec<_>>(), ["00-1"]);
        assert_eq!(told["x-signature"], "x");
    }

    #[test]
    fn a_destination_is_told_who_sent_what_and_gets_the_vendor_s_signature() {
        let plan = plan_at(STRIPE);
        let came = [
            ("content-type", "text/csv"),
            ("stripe-signature", "one"),
            ("stripe-signature", "two"),
            ("cookie", "no"),
        ];
        let delivery = testing::delivery("/webhook/s", &came, "");
        let trace = [("traceparent", "00-1".to_owned())];
        let event = Outgoing { attempt: 3, trace: &trace, ..testing::outgoing(&delivery, &plan) };
        let told = headers(&event);
        for (name, value) in [
            ("idempotency-key", plan.key.to_string().as_str()),
            ("x-webhook-vendor", "acme"),
            ("x-webhook-event-type", "paid"),
            ("x-webhook-attempt", "3"),
            ("traceparent", "00-1"),
            ("content-type", "text/csv"),
            ("user-agent", concat!("webhook-router/", env!("CARGO_PKG_VERSION"))),
        ] {
            assert_eq!(told[name], value, "{name}");
        }
        let signatures: Vec<_> = told.get_all("stripe-signature").iter().collect();
        assert_eq!(signatures, ["one", "two"]);
        assert!(!told.contains_key("cookie"));
    }

    #[test]
    fn a_description_cannot_name_what_the_router_itself_sends() {
        let sources = "[sources.s]\nvendor = \"custom\"\nsecrets = [\"plainly\"]\n\
                       scheme = \"hmac-body\"\nheader = \"Webhook-Signature\"\n\
                       template = \"{header:Content-Type}{header:Host}{header:User-Agent}{body}\"";
        let plan = plan_at(sources);
        let named = ["webhook-signature", "content-type", "host", "user-agent"];
        let came = named.map(|name| (name, "came"));
        let delivery = testing::delivery("/webhook/s", &came, "");
        let vars = [
            ("GCP_TARGET_URL", "https://x.dev"),
            ("ROUTE_THRESHOLD", "256"),
            ("FORWARD_SECRETS", "whsec_cGxhaW5seSBhIHNlY3JldCBvZiB0aGUgdGVzdHM="),
        ];
        let own = crate::config::Config::from_vars(testing::lookup(&vars)).unwrap().signer;
        for (signer, forwarded) in [(None, &["webhook-signature"][..]), (own.as_ref(), &[])] {
            let event = Outgoing { signer, ..testing::outgoing(&delivery, &plan) };
            let names: Vec<_> = signature_headers(&event).map(|(name, _)| name).collect();
            assert_eq!(names, forwarded);
        }
    }
}
