//! Checks that the stack has everything that delivers accepted events: the queue, its consumer, the
//! schedule, their permissions, times that fit one another, alarms and the dashboard.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};
use webhook_router::{queue::MAX_COPY_BYTES, router::Budget, source::Answer};

use super::{stack, statements};
use crate::stack::{Stack, TEMPLATE, text};

const ACCEPTED: (&str, &str) = ("Answer", "accepted");
const WITH_INBOX: (&str, &str) = ("Inbox", "true");

/// Returns the limits of a parameter that is a number.
fn limits(parameter: &str) -> (u64, u64) {
    let declared = &TEMPLATE["Parameters"][parameter];
    let limit = |name: &str| declared[name].as_u64().unwrap();
    (limit("MinValue"), limit("MaxValue"))
}

fn number(value: &Value) -> u64 {
    text(value).parse().unwrap_or_else(|_| panic!("{value}"))
}

fn properties(stack: &Stack, resource: &str) -> Value {
    stack.resources()[resource]["Properties"].clone()
}

#[test]
fn the_inbox_is_there_when_events_may_be_accepted_and_only_then() {
    let expected = [
        "InboxMessages",
        "InboxQueue",
        "InboxSchedule",
        "InboxScheduleRole",
        "MessagesNotSentAlarm",
        "OldestPendingAlarm",
        "PendingAlarm",
        "UnreadableMessages",
        "UnreadableMessagesAlarm",
    ];
    let names = |stack: &Stack| stack.resources().into_keys().collect::<BTreeSet<_>>();
    let variables = |stack: &Stack| stack.variables().into_iter().collect::<BTreeMap<_, _>>();
    let without = stack(&[]);
    assert!(!variables(&without).contains_key("QUEUE_URL"));
    assert!(!without.resources()["RouterRole"].to_string().contains("sqs:"));
    assert_eq!(without.widgets().len(), 6);
    without.config().unwrap();
    for (parameter, answer) in [(ACCEPTED, "accepted"), (WITH_INBOX, "delivered")] {
        let with = stack(&[parameter]);
        let more: Vec<_> = names(&with).difference(&names(&without)).cloned().collect();
        assert_eq!(more, expected);
        assert!(names(&without).is_subset(&names(&with)));
        let variables = variables(&with);
        assert_eq!(variables["ANSWER"], answer);
        assert_eq!(variables["QUEUE_URL"], with.outputs()["QueueUrl"]);
        assert!(variables["QUEUE_URL"].ends_with("/InboxQueue"));
        let config = with.config().unwrap();
        assert_eq!(config.intake.answer == Answer::Accepted, answer == "accepted");
    }
}

#[test]
fn a_schedule_of_attempts_is_refused_before_the_function_fails_at_its_start() {
    for (schedule, is_valid) in [
        ("0s", true),
        ("0s,1h30m,7d", true),
        ("500ms,5s", true),
        ("", false),
        ("0s, 5s", false),
        ("5", false),
        ("5s,", false),
        ("5 minutes", false),
    ] {
        let given = [("GcpTargetUrl", "https://x.run.app"), ("RouteThreshold", "256")];
        let stack = Stack::new(&[&given[..], &[ACCEPTED, ("RetrySchedule", schedule)]].concat());
        match stack {
            Ok(stack) => {
                assert!(is_valid, "{schedule}");
                assert_eq!(
                    stack.config().unwrap().inbox.schedule.len(),
                    schedule.split(',').count()
                );
            }
            Err(refused) => assert!(!is_valid && refused == "RetrySchedule", "{schedule}"),
        }
    }
}

#[test]
fn messages_wake_the_function_in_batches_and_those_that_cannot_be_used_are_kept() {
    let stack = stack(&[ACCEPTED, ("InboxConcurrency", "7")]);
    let (queue, unreadable) =
        (properties(&stack, "InboxQueue"), properties(&stack, "UnreadableMessages"));
    for queue in [&queue, &unreadable] {
        // A FIFO queue would be refused at start, and would hold events up behind each other.
        assert!(queue.get("FifoQueue").is_none() && queue.get("QueueName").is_none());
        assert_eq!(queue["SqsManagedSseEnabled"], true);
    }
    assert_eq!(queue["RedrivePolicy"]["deadLetterTargetArn"], "UnreadableMessages.Arn");
    assert_eq!(
        properties(&stack, "InboxMessages"),
        json!({
            "EventSourceArn": "InboxQueue.Arn",
            "FunctionName": "Router",
            "BatchSize": 10,
            "MaximumBatchingWindowInSeconds": 0,
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "ScalingConfig": { "MaximumConcurrency": "7" },
        })
    );
    // Lambda would stop a chain of about 16 attempts, because the function wakes itself.
    assert_eq!(properties(&stack, "Router")["RecursiveLoop"], "Allow");
    assert_eq!(properties(&super::stack(&[]), "Router")["RecursiveLoop"], "Terminate");
    // The service's own limits.
    assert_eq!(limits("InboxConcurrency"), (2, 1000));
    // The default leaves most invocations to the senders.
    let default = |name: &str| TEMPLATE["Parameters"][name]["Default"].as_u64().unwrap();
    assert!(default("InboxConcurrency") * 2 <= default("ReservedConcurrency"));
}

