//! `event`: vendors' events, signed and sent for trying the router out.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderName, HeaderValue};
use ring::signature::KeyPair as _;
use serde_json::{Value, json};
use webhook_router::{
    cmd::fronts,
    config::Intake,
    delivery::Delivery,
    plan::{Planned, plan},
    route::Route,
    secret::Secret,
    source::{Signing, secrets_variable},
};

use crate::{
    cli::router,
    signed_deliveries::{self, ED25519, KINDS, PUBLIC_URL, SIGNED_AT, another_secret, now},
    support::{ROUTER, Serve, Sink, lookup, venv},
};

/// Makes the certificate and the key that stand for PayPal's, in a folder.
fn paypal(folder: &Path) -> (String, String) {
    const MAKE: &str = "\
import datetime as d, sys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization as s
from cryptography.hazmat.primitives.asymmetric import rsa
key = rsa.generate_private_key(65537, 2048)
name = x509.Name([])
names = x509.SubjectAlternativeName([x509.DNSName('messageverificationcerts.paypal.com')])
day = d.datetime(2026, 1, 1)
made = x509.CertificateBuilder(name, name, key.public_key(), 1, day, day.replace(year=2036))
made = made.add_extension(names, critical=len(name) == 0).sign(key, hashes.SHA256())
pem = s.Encoding.PEM
open(sys.argv[1], 'wb').write(made.public_bytes(pem))
open(sys.argv[2], 'wb').write(key.private_bytes(pem, s.PrivateFormat.PKCS8, s.NoEncryption()))";
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    let made = Command::new(venv("python")).args(["-c", MAKE, &certificate, &key]).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (certificate, key)
}

/// Returns the output of a command, which must have succeeded.
pub fn printed(output: &Output) -> &str {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    std::str::from_utf8(&output.stdout).unwrap()
}

fn refusal(output: &Output) -> &str {
    assert!(!output.status.success() && output.stdout.is_empty());
    std::str::from_utf8(&output.stderr).unwrap()
}

fn borrowed<'a>(vars: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    vars.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// Returns the vendor's file in events/vendors/.
pub fn body_of(vendor: &str) -> PathBuf {
    samples().remove(vendor).unwrap()
}

/// Returns the secrets of all vendors that have a sample.
fn secrets() -> Vec<(&'static str, String)> {
    let secrets = signed_deliveries::secrets();
    for name in samples().keys() {
        let variable = secrets_variable(name);
        let is_there = secrets.iter().any(|(known, _)| *known == variable);
        assert!(is_there, "signed_deliveries::secrets() has no entry for {variable}");
    }
    secrets
}

/// Returns the files in events/vendors/ by the names of their vendors.
fn samples() -> BTreeMap<String, PathBuf> {
    let files = std::fs::read_dir("events/vendors").unwrap();
    let named = |path: PathBuf| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path);
    files.map(|file| named(file.unwrap().path())).collect()
}

#[test]
fn every_sample_is_signed_as_the_vendor_signs() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = paypal(folder.path());
    let mut secrets = secrets();
    secrets.push(("PAYPAL_CERT_FILE", certificate));
    let vars = borrowed(&secrets);
    let intake = Intake::from_vars(lookup(&vars)).unwrap();
    let time = SIGNED_AT.to_string();
    for (name, file) in &samples() {
        let name = name.as_str();
        let event = |more: &[&str]| {
            let mut args = vec!["event", "--vendor", name, "--now", &time];
            if name == "paypal" {
                args.extend(["--key", &key]);
            }
            args.extend(more);
            let output = router(&args, &vars);
            fronts::delivery(printed(&output)).unwrap()
        };
        let status = |delivery: &Delivery| match plan(delivery, &intake, None, now(SIGNED_AT)) {
            Ok(Planned::Deliver(plan)) => {
                assert_eq!(plan.event.vendor, name);
                assert!(!plan.event.event_type.is_empty() || name == "twilio", "{name}");
                200
            }
            Ok(_) => panic!("{name} has no event"),
            Err(refusal) => refusal.reply().status.as_u16(),
        };
        let genuine = event(&[file.to_str().unwrap()]);
        assert_eq!(status(&genuine), 200, "{name}");
        // Without BODY, the sample is the same as the file. The same time gives the same signature.
        assert_eq!(event(&[]), genuine, "{name}");
        assert_eq!(status(&event(&["--secret", another_secret(name)])), 401, "{name}");

        // In an item of Adyen's, the signature covers the amount.
        let body = String::from_utf8(genuine.body.to_vec()).unwrap();
        let at = if name == "adyen" { body.find("1999").unwrap() } else { body.len() / 2 };
        let mut bytes = genuine.body.to_vec();
        bytes[at] ^= 1;
        let forged = Delivery { body: bytes.into(), ..genuine.clone() };
        assert_eq!(status(&forged), 401, "{name}");
        // Only vendors that sign inside the body change the file.
        let is_as_it_is = genuine.body == std::fs::read(file).unwrap();
        assert_eq!(is_as_it_is, !["adyen", "braintree"].contains(&name), "{name}");
    }
}

