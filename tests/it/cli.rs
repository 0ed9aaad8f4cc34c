//! Runs the commands as a person uses them.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use webhook_router::config::VARIABLES;

use crate::{
    lambda::{events, request_of},
    support::{
        FUNCTION, PAYLOAD, PROCESSOR, ROUTER, Server, client, end_of, get, post, sqlite,
        tells_nothing,
    },
};

pub fn router(args: &[&str], vars: &[(&str, &str)]) -> Output {
    end_of(Command::new(ROUTER).args(args).env_clear().envs(vars.iter().copied()))
}

pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn file(folder: &tempfile::TempDir, name: &str, body: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, body).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_deployed_function_runs_only_in_lambda_and_without_sqlite() {
    let run = |vars: &[(&str, &str)]| {
        let ended = end_of(Command::new(FUNCTION).env_clear().envs(vars.iter().copied()));
        assert!(!ended.status.success());
        stderr(&ended).to_owned()
    };
    let said = run(&[]);
    assert!(said.contains("elsewhere, use `webhook-router serve`"), "{said}");
    let said = run(&[
        // Nothing listens there, and the function ends before it would ask.
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1"),
        ("STORE_URL", "sqlite:/tmp/store.db"),
        ("ROUTING_SECRET", "plainly-a-test-s-routing-secret"),
        ("GCP_TARGET_URL", "https://service.example"),
        ("AWS_TARGET_FUNCTION", "processor"),
        ("AWS_REGION", "us-east-1"),
        ("ALLOW_UNSIGNED", "true"),
        // Otherwise, the configuration refuses a file in Lambda.
        ("LAMBDA_EMULATOR", "true"),
    ]);
    assert!(said.contains("has no SQLite: set STORE_URL to redis://"), "{said}");
}

#[test]
fn every_variable_is_listed_for_a_person_and_for_a_program() {
    let (text, lines) = (router(&["variables"], &[]), router(&["variables", "--json"], &[]));
    assert!(text.status.success() && lines.status.success());
    let objects: Vec<serde_json::Value> =
        stdout(&lines).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), VARIABLES.len());
    for (variable, object) in VARIABLES.iter().zip(&objects) {
        assert!(stdout(&text).contains(variable.name), "{}", variable.name);
        assert!(stdout(&text).contains(variable.meaning), "{}", variable.name);
        assert_eq!(
            (&object["name"], &object["meaning"]),
            (&variable.name.into(), &variable.meaning.into())
        );
        assert_eq!(object["default"], variable.default);
    }
}

#[test]
fn help_is_short_and_says_where_the_variables_are() {
    for args in [&["--help"][..], &["serve", "--help"], &["replay", "--help"], &["doctor", "-h"]] {
        let output = router(args, &[]);
        assert!(output.status.success());
        let help = stdout(&output);
        assert!(help.lines().count() < 45, "{help}");
        assert!(help.contains("`webhook-router variables` lists the variables"), "{help}");
        assert!(!help.contains("ROUTE_THRESHOLD"), "{help}");
    }
    let nothing = router(&[], &[]);
    assert!(!nothing.status.success() && stderr(&nothing).contains("Usage"));
}

