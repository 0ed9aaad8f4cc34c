//! Reads the sources in the text of SOURCES. The text is TOML and is read together with the line of
//! every value. So each problem names its source, line and field, and all problems are found at
//! once.

mod custom;

use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::{
    Address, Described, Lines, Source, Vendor, is_vendor,
    rules::{Answer, Glob, KeyRule, Rules, Wanted},
    secrets_variable, vendor,
};
use crate::{
    json::Pointer,
    route::Route,
    secret::Secret,
    table::{Problem, Reader, Text, float},
};

/// Fields that every source may have, except for the last one, `scheme`. A custom source may have
/// them all, and the fields of its description.
const FIELDS: [&str; 13] = [
    "vendor",
    "secrets",
    "secrets_from",
    "key",
    "ignore",
    "only",
    "except",
    "where",
    "answer",
    "destination",
    "threshold",
    "url",
    "scheme",
];

/// Names that no source may have. An idempotency key is derived from a text that begins with one of
/// these words or with the name of a source, so these must differ.
const RESERVED: [&str; 2] = ["event-id", "header"];

/// Reads the sources of a text. `get` looks up the variables that `secrets_from` names.
///
/// # Errors
/// Fails with every problem, not only the first.
pub fn read(text: &str, get: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Source>, Vec<Problem>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let text = Text::new(text);
    let mut problems: Vec<_> = errors.iter().map(|error| text.syntax(error)).collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut sources = Vec::new();
    for (name, value) in document.get_ref() {
        let line = text.line(name.span());
        match (name.get_ref().as_ref(), value.get_ref()) {
            ("sources", DeValue::Table(tables)) => {
                for (name, value) in tables {
                    let line = text.line(name.span());
                    let name = name.get_ref().to_string();
                    let DeValue::Table(table) = value.get_ref() else {
                        problems.push(Problem::new(line, "source", &name, "", "must be a table"));
                        continue;
                    };
                    let mut reader =
                        Reader::new(&text, "source", &name, line, table, &mut problems);
                    let source = source(&mut reader, get);
                    sources.extend(source);
                }
            }
            // config/destinations.rs reads these.
            ("destinations", DeValue::Table(_)) => {}
            (name, _) => {
                problems.push(Problem::of_text(line, name, "is unknown: write [sources.NAME]"));
            }
        }
    }
    if problems.is_empty() { Ok(sources) } else { Err(problems) }
}

fn source(reader: &mut Reader<'_, '_>, get: &dyn Fn(&str) -> Option<String>) -> Option<Source> {
    let name = reader.name.to_owned();
    let is_name = |name: &str| {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        (1..=63).contains(&name.len()) && name.bytes().all(allowed)
    };
    if !is_name(&name) {
        reader.problem("", "must have a name of 1 to 63 characters of a-z, 0-9 and `-`");
    }
    if RESERVED.contains(&name.as_str()) {
        reader.problem("", "must have another name: the router uses this one itself");
    }
    if is_vendor(&name) && get(&secrets_variable(&name)).is_some() {
        let variable = secrets_variable(&name);
        reader.problem(
            "",
            format!("is also configured by {variable}: rename the source, or unset the variable"),
        );
    }
    let vendor = sender(reader);
    let (secrets, secrets_from) = secrets(reader, vendor.as_deref(), get);
    let rules = rules(reader);
    let address =
        reader.text("url", |text| text.parse::<Address>().map_err(|error| error.to_string()));
    let mut source = Source::new(name, vendor?);
    let rule = if rules.destination.is_some() { "destination" } else { "threshold" };
    source.lines = Some(Lines { source: reader.line(""), rule: reader.line(rule) });
    (source.secrets, source.secrets_from) = (secrets, secrets_from);
    (source.rules, source.address) = (rules, address);
    Some(source)
}

/// Returns the vendor of a source: a built-in vendor, or the vendor that the fields describe.
fn sender(reader: &mut Reader<'_, '_>) -> Option<Arc<dyn Vendor>> {
    let Some(name) = reader.text("vendor", |text| Ok::<_, &str>(text.to_owned())) else {
        // A wrong value has its own problem.
        if !reader.has("vendor") {
            reader.missing("vendor", "names a built-in vendor, or \"custom\"");
        }
        return None;
    };
    if name == "custom" {
        if is_vendor(reader.name) {
            reader.problem(
                "vendor",
                "must not be \"custom\" for a source with a built-in vendor's name",
            );
        }
        reader.only_fields(&[&FIELDS[..], &custom::FIELDS].concat());
        return Some(Arc::new(Described(custom::description(reader)?)));
    }
    let built_in = &FIELDS[..FIELDS.len() - 1];
    reader.only_fields(built_in);
    let found = vendor(&name).cloned();
    if found.is_none() {
        reader.problem(
            "vendor",
            format!("`{name}` is not a built-in vendor; use \"custom\" for any other vendor"),
        );
    }
    found
}

