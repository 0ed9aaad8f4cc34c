//! The reader of timestamps: the text that a timestamp prints is read as the same timestamp.

use webhook_router::timestamp::Timestamp;

/// Checks one input, and panics if it finds a fault.
pub fn check(text: &str) {
    if let Ok(time) = Timestamp::parse(text) {
        assert_eq!(Timestamp::parse(&time.to_string()), Ok(time), "{time}");
    }
}
