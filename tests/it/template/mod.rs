//! Checks what template.yaml creates: permissions, networks, fronts, the inbox, and the table that the
//! tests create as well.

mod capacity;
mod cost;
mod inbox;
mod managed_instances;
mod variables;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    servers::DynamoDbLocal,
    stack::{LEAST, Stack, TEMPLATE, text},
};

fn stack(more: &[(&str, &str)]) -> Stack {
    Stack::new(&[&LEAST, more].concat()).unwrap()
}

/// Collects all statements of policies, from every branch of a condition.
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
    // AWS has no resource for these actions. The template says why.
    let unlimited = [
        json!(["xray:PutTelemetryRecords", "xray:PutTraceSegments"]),
        json!("sts:GetWebIdentityToken"),
        json!([
            "ec2:AssignPrivateIpAddresses",
            "ec2:CreateNetworkInterface",
            "ec2:DeleteNetworkInterface",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSubnets",
            "ec2:UnassignPrivateIpAddresses",
        ]),
    ];
    let mut found = Vec::new();
    statements(&TEMPLATE["Resources"], &mut found);
    assert!(found.len() >= 12);
    for statement in found {
        assert_eq!(statement["Effect"], "Allow");
        assert!(!statement["Action"].to_string().contains('*'), "{statement}");
        if let Some(principal) = statement.get("Principal") {
            assert!(text(&principal["Service"]).ends_with(".amazonaws.com"));
            continue;
        }
        let is_unlimited = statement["Resource"].to_string().contains('*');
        assert_eq!(is_unlimited, unlimited.contains(&statement["Action"]), "{statement}");
        assert!(!statement["Resource"].is_array(), "one resource: {statement}");
    }
    // No role has further rights: neither AWS's own policies nor policies that SAM adds.
    for (name, resource) in TEMPLATE["Resources"].as_object().unwrap() {
        let properties = &resource["Properties"];
        match resource["Type"].as_str().unwrap() {
            "AWS::IAM::Role" => assert!(properties.get("ManagedPolicyArns").is_none(), "{name}"),
            "AWS::Lambda::Function" => {
                assert_eq!(properties["Role"]["Fn::GetAtt"][0], format!("{name}Role"));
            }
            "AWS::Lambda::Permission" => assert!(
                properties["Principal"] == "apigateway.amazonaws.com"
                    || ["PublicUrl", "PublicUrlInvoke"].contains(&name.as_str()),
                "everybody: {name}"
            ),
            "AWS::IAM::Policy" | "AWS::IAM::ManagedPolicy" => panic!("{name}"),
            _ => {}
        }
    }
}

#[test]
fn the_role_gets_tokens_of_aws_only_for_the_provider_that_needs_them() {
    let provider =
        "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/aws";
    let allowed = |more: &[(&str, &str)]| {
        let mut found = Vec::new();
        statements(&stack(more).resources()["RouterRole"], &mut found);
        found.retain(|statement| statement["Action"] == "sts:GetWebIdentityToken");
        found
    };
    assert!(allowed(&[]).is_empty());
    assert!(allowed(&[("GcpAuth", "id-token")]).is_empty());
    let found = allowed(&[("GcpWebIdentityProvider", provider)]);
    assert_eq!(found.len(), 1);
    let expected = json!({
        "ForAllValues:StringEquals": { "sts:IdentityTokenAudience": format!("https:{provider}") },
        "Null": { "sts:IdentityTokenAudience": "false" },
    });
    assert_eq!(found[0]["Condition"], expected);
}

/// Returns the permissions to invoke the function.
fn permissions(stack: &Stack) -> Vec<Value> {
    let permissions = stack.resources().into_values();
    let permissions = permissions.filter(|resource| resource["Type"] == "AWS::Lambda::Permission");
    permissions.map(|resource| resource["Properties"].clone()).collect()
}

#[test]
fn vendors_may_call_the_url_and_nothing_but_the_url_unless_aws_s_signature_is_asked_for() {
    assert_eq!(
        permissions(&stack(&[])),
        [
            json!({
                "Action": "lambda:InvokeFunctionUrl", "FunctionName": "Router",
                "FunctionUrlAuthType": "NONE", "Principal": "*",
            }),
            json!({
                "Action": "lambda:InvokeFunction", "FunctionName": "Router",
                "InvokedViaFunctionUrl": true, "Principal": "*",
            }),
        ]
    );
    assert!(permissions(&stack(&[("FunctionUrlAuthType", "AWS_IAM")])).is_empty());
}

