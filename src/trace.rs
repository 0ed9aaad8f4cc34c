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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const ID: &str = "0af7651916cd43dd8448eb211c80319c";
    const W3C: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const AMAZON: &str =
        "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1";
    const LAMBDA: &str = "Root=1-5e6b4a90-example0000000000000000a;Sampled=0";

    fn trace(headers: &[(&'static str, &str)], lambda: Option<&str>) -> Trace {
        Trace::of(&testing::delivery("/webhook", headers, ""), lambda)
    }

    fn header<'a>(trace: &'a Trace, wanted: &str) -> Option<&'a str> {
        let found = trace.headers.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, value)| value.as_str())
    }

    #[test]
    fn the_senders_trace_goes_on_in_both_forms() {
        for came in [[("traceparent", W3C)], [("x-amzn-trace-id", AMAZON)]] {
            let trace = trace(&came, None);
            assert_eq!(trace.id, ID);
            assert_eq!(header(&trace, "traceparent"), Some(W3C));
            assert_eq!(header(&trace, "x-amzn-trace-id"), Some(AMAZON));
            assert_eq!(trace.lambda_id, None);
        }
    }

    #[test]
    fn the_flags_say_whether_a_trace_is_sampled() {
        for (flags, sampled) in [("00", "Sampled=0"), ("03", "Sampled=1"), ("02", "Sampled=0")] {
            let trace = trace(&[("traceparent", &format!("{}{flags}", &W3C[..53]))], None);
            assert!(header(&trace, "x-amzn-trace-id").unwrap().ends_with(sampled), "{flags}");
        }
    }

    #[test]
    fn lambdas_trace_is_used_where_the_sender_has_no_traceparent_and_is_else_named() {
        let lambda = LAMBDA.replace("example", "0123456");
        let of_lambda = trace(&[("x-amzn-trace-id", AMAZON)], Some(&lambda));
        assert_eq!(of_lambda.id, "5e6b4a9001234560000000000000000a");
        assert_eq!((of_lambda.lambda_id.as_deref(), of_lambda.headers.len()), (None, 2));
        assert_eq!(header(&of_lambda, "x-amzn-trace-id"), Some(lambda.as_str()));

        let of_sender = trace(&[("traceparent", W3C)], Some(&lambda));
        assert_eq!((of_sender.id.as_str(), of_sender.lambda_id), (ID, Some(of_lambda.id.clone())));
        // The root alone has no parent, so one is made.
        assert_eq!(header(&of_lambda, "traceparent").unwrap().len(), 55);
    }

    #[test]
    fn what_cannot_be_read_starts_a_new_trace() {
        let zeros = "0".repeat(32);
        let long = format!("{W3C}{}", "-x".repeat(300));
        for wrong in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-+1",
            &format!("00-{zeros}-b7ad6b7169203331-01"),
            &format!("01{}", &long[2..]),
        ] {
            let trace = trace(&[("traceparent", wrong), ("tracestate", "a=1")], Some(LAMBDA));
            assert!(is_id(&trace.id, 32) && trace.id != ID, "{wrong}: {}", trace.id);
            assert!(header(&trace, "traceparent").unwrap().ends_with("-00"), "{wrong}");
            assert_eq!(header(&trace, "tracestate"), None, "{wrong}");
        }
        let later = format!("01{}-more", &W3C[2..]);
        assert_eq!(trace(&[("traceparent", &later)], None).id, ID);
    }

    #[test]
    fn the_other_headers_of_a_trace_go_on_as_they_came() {
        let came =
            [("traceparent", W3C), ("tracestate", "a=1"), ("x-cloud-trace-context", "abc/1;o=1")];
        let trace = trace(&came, None);
        assert_eq!(header(&trace, "tracestate"), Some("a=1"));
        assert_eq!(header(&trace, "x-cloud-trace-context"), Some("abc/1;o=1"));
    }
}
