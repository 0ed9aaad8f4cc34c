#![cfg_attr(feature = "libfuzzer", no_main)]

use libfuzzer_sys::fuzz_target;
use webhook_router_fuzz::json;

fuzz_target!(|text: &[u8]| json::check(text));

#[cfg(not(feature = "libfuzzer"))]
fn main() {}
