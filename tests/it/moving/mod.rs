//! A table of destinations: shares of the events, and moves from one table to another.

mod removed; // Events whose destination is no longer in the table.
mod shares; // Shares, the same places everywhere, and what a shift moves.
mod shift; // A shift while events are under way.

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
