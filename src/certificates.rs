//! The certificates that vendors sign with, fetched from their addresses.
//!
//! Whoever sends a request chooses the address, within the hosts that the vendor's file allows. So
//! redirects are not followed, an answer has at most 64 KiB and 2 s to come, each address
//! is asked once at a time and few are asked at once, and a failure is remembered.

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

/// Time for an address to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Largest answer that is read.
const MAX_BYTES: usize = 64 * 1024;

/// Addresses that are asked at the same time.
const AT_ONCE: usize = 4;

/// Addresses that are remembered.
const MAX_ADDRESSES: usize = 64;

/// For how long a certificate is kept. The vendor puts a new one at a new address.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// For how long a failure is kept.
const FAILURE_KEPT: Duration = Duration::from_secs(30);

/// What came of asking an address, and when.
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

/// Filled by the first who asks; the others wait for it.
type Slot = Arc<OnceCell<Answer>>;

/// The certificates of this process.
pub struct Certificates {
    /// Made for the first certificate, so that a cold start that needs none makes none.
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
    /// Certificates that this client fetches. It must not follow redirects.
    pub fn with_client(client: reqwest::Client) -> Self {
        Self { client: OnceCell::new_with(Some(client)), ..Self::default() }
    }

    /// The certificate at an address.
    ///
    /// # Errors
    /// [`Error::Certificate`] when it cannot be had.
    pub async fn get(&self, address: &Url) -> Result<Arc<Certificate>, Error> {
        let slot = self.slot(address);
        let answer = slot.get_or_try_init(|| async {
            let permit = timeout(TIMEOUT, self.permits.acquire()).await;
            // Not the address's failure, so the slot stays empty.
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

    /// The place of an address: the one that is there, or a new one when it is out of date.
    fn slot(&self, address: &Url) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| slot.get().is_none_or(Answer::is_current));
        if slots.len() >= MAX_ADDRESSES && !slots.contains_key(address) {
            // A stranger may name any number of addresses, but only the vendor has certificates.
            slots.retain(|_, slot| slot.get().is_some_and(|answer| answer.result.is_ok()));
        }
        Arc::clone(slots.entry(address.clone()).or_default())
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
