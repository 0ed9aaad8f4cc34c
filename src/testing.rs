//! Values and a server that the unit tests share.

use std::sync::{Arc, Mutex};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{body::Frame, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::{
    aws,
    delivery::{Delivery, Reply},
    destination::Outgoing,
    event::{Event, Identity},
    key::{Key, RoutingSecret},
    plan::Plan,
    route::Route,
};

/// Looks up variables. If a name occurs twice, the last one counts.
pub fn lookup(vars: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> + use<> {
    let vars: Vec<_> =
        vars.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    move |wanted| {
        let found = vars.iter().rfind(|(name, _)| name == wanted);
        found.map(|(_, value)| value.clone())
    }
}

pub fn delivery(path: &str, headers: &[(&'static str, &str)], body: &str) -> Delivery {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_static(name), HeaderValue::try_from(*value).unwrap());
    }
    let (method, body) = (Method::POST, body.to_owned().into());
    Delivery { method, path: path.into(), query: None, headers: map, body }
}

/// Returns the plan of an event with this digest, which goes to Cloud Run.
pub fn plan(identity: Identity, digest: &str) -> Plan {
    let event = Event {
        vendor: "acme".into(),
        source: None,
        event_type: "paid".into(),
        created_at: None,
        digest: digest.into(),
        identity,
    };
    let key = Key::derive(&RoutingSecret::new("of-the-tests"), &event.logical());
    Plan::kept(event, key, Route::GCP, None)
}

/// Returns the first attempt at an event.
pub fn outgoing<'a>(delivery: &'a Delivery, plan: &'a Plan) -> Outgoing<'a> {
    Outgoing { delivery, plan, attempt: 1, trace: &[], signer: None, is_copy: false }
}

/// The reaction of a [`Sink`] to a request.
#[derive(Clone)]
pub enum Reaction {
    Answers(Reply),
    /// Closes the connection without an answer.
    Closes,
    /// Closes the connection within its answer, whose status is 200.
    Breaks,
    /// Keeps the connection, and never answers.
    Hangs,
}

/// An HTTP server on loopback that keeps the requests that it gets. It ends with its test.
pub struct Sink {
    pub url: String,
    received: Arc<Mutex<Vec<Request<Bytes>>>>,
}

impl Sink {
    /// Starts a server that reacts to each request as `react` says.
    pub async fn start(
        react: impl Fn(&Request<Bytes>) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received: Arc<Mutex<Vec<_>>> = Arc::default();
        let (keep, react) = (Arc::clone(&received), Arc::new(react));
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                let (keep, react) = (Arc::clone(&keep), Arc::clone(&react));
                let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (keep, react) = (Arc::clone(&keep), Arc::clone(&react));
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.map_err(|_| "no whole body")?.to_bytes();
                        let request = Request::from_parts(head, body);
                        let reaction = react(&request);
                        keep.lock().unwrap().push(request);
                        match reaction {
                            Reaction::Answers(Reply { status, headers, body }) => {
                                let body = Full::new(body).map_err(|never| match never {}).boxed();
                                let mut response = Response::new(body);
                                (*response.status_mut(), *response.headers_mut()) =
                                    (status, headers);
                                Ok(response)
                            }
                            Reaction::Closes => Err("closes"),
                            Reaction::Breaks => {
                                let part = async { Ok(Frame::data("a part of ".into())) };
                                let broken = async {
                                    // The server sends the part while the rest is not ready.
                                    tokio::task::yield_now().await;
                                    Err("breaks")
                                };
                                let parts = stream::once(part).chain(stream::once(broken));
                                Ok(Response::new(BodyExt::boxed(StreamBody::new(parts))))
                            }
                            Reaction::Hangs => std::future::pending().await,
                        }
                    }
                });
                tokio::spawn(
                    http1::Builder::new().serve_connection(TokioIo::new(connection), answer),
                );
            }
        });
        Self { url, received }
    }

    /// Returns the requests since the last call.
    pub fn take(&self) -> Vec<Request<Bytes>> {
        std::mem::take(&mut *self.received.lock().unwrap())
    }
}

/// Returns AWS settings for the service at this address, with plainly fake credentials.
pub fn sdk_config(url: &str) -> SdkConfig {
    let credentials = Credentials::new("test", "test", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(aws::http_client())
        .endpoint_url(url)
        .build()
}
