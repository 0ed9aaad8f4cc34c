//! `doctor`: every finding with its remedy, and the lines that `serve` logs about them.

use std::process::{Command, Output};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    TimeToLiveSpecification,
};
use serde_json::Value;

use crate::{
    network::{client_files, name_of_loopback},
    servers::{Authority, DynamoDbLocal, Redis, RedisCluster},
    support::{PAYLOAD, ROUTER, Serve, Sink, end_of, sqlite},
};

/// The AWS settings that `doctor` needs, and addresses that no other process has.
const COMMON: [(&str, &str); 6] = [
    ("AWS_REGION", "us-east-1"),
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("METRICS_LISTEN", "127.0.0.1:0"),
    ("STORE_TIMEOUT_MS", "4000"),
];

fn doctor(args: &[&str], vars: &[(&str, &str)]) -> Output {
    let mut command = Command::new(ROUTER);
    command.arg("doctor").args(args).args(["--listen", "0"]);
    command.env_clear().envs(COMMON).envs(vars.iter().copied());
    // A variable that is empty here is removed.
    vars.iter().filter(|(_, value)| value.is_empty()).for_each(|(name, _)| {
        command.env_remove(name);
    });
    end_of(&mut command)
}

/// The severity and `subject: text` of each finding.
fn findings(vars: &[(&str, &str)]) -> Vec<(String, String)> {
    let output = doctor(&["--json"], vars);
    let text = String::from_utf8(output.stdout).unwrap();
    let objects = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let found: Vec<_> = objects
        .map(|found| {
            let text = format!("{}: {}", word(&found["subject"]), word(&found["text"]));
            (word(&found["severity"]), text)
        })
        .collect();
    let has_error = found.iter().any(|(severity, _)| severity == "error");
    assert_eq!(output.status.code(), Some(i32::from(has_error)), "{found:?}");
    found
}

#[track_caller]
fn tells(found: &[(String, String)], severity: &str, text: &str) {
    let is_it = |found: &(String, String)| found.0 == severity && found.1.contains(text);
    assert!(found.iter().any(is_it), "no {severity} `{text}`: {found:#?}");
}

#[tokio::test]
async fn a_sound_configuration_has_no_errors_and_nothing_is_touched() {
    let sink = Sink::start().await;
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    let vars = [sink.vars(), vec![("STORE_URL", store.as_str()), ("STRIPE_SECRETS", "whsec_x")]];
    let vars = vars.concat();
    let found = findings(&vars);
    for text in [
        "STORE_URL: sqlite:",
        "GCP_TARGET_URL: 127.0.0.1 is an address",
        "AWS_TARGET_FUNCTION: 127.0.0.1 is an address",
        "AWS_REGION: us-east-1",
        "AWS credentials: found",
        "SOURCES: serves /webhook/stripe",
        "ANSWER: events are answered when they are delivered",
        "PORT: 127.0.0.1:0 is free",
    ] {
        tells(&found, "ok", text);
    }
    tells(&found, "warning", "ROUTING_SECRET: has its default value");
    // No target received a request, and no store was created.
    assert!(sink.received().is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    let output = doctor(&[], &vars);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.lines().next().unwrap().starts_with("ok       "), "{text}");
    assert!(text.ends_with("0 errors, 2 warnings\n"), "{text}");

    // An existing store is opened, and stays as it is.
    let router = Serve::new().envs(vars.iter().copied()).start();
    router.checked();
    assert!(router.log().contains("\"problems\":0"), "{}", router.log());
    router.post(PAYLOAD).await.expect(200);
    tells(&findings(&vars), "ok", "store.db can be written");
}

