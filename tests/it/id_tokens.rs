//! A private Cloud Run service, and the ID tokens with which the router calls it: from a role of AWS
//! by workload identity federation, and from Google Cloud's metadata server.

mod aws;
mod clouds;
mod keys;
mod outage; // Google's STS fails or is late.
mod revoked; // The service refuses a token before its end.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use webhook_router::route::Route;

use self::clouds::{Clouds, JWT, Sts};
use crate::support::{ROUTER, Serve, Server, Sink, end_of, libfaketime};

/// Text that only tokens have: the beginning of a JWT, and of an encoded object.
const OF_TOKENS: [&str; 3] = ["eyJ", "Bearer", "%7B"];

/// Creates a router whose events all go to the private service.
fn router(clouds: &Clouds) -> Serve {
    Serve::new()
        .env("GCP_TARGET_URL", &format!("{}/ingest?team=2", clouds.service))
        .env("GCP_AUTH", "id-token")
        .only(Route::GCP)
}

/// Creates a router that runs as a role of AWS.
fn in_aws(clouds: &Clouds) -> Serve {
    with(clouds, &clouds.credentials())
}

fn with(clouds: &Clouds, credentials: &Value) -> Serve {
    router(clouds).env("GCP_CREDENTIALS", &credentials.to_string()).envs(aws::VARS)
}

