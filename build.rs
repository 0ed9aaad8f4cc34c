//! Links the released function without relocations.
//!
//! A program that may be loaded at any address (PIE) has its tables of pointers adjusted before it starts. In the
//! function that is 45,000 pointers on 150 pages, each a page fault, and a sixth of a cold start. The price is that
//! the addresses of the program's own code are known. Those of stack, heap and libraries still are not.

use std::env;

fn main() {
    let is = |name, value| env::var(name).is_ok_and(|set| set == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("PROFILE", "release") {
        println!("cargo::rustc-link-arg-bin=webhook-function=-no-pie");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
