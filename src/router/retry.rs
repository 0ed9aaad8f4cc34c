//! Whether a failed attempt is followed by another, and when.

use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use http::header::RETRY_AFTER;
use tokio::time::Instant;

use crate::{config::Forward, delivery::Reply, destination::SendError, outcome::Outcome};

/// Longest pause between two attempts, but for what a destination asks for.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The attempts that a delivery has left.
pub struct Retries {
    /// The longest pauses, one for each attempt that is left.
    pauses: ExponentialBackoff,
    attempt_timeout: Duration,
    /// When the last of them must have ended.
    until: Instant,
}

impl Retries {
    /// Those after the first attempt, which is always made.
    pub fn new(forward: &Forward, until: Instant) -> Self {
        let pauses = ExponentialBuilder::new()
            .with_min_delay(forward.backoff.min(MAX_PAUSE))
            .with_max_delay(MAX_PAUSE)
            .with_max_times(forward.attempts.saturating_sub(1) as usize)
            .build();
        Self { pauses, attempt_timeout: forward.timeout, until }
    }

    /// How long to wait before the attempt after this one, if there is to be one: none when it
    /// would not help, when all are used up, and when it could not end in time.
    ///
    /// The pause is random between nothing and the backoff ("full jitter",
    /// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>), so that events
    /// that failed together do not come back together.
    pub fn next(&mut self, sent: &Result<Reply, SendError>) -> Option<Duration> {
        let asked = match sent {
            Ok(reply) if Outcome::Status(reply.status.as_u16()).is_worth_another() => {
                retry_after(reply).unwrap_or_default()
            }
            Err(SendError::NotSent { retry_after, .. }) => retry_after.unwrap_or_default(),
            Err(SendError::Unknown(_)) => Duration::ZERO,
            Ok(_) | Err(SendError::Refused(_)) => return None,
        };
        let pause = self.pauses.next()?.mul_f64(rand::random()).max(asked);
        let end = Instant::now().checked_add(pause)?.checked_add(self.attempt_timeout)?;
        (end <= self.until).then_some(pause)
    }
}

/// How long a reply asks to wait: seconds or a date (RFC 9110, section 10.2.3).
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
