//! Reads the sender's address from an event. The front of the function reports the address.

use std::{collections::HashMap, net::IpAddr};

use serde::Deserialize;

/// The parts of an event that hold the address: `http` for a Function URL and an HTTP API,
/// `identity` for a REST API, and `headers` for a load balancer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    request_context: Context,
    headers: Option<HashMap<String, String>>,
    /// Replaces `headers` if a load balancer's target group is configured so.
    multi_value_headers: Option<HashMap<String, Vec<String>>>,
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

/// Returns the sender's address, or `None` if the event has no valid address.
///
/// A load balancer appends the address to `X-Forwarded-For`
/// (<https://docs.aws.amazon.com/elasticloadbalancing/latest/application/x-forwarded-headers.html>).
/// The entries before it come from the sender and cannot be trusted.
pub fn source_ip(event: &str) -> Option<IpAddr> {
    const NAME: &str = "x-forwarded-for";
    let Event { request_context: Context { http, identity }, headers, multi_value_headers } =
        serde_json::from_str(event).ok()?;
    let told = http.or(identity).map(|told| told.source_ip);
    let forwarded = || {
        let multiple = multi_value_headers.as_ref().and_then(|headers| headers.get(NAME)?.last());
        let lines = multiple.or_else(|| headers.as_ref()?.get(NAME))?;
        lines.rsplit(',').next().map(str::to_owned)
    };
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
            (
                r#"{"requestContext":{"elb":{}},"multiValueHeaders":{"x-forwarded-for":["192.0.2.1","a, 192.0.2.9"]}}"#,
                Some("192.0.2.9"),
            ),
            // A header from the sender does not replace the address that AWS reports.
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
