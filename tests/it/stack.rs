//! The stack that CloudFormation creates from template.yaml and parameters.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    process::Command,
    sync::LazyLock,
};

use regex_lite::Regex;
use serde_json::{Map, Value, json};
use webhook_router::{config::Config, outcome::Ending};

use crate::support::{lookup, venv};

/// The template after SAM's own transform, with CloudFormation's short forms written out.
pub static TEMPLATE: LazyLock<Value> = LazyLock::new(|| transformed("template.yaml"));

/// Returns a template after SAM's own transform.
pub fn transformed(template: &str) -> Value {
    // `sam deploy` fills in the location of the code.
    const TRANSFORM: &str = "\
import json, sys
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse
template = yaml_parse(open(sys.argv[1]).read())
for resource in template['Resources'].values():
    if resource['Type'] == 'AWS::Serverless::Function':
        resource['Properties']['CodeUri'] = {'Bucket': 'bucket', 'Key': 'key'}
class NoPolicies:
    load = staticmethod(dict)
print(json.dumps(transform(template, {}, NoPolicies())))";
    let mut python = Command::new(venv("python"));
    python.args(["-c", TRANSFORM, template]).env("AWS_DEFAULT_REGION", "us-east-1");
    let output = python.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A stack: the template with its parameters filled in.
pub struct Stack {
    parameters: HashMap<String, String>,
}

/// The required parameters of a deployment.
pub const LEAST: [(&str, &str); 2] =
    [("GcpTargetUrl", "https://x.run.app"), ("AwsTargetFunction", "processor")];

impl Default for Stack {
    fn default() -> Self {
        Self::new(&LEAST).unwrap()
    }
}

impl Stack {
    /// Creates a stack with these parameters, and with defaults for the others.
    ///
    /// # Errors
    /// Fails when CloudFormation would refuse a parameter, by its pattern or by the template's
    /// rules.
    pub fn new(given: &[(&str, &str)]) -> Result<Self, String> {
        let mut parameters = HashMap::new();
        for (name, declared) in TEMPLATE["Parameters"].as_object().unwrap() {
            let default = declared.get("Default").map(text);
            let value = given.iter().find(|(given, _)| given == name);
            let value = value.map(|(_, value)| value.to_string()).or(default).unwrap();
            let takes = |pattern| Regex::new(&text(pattern)).unwrap().is_match(&value);
            if !declared.get("AllowedPattern").is_none_or(takes) {
                return Err(name.clone());
            }
            parameters.insert(name.clone(), value);
        }
        assert!(given.iter().all(|(name, _)| parameters.contains_key(*name)), "{given:?}");
        let stack = Self { parameters };
        let rules = TEMPLATE["Rules"].as_object().unwrap().values();
        let applying = rules.filter(|rule| stack.is(&rule["RuleCondition"]));
        for assertion in applying.flat_map(|rule| rule["Assertions"].as_array().unwrap()) {
            if !stack.is(&assertion["Assert"]) {
                return Err(text(&assertion["AssertDescription"]));
            }
        }
        Ok(stack)
    }

    /// Returns the created resources by their names in the template. A reference to a resource
    /// reads as its name.
    pub fn resources(&self) -> BTreeMap<String, Value> {
        let all = TEMPLATE["Resources"].as_object().unwrap();
        let is_made =
            |resource: &Value| resource.get("Condition").is_none_or(|name| self.condition(name));
        all.iter()
            .filter(|(_, resource)| is_made(resource))
            .map(|(name, resource)| (name.clone(), self.value(resource)))
            .collect()
    }

    /// Returns the outputs whose conditions hold.
    pub fn outputs(&self) -> BTreeMap<String, String> {
        let all = TEMPLATE["Outputs"].as_object().unwrap();
        let is_there =
            |output: &Value| output.get("Condition").is_none_or(|name| self.condition(name));
        all.iter()
            .filter(|(_, output)| is_there(output))
            .map(|(name, output)| (name.clone(), text(&self.value(&output["Value"]))))
            .collect()
    }

    /// Returns the variables of the function.
    pub fn variables(&self) -> Vec<(String, String)> {
        let router = &self.resources()["Router"];
        let variables = router["Properties"]["Environment"]["Variables"].as_object().unwrap();
        variables.iter().map(|(name, value)| (name.clone(), text(value))).collect()
    }

    /// Reads the configuration as the function does at start, with these variables and the secret.
    pub fn config(&self) -> anyhow::Result<Config> {
        let variables = self.variables();
        let mut vars: Vec<_> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        vars.extend([
            ("ROUTING_SECRET", "plainly-a-test-s-routing-secret"),
            ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
            ("AWS_LAMBDA_FUNCTION_NAME", "Router"),
        ]);
        Ok(Config::from_vars(lookup(&vars))?)
    }

    /// Returns the widgets of the dashboard.
    pub fn widgets(&self) -> Vec<Value> {
        let body = text(&self.resources()["Dashboard"]["Properties"]["DashboardBody"]);
        let dashboard: Value = serde_json::from_str(&body).unwrap();
        dashboard["widgets"].as_array().unwrap().clone()
    }

    /// Returns the metrics of all alarms.
    pub fn alarmed(&self) -> Vec<Value> {
        let resources = self.resources();
        let alarms = resources.values().filter(|one| one["Type"] == "AWS::CloudWatch::Alarm");
        let mut metrics = Vec::new();
        for alarm in alarms.map(|alarm| &alarm["Properties"]) {
            let queries = alarm["Metrics"].as_array().into_iter().flatten();
            let of_queries = queries.map(|query| &query["MetricStat"]["Metric"]);
            let all = of_queries.chain([alarm]).filter(|metric| metric.get("Namespace").is_some());
            metrics.extend(all.cloned());
        }
        metrics
    }

    /// Returns the router's metrics that a line of the log makes: those that it declares, and those
    /// of the stack's filters. Each comes with the names of its dimensions.
    pub fn metrics_of(&self, line: &Value) -> BTreeSet<(String, String)> {
        let mut made = BTreeSet::new();
        for directive in line["_aws"]["CloudWatchMetrics"].as_array().into_iter().flatten() {
            assert_eq!(directive["Namespace"], "webhook-router");
            // Each set of dimensions would be a metric of its own.
            assert_eq!(directive["Dimensions"], json!([["function"]]));
            for metric in directive["Metrics"].as_array().unwrap() {
                assert!(line[text(&metric["Name"])].is_number(), "{metric}: {line}");
                made.insert((text(&metric["Name"]), "function".into()));
            }
            assert!(line["function"].is_string(), "{line}");
        }
        for filter in self.resources().values() {
            if filter["Type"] != "AWS::Logs::MetricFilter" {
                continue;
            }
            let filter = &filter["Properties"];
            let pattern = text(&filter["FilterPattern"]);
            let conditions = pattern.trim_matches(['{', '}', ' ']).split(" && ");
            let holds = |condition: &str| {
                let (member, value) = condition.split_once(" = ").unwrap();
                let found = &line[member.strip_prefix("$.").unwrap()];
                if value == "*" {
                    !found.is_null()
                } else {
                    found.as_str() == Some(value.trim_matches('"'))
                }
            };
            let conditions: Vec<_> = conditions.collect();
            if !conditions.iter().all(|condition| holds(condition)) {
                continue;
            }
            let metric = &filter["MetricTransformations"][0];
            assert_eq!(metric["MetricNamespace"], "webhook-router");
            // CloudWatch takes only members that the pattern names.
            let member = |named: &Value| {
                let named = text(named);
                let is_it = |condition: &&str| condition.starts_with(&format!("{named} = "));
                assert!(conditions.iter().any(is_it), "{named}");
                line[named.strip_prefix("$.").unwrap()].clone()
            };
            assert!(member(&metric["MetricValue"]).is_number(), "{line}");
            let dimensions = metric["Dimensions"].as_array().unwrap().iter().map(|dimension| {
                assert!(member(&dimension["Value"]).is_string(), "{line}");
                assert_eq!(format!("$.{}", text(&dimension["Key"])), text(&dimension["Value"]));
                text(&dimension["Key"])
            });
            let dimensions = dimensions.collect::<Vec<_>>().join(",");
            made.insert((text(&metric["MetricName"]), dimensions));
        }
        made
    }

    /// Returns the router's metrics that alarms and the dashboard use, each with the names of its
    /// dimensions.
    pub fn watched(&self) -> BTreeSet<(String, String)> {
        let mut watched = BTreeSet::new();
        let mut alarmed = self.alarmed();
        alarmed.retain(|metric| metric["Namespace"] == "webhook-router");
        for metric in alarmed {
            let mut names = Vec::new();
            for dimension in metric["Dimensions"].as_array().unwrap() {
                let (name, value) = (text(&dimension["Name"]), text(&dimension["Value"]));
                match &*name {
                    "function" => assert_eq!(value, "Router"),
                    "outcome" => assert!(OUTCOMES.contains(&&*value), "{value}"),
                    _ => panic!("{name}"),
                }
                names.push(name);
            }
            watched.insert((text(&metric["MetricName"]), names.join(",")));
        }
        for widget in self.widgets().iter().filter(|widget| widget["type"] == "metric") {
            let metrics = widget["properties"]["metrics"].as_array().unwrap();
            // The metrics of a queue are AWS's own.
            for metric in metrics.iter().filter(|metric| metric[0] != "AWS/SQS") {
                let Some(search) = metric[0]["expression"].as_str() else {
                    // A row has a name and one dimension. `.` repeats the value of the previous
                    // row.
                    assert!(["webhook-router", "."].contains(&&*text(&metric[0])), "{metric}");
                    assert!(["function", "."].contains(&&*text(&metric[2])), "{metric}");
                    watched.insert((text(&metric[1]), "function".into()));
                    continue;
                };
                assert!(search.contains("function=\"Router\""), "{search}");
                let search = search.strip_prefix("SEARCH('{\"webhook-router\",").unwrap();
                let (dimensions, rest) = search.split_once("} MetricName=\"").unwrap();
                watched.insert((rest.split_once('"').unwrap().0.into(), dimensions.into()));
            }
        }
        watched
    }

    fn is(&self, condition: &Value) -> bool {
        self.value(condition).as_bool().unwrap_or_else(|| panic!("{condition}"))
    }

    fn condition(&self, name: &Value) -> bool {
        self.is(&TEMPLATE["Conditions"][name.as_str().unwrap()])
    }

    fn reference(&self, name: &str) -> Value {
        match name {
            "AWS::NoValue" => Value::Null,
            "AWS::AccountId" => "123456789012".into(),
            "AWS::Partition" => "aws".into(),
            "AWS::Region" => "us-east-1".into(),
            "AWS::StackName" => "name".into(),
            "AWS::StackId" => {
                "arn:aws:cloudformation:us-east-1:123456789012:stack/name/1-2-3-4-unique".into()
            }
            _ if name.ends_with(".Port") => "6379".into(),
            // CloudFormation names a queue by its URL.
            "InboxQueue" | "UnreadableMessages" => {
                format!("https://sqs.us-east-1.amazonaws.com/123456789012/{name}").into()
            }
            _ => self.parameters.get(name).map_or(name, String::as_str).into(),
        }
    }

    /// Returns the value of an expression. An expression without a value is left out of its
    /// container.
    fn value(&self, expression: &Value) -> Value {
        match expression {
            Value::Array(items) => {
                let values = items.iter().map(|item| self.value(item));
                values.filter(|value| !value.is_null()).collect()
            }
            Value::Object(object) => match object.iter().next() {
                Some((name, argument)) if object.len() == 1 => self.function(name, argument),
                _ => self.members(object),
            },
            plain => plain.clone(),
        }
    }

    fn members(&self, object: &Map<String, Value>) -> Value {
        let values = object.iter().map(|(name, value)| (name.clone(), self.value(value)));
        Value::Object(values.filter(|(_, value)| !value.is_null()).collect())
    }

    fn function(&self, name: &str, argument: &Value) -> Value {
        let all = || argument.as_array().unwrap();
        let items = || self.value(argument).as_array().unwrap().clone();
        match name {
            "Ref" => self.reference(argument.as_str().unwrap()),
            "Condition" => self.condition(argument).into(),
            "Fn::Equals" => (text(&items()[0]) == text(&items()[1])).into(),
            "Fn::Not" => (!self.is(&all()[0])).into(),
            "Fn::And" => all().iter().all(|one| self.is(one)).into(),
            "Fn::Or" => all().iter().any(|one| self.is(one)).into(),
            "Fn::Contains" => items()[0].as_array().unwrap().contains(&items()[1]).into(),
            "Fn::If" => self.value(&all()[if self.condition(&all()[0]) { 1 } else { 2 }]),
            "Fn::GetAtt" => items().iter().map(text).collect::<Vec<_>>().join(".").into(),
            "Fn::Select" => items()[1][items()[0].as_u64().unwrap() as usize].clone(),
            "Fn::Split" => text(&items()[1]).split(&text(&items()[0])).collect(),
            "Fn::Sub" => self.substituted(argument),
            _ if name.starts_with("Fn::") => panic!("{name}"),
            _ => self.members(&Map::from_iter([(name.to_owned(), argument.clone())])),
        }
    }

    fn substituted(&self, argument: &Value) -> Value {
        let (template, names) = match argument {
            Value::Array(both) => (text(&both[0]), self.value(&both[1])),
            template => (text(template), json!({})),
        };
        let mut parts = template.split("${");
        let mut result = parts.next().unwrap().to_owned();
        for part in parts {
            let (name, rest) = part.split_once('}').unwrap();
            match name.strip_prefix('!') {
                Some(literal) => result += &format!("${{{literal}}}"),
                None => result += &text(names.get(name).unwrap_or(&self.reference(name))),
            }
            result += rest;
        }
        result.into()
    }
}

/// The values of the dimension `outcome`.
const OUTCOMES: [&str; 8] = [
    Ending::Delivered.as_str(),
    Ending::Duplicate.as_str(),
    Ending::InProgress.as_str(),
    Ending::OtherBody.as_str(),
    Ending::NoTime.as_str(),
    Ending::Limited.as_str(),
    Ending::Failed.as_str(),
    Ending::StoreUnavailable.as_str(),
];

/// Returns a value as CloudFormation compares it.
pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
