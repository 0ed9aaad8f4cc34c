//! A line of the log that this program writes itself, in the format of the lines that tracing writes.

use chrono::{SecondsFormat, Utc};
use serde::Serialize;

/// A line of the log: an object of JSON, written without a tree of values in between.
pub(super) struct Line(Vec<u8>);

/// The members of every line. Lambda reads the first two.
#[derive(Serialize)]
struct Head<'a> {
    timestamp: String,
    level: &'a str,
    message: &'a str,
}

impl Line {
    /// Creates a line with a little more room than the line of a delivery needs.
    pub(super) fn new(level: &str, message: &str) -> Self {
        let timestamp = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let mut line = Self(Vec::with_capacity(768));
        line.write(&Head { timestamp, level, message });
        line
    }

    /// Adds the members of another object, which has at least one.
    pub(super) fn with(mut self, members: &impl Serialize) -> Self {
        // Where one object ends and the next one begins, a comma makes them one.
        self.0.pop();
        let end = self.0.len();
        self.write(members);
        self.0[end] = b',';
        self
    }

    fn write(&mut self, object: &impl Serialize) {
        // Writing to memory cannot fail, and the program's own objects have names that are texts.
        let _ = serde_json::to_writer(&mut self.0, object);
    }

    /// Returns the line with its end.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.0.push(b'\n');
        self.0
    }
}
