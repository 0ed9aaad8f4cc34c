//! The settings of the inbox: which events are answered at once, and how they are delivered then.

use std::time::Duration;

use url::Url;

use super::{urls::has_user, vars::Vars};
use crate::source::{Answer, Sources};

const QUEUE_URL: &str = "QUEUE_URL";

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
    /// The queue whose messages wake the function.
    pub queue_url: Option<String>,
}

impl Vars<'_> {
    pub(super) fn answer(&mut self) -> Answer {
        match self.choice("ANSWER", "delivered", &["delivered", "accepted"]) {
            "accepted" => Answer::Accepted,
            _ => Answer::Delivered,
        }
    }

    /// Reports the answer `accepted` where nothing delivers accepted events. This holds in an
    /// emulator as well: it also freezes the process between invocations, so only messages wake it.
    pub(super) fn check_answers(&mut self, answer: Answer, sources: &Sources) {
        let has_queue = self.text(QUEUE_URL).is_some();
        if self.text("AWS_LAMBDA_RUNTIME_API").is_none() {
            if has_queue {
                let text = "is not used outside Lambda, where `webhook-router serve` delivers \
                            accepted events with workers of its own";
                self.warning(QUEUE_URL, text);
            }
            return;
        }
        if has_queue {
            return;
        }
        let remedy = "needs QUEUE_URL in Lambda, where nothing runs after an answer: set it to a \
                      standard SQS queue that the function consumes, set the answer to \
                      `delivered`, or run `webhook-router serve`";
        if answer == Answer::Accepted {
            self.problem("ANSWER", remedy);
        }
        for source in sources.iter().filter(|source| source.rules.answer == Some(Answer::Accepted))
        {
            let problem = format!("[sources.{}] answer {remedy}", source.name);
            self.problem(self.sources_variable(), problem);
        }
    }

    pub(super) fn inbox(&mut self) -> Inbox {
        Inbox {
            schedule: self.schedule(),
            workers: self.number("INBOX_WORKERS", 1..=1000) as usize,
            queue_url: self.queue_url(),
        }
    }

    fn queue_url(&mut self) -> Option<String> {
        let text = self.text(QUEUE_URL)?;
        let url = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "https" | "http"));
        let remedy = match url {
            None => "must be a queue's URL: https://sqs.REGION.amazonaws.com/ACCOUNT/NAME",
            Some(url) if url.path().ends_with(".fifo") => {
                "is a FIFO queue, in which one event that fails holds up the others of its source: \
                 use a standard queue"
            }
            // The log and the findings show the URL.
            Some(url) if has_user(&url) || url.query().is_some() => {
                "must have no user, password or query"
            }
            Some(_) => return Some(text),
        };
        self.problem(QUEUE_URL, remedy);
        None
    }

    fn schedule(&mut self) -> Vec<Duration> {
        const NAME: &str = "RETRY_SCHEDULE";
        // An empty schedule could mean no attempt at all, or the default. So it is an error, as any
        // text that is not a duration.
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
                    "must be 1 to {MAX_ENTRIES} pauses of up to 7 days, separated by commas: \
                     0s,5s,5m,2h"
                );
                self.problem(NAME, remedy);
                Vec::new()
            }
        }
    }
}
