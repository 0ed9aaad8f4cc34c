//! The HTTP connections to DynamoDB. All of them are replaced when one hangs.
//!
//! Idle connections can break silently, and then usually all of them are broken. A request without
//! an answer discards only its own connection, and its second try would use another broken one.

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
use tokio::time::Instant;

use crate::aws;

/// Creates a client whose operations end within `timeout`.
pub(super) fn client(sdk: &SdkConfig, timeout: Duration) -> Client {
    // Writes of an event carry their owner, so they may be repeated once. A discard that is
    // repeated may find nothing.
    let retry = RetryConfig::standard()
        .with_max_attempts(2)
        .with_initial_backoff(Duration::from_millis(25));
    // A try gets half of the time, so that there is time for the second one.
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(timeout / 4)
        .operation_attempt_timeout(timeout / 2)
        .operation_timeout(timeout);
    let config = aws_sdk_dynamodb::config::Builder::from(sdk)
        .retry_config(retry)
        .timeout_config(timeouts.build())
        .http_client(Connections::new(timeout / 4))
        .build();
    Client::from_conf(config)
}

/// An HTTP client that is replaced, together with its pool of connections, when a request is
/// abandoned after `patience`. Before that, its caller has stopped for another reason: a listing
/// that reads several partitions stops when one of them fails.
#[derive(Clone, Debug)]
struct Connections {
    current: Arc<Mutex<Current>>,
    patience: Duration,
}

/// The current client and its number.
#[derive(Debug)]
struct Current {
    number: u64,
    client: SharedHttpClient,
}

impl Connections {
    fn new(patience: Duration) -> Self {
        let current = Current { number: 0, client: aws::http_client() };
        Self { current: Arc::new(Mutex::new(current)), patience }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the client `used`, unless another request has already done so.
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

/// Sends requests with a client, and replaces the client when a request is abandoned after the
/// patience of its connections.
#[derive(Debug)]
struct Watched {
    connector: SharedHttpConnector,
    number: u64,
    connections: Connections,
}

impl HttpConnector for Watched {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let used = Some((self.connections.clone(), self.number));
        let pending = Pending { used, since: Instant::now() };
        let answer = self.connector.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await;
            pending.answered();
            answer
        })
    }
}

/// A request under way.
struct Pending {
    /// `None` after the answer.
    used: Option<(Connections, u64)>,
    since: Instant,
}

impl Pending {
    fn answered(mut self) {
        self.used = None;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some((connections, number)) = &self.used
            && self.since.elapsed() >= connections.patience
        {
            connections.replace(*number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_that_has_waited_replaces_the_connections() {
        const PATIENCE: Duration = Duration::from_millis(250);
        let connections = Connections::new(PATIENCE);
        let number = || connections.current().number;
        let waited = |time| {
            let used = Some((connections.clone(), number()));
            Pending { used, since: Instant::now().checked_sub(time).unwrap() }
        };
        drop(waited(Duration::ZERO));
        waited(PATIENCE).answered();
        assert_eq!(number(), 0);
        let (one, another) = (waited(PATIENCE), waited(PATIENCE));
        drop(one);
        // The other request used the same connections, which are replaced already.
        drop(another);
        assert_eq!(number(), 1);
    }
}
