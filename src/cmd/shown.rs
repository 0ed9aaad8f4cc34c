//! Formats records for operators: as lines for a person, and as JSON for a program.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::{
    delivery::Reply,
    key::Key,
    outcome::{Outcome, Trigger},
    route::Route,
    store::{Acceptance, Attempt, Excerpt, Failed, Failure, Record, State},
};

/// A record in the form that commands print. Times are RFC 3339, in UTC.
#[derive(Default, Serialize)]
pub(super) struct Shown {
    key: String,
    /// `waiting`, `in_flight`, `delivered` or `dead_letter`.
    state: &'static str,
    /// The owner of the lease, and the time at which the lease ends. Both are present only while
    /// the event is in flight. If the time has passed, the owner stored no result, and nobody has
    /// come since.
    owner: Option<String>,
    until: Option<String>,
    /// True if `until` has passed.
    #[serde(skip)]
    has_ended: bool,
    /// The time of the acceptance. It stays when the event is delivered.
    accepted_at: Option<String>,
    /// The number of entries of the retry schedule that are used up, the time of the next attempt,
    /// and the outcome of the last attempt since the acceptance. All three are absent outside the
    /// inbox. The time is also absent during an attempt. The outcome is absent until an attempt has
    /// ended.
    tries: Option<u32>,
    next_attempt_at: Option<String>,
    last_failure: Option<String>,
    delivered_at: Option<String>,
    failed_at: Option<String>,
    failure: Option<ShownFailure>,
    vendor: Option<String>,
    event_type: Option<String>,
    created_at: Option<String>,
    destination: Option<Route>,
    first_seen: Option<String>,
    attempts: Vec<ShownAttempt>,
    reply: Option<ShownReply>,
}

#[derive(Serialize)]
struct ShownAttempt {
    number: u32,
    at: String,
    by: Trigger,
    destination: Route,
    outcome: String,
    milliseconds: u64,
}

#[derive(Serialize)]
struct ShownFailure {
    outcome: String,
    detail: String,
    answer: Option<ShownAnswer>,
}

/// The beginning of a destination's answer. A body that is not UTF-8 is in base64.
#[derive(Serialize)]
struct ShownAnswer {
    content_type: Option<String>,
    /// Length of the whole answer.
    bytes: u64,
    /// Length of the part that the dead letter keeps.
    kept_bytes: usize,
    body: Option<String>,
    body_base64: Option<String>,
    /// The body as lines for a person.
    #[serde(skip)]
    lines: Vec<String>,
}

#[derive(Serialize)]
struct ShownReply {
    status: u16,
    content_type: Option<String>,
    bytes: usize,
    /// Absent when the body is not text.
    body: Option<String>,
}

impl From<&Record> for Shown {
    fn from(record: &Record) -> Self {
        let Record { key, details, attempts, failed, accepted, state } = record;
        let mut shown = Self {
            key: key.to_string(),
            attempts: attempts.iter().map(ShownAttempt::from).collect(),
            ..Self::default()
        };
        if let Some(details) = details {
            shown.vendor = Some(details.vendor.clone());
            shown.event_type = Some(details.event_type.clone());
            shown.created_at = details.created_at.map(|time| time.to_string());
            shown.destination = Some(details.route);
            shown.first_seen = Some(time(details.first_seen));
            shown.accepted_at = details.accepted_at.map(time);
        }
        match state {
            State::InFlight { owner, until } => {
                shown.state = "in_flight";
                shown.owner = Some(owner.clone());
                shown.until = Some(time(*until));
                shown.has_ended = *until < Utc::now();
            }
            State::Delivered { at, reply } => {
                shown.state = "delivered";
                shown.delivered_at = at.map(time);
                shown.reply = reply.as_ref().map(ShownReply::from);
            }
            State::DeadLetter => shown.state = "dead_letter",
            State::Waiting { due } => {
                shown.state = "waiting";
                shown.next_attempt_at = Some(time(*due));
            }
        }
        if let Some(Acceptance { at, tries, .. }) = accepted {
            shown.accepted_at = Some(time(*at));
            shown.tries = Some(*tries);
            let last = attempts.last().filter(|last| last.at >= *at);
            shown.last_failure = last.map(|last| words(last.outcome));
        }
        if let Some(Failed { at, failure: Failure { outcome, detail, answer } }) = failed {
            shown.failed_at = Some(time(*at));
            let (outcome, detail) = (words(*outcome), detail.clone());
            let answer = answer.as_deref().map(ShownAnswer::from);
            shown.failure = Some(ShownFailure { outcome, detail, answer });
        }
        shown
    }
}

