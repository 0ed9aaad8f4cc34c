//! A stand-in for AWS's STS. It computes each signature again, from AWS's description of the process
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>).

use std::collections::BTreeMap;

use axum::{extract::Request, response::Response};
use bytes::Bytes;
use chrono::{DateTime, NaiveDateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderValue, Method, Uri};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{
    clouds::{Clouds, PROVIDER, reply},
    keys,
};

pub const REGION: &str = "eu-west-1";
pub const KEY_ID: &str = "ASIATESTONLY";
pub const SECRET: &str = "plainly the secret key of a test";
pub const SESSION: &str = "plainly/the+session=token";
pub const ROLE: &str = "arn:aws:sts::111122223333:assumed-role/router/webhook-router";
/// The same role in a token.
pub const ROLE_IN_TOKENS: &str = "arn:aws:iam::111122223333:role/router";
pub const ISSUER: &str = "https://11111111-2222-3333-4444-555555555555.tokens.sts.global.api.aws";

/// The variables of a function with this role.
pub const VARS: [(&str, &str); 4] = [
    ("AWS_REGION", REGION),
    ("AWS_ACCESS_KEY_ID", KEY_ID),
    ("AWS_SECRET_ACCESS_KEY", SECRET),
    ("AWS_SESSION_TOKEN", SESSION),
];

/// Answers GetCallerIdentity and GetWebIdentityToken, if the request is signed by the role.
pub async fn sts(clouds: Clouds, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 65_536).await.unwrap();
    if let Err(fault) = verify(&parts.method, &parts.uri, &parts.headers, &body) {
        clouds.complain(format!("AWS's STS: {fault}"));
        return refusal(403, "SignatureDoesNotMatch");
    }
    if let Some(code) = clouds.code_of_aws() {
        return refusal(403, code);
    }
    let query = parts.uri.query().unwrap_or_default();
    let from = if body.is_empty() { query.as_bytes() } else { &body };
    let fields: BTreeMap<_, _> = form_urlencoded::parse(from).into_owned().collect();
    let given: Vec<_> =
        fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let audience = format!("https:{PROVIDER}");
    match given[..] {
        [("Action", "GetCallerIdentity"), ("Version", "2011-06-15")] => reply(
            200,
            &format!(
                "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>{ROLE}</Arn>\
                 </GetCallerIdentityResult></GetCallerIdentityResponse>"
            ),
        ),
        [
            ("Action", "GetWebIdentityToken"),
            ("Audience.member.1", for_whom),
            ("DurationSeconds", seconds),
            ("SigningAlgorithm", "RS256"),
            ("Version", "2011-06-15"),
        ] if for_whom == audience => {
            let end = Utc::now().timestamp() + seconds.parse::<i64>().unwrap();
            let claims =
                json!({ "iss": ISSUER, "aud": audience, "sub": ROLE_IN_TOKENS, "exp": end });
            let (token, end) = (keys::AWS.sign(&claims), DateTime::from_timestamp(end, 0).unwrap());
            reply(
                200,
                &format!(
                    "<GetWebIdentityTokenResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                     <GetWebIdentityTokenResult><WebIdentityToken>{token}</WebIdentityToken>\
                     <Expiration>{}</Expiration></GetWebIdentityTokenResult>\
                     </GetWebIdentityTokenResponse>",
                    end.to_rfc3339()
                ),
            )
        }
        _ => {
            clouds.complain(format!("AWS's STS does not know {given:?}"));
            refusal(400, "InvalidAction")
        }
    }
}

fn refusal(status: u16, code: &str) -> Response {
    let error = format!("<Error><Type>Sender</Type><Code>{code}</Code></Error>");
    let mut answer = reply(status, &format!("<ErrorResponse>{error}</ErrorResponse>"));
    answer.headers_mut().insert("x-amzn-requestid", HeaderValue::from_static("of-a-test"));
    answer
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte: u8| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// Checks that the role signed the request in the last minutes, with everything that matters.
fn verify(method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Result<(), String> {
    let header = |name: &str| {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        match values[..] {
            [value] => Ok(value.to_str().unwrap().to_owned()),
            _ => Err(format!("{} values of {name}", values.len())),
        }
    };
    let authorization = header("authorization")?;
    let parts = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("another algorithm")?;
    let parts: BTreeMap<_, _> = parts.split(", ").filter_map(|part| part.split_once('=')).collect();
    let part = |name| parts.get(name).copied().ok_or(format!("no {name}"));
    let (credential, names) = (part("Credential")?, part("SignedHeaders")?);

    let time = header("x-amz-date")?;
    let signed_at = NaiveDateTime::parse_from_str(&time, "%Y%m%dT%H%M%SZ").unwrap().and_utc();
    if (Utc::now() - signed_at).num_seconds().abs() > 300 {
        return Err(format!("signed at {signed_at}"));
    }
    let scope = format!("{}/{REGION}/sts/aws4_request", &time[..8]);
    if credential != format!("{KEY_ID}/{scope}") || header("x-amz-security-token")? != SESSION {
        return Err(format!("the credential {credential} of another role"));
    }
    let names: Vec<_> = names.split(';').collect();
    let mut needed = vec!["host", "x-amz-date", "x-amz-security-token"];
    // A header for Google binds the request to one provider.
    needed.extend(
        headers
            .contains_key("x-goog-cloud-target-resource")
            .then_some("x-goog-cloud-target-resource"),
    );
    if let Some(absent) = needed.iter().find(|name| !names.contains(name)) {
        return Err(format!("{absent} is not signed"));
    }

    let mut query: Vec<_> = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
        .map(|(name, value)| format!("{}={}", encoded(&name), encoded(&value)))
        .collect();
    query.sort();
    let mut canonical = format!("{method}\n{}\n{}\n", uri.path(), query.join("&"));
    for name in &names {
        canonical += &format!("{name}:{}\n", header(name)?.trim());
    }
    let hash = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
    canonical += &format!("\n{}\n{}", names.join(";"), hash(body));
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hash(canonical.as_bytes()));
    let key = format!("AWS4{SECRET}").into_bytes();
    let key = scope.split('/').fold(key, |key, part| hmac(&key, part));
    match part("Signature")? == hex::encode(hmac(&key, &text)) {
        true => Ok(()),
        false => Err(format!("the signature of {canonical:?} is wrong")),
    }
}
