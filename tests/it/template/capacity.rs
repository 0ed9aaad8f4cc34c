//! Checks the billing of the table: on demand, or with a capacity that follows the load.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{LEAST, stack};
use crate::stack::{Stack, text};

const PROVISIONED: (&str, &str) = ("TableBilling", "provisioned");

/// Returns the resources of a type, by their names.
fn of_type(stack: &Stack, kind: &str) -> BTreeMap<String, Value> {
    let kind = format!("AWS::ApplicationAutoScaling::{kind}");
    stack.resources().into_iter().filter(|(_, resource)| resource["Type"] == kind).collect()
}

#[test]
fn the_table_is_on_demand_unless_a_capacity_is_asked_for() {
    let stack = stack(&[]);
    let table = &stack.resources()["Table"]["Properties"];
    assert_eq!(table["BillingMode"], "PAY_PER_REQUEST");
    assert_eq!(table.get("ProvisionedThroughput"), None);
    assert_eq!(table["GlobalSecondaryIndexes"][0].get("ProvisionedThroughput"), None);
    assert!(of_type(&stack, "ScalableTarget").is_empty());
    assert!(of_type(&stack, "ScalingPolicy").is_empty());
}

#[test]
fn a_capacity_of_the_table_and_of_its_index_follows_the_load_within_its_limits() {
    let capacities = [
        ("MinWriteCapacity", "300"),
        ("MaxWriteCapacity", "4000"),
        ("MinIndexWriteCapacity", "7"),
        ("MinReadCapacity", "3"),
        ("MaxReadCapacity", "90"),
    ];
    let stack = stack(&[&[PROVISIONED], &capacities[..]].concat());
    let table = &stack.resources()["Table"]["Properties"];
    assert_eq!(table["BillingMode"], "PROVISIONED");
    let units = |reads: &str, writes: &str| json!({ "ReadCapacityUnits": reads, "WriteCapacityUnits": writes });
    assert_eq!(table["ProvisionedThroughput"], units("3", "300"));
    assert_eq!(table["GlobalSecondaryIndexes"][0]["ProvisionedThroughput"], units("3", "7"));

    let targets = of_type(&stack, "ScalableTarget");
    let scaled: Vec<_> = targets
        .values()
        .map(|target| &target["Properties"])
        .map(|target| {
            assert_eq!(target["ServiceNamespace"], "dynamodb");
            let names = ["ResourceId", "ScalableDimension", "MinCapacity", "MaxCapacity"];
            names.map(|name| text(&target[name]))
        })
        .collect();
    let (whole, index) = ("table/Table", "table/Table/index/dead_letters");
    assert_eq!(
        scaled,
        [
            [index, "dynamodb:index:ReadCapacityUnits", "3", "90"],
            [index, "dynamodb:index:WriteCapacityUnits", "7", "4000"],
            [whole, "dynamodb:table:ReadCapacityUnits", "3", "90"],
            [whole, "dynamodb:table:WriteCapacityUnits", "300", "4000"],
        ]
    );
    // Each target has the policy that scales it, by the metric of its dimension.
    let policies = of_type(&stack, "ScalingPolicy");
    assert_eq!(policies.len(), targets.len());
    for policy in policies.values().map(|policy| &policy["Properties"]) {
        assert_eq!(policy["PolicyType"], "TargetTrackingScaling");
        let dimension =
            text(&targets[&text(&policy["ScalingTargetId"])]["Properties"]["ScalableDimension"]);
        let direction = if dimension.contains("Write") { "Write" } else { "Read" };
        let tracking = &policy["TargetTrackingScalingPolicyConfiguration"];
        assert_eq!(
            text(&tracking["PredefinedMetricSpecification"]["PredefinedMetricType"]),
            format!("DynamoDB{direction}CapacityUtilization")
        );
        assert_eq!(tracking["TargetValue"], 70);
    }
    // The function needs no other settings and permissions.
    let on_demand = super::stack(&[]);
    for name in ["Router", "RouterRole"] {
        assert_eq!(stack.resources()[name], on_demand.resources()[name]);
    }
}

#[test]
fn a_cache_has_no_capacity() {
    let redis = [("Store", "redis"), ("VpcId", "vpc-1"), ("SubnetIds", "subnet-1,subnet-2")];
    let refused = Stack::new(&[&LEAST[..], &redis, &[PROVISIONED]].concat()).err().unwrap();
    assert!(refused.starts_with("TableBilling provisioned needs Store dynamodb"), "{refused}");
}
