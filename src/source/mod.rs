//! The sources of events, and the vendors behind them.
//!
//! Most vendors are rows of data in `rows/`. They share the [`Description`] and its engine
//! (`scheme.rs`) with `vendor = "custom"`. A vendor that no description fits has a file of its own,
//! and an entry in `CODED` of `rows/mod.rs`.

mod adyen;
mod aws_sns;
mod body;
mod braintree;
mod builders;
mod certificate;
mod description;
pub(crate) mod envelope;
mod fetch;
mod gitlab;
mod happened;
mod hubspot;
mod lenient_base64;
pub(crate) mod loopback;
mod meta;
mod paypal;
mod plaid;
mod polar;
mod private_key;
mod rows;
mod rules;
mod scheme;
pub mod settings;
mod sign;
mod standard_webhooks;
mod template;
mod trello;
mod twilio;
mod zoom;

use std::{collections::HashSet, fmt, str::FromStr, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderName, StatusCode, header::AUTHORIZATION};
use url::Url;

pub use self::{
    body::Body,
    certificate::{Certificate, Hash, NotACertificate},
    description::{
        Algorithm, Description, Echo, Encoding, Fields, Joined, KeyForm, Place, Scheme, Sent,
        Signed, Stamp, StampPlace, Tolerance, Unit, Wish,
    },
    fetch::{Fetch, Fetched, P256Key, Question},
    happened::Happened,
    private_key::{NotAPrivateKey, PrivateKey},
    rules::{Answer, Glob, KeyRule, Rules, Wanted},
    scheme::Check,
    sign::{CannotSign, Signing},
    standard_webhooks::shared_key,
    template::{NotATemplate, Template},
};
use crate::{
    delivery::{Delivery, Reply},
    error::Error,
    secret::Secret,
};

/// The beginning of every source's path.
const PATH: &str = "/webhook/";

/// Headers that describe the event. Only the router sets them, so a vendor's header cannot replace
/// them.
pub const EVENT_HEADERS: [&str; 5] = [
    "idempotency-key",
    "x-webhook-vendor",
    "x-webhook-event-type",
    "x-webhook-attempt",
    "x-webhook-mirror",
];

/// Verifies and reads the deliveries of one vendor. It uses no clock, no network and no store.
pub trait Vendor: Send + Sync + fmt::Debug {
    fn description(&self) -> &Description;

    /// The name in lower case.
    fn name(&self) -> &str {
        &self.description().name
    }

    /// Checks the form of a secret when the process starts.
    ///
    /// # Errors
    /// Fails with the form that the secret must have.
    fn check_secret(&self, secret: &Secret) -> Result<(), &'static str> {
        scheme::check_secret(self.description(), secret)
    }

    /// Returns `false` if the vendor signs in a header, and the delivery lacks that header. Such a
    /// delivery is refused before its body is read.
    fn has_signature(&self, delivery: &Delivery) -> bool {
        let scheme = self.description().scheme.as_ref();
        scheme.is_none_or(|scheme| scheme.may_be_in(&delivery.headers))
    }

    /// Checks that one of the secrets signed the delivery.
    ///
    /// # Errors
    /// Fails with [`Error::Signature`] if the signature is missing, wrong or stale, and with
    /// [`Error::NotFetched`] if it needs a certificate or key that was not fetched.
    fn verify(&self, check: &Check<'_>) -> Result<(), Error> {
        scheme::verify(self.description(), check)
    }

    /// Signs a delivery as the vendor does, for commands that try the router.
    ///
    /// # Errors
    /// Fails with the reason if the delivery cannot be signed.
    fn sign(&self, delivery: Delivery, signing: &Signing<'_>) -> Result<Delivery, CannotSign> {
        sign::by_description(self.description(), delivery, signing)
    }

    /// Reads the events of a delivery: one event, or the events of a batch. The result is never
    /// empty.
    fn happened(&self, delivery: &Delivery, body: &Body<'_>) -> Vec<Happened> {
        happened::read(&self.description().fields, delivery, body)
    }

    /// Returns whether the signature covers the address that the vendor called.
    fn signs_url(&self) -> bool {
        match &self.description().scheme {
            Some(Scheme::Signed(signed)) => signed.template.needs_url(),
            _ => false,
        }
    }

    /// Returns the answer to a handshake that comes unsigned. It is called before every other
    /// check, and again when the body has arrived.
    fn challenge(&self, _delivery: &Delivery, _source: &Source) -> Option<Reply> {
        None
    }

    /// Returns the answer to a handshake whose signature is verified.
    fn handshake(&self, body: &Body<'_>) -> Option<Reply> {
        let Echo { when: (pointer, expected), answer } = self.description().handshake.as_ref()?;
        let text = |pointer: &crate::json::Pointer| pointer.find(body.root()?)?.as_text();
        let is_question = text(pointer).as_ref() == Some(expected);
        if !is_question {
            return None;
        }
        match answer {
            Some(answer) => Some(Reply::text(StatusCode::OK, text(answer)?)),
            None => Some(Reply::text(StatusCode::NO_CONTENT, "")),
        }
    }

    /// Returns the request for the certificate or key that a delivery is signed with. Everything
    /// that can be checked without it is checked first. Returns `None` for a vendor whose secrets
    /// suffice.
    ///
    /// # Errors
    /// Fails with [`Error::Signature`] if the delivery cannot be genuine, or the address is not the
    /// vendor's.
    fn needs(&self, _check: &Check<'_>) -> Result<Option<Fetch>, Error> {
        Ok(None)
    }

    /// Returns the request that confirms a subscription, if a verified delivery asks for one.
    ///
    /// # Errors
    /// Fails with [`Error::Signature`] if the address is not the vendor's.
    fn confirmation(&self, _body: &Body<'_>) -> Result<Option<Fetch>, Error> {
        Ok(None)
    }

    /// Returns the headers that hold the signature and the values that it covers, so that a
    /// receiver can verify it again, and unsigned headers about the event. A header that is itself
    /// the secret is not included.
    fn signature_headers(&self) -> Vec<HeaderName> {
        scheme_headers(self.description())
    }

    /// Returns the headers that hold a secret. They are neither forwarded nor stored.
    fn secret_headers(&self) -> Vec<HeaderName> {
        match &self.description().scheme {
            Some(Scheme::SharedSecret { header, .. }) => vec![header.clone(), AUTHORIZATION],
            _ => vec![AUTHORIZATION],
        }
    }
}