impl From<&Attempt> for ShownAttempt {
    fn from(attempt: &Attempt) -> Self {
        let Attempt { number, at, by, destination, outcome, milliseconds } = *attempt;
        Self { number, at: time(at), by, destination, outcome: words(outcome), milliseconds }
    }
}

impl From<&Excerpt> for ShownAnswer {
    fn from(excerpt: &Excerpt) -> Self {
        let Excerpt { content_type, length, body } = excerpt;
        let text = std::str::from_utf8(body).ok();
        Self {
            content_type: content_type.clone(),
            bytes: *length,
            kept_bytes: body.len(),
            body: text.map(str::to_owned),
            body_base64: text.is_none().then(|| BASE64_STANDARD.encode(body)),
            lines: String::from_utf8_lossy(body)
                .lines()
                .map(|line| harmless(&line.replace('\t', "    ")))
                .collect(),
        }
    }
}

impl From<&Reply> for ShownReply {
    fn from(reply: &Reply) -> Self {
        Self {
            status: reply.status.as_u16(),
            content_type: reply.content_type().map(str::to_owned),
            bytes: reply.body.len(),
            body: String::from_utf8(reply.body.to_vec()).ok(),
        }
    }
}

impl Shown {
    /// Returns the record as lines for a person.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                let _ = writeln!(text, "{name:<12} {}", harmless(&value));
            }
        };
        line("key", Some(self.key.clone()));
        line("state", Some(self.state.replace('_', " ")));
        line("owner", self.owner.clone());
        line(if self.has_ended { "lease ended" } else { "lease until" }, self.until.clone());
        if self.has_ended {
            let why = "the owner stored no result; its vendor's next delivery starts a new attempt";
            line("", Some(why.into()));
        }
        line("accepted", self.accepted_at.clone());
        line("tries", self.tries.map(|tries| format!("{tries} (used entries of RETRY_SCHEDULE)")));
        line("next attempt", self.next_attempt_at.clone());
        line("last failure", self.last_failure.clone());
        line("delivered", self.delivered_at.clone());
        line("failed", self.failed_at.clone());
        line("failure", self.failure.as_ref().map(|failure| failure.detail.clone()));
        if let Some(answer) = self.failure.as_ref().and_then(|failure| failure.answer.as_ref()) {
            let ShownAnswer { content_type, bytes, kept_bytes, lines, .. } = answer;
            let content_type = content_type.as_deref().unwrap_or("no content type");
            let cut = if (*kept_bytes as u64) < *bytes {
                format!(", of which the first {kept_bytes}")
            } else {
                String::new()
            };
            line("answer", Some(format!("{content_type}, {bytes} bytes{cut}")));
            // A prefix of their own keeps the lines of an answer apart from the lines of a record.
            lines.iter().for_each(|text| line("  |", Some(text.clone())));
        }
        line("vendor", self.vendor.clone());
        line("event_type", self.event_type.clone());
        line("created_at", self.created_at.clone());
        line("destination", self.destination.map(|route| route.to_string()));
        line("first seen", self.first_seen.clone());
        for ShownAttempt { number, at, by, destination, outcome, milliseconds } in &self.attempts {
            let attempt =
                format!("{number}: {at}, {destination}, {outcome}, {milliseconds} ms, by {by}");
            line("attempt", Some(attempt));
        }
        line(
            "reply",
            self.reply.as_ref().map(|reply| {
                let ShownReply { status, content_type, bytes, .. } = reply;
                let content_type = content_type.as_deref().unwrap_or("no content type");
                format!("{status}, {content_type}, {bytes} bytes")
            }),
        );
        if self.vendor.is_none() {
            line("details", Some("not known: a Python router delivered it".into()));
        }
        text
    }
}