fn secrets(
    reader: &mut Reader<'_, '_>,
    vendor: Option<&dyn Vendor>,
    get: &dyn Fn(&str) -> Option<String>,
) -> (Vec<Secret>, String) {
    let from = reader.text("secrets_from", |text| {
        let is_variable = text.ends_with("_SECRETS")
            && text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'));
        is_variable
            .then(|| text.to_owned())
            .ok_or("must be a variable's name that ends in _SECRETS")
    });
    let listed = reader.texts("secrets");
    let field = if from.is_some() { "secrets_from" } else { "secrets" };
    let variable = secrets_variable(reader.name);
    let (secrets, from) = match (listed, from) {
        (Some(_), Some(_)) => {
            reader.problem("secrets_from", "must not be set together with `secrets`");
            return (Vec::new(), String::new());
        }
        (Some(list), None) => {
            if get(&variable).is_some() && !is_vendor(reader.name) {
                reader.problem("secrets", format!("must not be set together with {variable}"));
            }
            if list.is_empty() {
                reader.problem("secrets", "must not be empty");
            }
            (list, "SOURCES".to_owned())
        }
        (None, Some(from)) => {
            if from != variable && get(&variable).is_some() && !is_vendor(reader.name) {
                reader.problem("secrets_from", format!("must not be set together with {variable}"));
            }
            let list = get(&from).filter(|list| !list.is_empty());
            if list.as_ref().is_some_and(|list| list.contains(char::REPLACEMENT_CHARACTER)) {
                reader.problem("secrets_from", format!("names {from}, which is not valid UTF-8"));
            }
            let list = list.iter().flat_map(|list| list.split(','));
            (list.map(|secret| secret.trim().to_owned()).collect(), from)
        }
        (None, None) => {
            // A wrong field has its own problem.
            if !reader.has("secrets") && !reader.has("secrets_from") {
                reader.missing(
                    "secrets",
                    "holds what the vendor signs with, unless `secrets_from` names a variable",
                );
            }
            return (Vec::new(), String::new());
        }
    };
    let secrets: Vec<_> = secrets.into_iter().map(Secret::new).collect();
    let check = |secret| vendor.and_then(|vendor| vendor.check_secret(secret).err());
    if let Some(wrong) = secrets.iter().find_map(check) {
        reader.problem(field, format!("each secret {wrong}"));
    }
    (secrets, from)
}

fn rules(reader: &mut Reader<'_, '_>) -> Rules {
    let key = reader.text("key", |text| match text {
        "id" => Ok(KeyRule::Id),
        "content" => Ok(KeyRule::Content),
        _ => Err("must be \"id\" or \"content\""),
    });
    let ignore = reader.texts("ignore").unwrap_or_default();
    let ignore: Vec<_> = ignore.iter().map(|text| text.parse::<Pointer>()).collect();
    if let Some(Err(wrong)) = ignore.iter().find(|pointer| pointer.is_err()) {
        reader.problem("ignore", wrong.to_string());
    }
    let mut globs = |field| {
        let patterns = reader.texts(field);
        if patterns.as_ref().is_some_and(|patterns| patterns.is_empty()) {
            reader.problem(field, "must name event types");
        }
        patterns.iter().flatten().map(|pattern| Glob::new(pattern)).collect()
    };
    let (only, except) = (globs("only"), globs("except"));
    let destination = reader.text("destination", |text| {
        text.parse::<Route>()
            .map_err(|error| format!("must be the name of a destination: a name {error}"))
    });
    let answer = reader.text("answer", |text| match text {
        "delivered" => Ok(Answer::Delivered),
        "accepted" => Ok(Answer::Accepted),
        _ => Err("must be \"delivered\" or \"accepted\""),
    });
    let threshold = reader.number("threshold", 0..=256).map(|threshold| threshold as u16);
    if destination.is_some() && threshold.is_some() {
        reader.problem("threshold", "must not be set together with `destination`");
    }
    Rules {
        key: key.unwrap_or_default(),
        ignore: ignore.into_iter().flatten().collect(),
        only,
        except,
        wanted: wanted(reader),
        destination,
        threshold,
        answer,
    }
}

fn wanted(reader: &mut Reader<'_, '_>) -> Vec<(Pointer, Wanted)> {
    let mut wanted = Vec::new();
    for (key, value) in reader.table("where") {
        let Ok(pointer) = key.parse() else {
            reader.problem("where", "must have JSON pointers as names, as in \"/livemode\" = true");
            continue;
        };
        let value = match value {
            DeValue::String(text) => Some(Wanted::Text(text.to_string())),
            DeValue::Boolean(is) => Some(Wanted::Bool(*is)),
            DeValue::Integer(_) | DeValue::Float(_) => float(value).map(Wanted::Number),
            _ => None,
        };
        match value {
            Some(value) => wanted.push((pointer, value)),
            None => reader.problem("where", "must have texts, numbers, true or false as values"),
        }
    }
    wanted
}
