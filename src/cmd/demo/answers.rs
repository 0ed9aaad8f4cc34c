//! The answers to a sender, in the words of the tables, and what arrived at the destinations.

use std::collections::HashMap;

use crate::{cmd::receipts::Receipt, delivery::Reply};

pub(super) const PROCESSED: &str = "200 processed";
pub(super) const DUPLICATE: &str = "200 duplicate ignored";

/// Receipts by destination and key.
pub(super) type Receipts = HashMap<(&'static str, String), Receipt>;

/// Returns a destination's receipt for the event with that key.
pub(super) fn arrived<'a>(
    received: &'a Receipts,
    destination: &str,
    key: &str,
) -> Option<&'a Receipt> {
    let is_it = |to: &&str, of: &String| *to == destination && of == key;
    received.iter().find(|((to, of), _)| is_it(to, of)).map(|(_, receipt)| receipt)
}

/// Describes an answer in a few words.
pub(super) fn shown(reply: &Reply) -> String {
    let status = reply.status.as_u16();
    let body = String::from_utf8_lossy(&reply.body);
    if body.contains("\"processed\":true") {
        return PROCESSED.into();
    }
    let is_duplicate = reply.headers.contains_key("idempotent-replayed");
    if is_duplicate && !body.contains("duplicate") {
        return format!("{status} {body}, a duplicate");
    }
    format!("{status} {body}").chars().take(40).collect()
}

/// Returns a header of an answer, for the table.
pub(super) fn header(reply: &Reply, name: &str) -> String {
    let value = reply.headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or("-").to_owned()
}
