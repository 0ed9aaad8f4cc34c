//! Variables in Secrets Manager, on moto's server, and the rotation of the routing secret.

use std::process::Command;

use aws_sdk_secretsmanager::Client;
use serde_json::json;

use crate::{
    destination::TlsServer,
    servers::{Authority, Moto},
    shared,
    support::{
        Answer, FUNCTION, PAYLOAD, ROUTER, Serve, Sink, client, end_of, ok, post, sdk, sqlite,
        status,
    },
};

/// Creates a secret, and returns its ARN.
async fn create(moto: &Moto, name: &str, text: &str) -> String {
    let client = Client::new(&sdk(&moto.url));
    let created = client.create_secret().name(name).secret_string(text).send().await.unwrap();
    created.arn.unwrap()
}

#[tokio::test]
async fn the_variables_in_a_secret_are_read_once_at_start() {
    let (sink, moto) = (Sink::start().await, Moto::start());
    let secret = json!({
        "ROUTING_SECRET": "of the secret, sixteen and more",
        "ROUTE_THRESHOLD": "256",
        "RUST_LOG": "off",
    });
    let arn = create(&moto, "all", &secret.to_string()).await;
    let vars = [("SECRETS_ARN", arn.as_str()), ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &moto.url)];
    let router = Serve::to(&sink).envs(vars).start();
    let from_secret = router.post(PAYLOAD).await;
    let unused = "RUST_LOG in the secret of SECRETS_ARN has no effect: set it in the environment";
    assert!(router.log().contains(unused), "{}", router.log());
    let plain = [("ROUTING_SECRET", "of the secret, sixteen and more")];
    let router = Serve::to(&sink).envs(plain).start();
    let from_variable = router.post(PAYLOAD).await;
    let key = "x-webhook-key";
    assert_eq!(from_secret.header(key), from_variable.header(key));
    assert_eq!(from_secret.header("x-webhook-destination"), Some("gcp"));
    // Reading took one request, in addition to the one that created the secret.
    assert_eq!(moto.requests(), 2);
    // Environment variables override the secret's values.
    let own = [("ROUTING_SECRET", "of its own")];
    let router = Serve::to(&sink).envs(vars).envs(own).start();
    let own = router.post(PAYLOAD).await;
    assert_ne!(own.header(key), from_secret.header(key));
}

