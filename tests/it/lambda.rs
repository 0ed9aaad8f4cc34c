//! The function in cargo-lambda's emulator of Lambda.

use std::{
    collections::BTreeMap,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::StatusCode;
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::Value;
use webhook_router::{error::Error, outcome::Trigger};

use crate::{
    attempts::record,
    support::{
        PAYLOAD, PROCESSOR, ROUTER, Serve, Server, Sink, client, end_of, free_port, get, ok,
        outside_of_cargo, post, sqlite, status, tells_nothing, venv,
    },
};

/// An answer in the shape of any front.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status_code: u16,
    headers: BTreeMap<String, String>,
    multi_value_headers: BTreeMap<String, Vec<String>>,
    body: String,
    is_base64_encoded: bool,
}

impl Answer {
    /// Returns the headers. A REST API reads them from one member, and a Function URL from the other.
    fn headers(&self) -> BTreeMap<&str, &str> {
        let single = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let all = self.multi_value_headers.iter();
        single.chain(all.map(|(name, values)| (name.as_str(), values[0].as_str()))).collect()
    }
}

#[tokio::test]
async fn cargo_lambda_invoke_answers_every_event_as_serve_does() {
    let emulator = Emulator::start().await;
    let processor = Server::start(Command::new(PROCESSOR), &[("PORT", "0")]);
    let url = processor.url.replace("0.0.0.0", "127.0.0.1");
    let router = Serve::to_url(&url).start();
    let events = events();
    assert!(events.len() >= 15);
    let mut destinations = Vec::new();
    for file in &events {
        // The first delivery is routed, and the second is a duplicate.
        for _ in 0..2 {
            let served = get(request_of(file, &router.webhook()).send().await).await;
            let answer = emulator.invoke(file);
            assert_eq!(answer.status_code, served.status, "{file:?}: {answer:?}");
            assert_eq!(answer.body, served.text(), "{file:?}");
            assert!(!answer.is_base64_encoded);
            let headers = answer.headers();
            for (name, value) in &headers {
                assert_eq!(served.header(name), Some(*value), "{file:?}: {name}");
            }
            assert_eq!(
                headers.contains_key("x-webhook-key"),
                served.header("x-webhook-key").is_some()
            );
            destinations.extend(headers.get("x-webhook-destination").map(ToString::to_string));
        }
    }
    for destination in ["gcp", "aws"] {
        assert!(destinations.iter().filter(|one| *one == destination).count() >= 4);
    }

    // Malformed events are answered, too, in the shape of their front. The function continues.
    let folder = tempfile::tempdir().unwrap();
    let url = malformed_base64("paypal-capture-base64");
    let (rest, alb) = (malformed_base64("rest-api"), malformed_base64("alb-multi-value"));
    for (text, has_headers) in [(&url, true), (&rest, false), (&alb, true)] {
        let file = folder.path().join("event");
        std::fs::write(&file, text).unwrap();
        let answer = emulator.invoke(&file);
        let expected = Error::NotARequest.reply().body;
        assert_eq!((answer.status_code, answer.body.as_bytes()), (400, &expected[..]));
        assert_eq!(answer.headers.is_empty(), !has_headers, "{text}");
    }
    // What no front sends must not pass for a success: its caller would take it for done.
    for text in ["{}", "\"x\"", r#"{"inbox":"Due"}"#] {
        let answer = emulator.invoke_with(text);
        let error = answer["errorMessage"].as_str().unwrap_or_default();
        assert!(error.contains("not an HTTP request: expected an event"), "{text}: {answer}");
    }
    assert_eq!(emulator.invoke(&events[0]).status_code, 400);
}

