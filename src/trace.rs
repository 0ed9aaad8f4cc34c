//! The trace that a delivery belongs to. It goes to the destination and to the log.

use crate::{
    delivery::{Delivery, TRACE_HEADERS},
    hex_digits::hex,
};

/// Longest value that is passed on, in bytes. A valid tracestate has at most 512 characters.
const MAX_BYTES: usize = 512;

/// The trace context of a delivery, in the forms of W3C
/// (<https://www.w3.org/TR/trace-context/>), AWS
/// (<https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>)
/// and Google Cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// 32 hex digits.
    pub id: String,
    /// The id of Lambda's own trace, in the same form. Present only if the sender's trace is
    /// another one.
    pub lambda_id: Option<String>,
    /// The names and values of the headers.
    pub headers: Vec<(&'static str, String)>,
}

impl Trace {
    /// Uses the delivery's `traceparent`, else Lambda's trace, else the delivery's
    /// `X-Amzn-Trace-Id`, else starts a new trace that is not sampled. If only one of the W3C and
    /// AWS forms is present, the other is derived from it.
    pub fn of(delivery: &Delivery, lambda: Option<&str>) -> Self {
        let [w3c_name, state_name, amazon_name, google_name] = TRACE_HEADERS;
        let came = |name| delivery.header(name).filter(|value| value.len() <= MAX_BYTES);
        // Lambda's own trace has the parent and the sampling decision. The header that a Function
        // URL adds lacks them.
        let amazon = lambda.or(came(amazon_name));
        let w3c = came(w3c_name).and_then(Parent::of_w3c);
        // A tracestate belongs to its traceparent, and means nothing without it.
        let state = came(state_name).filter(|_| w3c.is_some());
        let parent = w3c.or_else(|| amazon.and_then(Parent::of_amazon)).unwrap_or_else(Parent::new);
        let mut headers = vec![(w3c_name, parent.to_w3c())];
        headers.extend(state.map(|state| (state_name, state.to_owned())));
        let amazon = amazon.map_or_else(|| parent.to_amazon(), str::to_owned);
        headers.push((amazon_name, amazon));
        let google = came(google_name);
        headers.extend(google.map(|value| (google_name, value.to_owned())));
        let lambda_id = lambda.and_then(Parent::of_amazon).map(|lambda| lambda.trace);
        let lambda_id = lambda_id.filter(|id| *id != parent.trace);
        Self { id: parent.trace, lambda_id, headers }
    }
}

/// The fields that all forms share.
struct Parent {
    /// 32 hex digits.
    trace: String,
    /// 16 hex digits.
    span: String,
    is_sampled: bool,
}

impl Parent {
    fn new() -> Self {
        let (trace, span) = (rand::random::<[u8; 16]>(), rand::random::<[u8; 8]>());
        Self { trace: hex(&trace), span: hex(&span), is_sampled: false }
    }

    /// Reads `00-<trace>-<span>-<flags>`. Later versions may append fields.
    fn of_w3c(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_known =
            is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
        let flags = u8::from_str_radix(flags, 16).ok().filter(|_| is_hex(flags, 2))?;
        let is_valid = is_known && is_id(trace, 32) && is_id(span, 16);
        is_valid.then(|| Self {
            trace: trace.to_owned(),
            span: span.to_owned(),
            is_sampled: flags & 1 == 1,
        })
    }

    /// Reads `Root=1-<8 digits>-<24 digits>;Parent=<span>;Sampled=<0 or 1>`. Only the root is
    /// always present.
    fn of_amazon(text: &str) -> Option<Self> {
        let field = |wanted: &str| {
            let mut fields = text.split(';').filter_map(|field| field.trim().split_once('='));
            fields.find(|(name, _)| *name == wanted).map(|(_, value)| value)
        };
        let (time, rest) = field("Root")?.strip_prefix("1-")?.split_once('-')?;
        let trace = format!("{time}{rest}");
        let span = field("Parent").filter(|span| is_id(span, 16)).map(str::to_owned);
        is_id(&trace, 32).then(|| Self {
            trace,
            span: span.unwrap_or_else(|| Self::new().span),
            is_sampled: field("Sampled") == Some("1"),
        })
    }

    fn to_w3c(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.is_sampled))
    }

    fn to_amazon(&self) -> String {
        let (time, rest) = self.trace.split_at(8);
        let sampled = u8::from(self.is_sampled);
        format!("Root=1-{time}-{rest};Parent={};Sampled={sampled}", self.span)
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns whether a text is hex digits that are not all zero.
fn is_id(text: &str, length: usize) -> bool {
    is_hex(text, length) && text.bytes().any(|byte| byte != b'0')
}
