//! A Cloud Run service, over HTTPS.

use std::{error::Error as _, time::Duration};

use async_trait::async_trait;
use bytes::BytesMut;
use http::header::{CONTENT_TYPE, USER_AGENT};
use url::Url;

use super::{
    Destination, MAX_REPLY_BYTES, Outgoing, SendError, connect_timeout, content_type, kept_headers,
    limited, particulars, signature_headers,
};
use crate::{config::GcpTarget, delivery::Reply};

/// A service that takes the event as the body of a POST.
pub struct CloudRun {
    client: reqwest::Client,
    url: Url,
}

impl CloudRun {
    /// An attempt gets `timeout`.
    ///
    /// # Errors
    /// When the CA file cannot be used.
    pub fn new(target: &GcpTarget, timeout: Duration) -> Result<Self, String> {
        let tls = super::tls_config(target.ca_file.as_deref())?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(connect_timeout(timeout))
            // A redirect was not processed, and following it would send the event elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            // A lost answer is the router's to judge: it counts every attempt.
            .retry(reqwest::retry::never())
            .no_proxy()
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { client, url: target.url.clone() })
    }

    async fn post(&self, event: &Outgoing<'_>) -> Result<Reply, SendError> {
        let mut request = self
            .client
            .post(self.url.clone())
            .header(USER_AGENT, concat!("webhook-router/", env!("CARGO_PKG_VERSION")))
            .body(event.delivery.body.clone());
        if let Some(content_type) = content_type(event.delivery) {
            request = request.header(CONTENT_TYPE, content_type);
        }
        for (name, value) in signature_headers(event) {
            request = request.header(name, value);
        }
        for (name, value) in particulars(event) {
            request = request.header(name, value);
        }
        let mut response = request.send().await.map_err(send_error)?;

        let status = response.status();
        let headers = kept_headers(status, response.headers());
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(send_error)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_REPLY_BYTES {
                break;
            }
        }
        Ok(limited(Reply { status, headers, body: body.freeze() }))
    }
}

#[async_trait]
impl Destination for CloudRun {
    async fn send(&self, event: &Outgoing<'_>, timeout: Duration) -> Result<Reply, SendError> {
        let posted = tokio::time::timeout(timeout, self.post(event));
        posted.await.unwrap_or_else(|_| Err(SendError::timed_out(timeout)))
    }
}

fn send_error(error: reqwest::Error) -> SendError {
    // The URL may carry a token in its query.
    let error = error.without_url();
    let mut detail = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        detail = format!("{detail}: {inner}");
        cause = inner.source();
    }
    // Name, connection and TLS come before the request's first byte.
    if error.is_connect() { SendError::not_sent(detail) } else { SendError::broken(detail) }
}
