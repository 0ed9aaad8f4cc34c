//! A table of destinations: shares of the events, and moves from one table to another.

mod removed; // Events whose destination is no longer in the table.
mod shares; // Shares, the same places everywhere, and what a shift moves.
mod shift; // A shift while events are under way.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use crate::support::Serve;

/// Returns the text of DESTINATIONS for HTTP destinations: names, URLs and bytes.
fn table(rows: &[(&str, &str, &str)]) -> String {
    let tables = rows.iter().map(|(name, url, bytes)| {
        format!("[destinations.{name}]\nkind = \"http\"\nurl = {url:?}\nbytes = {bytes:?}\n")
    });
    tables.collect()
}

/// Creates a router with a table of destinations.
fn serve(table: &str) -> Serve {
    Serve::new().env("DESTINATIONS", table)
}

/// Returns the body of an event.
fn event(number: usize) -> String {
    format!(
        r#"{{"vendor":"v","event_type":"moved","created_at":"2026-05-06T12:34:56Z","n":{number}}}"#
    )
}

/// Writes a file, and returns its path.
fn file(folder: &Path, name: &str, text: &str) -> String {
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Returns the moves that `plan-shift --json` has told: from, to, and the number of events.
fn told_moves(shift: &Value) -> BTreeMap<(String, String), u64> {
    let moves = shift["moves"].as_array().unwrap().iter().map(|one| {
        let name = |end: &str| one[end].as_str().unwrap().to_owned();
        ((name("from"), name("to")), one["events"].as_u64().unwrap())
    });
    moves.collect()
}
