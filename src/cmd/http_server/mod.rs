//! An HTTP/1.1 server with limits on connections, bytes and times.
//!
//! hyper reads and writes HTTP, and axum finds the route. This module adds the limits.

mod buffers;
mod deliveries;
mod drain;
mod head;
mod limits;
mod stream;

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, response::Response};
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

use self::{deliveries::Reception, drain::drain_unread, head::Head, stream::Stream};
pub use self::{
    deliveries::{Handler, response},
    limits::Limits,
};
use crate::{delivery::Delivery, error::Error, outcome::Origin, telemetry};

/// Time for a sender to send the head of a request. An idle connection closes after the same time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for the requests under way when the server stops: enough for a head and then a body.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Size at which the server stops reading a request's head. The last read may exceed it by
/// [`stream::MAX_READ`]. So a head up to this size never gets 431 because of its size, and a head
/// that is larger than the sum of both constants always does.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Most headers of a request. A request with more gets 431.
const MAX_HEADERS: usize = 100;

/// Most connections that wait to be accepted. The kernel drops further connections, and the client
/// retries after about a second.
const BACKLOG: u32 = 1024;

/// Requested size of the kernel's buffer for each direction of a connection. Linux doubles it
/// (<https://man7.org/linux/man-pages/man7/socket.7.html>, `SO_RCVBUF` and `SO_SNDBUF`), so the
/// kernel holds up to 512 KiB. Its default is megabytes
/// (<https://man7.org/linux/man-pages/man7/tcp.7.html>, `tcp_rmem` and `tcp_wmem`).
const KERNEL_BUFFER: u32 = 256 * 1024;

/// The routes that a server answers.
pub struct App {
    /// Routes that answer even if all connections are in use.
    pub vital: axum::Router,
    pub rest: axum::Router,
}

/// Listens on an address. Its connections inherit the limits of the kernel's buffers.
///
/// # Errors
/// Fails if the address cannot be used.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted server must not wait until the kernel forgets the old connections.
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(KERNEL_BUFFER)?;
    socket.set_recv_buffer_size(KERNEL_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Passes deliveries to `handler`, and answers the `vital` routes, until `stop` completes. Then
/// finishes the deliveries under way, even those of senders that have hung up.
pub async fn serve_deliveries(
    listener: TcpListener,
    vital: axum::Router,
    handler: impl Handler,
    max_body_bytes: usize,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let (buffers, tasks) = (Arc::clone(&limits.buffers), TaskTracker::new());
    let reception = Reception { max_body_bytes, buffers, tasks: tasks.clone() };
    let app = App { vital, rest: deliveries::routes(handler, reception) };
    serve(listener, app, limits, stop).await;
    tasks.close();
    tasks.wait().await;
}

/// Answers requests until `stop` completes. Then finishes the requests under way.
/// An error while accepting is logged, and the server goes on.
pub async fn serve(
    listener: TcpListener,
    app: App,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
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
                    // The process may be out of file descriptors. Some will be free again soon.
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
}

/// The connections beyond the limit. Each gets one answer. When the reserve is full, a new
/// connection replaces the oldest. So a client that sends its request at once gets an answer, even
/// if many others send nothing.
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
            // Its file descriptor is free once its task has ended.
            let _ = oldest.await;
        }
        self.open.push_back(connection);
    }
}

/// Returns routes that answer a panic with an error.
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
