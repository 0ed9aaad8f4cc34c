//! The HTTP connections to DynamoDB, which are given up together when one of them hangs.
//!
//! Connections can die without a word while they are idle, and then all of them have. A request
//! that gets no answer takes only its own away; the second try would take another dead one.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_config::SdkConfig;
use aws_sdk_dynamodb::{
    Client,
    config::{retry::RetryConfig, timeout::TimeoutConfig},
};
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        http::{
            HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings,
            SharedHttpClient, SharedHttpConnector,
        },
        orchestrator::HttpRequest,
        runtime_components::{RuntimeComponents, RuntimeComponentsBuilder},
    },
};
use aws_smithy_types::config_bag::ConfigBag;

use crate::aws;

/// A client whose operations end within `timeout`.
pub(super) fn client(sdk: &SdkConfig, timeout: Duration) -> Client {
    // Every write carries its owner, so that it may be repeated once.
    let retry = RetryConfig::standard()
        .with_max_attempts(2)
        .with_initial_backoff(Duration::from_millis(25));
    // Half of the time for a try, so that there is time for the second one.
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(timeout / 4)
        .operation_attempt_timeout(timeout / 2)
        .operation_timeout(timeout);
    let config = aws_sdk_dynamodb::config::Builder::from(sdk)
        .retry_config(retry)
        .timeout_config(timeouts.build())
        .http_client(Connections::new())
        .build();
    Client::from_conf(config)
}

/// An HTTP client that is replaced, with its pool of connections, when a request is given up.
#[derive(Clone, Debug)]
struct Connections(Arc<Mutex<Current>>);

/// The client of the moment, and the how many-th it is.
#[derive(Debug)]
struct Current {
    number: u64,
    client: SharedHttpClient,
}

impl Connections {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Current { number: 0, client: aws::http_client() })))
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the client that was used, unless another request has done so.
    fn replace(&self, used: u64) {
        let mut current = self.current();
        if current.number == used {
            current.number += 1;
            current.client = aws::http_client();
        }
    }
}

impl HttpClient for Connections {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let current = self.current();
        let (number, client) = (current.number, current.client.clone());
        drop(current);
        let connector = client.http_connector(settings, components);
        SharedHttpConnector::new(Watched { connector, number, connections: self.clone() })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        let client = self.current().client.clone();
        client.validate_base_client_config(components, config)
    }
}

/// Sends requests with a client, and replaces it when one of them is given up.
#[derive(Debug)]
struct Watched {
    connector: SharedHttpConnector,
    number: u64,
    connections: Connections,
}

impl HttpConnector for Watched {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let pending = Pending { used: Some((self.connections.clone(), self.number)) };
        let answer = self.connector.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await;
            pending.answered();
            answer
        })
    }
}

/// A request under way. Dropped before it is answered, it has waited for too long.
struct Pending {
    /// Nothing once it is answered.
    used: Option<(Connections, u64)>,
}

impl Pending {
    fn answered(mut self) {
        self.used = None;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some((connections, number)) = &self.used {
            connections.replace(*number);
        }
    }
}
