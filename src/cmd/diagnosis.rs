//! The invocation that checks the configuration, and the services that it names: the `doctor`
//! command, in Lambda.
//!
//! `{"doctor": true}` checks with the function's own role, and from its own network. A front puts
//! each request inside an event. So a sender cannot make such an invocation.

use std::{collections::BTreeMap, time::Duration};

use lambda_runtime::Context;
use serde::Serialize;

use super::{function::Function, intake};
use crate::{
    checkup,
    finding::{Finding, Severity},
};

/// Time that must be left for the checks, and for the answer.
const NEEDED: Duration = checkup::PATIENCE.saturating_add(Duration::from_millis(500));

/// The findings, errors last.
#[derive(Serialize)]
pub(super) struct Report {
    errors: usize,
    warnings: usize,
    findings: Vec<Finding>,
}

/// The reason why nothing was checked.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiagnosisError {
    #[error(
        "doctor: there is no time for the checks: the function's timeout must be longer than {} s",
        NEEDED.as_secs_f32()
    )]
    NoTime,
    #[error("doctor: bug: a panic")]
    Panic(#[from] tokio::task::JoinError),
}

/// Returns whether an invocation asks for the checks. An event of a front does not.
pub(super) fn is_request(payload: &str) -> bool {
    let wishes = serde_json::from_str::<BTreeMap<String, bool>>(payload);
    wishes.is_ok_and(|wishes| wishes == BTreeMap::from([("doctor".to_owned(), true)]))
}

/// Checks what `doctor` checks, without the ports of `serve`, and also checks the queue. Logs the
/// problems.
pub(super) async fn run(function: &Function, context: &Context) -> Result<Report, DiagnosisError> {
    if function.left(context).is_some_and(|left| left < NEEDED) {
        return Err(DiagnosisError::NoTime);
    }
    let config = &function.config;
    let router = &function.router;
    let queue = async { Some(router.queue()?.examine(checkup::PATIENCE).await) };
    let services = checkup::whole(config, router.store().examine());
    let (mut findings, queue) = tokio::join!(services, queue);
    findings.extend(queue);
    findings.extend([intake::sources(config), intake::answers(config)]);
    findings.extend(config.warnings());
    checkup::log(&findings);
    findings.sort_by_key(|finding| finding.severity);
    let [errors, warnings] = [Severity::Error, Severity::Warning].map(|of| of.count(&findings));
    Ok(Report { errors, warnings, findings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_wish_itself_is_a_request() {
        assert!(is_request(r#"{"doctor": true}"#));
        for payload in [
            r#"{"doctor": false}"#,
            r#"{"doctor": null}"#,
            r#"{"doctor": {}}"#,
            r#"{"doctor": true, "requestContext": {"http": {}}}"#,
            r#"{"body": "{\"doctor\": true}"}"#,
            r#"{"doctor": true, "inbox": "due"}"#,
            r#"{"doctor": true, "replay": true}"#,
            "{}",
            "[true]",
            "true",
            "",
        ] {
            assert!(!is_request(payload), "{payload}");
        }
    }
}
