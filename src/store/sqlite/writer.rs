//! The one connection that writes. Writes that wait for it share a commit.
//!
//! A commit waits for the disk, which takes milliseconds however much it stores. So the writes that
//! come during one commit are stored together by the next one. Each of them is a savepoint, and
//! succeeds or fails by itself (<https://www.sqlite.org/lang_savepoint.html>).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::{super::StoreError, store_error};

/// Most writes that share a commit.
const AT_ONCE: usize = 64;

/// The connection, and the writes that wait for it.
pub(super) struct Writer {
    connection: Mutex<Connection>,
    waiting: Mutex<VecDeque<Box<dyn Write>>>,
    timeout: Duration,
}

/// A write that waits.
trait Write: Send {
    fn deadline(&self) -> Instant;
    /// Runs the write as a part of a transaction.
    fn run(&mut self, transaction: &mut Transaction<'_>, timeout: Duration);
    /// Reports the result to the caller, when the transaction is committed or has failed.
    fn end(self: Box<Self>, committed: Result<(), StoreError>);
}

/// An operation, its result, and the caller who waits for it.
struct Waiting<T, F> {
    deadline: Instant,
    operation: Option<F>,
    result: Option<Result<T, StoreError>>,
    caller: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Write for Waiting<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
{
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn run(&mut self, transaction: &mut Transaction<'_>, timeout: Duration) {
        let Some(operation) = self.operation.take() else { return };
        let run = || -> rusqlite::Result<T> {
            let savepoint = transaction.savepoint()?;
            let result = operation(&savepoint)?;
            savepoint.commit()?;
            Ok(result)
        };
        self.result = Some(run().map_err(|error| store_error(&error, timeout)));
    }

    fn end(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = match (committed, self.result) {
            (Ok(()), Some(result)) => result,
            (Err(error), _) => Err(error),
            (Ok(()), None) => Err(StoreError::Failed("bug: a write was not run".into())),
        };
        // A caller that is gone has given up.
        let _ = self.caller.send(result);
    }
}

impl Writer {
    pub fn new(connection: Connection, timeout: Duration) -> Self {
        Self { connection: Mutex::new(connection), waiting: Mutex::default(), timeout }
    }

    /// Runs an operation and commits it together with others. The operation begins by `deadline`, or
    /// not at all.
    pub async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        deadline: Instant,
        operation: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (caller, result) = oneshot::channel();
        let operation = Some(operation);
        self.waiting().push_back(Box::new(Waiting { deadline, operation, result: None, caller }));
        let writer = Arc::clone(self);
        tokio::task::spawn_blocking(move || writer.work());
        result.await.unwrap_or_else(|_| Err(StoreError::Failed("bug: a panic".into())))
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Box<dyn Write>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the writes that wait, unless another thread has run them already.
    fn work(&self) {
        // A panic has rolled its transaction back, so the connection is sound.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waiting = self.waiting();
        let count = waiting.len().min(AT_ONCE);
        let (late, mut batch): (Vec<_>, Vec<_>) =
            waiting.drain(..count).partition(|write| write.deadline() <= Instant::now());
        drop(waiting);
        for write in late {
            write.end(Err(StoreError::Timeout(self.timeout)));
        }
        let committed = self.commit(&mut connection, &mut batch);
        let committed = committed.map_err(|error| store_error(&error, self.timeout));
        for write in batch {
            write.end(committed.clone());
        }
    }

    /// Runs writes in one transaction, which holds the write lock from its beginning. So the data
    /// that a write reads cannot change before it writes.
    fn commit(
        &self,
        connection: &mut Connection,
        batch: &mut [Box<dyn Write>],
    ) -> rusqlite::Result<()> {
        let Some(first) = batch.iter().map(|write| write.deadline()).min() else { return Ok(()) };
        connection.busy_timeout(first.saturating_duration_since(Instant::now()))?;
        let mut transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for write in batch {
            write.run(&mut transaction, self.timeout);
        }
        transaction.commit()
    }
}