#[tokio::test]
async fn direct_callers_replay_dead_letters_and_senders_cannot() {
    let emulator = Emulator::start().await;
    let sink = Sink::start().await;
    let url = sqlite(emulator.folder.path());
    let vars = [("STORE_URL", url.as_str()), ("FORWARD_ATTEMPTS", "1")];
    let failing = Serve::to(&sink).envs(vars).start();
    sink.answers(status(StatusCode::SERVICE_UNAVAILABLE, "no"));
    let mut keys = Vec::new();
    for number in ["1", "2", "3", "4"] {
        let got = failing.post(PAYLOAD.replace("4200", number)).await;
        // With the Invoke API, the function may have been called.
        assert!(matches!(got.status, 502 | 503));
        keys.push(got.header("x-webhook-key").unwrap().to_owned());
    }
    let replay = |request: &str| emulator.invoke_with(&format!(r#"{{"replay": {request}}}"#));
    let dry = replay(r#"{"all": true, "dry_run": true}"#);
    assert_eq!((&dry["chosen"], &dry["delivered"]), (&4.into(), &0.into()), "{dry}");
    assert_eq!(replay(r#"{"all": true, "vendor": "adyen"}"#)["chosen"], 0);
    for (request, said) in [
        ("{}", "give either `keys`, or `all`"),
        (r#"{"all": true, "keys": ["x"]}"#, "give either `keys`, or `all`"),
        (r#"{"keys": ["x"], "vendor": "stripe"}"#, "give either `keys`, or `all`"),
        (r#"{"keys": ["x"], "left_to_operator": true}"#, "give either `keys`, or `all`"),
        (r#"{"keys": ["x"]}"#, "`webhook:dedup:x` is not a key"),
        (r#"{"everything": true}"#, "unknown field `everything`"),
        (r#"{"all": true, "since": "yesterday"}"#, "must be a time in UTC"),
    ] {
        let answer = replay(request);
        let text = answer["errorMessage"].as_str().unwrap_or_default();
        assert!(text.contains(said), "{request}: {answer}");
    }
    // Through a front, the same text is an envelope without its fields.
    let url = format!("http://127.0.0.1:{}/lambda-url/webhook-router/webhook", emulator.port);
    let got = post(&client(), &url, r#"{"replay": {"all": true}}"#).await;
    assert_eq!(got.text(), "missing required fields: vendor, event_type, created_at");

    // Events that may have arrived wait for their leases. The others are delivered now. Later, all
    // are delivered.
    let named = replay(&format!(r#"{{"keys": [{:?}]}}"#, keys[0]));
    assert_eq!(named["chosen"], 1, "{named}");
    let mut done = named["delivered"].as_u64().unwrap();
    for _ in 0..600 {
        let all = replay(r#"{"all": true, "per_second": 100, "since": "1h"}"#);
        assert_eq!((&all["failed"], &all["not_begun"]), (&0.into(), &0.into()), "{all}");
        done += all["delivered"].as_u64().unwrap();
        if all["chosen"] == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(done, 4);
    for number in ["1", "2", "3", "4"] {
        let got = failing.post(PAYLOAD.replace("4200", number)).await;
        assert_eq!(got.text(), "duplicate ignored");
    }
    for key in keys {
        let record = record(&sqlite(emulator.folder.path()), &key).await;
        let last = record.attempts.last().unwrap().by;
        assert!(matches!(last, Trigger::Replay | Trigger::BulkReplay), "{last}");
    }
}

#[tokio::test]
async fn direct_callers_check_the_function_s_own_view_of_its_services() {
    let sink = Sink::start().await;
    let vars = [sink.vars(), vec![("STRIPE_SECRETS", "plainly-a-secret")]].concat();
    let emulator = Emulator::start_with(&vars).await;
    let report = emulator.invoke_with(r#"{"doctor": true}"#);
    tells_nothing(&report.to_string());
    let findings: Vec<_> = report["findings"].as_array().unwrap().iter().collect();
    let tells = |severity: &str, subject: &str, text: &str| {
        let is_it = |found: &&Value| found["severity"] == severity && found["subject"] == subject;
        let found = findings.iter().copied().find(is_it);
        let found = found.and_then(|found| found["text"].as_str());
        assert!(found.is_some_and(|found| found.contains(text)), "{subject}: {report}");
    };
    tells("ok", "STORE_URL", "store.db can be written");
    tells("ok", "GCP_TARGET_URL", "127.0.0.1 is an address");
    tells("ok", "AWS credentials", "found");
    tells("ok", "SOURCES", "serves /webhook/stripe");
    tells("warning", "ROUTING_SECRET", "has its default value");
    let warnings = findings.iter().filter(|found| found["severity"] == "warning").count();
    assert_eq!((&report["errors"], &report["warnings"]), (&0.into(), &warnings.into()));
    let log = std::fs::read_to_string(emulator.folder.path().join("log")).unwrap();
    assert!(log.contains(&format!("\"problems\":{warnings},")), "{log}");
    assert!(sink.received().is_empty());
    // Through a front, the same text is an envelope without its fields.
    let url = format!("http://127.0.0.1:{}/lambda-url/webhook-router/webhook", emulator.port);
    let got = post(&client(), &url, r#"{"doctor": true}"#).await;
    assert_eq!(got.text(), "missing required fields: vendor, event_type, created_at");
}

// The sink must answer while the test waits for an invocation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_redrives_never_deliver_is_left_to_the_operator() {
    let sink = Sink::start().await;
    let own = [
        ("REDRIVE_LIMIT", "2"),
        ("FORWARD_ATTEMPTS", "1"),
        ("ROUTE_THRESHOLD", "256"),
        // While the whole test suite runs, a commit to the file system may take long.
        ("STORE_TIMEOUT_MS", "20000"),
    ];
    let emulator = Emulator::start_with(&[&sink.vars()[..], &own].concat()).await;
    let url = sqlite(emulator.folder.path());
    let vars = [&sink.vars()[..], &own, &[("STORE_URL", &url)]].concat();
    let failing = Serve::new().envs(vars.iter().copied()).start();
    sink.answers(status(StatusCode::UNPROCESSABLE_ENTITY, "never"));
    let got = failing.post(PAYLOAD).await;
    let key = got.header("x-webhook-key").unwrap();
    let expect = |request: &str, expected: [u64; 4]| {
        let report = emulator.invoke_with(&format!(r#"{{"replay": {request}}}"#));
        let counts = ["chosen", "failed", "delivered", "left_to_operator"];
        let counts = counts.map(|count| report[count].as_u64().unwrap_or(u64::MAX));
        assert_eq!(counts, expected, "{report}");
    };
    const ALL: &str = r#"{"all": true}"#;
    // The schedule's payload: two redrives fail, and then there are no more.
    expect(ALL, [1, 1, 0, 0]);
    expect(ALL, [1, 1, 0, 0]);
    for _ in 0..2 {
        expect(ALL, [0, 0, 0, 1]);
    }
    expect(r#"{"all": true, "dry_run": true}"#, [0, 0, 0, 1]);
    assert_eq!(sink.take().len(), 3);
    // The event is still a dead letter, and the alarm's metric counts it.
    let log = std::fs::read_to_string(emulator.folder.path().join("log")).unwrap();
    let last = log.lines().rfind(|line| line.contains("\"dead_letters\":")).unwrap();
    assert!(
        last.contains("\"dead_letters\":1") && last.contains("\"left_to_operator\":1"),
        "{last}"
    );
    // The operator's request includes the event. A replay by key restarts the count.
    expect(r#"{"all": true, "left_to_operator": true}"#, [1, 1, 0, 0]);
    expect(&format!(r#"{{"keys": [{key:?}]}}"#), [1, 1, 0, 0]);
    expect(ALL, [1, 1, 0, 0]);
    expect(ALL, [1, 1, 0, 0]);
    expect(ALL, [0, 0, 0, 1]);
    sink.answers(ok("done"));
    sink.take();
    let mut replay = Command::new(ROUTER);
    replay.args(["replay", "--all"]).env_clear().envs(vars.iter().copied());
    let output = tokio::task::spawn_blocking(move || end_of(&mut replay)).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(sink.take().len(), 1);
    expect(ALL, [0, 0, 0, 0]);
}

/// `cargo lambda watch` with both functions.
struct Emulator {
    watch: Child,
    port: String,
    folder: tempfile::TempDir,
}

impl Emulator {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(vars: &[(&str, &str)]) -> Self {
        let (port, folder) = (free_port().to_string(), tempfile::tempdir().unwrap());
        // The variables of events/local.env, with the test's own port and store.
        let variables = folder.path().join("env");
        let local = std::fs::read_to_string("events/local.env").unwrap();
        let local = local
            .replace("127.0.0.1:9000", &format!("127.0.0.1:{port}"))
            .replace("sqlite:target/webhook-router.db", &sqlite(folder.path()));
        let mut all: BTreeMap<_, _> =
            local.lines().map(|line| line.split_once('=').unwrap()).collect();
        all.extend(vars.iter().copied());
        let lines = all.iter().map(|(name, value)| format!("{name}={value}\n"));
        std::fs::write(&variables, lines.collect::<String>()).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let watch = cargo_lambda(&[
            "watch",
            "--features",
            "fault-points",
            "--ignore-changes",
            "-A",
            "127.0.0.1",
            "-P",
            &port,
        ])
        .arg("--env-file")
        .arg(&variables)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        // The emulator starts other processes, which end with its group.
        .process_group(0)
        .spawn()
        .unwrap();
        let emulator = Self { watch, port, folder };
        while tokio::net::TcpStream::connect(("127.0.0.1", emulator.port.parse().unwrap()))
            .await
            .is_err()
        {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        // The emulator builds a function at its first invocation. The tests should not have to wait
        // for that later.
        for function in ["webhook-processor", "webhook-router"] {
            emulator.invoke_function(function, "{}");
        }
        emulator
    }

    /// Returns the router's answer, or its error.
    fn invoke_with(&self, payload: &str) -> serde_json::Value {
        self.invoke_function("webhook-router", payload)
    }

    fn invoke_function(&self, function: &str, payload: &str) -> serde_json::Value {
        let output = cargo_lambda(&["invoke", "-A", "127.0.0.1", "-P", &self.port])
            .args([function, "--data-ascii", payload])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|_| {
            let said = String::from_utf8_lossy(&output.stderr);
            serde_json::json!({ "errorMessage": said })
        })
    }

    fn invoke(&self, file: &Path) -> Answer {
        let output = cargo_lambda(&["invoke", "-A", "127.0.0.1", "-P", &self.port])
            .args(["webhook-router", "--data-file"])
            .arg(file)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            panic!("{file:?}: {error}: {text}\n{said}\n{log}")
        })
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            tells_nothing(&std::fs::read_to_string(self.folder.path().join("log")).unwrap());
        }
        let group = format!("-{}", self.watch.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.watch.wait();
    }
}

fn cargo_lambda(args: &[&str]) -> Command {
    let mut command = outside_of_cargo(venv("cargo-lambda"));
    command.arg("lambda").args(args);
    command
}

/// Returns the files of events/.
pub fn events() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("events");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect();
    files.sort();
    files
}

/// Builds the request that a front turned into the event in a file.
pub fn request_of(file: &Path, url: &str) -> RequestBuilder {
    let event: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let values = ["headers", "multiValueHeaders"].map(|member| event[member].as_object());
    let content_type = values.into_iter().flatten().flatten().find_map(|(name, value)| {
        let value = value.get(0).unwrap_or(value).as_str();
        value.filter(|_| name.eq_ignore_ascii_case("content-type"))
    });
    let text = event["body"].as_str().unwrap();
    let body = match event["isBase64Encoded"].as_bool().unwrap() {
        true => BASE64_STANDARD.decode(text).unwrap(),
        false => text.into(),
    };
    client().post(url).header("content-type", content_type.unwrap()).body(body)
}

fn malformed_base64(name: &str) -> String {
    let event = std::fs::read_to_string(format!("events/{name}.json")).unwrap();
    event.replace("\"body\": \"", "\"body\": \"*")
}
