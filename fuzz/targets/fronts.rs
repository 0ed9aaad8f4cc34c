#![cfg_attr(feature = "libfuzzer", no_main)]

use libfuzzer_sys::fuzz_target;
use webhook_router_fuzz::fronts;

fuzz_target!(|event: &str| fronts::check(event));

#[cfg(not(feature = "libfuzzer"))]
fn main() {}
