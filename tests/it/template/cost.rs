//! Compares what docs/cost.md says about the monthly cost, and the queries of the log, with the
//! template.

use std::collections::BTreeSet;

use regex_lite::Regex;
use serde_json::{Value, json};

use super::stack;
use crate::stack::{Stack, text};

fn page(name: &str) -> String {
    std::fs::read_to_string(format!("docs/{name}")).unwrap()
}

/// Returns the number of resources of a type.
fn count(stack: &Stack, kind: &str) -> usize {
    stack.resources().values().filter(|resource| resource["Type"] == kind).count()
}

#[test]
fn the_page_about_the_cost_counts_what_the_template_creates() {
    let stack = stack(&[]);
    let alarmed = stack.alarmed();
    let (own, of_aws): (Vec<_>, Vec<_>) =
        alarmed.iter().partition(|metric| metric["Namespace"] == "webhook-router");
    assert!(of_aws.iter().all(|metric| metric["Namespace"] == "AWS/Lambda"));
    // Each value of a dimension counts as a metric of its own.
    let metric = |name: &Value, dimensions: &Value| format!("{name} {dimensions}");
    let mut metrics: BTreeSet<_> =
        own.iter().map(|one| metric(&one["MetricName"], &one["Dimensions"])).collect();
    for outcome in ["delivered", "duplicate"] {
        let dimensions = json!([
            { "Name": "function", "Value": "Router" },
            { "Name": "outcome", "Value": outcome },
        ]);
        metrics.insert(metric(&"milliseconds".into(), &dimensions));
    }
    let alarms = count(&stack, "AWS::CloudWatch::Alarm");
    let dashboards = count(&stack, "AWS::CloudWatch::Dashboard");
    let secrets = count(&stack, "AWS::SecretsManager::Secret");
    let page = page("cost.md");
    let mut cents = 0;
    for (row, price) in [
        (format!("    metrics     {}:", metrics.len()), 30 * metrics.len()),
        (format!("    alarms      {alarms}, with {} metrics", alarmed.len()), 10 * alarmed.len()),
        (format!("    dashboard   {dashboards}"), 300 * dashboards),
        (format!("    secret      {secrets}, "), 40 * secrets),
    ] {
        // The price may stand at the end of a further line of the same item.
        let after = page.split(&row).nth(1).unwrap_or_else(|| panic!("{row}"));
        let (_, told) = after.split_once('$').unwrap();
        // A secret also costs something for each cold start.
        let told = if row.contains("secret") { told.split_once('$').unwrap().1 } else { told };
        assert_eq!(told.lines().next().unwrap(), dollars(price), "{row}");
        cents += price;
    }
    assert!(cents <= 600, "{cents}");
    let row = "| metrics, alarms, dashboard, secret: per month, for any number of events | $";
    let (_, told) = page.split_once(row).unwrap();
    assert_eq!(told.split(' ').next().unwrap(), dollars(cents));
}

fn dollars(cents: usize) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

#[test]
fn lambda_s_own_lines_about_successes_are_left_out_and_the_function_s_lines_are_not() {
    let logging = |more: &[(&str, &str)]| {
        stack(more).resources()["Router"]["Properties"]["LoggingConfig"].clone()
    };
    let expected = |level: &str| {
        json!({
            "ApplicationLogLevel": "TRACE",
            "LogFormat": "JSON",
            "LogGroup": "LogGroup",
            "SystemLogLevel": level,
        })
    };
    assert_eq!(logging(&[]), expected("WARN"));
    assert_eq!(logging(&[("SystemLogLevel", "INFO")]), expected("INFO"));
}

#[test]
fn queries_of_the_log_read_only_members_that_lines_have() {
    // The tables of the log line name the members.
    let operations = page("operations.md");
    let (_, lines) = operations.split_once("## The log line").unwrap();
    let (lines, _) = lines.split_once("\n## ").unwrap();
    let name = Regex::new("`([a-z_]+)`").unwrap();
    let mut members: BTreeSet<_> =
        name.captures_iter(lines).map(|found| found[1].to_owned()).collect();
    for part in ["store", "queue", "destination", "pause", "room"] {
        members.insert(format!("{part}_milliseconds"));
    }

    let finops = page("finops.md");
    let blocks = finops.split("\n\n").filter(|block| block.starts_with("    filter "));
    let mut queries: Vec<_> = blocks.map(str::to_owned).collect();
    let widgets = stack(&[("Answer", "accepted")]).widgets();
    for widget in widgets.iter().filter(|widget| widget["type"] == "log") {
        let query = text(&widget["properties"]["query"]);
        queries.push(query.strip_prefix("SOURCE 'LogGroup' | ").unwrap().to_owned());
    }
    assert_eq!(queries.len(), 10);
    let quoted = Regex::new("\"[^\"]*\"|'[^']*'").unwrap();
    let alias = Regex::new(" as ([a-zA-Z_0-9]+)").unwrap();
    let word = Regex::new(r"[@a-zA-Z_][a-zA-Z_0-9]*\(?").unwrap();
    let keywords = ["filter", "stats", "sort", "by", "as", "and", "or", "desc", "@timestamp", "m"];
    for query in queries {
        let query = quoted.replace_all(&query, "");
        let aliases: Vec<_> =
            alias.captures_iter(&query).map(|found| found[1].to_owned()).collect();
        for found in word.find_iter(&query).map(|found| found.as_str()) {
            let is_known = found.ends_with('(')
                || keywords.contains(&found)
                || aliases.iter().any(|alias| alias == found)
                || members.contains(found);
            assert!(is_known, "{found}: {query}");
        }
    }
}