/// A vendor whose description covers everything.
#[derive(Debug)]
pub(crate) struct Described(pub Description);

impl Vendor for Described {
    fn description(&self) -> &Description {
        &self.0
    }
}

fn scheme_headers(description: &Description) -> Vec<HeaderName> {
    let mut headers = description.signature_headers.clone();
    let mut add = |place: &Place| {
        if let Place::Header(name) = place {
            headers.push(name.clone());
        }
    };
    if let Some(Scheme::Signed(signed)) = &description.scheme {
        signed.signature.iter().for_each(&mut add);
        if let Some(Stamp { place: StampPlace::At(place), .. }) = &signed.stamp {
            add(place);
        }
        headers.extend(signed.key_id.clone());
        headers.extend(signed.template.headers().cloned());
    }
    let mut seen = HashSet::new();
    headers.retain(|name| seen.insert(name.clone()));
    headers
}

/// Returns the name of every built-in vendor, in order.
pub fn vendor_names() -> Vec<&'static str> {
    let mut names: Vec<_> = rows::all().map(|vendor| vendor.name).collect();
    names.sort_unstable();
    names
}

/// Returns every built-in vendor, in the order of their names.
pub fn vendors() -> Vec<&'static Arc<dyn Vendor>> {
    vendor_names().into_iter().filter_map(vendor).collect()
}

/// Returns whether a built-in vendor has that name.
pub fn is_vendor(name: &str) -> bool {
    rows::all().any(|one| one.name == name)
}

/// Returns the built-in vendor of that name.
pub fn vendor(name: &str) -> Option<&'static Arc<dyn Vendor>> {
    rows::all().find(|one| one.name == name).map(rows::BuiltIn::vendor)
}

/// Returns the variable with the secrets of the source that is named after a vendor.
pub fn secrets_variable(name: &str) -> String {
    format!("{}_SECRETS", name.to_ascii_uppercase().replace('-', "_"))
}

/// A configured source of events.
#[derive(Debug, Clone)]
pub struct Source {
    /// The name, of letters, digits and hyphens, as in `/webhook/<name>`.
    pub name: String,
    pub vendor: Arc<dyn Vendor>,
    /// The secrets, any of which may have signed. A source without secrets is not served.
    pub secrets: Vec<Secret>,
    /// The origin of the secrets: a variable, or `SOURCES`.
    pub secrets_from: String,
    pub rules: Rules,
    /// The address that the vendor calls, for vendors that sign it.
    pub address: Option<Address>,
    /// The text by which the vendor proves that a request without a signature is its own: Meta's
    /// `hub.verify_token`.
    pub verify_token: Option<Secret>,
    /// The place of the source in SOURCES. `None` if a variable alone configures the source.
    pub lines: Option<Lines>,
    /// True if nobody sent the deliveries, so that there is nothing to verify.
    is_explained: bool,
}

/// The lines of a source in the text of SOURCES, for problems that are found later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// The line of the source's name.
    pub source: usize,
    /// The line of the rule that chooses the destination, or else that of the name.
    pub rule: usize,
}