#[test]
fn shells_complete_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = router(&["completions", shell], &[]);
        assert!(output.status.success(), "{}", stderr(&output));
        for command in ["serve", "doctor", "dead-letters", "variables"] {
            assert!(stdout(&output).contains(command), "{shell} {command}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let script = file(&folder, "webhook-router", stdout(&router(&["completions", "bash"], &[])));
    let complete = format!(
        "source {script}; completer=$(complete -p webhook-router | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
         COMP_WORDS=(webhook-router dis); COMP_CWORD=1; \
         $completer webhook-router dis webhook-router; echo ${{COMPREPLY[*]}}"
    );
    let output = Command::new("bash").args(["-c", &complete]).output().unwrap();
    assert_eq!(stdout(&output).trim(), "discard", "{}", stderr(&output));
}

#[test]
fn explain_tells_a_person_what_is_derived() {
    let folder = tempfile::tempdir().unwrap();
    let body = file(&folder, "payload.json", PAYLOAD);
    let output = router(&["explain", &body], &[]);
    assert!(output.status.success());
    let lines = [
        "  vendor       stripe",
        "  event_type   payment.succeeded",
        "  created_at   2026-05-06T12:34:56Z",
        "  key          webhook:dedup:b1c2385d2d97926fb253b63a6d3a27d1f34482c217b909e48054f1d8dd6ffe8f",
        "  destination  aws",
        "  answered     when the event is delivered",
    ];
    for line in lines {
        assert!(stdout(&output).contains(line), "{}", stdout(&output));
    }
    assert!(
        stderr(&output).starts_with("ROUTING_SECRET has its default value"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn explain_says_when_the_rules_of_a_source_decide() {
    let folder = tempfile::tempdir().unwrap();
    let body = file(&folder, "body.json", r#"{"id": "z1"}"#);
    let source = "[sources.acme]\nvendor = \"custom\"\nsecrets = [\"plainly\"]\nscheme = \"hmac-body\"\n\
                  header = \"X-Acme\"\nid = \"/id\"\n";
    for (rule, destination) in [("threshold = 256", "gcp"), ("destination = \"aws\"", "aws")] {
        let sources = format!("{source}{rule}\n");
        let vars = [("SOURCES", sources.as_str())];
        let event = router(&["event", "--source", "acme", &body], &vars);
        let event = file(&folder, "event.json", stdout(&event));
        let output = router(&["explain", "--event", &event], &vars);
        let line = format!("  destination  {destination} (by the rules of the source)\n");
        assert!(stdout(&output).contains(&line), "{}", stdout(&output));
        assert!(!stdout(&output).contains(" has "), "{}", stdout(&output));
    }
}

#[test]
fn explain_reads_a_vendor_s_own_payload_and_verifies_it_at_a_given_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("event.json");
    let body = r#"{"id":"evt_1","type":"invoice.paid","created":1780000000}"#;
    std::fs::write(&file, body).unwrap();
    let file = file.to_str().unwrap();
    let secret = "plainly-a-secret-of-the-tests";
    let signature = webhook_router::key::hmac_sha256(
        secret.as_bytes(),
        &[b"1780000000", b".", body.as_bytes()],
    );
    let header = format!("stripe-signature: t=1780000000,v1={}", hex::encode(signature));
    let explain = |more: &[&str], vars: &[(&str, &str)]| {
        let args = ["explain", "--json", "--vendor", "stripe", "--header", &header];
        let output = router(&[&args[..], more, &[file]].concat(), vars);
        serde_json::from_str::<serde_json::Value>(stdout(&output)).unwrap()
    };
    let secrets = [("STRIPE_SECRETS", secret)];
    let genuine = explain(&["--now", "1780000100"], &secrets);
    assert_eq!((&genuine["status"], &genuine["event_id"]), (&200.into(), &"evt_1".into()));
    assert_eq!(genuine["event_type"], "invoice.paid");
    assert_eq!(genuine["created_at"], "2026-05-28T20:26:40Z");
    assert_eq!(explain(&["--now", "1780000301"], &secrets)["status"], 401);
    let other = [("STRIPE_SECRETS", "plainly-another-secret")];
    assert_eq!(explain(&["--now", "1780000100"], &other)["status"], 401);
    // The body comes from a file, not from a sender, so nothing is verified without secrets.
    assert_eq!(explain(&[], &[])["key"], genuine["key"]);
    let told = |vars: &[(&str, &str)]| {
        let output = router(&["explain", "--vendor", "stripe", file], vars);
        stderr(&output).contains("signature not verified: set STRIPE_SECRETS")
    };
    assert!(told(&[]) && !told(&secrets));

    let unknown = router(&["explain", "--vendor", "nobody", file], &[]);
    assert!(!unknown.status.success());
    assert!(
        stderr(&unknown).contains("the built-in vendors are adyen, aftership, "),
        "{}",
        stderr(&unknown)
    );
}

#[test]
fn explain_goes_on_after_a_refusal_and_fails_for_a_missing_file() {
    let folder = tempfile::tempdir().unwrap();
    let bad = file(&folder, "bad", "{");
    let good = file(&folder, "good", PAYLOAD);
    let output = router(&["explain", "--json", &bad, &good], &[]);
    assert!(output.status.success());
    let objects: Vec<serde_json::Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), 2);
    assert_eq!((&objects[0]["status"], &objects[1]["status"]), (&400.into(), &200.into()));
    assert_eq!(objects[0]["error"], "invalid json: the text ends too early, at byte 1");
    assert_eq!(objects[1]["route_byte"].as_u64().map(|byte| byte >= 128), Some(true));
    let missing = router(&["explain", "--json", "/nowhere/at-all", &good], &[]);
    assert!(!missing.status.success());
    assert!(stderr(&missing).contains("cannot read the file /nowhere/at-all"));
    assert_eq!(stdout(&missing).lines().count(), 1);
    let numeric = file(&folder, "numeric", &PAYLOAD.replace("\"2026-05-06T12:34:56Z\"", "1.5e9"));
    let refused = router(&["explain", &numeric], &[]);
    let why = "  refused      400: missing required fields: created_at is a number; expected a \
               string such as 2026-05-06T12:34:56Z\n";
    assert!(stdout(&refused).contains(why), "{}", stdout(&refused));
    let refused = router(&["explain", &bad], &[]);
    assert!(stdout(&refused).contains("refused      400: invalid json"));
}

#[test]
fn explain_finds_in_every_front_s_event_what_its_body_alone_tells() {
    let folder = tempfile::tempdir().unwrap();
    let key = |args: &[&str]| {
        let output = router(&[&["explain", "--json"], args].concat(), &[]);
        let object: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
        object["key"].as_str().map(str::to_owned)
    };
    let mut keys = BTreeSet::new();
    for event in events() {
        let request = request_of(&event, "http://localhost/").build().unwrap();
        let body = folder.path().join("body");
        std::fs::write(&body, request.body().unwrap().as_bytes().unwrap()).unwrap();
        let of_event = key(&["--event", event.to_str().unwrap()]);
        assert_eq!(of_event, key(&[body.to_str().unwrap()]), "{event:?}");
        keys.extend(of_event);
    }
    assert!(keys.len() >= 12, "{keys:?}");
}

#[test]
fn explain_reads_events_standard_input_and_headers() {
    let output =
        router(&["explain", "--json", "--event", "events/paypal-capture-base64.json"], &[]);
    let object: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!((&object["status"], &object["vendor"]), (&200.into(), &"PayPal".into()));
    let output = router(&["explain", "--json", "--event", "Cargo.toml"], &[]);
    assert!(stdout(&output).contains("not an event of a Function URL"), "{}", stdout(&output));
    assert!(stdout(&output).contains("omit --event if the file"), "{}", stdout(&output));
    for args in [&[][..], &["--vendor", "shopify"]] {
        let event = &["events/paypal-capture-base64.json"][..];
        let output = router(&[&["explain"][..], args, event].concat(), &[]);
        let hint = "  hint         the file looks like an event of a Function URL, an API \
                    Gateway or a load balancer, and a raw body was expected: add --event\n";
        assert!(stdout(&output).contains(hint), "{}", stdout(&output));
    }

    let mut child = Command::new(ROUTER)
        .args(["explain", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(PAYLOAD.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    tells_nothing(stderr(&output));
    assert!(stdout(&output).contains("payment.succeeded"));

    let folder = tempfile::tempdir().unwrap();
    let good = file(&folder, "good", PAYLOAD);
    let signed = [("ENVELOPE_SECRETS", "whsec_dGVzdC1vbmx5LXNlY3JldC0tLS0tLS0tLS0tLS0t")];
    let refused = router(&["explain", &good], &signed);
    assert!(stdout(&refused).contains("refused      401: signature missing"));
    let headers = [
        "--header",
        "webhook-id: m",
        "--header",
        "webhook-timestamp: 1",
        "--header",
        "webhook-signature: v1,x",
    ];
    let args = [&["explain"][..], &headers, &[&good]].concat();
    assert!(stdout(&router(&args, &signed)).contains("refused      401: signature stale"));
    let wrong = router(&["explain", "--header", "no colon", &good], &[]);
    assert!(stderr(&wrong).contains("NAME: VALUE"));
}

#[test]
fn a_variable_that_is_not_utf_8_is_not_taken_for_unset() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = tempfile::tempdir().unwrap();
    let good = file(&folder, "good", PAYLOAD);
    let output = end_of(
        Command::new(ROUTER)
            .args(["explain", &good])
            .env("ROUTING_SECRET", std::ffi::OsStr::from_bytes(b"\xff-a-secret-of-ours")),
    );
    assert!(!output.status.success());
    assert!(stderr(&output).contains("ROUTING_SECRET: is not valid UTF-8"), "{}", stderr(&output));
}

#[test]
fn what_is_logged_must_be_understood() {
    let output = router(&["explain", "x"], &[("RUST_LOG", "nonsense=zzz")]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("\n  RUST_LOG: must be error, warn"), "{}", stderr(&output));
}

#[test]
fn the_processor_documents_its_variables() {
    let output = Command::new(PROCESSOR).arg("--help").output().unwrap();
    assert!(output.status.success() && stdout(&output).contains("PROCESSOR_DB"));
}

#[test]
fn serve_says_everything_that_is_wrong_before_it_starts() {
    let output = router(&["serve"], &[("ROUTE_THRESHOLD", "300"), ("STORE_URL", "nonsense")]);
    assert!(!output.status.success());
    for variable in ["ROUTE_THRESHOLD", "STORE_URL", "GCP_TARGET_URL", "AWS_TARGET_FUNCTION"] {
        assert!(stderr(&output).contains(&format!("\n  {variable}: ")), "{}", stderr(&output));
    }
    let targets = [("GCP_TARGET_URL", "https://x.dev"), ("AWS_TARGET_FUNCTION", "p")];
    let nowhere = [&targets[..], &[("STORE_URL", "sqlite:/nowhere/at/all.db")]].concat();
    let output = router(&["serve", "--listen", "127.0.0.1:0"], &nowhere);
    assert!(stderr(&output).contains("cannot open /nowhere/at/all.db: "), "{}", stderr(&output));
}

#[test]
fn serve_says_what_is_wrong_with_store_files_secret_and_ports_together() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}/missing/store.db", folder.path().display());
    let vars = [
        ("GCP_TARGET_URL", "https://x.dev"),
        ("AWS_TARGET_FUNCTION", "https://not-a.function"),
        ("ROUTING_SECRET", "fifteen-bytes--"),
        ("GCP_CA_FILE", "/nowhere/ca.pem"),
        ("STORE_URL", &store),
        ("METRICS_LISTEN", &taken),
        ("RUST_LOG", "verbose"),
    ];
    let output = router(&["serve", "--listen", &taken], &vars);
    assert_eq!(output.status.code(), Some(1));
    for (variable, said) in [
        ("AWS_TARGET_FUNCTION", "must be a function's name or ARN"),
        ("ROUTING_SECRET", "must have at least 16 bytes"),
        ("GCP_CA_FILE", "/nowhere/ca.pem cannot be used as a PEM file of a CA"),
        ("STORE_URL", "cannot open "),
        ("METRICS_LISTEN", "cannot listen on "),
        ("PORT", "cannot listen on "),
        ("RUST_LOG", "must be error, warn"),
    ] {
        let line = format!("\n  {variable}: {said}");
        assert!(stderr(&output).contains(&line), "{line}: {}", stderr(&output));
    }
}

#[tokio::test]
async fn listen_takes_a_port_of_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    for host in ["", "localhost:"] {
        let port = crate::support::free_port();
        let mut command = Command::new(ROUTER);
        command.args(["serve", "--listen", &format!("{host}{port}")]);
        let server = Server::start(command, &[&OPEN[..2], &[("STORE_URL", &store)]].concat());
        assert_eq!(server.url, format!("http://127.0.0.1:{port}"));
    }
    let output = router(&["serve", "--listen", "localhost"], &[]);
    assert!(stderr(&output).contains("must be a port, or a host and"), "{}", stderr(&output));
}

#[test]
fn what_aws_s_settings_lack_is_named_with_its_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let profiles = "[profile sso]\nregion = us-east-1\nsso_start_url = https://x.test/start\n\
                    sso_region = us-east-1\nsso_account_id = 1\nsso_role_name = r\n";
    let profiles = file(&folder, "config", profiles);
    let keys = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];
    for (vars, remedy) in [
        (keys.to_vec(), "set AWS_REGION ("),
        (vec![("AWS_REGION", "us-east-1")], "set AWS_PROFILE, or"),
        (vec![("AWS_PROFILE", "sso")], "aws configure export-credentials"),
    ] {
        let common = [
            ("STORE_URL", "dynamodb://table"),
            ("AWS_CONFIG_FILE", &*profiles),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("STORE_TIMEOUT_MS", "20000"),
        ];
        let output = router(&["dead-letters"], &[&common[..], &vars].concat());
        assert!(!output.status.success());
        assert!(stderr(&output).contains(remedy), "{}", stderr(&output));
    }
}

