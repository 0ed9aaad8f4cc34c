//! Compares key and route with those of the Python router, byte for byte.

use std::{
    collections::{BTreeMap, HashSet},
    process::Command,
};

use webhook_router::lowercase::python_lower;

use crate::support::{
    Expected, Golden, ROUTER, Serve, Sink, client, delivery, end_of, intake, post, venv,
};

#[test]
fn the_library_plans_every_golden_case() {
    let all = Golden::all();
    assert_eq!(all.len(), 1243);
    for case in all {
        let planned = super::support::planned(
            &delivery(case.body()),
            &intake(&case.secret),
            chrono::Utc::now(),
        );
        let got = match planned {
            Ok(plan) => Expected {
                status: 200,
                key: Some(plan.key.to_string()),
                destination: Some(plan.route.to_string()),
                created_at: plan.event.created_at.map(|time| time.to_string()),
                digest: Some(plan.event.digest),
            },
            Err(refusal) => refused(refusal.reply().status.as_u16()),
        };
        assert_eq!(got, case.expect, "{} {}: {}", case.family, case.cat, case.body_b64);
    }
}

#[test]
fn explain_prints_every_golden_case() {
    for (secret, cases) in by_secret() {
        let folder = tempfile::tempdir().unwrap();
        let files = cases.iter().enumerate().map(|(index, case)| {
            let file = folder.path().join(index.to_string());
            std::fs::write(&file, case.body()).unwrap();
            file
        });
        let files: Vec<_> = files.collect();
        let mut explain = Command::new(ROUTER);
        explain.args(["explain", "--json"]).args(&files).env("ROUTING_SECRET", &secret);
        let output = end_of(&mut explain);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), cases.len());
        for (line, (file, case)) in text.lines().zip(files.iter().zip(&cases)) {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(object["file"], file.to_str().unwrap());
            assert_eq!(object["error"].is_null(), case.expect.status == 200, "{line}");
            let got: Expected = serde_json::from_value(object).unwrap();
            assert_eq!(got, case.expect, "{} {}: {}", case.family, case.cat, case.body_b64);
        }
    }
}

#[tokio::test]
async fn over_http_every_golden_case_has_its_key_and_reaches_both_destinations_unchanged() {
    let sink = Sink::start().await;
    let client = client();
    for (secret, cases) in by_secret() {
        // These are the default threshold, and each threshold that sends everything to one
        // destination.
        for threshold in ["128", "0", "256"] {
            let vars = [("ROUTING_SECRET", secret.as_str()), ("ROUTE_THRESHOLD", threshold)];
            let router = Serve::to(&sink).envs(vars).start();
            let mut seen = HashSet::new();
            for case in &cases {
                let got = post(&client, &router.webhook(), case.body()).await;
                let about = || format!("{} {}: {}", case.family, case.cat, case.body_b64);
                assert_eq!(got.status, case.expect.status, "{}", about());
                assert_eq!(got.header("x-webhook-key"), case.expect.key.as_deref(), "{}", about());
                let received = sink.take();
                let Some(key) = &case.expect.key else {
                    assert!(received.is_empty(), "{}", about());
                    continue;
                };
                let destination = match threshold {
                    "0" => "aws",
                    "256" => "gcp",
                    _ => case.expect.destination.as_deref().unwrap(),
                };
                assert_eq!(got.header("x-webhook-destination"), Some(destination));
                if seen.insert(key) {
                    assert_eq!(received.len(), 1, "{}", about());
                    assert_eq!(received[0].is_invocation(), destination == "aws");
                    assert!(received[0].body == case.body(), "{}", about());
                } else {
                    assert_eq!(got.text(), "duplicate ignored");
                    assert!(received.is_empty(), "{}", about());
                }
            }
        }
    }
}

#[test]
fn lower_case_is_python_s_for_every_code_point() {
    let output = Command::new(venv("python"))
        .args(["tests/parity/reference.py", "--lower"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lowered = output.stdout.split(|byte| *byte == 0xff);
    let mut differing = Vec::new();
    for char in '\0'..=char::MAX {
        // The words of `awkward_words` in tests/parity/generate.py.
        let text = format!("{char}|AΣ{char}|AΣ{char}A|{char}Σ|A{char}Σ");
        if lowered.next() != Some(python_lower(&text).as_bytes()) {
            differing.push(char);
        }
    }
    assert_eq!((lowered.next(), lowered.next()), (Some(&[][..]), None));
    let first = differing.iter().take(20).collect::<Vec<_>>();
    assert!(differing.is_empty(), "{} differ, such as {first:?}", differing.len());
}

fn refused(status: u16) -> Expected {
    Expected { status, key: None, destination: None, created_at: None, digest: None }
}

fn by_secret() -> BTreeMap<String, Vec<Golden>> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for case in Golden::all() {
        groups.entry(case.secret.clone()).or_default().push(case);
    }
    groups
}
