//! Prints a line for each request that a server gets.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use chrono::Utc;

use super::answers::shown;
use crate::{
    cmd::{http_server::Handler, shown::harmless},
    delivery::{Delivery, Reply},
    outcome::Origin,
};

/// A handler that prints its requests while `is_shown` is true.
#[derive(Clone)]
pub(super) struct Traffic<H> {
    pub handler: H,
    pub is_shown: Arc<AtomicBool>,
}

impl<H: Handler> Handler for Traffic<H> {
    fn refuse(&self, delivery: &Delivery, length: u64, origin: &Origin) -> Option<Reply> {
        let reply = self.handler.refuse(delivery, length, origin)?;
        self.show(delivery, &reply);
        Some(reply)
    }

    async fn deliver(self, delivery: Delivery, origin: Origin) -> Reply {
        let request = delivery.clone();
        let reply = self.handler.clone().deliver(delivery, origin).await;
        self.show(&request, &reply);
        reply
    }
}

impl<H> Traffic<H> {
    fn show(&self, delivery: &Delivery, reply: &Reply) {
        if !self.is_shown.load(Ordering::Relaxed) {
            return;
        }
        let header = |name| reply.headers.get(name).and_then(|value| value.to_str().ok());
        let key = header("x-webhook-key").and_then(|key| key.rsplit(':').next()).unwrap_or("-");
        let (time, method) = (Utc::now().format("%H:%M:%S"), &delivery.method);
        let path = harmless(&delivery.path);
        let (destination, answer) =
            (header("x-webhook-destination").unwrap_or("-"), harmless(&shown(reply)));
        say!("{time}  {method} {path:<28} {answer:<42} {destination:<4} {key:.10}");
    }
}
