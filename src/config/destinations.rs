//! The table of destinations: their places, and their shares of the route bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use toml::de::{DeTable, DeValue};
use url::Url;

use super::{
    SourcesText, THRESHOLD,
    auth::{IdToken, audience, instead_of_user, is_id_token, no_effect, origin},
    limits::{Limit, MAX_CONCURRENT, MAX_PER_SECOND},
    mirror::mirror_at,
    targets::{
        HttpTarget, Invocation, LambdaTarget, Payload, Place, QUEUED, THIS_FUNCTION, Target,
        Targets, check_function, role,
    },
    urls::{has_user, http_url},
    vars::Vars,
};
use crate::{
    authorities::Authorities,
    client_certificate::{ClientCertificate, Unusable},
    route::{self, Route, Shares},
    table::{Problem, Reader, Text, float},
};

const DESTINATIONS: &str = "DESTINATIONS";

/// Most destinations of a table. Each has workers of its own in `serve`, a list in the store, and
/// metrics.
pub const MAX_DESTINATIONS: usize = 64;

/// The variables that the table takes the place of, each with the field of a destination.
const REPLACED: [(&str, &str); 15] = [
    (THRESHOLD, "bytes"),
    ("GCP_TARGET_URL", "url"),
    ("GCP_CA_FILE", "ca_file"),
    ("GCP_AUTH", AUTH),
    ("GCP_AUDIENCE", AUDIENCE),
    ("GCP_CLIENT_CERT_FILE", CERTIFICATE),
    ("GCP_CLIENT_KEY_FILE", KEY),
    ("AWS_TARGET_FUNCTION", "function"),
    ("AWS_TARGET_ROLE_ARN", "role_arn"),
    ("AWS_TARGET_INVOCATION", "invocation"),
    ("AWS_TARGET_PAYLOAD", "payload"),
    ("GCP_MAX_CONCURRENT", MAX_CONCURRENT),
    ("GCP_MAX_PER_SECOND", MAX_PER_SECOND),
    ("AWS_MAX_CONCURRENT", MAX_CONCURRENT),
    ("AWS_MAX_PER_SECOND", MAX_PER_SECOND),
];

/// Fields that every destination may have.
const COMMON: [&str; 5] = ["kind", "bytes", "mirror", MAX_CONCURRENT, MAX_PER_SECOND];
const HTTP: [&str; 6] = ["url", "ca_file", CERTIFICATE, KEY, AUTH, AUDIENCE];
const CERTIFICATE: &str = "client_cert_file";
const KEY: &str = "client_key_file";
const AUTH: &str = "auth";
const AUDIENCE: &str = "audience";
const LAMBDA: [&str; 4] = ["function", "role_arn", "invocation", "payload"];

/// The configured table of destinations.
#[derive(Debug, Clone)]
pub struct Table {
    pub targets: Targets,
    pub shares: Shares,
}

