//! The paths that a configuration serves, and when events are answered, as findings.

use crate::{config::Config, finding::Finding, source::Answer};

/// Lists the paths that are served.
pub fn sources(config: &Config) -> Finding {
    let served = config.intake.sources.iter().filter(|source| source.is_served());
    let paths: Vec<_> = served.map(|source| source.path()).collect();
    let text = match paths.len() {
        0 => "serves no vendor's own webhooks".into(),
        _ => format!("serves {}", paths.join(", ")),
    };
    Finding::ok("SOURCES", text)
}

/// Says which events are answered at once.
pub fn answers(config: &Config) -> Finding {
    let intake = &config.intake;
    let exceptions = intake.sources.iter().filter(|source| {
        source.is_served() && source.rules.answer.is_some_and(|answer| answer != intake.answer)
    });
    let exceptions: Vec<_> = exceptions.map(|source| source.path()).collect();
    let when = |answer| match answer {
        Answer::Delivered => "when they are delivered",
        Answer::Accepted => "at once, before they are delivered",
    };
    let mut text = format!("events are answered {}", when(intake.answer));
    if !exceptions.is_empty() {
        let other = match intake.answer {
            Answer::Delivered => Answer::Accepted,
            Answer::Accepted => Answer::Delivered,
        };
        text += &format!("; those of {} {}", exceptions.join(", "), when(other));
    }
    Finding::ok("ANSWER", text)
}
