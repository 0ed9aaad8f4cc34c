//! Against the Python reference: generated cases with a fresh seed.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

/// The secret that reference.py uses.
const SECRET: &str = "parity-secret-é";

#[test]
fn generated_bodies_and_timestamps_get_the_answer_of_the_python_reference() {
    let seed = std::env::var("P").unwrap_or("7".into());
    let mut reference = Command::new("/tmp/w/venv/bin/python")
        .arg("tests/parity/reference.py")
        .args(["--seed", &seed])
        .args(["--bodies", "100000", "--timestamps", "200000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let intake = webhook_router::config::Intake::from_vars(|n| match n {
        "ROUTING_SECRET" => Some(SECRET.into()),
        "ALLOW_UNSIGNED" => Some("true".into()),
        _ => None,
    })
    .unwrap();
    let mut counts: BTreeMap<(String, String), u32> = BTreeMap::new();
    let mut bad = 0;
    for line in BufReader::new(reference.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let mut f = line.split('\t');
        let family = f.next().unwrap();
        let body = BASE64_STANDARD.decode(f.next().unwrap()).unwrap();
        let want = f.collect::<Vec<_>>().join(" ");
        let d = webhook_router::delivery::Delivery {
            method: http::Method::POST,
            path: "/webhook".into(),
            headers: Default::default(),
            body: body.into(),
        };
        let got = match webhook_router::plan::plan(&d, &intake, chrono::Utc::now()) {
            Ok(p) => format!("200 {} {} {} {}", p.key, p.route, p.event.created_at, p.event.digest),
            Err(e) => e.reply().status.as_u16().to_string(),
        };
        *counts.entry((family.into(), want[..3].into())).or_default() += 1;
        if got != want {
            bad += 1;
            if bad < 20 {
                println!(
                    "{family}\n  got {got}\n want {want}\n {}",
                    String::from_utf8_lossy(&d.body).chars().take(400).collect::<String>()
                );
            }
        }
    }
    println!("{counts:?}");
    assert!(reference.wait().unwrap().success());
    assert_eq!(bad, 0);
}
