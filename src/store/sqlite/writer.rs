//! The thread with the one connection that writes. Writes that wait for it share a commit.
//!
//! A commit waits for the disk, which takes about as long for many writes as for one. So the writes that come
//! during one commit are stored together by the next one:
//!
//! ```text
//! claim A ──┬ BEGIN, A, COMMIT ── disk ──┐ A is answered
//! claim B ──┼─────────── waits ──────────┤
//! finish C ─┼─────────── waits ──────────┤
//! claim D ──┴─────────── waits ──────────┴ BEGIN, B, C, D, COMMIT ── disk ──┐ B, C and D are answered
//! ```
//!
//! Each write succeeds or fails by itself. A write that fails has usually changed nothing. If it has changed
//! something, the transaction is rolled back, and each write gets a transaction of its own.
//!
//! While another process holds the write lock, a duplicate is answered from a read.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::{super::StoreError, store_error};

/// Most writes that share a commit.
const AT_ONCE: usize = 64;

/// The first and the longest pause before the lock that another process holds is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_LOCK_PAUSE: Duration = Duration::from_millis(25);

/// Time for the thread to end. Only a disk that hangs takes longer.
const LAST_WORK: Duration = Duration::from_secs(1);

/// The thread that writes. It ends when this is dropped.
pub(super) struct Writer {
    timeout: Duration,
    /// `None` while this is being dropped.
    writes: Option<Sender<Box<dyn Write>>>,
    /// Disconnected once the thread has closed its connection.
    ended: Mutex<Receiver<()>>,
}

/// A write that waits.
trait Write: Send {
    fn deadline(&self) -> Instant;
    /// Looks once for a result that needs no lock. Returns whether there is one.
    fn look(&mut self, connection: &Connection) -> bool;
    /// Runs the write as a part of a transaction, or again after a rollback. Returns whether it succeeded.
    fn run(&mut self, transaction: &Transaction<'_>) -> bool;
    /// Reports the result to the caller, when the transaction is committed or has failed.
    fn end(self: Box<Self>, committed: Result<(), StoreError>);
}

/// An operation, its result, and the caller who waits for it.
struct Waiting<T, L, F> {
    deadline: Instant,
    timeout: Duration,
    look: Option<L>,
    operation: F,
    result: Option<Result<T, StoreError>>,
    caller: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, L, F> Write for Waiting<T, L, F>
where
    T: Send,
    L: FnOnce(&Connection) -> rusqlite::Result<Option<T>> + Send,
    F: Fn(&Connection) -> rusqlite::Result<T> + Send,
{
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn look(&mut self, connection: &Connection) -> bool {
        let found = self.look.take().and_then(|look| look(connection).transpose());
        self.result = found.map(|found| found.map_err(|error| store_error(&error, self.timeout)));
        self.result.is_some()
    }

    fn run(&mut self, transaction: &Transaction<'_>) -> bool {
        let ran = (self.operation)(transaction);
        let is_ok = ran.is_ok();
        self.result = Some(ran.map_err(|error| store_error(&error, self.timeout)));
        is_ok
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
    /// Starts the thread.
    ///
    /// # Errors
    /// Fails if the system has no thread left.
    pub fn start(
        connection: Connection,
        timeout: Duration,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        // The thread waits for the lock by itself, so that it can answer duplicates meanwhile.
        connection.busy_timeout(Duration::ZERO)?;
        let (writes, waiting) = mpsc::channel();
        let (ends, ended) = mpsc::channel();
        thread::Builder::new().name("sqlite writer".into()).spawn(move || {
            work(&connection, &waiting, timeout);
            drop(connection);
            drop(ends);
        })?;
        Ok(Self { timeout, writes: Some(writes), ended: Mutex::new(ended) })
    }

    /// Runs an operation and commits it together with others. The operation begins by `deadline`, or not at all.
    /// An operation may run twice, but is committed once. While another process holds the lock, `look` may find
    /// the result without it.
    pub async fn write<T: Send + 'static>(
        &self,
        deadline: Instant,
        look: impl FnOnce(&Connection) -> rusqlite::Result<Option<T>> + Send + 'static,
        operation: impl Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (timeout, look, result) = (self.timeout, Some(look), None);
        let (caller, answer) = oneshot::channel();
        let waiting = Waiting { deadline, timeout, look, operation, result, caller };
        // The thread catches panics, so it is there as long as `self` is.
        let _ = self.writes.as_ref().map(|writes| writes.send(Box::new(waiting)));
        answer.await.unwrap_or_else(|_| Err(StoreError::Failed("bug: a panic".into())))
    }
}

impl Drop for Writer {
    /// Lets the thread run what waits, and close its connection.
    fn drop(&mut self) {
        self.writes = None;
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(LAST_WORK);
    }
}

/// Runs writes until nobody can send another.
fn work(connection: &Connection, writes: &Receiver<Box<dyn Write>>, timeout: Duration) {
    let mut waiting: Vec<Box<dyn Write>> = Vec::new();
    let mut pause = LOCK_PAUSE;
    // The number of writes at the front of `waiting` that must run each in a transaction of its
    // own, because one of them failed after it had changed something.
    let mut alone = 0_usize;
    loop {
        if waiting.is_empty() {
            let Ok(first) = writes.recv() else { return };
            waiting.push(first);
        }
        waiting.extend(writes.try_iter());
        let now = Instant::now();
        for late in waiting.extract_if(.., |write| write.deadline() <= now) {
            late.end(Err(StoreError::Timeout(timeout)));
        }
        let count = if alone > 0 { 1 } else { AT_ONCE }.min(waiting.len());
        let batch = &mut waiting[..count];
        // A panic rolls the transaction back, so the connection is sound.
        let Ok(committed) = catch_unwind(AssertUnwindSafe(|| run(connection, batch))) else {
            waiting.drain(..count);
            continue;
        };
        match committed {
            Ok(false) if count > 1 => alone = count,
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                for known in waiting.extract_if(.., |write| write.look(connection)) {
                    known.end(Ok(()));
                }
                // A new write ends the pause: if it is a duplicate, it needs no lock, and is
                // answered above.
                waiting.extend(writes.recv_timeout(pause));
                pause = (pause * 2).min(LONGEST_LOCK_PAUSE);
            }
            committed => {
                (pause, alone) = (LOCK_PAUSE, alone.saturating_sub(count));
                let committed = committed.map(|_| ()).map_err(|error| store_error(&error, timeout));
                for write in waiting.drain(..count) {
                    write.end(committed.clone());
                }
            }
        }
    }
}

/// Runs writes in a transaction that holds the write lock from its beginning. So the data that a write reads
/// cannot change before it writes. Returns whether the transaction is committed. If a write fails after it has
/// changed something, everything is rolled back.
fn run(connection: &Connection, writes: &mut [Box<dyn Write>]) -> rusqlite::Result<bool> {
    let immediate = TransactionBehavior::Immediate;
    let transaction = Transaction::new_unchecked(connection, immediate)?;
    for write in writes {
        let changes = transaction.total_changes();
        let is_ok = write.run(&transaction);
        // After some failures, such as a full disk, SQLite has rolled the transaction back by itself.
        if !is_ok && (transaction.total_changes() != changes || transaction.is_autocommit()) {
            return Ok(false);
        }
    }
    transaction.commit().map(|()| true)
}