/// The address that a vendor calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An origin and an optional prefix, to which path and query are added.
    Prefix(String),
    /// The whole address.
    Whole(String),
}

/// A text that is not an origin with an optional prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an origin with an optional prefix: https://hooks.example.com")]
pub struct NotAnAddress;

impl FromStr for Address {
    type Err = NotAnAddress;

    /// Reads an origin and an optional prefix. Commands print it, so it must not hold a password.
    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let url = Url::parse(text).map_err(|_| NotAnAddress)?;
        let is_origin = matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if is_origin { Ok(Self::Prefix(text.to_owned())) } else { Err(NotAnAddress) }
    }
}

impl Address {
    /// Returns the address of a delivery, as the vendor called it.
    fn of(&self, delivery: &Delivery) -> String {
        match self {
            Self::Whole(url) => url.clone(),
            Self::Prefix(prefix) => {
                let prefix = prefix.trim_end_matches('/');
                // The prefix may already contain the whole path.
                let path = if prefix.ends_with(&delivery.path) { "" } else { &delivery.path };
                let query = delivery.query.iter().flat_map(|query| ["?", query]);
                [prefix, path].into_iter().chain(query).collect()
            }
        }
    }
}

impl Source {
    pub fn new(name: impl Into<String>, vendor: Arc<dyn Vendor>) -> Self {
        Self {
            name: name.into(),
            vendor,
            secrets: Vec::new(),
            secrets_from: String::new(),
            rules: Rules::default(),
            address: None,
            verify_token: None,
            lines: None,
            is_explained: false,
        }
    }

    /// Returns the source for deliveries that nobody sent, such as the body of a file. They are not
    /// verified.
    pub fn explained(self) -> Self {
        Self { is_explained: true, ..self }
    }

    /// Returns the path that deliveries are posted to.
    pub fn path(&self) -> String {
        format!("{PATH}{}", self.name)
    }

    /// Returns `false` if the vendor signs in a header, and the delivery lacks that header.
    pub fn has_signature(&self, delivery: &Delivery) -> bool {
        self.is_explained || self.vendor.has_signature(delivery)
    }

    pub fn is_served(&self) -> bool {
        self.is_explained || !self.secrets.is_empty()
    }

    /// Returns the request for the certificate or key that a delivery is signed with.
    ///
    /// # Errors
    /// Fails with [`Error::Signature`] if the delivery cannot be genuine.
    pub(crate) fn needs(
        &self,
        delivery: &Delivery,
        tolerance: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<Option<Fetch>, Error> {
        if self.is_explained {
            return Ok(None);
        }
        let (secrets, url, fetched) = (&self.secrets[..], None, None);
        self.vendor.needs(&Check { delivery, secrets, url, tolerance, now, fetched })
    }

    /// Checks that the source's vendor sent a delivery.
    ///
    /// # Errors
    /// Fails with [`Error::Signature`] if the signature is missing, wrong or stale, and with
    /// [`Error::NotFetched`] if it needs a certificate or key that was not fetched.
    pub(crate) fn verify(
        &self,
        delivery: &Delivery,
        fetched: Option<&Fetched>,
        tolerance: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        if self.is_explained {
            return Ok(());
        }
        let address = self.address.as_ref().filter(|_| self.vendor.signs_url());
        let url = address.map(|address| address.of(delivery));
        let (secrets, url) = (&self.secrets[..], url.as_deref());
        self.vendor.verify(&Check { delivery, secrets, url, tolerance, now, fetched })
    }
}

/// The configured sources.
#[derive(Debug, Clone, Default)]
pub struct Sources(Vec<Arc<Source>>);

impl Sources {
    pub fn new(sources: Vec<Source>) -> Self {
        Self(sources.into_iter().map(Arc::new).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter().map(|source| &**source)
    }

    /// Adds a source, and replaces a source of the same name.
    pub fn insert(&mut self, source: Source) {
        self.0.retain(|other| other.name != source.name);
        self.0.push(Arc::new(source));
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Source>> {
        self.0.iter().find(|source| source.name == name)
    }

    /// Returns the source that receives deliveries to this path.
    ///
    /// # Errors
    /// Fails with [`Error::UnknownPath`], or [`Error::NotServed`] with the variable to set.
    pub fn at(&self, path: &str) -> Result<&Arc<Source>, Error> {
        let name = path.strip_prefix(PATH).ok_or(Error::UnknownPath)?;
        match self.get(name) {
            Some(source) if source.is_served() => Ok(source),
            Some(source) => Err(Error::NotServed {
                vendor: source.name.clone(),
                variable: source.secrets_from.clone(),
            }),
            None if is_vendor(name) => {
                Err(Error::NotServed { vendor: name.to_owned(), variable: secrets_variable(name) })
            }
            None => Err(Error::UnknownPath),
        }
    }
}
