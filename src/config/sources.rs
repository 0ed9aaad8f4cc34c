//! The sources of events: from the secrets of the vendors, and from SOURCES.

use std::sync::Arc;

use super::{
    Targets,
    vars::{NOT_UTF_8, Vars},
};
use crate::{
    route::{Route, Shares},
    secret::Secret,
    source::{
        Address, Certificate, Fetched, Rules, Source, Sources, envelope, secrets_variable,
        settings, vendor, vendor_names,
    },
    table::Problem,
};

/// The text of SOURCES, or of the file that SOURCES_FILE names.
pub(super) struct SourcesText {
    /// The variable that the text comes from.
    pub variable: &'static str,
    pub text: String,
}

impl Vars<'_> {
    pub(super) fn envelope_secrets(&mut self) -> Vec<Secret> {
        self.secrets(envelope::SECRETS, envelope::check_secret)
    }

    /// Reads the sources that are named after their vendors, and the sources in SOURCES.
    pub(super) fn sources(&mut self, text: Option<SourcesText>) -> Sources {
        let mut sources = Vec::new();
        for name in vendor_names() {
            let variable = secrets_variable(name);
            let (Some(text), Some(vendor)) = (self.text(&variable), vendor(name)) else { continue };
            if text.contains(char::REPLACEMENT_CHARACTER) {
                self.problem(&variable, NOT_UTF_8);
            }
            let secrets = self.secrets(&variable, |secret| vendor.check_secret(secret));
            let mut source = Source::new(name, Arc::clone(vendor));
            (source.secrets, source.secrets_from) = (secrets, variable);
            sources.push(source);
        }
        if let Some(SourcesText { variable, text }) = text {
            match settings::read(&text, &|name| self.text(name)) {
                Ok(described) => sources.extend(described),
                Err(problems) => {
                    problems.iter().for_each(|one| self.problem(variable, one.to_string()));
                }
            }
        }
        let public = self.public_url();
        let verify_token = self.text("META_VERIFY_TOKEN").map(Secret::new);
        for source in &mut sources {
            if source.vendor.name() == "meta" {
                source.verify_token.clone_from(&verify_token);
            }
            source.address = source.address.take().or_else(|| public.clone());
        }
        Sources::new(sources)
    }

    /// Reads the certificate that PayPal signs with, if it is configured instead of fetched.
    pub(super) fn paypal_certificate(&mut self) -> Option<Arc<Fetched>> {
        const NAME: &str = "PAYPAL_CERT_FILE";
        let pem = std::fs::read(self.text(NAME)?);
        match pem.map(|pem| Certificate::from_pem(&pem)) {
            Ok(Ok(certificate)) => Some(Arc::new(Fetched::Certificate(certificate))),
            Ok(Err(error)) => {
                self.problem(NAME, error.to_string());
                None
            }
            Err(error) => {
                self.problem(NAME, format!("cannot be read: {error}"));
                None
            }
        }
    }

    /// Checks the settings that the sources need: the address that is signed, and the targets that
    /// their rules name. `has_table` says that the targets come from a table.
    pub(super) fn check_sources(&mut self, sources: &Sources, targets: &Targets, has_table: bool) {
        for source in sources.iter() {
            if source.vendor.signs_url() && source.address.is_none() {
                self.address_problem(source);
            }
            if let Some((field, remedy)) = self.rule_problem(&source.rules, targets, has_table) {
                let line = source.lines.map_or(1, |lines| lines.rule);
                self.source_problem(source, line, field, remedy);
            }
        }
    }

    /// Returns the field that sends events to a place that is not configured, and the remedy.
    fn rule_problem(
        &self,
        rules: &Rules,
        targets: &Targets,
        has_table: bool,
    ) -> Option<(&'static str, String)> {
        let (field, routes) = match (rules.destination, rules.threshold) {
            (Some(only), _) => ("destination", vec![only]),
            (None, Some(_)) if has_table => {
                let remedy = "must not be set beside a table of destinations: `destination` takes \
                              its place";
                return Some(("threshold", remedy.into()));
            }
            (None, Some(threshold)) => ("threshold", Shares::by_threshold(threshold).routes()),
            (None, None) => return None,
        };
        let mut missing = routes.into_iter().filter(|route| targets.get(*route).is_none());
        let remedy = missing.find_map(|route| match route {
            // A placeholder takes the place of a table with a problem.
            _ if has_table && targets.routes().is_empty() => None,
            _ if has_table => {
                let names: Vec<_> = targets.iter().map(|one| one.name.to_string()).collect();
                Some(format!("names no destination of the table: {}", names.join(", ")))
            }
            Route::GCP => self.unset(route, "GCP_TARGET_URL"),
            Route::AWS => self.unset(route, "AWS_TARGET_FUNCTION"),
            _ => Some("must be \"gcp\" or \"aws\", or be named in DESTINATIONS".to_owned()),
        });
        Some((field, remedy?))
    }

    /// Returns the problem of a rule that needs a target, if its variable is not set. A variable with a
    /// wrong value has its own problem.
    fn unset(&self, route: Route, variable: &str) -> Option<String> {
        let is_unset = self.text(variable).is_none();
        is_unset.then(|| format!("sends events to {route}: set {variable}"))
    }

    fn address_problem(&mut self, source: &Source) {
        let why = "its vendor signs the address that it calls";
        if let Some(lines) = source.lines {
            let remedy = format!("is missing, and PUBLIC_URL is not set: {why}");
            return self.source_problem(source, lines.source, "url", remedy);
        }
        let name = &source.name;
        let remedy =
            format!("must be set for the source {name}, or `url` of [sources.{name}]: {why}");
        self.problem("PUBLIC_URL", remedy);
    }

    /// Reports a problem in the text of SOURCES that other variables cause.
    fn source_problem(&mut self, source: &Source, line: usize, field: &str, remedy: String) {
        let problem = Problem::new(line, "source", &source.name, field, remedy);
        self.problem(self.sources_variable(), problem.to_string());
    }

    /// Returns the variable that the sources come from.
    pub(super) fn sources_variable(&self) -> &'static str {
        if self.text("SOURCES").is_some() { "SOURCES" } else { "SOURCES_FILE" }
    }

    pub(super) fn secrets(
        &mut self,
        variable: &str,
        check: impl Fn(&Secret) -> Result<(), &'static str>,
    ) -> Vec<Secret> {
        let Some(list) = self.text(variable) else {
            return Vec::new();
        };
        let secrets: Vec<_> = list.split(',').map(|secret| Secret::new(secret.trim())).collect();
        if let Some(problem) = secrets.iter().find_map(|secret| check(secret).err()) {
            self.problem(variable, format!("each secret {problem}"));
        }
        secrets
    }

    /// Returns the text that describes the sources. It may have a table of destinations as well.
    pub(super) fn sources_text(&mut self) -> Option<SourcesText> {
        let (variable, text) = match (self.text("SOURCES"), self.text("SOURCES_FILE")) {
            (Some(_), Some(_)) => {
                self.problem("SOURCES_FILE", "must not be set together with SOURCES");
                return None;
            }
            (Some(text), None) => ("SOURCES", text),
            (None, Some(path)) => match std::fs::read_to_string(path) {
                Ok(text) => ("SOURCES_FILE", text),
                Err(error) => {
                    self.problem("SOURCES_FILE", format!("cannot be read: {error}"));
                    return None;
                }
            },
            (None, None) => return None,
        };
        Some(SourcesText { variable, text })
    }

    fn public_url(&mut self) -> Option<Address> {
        const NAME: &str = "PUBLIC_URL";
        let address = self.text(NAME)?.parse::<Address>();
        address.map_err(|error| self.problem(NAME, error.to_string())).ok()
    }
}
