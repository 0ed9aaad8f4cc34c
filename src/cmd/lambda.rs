//! The Lambda function behind a Function URL.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use aws_lambda_events::lambda_function_urls::LambdaFunctionUrlResponse;
use http::StatusCode;
use lambda_runtime::{Context, LambdaEvent, service_fn};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::{function_url, redrive, serve::stop_signal, variables};
use crate::{
    config::Config,
    delivery::Reply,
    error::Error,
    router::{Budget, Router},
    telemetry::Origin,
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
    for warning in config.intake.not_served() {
        tracing::warn!("{warning}");
    }
    let router = Arc::new(super::router(&config).await?);
    let (deliveries, is_warm) = (TaskTracker::new(), AtomicBool::new(false));
    let stop = stop_signal()?;
    let function = Arc::new(Function { router, config, is_warm, deliveries: deliveries.clone() });
    let service = service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let function = Arc::clone(&function);
        async move {
            let LambdaEvent { payload, context } = event;
            match redrive::request(payload.get()) {
                None => Ok(Answer::Delivery(function.deliver(payload, context).await.into())),
                // Whoever invokes the function itself, a schedule say, learns of an error by an
                // error; a sender never does.
                Some(request) => {
                    let summary = redrive::run(&function, request?, &context).await?;
                    Ok::<_, lambda_runtime::Error>(Answer::Redrive(summary))
                }
            }
        }
    });
    let running = lambda_runtime::run(service);
    tokio::pin!(running);
    tokio::select! {
        ended = &mut running => return ended.map_err(anyhow::Error::from_boxed),
        () = stop => {}
    }
    // Lambda does so to an instance that has nothing to do; whoever else does, loses no delivery.
    deliveries.close();
    let answered = async {
        deliveries.wait().await;
        // The answer is on its way then.
        tokio::time::sleep(ANSWERING).await;
    };
    tokio::select! {
        ended = running => ended.map_err(anyhow::Error::from_boxed),
        () = answered => Ok(()),
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
    /// Whether it has had a delivery.
    is_warm: AtomicBool,
    /// Those under way.
    deliveries: TaskTracker,
}

impl Function {
    async fn deliver(
        self: &Arc<Self>,
        payload: Box<RawValue>,
        context: Context,
    ) -> LambdaFunctionUrlResponse {
        let function = Arc::clone(self);
        // In a task of its own: a panic is an answer too, and not the end of the process.
        let answering = async move { function.answer(&payload, &context).await };
        let answered = self.deliveries.spawn(answering.in_current_span()).await;
        function_url::response(answered.unwrap_or_else(|panic| {
            let bug = Error::Internal(panic.to_string());
            tracing::error!("{bug}");
            bug.reply()
        }))
    }

    async fn answer(&self, payload: &RawValue, context: &Context) -> Reply {
        let delivery = match function_url::delivery(payload.get()) {
            Ok(delivery) => delivery,
            Err(error) => {
                tracing::warn!(%error, "refused");
                return Reply::text(StatusCode::BAD_REQUEST, "not an HTTP request");
            }
        };
        let origin = Origin {
            request_id: Some(context.request_id.clone()),
            trace: context.xray_trace_id.clone(),
            is_cold_start: !self.is_warm.swap(true, Ordering::Relaxed),
        };
        self.router.handle(delivery, origin, self.budget(context)).await
    }

    /// The budget of a delivery that begins now: what is left of the invocation, less a margin; the
    /// lease ends after the invocation does.
    pub fn budget(&self, context: &Context) -> Budget {
        let settling = self.config.store.timeout + SETTLING;
        let forwarding = match context.deadline().duration_since(SystemTime::now()) {
            // `cargo lambda watch` says that every invocation had to end in 1970.
            Err(_) if self.config.is_emulated => self.config.forward.budget,
            left => left.unwrap_or_default().saturating_sub(settling + ANSWERING),
        };
        Budget::new(forwarding, settling)
    }
}
