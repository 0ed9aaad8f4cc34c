use super::*;

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
    let large = format!(r#"{{"statusCode":201,"body":"{}"}}"#, "1".repeat(4 * 1024 * 1024 + 1));
    let left_out = "reply of more than 4194304 bytes left out";
    assert_eq!(output(200, None, &large), Ok((201, left_out.into())));
}

#[test]
fn what_lambda_itself_refuses_was_not_sent() {
    let refused = |status: u16, retry_after: Option<&'static str>| {
        let status = status.try_into().unwrap();
        let mut raw = HttpResponse::new(status, aws_smithy_types::body::SdkBody::empty());
        if let Some(seconds) = retry_after {
            raw.headers_mut().insert("retry-after", seconds);
        }
        let error = InvokeError::unhandled("a test's");
        send_error(SdkError::service_error(error, raw))
    };
    assert!(matches!(refused(404, None), SendError::Refused(_)));
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
