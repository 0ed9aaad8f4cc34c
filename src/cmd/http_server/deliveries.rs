//! Turns requests into deliveries: checks the head, reads the body within limits, and calls the
//! handler.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    extract::Request,
    response::Response,
};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio_util::task::TaskTracker;

use super::buffers::Buffers;
use crate::{
    delivery::{Delivery, Reply},
    error::Error,
    outcome::Origin,
    telemetry,
};

/// Time for a sender to send the body of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Size of the pieces that store a body while it arrives.
const CHUNK: usize = 32 * 1024;

/// Answers deliveries.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Refuses a delivery by its head alone, before its body of `length` bytes is read. Returns
    /// `None` if the head is acceptable. An unknown length is 0.
    fn refuse(&self, delivery: &Delivery, length: u64, origin: &Origin) -> Option<Reply>;

    fn deliver(
        self,
        delivery: Delivery,
        origin: Origin,
    ) -> impl Future<Output = Reply> + Send + 'static;
}

/// The limits and shared state for reading deliveries.
#[derive(Clone)]
pub struct Reception {
    pub max_body_bytes: usize,
    pub buffers: Arc<Buffers>,
    /// Deliveries under way, even if their senders have hung up.
    pub tasks: TaskTracker,
}

/// Returns routes that pass every request to a handler of deliveries.
pub fn routes(handler: impl Handler, reception: Reception) -> axum::Router {
    axum::Router::new()
        .fallback(move |request: Request| reception.clone().answer(request, handler.clone()))
}

impl Reception {
    async fn answer(self, request: Request, handler: impl Handler) -> Response {
        // The server adds the peer's address to every request.
        let origin = request.extensions().get::<Origin>().cloned().unwrap_or_default();
        let reply = match self.take(request, &handler, &origin).await {
            Ok(delivery) => {
                // The delivery has its own task, so a sender that hangs up does not cancel it.
                let handled = self.tasks.spawn(handler.deliver(delivery, origin)).await;
                handled.unwrap_or_else(|_| telemetry::panicked())
            }
            Err(reply) => reply,
        };
        response(Reply { body: self.buffers.keep(reply.body), ..reply })
    }

    /// Reads a delivery. The unread rest of the body is drained after the answer.
    async fn take(
        &self,
        request: Request,
        handler: &impl Handler,
        origin: &Origin,
    ) -> Result<Delivery, Reply> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().map(str::to_owned);
        let (method, headers, body_to_come) = (parts.method, parts.headers, Bytes::new());
        let mut delivery = Delivery { method, path, query, headers, body: body_to_come };
        if let Some(reply) = handler.refuse(&delivery, body.size_hint().lower(), origin) {
            return Err(reply);
        }
        let reading = tokio::time::timeout(BODY_TIMEOUT, self.read(body));
        match reading.await.unwrap_or(Err(Error::SlowBody)) {
            Ok(body) => delivery.body = body,
            Err(refusal) => return Err(telemetry::refused(&delivery, origin, &refusal)),
        }
        Ok(delivery)
    }

    async fn read(&self, mut body: Body) -> Result<Bytes, Error> {
        let too_large = Error::TooLarge { limit: self.max_body_bytes };
        let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if expected > self.max_body_bytes {
            return Err(too_large);
        }
        let mut arriving = self.buffers.begin(expected)?;
        let mut chunks = Chunks::new(expected);
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = arriving.told_to_go() => return Err(Error::SlowestBody),
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|_| Error::IncompleteBody)?;
            let Ok(data) = frame.into_data() else { continue };
            if chunks.length + data.len() > self.max_body_bytes {
                return Err(too_large);
            }
            arriving.add(data.len()).await?;
            chunks.extend(&data);
        }
        arriving.complete(chunks.join())
    }
}

/// A body while it arrives. It uses hardly more memory than the bytes that have arrived. A single
/// growing buffer would use up to twice that, and fragment the memory.
struct Chunks {
    chunks: Vec<Vec<u8>>,
    length: usize,
}

impl Chunks {
    /// Allocates room for the first bytes of a body of at least `expected` bytes.
    fn new(expected: usize) -> Self {
        Self { chunks: vec![Vec::with_capacity(expected.min(CHUNK))], length: 0 }
    }

    fn extend(&mut self, mut data: &[u8]) {
        self.length += data.len();
        while !data.is_empty() {
            let room = self.chunks.last().map_or(0, |chunk| CHUNK.saturating_sub(chunk.len()));
            if room == 0 {
                self.chunks.push(Vec::with_capacity(CHUNK));
            } else if let Some(chunk) = self.chunks.last_mut() {
                let (now, later) = data.split_at(room.min(data.len()));
                chunk.extend_from_slice(now);
                data = later;
            }
        }
    }

    fn join(mut self) -> Bytes {
        match self.chunks.len() {
            1 => self.chunks.remove(0).into(),
            _ => self.chunks.concat().into(),
        }
    }
}

/// Converts a reply into the response that axum sends.
pub fn response(reply: Reply) -> Response {
    let Reply { status, headers, body } = reply;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
