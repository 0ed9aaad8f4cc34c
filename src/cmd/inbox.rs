//! The invocations of the inbox: the messages of the queue, and the schedule.
//!
//! SQS invokes the function with up to ten messages of events and of copies for mirrors
//! (<https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html>). A schedule invokes it with
//! `{"inbox": "due"}`. A front puts each request inside an event. So a sender can cause neither of
//! these two invocations.

use chrono::DateTime;
use lambda_runtime::Context;
use serde::{Deserialize, Serialize, de::IgnoredAny};

use super::{after_answer, function::Function};
use crate::{
    inbox::{Message, Sent},
    mirror::Parcel,
    outcome::Origin,
    queue::Packed,
    telemetry,
};

/// An invocation of the inbox.
pub(super) enum Request {
    Messages {
        events: Vec<Message>,
        copies: Vec<Parcel>,
    },
    /// The schedule.
    Due,
}

/// The answer to an invocation of the inbox.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Report {
    /// The messages that SQS must bring again
    /// (<https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>).
    Messages {
        #[serde(rename = "batchItemFailures")]
        failures: Vec<Failure>,
    },
    Due(Sent),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Failure {
    item_identifier: String,
}

/// The reason why an inbox run or a batch of messages failed as a whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum InboxError {
    #[error("inbox: set QUEUE_URL, or remove the schedule")]
    NoQueue,
    #[error("inbox: bug: a panic")]
    Panic(#[from] tokio::task::JoinError),
}

/// Returns the request of the inbox in an invocation, or `None` for an event of a front and anything
/// else.
pub(super) fn request(payload: &str) -> Option<Request> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Invocation {
        #[serde(rename = "Records")]
        records: Option<Vec<Received>>,
        inbox: Option<Wish>,
        request_context: Option<IgnoredAny>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Wish {
        Due,
    }
    let invocation: Invocation = serde_json::from_str(payload).ok()?;
    match invocation {
        Invocation { request_context: Some(_), .. } => None,
        Invocation { inbox: Some(Wish::Due), records: None, .. } => Some(Request::Due),
        Invocation { records: Some(records), inbox: None, .. } => Some(messages(records)),
        Invocation { .. } => None,
    }
}

/// Divides the messages of a batch into those of events and those of copies.
fn messages(records: Vec<Received>) -> Request {
    let (mut events, mut copies) = (Vec::new(), Vec::new());
    for mut record in records {
        let copy = value(record.message_attributes.copy.take());
        let message = Message::from(record);
        match (message.key, message.destination, copy) {
            (Some(key), Some(destination), Some(copy)) => {
                let (bytes, copy) = (message.bytes, Packed(copy));
                copies.push(Parcel { key, destination, bytes, copy });
            }
            _ => events.push(message),
        }
    }
    Request::Messages { events, copies }
}

/// A message as SQS hands it over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Received {
    message_id: String,
    #[serde(rename = "eventSource")]
    _source: Sqs,
    body: String,
    #[serde(default)]
    message_attributes: Attributes,
}

/// The name of the service. Records of other services are not taken for messages.
#[derive(Deserialize)]
enum Sqs {
    #[serde(rename = "aws:sqs")]
    Sqs,
}

