//! Sends deliveries as a vendor would, for the commands that try the router.

use std::time::Duration;

use anyhow::Context as _;
use url::Url;

use crate::{
    delivery::{Delivery, Reply},
    destination,
};

/// Time for an answer. It equals the default of FORWARD_BUDGET_MS, the router's own time for
/// forwarding.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Creates a client that does not follow redirects, because vendors do not.
///
/// # Errors
/// Fails if TLS cannot be set up.
pub(super) fn client() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(destination::tls_config(None).map_err(anyhow::Error::msg)?)
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .build()?)
}

/// Sends a delivery to an address. The address replaces the path and the query of the delivery.
///
/// # Errors
/// Fails if there is no answer.
pub(super) async fn send(
    client: &reqwest::Client,
    url: Url,
    delivery: &Delivery,
) -> anyhow::Result<Reply> {
    let request = client.request(delivery.method.clone(), url).headers(delivery.headers.clone());
    let sent = request.body(delivery.body.clone()).send().await;
    let response = sent.map_err(reqwest::Error::without_url).context("no answer")?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.bytes().await.map_err(reqwest::Error::without_url)?;
    Ok(Reply { status, headers, body })
}