#[test]
fn every_problem_is_told_at_once() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let metrics = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.db");
    std::fs::write(&other, "no database, but long enough to be looked at as one: plainly not")
        .unwrap();
    let other = format!("sqlite:{}", other.display());
    let vars = [
        ("ROUTE_THRESHOLD", "300"),
        ("GCP_TARGET_URL", "https://nowhere.invalid/"),
        ("GCP_CA_FILE", "/nowhere/ca.pem"),
        ("AWS_TARGET_FUNCTION", "arn:of:nothing"),
        ("AWS_REGION", ""),
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_CONFIG_FILE", "/nowhere/config"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/credentials"),
        ("SOURCES", "[sources.x"),
        ("METRICS_LISTEN", &metrics),
        ("STORE_URL", &other),
        ("FORWARD_BUDGET_MS", "1000"),
    ];
    let found = findings(&vars);
    for text in [
        "ROUTE_THRESHOLD: must be a whole number from 0 to 256",
        "GCP_TARGET_URL: nowhere.invalid cannot be looked up",
        "GCP_CA_FILE: /nowhere/ca.pem cannot be used as a PEM file of a CA",
        "AWS_TARGET_FUNCTION: must be a function's name or ARN",
        "AWS_REGION: must be set",
        "AWS credentials: ",
        "SOURCES: ",
        "METRICS_LISTEN: cannot listen on",
        "STORE_URL: cannot open",
    ] {
        tells(&found, "error", text);
    }
    tells(&found, "warning", "FORWARD_TIMEOUT_MS: 10000 is more than FORWARD_BUDGET_MS");
}

#[test]
fn a_region_that_is_blank_counts_as_not_set() {
    let vars = [("AWS_REGION", " "), ("AWS_CONFIG_FILE", "/nowhere/config")];
    let targets = [("AWS_TARGET_FUNCTION", "processor"), ("ROUTE_THRESHOLD", "0")];
    tells(&findings(&[vars, targets].concat()), "error", "AWS_REGION: must be set");
}

#[test]
fn a_mistyped_variable_is_told_its_name() {
    let unread = [
        ("GCP_TARGETURL", "https://processor.example.com"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_plainly_fake"),
        ("GITHUB_SECRET", "plainly fake"),
    ];
    // The right variable is set, or a source names the variable.
    let read = [
        ("GITHUB_SECRETS", "plainly fake"),
        ("ADYEN2_SECRETS", "00"),
        ("SOURCES", "[sources.other]\nvendor = \"adyen\"\nsecrets_from = \"ADYEN2_SECRETS\""),
    ];
    let vars = [&unread[..], &read].concat();
    let found = findings(&vars);
    let said: Vec<_> = found.iter().filter(|found| found.1.contains("is not read")).collect();
    let expected = [
        "GCP_TARGETURL: is not read: if it is meant for the router, rename it to GCP_TARGET_URL",
        "STRIPE_WEBHOOK_SECRET: is not read: if it is meant for the router, rename it to STRIPE_SECRETS",
    ];
    expected.iter().for_each(|text| tells(&found, "warning", text));
    assert_eq!(said.len(), expected.len(), "{said:?}");
    let mut serve = Command::new(ROUTER);
    let output = end_of(serve.args(["serve", "--listen", "0"]).env_clear().envs(COMMON).envs(vars));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && !log.contains("plainly"), "{log}");
    expected.iter().for_each(|text| assert!(log.contains(text), "{log}"));
}

#[test]
fn a_secret_that_cannot_be_read_is_a_finding() {
    let vars = [
        ("SECRETS_ARN", "nobody"),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:1"),
        ("GCP_TARGET_URL", "ftp://x"),
        // AWS_TARGET_FUNCTION may be in the secret.
        (
            "SOURCES",
            "[sources.s]\nvendor = \"stripe\"\nsecrets = [\"plainly\"]\ndestination = \"aws\"",
        ),
    ];
    let found = findings(&vars);
    tells(&found, "error", "SECRETS_ARN: the secret of SECRETS_ARN cannot be read");
    tells(&found, "error", "GCP_TARGET_URL: must be ");
    assert_eq!(found.len(), 2, "{found:?}");
}

