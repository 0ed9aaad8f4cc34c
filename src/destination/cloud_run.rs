//! A Cloud Run service, over HTTPS.

use std::{error::Error, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, StatusCode, Uri, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use percent_encoding::percent_decode_str;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::{
    Destination, IdTokens, MAX_REPLY_BYTES, Outgoing, SendError, connect_timeout, headers,
    kept_headers, limited, token::Pass,
};
use crate::{
    config::HttpTarget,
    delivery::Reply,
    http_client::{self, Connector},
    resolver::Resolver,
};

/// A service that receives the event as the body of a POST.
pub struct CloudRun {
    client: Client<Connector, Full<Bytes>>,
    uri: Uri,
    /// The user name and password of the target's URL, as a header value.
    authorization: Option<HeaderValue>,
    /// The ID tokens that take its place, for a service that is private.
    tokens: Option<IdTokens>,
}

impl CloudRun {
    /// Creates the destination. `timeout` limits one attempt.
    ///
    /// # Errors
    /// Fails if the CA cannot be used.
    pub fn new(target: &HttpTarget, timeout: Duration) -> Result<Self, String> {
        let mut tls = super::tls_config(target.ca.as_ref())?;
        if let Some(certificate) = &target.client_certificate {
            certificate.add_to(&mut tls);
        }
        let connecting = connect_timeout(timeout);
        let resolver = Resolver::of_target(&target.url);
        let client = http_client::client(Arc::new(tls), resolver, connecting);
        let tokens = target.id_token.clone().map(|token| IdTokens::new(token, connecting));
        let mut url = target.url.clone();
        let authorization = take_authorization(&mut url);
        let uri = url.as_str().parse().map_err(|error| format!("the URL: {error}"))?;
        Ok(Self { client, uri, authorization, tokens })
    }

    /// Posts the event once. A redirect is not followed: it means that the service did not process
    /// the event, and following it would send the event elsewhere.
    async fn post(
        &self,
        event: &Outgoing<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<Reply, SendError> {
        let mut request = Request::post(self.uri.clone())
            .body(Full::new(event.delivery.body.clone()))
            .map_err(|error| SendError::Refused(error.to_string()))?;
        *request.headers_mut() = headers(event);
        if let Some(authorization) = authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization);
        }
        let response = self.client.request(request).await.map_err(|error| {
            let detail = chain(&error);
            // Name resolution, connection and TLS come before the first byte of the request.
            if error.is_connect() { SendError::NotSent(detail) } else { SendError::broken(detail) }
        })?;

        let status = response.status();
        let headers = kept_headers(status, response.headers());
        let mut incoming = response.into_body();
        let mut body = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| SendError::broken(chain(&error)))?;
            if let Ok(data) = frame.into_data() {
                body.extend_from_slice(&data);
            }
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
        let deadline = Instant::now() + timeout;
        let post = async |authorization| {
            let posted = timeout_at(deadline, self.post(event, authorization)).await;
            posted.unwrap_or_else(|_| Err(SendError::timed_out(timeout)))
        };
        let Some(tokens) = &self.tokens else { return post(self.authorization.clone()).await };
        let mut is_second = false;
        loop {
            // Without a token, nothing of the event is sent.
            let pass = timeout_at(deadline, tokens.get().boxed()).await;
            let pass = pass.unwrap_or_else(|_| Err("the ID token did not come in time".into()));
            let Pass { header, is_new } = pass.map_err(SendError::NotSent)?;
            let reply = post(Some(header.clone())).await;
            if !reply.as_ref().is_ok_and(|reply| reply.status == StatusCode::UNAUTHORIZED) {
                return reply;
            }
            tokens.forget(&header);
            // A token that was kept may have been revoked since, so a new one may help. With a new
            // one, the answer will not change.
            if is_new || is_second {
                return reply;
            }
            is_second = true;
        }
    }
}

/// Removes user name and password from a URL, and returns them as Basic authentication. A `Uri`
/// must not carry them.
fn take_authorization(url: &mut Url) -> Option<HeaderValue> {
    let (name, password) = (url.username().to_owned(), url.password().map(str::to_owned));
    if name.is_empty() && password.is_none() {
        return None;
    }
    // Both calls succeed for every URL with a host, and every http or https URL has one.
    let _ = (url.set_username(""), url.set_password(None));
    let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let pair = [decoded(&name), decoded(&password.unwrap_or_default())].join(&b':');
    let mut value =
        HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Describes an error with its causes. None of the texts quotes the URL, whose query may carry a
/// token.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut detail = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        detail = format!("{detail}: {inner}");
        cause = inner.source();
    }
    detail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_password_leave_the_url_and_are_decoded() {
        for (given, url, pair) in [
            ("https://us%65r:p%20%26=w@h/x?y=1", "https://h/x?y=1", Some("user:p &=w")),
            ("https://token@h", "https://h/", Some("token:")),
            ("https://h/@", "https://h/@", None),
        ] {
            let mut left: Url = given.parse().unwrap();
            let authorization = take_authorization(&mut left);
            let expected = pair.map(|pair| format!("Basic {}", BASE64_STANDARD.encode(pair)));
            assert_eq!(
                authorization.as_ref().map(|value| value.to_str().unwrap()),
                expected.as_deref()
            );
            assert_eq!(left.as_str(), url);
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn an_error_is_told_with_its_causes() {
        let cause = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(chain(&Outer(cause)), "outer: connection refused");
    }
}
