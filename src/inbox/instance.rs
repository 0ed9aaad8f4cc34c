//! The inbox in Lambda: delivers the events whose messages wake the function.
//!
//! An instance of the function lives on between its invocations. So it remembers which destinations
//! are down, as a lane of `serve` does.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use futures_util::{StreamExt as _, stream};
use tracing::Instrument as _;

use super::{CLOCK_MARGIN, outage::Gates};
use crate::{
    key::Key,
    outcome::{Origin, Trigger},
    route::Route,
    router::{Budget, Cause, Handled, Router},
};

/// Most attempts at a time. A batch is usually not larger.
const AT_ONCE: usize = 10;

/// Time for which an attempt waits until its event is due. The clock of the process that sent the
/// message, or that of the store, may be ahead.
const SOON: Duration = Duration::from_secs(2);

/// What an instance of the function knows.
pub struct Instance {
    pub(super) router: Arc<Router>,
    pub(super) gates: Gates,
    /// The time limit for one attempt.
    pub(super) attempt: Duration,
}

/// A message of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The name of the message in its batch.
    pub id: String,
    /// `None` if the message is not a key.
    pub key: Option<Key>,
    /// The destination of the event, if the message names it.
    pub destination: Option<Route>,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// The destination is down. The list of the store brings the event when it is up again.
    Left,
    /// SQS must bring the message again.
    Again,
}

impl Instance {
    pub fn new(router: Arc<Router>, attempt: Duration) -> Self {
        Self { router, gates: Gates::default(), attempt }
    }

    /// Delivers the events of a batch of messages, several at a time. `budget` returns the time for
    /// an attempt that begins now. Returns the names of the messages that SQS must bring again.
    pub async fn consume(
        self: &Arc<Self>,
        messages: Vec<Message>,
        budget: impl Fn() -> Budget,
        origin: &Origin,
    ) -> Vec<String> {
        let count = messages.len();
        let fates = messages.into_iter().enumerate().map(|(index, message)| {
            let (instance, origin, budget) = (Arc::clone(self), origin.clone(), &budget);
            async move {
                let Message { id, key, destination } = message;
                let Some(key) = key else {
                    tracing::error!(message = id, "a message is not the key of an event");
                    return (id, Fate::Again);
                };
                let now = budget();
                // The first attempts have the time that there is.
                if index >= AT_ONCE && !now.has_time_for(instance.attempt) {
                    return (id, Fate::Again);
                }
                // A task of its own keeps a panic from ending the other attempts.
                let delivering =
                    async move { instance.deliver(key, destination, now, origin).await };
                let fate = tokio::spawn(delivering.in_current_span()).await;
                // The place of a panic is in the log already.
                (id, fate.unwrap_or(Fate::Again))
            }
        });
        let fates: Vec<_> = stream::iter(fates).buffer_unordered(AT_ONCE).collect().await;
        let number = |fate| fates.iter().filter(|(_, of)| *of == fate).count();
        let (left, again) = (number(Fate::Left), number(Fate::Again));
        if left + again > 0 {
            tracing::warn!(messages = count, left, again, "messages whose events are not tried");
        }
        fates.into_iter().filter(|(_, fate)| *fate == Fate::Again).map(|(id, _)| id).collect()
    }

    /// Delivers the event of a message.
    async fn deliver(
        &self,
        key: Key,
        destination: Option<Route>,
        budget: Budget,
        origin: Origin,
    ) -> Fate {
        // The record decides if the message does not name the destination.
        let cause =
            destination.map_or(Some(Cause::Due), |destination| self.gates.cause(destination));
        let Some(cause) = cause else { return Fate::Left };
        let mut budget = budget;
        let mut handled = self.attempt(key, cause, budget, &origin).await;
        if let Handled::NotDue(at) = handled
            && let Ok(pause) = (at - Utc::now()).to_std()
            && pause <= SOON
        {
            tokio::time::sleep(pause + CLOCK_MARGIN).await;
            budget.now = Utc::now();
            handled = self.attempt(key, cause, budget, &origin).await;
        }
        match handled {
            // Without a stored result, the event is due when its lease ends.
            Handled::Tried { .. } => Fate::Done,
            // Another process has the event, or the list brings it.
            Handled::NotDue(_) | Handled::Gone => Fate::Done,
            Handled::Unreadable | Handled::StoreUnavailable => Fate::Again,
        }
    }

    /// Makes an attempt at an event that is due, and learns from it.
    pub(super) async fn attempt(
        &self,
        key: Key,
        cause: Cause,
        budget: Budget,
        origin: &Origin,
    ) -> Handled {
        let (by, origin) = (Trigger::Inbox, origin.clone());
        let handled = self.router.deliver_accepted(key, cause, by, origin, budget).await;
        if let Handled::Tried { route, health, .. } = &handled {
            self.gates.learn(*route, *health);
        }
        handled
    }
}
