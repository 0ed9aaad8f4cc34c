//! The time after the answer of an invocation.
//!
//! Lambda freezes the process once the runtime and all extensions ask for the next invocation
//! (<https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html#runtimes-lifecycle-invoke>).
//! The caller gets the answer before that, as soon as the runtime has sent it
//! (<https://aws.amazon.com/blogs/compute/performance-and-functionality-improvements-for-aws-lambda-extensions/>).
//! So an extension inside this process can finish work that must not delay the answer, within the
//! invocation's time.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use lambda_extension::{Extension, LambdaEvent, NextEvent, service_fn};
use tokio::sync::Semaphore;

use crate::mirror::{Mirrors, PATIENCE};

const NAME: &str = "webhook-router-mirrors";

/// Time that is kept free at the end of an invocation.
const MARGIN: Duration = Duration::from_millis(500);

/// Sends the copies of an invocation, within the time that is left. Drops those that take too long.
pub async fn finish(mirrors: &Mirrors, deadline: SystemTime) {
    let left = deadline.duration_since(SystemTime::now()).unwrap_or_default();
    mirrors.finish(left.saturating_sub(MARGIN).min(PATIENCE)).await;
}

/// Tells the extension that an answer was sent. Each invocation has one answer.
#[derive(Clone)]
pub struct Answered(Arc<Semaphore>);

impl Answered {
    pub fn tell(&self) {
        self.0.add_permits(1);
    }
}

/// Registers the extension, which finishes the copies of each invocation after its answer.
///
/// # Errors
/// Fails if Lambda does not register it.
pub async fn finish_copies(mirrors: Arc<Mirrors>) -> anyhow::Result<Answered> {
    let answered = Answered(Arc::new(Semaphore::new(0)));
    let answers = answered.clone();
    let processor = service_fn(move |event: LambdaEvent| {
        let (mirrors, answers) = (Arc::clone(&mirrors), answers.clone());
        async move {
            let NextEvent::Invoke(invocation) = event.next else { return Ok(()) };
            if let Ok(answer) = answers.0.acquire().await {
                answer.forget();
            }
            let deadline = SystemTime::UNIX_EPOCH + Duration::from_millis(invocation.deadline_ms);
            finish(&mirrors, deadline).await;
            Ok::<_, lambda_extension::Error>(())
        }
    });
    let extension = Extension::new()
        .with_extension_name(NAME)
        .with_events(&["INVOKE"])
        .with_events_processor(processor)
        .register()
        .await
        .map_err(anyhow::Error::from_boxed)?;
    tokio::spawn(async move {
        // If an extension does not ask for the next event, Lambda waits for it until the function's
        // timeout. So this process ends, and a new instance registers the extension again.
        let error = extension.run().await.err().map(|error| error.to_string());
        tracing::error!(error, "the extension that sends copies to mirrors has ended");
        std::process::exit(1);
    });
    Ok(answered)
}
