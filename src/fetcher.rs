//! Asks vendors for the certificates and keys that they sign with, and confirms subscriptions.
//!
//! The sender of a request chooses the address, within the hosts that the vendor's file allows. So
//! redirects are not followed, and an answer has at most 64 KiB and 2 s. Concurrent callers share one
//! fetch, and few fetches run at once. A failure is remembered, and after several failures nothing
//! else is fetched for a while. These limits apply to each vendor's hosts separately. So strangers
//! who name one vendor's addresses do not delay another vendor.

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
    authorities::Authorities,
    destination::tls_config,
    error::Error,
    source::{Fetch, Fetched},
};

/// Time limit for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Largest answer that is read, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// Most addresses of a vendor that are fetched at the same time.
const AT_ONCE: usize = 4;

/// Most requests without an answer: those that failed and are remembered, and those that are being
/// made. A stranger can name any number of addresses and keys, but only the vendor's have an answer.
const MAX_WITHOUT: usize = 16;

/// Most requests whose results are kept. A vendor has few certificates and keys, but it may publish
/// one of them at several addresses.
const MAX_KEPT: usize = 256;

/// Time for which an answer is kept. A vendor publishes a new certificate at a new address, and a
/// new key under a new id.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Time for which a failure is kept.
const FAILURE_KEPT: Duration = Duration::from_secs(30);

/// The result of a fetch.
struct Answer {
    /// The time from which the answer is fetched again.
    until: Instant,
    result: Result<Arc<Fetched>, String>,
}

/// A request that the first caller makes. Other callers wait for its answer.
#[derive(Default)]
struct Slot {
    answer: OnceCell<Answer>,
    /// The previous answer, which counts until the vendor gives another.
    earlier: Option<Arc<Fetched>>,
}

impl Slot {
    /// Returns whether the slot needs no new fetch: its answer is current, or a fetch is under way.
    fn is_current(slot: &Arc<Self>) -> bool {
        match slot.answer.get() {
            Some(answer) => Instant::now() < answer.until,
            None => Arc::strong_count(slot) > 1,
        }
    }

    /// Returns the vendor's last answer, however old it is.
    fn last(&self) -> Option<&Arc<Fetched>> {
        let answer = self.answer.get().and_then(|answer| answer.result.as_ref().ok());
        answer.or(self.earlier.as_ref())
    }
}

/// The requests to the hosts of one vendor.
struct Hosts {
    slots: Mutex<HashMap<Fetch, Arc<Slot>>>,
    permits: Semaphore,
}

impl Default for Hosts {
    fn default() -> Self {
        Self { slots: Mutex::default(), permits: Semaphore::new(AT_ONCE) }
    }
}

impl Hosts {
    /// Returns the slot of a request. A slot that is out of date is replaced.
    ///
    /// # Errors
    /// Fails if too many requests have no answer.
    fn slot(&self, fetch: &Fetch) -> Result<Arc<Slot>, Error> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| Slot::is_current(slot) || slot.last().is_some());
        let known = slots.get(fetch);
        if let Some(slot) = known.filter(|slot| Slot::is_current(slot)) {
            return Ok(Arc::clone(slot));
        }
        let earlier = known.and_then(|slot| slot.last().cloned());
        let without = slots.values().filter(|slot| slot.last().is_none()).count();
        if without >= MAX_WITHOUT && earlier.is_none() {
            return Err(Error::NotFetched("too many requests have no answer".into()));
        }
        if slots.len() >= MAX_KEPT {
            let until = |slot: &Slot| slot.answer.get().map(|answer| answer.until);
            let answered = slots.iter().filter_map(|(fetch, slot)| Some((until(slot)?, fetch)));
            let oldest = answered.min_by_key(|(until, _)| *until).map(|(_, fetch)| fetch.clone());
            if let Some(fetch) = oldest {
                slots.remove(&fetch);
            }
        }
        let slot = Arc::new(Slot { earlier, ..Slot::default() });
        slots.insert(fetch.clone(), Arc::clone(&slot));
        Ok(slot)
    }
}

/// Returns the last two names of a host, which a vendor's hosts have in common. Amazon SNS has a
/// host for each region, and a stranger can make regions up.
fn domain(host: &str) -> &str {
    host.rmatch_indices('.').nth(1).map_or(host, |(dot, _)| &host[dot + 1..])
}

