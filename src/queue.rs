//! The queue whose messages wake the function: one message for each attempt at an accepted event, and
//! one for each copy of an event for a mirror.
//!
//! It is a standard SQS queue. Such a queue may bring a message twice, late, or in another order
//! (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/standard-queues-at-least-once-delivery.html>).
//! That does no harm: the message of an attempt holds a key and no body, and the store decides whether
//! its event is due. A message that cannot be sent, or is lost, loses nothing: the store lists the
//! event.
//!
//! The message of a copy also holds the key of its event, which is delivered already. So a version of
//! the router that does not know copies finds nothing to do.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_config::SdkConfig;
use aws_sdk_sqs::{
    Client,
    config::{retry::RetryConfig, timeout::TimeoutConfig},
    types::{MessageAttributeValue, QueueAttributeName, SendMessageBatchRequestEntry},
};
use chrono::{DateTime, TimeDelta, Utc};
use tokio::{sync::OnceCell, time::timeout};

use crate::{aws, finding::Finding, key::Key, route::Route};

/// Most messages of one request.
pub const AT_ONCE: usize = 10;

/// Longest time for which SQS delays a message.
pub const MAX_DELAY: Duration = Duration::from_secs(900);

/// The attribute of a message that names the destination.
pub const DESTINATION: &str = "destination";

/// The attribute of a message that has the time at which the destination was up, in milliseconds
/// since 1970.
const UP_AT: &str = "up_at";

/// The attribute of a message that has the length of the event's body, or of a copy, unpacked.
const BYTES: &str = "bytes";

/// The attribute of a message that has a copy of an event.
const COPY: &str = "copy";

/// Longest copy in a message. SQS takes messages of up to 1 MiB, with the names, types and values of
/// all attributes
/// (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>).
pub const MAX_COPY_BYTES: usize = 1024 * 1024 - 1024;

/// Time limit for a request, with one repetition, while the sender of an event waits for it.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Time limit for a request, with one repetition, while no sender waits for it.
const PATIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of requests that fail in a row until acceptances and postponements do without messages.
const FAILURES: u32 = 2;

/// Time for which acceptances and postponements then do without messages.
const PAUSE: TimeDelta = TimeDelta::seconds(30);

/// The group of messages without a source.
const NO_SOURCE: &str = "envelope";

/// The group of copies, so that many of them do not hold up the messages of events. No source has this
/// name.
const COPIES: &str = "_mirror";

/// The subject of a finding.
const SUBJECT: &str = "QUEUE_URL";

const NO_ANSWER: &str = "SQS did not answer in time";

/// Most characters of a group.
const MAX_GROUP_CHARS: usize = 63;

/// A message that brings an event or a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub key: Key,
    pub destination: Route,
    /// The group of the message. SQS serves the groups of a queue fairly
    /// (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html>).
    group: String,
    delay: Duration,
    bytes: usize,
    up_at: Option<DateTime<Utc>>,
    copy: Option<Packed>,
}

/// A copy of an event, as text. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Packed(pub String);

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packed({} bytes)", self.0.len())
    }
}

impl Message {
    /// Creates a message that SQS delivers at once. `source` is the event's source, if it has one, and
    /// `bytes` is the length of its body.
    pub fn new(key: Key, destination: Route, source: Option<&str>, bytes: usize) -> Self {
        let is_allowed = |one: &char| one.is_ascii_alphanumeric() || *one == '-';
        let name = source.unwrap_or_default().chars().filter(is_allowed).take(MAX_GROUP_CHARS);
        let name: String = name.map(|one| one.to_ascii_lowercase()).collect();
        let group = if name.is_empty() { NO_SOURCE.into() } else { name };
        Self { key, destination, group, delay: Duration::ZERO, bytes, up_at: None, copy: None }
    }

    /// Creates a message with a copy of an event. `bytes` is the size of the copy when it is unpacked.
    pub fn of_copy(key: Key, destination: Route, bytes: usize, copy: Packed) -> Self {
        let message = Self::new(key, destination, None, bytes);
        Self { group: COPIES.into(), copy: Some(copy), ..message }
    }

    /// Returns the same message, which SQS delivers after a delay.
    pub fn with_delay(self, delay: Duration) -> Self {
        Self { delay: delay.min(MAX_DELAY), ..self }
    }

    /// Returns the same message with a time at which the destination was up. From it, an instance
    /// that has seen an earlier failure learns that the destination is up again.
    pub fn with_up_at(self, up_at: Option<DateTime<Utc>>) -> Self {
        Self { up_at, ..self }
    }

    /// Returns the delay in seconds, rounded up, so that the message does not come before its event
    /// is due. For an event that is due after the longest delay of SQS, the caller sends no
    /// message.
    fn delay_seconds(&self) -> i32 {
        self.delay.as_secs_f64().ceil() as i32
    }
}

/// Messages that SQS did not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unsent {
    pub count: usize,
    reason: String,
}

