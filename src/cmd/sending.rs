//! Deliveries that commands send themselves, as a vendor would.

use std::time::Duration;

use anyhow::Context as _;
use url::Url;

use crate::{
    delivery::{Delivery, Reply},
    destination,
};

/// Time for an answer. The router gives its destinations as long.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Makes a client that follows no redirects, as vendors do not.
///
/// # Errors
/// TLS that cannot be set up.
pub(super) fn client() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(destination::tls_config(None).map_err(anyhow::Error::msg)?)
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .build()?)
}

/// Sends a delivery to an address, which takes the place of its path and query.
///
/// # Errors
/// A missing answer.
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
