//! What a look at the configuration, or at what it leads to, has found.

use std::fmt;

use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// The variable that decides about it, or another name of what was looked at.
    pub subject: String,
    /// What is so; of a problem also what to do about it. Without secrets.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Ok,
    /// Deliveries are taken, but not as the operator may believe.
    Warning,
    /// Deliveries are not taken, or not delivered.
    Error,
}

impl Finding {
    pub fn ok(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { severity: Severity::Ok, subject: subject.into(), text: text.into() }
    }

    pub fn warning(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, subject: subject.into(), text: text.into() }
    }

    pub fn error(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { severity: Severity::Error, subject: subject.into(), text: text.into() }
    }

    pub fn is_problem(&self) -> bool {
        self.severity > Severity::Ok
    }
}

/// Without its severity, as a line of the log has it.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.text)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}
