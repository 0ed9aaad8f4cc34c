//! Reads the fields of a table in a TOML text, such as `[sources.NAME]`, and collects their problems.
//! The text is read together with the line of every value.

use std::ops::{Range, RangeInclusive};

use toml::de::{DeTable, DeValue};

/// A problem in a text and its remedy. Values are not repeated, because they may be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line, counted from 1.
    pub line: usize,
    /// The kind and the name of the table. Empty if the problem concerns no table.
    pub place: String,
    /// Empty if the problem concerns the table as a whole.
    pub field: String,
    pub remedy: String,
}

impl Problem {
    /// Creates a problem of a table: `kind` is `source` for `[sources.NAME]`.
    pub fn new(
        line: usize,
        kind: &str,
        name: &str,
        field: &str,
        remedy: impl Into<String>,
    ) -> Self {
        let place = format!("[{kind}s.{name}]");
        Self { line, place, field: field.into(), remedy: remedy.into() }
    }

    /// Creates a problem that concerns no table.
    pub fn of_text(line: usize, field: &str, remedy: impl Into<String>) -> Self {
        Self { line, place: String::new(), field: field.into(), remedy: remedy.into() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { line, place, field, remedy } = self;
        write!(f, "line {line}:")?;
        if !place.is_empty() {
            write!(f, " {place}")?;
        }
        if !field.is_empty() {
            write!(f, " `{field}`")?;
        }
        write!(f, " {remedy}")
    }
}

/// A text in TOML.
pub struct Text<'t>(&'t str);

impl<'t> Text<'t> {
    pub fn new(text: &'t str) -> Self {
        Self(text)
    }

    /// Returns the line of a place, counted from 1.
    pub fn line(&self, span: Range<usize>) -> usize {
        let before = self.0.as_bytes().get(..span.start).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// Describes a text that is not TOML. The parser's own message names the expected syntax, and
    /// quotes nothing.
    pub fn syntax(&self, error: &toml::de::Error) -> Problem {
        let line = error.span().map_or(1, |span| self.line(span));
        Problem::of_text(line, "", format!("is not TOML: {}", error.message()))
    }
}

/// The fields of one table while they are read.
pub struct Reader<'a, 'i> {
    text: &'a Text<'a>,
    /// The kind of the table: `source` or `destination`.
    kind: &'static str,
    pub name: &'a str,
    /// The line of the table's name.
    line: usize,
    table: &'a DeTable<'i>,
    problems: &'a mut Vec<Problem>,
}

impl<'a, 'i> Reader<'a, 'i> {
    pub fn new(
        text: &'a Text<'a>,
        kind: &'static str,
        name: &'a str,
        line: usize,
        table: &'a DeTable<'i>,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        Self { text, kind, name, line, table, problems }
    }

    /// Returns the line of a field, or the line of the table if it has no such field.
    pub fn line(&self, field: &str) -> usize {
        let found = self.table.iter().find(|(name, _)| name.get_ref() == field);
        found.map_or(self.line, |(name, _)| self.text.line(name.span()))
    }

    /// Creates a problem at the line of a field.
    pub fn at(&self, field: &str, remedy: impl Into<String>) -> Problem {
        Problem::new(self.line(field), self.kind, self.name, field, remedy)
    }

    /// Reports a problem at the line of a field.
    pub fn problem(&mut self, field: &str, remedy: impl Into<String>) {
        self.problems.push(self.at(field, remedy));
    }

    pub fn missing(&mut self, field: &str, meaning: &str) {
        self.problem(field, format!("is missing: it {meaning}"));
    }

    /// Reports the fields that are not in this list.
    pub fn only_fields(&mut self, known: &[&str]) {
        let names = self.table.iter().map(|(name, _)| name.get_ref().to_string());
        let unknown: Vec<_> = names.filter(|name| !known.contains(&name.as_str())).collect();
        for name in unknown {
            self.problem(&name, format!("is not a field of this kind of {}", self.kind));
        }
    }

    pub fn has(&self, field: &str) -> bool {
        self.get(field).is_some()
    }

    pub fn is_list(&self, field: &str) -> bool {
        matches!(self.get(field), Some(DeValue::Array(_)))
    }

    fn get(&self, field: &str) -> Option<&'a DeValue<'i>> {
        let found = self.table.iter().find(|(name, _)| name.get_ref() == field);
        found.map(|(_, value)| value.get_ref())
    }

    /// Reads a text with `read`. Returns `None` if it is absent or wrong.
    pub fn text<T, E: Into<String>>(
        &mut self,
        field: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match self.get(field)? {
            DeValue::String(text) => match read(text) {
                Ok(value) => Some(value),
                Err(remedy) => {
                    self.problem(field, remedy);
                    None
                }
            },
            _ => {
                self.problem(field, "must be a text in quotes");
                None
            }
        }
    }

    /// Reads a list of texts. Returns `None` if it is absent or wrong.
    pub fn texts(&mut self, field: &str) -> Option<Vec<String>> {
        let texts = match self.get(field)? {
            DeValue::Array(items) => items
                .iter()
                .map(|item| item.get_ref().as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>(),
            _ => None,
        };
        if texts.is_none() {
            self.problem(field, "must be a list of texts: [\"...\"]");
        }
        texts
    }

    /// Reads one text or a list of texts. Returns `None` if it is absent or wrong.
    pub fn one_or_more(&mut self, field: &str) -> Option<Vec<String>> {
        match self.get(field)? {
            DeValue::String(text) => Some(vec![text.to_string()]),
            _ => self.texts(field),
        }
    }

    pub fn number(&mut self, field: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let number = float(self.get(field)?).filter(|number| number.fract() == 0.0);
        let (least, most) = (f64::from(*range.start()), f64::from(*range.end()));
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.problem(field, format!("must be a whole number from {least} to {most}"));
        }
        number.map(|number| number as u32)
    }

    /// Reads the members of a table.
    pub fn table(&mut self, field: &str) -> Vec<(String, &'a DeValue<'i>)> {
        match self.get(field) {
            None => Vec::new(),
            Some(DeValue::Table(table)) => {
                let members = table.iter();
                members.map(|(name, value)| (name.get_ref().to_string(), value.get_ref())).collect()
            }
            Some(_) => {
                self.problem(field, "must be a table: { name = value }");
                Vec::new()
            }
        }
    }
}

/// Returns a number as the nearest double.
pub fn float(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(integer) => {
            let integer = i64::from_str_radix(integer.as_str(), integer.radix()).ok()?;
            Some(integer as f64)
        }
        DeValue::Float(float) => {
            float.as_str().parse().ok().filter(|float: &f64| float.is_finite())
        }
        _ => None,
    }
}