#[test]
fn an_http_api_takes_the_place_of_the_function_url() {
    let http_api = ("Front", "http-api");
    let domain = [
        ("DomainName", "hooks.example.com"),
        ("CertificateArn", "arn:aws:acm:us-east-1:123456789012:certificate/1"),
    ];
    let kinds = |stack: &Stack| {
        let resources = stack.resources();
        let kinds = resources.values().map(|resource| text(&resource["Type"]));
        let kinds = kinds.filter(|kind| kind.contains("ApiGateway") || kind.ends_with("::Url"));
        kinds.map(|kind| kind.replace("AWS::ApiGatewayV2::", "")).collect::<Vec<_>>()
    };
    let url = |stack: &Stack| stack.outputs()["Url"].clone();
    let without = stack(&[]);
    assert_eq!(kinds(&without), ["AWS::Lambda::Url"]);
    assert_eq!(url(&without), "RouterUrl.FunctionUrl");

    let with = stack(&[http_api]);
    assert_eq!(kinds(&with), ["Api", "Integration", "Route", "Stage"]);
    assert_eq!(url(&with), "HttpApi.ApiEndpoint/");
    let own_domain = stack(&[&[http_api], &domain[..]].concat());
    assert_eq!(
        kinds(&own_domain),
        ["DomainName", "ApiMapping", "Api", "Integration", "Route", "Stage"]
    );
    assert_eq!(url(&own_domain), "https://hooks.example.com/");
    assert_eq!(own_domain.outputs()["DomainTarget"], "Domain.RegionalDomainName");
    // With a domain, the API's own address is closed.
    for (stack, closed) in [(&with, false), (&own_domain, true)] {
        let api = &stack.resources()["HttpApi"]["Properties"];
        assert_eq!(api["DisableExecuteApiEndpoint"], closed);
        assert!(!stack.outputs()["AccessLogName"].is_empty());
    }

    // Only the API may invoke the function.
    let source = "arn:aws:execute-api:us-east-1:123456789012:HttpApi/*/$default";
    for auth in ["NONE", "AWS_IAM"] {
        let stack = stack(&[http_api, ("FunctionUrlAuthType", auth)]);
        assert_eq!(
            permissions(&stack),
            [json!({
                "Action": "lambda:InvokeFunction", "FunctionName": "Router",
                "Principal": "apigateway.amazonaws.com", "SourceArn": source,
            })]
        );
        let resources = stack.resources();
        let route = &resources["HttpApiRoute"]["Properties"];
        assert_eq!(
            (&route["RouteKey"], &route["AuthorizationType"]),
            (&"$default".into(), &auth.into())
        );
        assert_eq!(route["Target"], "integrations/HttpApiIntegration");
        let integration = &resources["HttpApiIntegration"]["Properties"];
        assert_eq!(integration["IntegrationUri"], "Router.Arn");
        assert_eq!(integration["PayloadFormatVersion"], "2.0");
    }

    // Requests are limited and logged, without their possibly secret parts.
    let limited = stack(&[http_api, ("HttpApiRequestsPerSecond", "7")]);
    let stage = &limited.resources()["HttpApiStage"]["Properties"];
    let limits = &stage["DefaultRouteSettings"];
    assert_eq!(limits, &json!({ "ThrottlingRateLimit": "7", "ThrottlingBurstLimit": "7" }));
    let log = &stage["AccessLogSettings"];
    assert_eq!(log["DestinationArn"], "AccessLog.Arn");
    let line: Value = serde_json::from_str(&text(&log["Format"])).unwrap();
    let logged: BTreeSet<_> = line.as_object().unwrap().values().map(text).collect();
    let logged: Vec<_> = logged.iter().map(|name| name.trim_start_matches("$context.")).collect();
    assert_eq!(
        logged,
        [
            "httpMethod",
            "identity.sourceIp",
            "integrationErrorMessage",
            "path",
            "requestId",
            "requestTime",
            "responseLatency",
            "responseLength",
            "status",
        ]
    );
}

