//! Runs the Lambda function behind a Function URL, an API Gateway or a load balancer.

use std::{
    future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lambda_runtime::{
    Context, LambdaEvent, Runtime, layers::TracingLayer, service_fn, tower::util::MapFutureLayer,
};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, Level};

use super::{
    after_answer::{self, Answered},
    diagnosis,
    fronts::{Front, NotAnEvent},
    function::Function,
    inbox, redrive,
    source_ip::source_ip,
    stop::stop_signal,
    variables,
};
use crate::{
    config::{Config, StoreConfig},
    delivery::Reply,
    error::Error,
    inbox::Instance,
    mirror::{self, Mirrors},
    outcome::Origin,
    queue::Queue,
    store::{Store, StoreError},
    telemetry,
};

/// Time limit for sending a copy to its mirror, or to the queue. A mirror that hangs must not keep an
/// instance from the next invocation for long.
const COPY_TIMEOUT: Duration = Duration::from_secs(2);

/// Most bytes of copies in an instance. (An instance has 256 MB in all.) The bodies that the inbox
/// delivers at a time are also limited to 8 MB.
const COPY_BYTES: usize = 8 * 1024 * 1024;

/// Time for which a managed instance still takes invocations after a stop. Lambda may have handed out an
/// invocation that the process has not read yet, and hands that invocation to no other instance.
const LINGER: Duration = Duration::from_millis(500);

/// Runs the function. `open` opens its store.
///
/// # Errors
/// Fails if the configuration or the store cannot be used. Then the start of the function fails, too.
pub fn start(
    open: impl AsyncFnOnce(&StoreConfig) -> Result<Arc<dyn Store>, StoreError>,
) -> anyhow::Result<()> {
    telemetry::init(Level::INFO, true)?;
    // An instance has one event at a time, and usually one core or less. A managed one has several of both.
    let mut threads = match is_concurrent() {
        true => tokio::runtime::Builder::new_multi_thread(),
        false => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = threads.enable_all().build()?;
    let ended = runtime.block_on(run(open));
    // The system's look-up of a name cannot be cancelled, and may take too long to wait for.
    runtime.shutdown_background();
    ended
}

/// Returns whether Lambda gives this process several invocations at a time, as it does on Lambda Managed
/// Instances (<https://docs.aws.amazon.com/lambda/latest/dg/lambda-managed-instances-runtimes.html>).
fn is_concurrent() -> bool {
    let limit =
        super::env("AWS_LAMBDA_MAX_CONCURRENCY").and_then(|limit| limit.parse::<u32>().ok());
    limit.is_some_and(|limit| limit > 1)
}

/// Answers invocations until Lambda stops the process.
async fn run(
    open: impl AsyncFnOnce(&StoreConfig) -> Result<Arc<dyn Store>, StoreError>,
) -> anyhow::Result<()> {
    let Started { function, answered, copies } = Started::new(open).await?;
    let stop = stop_signal()?;
    let is_warm = Arc::new(AtomicBool::new(false));
    let service = service_fn(move |event| {
        let is_cold_start = !is_warm.swap(true, Ordering::Relaxed);
        answer(Arc::clone(&function), event, is_cold_start)
    });
    let (invocations, stopping) = (TaskTracker::new(), CancellationToken::new());
    // The layer covers the whole invocation, including the sending of its answer.
    let (tracker, stopped) = (invocations.clone(), stopping.clone());
    let until_stopped = MapFutureLayer::new(move |answering| {
        let (answering, stopped) = (tracker.track_future(answering), stopped.clone());
        let told = answered.clone();
        async move {
            let answered = answering.await;
            if let Some(told) = told {
                told.tell();
            }
            if stopped.is_cancelled() {
                // The next invocation must go to another instance.
                future::pending().await
            }
            answered
        }
    });
    // It runs one invocation at a time, unless Lambda says that it may run several.
    let runtime = Runtime::new(service).layer(TracingLayer::new()).layer(until_stopped);
    let running = runtime.run_concurrent();
    tokio::pin!(running);
    tokio::select! {
        biased;
        ended = &mut running => return ended.map_err(anyhow::Error::from_boxed),
        () = stop => {}
    }
    // Lambda sends SIGTERM to managed instances, and to functions with an extension. Whoever sends
    // it, the answers under way are still sent.
    tracing::info!("stopping");
    stopping.cancel();
    let answered = async {
        // An instance that is not managed gets no invocation at this time.
        if is_concurrent() {
            tokio::time::sleep(LINGER).await;
        }
        invocations.close();
        invocations.wait().await;
    };
    tokio::select! {
        ended = running => ended.map_err(anyhow::Error::from_boxed)?,
        () = answered => {}
    }
    if let Some(copies) = copies {
        copies.finish(mirror::PATIENCE).await;
    }
    Ok(())
}

/// A function that is ready for its first invocation.
struct Started {
    function: Arc<Function>,
    /// Is told of every answer, if copies for mirrors are sent after it.
    answered: Option<Answered>,
    /// The mirrors whose copies are still under way when a managed instance stops.
    copies: Option<Arc<Mirrors>>,
}

impl Started {
    async fn new(
        open: impl AsyncFnOnce(&StoreConfig) -> Result<Arc<dyn Store>, StoreError>,
    ) -> anyhow::Result<Self> {
        let config = Config::from_vars(variables().await?)?;
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        let mut router = super::router(&config, open(&config.store)).await?;
        let queue = config.inbox.queue_url.clone().map(|url| Arc::new(Queue::new(url)));
        if let Some(queue) = &queue {
            router = router.with_queue(Arc::clone(queue));
        }
        let (mut answered, mut copies) = (None, None);
        match mirrors(&config, queue)? {
            // A managed instance runs on after an answer, so it needs no extension to send copies.
            Some(mirrors) if is_concurrent() => {
                let mirrors = Arc::new(mirrors);
                router = router.with_mirrors(Arc::clone(&mirrors));
                copies = Some(mirrors);
            }
            Some(mirrors) => {
                let mirrors = Arc::new(mirrors.at_the_end());
                match after_answer::finish_copies(Arc::clone(&mirrors)).await {
                    Ok(registered) => {
                        router = router.with_mirrors(mirrors);
                        answered = Some(registered);
                    }
                    Err(error) => tracing::error!("no copies for mirrors: {error:#}"),
                }
            }
            None => {}
        }
        let router = Arc::new(router);
        let (attempt, store) = (config.forward.timeout, config.store.timeout);
        let inbox = Arc::new(Instance::new(Arc::clone(&router), attempt, store));
        Ok(Self { function: Arc::new(Function { router, inbox, config }), answered, copies })
    }
}

/// Creates the configured mirrors, if there are any. Their copies go through the queue if there is one.
fn mirrors(config: &Config, queue: Option<Arc<Queue>>) -> anyhow::Result<Option<Mirrors>> {
    let timeout = config.forward.timeout.min(COPY_TIMEOUT);
    let bytes = config.serving.max_buffered_bytes.min(COPY_BYTES);
    let Some(mirrors) = super::mirrors(config, timeout, bytes)? else { return Ok(None) };
    Ok(Some(match queue {
        Some(queue) => mirrors.with_queue(queue),
        None => mirrors,
    }))
}

/// A request of a caller that is not a front.
enum Request {
    Replay(Result<redrive::Request, redrive::RedriveError>),
    Inbox(inbox::Request),
    Doctor,
}

impl Request {
    fn of(payload: &str) -> Option<Self> {
        let inbox = || inbox::request(payload).map(Self::Inbox);
        let doctor = || diagnosis::is_request(payload).then_some(Self::Doctor);
        redrive::request(payload).map(Self::Replay).or_else(inbox).or_else(doctor)
    }
}

/// The answer to an invocation.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer<Delivery> {
    Delivery(Box<Delivery>),
    Redrive(redrive::Report),
    Inbox(inbox::Report),
    Doctor(diagnosis::Report),
}

