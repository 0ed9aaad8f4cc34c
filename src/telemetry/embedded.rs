//! Declares metrics in the lines of the log, where CloudWatch reads them
//! (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>).
//!
//! AWS charges for each metric, each value of its dimensions, and each byte of the log. So a line
//! declares only metrics that are rare or that an alarm uses. The line of a delivery whose result
//! was stored declares none: the metric filter of template.yaml reads its members.

use std::sync::LazyLock;

use chrono::Utc;
use serde::Serialize;
use serde_json::{Value, json};

/// CloudWatch's name for the metrics of this program.
const NAMESPACE: &str = "webhook-router";

/// The name of the function, which is a dimension of every metric.
static FUNCTION: LazyLock<String> =
    LazyLock::new(|| std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default());

/// The members of a line that are for CloudWatch.
#[derive(Serialize)]
pub(super) struct Embedded {
    function: &'static str,
    #[serde(rename = "_aws", skip_serializing_if = "Option::is_none")]
    declared: Option<Value>,
}

/// Returns the members of a line without declared metrics.
pub(super) fn function() -> Embedded {
    Embedded { function: &FUNCTION, declared: None }
}

/// Declares that members of this log line are metrics, with the function as their dimension.
pub(super) fn metrics(names: &[&str]) -> Embedded {
    let unit = |name: &str| if name.ends_with("_seconds") { "Seconds" } else { "Count" };
    let metrics = names.iter().map(|name| json!({ "Name": name, "Unit": unit(name) }));
    let declared = json!({
        "Timestamp": Utc::now().timestamp_millis(),
        "CloudWatchMetrics": [{
            "Namespace": NAMESPACE,
            "Dimensions": [["function"]],
            "Metrics": metrics.collect::<Vec<_>>(),
        }],
    });
    Embedded { declared: Some(declared), ..function() }
}
