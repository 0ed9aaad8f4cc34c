//! The events that were answered at once, and their deliveries.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    super::{
        Acceptance, Accepted, Details, Due, Lease, Postponed, Record, Settled, State, Take, Taken,
        new_owner, stored,
    },
    clear_dead_letter, rows,
};
use crate::{delivery::Delivery, key::Key, plan::Plan, route::Route};

/// Stores an event in the inbox, unless its record prevents that.
pub(super) fn accept(
    connection: &Connection,
    plan: &Plan,
    delivery: &Delivery,
    now: DateTime<Utc>,
    due: DateTime<Utc>,
    look: DateTime<Utc>,
) -> rusqlite::Result<Accepted> {
    let found = rows::select(connection, &plan.key, now)?.filter(|found| !found.is_expired(now));
    let (details, attempts) = match found {
        Some(found) => {
            if let Some(taken) = rows::convert(found.against(plan, now))? {
                return Ok(Accepted::Taken(taken.into()));
            }
            let Record { details, attempts, .. } = found.record;
            (details.ok_or(rusqlite::Error::InvalidQuery)?, attempts)
        }
        None => (Details::new(plan, now), Vec::new()),
    };
    let key = plan.key.to_string();
    clear_dead_letter(connection, &plan.key)?;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO events
                 (key, details, attempts, owner, accepted, destination, due, ready)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            key,
            stored::to_json(&details),
            stored::to_json(&attempts),
            new_owner(),
            stored::to_json(&Acceptance::new(now, plan, delivery)),
            details.route.as_str(),
            look.timestamp_millis(),
            ready(due, look),
        ])?;
    connection
        .prepare_cached("INSERT OR REPLACE INTO deliveries (key, head, body) VALUES (?1, ?2, ?3)")?
        .execute(params![key, stored::delivery_head(delivery), delivery.body.as_ref()])?;
    Ok(Accepted::Stored { route: details.route })
}

/// Returns the value of the column `ready`: the time of the next attempt, if it is another time
/// than that in the list, which the column `due` has.
fn ready(due: DateTime<Utc>, look: DateTime<Utc>) -> Option<i64> {
    (due != look).then(|| due.timestamp_millis())
}

/// Returns the destinations that have events. The query reads one entry of the index for each.
pub(super) fn destinations(connection: &Connection) -> rusqlite::Result<Vec<Route>> {
    connection
        .prepare_cached(
            "WITH RECURSIVE named (destination) AS (
                 SELECT min(destination) FROM events WHERE due IS NOT NULL
                 UNION ALL
                 SELECT (SELECT min(destination) FROM events
                         WHERE due IS NOT NULL AND destination > named.destination)
                 FROM named WHERE named.destination IS NOT NULL)
             SELECT destination FROM named WHERE destination IS NOT NULL",
        )?
        .query_map([], |row| {
            row.get::<_, String>(0)?.parse().map_err(|_| rusqlite::Error::InvalidQuery)
        })?
        .collect()
}

/// Returns entries of a destination's list.
pub(super) fn due(
    connection: &Connection,
    route: Route,
    by_now: Option<DateTime<Utc>>,
    after: Option<Due>,
    limit: usize,
) -> rusqlite::Result<Vec<Due>> {
    let (after, after_key) = match after {
        Some(Due { at, key }) => (at.timestamp_millis(), key.to_string()),
        None => (i64::MIN, String::new()),
    };
    let by_now = by_now.map_or(i64::MAX, |now| now.timestamp_millis());
    connection
        .prepare_cached(
            "SELECT due, key FROM events
             WHERE destination = ?1 AND due IS NOT NULL AND due <= ?2 AND (due, key) > (?3, ?4)
             ORDER BY due, key LIMIT ?5",
        )?
        .query_map(params![route.as_str(), by_now, after, after_key, limit as i64], rows::due)?
        .collect()
}

/// Changes an entry of a destination's list.
pub(super) fn relist(
    connection: &Connection,
    route: Route,
    entry: Due,
    look: DateTime<Utc>,
) -> rusqlite::Result<Option<Due>> {
    let changed = connection
        .prepare_cached(
            "UPDATE events SET due = ?4, ready = coalesce(ready, due)
             WHERE key = ?1 AND destination = ?2 AND due = ?3",
        )?
        .execute(params![
            entry.key.to_string(),
            route.as_str(),
            entry.at.timestamp_millis(),
            look.timestamp_millis(),
        ])?;
    Ok((changed > 0).then_some(Due { at: look, key: entry.key }))
}

/// Takes a lease on an event.
pub(super) fn take(
    connection: &Connection,
    key: &Key,
    early: bool,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> rusqlite::Result<Take> {
    let found = rows::select(connection, key, now)?.map(|found| found.record);
    let Some(Record { details: Some(details), attempts, accepted: Some(accepted), state, .. }) =
        found
    else {
        return Ok(Take::Gone);
    };
    match state {
        State::InFlight { until, .. } => return Ok(Take::NotDue(until)),
        State::Waiting { due } if due > now && !early => return Ok(Take::NotDue(due)),
        _ => {}
    }
    let owner = new_owner();
    connection
        .prepare_cached(
            "UPDATE events SET owner = ?2, until = ?3, due = ?3, ready = NULL WHERE key = ?1",
        )?
        .execute(params![key.to_string(), owner, until.timestamp_millis()])?;
    let delivery = connection
        .prepare_cached("SELECT head, body FROM deliveries WHERE key = ?1")?
        .query_row([key.to_string()], rows::delivery)
        .optional()?
        // A record without its delivery cannot be read.
        .ok_or(rusqlite::Error::InvalidQuery)?;
    let lease = Lease { key: *key, owner, until, details, attempts };
    Ok(Take::Won(Box::new(Taken { lease, accepted, delivery })))
}

/// Gives an event back until its next attempt is due.
pub(super) fn postpone(
    connection: &Connection,
    lease: &Lease,
    postponed: &Postponed,
) -> rusqlite::Result<Settled> {
    let Postponed { due, look, accepted, attempts, .. } = postponed;
    let changed = connection
        .prepare_cached(
            "UPDATE events SET until = NULL, due = ?3, accepted = ?4, attempts = ?5, ready = ?6
             WHERE key = ?1 AND owner = ?2 AND accepted IS NOT NULL",
        )?
        .execute(params![
            lease.key.to_string(),
            lease.owner,
            look.timestamp_millis(),
            stored::to_json(accepted),
            stored::to_json(attempts),
            ready(*due, *look),
        ])?;
    Ok(if changed == 0 { Settled::LeaseLost } else { Settled::Stored })
}

/// Returns the delivery of an event of the inbox, or of a dead letter.
pub(super) fn delivery(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Delivery>> {
    connection
        .prepare_cached(
            "SELECT head, body FROM deliveries WHERE key = ?1
             UNION ALL SELECT head, body FROM dead_letters WHERE key = ?1 LIMIT 1",
        )?
        .query_row([key.to_string()], rows::delivery)
        .optional()
}

/// Deletes the delivery of an event that leaves the inbox.
pub(super) fn clear_delivery(connection: &Connection, key: &Key) -> rusqlite::Result<usize> {
    connection.prepare_cached("DELETE FROM deliveries WHERE key = ?1")?.execute([key.to_string()])
}