/// Answers an invocation: a delivery from one of the function's fronts, messages of the inbox's
/// queue, or a request of a caller that may invoke the function directly.
async fn answer(
    function: Arc<Function>,
    event: LambdaEvent<Box<RawValue>>,
    is_cold_start: bool,
) -> Result<Answer<impl Serialize>, lambda_runtime::Error> {
    let LambdaEvent { payload, context } = event;
    let origin = Origin {
        sender: source_ip(payload.get()),
        request_id: Some(context.request_id.clone()),
        trace: context.xray_trace_id.clone(),
        is_cold_start,
    };
    if let Some(front) = Front::of(payload.get()) {
        let reply = deliver(function, front, payload, context, origin).await;
        return Ok(Answer::Delivery(Box::new(front.answer(reply).await)));
    }
    // Senders cannot get here: every event of a front is a delivery. The caller invokes the
    // function directly, as a schedule does, and gets an invocation error if the request
    // fails. A success would hide that nothing was done.
    match Request::of(payload.get()) {
        None => {
            telemetry::unreadable(&origin, &NotAnEvent::Unknown);
            Err(Error::NotARequest.into())
        }
        Some(Request::Replay(request)) => {
            let request = request?;
            let replaying = async move { redrive::run(&function, request, &context, origin).await };
            let report = tokio::spawn(replaying.in_current_span()).await;
            Ok(Answer::Redrive(report.map_err(redrive::RedriveError::from)??))
        }
        Some(Request::Inbox(request)) => {
            let running = async move { inbox::run(&function, request, &context, origin).await };
            let report = tokio::spawn(running.in_current_span()).await;
            Ok(Answer::Inbox(report.map_err(inbox::InboxError::from)??))
        }
        Some(Request::Doctor) => {
            let checking = async move { diagnosis::run(&function, &context).await };
            let report = tokio::spawn(checking.in_current_span()).await;
            Ok(Answer::Doctor(report.map_err(diagnosis::DiagnosisError::from)??))
        }
    }
}

async fn deliver(
    function: Arc<Function>,
    front: Front,
    event: Box<RawValue>,
    context: Context,
    origin: Origin,
) -> Reply {
    let answering = async move {
        let delivery = match front.delivery(event.get()) {
            Ok(delivery) => delivery,
            Err(error) => return telemetry::unreadable(&origin, &error),
        };
        function.router.handle(delivery, origin, function.budget(&context)).await
    };
    // A separate task turns a panic into an answer, so that the process continues.
    let answered = tokio::spawn(answering.in_current_span()).await;
    answered.unwrap_or_else(|_| telemetry::panicked())
}
