//! Compares generated bodies and timestamps with the Python reference. Each run uses a new seed.
//!
//! PARITY_BODIES and PARITY_TIMESTAMPS set the numbers of cases. PARITY_SEED repeats a run.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::support::{delivery, intake, planned, venv};

/// The secret of reference.py.
const SECRET: &str = "parity-secret-é";

#[test]
fn generated_cases_get_the_answers_of_the_python_reference() {
    let setting = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect(name))
    };
    let seed = setting("PARITY_SEED", rand::random::<u32>().into());
    let bodies = setting("PARITY_BODIES", 6_000);
    let timestamps = setting("PARITY_TIMESTAMPS", 10_000);
    println!("PARITY_SEED={seed}");
    let mut reference = Command::new(venv("python"))
        .arg("tests/parity/reference.py")
        .args(["--seed", &seed.to_string()])
        .args(["--bodies", &bodies.to_string()])
        .args(["--timestamps", &timestamps.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();

    let intake = intake(SECRET);
    let mut families = BTreeMap::<String, Counts>::new();
    let (mut disagreements, mut shown) = (0, String::new());
    for line in BufReader::new(reference.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let mut fields = line.split('\t');
        let family = fields.next().unwrap().to_owned();
        let body = BASE64_STANDARD.decode(fields.next().unwrap()).unwrap();
        let want = fields.collect::<Vec<_>>().join(" ");
        let got = match planned(&delivery(body.clone()), &intake, chrono::Utc::now()) {
            Ok(plan) => {
                let (created_at, digest) = (plan.event.created_at.unwrap(), &plan.event.digest);
                format!("200 {} {} {created_at} {digest}", plan.key, plan.route)
            }
            Err(refusal) => refusal.reply().status.as_u16().to_string(),
        };
        let counts = families.entry(family.clone()).or_default();
        counts.accepted += u64::from(want.starts_with("200"));
        counts.refused += u64::from(want == "400");
        if got != want {
            disagreements += 1;
            if disagreements <= 20 {
                let body: String = String::from_utf8_lossy(&body).chars().take(400).collect();
                shown += &format!("\n{family}: {body:?}\n  reference {want}\n  router    {got}");
            }
        }
    }
    assert_eq!(
        disagreements, 0,
        "PARITY_SEED={seed} PARITY_BODIES={bodies} PARITY_TIMESTAMPS={timestamps} repeats this:{shown}"
    );
    assert!(reference.wait().unwrap().success());

    println!("{:<12} {:>9} {:>9}", "family", "accepted", "refused");
    for (family, Counts { accepted, refused }) in &families {
        println!("{family:<12} {accepted:>9} {refused:>9}");
    }
    let total: u64 = families.values().map(|counts| counts.accepted + counts.refused).sum();
    assert_eq!(total, bodies + timestamps);
    assert!(families.values().all(|counts| counts.accepted > 0 && counts.refused > 0));
}

#[derive(Default)]
struct Counts {
    accepted: u64,
    refused: u64,
}