#[test]
fn the_router_may_invoke_its_target_and_nothing_else() {
    let arn = "arn:aws:lambda:eu-west-1:111111111111:function:processor:live";
    let role = "arn:aws:iam::111111111111:role/invoker";
    let own = |name: &str| format!("arn:aws:lambda:us-east-1:123456789012:function:{name}");
    let (invoke, assume) = ("lambda:InvokeFunction", "sts:AssumeRole");
    for (parameters, action, resource) in [
        (vec![("AwsTargetFunction", "processor")], invoke, own("processor")),
        (vec![("AwsTargetFunction", "processor:live")], invoke, own("processor:live")),
        (vec![("AwsTargetFunction", arn)], invoke, arn.into()),
        (vec![("AwsTargetFunction", arn), ("AwsTargetRoleArn", role)], assume, role.into()),
        (vec![("DeployProcessor", "true")], invoke, "Processor.Arn".into()),
    ] {
        let given = [&[("GcpTargetUrl", "https://x.run.app")], &*parameters].concat();
        let stack = Stack::new(&given).unwrap();
        let mut found = Vec::new();
        statements(&stack.resources()["RouterRole"]["Properties"]["Policies"], &mut found);
        found.retain(|one| [invoke, assume].contains(&one["Action"].as_str().unwrap_or_default()));
        assert_eq!(found.len(), 1);
        assert_eq!(
            (&found[0]["Action"], &found[0]["Resource"]),
            (&action.into(), &resource.into())
        );
        stack.config().unwrap();
    }
}

#[test]
fn the_router_may_also_invoke_a_mirror() {
    let stack = stack(&[("MirrorFunction", "shadow"), ("MirrorPercent", "5")]);
    let mut found = Vec::new();
    statements(&stack.resources()["RouterRole"]["Properties"]["Policies"], &mut found);
    found.retain(|one| one["Sid"] == "InvokeMirror");
    let shadow = "arn:aws:lambda:us-east-1:123456789012:function:shadow";
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["Resource"], shadow);
    assert_eq!(stack.config().unwrap().mirroring.unwrap().percent, 5);
    assert!(self::stack(&[]).config().unwrap().mirroring.is_none());
    let both = [("MirrorFunction", "shadow"), ("MirrorUrl", "https://shadow.example.com")];
    let refused = Stack::new(&[&LEAST[..], &both].concat()).err().unwrap();
    assert!(refused.contains("Give MirrorUrl or MirrorFunction"), "{refused}");
}

#[test]
fn a_table_of_destinations_replaces_the_other_targets() {
    let function = |name: &str| format!("arn:aws:lambda:us-east-1:123456789012:function:{name}");
    let functions = format!("{},{}", function("one"), function("two:live"));
    let table = "destinations = { one = { kind = \"lambda\", function = \"one\", bytes = \"0-99\" }, \
                 two = { kind = \"lambda\", function = \"two:live\", bytes = \"100-255\" } }";
    let given =
        [&LEAST[..], &[("Destinations", table), ("DestinationFunctions", &functions)]].concat();
    let stack = Stack::new(&given).unwrap();
    let mut found = Vec::new();
    statements(&stack.resources()["RouterRole"]["Properties"]["Policies"], &mut found);
    found.retain(|one| one["Action"] == "lambda:InvokeFunction");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["Resource"], json!([function("one"), function("two:live")]));
    let targets = stack.config().unwrap().targets;
    let names: Vec<_> = targets.iter().map(|target| target.name.to_string()).collect();
    assert_eq!(names, ["one", "two"]);

    // No other target is needed. The table may be in the secret.
    Stack::new(&[("Destinations", table)]).unwrap().config().unwrap();
    let variables = Stack::new(&[("Destinations", "secret")]).unwrap().variables();
    let set = |name| variables.iter().any(|(one, value)| one == name && !value.is_empty());
    let replaced = ["DESTINATIONS", "ROUTE_THRESHOLD", "GCP_TARGET_URL", "AWS_TARGET_PAYLOAD"];
    assert!(!replaced.into_iter().any(set));
    let wrong = [&given[..2], &[("DestinationFunctions", "one")]].concat();
    assert!(Stack::new(&wrong).is_err_and(|said| said.contains("DestinationFunctions")));
}

