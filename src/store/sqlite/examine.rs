//! Checks whether a file can be the store, without creating a store in it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, MAIN_DB, OpenFlags};

use super::{
    file::{open_to_all, unusable},
    schema,
};
use crate::{finding::Finding, store::SUBJECT};

/// Checks a file or, if it does not exist, the folder that will contain it.
pub async fn examine(path: &Path, timeout: Duration) -> Vec<Finding> {
    let path = PathBuf::from(path);
    let looked = tokio::task::spawn_blocking(move || look(&path, timeout)).await;
    looked.unwrap_or_else(|_| vec![Finding::error(SUBJECT, "bug: a panic")])
}

fn look(path: &Path, timeout: Duration) -> Vec<Finding> {
    let place = path.display();
    let found = if path.exists() { file(path, timeout) } else { folder(path) };
    let found = found.map_err(|error| unusable(path, &*error));
    let mut findings = vec![match found {
        Ok(()) if path.exists() => Finding::ok(SUBJECT, format!("sqlite:{place} can be written")),
        Ok(()) => {
            Finding::ok(SUBJECT, format!("sqlite:{place} will be created when it is first opened"))
        }
        Err(text) => Finding::error(SUBJECT, text),
    }];
    findings.extend(open_to_all(path).map(|text| Finding::warning(SUBJECT, text)));
    findings
}

type Found = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Opens the file, and takes the lock that a claim takes.
fn file(path: &Path, timeout: Duration) -> Found {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(timeout)?;
    schema::missing(&connection)?;
    if connection.is_readonly(MAIN_DB)? {
        return Err("this user may not write to it".into());
    }
    Ok(connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?)
}

/// Creates an unnamed file in the folder. It disappears when it is closed.
fn folder(path: &Path) -> Found {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    tempfile::tempfile_in(folder.unwrap_or(Path::new(".")))?;
    Ok(())
}
