//! Decides whether and when to retry a failed attempt.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use super::judgement::{Health, Judgement};
use crate::{config::Forward, delivery::Reply, error::Error, store::Release};

/// Longest pause between two attempts while a sender waits, unless the destination asks for a
/// longer one.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Longest pause that a destination may ask for before an accepted event is tried again.
const MAX_ASKED: Duration = Duration::from_secs(86_400);

/// The consequence of an attempt for its event.
#[derive(Debug)]
pub(super) enum Verdict {
    Delivered(Reply),
    TryAgain { after: Duration, failure: Error },
    GiveUp { failure: Error, release: Release },
}

/// The attempts that a delivery has left.
pub(super) struct Retries {
    pauses: Pauses,
    /// Says when the key becomes free if all attempts fail.
    release: Release,
    /// The health of the destination, judged by the last attempt.
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
    /// After the answer.
    Schedule {
        /// The pause of RETRY_SCHEDULE before the next attempt, if there is one.
        pause: Option<Duration>,
        /// True if an attempt that finds the destination down does not count.
        is_spared: bool,
    },
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
        Self { pauses, release: Release::Now, health: Health::Unknown }
    }

    /// Creates the retries of an accepted event. `pause` is the one before its next attempt, or
    /// `None` if there is no further attempt. If the schedule is spared, an attempt that finds the
    /// destination down does not count, and is repeated when the destination is up.
    pub fn scheduled(pause: Option<Duration>, is_spared: bool) -> Self {
        let pauses = Pauses::Schedule { pause, is_spared };
        Self { pauses, release: Release::Now, health: Health::Unknown }
    }

    /// Returns whether the last attempt counts for the schedule. An attempt that the
    /// destination did not take because it has too much to do never counts.
    pub fn counts(&self) -> bool {
        let is_spared = matches!(self.pauses, Pauses::Schedule { is_spared: true, .. });
        !(self.health == Health::Busy || is_spared && self.health == Health::Down)
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
    /// key until the lease ends, whatever the later ones find.
    pub fn decide(&mut self, judged: Judgement) -> Verdict {
        if judged.release() == Release::AtLeaseEnd {
            self.release = Release::AtLeaseEnd;
        }
        self.health = judged.health;
        match judged.answer {
            Ok(reply) => Verdict::Delivered(reply),
            Err(failure) => match judged.asked.and_then(|asked| self.pause(asked)) {
                Some(after) => Verdict::TryAgain { after, failure },
                None => Verdict::GiveUp { failure, release: self.release },
            },
        }
    }

    /// Returns the pause before the next attempt, which is at least as long as the destination asks
    /// for. For an accepted event, the destination can ask for at most [`MAX_ASKED`]. Returns
    /// `None` when all attempts are used up, or the next one could not end in time.
    ///
    /// The pause is random between zero and the backoff ("full jitter",
    /// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>), so that events
    /// that failed together do not come back together. A scheduled pause is up to a tenth longer,
    /// for the same reason.
    fn pause(&mut self, asked: Duration) -> Option<Duration> {
        let counts = self.counts();
        match &mut self.pauses {
            Pauses::Backoff { limits, attempt_timeout, until } => {
                let pause = limits.next()?.mul_f64(rand::random()).max(asked);
                let end = Instant::now().checked_add(pause)?.checked_add(*attempt_timeout)?;
                (end <= *until).then_some(pause)
            }
            Pauses::Schedule { pause, .. } => {
                let jitter = 1.0 + rand::random::<f64>() / 10.0;
                let asked = asked.min(MAX_ASKED).mul_f64(jitter).min(MAX_ASKED);
                if !counts {
                    return Some(asked);
                }
                Some(pause.take()?.mul_f64(jitter).max(asked))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use http::{HeaderValue, StatusCode, header::RETRY_AFTER};

    use super::{super::judgement::judge, *};
    use crate::destination::{NoAnswer, SendError};

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);

    fn forward(attempts: u32, backoff: Duration) -> Forward {
        Forward { attempts, backoff, timeout: SECOND, budget: HOUR }
    }

    fn retries(attempts: u32) -> Retries {
        Retries::new(&forward(attempts, Duration::ZERO), Instant::now() + HOUR)
    }

    fn reply(status: u16) -> Reply {
        Reply::text(StatusCode::from_u16(status).unwrap(), "")
    }

    fn answered(status: u16) -> Judgement {
        judge(Ok(reply(status)))
    }

    fn asking(status: u16, wait: &str) -> Judgement {
        let wait = HeaderValue::try_from(wait).unwrap();
        judge(Ok(reply(status).with_header(RETRY_AFTER, wait)))
    }

    fn unknown(timed_out: bool) -> Judgement {
        judge(Err(SendError::Unknown(NoAnswer { timed_out, detail: String::new() })))
    }

    fn not_sent() -> Judgement {
        judge(Err(SendError::NotSent(String::new())))
    }

    fn throttled(retry_after: Option<Duration>) -> Judgement {
        judge(Err(SendError::Throttled { detail: String::new(), retry_after }))
    }

    /// The pause before the next attempt.
    fn pause(verdict: Verdict) -> Duration {
        match verdict {
            Verdict::TryAgain { after, .. } => after,
            other => panic!("{other:?}"),
        }
    }

    /// Returns when the key becomes free after the last failure. Panics for any other verdict.
    fn release(verdict: Verdict) -> Release {
        match verdict {
            Verdict::GiveUp { release, .. } => release,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_attempts_are_made_while_another_may_help() {
        for attempts in 1..4 {
            let mut retries = retries(attempts);
            for _ in 1..attempts {
                pause(retries.decide(answered(503)));
            }
            assert_eq!(release(retries.decide(answered(503))), Release::Now);
            assert_eq!(retries.release(), Release::Now);
        }
    }

    #[test]
    fn what_will_not_change_ends_the_attempts() {
        for status in [200, 201, 204] {
            let verdict = retries(9).decide(answered(status));
            assert!(matches!(verdict, Verdict::Delivered(reply) if reply.status == status));
        }
        for status in [301, 400, 401, 403, 404, 409, 410, 413, 422] {
            assert_eq!(release(retries(9).decide(answered(status))), Release::Now, "{status}");
        }
        let refused = judge(Err(SendError::Refused(String::new())));
        assert_eq!(release(retries(9).decide(refused)), Release::Now);
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            pause(retries(9).decide(answered(status)));
        }
    }

    #[test]
    fn one_unknown_outcome_among_the_attempts_holds_the_key() {
        for timed_out in [true, false] {
            let mut retries = retries(3);
            pause(retries.decide(unknown(timed_out)));
            assert_eq!(retries.release(), Release::AtLeaseEnd);
            pause(retries.decide(not_sent()));
            assert_eq!(release(retries.decide(answered(503))), Release::AtLeaseEnd);
        }
    }

    #[test]
    fn a_pause_is_no_shorter_than_asked_for_and_no_longer_than_the_backoff() {
        for ask in [asking(429, "7"), asking(503, " 7 "), throttled(Some(7 * SECOND))] {
            assert_eq!(pause(retries(2).decide(ask)), 7 * SECOND);
        }
        let day = 24 * HOUR;
        let in_a_day = httpdate::fmt_http_date(SystemTime::now() + day);
        let until = Instant::now() + 10 * day;
        let mut patient = Retries::new(&forward(2, Duration::ZERO), until);
        let asked = pause(patient.decide(asking(429, &in_a_day)));
        assert!((day - 5 * SECOND..=day).contains(&asked), "{asked:?}");
        for nothing in ["Sun, 06 Nov 1994 08:49:37 GMT", "later", "-7"] {
            assert_eq!(pause(retries(2).decide(asking(429, nothing))), Duration::ZERO, "{nothing}");
        }
        // No router can wait this long.
        release(retries(2).decide(asking(429, "18446744073709551615")));

        for backoff in [SECOND, 1000 * SECOND] {
            let mut retries = Retries::new(&forward(9, backoff), Instant::now() + HOUR);
            let mut longest = backoff.min(MAX_PAUSE);
            for _ in 1..9 {
                assert!(pause(retries.decide(answered(503))) <= longest);
                longest = (longest * 2).min(MAX_PAUSE);
            }
        }
    }

    #[test]
    fn a_schedule_gives_one_pause_which_may_be_longer_but_not_endless() {
        let judged = |sent| Retries::scheduled(Some(60 * SECOND), false).decide(sent);
        for (sent, least, most) in [
            (answered(500), 60, 66),
            (unknown(true), 60, 66),
            (asking(429, "7"), 60, 66),
            (asking(503, "3600"), 3600, 3960),
            // The random part of the pause does not lead beyond a day.
            (asking(503, "86000"), 86_000, 86_400),
            (asking(503, "18446744073709551615"), 86_400, 86_400),
        ] {
            let pause = pause(judged(sent));
            assert!((least * SECOND..=most * SECOND).contains(&pause), "{pause:?}");
        }
        assert_eq!(release(judged(answered(422))), Release::Now);
        let last = || Retries::scheduled(None, false);
        assert_eq!(release(last().decide(answered(503))), Release::Now);
        assert_eq!(release(last().decide(unknown(true))), Release::AtLeaseEnd);
        // A pause of the schedule may be longer than a day.
        let week = Some(168 * HOUR);
        assert!(pause(Retries::scheduled(week, false).decide(answered(500))) >= 168 * HOUR);
    }

    #[test]
    fn an_attempt_that_finds_the_destination_down_is_spared() {
        for pause_left in [Some(HOUR), None] {
            let spared = |sent| {
                let mut retries = Retries::scheduled(pause_left, true);
                let verdict = retries.decide(sent);
                (verdict, retries.counts())
            };
            for sent in [answered(503), not_sent()] {
                let (verdict, counts) = spared(sent);
                assert_eq!((pause(verdict), counts), (Duration::ZERO, false));
            }
            let (verdict, counts) = spared(asking(503, "100"));
            let asked = pause(verdict);
            assert!((100 * SECOND..=110 * SECOND).contains(&asked) && !counts, "{asked:?}");
            for sent in [answered(500), unknown(true)] {
                let (verdict, counts) = spared(sent);
                assert!(counts);
                assert_eq!(matches!(verdict, Verdict::TryAgain { .. }), pause_left.is_some());
            }
        }
    }

    #[test]
    fn an_attempt_that_is_throttled_never_counts() {
        for (asked, least, most) in [(None, 0, 0), (Some(100 * SECOND), 100, 110)] {
            let mut retries = Retries::scheduled(None, false);
            let pause = pause(retries.decide(throttled(asked)));
            assert!((least * SECOND..=most * SECOND).contains(&pause) && !retries.counts());
        }
    }

    #[test]
    fn the_last_attempt_says_how_the_destination_is() {
        let mut retries = retries(9);
        assert_eq!(retries.health(), Health::Unknown);
        for (judged, health) in [
            (not_sent(), Health::Down),
            (answered(500), Health::Up),
            (unknown(true), Health::Unknown),
        ] {
            retries.decide(judged);
            assert_eq!(retries.health(), health);
        }
    }

    #[test]
    fn an_attempt_that_could_not_end_in_time_is_not_begun() {
        let one = SECOND + Duration::from_millis(500);
        for (left, asked, is_begun) in
            [(SECOND, "0", false), (one, "0", true), (one, "1", false), (one + SECOND, "1", true)]
        {
            let mut retries = Retries::new(&forward(2, Duration::ZERO), Instant::now() + left);
            let verdict = retries.decide(asking(503, asked));
            assert_eq!(matches!(verdict, Verdict::TryAgain { .. }), is_begun, "{left:?}, {asked}");
        }
    }
}