#[test]
fn what_could_not_work_is_refused_before_anything_is_made() {
    let redis = [("Store", "redis"), ("VpcId", "vpc-1"), ("SubnetIds", "subnet-1,subnet-2")];
    let event = [("AwsTargetInvocation", "Event"), ("AwsTargetPayload", "request")];
    let http_api = [("Front", "http-api")];
    let domain = [
        ("DomainName", "hooks.example.com"),
        ("CertificateArn", "arn:aws:acm:us-east-1:123456789012:certificate/1"),
    ];
    let gcp = LEAST[0];
    for (parameters, said) in [
        (vec![], "Give AwsTargetFunction"),
        (vec![gcp], "Give AwsTargetFunction"),
        (vec![LEAST[1]], "Give GcpTargetUrl"),
        (vec![gcp, ("RouteThreshold", "256")], ""),
        (vec![LEAST[1], ("RouteThreshold", "0")], ""),
        (vec![gcp, ("DeployProcessor", "true")], ""),
        (vec![("GcpTargetUrl", "http://x.run.app"), LEAST[1]], "GcpTargetUrl"),
        (vec![("GcpTargetUrl", "https://x.run.app:8443/"), LEAST[1]], "GcpTargetUrl"),
        (vec![("GcpTargetUrl", "https://x.run.app/a:b"), LEAST[1]], ""),
        (vec![gcp, ("AwsTargetFunction", "123456789012:function:name")], "AwsTargetFunction"),
        ([&LEAST[..], &[("DeployProcessor", "true")]].concat(), "DeployProcessor true is"),
        ([&LEAST[..], &event[..1]].concat(), "AwsTargetInvocation Event needs"),
        ([&LEAST[..], &event].concat(), ""),
        ([&LEAST[..], &[("AllowUnsigned", "true")]].concat(), "AllowUnsigned true without"),
        (
            [&LEAST[..], &[("AllowUnsigned", "true"), ("FunctionUrlAuthType", "AWS_IAM")]].concat(),
            "",
        ),
        ([&LEAST[..], &redis[..1]].concat(), "Store redis needs VpcId and SubnetIds"),
        ([&LEAST[..], &redis[..2]].concat(), "Store redis needs VpcId and SubnetIds"),
        ([&LEAST[..], &redis].concat(), ""),
        ([&LEAST[..], &redis, &[("RedisUrl", "redis://cache:6379")]].concat(), ""),
        ([&LEAST[..], &redis, &[("RedisUrl", "rediss://:password@cache")]].concat(), "RedisUrl"),
        ([&LEAST[..], &[("SubnetIds", "subnet-1, subnet-2")]].concat(), "SubnetIds"),
        ([&LEAST[..], &http_api].concat(), ""),
        ([&LEAST[..], &http_api, &[("Timeout", "31")]].concat(), "Front http-api needs Timeout"),
        ([&LEAST[..], &[("Timeout", "31")]].concat(), ""),
        ([&LEAST[..], &http_api, &domain].concat(), ""),
        ([&LEAST[..], &domain].concat(), "DomainName and CertificateArn need Front"),
        ([&LEAST[..], &http_api, &domain[..1]].concat(), "Give DomainName and CertificateArn"),
        ([&LEAST[..], &http_api, &domain[1..]].concat(), "Give DomainName and CertificateArn"),
        ([&LEAST[..], &http_api, &[("DomainName", "https://x.de")]].concat(), "DomainName"),
        (
            [&LEAST[..], &[("AlarmEmail", "a@b.c"), ("AlarmTopicArn", "arn:aws:sns:x")]].concat(),
            "Give AlarmEmail or AlarmTopicArn",
        ),
    ] {
        match Stack::new(&parameters) {
            Ok(stack) => {
                assert_eq!(said, "", "{parameters:?}");
                // The function starts with every accepted combination.
                stack.config().unwrap_or_else(|error| panic!("{parameters:?}: {error}"));
            }
            Err(refused) => {
                assert!(!said.is_empty() && refused.starts_with(said), "{parameters:?}: {refused}");
            }
        }
    }
}

#[test]
fn every_question_of_a_guided_deployment_can_be_left_at_its_default() {
    for (name, parameter) in TEMPLATE["Parameters"].as_object().unwrap() {
        // `sam deploy --guided` asks again and again for parameters that it does not echo.
        assert!(parameter.get("Default").is_some() && parameter.get("NoEcho").is_none(), "{name}");
        assert!(parameter.get("Description").is_some(), "{name}");
    }
}

