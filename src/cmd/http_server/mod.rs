//! An HTTP/1.1 server in bounds: connections, bytes and times are limited, whoever comes.
//!
//! hyper reads and writes HTTP, axum finds the route, and what is here keeps both in bounds.

mod buffers;
mod deliveries;
mod drain;
mod head;
mod limits;
mod stream;

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Semaphore,
    task::JoinHandle,
};
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;

pub use self::{deliveries::Handler, limits::Limits};
use self::{deliveries::Reception, drain::drain_unread, head::Head, stream::Stream};
use crate::{
    delivery::{Delivery, Reply},
    error::Error,
    outcome::Origin,
    telemetry,
};

/// Time for a sender to send the head of a request, and for a connection to be idle before it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for the requests under way when the server stops: for a head, and for a body after it.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Size from which no more of a request's head is read. The read that reaches it may go beyond by
/// [`stream::MAX_READ`], so heads up to this size are taken, and those beyond the sum get 431.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Headers of a request; more get 431.
const MAX_HEADERS: usize = 100;

/// Connections that the kernel takes before they are accepted. More in one moment would be lost, and
/// come again after a second.
const BACKLOG: u32 = 1024;

/// Bytes of a connection that the kernel may hold in either direction. By itself it would hold
/// megabytes (<https://man7.org/linux/man-pages/man7/tcp.7.html>, `tcp_rmem` and `tcp_wmem`).
const KERNEL_BUFFER: u32 = 256 * 1024;

/// What a server answers.
pub struct App {
    /// Routes that answer although all connections are taken.
    pub vital: axum::Router,
    pub rest: axum::Router,
}

/// Listens on an address. Its connections inherit the bounds of the kernel's buffers.
///
/// # Errors
/// An address that cannot be used.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A server that starts again must not wait for the connections of the one before.
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(KERNEL_BUFFER)?;
    socket.set_recv_buffer_size(KERNEL_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Answers deliveries with `handler`, and `vital` routes, until `stop`; then finishes those under
/// way, also of senders that have hung up.
///
/// # Errors
/// When the listener fails.
pub async fn serve_deliveries(
    listener: TcpListener,
    vital: axum::Router,
    handler: impl Handler,
    max_body_bytes: usize,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let (buffers, tasks) = (Arc::clone(&limits.buffers), TaskTracker::new());
    let reception = Reception { max_body_bytes, buffers, tasks: tasks.clone() };
    let app = App { vital, rest: deliveries::routes(handler, reception) };
    serve(listener, app, limits, stop).await?;
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// Answers requests until `stop`; then finishes those under way.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    app: App,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let past_limits = guarded(app.vital.clone().fallback(no_connection));
    let app = guarded(app.vital.merge(app.rest));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    let mut http_once = http.clone();
    http_once.keep_alive(false);
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut reserve = Reserve::default();
    let connections = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        let (tcp, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, say: those in use will be free again.
                    tracing::error!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut stop => break,
        };
        let head = Head::new(Arc::clone(&limits.buffers));
        let stream = Stream::new(tcp, Arc::clone(&limits.buffers), Arc::clone(&head));
        let Ok(stream) = stream else { continue };
        let place = Arc::clone(&places).try_acquire_owned().ok();
        let is_placed = place.is_some();
        let (http, app) = if is_placed { (&http, &app) } else { (&http_once, &past_limits) };
        let routes = TowerToHyperService::new(app.clone());
        let origin = Origin { sender: Some(peer.ip()), ..Origin::default() };
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(origin.clone());
            routes.call(drain_unread(request, head.read()))
        });
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        let task = tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
        if !is_placed {
            reserve.take_in(task).await;
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(STOP_TIMEOUT, connections.shutdown()).await;
    Ok(())
}

/// The connections beyond the limit. Each gets one answer, and the oldest goes when another comes:
/// who sends a request at once is answered, however many send none.
#[derive(Default)]
struct Reserve {
    open: VecDeque<JoinHandle<()>>,
}

impl Reserve {
    async fn take_in(&mut self, connection: JoinHandle<()>) {
        self.open.retain(|connection| !connection.is_finished());
        if self.open.len() >= limits::RESERVE
            && let Some(oldest) = self.open.pop_front()
        {
            oldest.abort();
            // Its descriptor is free when it has ended.
            let _ = oldest.await;
        }
        self.open.push_back(connection);
    }
}

/// Routes whose panics are answered.
fn guarded(app: axum::Router) -> axum::Router {
    app.layer(CatchPanicLayer::custom(|_| response(telemetry::panicked())))
}

/// Refuses a request on a connection of the reserve.
async fn no_connection(
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    Extension(origin): Extension<Origin>,
) -> Response {
    let (path, query) = (uri.path().to_owned(), uri.query().map(str::to_owned));
    let delivery = Delivery { method, path, query, headers, body: Bytes::new() };
    response(telemetry::refused(&delivery, &origin, &Error::NoConnection))
}

/// A reply as axum sends it.
pub fn response(reply: Reply) -> Response {
    let Reply { status, headers, body } = reply;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
