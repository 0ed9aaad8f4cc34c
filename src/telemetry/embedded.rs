//! Adds CloudWatch's metrics to the lines of the log, where CloudWatch reads them
//! (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>).
//!
//! AWS charges for each metric and each value of its dimensions. So only values that an alarm uses
//! are metrics. The others are only in the log line.

use chrono::Utc;
use serde_json::{Value, json};

/// CloudWatch's name for the metrics of this program.
const NAMESPACE: &str = "webhook-router";

/// Adds the metrics of a delivery to its line.
pub(super) fn add_delivery(line: &mut Value, settled: bool) {
    line["deliveries"] = 1.into();
    line["unsettled"] = u8::from(!settled).into();
    describe(
        line,
        &[
            (
                &["function", "destination", "vendor", "outcome"],
                &["deliveries", "milliseconds", "store_milliseconds", "destination_milliseconds"],
            ),
            (&["function", "outcome"], &["deliveries", "store_milliseconds"]),
            (&["function"], &["unsettled"]),
        ],
    );
}

/// Adds a count, with the function as its dimension.
pub(super) fn add_count(line: &mut Value, name: &str, count: u32) {
    line[name] = count.into();
    describe(line, &[(&["function"], &[name])]);
}

/// Adds the metrics of a destination's inbox to its line. The alarms watch the largest value of any
/// destination.
pub(super) fn add_pending(line: &mut Value) {
    let names = &["pending", "oldest_pending_seconds"][..];
    describe(line, &[(&["function", "destination"], names), (&["function"], names)]);
}

/// Declares the metrics of a line: each entry has the members that are dimensions, and the members
/// that are metrics.
fn describe(line: &mut Value, metrics: &[(&[&str], &[&str])]) {
    let unit = |name: &str| match name {
        name if name.ends_with("milliseconds") => "Milliseconds",
        name if name.ends_with("_seconds") => "Seconds",
        _ => "Count",
    };
    let metric = |name: &&str| json!({ "Name": name, "Unit": unit(name) });
    let directives = metrics.iter().map(|(dimensions, names)| {
        json!({
            "Namespace": NAMESPACE,
            "Dimensions": [dimensions],
            "Metrics": names.iter().map(metric).collect::<Vec<_>>(),
        })
    });
    line["function"] = std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default().into();
    line["_aws"] = json!({
        "Timestamp": Utc::now().timestamp_millis(),
        "CloudWatchMetrics": directives.collect::<Vec<_>>(),
    });
}