#[tokio::test]
async fn in_lambda_only_the_operator_s_own_authorities_are_read_from_a_file() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority, "localhost").await;
    let url = format!("https://localhost:{}", server.port);
    let ca = authority.file();
    for (variable, is_trusted) in [("NO_VARIABLE", false), ("SSL_CERT_FILE", true)] {
        let mut function = Command::new(FUNCTION);
        function
            .env_clear()
            .envs([("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "test")])
            .envs([("AWS_SECRET_ACCESS_KEY", "test"), ("SECRETS_ARN", "any")])
            .envs([("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1"), ("AWS_MAX_ATTEMPTS", "1")])
            .env("AWS_ENDPOINT_URL_SECRETS_MANAGER", &url)
            .env(variable, &ca);
        let ended = tokio::task::spawn_blocking(move || end_of(&mut function)).await.unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(said.contains("the secret of SECRETS_ARN cannot be read"), "{said}");
        assert_eq!(said.contains("UnknownIssuer"), !is_trusted, "{said}");
        assert_eq!(server.connections() > 0, is_trusted);
    }
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_is_named_and_never_quoted() {
    let moto = Moto::start();
    let run = |arn: &str| {
        let mut serve = Command::new(ROUTER);
        serve
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env_clear()
            .envs([("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "test")])
            .envs([("AWS_SECRET_ACCESS_KEY", "test"), ("SECRETS_ARN", arn)])
            .env("AWS_ENDPOINT_URL_SECRETS_MANAGER", &moto.url);
        let output = end_of(&mut serve);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    for (name, text, said) in [
        (
            "list",
            "[\"plainly-secret\"]",
            "must hold a JSON object of strings: see line 1, column 0",
        ),
        ("number", r#"{"ROUTE_THRESHOLD": 256}"#, "must hold a JSON object of strings"),
        ("text", "plainly-secret", "must hold a JSON object of strings"),
        (
            "unknown",
            r#"{"ROUTING_SECRETS": "plainly-secret"}"#,
            "holds `ROUTING_SECRETS`, which is not a variable",
        ),
        (
            "itself",
            r#"{"SECRETS_ARN": "plainly-secret"}"#,
            "the secret of SECRETS_ARN holds SECRETS_ARN: remove it there",
        ),
        (
            "wrong",
            r#"{"ROUTE_THRESHOLD": "plainly-secret"}"#,
            "ROUTE_THRESHOLD: must be a whole number",
        ),
    ] {
        let error = run(&create(&moto, name, text).await);
        assert!(error.contains(said), "{error}");
        assert!(!error.contains("plainly-secret"), "{error}");
    }
    assert!(run("no-such-secret").contains("the secret of SECRETS_ARN cannot be read"));
}

#[tokio::test]
async fn after_a_rotation_what_the_old_secret_knew_is_still_known_on_every_store() {
    let (folder, table) = (tempfile::tempdir().unwrap(), shared::dynamodb_table().await);
    let endpoint = table.url.clone();
    let [(_, table), _] = table.vars();
    for url in [sqlite(folder.path()), shared::redis_database(), table] {
        let sink = Sink::start().await;
        let common = [
            ("STORE_URL", url.as_str()),
            ("AWS_ENDPOINT_URL_DYNAMODB", &endpoint),
            ("STORE_TIMEOUT_MS", "20000"),
            ("FORWARD_ATTEMPTS", "1"),
        ];
        let start = |more: &[(&'static str, &'static str)]| {
            Serve::to(&sink).envs(common).envs(more.iter().copied()).start()
        };
        let (delivered, failed, new) =
            (PAYLOAD, PAYLOAD.replace("4200", "1"), PAYLOAD.replace("4200", "2"));
        let old = start(&[("ROUTING_SECRET", "the old one"), ("ROUTE_THRESHOLD", "256")]);
        let first = old.post(delivered).await;
        assert_eq!(first.text(), "done");
        sink.answers(status(http::StatusCode::SERVICE_UNAVAILABLE, "no"));
        let letter = old.post(failed.clone()).await;
        assert_eq!(letter.status, 503);
        sink.take();

        // All new events go to the other destination, and an event with a record keeps its own.
        let rotated = [
            ("ROUTING_SECRET", "the new one"),
            ("ROUTING_SECRET_PREVIOUS", "the old one"),
            ("ROUTE_THRESHOLD", "0"),
        ];
        let router = start(&rotated);
        // An event in flight under the old secret is in progress. Afterwards, it is a duplicate.
        sink.answers(Answer::WhenTold);
        let (in_flight, url_of_old) = (PAYLOAD.replace("4200", "3"), old.webhook());
        let forwarding = tokio::spawn({
            let in_flight = in_flight.clone();
            async move { post(&client(), &url_of_old, in_flight).await }
        });
        sink.arrived(1).await;
        let meanwhile = router.post(in_flight.clone()).await;
        assert_eq!((meanwhile.status, meanwhile.text()), (409, "in progress"), "{url}");
        sink.go.notify_one();
        assert_eq!(forwarding.await.unwrap().text(), "at last", "{url}");
        drop(old);
        let afterwards = router.post(in_flight).await;
        assert_eq!(afterwards.text(), "duplicate ignored", "{url}");
        assert_eq!(sink.take().len(), 1);
        sink.answers(ok("done"));

        let again = router.post(delivered).await;
        assert_eq!(again.text(), "duplicate ignored", "{url}");
        let retry = router.post(failed.clone()).await;
        assert_eq!(retry.text(), "done", "{url}");
        for (got, known) in [(&again, &first), (&retry, &letter)] {
            assert_eq!(got.header("x-webhook-key"), known.header("x-webhook-key"));
            assert_eq!(got.header("x-webhook-destination"), Some("gcp"));
        }
        assert!(!sink.take()[0].is_invocation());
        let fresh = router.post(new.clone()).await;
        assert_eq!((fresh.text(), fresh.header("x-webhook-destination")), ("done", Some("aws")));
        assert_eq!(router.post(failed).await.text(), "duplicate ignored");
        drop(router);
        // Without the old secret, the router still knows the events under the new one.
        let router = start(&[("ROUTING_SECRET", "the new one"), ("ROUTE_THRESHOLD", "0")]);
        let later = router.post(new).await;
        assert_eq!(later.text(), "duplicate ignored");
        assert_eq!(later.header("x-webhook-key"), fresh.header("x-webhook-key"));
        sink.take();
    }
}
