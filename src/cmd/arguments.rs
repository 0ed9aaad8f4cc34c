//! Arguments that several commands take.

use std::{io::Read as _, path::Path, sync::Arc};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use http::{HeaderName, HeaderValue};

use crate::source::{self, Vendor};

/// Finds a built-in vendor. `standardwebhooks` and `svix` are accepted as names of Standard
/// Webhooks.
pub(super) fn parse_vendor(name: &str) -> Result<Arc<dyn Vendor>, String> {
    let name = match name {
        "standardwebhooks" | "svix" => "standard-webhooks",
        name => name,
    };
    source::vendor(name).cloned().ok_or_else(|| {
        let names = source::vendor_names().join(", ");
        format!("no such vendor: the built-in vendors are {names}")
    })
}

pub(super) fn parse_time(text: &str) -> Result<DateTime<Utc>, &'static str> {
    let seconds = text.parse().map_err(|_| "must be whole seconds since 1970")?;
    DateTime::from_timestamp(seconds, 0).ok_or("is too far from 1970")
}

pub(super) fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a header must have the form NAME: VALUE")?;
    let name = HeaderName::try_from(name.trim()).map_err(|error| error.to_string())?;
    let value = HeaderValue::try_from(value.trim()).map_err(|error| error.to_string())?;
    Ok((name, value))
}

/// Reads a file. `-` means standard input.
pub(super) fn read_file(file: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    bytes.with_context(|| {
        format!("cannot read the file {} (`-` means standard input)", file.display())
    })
}
