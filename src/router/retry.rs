//! Decides whether and when to retry a failed attempt.

use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use http::{StatusCode, header::RETRY_AFTER};
use tokio::time::Instant;

use super::attempt::{Verdict, answer};
use crate::{
    config::Forward, delivery::Reply, destination::SendError, outcome::Outcome, store::Release,
};

/// Longest pause between two attempts, unless a destination asks for a longer one.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Longest pause that a destination may ask for before an accepted event is tried again.
const MAX_ASKED: Duration = Duration::from_secs(86_400);

/// The attempts that a delivery has left.
pub(super) struct Retries {
    pauses: Pauses,
    /// Says when the key becomes free if all attempts fail.
    release: Release,
    /// Whether the destination took the last attempt, or says that it takes none now.
    health: Health,
}

/// The pauses before the attempts that are left.
enum Pauses {
    /// While the sender waits.
    Backoff {
        /// The upper limits of the pauses, one for each attempt that is left.
        limits: ExponentialBackoff,
        attempt_timeout: Duration,
        /// The time by which the last attempt must have ended.
        until: Instant,
    },
    /// The pause of RETRY_SCHEDULE before the next attempt, if there is one.
    Schedule(Option<Duration>),
}

/// Whether a destination takes events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Up,
    /// It cannot be reached, or answers 503.
    Down,
}

impl Retries {
    /// Creates the retries that follow the first attempt, which is always made.
    pub fn new(forward: &Forward, until: Instant) -> Self {
        let limits = ExponentialBuilder::new()
            .with_min_delay(forward.backoff.min(MAX_PAUSE))
            .with_max_delay(MAX_PAUSE)
            .with_max_times(forward.attempts.saturating_sub(1) as usize)
            .build();
        let pauses = Pauses::Backoff { limits, attempt_timeout: forward.timeout, until };
        Self { pauses, release: Release::Now, health: Health::Up }
    }

    /// Creates the retries of an accepted event. `pause` is the one before its next attempt, or
    /// `None` if there is no further attempt.
    pub fn scheduled(pause: Option<Duration>) -> Self {
        let pauses = Pauses::Schedule(pause);
        Self { pauses, release: Release::Now, health: Health::Up }
    }

    /// Returns when the key becomes free, judged by the attempts so far.
    pub fn release(&self) -> Release {
        self.release
    }

    /// Returns the health of the destination, judged by the last attempt.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Decides the consequence of an attempt. A single attempt with an unknown outcome holds the
    /// key until the lease ends, because the destination may still be working on the event.
    pub fn judge(&mut self, sent: Result<Reply, SendError>) -> Verdict {
        if matches!(sent, Err(SendError::Unknown(_))) {
            self.release = Release::AtLeaseEnd;
        }
        self.health = match &sent {
            Err(SendError::NotSent { .. }) => Health::Down,
            Ok(reply) if reply.status == StatusCode::SERVICE_UNAVAILABLE => Health::Down,
            _ => Health::Up,
        };
        let asked = asked_pause(&sent);
        match answer(sent) {
            Ok(reply) => Verdict::Delivered(reply),
            Err(failure) => match asked.and_then(|asked| self.pause(asked)) {
                Some(after) => Verdict::TryAgain { after, failure },
                None => Verdict::GiveUp { failure, release: self.release },
            },
        }
    }

    /// Returns the pause before the next attempt, which is at least as long as the destination asks
    /// for. Returns `None` when all attempts are used up, or the next one could not end in time.
    ///
    /// The pause is random between zero and the backoff ("full jitter",
    /// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>), so that events
    /// that failed together do not come back together. A scheduled pause is up to a tenth longer,
    /// for the same reason.
    fn pause(&mut self, asked: Duration) -> Option<Duration> {
        match &mut self.pauses {
            Pauses::Backoff { limits, attempt_timeout, until } => {
                let pause = limits.next()?.mul_f64(rand::random()).max(asked);
                let end = Instant::now().checked_add(pause)?.checked_add(*attempt_timeout)?;
                (end <= *until).then_some(pause)
            }
            Pauses::Schedule(pause) => {
                let jitter = 1.0 + rand::random::<f64>() / 10.0;
                Some(pause.take()?.max(asked.min(MAX_ASKED)).mul_f64(jitter))
            }
        }
    }
}

/// Returns how long the destination asks to wait, or `None` when another attempt would not help.
fn asked_pause(sent: &Result<Reply, SendError>) -> Option<Duration> {
    match sent {
        Ok(reply) if Outcome::Status(reply.status.as_u16()).is_worth_another() => {
            Some(retry_after(reply).unwrap_or_default())
        }
        Err(SendError::NotSent { retry_after, .. }) => Some(retry_after.unwrap_or_default()),
        Err(SendError::Unknown(_)) => Some(Duration::ZERO),
        Ok(_) | Err(SendError::Refused(_)) => None,
    }
}

/// Reads the time that a reply asks to wait, given in seconds or as a date (RFC 9110, section
/// 10.2.3).
fn retry_after(reply: &Reply) -> Option<Duration> {
    let value = reply.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(value).ok()?;
            Some(date.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}
