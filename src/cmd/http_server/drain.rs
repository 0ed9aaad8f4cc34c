//! Reads and discards the rest of a body that a sender still sends after its answer.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::{Request, header::EXPECT};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};

use super::head::Reading;

/// Most bytes that are read and discarded after an answer.
const MAX_DRAINED_BYTES: usize = 32 * 1024 * 1024;

/// Time for reading them.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A body whose unread rest is drained when it is dropped. If the connection closed while the
/// sender still sends, the sender might never see the answer.
struct Drained {
    /// The body, and the mark that it is being read. `None` once the body is being drained.
    unread: Option<(Incoming, Reading)>,
    /// True if the sender waits for `100 Continue` before it sends the body.
    is_awaited: bool,
}

/// Wraps the body of a request, so that its unread rest is drained.
pub fn drain_unread(request: Request<Incoming>, reading: Reading) -> Request<Body> {
    let is_awaited = request.headers().contains_key(EXPECT);
    request.map(|body| Body::new(Drained { unread: Some((body, reading)), is_awaited }))
}

impl HttpBody for Drained {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.is_awaited = false;
        match &mut self.unread {
            Some((body, _)) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.unread.as_ref().is_none_or(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.unread.as_ref().map_or_else(SizeHint::default, |(body, _)| body.size_hint())
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        // If the sender waits for `100 Continue`, polling the body would send it, and the sender
        // would send a body that nobody needs.
        let is_needless = self.is_awaited || self.is_end_stream();
        if let Some((body, reading)) = self.unread.take()
            && !is_needless
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(drain(body, reading));
        }
    }
}

/// Reads a body to its end, within limits. If a limit is reached, the body is dropped, and its
/// connection closes.
async fn drain(mut body: Incoming, _reading: Reading) {
    let draining = async {
        let mut drained = 0;
        while let Some(Ok(frame)) = body.frame().await {
            drained += frame.data_ref().map_or(0, Bytes::len);
            if drained > MAX_DRAINED_BYTES {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, draining).await;
}
