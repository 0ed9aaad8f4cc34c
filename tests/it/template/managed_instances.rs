//! Checks managed-instances.yaml, which deploys the function beside the stack of template.yaml.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use webhook_router::config::is_variable;

use super::statements;
use crate::stack::{TEMPLATE, transformed};

/// Returns the actions that a template's role of the function allows, by the statements' names.
fn allowed(template: &Value) -> BTreeMap<String, Value> {
    let mut found = Vec::new();
    statements(&template["Resources"]["RouterRole"]["Properties"]["Policies"], &mut found);
    found
        .iter()
        .map(|one| (one["Sid"].as_str().unwrap().to_owned(), one["Action"].clone()))
        .collect()
}

#[test]
fn the_function_beside_the_stack_shares_its_store_and_may_do_no_more() {
    let template = transformed("managed-instances.yaml");
    let function = &template["Resources"]["Router"]["Properties"];
    let managed =
        &function["CapacityProviderConfig"]["LambdaManagedInstancesCapacityProviderConfig"];
    assert_eq!(managed["PerExecutionEnvironmentMaxConcurrency"], json!({ "Ref": "Concurrency" }));
    assert_eq!(managed["CapacityProviderArn"], json!({ "Fn::GetAtt": ["Capacity", "Arn"] }));
    // The smallest memory that Lambda Managed Instances allow.
    assert!(function["MemorySize"].as_u64().unwrap() >= 2048);
    assert!(template["Parameters"]["Concurrency"]["MinValue"].as_u64().unwrap() > 1);
    // The function's own lines reach the log as they are, and Lambda's own are left out.
    let logging = json!({
        "LogGroup": { "Ref": "LogGroup" },
        "LogFormat": "JSON",
        "ApplicationLogLevel": "TRACE",
        "SystemLogLevel": "WARN",
    });
    assert_eq!(function["LoggingConfig"], logging);

    let variables = function["Environment"]["Variables"].as_object().unwrap();
    assert!(variables.keys().all(|name| is_variable(name)), "{variables:?}");
    assert_eq!(variables["STORE_URL"], json!({ "Fn::Sub": "dynamodb://${TableName}" }));
    assert_eq!(variables["SECRETS_ARN"], json!({ "Ref": "SecretArn" }));

    let (mut more, usual) = (allowed(&template), allowed(&TEMPLATE));
    // This function only sends. The other one receives.
    assert_eq!(
        more.remove("SendMessages"),
        Some(json!(["sqs:SendMessage", "sqs:GetQueueAttributes"]))
    );
    for (name, actions) in &more {
        assert_eq!(Some(actions), usual.get(name), "{name}");
    }
    let expected = [
        "ExamineTable",
        "InvokeProcessor",
        "KeepRecords",
        "ListDeadLetters",
        "ReadSecret",
        "WriteLog",
    ];
    assert!(more.keys().eq(expected), "{more:?}");
}