#[test]
fn the_schedule_comes_each_minute_and_is_not_repeated() {
    let stack = stack(&[ACCEPTED]);
    let schedule = properties(&stack, "InboxSchedule");
    assert_eq!(schedule["ScheduleExpression"], "rate(1 minute)");
    assert_eq!(schedule["FlexibleTimeWindow"]["Mode"], "OFF");
    assert_ne!(schedule["State"], "DISABLED");
    let target = &schedule["Target"];
    assert_eq!(target["Arn"], "Router.Arn");
    assert_eq!(target["RoleArn"], "InboxScheduleRole.Arn");
    assert_eq!(target["RetryPolicy"]["MaximumRetryAttempts"], 0);
    let payload: Value = serde_json::from_str(&text(&target["Input"])).unwrap();
    assert_eq!(payload, json!({ "inbox": "due" }));
}

#[test]
fn the_function_may_use_its_own_queue_and_the_schedule_may_invoke_only_the_function() {
    let stack = stack(&[ACCEPTED]);
    let of = |role: &str| {
        let mut found = Vec::new();
        statements(&properties(&stack, role)["Policies"], &mut found);
        found
    };
    let queue = of("RouterRole").into_iter().filter(|one| one.to_string().contains("sqs"));
    assert_eq!(
        queue.collect::<Vec<_>>(),
        [json!({
            "Sid": "UseInboxQueue",
            "Effect": "Allow",
            // SendMessage also allows batches:
            // https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html
            "Action": [
                "sqs:SendMessage",
                "sqs:ReceiveMessage",
                "sqs:DeleteMessage",
                "sqs:GetQueueAttributes",
            ],
            "Resource": "InboxQueue.Arn",
        })]
    );
    assert_eq!(
        of("InboxScheduleRole"),
        [json!({
            "Sid": "InvokeRouter",
            "Effect": "Allow",
            "Action": "lambda:InvokeFunction",
            "Resource": "Router.Arn",
        })]
    );
    // Only the schedules of the account's default group may use the roles. A condition cannot name a
    // single schedule
    // (<https://docs.aws.amazon.com/scheduler/latest/UserGuide/cross-service-confused-deputy-prevention.html>).
    let group = "arn:aws:scheduler:us-east-1:123456789012:schedule-group/default";
    let account = "123456789012";
    for (role, schedule) in [("InboxScheduleRole", "InboxSchedule"), ("RedriveRole", "Redrive")] {
        let trust = &properties(&stack, role)["AssumeRolePolicyDocument"]["Statement"];
        assert_eq!(
            trust[0]["Condition"],
            json!({ "StringEquals": { "aws:SourceAccount": account, "aws:SourceArn": group } })
        );
        assert_eq!(trust[0]["Principal"], json!({ "Service": "scheduler.amazonaws.com" }));
        assert_eq!(properties(&stack, schedule).get("GroupName"), None);
    }
    // Nobody else may: neither queue has a policy of its own.
    let resources = stack.resources();
    assert!(resources.values().all(|one| one["Type"] != "AWS::SQS::QueuePolicy"));
}

#[test]
fn visibility_lease_and_timeout_fit_one_another_for_every_allowed_parameter() {
    let (second, (shortest, longest)) = (Duration::from_secs(1), limits("Timeout"));
    let (fastest, slowest) = limits("StoreTimeoutMs");
    for timeout in shortest..=longest {
        let stack = stack(&[ACCEPTED, ("Timeout", &timeout.to_string())]);
        let queue = properties(&stack, "InboxQueue");
        assert_eq!(number(&properties(&stack, "Router")["Timeout"]), timeout);
        assert!(number(&queue["MaximumMessageSize"]) > MAX_COPY_BYTES as u64);
        let visibility = number(&queue["VisibilityTimeout"]);
        // Lambda asks for six times the timeout. SQS hides a message for 12 hours at most.
        assert!((timeout * 6..=43_200).contains(&visibility), "{timeout}: {visibility}");

        // A message comes again only after the lease of the attempt that it caused. Its invocation
        // begins when the message is received, or up to four timeouts later if Lambda was throttled.
        // The latest attempt begins just before the invocation ends.
        let hidden = Duration::from_secs(visibility - timeout * 4);
        for store_timeout in [fastest, slowest].map(Duration::from_millis) {
            let whole = Duration::from_secs(timeout);
            for begun in [Duration::ZERO, whole / 2, whole - second, whole] {
                let budget = Budget::of_invocation(whole - begun, store_timeout);
                let lease = (budget.lease_until - budget.now).to_std().unwrap();
                // The lease outlives the invocation.
                assert!(begun + lease > whole);
                assert!(begun + lease < hidden, "{timeout} s, begun at {begun:?}: {lease:?}");
            }
        }

        // A message that nobody can use goes to the queue of its own before its time ends. It keeps
        // the age that it has.
        let uses = queue["RedrivePolicy"]["maxReceiveCount"].as_u64().unwrap();
        let kept = number(&queue["MessageRetentionPeriod"]);
        let unreadable =
            number(&properties(&stack, "UnreadableMessages")["MessageRetentionPeriod"]);
        assert!(uses * visibility < kept && 2 * kept < unreadable, "{timeout}");
        // AWS's advice, so that throttling does not use up a message.
        assert!(uses >= 5);
        // The longest delay of a message is a fraction of its time.
        assert!(900 + uses * visibility < kept);
    }
}

