//! The limits of a server: connections, buffered bytes and open files.

use std::sync::Arc;

use super::buffers::Buffers;

/// Number of connections beyond the limit that still get an answer: `GET /healthz` and `GET /readyz`
/// as usual, and every other request 503.
pub const RESERVE: usize = 16;

/// File descriptors for everything but senders and destinations: the store, the listeners, the
/// metrics.
const OWN_FILES: usize = 64;

/// The limits of a server.
#[derive(Clone)]
pub struct Limits {
    pub(super) connections: usize,
    pub(super) buffers: Arc<Buffers>,
}

impl Limits {
    pub fn new(connections: usize, buffered_bytes: usize) -> Self {
        Self { connections, buffers: Buffers::new(buffered_bytes) }
    }

    /// Raises the soft limit of open files as far as the process may, and limits the connections to
    /// it. Each connection may need a second one to a destination.
    #[must_use]
    pub fn within_open_files(self) -> Self {
        let files = match rlimit::increase_nofile_limit(u64::MAX) {
            Ok(files) => usize::try_from(files).unwrap_or(usize::MAX),
            Err(error) => {
                tracing::warn!(%error, "the limit of open files cannot be read or raised");
                return self;
            }
        };
        let fitting = (files.saturating_sub(OWN_FILES + RESERVE) / 2).max(1);
        if fitting < self.connections {
            tracing::warn!(
                "connections are limited to {fitting}, not MAX_CONNECTIONS={}: the process may open \
                 no more than {files} files (ulimit -n)",
                self.connections
            );
        }
        Self { connections: self.connections.min(fitting), ..self }
    }
}