#[derive(Deserialize, Default)]
struct Attributes {
    destination: Option<Attribute>,
    up_at: Option<Attribute>,
    bytes: Option<Attribute>,
    copy: Option<Attribute>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attribute {
    string_value: Option<String>,
}

fn value(attribute: Option<Attribute>) -> Option<String> {
    attribute.and_then(|one| one.string_value)
}

impl From<Received> for Message {
    fn from(received: Received) -> Self {
        let Received { message_id, body, message_attributes, .. } = received;
        let destination = value(message_attributes.destination);
        let up_at = value(message_attributes.up_at).and_then(|millis| millis.parse().ok());
        let bytes = value(message_attributes.bytes).and_then(|bytes| bytes.parse().ok());
        Self {
            id: message_id,
            key: body.parse().ok(),
            destination: destination.and_then(|name| name.parse().ok()),
            up_at: up_at.and_then(DateTime::from_timestamp_millis),
            bytes: bytes.unwrap_or_default(),
        }
    }
}

/// Delivers what messages bring, or sends messages for what is due.
pub(super) async fn run(
    function: &Function,
    request: Request,
    context: &Context,
    origin: Origin,
) -> Result<Report, InboxError> {
    let budget = || function.budget(context);
    match request {
        Request::Messages { events, copies } => {
            let again = function.inbox.consume(events, budget, &origin).await;
            // The copies come after the events, so that a mirror delays none of them. While the
            // instance waits for the copies to be sent, it occupies one of the places that
            // `InboxConcurrency` limits. So a mirror takes no instance away from senders. A copy
            // that fails is not sent again.
            copies.into_iter().for_each(|copy| function.router.bring(copy));
            if let Some(mirrors) = function.router.mirrors() {
                after_answer::finish(mirrors, context.deadline()).await;
            }
            let failures = again.into_iter().map(|item_identifier| Failure { item_identifier });
            Ok(Report::Messages { failures: failures.collect() })
        }
        Request::Due => {
            let queue = function.router.queue().ok_or(InboxError::NoQueue)?;
            let sent = function.inbox.send_due(queue, budget, &origin).await;
            telemetry::scheduled(&sent);
            Ok(Report::Due(sent))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn messages(payload: &Value) -> Vec<Message> {
        match request(&payload.to_string()) {
            Some(Request::Messages { events, copies }) if copies.is_empty() => events,
            _ => panic!("no messages: {payload}"),
        }
    }

    #[test]
    fn messages_are_read_as_sqs_hands_them_over() {
        let key = format!("webhook:dedup:{}", "0f".repeat(32));
        let record = |body: &str, attributes: Value| {
            json!({
                "messageId": "one",
                "receiptHandle": "handle",
                "body": body,
                "attributes": { "ApproximateReceiveCount": "1", "MessageGroupId": "stripe" },
                "messageAttributes": attributes,
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:inbox",
            })
        };
        let named = json!({
            "destination": { "stringValue": "aws", "dataType": "String" },
            "up_at": { "stringValue": "1000", "dataType": "Number" },
            "bytes": { "stringValue": "5000", "dataType": "Number" },
        });
        let unknown = json!({ "destination": { "stringValue": "Mars!", "dataType": "String" } });
        for (record, is_key, destination) in [
            (record(&key, named), true, Some(crate::route::Route::AWS)),
            (record(&key, unknown), true, None),
            (record(&key, json!({})), true, None),
            (record("nonsense", json!({})), false, None),
        ] {
            let read = messages(&json!({ "Records": [record] }));
            assert_eq!((read.len(), read[0].id.as_str()), (1, "one"));
            assert_eq!((read[0].key.is_some(), read[0].destination), (is_key, destination));
            let is_whole = destination.is_some();
            assert_eq!((read[0].up_at.is_some(), read[0].bytes > 0), (is_whole, is_whole));
        }
    }

    #[test]
    fn copies_are_no_messages_of_events() {
        let key = format!("webhook:dedup:{}", "0f".repeat(32));
        let text = |value: &str| json!({ "stringValue": value, "dataType": "String" });
        let record = |body: &str, attributes: Value| {
            let (id, source) = ("1", "aws:sqs");
            json!({
                "messageId": id, "eventSource": source, "body": body,
                "messageAttributes": attributes,
            })
        };
        let copy = json!({ "destination": text("eu"), "bytes": text("7"), "copy": text("packed") });
        let unnamed = json!({ "copy": text("packed") });
        for (body, attributes, expected) in [
            (key.as_str(), copy.clone(), (0, 1)),
            (key.as_str(), json!({ "destination": text("eu") }), (1, 0)),
            // These fail like any other message that cannot be read.
            ("nonsense", copy, (1, 0)),
            (key.as_str(), unnamed, (1, 0)),
        ] {
            let batch = json!({ "Records": [record(body, attributes)] }).to_string();
            let Some(Request::Messages { events, copies }) = request(&batch) else {
                panic!("{batch}");
            };
            assert_eq!((events.len(), copies.len()), expected, "{batch}");
            for Parcel { key: of, destination, bytes, copy: Packed(text) } in copies {
                assert_eq!((of.to_string(), destination.as_str()), (key.clone(), "eu"));
                assert_eq!((bytes, text.as_str()), (7, "packed"));
            }
        }
    }

    #[test]
    fn nothing_else_is_a_request_of_the_inbox() {
        assert!(matches!(request(r#"{"inbox": "due"}"#), Some(Request::Due)));
        let of_sqs = r#"{"messageId": "1", "eventSource": "aws:sqs", "body": "x"}"#;
        for payload in [
            r#"{"inbox": "all"}"#.to_owned(),
            r#"{"inbox": "due", "requestContext": {"http": {}}}"#.to_owned(),
            format!(r#"{{"Records": [{of_sqs}], "requestContext": {{"elb": {{}}}}}}"#),
            format!(r#"{{"Records": [{of_sqs}], "inbox": "due"}}"#),
            of_sqs.replace("aws:sqs", "aws:s3"),
            format!(r#"{{"Records": [{}]}}"#, of_sqs.replace("aws:sqs", "aws:s3")),
            r#"{"Records": [{"body": "x"}]}"#.to_owned(),
            "[]".to_owned(),
        ] {
            assert!(request(&payload).is_none(), "{payload}");
        }
    }

    #[test]
    fn the_answer_names_the_messages_that_must_come_again() {
        let failures = vec![Failure { item_identifier: "one".into() }];
        let answer = serde_json::to_value(Report::Messages { failures }).unwrap();
        assert_eq!(answer, json!({ "batchItemFailures": [{ "itemIdentifier": "one" }] }));
    }
}