/// The variables that `serve` needs on an address other than loopback.
const OPEN: [(&str, &str); 3] = [
    ("GCP_TARGET_URL", "https://x.dev"),
    ("AWS_TARGET_FUNCTION", "p"),
    ("ROUTING_SECRET", "plainly-a-secret"),
];

#[test]
fn serve_on_other_than_loopback_refuses_a_routing_secret_that_can_be_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    let own = "ROUTING_SECRET: must be set to a secret of your own (`openssl rand -hex 32` makes \
               one), not to the secret of the examples";
    for (secret, said) in [
        ("dev-not-for-prod-change-me", own),
        ("fifteen-bytes--", "ROUTING_SECRET: must have at least 16 bytes"),
    ] {
        for (listen, port) in [(Some("0.0.0.0:0"), ""), (Some("[::]:0"), ""), (None, "0")] {
            let mut serve = Command::new(ROUTER);
            serve.arg("serve").args(listen.map(|address| ["--listen", address]).iter().flatten());
            serve.env_clear().envs(OPEN).envs([("STORE_URL", store.as_str()), ("PORT", port)]);
            let output = end_of(serve.env("ROUTING_SECRET", secret));
            assert!(!output.status.success(), "{secret} {listen:?}");
            assert!(stderr(&output).contains(said), "{}", stderr(&output));
        }
        // On loopback, the router is for trying out.
        let vars = [&OPEN[..2], &[("ROUTING_SECRET", secret)]].concat();
        Server::router(&vars);
    }
    for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
        let output = router(
            &["serve", "--listen", listen],
            &[&OPEN[..2], &[("ROUTING_SECRET", "")]].concat(),
        );
        assert!(stderr(&output).contains("ROUTING_SECRET: is empty"), "{}", stderr(&output));
    }
    // The store was not opened before the problem was found.
    assert!(!folder.path().join("store.db").exists());
}

