//! The invocation that checks the configuration, and the services that it names: the `doctor`
//! command, in Lambda.
//!
//! `{"doctor": true}` checks with the function's own role, and from its own network. A front puts
//! each request inside an event. So a sender cannot make such an invocation.

use lambda_runtime::Context;
use serde::{Deserialize, Serialize, de::IgnoredAny};

use super::{doctor, function::Function};
use crate::{
    checkup,
    finding::{Finding, Severity},
};

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
        "doctor: there is no time for the checks, which may take {} s: the function's timeout must \
         be longer than that, STORE_TIMEOUT_MS and half a second together",
        checkup::PATIENCE.as_secs()
    )]
    NoTime,
    #[error("doctor: bug: a panic")]
    Panic(#[from] tokio::task::JoinError),
}

/// Returns whether an invocation asks for the checks. An event of a front does not.
pub(super) fn is_request(payload: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Invocation {
        doctor: bool,
        request_context: Option<IgnoredAny>,
    }
    let invocation = serde_json::from_str::<Invocation>(payload);
    invocation.is_ok_and(|asked| asked.doctor && asked.request_context.is_none())
}

/// Checks what `doctor` checks, without the ports of `serve`, and also checks the queue. Logs the
/// problems.
pub(super) async fn run(function: &Function, context: &Context) -> Result<Report, DiagnosisError> {
    if !function.budget(context).has_time_for(checkup::PATIENCE) {
        return Err(DiagnosisError::NoTime);
    }
    let config = &function.config;
    let router = &function.router;
    let queue = async { Some(router.queue()?.examine(checkup::PATIENCE).await) };
    let services = checkup::whole(config, router.store().examine());
    let (mut findings, queue) = tokio::join!(services, queue);
    findings.extend(queue);
    findings.extend(doctor::intake(config));
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
            "true",
            "",
        ] {
            assert!(!is_request(payload), "{payload}");
        }
    }
}