#[test]
fn an_attempt_fits_into_an_invocation_of_the_default_parameters() {
    let config = stack(&[ACCEPTED]).config().unwrap();
    let timeout = number(&TEMPLATE["Parameters"]["Timeout"]["Default"]);
    let budget = Budget::of_invocation(Duration::from_secs(timeout), config.store.timeout);
    // Taking the event comes first.
    assert!(budget.has_time_for(config.store.timeout + config.forward.timeout));
}

#[test]
fn alarms_watch_age_number_and_messages_and_tell_when_the_schedule_does_not_run() {
    let told = "arn:aws:sns:us-east-1:123456789012:alarms";
    let stack = stack(&[
        ACCEPTED,
        ("AlarmTopicArn", told),
        ("PendingAlarmSeconds", "60"),
        ("PendingAlarmEvents", "20"),
    ]);
    let function = json!([{ "Name": "function", "Value": "Router" }]);
    let unreadable = json!([{ "Name": "QueueName", "Value": "UnreadableMessages.QueueName" }]);
    let visible = "ApproximateNumberOfMessagesVisible";
    for (name, metric, statistic, dimensions, threshold) in [
        ("OldestPendingAlarm", "oldest_pending_seconds", "Maximum", &function, "60"),
        ("PendingAlarm", "pending", "Maximum", &function, "20"),
        ("MessagesNotSentAlarm", "messages_not_sent", "Sum", &function, "0"),
        ("UnreadableMessagesAlarm", visible, "Maximum", &unreadable, "0"),
    ] {
        let alarm = properties(&stack, name);
        assert_eq!(text(&alarm["MetricName"]), metric);
        assert_eq!(&alarm["Dimensions"], dimensions);
        assert_eq!(text(&alarm["Threshold"]), threshold);
        assert_eq!(alarm["ComparisonOperator"], "GreaterThanThreshold");
        assert_eq!(alarm["Statistic"], statistic);
        assert_eq!(alarm["AlarmActions"], json!([told]));
        // The description leads to a section of the handbook.
        let (_, section) = text(&alarm["AlarmDescription"])
            .rsplit_once("docs/operations.md#")
            .map(|(said, section)| (said.to_owned(), section.to_owned()))
            .unwrap();
        let handbook = std::fs::read_to_string("docs/operations.md").unwrap();
        let headings = handbook.lines().filter_map(|line| line.strip_prefix("### "));
        let mut anchors = headings.map(|heading| heading.to_lowercase().replace(' ', "-"));
        assert!(anchors.any(|anchor| anchor == section), "{section}");
    }
    let oldest = properties(&stack, "OldestPendingAlarm");
    assert_eq!(oldest["TreatMissingData"], "missing");
    assert_eq!(oldest["InsufficientDataActions"], json!([told]));
    // The metric has values only when a message is not sent.
    let not_sent = properties(&stack, "MessagesNotSentAlarm");
    assert_eq!(not_sent["TreatMissingData"], "notBreaching");
    assert_eq!((&not_sent["Period"], &not_sent["EvaluationPeriods"]), (&json!(300), &json!(3)));
    // The router counts up to 1,000 events of a destination.
    assert!(limits("PendingAlarmEvents").1 < 1000);
}

#[test]
fn the_dashboard_shows_the_inbox_and_its_queue() {
    let stack = stack(&[ACCEPTED]);
    let widgets = stack.widgets();
    assert_eq!(widgets.len(), 10);
    let mut places = BTreeSet::new();
    for widget in &widgets {
        assert!(places.insert((widget["x"].to_string(), widget["y"].to_string())), "{widget}");
    }
    let queues = widgets.iter().flat_map(|widget| {
        let metrics = widget["properties"]["metrics"].as_array().into_iter().flatten();
        metrics.filter(|metric| metric[0] == "AWS/SQS")
    });
    let queues: Vec<_> = queues.map(|metric| (text(&metric[1]), text(&metric[3]))).collect();
    let named = |metric: &str, queue: &str| (metric.to_owned(), format!("{queue}.QueueName"));
    assert_eq!(
        queues,
        [
            named("ApproximateNumberOfMessagesVisible", "InboxQueue"),
            named("ApproximateNumberOfMessagesNotVisible", "InboxQueue"),
            named("ApproximateNumberOfMessagesVisible", "UnreadableMessages"),
        ]
    );
    let by = |metric: &str, dimensions: &str| (metric.to_owned(), dimensions.to_owned());
    let more: Vec<_> = stack.watched().difference(&super::stack(&[]).watched()).cloned().collect();
    assert_eq!(
        more,
        [
            by("messages_not_sent", "function"),
            by("oldest_pending_seconds", "function"),
            by("pending", "function"),
        ]
    );
}
