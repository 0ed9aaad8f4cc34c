//! An HTTP/1.1 server of deliveries and replies.

use std::{convert::Infallible, io, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::{
    delivery::{Delivery, Reply},
    error::Error,
    telemetry,
};

/// Time for a sender to send the head of a request, and again for its body.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Size from which no more of a request's head is read. The read that reaches it may go beyond, so
/// heads up to this size are taken, and those of more than twice as much get 431.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Answers requests with `handler` until `stop`; then finishes those under way.
///
/// # Errors
/// When the listener fails.
pub async fn serve<H, F>(
    listener: TcpListener,
    max_body_bytes: usize,
    handler: H,
    stop: impl Future<Output = ()>,
) -> io::Result<()>
where
    H: Fn(Delivery) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let (connections, tasks) = (GracefulShutdown::new(), TaskTracker::new());
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(READ_TIMEOUT).max_buf_size(MAX_HEAD_BYTES);
    tokio::pin!(stop);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, say: those in use will be free again.
                    tracing::error!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut stop => break,
        };
        // Answers are small and complete; waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let (handler, tasks) = (handler.clone(), tasks.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (handler, tasks) = (handler.clone(), tasks.clone());
            async move {
                let reply = match read(request, max_body_bytes).await {
                    Ok(delivery) => {
                        // In a task of its own: a sender that hangs up must not cancel a delivery
                        // half way.
                        let handled = tasks.spawn(handler(delivery)).await;
                        handled.map_err(|_| Error::Panic)
                    }
                    Err(error) => Err(error),
                };
                let reply = reply.unwrap_or_else(|error| telemetry::unread(&error));
                Ok::<_, Infallible>(response(reply))
            }
        });
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    // A sender that is in the middle of a request gets as long as any other.
    let _ = tokio::time::timeout(2 * READ_TIMEOUT, connections.shutdown()).await;
    tasks.close();
    tasks.wait().await;
    Ok(())
}

async fn read(request: Request<Incoming>, max_body_bytes: usize) -> Result<Delivery, Error> {
    let (parts, body) = request.into_parts();
    let body = tokio::time::timeout(READ_TIMEOUT, read_body(body, max_body_bytes));
    let body = body.await.map_err(|_| Error::SlowBody)??;
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().map(str::to_owned);
    Ok(Delivery { method: parts.method, path, query, headers: parts.headers, body })
}

async fn read_body(mut body: Incoming, limit: usize) -> Result<Bytes, Error> {
    let mut kept = BytesMut::with_capacity(body.size_hint().lower().min(limit as u64) as usize);
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Error::IncompleteBody)?.into_data() else { continue };
        length += data.len();
        if length <= limit {
            kept.extend_from_slice(&data);
        } else if length > limit.saturating_mul(4) {
            break;
        }
        // What is somewhat too large is read to its end and dropped: a sender whose connection
        // closes while it still sends may never see the answer.
    }
    if length > limit { Err(Error::TooLarge { limit }) } else { Ok(kept.freeze()) }
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let Reply { status, headers, body } = reply;
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
