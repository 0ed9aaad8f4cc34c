use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_lambda::error::ErrorMetadata;

use super::*;
use crate::{
    config::{Config, Target},
    event::Identity,
    route::Route,
    testing::{self, Reaction, Sink},
};

fn answered(payload: &str) -> Result<Reply, Unreadable> {
    answer(StatusCode::OK, Bytes::copy_from_slice(payload.as_bytes()))
}

#[test]
fn nothing_unreadable_is_a_success() {
    let deep = |levels: usize| {
        format!(r#"{{"statusCode":200,"a":{}{}}}"#, "[".repeat(levels), "]".repeat(levels))
    };
    let long = format!(r#"{{"statusCode":200,"a":{}}}"#, "7".repeat(4400));
    let status = [
        r#""200""#, r#""500""#, "null", "true", "[200]", "{}", "200.5", "0", "99", "600", "-200",
        "1e400", "2e99",
    ]
    .map(|status| format!(r#"{{"statusCode":{status},"body":"no"}}"#));
    let unreadable = [
        "no",
        "{",
        "NaN",
        " ",
        r#"{"statusCode":500,"body":"no","retry":NaN}"#,
        r#"{"statusCode":200,"retry":NaN}"#,
        r#"{"statusCode":200,"retry":-Infinity}"#,
        r#"{"statusCode":200} {"statusCode":500}"#,
        r#"{"statusCode":200,"statusCode":"500"}"#,
        r#"{"statusCode":200.0}"#,
        r#"{"statusCode":2e2}"#,
        r#"{"statusCode":199.99999999999999999}"#,
        r#"{"statusCode":200.00000000000000001}"#,
        r#"{"statusCode":200,"body":"\ud800"}"#,
        r#"{"statusCode":200,'body':1}"#,
        &long,
        &deep(980),
    ];
    let all = unreadable.into_iter().chain(status.iter().map(String::as_str));
    for payload in all {
        assert!(answered(payload).is_err(), "{}", &payload[..payload.len().min(80)]);
    }
    let no_text = Bytes::from_static(b"{\"statusCode\":200,\"body\":\"\xff\"}");
    assert!(answer(StatusCode::OK, no_text).is_err());
}

#[test]
fn what_can_be_read_counts_by_its_status() {
    let deep = format!(r#"{{"statusCode":201,"body":{}{}}}"#, "[".repeat(900), "]".repeat(900));
    for (payload, status) in [
        (r#"{"statusCode":200,"body":"ok"}"#, 200),
        (r#"{"statusCode":"500","statusCode":204}"#, 204),
        (r#"{"statusCode":599}"#, 599),
        (r#"{"statusCode":100}"#, 100),
        (&deep, 201),
        // The payload is not an HTTP answer, so the whole payload is the reply.
        (r#"{"body":"\ud800"}"#, 200),
        (r#"[{"statusCode":500}]"#, 200),
        (r#"{"answer":{"statusCode":500}}"#, 200),
        ("null", 200),
        ("", 200),
    ] {
        let reply = answered(payload).unwrap();
        assert_eq!(reply.status.as_u16(), status, "{payload:.80}");
    }
    assert_eq!(answer(StatusCode::ACCEPTED, Bytes::new()).unwrap().status, 202);
}

#[test]
fn a_body_is_text_or_base64_or_json() {
    for (payload, body) in [
        (r#"{"statusCode":200}"#, ""),
        (r#"{"statusCode":200,"body":null}"#, ""),
        (r#"{"statusCode":200,"body":"a,b"}"#, "a,b"),
        (r#"{"statusCode":200,"body":"YSxi","isBase64Encoded":true}"#, "a,b"),
        (r#"{"statusCode":200,"body":"YSxi","isBase64Encoded":false}"#, "YSxi"),
        (r#"{"statusCode":200,"body":"no base64!","isBase64Encoded":true}"#, "no base64!"),
        (r#"{"statusCode":200,"body":{"a":1}}"#, r#"{"a":1}"#),
    ] {
        assert_eq!(answered(payload).unwrap().body, body, "{payload}");
    }
    let headers = r#"{"Content-Type":"text/csv","Retry-After":"7","X-N":1,"a b":"c"}"#;
    let reply = answered(&format!(r#"{{"statusCode":503,"headers":{headers}}}"#)).unwrap();
    assert_eq!(reply.headers.len(), 2);
    assert_eq!(reply.headers[CONTENT_TYPE], "text/csv");
    assert_eq!(reply.headers["retry-after"], "7");
    assert_eq!(answered("7").unwrap().headers[CONTENT_TYPE], "application/json");
    assert!(answered("").unwrap().headers.is_empty());
}

#[test]
fn a_function_that_failed_or_cannot_be_read_is_tried_again() {
    let output = |status, error: Option<&str>, payload: &str| {
        let output = InvokeOutput::builder().status_code(status).payload(Blob::new(payload));
        match reply(output.set_function_error(error.map(str::to_owned)).build()) {
            Ok(reply) => Ok((reply.status.as_u16(), reply.body)),
            Err(SendError::Failed(failed)) => Err((failed.detail, failed.answer.body)),
            Err(other) => panic!("{other}"),
        }
    };
    let failed = |detail: &str, body: &'static str| Err((detail.to_owned(), Bytes::from(body)));
    let thrown = r#"{"statusCode":200}"#;
    let detail = "the function ended in an error (Unhandled)";
    assert_eq!(output(200, Some("Unhandled"), thrown), failed(detail, thrown));
    let unreadable = r#"{"statusCode":"200"}"#;
    let detail = "the answer 200 cannot be read: its statusCode is not an integer from 100 to 599";
    assert_eq!(output(200, None, unreadable), failed(detail, unreadable));
    assert_eq!(output(200, None, "7"), Ok((200, "7".into())));
    assert_eq!(output(202, None, ""), Ok((202, Bytes::new())));
    assert_eq!(output(-1, None, ""), Ok((502, Bytes::new())));
    let long = |length| "1".repeat(length);
    let large = |length| format!(r#"{{"statusCode":201,"body":"{}"}}"#, long(length));
    let left_out = "reply of more than 4194304 bytes left out";
    assert_eq!(output(200, None, &large(MAX_REPLY_BYTES + 1)), Ok((201, left_out.into())));
    let longest = long(MAX_REPLY_BYTES).into();
    assert_eq!(output(200, None, &large(MAX_REPLY_BYTES)), Ok((201, longest)));
}

#[test]
fn what_lambda_itself_refuses_was_not_sent() {
    let refused = |status: u16, retry_after: Option<&'static str>| {
        let status = status.try_into().unwrap();
        let mut raw = HttpResponse::new(status, aws_smithy_types::body::SdkBody::empty());
        if let Some(seconds) = retry_after {
            raw.headers_mut().insert("retry-after", seconds);
        }
        let error = ErrorMetadata::builder().code("FromAws").build();
        send_error(SdkError::service_error(InvokeError::generic(error), raw))
    };
    let detail = "FromAws (request unknown)".to_owned();
    assert_eq!(refused(404, None), SendError::Refused(detail));
    assert!(matches!(refused(403, Some("7")), SendError::Refused(_)));
    let wait = |refusal| match refusal {
        SendError::Throttled { retry_after, .. } => retry_after,
        other => panic!("{other:?}"),
    };
    assert_eq!(wait(refused(429, None)), None);
    assert_eq!(wait(refused(429, Some("7"))), Some(Duration::from_secs(7)));
    assert_eq!(wait(refused(429, Some("later"))), None);
    // Lambda may have called the function.
    let timed_out = |error| match error {
        SendError::Unknown(NoAnswer { timed_out, .. }) => timed_out,
        other => panic!("{other:?}"),
    };
    assert!(!timed_out(refused(500, None)) && !timed_out(refused(599, None)));
    assert!(timed_out(send_error(SdkError::timeout_error("a test's"))));
    let construction = send_error(SdkError::construction_failure("a test's"));
    assert!(matches!(construction, SendError::Refused(_)));
}

#[test]
fn a_call_that_came_to_no_connection_was_not_sent() {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        send_error(SdkError::dispatch_failure(ConnectorError::other(error, None)))
    };
    assert!(matches!(failed("no credentials".into()), SendError::NotSent(_)));
    let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    assert!(matches!(failed(reset.into()), SendError::Unknown(_)));
}

#[test]
fn an_answer_that_is_not_aws_s_is_told_with_its_status() {
    let foreign = |content_type: Option<&'static str>| {
        let status = 404.try_into().unwrap();
        let mut raw = HttpResponse::new(status, aws_smithy_types::body::SdkBody::empty());
        if let Some(content_type) = content_type {
            raw.headers_mut().insert("content-type", content_type);
        }
        send_error(SdkError::service_error(InvokeError::unhandled("a test's"), raw)).to_string()
    };
    for (content_type, told) in
        [(Some("text/html"), "answered 404 (text/html)"), (None, "answered 404 (no content type)")]
    {
        let text = foreign(content_type);
        assert!(text.contains(told) && text.contains("look at AWS_ENDPOINT_URL_LAMBDA"), "{text}");
    }
}

/// Calls a function through these settings.
async fn call(sdk: &SdkConfig, timeout: Duration) -> Result<Reply, SendError> {
    let vars = [("AWS_TARGET_FUNCTION", "processor"), ("ROUTE_THRESHOLD", "0")];
    let targets = Config::from_vars(testing::lookup(&vars)).unwrap().targets;
    let target = targets.get(Route::AWS).and_then(Target::lambda).unwrap().clone();
    let delivery = testing::delivery("/webhook", &[], "{}");
    let plan = testing::plan(Identity::Content, "one");
    let lambda = Lambda::with_sdk_config(target, timeout, sdk);
    lambda.send(&testing::outgoing(&delivery, &plan), timeout).await
}

#[tokio::test]
async fn an_answer_in_time_is_the_reply() {
    let sink = Sink::start(|_| Reaction::Answers(Reply::text(StatusCode::OK, "7"))).await;
    let sent = call(&testing::sdk_config(&sink.url), Duration::from_secs(30)).await;
    assert_eq!(sent.unwrap().body, "7");
    assert_eq!(sink.take()[0].body(), "{}");
}

#[tokio::test]
async fn an_outcome_is_unknown_once_the_event_is_on_its_way() {
    let closes = Sink::start(|_| Reaction::Closes).await;
    let sent = call(&testing::sdk_config(&closes.url), Duration::from_secs(30)).await;
    let broken = NoAnswer { timed_out: false, detail: String::new() };
    let unknown = |sent| match sent {
        Err(SendError::Unknown(answer)) => NoAnswer { detail: String::new(), ..answer },
        other => panic!("{other:?}"),
    };
    assert_eq!(unknown(sent), broken);
    let hangs = Sink::start(|_| Reaction::Hangs).await;
    let sent = call(&testing::sdk_config(&hangs.url), Duration::from_secs(2)).await;
    assert_eq!(unknown(sent), NoAnswer { timed_out: true, ..broken });
    assert_eq!(closes.take().len(), 1);
}

/// Credentials that never come.
#[derive(Debug)]
struct Never;

impl ProvideCredentials for Never {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(std::future::pending())
    }
}

#[tokio::test]
async fn without_credentials_in_time_the_event_was_not_sent() {
    let sink = Sink::start(|_| Reaction::Hangs).await;
    let never = SharedCredentialsProvider::new(Never);
    let sdk = testing::sdk_config(&sink.url).into_builder().credentials_provider(never).build();
    let late = "the AWS credentials could not be loaded in time".to_owned();
    assert_eq!(call(&sdk, Duration::from_millis(100)).await, Err(SendError::NotSent(late)));
    assert!(sink.take().is_empty());
}
