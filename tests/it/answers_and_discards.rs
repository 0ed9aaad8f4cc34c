//! Answers of destinations as operators see them, and the discarding of many dead letters.

use std::process::Command;

use http::StatusCode;
use serde_json::Value;

use crate::{
    operators::{event, fail, run, serve, text, vars},
    support::{Answer, ROUTER, Sink, end_of, ok, sqlite, venv},
};

#[tokio::test]
async fn the_beginning_of_an_answer_is_shown_and_steers_no_terminal() {
    let (sink, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let url = sqlite(folder.path());
    let vars = vars(&sink, &[("STORE_URL", &url)]);
    let router = serve(&vars);
    let hostile = "<h1>\u{1b}[2J\u{9b}31m\u{202e}no\r</h1>\nstate        delivered\n";
    let (long, binary) = (format!("{hostile}{}", "x".repeat(5000)), vec![0xFF, 0x1b, b'[', b'm']);
    for (body, number, bytes, kept) in
        [(long.clone().into_bytes(), 1, long.len(), 2048), (binary, 2, 4, 4)]
    {
        sink.answers(Answer::With(
            StatusCode::UNPROCESSABLE_ENTITY,
            vec![("content-type", "text/html")],
            body.clone().into(),
        ));
        // The sender gets the answer as it is.
        let got = router.post(event("stripe", number)).await;
        assert_eq!((got.status, &got.body[..]), (422, &body[..]));
        let key = got.header("x-webhook-key").unwrap();
        let said = text(&run(&vars, &["inspect", key]).await);
        assert!(said.chars().all(|char| char == '\n' || !char.is_control()), "{said:?}");
        assert!(!said.contains('\u{202e}'), "{said:?}");
        let cut = if kept < bytes { ", of which the first 2048" } else { "" };
        let head = format!("\nanswer       text/html, {bytes} bytes{cut}\n  |          ");
        assert!(said.contains(&head), "{said}");
        // No line of the answer can be mistaken for a line of the record.
        assert_eq!(said.lines().filter(|line| line.starts_with("state ")).count(), 1, "{said}");
        let output = run(&vars, &["inspect", "--json", key]).await;
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        let answer = &shown["failure"]["answer"];
        assert_eq!((&answer["bytes"], &answer["kept_bytes"]), (&bytes.into(), &kept.into()));
        match number {
            1 => assert_eq!(answer["body"], long[..2048]),
            _ => assert_eq!(answer["body_base64"], "/xtbbQ=="),
        }
    }
    assert!(!router.log().contains("<h1>"), "{}", router.log());
    // The destination no longer answers.
    let nowhere = [vars.clone(), vec![("GCP_TARGET_URL".into(), "http://127.0.0.1:1".into())]];
    let replayed = run(&nowhere.concat(), &["replay", "--all"]).await;
    let said = text(&replayed);
    assert_eq!(said.matches("again: the destination cannot be reached: ").count(), 2, "{said}");
    assert!(said.contains("2 failed"), "{said}");
    for line in
        String::from_utf8(run(&vars, &["dead-letters", "--json"]).await.stdout).unwrap().lines()
    {
        let shown: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&shown["failure"]["outcome"], &shown["failure"]["answer"]),
            (&"unreachable".into(), &Value::Null)
        );
    }
}

#[tokio::test]
async fn all_letters_are_discarded_after_a_count_and_a_yes() {
    // Runs a command on a terminal. The first argument is the text that the terminal answers.
    const ON_A_TERMINAL: &str = "\
import os, pty, sys
ours, terminal = pty.openpty()
if os.fork():
    os.close(ours); os.dup2(terminal, 0); os.close(terminal)
    os.execv(sys.argv[2], sys.argv[2:])
os.close(terminal); os.close(1); os.close(2)
os.write(ours, sys.argv[1].encode() + b'\\n')
try:
    while True: os.read(ours, 4096)
except OSError: pass";
    let (sink, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let url = sqlite(folder.path());
    let vars = vars(&sink, &[("STORE_URL", &url)]);
    let router = serve(&vars);
    let events = [event("stripe", 1), event("stripe", 2), event("stripe", 3), event("adyen", 4)];
    let keys = fail(&sink, &router, events).await;
    let left = async || {
        let listed = run(&vars, &["dead-letters"]).await;
        String::from_utf8(listed.stdout).unwrap().lines().count()
    };
    // Without a terminal, nobody can answer.
    let output = run(&vars, &["discard", "--all"]).await;
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("4 dead letters in {url}; nothing was discarded")), "{said}");
    assert!(said.ends_with("add --yes\n") && left().await == 4, "{said}");
    let output = run(&vars, &["discard", "--all", "--vendor", "adyen", "--yes"]).await;
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(text(&output), format!("{}: discarded\n1 discarded, 0 left\n", keys[3]));
    let none = run(&vars, &["discard", "--all", "--destination", "aws", "--yes"]).await;
    let said = format!("0 dead letters in {url}: nothing to discard\n");
    assert!(none.status.success() && text(&none) == said, "{}", text(&none));
    for (answer, discards) in [("no", false), ("", false), ("y", false), ("yes", true)] {
        let mut command = Command::new(venv("python"));
        command.args(["-c", ON_A_TERMINAL, answer, ROUTER, "discard", "--all", "--since", "1h"]);
        command.env_clear().envs(vars.iter().cloned());
        let output = tokio::task::spawn_blocking(move || end_of(&mut command)).await.unwrap();
        let said = text(&output);
        assert!(
            said.contains(&format!("3 dead letters in {url} would be gone for good.")),
            "{said}"
        );
        assert_eq!(output.status.success(), discards, "{said}");
        assert_eq!(left().await, if discards { 0 } else { 3 }, "{answer}: {said}");
    }
    // The events can be delivered again.
    sink.answers(ok("done"));
    assert_eq!(router.post(event("stripe", 1)).await.text(), "done");
}
