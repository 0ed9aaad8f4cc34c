//! template.yaml against what the program reads and what the tests create.

use std::{collections::BTreeSet, process::Command};

use serde_json::{Value, json};
use webhook_router::config::VARIABLES;

use crate::{servers::DynamoDbLocal, support::venv};

/// The template, with CloudFormation's short forms written out.
fn template() -> Value {
    let code = "import json; from samtranslator.yaml_helper import yaml_parse; \
                print(json.dumps(yaml_parse(open('template.yaml').read())))";
    let output = Command::new(venv("python")).args(["-c", code]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// All statements of policies, of whichever branch of a condition.
fn statements(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Object(object) => {
            if object.contains_key("Effect") {
                found.push(value.clone());
            }
            object.values().for_each(|value| statements(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| statements(value, found)),
        _ => {}
    }
}

#[test]
fn no_statement_allows_more_than_it_needs() {
    // Those that AWS gives no resource for; the template says why.
    let unlimited = ["Trace", "JoinVpc"];
    let template = template();
    let mut found = Vec::new();
    statements(&template["Resources"], &mut found);
    assert!(found.len() >= 12);
    for statement in found {
        assert_eq!(statement["Effect"], "Allow");
        let text = statement["Action"].to_string();
        assert!(!text.contains('*'), "{statement}");
        let sid = statement["Sid"].as_str();
        let is_trust = statement.get("Principal").is_some();
        if is_trust {
            assert!(
                statement["Principal"]["Service"].as_str().unwrap().ends_with(".amazonaws.com")
            );
            continue;
        }
        let is_unlimited = statement["Resource"].to_string().contains('*');
        assert_eq!(is_unlimited, unlimited.contains(&sid.unwrap()), "{statement}");
        assert!(!statement["Resource"].is_array(), "one resource: {statement}");
    }
    // SAM adds policies of AWS's own, with more, to functions without a role.
    for (name, resource) in template["Resources"].as_object().unwrap() {
        if resource["Type"] == "AWS::Serverless::Function" {
            let properties = &resource["Properties"];
            assert!(
                properties.get("Role").is_some() && properties.get("Policies").is_none(),
                "{name}"
            );
        }
    }
}

#[test]
fn every_variable_of_a_deployment_can_be_set() {
    // In the secret, beside whatever one likes to put there.
    let secret = ["ROUTING_SECRET", "ROUTING_SECRET_PREVIOUS", "ENVELOPE_SECRETS"];
    // Not in Lambda: of `serve` or of emulators; another name; and files, which Lambda has none of.
    let elsewhere = [
        "PORT",
        "METRICS_LISTEN",
        "FORWARD_BUDGET_MS",
        "LAMBDA_EMULATOR",
        "REDIS_URL",
        "REDIS_CA_FILE",
        "GCP_CA_FILE",
    ];
    let template = template();
    let variables = &template["Resources"]["Router"]["Properties"]["Environment"]["Variables"];
    let set: BTreeSet<_> = variables.as_object().unwrap().keys().map(String::as_str).collect();
    let read: BTreeSet<_> = VARIABLES.iter().map(|variable| variable.name).collect();
    let expected = read.iter().filter(|name| !secret.contains(name) && !elsewhere.contains(name));
    assert_eq!(set, expected.copied().collect());
    assert!(secret.iter().chain(&elsewhere).all(|name| read.contains(name)));
    // The defaults are the program's own.
    for variable in VARIABLES.iter().filter(|variable| set.contains(variable.name)) {
        let Some(parameter) = variables[variable.name].get("Ref").and_then(Value::as_str) else {
            continue;
        };
        let Some(default) = template["Parameters"][parameter].get("Default") else { continue };
        let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        assert_eq!(default, variable.default, "{}", variable.name);
    }
}

#[tokio::test]
async fn the_table_is_the_one_that_the_tests_create() {
    let local = DynamoDbLocal::start().await;
    let described = aws_sdk_dynamodb::Client::new(&local.sdk)
        .describe_table()
        .table_name(DynamoDbLocal::TABLE)
        .send()
        .await
        .unwrap()
        .table
        .unwrap();
    let keys = |schema: &[aws_sdk_dynamodb::types::KeySchemaElement]| {
        let keys = schema.iter().map(|key| {
            json!({ "AttributeName": key.attribute_name(), "KeyType": key.key_type().as_str() })
        });
        keys.collect::<Vec<_>>()
    };
    let attributes: BTreeSet<_> = described
        .attribute_definitions()
        .iter()
        .map(|one| (one.attribute_name().to_owned(), one.attribute_type().as_str().to_owned()))
        .collect();
    let index = &described.global_secondary_indexes()[0];
    let template = template();
    let table = &template["Resources"]["Table"]["Properties"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let declared: BTreeSet<_> = table["AttributeDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (text(&one["AttributeName"]), text(&one["AttributeType"])))
        .collect();
    assert_eq!(declared, attributes);
    assert_eq!(table["KeySchema"], json!(keys(described.key_schema())));
    assert_eq!(described.global_secondary_indexes().len(), 1);
    assert_eq!(
        table["GlobalSecondaryIndexes"],
        json!([{
            "IndexName": index.index_name().unwrap(),
            "KeySchema": keys(index.key_schema()),
            "Projection": { "ProjectionType": index.projection().unwrap().projection_type().unwrap().as_str() },
        }])
    );
    let billing = described.billing_mode_summary().unwrap().billing_mode().unwrap();
    assert_eq!(table["BillingMode"], billing.as_str());
    assert_eq!(table["TimeToLiveSpecification"]["AttributeName"], "expires_at");
    for (name, value) in [
        ("PointInTimeRecoverySpecification", json!({ "PointInTimeRecoveryEnabled": true })),
        ("SSESpecification", json!({ "SSEEnabled": true })),
        ("DeletionProtectionEnabled", json!(true)),
    ] {
        assert_eq!(table[name], value);
    }
}
