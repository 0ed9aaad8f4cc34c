//! Reads the description in a source whose vendor is `custom`.

use std::time::Duration;

use http::HeaderName;

use crate::{
    json::Pointer,
    source::{
        EVENT_HEADERS,
        description::{
            Algorithm, Description, Echo, Encoding, Fields, Joined, KeyForm, Place, Scheme, Signed,
            Stamp, StampPlace, Tolerance, Unit,
        },
        template::Template,
    },
    table::Reader,
};

/// The fields of a description.
pub(super) const FIELDS: [&str; 19] = [
    "header",
    "separator",
    "prefix",
    "algorithm",
    "encoding",
    "secret_encoding",
    "template",
    "timestamp",
    "timestamp_prefix",
    "timestamp_unit",
    "tolerance",
    "type",
    "time",
    "time_unit",
    "id",
    "each",
    "required",
    "handshake",
    "retry_hours",
];

/// Fields of schemes that sign, and fields of schemes that also have a timestamp.
const SIGNED: [&str; 6] =
    ["separator", "algorithm", "encoding", "secret_encoding", "template", "header"];
const STAMPED: [&str; 4] = ["timestamp", "timestamp_prefix", "timestamp_unit", "tolerance"];

const SCHEMES: &str = "hmac-body, hmac-timestamped, standard-webhooks, shared-secret, basic or \
                       ed25519";

/// Reads a description.
pub(super) fn description(reader: &mut Reader<'_, '_>) -> Option<Description> {
    let scheme = scheme(reader);
    refuse_event_headers(reader, scheme.as_ref());
    let created_at = places(reader, "time");
    let fields = Fields {
        each: pointer(reader, "each"),
        event_type: places(reader, "type").into_iter().map(Joined::from).collect(),
        created_at,
        of_batch: None,
        unit: unit(reader, "time_unit").unwrap_or_default(),
        id: ids(reader, scheme.as_ref()),
    };
    let required = headers(reader, "required");
    let required = required.into_iter().map(|header| vec![header]).collect();
    let handshake = handshake(reader);
    let hours = reader.number("retry_hours", 0..=24 * 365).unwrap_or_default();
    let signature_headers = match &scheme {
        Some(Scheme::StandardWebhooks) => standard_headers(),
        _ => Vec::new(),
    };
    Some(Description {
        name: reader.name.to_owned(),
        documentation: "",
        scheme: Some(scheme?),
        required,
        fields,
        handshake,
        retry_horizon: Duration::from_secs(u64::from(hours) * 3600),
        signature_headers,
        ..Description::default()
    })
}

fn scheme(reader: &mut Reader<'_, '_>) -> Option<Scheme> {
    let Some(name) = reader.text("scheme", |text| Ok::<_, &str>(text.to_owned())) else {
        if !reader.has("scheme") {
            reader.missing("scheme", &format!("is {SCHEMES}"));
        }
        return None;
    };
    match name.as_str() {
        "hmac-body" => {
            without(reader, &name, &STAMPED);
            signed(reader, Algorithm::HmacSha256, None)
        }
        "hmac-timestamped" => {
            let stamp = stamp(reader);
            if stamp.is_none() {
                let has_place = reader.has("timestamp") || reader.has("timestamp_prefix");
                if !has_place {
                    reader.missing("timestamp", "is a header or a JSON pointer");
                }
            }
            let scheme = signed(reader, Algorithm::HmacSha256, Some(stamp?));
            check_stamp_is_signed(reader, scheme.as_ref());
            scheme
        }
        "ed25519" => {
            let has_place = reader.has("timestamp") || reader.has("timestamp_prefix");
            if !has_place {
                for field in ["timestamp_unit", "tolerance"] {
                    if reader.has(field) {
                        reader.problem(field, "has no meaning without `timestamp`");
                    }
                }
            }
            let stamp = if has_place { Some(stamp(reader)?) } else { None };
            let scheme = signed(reader, Algorithm::Ed25519, stamp);
            check_stamp_is_signed(reader, scheme.as_ref());
            scheme
        }
        "standard-webhooks" => {
            without(reader, &name, &[&SIGNED[..], &STAMPED, &["prefix"]].concat());
            Some(Scheme::StandardWebhooks)
        }
        "shared-secret" => {
            without(reader, &name, &[&SIGNED[..5], &STAMPED].concat());
            let prefix = text(reader, "prefix").unwrap_or_default();
            refuse_list(reader, "header");
            let Some(header) = headers(reader, "header").into_iter().next() else {
                if !reader.has("header") {
                    reader.missing("header", "names the header that holds the secret");
                }
                return None;
            };
            Some(Scheme::SharedSecret { header, prefix })
        }
        "basic" => {
            without(reader, &name, &[&SIGNED[..], &STAMPED, &["prefix"]].concat());
            Some(Scheme::Basic)
        }
        _ => {
            reader.problem("scheme", format!("must be {SCHEMES}"));
            None
        }
    }
}