/// The queue that QUEUE_URL names.
pub struct Queue {
    url: String,
    /// Created for the first message.
    client: OnceCell<Client>,
    health: Mutex<Health>,
}

/// Knows whether SQS takes messages.
#[derive(Debug, Default)]
struct Health {
    /// The number of requests that failed since the last one that did not.
    failures: u32,
    /// The time of the next request, if requests fail. By the wall clock, which continues while
    /// Lambda freezes the process.
    next: DateTime<Utc>,
}

impl Health {
    /// Returns whether a request is worth waiting for.
    fn is_good(&self, now: DateTime<Utc>) -> bool {
        // The clock may have been set back.
        self.failures < FAILURES || self.next <= now || self.next > now + PAUSE
    }

    /// Returns whether a request may begin. While requests fail, one may begin each half a minute.
    fn begin(&mut self, now: DateTime<Utc>) -> bool {
        let may_begin = self.is_good(now);
        if may_begin {
            self.next = now + PAUSE;
        }
        may_begin
    }

    fn learn(&mut self, now: DateTime<Utc>, is_sent: bool) {
        self.failures = if is_sent { 0 } else { self.failures.saturating_add(1) };
        self.next = now + PAUSE;
    }
}

impl Queue {
    /// Creates a queue with the region, credentials and endpoint of the standard AWS settings. It
    /// does not connect yet.
    pub fn new(url: String) -> Self {
        Self { url, client: OnceCell::new(), health: Mutex::default() }
    }

    /// Creates a queue with the caller's AWS settings.
    pub fn with_sdk_config(url: String, sdk: &SdkConfig) -> Self {
        let client = OnceCell::new_with(Some(client(sdk)));
        Self { url, client, health: Mutex::default() }
    }

    async fn client(&self) -> &Client {
        self.client.get_or_init(|| async { client(aws::sdk_config().await) }).await
    }

    /// Returns whether SQS takes messages, as far as this process knows.
    pub fn is_up(&self) -> bool {
        self.health().is_good(Utc::now())
    }

    /// Sends a message within a second. After two requests in a row that failed, it fails at once for
    /// half a minute, so that senders do not wait for a service that is down.
    ///
    /// # Errors
    /// Fails if SQS does not take the message, or does not answer in time.
    pub async fn send(&self, message: Message) -> Result<(), Unsent> {
        if !self.health().begin(Utc::now()) {
            let reason = "not tried, because the last requests to SQS failed".to_owned();
            return Err(Unsent { count: 1, reason });
        }
        self.send_within(TIMEOUT, &[message]).await
    }

    /// Sends up to [`AT_ONCE`] messages with one request, and waits for up to ten seconds, but not
    /// longer than `limit`.
    ///
    /// # Errors
    /// Fails if SQS does not take all of them, or does not answer in time.
    pub async fn send_patiently(
        &self,
        messages: &[Message],
        limit: Duration,
    ) -> Result<(), Unsent> {
        self.send_within(limit.min(PATIENT_TIMEOUT), messages).await
    }

    /// Sends the message of a copy. Its failure does not count for other messages: their senders
    /// still try.
    ///
    /// # Errors
    /// Fails if SQS does not take the message, or does not answer in time.
    pub async fn send_copy(&self, message: Message, limit: Duration) -> Result<(), Unsent> {
        self.try_to_send(limit, &[message]).await
    }

    /// Asks SQS about the queue, and waits no longer than `limit`. It sends no message.
    pub async fn examine(&self, limit: Duration) -> Finding {
        let asked = async {
            let request = self.client().await.get_queue_attributes().queue_url(&self.url);
            let request = request.attribute_names(QueueAttributeName::QueueArn);
            request.customize().config_override(limits(limit)).send().await
        };
        let asked = match timeout(limit, asked).await {
            Ok(answer) => answer.map(drop).map_err(|error| aws::describe(&error)),
            Err(_) => Err(NO_ANSWER.into()),
        };
        self.finding(asked)
    }

    fn finding(&self, asked: Result<(), String>) -> Finding {
        let url = &self.url;
        match asked {
            Ok(()) => Finding::ok(SUBJECT, format!("{url} answers")),
            // A role that sends messages need not have this permission.
            Err(reason) if reason.contains("AccessDenied") => Finding::ok(
                SUBJECT,
                format!("{url} answers; this role may not read it (sqs:GetQueueAttributes)"),
            ),
            Err(reason) => Finding::error(
                SUBJECT,
                format!(
                    "{url} cannot be used, so accepted events pile up ({reason}): correct the URL, \
                     or the network's way to SQS"
                ),
            ),
        }
    }

