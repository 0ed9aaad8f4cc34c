//! A Cloud Run service, over HTTPS.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, StatusCode, Uri, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Frame;
use hyper_util::client::legacy::Client;
use percent_encoding::percent_decode_str;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::{
    Destination, IdTokens, MAX_REPLY_BYTES, Outgoing, SendError, connect_timeout, headers,
    kept_headers, left_out, token::Pass,
};
use crate::{
    config::HttpTarget,
    delivery::Reply,
    http_client::{self, Connector, chain},
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
        let mut incoming = Limited::new(response.into_body(), MAX_REPLY_BYTES);
        let mut body = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            match frame.map(Frame::into_data) {
                // Copied, because a small frame would keep the whole buffer that it was read into.
                Ok(Ok(data)) => body.extend_from_slice(&data),
                Ok(Err(_trailers)) => {}
                Err(error) if error.is::<LengthLimitError>() => return Ok(left_out(status)),
                Err(error) => return Err(SendError::broken(chain(&*error))),
            }
        }
        Ok(Reply { status, headers, body: body.freeze() })
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
            // Without a token, nothing of the event is sent. The future of the token is boxed,
            // because it is large: otherwise, the attempts at services that are not private would
            // move it, too.
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

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::atomic::{AtomicU16, AtomicUsize, Ordering},
    };

    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use http::HeaderName;

    use super::*;
    use crate::{
        config::{Config, Target},
        event::Identity,
        route::Route,
        testing::{self, Reaction, Sink},
    };

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

    /// Sends an event to a service with these settings.
    async fn send(service: &CloudRun, timeout: Duration) -> Result<Reply, SendError> {
        let delivery = testing::delivery("/webhook", &[], "{}");
        let plan = testing::plan(Identity::Content, "one");
        service.send(&testing::outgoing(&delivery, &plan), timeout).await
    }

    fn service(vars: &[(&str, &str)]) -> CloudRun {
        let vars = [vars, &[("ROUTE_THRESHOLD", "256")]].concat();
        let targets = Config::from_vars(testing::lookup(&vars)).unwrap().targets;
        let target = targets.get(Route::GCP).and_then(Target::http).unwrap();
        CloudRun::new(target, Duration::from_secs(30)).unwrap()
    }

    #[tokio::test]
    async fn an_outcome_is_unknown_once_the_event_is_on_its_way() {
        for (reaction, seconds, told) in [
            (Reaction::Closes, 30, "client error (SendRequest): connection closed"),
            (Reaction::Breaks, 30, "error reading a body from connection"),
            (Reaction::Hangs, 2, "no answer within 2000 ms"),
        ] {
            let timed_out = matches!(reaction, Reaction::Hangs);
            let sink = Sink::start(move |_| reaction.clone()).await;
            let to_sink = service(&[("GCP_TARGET_URL", &sink.url)]);
            let sent = send(&to_sink, Duration::from_secs(seconds)).await;
            let Err(SendError::Unknown(answer)) = sent else { panic!("{sent:?}") };
            assert!(answer.detail.starts_with(told), "{answer:?}");
            assert_eq!((answer.timed_out, sink.take().len()), (timed_out, 1));
        }
        // Nobody listens on port 1.
        let nobody = service(&[("GCP_TARGET_URL", "http://127.0.0.1:1")]);
        let sent = send(&nobody, Duration::from_secs(30)).await;
        assert!(matches!(sent, Err(SendError::NotSent(_))), "{sent:?}");
    }

    #[tokio::test]
    async fn a_long_reply_is_left_out_and_the_longest_is_passed_on() {
        let reply = async |length| {
            let body = "x".repeat(length);
            let long = Reply::text(StatusCode::CREATED, body);
            let sink = Sink::start(move |_| Reaction::Answers(long.clone())).await;
            let to_sink = service(&[("GCP_TARGET_URL", &sink.url)]);
            send(&to_sink, Duration::from_secs(30)).await.unwrap()
        };
        let longest = reply(MAX_REPLY_BYTES).await;
        assert_eq!((longest.status.as_u16(), longest.body.len()), (201, MAX_REPLY_BYTES));
        let longer = reply(MAX_REPLY_BYTES + 1).await;
        assert_eq!(longer.status, StatusCode::CREATED);
        assert_eq!(longer.body, "reply of more than 4194304 bytes left out");
    }

    const METADATA_FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");

    #[tokio::test]
    async fn a_service_that_refuses_a_kept_token_gets_the_event_once_more() {
        let issued = AtomicUsize::default();
        let google = Sink::start(move |request| {
            let number = issued.fetch_add(1, Ordering::Relaxed);
            let claims = format!(r#"{{"aud":"of-the-test","exp":9999999999,"jti":"{number}"}}"#);
            let token = format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims));
            assert_eq!(request.headers()["metadata-flavor"], "Google");
            let flavor = HeaderValue::from_static("Google");
            let reply = Reply::text(StatusCode::OK, token);
            Reaction::Answers(reply.with_header(METADATA_FLAVOR, flavor))
        })
        .await;
        let status = Arc::new(AtomicU16::new(401));
        let of_service = Arc::clone(&status);
        let private = Sink::start(move |_| {
            let status = StatusCode::from_u16(of_service.load(Ordering::Relaxed)).unwrap();
            Reaction::Answers(Reply::text(status, "said"))
        })
        .await;
        let service = service(&[
            ("GCP_TARGET_URL", private.url.as_str()),
            ("GCP_AUTH", "id-token"),
            ("GCP_AUDIENCE", "of-the-test"),
            ("GCE_METADATA_HOST", google.url.strip_prefix("http://").unwrap()),
        ]);
        for (answer, tokens, sent) in [
            // The token is new, so another one would not help.
            (401, 1, 1),
            (200, 1, 1),
            (200, 0, 1),
            (403, 0, 1),
            // The kept token is refused, and so is the new one.
            (401, 1, 2),
            (200, 1, 1),
        ] {
            status.store(answer, Ordering::Relaxed);
            let reply = send(&service, Duration::from_secs(30)).await.unwrap();
            let received = private.take();
            assert_eq!(
                (reply.status, google.take().len(), received.len()),
                (StatusCode::from_u16(answer).unwrap(), tokens, sent)
            );
            let tokens: BTreeSet<_> =
                received.iter().map(|one| &one.headers()[AUTHORIZATION]).collect();
            assert_eq!(tokens.len(), sent);
        }
    }
}
