//! Decides whether and when to retry a failed attempt.

use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use http::header::RETRY_AFTER;
use tokio::time::Instant;

use super::attempt::{Verdict, answer};
use crate::{
    config::Forward, delivery::Reply, destination::SendError, outcome::Outcome, store::Release,
};

/// Longest pause between two attempts, unless a destination asks for a longer one.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The attempts that a delivery has left.
pub(super) struct Retries {
    /// The upper limits of the pauses, one for each attempt that is left.
    pauses: ExponentialBackoff,
    attempt_timeout: Duration,
    /// The time by which the last attempt must have ended.
    until: Instant,
    /// Says when the key becomes free if all attempts fail.
    release: Release,
}

impl Retries {
    /// Creates the retries that follow the first attempt, which is always made.
    pub fn new(forward: &Forward, until: Instant) -> Self {
        let pauses = ExponentialBuilder::new()
            .with_min_delay(forward.backoff.min(MAX_PAUSE))
            .with_max_delay(MAX_PAUSE)
            .with_max_times(forward.attempts.saturating_sub(1) as usize)
            .build();
        Self { pauses, attempt_timeout: forward.timeout, until, release: Release::Now }
    }

    /// Returns when the key becomes free, judged by the attempts so far.
    pub fn release(&self) -> Release {
        self.release
    }

    /// Decides the consequence of an attempt. A single attempt with an unknown outcome holds the
    /// key until the lease ends, because the destination may still be working on the event.
    pub fn judge(&mut self, sent: Result<Reply, SendError>) -> Verdict {
        if matches!(sent, Err(SendError::Unknown(_))) {
            self.release = Release::AtLeaseEnd;
        }
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
    /// that failed together do not come back together.
    fn pause(&mut self, asked: Duration) -> Option<Duration> {
        let pause = self.pauses.next()?.mul_f64(rand::random()).max(asked);
        let end = Instant::now().checked_add(pause)?.checked_add(self.attempt_timeout)?;
        (end <= self.until).then_some(pause)
    }
}

/// Returns how long the destination asks to wait, or `None` when another attempt would not help.
fn asked_pause(sent: &Result<Reply, SendError>) -> Option<Duration> {
    match sent {
        Ok(reply) if Outcome::Status(reply.status.as_u16()).is_worth_another() => {
            Some(retry_after(reply).unwrap_or_default())
        }
        Err(SendError::NotSent { retry_after, .. }) => Some(retry_after.unwrap_or_default()),
        Err(SendError::Failed(_) | SendError::Unknown(_)) => Some(Duration::ZERO),
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
