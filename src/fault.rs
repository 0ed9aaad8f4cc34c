//! Places where a test may end the process, to show what a crash there leaves behind.
//!
//! `FAULT_POINT` names the place, and how many-th time it is reached: `after send:2`; or with `panic`
//! before it, a place to panic at. Only the feature `fault-points` compiles this in; no released
//! build has it.

/// Ends the process, as a crash would, when a test has chosen this place.
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
