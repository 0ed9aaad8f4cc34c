//! The signals that end a command.

use tokio::signal::unix::{SignalKind, signal};

/// SIGTERM, which Cloud Run and Kubernetes send, or Ctrl-C.
///
/// # Errors
/// When the process may not handle signals.
pub fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
