//! The tables of the database, and the steps that update the file of an earlier version.

use rusqlite::{Connection, Transaction};

/// The version of the layout, kept in the file's `user_version`.
const VERSION: usize = STEPS.len();

/// The steps from each version to the next. An empty file has version 0.
///
/// Times are milliseconds since 1970. While an event's row has `until`, another owner may take it
/// over only after that time: the event is in flight, or it has failed with an unknown outcome. It
/// is delivered once it has `delivered_at`, and in the inbox while it has `due`, its time in the
/// list. Otherwise, the event only has its dead letter. `owner` is the last owner.
const STEPS: [&str; 3] = [
    "
    CREATE TABLE events (
        key           TEXT PRIMARY KEY,
        details       TEXT NOT NULL,
        attempts      TEXT NOT NULL DEFAULT '[]',
        owner         TEXT NOT NULL,
        until         INTEGER,
        delivered_at  INTEGER,
        expires_at    INTEGER,
        reply_head    TEXT,
        reply_body    BLOB
    ) WITHOUT ROWID;
    CREATE INDEX events_by_expiry ON events (expires_at) WHERE expires_at IS NOT NULL;
    CREATE TABLE dead_letters (
        key        TEXT PRIMARY KEY REFERENCES events (key),
        failed_at  INTEGER NOT NULL,
        failure    TEXT NOT NULL,
        head       TEXT NOT NULL,
        body       BLOB NOT NULL
    );
    CREATE INDEX dead_letters_by_time ON dead_letters (failed_at, key);
    ",
    // The deliveries of the inbox have a table of their own, so that a lease does not rewrite a
    // body.
    "
    ALTER TABLE events ADD COLUMN accepted TEXT;
    ALTER TABLE events ADD COLUMN destination TEXT;
    ALTER TABLE events ADD COLUMN due INTEGER;
    CREATE INDEX events_by_due ON events (destination, due, key) WHERE due IS NOT NULL;
    CREATE TABLE deliveries (
        key   TEXT PRIMARY KEY REFERENCES events (key),
        head  TEXT NOT NULL,
        body  BLOB NOT NULL
    );
    ",
    // The time of the next attempt, if it is another time than `due`.
    "
    ALTER TABLE events ADD COLUMN ready INTEGER;
    ",
];

/// Brings a file to this version's layout.
pub(super) fn apply(
    transaction: &Transaction<'_>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let steps = missing(transaction)?;
    for step in steps {
        transaction.execute_batch(step)?;
    }
    if !steps.is_empty() {
        transaction.pragma_update(None, "user_version", VERSION as i64)?;
    }
    Ok(())
}

/// Returns the steps from a file's layout to this version's.
///
/// # Errors
/// Fails if a later version made the file, or if it is the database of another program.
pub(super) fn missing(
    connection: &Connection,
) -> Result<&'static [&'static str], Box<dyn std::error::Error + Send + Sync>> {
    // One statement: another process may create the tables now, together with the version.
    let looked = "SELECT (SELECT user_version FROM pragma_user_version), count(*),
        count(*) FILTER (WHERE name IN ('events', 'dead_letters')) FROM sqlite_schema";
    let (found, all, own): (i64, i64, i64) =
        connection.query_row(looked, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let is_another = if found == 0 { all > 0 } else { own < 2 };
    if is_another {
        return Err("it is the database of another program".into());
    }
    let steps = usize::try_from(found).ok().and_then(|found| STEPS.get(found..));
    let newer = || format!("a later version made it: its layout is {found}, not {VERSION}");
    Ok(steps.ok_or_else(newer)?)
}
