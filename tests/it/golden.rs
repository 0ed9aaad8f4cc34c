use base64::{Engine as _, prelude::BASE64_STANDARD};
use webhook_router::{config::Intake, delivery::Delivery, plan::plan};
#[derive(serde::Deserialize)]
struct Case {
    secret: String,
    body_b64: String,
    family: String,
    cat: String,
    expect: Expect,
}
#[derive(serde::Deserialize)]
struct Expect {
    status: u16,
    key: Option<String>,
    destination: Option<String>,
    created_at: Option<String>,
    digest: Option<String>,
}
#[test]
fn golden() {
    let text = std::fs::read_to_string("tests/parity/golden.jsonl").unwrap();
    let mut bad = 0;
    for line in text.lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let intake = Intake::from_vars(|n| match n {
            "ROUTING_SECRET" => Some(case.secret.clone()),
            "ALLOW_UNSIGNED" => Some("true".into()),
            _ => None,
        })
        .unwrap();
        let d = Delivery {
            method: http::Method::POST,
            path: "/webhook".into(),
            headers: Default::default(),
            body: BASE64_STANDARD.decode(&case.body_b64).unwrap().into(),
        };
        let (status, got) = match plan(&d, &intake, chrono::Utc::now()) {
            Ok(p) => (
                200,
                Some((
                    p.key.to_string(),
                    p.route.to_string(),
                    p.event.created_at.to_string(),
                    p.event.digest,
                )),
            ),
            Err(e) => (e.reply().status.as_u16(), None),
        };
        let want = case.expect.key.clone().map(|k| {
            (
                k,
                case.expect.destination.clone().unwrap(),
                case.expect.created_at.clone().unwrap(),
                case.expect.digest.clone().unwrap(),
            )
        });
        if (status, &got) != (case.expect.status, &want) {
            bad += 1;
            println!(
                "{} {} {:?}\n got {status} {got:?}\n want {} {want:?}",
                case.family,
                case.cat,
                String::from_utf8_lossy(&d.body).chars().take(300).collect::<String>(),
                case.expect.status
            );
        }
    }
    assert_eq!(bad, 0);
}
