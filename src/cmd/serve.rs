//! `serve`: the router as an HTTP server, on any machine and on Cloud Run.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::Context as _;
use axum::routing;
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};

use super::{
    http_server::{self, App, Limits, response},
    listen::listen_on,
    stop::stop_signal,
    variables,
};
use crate::{
    config::{Config, EXAMPLE_ROUTING_SECRET, MetricsListen, Unsigned},
    delivery::Reply,
    telemetry,
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

/// Answers `GET /metrics` for as long as the process lives.
async fn serve_metrics(listen: MetricsListen) -> anyhow::Result<()> {
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
    let metrics = async || {
        let content_type = HeaderValue::from_static(telemetry::OPENMETRICS);
        let text = Reply::text(StatusCode::OK, telemetry::prometheus());
        response(text.with_header(CONTENT_TYPE, content_type))
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
