//! `GET /readyz`: reports whether the store answers.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderValue, Method, StatusCode, header::RETRY_AFTER};
use tokio::time::Instant;

use crate::{delivery::Reply, error::Error, router::Router};

/// Time for which an answer of the store is reused, so that frequent requests do not load the
/// store.
const KEPT: Duration = Duration::from_secs(1);

/// Asks the store, one question at a time.
#[derive(Clone)]
pub struct Readiness {
    router: Arc<Router>,
    asking: Arc<tokio::sync::Mutex<()>>,
    last: Arc<Mutex<Option<Answer>>>,
}

#[derive(Clone, Copy)]
struct Answer {
    at: Instant,
    is_ready: bool,
}

impl Readiness {
    pub fn new(router: Arc<Router>) -> Self {
        Self { router, asking: Arc::default(), last: Arc::default() }
    }

    /// Answers a request for `/readyz`.
    pub async fn reply(self, method: &Method) -> Reply {
        if method != Method::GET && method != Method::HEAD {
            return Error::Method { allow: "GET, HEAD" }.reply();
        }
        let is_ready = match self.known() {
            Some(is_ready) => is_ready,
            // The question has a task of its own, so a client that disconnects does not cancel it.
            None => tokio::spawn(self.ask()).await.unwrap_or(false),
        };
        if is_ready {
            return Reply::text(StatusCode::OK, "ready");
        }
        let reply = Reply::text(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer");
        reply.with_header(RETRY_AFTER, HeaderValue::from(KEPT.as_secs()))
    }

    /// Returns the last answer while it is kept.
    fn known(&self) -> Option<bool> {
        let last = (*self.last.lock().unwrap_or_else(PoisonError::into_inner))?;
        (last.at.elapsed() < KEPT).then_some(last.is_ready)
    }

    async fn ask(self) -> bool {
        let _alone = self.asking.lock().await;
        // A request that waited takes the answer that another request got in the meantime.
        if let Some(is_ready) = self.known() {
            return is_ready;
        }
        let asked = self.router.store().ping().await;
        let answer = Answer { at: Instant::now(), is_ready: asked.is_ok() };
        let before = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace(answer);
        let was_ready = before.is_none_or(|before| before.is_ready);
        match asked {
            Err(error) if was_ready => {
                tracing::warn!(%error, "not ready: the store does not answer")
            }
            Ok(()) if !was_ready => tracing::info!("ready again: the store answers"),
            _ => {}
        }
        answer.is_ready
    }
}