#[tokio::test]
async fn serve_takes_the_port_that_cloud_run_gives() {
    let port = crate::support::free_port().to_string();
    let mut command = Command::new(ROUTER);
    command.arg("serve");
    let server = Server::start(command, &[&OPEN[..], &[("PORT", &*port)]].concat());
    assert_eq!(server.url, format!("http://0.0.0.0:{port}"));
    let got = get(client().get(format!("http://127.0.0.1:{port}/healthz")).send().await).await;
    assert_eq!(got.status, 200);
}

#[tokio::test]
async fn the_processor_takes_an_event_once_over_either_way() {
    let processor = Server::start(Command::new(PROCESSOR), &[("PORT", "0")]);
    let url = processor.url.replace("0.0.0.0", "127.0.0.1");
    let vars = [
        ("GCP_TARGET_URL", url.as_str()),
        ("AWS_TARGET_FUNCTION", "webhook-processor"),
        ("AWS_ENDPOINT_URL_LAMBDA", &url),
    ];
    for (threshold, via) in [("256", "http"), ("0", "invoke")] {
        let event = format!(r#"{{"vendor":"v","event_type":"{via}","created_at":"2024-05-05"}}"#);
        // Two routers without a common store stand for one router that lost its memory.
        for processed in [true, false] {
            let router = Server::router(&[&vars[..], &[("ROUTE_THRESHOLD", threshold)]].concat());
            let got = post(&client(), &router.webhook(), event.clone()).await;
            assert_eq!(got.text(), format!(r#"{{"processed":{processed}}}"#));
        }
    }
    let receipts = get(client().get(format!("{url}/receipts")).send().await).await;
    let receipts: serde_json::Value = serde_json::from_slice(&receipts.body).unwrap();
    let receipts = receipts.as_array().unwrap();
    assert_eq!(receipts.len(), 2);
    for (receipt, via) in receipts.iter().zip(["invoke", "http"]) {
        assert_eq!((&receipt["via"], &receipt["deliveries"]), (&via.into(), &2.into()));
        assert_eq!(receipt["event_type"], via);
    }
}

#[tokio::test]
async fn inspect_shows_what_the_store_knows() {
    let (sink, folder) = (crate::support::Sink::start().await, tempfile::tempdir().unwrap());
    let store = sqlite(folder.path());
    let vars = [("STORE_URL", store.as_str()), ("ROUTE_THRESHOLD", "256")];
    let keeping = vec![("DUPLICATE_REPLY", "replay")];
    let serving = Server::router(&[sink.vars(), vars.to_vec(), keeping].concat());
    let got = post(&client(), &serving.webhook(), PAYLOAD).await;
    let key = got.header("x-webhook-key").unwrap().to_owned();
    let digits = key.rsplit(':').next().unwrap();
    for given in [&key, digits, &digits[..8], &digits[..20].to_uppercase()] {
        let output = router(&["inspect", "--json", given], &vars);
        let object: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
        assert_eq!((object["key"].as_str(), &object["state"]), (Some(&*key), &"delivered".into()));
        assert_eq!((&object["vendor"], &object["destination"]), (&"stripe".into(), &"gcp".into()));
        let reply = &object["reply"];
        assert_eq!((&reply["status"], &reply["body"]), (&200.into(), &"done".into()));
        assert_eq!(object["attempts"][0]["outcome"], "200");
    }
    let output = router(&["inspect", digits], &vars);
    assert!(stdout(&output).contains("\nstate        delivered\n"), "{}", stdout(&output));

    sink.answers(crate::support::status(http::StatusCode::SERVICE_UNAVAILABLE, "no"));
    let failed = post(&client(), &serving.webhook(), PAYLOAD.replace("4200", "1")).await;
    let output = router(&["inspect", failed.header("x-webhook-key").unwrap()], &vars);
    assert!(stdout(&output).contains("\nstate        dead letter\n"), "{}", stdout(&output));
    assert!(stdout(&output).contains("the destination answered 503"), "{}", stdout(&output));

    for (given, said) in [
        ("00000000", "no event has a key that begins with 00000000"),
        ("0000000", "`0000000` is not a key"),
        ("nonsense", "`nonsense` is not a key"),
        (&"0".repeat(64), "is unknown, or its record has expired"),
    ] {
        let output = router(&["inspect", given], &vars);
        assert!(!output.status.success());
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
}
