//! Problems of variables: each one is named with its remedy, and secrets are never shown.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use webhook_router::{
    config::{
        Config, ConfigError, Invocation, LambdaTarget, Payload, StoreUrl, Target, Unsigned,
        VARIABLES,
    },
    route::{Route, Shares},
    secret::Secret,
};

use crate::support::lookup;

const TARGETS: [(&str, &str); 2] = [
    ("GCP_TARGET_URL", "https://processor.example.com/events"),
    ("AWS_TARGET_FUNCTION", "processor"),
];
const LAMBDA: [(&str, &str); 3] = [
    ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
    ("AWS_LAMBDA_FUNCTION_NAME", "router"),
    ("AWS_REGION", "eu-west-1"),
];

fn config(vars: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
    Config::from_vars(lookup(vars)).map_err(|errors| errors.0)
}

/// Returns the only problem of these variables, when the targets are good.
fn remedy(vars: &[(&str, &str)]) -> (String, String) {
    let vars = [&TARGETS, vars].concat();
    let mut errors = config(&vars).expect_err(&format!("{vars:?}"));
    assert_eq!(errors.len(), 1, "{errors:?}");
    let ConfigError { variable, remedy } = errors.remove(0);
    (variable, remedy)
}

#[test]
fn defaults_are_those_of_the_table() {
    let config = config(&TARGETS).unwrap();
    assert_eq!(config.intake.shares, Shares::by_threshold(128));
    assert_eq!(config.intake.max_body_bytes, 6 * 1024 * 1024);
    assert_eq!(config.serving.max_connections, 4096);
    assert_eq!(config.serving.max_buffered_bytes, 48 * 1024 * 1024);
    assert_eq!(config.intake.signature_tolerance.num_seconds(), 300);
    assert_eq!(config.intake.unsigned, Unsigned::Refused);
    assert_eq!(config.store.url, StoreUrl::Sqlite("webhook-router.db".into()));
    assert_eq!(config.store.timeout, Duration::from_secs(1));
    assert_eq!(config.forward.timeout, Duration::from_secs(10));
    assert_eq!(config.forward.budget, Duration::from_secs(30));
    assert_eq!(config.dedup_ttl, Duration::from_secs(86_400));
    assert_eq!(config.redrive_limit, 20);
    assert_eq!(config.port, None);
    let (invocation, payload) = (Invocation::RequestResponse, Payload::Body);
    let aws = LambdaTarget { function: "processor".into(), role_arn: None, invocation, payload };
    assert_eq!(config.targets.routes(), [Route::GCP, Route::AWS]);
    assert_eq!(config.targets.get(Route::AWS).unwrap().lambda(), Some(&aws));
}

#[test]
fn secrets_that_sign_are_checked_and_never_shown() {
    let private = format!("whsk_{}", BASE64_STANDARD.encode([7; 32]));
    let many = [private.as_str(); 9].join(",");
    let public = private.replace("whsk_", "whpk_");
    for (secrets, says) in [
        ("whsec_c2hvcnQ=", "the base64 of at least 16 bytes"),
        (&public, "or `whsk_` and the base64"),
        (&many, "must be at most 8 secrets"),
    ] {
        let (variable, remedy) = remedy(&[("FORWARD_SECRETS", secrets)]);
        assert!(variable == "FORWARD_SECRETS" && remedy.contains(says), "{remedy}");
    }
    let vars = [&TARGETS[..], &[("FORWARD_SECRETS", private.as_str())]].concat();
    let config = config(&vars).unwrap();
    assert!(config.signer.is_some() && !format!("{config:?}").contains(&private));
}

#[test]
fn the_largest_body_has_room_in_the_buffers() {
    let vars = [&TARGETS[..], &[("MAX_BODY_BYTES", "100000000")]].concat();
    assert_eq!(config(&vars).unwrap().serving.max_buffered_bytes, 100_000_000);
}

