//! The demo, and the commands that it prints for use by hand.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use crate::{
    cli::{router, stderr, stdout},
    support::ROUTER,
};

#[test]
fn the_demo_shows_the_main_job_and_succeeds() {
    let output = router(&["demo"], &[]);
    let text = stdout(&output);
    assert!(output.status.success(), "{text}\n{}", stderr(&output));
    assert!(text.contains("it reached its destination once"), "{text}");
    let rows = text.lines().filter(|line| line.ends_with(" yes")).count();
    assert_eq!(rows, 12, "{text}");
    for vendor in ["stripe", "github", "adyen", "slack", "twilio"] {
        let row = text.lines().find(|line| {
            line.starts_with(&format!("{vendor} ")) && line.contains("401 invalid signature")
        });
        assert!(row.is_some(), "{vendor}: {text}");
    }
    assert!(text.contains(" gcp ") && text.contains(" aws "));
    assert!(text.contains("curl -i http://127.0.0.1:8080/webhook"));
}

#[test]
fn the_demo_stays_for_the_lines_that_it_prints_and_shows_each_request() {
    let mut demo = Command::new(ROUTER);
    demo.args(["demo", "--stay"]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    let mut demo = demo.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    let told: Vec<_> = lines
        .by_ref()
        .skip_while(|line| !line.starts_with("Go on by hand"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .collect();
    let shell = |line: &str| {
        let mut shell = Command::new("sh");
        let output = shell.args(["-c", line]).env_clear().env("PATH", "/usr/bin:/bin");
        let output = output.output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let [first, forged, curl, envelope, ..] = told.as_slice() else { panic!("{told:?}") };
    for (line, answer, shown) in [
        (first, "200 OK", "200 processed"),
        (first, "duplicate ignored", "200 duplicate ignored"),
        (forged, "401 Unauthorized", "401 invalid signature"),
        (envelope, "HTTP/1.1 200", "200 processed"),
        (envelope, "duplicate ignored", "200 duplicate ignored"),
    ] {
        assert!(shell(line).contains(answer), "{line}");
        let traffic = lines.next().unwrap();
        assert!(traffic.contains(" POST /webhook") && traffic.contains(shown), "{traffic}");
    }
    let with_curl = shell(curl);
    assert!(shell(&with_curl).contains("duplicate ignored"), "{with_curl}");
    assert!(told[4..].iter().any(|line| shell(line).contains("orders/create")), "{told:?}");
    let id = demo.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(demo.wait().unwrap().success());
}
