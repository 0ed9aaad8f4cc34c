//! The result of a check of the configuration, or of a service that it names.

use std::fmt;

use serde::Serialize;

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// The variable that the check is about, or another name of the checked part.
    pub subject: String,
    /// The state that the check found and, for a problem, the remedy. It contains no secrets.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Ok,
    /// The router accepts deliveries, but may not behave as the operator expects.
    Warning,
    /// The router does not accept deliveries, or cannot deliver them.
    Error,
}

impl Severity {
    /// Counts the findings of this severity.
    pub fn count(self, findings: &[Finding]) -> usize {
        findings.iter().filter(|finding| finding.severity == self).count()
    }
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

/// Writes the subject and the text. A line of the log has its own severity.
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