#[test]
fn signing_gives_what_was_signed_by_hand() {
    let intake = signed_deliveries::intake();
    for kind in KINDS.iter().filter(|kind| kind.name != "paypal") {
        let by_hand = kind.delivery(1, 0);
        // A placeholder replaces the signature that was made by hand.
        let mut unsigned = by_hand.clone();
        if !kind.signature.is_empty() {
            let name = HeaderName::from_static(kind.signature);
            unsigned.headers.insert(name, HeaderValue::from_static("none"));
        }
        let whsk = format!("whsk_{}", BASE64_STANDARD.encode([7; 32]));
        let source = intake.sources.get(kind.source).unwrap();
        let secret = match kind.name {
            "v1a" => Secret::new(whsk),
            "stripe" => source.secrets[1].clone(),
            _ => source.secrets[0].clone(),
        };
        let signing = Signing { secret: &secret, key: None, url: None, now: now(SIGNED_AT) };
        let mut signed = source.sign(&unsigned, &signing).unwrap();
        if !by_hand.headers.contains_key("content-type") {
            assert!(signed.headers.remove("content-type").is_some());
        }
        assert!(signed.body == by_hand.body, "{}", kind.name);
        if kind.name == "adyen" {
            signed.headers.remove("protocol");
        }
        for (name, value) in &by_hand.headers {
            assert_eq!(signed.headers.get(name), Some(value), "{} {name}", kind.name);
        }
        assert_eq!((&signed.path, &signed.query), (&by_hand.path, &by_hand.query));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_is_sent_and_served() {
    let sink = Sink::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = paypal(folder.path());
    let mut secrets = secrets();
    secrets.push(("PAYPAL_CERT_FILE", certificate));
    let vars = borrowed(&secrets);
    let serving = Serve::to(&sink).envs(vars.iter().copied()).start();
    for name in samples().keys() {
        let name = name.as_str();
        let mut args = vec!["event", "--vendor", name, "--send", &serving.url];
        if name == "paypal" {
            args.extend(["--key", &key]);
        }
        let said = printed(&router(&args, &vars)).to_owned();
        assert!(said.starts_with("200 OK\nx-webhook-key: webhook:dedup:"), "{name}: {said}");
        let answer = if name == "adyen" { "\n[accepted]\n" } else { "\ndone\n" };
        assert!(said.ends_with(answer), "{name}: {said}");
        let arrived = sink.take();
        assert_eq!(arrived.len(), 1, "{name}");
        // The same body is the same event, although it is signed anew.
        printed(&router(&args, &vars));
        assert!(sink.take().is_empty(), "{name}");
        let refused = router(&[&args[..], &["--secret", another_secret(name)]].concat(), &vars);
        assert_eq!(refused.status.code(), Some(1), "{name}");
        let said = String::from_utf8(refused.stdout).unwrap();
        assert_eq!(said, "401 Unauthorized\n\ninvalid signature\n", "{name}");
    }
    assert!(sink.take().is_empty());
    let nobody = router(&["event", "--vendor", "slack", "--send", "http://127.0.0.1:9"], &vars);
    assert!(refusal(&nobody).starts_with("error: no answer"), "{}", refusal(&nobody));
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_sends_exactly_what_was_signed() {
    let sink = Sink::start().await;
    let secrets = signed_deliveries::secrets();
    let vars = borrowed(&secrets);
    let serving = Serve::to(&sink).envs(vars.iter().copied()).only(Route::GCP).start();
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("it's a $(file) `name`.json");
    let text = "{\"id\": \"evt_'1'\", \"type\": \"a\",\r\n \"$HOME\": \"`x` \\\\ % é\"}\n\n";
    std::fs::write(&odd, text).unwrap();
    let bytes = folder.path().join("bytes");
    std::fs::write(&bytes, b"a=\xff\x00&b='\n").unwrap();
    let run = |line: &str| {
        let output = Command::new("sh").args(["-c", line]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.starts_with("HTTP/1.1 200"), "{line}\n{said}");
    };
    for (vendor, file, part) in [
        ("stripe", Some(&odd), "@"),
        ("github", Some(&bytes), "@"),
        ("stripe", None, "printf %s '{"),
        ("twilio", None, "printf %s 'Account"),
        ("braintree", None, "printf %s 'bt_signature=public%7C"),
    ] {
        let mut args = vec!["event", "--vendor", vendor, "--curl", &serving.url];
        args.extend(file.and_then(|file| file.to_str()));
        let line = printed(&router(&args, &vars)).to_owned();
        assert!(line.contains(part) && line.lines().count() >= 1, "{line}");
        run(&line);
        let arrived = sink.take().remove(0);
        if let Some(file) = file {
            assert_eq!(arrived.body, std::fs::read(file).unwrap());
        }
    }
    // A body from standard input is part of the command line.
    for (number, body) in
        [text.replace("evt", "other").as_bytes(), b"a=\xfe\x00&b='\n"].iter().enumerate()
    {
        let mut child = Command::new(ROUTER)
            .args(["event", "--vendor", "github", "--curl", &serving.url])
            .args(["--header", "X-GitHub-Event: it's", "-"])
            .env_clear()
            .envs(vars.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(body).unwrap();
        let line = child.wait_with_output().unwrap();
        let line = printed(&line);
        assert_eq!(line.contains("| base64 -d |"), number == 1, "{line}");
        run(line);
        let arrived = sink.take().remove(0);
        assert_eq!(arrived.body, body);
        assert_eq!(arrived.header("x-github-event"), Some("it's"));
    }
    let line = router(&["event", "--vendor", "slack", "--curl", "http://[::1]:9/x/y"], &vars);
    assert!(printed(&line).contains("curl -i --globoff 'http://[::1]:9/x/y' -H "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_each_scheme_is_signed_by_its_description() {
    let sink = Sink::start().await;
    let ed = hex::encode(ED25519.public_key().as_ref());
    let whsk = format!("whsk_{}", BASE64_STANDARD.encode([[7; 32], [0; 32]].concat()));
    let sources = format!(
        r#"
        [sources.body]
        vendor = "custom"
        secrets = ["plainly-body"]
        scheme = "hmac-body"
        header = "X-Acme-Signature"
        algorithm = "sha512"
        encoding = "base64url"
        prefix = "v3="
        required = ["X-Must", "X-Also"]
        id = "X-Id"

        [sources.signed]
        vendor = "custom"
        secrets = ["706c61696e6c79"]
        secret_encoding = "hex"
        scheme = "hmac-timestamped"
        header = "X-Signature"
        algorithm = "sha1"
        timestamp = "X-Time"
        timestamp_unit = "milliseconds"
        template = "{{method}}:{{url}}:{{header:X-Id}}:{{timestamp}}:{{body}}"
        url = "{PUBLIC_URL}"

        [sources.entry]
        vendor = "custom"
        secrets = ["plainly-entry"]
        scheme = "hmac-timestamped"
        header = "X-Signature"
        encoding = "base64"
        separator = ";"
        prefix = "s="
        timestamp_prefix = "t="
        timestamp_unit = "text"
        template = "{{timestamp}}.{{body}}"

        [sources.within]
        vendor = "custom"
        secrets = ["plainly-within"]
        scheme = "hmac-timestamped"
        header = "/signed/by"
        timestamp = "/at"
        template = "{{/id}}|{{timestamp}}|{{/absent}}"
        id = "/id"

        [sources.standard]
        vendor = "custom"
        secrets = ["whsec_dGVzdC1vbmx5LXZlbmRvci1rZXktMDE="]
        scheme = "standard-webhooks"
        id = "/id"

        [sources.shared]
        vendor = "custom"
        secrets = ["plainly-shared"]
        scheme = "shared-secret"
        header = "X-Gitlab-Token"
        prefix = "Token "

        [sources.basic]
        vendor = "custom"
        secrets = ["user:plainly:basic"]
        scheme = "basic"

        [sources.ed]
        vendor = "custom"
        secrets = ["{ed}"]
        scheme = "ed25519"
        header = "X-Signature-Ed25519"
        timestamp = "X-Signature-Timestamp"
        template = "{{timestamp}}{{body}}"

        [sources.stripe-eu]
        vendor = "stripe"
        secrets = ["plainly-eu"]
        "#
    );
    let vars = [("SOURCES", sources.as_str())];
    let serving = Serve::to(&sink).envs(vars.iter().copied()).start();
    let folder = tempfile::tempdir().unwrap();
    let body = folder.path().join("body.json");
    std::fs::write(&body, r#"{ "id":"one", "at":1, "n":1.50}"#).unwrap();
    let pem = folder.path().join("key.pem");
    // PKCS#8 of the same seed (RFC 8410).
    let der = [hex::decode("302e020100300506032b657004220420").unwrap(), vec![7; 32]].concat();
    let text = BASE64_STANDARD.encode(der);
    std::fs::write(
        &pem,
        format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"),
    )
    .unwrap();
    let (pem, whsk) = (["--key", pem.to_str().unwrap()], ["--secret", &whsk]);
    let cases: [(&str, &[&str]); 10] = [
        ("body", &[]),
        ("signed", &[]),
        ("entry", &[]),
        ("within", &[]),
        ("standard", &[]),
        ("shared", &[]),
        ("basic", &[]),
        ("ed", &whsk),
        ("ed", &pem),
        ("stripe-eu", &[]),
    ];
    for (name, more) in cases {
        let args = ["event", "--source", name, "--send", &serving.url, body.to_str().unwrap()];
        let output = router(&[&args[..], more].concat(), &vars);
        assert!(output.status.success(), "{name}: {}\n{output:?}", serving.log());
        let event = ["event", "--source", name, "--header", "X-Id: 7", body.to_str().unwrap()];
        let event = printed(&router(&[&event[..], more].concat(), &vars)).to_owned();
        let delivery = fronts::delivery(&event).unwrap();
        if name == "signed" {
            assert_eq!(delivery.headers["x-id"], "7");
        }
        if name == "within" {
            let body: Value = serde_json::from_slice(&delivery.body).unwrap();
            assert!(body["at"].as_i64() > Some(1_700_000_000), "{body}");
            assert!(delivery.body.ends_with(br#", "n":1.50}"#));
        }
    }
    for (args, said) in [
        (
            &["--source", "ed"][..],
            "an Ed25519 private key, and the secret is not one: give a key of your own",
        ),
        (&["--source", "nobody"], "no source is named nobody"),
        (
            &["--vendor", "github", "--secret", "x", "--header", "X-Hub-Signature-256: sha256=00"],
            "sets the header x-hub-signature-256 itself: leave it out",
        ),
        (
            &["--vendor", "stripe"],
            "there is nothing to sign with: set STRIPE_SECRETS, or give --secret",
        ),
        (&["--vendor", "adyen", "--secret", "no hex"], "must be the HMAC key's hex digits: give"),
        (&["--vendor", "klarna", "--secret", "x"], "must be `key-id:key`"),
        (
            &["--vendor", "braintree", "--secret", "x:y"],
            "must be an XML document in UTF-8, or a form with bt_payload",
        ),
        (&["--vendor", "standard-webhooks", "--secret", "?"], "must be `whsec_` and base64"),
        (
            &["--vendor", "square", "--secret", "x"],
            "which is not known: give --url, or set PUBLIC_URL",
        ),
        (
            &["--vendor", "paypal", "--secret", "WEBHOOK"],
            "which PayPal alone has: give a key of your own",
        ),
        (
            &["--vendor", "paypal", "--secret", "x", "--key", "Cargo.toml"],
            "must be a private key in PEM form",
        ),
        (&["--vendor", "plaid", "--secret", "a:b"], "only Plaid has the key to sign with"),
        (&["--vendor", "sendgrid", "--secret", "x"], "a P-256 private key: give a key of your own"),
        (&["--vendor", "slack", "--secret", "x", "--send", "ftp://x"], "http:// or https://"),
        (&[], "--vendor"),
    ] {
        let output = router(&[&["event"], args, &[body.to_str().unwrap()]].concat(), &vars);
        assert!(refusal(&output).contains(said), "{args:?}: {}", refusal(&output));
    }
    for unsampled in [["--source", "basic"], ["--vendor", "zendesk"]] {
        let output = router(&[&["event"], &unsampled[..]].concat(), &vars);
        assert!(refusal(&output).contains("BODY must be given"), "{}", refusal(&output));
    }
}

#[test]
fn explain_takes_what_event_prints() {
    let secrets = signed_deliveries::secrets();
    let vars = borrowed(&secrets);
    let event =
        router(&["event", "--vendor", "github", "--header", "X-GitHub-Event: issues"], &vars);
    let mut child = Command::new(ROUTER)
        .args(["explain", "--json", "--event", "-"])
        .env_clear()
        .envs(vars.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(printed(&event).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let explained: Value = serde_json::from_str(printed(&output)).unwrap();
    assert_eq!((&explained["status"], &explained["event_type"]), (&json!(200), &json!("issues")));
}
