#![cfg_attr(feature = "libfuzzer", no_main)]

use libfuzzer_sys::fuzz_target;
use webhook_router_fuzz::sources;

fuzz_target!(|text: &str| sources::check(text));

#[cfg(not(feature = "libfuzzer"))]
fn main() {}