/// Findings for a store, when all events go to gcp.
fn of_store(store: &str, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let vars = [
        ("GCP_TARGET_URL", "http://127.0.0.1:1"),
        ("ROUTE_THRESHOLD", "256"),
        ("STORE_URL", store),
    ];
    findings(&[&vars, more].concat())
}

#[test]
fn a_redis_that_does_not_suit_is_told_with_its_remedy() {
    let redis = Redis::start(&[
        "--user",
        "stranger",
        "on",
        ">test-password",
        "~*",
        "+zrem",
        "+@connection",
    ]);
    let (url, place) = (redis.url(), format!("redis://127.0.0.1:{}", redis.port));
    let found = of_store(&url, &[]);
    tells(&found, "ok", &format!("{place} answers: Redis "));
    assert!(found.iter().all(|(severity, text)| severity == "ok" || !text.contains("STORE_URL")));
    let cluster = format!("{url}?cluster=true");
    tells(&of_store(&cluster, &[]), "error", "remove ?cluster=true");
    // If the user may not call INFO, `doctor` reports only that the server answers.
    let stranger = format!("redis://stranger:test-password@127.0.0.1:{}", redis.port);
    tells(&of_store(&stranger, &[]), "ok", &format!("{place} answers; its user may not call"));
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    tells(&of_store(&url, &[]), "warning", "(allkeys-lru), so an event may be");
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    tells(&of_store(&url, &[]), "error", &format!("{place} is a replica"));
    drop(redis);
    tells(&of_store(&url, &[]), "error", &format!("STORE_URL: {place}: "));
}

