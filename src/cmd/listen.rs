//! Runs the router behind a listener, for `serve` and `demo`.

use std::sync::Arc;

use axum::routing;
use http::Method;
use tokio::net::TcpListener;

use super::http_server::{self, Handler, Limits, response};
use crate::{
    config::Config,
    delivery::{Delivery, Reply},
    outcome::Origin,
    router::{Budget, Router, health},
};

/// Serves the router on a listener until `stop` completes.
///
/// # Errors
/// Fails if the listener fails.
pub async fn listen_on(
    listener: TcpListener,
    router: Arc<Router>,
    config: &Config,
    stop: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let limits = Limits::new(config.serving.max_connections, config.serving.max_buffered_bytes);
    let is_up = routing::any(async |method: Method| response(health(&method)));
    let vital = axum::Router::new().route("/healthz", is_up);
    let max_body_bytes = config.intake.max_body_bytes;
    let handler = Deliveries { router, config: Arc::new(config.clone()) };
    let limits = limits.within_open_files();
    http_server::serve_deliveries(listener, vital, handler, max_body_bytes, limits, stop).await
}

/// A handler that passes deliveries to the router.
#[derive(Clone)]
struct Deliveries {
    router: Arc<Router>,
    config: Arc<Config>,
}

impl Handler for Deliveries {
    fn refuse(&self, delivery: &Delivery, length: u64) -> Option<Reply> {
        self.router.refuse(delivery, length)
    }

    async fn deliver(self, delivery: Delivery) -> Reply {
        let budget = Budget::configured(&self.config);
        self.router.handle(delivery, Origin::default(), budget).await
    }
}
