//! The reader of timestamps: the text that a timestamp prints is read as the same timestamp.

#![cfg_attr(feature = "libfuzzer", no_main)]

use libfuzzer_sys::fuzz_target;
use webhook_router::timestamp::Timestamp;

fuzz_target!(|text: &str| {
    if let Ok(time) = Timestamp::parse(text) {
        assert_eq!(Timestamp::parse(&time.to_string()), Ok(time), "{time}");
    }
});

#[cfg(not(feature = "libfuzzer"))]
fn main() {}