#[test]
fn a_cluster_is_looked_at_as_a_whole() {
    let cluster = RedisCluster::start();
    cluster.nodes[1].cli(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    let found = of_store(&cluster.url(), &[]);
    tells(&found, "ok", "answers: Redis ");
    tells(&found, "warning", "(volatile-lru)");
    tells(&of_store(&cluster.nodes[0].url(), &[]), "error", "add ?cluster=true");
}

#[test]
fn an_authority_is_looked_at() {
    let authority = Authority::new();
    let (_redis, url) = Redis::start_with_tls(&authority, &[]);
    let ca = authority.file();
    let found = of_store(&url, &[("REDIS_CA_FILE", ca.to_str().unwrap())]);
    tells(&found, "ok", "STORE_URL: rediss://localhost:");
    tells(&found, "ok", "ca.pem has 1 certificate");
    let stranger = Authority::new();
    let stranger = stranger.file();
    let found = of_store(&url, &[("REDIS_CA_FILE", stranger.to_str().unwrap())]);
    tells(&found, "error", "STORE_URL: rediss://localhost:");
}

#[test]
fn a_client_certificate_and_the_addresses_of_a_name_are_looked_at() {
    let authority = Authority::new();
    let (certificate, key) = client_files(&authority, "router");
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    let name = name_of_loopback();
    let url = format!("https://{name}/");
    let vars = [
        ("STORE_URL", store.as_str()),
        ("GCP_TARGET_URL", &url),
        ("ROUTE_THRESHOLD", "256"),
        ("GCP_CLIENT_CERT_FILE", certificate.to_str().unwrap()),
        ("GCP_CLIENT_KEY_FILE", key.to_str().unwrap()),
        ("MIRROR_URL", "https://nowhere.invalid/"),
    ];
    let found = findings(&vars);
    tells(&found, "error", "MIRROR_URL: nowhere.invalid cannot be looked up");
    tells(&found, "ok", "router.certificate.pem has 1 certificate, valid until");
    tells(&found, "error", &format!("GCP_TARGET_URL: {name} resolves to "));
    let (expired, its_key) = authority.issue_expired(&["router"]);
    std::fs::write(&certificate, expired.pem()).unwrap();
    std::fs::write(&key, its_key.serialize_pem()).unwrap();
    tells(&findings(&vars), "warning", "router.certificate.pem has a certificate that expires at");
}

#[test]
fn a_database_of_another_program_is_refused_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("another.db");
    let database = rusqlite::Connection::open(&file).unwrap();
    database.execute_batch("CREATE TABLE users (id INTEGER PRIMARY KEY)").unwrap();
    let url = format!("sqlite:{}", file.display());
    let text = "another.db: it is the database of another program";
    for version in [0, 1, 3, 99] {
        database.pragma_update(None, "user_version", version).unwrap();
        let before = std::fs::read(&file).unwrap();
        tells(&findings(&[("STORE_URL", &url)]), "error", text);
        let mut serve = Command::new(ROUTER);
        serve.args(["serve", "--listen", "127.0.0.1:0"]).env_clear().envs(COMMON);
        serve.envs([("ROUTE_THRESHOLD", "256"), ("GCP_TARGET_URL", "http://127.0.0.1:1")]);
        let output = end_of(serve.env("STORE_URL", &url));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(text), "{said}");
        assert_eq!(std::fs::read(&file).unwrap(), before);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[tokio::test]
async fn a_dynamodb_table_that_does_not_suit_is_told_with_its_remedy() {
    let dynamodb = DynamoDbLocal::start().await;
    let endpoint =
        [("AWS_ENDPOINT_URL_DYNAMODB", dynamodb.url.as_str()), ("STORE_TIMEOUT_MS", "20000")];
    let url = format!("dynamodb://{}", DynamoDbLocal::TABLE);
    tells(&of_store(&url, &endpoint), "warning", "turn on TTL for the attribute expires_at");
    let client = aws_sdk_dynamodb::Client::new(&dynamodb.sdk);
    let ttl = TimeToLiveSpecification::builder().enabled(true).attribute_name("expires_at");
    client
        .update_time_to_live()
        .table_name(DynamoDbLocal::TABLE)
        .time_to_live_specification(ttl.build().unwrap())
        .send()
        .await
        .unwrap();
    let found = of_store(&url, &endpoint);
    tells(&found, "ok", "STORE_URL: dynamodb://webhook-router exists");
    assert!(!found.iter().any(|(severity, text)| severity != "ok" && text.contains("STORE_URL")));
    // The region in a function's ARN is none for a table.
    let function = "arn:aws:lambda:eu-west-1:123456789012:function:processor";
    let vars = [("STORE_URL", url.as_str()), ("AWS_TARGET_FUNCTION", function), ("AWS_REGION", "")];
    tells(&findings(&[&endpoint[..], &vars].concat()), "error", "AWS_REGION: must be set");
    let missing = of_store("dynamodb://no-such-table", &endpoint);
    tells(&missing, "error", "dynamodb://no-such-table: no such table in this region");

    client
        .create_table()
        .table_name("another")
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(
            AttributeDefinition::builder()
                .attribute_name("id")
                .attribute_type(ScalarAttributeType::S)
                .build()
                .unwrap(),
        )
        .key_schema(
            KeySchemaElement::builder()
                .attribute_name("id")
                .key_type(KeyType::Hash)
                .build()
                .unwrap(),
        )
        .send()
        .await
        .unwrap();
    let found = of_store("dynamodb://another", &endpoint);
    tells(&found, "error", "dynamodb://another must have the string `key` as its only key");
    tells(&found, "error", "the index dead_letters of dynamodb://another is missing");
}

#[tokio::test]
async fn serve_logs_the_problems_of_what_it_leads_to_and_serves() {
    let sink = Sink::start().await;
    let redis = Redis::start(&["--maxmemory-policy", "allkeys-lfu"]);
    let url = redis.url();
    let router = Serve::to(&sink).store(&url).start();
    router.checked();
    assert!(router.log().contains("set maxmemory-policy noeviction"), "{}", router.log());
    assert!(router.log().contains("ROUTING_SECRET: has its default value"), "{}", router.log());
    router.post(PAYLOAD).await.expect(200);
}
