//! ID tokens of Google's, which tell a private Cloud Run service who calls it.
//!
//! A token is kept until shortly before its end. Its end counts by the wall clock, because the
//! monotonic clock may stop while Lambda freezes the process. Nothing runs in the background: the
//! first delivery that needs another token asks for it, and concurrent deliveries share the answer.
//!
//! ```text
//!  received               renew           last use   end
//!  ├──────────────────────┼───────────────┼──────────┤
//!  every delivery uses    one delivery    all wait for the
//!  the token              asks for the    next token
//!                         next one
//! ```

mod google;
mod jwt;
mod subject;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use http::HeaderValue;
use tokio::sync::OnceCell;

use self::google::Google;
use crate::config::{IdToken, Issuer};

/// A token is renewed this long before its end. Google's tokens are usually valid for an hour. A
/// token with a short life is renewed after three quarters of it.
const RENEWED_BEFORE: Duration = Duration::from_secs(300);

/// A token is used until this long before its end, or until seven eighths of a short life. The rest
/// covers the way to the service, and a clock that is slow.
const UNUSED_BEFORE: Duration = Duration::from_secs(30);

/// Time after a failed renewal for which the current token is used without another request.
const PAUSE: Duration = Duration::from_secs(10);

/// A token as a header value, and the times of its life.
struct Token {
    header: HeaderValue,
    renew: SystemTime,
    last_use: SystemTime,
}

impl Token {
    /// Creates a token that is valid for a time. A short life shortens the margins.
    fn new(header: HeaderValue, now: SystemTime, life: Duration) -> Self {
        let before = |margin: Duration| now + (life - margin);
        Self {
            header,
            renew: before(RENEWED_BEFORE.min(life / 4)),
            last_use: before(UNUSED_BEFORE.min(life / 8)),
        }
    }
}

/// A request for a token. The delivery that is first makes it, and others wait for its answer. If
/// that delivery gives up, the next one makes the request anew.
type Request = OnceCell<Result<HeaderValue, String>>;

#[derive(Default)]
struct State {
    token: Option<Token>,
    request: Option<Arc<Request>>,
}

/// The next step of a delivery that needs a token.
enum Step {
    Use(HeaderValue),
    /// Wait for the request. If it fails, the current token still counts.
    Ask(Arc<Request>, Option<HeaderValue>),
}

impl State {
    fn step(&mut self, now: SystemTime) -> Step {
        let current = self.token.as_ref().filter(|token| now < token.last_use);
        let is_asked = self.request.as_ref().is_some_and(|asked| Arc::strong_count(asked) > 1);
        if let Some(token) = current.filter(|token| is_asked || now < token.renew) {
            return Step::Use(token.header.clone());
        }
        let current = current.map(|token| token.header.clone());
        Step::Ask(Arc::clone(self.request.get_or_insert_default()), current)
    }
}

/// A token for one request.
pub struct Pass {
    /// The value of `Authorization`.
    pub header: HeaderValue,
    /// True if the token was issued while its delivery waited for it.
    pub is_new: bool,
}

/// The ID tokens for one audience.
pub struct IdTokens {
    settings: IdToken,
    /// Time limit for one request, with all its parts.
    timeout: Duration,
    /// Created for the first token, so that a cold start without a delivery does not pay for it.
    google: OnceCell<Google>,
    state: Mutex<State>,
}

impl IdTokens {
    pub fn new(settings: IdToken, timeout: Duration) -> Self {
        Self { settings, timeout, google: OnceCell::new(), state: Mutex::default() }
    }

    /// Returns a token: the one that is kept, or a new one.
    ///
    /// # Errors
    /// Fails with the reason and the remedy, which quote no token.
    pub async fn get(&self) -> Result<Pass, String> {
        let kept = |header| Ok(Pass { header, is_new: false });
        let step = self.state().step(SystemTime::now());
        let (request, current) = match step {
            Step::Use(header) => return kept(header),
            Step::Ask(request, current) => (request, current),
        };
        let answer = request.get_or_init(|| self.ask()).await;
        match (answer, current) {
            (Ok(header), _) => Ok(Pass { header: header.clone(), is_new: true }),
            (Err(_), Some(current)) => kept(current),
            (Err(reason), None) => Err(reason.clone()),
        }
    }