/// Reports headers of the signature that the router sets itself for the destination.
fn refuse_event_headers(reader: &mut Reader<'_, '_>, scheme: Option<&Scheme>) {
    let Some(Scheme::Signed(signed)) = scheme else { return };
    let header = |place: &Place| match place {
        Place::Header(name) => Some(name.clone()),
        Place::Pointer(_) => None,
    };
    let stamp = signed.stamp.iter().filter_map(|stamp| match &stamp.place {
        StampPlace::At(place) => header(place),
        StampPlace::Entry(_) => None,
    });
    let signature = signed.signature.iter().filter_map(header).map(|name| ("header", name));
    let template = signed.template.headers().map(|name| ("template", name.clone()));
    for (field, name) in signature.chain(stamp.map(|name| ("timestamp", name))).chain(template) {
        if EVENT_HEADERS.contains(&name.as_str()) {
            let remedy = format!("must not name `{name}`, which the router sets itself");
            reader.problem(field, remedy);
        }
    }
}

/// Reports a timestamp that the signature does not cover: anybody could change it.
fn check_stamp_is_signed(reader: &mut Reader<'_, '_>, scheme: Option<&Scheme>) {
    let Some(Scheme::Signed(signed)) = scheme else { return };
    let Some(Stamp { place, .. }) = &signed.stamp else { return };
    let is_in_body = matches!(place, StampPlace::At(Place::Pointer(_)));
    let is_covered = is_in_body && signed.template.has_body();
    if !is_covered && !signed.template.needs_timestamp() {
        reader.problem("template", "must hold {timestamp}, or anybody could change it");
    }
}

fn signed(
    reader: &mut Reader<'_, '_>,
    algorithm: Algorithm,
    stamp: Option<Stamp>,
) -> Option<Scheme> {
    let chosen = reader.text("algorithm", |text| match (algorithm, text) {
        (Algorithm::Ed25519, _) => Err("must not be set together with scheme = \"ed25519\""),
        (_, "sha1") => Ok(Algorithm::HmacSha1),
        (_, "sha256") => Ok(Algorithm::HmacSha256),
        (_, "sha384") => Ok(Algorithm::HmacSha384),
        (_, "sha512") => Ok(Algorithm::HmacSha512),
        _ => Err("must be sha1, sha256, sha384 or sha512"),
    });
    let encoding = reader.text("encoding", |text| match text {
        "hex" => Ok(Encoding::Hex),
        "base64" => Ok(Encoding::Base64),
        "base64url" => Ok(Encoding::Base64Url),
        _ => Err("must be hex, base64 or base64url"),
    });
    let key = reader.text("secret_encoding", |text| match (algorithm, text) {
        (Algorithm::Ed25519, _) => Err("must not be set together with scheme = \"ed25519\""),
        (_, "text") => Ok(KeyForm::Text),
        (_, "hex") => Ok(KeyForm::Hex),
        (_, "base64") => Ok(KeyForm::Base64),
        _ => Err("must be text, hex or base64"),
    });
    let default_key = match algorithm {
        Algorithm::Ed25519 => KeyForm::PublicKey,
        _ => KeyForm::Text,
    };
    let template = reader.text("template", |text| {
        let template: Template = text.parse().map_err(|error| format!("{error}"))?;
        if template.needs_timestamp() && stamp.is_none() {
            return Err("holds {timestamp}, but no field says where the time is".to_owned());
        }
        Ok(template)
    });
    let template = match template {
        Some(template) => template,
        None if !reader.has("template") && stamp.is_none() => Template::default(),
        None => {
            if !reader.has("template") {
                reader.missing(
                    "template",
                    "describes the signed bytes, as in \"{timestamp}.{body}\"",
                );
            }
            return None;
        }
    };
    let separator = text(reader, "separator");
    if separator.as_deref() == Some("") {
        reader.problem("separator", "must not be empty");
    }
    let prefix = text(reader, "prefix").unwrap_or_default();
    let signature = places(reader, "header");
    if signature.is_empty() {
        if !reader.has("header") {
            reader.missing("header", "is the header, or the JSON pointer, of the signature");
        }
        return None;
    }
    Some(Scheme::Signed(Box::new(Signed {
        algorithm: chosen.unwrap_or(algorithm),
        signature,
        separator,
        prefix,
        encoding: encoding.unwrap_or(Encoding::Hex),
        key: key.unwrap_or(default_key),
        key_id: None,
        stamp,
        template,
        is_json: false,
    })))
}