#[test]
fn all_problems_are_reported_together() {
    let vars = [
        ("ROUTE_THRESHOLD", "257"),
        ("MAX_BODY_BYTES", "6 MiB"),
        ("ALLOW_UNSIGNED", "yes"),
        ("STORE_URL", "mysql://x"),
        ("GCP_TARGET_URL", "http://processor.example.com"),
        ("AWS_TARGET_INVOCATION", "DryRun"),
        ("FORWARD_TIMEOUT_MS", "0"),
    ];
    let errors = config(&vars).unwrap_err();
    let mut named: Vec<_> = errors.iter().map(|error| error.variable.as_str()).collect();
    named.sort_unstable();
    let mut expected: Vec<_> = vars.iter().map(|(name, _)| *name).collect();
    expected.push("AWS_TARGET_FUNCTION");
    expected.sort_unstable();
    assert_eq!(named, expected);
    let text = webhook_router::config::ConfigErrors(errors).to_string();
    assert!(text.contains("\n  ROUTE_THRESHOLD: must be a whole number from 0 to 256\n"), "{text}");
}

#[test]
fn numbers_out_of_range_and_words_for_flags_are_errors() {
    for (name, value, wanted) in [
        ("ROUTE_THRESHOLD", "-1", "must be a whole number from 0 to 256"),
        ("ROUTE_THRESHOLD", "1.5", "must be a whole number from 0 to 256"),
        ("MAX_CONNECTIONS", "0", "must be a whole number from 1 to 1000000"),
        ("MAX_BUFFERED_BYTES", "6291455", "must be at least MAX_BODY_BYTES"),
        ("PORT", "65536", "must be a whole number from 0 to 65535"),
        ("DEDUP_TTL_SECONDS", "0", "must be a whole number from 1 to 31536000"),
        ("REDRIVE_LIMIT", "0", "must be a whole number from 1 to 20"),
        ("REDRIVE_LIMIT", "21", "must be a whole number from 1 to 20"),
        ("ALLOW_UNSIGNED", "TRUE", "must be true or false"),
        ("LAMBDA_EMULATOR", "1", "must be true or false"),
        ("STORE_URL", "sqlite:", "names no file: use sqlite:PATH"),
        ("STORE_URL", "sqlite::memory:", "names no file: use sqlite:PATH"),
        (
            "STORE_URL",
            "sqlite:///var/lib/x.db",
            "must have no `//` before the path: sqlite:/var/lib/router.db",
        ),
        ("ROUTING_SECRET", "\u{FFFD}\u{FFFD}-a-real-secret", "is not valid UTF-8"),
        ("GITHUB_SECRETS", "plainly-\u{FFFD}", "is not valid UTF-8"),
        (
            "STORE_URL",
            "mysql://localhost",
            "is not a store: use dynamodb://TABLE, redis://, rediss:// or sqlite:PATH",
        ),
        (
            "STORE_URL",
            "dynamodb://a/b",
            "names no table: dynamodb://TABLE, 3 to 255 letters, digits, `_`, `.` or `-`",
        ),
        ("STORE_URL", "redis://", "names no host: redis://HOST:PORT"),
        ("STORE_URL", "redis://h?clustr=true", "takes no option but ?cluster=true"),
        ("STORE_URL", "redis://h/1?cluster=true", "takes no database number in a cluster"),
        ("STORE_URL", "rediss://h/zero", "takes a database number as its path: /0"),
        ("REDIS_URL", "sqlite:x.db", "must be redis:// or rediss://"),
        ("AWS_TARGET_INVOCATION", "DryRun", "must be RequestResponse or Event"),
        ("AWS_TARGET_PAYLOAD", "raw", "must be body or request"),
        (
            "RUST_LOG",
            "verbose",
            "must be error, warn, info, debug, trace or off, also by module: \
             warn,webhook_router=debug",
        ),
        ("AWS_TARGET_ROLE_ARN", "role", "must be an ARN: arn:aws:iam::ACCOUNT:role/NAME"),
        (
            "ENVELOPE_SECRETS",
            "whsec_short",
            "each secret must be `whsec_` and the base64 of at least 16 bytes",
        ),
    ] {
        assert_eq!(remedy(&[(name, value)]), (name.into(), wanted.into()));
    }
    for url in ["processor", "ftp://x/", "http://10.0.0.1/", "https://"] {
        let (variable, remedy) = remedy(&[("GCP_TARGET_URL", url)]);
        assert_eq!(variable, "GCP_TARGET_URL");
        assert_eq!(remedy, "must be an https:// URL (http:// is allowed on loopback)");
    }
    for url in ["http://localhost:1", "http://127.0.0.9/", "http://[::1]:80/x", "HTTPS://x.dev"] {
        config(&[&TARGETS[..], &[("GCP_TARGET_URL", url)]].concat()).unwrap();
    }
}

