//! The Lambda function behind a Function URL.

use std::{
    future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use aws_lambda_events::lambda_function_urls::LambdaFunctionUrlResponse;
use http::StatusCode;
use lambda_runtime::{
    Context, LambdaEvent, Runtime, layers::TracingLayer, service_fn, tower::util::MapFutureLayer,
};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use super::{function_url, redrive, serve::stop_signal, variables};
use crate::{
    config::Config,
    delivery::Reply,
    outcome::Origin,
    router::{Budget, Router},
    telemetry,
};

/// Beyond the store's timeout, time of an invocation that is kept for settling.
const SETTLING: Duration = Duration::from_millis(300);
/// Time of an invocation that is kept for answering.
const ANSWERING: Duration = Duration::from_millis(200);

/// Answers invocations for ever: deliveries from the Function URL, and replays from whoever may
/// invoke the function itself.
///
/// # Errors
/// A configuration or store that cannot be used, which fails the function's start.
pub async fn run() -> anyhow::Result<()> {
    let config = Config::from_vars(variables().await?)?;
    for warning in config.intake.warnings() {
        tracing::warn!("{warning}");
    }
    let router = Arc::new(super::router(&config).await?);
    let stop = stop_signal()?;
    let (function, is_warm) = (Arc::new(Function { router, config }), AtomicBool::new(false));
    let service = service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let (function, is_cold_start) =
            (Arc::clone(&function), !is_warm.swap(true, Ordering::Relaxed));
        async move {
            let LambdaEvent { payload, context } = event;
            let origin = Origin {
                request_id: Some(context.request_id.clone()),
                trace: context.xray_trace_id.clone(),
                is_cold_start,
            };
            match redrive::request(payload.get()) {
                None => {
                    let response = function.deliver(payload, context, origin).await;
                    Ok(Answer::Delivery(response.into()))
                }
                // Whoever invokes the function itself, a schedule say, learns of an error by an
                // error; a sender never does.
                Some(request) => {
                    let request = request?;
                    let replaying =
                        async move { redrive::run(&function, request, &context, origin).await };
                    let report = tokio::spawn(replaying.in_current_span()).await;
                    let report = report.map_err(redrive::RedriveError::from)??;
                    Ok::<_, lambda_runtime::Error>(Answer::Redrive(report))
                }
            }
        }
    });
    let (invocations, stopping) = (TaskTracker::new(), CancellationToken::new());
    // Around the whole of an invocation, the sending of its answer included.
    let (tracker, stopped) = (invocations.clone(), stopping.clone());
    let until_stopped = MapFutureLayer::new(move |answering| {
        let (answering, stopped) = (tracker.track_future(answering), stopped.clone());
        async move {
            let answered = answering.await;
            if stopped.is_cancelled() {
                // The next one is for another instance.
                future::pending().await
            }
            answered
        }
    });
    let running = Runtime::new(service).layer(TracingLayer::new()).layer(until_stopped).run();
    tokio::pin!(running);
    tokio::select! {
        biased;
        ended = &mut running => return ended.map_err(anyhow::Error::from_boxed),
        () = stop => {}
    }
    // Lambda ends an instance that has nothing to do, and without this signal where there is no
    // extension. Whoever else sends it loses no answer.
    tracing::info!("stopping");
    stopping.cancel();
    invocations.close();
    tokio::select! {
        ended = running => ended.map_err(anyhow::Error::from_boxed),
        () = invocations.wait() => Ok(()),
    }
}

/// What an invocation is answered with.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Delivery(Box<LambdaFunctionUrlResponse>),
    Redrive(redrive::Report),
}

/// The function, once it has started.
pub(super) struct Function {
    pub router: Arc<Router>,
    pub config: Config,
}

impl Function {
    async fn deliver(
        self: &Arc<Self>,
        payload: Box<RawValue>,
        context: Context,
        origin: Origin,
    ) -> LambdaFunctionUrlResponse {
        let function = Arc::clone(self);
        // In a task of its own: a panic is an answer too, and not the end of the process.
        let answering = async move { function.answer(&payload, &context, origin).await };
        let answered = tokio::spawn(answering.in_current_span()).await;
        let reply = answered.unwrap_or_else(|_| telemetry::panicked());
        function_url::response(reply)
    }

    async fn answer(&self, payload: &RawValue, context: &Context, origin: Origin) -> Reply {
        let delivery = match function_url::delivery(payload.get()) {
            Ok(delivery) => delivery,
            Err(error) => {
                tracing::warn!(%error, cold_start = origin.is_cold_start, "refused");
                return Reply::text(StatusCode::BAD_REQUEST, "not an HTTP request");
            }
        };
        self.router.handle(delivery, origin, self.budget(context)).await
    }

    /// The budget of a delivery that begins now: what is left of the invocation, less a margin; the
    /// lease ends after the invocation does.
    pub fn budget(&self, context: &Context) -> Budget {
        let Config { store, forward, is_emulated, .. } = &self.config;
        let (forwarding, settling) = match context.deadline().duration_since(SystemTime::now()) {
            // `cargo lambda watch` says that every invocation had to end in 1970.
            Err(_) if *is_emulated => (forward.budget, settling(store.timeout)),
            left => shares(left.unwrap_or_default(), store.timeout),
        };
        Budget::new(forwarding, settling)
    }
}

/// Splits what is left of an invocation: time for forwarding, and time for settling behind it.
fn shares(left: Duration, store_timeout: Duration) -> (Duration, Duration) {
    let settling = settling(store_timeout);
    (left.saturating_sub(settling + ANSWERING), settling)
}

fn settling(store_timeout: Duration) -> Duration {
    store_timeout + SETTLING
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invocation_has_time_left_to_settle_again_and_to_answer() {
        let (second, moment) = (Duration::from_secs(1), Duration::from_millis(100));
        for left in [3 * second, 30 * second, 900 * second] {
            let (forwarding, settling) = shares(left, second);
            // A store that did not answer in time is told once more.
            assert!(settling >= second + 2 * moment, "{settling:?}");
            // The answer is on its way before Lambda ends the invocation.
            assert!(forwarding + settling + moment <= left, "{forwarding:?}, {settling:?}");
            // And no more is kept back than a second beyond the store's own.
            assert!(forwarding + settling + second >= left && settling <= 2 * second);
        }
        assert_eq!(shares(second, second).0, Duration::ZERO);
    }
}