    /// Forgets a token that the service did not accept: it may be revoked, its key may be replaced,
    /// or this machine's clock may be wrong. If another token has taken its place, that one stays.
    pub fn forget(&self, refused: &HeaderValue) {
        let mut state = self.state();
        if state.token.as_ref().is_some_and(|token| token.header == *refused) {
            state.token = None;
        }
    }

    /// Asks for a token, and keeps it.
    async fn ask(&self) -> Result<HeaderValue, String> {
        let issued = tokio::time::timeout(self.timeout, self.issue()).await;
        let late = || Err(format!("no answer within {} ms", self.timeout.as_millis()));
        let issued = issued.unwrap_or_else(|_| late());
        let now = SystemTime::now();
        let token = issued.and_then(|token| {
            let (header, life) = jwt::check(&token, &self.settings.audience, now)?;
            Ok(Token::new(header, now, life))
        });
        let mut state = self.state();
        state.request = None;
        match token {
            Ok(token) => {
                let header = token.header.clone();
                state.token = Some(token);
                Ok(header)
            }
            Err(reason) => {
                let audience = &self.settings.audience;
                if let Some(token) = state.token.as_mut().filter(|token| now < token.last_use) {
                    tracing::warn!(audience, reason, "cannot renew the ID token");
                    token.renew = now + PAUSE;
                }
                Err(format!("no ID token for {audience}: {reason}"))
            }
        }
    }

    async fn issue(&self) -> Result<String, String> {
        let google = self.google.get_or_try_init(|| async { Google::new(self.timeout) }).await?;
        let audience = &self.settings.audience;
        match &self.settings.issuer {
            Issuer::Metadata(host) => google.identity(host, audience).await,
            Issuer::Federation(federation) => {
                let subject = subject::token(federation).await?;
                let access = google.exchange(federation, &subject).await?;
                google.id_token(federation, &access, audience).await
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &'static str, now: SystemTime, seconds: u64) -> Option<Token> {
        Some(Token::new(HeaderValue::from_static(text), now, Duration::from_secs(seconds)))
    }

    /// Returns the token that a delivery uses at once, and the one that it uses if its request fails.
    fn next(state: &mut State, now: SystemTime) -> (Option<HeaderValue>, Option<HeaderValue>) {
        match state.step(now) {
            Step::Use(header) => (Some(header), None),
            Step::Ask(_, current) => (None, current),
        }
    }

    #[test]
    fn a_token_is_renewed_before_its_last_use_and_not_used_after_it() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let header = || Some(HeaderValue::from_static("one"));
        for (life, renew, last_use) in [(3600, 3300, 3570), (400, 300, 370), (80, 60, 70)] {
            let mut state = State { token: token("one", now, life), request: None };
            for (seconds, expected) in [
                (0, (header(), None)),
                (renew - 1, (header(), None)),
                (renew, (None, header())),
                (last_use - 1, (None, header())),
                (last_use, (None, None)),
                (life * 10, (None, None)),
            ] {
                let found = next(&mut state, now + Duration::from_secs(seconds));
                assert_eq!(found, expected, "{seconds} of {life}");
            }
        }
    }

    #[test]
    fn one_delivery_asks_while_others_use_the_current_token() {
        let now = SystemTime::now();
        let mut state = State { token: token("one", now, 3600), request: None };
        let late = now + Duration::from_secs(3400);
        let asking = state.step(late);
        assert!(matches!(asking, Step::Ask(..)));
        assert!(matches!(state.step(late), Step::Use(_)));
        // The delivery gave up, so the next one asks.
        drop(asking);
        assert!(matches!(state.step(late), Step::Ask(..)));
    }

    #[test]
    fn deliveries_without_a_token_share_a_request() {
        let mut state = State::default();
        let now = SystemTime::now();
        let (Step::Ask(one, None), Step::Ask(other, None)) = (state.step(now), state.step(now))
        else {
            panic!("there is no token")
        };
        assert!(Arc::ptr_eq(&one, &other));
    }
}