/// Fetches from vendors, and keeps what they answer.
pub struct Fetcher {
    /// Created for the first fetch, so that a cold start without one does not pay for it.
    client: OnceCell<reqwest::Client>,
    /// The hosts of each domain. The vendors' files allow few domains.
    hosts: Mutex<HashMap<String, Arc<Hosts>>>,
    kept: Duration,
    failure_kept: Duration,
}

impl Default for Fetcher {
    fn default() -> Self {
        let (client, hosts) = (OnceCell::new(), Mutex::default());
        Self { client, hosts, kept: KEPT, failure_kept: FAILURE_KEPT }
    }
}

impl Fetcher {
    /// Fetches with this client, which must not follow redirects.
    pub fn with_client(client: reqwest::Client) -> Self {
        Self { client: OnceCell::new_with(Some(client)), ..Self::default() }
    }

    /// Sets how long answers and failures are kept.
    pub fn keeping(self, kept: Duration, failure_kept: Duration) -> Self {
        Self { kept, failure_kept, ..self }
    }

    /// Returns the answer to a request, and fetches it if it is not kept. If an answer cannot be
    /// fetched again, the old one counts.
    ///
    /// # Errors
    /// Fails with [`Error::NotFetched`] if it cannot be fetched.
    pub async fn get(&self, fetch: &Fetch) -> Result<Arc<Fetched>, Error> {
        let hosts = self.hosts(fetch);
        let slot = hosts.slot(fetch)?;
        let answer = slot.answer.get_or_try_init(|| async {
            let permit = timeout(TIMEOUT, hosts.permits.acquire()).await;
            // The vendor did not fail, so the slot stays empty.
            let busy = || Error::NotFetched("too many fetches are under way".into());
            let _permit = permit.map_err(|_| busy())?.map_err(|_| busy())?;
            Ok(self.answer(fetch, slot.earlier.as_ref()).await)
        });
        match (answer.await, &slot.earlier) {
            (Ok(answer), _) => answer.result.clone().map_err(Error::NotFetched),
            (Err(_), Some(earlier)) => Ok(Arc::clone(earlier)),
            (Err(busy), None) => Err(busy),
        }
    }

    fn hosts(&self, fetch: &Fetch) -> Arc<Hosts> {
        let domain = domain(fetch.address().host_str().unwrap_or_default());
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hosts.entry(domain.to_owned()).or_default())
    }

    async fn answer(&self, fetch: &Fetch, earlier: Option<&Arc<Fetched>>) -> Answer {
        let fetched = timeout(TIMEOUT, self.ask(fetch)).await;
        let late = || Err(format!("no answer within {} ms", TIMEOUT.as_millis()));
        let result = fetched.unwrap_or_else(|_| late()).map(Arc::new);
        if let Err(reason) = &result {
            // An address may hold a token in its query.
            let (host, path) = (fetch.address().host_str(), fetch.address().path());
            tracing::warn!(host, path, reason, "cannot fetch from a vendor");
        }
        let kept = if result.is_ok() { self.kept } else { self.failure_kept };
        let result = result.or_else(|reason| earlier.cloned().ok_or(reason));
        Answer { until: Instant::now() + kept, result }
    }

    async fn ask(&self, fetch: &Fetch) -> Result<Fetched, String> {
        let settings = || client_settings(None)?.build().map_err(|error| error.to_string());
        let client = self.client.get_or_try_init(|| async { settings() }).await?;
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

/// Returns the settings of the client that fetches. It trusts public authorities, or the given ones.
///
/// # Errors
/// Fails if the authorities cannot be used.
pub fn client_settings(
    authorities: Option<&Authorities>,
) -> Result<reqwest::ClientBuilder, String> {
    let settings = reqwest::Client::builder()
        .tls_backend_preconfigured(tls_config(authorities)?)
        .https_only(true)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy();
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::domain;

    #[test]
    fn a_vendors_hosts_share_a_domain() {
        for (host, expected) in [
            ("sns.us-west-2.amazonaws.com", "amazonaws.com"),
            ("sns.made-up-1.amazonaws.com", "amazonaws.com"),
            ("sns.cn-north-1.amazonaws.com.cn", "com.cn"),
            ("api.sandbox.paypal.com", "paypal.com"),
            ("plaid.com", "plaid.com"),
            ("localhost", "localhost"),
            ("", ""),
        ] {
            assert_eq!(domain(host), expected, "{host}");
        }
    }
}
