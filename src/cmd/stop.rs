//! The signals that stop a command.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM, which Cloud Run and Kubernetes send, and SIGINT of Ctrl-C.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Handles these signals from now on: they no longer end the process.
    ///
    /// # Errors
    /// Fails if the process cannot handle signals.
    pub fn listen() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { terminate, interrupt })
    }

    /// Waits for the next signal. A signal that came after the previous one counts, even if nobody
    /// was waiting for it.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Returns a future that completes on the first signal.
///
/// # Errors
/// Fails if the process cannot handle signals.
pub fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut signals = StopSignals::listen()?;
    Ok(async move { signals.next().await })
}
