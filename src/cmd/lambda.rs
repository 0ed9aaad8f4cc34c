//! The Lambda function behind a Function URL.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lambda_events::lambda_function_urls::LambdaFunctionUrlResponse;
use http::{HeaderValue, StatusCode};
use lambda_runtime::{Context, LambdaEvent, service_fn};
use serde_json::value::RawValue;
use tracing::Instrument as _;

use super::{env, function_url};
use crate::{
    config::Config,
    delivery::Reply,
    error::Error,
    router::{Budget, Router},
};

/// Beyond the store's timeout, time of an invocation that is kept for settling and answering.
const MARGIN: Duration = Duration::from_millis(500);

/// Answers invocations for ever.
///
/// # Errors
/// A configuration or store that cannot be used, which fails the function's start.
pub async fn run() -> anyhow::Result<()> {
    let config = Config::from_vars(env)?;
    for warning in config.intake.not_served() {
        tracing::warn!("{warning}");
    }
    let router = Arc::new(super::router(&config).await?);
    let (margin, budget) = (config.store.timeout + MARGIN, config.forward.budget);
    let function = service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let router = Arc::clone(&router);
        async move {
            // In a task of its own: a panic is an answer too, and not the end of the process.
            let answering = answer(router, event, margin, budget).in_current_span();
            let answered = tokio::spawn(answering).await;
            let reply = answered.unwrap_or_else(|panic| {
                let bug = Error::Internal(panic.to_string());
                tracing::error!("{bug}");
                bug.reply()
            });
            Ok::<LambdaFunctionUrlResponse, lambda_runtime::Error>(function_url::response(reply))
        }
    });
    lambda_runtime::run(function).await.map_err(anyhow::Error::from_boxed)
}

async fn answer(
    router: Arc<Router>,
    event: LambdaEvent<Box<RawValue>>,
    margin: Duration,
    budget: Duration,
) -> Reply {
    let LambdaEvent { payload, context } = event;
    let mut delivery = match function_url::delivery(payload.get()) {
        Ok(delivery) => delivery,
        Err(error) => {
            tracing::warn!(%error, "refused");
            return Reply::text(StatusCode::BAD_REQUEST, "not an HTTP request");
        }
    };
    if let Some(trace) = &context.xray_trace_id
        && let Ok(trace) = HeaderValue::try_from(trace)
    {
        delivery.headers.entry("x-amzn-trace-id").or_insert(trace);
    }
    // What is left of the invocation, less a margin; the lease ends after the invocation does.
    let forwarding = remaining(&context).map_or(budget, |left| left.saturating_sub(margin));
    router.handle(delivery, Budget::new(forwarding, margin)).await
}

/// What is left of the invocation. None from an emulator that does not know: `cargo lambda watch`
/// says that every invocation had to end in 1970.
fn remaining(context: &Context) -> Option<Duration> {
    context.deadline().duration_since(SystemTime::now()).ok()
}