impl Vars<'_> {
    /// Reads the table of destinations from DESTINATIONS or from the text of the sources. Returns
    /// `None` if neither has one. A placeholder takes the place of a table with a
    /// problem.
    pub(super) fn table(&mut self, sources: Option<&SourcesText>) -> Option<Table> {
        let in_sources = sources.filter(|sources| has_table(&sources.text));
        let (variable, text) = match (self.text(DESTINATIONS), in_sources) {
            (Some(_), Some(sources)) => {
                let remedy =
                    format!("must not be set together with [destinations] in {}", sources.variable);
                self.problem(DESTINATIONS, remedy);
                return Some(Table {
                    targets: Targets::default(),
                    shares: Shares::by_threshold(0),
                });
            }
            (Some(text), None) => (DESTINATIONS, text),
            (None, Some(sources)) => (sources.variable, sources.text.clone()),
            (None, None) => return None,
        };
        for (replaced, field) in REPLACED {
            if self.text(replaced).is_some() {
                self.problem(
                    replaced,
                    format!("must not be set beside a table of destinations, whose field `{field}` takes its place"),
                );
            }
        }
        let Read { targets, shares, problems } =
            self.read(&text, variable, variable == DESTINATIONS);
        problems.iter().for_each(|one| self.problem(variable, one.to_string()));
        Some(Table { targets, shares })
    }

    /// Reads a table from a variable's text. If `is_alone` is true, the text must have nothing
    /// else.
    fn read(&mut self, text: &str, variable: &str, is_alone: bool) -> Read {
        let (document, errors) = DeTable::parse_recoverable(text);
        let places = Text::new(text);
        let mut problems: Vec<_> = errors.iter().map(|error| places.syntax(error)).collect();
        let (mut targets, mut bytes) = (Vec::new(), Bytes::default());
        if !problems.is_empty() {
            // Unless the text is DESTINATIONS, the reader of the sources reports them.
            problems.retain(|_| is_alone);
            return Read::failed(problems);
        }
        let mut line = 1;
        for (name, value) in document.get_ref() {
            let at = places.line(name.span());
            match (name.get_ref().as_ref(), value.get_ref()) {
                ("destinations", DeValue::Table(tables)) => {
                    line = at;
                    if tables.len() > MAX_DESTINATIONS {
                        let remedy = format!("must have at most {MAX_DESTINATIONS} tables");
                        problems.push(Problem::of_text(at, "destinations", remedy));
                    }
                    for (name, value) in tables {
                        let at = places.line(name.span());
                        let name = name.get_ref().to_string();
                        let DeValue::Table(table) = value.get_ref() else {
                            let problem =
                                Problem::new(at, "destination", &name, "", "must be a table");
                            problems.push(problem);
                            continue;
                        };
                        let mut reader =
                            Reader::new(&places, "destination", &name, at, table, &mut problems);
                        targets.extend(self.destination(&mut reader, variable, &mut bytes));
                    }
                }
                (name, _) if is_alone || name == "destinations" => {
                    let remedy = "is unknown: write [destinations.NAME]";
                    problems.push(Problem::of_text(at, name, remedy));
                }
                // The reader of the sources reports everything else.
                _ => {}
            }
        }
        // If some bytes cannot be read, nobody knows which are missing.
        let missing = bytes.missing();
        if bytes.are_readable && !missing.is_empty() {
            let (missing, belong) = named(&missing);
            let remedy = format!(
                "must give every byte from 0 to 255 to a destination: {missing} {belong} to none"
            );
            problems.push(Problem::of_text(line, "destinations", remedy));
        }
        match bytes.shares().filter(|_| problems.is_empty()) {
            Some(shares) => Read { targets: Targets::new(targets), shares, problems },
            None => Read::failed(problems),
        }
    }

    /// Reads one destination, and takes its bytes.
    fn destination(
        &mut self,
        reader: &mut Reader<'_, '_>,
        variable: &str,
        bytes: &mut Bytes,
    ) -> Option<Target> {
        let name = reader.name.parse::<Route>();
        if let Err(wrong) = &name {
            reader.problem("", format!("has a wrong name, which {wrong}"));
        }
        let kind = reader.text("kind", |text| match text {
            "cloud-run" | "http" | "lambda" => Ok(text.to_owned()),
            _ => Err("must be \"cloud-run\", \"http\" or \"lambda\""),
        });
        if !reader.has("kind") {
            reader.missing("kind", "is \"cloud-run\", \"http\" or \"lambda\"");
        }
        take_bytes(reader, name.as_ref().ok().copied(), bytes);
        let mirror = reader.text("mirror", http_url).map(mirror_at);
        let limit = Limit::read(reader);
        let setting = format!("{variable} [destinations.{}]", reader.name);
        let place = match kind?.as_str() {
            "lambda" => {
                let is_this_function = |function: &str| self.is_this_function(function);
                Place::Lambda(lambda(reader, &is_this_function)?)
            }
            _ => {
                let http = self.http(reader, variable)?;
                self.warn_of_credentials(&setting, &http.url);
                Place::Http(http)
            }
        };
        Some(Target { name: name.ok()?, setting, place, limit, mirror })
    }

    fn http(&mut self, reader: &mut Reader<'_, '_>, variable: &str) -> Option<HttpTarget> {
        reader.only_fields(&[&COMMON[..], &HTTP].concat());
        let ca = reader.text("ca_file", |path| Authorities::read(path.as_ref()));
        let client_certificate = client_certificate(reader);
        let url = reader.text("url", http_url);
        if !reader.has("url") {
            reader.missing("url", "is the address that events are posted to");
        }
        let id_token = self.table_id_token(reader, variable, url.as_ref());
        Some(HttpTarget { url: url?, ca, client_certificate, id_token })
    }

    /// Reads the ID token that requests to a destination carry. A URL that cannot be read is `None`.
    fn table_id_token(
        &mut self,
        reader: &mut Reader<'_, '_>,
        variable: &str,
        url: Option<&Url>,
    ) -> Option<IdToken> {
        const WITH_TOKEN: &str = "auth = \"id-token\"";
        let auth = reader.text(AUTH, is_id_token);
        let given = reader.text(AUDIENCE, audience);
        match auth {
            Some(true) => {}
            // A wrong value may mean id-token, so nothing is said of the audience.
            None if reader.has(AUTH) => return None,
            Some(false) | None => {
                if reader.has(AUDIENCE) {
                    let unused = reader.at(AUDIENCE, no_effect(WITH_TOKEN));
                    self.warning(variable, unused.to_string());
                }
                return None;
            }
        }
        if url.is_some_and(has_user) {
            reader.problem("url", instead_of_user(WITH_TOKEN));
        }
        // All destinations share the issuer of the tokens.
        let issuer = self.issuer();
        Some(IdToken { audience: given.or_else(|| url.map(origin))?, issuer: issuer? })
    }
}

