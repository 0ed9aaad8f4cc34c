//! CloudWatch's metrics inside the lines of the log, where it finds them
//! (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>).
//!
//! Each metric has its price for each value of its dimensions, so what nobody is alarmed by is in the
//! line alone.

use chrono::Utc;
use serde_json::{Value, json};

/// CloudWatch's name for the metrics of this program.
const NAMESPACE: &str = "webhook-router";

/// Adds those of a delivery to its line.
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

/// Adds a count by function.
pub(super) fn add_count(line: &mut Value, name: &str, count: u32) {
    line[name] = count.into();
    describe(line, &[(&["function"], &[name])]);
}

/// Says which members of a line are metrics, by which others of them.
fn describe(line: &mut Value, metrics: &[(&[&str], &[&str])]) {
    let unit = |name: &str| if name.ends_with("milliseconds") { "Milliseconds" } else { "Count" };
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
