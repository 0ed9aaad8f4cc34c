//! `serve`: runs the router as an HTTP server, on any machine and on Cloud Run.

use std::{net::SocketAddr, sync::Arc};

use axum::routing;
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    address,
    http_server::{self, App, Limits, response},
    listen::{handler, listen_on},
    problems_beside_secret,
    stop::StopSignals,
    unread, variables,
};
use crate::{
    checkup,
    config::{Config, ConfigError, ConfigErrors, MetricsListen},
    delivery::Reply,
    finding::Finding,
    inbox::{self, Budgets, Lanes},
    mirror::{self, Mirrors},
    router::{Budget, Router},
    store,
    telemetry::{self, Backlog},
};

/// Most connections for metrics at a time. Prometheus needs one.
const MAX_METRICS_CONNECTIONS: usize = 32;

/// Serves until SIGTERM or Ctrl-C, and then finishes the deliveries under way. A second signal
/// ends the process at once.
///
/// # Errors
/// Fails if the configuration, the store or an address cannot be used.
pub async fn run(listen: Option<SocketAddr>) -> anyhow::Result<()> {
    let Start { config, router, lanes, mirrors, listener, metrics } = start(listen).await?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    describe_inbox(&config, &router);
    if let Some(metrics) = metrics {
        serve_metrics(metrics, Arc::clone(&router))?;
    }
    let mut signals = StopSignals::listen()?;
    say!("listening on http://{}", listener.local_addr()?);
    tokio::spawn(check(config.clone(), Arc::clone(&router)));
    let handler = handler(Arc::clone(&router), &config);
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let stop_workers = CancellationToken::new();
    let workers = tokio::spawn(inbox::run(
        Arc::clone(&router),
        lanes,
        config.inbox.workers,
        budgets(&config),
        stop_workers.clone(),
    ));
    let stop_once = async move {
        signals.next().await;
        stop_workers.cancel();
        tracing::info!("stopping; a second signal ends the deliveries under way");
        let _ = stopping.send(signals);
    };
    let served = async {
        listen_on(listener, &router, handler, &config, stop_once).await;
        // The workers finish the attempts under way.
        workers.await?;
        if let Some(mirrors) = mirrors {
            mirrors.finish(mirror::PATIENCE).await;
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::select! {
        served = served => served?,
        result = second_signal(stopped) => result?,
    }
    tracing::info!("stopped");
    Ok(())
}

/// Everything that `serve` needs.
struct Start {
    config: Config,
    router: Arc<Router>,
    /// The workers of each destination's inbox (`inbox.rs`).
    lanes: Lanes,
    mirrors: Option<Arc<Mirrors>>,
    listener: TcpListener,
    metrics: Option<TcpListener>,
}

/// Reads the configuration, and opens the store and the addresses that it names.
///
/// # Errors
/// Fails with all problems together: of the variables, the store and the addresses. If the secret
/// of SECRETS_ARN cannot be read, the store and the addresses are not known.
async fn start(listen: Option<SocketAddr>) -> anyhow::Result<Start> {
    let (mut config, mut problems, unread) = match variables().await {
        Ok(variables) => unread::read(variables),
        Err(secret) => return Err(ConfigErrors(problems_beside_secret(&secret)).into()),
    };
    // Before the problems, because a mistyped name may be the cause of one.
    for warning in unread {
        tracing::warn!("{warning}");
    }
    let at = address::settle(listen, &mut config, &mut problems);
    let listener = address::bind(address::PORT, at).map_err(|taken| problems.push(taken));
    let metrics = match config.metrics {
        MetricsListen::Off => None,
        MetricsListen::Default => {
            let bound = address::bind(address::METRICS, MetricsListen::DEFAULT);
            bound.map_err(|taken| tracing::warn!("no /metrics: {}", Finding::from(taken))).ok()
        }
        MetricsListen::At(at) => {
            let bound = address::bind(address::METRICS, at);
            bound.map_err(|taken| problems.push(taken)).ok()
        }
    };
    match listener {
        Ok(listener) if problems.is_empty() => {
            let (wake, lanes) = inbox::lanes(config.targets.routes());
            let mut router =
                super::router(&config, store::open(&config.store)).await?.with_wake(wake);
            let bytes = config.serving.max_buffered_bytes;
            let mirrors = super::mirrors(&config, config.forward.timeout, bytes)?.map(Arc::new);
            if let Some(mirrors) = &mirrors {
                router = router.with_mirrors(Arc::clone(mirrors));
            }
            Ok(Start { config, router: Arc::new(router), lanes, mirrors, listener, metrics })
        }
        // Opening the store would create it although `serve` does not start.
        _ => {
            if address::has_store(&problems) {
                let problem = store::cannot_open(&config.store).await;
                let problem = problem.map(|remedy| (address::STORE.into(), remedy));
                problems.extend(problem.map(|(variable, remedy)| ConfigError { variable, remedy }));
            }
            Err(ConfigErrors(problems).into())
        }
    }
}

/// Returns the function that creates the budget of an attempt at an accepted event.
fn budgets(config: &Config) -> Budgets {
    let config = config.clone();
    Arc::new(move || Budget::of_attempt(&config))
}

/// Logs the problems of the services that the configuration names.
async fn check(config: Config, router: Arc<Router>) {
    checkup::log(&checkup::run(&config, router.store().examine()).await);
}

/// Logs how accepted events are delivered. The store is not asked here, so nobody knows whether
/// events are left from before.
fn describe_inbox(config: &Config, router: &Router) {
    let schedule = config.inbox.schedule.iter().map(|pause| humantime::format_duration(*pause));
    let schedule = schedule.map(|pause| pause.to_string()).collect::<Vec<_>>().join(",");
    let (answer, workers) = (config.intake.answer.as_str(), config.inbox.workers);
    if router.accepts() {
        tracing::info!(answer, workers, schedule, "delivering accepted events");
    } else {
        tracing::info!(
            answer,
            workers,
            schedule,
            "events are answered when they are delivered; accepted events that are left in the inbox are \
             looked for within a minute, then every few minutes (`webhook-router drain` delivers what is due now)"
        );
    }
}

/// Answers `GET /metrics` for as long as the process lives.
fn serve_metrics(listener: TcpListener, router: Arc<Router>) -> std::io::Result<()> {
    tracing::info!("metrics on http://{}/metrics", listener.local_addr()?);
    let backlog = Arc::new(Backlog::default());
    let routes: Vec<_> = router.destinations().routes().collect();
    let metrics = async move || {
        let content_type = HeaderValue::from_static(telemetry::OPENMETRICS);
        let text = telemetry::prometheus(&backlog, router.store(), &routes).await;
        response(Reply::text(StatusCode::OK, text).with_header(CONTENT_TYPE, content_type))
    };
    let nothing_else = async || response(Reply::text(StatusCode::NOT_FOUND, "GET /metrics"));
    let rest = axum::Router::new().route("/metrics", routing::get(metrics)).fallback(nothing_else);
    let app = App { vital: axum::Router::new(), rest };
    let limits = Limits::new(MAX_METRICS_CONNECTIONS, 0);
    tokio::spawn(http_server::serve(listener, app, limits, std::future::pending()));
    Ok(())
}

/// Fails at the second signal. The first signal stops the server.
async fn second_signal(stopped: tokio::sync::oneshot::Receiver<StopSignals>) -> anyhow::Result<()> {
    let Ok(mut signals) = stopped.await else {
        // The server ended without a first signal, so there is no second one to wait for.
        return std::future::pending().await;
    };
    signals.next().await;
    anyhow::bail!("ended by a second signal, with deliveries under way")
}
