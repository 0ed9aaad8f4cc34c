//! Asks vendors for the certificates and keys that they sign with, and confirms subscriptions.
//!
//! The sender of a request chooses the address, within the hosts that the vendor's file allows. So
//! redirects are not followed, and an answer has at most 64 KiB and 2 s. The same is fetched once at
//! a time, few addresses are fetched at once, a failure is remembered, and after several failures
//! nothing else is fetched for a while.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::header::CONTENT_TYPE;
use tokio::{
    sync::{OnceCell, Semaphore},
    time::{Instant, timeout},
};

use crate::{
    destination::tls_config,
    error::Error,
    source::{Fetch, Fetched},
};

/// Time limit for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Largest answer that is read, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// Most addresses that are fetched at the same time.
const AT_ONCE: usize = 4;

/// Most requests without an answer: those that failed and are remembered, and those that are being
/// made. A stranger can name any number of addresses and keys, but only the vendor's have an answer.
const MAX_WITHOUT: usize = 16;

/// Time for which an answer is kept. A vendor publishes a new certificate at a new address, and a
/// new key under a new id.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Time for which a failure is kept.
const FAILURE_KEPT: Duration = Duration::from_secs(30);

/// The result of a fetch, and its time.
struct Answer {
    at: Instant,
    result: Result<Arc<Fetched>, String>,
}

impl Answer {
    fn is_current(&self) -> bool {
        let kept = if self.result.is_ok() { KEPT } else { FAILURE_KEPT };
        self.at.elapsed() < kept
    }
}

/// An answer that the first caller fetches. Other callers wait for it.
type Slot = Arc<OnceCell<Answer>>;

/// Fetches from vendors, and keeps what they answer.
pub struct Fetcher {
    /// Created for the first fetch, so that a cold start without one does not pay for it.
    client: OnceCell<reqwest::Client>,
    slots: Mutex<HashMap<Fetch, Slot>>,
    permits: Semaphore,
}

impl Default for Fetcher {
    fn default() -> Self {
        let (client, slots) = (OnceCell::new(), Mutex::default());
        Self { client, slots, permits: Semaphore::new(AT_ONCE) }
    }
}

impl Fetcher {
    /// Fetches with this client, which must not follow redirects.
    pub fn with_client(client: reqwest::Client) -> Self {
        Self { client: OnceCell::new_with(Some(client)), ..Self::default() }
    }

    /// Returns the answer to a request, and fetches it if it is not kept.
    ///
    /// # Errors
    /// Fails with [`Error::NotFetched`] if it cannot be fetched.
    pub async fn get(&self, fetch: &Fetch) -> Result<Arc<Fetched>, Error> {
        let slot = self.slot(fetch)?;
        let answer = slot.get_or_try_init(|| async {
            let permit = timeout(TIMEOUT, self.permits.acquire()).await;
            // The vendor did not fail, so the slot stays empty.
            let busy = || Error::NotFetched("too much is being fetched".into());
            let _permit = permit.map_err(|_| busy())?.map_err(|_| busy())?;
            let fetched = timeout(TIMEOUT, self.ask(fetch)).await;
            let late = || Err(format!("no answer within {} ms", TIMEOUT.as_millis()));
            let result = fetched.unwrap_or_else(|_| late()).map(Arc::new);
            if let Err(reason) = &result {
                // An address may hold a token in its query.
                let (host, path) = (fetch.address().host_str(), fetch.address().path());
                tracing::warn!(host, path, reason, "cannot fetch from a vendor");
            }
            Ok(Answer { at: Instant::now(), result })
        });
        answer.await?.result.clone().map_err(Error::NotFetched)
    }

    /// Returns the slot of a request. A slot that is out of date is replaced.
    ///
    /// # Errors
    /// Fails if too many requests have no answer.
    fn slot(&self, fetch: &Fetch) -> Result<Slot, Error> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // An empty slot is kept as long as somebody waits for it.
        slots.retain(|_, slot| slot.get().map_or(Arc::strong_count(slot) > 1, Answer::is_current));
        let has_none = |slot: &&Slot| slot.get().is_none_or(|answer| answer.result.is_err());
        let without = slots.values().filter(has_none).count();
        if without >= MAX_WITHOUT && !slots.contains_key(fetch) {
            return Err(Error::NotFetched("too many requests have no answer".into()));
        }
        Ok(Arc::clone(slots.entry(fetch.clone()).or_default()))
    }

    async fn ask(&self, fetch: &Fetch) -> Result<Fetched, String> {
        let client = self.client.get_or_try_init(|| async { client() }).await?;
        // The host is in the log line already.
        let text = |error: reqwest::Error| error.without_url().to_string();
        let address = fetch.address().clone();
        let request = match fetch {
            Fetch::Certificate(_) | Fetch::Confirmation(_) => client.get(address),
            Fetch::Key { question, .. } => {
                let request = client.post(address).header(CONTENT_TYPE, "application/json");
                request.body(question.expose().to_owned())
            }
        };
        let mut response = request.send().await.map_err(text)?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("the answer is {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(text)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BYTES {
                return Err(format!("the answer has more than {MAX_BYTES} bytes"));
            }
        }
        fetch.read(&body).map_err(|problem| format!("the answer {problem}"))
    }
}

fn client() -> Result<reqwest::Client, String> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls_config(None)?)
        .https_only(true)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .build()
        .map_err(|error| error.to_string())
}
