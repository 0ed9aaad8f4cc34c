//! The settings of the inbox: which events are answered at once, and how they are delivered then.

use std::time::Duration;

use super::vars::Vars;
use crate::source::{Answer, Sources};

/// Longest pause of a schedule.
const MAX_PAUSE: Duration = Duration::from_secs(7 * 86_400);

/// Most entries of a schedule.
const MAX_ENTRIES: usize = 100;

/// Controls how accepted events are delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbox {
    /// The pauses before the attempts, at least one. The first pause begins at the acceptance.
    pub schedule: Vec<Duration>,
    /// Most attempts that `serve` makes at a time, for each destination.
    pub workers: usize,
}

impl Vars<'_> {
    pub(super) fn answer(&mut self) -> Answer {
        match self.choice("ANSWER", "delivered", &["delivered", "accepted"]) {
            "accepted" => Answer::Accepted,
            _ => Answer::Delivered,
        }
    }

    /// Reports the answer `accepted` in Lambda, where no worker delivers accepted events. An
    /// emulator freezes the process between invocations as Lambda does.
    pub(super) fn check_answers(&mut self, answer: Answer, sources: &Sources) {
        if self.text("AWS_LAMBDA_RUNTIME_API").is_none() {
            return;
        }
        let remedy = "must not be accepted in Lambda, where nothing delivers accepted events: use \
                      delivered, or run `webhook-router serve`";
        if answer == Answer::Accepted {
            self.problem("ANSWER", remedy);
        }
        for source in sources.iter().filter(|source| source.rules.answer == Some(Answer::Accepted))
        {
            self.problem("SOURCES", format!("[sources.{}] answer {remedy}", source.name));
        }
    }

    pub(super) fn inbox(&mut self) -> Inbox {
        Inbox {
            schedule: self.schedule(),
            workers: self.number("INBOX_WORKERS", 1..=1000) as usize,
        }
    }

    fn schedule(&mut self) -> Vec<Duration> {
        const NAME: &str = "RETRY_SCHEDULE";
        // An empty schedule could mean no attempt at all, or the default.
        let text = if self.is_blank(NAME) { String::new() } else { self.text_or_default(NAME) };
        let pauses = text.split(',').map(|pause| humantime::parse_duration(pause.trim()));
        match pauses.collect::<Result<Vec<_>, _>>() {
            Ok(pauses)
                if pauses.len() <= MAX_ENTRIES && pauses.iter().all(|one| *one <= MAX_PAUSE) =>
            {
                pauses
            }
            _ => {
                let remedy = format!(
                    "must be 1 to {MAX_ENTRIES} pauses of up to 7days, separated by commas: \
                     0s,5s,5m,2h"
                );
                self.problem(NAME, remedy);
                Vec::new()
            }
        }
    }
}