    async fn send_within(&self, limit: Duration, messages: &[Message]) -> Result<(), Unsent> {
        let sent = self.try_to_send(limit, messages).await;
        self.health().learn(Utc::now(), sent.is_ok());
        sent
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn try_to_send(&self, limit: Duration, messages: &[Message]) -> Result<(), Unsent> {
        let unsent = |count, reason| Err(Unsent { count, reason });
        let entries = messages.iter().enumerate().map(|(index, message)| {
            let attribute = |data_type: &str, value: String| {
                MessageAttributeValue::builder().data_type(data_type).string_value(value).build()
            };
            let destination = attribute("String", message.destination.as_str().into())?;
            let bytes = attribute("Number", message.bytes.to_string())?;
            let entry = SendMessageBatchRequestEntry::builder();
            let entry = match message.up_at {
                Some(up_at) => {
                    let up_at = attribute("Number", up_at.timestamp_millis().to_string())?;
                    entry.message_attributes(UP_AT, up_at)
                }
                None => entry,
            };
            let entry = match &message.copy {
                Some(Packed(copy)) => {
                    entry.message_attributes(COPY, attribute("String", copy.clone())?)
                }
                None => entry,
            };
            entry
                .id(index.to_string())
                .message_body(message.key.to_string())
                .message_attributes(DESTINATION, destination)
                .message_attributes(BYTES, bytes)
                .message_group_id(&message.group)
                .delay_seconds(message.delay_seconds())
                .build()
        });
        let entries = match entries.collect::<Result<Vec<_>, _>>() {
            Ok(entries) => entries,
            Err(error) => return unsent(messages.len(), error.to_string()),
        };
        let sent = async {
            let request = self.client().await.send_message_batch().queue_url(&self.url);
            let request = request.set_entries(Some(entries)).customize();
            request.config_override(limits(limit)).send().await
        };
        match timeout(limit, sent).await {
            Err(_) => unsent(messages.len(), NO_ANSWER.into()),
            Ok(Err(error)) => unsent(messages.len(), aws::describe(&error)),
            Ok(Ok(answer)) => match answer.failed().first() {
                Some(first) => unsent(answer.failed().len(), first.code().to_owned()),
                None => Ok(()),
            },
        }
    }
}

fn client(sdk: &SdkConfig) -> Client {
    let retry = RetryConfig::standard()
        .with_max_attempts(2)
        .with_initial_backoff(Duration::from_millis(25));
    // A doubled message does no harm, so a request may be repeated.
    Client::from_conf(aws_sdk_sqs::config::Builder::from(sdk).retry_config(retry).build())
}

/// Returns the settings of a request that may take this long, with its repetition.
fn limits(limit: Duration) -> aws_sdk_sqs::config::Builder {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(limit / 4)
        .operation_attempt_timeout(limit / 2)
        .operation_timeout(limit);
    aws_sdk_sqs::Config::builder().timeout_config(timeouts.build())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Identity;
    use crate::testing;

    fn message(source: Option<&str>, millis: u64) -> Message {
        let key = testing::plan(Identity::Content, "one").key;
        Message::new(key, Route::GCP, source, 0).with_delay(Duration::from_millis(millis))
    }

    #[test]
    fn a_message_never_comes_before_its_event_is_due() {
        for (millis, seconds) in
            [(0, 0), (1, 1), (1000, 1), (1001, 2), (899_001, 900), (900_000, 900), (5_000_000, 900)]
        {
            assert_eq!(message(None, millis).delay_seconds(), seconds, "{millis}");
        }
    }

    #[test]
    fn a_queue_that_may_not_be_read_is_no_problem_and_one_that_cannot_be_reached_is() {
        let queue = Queue::new("https://sqs.eu-west-1.amazonaws.com/123456789012/inbox".into());
        let problem = |reason: &str| queue.finding(Err(reason.into())).is_problem();
        assert!(!queue.finding(Ok(())).is_problem());
        assert!(!problem("AccessDenied (request 1)") && !problem("AccessDeniedException (…)"));
        assert!(problem("AWS.SimpleQueueService.NonExistentQueue (request 1)"));
        assert!(problem(NO_ANSWER));
    }

    #[test]
    fn after_two_failures_one_request_in_half_a_minute_is_waited_for() {
        let (mut health, now) = (Health::default(), DateTime::UNIX_EPOCH + TimeDelta::days(1));
        let at = |seconds| now + TimeDelta::seconds(seconds);
        for second in 0..2 {
            assert!(health.begin(at(second)));
            health.learn(at(second), false);
        }
        assert!(!health.is_good(at(30)) && !health.begin(at(30)));
        // Other senders do not wait for this request either.
        assert!(health.is_good(at(31)) && health.begin(at(31)) && !health.begin(at(32)));
        health.learn(at(32), false);
        assert!(!health.begin(at(61)) && health.begin(at(62)));
        health.learn(at(62), true);
        assert!(health.begin(at(62)));
        health.learn(at(63), false);
        assert!(health.begin(at(63)));
    }

    #[test]
    fn a_source_is_a_group_that_sqs_takes() {
        let long = "x".repeat(200);
        for (source, group) in [
            (None, "envelope"),
            (Some("stripe-eu"), "stripe-eu"),
            (Some("Zahlung für"), "zahlungfr"),
            (Some("…"), "envelope"),
            (Some(&*long), &long[..63]),
        ] {
            assert_eq!(message(source, 0).group, group);
        }
    }
}
