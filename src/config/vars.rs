//! Reads variables one by one, and collects their problems.

use std::{path::Path, time::Duration};

use super::{ConfigError, ConfigErrors, VARIABLES, Variable};
use crate::{authorities::Authorities, finding::Finding};

pub(super) const NOT_UTF_8: &str = "is not valid UTF-8";

/// The variables while they are read, and the problems found so far.
pub(super) struct Vars<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    /// True in the real Lambda, whose disk is not shared and whose URL is public.
    pub in_lambda: bool,
    /// True if the Lambda runtime is an emulator.
    pub is_emulated: bool,
    pub errors: Vec<ConfigError>,
    pub warnings: Vec<Finding>,
}

impl<'a> Vars<'a> {
    pub(super) fn new(get: &'a dyn Fn(&str) -> Option<String>) -> Self {
        let (errors, warnings) = (Vec::new(), Vec::new());
        let mut vars = Self { get, in_lambda: false, is_emulated: false, errors, warnings };
        vars.is_emulated = vars.flag("LAMBDA_EMULATOR");
        vars.in_lambda = vars.text("AWS_LAMBDA_RUNTIME_API").is_some() && !vars.is_emulated;
        for Variable { name, .. } in VARIABLES {
            if vars.text(name).is_some_and(|text| text.contains(char::REPLACEMENT_CHARACTER)) {
                vars.problem(name, NOT_UTF_8);
            }
        }
        vars.check_log();
        vars
    }

    pub(super) fn finish<T>(self, value: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() { Ok(value) } else { Err(ConfigErrors(self.errors)) }
    }

    pub(super) fn problem(&mut self, variable: &str, remedy: impl Into<String>) {
        self.errors.push(ConfigError { variable: variable.into(), remedy: remedy.into() });
    }

    pub(super) fn warning(&mut self, variable: &str, text: impl Into<String>) {
        self.warnings.push(Finding::warning(variable, text));
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        (self.get)(name).filter(|value| !value.is_empty())
    }

    /// Reads a text. The default is the one in [`VARIABLES`].
    pub(super) fn text_or_default(&self, name: &str) -> String {
        let default = VARIABLES.iter().find(|variable| variable.name == name);
        let default = default.map(|variable| variable.default.to_owned());
        self.text(name).or(default).unwrap_or_default()
    }

    /// Returns whether a variable is set, but empty or blank.
    pub(super) fn is_blank(&self, name: &str) -> bool {
        (self.get)(name).is_some_and(|value| value.trim().is_empty())
    }

    /// Reads the certificate authorities from the file that a variable names.
    pub(super) fn authorities(&mut self, name: &str) -> Option<Authorities> {
        match Authorities::read(Path::new(&self.text(name)?)) {
            Ok(authorities) => Some(authorities),
            Err(remedy) => {
                self.problem(name, remedy);
                None
            }
        }
    }

    /// Reads a number within a range. The default is the one in [`VARIABLES`].
    pub(super) fn number(&mut self, name: &str, range: std::ops::RangeInclusive<u64>) -> u64 {
        let default = VARIABLES.iter().find(|variable| variable.name == name);
        let default = default.and_then(|variable| variable.default.parse().ok());
        let default = default.unwrap_or(*range.start());
        let given = self.text(name).map(|text| text.parse().ok());
        match given {
            Some(Some(number)) if range.contains(&number) => number,
            Some(_) => {
                let (least, most) = range.clone().into_inner();
                self.problem(name, format!("must be a whole number from {least} to {most}"));
                default
            }
            None => default,
        }
    }

    pub(super) fn millis(&mut self, name: &str) -> Duration {
        Duration::from_millis(self.number(name, 1..=900_000))
    }

    pub(super) fn flag(&mut self, name: &str) -> bool {
        self.choice(name, "false", &["true", "false"]) == "true"
    }

    /// Reads one of several words.
    pub(super) fn choice(
        &mut self,
        name: &str,
        default: &'static str,
        words: &[&'static str],
    ) -> &'static str {
        let Some(text) = self.text(name) else { return default };
        let chosen = words.iter().find(|word| **word == text);
        chosen.copied().unwrap_or_else(|| {
            self.problem(name, format!("must be {}", words.join(" or ")));
            default
        })
    }
}
