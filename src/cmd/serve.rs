//! `serve`: the router as an HTTP server, on any machine and on Cloud Run.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::Context as _;
use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::{http_server, variables};
use crate::{
    config::{Config, EXAMPLE_ROUTING_SECRET, MetricsListen, Unsigned},
    delivery::{Delivery, Reply},
    outcome::Origin,
    router::{Budget, Router},
    telemetry,
};

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
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (--listen or PORT)"))?;
    serve_metrics(config.metrics).await?;
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
    let limit = config.intake.max_body_bytes;
    let config = Arc::new(config.clone());
    let handler = move |delivery| {
        let (router, config) = (Arc::clone(&router), Arc::clone(&config));
        async move { router.handle(delivery, Origin::default(), Budget::configured(&config)).await }
    };
    http_server::serve(listener, limit, handler, stop).await
}

/// Answers `GET /metrics` for as long as the process lives.
async fn serve_metrics(listen: MetricsListen) -> anyhow::Result<()> {
    let address = match listen {
        MetricsListen::Off => return Ok(()),
        MetricsListen::Default => MetricsListen::DEFAULT,
        MetricsListen::At(address) => address,
    };
    let listener = match TcpListener::bind(address).await {
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
    let handler = |request: Delivery| async move {
        match (request.method, request.path.as_str()) {
            (Method::GET, "/metrics") => Reply::text(StatusCode::OK, telemetry::prometheus())
                .with_header(CONTENT_TYPE, HeaderValue::from_static(telemetry::OPENMETRICS)),
            _ => Reply::text(StatusCode::NOT_FOUND, "GET /metrics"),
        }
    };
    tokio::spawn(http_server::serve(listener, 0, handler, std::future::pending()));
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
