//! The table of destinations: their places, and their shares of the route bytes.

use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::{
    SourcesText, THRESHOLD,
    auth::AuthNames,
    limits::{Limit, MAX_CONCURRENT, MAX_PER_SECOND},
    mirror::mirror_at,
    targets::{
        HttpTarget, Invocation, LambdaTarget, Payload, Place, QUEUED, THIS_FUNCTION, Target,
        Targets, check_function, http_url, role,
    },
    vars::Vars,
};
use crate::{
    authorities::Authorities,
    client_certificate::{ClientCertificate, Unusable},
    route::{Route, Shares},
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
    ("GCP_AUTH", "auth"),
    ("GCP_AUDIENCE", "audience"),
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
const HTTP: [&str; 6] = ["url", "ca_file", CERTIFICATE, KEY, "auth", "audience"];
const CERTIFICATE: &str = "client_cert_file";
const KEY: &str = "client_key_file";
const LAMBDA: [&str; 4] = ["function", "role_arn", "invocation", "payload"];

/// The configured table of destinations.
#[derive(Debug, Clone)]
pub struct Table {
    pub targets: Targets,
    pub shares: Shares,
}

impl Vars<'_> {
    /// Reads the table of destinations from DESTINATIONS or from the text of the sources. Returns
    /// `None` if neither has one. A table with a problem is a placeholder.
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
        let read =
            read(&text, variable == DESTINATIONS, &|function| self.is_this_function(function));
        let Read { mut targets, shares, problems, proofs } = read;
        problems.iter().for_each(|one| self.problem(variable, one.to_string()));
        for Proof { name, auth, audience } in proofs {
            let Some(target) = targets.get_mut(name) else { continue };
            let Place::Http(http) = &mut target.place else { continue };
            let setting = |field: &str| format!("{} {field}", target.setting);
            let (of_auth, of_audience, of_url) =
                (setting("auth"), setting("audience"), setting("url"));
            let names = AuthNames { auth: &of_auth, audience: &of_audience, url: &of_url };
            let settings = (auth.as_deref(), audience.as_deref());
            http.id_token = self.id_token(names, settings, &http.url);
            self.warn_of_credentials(&target.setting, &http.url);
        }
        Some(Table { targets, shares })
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
    /// One for each target over HTTP.
    proofs: Vec<Proof>,
}

/// The settings of the proof of the router's identity. All targets share what lies behind it.
struct Proof {
    name: Route,
    auth: Option<String>,
    audience: Option<String>,
}

impl Read {
    /// Returns the problems, with a placeholder for the table.
    fn failed(problems: Vec<Problem>) -> Self {
        Self {
            targets: Targets::default(),
            shares: Shares::by_threshold(0),
            problems,
            proofs: Vec::new(),
        }
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
            let Read { shares, problems, .. } = read(text, false, &|_| false);
            if problems.is_empty() { Ok(shares) } else { Err(problems) }
        }
        None => problem(1, "is missing: the text has neither it nor [destinations.NAME]"),
    }
}

/// Reads a table. `is_alone` says that the text has nothing else. `is_this_function` returns whether
/// the name of a function means the router itself.
fn read(text: &str, is_alone: bool, is_this_function: &dyn Fn(&str) -> bool) -> Read {
    let (document, errors) = DeTable::parse_recoverable(text);
    let places = Text::new(text);
    let mut problems: Vec<_> = errors.iter().map(|error| places.syntax(error)).collect();
    let (mut targets, mut proofs, mut bytes) = (Vec::new(), Vec::new(), Bytes::default());
    if !problems.is_empty() {
        // The reader of the sources reports them as well.
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
                        let problem = Problem::new(at, "destination", &name, "", "must be a table");
                        problems.push(problem);
                        continue;
                    };
                    let mut reader =
                        Reader::new(&places, "destination", &name, at, table, &mut problems);
                    let read = destination(&mut reader, &mut bytes, is_this_function);
                    if let Some((target, proof)) = read {
                        targets.push(target);
                        proofs.push(proof);
                    }
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
    // Bytes that cannot be read are not missing as well.
    if let Some((first, last)) = bytes.gap().filter(|_| bytes.are_readable) {
        let missing = match first == last {
            true => format!("byte {first} belongs"),
            false => format!("bytes {first}-{last} belong"),
        };
        let remedy =
            format!("must give every byte from 0 to 255 to a destination: {missing} to none");
        problems.push(Problem::of_text(line, "destinations", remedy));
    }
    match bytes.shares().filter(|_| problems.is_empty()) {
        Some(shares) => Read { targets: Targets::new(targets), shares, problems, proofs },
        None => Read::failed(problems),
    }
}

/// Reads one destination, and takes its bytes.
fn destination(
    reader: &mut Reader<'_, '_>,
    bytes: &mut Bytes,
    is_this_function: &dyn Fn(&str) -> bool,
) -> Option<(Target, Proof)> {
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
    let place = match kind?.as_str() {
        "lambda" => Place::Lambda(lambda(reader, is_this_function)?),
        _ => Place::Http(http(reader)?),
    };
    let mut text = |field: &str| reader.text(field, |text| Ok::<_, String>(text.to_owned()));
    let (auth, audience) = (text("auth"), text("audience"));
    let name = name.ok()?;
    let setting = format!("{DESTINATIONS} [destinations.{name}]");
    Some((Target { name, setting, place, limit, mirror }, Proof { name, auth, audience }))
}

fn http(reader: &mut Reader<'_, '_>) -> Option<HttpTarget> {
    reader.only_fields(&[&COMMON[..], &HTTP].concat());
    let ca = reader.text("ca_file", |path| Authorities::read(path.as_ref()));
    let client_certificate = client_certificate(reader);
    let url = reader.text("url", http_url);
    if !reader.has("url") {
        reader.missing("url", "is the address that events are posted to");
    }
    Some(HttpTarget { url: url?, ca, client_certificate, id_token: None })
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

    /// Returns the first and the last byte of the first gap.
    fn gap(&self) -> Option<(usize, usize)> {
        let first = self.routes.iter().position(Option::is_none)?;
        let length = self.routes[first..].iter().take_while(|route| route.is_none()).count();
        Some((first, first + length - 1))
    }
}

/// Reads the bytes of a destination, and reports each byte that another destination has.
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
    let mut conflict = None;
    for byte in ranges.into_iter().flatten() {
        let place = &mut bytes.routes[usize::from(byte)];
        match place {
            None => *place = Some(name),
            Some(_) if conflict.is_some() => {}
            Some(other) if *other == name => conflict = Some(format!("has byte {byte} twice")),
            Some(other) => conflict = Some(format!("has byte {byte}, which belongs to {other}")),
        }
    }
    if let Some(conflict) = conflict {
        reader.problem("bytes", conflict);
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