/// Returns whether a text has a table of destinations. A text that is not TOML has its own problem.
fn has_table(text: &str) -> bool {
    let (document, _) = DeTable::parse_recoverable(text);
    document.get_ref().iter().any(|(name, _)| name.get_ref() == "destinations")
}

/// The result of reading a table.
struct Read {
    targets: Targets,
    shares: Shares,
    problems: Vec<Problem>,
}

impl Read {
    /// Returns the problems, with a placeholder for the table.
    fn failed(problems: Vec<Problem>) -> Self {
        Self { targets: Targets::default(), shares: Shares::by_threshold(0), problems }
    }
}

/// Reads the shares of the route bytes from a table of destinations, or from a line
/// `ROUTE_THRESHOLD = 128`. The text may have sources as well.
///
/// # Errors
/// Fails with every problem, not only the first.
pub fn shares(text: &str) -> Result<Shares, Vec<Problem>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let places = Text::new(text);
    if !errors.is_empty() {
        return Err(errors.iter().map(|error| places.syntax(error)).collect());
    }
    let mut others = document.get_ref().iter();
    let threshold = others.find(|(name, _)| name.get_ref() == THRESHOLD);
    let problem = |line, remedy: &str| Err(vec![Problem::of_text(line, THRESHOLD, remedy)]);
    match threshold {
        Some((name, _)) if has_table(text) => {
            problem(places.line(name.span()), "must not be set beside a table of destinations")
        }
        Some((name, value)) => match float(value.get_ref()) {
            Some(number) if (0.0..=256.0).contains(&number) && number.fract() == 0.0 => {
                Ok(Shares::by_threshold(number as u16))
            }
            _ => problem(places.line(name.span()), "must be a whole number from 0 to 256"),
        },
        None if has_table(text) => {
            // The shares depend on no variable.
            let mut vars = Vars::new(&|_| None);
            let Read { shares, problems, .. } = vars.read(text, DESTINATIONS, false);
            if problems.is_empty() { Ok(shares) } else { Err(problems) }
        }
        None => problem(1, "is missing: the text has neither it nor [destinations.NAME]"),
    }
}

fn client_certificate(reader: &mut Reader<'_, '_>) -> Option<ClientCertificate> {
    let mut file = |field| reader.text(field, |path| Ok::<_, &str>(PathBuf::from(path)));
    match (file(CERTIFICATE), file(KEY)) {
        (Some(certificate), Some(key)) => match ClientCertificate::read(&certificate, &key) {
            Ok(read) => return Some(read),
            Err(Unusable::Certificate(remedy)) => reader.problem(CERTIFICATE, remedy),
            Err(Unusable::Key(remedy)) => reader.problem(KEY, remedy),
        },
        (Some(_), None) if !reader.has(KEY) => {
            reader.problem(CERTIFICATE, format!("must be set together with {KEY}"));
        }
        (None, Some(_)) if !reader.has(CERTIFICATE) => {
            reader.problem(KEY, format!("must be set together with {CERTIFICATE}"));
        }
        _ => {}
    }
    None
}

