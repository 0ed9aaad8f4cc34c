//! The rules for URLs in variables.

use url::{Host, Url};

/// Reads the URL of a service.
pub(super) fn http_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok();
    let url =
        url.filter(|url| url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url)));
    url.ok_or("must be an https:// URL (http:// is allowed on loopback)")
}

/// Returns whether a URL has a user or a password.
pub(super) fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// Returns whether the host of a URL is `localhost` or an address of loopback.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