/// Prints an accepted event or a dead letter as a line for a person.
pub(super) fn print_record(record: &Record, out: &mut impl Write) -> io::Result<()> {
    match record.accepted {
        Some(_) => print_pending(record, out),
        None => print_letter(record, out),
    }
}

/// Prints an accepted event as a line for a person: the time of the next attempt, the digits of the
/// key, destination, vendor and type, the time of the acceptance, and the number of entries of the
/// retry schedule that are used up.
pub(super) fn print_pending(record: &Record, out: &mut impl Write) -> io::Result<()> {
    let (Some(details), Some(accepted)) = (&record.details, &record.accepted) else {
        return Ok(());
    };
    let next = match record.state {
        State::Waiting { due } => time(due),
        _ => "being-delivered".to_owned(),
    };
    writeln!(
        out,
        "{next} {} {} {} {} accepted={} tries={}",
        record.key.to_string().trim_start_matches(Key::PREFIX),
        details.route,
        harmless(&details.vendor),
        harmless(&details.event_type),
        time(accepted.at),
        accepted.tries,
    )
}

/// Prints a dead letter as a line for a person: the time of its failure, the digits of its key, its
/// destination, vendor and type, the number of attempts, and the reason.
pub(super) fn print_letter(record: &Record, out: &mut impl Write) -> io::Result<()> {
    let (Some(details), Some(failed)) = (&record.details, &record.failed) else { return Ok(()) };
    writeln!(
        out,
        "{} {} {} {} {} attempts={} {}",
        time(failed.at),
        record.key.to_string().trim_start_matches(Key::PREFIX),
        details.route,
        harmless(&details.vendor),
        harmless(&details.event_type),
        record.attempts.len(),
        harmless(&failed.failure.detail),
    )
}

pub(super) fn words(outcome: Outcome) -> String {
    match outcome {
        Outcome::Status(status) => status.to_string(),
        Outcome::Unreachable => "unreachable".into(),
        Outcome::Refused => "refused".into(),
        Outcome::Limited => "limited".into(),
        Outcome::TimedOut => "timed out".into(),
        Outcome::Broken => "connection broken".into(),
    }
}

pub(super) fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Returns an untrusted text as one line that can neither control the terminal nor change the
/// direction of writing.
pub(super) fn harmless(text: &str) -> String {
    text.replace(steers, "\u{FFFD}")
}

/// Does the same as [`harmless`] for a text of several lines.
pub(super) fn harmless_lines(text: &str) -> String {
    text.replace(|char| steers(char) && char != '\n' && char != '\t', "\u{FFFD}")
}

/// Returns whether a character is a control character or changes the direction of writing
/// (<https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>).
fn steers(char: char) -> bool {
    let is_directional = matches!(
        char,
        '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
    );
    char.is_control() || is_directional
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, Utc};

    use super::{Shown, harmless, harmless_lines};
    use crate::{
        event::Identity,
        store::{Record, State},
        testing,
    };

    #[test]
    fn a_lease_that_has_ended_is_not_shown_as_one_that_lasts() {
        let text = |until| {
            let key = testing::plan(Identity::Content, "one").key;
            let state = State::InFlight { owner: "me".into(), until };
            let (details, failed, accepted) = (None, None, None);
            Shown::from(&Record { key, details, attempts: vec![], failed, accepted, state }).text()
        };
        let hour = TimeDelta::hours(1);
        assert!(text(Utc::now() + hour).contains("\nlease until "));
        let ended = text(Utc::now() - hour);
        assert!(ended.contains("\nlease ended ") && ended.contains("stored no result"), "{ended}");
    }

    #[test]
    fn an_untrusted_text_cannot_control_the_terminal() {
        let hostile = "a\u{1b}[2Jb\u{9b}31mc\rd\u{7f}e\u{202e}f\u{2066}g\nh\tié";
        let rest = "�[2Jb�31mc�d�e�f�g";
        assert_eq!(harmless(hostile), format!("a{rest}�h�ié"));
        assert_eq!(harmless_lines(hostile), format!("a{rest}\nh\tié"));
    }
}
