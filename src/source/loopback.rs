//! Checks that an unsigned delivery comes from a program on this machine.
//!
//! Other senders can also reach a server on loopback. A web page in a browser on this machine can
//! post to it, directly or by DNS rebinding. A tunnel on this machine can pass on requests from
//! strangers.

use std::net::IpAddr;

use http::{HeaderMap, header};

use crate::{delivery::Delivery, error::Error};

/// Headers that proxies and tunnels add to requests, in addition to `X-Forwarded-*`.
const FORWARDING: [&str; 5] =
    ["forwarded", "via", "x-real-ip", "cf-connecting-ip", "true-client-ip"];

/// Checks by the headers that a program on this machine sent the delivery.
///
/// # Errors
/// Fails with [`Error::NotFromHere`] and the header that shows another sender.
pub(crate) fn check(delivery: &Delivery) -> Result<(), Error> {
    let headers = &delivery.headers;
    // A browser names the page's origin in every POST (https://fetch.spec.whatwg.org/#origin-header).
    if headers.contains_key(header::ORIGIN) {
        return Err(Error::NotFromHere("Origin"));
    }
    if headers.keys().any(|name| is_forwarding(name.as_str())) {
        return Err(Error::NotFromHere("a forwarding header"));
    }
    if !names_this_machine(headers) {
        return Err(Error::NotFromHere("Host"));
    }
    Ok(())
}

fn is_forwarding(name: &str) -> bool {
    name.starts_with("x-forwarded-") || FORWARDING.contains(&name)
}

/// Returns whether `Host` is `localhost` or a loopback address. A web page that rebinds its name to
/// 127.0.0.1 sends its own name in `Host`.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Some(authority) = host.to_str().ok().and_then(|host| host.parse().ok()) else {
        return false;
    };
    let authority: http::uri::Authority = authority;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::names_this_machine;

    #[test]
    fn hosts_of_this_machine_are_told_from_others() {
        let says = |hosts: &[&'static str]| {
            let hosts = hosts
                .iter()
                .map(|host| (HeaderName::from_static("host"), HeaderValue::from_static(host)));
            let mut headers = HeaderMap::new();
            headers.extend(hosts.map(|(name, value)| (Some(name), value)));
            names_this_machine(&headers)
        };
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080"] {
            assert!(says(&[host]), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:8080",
            "192.168.0.1",
            "0.0.0.0",
            "evil.example#localhost",
            "[::2]",
        ] {
            assert!(!says(&[host]), "{host}");
        }
        assert!(!says(&[]));
        assert!(!says(&["localhost", "evil.example"]));
    }
}
