//! An HTTP/1.1 server of deliveries and replies.

use std::{io, time::Duration};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
    response::Response,
    serve::ListenerExt as _,
};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::{
    delivery::{Delivery, Reply},
    error::Error,
};

/// Time for a sender to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers requests with `handler` until `stop`; then finishes those under way.
///
/// # Errors
/// When the listener fails.
pub async fn serve<H, F>(
    listener: TcpListener,
    max_body_bytes: usize,
    handler: H,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()>
where
    H: Fn(Delivery) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let tasks = TaskTracker::new();
    let answering = tasks.clone();
    let answer = move |request: Request| async move {
        let delivery = match read(request, max_body_bytes).await {
            Ok(delivery) => delivery,
            Err(reply) => return response(reply),
        };
        // In a task of its own: a sender that hangs up must not cancel a delivery half way.
        let handled = answering.spawn(handler(delivery)).await;
        response(handled.unwrap_or_else(|panic| Error::Internal(panic.to_string()).reply()))
    };
    let listener = listener.tap_io(|connection| {
        // Answers are small and complete; waiting to fill a packet only delays them.
        let _ = connection.set_nodelay(true);
    });
    axum::serve(listener, axum::Router::new().fallback(answer))
        .with_graceful_shutdown(stop)
        .await?;
    tasks.close();
    tasks.wait().await;
    Ok(())
}

async fn read(request: Request, max_body_bytes: usize) -> Result<Delivery, Reply> {
    let (parts, body) = request.into_parts();
    let body = match tokio::time::timeout(BODY_TIMEOUT, read_body(body, max_body_bytes)).await {
        Ok(body) => body?,
        Err(_) => return Err(Reply::text(StatusCode::REQUEST_TIMEOUT, "body too slow")),
    };
    let path = parts.uri.path().to_owned();
    Ok(Delivery { method: parts.method, path, headers: parts.headers, body })
}

async fn read_body(mut body: Body, limit: usize) -> Result<Bytes, Reply> {
    let mut kept = BytesMut::with_capacity(body.size_hint().lower().min(limit as u64) as usize);
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let broken = |_| Reply::text(StatusCode::BAD_REQUEST, "body incomplete");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        length += data.len();
        if length <= limit {
            kept.extend_from_slice(&data);
        } else if length > limit.saturating_mul(4) {
            break;
        }
        // What is somewhat too large is read to its end and dropped: a sender whose connection
        // closes while it still sends may never see the answer.
    }
    if length > limit { Err(Error::TooLarge { limit }.reply()) } else { Ok(kept.freeze()) }
}

fn response(reply: Reply) -> Response {
    let Reply { status, headers, body } = reply;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
