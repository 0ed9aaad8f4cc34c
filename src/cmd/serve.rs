//! `serve`: the router as an HTTP server, on any machine and on Cloud Run.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::Context as _;
use axum::routing;
use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::{
    http_server::{self, App, Handler, Limits, response},
    variables,
};
use crate::{
    config::{Config, EXAMPLE_ROUTING_SECRET, MetricsListen, Unsigned},
    delivery::{Delivery, Reply},
    outcome::Origin,
    router::{Budget, Router, health},
    telemetry::{self, Backlog},
};

/// Connections that may ask for metrics at a time. Prometheus needs one.
const MAX_METRICS_CONNECTIONS: usize = 32;

/// Serves until SIGTERM or Ctrl-C, and then finishes the deliveries under way. A second signal
/// ends the process at once.
///
/// # Errors
/// A configuration, store or address that cannot be used.
pub async fn run(listen: Option<SocketAddr>) -> anyhow::Result<()> {
    let mut config = Config::from_vars(variables().await?)?;
    let address = listen.unwrap_or(match config.port {
        Some(port) => (Ipv4Addr::UNSPECIFIED, port).into(),
        None => (Ipv4Addr::LOCALHOST, 8080).into(),
    });
    if config.intake.unsigned == Unsigned::Refused && address.ip().is_loopback() {
        config.intake.unsigned = Unsigned::FromThisMachine;
    }
    if !address.ip().is_loopback() {
        config.intake.require_own_secret()?;
    } else if config.intake.routing_secret.expose() == EXAMPLE_ROUTING_SECRET {
        tracing::warn!("ROUTING_SECRET is the example's; set one of your own before production");
    }
    for warning in config.intake.warnings() {
        tracing::warn!("{warning}");
    }
    let router = Arc::new(super::router(&config).await?);
    let listener = http_server::bind(address)
        .with_context(|| format!("cannot listen on {address} (--listen or PORT)"))?;
    serve_metrics(config.metrics, Arc::clone(&router)).await?;
    let stop = stop_signal()?;
    println!("listening on http://{}", listener.local_addr()?);
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let stop_once = async move {
        stop.await;
        tracing::info!("stopping; a second signal ends the deliveries under way");
        let _ = stopping.send(());
    };
    tokio::select! {
        served = listen_on(listener, router, &config, stop_once) => served?,
        result = second_signal(stopped) => result?,
    }
    tracing::info!("stopped");
    Ok(())
}

/// Serves the router on a listener until `stop`.
///
/// # Errors
/// When the listener fails.
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

/// The router as a handler of deliveries.
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

/// Answers `GET /metrics` for as long as the process lives.
async fn serve_metrics(listen: MetricsListen, router: Arc<Router>) -> anyhow::Result<()> {
    let address = match listen {
        MetricsListen::Off => return Ok(()),
        MetricsListen::Default => MetricsListen::DEFAULT,
        MetricsListen::At(address) => address,
    };
    let listener = match http_server::bind(address) {
        Ok(listener) => listener,
        Err(error) if listen == MetricsListen::Default => {
            tracing::warn!(%error, %address, "no /metrics: somebody else is there (METRICS_LISTEN)");
            return Ok(());
        }
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot listen on {address} (METRICS_LISTEN)"));
        }
    };
    tracing::info!("metrics on http://{}/metrics", listener.local_addr()?);
    let backlog = Arc::new(Backlog::default());
    let metrics = async move || {
        let content_type = HeaderValue::from_static(telemetry::OPENMETRICS);
        let text = telemetry::prometheus(&backlog, router.store()).await;
        response(Reply::text(StatusCode::OK, text).with_header(CONTENT_TYPE, content_type))
    };
    let nothing_else = async || response(Reply::text(StatusCode::NOT_FOUND, "GET /metrics"));
    let rest = axum::Router::new().route("/metrics", routing::get(metrics)).fallback(nothing_else);
    let app = App { vital: axum::Router::new(), rest };
    let limits = Limits::new(MAX_METRICS_CONNECTIONS, 0);
    tokio::spawn(http_server::serve(listener, app, limits, std::future::pending()));
    Ok(())
}

/// Fails at the signal after the one that began to stop the server.
async fn second_signal(stopped: tokio::sync::oneshot::Receiver<()>) -> anyhow::Result<()> {
    if stopped.await.is_err() {
        // The server ended without a signal; there is no second one to wait for.
        return std::future::pending().await;
    }
    stop_signal()?.await;
    anyhow::bail!("ended by a second signal, with deliveries under way")
}

/// SIGTERM, which Cloud Run and Kubernetes send, or Ctrl-C.
///
/// # Errors
/// When the process may not handle signals.
pub fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