#[test]
fn a_redis_of_its_own_or_another_is_reached_at_its_port_alone() {
    let vpc = [("Store", "redis"), ("VpcId", "vpc-1"), ("SubnetIds", "subnet-1,subnet-2")];
    let other = [("RedisUrl", "rediss://cache:7000"), ("RedisPort", "7000")];
    let group = |name: &str| json!({ "DestinationSecurityGroupId": name });
    let anywhere = json!({ "CidrIp": "0.0.0.0/0" });
    for (more, ports, to, made) in [
        (
            vec![],
            (6379, 6380),
            group("CacheSecurityGroup.GroupId"),
            vec!["Cache", "CacheSecurityGroup", "CacheIngress"],
        ),
        (other.to_vec(), (7000, 7000), anywhere.clone(), vec![]),
        (
            [&other[..], &[("RedisSecurityGroupId", "sg-1")]].concat(),
            (7000, 7000),
            group("sg-1"),
            vec!["RedisIngress"],
        ),
    ] {
        let stack = stack(&[&vpc[..], &more].concat());
        let resources = stack.resources();
        let number = |value: &Value| text(value).parse::<u16>().unwrap();
        let range = |rule: &Value| (number(&rule["FromPort"]), number(&rule["ToPort"]));
        let egress = &resources["FunctionSecurityGroup"]["Properties"]["SecurityGroupEgress"];
        assert_eq!((range(&egress[0]), range(&egress[1])), ((443, 443), ports));
        assert_eq!(egress.as_array().unwrap().len(), 2);
        for (rule, to) in [(&egress[0], &anywhere), (&egress[1], &to)] {
            let mut rule = rule.clone();
            rule.as_object_mut().unwrap().retain(|name, _| {
                !["IpProtocol", "FromPort", "ToPort", "Description"].contains(&name.as_str())
            });
            assert_eq!(rule, *to);
        }
        for name in ["Cache", "CacheSecurityGroup", "CacheIngress", "RedisIngress"] {
            assert_eq!(resources.contains_key(name), made.contains(&name), "{name}");
        }
        for name in ["CacheIngress", "RedisIngress"] {
            let Some(ingress) = resources.get(name) else { continue };
            assert_eq!(range(&ingress["Properties"]), ports);
            assert_eq!(ingress["Properties"]["SourceSecurityGroupId"], "FunctionSecurityGroup");
        }
        let subnets = &resources["Router"]["Properties"]["VpcConfig"]["SubnetIds"];
        assert_eq!(subnets, &json!(["subnet-1", "subnet-2"]));
        assert!(!resources.contains_key("Table"));
    }
    // A URL with a password belongs in the secret.
    let secret = stack(&[&vpc[..], &[("RedisUrl", "secret")]].concat());
    assert!(secret.variables().iter().all(|(name, _)| name != "STORE_URL"));
    assert!(!secret.resources().contains_key("Cache"));
    let resources = stack(&[]).resources();
    assert!(resources["Router"]["Properties"].get("VpcConfig").is_none());
    assert!(resources.contains_key("Table") && !resources.contains_key("Cache"));
}

#[test]
fn what_outlives_a_stack_is_not_in_the_way_of_the_next() {
    let redis = [("Store", "redis"), ("VpcId", "vpc-1"), ("SubnetIds", "subnet-1,subnet-2")];
    let names = ["TableName", "Name", "LogGroupName", "ServerlessCacheName"];
    let mut kept = BTreeSet::new();
    let http_api = [("Front", "http-api")];
    for resources in [&[][..], &redis, &http_api].map(|given| stack(given).resources()) {
        let (staying, going): (Vec<_>, Vec<_>) =
            resources.iter().partition(|(_, resource)| resource.get("DeletionPolicy").is_some());
        for (name, resource) in staying {
            for property in names.iter().filter_map(|name| resource["Properties"].get(name)) {
                assert!(text(property).contains("unique"), "{name}: {property}");
            }
            // CloudFormation could not delete a resource that this one names.
            let properties = resource["Properties"].to_string();
            for (gone, _) in &going {
                assert!(!properties.contains(&format!("\"{gone}\"")), "{name} names {gone}");
            }
            kept.insert(name.clone());
        }
    }
    let expected = ["AccessLog", "Cache", "CacheSecurityGroup", "LogGroup", "Secret", "Table"];
    assert_eq!(kept, expected.map(String::from).into());
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
    let table = &stack(&[]).resources()["Table"]["Properties"];
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