#[test]
fn a_routing_secret_that_is_set_to_nothing_is_not_taken_for_unset() {
    for secret in ["", " ", "\n"] {
        let (variable, remedy) = remedy(&[("ROUTING_SECRET", secret)]);
        assert_eq!(variable, "ROUTING_SECRET");
        assert!(remedy.starts_with("is empty"), "{remedy}");
    }
}

#[test]
fn a_function_is_a_name_or_an_arn() {
    let arn = "arn:aws:lambda:eu-west-1:123456789012:function:processor";
    let long = "x".repeat(171);
    for function in [
        "processor",
        "pro-ces_sor2:live",
        "processor:$LATEST",
        "123456789012:function:processor",
        "123456789012:function:processor:live",
        arn,
        &format!("{arn}:7"),
        "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:processor",
    ] {
        config(&[TARGETS[0], ("AWS_TARGET_FUNCTION", function)]).unwrap();
    }
    for other in [
        "https://x.lambda-url.eu-west-1.on.aws/",
        "my processor",
        "processor:",
        "processor:live:live",
        "function/processor",
        "arn:aws:lambda:eu-west-1:123456789012:processor",
        "arn:aws:lambda:eu-west-1:1234:function:processor",
        "arn:aws:sqs:eu-west-1:123456789012:function:processor",
        "12345:function:processor",
        &long,
    ] {
        let (variable, remedy) = remedy(&[("AWS_TARGET_FUNCTION", other)]);
        assert_eq!(variable, "AWS_TARGET_FUNCTION");
        assert!(remedy.starts_with("must be a function's name or ARN"), "{remedy}");
    }
}

/// Returns the warnings about these variables together with valid targets.
fn warnings(vars: &[(&str, &str)]) -> Vec<String> {
    let own = [("ROUTING_SECRET", "sixteen-bytes---"), ("ALLOW_UNSIGNED", "true")];
    let config = config(&[&TARGETS, &own[..], vars].concat()).unwrap();
    let warnings = config.warnings().into_iter();
    warnings.map(|warning| warning.to_string()).filter(|text| !text.starts_with("ENV")).collect()
}

#[test]
fn an_attempt_that_may_outlast_the_budget_is_warned_of() {
    let budget = ("FORWARD_BUDGET_MS", "5000");
    let warned = warnings(&[budget]);
    assert!(
        warned[0].starts_with("FORWARD_TIMEOUT_MS: 10000 is more than FORWARD_BUDGET_MS (5000)")
    );
    assert_eq!(warnings(&[budget, ("FORWARD_TIMEOUT_MS", "5000")]), Vec::<String>::new());
    assert_eq!(warnings(&[]), Vec::<String>::new());
}

#[test]
fn a_limited_destination_for_whose_room_nothing_waits_is_warned_of() {
    let limit = ("AWS_MAX_PER_SECOND", "5");
    let with = |timeout| {
        warnings(&[("FORWARD_BUDGET_MS", "5000"), ("FORWARD_TIMEOUT_MS", timeout), limit])
    };
    for (timeout, is) in [("5000", "5000 equals"), ("5001", "5001 is more than")] {
        let said = format!(
            "FORWARD_TIMEOUT_MS: {is} FORWARD_BUDGET_MS (5000), so no attempt waits for room at aws, \
             which has limits: an event that finds no room is answered with 503 at once: set \
             FORWARD_TIMEOUT_MS below FORWARD_BUDGET_MS"
        );
        assert_eq!(with(timeout), [said]);
    }
    assert_eq!(with("4999"), Vec::<String>::new());
    let table = "[destinations.eu]\nkind = \"http\"\nurl = \"https://x.dev\"\nbytes = \"0-255\"\n\
                 max_concurrent = 2\n";
    let own = [("ROUTING_SECRET", "sixteen-bytes---"), ("DESTINATIONS", table)];
    let budget = [("FORWARD_BUDGET_MS", "10000")];
    let config = config(&[&own[..], &budget].concat()).unwrap();
    let texts: Vec<_> = config.doubts.iter().map(ToString::to_string).collect();
    assert!(texts.len() == 1 && texts[0].contains("room at eu"), "{texts:?}");
}

