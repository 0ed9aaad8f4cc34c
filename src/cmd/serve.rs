//! `serve`: the router as an HTTP server, on any machine and on Cloud Run.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::{env, http_server};
use crate::{
    config::{Config, EXAMPLE_ROUTING_SECRET},
    router::{Budget, Router},
};

/// Beyond the store's timeout, time for everything of a delivery that is not forwarding.
const MARGIN: Duration = Duration::from_secs(1);

/// Serves until SIGTERM or Ctrl-C, and then finishes the deliveries under way.
///
/// # Errors
/// A configuration, store or address that cannot be used.
pub async fn run(listen: Option<SocketAddr>) -> anyhow::Result<()> {
    let mut config = Config::from_vars(env)?;
    let address = listen.unwrap_or(match config.port {
        Some(port) => (Ipv4Addr::UNSPECIFIED, port).into(),
        None => (Ipv4Addr::LOCALHOST, 8080).into(),
    });
    // On loopback the senders are this machine's own.
    config.intake.allow_unsigned |= address.ip().is_loopback();
    if config.intake.routing_secret.expose() == EXAMPLE_ROUTING_SECRET {
        tracing::warn!("ROUTING_SECRET is the example's; set one of your own before production");
    }
    for warning in config.intake.not_served() {
        tracing::warn!("{warning}");
    }
    let router = Arc::new(super::router(&config).await?);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (--listen or PORT)"))?;
    let stop = stop_signal()?;
    println!("listening on http://{}", listener.local_addr()?);
    listen_on(listener, router, &config, stop).await?;
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
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (forwarding, margin) = (config.forward.budget, config.store.timeout + MARGIN);
    let handler = move |delivery| {
        let router = Arc::clone(&router);
        async move { router.handle(delivery, Budget::new(forwarding, margin)).await }
    };
    http_server::serve(listener, config.intake.max_body_bytes, handler, stop).await
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
