//! The file of the store: how it is created and opened, and who may use it.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, config::DbConfig};

use super::schema;

/// The mode of a new file: only for its owner.
const MODE: u32 = 0o600;
/// Most statements that a connection keeps prepared. The store has fewer.
const STATEMENTS: usize = 64;
/// Pages that the write-ahead log collects before SQLite copies them into the file: 16 MB. Keys are
/// random, so each write changes a page that was not changed recently. With a longer log, more
/// changes of a page are in the log before SQLite copies the page.
const LOG_PAGES: u32 = 4000;
/// Most memory for pages of a connection, in the form of SQLite's `cache_size`: 8 MB.
const CACHE: i32 = -8192;
/// The bits of a mode for users who are neither the owner nor in the group.
const OTHERS: u32 = 0o007;

/// Creates an empty file, which SQLite turns into a database. The write-ahead log and its index get
/// the file's mode.
pub(super) fn create(path: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // An existing file is not even opened: closing it would release the locks that this process may
    // have on it (https://www.sqlite.org/howtocorrupt.html, 2.2).
    match fs::OpenOptions::new().write(true).create_new(true).mode(MODE).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => Ok(created.map(drop)?),
    }
}

/// Warns of a file that every user of this machine may use.
pub(super) fn open_to_all(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    let path = path.display();
    (mode & OTHERS != 0).then(|| {
        format!(
            "every user of this machine may use {path}, which holds payloads: \
             chmod o= {path} {path}-wal {path}-shm"
        )
    })
}

/// Describes why a file cannot be the store.
pub(super) fn unusable(
    path: &Path,
    error: &(dyn std::error::Error + Send + Sync + 'static),
) -> String {
    // SQLite also creates files beside the database.
    let is_refused = error.is::<io::Error>()
        || error
            .downcast_ref::<rusqlite::Error>()
            .and_then(rusqlite::Error::sqlite_error_code)
            .is_some_and(|code| matches!(code, ErrorCode::CannotOpen | ErrorCode::ReadOnly));
    let remedy = match is_refused {
        true if path.exists() => "; the file and its folder must be writable",
        true => "; its folder must exist and be writable",
        false => "",
    };
    format!("cannot open {}: {error}{remedy}", path.display())
}

/// Opens a connection to a file, and brings its layout up to date.
pub(super) fn connect(
    path: &Path,
    timeout: Duration,
) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
    // URIs are off: `file:x?mode=memory` would be a store that no other process shares.
    let flags = OpenFlags::default() & !OpenFlags::SQLITE_OPEN_URI;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(timeout)?;
    // This fails before anything is changed, if the file is another program's.
    schema::missing(&connection)?;
    // Without this, SQLite compiles some statements again for each new value of their parameters
    // (https://www.sqlite.org/c3ref/prepare.html).
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", CACHE)?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    // When two processes open a new file at once, it may be locked for a moment. SQLite does not
    // wait for that by itself.
    let mut tries = 0;
    while let Err(error) = connection.pragma_update(None, "journal_mode", "WAL") {
        let busy = error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy);
        if !busy || tries == 100 {
            return Err(error.into());
        }
        tries += 1;
        std::thread::sleep(timeout / 100);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    schema::apply(&transaction)?;
    transaction.commit()?;
    Ok(connection)
}