#[test]
fn a_password_in_a_target_s_url_is_warned_of_and_not_shown() {
    for url in ["https://user:plainly-a-secret@x.dev/?t=plainly-a-secret", "https://user@x.dev"] {
        let vars = [("GCP_TARGET_URL", url)];
        let warned = warnings(&vars);
        assert!(
            warned[0].starts_with("GCP_TARGET_URL: contains a user or a password"),
            "{warned:?}"
        );
        let shown = format!("{:?} {warned:?}", config(&[&TARGETS[..], &vars].concat()).unwrap());
        assert!(!shown.contains("plainly"), "{shown}");
    }
}

#[test]
fn a_ca_file_that_is_none_is_a_problem_like_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, "no certificate").unwrap();
    let missing = folder.path().join("missing.pem");
    for path in [&file, &missing] {
        let path = path.to_str().unwrap();
        let vars = [
            ("GCP_CA_FILE", path),
            ("REDIS_CA_FILE", path),
            ("REDIS_URL", "rediss://cache"),
            ("ROUTE_THRESHOLD", "999"),
        ];
        let errors = config(&[&TARGETS, &vars[..]].concat()).unwrap_err();
        let named: Vec<_> = errors.iter().map(|error| error.variable.as_str()).collect();
        assert_eq!(named, ["ROUTE_THRESHOLD", "GCP_CA_FILE", "REDIS_CA_FILE"]);
        for error in &errors[1..] {
            let said = format!("{path} cannot be used as a PEM file of a CA: ");
            assert!(error.remedy.starts_with(&said), "{errors:?}");
        }
    }
}

#[test]
fn a_store_is_named_with_its_port_and_without_its_password() {
    for (url, shown) in [
        ("redis://router:plainly@cache", "redis://cache:6379"),
        ("rediss://:plainly@cache:7000?cluster=true", "rediss://cache:7000"),
        ("dynamodb://table", "dynamodb://table"),
        ("sqlite:a/b.db", "sqlite:a/b.db"),
    ] {
        let config = config(&[&TARGETS[..], &[("STORE_URL", url)]].concat()).unwrap();
        assert_eq!(config.store.url.to_string(), shown);
    }
}

#[test]
fn a_destination_is_needed_only_when_events_can_go_there() {
    let gcp = [TARGETS[0]];
    let aws = [TARGETS[1]];
    assert!(config(&[&gcp[..], &[("ROUTE_THRESHOLD", "256")]].concat()).is_ok());
    assert!(config(&[&aws[..], &[("ROUTE_THRESHOLD", "0")]].concat()).is_ok());
    assert_eq!(config(&gcp).unwrap_err()[0].variable, "AWS_TARGET_FUNCTION");
    assert_eq!(config(&aws).unwrap_err()[0].variable, "GCP_TARGET_URL");
    assert_eq!(config(&[]).unwrap_err().len(), 2);
}

#[test]
fn in_lambda_the_routing_secret_and_the_store_are_checked() {
    let lambda = |vars: &[(&str, &str)]| {
        config(&[&TARGETS, &LAMBDA[..], vars].concat()).map(|_| ()).unwrap_err()
    };
    let secret = |errors: Vec<ConfigError>| {
        errors
            .into_iter()
            .find(|error| error.variable == "ROUTING_SECRET")
            .map(|error| error.remedy)
    };
    for guessed in [&[][..], &[("ROUTING_SECRET", "dev-not-for-prod-change-me")]] {
        assert_eq!(
            secret(lambda(guessed)).unwrap(),
            "must be set to a secret of your own (`openssl rand -hex 32` makes one), not to the \
             secret of the examples"
        );
    }
    assert_eq!(
        secret(lambda(&[("ROUTING_SECRET", "fifteen-bytes--")])).unwrap(),
        "must have at least 16 bytes"
    );
    let good = ("ROUTING_SECRET", "sixteen-bytes---");
    let errors = lambda(&[good]);
    assert_eq!(
        errors,
        [ConfigError {
            variable: "STORE_URL".into(),
            remedy: "must be set: dynamodb://TABLE, redis:// or rediss://".into()
        }]
    );
    let errors = lambda(&[good, ("STORE_URL", "sqlite:/tmp/x.db")]);
    assert!(errors[0].remedy.starts_with("sqlite: cannot be used in Lambda"), "{errors:?}");
    // Outside Lambda, and in a declared emulator, neither is refused.
    config(&TARGETS).unwrap();
    config(&[&TARGETS, &LAMBDA[..], &[("LAMBDA_EMULATOR", "true")]].concat()).unwrap();
}

