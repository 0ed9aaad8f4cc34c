//! A copy of an event, and its form in a message of the queue.
//!
//! A message holds the whole copy, because no store keeps the body of a delivered event. A copy is
//! a head in JSON, and the body. Both are compressed together, and are base64, because a message is
//! text.

use std::{
    io::{self, Write as _},
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::{
    delivery::{Delivery, TRACE_HEADERS},
    key::Key,
    plan::Plan,
    queue::{MAX_COPY_BYTES, Packed},
    route::Route,
    source::Source,
    store::{DeliveryHead, Details},
};

/// Largest compressed copy whose base64 fits into a message.
const MAX_COMPRESSED: usize = MAX_COPY_BYTES / 4 * 3;

/// A copy of an event: the delivery as a store keeps it, with the trace context that the event's
/// destination got.
pub struct Copy {
    pub delivery: Delivery,
    pub plan: Plan,
}

/// A copy in a message of the queue.
pub struct Parcel {
    pub key: Key,
    /// The destination of the event.
    pub destination: Route,
    /// Size of the copy when it is unpacked.
    pub bytes: usize,
    pub copy: Packed,
}

/// The part of a packed copy before the body.
#[derive(Serialize, Deserialize)]
struct Head {
    sent_at: DateTime<Utc>,
    details: Details,
    delivery: DeliveryHead,
}

impl Copy {
    pub fn new(delivery: &Delivery, plan: &Plan, trace: &[(&'static str, String)]) -> Self {
        let mut delivery = delivery.kept(&plan.signature_headers());
        for name in TRACE_HEADERS {
            delivery.headers.remove(name);
        }
        let trace = trace.iter().filter_map(|(name, value)| {
            Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?))
        });
        delivery.headers.extend(trace);
        Self { delivery, plan: plan.clone() }
    }

    /// Returns the size of the headers and the body.
    pub fn bytes(&self) -> usize {
        let headers = self.delivery.headers.iter();
        let headers = headers.map(|(name, value)| name.as_str().len() + value.len());
        self.delivery.body.len() + headers.sum::<usize>()
    }

    /// Returns the same copy with a body of its own. The bytes of a delivery count for
    /// MAX_BUFFERED_BYTES as long as somebody holds them.
    pub fn apart(self) -> Self {
        let body = Bytes::copy_from_slice(&self.delivery.body);
        Self { delivery: Delivery { body, ..self.delivery }, plan: self.plan }
    }

    /// Packs the copy for a message. Returns `None` if it does not fit into one.
    pub fn pack(&self) -> Option<Parcel> {
        let Self { delivery, plan } = self;
        let sent_at = Utc::now();
        let details = Details::new(plan, sent_at);
        let head = Head { sent_at, details, delivery: DeliveryHead::of(delivery) };
        let head = serde_json::to_vec(&head).ok()?;
        let bytes = head.len() + delivery.body.len();
        let compressed = compress(&[&head, &delivery.body], bytes).ok()?;
        let copy = Packed(BASE64_STANDARD.encode(compressed));
        Some(Parcel { key: plan.key, destination: plan.route, bytes, copy })
    }
}

impl Parcel {
    /// Returns the copy, and the time at which its message was sent. `source` finds the source that
    /// has a given path. Returns `None` if the parcel is not one of `Copy::pack`.
    pub fn unpack(
        self,
        source: impl FnOnce(&str) -> Option<Arc<Source>>,
    ) -> Option<(Copy, DateTime<Utc>)> {
        let Self { key, bytes, copy: Packed(text), .. } = self;
        let compressed = BASE64_STANDARD.decode(text).ok()?;
        let whole = Bytes::from(zstd::bulk::decompress(&compressed, bytes).ok()?);
        let mut heads = serde_json::Deserializer::from_slice(&whole).into_iter::<Head>();
        let Head { sent_at, details, delivery } = heads.next()?.ok()?;
        let body = whole.slice(heads.byte_offset()..);
        let delivery = delivery.with_body(body).ok()?;
        let source = source(&delivery.path);
        let plan = details.plan(key, source);
        Some((Copy { delivery, plan }, sent_at))
    }
}

/// Compresses the concatenated parts, whose length is `length`.
///
/// # Errors
/// Fails if the result is larger than [`MAX_COMPRESSED`]. The result never takes more
/// memory than that.
fn compress(parts: &[&[u8]], length: usize) -> io::Result<Vec<u8>> {
    let mut room = vec![0; MAX_COMPRESSED];
    let mut encoder = zstd::Encoder::new(&mut room[..], 0)?;
    encoder.set_pledged_src_size(Some(length as u64))?;
    for part in parts {
        encoder.write_all(part)?;
    }
    let left = encoder.finish()?.len();
    room.truncate(MAX_COMPRESSED - left);
    Ok(room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Identity, testing, trace::Trace};

    fn copy(headers: &[(&'static str, &str)], body: &[u8]) -> Copy {
        let delivery = testing::delivery("/webhook", headers, "");
        let delivery = Delivery { body: Bytes::copy_from_slice(body), ..delivery };
        let trace = Trace::of(&delivery, None).headers;
        Copy::new(&delivery, &testing::plan(Identity::Content, "one"), &trace)
    }

    fn random(length: usize) -> Vec<u8> {
        let mut body = vec![0; length];
        rand::fill(&mut body[..]);
        body
    }

    #[test]
    fn a_copy_comes_out_of_its_message_as_it_went_in() {
        let came = [("content-type", "text/csv"), ("tracestate", "a=b"), ("cookie", "no")];
        for body in [&b""[..], b"{\"a\": \"b\"}", b"\x00\xff {", &random(100_000)] {
            let copy = copy(&came, body);
            let (unpacked, _) = copy.pack().unwrap().unpack(|_| None).unwrap();
            assert_eq!(unpacked.delivery, copy.delivery);
            assert_eq!(unpacked.delivery.body, body);
            assert_eq!(unpacked.plan.key, copy.plan.key);
            assert_eq!(unpacked.plan.route, copy.plan.route);
            assert_eq!(unpacked.plan.event.vendor, copy.plan.event.vendor);
            assert_eq!(unpacked.plan.event.event_type, copy.plan.event.event_type);
            // The mirror gets the trace of the event itself. A tracestate is not passed on without
            // a traceparent.
            let trace = Trace::of(&unpacked.delivery, None).headers;
            assert_eq!(trace, Trace::of(&copy.delivery, None).headers);
            assert!(!unpacked.delivery.headers.contains_key("tracestate"));
        }
    }

    #[test]
    fn a_copy_that_is_larger_than_a_message_has_none() {
        let Packed(largest) = copy(&[], &random(MAX_COMPRESSED - 2000)).pack().unwrap().copy;
        assert!(largest.len() <= MAX_COPY_BYTES, "{}", largest.len());
        assert!(copy(&[], &random(MAX_COMPRESSED)).pack().is_none());
        // JSON is smaller when it is compressed.
        assert!(copy(&[], &b"{\"amount\": 1}".repeat(400_000)).pack().is_some());
    }

    #[test]
    fn a_message_that_says_less_than_it_holds_is_not_unpacked() {
        let copy = copy(&[], b"{}");
        let Parcel { key, destination, bytes, copy: Packed(text) } = copy.pack().unwrap();
        let of = |bytes, text: &str| {
            let copy = Packed(text.into());
            Parcel { key, destination, bytes, copy }
        };
        assert!(of(bytes, &text).unpack(|_| None).is_some());
        for (bytes, text) in
            [(bytes - 1, text.as_str()), (bytes, "?"), (bytes, ""), (bytes, "AAAA")]
        {
            assert!(of(bytes, text).unpack(|_| None).is_none(), "{bytes} {text}");
        }
    }
}
