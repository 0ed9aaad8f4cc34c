//! Fault points: places where a test ends the process, to show what a crash there leaves behind.
//!
//! `FAULT_POINT` names the place and, optionally, the visit: `after send:2` means the second visit.
//! With `panic` in front, the process panics there instead of ending. Only builds with the feature
//! `fault-points` have this code. Released builds do not.

/// Ends the process, as a crash would, if a test chose this place.
#[cfg(feature = "fault-points")]
pub fn point(place: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};

    static REACHED: AtomicU32 = AtomicU32::new(0);
    let Ok(chosen) = std::env::var("FAULT_POINT") else { return };
    let (chosen, time) = chosen.split_once(':').unwrap_or((&chosen, "1"));
    let (chosen, panics) = match chosen.strip_prefix("panic ") {
        Some(chosen) => (chosen, true),
        None => (chosen, false),
    };
    if chosen == place && (REACHED.fetch_add(1, Ordering::SeqCst) + 1).to_string() == time {
        assert!(!panics, "a test wanted it");
        std::process::abort();
    }
}

#[cfg(not(feature = "fault-points"))]
pub fn point(_place: &str) {}

/// Returns a pause, or the shorter one that a test chose with the variable.
#[cfg(feature = "fault-points")]
pub fn pause(variable: &str, pause: std::time::Duration) -> std::time::Duration {
    let chosen = std::env::var(variable).ok().and_then(|millis| millis.parse().ok());
    chosen.map_or(pause, std::time::Duration::from_millis)
}

#[cfg(not(feature = "fault-points"))]
pub fn pause(_variable: &str, pause: std::time::Duration) -> std::time::Duration {
    pause
}
