#![cfg_attr(feature = "libfuzzer", no_main)]

use libfuzzer_sys::fuzz_target;
use webhook_router_fuzz::destinations;

fuzz_target!(|text: &str| destinations::check(text));

#[cfg(not(feature = "libfuzzer"))]
fn main() {}