fn event(number: usize) -> String {
    format!(r#"{{"vendor":"v","event_type":"t","created_at":"2024-05-05","number":{number}}}"#)
}

/// Waits until that many events have reached the service.
async fn delivered(clouds: &Clouds, count: usize) {
    let started = Instant::now();
    let mut found = Vec::new();
    while found.len() < count {
        assert!(started.elapsed() < Duration::from_secs(60), "only {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        found.extend(clouds.delivered());
    }
    assert_eq!(found.len(), count, "{found:?}");
}

#[track_caller]
fn tells_no_token(router: &Server) {
    let log = router.log();
    for part in OF_TOKENS {
        assert!(!log.contains(part), "{part} is in the log:\n{log}");
    }
}

/// Checks that the first delivery asks for one token, and reaches the service with it.
async fn delivers_with_a_token(router: &Server, clouds: &Clouds) {
    router.post(event(1)).await.expect(200).says("done");
    assert_eq!((clouds.delivered(), clouds.tokens()), (vec![event(1)], (1, 1)));
    tells_no_token(router);
    clouds.expect_no_complaints();
}

#[tokio::test]
async fn a_role_of_aws_calls_the_service_with_a_token_of_google_s() {
    let clouds = Clouds::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials.json");
    std::fs::write(&file, clouds.credentials().to_string()).unwrap();
    let by_file = router(&clouds)
        .env("GOOGLE_APPLICATION_CREDENTIALS", file.to_str().unwrap())
        .envs(aws::VARS);
    for (router, tokens) in [(in_aws(&clouds).start(), 1), (by_file.start(), 2)] {
        for number in 0..3 {
            router.post(event(number)).await.expect(200).says("done");
        }
        assert_eq!(clouds.delivered(), [event(0), event(1), event(2)]);
        assert_eq!(clouds.tokens(), (tokens, tokens), "one token is enough for all three");
        tells_no_token(&router);
    }
    clouds.expect_no_complaints();
}

#[tokio::test]
async fn a_destination_of_a_table_gets_its_token() {
    let clouds = Clouds::start().await;
    let table = format!(
        "[destinations.private]\nkind = \"cloud-run\"\nbytes = \"0-255\"\n\
         url = \"{}/ingest?team=2\"\nauth = \"id-token\"\n",
        clouds.service
    );
    let serve = Serve::new().env("DESTINATIONS", &table).envs(aws::VARS);
    let router = serve.env("GCP_CREDENTIALS", &clouds.credentials().to_string()).start();
    delivers_with_a_token(&router, &clouds).await;
}

#[tokio::test]
async fn an_account_with_outbound_identity_federation_needs_no_signed_request() {
    let clouds = Clouds::start().await;
    let mut credentials = clouds.credentials();
    credentials["subject_token_type"] = JWT.into();
    let router = with(&clouds, &credentials).env("AWS_ENDPOINT_URL_STS", &clouds.aws_sts).start();
    delivers_with_a_token(&router, &clouds).await;
}

#[tokio::test]
async fn a_refusal_of_aws_says_what_to_allow_there() {
    let clouds = Clouds::start().await;
    let mut credentials = clouds.credentials();
    credentials["subject_token_type"] = JWT.into();
    let vars = [("AWS_ENDPOINT_URL_STS", clouds.aws_sts.as_str()), ("FORWARD_ATTEMPTS", "1")];
    let router = with(&clouds, &credentials).envs(vars).start();
    for (number, (code, text)) in [
        ("AccessDenied", "AccessDenied (request of-a-test): allow sts:GetWebIdentityToken"),
        (
            "OutboundWebIdentityFederationDisabledException",
            "run `aws iam enable-outbound-web-identity-federation`",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        clouds.aws(code);
        router.post(event(number)).await.expect(502).says("destination unreachable");
        assert!(router.log().contains(text), "{text}: {}", router.log());
    }
    tells_no_token(&router);
}

#[tokio::test]
async fn a_signature_by_another_key_gets_no_token() {
    let clouds = Clouds::start().await;
    let other = [("AWS_SECRET_ACCESS_KEY", "plainly another"), ("FORWARD_ATTEMPTS", "1")];
    let mut of_aws = clouds.credentials();
    of_aws["subject_token_type"] = JWT.into();
    for (credentials, text) in [
        (clouds.credentials(), "answered 400 invalid_grant: check that the provider trusts"),
        (of_aws, "AWS's STS: SignatureDoesNotMatch"),
    ] {
        let router = with(&clouds, &credentials)
            .envs(other)
            .env("AWS_ENDPOINT_URL_STS", &clouds.aws_sts)
            .start();
        router.post(event(1)).await.expect(502).says("destination unreachable");
        assert!(router.log().contains(text), "{}", router.log());
        let complaints = clouds.complaints();
        assert!(complaints[0].contains("the signature of"), "{complaints:?}");
        tells_no_token(&router);
    }
    assert_eq!((clouds.delivered(), clouds.tokens().1), (vec![], 0));
}

#[tokio::test]
async fn a_token_for_another_audience_is_refused_by_the_service() {
    let clouds = Clouds::start().await;
    let router = in_aws(&clouds).env("GCP_AUDIENCE", "https://other.example.com").start();
    router.post(event(1)).await.expect(401).says("who are you?");
    assert!(clouds.complaints()[0].contains("is not by https://accounts.google.com for"));
    let router = in_aws(&clouds).env("GCP_AUDIENCE", &clouds.service).start();
    router.post(event(1)).await.expect(200).says("done");
    clouds.expect_no_complaints();
}

#[tokio::test]
async fn a_file_can_hold_the_identity() {
    let clouds = Clouds::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let mut credentials = clouds.credentials();
    credentials["subject_token_type"] = JWT.into();
    credentials["credential_source"] = serde_json::json!({ "file": file });
    let router = with(&clouds, &credentials).env("FORWARD_ATTEMPTS", "1").start();
    // The program that writes the file is late.
    router.post(event(1)).await.expect(502).says("destination unreachable");
    assert!(router.log().contains("token cannot be read"), "{}", router.log());
    let end = chrono::Utc::now().timestamp() + 60;
    let audience = format!("https:{}", clouds::PROVIDER);
    let claims = serde_json::json!({ "iss": aws::ISSUER, "aud": audience, "sub": aws::ROLE_IN_TOKENS, "exp": end });
    std::fs::write(&file, keys::AWS.sign(&claims)).unwrap();
    router.post(event(1)).await.expect(200).says("done");
    assert_eq!(clouds.delivered(), [event(1)]);
    clouds.expect_no_complaints();
}

#[tokio::test]
async fn on_google_cloud_the_metadata_server_has_the_token() {
    let clouds = Clouds::start().await;
    let router = router(&clouds).env("GCE_METADATA_HOST", &clouds.metadata_host).start();
    for number in 0..3 {
        router.post(event(number)).await.expect(200).says("done");
    }
    assert_eq!((clouds.delivered().len(), clouds.tokens()), (3, (1, 1)));
    tells_no_token(&router);
    clouds.expect_no_complaints();
    // Another server at that address is not believed.
    let (other, sink) = (Clouds::start().await, Sink::start().await);
    let host = sink.url.strip_prefix("http://").unwrap();
    let router =
        self::router(&other).envs([("GCE_METADATA_HOST", host), ("FORWARD_ATTEMPTS", "1")]).start();
    router.post(event(1)).await.expect(502).says("destination unreachable");
    assert!(router.log().contains("is no metadata server of Google Cloud"), "{}", router.log());
}

#[tokio::test]
async fn sixty_four_first_deliveries_share_one_request() {
    let clouds = Clouds::start().await;
    let router = in_aws(&clouds).start();
    router.checked();
    assert_eq!(clouds.tokens(), (0, 0), "nothing is asked for before a delivery needs it");
    let post = async |number| router.post(event(number)).await.expect(200).says("done");
    futures_util::future::join_all((0..64).map(post)).await;
    assert_eq!((clouds.delivered().len(), clouds.tokens()), (64, (1, 1)));
    clouds.expect_no_complaints();
}

#[tokio::test]
async fn sixty_four_deliveries_share_the_failure_of_a_request() {
    let clouds = Clouds::start().await;
    clouds.sts(Sts::Hangs);
    let router =
        in_aws(&clouds).envs([("FORWARD_ATTEMPTS", "1"), ("FORWARD_TIMEOUT_MS", "4000")]).start();
    let post = async |number| router.post(event(number)).await.expect(502);
    let started = Instant::now();
    futures_util::future::join_all((0..64).map(post)).await;
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    // A delivery that comes when the request has failed makes another one.
    assert!(clouds.tokens().0 <= 2, "{:?}", clouds.tokens());
    assert!(router.log().contains("no answer within 3000 ms"), "{}", router.log());
}

#[tokio::test]
async fn tokens_end_during_the_run_and_no_delivery_notices() {
    let clouds = Clouds::start().await;
    clouds.life(6);
    let router = in_aws(&clouds).start();
    let (started, mut number) = (Instant::now(), 0);
    // The service complains about every token that has ended.
    while clouds.tokens().1 < 3 {
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", clouds.tokens());
        router.post(event(number)).await.expect(200).says("done");
        number += 1;
    }
    assert_eq!(clouds.delivered().len(), number);
    assert!(started.elapsed() > Duration::from_secs(6), "each token is used for most of its life");
    clouds.expect_no_complaints();
}

#[tokio::test]
async fn a_refusal_of_iam_credentials_says_what_to_grant() {
    let clouds = Clouds::start().await;
    let router = in_aws(&clouds).env("FORWARD_ATTEMPTS", "1").start();
    for (number, (status, answer, text)) in [
        (
            403,
            r#"{"error":{"code":403,"message":"REQUEST","status":"PERMISSION_DENIED"}}"#,
            "answered 403 PERMISSION_DENIED: grant roles/iam.workloadIdentityUser",
        ),
        (404, r#"{"error":{"status":"NOT_FOUND"}}"#, "does not exist"),
        (200, r#"{"token":"REQUEST"}"#, "the answer is no ID token"),
        (200, "{}", "the answer of IAM Credentials has no token"),
    ]
    .into_iter()
    .enumerate()
    {
        clouds.iam(Some((status, answer)));
        router.post(event(number)).await.expect(502).says("destination unreachable");
        assert!(router.log().contains(text), "{text}: {}", router.log());
    }
    assert_eq!(clouds.delivered(), Vec::<String>::new());
    tells_no_token(&router);
}

#[tokio::test]
async fn after_a_freeze_the_wall_clock_ends_a_token() {
    let clouds = Clouds::start().await;
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    let freeze = |seconds: u32| std::fs::write(&clock, format!("+{seconds}")).unwrap();
    freeze(0);
    let router = router(&clouds)
        .envs([("GCE_METADATA_HOST", clouds.metadata_host.as_str()), ("FORWARD_ATTEMPTS", "1")])
        .env("LD_PRELOAD", &libfaketime())
        .env("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap())
        .envs([("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")])
        .start();
    router.post(event(0)).await.expect(200);
    // Shortly before the margin, the token is still used.
    freeze(3_200);
    router.post(event(1)).await.expect(200);
    assert_eq!(clouds.tokens().0, 1);
    // Within the margin, another token is asked for. By this clock, it has less than an hour.
    freeze(3_400);
    router.post(event(2)).await.expect(200);
    assert_eq!(clouds.tokens().0, 2);
    // After its end, only another token may be used. The clock shows that this one has ended, too.
    freeze(3_700);
    router.post(event(3)).await.expect(502).says("destination unreachable");
    assert_eq!(clouds.tokens().0, 3);
    assert!(router.log().contains("check the clock of this machine"), "{}", router.log());
    clouds.life(7_200);
    router.post(event(4)).await.expect(200);
    assert_eq!((clouds.tokens().0, clouds.delivered().len()), (4, 4));
    clouds.expect_no_complaints();
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_is_used_until_its_end() {
    let clouds = Clouds::start().await;
    clouds.life(8);
    let router = in_aws(&clouds).env("FORWARD_ATTEMPTS", "1").start();
    router.post(event(0)).await.expect(200);
    clouds.sts(Sts::Answers(503, "try again"));
    // The renewal begins 2 s before the end, and the last use is 1 s before it.
    let (started, mut number) = (Instant::now(), 1);
    while clouds.tokens().0 == 1 {
        assert!(started.elapsed() < Duration::from_secs(30));
        router.post(event(number)).await.expect(200).says("done");
        number += 1;
    }
    assert!(router.log().contains("cannot renew the ID token"), "{}", router.log());
    assert!(started.elapsed() > Duration::from_secs(4), "{:?}", started.elapsed());
    // After the failure, there is no other request until the token is of no use.
    let last = loop {
        let got = router.post(event(number)).await;
        number += 1;
        match got.status {
            200 => assert_eq!(clouds.tokens().0, 2),
            _ => break got,
        }
    };
    last.expect(502).says("destination unreachable");
    clouds.sts(Sts::Works);
    router.post(event(number)).await.expect(200);
    clouds.expect_no_complaints();
}

/// A source whose senders prove who they are with `Authorization`.
const BASIC: &str = r#"
    [sources.billing]
    vendor = "custom"
    scheme = "basic"
    secrets = ["name:plainly"]
"#;

#[tokio::test]
async fn the_sender_s_own_authorization_never_takes_the_token_s_place() {
    let clouds = Clouds::start().await;
    let router = in_aws(&clouds)
        .envs([("SOURCES", BASIC), ("FORWARD_ATTEMPTS", "1"), ("FORWARD_TIMEOUT_MS", "1000")])
        .start();
    // `name:plainly` in base64.
    let headers = [("authorization", "Basic bmFtZTpwbGFpbmx5")];
    let post = async |number| router.post_to("billing", &headers, event(number)).await;
    clouds.sts(Sts::Hangs);
    post(1).await.expect(502);
    clouds.sts(Sts::Works);
    // The service complains about another authorization than a token, and about two.
    post(1).await.expect(200).says("done");
    assert_eq!(clouds.delivered(), [event(1)]);
    clouds.expect_no_complaints();
}

#[tokio::test]
async fn doctor_asks_for_a_token() {
    let clouds = Clouds::start().await;
    let folder = tempfile::tempdir().unwrap();
    let doctor = async || {
        let mut doctor = Command::new(ROUTER);
        doctor
            .args(["doctor", "--listen", "0"])
            .env_clear()
            .envs([("GCP_TARGET_URL", clouds.service.as_str()), ("GCP_AUTH", "id-token")])
            .envs([("ROUTE_THRESHOLD", "256"), ("METRICS_LISTEN", "off")])
            .env("STORE_URL", crate::support::sqlite(folder.path()))
            .env("GCP_CREDENTIALS", clouds.credentials().to_string())
            .envs(aws::VARS);
        let output = tokio::task::spawn_blocking(move || end_of(&mut doctor)).await.unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (is_sound, found) = doctor().await;
    let text = format!("GCP_AUTH: an ID token for {} was issued", clouds.service);
    assert!(is_sound && found.contains(&text), "{found}");
    clouds.expect_no_complaints();
    clouds.sts(Sts::Answers(400, r#"{"error":"invalid_target","error_description":"REQUEST"}"#));
    let (is_sound, found) = doctor().await;
    assert!(!is_sound && found.contains("invalid_target: check `audience`"), "{found}");
    assert!(OF_TOKENS.iter().all(|part| !found.contains(part)), "{found}");
}