fn stamp(reader: &mut Reader<'_, '_>) -> Option<Stamp> {
    let prefix = text(reader, "timestamp_prefix");
    refuse_list(reader, "timestamp");
    let place = places(reader, "timestamp").into_iter().next();
    let unit = unit(reader, "timestamp_unit").unwrap_or(Unit::Seconds);
    let tolerance = reader.number("tolerance", 1..=86_400);
    let place = match (place, prefix) {
        (Some(_), Some(_)) => {
            reader.problem("timestamp_prefix", "must not be set together with `timestamp`");
            return None;
        }
        (Some(place), None) => StampPlace::At(place),
        (None, Some(prefix)) => StampPlace::Entry(prefix),
        (None, None) => return None,
    };
    let tolerance = tolerance.map_or(Tolerance::Configured, Tolerance::Seconds);
    Some(Stamp { place, unit, tolerance })
}

/// Reports a list in a field that holds one place.
fn refuse_list(reader: &mut Reader<'_, '_>, field: &str) {
    if reader.is_list(field) {
        reader.problem(field, "must be one text, not a list");
    }
}

/// Reads the places of the id. If the scheme has a signed id, that is the default.
fn ids(reader: &mut Reader<'_, '_>, scheme: Option<&Scheme>) -> Vec<Joined> {
    if !reader.has("id") && matches!(scheme, Some(Scheme::StandardWebhooks)) {
        let headers = ["webhook-id", "svix-id"].map(HeaderName::from_static);
        return headers.map(|header| Place::Header(header).into()).into();
    }
    places(reader, "id").into_iter().map(Joined::from).collect()
}

fn standard_headers() -> Vec<HeaderName> {
    let of = |family: &str| {
        ["id", "timestamp", "signature"].map(|name| format!("{family}-{name}").parse().ok())
    };
    [of("webhook"), of("svix")].concat().into_iter().flatten().collect()
}

fn handshake(reader: &mut Reader<'_, '_>) -> Option<Echo> {
    if !reader.has("handshake") {
        return None;
    }
    let members = reader.table("handshake");
    let text = |wanted: &str| {
        let found = members.iter().find(|(name, _)| name == wanted);
        found.and_then(|(_, value)| value.as_str()).map(str::to_owned)
    };
    let pointer = |wanted: &str| text(wanted).and_then(|text| text.parse::<Pointer>().ok());
    match (pointer("at"), text("is"), pointer("answer"), members.len()) {
        (Some(at), Some(is), Some(answer), 3) => {
            Some(Echo { when: (at, is), answer: Some(answer) })
        }
        _ => {
            let example = "must be { at = \"/type\", is = \"url_verification\", answer = \
                           \"/challenge\" }";
            reader.problem("handshake", example);
            None
        }
    }
}

fn text(reader: &mut Reader<'_, '_>, field: &str) -> Option<String> {
    reader.text(field, |text| Ok::<_, &str>(text.to_owned()))
}

fn pointer(reader: &mut Reader<'_, '_>, field: &str) -> Option<Pointer> {
    reader.text(field, |text| text.parse().map_err(|error| format!("{error}")))
}

/// Reads places. A text that begins with a slash is a JSON pointer, and every other text is a
/// header.
fn places(reader: &mut Reader<'_, '_>, field: &str) -> Vec<Place> {
    let mut places = Vec::new();
    for text in reader.one_or_more(field).unwrap_or_default() {
        let place = if text.starts_with('/') {
            text.parse().map(Place::Pointer).ok()
        } else {
            text.parse().map(Place::Header).ok()
        };
        match place {
            Some(place) => places.push(place),
            None => reader.problem(field, "must be a header, or a JSON pointer as in /data/id"),
        }
    }
    places
}

fn headers(reader: &mut Reader<'_, '_>, field: &str) -> Vec<HeaderName> {
    let mut headers = Vec::new();
    for place in places(reader, field) {
        match place {
            Place::Header(name) => headers.push(name),
            Place::Pointer(_) => reader.problem(field, "must be a header"),
        }
    }
    headers
}

fn unit(reader: &mut Reader<'_, '_>, field: &str) -> Option<Unit> {
    reader.text(field, |text| match text {
        "text" => Ok(Unit::Text),
        "seconds" => Ok(Unit::Seconds),
        "milliseconds" => Ok(Unit::Milliseconds),
        _ => Err("must be text, seconds or milliseconds"),
    })
}

/// Reports the fields that have no meaning for this scheme.
fn without(reader: &mut Reader<'_, '_>, scheme: &str, fields: &[&str]) {
    for field in fields {
        if reader.has(field) {
            reader.problem(field, format!("has no meaning for scheme = \"{scheme}\""));
        }
    }
}
