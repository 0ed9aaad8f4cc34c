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
        // A comma replaces the end of the first object and the beginning of the second, so that
        // they become one.
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Line;

    #[test]
    fn a_line_is_one_object_with_the_members_of_all_its_parts() {
        let line = Line::new("INFO", "a \"message\"");
        let line = line.with(&json!({ "text": "}," })).with(&json!({ "one": 1, "two": [2] }));
        let text = String::from_utf8(line.into_bytes()).unwrap();
        let (object, end) = text.split_at(text.len() - 1);
        assert_eq!(end, "\n");
        let mut read: Value = serde_json::from_str(object).unwrap();
        let time = read.as_object_mut().unwrap().remove("timestamp").unwrap();
        // Lambda reads times in this form.
        let time = time.as_str().unwrap();
        assert!(
            time.ends_with('Z') && chrono::DateTime::parse_from_rfc3339(time).is_ok(),
            "{time}"
        );
        let expected = json!({
            "level": "INFO", "message": "a \"message\"", "text": "},", "one": 1, "two": [2],
        });
        assert_eq!(read, expected);
    }
}
