//! Asks vendors for the certificates and keys that they sign with, and confirms subscriptions.
//!
//! The sender of a request chooses the address, within the hosts that the vendor's module in
//! `source/` allows. So redirects are not followed, and an answer has at most 64 KiB and 2 s.
//! Concurrent callers share one fetch, and few fetches run at once. A failure is remembered, and
//! after several failures other addresses are fetched only now and then. These limits apply to each
//! vendor's hosts separately. So strangers who name one vendor's addresses do not delay another
//! vendor.

use std::{
    collections::HashMap,
    iter,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::header::CONTENT_TYPE;
use rand::seq::IteratorRandom as _;
use tokio::{
    sync::{OnceCell, Semaphore},
    time::{Instant, timeout},
};

use crate::{
    authorities::Authorities,
    destination::tls_config,
    error::Error,
    source::{Fetch, Fetched, Question},
};

/// Time limit for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Largest answer that is read, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// Largest number of addresses of a vendor that are fetched at the same time.
const AT_ONCE: usize = 4;

/// Most requests without an answer: those that failed and are remembered, and those that are being
/// made. A stranger can name any number of addresses and keys, but only the vendor's have an answer.
const MAX_WITHOUT: usize = 16;

/// While there are [`MAX_WITHOUT`] requests without an answer, one failure is forgotten before its
/// time in each interval of this length, and another request takes its place. So no stranger can
/// keep out the vendor's own key for certain: it has a chance of the place that becomes free. And
/// the vendor gets few requests.
const FORGOTTEN_EVERY: Duration = Duration::from_secs(1);

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
    known: Mutex<Known>,
    permits: Semaphore,
}

/// The requests whose answers are kept or awaited.
#[derive(Default)]
struct Known {
    slots: HashMap<Fetch, Arc<Slot>>,
    /// The time at which a failure was forgotten early.
    forgot: Option<Instant>,
}

impl Known {
    /// Forgets a failure early, and returns whether there was one to forget. It is a random one, so
    /// that strangers cannot choose which failure counts no longer. Never forgets a request that is
    /// being made.
    fn forget_a_failure(&mut self, pause: Duration) -> bool {
        if self.forgot.is_some_and(|forgot| forgot.elapsed() < pause) {
            return false;
        }
        let has_failed = |slot: &Slot| slot.answer.initialized() && slot.last().is_none();
        let failed = self.slots.iter().filter(|(_, slot)| has_failed(slot));
        let Some(fetch) = failed.map(|(fetch, _)| fetch).choose(&mut rand::rng()).cloned() else {
            return false;
        };
        self.slots.remove(&fetch);
        self.forgot = Some(Instant::now());
        true
    }
}

impl Default for Hosts {
    fn default() -> Self {
        Self { known: Mutex::default(), permits: Semaphore::new(AT_ONCE) }
    }
}

impl Hosts {
    /// Returns the slot of a request. A slot that is out of date is replaced.
    ///
    /// # Errors
    /// Fails if too many requests have no answer, and none of them may be forgotten now:
    /// one was forgotten shortly before, or all are still under way.
    fn slot(&self, fetch: &Fetch, pause: Duration) -> Result<Arc<Slot>, Error> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.slots.retain(|_, slot| Slot::is_current(slot) || slot.last().is_some());
        let found = known.slots.get(fetch);
        if let Some(slot) = found.filter(|slot| Slot::is_current(slot)) {
            return Ok(Arc::clone(slot));
        }
        let earlier = found.and_then(|slot| slot.last().cloned());
        let without = known.slots.values().filter(|slot| slot.last().is_none()).count();
        let is_full = without >= MAX_WITHOUT && earlier.is_none();
        if is_full && !known.forget_a_failure(pause) {
            return Err(Error::NotFetched("too many requests have no answer".into()));
        }
        let slots = &mut known.slots;
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

/// Returns the last two labels of a host name (`paypal.com`), which a vendor's hosts have in
/// common. Amazon SNS has a host for each region, and a stranger can make regions up.
fn domain(host: &str) -> &str {
    host.rmatch_indices('.').nth(1).map_or(host, |(dot, _)| &host[dot + 1..])
}

/// Fetches from vendors, and keeps what they answer.
pub struct Fetcher {
    /// Created for the first fetch, so that a cold start without one does not pay for it.
    client: OnceCell<reqwest::Client>,
    /// The hosts of each domain. The vendors' modules allow few domains.
    hosts: Mutex<HashMap<String, Arc<Hosts>>>,
    kept: Duration,
    failure_kept: Duration,
    forgotten_every: Duration,
}

impl Default for Fetcher {
    fn default() -> Self {
        let (client, hosts) = (OnceCell::new(), Mutex::default());
        let (kept, failure_kept) = (KEPT, FAILURE_KEPT);
        Self { client, hosts, kept, failure_kept, forgotten_every: FORGOTTEN_EVERY }
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

    /// Sets the shortest time between two failures that are forgotten early.
    pub fn forgetting_every(self, forgotten_every: Duration) -> Self {
        Self { forgotten_every, ..self }
    }

    /// Returns the answer to a request, and fetches it if it is not kept. If an answer cannot be
    /// fetched again, the old one counts.
    ///
    /// # Errors
    /// Fails with [`Error::NotFetched`] if it cannot be fetched.
    pub async fn get(&self, fetch: &Fetch) -> Result<Arc<Fetched>, Error> {
        let hosts = self.hosts(fetch);
        let slot = hosts.slot(fetch, self.forgotten_every)?;
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
        let requests = match fetch {
            Fetch::Certificate(address) | Fetch::Confirmation(address) => {
                vec![client.get(address.clone())]
            }
            Fetch::Key { first, others } => {
                let post = |Question { address, json }: &Question| {
                    let request = client.post(address.clone());
                    let request = request.header(CONTENT_TYPE, "application/json");
                    request.body(json.expose().to_owned())
                };
                iter::once(first).chain(others).map(post).collect()
            }
        };
        let mut failures = Vec::new();
        for request in requests {
            match Self::answer_to(request, fetch).await {
                Ok(fetched) => return Ok(fetched),
                Err(failure) => failures.push(failure),
            }
        }
        failures.dedup();
        Err(failures.join("; "))
    }

    async fn answer_to(request: reqwest::RequestBuilder, fetch: &Fetch) -> Result<Fetched, String> {
        // The host is in the log line already.
        let text = |error: reqwest::Error| error.without_url().to_string();
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

/// Returns the settings of the client that fetches. It trusts public authorities, and the given
/// ones.
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
