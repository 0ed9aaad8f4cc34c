//! The parts of an ID token that the router reads. The service verifies the signature.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::HeaderValue;
use serde::Deserialize;

/// Longest token, in bytes. Google's have about a thousand.
const MAX_BYTES: usize = 8192;

#[derive(Deserialize)]
struct Claims {
    aud: String,
    /// The end, in seconds since 1970.
    exp: u64,
}

/// Returns a token as the value of `Authorization`, and the time for which it is still valid.
///
/// # Errors
/// Fails if an answer is no ID token for the audience, or if the token has ended. The texts do not
/// quote it.
pub(super) fn check(
    token: &str,
    audience: &str,
    now: SystemTime,
) -> Result<(HeaderValue, Duration), String> {
    let claims = claims(token).ok_or("the answer is no ID token")?;
    if claims.aud != audience {
        return Err("the answer is an ID token for another audience".into());
    }
    let end = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp));
    let life = end.and_then(|end| end.duration_since(now).ok()).filter(|life| !life.is_zero());
    let life = life.ok_or("the ID token has ended already: check the clock of this machine")?;
    let mut header = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| "the answer is no ID token".to_owned())?;
    header.set_sensitive(true);
    Ok((header, life))
}

fn claims(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    if token.len() > MAX_BYTES || parts.next().is_some() {
        return None;
    }
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_has_its_audience_and_an_end_in_the_future() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let good = token(r#"{"aud":"https://x.dev","exp":1003}"#);
        let (header, life) = check(&good, "https://x.dev", now).unwrap();
        assert_eq!(header, format!("Bearer {good}"));
        assert!(header.is_sensitive());
        assert_eq!(life, Duration::from_secs(3));
        for (answer, reason) in [
            (token(r#"{"aud":"https://y.dev","exp":1003}"#), "another audience"),
            (token(r#"{"aud":"https://x.dev","exp":1000}"#), "has ended"),
            (token(r#"{"aud":"https://x.dev","exp":18446744073709551615}"#), "has ended"),
            (token(r#"{"aud":"https://x.dev"}"#), "no ID token"),
            (token("plainly"), "no ID token"),
            (good.replace("c2ln", "c2ln\n"), "no ID token"),
            (format!("{good}.x"), "no ID token"),
            (format!("{good}{}", "x".repeat(MAX_BYTES)), "no ID token"),
            ("<html>".into(), "no ID token"),
            (String::new(), "no ID token"),
        ] {
            let problem = check(&answer, "https://x.dev", now).unwrap_err();
            assert!(problem.contains(reason), "{answer}: {problem}");
        }
    }
}
