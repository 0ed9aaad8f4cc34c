//! Runs the router behind a listener, for `serve` and `demo`.

use std::sync::Arc;

use axum::routing;
use http::Method;
use tokio::net::TcpListener;

use super::{
    http_server::{self, Handler, Limits, response},
    ready::Readiness,
};
use crate::{
    config::Config,
    delivery::{Delivery, Reply},
    outcome::Origin,
    router::{Budget, Router, health},
};

/// Returns the router as a handler of deliveries.
pub fn handler(router: Arc<Router>, config: &Config) -> impl Handler {
    Deliveries { router, config: Arc::new(config.clone()) }
}

/// Serves the router on a listener until `stop` completes, within the limits of the configuration.
/// `handler` is the router's handler, or one around it.
pub async fn listen_on(
    listener: TcpListener,
    router: &Arc<Router>,
    handler: impl Handler,
    config: &Config,
    stop: impl Future<Output = ()>,
) {
    let limits = Limits::new(config.serving.max_connections, config.serving.max_buffered_bytes);
    let is_up = routing::any(async |method: Method| response(health(&method)));
    let readiness = Readiness::new(Arc::clone(router));
    let is_ready = routing::any(move |method: Method| {
        let readiness = readiness.clone();
        async move { response(readiness.reply(&method).await) }
    });
    let vital = axum::Router::new().route("/healthz", is_up).route("/readyz", is_ready);
    let max_body_bytes = config.intake.max_body_bytes;
    let limits = limits.within_open_files();
    http_server::serve_deliveries(listener, vital, handler, max_body_bytes, limits, stop).await;
}

/// A handler that passes deliveries to the router.
#[derive(Clone)]
struct Deliveries {
    router: Arc<Router>,
    config: Arc<Config>,
}

impl Handler for Deliveries {
    fn refuse(&self, delivery: &Delivery, length: u64, origin: &Origin) -> Option<Reply> {
        self.router.refuse(delivery, length, origin)
    }

    async fn deliver(self, delivery: Delivery, origin: Origin) -> Reply {
        let budget = Budget::configured(&self.config);
        self.router.handle(delivery, origin, budget).await
    }
}
