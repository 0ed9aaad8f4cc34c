//! The signals that stop a command.

use tokio::signal::unix::{SignalKind, signal};

/// Returns a future that completes on SIGTERM, which Cloud Run and Kubernetes send, or on Ctrl-C.
///
/// # Errors
/// Fails if the process cannot handle signals.
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