fn lambda(
    reader: &mut Reader<'_, '_>,
    is_this_function: &dyn Fn(&str) -> bool,
) -> Option<LambdaTarget> {
    reader.only_fields(&[&COMMON[..], &LAMBDA].concat());
    let invocation = reader.text("invocation", |text| match text {
        "RequestResponse" => Ok(Invocation::RequestResponse),
        "Event" => Ok(Invocation::Event),
        _ => Err("must be \"RequestResponse\" or \"Event\""),
    });
    let payload = reader.text("payload", |text| match text {
        "body" => Ok(Payload::Body),
        "request" => Ok(Payload::Request),
        _ => Err("must be \"body\" or \"request\""),
    });
    let (invocation, payload) =
        (invocation.unwrap_or(Invocation::RequestResponse), payload.unwrap_or(Payload::Body));
    if invocation == Invocation::Event && payload == Payload::Body {
        let remedy = format!("must be \"request\" with invocation = \"Event\": {QUEUED}");
        reader.problem("payload", remedy);
    }
    let role_arn = reader.text("role_arn", role);
    let function = reader.text("function", check_function);
    if !reader.has("function") {
        reader.missing("function", "is the name or the ARN of the Lambda");
    }
    let function = function?;
    if role_arn.is_none() && is_this_function(&function) {
        reader.problem("function", THIS_FUNCTION);
    }
    Some(LambdaTarget { function, role_arn, invocation, payload })
}

/// The destination of each byte, while the table is read.
struct Bytes {
    routes: [Option<Route>; 256],
    /// False if the bytes of a destination are missing or cannot be read.
    are_readable: bool,
}

impl Default for Bytes {
    fn default() -> Self {
        Self { routes: [None; 256], are_readable: true }
    }
}

impl Bytes {
    /// Returns the shares, if every byte belongs to a destination.
    fn shares(&self) -> Option<Shares> {
        let mut routes = [Route::GCP; 256];
        for (route, of_byte) in routes.iter_mut().zip(&self.routes) {
            *route = (*of_byte)?;
        }
        Some(Shares::new(routes))
    }

    /// Returns the bytes that belong to no destination.
    fn missing(&self) -> Vec<u8> {
        (0..=255).filter(|byte| self.routes[usize::from(*byte)].is_none()).collect()
    }
}

/// Reads the bytes of a destination, and reports those that another destination has.
fn take_bytes(reader: &mut Reader<'_, '_>, name: Option<Route>, bytes: &mut Bytes) {
    if !reader.has("bytes") {
        bytes.are_readable = false;
        return reader
            .missing("bytes", "has the route bytes of the destination: \"0-99\", or \"none\"");
    }
    let (Some(name), Some(ranges)) = (name, reader.text("bytes", ranges)) else {
        bytes.are_readable = false;
        return;
    };
    let mut conflicts = BTreeMap::<Route, BTreeSet<u8>>::new();
    for byte in ranges.into_iter().flatten() {
        match &mut bytes.routes[usize::from(byte)] {
            Some(other) => {
                conflicts.entry(*other).or_default().insert(byte);
            }
            free => *free = Some(name),
        }
    }
    for (other, shared) in conflicts {
        let (shared, belong) = named(&shared.into_iter().collect::<Vec<_>>());
        let conflict = match other == name {
            true => format!("has {shared} twice"),
            false => format!("has {shared}, which {belong} to {other}"),
        };
        reader.problem("bytes", conflict);
    }
}

/// Names bytes as ranges, and returns the form of the verb that fits them.
fn named(bytes: &[u8]) -> (String, &'static str) {
    let ranges = route::ranges(bytes.iter().copied());
    match bytes.len() {
        1 => (format!("byte {ranges}"), "belongs"),
        _ => (format!("bytes {ranges}"), "belong"),
    }
}

/// Reads a list of bytes and ranges: `0-9,20-29`, or `none`.
fn ranges(text: &str) -> Result<Vec<std::ops::RangeInclusive<u8>>, String> {
    if text.trim() == "none" {
        return Ok(Vec::new());
    }
    let byte = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        let wrong = || match is_number {
            true => format!("has {text}, and a byte is a number from 0 to 255"),
            false => {
                "must have bytes and ranges of bytes, such as \"0-9,20-29\", or be \"none\"".into()
            }
        };
        text.parse::<u8>().ok().filter(|_| is_number).ok_or_else(wrong)
    };
    let ranges = text.split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (byte(first.trim())?, byte(last.trim())?);
        match first <= last {
            true => Ok(first..=last),
            false => Err(format!("has {first}-{last}, which begins with the larger byte")),
        }
    });
    ranges.collect()
}

#[cfg(test)]
mod tests;
