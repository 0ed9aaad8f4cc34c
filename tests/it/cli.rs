//! Runs the commands as a person uses them.

use std::process::{Command, Output};

use webhook_router::config::VARIABLES;

use crate::support::{
    FUNCTION, PAYLOAD, PROCESSOR, ROUTER, Serve, Server, client, end_of, get, sqlite,
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

pub fn file(folder: &tempfile::TempDir, name: &str, body: &str) -> String {
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
        Serve::new().envs(OPEN[..2].iter().copied()).env("ROUTING_SECRET", secret).start();
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
    for (threshold, via) in [("256", "http"), ("0", "invoke")] {
        let event = format!(r#"{{"vendor":"v","event_type":"{via}","created_at":"2024-05-05"}}"#);
        // Two routers without a common store stand for one router that lost its memory.
        for processed in [true, false] {
            let router = Serve::to_url(&url).env("ROUTE_THRESHOLD", threshold).start();
            let got = router.post(event.clone()).await;
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
    let serving = Serve::to(&sink).envs(vars).env("DUPLICATE_REPLY", "replay").start();
    let got = serving.post(PAYLOAD).await;
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
    let failed = serving.post(PAYLOAD.replace("4200", "1")).await;
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
