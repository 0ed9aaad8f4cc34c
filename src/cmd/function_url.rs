//! The events of a Lambda Function URL, payload format 2.0
//! (<https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html>).

use aws_lambda_events::lambda_function_urls::{
    LambdaFunctionUrlRequest as Request, LambdaFunctionUrlResponse as Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::Method;

use crate::delivery::{Delivery, Reply};

/// An event that holds no HTTP request.
#[derive(Debug, thiserror::Error)]
pub enum NotAnEvent {
    // serde_json's own text may quote the event.
    #[error("not a Function URL event (payload format 2.0): line {}, column {}", .0.line(), .0.column())]
    Shape(#[from] serde_json::Error),
    #[error("not a Function URL event: its {0} is missing or malformed")]
    Part(&'static str),
}

/// The delivery in an event.
///
/// # Errors
/// What the event lacks.
pub fn delivery(event: &str) -> Result<Delivery, NotAnEvent> {
    let Request {
        raw_path,
        raw_query_string,
        headers,
        request_context,
        body,
        is_base64_encoded,
        ..
    } = serde_json::from_str(event)?;
    let method = request_context.http.method.and_then(|name| Method::try_from(&*name).ok());
    let body = match body.unwrap_or_default() {
        text if is_base64_encoded => {
            let bytes = BASE64_STANDARD.decode(text);
            bytes.map_err(|_| NotAnEvent::Part("base64 body"))?.into()
        }
        text => Bytes::from(text),
    };
    Ok(Delivery {
        method: method.ok_or(NotAnEvent::Part("requestContext.http.method"))?,
        path: raw_path.ok_or(NotAnEvent::Part("rawPath"))?,
        query: raw_query_string.filter(|query| !query.is_empty()),
        headers,
        body,
    })
}

/// The answer of a function to its URL.
pub fn response(reply: Reply) -> Response {
    let mut response = Response::default();
    response.status_code = reply.status.as_u16().into();
    response.headers = reply.headers;
    match std::str::from_utf8(&reply.body) {
        Ok(text) if !is_longer_as_json(text) => response.body = Some(text.into()),
        _ => {
            response.body = Some(BASE64_STANDARD.encode(&reply.body));
            response.is_base64_encoded = true;
        }
    }
    response
}

/// Whether a text is longer as a JSON string than as base64. Lambda limits an answer to 6 MB as it
/// is encoded.
fn is_longer_as_json(text: &str) -> bool {
    let escaped: usize = text
        .bytes()
        .map(|byte| match byte {
            b'"' | b'\\' => 2,
            0x00..=0x1f => 6,
            _ => 1,
        })
        .sum();
    escaped > text.len().div_ceil(3) * 4
}
