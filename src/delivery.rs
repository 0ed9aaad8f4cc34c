//! One HTTP request from a vendor, and the answer to it. Neither depends on the types of a server.

use std::fmt;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{CONTENT_TYPE, HeaderName},
};

/// One HTTP request from a vendor. Several deliveries may carry the same event.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery {
    pub method: Method,
    /// The path as it was requested, percent-encoded, without the query.
    pub path: String,
    /// The query as it was requested, percent-encoded, without the question mark. Some vendors
    /// sign it.
    pub query: Option<String>,
    pub headers: HeaderMap,
    /// The exact bytes of the body. Base64 from a Function URL is already decoded.
    pub body: Bytes,
}

/// Headers of the trace context: W3C's two, AWS's and Google Cloud's.
pub const TRACE_HEADERS: [&str; 4] =
    ["traceparent", "tracestate", "x-amzn-trace-id", "x-cloud-trace-context"];

impl Delivery {
    /// Returns the delivery as the store keeps it. Of the headers, it has only those that a replay
    /// forwards: content type, trace context and the vendor's `signature_headers`. Cookies and
    /// credentials are left out: they have no use after verification, and a reader of the store
    /// must not find them.
    pub fn kept(&self, signature_headers: &[HeaderName]) -> Self {
        let is_forwarded = |name: &HeaderName| {
            *name == CONTENT_TYPE
                || TRACE_HEADERS.contains(&name.as_str())
                || signature_headers.contains(name)
        };
        let headers = self.headers.iter();
        let headers = headers
            .filter(|(name, _)| is_forwarded(name))
            .map(|(name, value)| (name.clone(), value.clone()));
        Self { headers: headers.collect(), ..self.clone() }
    }

    /// Returns the value of a header if it is visible ASCII and the header occurs only once.
    pub fn single_header(&self, name: &HeaderName) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    }

    /// Returns the first value of a header if it is visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

// A payload, a signature or a token in the query must not reach a log line through `{:?}`.
impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, path, headers, body, .. } = self;
        write!(f, "Delivery({method} {path}, {} headers, {} bytes)", headers.len(), body.len())
    }
}

/// An HTTP answer: to the sender, or from a destination.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// Creates a plain-text reply.
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        Self {
            status,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, plain)]),
            body: body.into().into(),
        }
    }

    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Returns the content type if it is visible ASCII.
    pub fn content_type(&self) -> Option<&str> {
        self.headers.get(CONTENT_TYPE)?.to_str().ok()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({}, {} bytes)", self.status, self.body.len())
    }
}