#[test]
fn an_event_invocation_without_a_request_as_payload_is_refused() {
    let event = ("AWS_TARGET_INVOCATION", "Event");
    for payload in ["", "body"] {
        let (variable, remedy) = remedy(&[event, ("AWS_TARGET_PAYLOAD", payload)]);
        assert_eq!(variable, "AWS_TARGET_PAYLOAD");
        assert!(
            remedy.starts_with("must be request with AWS_TARGET_INVOCATION=Event: "),
            "{remedy}"
        );
    }
    let request = [&TARGETS[..], &[event, ("AWS_TARGET_PAYLOAD", "request")]].concat();
    let targets = config(&request).unwrap().targets;
    let aws = targets.get(Route::AWS).and_then(Target::lambda).unwrap();
    assert_eq!(aws.payload, Payload::Request);
}

#[test]
fn the_router_may_not_be_its_own_destination() {
    for itself in [
        "router",
        "router:$LATEST",
        "router:function",
        "123456789012:function:router",
        "arn:aws:lambda:eu-west-1:123456789012:function:router",
        "arn:aws:lambda:eu-west-1:123456789012:function:router:live",
    ] {
        let vars =
            [&LAMBDA[..], &[("AWS_TARGET_FUNCTION", itself), ("LAMBDA_EMULATOR", "true")]].concat();
        let (variable, remedy) = remedy(&vars);
        assert_eq!(variable, "AWS_TARGET_FUNCTION");
        assert!(remedy.contains("AWS_LAMBDA_FUNCTION_NAME"), "{remedy}");
    }
    // `function` is also the name of a part of an ARN.
    let name = ("AWS_LAMBDA_FUNCTION_NAME", "function");
    for itself in ["function", "function:live", "123456789012:function:function"] {
        let vars = [name, ("AWS_TARGET_FUNCTION", itself), ("LAMBDA_EMULATOR", "true")];
        let (variable, _) = remedy(&[&LAMBDA[..], &vars].concat());
        assert_eq!(variable, "AWS_TARGET_FUNCTION");
    }
    for (other, role) in [
        ("router2", ""),
        ("arn:aws:lambda:us-east-1:123456789012:function:router", ""),
        (
            "arn:aws:lambda:eu-west-1:210987654321:function:router",
            "arn:aws:iam::210987654321:role/x",
        ),
    ] {
        let vars = [
            ("AWS_TARGET_FUNCTION", other),
            ("AWS_TARGET_ROLE_ARN", role),
            ("LAMBDA_EMULATOR", "true"),
        ];
        config(&[&TARGETS, &LAMBDA[..], &vars].concat()).unwrap();
    }
}

#[test]
fn secrets_are_never_shown() {
    let vars = [
        ("ROUTING_SECRET", "routing-secret-value"),
        ("ENVELOPE_SECRETS", "whsec_dGVzdC1vbmx5LXNlY3JldC0tLS0tLS0tLS0tLS0t"),
    ];
    let config = config(&[&TARGETS, &vars[..]].concat()).unwrap();
    let shown = format!("{config:?}");
    assert!(!shown.contains("routing-secret-value") && !shown.contains("dGVzdC1v"), "{shown}");
    assert_eq!(format!("{:?}", Secret::new("value")), "Secret(redacted)");
    let (_, remedy) = remedy(&[("ENVELOPE_SECRETS", "whsec_hidden")]);
    assert!(!remedy.contains("hidden"));
}

#[test]
fn the_readme_explains_as_explain_does() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("payload.json"), crate::support::PAYLOAD).unwrap();
    let mut explain = std::process::Command::new(crate::support::ROUTER);
    let output = crate::support::end_of(
        explain.args(["explain", "payload.json"]).current_dir(folder.path()),
    );
    let readme = include_str!("../../README.md");
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        assert!(readme.contains(&format!("    {line}\n")), "{line}");
    }
}

#[test]
fn every_variable_is_on_the_configuration_page() {
    let page = include_str!("../../docs/configuration.md");
    for variable in VARIABLES {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", variable.name)));
        let row = row.unwrap_or_else(|| panic!("{} has no row", variable.name));
        assert!(row.contains(variable.default) && row.contains(variable.meaning), "{row}");
    }
}
