//! The sender's address in an event, as whoever stands before the function tells it.

use std::{collections::HashMap, net::IpAddr};

use serde::Deserialize;

/// The parts of an event that tell the address: a Function URL's and an HTTP API's, a REST API's, and
/// a load balancer's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    request_context: Context,
    #[serde(default)]
    headers: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Context {
    http: Option<Told>,
    identity: Option<Told>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    source_ip: Option<String>,
}

/// The sender's address; nothing when the event tells none, or what is no address.
///
/// A load balancer appends it to `X-Forwarded-For`
/// (<https://docs.aws.amazon.com/elasticloadbalancing/latest/application/x-forwarded-headers.html>);
/// whatever stands before it there is the sender's own word.
pub fn source_ip(event: &str) -> Option<IpAddr> {
    let Event { request_context: Context { http, identity }, headers } =
        serde_json::from_str(event).ok()?;
    let told = http.or(identity).map(|told| told.source_ip);
    let forwarded = || headers.get("x-forwarded-for")?.rsplit(',').next().map(str::to_owned);
    told.unwrap_or_else(forwarded)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::source_ip;

    #[test]
    fn the_address_is_read_from_every_front_and_nothing_else_passes_for_one() {
        for (event, address) in [
            (r#"{"requestContext":{"http":{"sourceIp":"192.0.2.7"}}}"#, Some("192.0.2.7")),
            (r#"{"requestContext":{"identity":{"sourceIp":"2001:db8::1"}}}"#, Some("2001:db8::1")),
            (
                r#"{"requestContext":{"elb":{}},"headers":{"x-forwarded-for":"a, 192.0.2.1,192.0.2.9"}}"#,
                Some("192.0.2.9"),
            ),
            // What the sender wrote does not go before what AWS tells.
            (r#"{"requestContext":{"http":{}},"headers":{"x-forwarded-for":"192.0.2.1"}}"#, None),
            (r#"{"requestContext":{"http":{"sourceIp":"\u001b[2J\nERROR"}}}"#, None),
            (r#"{"requestContext":{}}"#, None),
            ("{}", None),
            ("no", None),
        ] {
            assert_eq!(source_ip(event), address.map(|text| text.parse().unwrap()), "{event}");
        }
    }
}
