//! Reading what a sender still sends after its answer.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
};
use bytes::Bytes;
use http::header::EXPECT;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};

/// Most bytes that are read, and dropped, after an answer.
const MAX_DRAINED_BYTES: usize = 32 * 1024 * 1024;

/// Time for them.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A body whose unread rest is drained when it is dropped. A sender whose connection closes while it
/// still sends may never see the answer.
struct Drained {
    body: Body,
    /// Whether the sender waits for `100 Continue` before it sends the body.
    awaited: bool,
}

/// Has the body of a request drained if it is not read.
pub fn drain_unread(request: Request) -> Request {
    let awaited = request.headers().contains_key(EXPECT);
    request.map(|body| Body::new(Drained { body, awaited }))
}

impl HttpBody for Drained {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.awaited = false;
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        // Its first poll would ask for a body that nobody wants.
        if self.awaited || self.body.is_end_stream() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(drain(std::mem::take(&mut self.body)));
        }
    }
}

/// Reads a body to its end, within bounds. Its connection closes when the body is dropped before.
async fn drain(mut body: Body) {
    let reading = async {
        let mut drained = 0;
        while let Some(Ok(frame)) = body.frame().await {
            drained += frame.data_ref().map_or(0, Bytes::len);
            if drained > MAX_DRAINED_BYTES {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, reading).await;
}
