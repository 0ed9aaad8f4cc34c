//! The certificates that vendors sign with, fetched from their addresses.
//!
//! The sender of a request chooses the address, within the hosts that the vendor's file allows. So
//! redirects are not followed, and an answer has at most 64 KiB and 2 s. Each address is fetched
//! once at a time, few addresses are fetched at once, a failure is remembered, and after several
//! failures no other address is fetched for a while.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OnceCell, Semaphore},
    time::{Instant, timeout},
};
use url::Url;

use crate::{destination::tls_config, error::Error, source::Certificate};

/// Time limit for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Largest answer that is read, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// Most addresses that are fetched at the same time.
const AT_ONCE: usize = 4;

/// Most addresses without a certificate: those that failed and are remembered, and those that are
/// being fetched. A stranger can name any number of addresses, but only the vendor's have one.
const MAX_WITHOUT: usize = 16;

/// Time for which a certificate is kept. A vendor publishes a new certificate at a new address.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Time for which a failure is kept.
const FAILURE_KEPT: Duration = Duration::from_secs(30);

/// The result of fetching an address, and the time of the fetch.
struct Answer {
    at: Instant,
    result: Result<Arc<Certificate>, String>,
}

impl Answer {
    fn is_current(&self) -> bool {
        let kept = if self.result.is_ok() { KEPT } else { FAILURE_KEPT };
        self.at.elapsed() < kept
    }
}

/// An answer that the first caller fetches. Other callers wait for it.
type Slot = Arc<OnceCell<Answer>>;

/// The certificates of this process.
pub struct Certificates {
    /// Created for the first certificate, so that a cold start without one does not pay for it.
    client: OnceCell<reqwest::Client>,
    slots: Mutex<HashMap<Url, Slot>>,
    permits: Semaphore,
}

impl Default for Certificates {
    fn default() -> Self {
        let (client, slots) = (OnceCell::new(), Mutex::default());
        Self { client, slots, permits: Semaphore::new(AT_ONCE) }
    }
}

impl Certificates {
    /// Fetches certificates with this client, which must not follow redirects.
    pub fn with_client(client: reqwest::Client) -> Self {
        Self { client: OnceCell::new_with(Some(client)), ..Self::default() }
    }

    /// Returns the certificate at an address, and fetches it if it is not kept.
    ///
    /// # Errors
    /// Fails with [`Error::Certificate`] if it cannot be fetched.
    pub async fn get(&self, address: &Url) -> Result<Arc<Certificate>, Error> {
        let slot = self.slot(address)?;
        let answer = slot.get_or_try_init(|| async {
            let permit = timeout(TIMEOUT, self.permits.acquire()).await;
            // The address did not fail, so its slot stays empty.
            let busy = || Error::Certificate("too many are being fetched".into());
            let _permit = permit.map_err(|_| busy())?.map_err(|_| busy())?;
            let fetched = timeout(TIMEOUT, self.fetch(address)).await;
            let late = || Err(format!("no answer within {} ms", TIMEOUT.as_millis()));
            let result = fetched.unwrap_or_else(|_| late()).map(Arc::new);
            if let Err(reason) = &result {
                tracing::warn!(%address, reason, "a certificate cannot be fetched");
            }
            Ok(Answer { at: Instant::now(), result })
        });
        answer.await?.result.clone().map_err(Error::Certificate)
    }

    /// Returns the slot of an address. A slot that is out of date is replaced.
    ///
    /// # Errors
    /// Fails if too many addresses have no certificate.
    fn slot(&self, address: &Url) -> Result<Slot, Error> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // An empty slot is kept as long as somebody waits for it.
        slots.retain(|_, slot| slot.get().map_or(Arc::strong_count(slot) > 1, Answer::is_current));
        let has_none = |slot: &&Slot| slot.get().is_none_or(|answer| answer.result.is_err());
        let without = slots.values().filter(has_none).count();
        if without >= MAX_WITHOUT && !slots.contains_key(address) {
            return Err(Error::Certificate("too many addresses have none".into()));
        }
        Ok(Arc::clone(slots.entry(address.clone()).or_default()))
    }

    async fn fetch(&self, address: &Url) -> Result<Certificate, String> {
        let client = self.client.get_or_try_init(|| async { client() }).await?;
        // The address is in the log line already.
        let text = |error: reqwest::Error| error.without_url().to_string();
        let mut response = client.get(address.clone()).send().await.map_err(text)?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("the answer is {}", response.status()));
        }
        let mut pem = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(text)? {
            pem.extend_from_slice(&chunk);
            if pem.len() > MAX_BYTES {
                return Err(format!("the answer has more than {MAX_BYTES} bytes"));
            }
        }
        Certificate::from_pem(&pem).map_err(|error| format!("the answer {error}"))
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
